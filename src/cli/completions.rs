//! `forebay completions`: completions for a shell.

use clap::CommandFactory;

use super::args::{Args, Completions};
use super::exit::{Code, Failure};
use super::out::print_lines;

pub(super) fn completions(args: &Completions) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "forebay", &mut script);
    print_lines([String::from_utf8_lossy(&script).trim_end()])
}
