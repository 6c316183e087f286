//! `forebay man`: a man page of the program and one of each command, made of the arguments as they are declared, the
//! examples and the exit codes.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::{Args, Global, Man};
use super::examples::examples;
use super::exit::{Code, Failure};
use super::out::{counted, print_text, shown_path};

/// How a page of ours begins. Only such a file is written over.
const BEGIN: &str = ".\\\" Made by `forebay man`.\n";

pub(super) fn man(args: &Man, global: &Global) -> Result<Code, Failure> {
    let failed = |path: &PathBuf| {
        let shown = shown_path(path).to_string();
        move |error| Failure::new(Code::Failed, format!("cannot write {shown}: {error}"))
    };
    let pages: Vec<(PathBuf, String)> =
        pages().map_err(failed(&args.dir))?.into_iter().map(|(name, page)| (args.dir.join(name), page)).collect();
    // All or nothing: what somebody else has written there is never overwritten.
    for (path, _) in &pages {
        check_content(path)?;
    }
    fs::create_dir_all(&args.dir).map_err(failed(&args.dir))?;
    for (path, page) in &pages {
        fs::write(path, page).map_err(failed(path))?;
    }
    if global.quiet {
        return Ok(Code::Done);
    }
    let first = args.dir.join("forebay.1");
    print_text([
        format!("{} in {}", counted(pages.len() as u64, "page", "pages"), shown_path(&args.dir)),
        format!("  man -l {}", shown_path(&first)),
    ])
}

fn check_content(path: &PathBuf) -> Result<(), Failure> {
    let refused = |cause: &str| Err(super::usage(format!("{}: {cause}; choose another folder", shown_path(path))));
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() || bytes.starts_with(BEGIN.as_bytes()) => Ok(()),
        Ok(_) => refused("it is there already and was not made by forebay man"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => refused(&error.to_string()),
    }
}

/// The pages, by the names of their files.
fn pages() -> std::io::Result<Vec<(String, String)>> {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<clap::Command> =
        program.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let others: Vec<String> = commands.iter().map(|command| command.get_name().to_owned()).collect();
    let mut pages = vec![page(program, &others)?];
    for command in commands {
        pages.push(page(command, &[])?);
    }
    Ok(pages)
}

/// The page of a command, and of the program one that leads to `others`.
fn page(command: clap::Command, others: &[String]) -> std::io::Result<(String, String)> {
    let name = command.get_name().to_owned();
    let usage = command.clone().render_usage().to_string();
    let page = clap_mangen::Man::new(command.mut_args(|argument| match argument.is_global_set() {
        true => argument.help_heading("Options of every command"),
        false => argument,
    }));
    let file = page.get_filename();
    let title = file.trim_end_matches(".1");
    // Without a date, so that the same version makes the same pages.
    let mut text =
        format!("{BEGIN}.TH {title} 1 \"\" \"forebay {}\" \"forebay\"\n", env!("CARGO_PKG_VERSION")).into_bytes();
    page.render_name_section(&mut text)?;
    let mut synopsis = Roff::default();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([roman(usage.trim_start_matches("Usage:").trim())]);
    synopsis.to_writer(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if !others.is_empty() {
        page.render_subcommands_section(&mut text)?;
    }
    let mut ours = Roff::default();
    add_exit_codes(&mut ours);
    add_examples(&mut ours, &name);
    let pages = others.iter().map(|other| format!("forebay-{other}"));
    let seen: Vec<String> = if others.is_empty() { vec!["forebay".into()] } else { pages.collect() };
    ours.control("SH", ["SEE ALSO"]);
    ours.text([roman(seen.iter().map(|page| format!("{page}(1)")).collect::<Vec<_>>().join(", "))]);
    ours.to_writer(&mut text)?;
    Ok((file, String::from_utf8_lossy(&text).into_owned()))
}

fn add_exit_codes(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for code in Code::ALL {
        page.control("TP", ["6"]);
        page.text([bold((code as u8).to_string())]);
        page.text([roman(code.meaning().replace('`', ""))]);
    }
}

fn add_examples(page: &mut Roff, command: &str) {
    page.control("SH", ["EXAMPLES"]);
    for (meaning, line) in examples(command) {
        page.control("PP", []);
        page.text([roman(format!("{meaning}:"))]);
        page.control("RS", ["4"]);
        page.control("EX", []);
        page.text([roman(*line)]);
        page.control("EE", []);
        page.control("RE", []);
    }
}
