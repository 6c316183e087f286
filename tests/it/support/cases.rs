//! Tables of cases of what is refused: the pipeline that they change, and what is wrong with how a command failed.

use super::project::{Outcome, Project};

/// A pipeline with a column of every type.
pub const PIPELINE: &str = r#"name = "p"
[source]
path = "events.ndjson"
[regions]
ids = ["r", "s"]
[entities.thing]
columns = { txt = "text", yes = "boolean", big = "bigint", dbl = "double", num = "numeric", at = "timestamptz", doc = "jsonb", raw = "bytes" }
indexes = ["big"]
[handlers]
script = "handlers.lua"
[batch]
events = 1
[rollback]
depth = 0
[store]
url = "sqlite:p.db"
[snapshots]
every = "end"
"#;

pub const SCRIPT: &str = "function on_event(event, ctx) ctx.thing:set(event.block, { big = event.block }) end\n";

/// What no message may hold: the inside of the program.
const INSIDE: [&str; 5] = ["panicked at", "overflowed its stack", "bug in forebay", "inner:", "stack traceback"];

/// Events of one region, one a block.
pub fn blocks(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// `text` with `old` replaced, which must be there.
pub fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old:?} is not in\n{text}");
    text.replacen(old, new, 1)
}

/// What is not as it should be with how a command failed; none if all is.
pub fn complaint(name: &str, outcome: &Outcome, code: i32, says: &[&str]) -> Option<String> {
    let stderr = outcome.stderr();
    let missing = says.iter().filter(|text| !stderr.contains(**text));
    let mut wrong: Vec<String> = missing.map(|text| format!("expected stderr to say {text:?}")).collect();
    wrong.extend(
        INSIDE.iter().filter(|text| stderr.contains(**text)).map(|text| format!("stderr must not say {text:?}")),
    );
    if outcome.code() != Some(code) {
        wrong.push(format!("expected exit code {code}"));
    }
    if wrong.is_empty() { None } else { Some(format!("== {name}: {}\n{outcome}\n", wrong.join("; "))) }
}

/// As [`complaint`]; and nothing may have been made in the folder.
pub fn complaint_untouched(name: &str, project: &Project, outcome: &Outcome, says: &[&str]) -> Option<String> {
    let complaint = complaint(name, outcome, 2, says);
    let made = databases(project);
    if made.is_empty() {
        return complaint;
    }
    Some(format!("{}== {name}: it made {}\n", complaint.unwrap_or_default(), made.join(", ")))
}

/// Fails with all complaints at once: one run shows every case that is wrong.
#[track_caller]
pub fn assert_none(complaints: impl IntoIterator<Item = Option<String>>) {
    let complaints: Vec<String> = complaints.into_iter().flatten().collect();
    assert!(complaints.is_empty(), "{} cases are wrong\n{}", complaints.len(), complaints.concat());
}

/// The database files of a project's folder, and what belongs to them.
pub fn databases(project: &Project) -> Vec<String> {
    let entries = std::fs::read_dir(project.path("")).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".db")).collect()
}
