//! The main job against its parts: 336,776 events of 19 fields in three regions, a Lua handler that keeps one row a
//! region, SQLite. Beside it, in the same run, what reading alone takes, and a program written for this one job.
//!
//! `cargo bench --bench lua_sqlite`, or `make bench-all`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const EVENTS: u64 = 336_776;
const REPEATS: usize = 5;

const PIPELINE: &str = r#"
name = "flights"
[source]
path = "flights.ndjson"
region = "origin"
[entities.stats]
columns = { flights = "bigint", cancelled = "bigint", delay = "bigint", max_delay = "bigint", distance = "bigint", last_at = "timestamptz" }
[handlers]
script = "handlers.lua"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = r#"
function on_event(e, ctx)
  local s = ctx.stats:get("all") or { flights = 0, cancelled = 0, delay = 0, distance = 0 }
  s.flights, s.distance, s.last_at = s.flights + 1, s.distance + e.distance, e.time_hour
  if e.dep_delay == nil then s.cancelled = s.cancelled + 1
  else
    s.delay = s.delay + e.dep_delay
    if s.max_delay == nil or e.dep_delay > s.max_delay then s.max_delay = e.dep_delay end
  end
  ctx.stats:set("all", s)
end
function on_snapshot(ctx) return ctx.stats:get("all") end
"#;

/// What the handler keeps, in Rust.
#[derive(Default, Debug, PartialEq)]
struct Stats {
    flights: i64,
    cancelled: i64,
    delay: i64,
    distance: i64,
}

#[derive(serde::Deserialize)]
struct Flight<'e> {
    #[serde(borrow)]
    origin: std::borrow::Cow<'e, str>,
    dep_delay: Option<i64>,
    distance: i64,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pipeline.toml"), PIPELINE).unwrap();
    std::fs::write(dir.path().join("handlers.lua"), SCRIPT).unwrap();
    let text = events();
    let mib = text.len() as f64 / (1 << 20) as f64;
    std::fs::write(dir.path().join("flights.ndjson"), text).unwrap();
    let mut rows: [Vec<f64>; 3] = Default::default();
    let mut memory = 0;
    for _ in 0..REPEATS {
        let (seconds, peak) = forebay(dir.path());
        memory = memory.max(peak);
        rows[0].push(seconds);
        rows[1].push(by_hand(dir.path()));
        rows[2].push(read_alone(dir.path()));
    }
    let medians = rows.map(median);
    println!("{EVENTS} events, {mib:.0} MiB of NDJSON, median of {REPEATS}");
    for (name, seconds) in [
        "forebay, Lua handler, SQLite, whole process",
        "one thread by hand: serde, a map, SQLite",
        "splitting lines alone",
    ]
    .iter()
    .zip(medians)
    {
        println!(
            "  {name:<46} {seconds:>6.3} s  {:>10.0} events/s  {:>5.2}",
            EVENTS as f64 / seconds,
            seconds / medians[0]
        );
    }
    println!("  memory of forebay at most: {} MiB", memory >> 20);
    let mut table = table::Table::silent("lua_sqlite");
    let rate = |at: usize| EVENTS as f64 / medians[at];
    let row = table::Row::new("336,776 events of 19 fields, a row a region, SQLite", rate(0), "events/s");
    table.note(row.against("one thread by hand", rate(1)).with("memory_mib", memory >> 20));
    table.save();
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn events() -> String {
    let mut state = 1_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut text = String::new();
    for number in 0..EVENTS {
        let hour = number * 8760 / EVENTS;
        let delay = match below(40) {
            0 => "null".to_owned(),
            delay => (delay as i64 - 10).to_string(),
        };
        let origin = ["EWR", "JFK", "LGA"][below(3) as usize];
        writeln!(
            text,
            "{{\"block\":{hour},\"year\":2013,\"month\":{},\"day\":{},\"dep_time\":{},\"sched_dep_time\":{},\"dep_delay\":{delay},\"arr_time\":{},\"sched_arr_time\":{},\"arr_delay\":{delay},\"carrier\":\"UA\",\"flight\":{},\"tailnum\":\"N{:05}\",\"origin\":\"{origin}\",\"dest\":\"IAH\",\"air_time\":{},\"distance\":{},\"hour\":{},\"minute\":0,\"time_hour\":\"2013-01-{:02}T{:02}:00:00Z\"}}",
            1 + hour / 730, 1 + hour / 24 % 28, below(2400), below(2400), below(2400), below(2400), below(6000), below(4000),
            below(600), 100 + below(2400), hour % 24, 1 + hour / 24 % 28, hour % 24,
        )
        .unwrap();
    }
    text
}

/// The whole process; seconds and peak memory. Its answer is compared with [`by_hand`]'s.
fn forebay(dir: &Path) -> (f64, u64) {
    let _ = std::fs::remove_file(dir.join("flights.db"));
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["run", "pipeline.toml", "--json"]).current_dir(dir).env_remove("DATABASE_URL");
    let output = command.output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stored(&dir.join("flights.db")), count(dir));
    (seconds, report["memory_peak_bytes"].as_u64().unwrap())
}

fn stored(database: &Path) -> BTreeMap<String, Stats> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT region, flights, cancelled, delay, distance FROM stats").unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok((
                row.get(0)?,
                Stats { flights: row.get(1)?, cancelled: row.get(2)?, delay: row.get(3)?, distance: row.get(4)? },
            ))
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn count(dir: &Path) -> BTreeMap<String, Stats> {
    let text = std::fs::read_to_string(dir.join("flights.ndjson")).unwrap();
    let mut regions: BTreeMap<String, Stats> = BTreeMap::new();
    for line in text.lines() {
        let flight: Flight<'_> = serde_json::from_str(line).unwrap();
        let stats = regions.entry(flight.origin.into_owned()).or_default();
        stats.flights += 1;
        stats.distance += flight.distance;
        match flight.dep_delay {
            Some(delay) => stats.delay += delay,
            None => stats.cancelled += 1,
        }
    }
    regions
}

/// A program for this one job: no batches, no checkpoint, no snapshots.
fn by_hand(dir: &Path) -> f64 {
    let begun = Instant::now();
    let regions = count(dir);
    let connection = rusqlite::Connection::open(dir.join("by-hand.db")).unwrap();
    connection
        .execute_batch(
            "DROP TABLE IF EXISTS stats; CREATE TABLE stats (region TEXT PRIMARY KEY, flights INTEGER, delay INTEGER)",
        )
        .unwrap();
    for (region, stats) in regions {
        connection.execute("INSERT INTO stats VALUES (?1, ?2, ?3)", (region, stats.flights, stats.delay)).unwrap();
    }
    begun.elapsed().as_secs_f64()
}

fn read_alone(dir: &Path) -> f64 {
    let begun = Instant::now();
    let mut reader =
        std::io::BufReader::with_capacity(1 << 18, std::fs::File::open(dir.join("flights.ndjson")).unwrap());
    let (mut line, mut lines) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).unwrap() > 0 {
        lines += 1;
        line.clear();
    }
    assert_eq!(lines, EVENTS);
    begun.elapsed().as_secs_f64()
}
