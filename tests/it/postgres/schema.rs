//! All that forebay keeps of a pipeline is in the pipeline's schema: for a role that may use no other one, for a dump, and
//! for whoever drops it.

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::postgres_server::Server;
use crate::support::project::Project;

fn database(project: &Project) -> String {
    project.url().expect("url").rsplit('/').next().expect("a name").to_owned()
}

/// All rows of all tables in the schema, and how they are made.
fn all(server: &Server, database: &str) -> Vec<String> {
    let dump = String::from_utf8(server.dump(database, "things")).expect("text");
    // It has a key of its own, by chance.
    dump.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .map(str::to_owned)
        .collect()
}

const WITH_HISTORY: &str =
    "[rollback]\ndepth = 5\n[snapshots]\nevery = \"batch\"\n[errors]\non_event = \"quarantine\"\n";

#[test]
fn a_role_that_may_use_its_own_schema_alone_can_do_all() {
    let pipeline = PIPELINE.replace("[handlers]", "indexes = [\"n\"]\n[handlers]") + WITH_HISTORY;
    let project = on_postgres(&pipeline, SCRIPT, &events(1..=3));
    let role = format!("own_{}", database(&project));
    // Somebody else has tables of an earlier version there.
    project.client().batch_execute(include_str!("../../data/format1-postgres.sql")).expect("the dump");
    project
        .client()
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA things AUTHORIZATION {role}"))
        .expect("a role");
    let url = project.url().expect("url").replace("forebay@", &format!("{role}@"));
    assert_eq!(run_at(&project, &url).ok().json()["events"], 3);
    let mut more = events(1..=3000);
    more.push_str("{\"block\":3001,\"region\":5.5}\n");
    project.write("events.ndjson", more);
    let report = run_at(&project, &url).ok().json();
    assert_eq!((&report["events"], &report["quarantined"]), (&2998.into(), &1.into()));
    assert_eq!(count(&project), "3000");
    for args in [
        &["rollback", "pipeline.toml", "--to", "2999", "--store", &url][..],
        &["status", "pipeline.toml", "--store", &url],
        &["latest", "--config", "pipeline.toml", "--snapshots", &url],
        &["quarantine", "pipeline.toml", "--store", &url],
    ] {
        project.forebay(args).ok();
    }
    assert_eq!(count(&project), "2999");
    project
        .client()
        .batch_execute(&format!("DROP SCHEMA things CASCADE; DROP OWNED BY {role}; DROP ROLE {role}"))
        .expect("it goes");
}

#[test]
fn a_dump_of_the_schema_is_a_whole_copy_and_dropping_it_leaves_nothing() {
    let project = on_postgres(&format!("{PIPELINE}{WITH_HISTORY}"), SCRIPT, "");
    let two = events(1..=30) + "{\"block\":31,\"region\":5.5}\n" + &events(32..=40);
    project.write("events.ndjson", &two);
    project.run_json();
    let (server, first) = (Server::shared(), database(&project));
    let second = server.make_database();
    server.restore(&second, &server.dump(&first, "things"));
    assert_eq!(all(server, &second), all(server, &first));
    // Both go on, and come to the same.
    project.write("events.ndjson", two + &events(41..=60));
    let url = server.url(&second);
    let go_on = |url: &str| {
        let report = run_at(&project, url).ok().json();
        assert_eq!((&report["resumed_from"], &report["events"]), (&40.into(), &20.into()));
        project.forebay(&["rollback", "pipeline.toml", "--to", "57", "--store", url]).ok();
        run_at(&project, url).ok();
        let sql = "SELECT region, id, n FROM things.thing ORDER BY region, id";
        let rows = server.client(url.rsplit('/').next().expect("a name")).query(sql, &[]).expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect::<Vec<(String, String, i64)>>()
    };
    assert_eq!(go_on(&url), go_on(&server.url(&first)));
    server.execute(&second, "DROP SCHEMA things CASCADE");
    let mut client = server.client(&second);
    let sql = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg_temp%'";
    assert_eq!(client.query_one(sql, &[]).expect("a count").get::<_, i64>(0), 0);
    let args = ["latest", "--config", "pipeline.toml", "--snapshots", &url];
    project.forebay(&args).fails(1, &["knows no pipeline things"]);
    assert_eq!(run_at(&project, &url).ok().json()["events"], 60);
}

#[test]
fn names_of_ours_that_somebody_else_has_taken_are_told() {
    for (taken, says) in [
        ("CREATE VIEW things._progress AS SELECT 1", "things._progress is there already and was not made by forebay"),
        (
            "CREATE TABLE things._forebay_regions (x int)",
            "things._forebay_regions is there already and was not made by",
        ),
    ] {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
        project.client().batch_execute(&format!("CREATE SCHEMA things; {taken}")).expect("it is made");
        project.forebay(&["run", "pipeline.toml"]).fails(2, &[says]);
        assert_eq!(project.query("", "SELECT count(*) FROM pg_tables WHERE tablename = 'thing'"), [["0"]]);
    }
}

#[test]
fn a_table_of_ours_that_somebody_has_removed_is_made_again() {
    for gone in
        ["TABLE _forebay_quarantine", "TABLE _forebay_pipeline", "VIEW _progress", "INDEX _forebay_snapshots_age"]
    {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
        project.run_json();
        project.execute("", &format!("DROP {gone}"));
        project.write("events.ndjson", events(1..=5));
        assert_eq!(project.run_json()["events"], 2, "{gone}");
        assert_eq!(project.query("", "SELECT shard, block FROM _progress"), [["0", "5"]], "{gone}");
    }
}

/// A database of a later version is refused by its format, and so is ours by an earlier one.
#[test]
fn a_later_format_is_refused() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    project.execute("", "UPDATE _forebay_pipeline SET format = 3");
    project.forebay(&["run", "pipeline.toml"]).fails(1, &["written by a later forebay (format 3)"]);
}
