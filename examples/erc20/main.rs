//! A chain of token transfers, made by chance from a seed, and its balances by handlers in Rust.
//!
//! `cargo run --release --example erc20 -- make chain.ndjson` makes the chain; `… -- run chain.ndjson` indexes it into
//! SQLite with the handlers of `handlers.rs`, and checks every balance. With handlers in Lua:
//! `forebay run examples/erc20/balances.toml --source chain.ndjson`.

mod chain;
mod handlers;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use chain::Chain;
use clap::{Parser, Subcommand};
use forebay::Pipeline;
use forebay::source::{Fields, Format, InputSource};
use handlers::Erc20;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Transfers
    #[arg(long, global = true, default_value_t = Chain::default().transfers)]
    transfers: u64,
    /// Accounts of each token
    #[arg(long, global = true, default_value_t = Chain::default().accounts)]
    accounts: u64,
    /// Tokens: each is a region
    #[arg(long, global = true, default_value_t = Chain::default().tokens)]
    tokens: u64,
    /// Transfers in a block
    #[arg(long, global = true, default_value_t = Chain::default().a_block)]
    a_block: u64,
    #[arg(long, global = true, default_value_t = Chain::default().seed)]
    seed: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a chain
    Make {
        /// The file, NDJSON
        file: PathBuf,
    },
    /// Indexes a chain that was made with the same numbers
    Run {
        /// The file, NDJSON
        file: String,
        /// Where to: an address as in [store] of a pipeline file
        #[arg(long, default_value = "sqlite:target/erc20.db")]
        store: String,
        /// Keep a row for each transfer too
        #[arg(long)]
        rows: bool,
        /// Draw the run, as SVG
        #[arg(long)]
        timeline: Option<PathBuf>,
    },
}

/// Compares what is stored with the arithmetic of the chain. Only of SQLite, which needs no connection.
fn check(chain: &Chain, store: &str) -> Result<(), Box<dyn std::error::Error>> {
    let Some(file) = store.strip_prefix("sqlite:") else { return Ok(()) };
    let connection = rusqlite::Connection::open(file)?;
    let mut statement = connection.prepare("SELECT region, id, balance FROM account")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, String>(2)?)))?;
    let mut expected = chain.balances();
    let accounts = expected.len();
    for row in rows {
        let (account, balance) = row?;
        if expected.remove(&account).map(|balance| balance.to_string()).as_ref() != Some(&balance) {
            return Err(format!("{account:?} has {balance}, which is wrong").into());
        }
    }
    if expected.is_empty() {
        println!("all {accounts} balances are right");
        return Ok(());
    }
    Err(format!("{} balances are missing", expected.len()).into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let Args { transfers, accounts, tokens, a_block, seed, .. } = args;
    let chain = Chain { transfers, accounts, tokens, a_block, seed };
    match args.command {
        Command::Make { file } => {
            let mut out = BufWriter::new(File::create(file)?);
            chain.write(&mut out)?;
            out.flush()?;
        }
        Command::Run { file, store, rows, timeline } => {
            let fields = Fields::default().with_region("token")?.with_seq("log_index")?;
            let report = Pipeline::new("erc20", Erc20 { keeps_transfers: rows })?
                .source(InputSource::open(&file, Format::Ndjson, fields)?)
                .store_url(&store)?
                .run()?;
            println!(
                "{} transfers, {:.0} a second; {} rows in {} batches; {} MiB",
                report.events,
                report.events_per_second(),
                report.entities_written,
                report.batches,
                report.memory_peak_bytes >> 20
            );
            println!("{}", report.limit());
            if let Some(file) = timeline {
                std::fs::write(file, report.timeline.to_svg("transfers, handlers in Rust", &report.limit()))?;
            }
            check(&chain, &store)?;
        }
    }
    Ok(())
}
