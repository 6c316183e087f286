//! Indexing anew beside the present tables: readers see all of the old ones or all of the new ones, whatever happens.

use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::project::{Outcome, Project};
use crate::support::redis_server::Redis;
use crate::support::{signal, wait_until};

const PIPELINE: &str = r#"name = "shop"
[source]
path = "events.ndjson"
[entities.product]
columns = { v = "bigint", n = "bigint" }
[entities.sale]
columns = { v = "bigint" }
[handlers]
script = "handlers.lua"
[batch]
events = 50
[store]
url = "sqlite:shop.db"
"#;

/// Rows of 20 products in two regions and a sale for each event, all of which say by which script they were made.
fn script(version: u32) -> String {
    format!(
        "function on_event(e, ctx)
  local id = tostring(ctx.block % 20)
  local row = ctx.product:get(id)
  ctx.product:set(id, {{ v = {version}, n = (row and row.n or 0) + 1 }})
  ctx.sale:set(tostring(ctx.block), {{ v = {version} }})
end
function on_snapshot(ctx) return {{ v = {version}, rows = ctx.product:count() }} end"
    )
}

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    let regions = ["north", "south"];
    blocks.flat_map(|block| regions.map(|region| format!("{{\"block\":{block},\"region\":\"{region}\"}}\n"))).collect()
}

fn project() -> Project {
    Project::with(PIPELINE, &script(1), &events(1..=400))
}

const STATE: &str = "SELECT (SELECT count(*) FROM product), (SELECT min(v) FROM product), (SELECT max(v) FROM product),
    (SELECT sum(n) FROM product), (SELECT count(*) FROM sale), (SELECT min(v) FROM sale), (SELECT max(v) FROM sale)";

/// All rows of 400 blocks, made by one script.
fn whole(version: u32) -> Vec<String> {
    let v = version.to_string();
    let v = v.as_str();
    ["40", v, v, "800", "800", v, v].map(str::to_owned).to_vec()
}

fn state(project: &Project) -> Vec<String> {
    project.query("shop.db", STATE).remove(0)
}

fn fresh(project: &Project) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--fresh", "--json"])
}

fn status(project: &Project) -> serde_json::Value {
    project.forebay(&["status", "pipeline.toml", "--json"]).json()
}

/// What is there beside the tables, of an index that was begun or that has gone.
fn left_beside(project: &Project) -> Vec<String> {
    if project.url().is_some() {
        let sql = "SELECT nspname::text FROM pg_namespace WHERE position('@' IN nspname) > 0 ORDER BY 1";
        return project.query("", sql).into_iter().flatten().collect();
    }
    let files = std::fs::read_dir(project.path(".")).expect("the folder");
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.contains(".new") && !name.ends_with(".lock")).collect();
    names.sort();
    names
}

/// Whoever reads all the time, over one connection.
enum Reader {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

impl Reader {
    fn of(project: &Project) -> Self {
        match project.url() {
            None => {
                let open = rusqlite::Connection::open(project.path("shop.db")).expect("the database");
                open.busy_timeout(Duration::from_secs(20)).expect("a time-out");
                Self::Sqlite(open)
            }
            Some(_) => {
                let mut client = project.client();
                client.batch_execute("SET search_path = shop, public").expect("settings");
                Self::Postgres(Box::new(client))
            }
        }
    }

    fn numbers(&mut self, sql: &str) -> Vec<i64> {
        match self {
            Self::Sqlite(open) => open
                .query_row(sql, [], |row| (0..row.as_ref().column_count()).map(|at| row.get(at)).collect())
                .expect(sql),
            Self::Postgres(client) => {
                let row = client.query_one(sql, &[]).expect(sql);
                (0..row.len()).map(|at| row.get(at)).collect()
            }
        }
    }

    fn execute(&mut self, sql: &str) {
        match self {
            Self::Sqlite(open) => open.execute_batch(sql).expect(sql),
            Self::Postgres(client) => client.batch_execute(sql).expect(sql),
        }
    }
}

/// A view of both tables.
const VIEW: &str = "CREATE VIEW seen AS SELECT (SELECT count(*) FROM product) AS products,
    (SELECT min(v) FROM product) AS a, (SELECT max(v) FROM product) AS b, (SELECT count(*) FROM sale) AS sales,
    (SELECT min(v) FROM sale) AS c, (SELECT max(v) FROM sale) AS d";

/// The same by the names of the tables.
const TABLES: &str =
    "SELECT (SELECT count(*) FROM product), (SELECT min(v) FROM product), (SELECT max(v) FROM product),
    (SELECT count(*) FROM sale), (SELECT min(v) FROM sale), (SELECT max(v) FROM sale)";

/// Reads until it is told to end, and wants to see whole tables of one script; gives the scripts that it saw.
fn read_all_the_time(project: &Project, sql: &str, is_over: &AtomicBool) -> Vec<i64> {
    let mut reader = Reader::of(project);
    let mut seen = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let found = reader.numbers(sql);
        let v = found[1];
        assert_eq!(found, [40, v, v, 800, v, v], "{sql}");
        if seen.last() != Some(&v) {
            seen.push(v);
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    seen
}

/// The same of what is in Redis: the newest document of each region is there.
fn read_redis_all_the_time(redis: &Redis, is_over: &AtomicBool) -> Vec<(i64, i64)> {
    let mut connection = redis.connection();
    let mut seen: Vec<(i64, i64)> = Vec::new();
    let get = |connection: &mut redis::Connection, key: &str| -> Option<String> {
        redis::cmd("GET").arg(key).query(connection).expect(key)
    };
    while !is_over.load(Ordering::Relaxed) {
        let id = get(&mut connection, "forebay:{shop:north}:latest").expect("an id");
        let doc = get(&mut connection, &format!("forebay:{{shop:north}}:doc:{id}")).expect("a document");
        let doc: serde_json::Value = serde_json::from_str(&doc).expect("JSON");
        let seq: i64 = id.split('.').nth(1).expect("a number").parse().expect("a number");
        assert_eq!(doc["rows"], 20, "{doc}");
        let now = (doc["v"].as_i64().expect("a number"), seq);
        if let Some(last) = seen.last() {
            assert!(now == *last || now.1 > last.1, "{last:?} is followed by {now:?}");
        }
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    seen
}

crate::both_stores! {
    fn readers_see_all_of_the_old_tables_or_all_of_the_new_ones() {
        let (project, redis) = (project(), Redis::start(&[]));
        let url = redis.url();
        let run = |args: &[&str]| project.forebay(&[&["run", "pipeline.toml", "--snapshots", &url, "--json"], args].concat());
        run(&[]).ok();
        Reader::of(&project).execute(VIEW);
        let signature = status(&project)["signature"].clone();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let by_name = scope.spawn(|| read_all_the_time(&project, TABLES, &is_over));
            let by_view = scope.spawn(|| read_all_the_time(&project, "SELECT products, a, b, sales, c, d FROM seen", &is_over));
            let in_redis = scope.spawn(|| read_redis_all_the_time(&redis, &is_over));
            for version in 2..=4 {
                project.write("handlers.lua", script(version));
                let report = run(&["--fresh"]).ok().json();
                assert_eq!((&report["fresh"], &report["events"]), (&"in_place".into(), &800.into()));
                assert_eq!(report["snapshots"]["published"], 2, "{report}");
                assert_eq!(state(&project), whole(version));
                assert_eq!(left_beside(&project), [""; 0]);
            }
            // What is there is only numbered on where it is another one.
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(by_name.join().expect("a reader").last(), Some(&4));
            assert_eq!(by_view.join().expect("a reader").last(), Some(&4));
            let seen = in_redis.join().expect("a reader");
            assert_eq!(seen.first().map(|first| first.0), Some(1));
        });
        let stands = project.forebay(&["status", "pipeline.toml", "--json", "--snapshots", &url]).ok().json();
        assert_eq!((&stands["signature"], &stands["healthy"], &stands["fresh"]), (&signature, &true.into(), &serde_json::Value::Null));
        assert_eq!(stands["regions"][0]["published"]["seq"], stands["regions"][0]["seq"], "{stands}");
        // The next run goes on over the new tables, and nothing is another store's.
        project.write("events.ndjson", events(1..=401));
        assert_eq!(run(&[]).ok().json()["events"], 2);
        // The same script once more: nothing is lost where nothing is new.
        project.write("events.ndjson", events(1..=401));
        run(&["--fresh"]).ok();
        project.forebay(&["status", "pipeline.toml", "--snapshots", &url]).ok();
    }

    fn one_that_was_interrupted_goes_on_and_others_say_that_it_is_there() {
        let project = project();
        let first = fresh(&project).ok().json();
        assert_eq!((&first["fresh"], state(&project)), (&serde_json::Value::Null, whole(1)), "over nothing it is as any run");
        project.write("handlers.lua", script(2));
        let report = project.forebay(&["run", "pipeline.toml", "--fresh", "--until", "100", "--json"]).ok();
        assert_eq!(report.json()["fresh"], "beside", "{report}");
        assert!(report.stderr().contains("stands beside at block 100; the present tables are at block 400"), "{report}");
        assert_eq!(status(&project)["fresh"], serde_json::json!({ "block": 100, "events": 200 }));
        let text = project.forebay(&["status", "pipeline.toml"]).stdout();
        assert!(text.contains("beside      a fresh index, block 100, 200 events"), "{text}");
        // The script of the present tables goes on with them.
        project.write("handlers.lua", script(1));
        project.write("events.ndjson", events(1..=401));
        let plain = project.forebay(&["run", "pipeline.toml", "--json"]).ok();
        assert!(plain.stderr().contains("a fresh index stands beside, at block 100; `run --fresh` goes on with it"), "{plain}");
        assert_eq!((plain.json()["events"].clone(), plain.json()["fresh"].clone()), (2.into(), serde_json::Value::Null));
        project.write("handlers.lua", script(2));
        let report = fresh(&project).ok().json();
        assert_eq!((&report["resumed_from"], &report["events"], &report["fresh"]), (&100.into(), &602.into(), &"in_place".into()));
        assert_eq!(state(&project)[1..3], ["2", "2"]);
        assert_eq!(left_beside(&project), [""; 0]);
    }

    fn another_script_begins_anew_and_one_is_given_up_by_a_word() {
        let project = project();
        project.run_json();
        let abort = |says: &str| {
            let outcome = project.forebay(&["run", "pipeline.toml", "--fresh", "--abort"]).ok();
            assert!(outcome.stdout().contains(says), "{outcome}");
            assert_eq!(left_beside(&project), [""; 0]);
        };
        abort("no fresh index stands beside");
        project.write("handlers.lua", script(2));
        project.forebay(&["run", "pipeline.toml", "--fresh", "--until", "100"]).ok();
        project.write("handlers.lua", script(3));
        // Where memory or time are bounded is no other index.
        project.write("pipeline.toml", PIPELINE.replace("events = 50", "events = 60"));
        let report = project.forebay(&["run", "pipeline.toml", "--fresh", "--until", "90", "--json"]).ok();
        assert!(report.stderr().contains("is another one than the fresh index in") && report.stderr().contains("block 100"), "{report}");
        assert_eq!(report.json()["resumed_from"], serde_json::Value::Null);
        project.write("pipeline.toml", PIPELINE);
        let report = project.forebay(&["run", "pipeline.toml", "--fresh", "--until", "95", "--json"]).ok();
        assert_eq!(report.json()["resumed_from"], 90);
        abort("removed the fresh index that stood beside: block 95, 190 events");
        abort("no fresh index stands beside");
        assert_eq!(state(&project), whole(1));
        assert_eq!(status(&project)["fresh"], serde_json::Value::Null);
        project.forebay(&["run", "pipeline.toml", "--abort"]).fails(2, &["--fresh"]);
    }

    fn other_tables_are_indexed_beside_those_that_a_run_refuses_to_change() {
        let project = project();
        project.run_json();
        let other = PIPELINE.replace("v = \"bigint\", n", "v = \"text\", m = \"bigint\", n").replace("[entities.sale]", "[entities.order]");
        project.write("pipeline.toml", &other);
        let text = script(2).replace("v = 2, n", "v = 'two', m = 7, n").replace("ctx.sale", "ctx.order");
        project.write("handlers.lua", text);
        project.forebay(&["run", "pipeline.toml"]).fails(2, &["entity sale is missing", "`forebay run --fresh`"]);
        fresh(&project).ok();
        assert_eq!(project.query("shop.db", "SELECT DISTINCT v, m FROM product"), [["two", "7"]]);
        assert_eq!(project.query("shop.db", "SELECT count(*), min(v) FROM \"order\""), [["800", "2"]]);
        let gone = match project.url() {
            None => "SELECT count(*) FROM sqlite_schema WHERE name = 'sale'",
            Some(_) => "SELECT count(*) FROM pg_class WHERE relname = 'sale'",
        };
        assert_eq!(project.query("shop.db", gone), [["0"]]);
        project.write("events.ndjson", events(1..=410));
        assert_eq!(project.run_json()["events"], 20);
    }

    fn it_takes_no_place_while_another_run_writes_and_none_that_has_come_further() {
        let project = project();
        project.run_json();
        let follow = Following::start(&project, &["run", "pipeline.toml", "--follow"]);
        project.write("handlers.lua", script(2));
        wait_until(|| is_held(&project));
        fresh(&project).fails(1, &["stands beside at block 400", "being written by forebay (pid", "stop it, and run --fresh again"]);
        assert_eq!(state(&project), whole(1));
        assert_eq!(status(&project)["fresh"]["block"], 400);
        follow.end(&project);
        let report = fresh(&project).ok().json();
        assert_eq!((&report["events"], &report["fresh"]), (&0.into(), &"in_place".into()));
        assert_eq!(state(&project), whole(2));
        // A source that has lost its end.
        project.write("handlers.lua", script(3));
        project.write("events.ndjson", events(1..=300));
        fresh(&project).fails(1, &["stands beside at block 300", "its source ends there, and the present tables are at block 400"]);
        assert_eq!(state(&project), whole(2));
        project.write("events.ndjson", events(1..=400));
        fresh(&project).ok();
        assert_eq!(state(&project), whole(3));
    }

    fn one_that_follows_takes_the_place_and_goes_on() {
        let project = project();
        project.run_json();
        let old = Following::start(&project, &["run", "pipeline.toml", "--follow"]);
        append(&project, &events(401..=420));
        wait_until(|| project.query("shop.db", "SELECT count(*) FROM sale")[0] == ["838"]);
        project.write("handlers.lua", script(2));
        let mut new = Following::start(&project, &["run", "pipeline.toml", "--fresh", "--follow", "--json"]);
        new.says("it takes their place when forebay (pid");
        for more in [&[][..], &["--abort"]] {
            let other = project.forebay(&[&["run", "pipeline.toml", "--fresh"], more].concat());
            other.fails(1, &["is being written by forebay (pid"]);
        }
        append(&project, &events(421..=422));
        wait_until(|| project.query("shop.db", "SELECT count(*), max(v) FROM sale")[0] == ["842", "1"]);
        old.end(&project);
        wait_until(|| project.query("shop.db", "SELECT count(*), min(v) FROM sale")[0] == ["842", "2"]);
        append(&project, &events(423..=430));
        wait_until(|| project.query("shop.db", "SELECT count(*), min(v) FROM sale")[0] == ["858", "2"]);
        let report = new.end(&project).json();
        assert_eq!((&report["fresh"], &report["events"], &report["checkpoint"]["block"]), (&"in_place".into(), &858.into(), &429.into()));
        assert_eq!(left_beside(&project), [""; 0]);
        project.forebay(&["run", "pipeline.toml", "--fresh", "--follow", "--source", "-"]).fails(2, &["can be read only once"]);
    }

    fn kill_9_at_random_moments_loses_nothing_and_mixes_nothing() {
        let project = project();
        project.run_json();
        project.write("handlers.lua", script(2));
        let begun = Instant::now();
        fresh(&project).ok();
        let undisturbed = begun.elapsed();
        let snapshots = "SELECT region, block, hash FROM forebay_snapshots ORDER BY region, seq";
        let mut chance = u64::from(std::process::id()) ^ 0x9e37_79b9;
        println!("seed {chance}");
        let mut look = Look::of(&project);
        for version in 3..=5 {
            project.write("handlers.lua", script(version));
            let mut kills = 0;
            loop {
                let mut run = project.command(&["run", "pipeline.toml", "--fresh"]).spawn().expect("the binary starts");
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Most of them near the end, where the new tables take the place.
                let share = 300 + u32::try_from((chance >> 33) % 900).expect("small");
                let (begun, moment) = (Instant::now(), undisturbed * share / 1000);
                let mut ended = None;
                // Every other time when all is indexed, and the new tables are about to take the place.
                let is_late = kills % 2 == 1;
                wait_until(|| {
                    ended = run.try_wait().expect("the child");
                    ended.is_some() || if is_late { look.is_whole() } else { begun.elapsed() > moment }
                });
                let (begun, moment) = (Instant::now(), Duration::from_millis(chance >> 40 & 63));
                wait_until(|| {
                    ended = run.try_wait().expect("the child");
                    ended.is_some() || !is_late || begun.elapsed() > moment
                });
                let found = state(&project);
                assert!(found == whole(version - 1) || found == whole(version), "{found:?}");
                if let Some(ended) = ended {
                    assert!(ended.success(), "{}", project.finish(run, &["run", "--fresh"]));
                    break;
                }
                run.kill().expect("it runs");
                run.wait().expect("the child");
                kills += 1;
                let found = state(&project);
                assert!(found == whole(version - 1) || found == whole(version), "{found:?}");
                // It may be in place already: then the next one would begin the whole once more.
                if found == whole(version) || kills == 12 {
                    break;
                }
            }
            if state(&project) != whole(version) {
                fresh(&project).ok();
            }
            // Whatever was left is removed by the next command.
            let plain = project.forebay(&["run", "pipeline.toml"]).ok();
            assert!(!plain.stderr().contains("stands beside"), "{plain}");
            assert_eq!(left_beside(&project), [""; 0]);
            assert_eq!(state(&project), whole(version));
            assert_eq!(project.query("shop.db", snapshots).len(), 2);
        }
    }
}

/// Looks at what stands beside.
struct Look {
    file: std::path::PathBuf,
    client: Option<postgres::Client>,
}

impl Look {
    fn of(project: &Project) -> Self {
        Self { file: project.path("shop.db.new"), client: project.url().map(|_| project.client()) }
    }

    /// Whether it has committed all blocks. It may go at any moment.
    fn is_whole(&mut self) -> bool {
        if let Some(client) = &mut self.client {
            let block = client.query_one("SELECT block FROM \"shop@2\"._forebay_checkpoint", &[]);
            return block.is_ok_and(|row| row.get::<_, Option<i64>>(0) == Some(400));
        }
        let open = rusqlite::Connection::open_with_flags(&self.file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
        let block = open.and_then(|open| open.query_row("SELECT block FROM forebay_pipelines", [], |row| row.get(0)));
        block.is_ok_and(|block: Option<i64>| block == Some(400))
    }
}

/// A run that follows; its messages.
struct Following {
    child: Child,
    told: std::io::BufReader<std::process::ChildStderr>,
    heard: String,
}

impl Following {
    fn start(project: &Project, args: &[&str]) -> Self {
        let mut child = project.command(args).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let told = std::io::BufReader::new(child.stderr.take().expect("stderr"));
        Self { child, told, heard: String::new() }
    }

    /// Reads its messages until one says so.
    #[track_caller]
    fn says(&mut self, text: &str) {
        use std::io::BufRead;
        while !self.heard.contains(text) {
            let read = self.told.read_line(&mut self.heard).expect("a line");
            assert!(read > 0, "it ended: {}", self.heard);
        }
    }

    fn end(self, project: &Project) -> Outcome {
        let Self { child, told, .. } = self;
        signal::send("INT", child.id());
        let ended = project.finish(child, &["run"]).ends_with(130);
        drop(told);
        ended
    }
}

/// Whether a run holds the lock of the tables.
fn is_held(project: &Project) -> bool {
    if project.url().is_some() {
        return project.query("", "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' AND d.datname = current_database()") != [["0"]];
    }
    std::fs::read_to_string(project.path("shop.db.shop.lock")).is_ok_and(|holder| holder.contains("pid"))
}

fn append(project: &Project, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(project.path("events.ndjson")).expect("the file");
    file.write_all(text.as_bytes()).expect("the file");
}

/// What others have made in the file stays: tables, views, indexes, triggers.
#[test]
fn in_sqlite_what_others_have_made_in_the_file_stays() {
    let project = project();
    project.run_json();
    let mut reader = Reader::of(&project);
    reader.execute(VIEW);
    reader.execute(
        "CREATE TABLE notes (x); INSERT INTO notes VALUES (7); CREATE INDEX by_n ON product (n);
         CREATE TRIGGER counted AFTER INSERT ON sale BEGIN INSERT INTO notes VALUES (new.v); END;
         CREATE VIEW unreadable AS SELECT * FROM nowhere",
    );
    project.write("handlers.lua", script(2));
    // A reader in a transaction holds nothing up, and goes on with what it has begun with.
    let mut other = Reader::of(&project);
    other.execute("BEGIN");
    assert_eq!(other.numbers(TABLES), [40, 1, 1, 800, 1, 1]);
    fresh(&project).ok();
    assert_eq!(other.numbers(TABLES), [40, 1, 1, 800, 1, 1]);
    other.execute("COMMIT");
    assert_eq!(other.numbers(TABLES), [40, 2, 2, 800, 2, 2]);
    assert_eq!(reader.numbers("SELECT count(*), max(x) FROM notes"), [1, 7], "copying is no event");
    let made = "SELECT count(*) FROM sqlite_schema WHERE name IN ('by_n', 'counted', 'seen', 'notes', 'unreadable')";
    assert_eq!(reader.numbers(made), [5]);
    // A view that would not work any more is told before anything is indexed.
    let without = PIPELINE.replace("[entities.sale]\ncolumns = { v = \"bigint\" }\n", "");
    project.write("pipeline.toml", &without);
    project.write("handlers.lua", script(3).replace("ctx.sale:set(tostring(ctx.block), { v = 3 })", ""));
    fresh(&project).fails(2, &["view seen: no such table: main.sale", "trigger counted on sale"]);
    assert_eq!(left_beside(&project), [""; 0]);
    reader.execute("DROP VIEW seen; DROP TRIGGER counted");
    fresh(&project).ok();
    assert_eq!(reader.numbers("SELECT count(*), min(v) FROM product"), [40, 3]);
    // A file that is somebody else's is left alone.
    std::fs::write(project.path("shop.db.new"), "my notes").expect("a file");
    fresh(&project).fails(1, &["shop.db.new"]);
    project.forebay(&["run", "pipeline.toml", "--fresh", "--abort"]).fails(1, &["shop.db.new"]);
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(std::fs::read_to_string(project.path("shop.db.new")).expect("the file"), "my notes");
}

/// Another pipeline of the same file goes on as if nothing were.
#[test]
fn in_sqlite_another_pipeline_of_the_file_stays() {
    let project = project();
    project.run_json();
    let other = PIPELINE
        .replace("\"shop\"", "\"bank\"")
        .replace("entities.product", "entities.account")
        .replace("entities.sale", "entities.order");
    project.write("bank.toml", other.replace("handlers.lua", "bank.lua"));
    project.write("bank.lua", script(7).replace("ctx.product", "ctx.account").replace("ctx.sale", "ctx.order"));
    project.forebay(&["run", "bank.toml"]).ok();
    project.write("handlers.lua", script(2));
    fresh(&project).ok();
    assert_eq!(state(&project), whole(2));
    assert_eq!(project.query("shop.db", "SELECT count(*), min(v), max(v) FROM account"), [["40", "7", "7"]]);
    project.write("events.ndjson", events(1..=402));
    let report = project.forebay(&["run", "bank.toml", "--json"]).ok().json();
    assert_eq!((&report["resumed_from"], &report["events"]), (&400.into(), &4.into()));
}
