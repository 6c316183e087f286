//! Commits to Postgres against what the database can do: the same rows by a raw, sorted, binary COPY, and by a staged
//! upsert as one writes it by hand. Then the round trips of a commit, with none, 1 and 20 ms added to each.
//!
//! `cargo bench --bench postgres_commit`, or `make bench-all`. Starts a private server with the defaults of PostgreSQL
//! (fsync on), and removes it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a benchmark")]

#[path = "../tests/it/support/postgres_proxy.rs"]
mod proxy;
#[path = "../tests/it/support/postgres_server.rs"]
mod server;
mod table;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::store::batch::codec::{Change, RowHead, Writer, encode_values};
use forebay::store::batch::{Checkpoint, RegionChanges, SealedBatch};
use forebay::store::{Store, StorePlan, StoreUrl};
use forebay::{Column, ColumnType, Entity, EntityNo, Schema, Timestamp, Value};
use postgres::Client;
use server::Server;

const REGIONS: u32 = 8;
const REPEATS: usize = 11;

/// (region, id, four numbers, one timestamp).
fn schema() -> Arc<Schema> {
    let column = |name: &str, kind| Column::new(name, kind);
    let columns = vec![
        column("a", ColumnType::Bigint),
        column("b", ColumnType::Bigint),
        column("c", ColumnType::Double),
        column("d", ColumnType::Double),
        column("t", ColumnType::Timestamptz),
    ];
    Arc::new(Schema::new([Entity::new("thing", columns)]).unwrap())
}

fn open(url: &str, schema: &Arc<Schema>) -> Box<dyn Store> {
    let plan = StorePlan::new("bench", Arc::clone(schema)).unwrap();
    forebay::store::open(&StoreUrl::parse(url, Path::new("")).unwrap(), plan).unwrap()
}

/// A batch of rows, each with its place among all ids and whether it is new.
fn batch(schema: &Schema, before: Checkpoint, rows: &[(u32, Change)]) -> SealedBatch {
    let entity = &schema.entities()[0];
    let changes = (0..REGIONS).map(|region| {
        let mut packed = Vec::new();
        for (id, change) in rows.iter().filter(|(id, _)| id % REGIONS == region) {
            let time = Timestamp::from_micros(1_500_000_000_000_000 + i64::from(*id)).unwrap();
            let number = i64::from(*id) * 7;
            let values = [
                Value::Bigint(number),
                Value::Bigint(before.batch as i64),
                Value::Double(number as f64 / 3.0),
                Value::Double(0.5),
                Value::Timestamptz(time),
            ];
            let head = RowHead { id: &format!("{id:010}"), change: *change, writer: Writer::default() };
            encode_values(entity, head, &values, &mut packed);
        }
        RegionChanges::new(entity, format!("region{region}").into(), packed).unwrap()
    });
    let number = before.batch + 1;
    let mut batch = SealedBatch::new(before, Checkpoint::new(number, Some(number as i64)));
    batch.first_block = Some(number as i64);
    batch.changes = vec![changes.collect()];
    batch
}

/// One way to write a batch, with a database of its own.
struct Way {
    name: &'static str,
    database: String,
    client: Client,
    store: Option<Box<dyn Store>>,
    before: Checkpoint,
}

const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TABLE: &str = "\"bench\".\"thing\"";

impl Way {
    fn new(name: &'static str, server: &Server, schema: &Arc<Schema>) -> Self {
        let database = server.make_database();
        // The tables of every way are those that the store makes.
        let store = open(&server.url(&database), schema);
        let mut client = server.client(&database);
        client.batch_execute(&format!("CREATE TEMP TABLE stage (LIKE {TABLE}) ON COMMIT DELETE ROWS")).unwrap();
        let is_ours = name == OURS;
        Self { name, database, client, store: is_ours.then_some(store), before: Checkpoint::default() }
    }

    /// Writes the rows; returns the seconds that it took.
    fn write(&mut self, schema: &Schema, rows: &[(u32, Change)], encoder: &dyn forebay::store::RowEncoder) -> f64 {
        let mut batch = batch(schema, self.before, rows);
        for region in batch.changes.iter_mut().flatten() {
            *region = encoder.encode(EntityNo::at(0), region.clone()).unwrap();
        }
        let after = batch.after;
        let batch = Arc::new(batch);
        let begun = Instant::now();
        match &mut self.store {
            Some(store) => drop(store.commit(&batch).unwrap()),
            None => {
                let target = if self.name == COPY { TABLE } else { "stage" };
                let mut transaction = self.client.transaction().unwrap();
                let sql = format!("COPY {target} (region, id, a, b, c, d, t) FROM STDIN BINARY");
                let mut writer = transaction.copy_in(&sql).unwrap();
                writer.write_all(COPY_HEADER).unwrap();
                for region in &batch.changes[0] {
                    for part in region.packed.chunks(128 * 1024) {
                        writer.write_all(part).unwrap();
                    }
                }
                writer.write_all(&[0xff, 0xff]).unwrap();
                writer.finish().unwrap();
                if target == "stage" {
                    let upsert = format!(
                        "INSERT INTO {TABLE} SELECT * FROM stage ON CONFLICT (region, id) DO UPDATE SET
                           a = excluded.a, b = excluded.b, c = excluded.c, d = excluded.d, t = excluded.t"
                    );
                    transaction.batch_execute(&upsert).unwrap();
                }
                transaction.commit().unwrap();
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.before = after;
        seconds
    }

    fn empty(&mut self) {
        self.client.batch_execute(&format!("TRUNCATE {TABLE}; CHECKPOINT")).unwrap();
    }

    fn vacuum(&mut self) {
        self.client.batch_execute(&format!("VACUUM {TABLE}")).unwrap();
    }

    fn rows(&mut self) -> i64 {
        self.client.query_one(&format!("SELECT count(*) FROM {TABLE}"), &[]).unwrap().get(0)
    }
}

const OURS: &str = "forebay";
const COPY: &str = "raw COPY";
const HAND: &str = "staged upsert by hand";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The rows of a batch of `count`, of which `new` per cent are new, as the `turn`-th on a table of twice as many.
fn rows(count: u32, new: u32, turn: u32) -> Vec<(u32, Change)> {
    let fresh = count * new / 100;
    let first = 2 * count + turn * fresh;
    let old = (0..count - fresh).map(|at| (at * 2, Change::Written));
    (first..first + fresh).map(|id| (id, Change::New)).chain(old).collect()
}

fn throughput(server: &Server, schema: &Arc<Schema>, table: &mut table::Table) {
    println!("rows/s of a commit, median of {REPEATS}; beside it the rate of the same rows by hand");
    println!(
        "{:>10} {:>8} {:>12} {:>12} {:>8} {:>14} {:>8}",
        "rows", "new", OURS, COPY, "ratio", "staged upsert", "ratio"
    );
    for count in [1000, 10_000, 100_000] {
        for new in [100, 50, 0] {
            let mut ways: Vec<Way> = [OURS, COPY, HAND].map(|name| Way::new(name, server, schema)).into();
            let encoder = ways[0].store.as_ref().unwrap().encoder().unwrap();
            let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
            let base: Vec<(u32, Change)> = (0..2 * count).map(|id| (id, Change::New)).collect();
            for way in &mut ways {
                way.empty();
                way.write(schema, &base, &*encoder);
            }
            // The first turn prepares statements and is not counted.
            for turn in 0..=REPEATS {
                let rows = rows(count, new, turn as u32);
                for (way, seconds) in ways.iter_mut().zip(&mut seconds) {
                    if way.name == COPY && new < 100 {
                        continue;
                    }
                    way.vacuum();
                    let took = way.write(schema, &rows, &*encoder);
                    if turn > 0 {
                        seconds.push(took);
                    }
                }
            }
            let expected = i64::from(2 * count + count * new / 100 * (REPEATS as u32 + 1));
            for way in ways.iter_mut().filter(|way| way.name != COPY || new == 100) {
                assert_eq!(way.rows(), expected, "{}", way.name);
            }
            let rate = |seconds: &Vec<f64>| (!seconds.is_empty()).then(|| f64::from(count) / median(seconds.clone()));
            let [ours, copy, hand] =
                [rate(&seconds[0]).unwrap(), rate(&seconds[1]).unwrap_or(0.0), rate(&seconds[2]).unwrap()];
            let (what, other) = if copy > 0.0 { ("raw COPY", copy) } else { ("staged upsert", hand) };
            let row = table::Row::new(format!("commit of {count} rows, {new} % new"), ours, "rows/s");
            table.note(row.against(what, other).with("staged_upsert", hand));
            let shown = |rate: f64| if rate > 0.0 { format!("{rate:.0}") } else { "-".into() };
            let ratio = |other: f64| if other > 0.0 { format!("{:.2}", ours / other) } else { "-".into() };
            println!(
                "{count:>10} {:>8} {:>12} {:>12} {:>8} {:>14} {:>8}",
                format!("{new} %"),
                shown(ours),
                shown(copy),
                ratio(copy),
                shown(hand),
                ratio(hand)
            );
        }
    }
}

fn round_trips(server: &Server, schema: &Arc<Schema>) {
    println!("\nround trips and time of a commit, by the time that is added to each round trip");
    println!("{:>10} {:>8} {:>8} {:>10} {:>10} {:>10}", "rows", "new", "trips", "0 ms", "1 ms", "20 ms");
    for (count, new) in [(100, 0), (1000, 100), (10_000, 100), (10_000, 0)] {
        let proxy = proxy::Proxy::start(server.port);
        let url = format!("postgres://forebay@127.0.0.1:{}/{}?sslmode=disable", proxy.port, server.make_database());
        let mut store = open(&url, schema);
        let encoder = store.encoder().unwrap();
        let (mut before, mut turn, mut trips) = (Checkpoint::default(), 0, 0);
        let mut took = Vec::new();
        for latency in [0, 1, 20] {
            let mut seconds = Vec::new();
            for repeat in 0..=5 {
                let mut batch = batch(schema, before, &rows(count, new, turn));
                for region in batch.changes.iter_mut().flatten() {
                    *region = encoder.encode(EntityNo::at(0), region.clone()).unwrap();
                }
                (before, turn) = (batch.after, turn + 1);
                proxy.set_latency(Duration::from_millis(latency));
                let (begun, steps) = (Instant::now(), proxy.steps());
                store.commit(&Arc::new(batch)).unwrap();
                trips = proxy.steps() - steps;
                if repeat > 0 {
                    seconds.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            took.push(median(seconds));
        }
        println!(
            "{count:>10} {:>8} {trips:>8} {:>7.1} ms {:>7.1} ms {:>7.1} ms",
            format!("{new} %"),
            took[0],
            took[1],
            took[2]
        );
    }
}

fn main() {
    let server = Server::start("-c fsync=on -c full_page_writes=on -c shared_buffers=128MB -c autovacuum=off");
    let schema = schema();
    let mut table = table::Table::silent("postgres_commit");
    throughput(&server, &schema, &mut table);
    round_trips(&server, &schema);
    table.save();
}
