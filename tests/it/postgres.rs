//! What is particular to Postgres: who may connect and how, what is refused, what goes on by itself.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use forebay::config::BatchConfig;
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};

use crate::common::{Outcome, Project, Stores, with_store};
use crate::proxy::Proxy;
use crate::server::{Pooler, Server};

const PIPELINE: &str = "name = \"things\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = { n = \"bigint\", note = \"text\" }\n[handlers]\nscript = \"handlers.lua\"\n";

const SCRIPT: &str = "function on_event(e, ctx) ctx.thing:set(tostring(ctx.block), { n = ctx.block }) end
function on_snapshot(ctx) return { rows = ctx.thing:count() } end";

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks.map(|block| format!("{{\"block\":{block},\"region\":\"r\"}}\n")).collect()
}

/// A project over a database of the shared server.
fn on_postgres(pipeline: &str, script: &str, events: &str) -> Project {
    let mut project = None;
    with_store(Stores::Postgres, || project = Some(Project::with(pipeline, script, events)));
    project.expect("a project")
}

fn run_at(project: &Project, url: &str) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--json", "--store", url])
}

fn count(project: &Project) -> String {
    project.query("", "SELECT count(*) FROM thing").remove(0).remove(0)
}

#[test]
fn tables_are_typed_and_keyed_as_people_expect() {
    let pipeline = PIPELINE.replace("{ n = \"bigint\", note = \"text\" }", "{ a = \"text\", b = \"boolean\", c = \"bigint\", d = \"double\", e = \"numeric\", f = \"timestamptz\", g = \"jsonb\", h = \"bytes\" }\nindexes = [\"a\", \"e\"]");
    let project = on_postgres(&pipeline, "function on_event() end", &events(1..=1));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let columns = project.query(
        "",
        "SELECT column_name::text, data_type::text FROM information_schema.columns
         WHERE table_schema = 'things' AND table_name = 'thing' ORDER BY ordinal_position",
    );
    let expected = [
        ["region", "text"],
        ["id", "text"],
        ["a", "text"],
        ["b", "boolean"],
        ["c", "bigint"],
        ["d", "double precision"],
        ["e", "numeric"],
        ["f", "timestamp with time zone"],
        ["g", "jsonb"],
        ["h", "bytea"],
    ];
    assert_eq!(columns, expected);
    let indexes =
        project.query("", "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'things' ORDER BY 1");
    assert_eq!(indexes.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["thing.a", "thing.e", "thing_pkey"]);
    assert!(indexes[2][1].ends_with("(region, id)"), "{indexes:?}");
    assert!(indexes[0][1].contains("COLLATE \"C\""), "{indexes:?}");
}

crate::both_stores! {
    /// Each value is written by one run, and compared by the next, which has to read it back.
    fn values_of_every_type_come_back_as_they_were() {
        let pipeline = PIPELINE.replace("{ n = \"bigint\", note = \"text\" }", "{ a = \"text\", b = \"boolean\", c = \"bigint\", d = \"double\", e = \"numeric\", f = \"timestamptz\", g = \"jsonb\", h = \"bytes\" }");
        let script = r#"
        local rows = {
          full = { a = "é\n\t\\\"'", b = true, c = math.maxinteger, d = 0.1, e = numeric("-123456789012345678901234567890.000000000000000001"),
                   f = "2018-01-31T01:49:59.650Z", g = { x = 1e16, y = { 1.0, 2, false }, z = "\u{1F600}" }, h = "\0\255\1" },
          least = { a = "", b = false, c = math.mininteger, d = -1.7976931348623157e308, e = numeric("0.00000000000000000000000000000000000000012"),
                    f = "-004712-01-01T00:00:00Z", g = {}, h = "" },
          most = { a = ("x"):rep(100000), b = true, c = 0, d = 5e-324, e = numeric("115792089237316195423570985008687907853269984665640564039457584007913129639935"),
                   f = "9999-12-31T23:59:59.999999Z", g = "text", h = ("\0"):rep(5000) },
          round = { c = 10000, d = 1 / 0, e = numeric("100000000000000000000000000000000000000"), f = "2000-01-01T00:00:00Z", g = 12345678901234567 },
          small = { c = -1, d = 0.0, e = numeric("-0.5"), f = "1999-12-31T23:59:59.999999Z", g = 1.5e-9 },
          zero = { e = numeric(0) },
          none = {},
        }
        local function text(value)
          if type(value) ~= "table" then return math.type(value) and (math.type(value) .. string.format("%q", value)) or type(value) .. tostring(value) end
          local ok, number = pcall(function() return tostring(value + numeric(0)) end)
          if ok then return number end
          local parts = {}
          for key, item in pairs(value) do parts[#parts + 1] = tostring(key) .. "=" .. text(item) end
          return "{" .. table.concat(parts, ",") .. "}"
        end
        function on_event(event, ctx)
          for id, row in pairs(rows) do
            if event.block == 1 then ctx.thing:set(id, row)
            else
              local found = ctx.thing:get(id)
              for column, value in pairs(row) do
                if text(found[column]) ~= text(value) then error(id .. "." .. column .. ": " .. text(found[column]):sub(1, 200) .. " is not " .. text(value):sub(1, 200)) end
              end
              for column in pairs(found) do assert(row[column] ~= nil, id .. "." .. column .. " was null") end
            end
          end
        end"#;
        let project = Project::with(&pipeline, script, &events(1..=2));
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        project.forebay(&["run", "pipeline.toml"]).ok();
    }

    fn names_that_sql_knows_are_names() {
        let pipeline = "name = \"select\"\n[source]\npath = \"events.ndjson\"\n[entities.order]\ncolumns = { user = \"bigint\", table = \"text\" }\nindexes = [\"user\"]\n[entities.end]\ncolumns = {}\n[handlers]\nscript = \"handlers.lua\"\n";
        let script = "function on_event(e, ctx) ctx.order:set(e.id, { user = ctx.block, table = e.id }) ctx['end']:set(ctx.block, {}) if ctx.block > 2 then ctx['end']:delete(1) end end";
        let line = |block: i64| format!("{{\"block\":{block},\"region\":\"a';--\\\"\",\"id\":\"x'); DROP TABLE \\\"order\\\"; -- \\\\\"}}\n");
        let project = Project::with(pipeline, script, &(1..=3).map(line).collect::<String>());
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        project.forebay(&["run", "pipeline.toml"]).ok();
        let database = if project.url().is_some() { "" } else { "select.db" };
        assert_eq!(
            project.query(database, "SELECT region, id, \"user\", \"table\" FROM \"order\""),
            [["a';--\"", "x'); DROP TABLE \"order\"; -- \\", "3", "x'); DROP TABLE \"order\"; -- \\"]]
        );
        assert_eq!(project.query(database, "SELECT id FROM \"end\" ORDER BY id"), [["2"], ["3"]]);
    }

    /// Many regions, each with a few rows that are not in memory: they are not asked for one by one.
    fn the_rows_that_many_regions_miss_come_together() {
        let script = "function on_event(e, ctx) local t = ctx.thing:get('x') or { n = 0 } t.n = t.n + 1 ctx.thing:set('x', t)
          local o = ctx.thing:get(e.other) or { n = 0 } o.n = o.n + 1 ctx.thing:set(e.other, o) end";
        let lines: String = (0..1200).map(|n| format!("{{\"block\":{n},\"region\":\"r{}\",\"other\":\"o{}\"}}\n", n % 300, n % 7)).collect();
        let project = Project::with(PIPELINE, script, &lines);
        project.forebay(&["run", "pipeline.toml", "--until", "599"]).ok();
        let report = project.run_json();
        let loads = report["loads"].as_u64().expect("rows were loaded");
        assert!(loads < 60, "{loads} loads for 300 regions");
        let database = if project.url().is_some() { "" } else { "things.db" };
        assert_eq!(project.query(database, "SELECT sum(n), count(*) FROM thing WHERE id = 'x'"), [["1200", "300"]]);
        assert_eq!(project.query(database, "SELECT sum(n) FROM thing WHERE id <> 'x'"), [["1200"]]);
    }
}

/// A handler that moves numbers between rows of its region.
struct Moves;

forebay::entity! {
    struct Thing in "thing" {
        n: i64,
    }
}

#[derive(serde::Deserialize)]
struct Move {
    from: i64,
    to: i64,
}

impl Handler for Moves {
    type Event<'e> = Move;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Thing::table()]
    }

    fn on_event(&self, event: Move, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        for (id, amount) in [(event.from, -1), (event.to, 1)] {
            let id = format!("id{id}");
            let n = ctx.get::<Thing>(&id)?.map_or(0, |thing| thing.n);
            ctx.set(&id, Thing { n: n + amount })?;
        }
        Ok(())
    }
}

/// What fits in memory is never asked for, however far the database is.
#[test]
fn a_distant_database_is_not_read_when_its_tables_fit_in_memory() {
    let proxy = Proxy::start(Server::shared().port);
    proxy.set_latency(Duration::from_millis(20));
    let database = Server::shared().make_database();
    let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
    let project = Project::new();
    let lines: String = (0..20_000)
        .map(|n| {
            format!(
                "{{\"block\":{},\"region\":\"r{}\",\"from\":{},\"to\":{}}}\n",
                n / 10,
                n % 3,
                n * 7 % 3001,
                n * 11 % 3001
            )
        })
        .collect();
    project.write("events.ndjson", lines);
    let batch = BatchConfig::default().with_events(1000).expect("events");
    let pipeline = Pipeline::new("far", Moves).expect("pipeline").store_url(&url).expect("store").batch(batch);
    let report = pipeline.source_path(&project.path("events.ndjson").to_string_lossy()).run().expect("it succeeds");
    assert_eq!((report.loads, report.times.preload), (0, Duration::ZERO));
    assert_eq!((report.events, proxy.connections()), (20_000, 1), "and nothing was connected to read");
}

/// Rules of the database that the pipeline file does not know.
#[test]
fn a_row_that_the_database_refuses_is_named_with_its_event() {
    // Few rows go as arrays, many by COPY.
    for (rows, rule) in [
        (50, "ALTER TABLE things.thing ADD CONSTRAINT small CHECK (n <> 37)"),
        (3000, "ALTER TABLE things.thing ADD CONSTRAINT small CHECK (n <> 2037)"),
        (3000, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n = 2037 THEN RAISE EXCEPTION 'small is not for me'; END IF; RETURN NEW; END $$;
                CREATE CONSTRAINT TRIGGER small AFTER INSERT ON things.thing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()"),
    ] {
        let project = on_postgres(&format!("{PIPELINE}[batch]\nevents = 5000\n"), SCRIPT, &events(1..=rows));
        project.forebay(&["run", "pipeline.toml", "--until", "10"]).ok();
        project.execute("", rule);
        let bad = if rows == 50 { 37 } else { 2037 };
        let says = [
            "was not committed",
            &format!("refused the row \"{bad}\" of thing in region \"r\""),
            "small",
            &format!("events.ndjson:{bad} wrote it"),
        ];
        project.forebay(&["run", "pipeline.toml"]).fails(1, &says);
        assert_eq!(count(&project), "10", "nothing of the batch is there");
        project.execute("", "DROP TRIGGER IF EXISTS small ON things.thing; ALTER TABLE things.thing DROP CONSTRAINT IF EXISTS small");
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(count(&project), rows.to_string());
    }
}

/// A run over an open stream, whose stderr has said that it is at work.
struct Stream {
    child: Child,
    stdin: std::process::ChildStdin,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Stream {
    fn start(project: &Project, args: &[&str]) -> Self {
        let mut child = project.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        let stdin = child.stdin.take().expect("stdin");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        Self { child, stdin, stderr }
    }

    fn send(&mut self, blocks: std::ops::RangeInclusive<i64>) {
        self.stdin.write_all(events(blocks).as_bytes()).expect("stdin");
        self.stdin.flush().expect("stdin");
    }

    /// Waits until it says this; returns what it said until then.
    fn says(&mut self, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            assert!(self.stderr.read_line(&mut said).expect("stderr") > 0, "it ended without {text:?}: {said}");
        }
        said
    }

    fn end(mut self, project: &Project) -> (Outcome, String) {
        drop(self.stdin);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("stderr");
        (project.finish(self.child, &["run"]), said)
    }
}

fn committed(server: &Server, database: &str) -> i64 {
    let sql = "SELECT coalesce(max(block), 0) FROM forebay.pipelines";
    server.client(database).query_one(sql, &[]).map_or(0, |row| row.get(0))
}

#[test]
fn a_server_that_restarts_under_a_run_is_waited_for_and_told_once() {
    let server = Server::start("");
    let database = server.make_database();
    let project = Project::with(PIPELINE, SCRIPT, "");
    let url = server.url(&database);
    let mut stream = Stream::start(&project, &["run", "pipeline.toml", "--source", "-", "--json", "--store", &url]);
    stream.send(1..=10);
    while committed(&server, &database) < 9 {
        std::thread::yield_now();
    }
    server.crash();
    stream.send(11..=20);
    let said = stream.says("trying again");
    assert!(said.contains("for up to 300 s") && !said.contains("secret"), "{said}");
    server.restart();
    while committed(&server, &database) < 19 {
        std::thread::yield_now();
    }
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
    stream.send(1..=10);
    while committed(&server, &database) < 9 {
        std::thread::yield_now();
    }
    server.crash();
    stream.send(11..=20);
    stream.says("trying again");
    let pid = stream.child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill");
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

#[test]
fn reading_before_the_first_run_is_no_failure_of_the_database() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.forebay(&["latest", "--config", "pipeline.toml"]).fails(1, &["knows no pipeline things"]);
    let status = project.forebay(&["status", "pipeline.toml"]);
    status.fails(1, &["pipeline things has not committed anything yet"]);
    project.run_json();
    project.forebay(&["status", "pipeline.toml"]).ok();
    assert_eq!(project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout(), "{\"rows\":3}\n");
}

#[test]
fn names_that_postgres_keeps_for_itself_are_refused_before_anything_is_made() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    for (from, to, says) in [
        ("\"things\"", "\"forebay\"", "pipeline name \"forebay\""),
        ("\"things\"", "\"pg_things\"", "pipeline name \"pg_things\""),
        ("note =", "xmin =", "column \"xmin\": every table of Postgres has it"),
    ] {
        project.write("other.toml", PIPELINE.replace(from, to));
        project.forebay(&["run", "other.toml"]).fails(2, &[says, "choose another"]);
    }
    assert_eq!(project.query("", "SELECT count(*) FROM pg_namespace WHERE nspname = 'forebay'"), [["0"]]);
}

#[test]
fn a_role_that_may_not_make_tables_can_run_once_they_are_made() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let role = format!("small_{}", project.url().expect("url").rsplit('/').next().expect("name"));
    project.execute("", &format!("CREATE ROLE {role} LOGIN"));
    let url = project.url().expect("url").replace("forebay@", &format!("{role}@"));
    run_at(&project, &url).fails(1, &["42501", "let its owner make the schemas and tables once"]);
    project.run_json();
    project.execute("", &format!("GRANT USAGE ON SCHEMA forebay, things TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA things TO {role};").replace("SCHEMA forebay", "SCHEMA \"forebay\""));
    project
        .client()
        .batch_execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA forebay TO {role}"))
        .expect("grant");
    project.write("events.ndjson", events(1..=2500));
    assert_eq!(run_at(&project, &url).ok().json()["events"], 2497);
    assert_eq!(count(&project), "2500");
}

#[test]
fn pgbouncer_in_transaction_mode_is_refused_and_in_session_mode_taken() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let own = project.url().expect("url");
    for ignored in ["", "ignore_startup_parameters = options,extra_float_digits"] {
        for mode in ["transaction", "statement", "session"] {
            let pooler = Pooler::start(Server::shared(), &format!("pool_mode = {mode}\n{ignored}"));
            let url = own.replace(&format!(":{}/", Server::shared().port), &format!(":{}/", pooler.port));
            let outcome = run_at(&project, &url);
            match mode {
                "session" => drop(outcome.ok()),
                _ => drop(outcome.fails(1, &["a pooler stands before the database", "PgBouncer with pool_mode"])),
            }
        }
    }
}

/// Certificates of two authorities: of the server (for localhost), of a client, and a stranger's.
struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    fn make() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect(name);
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("params");
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            (params.self_signed(&key).expect("a certificate").pem(), Issuer::new(params, key))
        };
        let (root, issuer) = authority("root");
        let (stranger, _) = authority("stranger");
        write("root.crt", root);
        write("stranger.crt", stranger);
        for (name, host, purpose) in [
            ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", "forebay", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = CertificateParams::new(vec![host.to_owned()]).expect("params");
            params.distinguished_name.push(DnType::CommonName, host);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().expect("a key");
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("a certificate").pem());
            write(&format!("{name}.key"), key.serialize_pem());
            use std::os::unix::fs::PermissionsExt;
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(dir.path().join(format!("{name}.key")), private).expect("chmod");
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

#[test]
fn tls_is_as_strict_as_it_is_asked_to_be() {
    let papers = Papers::make();
    let server = Server::start_with("-c ssl=on -c ssl_ca_file=root.crt", |data| {
        for name in ["server.crt", "server.key", "root.crt"] {
            fs::copy(papers.path(name), data.join(name)).expect(name);
        }
        let rules = "local all all trust\nhost postgres all 127.0.0.1/32 trust\nhostssl t_open all all trust\nhostssl t_closed all all trust clientcert=verify-full\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    });
    server.execute("postgres", "CREATE DATABASE t_open");
    server.execute("postgres", "CREATE DATABASE t_closed");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let (root, stranger) = (papers.path("root.crt"), papers.path("stranger.crt"));
    let (cert, key) = (papers.path("client.crt"), papers.path("client.key"));
    let client = format!("sslcert={cert}&sslkey={key}");
    // Host, database, options, and what is said if it is refused.
    let cases: &[(&str, &str, String, Option<&str>)] = &[
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={root}"), None),
        ("127.0.0.1", "t_open", format!("sslmode=verify-full&sslrootcert={root}"), Some("not valid for name")),
        ("127.0.0.1", "t_open", format!("sslmode=verify-ca&sslrootcert={root}"), None),
        ("localhost", "t_open", format!("sslmode=verify-ca&sslrootcert={stranger}"), Some("certificate")),
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={stranger}"), Some("certificate")),
        // The system's roots do not know it.
        ("localhost", "t_open", "sslmode=verify-full".into(), Some("certificate")),
        ("localhost", "t_open", format!("sslmode=require&sslrootcert={stranger}"), Some("certificate")),
        ("localhost", "t_open", "sslmode=require".into(), None),
        ("localhost", "t_open", String::new(), None),
        ("localhost", "t_open", "sslmode=disable".into(), Some("28000")),
        ("localhost", "t_closed", format!("sslmode=verify-full&sslrootcert={root}&{client}"), None),
        ("localhost", "t_closed", format!("sslmode=verify-full&sslrootcert={root}"), Some("28000")),
        (
            "localhost",
            "t_open",
            format!("sslmode=verify-full&sslrootcert={root}.gone"),
            Some("root.crt.gone cannot be used"),
        ),
        ("localhost", "t_open", format!("sslmode=verify-full&sslrootcert={key}"), Some("holds no certificate")),
    ];
    for (host, database, options, refused) in cases {
        let url = format!("postgres://forebay@{host}:{}/{database}?{options}", server.port);
        let outcome = run_at(&project, &url);
        match refused {
            None => drop(outcome.ok()),
            Some(says) => drop(outcome.fails(1, &["cannot open", says])),
        }
    }
    // A server without TLS is not taken for one with it.
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}&sslrootcert={root}", Server::shared().url("postgres"));
        run_at(&project, &url).fails(1, &["cannot open", "TLS"]);
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let url = format!(
        "postgres://forebay@localhost:{}/t_closed?sslmode=verify-full&sslrootcert={root}&{client}",
        server.port
    );
    run_at(&project, &url).fails(1, &["sslkey", "others may read it"]);
}

#[test]
fn a_password_comes_from_where_psql_looks_and_is_never_shown() {
    let server = Server::start_with("", |data| {
        let rules = "host postgres forebay all trust\nhost all all all scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    });
    server.execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'hunt:er2' SUPERUSER");
    server.execute("postgres", "CREATE DATABASE d");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    let url = |password: &str| format!("postgres://app{password}@127.0.0.1:{}/d", server.port);
    let run = |url: &str, name: &str, value: &str| {
        let args = ["run", "pipeline.toml", "-v", "--store", url];
        let mut command = project.command(&args);
        command.env_remove("PGPASSWORD").env("PGPASSFILE", "none").env(name, value);
        let outcome = project.finish(command.spawn().expect("the binary starts"), &args);
        assert!(!format!("{}{}", outcome.stdout(), outcome.stderr()).contains("hunt"), "{outcome}");
        outcome
    };
    let pass = project.path("pass");
    project.write("pass", format!("# mine\n*:*:*:other:no\n127.0.0.1:{}:d:app:hunt\\:er2\n", server.port));
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o600)).expect("chmod");
    let file = pass.to_string_lossy().into_owned();
    run(&url(":hunt%3Aer2"), "X", "").ok();
    run(&url(""), "PGPASSWORD", "hunt:er2").ok();
    run(&url(""), "PGPASSFILE", &file).ok();
    run(&url(""), "X", "").fails(1, &["password missing"]);
    run(&url(":hunter3"), "PGPASSWORD", "hunt:er2").fails(1, &["28P01", "PGPASSWORD or ~/.pgpass"]);
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o644)).expect("chmod");
    run(&url(""), "PGPASSFILE", &file).fails(1, &["is not used: others may read it"]);
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
        stream.send(1..=first + 19);
        stream.end(&project).0.ok();
    }
    let mut stream = Stream::start(&project, &args);
    stream.send(1..=70);
    while committed(&primary, "postgres") < 69 {
        std::thread::yield_now();
    }
    primary.crash();
    stream.send(71..=80);
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
    stream.send(1..=10);
    while committed(Server::shared(), &database) < 9 {
        std::thread::yield_now();
    }
    // The next commit is killed while it runs.
    project.execute(
        "",
        "CREATE FUNCTION things.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.id = '15' AND to_regclass('things.was_here') IS NULL THEN
             PERFORM pg_sleep(60);
           END IF; RETURN NEW; END $$;
         CREATE TRIGGER die BEFORE INSERT ON things.thing FOR EACH ROW EXECUTE FUNCTION things.die()",
    );
    stream.send(11..=20);
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'";
    let mut client = Server::shared().client("postgres");
    while client.query(sql, &[&database]).expect("activity").is_empty() {
        std::thread::yield_now();
    }
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
    stream.send(1..=10);
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while Server::shared()
        .client(project.url().expect("url").rsplit('/').next().expect("a name"))
        .query_one(waiting, &[])
        .expect("activity")
        .get::<_, i64>(0)
        == 0
    {
        std::thread::yield_now();
    }
    let begun = std::time::Instant::now();
    std::process::Command::new("kill").args(["-INT", &stream.child.id().to_string()]).status().expect("kill");
    let (outcome, said) = stream.end(&project);
    outcome.ends_with(1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
    drop(locked);
}

/// Calls that are tried ahead all want the same table counted: it is asked for once, and from then on kept right.
#[test]
fn a_table_that_many_calls_count_is_counted_once() {
    struct Counts;
    impl Handler for Counts {
        type Event<'e> = Move;
        fn entities(&self) -> Vec<EntityTable> {
            vec![Thing::table()]
        }
        fn on_event(&self, event: Move, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
            let n = ctx.count::<Thing>()?;
            ctx.set(&format!("id{}", event.from), Thing { n: i64::try_from(n)? })
        }
    }
    let line = |n: i64| format!("{{\"block\":{n},\"region\":\"r\",\"from\":{n},\"to\":0}}\n");
    let project = on_postgres(PIPELINE, SCRIPT, &(0..3000).map(line).collect::<String>());
    let run = |until: i64| {
        let pipeline =
            Pipeline::new("things", Counts).expect("pipeline").store_url(&project.url().expect("url")).expect("store");
        pipeline.source_path(&project.path("events.ndjson").to_string_lossy()).until(until).run().expect("it succeeds")
    };
    run(1999);
    // Whether it is small, its rows, and once a round which of the ids that are written are in it.
    assert_eq!(run(2999).loads, 7);
    assert_eq!(project.query("", "SELECT count(*), max(n) FROM thing"), [["3000", "2999"]]);
}

/// Reads meet the same faults as commits.
#[test]
fn a_connection_that_breaks_under_a_read_costs_nothing_but_time() {
    let lines: String = (0..900)
        .map(|n| {
            format!(
                "{{\"block\":{},\"region\":\"r{}\",\"from\":{},\"to\":{}}}\n",
                n / 3,
                n % 5,
                n * 7 % 211,
                n * 11 % 211
            )
        })
        .collect();
    let project = Project::new();
    project.write("events.ndjson", lines);
    let run = |url: &str, until: i64| {
        let pipeline = Pipeline::new("far", Moves).expect("pipeline").store_url(url).expect("store");
        let pipeline = pipeline.source_path(&project.path("events.ndjson").to_string_lossy());
        pipeline.until(until).run().expect("it succeeds")
    };
    let server = Server::shared();
    let state = |database: &str| {
        crate::server::query(&mut server.client(database), "far", "SELECT * FROM thing ORDER BY region, id")
    };
    let plain = server.make_database();
    run(&server.url(&plain), i64::MAX);
    let expected = state(&plain);
    for step in 1..=30 {
        let database = server.make_database();
        run(&server.url(&database), 150);
        let proxy = Proxy::start(server.port);
        let fault = if step % 2 == 0 { crate::proxy::Fault::CutBefore } else { crate::proxy::Fault::CutAfter };
        proxy.break_at(step, fault);
        let url = format!("postgres://forebay@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
        let report = run(&url, i64::MAX);
        assert!(report.loads > 0, "rows were read back");
        assert_eq!(state(&database), expected, "step {step}");
        assert!(step > 12 || !proxy.is_armed(), "step {step} was not reached");
    }
}

/// People change tables. What would be written or read wrongly is refused before anything is.
#[test]
fn a_table_that_others_have_changed_is_refused_with_what_changed() {
    for (change, back, says) in [
        (
            "ALTER TABLE things.thing ALTER n TYPE double precision",
            "ALTER TABLE things.thing ALTER n TYPE bigint",
            "thing.n was altered from bigint to double precision",
        ),
        (
            "ALTER TABLE things.thing RENAME note TO notes",
            "ALTER TABLE things.thing RENAME notes TO note",
            "column thing.note was removed from the table",
        ),
        (
            "ALTER TABLE things.thing DROP CONSTRAINT thing_pkey",
            "ALTER TABLE things.thing ADD PRIMARY KEY (region, id)",
            "the primary key (region, id) of thing was removed",
        ),
        (
            "ALTER TABLE things.thing RENAME TO other",
            "ALTER TABLE things.other RENAME TO thing",
            "table things.thing was removed",
        ),
    ] {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
        project.forebay(&["run", "pipeline.toml", "--until", "3"]).ok();
        project.execute("", change);
        project.forebay(&["run", "pipeline.toml"]).fails(2, &[says]);
        project.execute("", back);
        project.forebay(&["run", "pipeline.toml"]).ok();
        assert_eq!(count(&project), "5");
    }
}

/// A column of the user's own is left alone, however many rows a batch has.
#[test]
fn a_column_of_the_users_own_is_left_alone() {
    let project = on_postgres(&format!("{PIPELINE}[batch]\nevents = 5000\n"), SCRIPT, &events(1..=3000));
    project.forebay(&["run", "pipeline.toml", "--until", "10"]).ok();
    project.execute("", "ALTER TABLE things.thing ADD mine text NOT NULL DEFAULT 'x', ADD number bigserial");
    // The rows are not known to be new any more: they go by way of staging.
    project.write("handlers.lua", "function on_event(e, ctx) for i = 1, 400 do ctx.thing:get('none' .. i) end ctx.thing:set(tostring(ctx.block % 2500), { n = ctx.block }) end");
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(
        project.query("", "SELECT count(*), count(DISTINCT number), min(mine) FROM thing"),
        [["2500", "2500", "x"]]
    );
}

/// An index that the pipeline file has gained is made on the table that is there.
#[test]
fn an_index_is_added_to_a_table_that_is_there() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
    project.run_json();
    project.write("pipeline.toml", PIPELINE.replace("[handlers]", "indexes = [\"note\"]\n[handlers]"));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let indexes = project.query("", "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'things' ORDER BY 1");
    assert_eq!(indexes, [["thing.note"], ["thing_pkey"]]);
}
