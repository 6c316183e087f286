//! Indexing anew beside the present tables: what people have made of those, and readers in long transactions.

use std::time::{Duration, Instant};

use super::{PIPELINE, SCRIPT, events, on_postgres};
use crate::support::postgres_proxy::Proxy;
use crate::support::postgres_server::Server;
use crate::support::project::{Outcome, Project};
use crate::support::wait_until;

fn fresh(project: &Project) -> Outcome {
    project.forebay(&["run", "pipeline.toml", "--fresh", "--json"])
}

/// A script whose rows are told from those of the first one.
fn other_script() -> String {
    SCRIPT.replace("n = ctx.block", "n = -ctx.block")
}

fn one(client: &mut postgres::Client, sql: &str) -> String {
    let found = client.simple_query(sql).expect(sql);
    let row = found.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get(0)).unwrap_or("nothing").to_owned()
}

#[test]
fn views_rights_comments_indexes_and_settings_are_carried_over() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=50));
    project.run_json();
    let mut client = project.client();
    let role = format!("reads_{}", one(&mut client, "SELECT current_database()"));
    let owner = format!("owns_{role}");
    client
        .batch_execute(&format!(
            "CREATE ROLE {role}; CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public, things TO {owner};
             GRANT USAGE ON SCHEMA things TO {role}, {owner}; GRANT SELECT ON things.thing TO {owner};
             CREATE VIEW public.all_things WITH (security_barrier = true) AS SELECT id, n FROM things.thing;
             CREATE VIEW things.few AS SELECT a.id, t.note FROM public.all_things a JOIN things.thing t USING (id);
             CREATE VIEW public.on_views AS SELECT count(*) AS rows FROM things.few;
             COMMENT ON VIEW public.all_things IS 'seen by all'; ALTER VIEW public.all_things OWNER TO {owner};
             GRANT SELECT ON public.all_things TO {role} WITH GRANT OPTION; GRANT SELECT ON things._progress TO {role};
             GRANT SELECT (id, n) ON things.thing TO {role}; GRANT UPDATE ON things.thing TO {role} WITH GRANT OPTION;
             ALTER DEFAULT PRIVILEGES IN SCHEMA things GRANT SELECT ON TABLES TO {role};
             COMMENT ON TABLE things.thing IS 'mine'; COMMENT ON COLUMN things.thing.n IS 'a number';
             CREATE INDEX by_n ON things.thing (n) WHERE n > 0; ALTER TABLE things.thing SET (fillfactor = 80);
             CREATE TABLE things.notes (x int); INSERT INTO things.notes VALUES (7)"
        ))
        .expect("what people make");
    let before = described(&mut client);
    project.write("handlers.lua", other_script());
    project.write(
        "pipeline.toml",
        PIPELINE.replace("[handlers]", "[entities.extra]\ncolumns = { x = \"bigint\" }\n[handlers]"),
    );
    fresh(&project).ok();
    assert_eq!(described(&mut client), before);
    for (sql, expected) in [
        ("SELECT min(n) FROM public.all_things", "-50"),
        ("SELECT rows FROM public.on_views", "50"),
        ("SELECT block FROM things._progress", "50"),
        ("SELECT x FROM things.notes", "7"),
        ("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'things@%'", "0"),
    ] {
        assert_eq!(one(&mut client, sql), expected, "{sql}");
    }
    // A table that is new has what the schema says of tables to come.
    let sql = format!("SELECT has_table_privilege('{role}', 'things.extra', 'SELECT')::text");
    assert_eq!(one(&mut client, &sql), "true");
    client
        .batch_execute(&format!(
            "SET ROLE {role}; SELECT id, n FROM things.thing; SELECT * FROM public.all_things; RESET ROLE"
        ))
        .expect("rights");
    project.write("events.ndjson", events(1..=60));
    assert_eq!(project.run_json()["events"], 10);
    client
        .batch_execute(&format!("DROP SCHEMA things CASCADE; DROP OWNED BY {role}, {owner}; DROP ROLE {role}, {owner}"))
        .expect("they go");
}

/// What is said of the relations in the schema and of the views over them: owners, rights, comments, settings, indexes.
fn described(client: &mut postgres::Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, o.rolname, c.reloptions::text, obj_description(c.oid, 'pg_class'),
                 (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(c.relacl) x WHERE x::text NOT LIKE o.rolname || '=%'),
                 (SELECT string_agg(concat_ws(':', a.attname, a.attacl::text, col_description(c.oid, a.attnum)), ',' ORDER BY a.attnum)
                  FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
                 CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
               WHERE n.nspname IN ('things', 'public') AND c.relname NOT LIKE 'extra%' ORDER BY 1";
    client.query(sql, &[]).expect(sql).iter().map(|row| row.get(0)).collect()
}

#[test]
fn what_cannot_be_carried_over_is_named_before_anything_is_indexed() {
    for (made, says) in [
        ("CREATE MATERIALIZED VIEW public.m AS SELECT * FROM things.thing", "materialized view public.m"),
        (
            "CREATE TABLE public.o (r text, i text, FOREIGN KEY (r, i) REFERENCES things.thing (region, id))",
            "constraint o_r_i_fkey on table public.o",
        ),
        (
            "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER t BEFORE INSERT ON things.thing FOR EACH ROW EXECUTE FUNCTION public.f()",
            "trigger t on table things.thing",
        ),
        ("ALTER TABLE things.thing ADD COLUMN mine int", "column thing.mine, which forebay has not made"),
        ("CREATE POLICY p ON things.thing USING (true)", "policy p on table things.thing"),
        ("CREATE VIEW public.v AS SELECT n FROM things.thing", "view public.v: "),
    ] {
        let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
        project.run_json();
        project.client().batch_execute(made).expect(made);
        project.write("handlers.lua", "function on_event(e, ctx) ctx.thing:set(tostring(ctx.block), { n = 'x' }) end");
        project.write("pipeline.toml", PIPELINE.replace("n = \"bigint\"", "n = \"text\""));
        fresh(&project).fails(2, &["cannot take their place", says]);
        assert_eq!(
            one(&mut project.client(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%@%'"),
            "0",
            "{made}"
        );
        assert_eq!(one(&mut project.client(), "SELECT max(n) FROM things.thing"), "5");
    }
}

#[test]
fn a_long_transaction_is_waited_for_and_nobody_waits_long_behind_it() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=50));
    project.run_json();
    project.write("handlers.lua", other_script());
    let (mut holder, mut reader) = (project.client(), project.client());
    let run =
        project.command(&["run", "pipeline.toml", "--fresh", "--until", "40"]).spawn().expect("the binary starts");
    project.finish(run, &["run"]).ok();
    holder
        .batch_execute("SET application_name = 'a report'; BEGIN; SELECT count(*) FROM things.thing")
        .expect("it reads");
    let mut run = project.command(&["run", "pipeline.toml", "--fresh"]).spawn().expect("the binary starts");
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    let mut reads = 0;
    wait_until(|| {
        let asked = Instant::now();
        assert_eq!(one(&mut reader, "SELECT max(n) FROM things.thing"), "50");
        longest = longest.max(asked.elapsed());
        reads += 1;
        assert!(run.try_wait().expect("the child").is_none(), "it waits");
        begun.elapsed() > Duration::from_secs(12)
    });
    assert!(longest < Duration::from_secs(5) && reads > 20, "{longest:?}, {reads} reads");
    assert_eq!(one(&mut holder, "SELECT max(n) FROM things.thing"), "50");
    holder.batch_execute("COMMIT").expect("its end");
    let ended = project.finish(run, &["run"]).ok();
    assert!(
        ended
            .stderr()
            .contains("waits for those who read the present tables in a transaction (a report (server process"),
        "{ended}"
    );
    assert_eq!(one(&mut reader, "SELECT max(n) FROM things.thing"), "-1");
}

/// `[store] readers` have their rights on the new tables at the moment in which those take the place.
#[test]
fn roles_that_may_read_go_on_reading() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=50));
    let mut client = project.client();
    let role = format!("reader_{}", one(&mut client, "SELECT current_database()"));
    client.batch_execute(&format!("CREATE ROLE {role}")).expect("a role");
    project.write("pipeline.toml", format!("{PIPELINE}[store]\nreaders = [\"{role}\"]\n"));
    project.run_json();
    project.write("handlers.lua", other_script());
    fresh(&project).ok();
    client.batch_execute(&format!("SET ROLE {role}")).expect("the role");
    assert_eq!(one(&mut client, "SELECT min(n) FROM things.thing"), "-50");
    client.query("SELECT * FROM things._forebay_snapshots", &[]).expect_err("our own tables are not for them");
    client.batch_execute("RESET ROLE; DROP SCHEMA things CASCADE").expect("it goes");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("it goes");
}

/// A schema that is somebody else's is left alone.
#[test]
fn a_schema_of_that_name_that_is_somebody_else_s_is_left_alone() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=5));
    project.run_json();
    let mut client = project.client();
    client.batch_execute("CREATE SCHEMA \"things@2\"; CREATE TABLE \"things@2\".x (y int)").expect("a schema");
    fresh(&project).fails(2, &["a schema \"things@2\" is there already"]);
    let outcome = project.forebay(&["run", "pipeline.toml", "--fresh", "--abort"]).ok();
    assert!(outcome.stdout().contains("no fresh index stands beside"), "{outcome}");
    client.query("SELECT * FROM \"things@2\".x", &[]).expect("it is there");
}

/// A run looks for an index beside while it looks at its tables: only where there is one does it ask how far that is.
#[test]
fn a_run_that_has_no_index_beside_asks_nothing_about_it() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let own = project.url().expect("an address");
    let run = || {
        let proxy = Proxy::start(Server::shared().port);
        let url = own.replace(&format!(":{}/", Server::shared().port), &format!(":{}/", proxy.port));
        let outcome = project.forebay(&["run", "pipeline.toml", "--store", &format!("{url}?sslmode=disable")]).ok();
        (proxy.steps(), outcome.stderr().contains("a fresh index stands beside, at no block"))
    };
    let (without, is_told) = run();
    assert!(!is_told);
    project.execute(
        "",
        "CREATE SCHEMA \"things@2\"; CREATE TABLE \"things@2\"._forebay_fresh (stamp text);
         CREATE TABLE \"things@2\"._forebay_checkpoint (LIKE things._forebay_checkpoint)",
    );
    let (with, is_told) = run();
    assert!(is_told);
    // Whether one stands there, and how far it is: to prepare that statement, and to run it.
    assert_eq!(with, without + 3);
}
