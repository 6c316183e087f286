//! The same events as NDJSON, CSV and JSON, over a handler that does next to nothing: how fast each format is read. And over a
//! handler in Lua that keeps sums, as a pipeline has one.
//!
//! `cargo bench --bench formats`, or `make bench-all`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use forebay::source::{Delimiter, Format};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};
use table::{Row, Table, median};

const EVENTS: u64 = 300_000;
const REPEATS: usize = 5;

const PIPELINE: &str = r#"
name = "formats"
[source.fields]
amount = "numeric"
count = "bigint"
[entities.total]
columns = { amount = "numeric", count = "bigint", last = "text" }
[handlers]
script = "handlers.lua"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = r#"
function on_event(e, ctx)
  ctx.total:add(e.country, { amount = e.amount, count = e.count })
end
"#;

forebay::entity! {
    struct Nothing in "nothing" {
        count: i64,
    }
}

/// Reads nothing of an event.
struct Idle;

impl Handler for Idle {
    type Event<'e> = serde::de::IgnoredAny;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Nothing::table()]
    }

    fn on_event(&self, _: serde::de::IgnoredAny, _: &mut Context<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// The events in each format.
fn texts() -> [(&'static str, Format, String); 3] {
    let (mut lines, mut records, mut documents) = (String::new(), String::new(), String::from("[\n"));
    records.push_str("block,region,id,time,country,place,amount,count,lat,lon,status\n");
    let mut state = 1_u64;
    for at in 0..EVENTS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (block, region, country) = (at / 10, ["north", "south", "west"][(at % 3) as usize], state >> 57);
        let (amount, count) = (state >> 40, state >> 60);
        let (lat, lon) = (format!("{}.{:04}", (state >> 20) % 90, at % 10_000), format!("-{}.5", (state >> 30) % 180));
        let time = format!("2024-05-{:02}T{:02}:{:02}:00Z", 1 + at % 28, at % 24, at % 60);
        let place = format!("{} km off the coast of {country}", at % 300);
        let json = format!(
            "{{\"block\":{block},\"region\":\"{region}\",\"id\":\"e{at}\",\"time\":\"{time}\",\"country\":\"c{country}\",\
             \"place\":\"{place}\",\"amount\":{amount}.25,\"count\":{count},\"lat\":{lat},\"lon\":{lon},\"status\":\"reviewed\"}}"
        );
        writeln!(lines, "{json}").unwrap();
        writeln!(documents, "{json}{}", if at + 1 < EVENTS { "," } else { "]" }).unwrap();
        writeln!(records, "{block},{region},e{at},{time},c{country},{place},{amount}.25,{count},{lat},{lon},reviewed")
            .unwrap();
    }
    [
        ("ndjson", Format::Ndjson, lines),
        ("csv", Format::Csv(Delimiter::default()), records),
        ("json", Format::Json, documents),
    ]
}

/// Seconds that reading and a handler of nothing take.
fn read(dir: &Path, name: &str, format: Format) -> f64 {
    let store = format!("sqlite:{}", dir.join("read.db").display());
    let pipeline = Pipeline::new("formats", Idle).unwrap().format(format).store_url(&store).unwrap();
    let began = Instant::now();
    let report = pipeline.source_path(&dir.join(name).to_string_lossy()).run().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(report.events, EVENTS);
    remove(dir, "read.db");
    seconds
}

/// Seconds of a whole process with the Lua handler.
fn run(dir: &Path, name: &str) -> f64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["run", "pipeline.toml", "--quiet", "--store", "sqlite:run.db", "--source", name, "--format", name]);
    let began = Instant::now();
    assert!(command.current_dir(dir).env_remove("DATABASE_URL").status().unwrap().success());
    let seconds = began.elapsed().as_secs_f64();
    remove(dir, "run.db");
    seconds
}

fn remove(dir: &Path, database: &str) {
    for more in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("{database}{more}")));
    }
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pipeline.toml"), PIPELINE).unwrap();
    std::fs::write(dir.path().join("handlers.lua"), SCRIPT).unwrap();
    let texts = texts();
    for (name, _, text) in &texts {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (mut reads, mut runs): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    // In turn, so that each format has the same quiet and the same noise.
    for _ in 0..REPEATS {
        for (at, (name, format, _)) in texts.iter().enumerate() {
            reads[at].push(read(dir.path(), name, *format));
            runs[at].push(run(dir.path(), name));
        }
    }
    let mut table = Table::new("formats");
    for (what, seconds) in [("read, a handler of nothing", reads), ("Lua, sums, SQLite, whole process", runs)] {
        let rates = seconds.map(|seconds| EVENTS as f64 / median(seconds));
        for ((name, _, text), rate) in texts.iter().zip(rates) {
            let row = Row::new(format!("{name}: {what}"), rate, "events/s");
            table.add(row.against("ndjson", rates[0]).with("mib", (text.len() >> 20) as u64));
        }
    }
    table.save();
}
