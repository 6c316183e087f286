//! `forebay doctor`: each thing that it looks at, over a server or a file that really has the problem.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay::{FindingState, Pipeline};
use serde_json::Value as Json;

use crate::both_stores;
use crate::support::postgres_proxy::{Fault, Proxy};
use crate::support::postgres_server::{Pooler, Server, is_root};
use crate::support::project::{Outcome, Project};
use crate::support::redis_proxy::Wire;
use crate::support::redis_server::{Redis, RedisCluster};
use crate::support::{distant_database, wait_until};

const PIPELINE: &str = "name = \"shop\"\n[source]\npath = \"events.ndjson\"\n[entities.product]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:shop.db\"\n";

const SCRIPT: &str = "function on_event(e, ctx) ctx.product:set(tostring(ctx.block), { n = ctx.block }) end
function on_snapshot(ctx) return { rows = ctx.product:count() } end";

const EVENTS: &str = "{\"block\":1,\"region\":\"north\"}\n{\"block\":2,\"region\":\"south\"}\n";

/// What a user's server has and one of tests does without.
const DURABLE: &str = "-c fsync=on -c full_page_writes=on";

fn shop() -> Project {
    Project::with(PIPELINE, SCRIPT, EVENTS)
}

/// What `doctor --json` says.
struct Said {
    outcome: Outcome,
    json: Json,
}

impl Said {
    fn of(outcome: Outcome) -> Self {
        let json = outcome.json();
        assert_eq!(json["healthy"], outcome.code() == Some(0), "{outcome}");
        assert!(!format!("{}{}", outcome.stdout(), outcome.stderr()).contains("secret"), "{outcome}");
        let all: Vec<&Json> = json["checks"].as_array().expect("checks").iter().map(|check| &check["name"]).collect();
        assert!(all.iter().enumerate().all(|(at, name)| !all[..at].contains(name)), "a name stands twice\n{outcome}");
        for check in json["checks"].as_array().expect("checks") {
            let is_ok = check["state"] == "ok";
            assert!(["ok", "warning", "problem"].iter().any(|state| check["state"] == *state), "{check}");
            assert_eq!(check["advice"].is_null(), is_ok, "{check}");
            assert_eq!(check["unit"].is_null(), check["value"].is_null(), "{check}");
            for text in ["message", "advice"].iter().filter_map(|key| check[key].as_str()) {
                assert!(!text.is_empty() && !text.contains('\n'), "{check}");
            }
        }
        Self { outcome, json }
    }

    fn names(&self) -> Vec<&str> {
        self.json["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .map(|check| check["name"].as_str().expect("name"))
            .collect()
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Json {
        let found = self.json["checks"].as_array().expect("checks").iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {name}\n{}", self.outcome))
    }

    /// That check must have that state, and its message and advice must say these.
    #[track_caller]
    fn says(&self, name: &str, state: &str, texts: &[&str]) -> &Self {
        let check = self.check(name);
        let all = format!("{} {}", check["message"], check["advice"]).replace("\\\"", "\"");
        assert!(check["state"] == state, "{name} is not {state}\n{}", self.outcome);
        assert!(texts.iter().all(|text| all.contains(text)), "{name} does not say {texts:?}: {all}\n{}", self.outcome);
        self
    }

    /// No other check than these may be otherwise than ok.
    #[track_caller]
    fn only(&self, names: &[&str]) -> &Self {
        let others = self.json["checks"].as_array().expect("checks").iter();
        let others: Vec<&Json> =
            others.filter(|check| check["state"] != "ok" && !names.iter().any(|name| check["name"] == *name)).collect();
        assert!(others.is_empty(), "{others:?}\n{}", self.outcome);
        self
    }
}

fn doctor(project: &Project, more: &[&str]) -> Said {
    Said::of(project.forebay(&[&["doctor", "pipeline.toml", "--json"], more].concat()))
}

/// Only the servers.
fn servers(more: &[&str]) -> Said {
    Said::of(Project::new().forebay(&[&["doctor", "--json"], more].concat()))
}

/// The names that docs/reference.md has.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).expect("docs");
    let (_, section) = text.split_once("### `forebay doctor [PIPELINE]`").expect("the section");
    let section = section.split("\n### ").next().unwrap_or_default();
    section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

#[test]
fn what_is_well_is_told_and_nothing_is_changed() {
    let (server, redis) = (Server::start(DURABLE), Redis::start(&["--save", "3600 1"]));
    let project = shop();
    let database = server.url(&server.make_database());
    let listing = || {
        let files = std::fs::read_dir(project.path("")).expect("the folder").flatten();
        files.map(|file| (file.file_name(), file.metadata().expect("a file").modified().ok())).collect::<BTreeSet<_>>()
    };
    let mut names = BTreeSet::new();
    for is_before in [true, false] {
        for store in ["sqlite:shop.db", &database] {
            let (files, keys) = (listing(), redis.keys());
            let args = ["--store", store, "--snapshots", &redis.url()];
            let said = doctor(&project, &args);
            said.only(&["store_file_system"]);
            assert_eq!((said.json["pipeline"].as_str(), said.json["healthy"].as_bool()), (Some("shop"), Some(true)));
            said.says("source", "ok", &["its first 2 events can be read, and handled (2 regions)"])
                .says("handlers", "ok", &["make snapshots"])
                .says("redis_round_trip", "ok", &["ms"])
                .says("redis_rights", "ok", &["default may run all"])
                .says("redis_persistence", "ok", &["RDB"])
                .says("store_format", "ok", &[if is_before { "no tables" } else { "which this forebay writes" }])
                .says("store_lock", "ok", &["nobody writes"])
                .says("store_commit", "ok", &["ms"]);
            assert!(said.check("redis_round_trip")["value"].as_f64().is_some_and(|millis| millis < 250.0));
            names.extend(said.names().into_iter().map(str::to_owned));
            assert_eq!((listing(), redis.keys()), (files, keys), "nothing is changed");
            if store == database {
                let mut client = postgres::Client::connect(&database, postgres::NoTls).expect("a connection");
                let tables = client.query_one("SELECT count(*) FROM pg_class WHERE relname LIKE '%forebay%'", &[]);
                assert_eq!(tables.expect("a count").get::<_, i64>(0) == 0, is_before, "nothing is made");
            }
            if !is_before {
                continue;
            }
            project.forebay(&[&["run", "pipeline.toml"], &args[..2]].concat()).ok();
        }
    }
    let documented = documented();
    assert!(names.is_subset(&documented), "docs/reference.md lacks {:?}", names.difference(&documented));
    let elsewhere: BTreeSet<String> = ["pipeline", "system"].map(str::to_owned).into();
    let unknown: BTreeSet<_> = documented.difference(&names).filter(|name| !elsewhere.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/reference.md has {unknown:?}, which nobody says");
}

#[test]
fn a_person_reads_lines_and_what_to_do() {
    let project = shop();
    let down = ["--store", "postgres://u:secret@127.0.0.1:1/d"];
    let outcome =
        project.forebay(&[&["doctor", "pipeline.toml", "--color", "always"], &down[..]].concat()).ends_with(1);
    let text = outcome.stdout();
    for says in [
        "pipeline\u{1b}[0m  shop (pipeline.toml)\n",
        "ok       \u{1b}[0mhandlers            they load, and make snapshots\n",
        "store\u{1b}[0m  postgres://u@127.0.0.1:1/d\n",
        "problem  \u{1b}[0mconnection          error connecting to server: ",
        "→ look at host and port in the address",
        "\n1 problem, 0 warnings, 4 ok; nothing was changed\n",
    ] {
        assert!(text.contains(says), "{says:?}\n{outcome}");
    }
    assert!(!text.contains("secret"), "{outcome}");
    // Off a terminal there is no colour, and with -q only what is not well.
    let quiet = project.forebay(&[&["doctor", "-q", "pipeline.toml"], &down[..]].concat()).ends_with(1).stdout();
    assert!(
        quiet.starts_with("store  postgres://") && !quiet.contains("  ok ") && !quiet.contains('\u{1b}'),
        "{quiet}"
    );
    assert_eq!(project.forebay(&["doctor", "-q", "pipeline.toml"]).ok().stdout(), "");
}

#[test]
fn what_is_to_be_looked_at_comes_from_file_options_and_variables() {
    let project = shop();
    let redis = Redis::start(&[]);
    project.forebay(&["doctor"]).fails(2, &["give PIPELINE.toml, or --store URL", "DATABASE_URL"]);
    project.forebay(&["doctor", "gone.toml"]).fails(2, &["gone.toml: there is no such file"]);
    project.write("wrong.toml", format!("nmae = 3\n{PIPELINE}"));
    project.forebay(&["doctor", "wrong.toml"]).fails(2, &["wrong.toml", "nmae"]);
    project.forebay(&["doctor", "--store", "mysql://u:secret@h/d"]).fails(2, &["--store: expected a store"]);
    project.write("seed.toml", "name = \"risk\"\n[snapshots]\nttl = \"1h\"\n");
    let args = ["doctor", "seed.toml", "--json"];
    let mut command = project.command(&args);
    command.env("REDIS_URL", redis.url()).env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/d");
    let said = Said::of(project.finish(command.spawn().expect("the binary starts"), &args));
    said.says("snapshots_ttl", "ok", &["10 s"]).says("redis_connection", "ok", &["Redis"]).only(&[]);
    assert!(!said.names().iter().any(|name| name.starts_with("store_") || *name == "source"), "{}", said.outcome);
    // Without a file both variables count.
    let args = ["doctor", "--json"];
    let mut command = project.command(&args);
    command.env("REDIS_URL", redis.url()).env("DATABASE_URL", "sqlite:other.db");
    let said = Said::of(project.finish(command.spawn().expect("the binary starts"), &args));
    said.says("store_connection", "ok", &["no file yet"]).says("redis_connection", "ok", &[]);
    assert!(said.json["pipeline"].is_null());
}

#[test]
fn sources_and_handlers_are_tried() {
    let project = shop();
    let source = |text: &str| project.write("events.ndjson", text);
    source("");
    doctor(&project, &[]).says("source", "warning", &["no event is in it"]).says("handlers", "ok", &["they load"]);
    source("{\"block\":1,\"region\":\"r\"}\nnot json\n");
    doctor(&project, &[]).says("source", "problem", &["events.ndjson:2"]).says("handlers", "ok", &[]);
    std::fs::remove_file(project.path("events.ndjson")).expect("the file");
    doctor(&project, &[]).says("source", "problem", &["there is no such file"]);
    source(EVENTS);
    for (script, says) in [
        ("function on_event(e, ctx) ctx.prodct:set('x', {}) end", "events.ndjson:1"),
        ("function on_event(", "handlers.lua:1"),
    ] {
        project.write("handlers.lua", script);
        // Other things are looked at all the same.
        doctor(&project, &[]).says("handlers", "problem", &[says]).says("store_connection", "ok", &[]);
    }
    project.write("pipeline.toml", PIPELINE.replace("handlers.lua", "gone.lua"));
    project.forebay(&["doctor", "pipeline.toml"]).fails(2, &["pipeline.toml:7", "gone.lua"]);
    project.write("handlers.lua", SCRIPT);
    project.write("pipeline.toml", PIPELINE.replace("events.ndjson", "-"));
    doctor(&project, &[]).says("source", "ok", &["standard input is for the run"]);
    project.write("pipeline.toml", format!("{PIPELINE}[errors]\non_event = \"quarantine\"\n"));
    source("{\"block\":1,\"region\":\"r\"}\n{\"block\":\"x\"}\n");
    doctor(&project, &[]).says("source", "warning", &["of its first 2 events 1 would be put aside", "events.ndjson:2"]);
}

#[test]
fn a_source_that_is_silent_is_not_waited_for() {
    let project = shop();
    let script = format!("echo $$ >{}; exec sleep 1000", project.path("pid").display());
    let silent = format!("command = [\"sh\", \"-c\", \"{script}\"]");
    project.write("pipeline.toml", PIPELINE.replace("path = \"events.ndjson\"", &silent));
    let begun = Instant::now();
    let pipeline = Pipeline::open(project.path("pipeline.toml")).expect("a pipeline");
    let examined = pipeline.examine(Duration::from_millis(300));
    let found = &examined.findings[0];
    assert!(found.state == FindingState::Warning && found.message.contains("no event came within"), "{found:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The program has ended with it.
    let pid = std::fs::read_to_string(project.path("pid")).expect("the program has started");
    wait_until(|| !Path::new(&format!("/proc/{}", pid.trim())).exists());
    let nobody = "redis = \"redis://127.0.0.1:1\"\nstream = \"s\"\nfield = \"data\"";
    project.write("pipeline.toml", PIPELINE.replace("path = \"events.ndjson\"", nobody));
    let pipeline = Pipeline::open(project.path("pipeline.toml")).expect("a pipeline");
    let found = pipeline.examine(Duration::from_millis(300)).findings;
    assert!(found.iter().any(|found| found.name == "source" && found.state == FindingState::Problem), "{found:?}");
}

#[test]
fn snapshots_that_expire_before_the_next_are_told() {
    let project = shop();
    for (ttl, state) in [("10s", "problem"), ("2m", "warning"), ("3m", "ok")] {
        project.write("pipeline.toml", format!("{PIPELINE}[snapshots]\nevery = \"1m\"\nttl = \"{ttl}\"\n"));
        doctor(&project, &[]).says("snapshots_ttl", state, &["every 60 s"]);
    }
}

both_stores! {
    fn tables_of_a_later_forebay_are_a_problem() {
        let project = shop();
        project.run_json();
        let table = if project.url().is_some() { "forebay_pipeline" } else { "forebay_pipelines" };
        project.execute("shop.db", &format!("UPDATE {table} SET format = 99"));
        doctor(&project, &[]).says("store_format", "problem", &["format 99, of a later forebay", "or a later one"]);
    }

    fn who_writes_is_told() {
        let project = shop();
        let args = ["run", "pipeline.toml", "--follow", "-q"];
        let mut run = project.command(&args).spawn().expect("the binary starts");
        let pid = format!("pid {}", run.id());
        let is_told = || {
            let said = doctor(&project, &[]);
            said.check("store_lock")["message"].as_str().is_some_and(|text| text.contains(&pid))
        };
        wait_until(is_told);
        doctor(&project, &[]).says("store_lock", "ok", &["a run is under way", "forebay", "since"]);
        run.kill().expect("the run");
        run.wait().expect("the run");
        wait_until(|| doctor(&project, &[]).check("store_lock")["message"] == "nobody writes to the pipeline");
    }
}

#[test]
fn a_look_at_the_lock_stops_no_run() {
    let project = shop();
    project.write("events.ndjson", "");
    let looks = std::thread::scope(|scope| {
        let look = scope.spawn(|| (0..20).all(|_| doctor(&project, &[]).check("store_lock")["state"] == "ok"));
        while !look.is_finished() {
            project.forebay(&["run", "pipeline.toml", "-q"]).ok();
        }
        look.join().expect("the looks")
    });
    assert!(looks);
}

#[test]
fn settings_of_postgres_that_hurt_are_told() {
    let server = Server::start(
        "-c synchronous_commit=off -c idle_in_transaction_session_timeout=500 -c statement_timeout=5000 -c max_connections=9 -c superuser_reserved_connections=3 -c max_wal_senders=0",
    );
    server.execute("postgres", "CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO app");
    let url = server.url("postgres").replace("forebay@", "app@");
    servers(&["--store", &url])
        .says("store_fsync", "problem", &["fsync is off", "fsync = on"])
        .says("store_synchronous_commit", "warning", &["off on the server; forebay sets it to on"])
        .says(
            "store_timeouts",
            "problem",
            &["statement_timeout is 5 s", "session_timeout is 500 ms", "ALTER ROLE … SET statement_timeout = '10min'"],
        )
        .says("store_connections", "warning", &["0 of 6 connections are in use (max_connections)"])
        .only(&["store_fsync", "store_synchronous_commit", "store_timeouts", "store_connections"]);
    let _others: Vec<_> = (0..4).map(|_| server.client("postgres")).collect();
    servers(&["--store", &url]).says("store_connections", "warning", &["4 of 6"]);
    server.execute("postgres", "ALTER ROLE app CONNECTION LIMIT 1");
    servers(&["--store", &url]).says("store_connections", "problem", &["0 of 1", "limit of the role"]);
}

#[test]
fn a_role_without_the_rights_is_told_with_the_statement_that_gives_them() {
    let server = Server::start(DURABLE);
    let database = server.make_database();
    let role = |sql: &str| server.execute(&database, sql);
    role(&format!(
        "CREATE ROLE app LOGIN; REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO app"
    ));
    let (owner, app) = (server.url(&database), server.url(&database).replace("forebay@", "app@"));
    let project = shop();
    let look = || doctor(&project, &["--store", &app]);
    let create = "CREATE SCHEMA \"shop\" AUTHORIZATION \"app\"";
    let temporary = format!("GRANT TEMPORARY ON DATABASE \"{database}\" TO \"app\"");
    look()
        .says("store_rights", "problem", &["app may not make temporary tables", create, &temporary])
        .only(&["store_rights"]);
    role(&temporary);
    look().says("store_rights", "problem", &["app may not create the schema", create]);
    role(create);
    look().says("store_rights", "ok", &["app may make the tables"]);
    role("DROP SCHEMA shop");
    project.forebay(&["run", "pipeline.toml", "--store", &owner]).ok();
    let grants = [
        "GRANT USAGE ON SCHEMA \"shop\" TO \"app\"",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"shop\" TO \"app\"",
    ];
    look().says("store_rights", "problem", &["may not use the schema", grants[0], grants[1]]);
    grants.iter().for_each(|grant| role(grant));
    look().says("store_rights", "ok", &["a new entity needs their owner"]).says("store_format", "ok", &["format 2"]);
}

#[test]
fn a_pooler_by_transaction_is_told_and_one_by_session_is_fine() {
    let database = Server::shared().make_database();
    for (mode, state, says) in [("transaction", "problem", "a pool by session"), ("session", "ok", "pooler by session")]
    {
        let pooler = Pooler::start(Server::shared(), &format!("pool_mode = {mode}"));
        let url = format!("postgres://forebay@127.0.0.1:{}/{database}", pooler.port);
        let said = doctor(&shop(), &["--store", &url]);
        // Other things are looked at all the same.
        said.says("store_pooler", state, &[says]).says("store_rights", "ok", &[]).says("store_clock", "ok", &[]);
    }
    // One that has no second connection to give keeps nobody waiting for long.
    let pooler = Pooler::start(Server::shared(), "pool_mode = transaction\ndefault_pool_size = 1\n");
    let url = format!("postgres://forebay@127.0.0.1:{}/{database}", pooler.port);
    let begun = Instant::now();
    servers(&["--store", &url]).says("store_pooler", "problem", &[]);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[test]
fn long_ways_are_measured() {
    let (_proxy, url) = distant_database(25);
    let said = servers(&["--store", &url]);
    said.says("store_round_trip", "warning", &["a round trip takes ", "nearer to the database"]);
    let millis = |name: &str| said.check(name)["value"].as_f64().expect("a number");
    assert!((25.0..500.0).contains(&millis("store_round_trip")), "{}", said.outcome);
    assert!(millis("store_commit") >= 25.0, "{}", said.outcome);
    // Half of the way is what the clock may be off by.
    said.says("store_clock", "ok", &[]).says("store_commit", "ok", &[]);
    let redis = Redis::start(&[]);
    let way = Wire::start(redis.port);
    way.set_latency(Duration::from_millis(300));
    let said = servers(&["--snapshots", &way.url()]);
    said.says("redis_round_trip", "warning", &["nearer to Redis"])
        .says("redis_clock", "ok", &[])
        .only(&["redis_round_trip"]);
    assert!(said.check("redis_round_trip")["value"].as_f64().is_some_and(|millis| (300.0..2000.0).contains(&millis)));
}

#[test]
fn servers_that_do_not_answer_are_told_within_seconds_and_the_others_are_looked_at() {
    let server = Server::start(DURABLE);
    let (database, redis) = (server.url("postgres"), Redis::start(&[]));
    server.crash();
    let begun = Instant::now();
    let said = servers(&["--store", &database, "--snapshots", &redis.url()]);
    said.says("store_connection", "problem", &["look at host and port"]).says("redis_rights", "ok", &[]);
    assert_eq!(said.names().iter().filter(|name| name.starts_with("store_")).count(), 1);
    server.restart();
    // One that stops in the middle of an answer, and one that never says a word.
    let proxy = Proxy::start(server.port);
    proxy.break_at(3, Fault::Stall);
    let url = format!("postgres://forebay@127.0.0.1:{}/postgres?sslmode=disable", proxy.port);
    servers(&["--store", &url]).says("store_connection", "problem", &["no answer within", "run doctor again"]);
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = deaf.local_addr().expect("an address");
    let said =
        servers(&["--store", &format!("postgres://u:secret@{place}/d"), "--snapshots", &format!("redis://{place}")]);
    said.says("store_connection", "problem", &[]).says("redis_connection", "problem", &["in time"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_standby_and_a_stranger_are_told() {
    let server = Server::start("");
    let standby = server.standby();
    servers(&["--store", &standby.url("postgres")])
        .says("store_connection", "problem", &["takes no writes", "a standby", "the server that takes writes"])
        .says("store_rights", "ok", &[]);
    let redis = Redis::start(&[]);
    servers(&["--store", &format!("postgres://u@127.0.0.1:{}/d", redis.port)]).says(
        "store_connection",
        "problem",
        &["is no Postgres", "look at host and port"],
    );
    servers(&["--snapshots", &format!("redis://127.0.0.1:{}", server.port)]).says("redis_connection", "problem", &[]);
    let database = server.url("gone");
    servers(&["--store", &database]).says("store_connection", "problem", &["3D000", "createdb NAME"]);
}

/// A certificate for localhost by an authority, that ends after so many days; the authority, the certificate and its key.
fn papers(days: i64) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.distinguished_name.push(DnType::CommonName, "doctor's root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().expect("a key");
    let authority = root.self_signed(&root_key).expect("a certificate").pem();
    let issuer = Issuer::new(root, root_key);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(86_400)).into();
    params.not_after = (now + Duration::from_secs(86_400 * days.unsigned_abs() + 3600)).into();
    let key = KeyPair::generate().expect("a key");
    [authority, params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem()]
}

#[test]
fn tls_to_postgres_is_looked_at() {
    let project = Project::new();
    for (days, state, says) in [(5, "warning", "expires on"), (100, "ok", "good until")] {
        let [authority, certificate, key] = papers(days);
        project.write("root.crt", &authority);
        let server = Server::start_with("-c ssl=on", |data| {
            std::fs::write(data.join("server.crt"), &certificate).expect("a certificate");
            std::fs::write(data.join("server.key"), &key).expect("a key");
        });
        let at = |host: &str, options: &str| {
            let url = format!("postgres://forebay@{host}:{}/postgres?{options}", server.port);
            servers(&["--store", &url])
        };
        let root = format!("sslmode=verify-full&sslrootcert={}", project.path("root.crt").display());
        at("localhost", &root).says("store_tls", state, &[says, &format!("{days} d")]);
        at("localhost", "sslmode=require").says("store_tls", state, &[says]);
        // Not taken for this machine.
        at("LOCALHOST", "sslmode=require").says("store_tls", "warning", &["certificate is not checked", "verify-full"]);
        at("LOCALHOST", "sslmode=disable").says("store_tls", "warning", &["is not encrypted", "verify-full"]);
        at("localhost", "sslmode=disable").says("store_tls", "ok", &["this machine"]);
        at("localhost", "sslmode=verify-full").says("store_tls", "problem", &["certificate"]);
    }
    let url = format!("{}?sslmode=require", Server::shared().url("postgres"));
    servers(&["--store", &url]).says("store_tls", "problem", &["TLS"]);
}

#[test]
fn tls_to_redis_is_looked_at() {
    let project = Project::new();
    for (days, state, says) in [(5, "warning", "expires on"), (100, "ok", "good until")] {
        let papers = papers(days);
        project.write("root.crt", &papers[0]);
        let server = Redis::start_with(&["--tls-port", "%port", "--port", "0", "--tls-auth-clients", "no"], |dir| {
            let named = [("--tls-ca-cert-file", 0), ("--tls-cert-file", 1), ("--tls-key-file", 2)];
            let file = |(name, at): (&str, usize)| {
                std::fs::write(dir.join(at.to_string()), &papers[at]).expect("a file");
                [name.to_owned(), dir.join(at.to_string()).to_string_lossy().into_owned()]
            };
            named.into_iter().flat_map(file).collect()
        });
        let root = project.path("root.crt");
        let url = format!("rediss://localhost:{}?sslrootcert={}", server.port, root.display());
        servers(&["--snapshots", &url]).says("redis_tls", state, &[says, &format!("{days} d")]);
        let url = format!("rediss://localhost:{}", server.port);
        servers(&["--snapshots", &url]).says("redis_tls", "problem", &["UnknownIssuer", "?sslrootcert=FILE"]);
        let url = format!("redis://localhost:{}", server.port);
        servers(&["--snapshots", &url]).says("redis_connection", "problem", &["write rediss://"]);
    }
    let plain = Redis::start(&[]);
    servers(&["--snapshots", &format!("rediss://localhost:{}", plain.port)]).says(
        "redis_tls",
        "problem",
        &["write redis:// and not rediss://"],
    );
    servers(&["--snapshots", &format!("redis://LOCALHOST:{}", plain.port)]).says(
        "redis_tls",
        "warning",
        &["is not encrypted", "write rediss://"],
    );
}

#[test]
fn a_redis_that_forgets_or_is_full_is_told() {
    let server = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let look = || servers(&["--snapshots", &server.url()]);
    let policy = ["maxmemory-policy is allkeys-lru", "takes out what readers want", "noeviction"];
    look().says("redis_memory", "warning", &policy).only(&["redis_memory"]);
    look().says("redis_persistence", "ok", &["keeps nothing over a restart"]);
    let set = |name: &str, value: &str| drop(server.ask::<String>(&["CONFIG", "SET", name, value]));
    set("maxmemory-policy", "volatile-ttl");
    look().says("redis_memory", "warning", &["volatile-ttl"]);
    set("maxmemory", "0");
    look().says("redis_memory", "warning", &["as soon as maxmemory is set"]);
    set("maxmemory-policy", "noeviction");
    look().says("redis_memory", "ok", &["no limit"]).only(&[]);
    set("maxmemory", "1mb");
    look().says("redis_memory", "problem", &["full", "raise maxmemory"]);
    set("maxmemory", "0");
    set("maxclients", "5");
    look().says("redis_connections", "warning", &["0 of 5", "raise maxclients"]);
    set("maxclients", "1000");
    let _: String = server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    look().says("redis_connection", "problem", &["is a replica", "address of the primary"]);
}

#[test]
fn users_of_redis_are_asked_what_they_may() {
    let server = Redis::start(&[]);
    let user = |name: &str, rights: &[&str]| {
        let _: String = server.ask(&[&["ACL", "SETUSER", name, "on", ">secret"], rights].concat());
        let url = format!("redis://{name}:secret@127.0.0.1:{}", server.port);
        doctor(&shop(), &["--snapshots", &url])
    };
    let table = "+eval +evalsha +get +mget +exists +set +del +zadd +zscore +zrem +zrangebyscore +pexpire";
    let table: Vec<&str> = table.split(' ').collect();
    // What the reference says is needed is enough; what it calls spared is.
    let voting = ["+hsetnx", "+hlen", "+hgetall"];
    user("least", &[&table[..], &voting, &["~forebay:*"]].concat())
        .says("redis_rights", "ok", &["least may run all"])
        .says("redis_memory", "ok", &["may not ask INFO"])
        .says("redis_clock", "ok", &["may not ask TIME"])
        .says("redis_round_trip", "ok", &[])
        .only(&[]);
    user("mute", &[&table[..], &["~forebay:*"]].concat()).says(
        "redis_rights",
        "warning",
        &["HSETNX forebay:", "one round trip more", "+hgetall +hlen +hsetnx"],
    );
    for without in &table[2..] {
        let rights: Vec<&str> = table.iter().copied().filter(|right| right != without).collect();
        let said = user("short", &[&["reset", "on", ">secret"], &rights[..], &voting, &["~forebay:*"]].concat());
        let command = without.trim_start_matches('+').to_uppercase();
        said.says("redis_rights", "problem", &["may not run", &command, &format!("ACL SETUSER short {without},")]);
    }
    user("silent", &["~*", "+@all", "-eval", "-evalsha"]).says("redis_rights", "problem", &["EVAL", "ACL SETUSER"]);
    // Keys of the regions that the source has.
    user("elsewhere", &["~other:*", "+@all"]).says("redis_rights", "problem", &["forebay:{shop:north}:latest"]);
    let url = format!("redis://least:secretly@127.0.0.1:{}", server.port);
    servers(&["--snapshots", &url]).says("redis_connection", "problem", &["WRONGPASS"]);
    let forbidden = Redis::start(&["--rename-command", "EVAL", "", "--rename-command", "EVALSHA", ""]);
    servers(&["--snapshots", &forbidden.url()]).says("redis_rights", "problem", &["EVAL", "proxy"]);
}

#[test]
fn all_servers_of_a_cluster_are_looked_at() {
    let cluster = RedisCluster::start(&[]);
    servers(&["--snapshots", &cluster.url()])
        .says("redis_connection", "ok", &["Redis"])
        .says("redis_rights", "ok", &[])
        .only(&[]);
    let last = cluster.nodes.last().expect("a server");
    let _: String = last.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let name = format!("redis://127.0.0.1:{}", last.port);
    servers(&["--snapshots", &cluster.url()]).says("redis_memory", "warning", &[&name]).only(&["redis_memory"]);
    servers(&["--snapshots", &last.url()]).says(
        "redis_connection",
        "problem",
        &["part of a cluster", "redis+cluster://"],
    );
}

#[test]
fn files_of_sqlite_that_cannot_be_used_are_told() {
    let project = shop();
    for (store, says) in [
        ("sqlite:gone/shop.db", "there is no folder gone"),
        ("sqlite:.", "it is a folder"),
        ("sqlite:handlers.lua", "not a database"),
    ] {
        doctor(&project, &["--store", store]).says("store_connection", "problem", &[says]);
    }
    project.run_json();
    std::fs::hard_link(project.path("shop.db"), project.path("twin.db")).expect("a link");
    doctor(&project, &[]).says("store_connection", "problem", &["hard links"]);
    std::fs::remove_file(project.path("twin.db")).expect("the link");
    let holder = rusqlite::Connection::open(project.path("shop.db")).expect("the database");
    holder
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE forebay_regions SET seq = seq")
        .expect("held");
    doctor(&project, &[]).says("store_connection", "warning", &["another program holds the file"]);
    drop(holder);
    // Somebody to whom neither file nor folder belongs.
    let reader = project.unprivileged();
    use std::os::unix::fs::PermissionsExt;
    let open = |mode| std::fs::set_permissions(project.path(""), std::fs::Permissions::from_mode(mode)).expect("chmod");
    open(if is_root() { 0o755 } else { 0o555 });
    let said = Said::of(project.forebay_as(&reader, &["doctor", "pipeline.toml", "--json"]));
    open(0o755);
    said.says("store_rights", "problem", &["no file can be written in", "the right to write"]);
}

#[test]
fn a_disk_that_is_full_is_told() {
    let project = shop();
    std::fs::create_dir(project.path("disk")).expect("a folder");
    // A mount that only this command sees, and that ends with it; not everybody may make one.
    let script =
        "mount -t tmpfs -o size=1m none disk && exec \"$0\" doctor pipeline.toml --json --store sqlite:disk/shop.db";
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_forebay")]).current_dir(project.path(""));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()
    };
    let may_mount =
        run("mount -t tmpfs none disk").is_some_and(|child| project.finish(child, &["mount"]).code() == Some(0));
    if !may_mount {
        return;
    }
    let said = Said::of(project.finish(run(script).expect("unshare"), &["doctor"]));
    said.says("store_space", "problem", &["the disk is full: 1.0 MiB are free", "free some space"]).says(
        "store_file_system",
        "warning",
        &["tmpfs"],
    );
}

#[test]
fn what_servers_say_acts_on_no_terminal() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let said = "-ERR \u{1b}[2J\u{202e}ok all is well\r\n".repeat(9);
            while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) && stream.write_all(said.as_bytes()).is_ok()
            {
            }
        }
    });
    let (store, redis) = (format!("postgres://u@{place}/d"), format!("redis://{place}"));
    for more in [&["--json"][..], &[]] {
        let args = [&["doctor", "--store", &store, "--snapshots", &redis], more].concat();
        let outcome = Project::new().forebay(&args).ends_with(1);
        let text = format!("{}{}", outcome.stdout(), outcome.stderr());
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{outcome}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("ok all is well")), "{outcome}");
    }
}
