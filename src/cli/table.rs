//! Snapshots as a table that a person reads: one line a region, the document's plain fields as columns.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use forebay::store::StoredSnapshot;
use serde_json::{Map, Value as Json};

use super::out::{age, count, plain, seconds_since, width};

/// The longest text of a document that is shown whole.
const CELL_CHARS_MAX: usize = 40;

/// The columns that every snapshot has.
const FIXED: [&str; 4] = ["region", "seq", "block", "age"];

/// The table of some snapshots.
pub(super) fn snapshots(found: &[StoredSnapshot]) -> String {
    let docs: Vec<Map<String, Json>> = found.iter().map(fields).collect();
    let fixed: Vec<Vec<String>> = found.iter().map(fixed_cells).collect();
    let shown = columns_that_fit(&docs, &fixed);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let names = FIXED.iter().map(|name| (*name).to_owned());
    let names = names.chain(shown.iter().map(|(name, _)| plain(name).into_owned()));
    table.set_header(names);
    for (cells, doc) in fixed.iter().zip(&docs) {
        let of_doc = shown.iter().map(|(name, _)| doc.get(name).map_or_else(String::new, cell_text));
        table.add_row(cells.iter().cloned().chain(of_doc));
    }
    let numbers = shown.iter().map(|(name, _)| docs.iter().any(|doc| doc.get(name).is_some_and(Json::is_number)));
    for (at, is_number) in [false, true, true, true].into_iter().chain(numbers).enumerate() {
        if let Some(column) = table.column_mut(at).filter(|_| is_number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    underline_header(&table.to_string())
}

pub(super) fn underline_header(table: &str) -> String {
    let mut lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    let wide = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let rule = "─".repeat(wide);
    lines.insert(1.min(lines.len()), &rule);
    lines.join("\n")
}

fn fields(snapshot: &StoredSnapshot) -> Map<String, Json> {
    match serde_json::from_str(&snapshot.doc) {
        Ok(Json::Object(fields)) => fields,
        Ok(other) => Map::from_iter([("document".to_owned(), other)]),
        Err(_) => Map::new(),
    }
}

fn fixed_cells(snapshot: &StoredSnapshot) -> Vec<String> {
    vec![
        plain(&snapshot.region).into_owned(),
        snapshot.seq.map_or_else(String::new, |seq| seq.to_string()),
        snapshot.block.map_or_else(String::new, |block| block.to_string()),
        snapshot.generated_at.as_deref().map_or_else(String::new, |time| age(seconds_since(time))),
    ]
}

/// The fields of the documents that fit beside the fixed columns, plain ones first.
fn columns_that_fit(docs: &[Map<String, Json>], fixed: &[Vec<String>]) -> Vec<(String, usize)> {
    let mut names: Vec<&String> = Vec::new();
    for name in docs.iter().flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let is_plain = |name: &String| {
        docs.iter().filter_map(|doc| doc.get(name)).all(|value| !value.is_array() && !value.is_object())
    };
    names.sort_by_key(|name| !is_plain(name));
    // Two spaces of padding a column.
    let widest =
        |at: usize| fixed.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0).max(FIXED[at].len()) + 2;
    let mut left = width().saturating_sub((0..FIXED.len()).map(widest).sum());
    let mut shown = Vec::new();
    for name in names {
        let cells = docs.iter().filter_map(|doc| doc.get(name)).map(|value| cell_text(value).chars().count());
        let wide = cells.max().unwrap_or(0).max(name.chars().count()) + 2;
        if wide <= left {
            left -= wide;
            shown.push((name.clone(), wide));
        }
    }
    shown
}

fn cell_text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => shorten(&plain(text)),
        Json::Number(number) => number.as_u64().map_or_else(|| number.to_string(), count),
        Json::Bool(value) => value.to_string(),
        Json::Array(items) => format!("{} items", items.len()),
        Json::Object(fields) => format!("{} fields", fields.len()),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
