//! The command line. All of it is in [`cli`]; this file is one call and an exit code.

#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
