//! What history costs, how long a rollback takes, and how many finds a handler makes in a second while rows are staged.
//!
//! `cargo bench --bench history`, or `make bench-all`. Starts a private PostgreSQL with its defaults (fsync on), and removes
//! it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a benchmark")]

#[path = "../tests/it/support/postgres_server.rs"]
mod server;
mod table;

use std::time::Instant;

use forebay::config::BatchConfig;
use forebay::query::Comparison;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::{Context, EntityRow, EntityTable, Find, Handler, HandlerError, Pipeline, Report};
use server::Server;
use table::{Row, Table};

const EVENTS: i64 = 200_000;
const EVENTS_A_BLOCK: i64 = 10;
const ACCOUNTS: i64 = 20_000;
const REPEATS: usize = 5;

forebay::entity! {
    struct Account in "account" {
        balance: i64,
        transfers: i64,
        last: i64,
        note: String,
    }
    index balance
}

/// Each event changes two accounts.
struct Transfers;

#[derive(serde::Deserialize)]
struct Transfer {
    from: i64,
    to: i64,
}

impl Handler for Transfers {
    type Event<'e> = Transfer;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Account::table()]
    }
    fn on_event(&self, event: Transfer, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        for (id, amount) in [(event.from, -1), (event.to, 1)] {
            let id = format!("0x{id:038}");
            let old = ctx.get::<Account>(&id)?;
            let (balance, transfers) = old.map_or((0, 0), |old| (old.balance, old.transfers));
            let account =
                Account { balance: balance + amount, transfers: transfers + 1, last: ctx.block(), note: String::new() };
            ctx.set(&id, account)?;
        }
        Ok(())
    }
}

/// Blocks of transfers between accounts chosen by chance.
struct Blocks {
    next: i64,
    last: i64,
    a_block: i64,
    accounts: i64,
    state: u64,
}

impl Blocks {
    fn new(events: std::ops::Range<i64>, a_block: i64, accounts: i64) -> Self {
        Self { next: events.start, last: events.end, a_block, accounts, state: 7 }
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) as i64) % bound
    }
}

impl Source for Blocks {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.next == self.last {
            return Ok(Next::End);
        }
        event.block = self.next / self.a_block;
        event.region.replace_range(.., "token");
        let (from, to) = match self.accounts {
            // Each account once.
            0 => (2 * self.next, 2 * self.next + 1),
            accounts => (self.below(accounts), self.below(accounts)),
        };
        event.json = format!("{{\"from\":{from},\"to\":{to}}}");
        self.next += 1;
        Ok(Next::Event)
    }
}

fn pipeline(url: &str, depth: u64) -> Pipeline {
    let pipeline = Pipeline::new("bench", Transfers).unwrap().store_url(url).unwrap().rollback_depth(depth);
    pipeline.batch(BatchConfig::default().with_events(10_000).unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Where a benchmark stores: a new place each time.
struct Places {
    dir: tempfile::TempDir,
    server: Server,
    made: u32,
}

impl Places {
    fn new_url(&mut self, is_postgres: bool) -> String {
        self.made += 1;
        match is_postgres {
            true => self.server.url(&self.server.make_database()),
            false => format!("sqlite:{}", self.dir.path().join(format!("{}.db", self.made)).display()),
        }
    }
}

fn cost_of_history(places: &mut Places, table: &mut Table, name: &str, is_postgres: bool) {
    println!("{name}: {EVENTS} events, {EVENTS_A_BLOCK} a block, two rows each of {ACCOUNTS}; median of {REPEATS}");
    let depths = [0, 64, 1000];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); depths.len()];
    let mut walls = rates.clone();
    for _ in 0..REPEATS {
        for (at, depth) in depths.iter().enumerate() {
            let url = places.new_url(is_postgres);
            let report: Report =
                pipeline(&url, *depth).source(Blocks::new(0..EVENTS, EVENTS_A_BLOCK, ACCOUNTS)).run().unwrap();
            rates[at].push(report.entities_written as f64 / report.times.commit.as_secs_f64());
            walls[at].push(EVENTS as f64 / report.times.wall.as_secs_f64());
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    let walls: Vec<f64> = walls.into_iter().map(median).collect();
    for ((depth, rate), wall) in depths.iter().zip(&rates).zip(&walls) {
        println!(
            "  depth {depth:>5}: {rate:>9.0} rows/s committed ({:.2}), {wall:>9.0} events/s in all ({:.2})",
            rate / rates[0],
            wall / walls[0]
        );
        if *depth > 0 {
            table.note(
                Row::new(format!("commit at depth {depth}, {name}"), *rate, "rows/s").against("depth 0", rates[0]),
            );
            table.note(
                Row::new(format!("run at depth {depth}, {name}"), *wall, "events/s").against("depth 0", walls[0]),
            );
        }
    }
}

fn time_of_rollback(places: &mut Places, table: &mut Table, name: &str, is_postgres: bool) {
    for rows in [1_i64, 100, 10_000] {
        let mut seconds = Vec::new();
        let url = places.new_url(is_postgres);
        // 200,000 rows, and then one block that changes so many of them.
        pipeline(&url, 1).source(Blocks::new(0..100_000, 10, 0)).run().unwrap();
        let events = (rows / 2).max(1);
        for _ in 0..REPEATS {
            let source = LastBlock { left: events, at: 0, is_one: rows == 1 };
            pipeline(&url, 1).source(source).run().unwrap();
            let begun = Instant::now();
            let report = pipeline(&url, 1).rollback(9_999).unwrap();
            seconds.push(begun.elapsed().as_secs_f64());
            assert_eq!(report.rollbacks[0].rows, rows as u64);
        }
        let millis = median(seconds) * 1e3;
        println!("{name}: rollback of {rows:>6} rows: {millis:>7.1} ms, opening the store included");
        table.note(Row::new(format!("rollback of {rows} rows, {name}"), millis, "ms"));
    }
}

/// One block that changes each of some accounts once.
struct LastBlock {
    left: i64,
    at: i64,
    is_one: bool,
}

impl Source for LastBlock {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.left == 0 {
            return Ok(Next::End);
        }
        self.left -= 1;
        event.block = 10_000;
        event.region.replace_range(.., "token");
        let (from, to) = (self.at * 2, if self.is_one { 0 } else { self.at * 2 + 1 });
        event.json = format!("{{\"from\":{from},\"to\":{to}}}");
        self.at += 1;
        Ok(Next::Event)
    }
}

/// Each event writes a row and looks for the largest ones, or for those of a value.
struct Finds {
    is_distinct: bool,
}

impl Handler for Finds {
    type Event<'e> = Transfer;
    fn entities(&self) -> Vec<EntityTable> {
        vec![Account::table()]
    }
    fn on_event(&self, event: Transfer, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let find = match self.is_distinct {
            true => Find::all().filter("balance", Comparison::Equal, event.to).limit(5),
            false => Find::all().descending("balance").limit(5),
        };
        let found = ctx.find::<Account>(&find)?;
        let balance = event.from + found.len() as i64;
        ctx.set(&format!("f{}", event.from), Account { balance, transfers: 1, last: ctx.block(), note: String::new() })
    }
}

fn finds(places: &mut Places, table: &mut Table, name: &str, is_postgres: bool) {
    for (what, is_distinct) in [("the same one each time", false), ("another one each time", true)] {
        let mut rates = Vec::new();
        let mut loads = 0;
        for _ in 0..3 {
            let url = places.new_url(is_postgres);
            pipeline(&url, 0).source(Blocks::new(0..20_000, 10, ACCOUNTS)).run().unwrap();
            let finder = Pipeline::new("bench", Finds { is_distinct }).unwrap().store_url(&url).unwrap();
            let report = finder.source(Blocks::new(20_000..60_000, 10, 10_000)).run().unwrap();
            rates.push(report.events as f64 / report.times.handlers.as_secs_f64());
            loads = report.loads;
        }
        let rate = median(rates);
        println!("{name}: {rate:>8.0} finds/s over 20,000 rows, {what}; the store was asked {loads} times for 40,000");
        table.note(Row::new(format!("finds over 20,000 rows, {what}, {name}"), rate, "finds/s").with("loads", loads));
    }
}

fn main() {
    let mut places = Places {
        dir: tempfile::tempdir().unwrap(),
        server: Server::start("-c fsync=on -c full_page_writes=on -c shared_buffers=128MB"),
        made: 0,
    };
    let mut table = Table::silent("history");
    for (name, is_postgres) in [("SQLite", false), ("Postgres", true)] {
        cost_of_history(&mut places, &mut table, name, is_postgres);
        time_of_rollback(&mut places, &mut table, name, is_postgres);
        finds(&mut places, &mut table, name, is_postgres);
    }
    table.save();
}
