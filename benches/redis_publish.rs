//! Publishing to Redis against the ways it is done by hand, through a proxy that makes the way 0, 10 and 100 ms long:
//! two round trips a region one after another (claim, then write), the same over eight connections at once, and ours.
//! Cold is a whole process for ours, from start to exit, and connecting included for the others; warm is with the
//! connections made before. Then documents a second on the local machine, against plain pipelined SET.
//!
//! `cargo bench --bench redis_publish`, or `make bench-all`. Starts a private server, and removes it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a benchmark")]

#[path = "../tests/it/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/it/support/redis_server.rs"]
mod redis_server;
mod table;
#[path = "../tests/it/support/redis_proxy.rs"]
mod wire;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay::publish::{Extent, Publication, PublishPlan, Publisher};
use redis::Connection;
use redis_server::Redis;
use wire::Wire;

/// Ways that would take longer are computed from their round trips instead.
const LONGEST: Duration = Duration::from_secs(8);

const CONNECTIONS: usize = 8;

/// Documents of about that size; no two alike.
fn documents(regions: usize, bytes: usize, seq: u64) -> Vec<Publication> {
    let one = |at: usize| {
        let region = format!("r{at:05}");
        let pad: String =
            (0..bytes.saturating_sub(60)).map(|place| char::from(b'a' + ((place * 7 + at) % 26) as u8)).collect();
        let doc = serde_json::json!({ "n": seq, "pad": pad, "region": region });
        Publication::new(region, seq, doc)
    };
    (0..regions).map(one).collect()
}

fn connect(url: &str) -> Connection {
    let client = redis::Client::open(url).unwrap();
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    redis::Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp)).unwrap().get_connection().unwrap()
}

/// Claims the content, and if nobody had, writes: two round trips.
fn by_hand(connection: &mut Connection, item: &Publication) {
    let Publication { region, id, hash, doc, seq, .. } = item;
    let claim = format!("hand:{region}:dedup:{hash}");
    let claimed: bool = redis::cmd("SET")
        .arg(&claim)
        .arg(id)
        .arg("NX")
        .arg("EX")
        .arg(900)
        .query::<Option<String>>(connection)
        .unwrap()
        .is_some();
    if !claimed {
        return;
    }
    let ttl = 7_776_000;
    redis::pipe()
        .cmd("SET")
        .arg(format!("hand:{region}:doc:{id}"))
        .arg(&**doc)
        .arg("EX")
        .arg(ttl)
        .ignore()
        .cmd("ZADD")
        .arg(format!("hand:{region}:index"))
        .arg(*seq)
        .arg(id)
        .ignore()
        .cmd("EXPIRE")
        .arg(format!("hand:{region}:index"))
        .arg(ttl)
        .ignore()
        .cmd("SET")
        .arg(format!("hand:{region}:latest"))
        .arg(id)
        .arg("EX")
        .arg(ttl)
        .ignore()
        .cmd("ZREMRANGEBYSCORE")
        .arg(format!("hand:{region}:index"))
        .arg("-inf")
        .arg(0)
        .ignore()
        .cmd("DEL")
        .arg(format!("hand:{region}:live"))
        .ignore()
        .exec(connection)
        .unwrap();
}

fn sequential(connections: &mut [Connection], items: &[Publication]) {
    items.iter().for_each(|item| by_hand(&mut connections[0], item));
}

fn parallel(connections: &mut [Connection], items: &[Publication]) {
    let share = items.len().div_ceil(connections.len());
    std::thread::scope(|scope| {
        for (connection, items) in connections.iter_mut().zip(items.chunks(share)) {
            scope.spawn(move || items.iter().for_each(|item| by_hand(connection, item)));
        }
    });
}

fn connect_all(url: &str, count: usize) -> Vec<Connection> {
    std::thread::scope(|scope| {
        let connecting: Vec<_> = (0..count).map(|_| scope.spawn(|| connect(url))).collect();
        connecting.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A way of publishing, cold and warm.
struct Row {
    cold: Option<Duration>,
    warm: Option<Duration>,
}

struct Bench<'b> {
    server: &'b Redis,
    way: &'b Wire,
    dir: &'b Path,
    seq: u64,
    table: table::Table,
}

impl Bench<'_> {
    fn items(&mut self, regions: usize, bytes: usize) -> Vec<Publication> {
        self.seq += 1;
        documents(regions, bytes, self.seq)
    }

    fn hand(&mut self, regions: usize, bytes: usize, connections: usize, repeats: usize, round_trip: Duration) -> Row {
        let trips = 2 * regions.div_ceil(connections) as u32;
        if round_trip * trips > LONGEST {
            let whole = round_trip * trips;
            return Row { cold: Some(whole + round_trip), warm: Some(whole) };
        }
        let publish = if connections == 1 { sequential } else { parallel };
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            let [first, second] = [self.items(regions, bytes), self.items(regions, bytes)];
            let mut open = Vec::new();
            cold.push(timed(|| {
                open = connect_all(&self.way.url(), connections);
                publish(&mut open, &first);
            }));
            warm.push(timed(|| publish(&mut open, &second)));
        }
        Row { cold: Some(median(cold)), warm: Some(median(warm)) }
    }

    fn ours(&mut self, regions: usize, bytes: usize, repeats: usize) -> Row {
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        let mut publisher = Publisher::new(plan(&self.way.url())).unwrap();
        publisher.publish(&self.items(regions, 64), Extent::Whole { is_clean: true });
        for _ in 0..repeats {
            let items = self.items(regions, bytes);
            warm.push(timed(|| {
                let published = publisher.publish(&items, Extent::Whole { is_clean: true });
                assert_eq!(published.published(), regions, "{:?}", published.warning);
            }));
            let docs: String = self.items(regions, bytes).iter().map(|item| format!("{}\n", item.doc)).collect();
            let file = self.dir.join("docs.ndjson");
            std::fs::write(&file, docs).unwrap();
            cold.push(timed(|| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
                command.args(["publish", "--pipeline", "cold", "--snapshots", &self.way.url(), "--json"]).arg(&file);
                let ended = command.env_remove("REDIS_URL").stdout(Stdio::null()).status().unwrap();
                assert!(ended.success());
            }));
        }
        Row { cold: Some(median(cold)), warm: Some(median(warm)) }
    }

    fn compare(&mut self, regions: usize, bytes: usize, round_trip: Duration) {
        self.way.set_latency(round_trip);
        let repeats = if regions * bytes > 10_000_000 { 3 } else { 5 };
        let sequential = self.hand(regions, bytes, 1, repeats.min(3), round_trip);
        let parallel = self.hand(regions, bytes, CONNECTIONS, repeats, round_trip);
        let ours = self.ours(regions, bytes, repeats);
        let text = |time: Option<Duration>| {
            time.map_or_else(String::new, |time| {
                let computed = if time > LONGEST { "~" } else { "" };
                format!("{computed}{:.0}", time.as_secs_f64() * 1e3)
            })
        };
        let ratio = |a: Option<Duration>, b: Option<Duration>| {
            a.zip(b).map_or_else(String::new, |(a, b)| format!("{:.1}", a.as_secs_f64() / b.as_secs_f64()))
        };
        println!(
            "{:>4} {:>7} {:>6} | {:>9} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>6} {:>6}",
            round_trip.as_millis(),
            regions,
            bytes,
            text(sequential.cold),
            text(sequential.warm),
            text(parallel.cold),
            text(parallel.warm),
            text(ours.cold),
            text(ours.warm),
            ratio(parallel.warm, ours.warm),
            ratio(sequential.warm, ours.warm),
        );
        if let Some((ours, others)) = ours.warm.zip(parallel.warm) {
            let job = format!("{regions} regions of {bytes} bytes, {} ms away, warm", round_trip.as_millis());
            let row = table::Row::new(job, ours.as_secs_f64() * 1e3, "ms");
            self.table.note(row.against("two trips over 8 connections", others.as_secs_f64() * 1e3));
        }
        let _: String = self.server.ask(&["FLUSHALL"]);
    }
}

fn plan(url: &str) -> PublishPlan {
    PublishPlan::new("bench", url.parse().unwrap()).with_timeout(Duration::from_secs(30)).unwrap()
}

/// Documents a second without a way: plain SET in pipelines of 16, and ours.
fn local(server: &Redis, table: &mut table::Table) {
    const REGIONS: usize = 10_000;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..9 {
        let _: String = server.ask(&["FLUSHALL"]);
        let items = documents(REGIONS, 2000, round + 1);
        let mut connection = connect(&server.url());
        let plain = timed(|| {
            for chunk in items.chunks(16) {
                let mut pipeline = redis::pipe();
                for item in chunk {
                    pipeline.cmd("SET").arg(&*item.region).arg(&*item.doc).ignore();
                }
                pipeline.exec(&mut connection).unwrap();
            }
        });
        let _: String = server.ask(&["FLUSHALL"]);
        let mut publisher = Publisher::new(plan(&server.url())).unwrap();
        let first = timed(|| drop(publisher.publish(&items, Extent::Whole { is_clean: true })));
        let again = documents(REGIONS, 2000, round + 100);
        let changed = timed(|| drop(publisher.publish(&again, Extent::Whole { is_clean: true })));
        for (rates, time) in rates.iter_mut().zip([plain, first, changed]) {
            rates.push(REGIONS as f64 / time.as_secs_f64());
        }
    }
    let [plain, first, changed] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    for (what, rate) in [("that are new", first), ("that change", changed)] {
        let row = table::Row::new(format!("local, {REGIONS} regions of 2,000 bytes {what}"), rate, "documents/s");
        table.note(row.against("plain SET", plain));
    }
    println!("\nlocal, {REGIONS} regions of 2,000 bytes, documents/s (median of 9)");
    println!("  plain SET, pipelines of 16, one connection  {plain:>9.0}   1 key a document");
    println!(
        "  ours, regions that are new                  {first:>9.0}   5 keys a document, {:.2} of plain",
        first / plain
    );
    println!(
        "  ours, regions that change                   {changed:>9.0}   5 keys a document, {:.2} of plain",
        changed / plain
    );
}

fn main() {
    let server = Redis::start(&[]);
    let way = Wire::start(server.port);
    let dir = tempfile::tempdir().unwrap();
    println!("milliseconds (median; ~ computed from the round trips), {CONNECTIONS} connections");
    println!(
        "{:>4} {:>7} {:>6} | {:>19} | {:>17} | {:>17} | ours warm is faster",
        "", "", "", "one after another", "at once", "ours"
    );
    println!(
        "{:>4} {:>7} {:>6} | {:>9} {:>9} | {:>8} {:>8} | {:>8} {:>8} | than at once, one after another",
        "ms", "regions", "bytes", "cold", "warm", "cold", "warm", "cold", "warm"
    );
    let mut bench =
        Bench { server: &server, way: &way, dir: dir.path(), seq: 0, table: table::Table::silent("redis_publish") };
    for millis in [0, 10, 100] {
        for regions in [8, 100, 10_000] {
            for bytes in [2_000, 50_000] {
                bench.compare(regions, bytes, Duration::from_millis(millis));
            }
        }
    }
    let mut table = bench.table;
    local(&server, &mut table);
    table.save();
}
