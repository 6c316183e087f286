//! A Postgres that goes away: what waits, what goes on by itself, what a stop does not wait for.

use std::time::Duration;

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::postgres_server::{Pooler, Server};
use crate::support::project::Project;
use crate::support::stream::Stream;
use crate::support::{signal, wait_until};

fn committed(server: &Server, database: &str) -> i64 {
    let sql = "SELECT coalesce(max(block), 0) FROM things._progress";
    server.client(database).query_one(sql, &[]).map_or(0, |row| row.get(0))
}

#[test]
fn a_server_that_restarts_under_a_run_is_waited_for_and_told_once() {
    let server = Server::start("");
    let database = server.make_database();
    let project = Project::with(PIPELINE, SCRIPT, "");
    let url = server.url(&database);
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--json", "--store", &url]);
    stream.send(&events(1..=10));
    wait_until(|| committed(&server, &database) >= 9);
    server.crash();
    stream.send(&events(11..=20));
    let said = stream.says("trying again");
    assert!(said.contains("for up to 300 s") && !said.contains("secret"), "{said}");
    server.restart();
    wait_until(|| committed(&server, &database) >= 19);
    let (outcome, said) = stream.end(&project);
    let report = outcome.ok().json();
    assert_eq!((&report["events"], &report["checkpoint"]["block"]), (&20.into(), &20.into()));
    assert!(report["commit_retries"].as_u64().expect("retries") > 0);
    assert_eq!(said.matches("trying again").count(), 0, "it is told once: {said}");
    let rows: i64 = server.client(&database).query_one("SELECT count(*) FROM things.thing", &[]).expect("count").get(0);
    assert_eq!(rows, 20);
}

#[test]
fn a_stop_does_not_wait_for_a_database_that_is_away() {
    let server = Server::start("");
    let database = server.make_database();
    let project = Project::with(PIPELINE, SCRIPT, "");
    let url = server.url(&database);
    let args = ["run", "pipeline.toml", "--source", "-", "--drain-timeout", "1s", "--store", &url];
    let mut stream = Stream::start(&project, &args);
    stream.send(&events(1..=10));
    wait_until(|| committed(&server, &database) >= 9);
    server.crash();
    stream.send(&events(11..=20));
    stream.says("trying again");
    signal::send("INT", stream.child.id());
    let (outcome, said) = stream.end(&project);
    outcome.ends_with(1);
    assert!(said.contains("did not commit within 1 s of the stop"), "{said}");
    server.restart();
    assert_eq!(committed(&server, &database), 9);
}

#[test]
fn a_database_that_is_down_or_missing_at_the_start_is_said() {
    let server = Server::start("");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    run_at(&project, &server.url("nowhere")).fails(1, &["nowhere", "3D000", "createdb"]);
    server.crash();
    let outcome = run_at(&project, &server.url("postgres"));
    let told = outcome.fails(1, &["cannot open postgres://forebay@127.0.0.1", "Connection refused", "tried for"]);
    assert_eq!(told.stderr().matches("trying again").count(), 1, "{told}");
    for command in ["status", "latest"] {
        let args: &[&str] = match command {
            "status" => &["status", "pipeline.toml", "--store"],
            _ => &["latest", "--config", "pipeline.toml", "--snapshots"],
        };
        project
            .forebay(&[args, &[&server.url("postgres")]].concat())
            .fails(1, &["cannot open postgres://", "Connection refused"]);
    }
}

/// Two servers in the address: the one that takes writes is found, and found again when it is the other one.
#[test]
fn a_run_goes_on_when_the_standby_takes_over() {
    let primary = Server::start("");
    let standby = primary.standby();
    primary.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.execute("postgres", "SELECT pg_reload_conf()");
    let project = Project::with(PIPELINE, SCRIPT, "");
    // Every event of block 1 to 100 reads a row and changes it: rows that are old would show.
    project.write(
        "handlers.lua",
        "function on_event(e, ctx) local t = ctx.thing:get('x') or { n = 0 } t.n = t.n + 1 ctx.thing:set('x', t) end",
    );
    // The standby stands first.
    let url = format!(
        "postgres://forebay@127.0.0.1:{},127.0.0.1:{}/postgres?load_balance_hosts=random",
        standby.port, primary.port
    );
    let args = ["run", "pipeline.toml", "--source", "-", "--json", "--store", &url];
    for blocks in 1..=3_i64 {
        // Runs of their own: each has to read the row back.
        let first = (blocks - 1) * 20 + 1;
        let mut stream = Stream::start(&project, &args);
        stream.send(&events(1..=first + 19));
        stream.end(&project).0.ok();
    }
    let mut stream = Stream::start(&project, &args);
    stream.send(&events(1..=70));
    wait_until(|| committed(&primary, "postgres") >= 69);
    primary.crash();
    stream.send(&events(71..=80));
    stream.says("trying again");
    standby.promote();
    standby.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''");
    standby.execute("postgres", "SELECT pg_reload_conf()");
    let (outcome, said) = stream.end(&project);
    let report = outcome.ok().json();
    assert_eq!(report["checkpoint"]["block"], 80, "{said}");
    let n: i64 = standby.client("postgres").query_one("SELECT n FROM things.thing", &[]).expect("a row").get(0);
    assert_eq!(n, 80);
}

/// A pooler says in its own words that it has lost the server; that is waited for as well.
#[test]
fn a_server_that_dies_behind_a_session_pool_is_waited_for() {
    let project = on_postgres(PIPELINE, SCRIPT, "");
    let pooler = Pooler::start(Server::shared(), "pool_mode = session\nserver_login_retry = 1");
    let own = project.url().expect("url");
    let database = own.rsplit('/').next().expect("a name").to_owned();
    let url = own.replace(&format!(":{}/", Server::shared().port), &format!(":{}/", pooler.port));
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--json", "--store", &url]);
    stream.send(&events(1..=10));
    wait_until(|| committed(Server::shared(), &database) >= 9);
    // The next commit is killed while it runs.
    project.execute(
        "",
        "CREATE FUNCTION things.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.id = '15' AND to_regclass('things.was_here') IS NULL THEN
             PERFORM pg_sleep(60);
           END IF; RETURN NEW; END $$;
         CREATE TRIGGER die BEFORE INSERT ON things.thing FOR EACH ROW EXECUTE FUNCTION things.die()",
    );
    stream.send(&events(11..=20));
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'";
    let mut client = Server::shared().client("postgres");
    wait_until(|| !client.query(sql, &[&database]).expect("activity").is_empty());
    project.execute("", "CREATE TABLE things.was_here ()");
    let (outcome, _) = stream.end(&project);
    assert_eq!(outcome.ok().json()["checkpoint"]["block"], 20);
    assert_eq!(count(&project), "20");
}

/// A stop ends a read that does not come to its end.
#[test]
fn a_stop_does_not_wait_for_a_read_that_hangs() {
    let project = on_postgres(
        PIPELINE,
        "function on_event(e, ctx) ctx.thing:get('x') ctx.thing:set(ctx.block, { n = 1 }) end",
        &events(1..=5),
    );
    project.run_json();
    let mut client = project.client();
    let mut locked = client.transaction().expect("a transaction");
    locked.batch_execute("LOCK TABLE things.thing").expect("a lock");
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--drain-timeout", "1s"]);
    stream.send(&events(1..=10));
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut looking = Server::shared().client(project.url().expect("url").rsplit('/').next().expect("a name"));
    wait_until(|| looking.query_one(waiting, &[]).expect("activity").get::<_, i64>(0) > 0);
    let begun = std::time::Instant::now();
    signal::send("INT", stream.child.id());
    let (outcome, said) = stream.end(&project);
    // It hangs before the run has begun.
    outcome.ends_with(130);
    assert!(said.contains("stopped while waiting for postgres://"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
    drop(locked);
}
