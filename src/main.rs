//! The command line. All of it is in [`cli`]; this file is one call and an exit code.

#![forbid(unsafe_code)]

mod cli;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
