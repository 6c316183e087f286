//! The same events of 200 bytes from each kind of source, with a handler that counts, into SQLite: a file, a pipe, a program,
//! a CSV file (which does not repeat the names), and, a tenth of them, a Redis stream on this machine with all kinds of
//! blocks.
//!
//! `cargo bench --bench sources`, or `make bench`. Starts a private server, and removes it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a benchmark")]

#[path = "../tests/it/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/it/support/redis_server.rs"]
mod redis_server;
mod table;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use forebay::publish::RedisUrl;
use forebay::source::{CommandPlan, CommandSource, EntryBlock, Fields, Format, RedisStream, RedisStreamPlan};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};
use redis_server::Redis;
use table::{Row, Table, median};

/// So many that the start of a run counts little.
const EVENTS: u64 = 1_000_000;
const ENTRIES: u64 = EVENTS / 10;
const EVENT_BYTES: usize = 200;
const REPEATS: usize = 7;
/// Events a second that are asked for.
const WANTED: f64 = 300_000.0;

forebay::entity! {
    /// A counter.
    struct Count in "counter" {
        events: i64,
    }
}

#[derive(serde::Deserialize)]
struct Event {}

struct Counting;

impl Handler for Counting {
    type Event<'e> = Event;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Count::table()]
    }

    fn on_event(&self, _: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let events = ctx.get::<Count>("all")?.map_or(0, |count| count.events);
        ctx.set("all", Count { events: events + 1 })
    }
}

/// The event as a record of CSV.
fn record(n: u64) -> String {
    format!("{},r{},k{},{n},{}\n", n / 3, n % 4, n % 1000, pad(n))
}

/// The file through a pipe that has a name.
fn through_a_pipe(pipeline: Pipeline, file: &Path) -> Pipeline {
    let pipe = file.with_extension("pipe");
    if !pipe.exists() {
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    }
    let (from, to) = (file.to_owned(), pipe.clone());
    std::thread::spawn(move || std::io::copy(&mut File::open(from).unwrap(), &mut File::create(to).unwrap()).unwrap());
    pipeline.source_path(pipe.to_str().unwrap())
}

fn through_a_program(pipeline: Pipeline, file: &Path) -> Pipeline {
    let plan = CommandPlan::new(vec!["cat".into(), file.to_str().unwrap().into()]).unwrap();
    pipeline.source(CommandSource::new(plan, Format::Ndjson, Fields::default(), false))
}

/// What an event has before its last text.
fn head(n: u64) -> String {
    format!("{{\"block\":{},\"region\":\"r{}\",\"id\":\"k{}\",\"v\":{n},\"pad\":\"", n / 3, n % 4, n % 1000)
}

/// Its last text.
fn pad(n: u64) -> String {
    "x".repeat(EVENT_BYTES - head(n).len() - 2)
}

fn event(n: u64) -> String {
    format!("{}{}\"}}", head(n), pad(n))
}

/// Runs a pipeline over a source; how many events a second, all in all.
fn rate(dir: &Path, events: u64, source: impl FnOnce(Pipeline) -> Pipeline) -> f64 {
    let store = dir.join("bench.db");
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{end}", store.display()));
    }
    let pipeline = Pipeline::new("bench", Counting).unwrap().store_url(&format!("sqlite:{}", store.display())).unwrap();
    let pipeline = source(pipeline);
    let begun = Instant::now();
    let report = pipeline.run().unwrap();
    assert_eq!(report.events, events);
    events as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let server = Redis::start(&[]);
    let mut connection = server.connection();
    for first in (0..ENTRIES).step_by(1000) {
        let mut pipe = redis::pipe();
        for n in first..first + 1000 {
            let id = format!("{}-{}", 1_700_000_000_000 + n / 3, n % 3);
            pipe.cmd("XADD").arg("events").arg(id).arg("data").arg(event(n)).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
    let file = dir.path().join("events.ndjson");
    std::fs::write(&file, (0..EVENTS).map(|n| event(n) + "\n").collect::<String>()).unwrap();
    let url: RedisUrl = server.url().parse().unwrap();
    let plan = RedisStreamPlan::new(url, "events").unwrap().with_field("data").unwrap();
    let kinds = [("a field", EntryBlock::Field), ("@time", EntryBlock::Time), ("@offset", EntryBlock::Offset)];
    let csv = dir.path().join("events.csv");
    std::fs::write(&csv, "block,region,id,v,pad\n".to_owned() + &(0..EVENTS).map(record).collect::<String>()).unwrap();
    let of_csv = |pipeline: Pipeline| {
        pipeline.source_path(csv.to_str().unwrap()).format(Format::Csv(forebay::source::Delimiter::default()))
    };
    let (mut of_file, mut of_kinds) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    let (mut of_pipe, mut of_program, mut of_records) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        of_file.push(rate(dir.path(), EVENTS, |pipeline| pipeline.source_path(file.to_str().unwrap())));
        of_pipe.push(rate(dir.path(), EVENTS, |pipeline| through_a_pipe(pipeline, &file)));
        of_program.push(rate(dir.path(), EVENTS, |pipeline| through_a_program(pipeline, &file)));
        of_records.push(rate(dir.path(), EVENTS, of_csv));
        for ((_, block), rates) in kinds.iter().zip(&mut of_kinds) {
            let stream = RedisStream::new(plan.clone().with_block(*block), Fields::default());
            rates.push(rate(dir.path(), ENTRIES, |pipeline| pipeline.source(stream)));
        }
    }
    let of_file = median(of_file);
    let mut table = Table::new("sources");
    table.add(Row::new("a file", of_file, "events/s"));
    for (name, rates) in [("a pipe", of_pipe), ("a program", of_program), ("CSV", of_records)] {
        table.add(Row::new(name, median(rates), "events/s").against("a file", of_file));
    }
    for ((name, _), rates) in kinds.iter().zip(of_kinds) {
        let job = format!("a Redis stream, blocks of {name}");
        table.add(Row::new(job, median(rates), "events/s").against("asked for", WANTED));
    }
    table.save();
}
