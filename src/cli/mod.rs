//! The command line: arguments as typed become one command, a command ends in an exit code.
//!
//! The only room that reads arguments and the environment, and that prints. One file for each command.

mod addresses;
mod args;
mod bar;
mod check;
mod completions;
mod doctor;
#[cfg(all(test, feature = "lua", feature = "serve"))]
mod documents;
mod examples;
mod exit;
mod init;
mod log;
mod man;
mod on_publish;
mod out;
mod pid_one;
mod place;
mod publish;
mod publishing;
mod quarantine;
mod read;
mod rollback;
mod run;
mod seed;
#[cfg(feature = "serve")]
mod serve;
mod status;
mod subprocess;
mod summary;
mod supervisor;
mod table;
mod tally;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use exit::Failure;

/// Runs the command that was typed.
pub(crate) fn main() -> ExitCode {
    if let Some(code) = pid_one::run() {
        return code;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refused) => return log::arguments(&plainly_refused(refused)),
    };
    log::start(&args.global);
    let result = match &args.command {
        Command::Run(command) => run::run(command, &args.global),
        Command::Rollback(command) => rollback::rollback(command, &args.global),
        Command::Publish(command) => publish::publish(command, &args.global),
        Command::Seed(command) => seed::seed(command, &args.global),
        Command::Check(command) => check::check(command, &args.global),
        Command::Doctor(command) => doctor::doctor(command, &args.global),
        Command::Init(command) => init::init(command, &args.global),
        Command::Latest(command) => read::latest(command),
        Command::History(command) => read::history(command),
        Command::Show(command) => read::show(command),
        Command::Status(command) => status::status(command, &args.global),
        Command::Quarantine(command) => quarantine::quarantine(command, &args.global),
        Command::Completions(command) => completions::completions(command),
        Command::Man(command) => man::man(command, &args.global),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => failure.tell(&args.global),
    }
}

/// The same of arguments that act on no terminal: what is wrong with them repeats them.
fn plainly_refused(refused: clap::Error) -> clap::Error {
    let plain = std::env::args_os().map(|argument| out::plain(&argument.to_string_lossy()).into_owned());
    Args::try_parse_from(plain).err().unwrap_or(refused)
}

/// A failure that is the user's to mend: wrong usage, configuration or input.
fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(exit::Code::Usage, message)
}
