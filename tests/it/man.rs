//! The man pages: what `man` makes of them, and what `forebay man` leaves alone.

use std::process::Command;

use crate::support::project::Project;

fn pages(project: &Project) -> Vec<String> {
    let entries = std::fs::read_dir(project.path("man1")).expect("the pages");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The text of a page as a reader sees it, where there is a `man`; else the page as it was made.
fn shown(project: &Project, name: &str) -> String {
    let mut command = Command::new("man");
    command.args(["--warnings", "-P", "cat", "-l"]).arg(project.path("man1").join(name));
    command.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8").env("MAN_KEEP_FORMATTING", "");
    match command.output() {
        Ok(output) if output.status.success() => {
            let wrong = String::from_utf8_lossy(&output.stderr);
            assert!(wrong.is_empty(), "{name}: {wrong}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => std::fs::read_to_string(project.path("man1").join(name)).expect(name),
    }
}

/// What mandoc says of a page, where it is there.
fn lint(project: &Project, name: &str) {
    let Ok(output) = Command::new("mandoc").args(["-Tlint", "-Werror"]).arg(project.path("man1").join(name)).output()
    else {
        return;
    };
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Only requests that every `man` knows.
fn check_requests(page: &str) {
    const KNOWN: [&str; 18] = [
        ".\\\"", ".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".EX", ".EE", ".ie", ".el", ".br", ".sp", ".nf",
        ".fi", ".B", ".I",
    ];
    for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
        let request = line.split(' ').next().unwrap_or_default();
        assert!(KNOWN.contains(&request), "{line}");
    }
}

#[test]
fn each_command_has_a_page_that_man_shows() {
    let project = Project::new();
    let said = project.forebay(&["man", "share/man1"]).ok().stdout();
    std::fs::rename(project.path("share/man1"), project.path("man1")).expect("the folder is made");
    let help = project.forebay(&["--help"]).ok().stdout();
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("commands");
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut expected: Vec<String> = names.map(|name| format!("forebay-{name}.1")).collect();
    expected.push("forebay.1".into());
    expected.sort();
    assert_eq!(pages(&project), expected);
    assert!(said.starts_with(&format!("{} pages in share/man1\n", expected.len())), "{said}");
    for name in &expected {
        check_requests(&std::fs::read_to_string(project.path("man1").join(name)).expect(name));
        lint(&project, name);
        let text = shown(&project, name);
        for part in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO", "130"] {
            assert!(text.contains(part), "{name} has no {part}:\n{text}");
        }
    }
    let run = shown(&project, "forebay-run.1");
    let title = format!("forebay {}", env!("CARGO_PKG_VERSION"));
    for text in [
        &title,
        "forebay run [OPTIONS] <PIPELINE>",
        "OPTIONS OF EVERY COMMAND",
        "--until",
        "--drain-timeout",
        "forebay run pipeline.toml --follow",
        "stopped by a signal",
    ] {
        assert!(run.replace("\\-", "-").contains(text), "{text}:\n{run}");
    }
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let project = Project::new();
    let write = || project.forebay(&["man", "man1"]);
    write().ok();
    let page = std::fs::read_to_string(project.path("man1/forebay-run.1")).expect("a page");
    // One that an earlier version has made is replaced.
    project.write("man1/forebay-run.1", page.replace("--until", "--till"));
    write().ok();
    assert_eq!(std::fs::read_to_string(project.path("man1/forebay-run.1")).expect("a page"), page);
    std::fs::remove_file(project.path("man1/forebay.1")).expect("a page");
    project.write("man1/forebay-show.1", ".TH mine 1\n");
    project.write("man1/other.1", "other");
    write().fails(2, &["man1/forebay-show.1", "was not made by forebay man", "choose another folder"]);
    assert_eq!(std::fs::read_to_string(project.path("man1/forebay-show.1")).expect("mine"), ".TH mine 1\n");
    assert!(!project.path("man1/forebay.1").exists());
    std::fs::remove_file(project.path("man1/forebay-show.1")).expect("mine");
    write().ok();
    assert_eq!(std::fs::read_to_string(project.path("man1/other.1")).expect("other"), "other");
    project.write("file", "");
    project.forebay(&["man", "file/man1"]).fails(2, &["file/man1"]);
    assert_eq!(project.forebay(&["man", "man1", "-q"]).ok().stdout(), "");
}
