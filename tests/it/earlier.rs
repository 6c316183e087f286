//! Databases that an earlier version made are brought over by the first run, and keep working.
//!
//! `tests/data/earlier-*.sql` are dumps of what a build made of these events before stores knew anything of their source.
//! `tests/data/format1-*.sql` are dumps of two pipelines that the last build of format 1 made, one of which has an event in
//! quarantine.

use crate::support::project::{Project, Stores, with_store};
use crate::support::wait_until;

const PIPELINE: &str = r#"name = "old"
[source]
path = "events.ndjson"
[handlers]
script = "handlers.lua"
[entities.product]
columns = { sold = "bigint", revenue = "numeric" }
indexes = ["sold"]
[rollback]
depth = 2
[store]
url = "sqlite:old.db"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  local row = ctx.product:get(event.id) or { sold = 0, revenue = numeric(0) }
  row.sold, row.revenue = row.sold + 1, row.revenue + event.price
  ctx.product:set(event.id, row)
end
function on_snapshot(ctx)
  return { sold = ctx.product:count() }
end
"#;

const EVENTS: &str = r#"{"block":1,"region":"north","id":"tea","price":4}
{"block":1,"region":"south","id":"tea","price":5}
{"block":2,"region":"north","id":"tea","price":4}
{"block":3,"region":"north","id":"nut","price":2}
{"block":4,"region":"south","id":"tea","price":5}
"#;

const NEXT: &str = "{\"block\":5,\"region\":\"south\",\"id\":\"nut\",\"price\":3}\n";

/// A project whose store an earlier version made.
fn project() -> Project {
    let project = Project::with(PIPELINE, SCRIPT, EVENTS);
    match project.url() {
        Some(_) => {
            let dump = include_str!("../data/earlier-postgres.sql");
            project.client().batch_execute(dump).expect("the dump");
        }
        None => {
            let connection = rusqlite::Connection::open(project.path("old.db")).expect("a database");
            connection.execute_batch(include_str!("../data/earlier-sqlite.sql")).expect("the dump");
        }
    }
    project
}

fn rows(project: &Project) -> Vec<String> {
    let rows = project.query("old.db", "SELECT region, id, sold, revenue FROM product ORDER BY region, id");
    rows.into_iter().map(|row| row.join(" ")).collect()
}

const ROWS: [&str; 3] = ["north nut 1 2", "north tea 2 8", "south tea 2 10"];

crate::both_stores! {
    fn the_first_run_takes_the_sum_without_a_word_and_later_ones_compare() {
        let project = project();
        let first = project.forebay(&["run", "pipeline.toml"]).ok();
        assert!(!first.stderr().contains("WARN"), "{first}");
        assert_eq!(rows(&project), ROWS);
        project.write("events.ndjson", EVENTS.replacen("\"price\":4", "\"price\":7", 1) + NEXT);
        project.forebay(&["run", "pipeline.toml"]).fails(2, &["events.ndjson", "the source was changed"]);
        project.write("events.ndjson", EVENTS.to_owned() + NEXT);
        assert_eq!(project.run_json()["events"], 1);
        assert_eq!(rows(&project), ["north nut 1 2", "north tea 2 8", "south nut 1 3", "south tea 2 10"]);
    }

    fn it_can_be_rolled_back_and_goes_on() {
        let project = project();
        project.forebay(&["rollback", "pipeline.toml", "--to", "2"]).ok();
        assert_eq!(rows(&project), ["north tea 2 8", "south tea 1 5"]);
        assert_eq!(project.run_json()["events"], 2);
        assert_eq!(rows(&project), ROWS);
        assert_eq!(project.run_json()["events"], 0);
    }
}

/// The pipeline of format 1 that is brought over.
const SHOP: &str = r#"name = "shop"
[source]
path = "shop/events.ndjson"
hash = "hash"
[handlers]
script = "handlers.lua"
[entities.product]
columns = { sold = "bigint", revenue = "numeric" }
indexes = ["sold"]
[errors]
on_event = "quarantine"
[rollback]
depth = 2
[store]
url = "sqlite:old.db"
[snapshots]
every = "end"
"#;

const SHOP_EVENTS: &str = r#"{"block":1,"hash":"a","region":"north","id":"tea","price":4}
{"block":1,"hash":"a","region":"south","id":"tea","price":5}
{"block":2,"hash":"b","region":"north","id":"tea","price":4}
{"block":3,"hash":"c","region":"north","id":"nut","price":2}
{"block":3,"hash":"c","region":"north","id":"nut"}
{"block":4,"hash":"d","region":"south","id":"tea","price":5}
"#;

const SHOP_NEXT: &str = "{\"block\":5,\"hash\":\"e\",\"region\":\"south\",\"id\":\"nut\",\"price\":3}\n";

/// A project over a store of format 1, which also holds the pipeline `other`.
fn format_1() -> Project {
    let project = Project::with(SHOP, SCRIPT, "");
    for (name, events) in
        [("shop", SHOP_EVENTS), ("other", &SHOP_EVENTS[..SHOP_EVENTS.find("{\"block\":3").expect("it is there")])]
    {
        std::fs::create_dir(project.path(name)).expect("a folder");
        project.write(&format!("{name}/events.ndjson"), events);
    }
    let other = SHOP.replace("\"shop\"", "\"other\"").replace("shop/", "other/").replace("product]", "stock]");
    project.write("other.toml", other.replace("handlers.lua", "other.lua"));
    project.write("other.lua", SCRIPT.replace("ctx.product", "ctx.stock"));
    match project.url() {
        Some(_) => {
            project.client().batch_execute(include_str!("../data/format1-postgres.sql")).expect("the dump");
        }
        None => {
            let connection = rusqlite::Connection::open(project.path("old.db")).expect("a database");
            connection.execute_batch(include_str!("../data/format1-sqlite.sql")).expect("the dump");
        }
    }
    project
}

/// What whoever only reads is told of a pipeline.
fn told(project: &Project, file: &str) -> Vec<String> {
    let commands = [
        &["latest", "--config", file][..],
        &["history", "north", "--config", file],
        &["show", "north.1.fbc0bb539da89125", "--config", file],
        &["quarantine", file, "--json"],
    ];
    let mut told: Vec<String> = commands.iter().map(|args| project.forebay(args).ok().stdout()).collect();
    let mut status = project.forebay(&["status", file, "--json"]).ok().json();
    // How long ago it was.
    status["lag"] = serde_json::Value::Null;
    status["checkpoint"]["committed_at"] = serde_json::Value::Null;
    let regions = status["regions"].as_array_mut().expect("regions");
    regions.iter_mut().for_each(|region| region["age_seconds"] = serde_json::Value::Null);
    told.push(status.to_string());
    told
}

/// All rows that format 1 keeps in Postgres, or all of the file in SQLite.
fn rows_of_format_1(project: &Project, pipeline: &str) -> Vec<String> {
    let tables =
        ["pipelines", "entities", "regions", "snapshots", "history", "source_files", "quarantine", "signatures"];
    let rows = |table: &&str| match project.url() {
        Some(_) => {
            let sql =
                format!("SELECT to_jsonb(t)::text FROM \"forebay\".{table} t WHERE pipeline = '{pipeline}' ORDER BY 1");
            project.client().query(&sql, &[]).expect(&sql).iter().map(|row| row.get(0)).collect::<Vec<String>>()
        }
        None => {
            // What a column holds that came later does not count.
            let columns = match *table {
                "pipelines" => {
                    "pipeline, format, batch, block, events, has_snapshots, committed_at, source_digest, place"
                }
                _ => "*",
            };
            let sql = format!("SELECT {columns} FROM forebay_{table} WHERE pipeline = '{pipeline}'");
            project.query("old.db", &sql).iter().map(|row| row.join("|")).collect()
        }
    };
    tables.iter().flat_map(rows).collect()
}

fn shop_rows(project: &Project) -> Vec<String> {
    let rows = project.query("old.db", "SELECT region, id, sold, revenue FROM product ORDER BY region, id");
    rows.into_iter().map(|row| row.join(" ")).collect()
}

crate::both_stores! {
    fn format_1_is_read_as_it_is_and_brought_over_by_the_first_run() {
        let project = format_1();
        let (before, other, others_rows) =
            (told(&project, "pipeline.toml"), told(&project, "other.toml"), rows_of_format_1(&project, "other"));
        assert!(before[3].contains("numeric: expected a number"), "{before:?}");
        let first = project.forebay(&["run", "pipeline.toml", "--json"]).ok();
        assert!(!first.stderr().contains("WARN"), "{first}");
        assert_eq!(first.json()["events"], 0);
        assert_eq!(shop_rows(&project), ["north nut 1 2", "north tea 2 8", "south tea 2 10"]);
        assert_eq!(told(&project, "pipeline.toml"), before);
        // The other pipeline is as it was, and can be read.
        assert_eq!((told(&project, "other.toml"), rows_of_format_1(&project, "other")), (other.clone(), others_rows));
        if project.url().is_some() {
            let left = rows_of_format_1(&project, "shop");
            assert!(left.len() == 1 && left[0].contains("\"format\": 2"), "an earlier forebay sees that: {left:?}");
        }
        assert_eq!(project.query("old.db", "SELECT block FROM _progress ORDER BY block DESC")[0], ["4"]);
        // It goes back, and goes on.
        project.forebay(&["rollback", "pipeline.toml", "--to", "2"]).ok();
        assert_eq!(shop_rows(&project), ["north tea 2 8", "south tea 1 5"]);
        project.write("shop/events.ndjson", SHOP_EVENTS.to_owned() + SHOP_NEXT);
        let report = project.run_json();
        assert_eq!((&report["events"], &report["quarantined"]), (&4.into(), &1.into()));
        assert_eq!(shop_rows(&project), ["north nut 1 2", "north tea 2 8", "south nut 1 3", "south tea 2 10"]);
        // And so is the other one.
        project.forebay(&["run", "other.toml"]).ok();
        assert_eq!(told(&project, "other.toml"), other);
    }

    fn what_cannot_be_brought_over_is_left_as_it_is() {
        let project = format_1();
        let before = rows_of_format_1(&project, "shop");
        project.write("pipeline.toml", SHOP.replace("sold = \"bigint\"", "sold = \"text\""));
        project.forebay(&["run", "pipeline.toml"]).fails(2, &["product.sold is bigint in the store and text in the pi"]);
        assert_eq!(rows_of_format_1(&project, "shop"), before);
        project.write("pipeline.toml", SHOP);
        assert_eq!(project.run_json()["events"], 0);
    }

    fn what_format_1_has_to_publish_is_published_and_marked() {
        use forebay::store::{StoreUrl, open_outbox};
        let project = format_1();
        let url: StoreUrl = project.store("old.db").parse().expect("an address");
        let (now, epoch) = (forebay::Timestamp::now(), "1970-01-01T00:00:00Z".parse().expect("a time"));
        let mut outbox = open_outbox(&url, "shop").expect("an outbox");
        let due = |outbox: &mut dyn forebay::store::Outbox| {
            let due = outbox.due(epoch, "", 10).expect("snapshots");
            due.iter().map(|due| due.publication.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut *outbox), ["north.2.ae65354f092f4f5c", "south.1.fbc0bb539da89125"]);
        assert!(outbox.holds("north", 1, 2).expect("it is there") && !outbox.holds("north", 1, 3).expect("no other"));
        let signature = outbox.signature().expect("a signature");
        assert_eq!(signature.as_ref().map(String::len), Some(32));
        outbox.mark(&[("north".into(), 2)], now).expect("a mark");
        let check = |outbox: &mut dyn forebay::store::Outbox| {
            assert_eq!(due(outbox), ["south.1.fbc0bb539da89125"]);
            assert_eq!(outbox.published("", 10).expect("marks"), [("north".into(), 2)]);
            assert_eq!(outbox.signature().expect("a signature"), signature);
        };
        check(&mut *outbox);
        let mut others = open_outbox(&url, "other").expect("an outbox");
        assert_eq!(others.published("", 10).expect("marks"), []);
        drop((outbox, others));
        project.run_json();
        check(&mut *open_outbox(&url, "shop").expect("an outbox"));
    }
}

/// An earlier version names no columns where it writes rows of ours: those of a pipeline that was not brought over still
/// fit.
#[test]
fn an_earlier_version_goes_on_with_another_pipeline_of_the_file() {
    let project = format_1();
    project.run_json();
    let connection = rusqlite::Connection::open(project.path("old.db")).expect("a database");
    for (table, columns) in
        [("history", 6), ("regions", 6), ("snapshots", 9), ("source_files", 14), ("quarantine", 12), ("entities", 3)]
    {
        let row = vec!["NULL"; columns].join(", ");
        let error = connection.execute(&format!("INSERT INTO forebay_{table} VALUES ({row})"), []).expect_err("nulls");
        assert!(error.to_string().contains("NOT NULL constraint failed"), "{table}: {error}");
    }
}

/// Killed in the midst of it, a run leaves what was there.
#[test]
fn a_run_that_is_killed_while_it_brings_format_1_over_changes_nothing() {
    let mut project = None;
    with_store(Stores::Postgres, || project = Some(format_1()));
    let project = project.expect("a project");
    let before = rows_of_format_1(&project, "shop");
    for table in ["pipelines", "snapshots", "history", "quarantine"] {
        let mut other = project.client();
        // It waits for whoever holds a table, with the tables before that one brought over.
        other.batch_execute(&format!("BEGIN; LOCK TABLE \"forebay\".{table} IN EXCLUSIVE MODE")).expect("a lock");
        let mut run = project.command(&["run", "pipeline.toml"]).spawn().expect("the binary starts");
        let mut watcher = project.client();
        let sql = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                   WHERE NOT l.granted AND l.relation IS NOT NULL AND a.datname = current_database()";
        wait_until(|| watcher.query_one(sql, &[]).expect("locks").get::<_, i64>(0) > 0);
        run.kill().expect("it is killed");
        run.wait().expect("it has ended");
        other.batch_execute("ROLLBACK").expect("the end");
        // What it had sent ends with it.
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'forebay%'";
        wait_until(|| watcher.query_one(sql, &[]).expect("sessions").get::<_, i64>(0) == 0);
        assert_eq!(rows_of_format_1(&project, "shop"), before, "{table}");
        let sql = "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_forebay\\_%'";
        assert_eq!(watcher.query_one(sql, &[]).expect("tables").get::<_, i64>(0), 0, "{table}");
    }
    assert_eq!(project.run_json()["events"], 0);
    assert_eq!(rows_of_format_1(&project, "shop").len(), 1);
}

/// Whoever had rights on the tables of format 1 has them where they are now; whoever reads the pipeline's has no more.
#[test]
fn rights_on_format_1_are_kept() {
    let mut project = None;
    with_store(Stores::Postgres, || project = Some(format_1()));
    let project = project.expect("a project");
    let url = project.url().expect("url");
    let name = url.rsplit('/').next().expect("a name");
    let [keeper, reader, writer] = ["keeper", "reader", "writer"].map(|role| format!("{role}_{name}"));
    let rights = format!(
        "CREATE ROLE {keeper} LOGIN; CREATE ROLE {reader} LOGIN; CREATE ROLE {writer} LOGIN;
         GRANT USAGE ON SCHEMA \"forebay\" TO {keeper}, {writer};
         GRANT SELECT ON ALL TABLES IN SCHEMA \"forebay\" TO {keeper};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"forebay\" TO {writer};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO {writer};
         GRANT USAGE ON SCHEMA shop TO {reader}, {writer}; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {reader};
         ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO {reader}"
    );
    project.client().batch_execute(&rights).expect("roles");
    let at = |role: &str| url.replace("forebay@", &format!("{role}@"));
    let latest = |role: &str| project.forebay(&["latest", "--config", "pipeline.toml", "--snapshots", &at(role)]);
    latest(&keeper).ok();
    project.write("pipeline.toml", SHOP.replace("url = \"sqlite:old.db\"", &format!("readers = \"{reader}\"")));
    // Whoever may not make tables cannot bring them over, and hears who can.
    let args = ["run", "pipeline.toml", "--store", &at(&writer)];
    project.forebay(&args).fails(1, &["42501", "let its owner make the schema and its tables once"]);
    project.run_json();
    latest(&keeper).ok();
    latest(&reader).fails(1, &["42501", "SELECT on the tables there that begin with _forebay_"]);
    project.write("shop/events.ndjson", SHOP_EVENTS.to_owned() + SHOP_NEXT);
    project.forebay(&args).ok();
    assert_eq!(shop_rows(&project).len(), 4);
    let sql = "SELECT block FROM shop._progress";
    let progress = postgres::Client::connect(&at(&reader), postgres::NoTls).expect("a connection").query_one(sql, &[]);
    assert_eq!(progress.expect("a row").get::<_, i64>(0), 5);
    for role in [&keeper, &reader, &writer] {
        project.client().batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("it goes");
    }
}
