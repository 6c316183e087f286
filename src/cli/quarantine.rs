//! `forebay quarantine`: the events that were put aside.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use forebay::Config;
use forebay::store::batch::Quarantined;
use forebay::store::{StoreError, open_snapshots};
use serde_json::{Value as Json, json};

use super::addresses;
use super::args::{Global, Quarantine};
use super::exit::{Code, Failure};
use super::out::{plain, print_json, print_text, width};
use super::table::underline_header;

/// Columns of the table.
const COLUMNS: [&str; 7] = ["file", "line", "block", "region", "stage", "error", "event"];

/// The least that is shown of an event.
const EVENT_CHARS_MIN: usize = 20;

/// The most that is shown of an error, so that the event is seen too.
const ERROR_CHARS_MAX: usize = 80;

pub(super) fn quarantine(args: &Quarantine, global: &Global) -> Result<Code, Failure> {
    let config = Config::read(&args.pipeline)?;
    let url = addresses::store(args.store.as_ref(), &config)?;
    let found = match open_snapshots(&url) {
        Ok(mut reader) => reader.quarantined(&config.name)?,
        // A pipeline that never ran has put nothing aside.
        Err(StoreError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if args.json {
        return print_json(found.iter().map(as_json));
    }
    if found.is_empty() {
        return if global.quiet { Ok(Code::Done) } else { print_text(["no event is in quarantine"]) };
    }
    print_text(table(&found).lines())
}

fn as_json(event: &Quarantined) -> Json {
    json!({
        "file": event.file,
        "line": event.line,
        "block": event.block,
        "place": event.place,
        "region": event.region,
        "stage": event.stage.name(),
        "error": event.error,
        "event": event.event,
        "time": event.time.to_millis_text(),
    })
}

/// One line an event; what does not fit is cut.
fn table(found: &[Quarantined]) -> String {
    let rows: Vec<[String; 6]> = found.iter().map(cells).collect();
    let widest = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).max(COLUMNS[at].len());
    // Two spaces of padding a column.
    let taken: usize = (0..COLUMNS.len() - 1).map(|at| widest(at) + 2).sum();
    let left = width().saturating_sub(taken + 2).max(EVENT_CHARS_MIN);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(COLUMNS);
    for (row, event) in rows.iter().zip(found) {
        table.add_row(row.iter().cloned().chain([cut(&plain(&event.event), left)]));
    }
    for at in [1, 2] {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    underline_header(&table.to_string())
}

fn cells(event: &Quarantined) -> [String; 6] {
    [
        plain(&event.file).into_owned(),
        event.line.to_string(),
        event.block.to_string(),
        event.region.as_deref().map_or_else(String::new, |region| plain(region).into_owned()),
        event.stage.name().to_owned(),
        cut(&plain(&event.error), ERROR_CHARS_MAX),
    ]
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
