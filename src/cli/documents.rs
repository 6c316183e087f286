//! The reference says what the program has: commands, options with their defaults, keys of the pipeline file, exit codes.
//!
//! `FOREBAY_BLESS=1 cargo test --bin forebay documents` mends docs/reference.md: what stands between `<!-- made …` and
//! `<!-- end -->` is made of the code, an option that is lacking gets a row with its help text, and a row of an option that
//! is gone goes too. What a key means only a person can say.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory, Parser};
use forebay::publish::TargetUrl;
use forebay::store::StoreUrl;

use super::args::Args;
use super::examples::examples;
use super::exit::Code;

const MEND: &str = "FOREBAY_BLESS=1 cargo test --bin forebay documents";

fn program() -> Command {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    program
}

fn commands(program: &Command) -> Vec<&Command> {
    program.get_subcommands().filter(|command| !command.is_hide_set()).collect()
}

fn reference() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")
}

fn options(command: &Command) -> Vec<&Arg> {
    let is_shown = |arg: &&Arg| arg.get_long().is_some_and(|long| long != "help" && long != "version");
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set()).filter(is_shown).collect()
}

fn long(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

/// The default, of the declaration or of the help text.
fn default(arg: &Arg) -> Option<String> {
    if let Some(value) = arg.get_default_values().first().filter(|_| arg.get_action().takes_values()) {
        return Some(value.to_string_lossy().into_owned());
    }
    let help = arg.get_help()?.to_string();
    let value = help.split_once("[default: ")?.1.split(']').next()?.to_owned();
    (!value.starts_with("none")).then_some(value)
}

/// The row of an option that the document lacks.
fn row(arg: &Arg) -> String {
    let value =
        arg.get_action().takes_values().then(|| arg.get_value_names().and_then(|names| names.first())).flatten();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split(" [").next().unwrap_or_default().replace('\n', " ");
    let mut help = help.replace('|', "\\|");
    if let Some(first) = help.get(..1).map(str::to_lowercase) {
        help.replace_range(..1, &first);
    }
    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
    let default = default(arg).map(|default| format!("`{default}` ")).unwrap_or_default();
    format!("| `{}{value}` | {help} | {default}|", long(arg))
}

/// The options that the first cell of a row names.
fn named(line: &str) -> Vec<String> {
    let Some(cell) = line.strip_prefix("| `-").and_then(|_| line[2..].split(" | ").next()) else { return Vec::new() };
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    cell.match_indices("--").map(|(at, _)| cell[at..].chars().take_while(|c| is_part(*c)).collect()).collect()
}

/// Whether a text names an option, with its value or without, or its heading has it.
fn says(text: &str, option: &str) -> bool {
    let is_named = |end: &str| text.contains(&format!("`{option}{end}"));
    let head = text.lines().next().unwrap_or_default();
    ["`", " ", "["].into_iter().any(is_named) || head.contains(&format!(" {option} "))
}

/// The document in sections: the lines from a heading of the second or third level to the next one.
fn sections(lines: &[String]) -> Vec<(usize, usize)> {
    let is_head = |line: &String| line.starts_with("## ") || line.starts_with("### ");
    let heads: Vec<usize> = (0..lines.len()).filter(|at| is_head(&lines[*at])).collect();
    let ends = heads.iter().skip(1).copied().chain([lines.len()]);
    heads.iter().copied().zip(ends).collect()
}

/// Where the section of a command is.
fn section_of(lines: &[String], command: &str) -> Option<(usize, usize)> {
    let head = format!("`forebay {command}");
    let is_its = |line: &str| {
        line.starts_with("### ")
            && line.match_indices(&head).any(|(at, _)| line[at + head.len()..].starts_with([' ', '`']))
    };
    sections(lines).into_iter().find(|(begin, _)| is_its(&lines[*begin]))
}

/// The options of each command; what is wrong is told, and mended as far as it can be.
fn mend_options(lines: &mut Vec<String>, wrong: &mut Vec<String>) {
    let program = program();
    let publish = lines[section_of(lines, "publish").map_or(0..0, |(begin, end)| begin..end)].join("\n");
    for command in commands(&program) {
        let name = command.get_name();
        let Some((begin, end)) = section_of(lines, name) else {
            wrong.push(format!("add a section: ### `forebay {name} …`"));
            continue;
        };
        let text = lines[begin..end].join("\n");
        let as_publish = if text.contains("| all of `publish` ") { publish.as_str() } else { "" };
        for arg in options(command) {
            let option = long(arg);
            if !says(&text, &option) && !says(as_publish, &option) {
                wrong.push(format!("`forebay {name}`: add\n      {}", row(arg)));
                let last = (begin..end).rev().find(|at| lines[*at].starts_with("| `--"));
                lines.insert(last.map_or(end, |last| last + 1), row(arg));
                return mend_options(lines, wrong);
            }
            let Some(default) = default(arg) else { continue };
            let rows = (begin..end).filter(|at| named(&lines[*at]).contains(&option)).collect::<Vec<_>>();
            if let Some(at) = rows
                .into_iter()
                .find(|at| !lines[*at].rsplit(" | ").next().is_some_and(|cell| cell.contains(&format!("`{default}`"))))
            {
                let kept = lines[at].rsplit_once(" | ").map_or("", |(kept, _)| kept).to_owned();
                lines[at] = format!("{kept} | `{default}` |");
                wrong.push(format!(
                    "`forebay {name}`: the default of {option} is {default}, write\n      {}",
                    lines[at]
                ));
            }
        }
    }
}

/// Rows of options that no command of the section has.
fn mend_rows(lines: &mut Vec<String>, wrong: &mut Vec<String>) {
    let program = program();
    let mut gone = Vec::new();
    for (begin, end) in sections(lines) {
        let is_here = |command: &&Command| section_of(lines, command.get_name()) == Some((begin, end));
        let here: Vec<&Command> = commands(&program).into_iter().filter(is_here).collect();
        if here.is_empty() {
            continue;
        }
        let has = |option: &String| here.iter().any(|command| command.get_arguments().any(|arg| long(arg) == *option));
        gone.extend((begin..end).filter(|at| named(&lines[*at]).iter().any(|option| !has(option))));
    }
    for at in gone.into_iter().rev() {
        wrong.push(format!("no command has this option any more, remove\n      {}", lines.remove(at)));
    }
}

/// The options of every command stand above all commands.
fn check_global(lines: &[String], wrong: &mut Vec<String>) {
    let program = program();
    let Some((begin, end)) = sections(lines).into_iter().find(|(begin, _)| lines[*begin] == "## Commands") else {
        return wrong.push("add a section: ## Commands".into());
    };
    let text = lines[begin..end].join("\n");
    for arg in program.get_arguments().filter(|arg| arg.get_long().is_some() && !arg.is_hide_set()) {
        if !says(&text, &long(arg)) {
            wrong.push(format!("## Commands: add\n      {}", row(arg)));
        }
    }
}

/// Puts what the code says between the marks of that name.
fn mend_made(lines: &mut Vec<String>, name: &str, made: &str, wrong: &mut Vec<String>) {
    let begin_mark = format!("<!-- made by {MEND}: {name} -->");
    let Some(begin) = lines.iter().position(|line| *line == begin_mark) else {
        return wrong.push(format!(
            "add these lines, and what is made comes between them\n      {begin_mark}\n      <!-- end -->"
        ));
    };
    let Some(end) = (begin..lines.len()).find(|at| lines[*at] == "<!-- end -->") else {
        return wrong.push(format!("add <!-- end --> behind {begin_mark}"));
    };
    let made: Vec<String> = made.lines().map(str::to_owned).collect();
    if lines[begin + 1..end] != made {
        for line in made.iter().filter(|line| !lines[begin + 1..end].contains(line)) {
            wrong.push(format!("{name}: write\n      {line}"));
        }
        wrong.push(format!("{name}: what stands there is not what the code has"));
        lines.splice(begin + 1..end, made);
    }
}

fn exit_codes() -> String {
    let mut table = String::from("| code | means |\n|---|---|\n");
    for code in Code::ALL {
        let _ = writeln!(table, "| {} | {} |", code as u8, code.meaning());
    }
    table
}

/// The keys that the pipeline file may have in a section: those that a message names when there is an unknown one.
fn known_keys(folder: &Path, section: &str) -> Vec<String> {
    const UNKNOWN: &str = "no_such_key = 1";
    let mut text = String::from("name = \"shop\"\n");
    text.push_str(if section.is_empty() { UNKNOWN } else { "" });
    let mut others = vec!["handlers", "script = \"handlers.lua\""];
    let head = if section == "entities" { "entities.thing" } else { section };
    if section == "handlers" {
        others.push(UNKNOWN);
    } else if !section.is_empty() {
        others = vec![head, UNKNOWN, "handlers", "script = \"handlers.lua\""];
    }
    for line in others {
        let _ = if line.contains('=') { write!(text, "\n{line}") } else { write!(text, "\n[{line}]") };
    }
    if section == "entities" {
        text = text.replace(UNKNOWN, &format!("columns = {{ n = \"bigint\" }}\n{UNKNOWN}"));
    }
    let refused = forebay::config::Config::parse(&folder.join("pipeline.toml"), &text);
    let message = refused.err().unwrap_or_else(|| panic!("not refused: {text}")).to_string();
    let Some((_, known)) = message.split_once("known are ") else { panic!("[{section}]: {message}") };
    known.split(", ").map(|key| key.trim().to_owned()).collect()
}

/// Each section of the pipeline file, with its keys in the order of the code.
fn keys() -> Vec<(String, Vec<String>)> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("handlers.lua"), "function on_event() end\n").expect("the script");
    let sections = known_keys(folder.path(), "");
    let of = |section: &String| (section.clone(), known_keys(folder.path(), section));
    sections.iter().filter(|section| *section != "name").map(of).collect()
}

fn keys_table() -> String {
    let mut table = String::from("| section | keys |\n|---|---|\n| | `name` |\n");
    for (section, keys) in keys() {
        let shown = if section == "entities" { "entities.NAME".to_owned() } else { section };
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(table, "| `[{shown}]` | {} |", keys.join(", "));
    }
    table
}

/// Each key stands in an example of its section.
fn check_examples(lines: &[String], wrong: &mut Vec<String>) {
    for (section, keys) in keys() {
        let head = format!("[{section}");
        let (mut inside, mut shown) = (false, Vec::new());
        for line in lines {
            let bare = line.trim_start_matches("# ");
            if bare.starts_with('[') || line.starts_with("```") {
                inside = bare.starts_with(&head) && bare[head.len()..].starts_with([']', '.']);
            }
            if inside {
                // What a line says before its comment, and before the value.
                let said = bare.split('#').next().unwrap_or_default().split('=').next().unwrap_or_default();
                let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
                shown.extend(said.split(|character| !is_part(character)).map(str::to_owned));
            }
        }
        for key in keys.iter().filter(|key| !shown.contains(key)) {
            wrong.push(format!(
                "The pipeline file, the example of [{section}]: add\n      # {key} = …   # what it does"
            ));
        }
    }
}

/// Each form of an address that help texts and messages name stands in the table of addresses.
fn check_addresses(lines: &[String], wrong: &mut Vec<String>) {
    let Some((begin, end)) = sections(lines).into_iter().find(|(begin, _)| lines[*begin] == "## Addresses") else {
        return wrong.push("add a section: ## Addresses".into());
    };
    let text = lines[begin..end].join("\n");
    for form in StoreUrl::FORMS.iter().chain(&TargetUrl::FORMS) {
        let scheme = form.full.split(':').next().unwrap_or_default();
        if !text.contains(&format!("`{scheme}:")) {
            wrong.push(format!("## Addresses: add\n      | `{}` | what it is of |", form.full));
        }
    }
}

/// Mends what can be mended; all that is wrong.
fn mend(lines: &mut Vec<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    mend_options(lines, &mut wrong);
    mend_rows(lines, &mut wrong);
    mend_made(lines, "exit codes", &exit_codes(), &mut wrong);
    mend_made(lines, "keys", &keys_table(), &mut wrong);
    check_global(lines, &mut wrong);
    check_examples(lines, &mut wrong);
    check_addresses(lines, &mut wrong);
    wrong
}

#[test]
fn the_reference_has_what_the_program_has() {
    let file = reference();
    let document = std::fs::read_to_string(&file).expect("the reference");
    let mut lines: Vec<String> = document.lines().map(str::to_owned).collect();
    let mut wrong = mend(&mut lines);
    if std::env::var_os("FOREBAY_BLESS").is_some() && !wrong.is_empty() {
        std::fs::write(&file, lines.join("\n") + "\n").expect("the reference");
        // What is left is for a person.
        wrong = mend(&mut lines);
    }
    assert!(wrong.is_empty(), "docs/reference.md:\n  {}\nmend it with: {MEND}", wrong.join("\n  "));
}

#[test]
fn each_command_has_an_example_and_each_example_can_be_typed() {
    let program = program();
    let names = commands(&program).into_iter().map(Command::get_name).chain(["forebay"]);
    for name in names {
        assert!(!examples(name).is_empty(), "examples.rs: there is none of {name}");
        for (_, line) in examples(name) {
            let typed = line.split(" | ").find(|part| part.starts_with("forebay ")).expect(line);
            let typed = typed.split(" > ").next().unwrap_or_default();
            let parsed = Args::try_parse_from(typed.split_whitespace()).map(|args| format!("{:?}", args.command));
            let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(name == "forebay" || parsed.to_lowercase().starts_with(name), "{line} is of {parsed}");
        }
    }
}

/// A document that lacks an option, has one too many, and another default is mended, and everything is told.
#[test]
fn a_document_that_differs_is_mended() {
    let document = std::fs::read_to_string(reference()).expect("the reference");
    let broken = document.replace("| `--serial` |", "| `--parallel` |").replace("| `30s` |", "| `31s` |");
    let broken =
        broken.replace("| 130 | ", "| 131 | ").replace("`depth`", "`deep`").replace("\nsettle = ", "\nsettled = ");
    let broken = broken.replace("\n# settle = ", "\n# settled = ").replace("`--log-format ", "`--log-form ");
    let broken = broken.replace("`sqlite:", "`squealite:");
    let mut lines: Vec<String> = broken.lines().map(str::to_owned).collect();
    let said = mend(&mut lines).join("\n");
    for text in [
        "`forebay run`: add\n      | `--serial` | commit",
        "the default of --drain-timeout is 30s",
        "remove\n      | `--parallel`",
        "exit codes: write\n      | 130 | ",
        "keys: write\n      | `[rollback]` | `depth` |",
        "the example of [source]: add\n      # settle = ",
        "## Commands: add\n      | `--log-format",
        "## Addresses: add\n      | `sqlite:PATH` |",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let mended = lines.join("\n");
    assert!(mended.contains("| `--serial` | commit") && !mended.contains("--parallel") && mended.contains("| 130 | "));
    // What is left is what only a person can write.
    let left = mend(&mut lines);
    assert_eq!(left.len(), 3, "{left:?}");
}
