//! Faults on the way to the database: each kind, at each round trip of what a run does. Whatever happens, the end is that
//! of an undisturbed run.
//!
//! The batches are made by hand, so that every run of them takes the same round trips: one that is small, one that is
//! streamed into the table, one that goes by way of staging, one that mixes all of it, with snapshots in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::store::batch::codec::{Change, RowHead, Writer, encode_values};
use forebay::store::batch::{Checkpoint, RegionChanges, RegionTouch, SealedBatch, SnapshotDraft};
use forebay::store::{Store, StorePlan, StoreUrl};
use forebay::{Column, ColumnType, Entity, EntityNo, Schema, Timestamp, Value};

use crate::support::postgres_proxy::{Fault, Proxy};
use crate::support::postgres_server::{Server, query};

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind| Column::new(name, kind);
    let columns = vec![
        column("n", ColumnType::Bigint),
        column("sum", ColumnType::Numeric),
        column("at", ColumnType::Timestamptz),
        column("note", ColumnType::Text),
    ];
    let entity = Entity::new("account", columns).with_indexes(["n"]);
    Arc::new(Schema::new([entity]).expect("a schema"))
}

fn plan(schema: &Arc<Schema>) -> StorePlan {
    let plan = StorePlan::new("faults", Arc::clone(schema)).expect("a plan").with_snapshots(true);
    plan.with_ttl(Duration::from_secs(86_400)).expect("a plan")
}

/// A row of a batch: which one, and what becomes of it.
type Row = (u32, Change);

fn values(id: u32, batch: u64) -> [Value; 4] {
    let time = Timestamp::from_micros(1_500_000_000_000_000 + i64::from(id)).expect("a time");
    // In the order of the columns' names.
    [
        Value::Timestamptz(time),
        Value::Bigint(i64::from(id)),
        if id.is_multiple_of(3) { Value::Null } else { Value::Text(format!("é {id} in {batch}").into()) },
        Value::Numeric(format!("-{id}00000000000000000000000000000000000000.25").parse().expect("a number")),
    ]
}

fn sealed(schema: &Schema, before: Checkpoint, rows: &[Row], with_snapshots: bool) -> SealedBatch {
    let number = before.batch + 1;
    let entity = &schema.entities()[0];
    let regions: Vec<Arc<str>> = vec!["a".into(), "b".into()];
    let changes = regions.iter().enumerate().map(|(at, region)| {
        let mut packed = Vec::new();
        for (id, change) in rows.iter().filter(|(id, _)| *id as usize % 2 == at) {
            let name = format!("id{id}");
            encode_values(
                entity,
                RowHead { id: &name, change: *change, writer: Writer::default() },
                &values(*id, number),
                &mut packed,
            );
        }
        RegionChanges::new(entity, Arc::clone(region), packed).expect("rows")
    });
    let block = number as i64 * 10;
    let touch = |region: &Arc<str>| RegionTouch::new(Arc::clone(region), block, 5);
    let draft = |region: &Arc<str>| {
        let time = Timestamp::from_micros(1_600_000_000_000_000 + block * 1_000_000).expect("a time");
        // Region b never changes.
        let hash = format!("{:064}", if **region == *"a" { number } else { 7 });
        SnapshotDraft::new(Arc::clone(region), block, time, hash, format!("{{\"n\":{number}}}").into())
    };
    let after = Checkpoint::new(number, Some(block)).with_counts(1, number * 2, number * 10);
    let mut batch = SealedBatch::new(before, after);
    batch.first_block = Some(block - 5);
    batch.changes = vec![changes.collect()];
    batch.touched = regions.iter().map(touch).collect();
    if with_snapshots {
        batch.snapshots = regions.iter().map(draft).collect();
    }
    batch
}

/// The batches of every run, in the form that the store wants.
fn batches(schema: &Arc<Schema>, store: &dyn Store) -> Vec<Arc<SealedBatch>> {
    let all = |range: std::ops::Range<u32>, change| range.map(move |id| (id, change));
    // Just enough of each to be streamed.
    let mixed: Vec<Row> =
        all(0..50, Change::Deleted).chain(all(50..1060, Change::Written)).chain(all(4000..6100, Change::New)).collect();
    let rows: [Vec<Row>; 4] = [
        all(0..100, Change::New).collect(),
        all(100..1120, Change::New).collect(),
        all(50..1060, Change::Written).collect(),
        mixed,
    ];
    let encoder = store.encoder().expect("an encoder");
    let mut before = Checkpoint::default();
    let batches = rows.iter().enumerate().map(|(at, rows)| {
        let mut batch = sealed(schema, before, rows, at != 1);
        before = batch.after;
        for regions in &mut batch.changes {
            for region in regions.iter_mut() {
                *region = encoder.encode(EntityNo::at(0), region.clone()).expect("rows");
            }
        }
        Arc::new(batch)
    });
    batches.collect()
}

/// The state of the database, and what the commits answered.
type Outcome = (Vec<Vec<String>>, Vec<Vec<String>>, Vec<String>);

fn run(server: &Server, port: u16, database: &str, stall: Duration) -> Result<Outcome, String> {
    let schema = schema();
    let options = format!("sslmode=disable&connect_timeout=1&options=-c%20statement_timeout%3D{}", stall.as_millis());
    let url = format!("postgres://forebay@127.0.0.1:{port}/{database}?{options}");
    let url = StoreUrl::parse(&url, std::path::Path::new("")).expect("an address");
    let mut store = forebay::store::open(&url, plan(&schema)).map_err(|error| format!("open: {error}"))?;
    let before = store.checkpoint().map_err(|error| format!("checkpoint: {error}"))?;
    assert_eq!((before, store.empty_entities().expect("entities")), (Checkpoint::default(), vec![true]));
    let mut said = Vec::new();
    for batch in batches(&schema, store.as_ref()) {
        let committed = store.commit(&batch).map_err(|error| format!("batch {}: {error}", batch.after.batch))?;
        said.push(format!("{} {} {:?} {}", committed.batch, committed.rows, committed.snapshots, committed.was_redone));
    }
    drop(store);
    let mut client = server.client(database);
    let rows = query(&mut client, "faults", "SELECT * FROM account ORDER BY region, id");
    let own = "SELECT 'c', batch::text, block::text, events::text, '', '' FROM forebay_pipelines
               UNION ALL SELECT 'r', region, block::text, events::text, seq::text, snapshot_block::text FROM forebay_regions
               UNION ALL SELECT 's', region, id, seq::text, block::text, doc::text FROM forebay_snapshots ORDER BY 1, 2, 3";
    Ok((rows, query(&mut client, "faults", own), said))
}

/// What an undisturbed run comes to, and how many round trips it takes.
fn undisturbed(server: &Server) -> (Outcome, u64) {
    let proxy = Proxy::start(server.port);
    let outcome = run(server, proxy.port, &server.make_database(), LONG).expect("it succeeds");
    (outcome, proxy.steps())
}

const LONG: Duration = Duration::from_secs(60);

/// Runs once for each step with a fault of that kind at it, some runs at a time.
fn campaign(server: &Server, at_once: usize, stall: Duration, fault: impl Fn(&str) -> Fault + Sync) {
    let (expected, steps) = undisturbed(server);
    assert!(steps > 34, "{steps} steps are fewer than a run takes");
    let next = AtomicU64::new(1);
    let one = |step: u64| {
        let proxy = Proxy::start(server.port);
        let database = server.make_database();
        proxy.break_at(step, fault(&database));
        let outcome = run(server, proxy.port, &database, stall).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(!proxy.is_armed(), "step {step} of {steps} was not reached");
        assert_eq!(outcome, expected, "step {step} of {steps}");
        server.client("postgres").batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).expect("drop");
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        step if step <= steps => one(step),
                        _ => return,
                    }
                }
            });
        }
    });
}

#[test]
fn a_connection_that_breaks_before_the_server_has_seen_a_request() {
    campaign(Server::shared(), 2, LONG, |_| Fault::CutBefore);
}

#[test]
fn a_connection_that_breaks_before_the_client_has_seen_the_answer() {
    campaign(Server::shared(), 2, LONG, |_| Fault::CutAfter);
}

#[test]
fn an_answer_that_never_comes() {
    campaign(Server::shared(), 8, Duration::from_millis(200), |_| Fault::Stall);
}

#[test]
fn an_answer_that_comes_late() {
    campaign(Server::shared(), 2, LONG, |_| Fault::Delay(Duration::from_millis(30)));
}

#[test]
fn a_backend_that_is_terminated() {
    campaign(Server::shared(), 2, LONG, |database| {
        let database = database.to_owned();
        Fault::Before(Box::new(move || {
            let sql =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
            Server::shared().client("postgres").execute(sql, &[&database]).expect("terminate");
        }))
    });
}

#[test]
fn a_server_that_crashes_and_comes_back() {
    let server: &'static Server = Box::leak(Box::new(Server::start("")));
    campaign(server, 1, LONG, move |_| {
        Fault::Before(Box::new(move || {
            server.crash();
            server.restart();
        }))
    });
}

/// How many round trips each shape of batch takes, once its statements are prepared.
#[test]
fn the_round_trips_of_a_commit_are_counted() {
    let server = Server::shared();
    let proxy = Proxy::start(server.port);
    let schema = schema();
    let url = format!("postgres://forebay@127.0.0.1:{}/{}?sslmode=disable", proxy.port, server.make_database());
    let url = StoreUrl::parse(&url, std::path::Path::new("")).expect("an address");
    let mut store = forebay::store::open(&url, plan(&schema)).expect("a store");
    let encoder = store.encoder().expect("an encoder");
    let mut before = Checkpoint::default();
    let mut trips = |rows: Vec<Row>, with_snapshots| {
        let mut batch = sealed(&schema, before, &rows, with_snapshots);
        before = batch.after;
        for region in batch.changes.iter_mut().flatten() {
            *region = encoder.encode(EntityNo::at(0), region.clone()).expect("rows");
        }
        let begun = proxy.steps();
        store.commit(&Arc::new(batch)).expect("a commit");
        proxy.steps() - begun
    };
    let all = |range: std::ops::Range<u32>, change| range.map(move |id| (id, change)).collect::<Vec<Row>>();
    // The first row, by how much it moves on with each batch, how many rows, what is done to them.
    let shapes =
        [(0, 0, 500, Change::Written, 1), (10_000, 5000, 5000, Change::New, 5), (10_000, 0, 5000, Change::Written, 5)];
    for (first, step, count, change, expected) in shapes {
        let range = |at: u32| first + step * at..first + step * at + count;
        for with_snapshots in [false, true] {
            let at = u32::from(with_snapshots) * 6;
            // In the first three large ones it is seen what the table is, and that is told once.
            for more in 0..3 {
                trips(all(range(at + more), change), with_snapshots);
            }
            let counted: Vec<u64> = (3..6).map(|more| trips(all(range(at + more), change), with_snapshots)).collect();
            assert_eq!(counted, [expected; 3], "{change:?}, snapshots {with_snapshots}");
        }
    }
}

/// A row that another program put there is not taken for new for long: the batch is written again, looking at each row.
#[test]
fn a_row_that_was_thought_to_be_new_is_written_all_the_same() {
    let server = Server::shared();
    let schema = schema();
    let database = server.make_database();
    let url = StoreUrl::parse(&server.url(&database), std::path::Path::new("")).expect("an address");
    let mut store = forebay::store::open(&url, plan(&schema)).expect("a store");
    server.execute(&database, "INSERT INTO faults.account (region, id, n) VALUES ('a', 'id300', -1)");
    let mut redone = Vec::new();
    for batch in batches(&schema, store.as_ref()) {
        redone.push(store.commit(&batch).expect("a commit").was_redone);
    }
    assert_eq!(redone, [false, true, false, false], "once, and then each row is looked at");
    let found = query(&mut server.client(&database), "faults", "SELECT n FROM account WHERE id = 'id300'");
    assert_eq!(found, [["300"]]);
}
