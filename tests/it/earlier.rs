//! Databases that an earlier version made are brought over by the first run, and keep working.
//!
//! `tests/data/earlier-*.sql` are dumps of what version 0.1.0 made of these events, before stores knew anything of their
//! source.

use crate::support::project::Project;

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
