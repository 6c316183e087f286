//! The line of state of a run that follows its source, as a person sees it on a real terminal.

use std::fs::OpenOptions;
use std::io::Write;

use crate::support::project::Project;
use crate::support::screen::Terminal;

const PIPELINE: &str = r#"name = "shop"
[source]
path = "events.ndjson"
settle = "50ms"
[entities.product]
columns = { sold = "bigint" }
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:shop.db"
"#;

const SCRIPT: &str = "function on_event(event, ctx) ctx.product:add(\"all\", { sold = 1 }) end\n";

fn line(block: i64) -> String {
    format!("{{\"block\":{block},\"region\":\"r\"}}\n")
}

fn append(project: &Project, text: &str) {
    let mut file = OpenOptions::new().append(true).open(project.path("events.ndjson")).expect("the events");
    file.write_all(text.as_bytes()).expect("the events");
}

fn project() -> Project {
    Project::with(PIPELINE, SCRIPT, &(line(1) + &line(2)))
}

fn follow(project: &Project, columns: usize, variables: &[(&str, &str)]) -> Terminal {
    Terminal::start(project, columns, variables, &["run", "pipeline.toml", "--follow"])
}

fn is_state(row: &str) -> bool {
    ["starting", "backfill", "live", "draining"].iter().any(|phase| row.contains(&format!("{phase}  block")))
}

#[test]
fn one_line_says_phase_block_pace_and_what_limits_and_each_phase_is_told_once() {
    let project = project();
    let mut terminal = follow(&project, 120, &[]);
    terminal.shows(|row| is_state(row) && row.contains("live  block 2") && row.contains("events/s"));
    terminal.shows(|row| row.contains("live: the end of the source is reached, block "));
    append(&project, &line(5));
    terminal.shows(|row| is_state(row) && row.contains("block 5"));
    append(&project, &line(1234));
    terminal.shows(|row| is_state(row) && row.contains("block 1234") && row.contains("limited by"));
    let rows = terminal.rows();
    assert_eq!(rows.iter().filter(|row| is_state(row)).count(), 1, "{rows:#?}");
    let told = |phase: &str| rows.iter().filter(|row| row.contains(phase)).count();
    assert_eq!(told("live: the end of the source is reached"), 1, "{rows:#?}");
    // It may be over before anybody has looked.
    assert!(told("backfill: from the beginning of the source") <= 1, "{rows:#?}");
    // Ctrl-C.
    terminal.press("\u{3}");
    assert_eq!(terminal.ends(), Some(130));
    let rows = terminal.rows();
    // The terminal shows the key itself too, at the end of the line, and so in the next row: the line above may stay.
    assert!(rows.iter().filter(|row| is_state(row)).count() <= 1, "{rows:#?}");
    let summary = rows.iter().position(|row| row.starts_with("shop  4 events")).expect("a summary");
    assert!(!rows[summary..].iter().any(|row| is_state(row)), "the line is gone: {rows:#?}");
    assert!(rows.iter().any(|row| row.contains("checkpoint  block 1234")), "{rows:#?}");
    assert!(terminal.written().contains("\u{1b}[32m"), "messages are coloured");
}

#[test]
fn in_forty_columns_without_colours_it_is_still_one_line() {
    let project = project();
    let mut terminal = follow(&project, 40, &[("NO_COLOR", "1")]);
    terminal.shows(|row| is_state(row) && row.contains("live  block 2"));
    for block in 3..=9 {
        append(&project, &line(block));
        terminal.shows(|row| is_state(row) && row.contains(&format!("block {block}")));
    }
    let rows = terminal.rows();
    assert_eq!(rows.iter().filter(|row| is_state(row)).count(), 1, "{rows:#?}");
    assert!(rows.iter().all(|row| row.chars().count() <= 40));
    let state = rows.iter().position(|row| is_state(row)).expect("a state");
    assert_eq!(rows.len(), state + 1, "nothing is left below it: {rows:#?}");
    terminal.press("\u{3}");
    assert_eq!(terminal.ends(), Some(130));
    let written = terminal.written();
    let colours = written.split("\u{1b}[").skip(1).filter_map(|rest| {
        let (code, _) = rest.split_once(|end: char| end.is_ascii_alphabetic())?;
        rest[code.len()..].starts_with('m').then(|| code.to_owned())
    });
    assert_eq!(colours.collect::<Vec<_>>(), Vec::<String>::new(), "{written:?}");
}
