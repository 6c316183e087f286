//! The chain everyone is measured on: ERC-20 transfers, balances of accounts, with and without a row for each transfer,
//! handlers in Lua and in Rust, whole process from start to exit, into SQLite and Postgres. Every final balance is checked
//! against the chain's own arithmetic.
//!
//! `cargo bench --bench erc20`, or `make bench-all`. Starts a private PostgreSQL with its defaults (fsync on), and removes it.
//! `FOREBAY_BENCH=quick` leaves the long chains out.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

#[path = "../examples/erc20/chain.rs"]
mod chain;
#[path = "../examples/erc20/handlers.rs"]
mod handlers;
#[path = "../tests/it/support/postgres_proxy.rs"]
mod proxy;
#[path = "../tests/it/support/postgres_server.rs"]
mod server;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chain::Chain;
use forebay::Pipeline;
use forebay::source::{Fields, Format, InputSource};
use handlers::Erc20;
use serde_json::Value as Json;
use server::Server;
use table::{Row, Table, median};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const REPEATS: usize = 5;

/// Set in a process that runs the Rust handlers: store, chain, and whether rows are kept.
const CHILD: &str = "FOREBAY_BENCH_CHILD";

/// The fastest of the programs that people use, on the same chain: Ponder 0.17.7, input cached, whole process.
const PEER: f64 = 33_710.0;

#[derive(Clone, Copy, PartialEq)]
enum Handlers {
    Lua,
    Rust,
}

#[derive(Clone, Copy)]
struct Job {
    handlers: Handlers,
    keeps_transfers: bool,
    /// Events a second, and MiB, that are asked for.
    rate: f64,
    memory: f64,
}

const JOBS: [Job; 4] = [
    Job { handlers: Handlers::Lua, keeps_transfers: false, rate: 350_000.0, memory: 100.0 },
    Job { handlers: Handlers::Lua, keeps_transfers: true, rate: 180_000.0, memory: 170.0 },
    Job { handlers: Handlers::Rust, keeps_transfers: false, rate: 1_000_000.0, memory: 100.0 },
    Job { handlers: Handlers::Rust, keeps_transfers: true, rate: 270_000.0, memory: 170.0 },
];

impl Job {
    fn name(self) -> String {
        let handlers = if self.handlers == Handlers::Lua { "Lua" } else { "Rust" };
        format!("{handlers}, {}", if self.keeps_transfers { "balances and a row a transfer" } else { "balances" })
    }

    /// Runs the whole process; seconds, and what it reported.
    fn run(self, file: &Path, store: &str, more: &[&str]) -> (f64, Json) {
        let mut command = match self.handlers {
            Handlers::Lua => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
                let name = if self.keeps_transfers { "transfers" } else { "balances" };
                let pipeline = format!("{}/examples/erc20/{name}.toml", env!("CARGO_MANIFEST_DIR"));
                command.args(["run", &pipeline, "--json", "--store", store]).arg("--source").arg(file).args(more);
                command
            }
            Handlers::Rust => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.env(CHILD, "yes").arg(file).args([store, &self.keeps_transfers.to_string()]);
                command
            }
        };
        command.env_remove("DATABASE_URL").env_remove("REDIS_URL");
        let begun = Instant::now();
        let output = command.output().unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (seconds, serde_json::from_slice(&output.stdout).unwrap())
    }
}

/// What a process with Rust handlers does.
fn child() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let fields = Fields::default().with_region("token").unwrap().with_seq("log_index").unwrap();
    let report = Pipeline::new("erc20", Erc20 { keeps_transfers: arguments[2] == "true" })
        .unwrap()
        .source(InputSource::open(&arguments[0], Format::Ndjson, fields).unwrap())
        .store_url(&arguments[1])
        .unwrap()
        .run()
        .unwrap();
    println!(
        "{}",
        serde_json::json!({ "memory_peak_bytes": report.memory_peak_bytes, "overlap": { "efficiency": report.efficiency() } })
    );
}

/// Where chains lie and results go.
struct Place {
    dir: tempfile::TempDir,
    server: Server,
    made: u32,
}

/// A store that was made for one run.
enum Made {
    File(PathBuf),
    Database(String),
}

impl Place {
    fn chain(&self, chain: Chain) -> PathBuf {
        let file = self.dir.path().join(format!("{}-{}-{}.ndjson", chain.transfers, chain.accounts, chain.tokens));
        if !file.exists() {
            let mut out = BufWriter::new(File::create(&file).unwrap());
            chain.write(&mut out).unwrap();
            out.flush().unwrap();
        }
        file
    }

    fn store(&mut self, is_postgres: bool) -> (String, Made) {
        self.made += 1;
        if is_postgres {
            let database = self.server.make_database();
            return (self.server.url(&database), Made::Database(database));
        }
        let file = self.dir.path().join(format!("{}.db", self.made));
        (format!("sqlite:{}", file.display()), Made::File(file))
    }

    /// Compares what is stored with the chain's own arithmetic, and lets it go.
    fn check(&self, made: Made, pipeline: &str, expected: &BTreeMap<(String, String), i128>) {
        let found: BTreeMap<(String, String), i128> = match &made {
            Made::File(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                let mut statement = connection.prepare("SELECT region, id, balance FROM account").unwrap();
                let rows = statement.query_map([], |row| {
                    Ok(((row.get(0)?, row.get(1)?), row.get::<_, String>(2)?.parse::<i128>().unwrap()))
                });
                rows.unwrap().map(Result::unwrap).collect()
            }
            Made::Database(database) => {
                let mut client = self.server.client(database);
                let sql = format!("SELECT region, id, balance::text FROM \"{pipeline}\".account");
                let rows = client.query(&sql, &[]).unwrap();
                rows.iter().map(|row| ((row.get(0), row.get(1)), row.get::<_, String>(2).parse().unwrap())).collect()
            }
        };
        assert!(found == *expected, "balances are wrong");
        self.discard(made);
    }

    fn discard(&self, made: Made) {
        match made {
            Made::File(file) => {
                for ending in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
                }
            }
            Made::Database(database) => self.server.execute("postgres", &format!("DROP DATABASE \"{database}\"")),
        }
    }
}

fn mib(report: &Json) -> f64 {
    report["memory_peak_bytes"].as_f64().unwrap() / f64::from(1 << 20)
}

/// The chain of 200,000 transfers, each job in each store, turn by turn.
fn chain_of_all(place: &mut Place, table: &mut Table) {
    let chain = Chain::default();
    let (file, expected) = (place.chain(chain), chain.balances());
    let ways: Vec<(Job, bool)> = JOBS.into_iter().flat_map(|job| [(job, false), (job, true)]).collect();
    let mut measured: Vec<(Vec<f64>, f64)> = vec![(Vec::new(), 0.0); ways.len()];
    for _ in 0..REPEATS {
        for ((job, is_postgres), (seconds, memory)) in ways.iter().zip(&mut measured) {
            let (store, made) = place.store(*is_postgres);
            let (took, report) = job.run(&file, &store, &[]);
            let pipeline = match (job.handlers, job.keeps_transfers) {
                (Handlers::Rust, _) => "erc20",
                (Handlers::Lua, true) => "transfers",
                (Handlers::Lua, false) => "balances",
            };
            place.check(made, pipeline, &expected);
            seconds.push(took);
            *memory = memory.max(mib(&report));
        }
    }
    for ((job, is_postgres), (seconds, memory)) in ways.into_iter().zip(measured) {
        let name = format!("{}, {}", job.name(), if is_postgres { "Postgres" } else { "SQLite" });
        let rate = chain.transfers as f64 / median(seconds);
        table.add(
            Row::new(&name, rate, "events/s")
                .against("asked for", job.rate)
                .with("peer_ratio", rate / PEER)
                .with("peer", PEER),
        );
        table.add(Row::new(format!("  peak memory of {name}"), memory, "MiB").against("at most", job.memory));
    }
}

/// A long chain against a short one.
fn long_chain(place: &mut Place, table: &mut Table) {
    for job in [JOBS[0], JOBS[1], JOBS[2]] {
        let mut rates = Vec::new();
        let mut memories = Vec::new();
        for transfers in [1_000_000, 10_000_000] {
            let chain = Chain { transfers, ..Chain::default() };
            let file = place.chain(chain);
            let (store, made) = place.store(false);
            let (seconds, report) = job.run(&file, &store, &[]);
            place.check(made, "", &chain.balances());
            rates.push(transfers as f64 / seconds);
            memories.push(mib(&report));
        }
        table.add(
            Row::new(format!("{}, 10 million events", job.name()), rates[1], "events/s").against("1 million", rates[0]),
        );
        table.add(Row::new("  peak memory", memories[1], "MiB").against("1 million", memories[0]));
    }
}

/// A million accounts, memory for a tenth of them.
fn many_accounts(place: &mut Place, table: &mut Table) {
    let chain = Chain { transfers: 1_000_000, accounts: 1_000_000, ..Chain::default() };
    let (file, expected) = (place.chain(chain), chain.balances());
    let pipeline = place.dir.path().join("balances.toml");
    let here = format!("{}/examples/erc20", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(format!("{here}/balances.toml")).unwrap();
    let text = text.replace("\"balances.lua\"", &format!("\"{here}/balances.lua\""));
    std::fs::write(&pipeline, format!("{text}\n[batch]\nmemory = \"64MiB\"\n")).unwrap();
    for is_postgres in [false, true] {
        let (store, made) = place.store(is_postgres);
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("run").arg(&pipeline).args(["--json", "--store", &store, "--source"]).arg(&file);
        let output = command.env_remove("DATABASE_URL").output().unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Json = serde_json::from_slice(&output.stdout).unwrap();
        place.check(made, "balances", &expected);
        let name = if is_postgres { "Postgres" } else { "SQLite" };
        table.add(
            Row::new(
                format!("Lua, 1 million accounts in 64 MiB, a tenth of them, {name}"),
                chain.transfers as f64 / seconds,
                "events/s",
            )
            .against("asked for", 25_000.0)
            .with("loads", report["loads"].clone())
            .with("memory_mib", mib(&report)),
        );
    }
}

/// How much of a distant database is hidden.
fn efficiency(place: &mut Place, table: &mut Table) {
    let chain = Chain { transfers: 2_000_000, ..Chain::default() };
    let (file, expected) = (place.chain(chain), chain.balances());
    for millis in [0, 1, 20] {
        let (_, made) = place.store(true);
        let Made::Database(database) = &made else { unreachable!() };
        let proxy = proxy::Proxy::start(place.server.port);
        proxy.set_latency(Duration::from_millis(millis));
        let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
        let (seconds, report) = JOBS[0].run(&file, &url, &[]);
        place.check(made, "balances", &expected);
        table.add(
            Row::new(
                format!("efficiency of Lua, balances, Postgres {millis} ms away"),
                report["overlap"]["efficiency"].as_f64().unwrap(),
                "",
            )
            .against("asked for", 0.95)
            .with("events_per_second", chain.transfers as f64 / seconds)
            .with("speedup", report["overlap"]["speedup"].clone()),
        );
    }
}

/// What a process costs that does nothing.
fn start(place: &mut Place, table: &mut Table) {
    let chain = Chain::default();
    let file = place.chain(chain);
    let (store, made) = place.store(false);
    JOBS[0].run(&file, &store, &[]);
    let short = Chain { transfers: 1000, ..chain };
    let short_file = place.chain(short);
    let times = |mut run: Box<dyn FnMut() -> f64>| median((0..21).map(|_| run()).collect::<Vec<f64>>()) * 1e3;
    let version = times(Box::new(|| {
        let begun = Instant::now();
        assert!(Command::new(env!("CARGO_BIN_EXE_forebay")).arg("--version").output().unwrap().status.success());
        begun.elapsed().as_secs_f64()
    }));
    table.add(Row::new("forebay --version", version, "ms").against("at most", 5.0));
    let nothing = times(Box::new(move || JOBS[0].run(&short_file, &store, &[]).0));
    table.add(Row::new("a run that has nothing to do, SQLite", nothing, "ms").against("at most", 30.0));
    place.discard(made);
}

fn main() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let is_quick = std::env::var_os("FOREBAY_BENCH").is_some_and(|value| value == "quick");
    let server = Server::start("-c fsync=on -c full_page_writes=on -c shared_buffers=128MB");
    let mut place = Place { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), server, made: 0 };
    let mut table = Table::new("erc20");
    start(&mut place, &mut table);
    chain_of_all(&mut place, &mut table);
    if !is_quick {
        many_accounts(&mut place, &mut table);
        efficiency(&mut place, &mut table);
        long_chain(&mut place, &mut table);
    }
    table.save();
}
