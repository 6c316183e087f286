//! What `forebay publish --json` says.

use serde_json::Value as Json;

use super::project::Outcome;

/// Region and status of each line but the last, and the last.
pub fn statuses(outcome: &Outcome) -> (Vec<(String, String)>, Json) {
    let mut lines = outcome.json_lines();
    let last = lines.pop().expect("a summary");
    let text = |line: &Json, name: &str| line[name].as_str().unwrap_or("null").to_owned();
    (lines.iter().map(|line| (text(line, "region"), text(line, "status"))).collect(), last)
}

/// The same, to compare them with.
pub fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(region, status)| ((*region).to_owned(), (*status).to_owned())).collect()
}
