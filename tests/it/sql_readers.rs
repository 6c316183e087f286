//! People who read the tables with SQL: a file that is whole when a run has ended.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::project::{Project, query};

const PIPELINE: &str = r#"name = "shop"
[source]
path = "events.ndjson"
[entities.product]
columns = { sold = "bigint", revenue = "numeric", last_at = "timestamptz", ok = "boolean" }
indexes = ["sold"]
[handlers]
script = "handlers.lua"
[rollback]
depth = 100
[store]
url = "sqlite:shop.db"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = "function on_event(e, ctx)
  ctx.product:add(tostring(ctx.block % 50), { sold = 1, revenue = numeric('0.10') })
end
function on_snapshot(ctx) return { products = ctx.product:count() } end";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

const STATE: &str = "SELECT (SELECT block FROM forebay_pipelines), (SELECT sum(sold) FROM product), (SELECT max(block) FROM forebay_snapshots)";

/// Another program that has read, and stays connected.
fn reader(project: &Project) -> Connection {
    let reader = Connection::open(project.path("shop.db")).expect("the database");
    read(&reader);
    reader
}

fn read(reader: &Connection) -> i64 {
    reader.query_row("SELECT sum(sold) FROM product", [], |row| row.get(0)).expect("rows")
}

/// What a copy of the one file holds: block, sum, block of the snapshot.
fn copied(project: &Project) -> Vec<String> {
    std::fs::copy(project.path("shop.db"), project.path("copy.db")).expect("a copy");
    let state = query(&project.path("copy.db"), STATE).remove(0);
    std::fs::remove_file(project.path("copy.db")).expect("it goes");
    state
}

#[test]
fn a_copy_of_the_file_alone_is_whole_while_a_reader_is_connected() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let reader = reader(&project);
    project.write("events.ndjson", events(1..=200));
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(!run.stderr().contains("shop.db-wal"), "{run}");
    assert_eq!(copied(&project), ["200", "200", "200"]);
    let back = project.forebay(&["rollback", "pipeline.toml", "--to", "150"]).ok();
    assert!(!back.stderr().contains("shop.db-wal"), "{back}");
    assert_eq!(copied(&project), ["150", "150", "200"], "the snapshot as of 150 has a number above that as of 200");
    // Also behind a run that fails.
    project.write("events.ndjson", events(1..=170) + "nonsense\n");
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["events.ndjson:171"]);
    assert_eq!(copied(&project)[..2], ["169", "169"]);
    assert_eq!(read(&reader), 169);
}

#[test]
fn a_reader_in_a_transaction_holds_no_run_up_and_what_copies_need_is_told() {
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let reader = reader(&project);
    reader.execute_batch("BEGIN").expect("a transaction");
    assert_eq!(read(&reader), 3);
    project.write("events.ndjson", events(1..=200));
    let begun = Instant::now();
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let told: Vec<String> = run.stderr().lines().filter(|line| line.contains("-wal")).map(str::to_owned).collect();
    assert_eq!(told.len(), 1, "{run}");
    assert!(told[0].contains("INFO") && told[0].contains("shop.db-wal, because other programs are reading"), "{run}");
    assert_eq!(read(&reader), 3, "it sees what it has begun with");
    // What was told is true: with the log a copy is whole.
    for ending in ["", "-wal"] {
        let copy = project.path(&format!("both.db{ending}"));
        std::fs::copy(project.path(&format!("shop.db{ending}")), copy).expect("a copy");
    }
    assert_eq!(query(&project.path("both.db"), STATE), [["200", "200", "200"]]);
    reader.execute_batch("COMMIT").expect("its end");
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(!run.stderr().contains("-wal"), "{run}");
    assert_eq!(copied(&project), ["200", "200", "200"]);
    assert_eq!(read(&reader), 200);
}
