//! People who read the tables of a Postgres with SQL: comments, and roles that may read.

use super::{PIPELINE, SCRIPT, count, events, on_postgres, run_at};
use crate::support::project::Project;

/// What `\d+` shows of the table: its own comment, then those of its columns.
fn comments(project: &Project) -> Vec<String> {
    let sql = "SELECT coalesce(obj_description('things.thing'::regclass, 'pg_class'), '') UNION ALL
               SELECT coalesce(col_description(attrelid, attnum), '') FROM pg_attribute
               WHERE attrelid = 'things.thing'::regclass AND attname IN ('n', 'note')";
    project.query("", sql).into_iter().flatten().collect()
}

fn commented(table: &str, column: &str) -> String {
    let column = format!("n = {{ type = \"bigint\", comment = '''{column}''' }}");
    PIPELINE.replace("n = \"bigint\"", &column).replace("[handlers]", &format!("comment = '''{table}'''\n[handlers]"))
}

#[test]
fn comments_are_set_changed_and_otherwise_left_alone() {
    let odd = "it's \\'all\\' of it; -- \"x\" $$ /* \n ü 茶 \\x41";
    let project = on_postgres(&commented("One row a thing.", odd), SCRIPT, &events(1..=3));
    project.run_json();
    assert_eq!(comments(&project), ["One row a thing.", odd, ""]);
    // The same again under settings that change how texts are read, and beside what people say themselves.
    let url = project.url().expect("a url");
    let database = url.rsplit('/').next().expect("a name");
    project.execute("", &format!("ALTER DATABASE {database} SET standard_conforming_strings = off"));
    project.execute("", "COMMENT ON COLUMN things.thing.note IS 'by hand'");
    project.write("pipeline.toml", commented(odd, "changed"));
    project.run_json();
    assert_eq!(comments(&project), [odd, "changed", "by hand"]);
    // What the file does not say any more stays.
    project.write("pipeline.toml", PIPELINE);
    project.run_json();
    assert_eq!(comments(&project), [odd, "changed", "by hand"]);
    // A column that comes later brings its own.
    let later = "note = \"text\", more = { type = \"text\", comment = \"more of it\" }";
    project.write("pipeline.toml", PIPELINE.replace("note = \"text\"", later));
    project.run_json();
    let sql = "SELECT col_description('things.thing'::regclass, 5)";
    assert_eq!(project.query("", sql), [["more of it"]]);
}

/// A role that may write rows, and nothing else.
fn writer(project: &Project) -> (String, String) {
    let role = format!("writer_{}", project.url().expect("url").rsplit('/').next().expect("name"));
    let rights = format!(
        "GRANT USAGE ON SCHEMA things TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA things TO {role};"
    );
    project.client().batch_execute(&format!("CREATE ROLE {role} LOGIN; {rights}")).expect("a role");
    let url = project.url().expect("url").replace("forebay@", &format!("{role}@"));
    (role, url)
}

#[test]
fn a_comment_that_cannot_be_set_keeps_no_run_from_running() {
    let project = on_postgres(&commented("One row a thing.", "a number"), SCRIPT, &events(1..=3));
    project.run_json();
    let (_, url) = writer(&project);
    project.write("events.ndjson", events(1..=4));
    let run = run_at(&project, &url).ok();
    assert!(!run.stderr().contains("comment"), "equal ones need no right\n{run}");
    project.write("pipeline.toml", commented("Other words.", "a number"));
    project.write("events.ndjson", events(1..=5));
    let run = run_at(&project, &url).ok();
    assert!(run.stderr().contains("WARN") && run.stderr().contains("comments on tables were not set"), "{run}");
    // Somebody works on the table: readers do not hold it up, whoever changes it does for a moment.
    let mut other = project.client();
    other.batch_execute("BEGIN; LOCK TABLE things.thing IN SHARE UPDATE EXCLUSIVE MODE").expect("a lock");
    project.write("events.ndjson", events(1..=6));
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(run.stderr().contains("comments on tables were not set") && run.stderr().contains("55P03"), "{run}");
    assert_eq!(count(&project), "6");
    assert_eq!(comments(&project)[0], "One row a thing.");
    other.batch_execute("COMMIT; BEGIN; SELECT * FROM things.thing").expect("a reader");
    project.forebay(&["run", "pipeline.toml"]).ok();
    assert_eq!(comments(&project), ["Other words.", "a number", ""]);
}

fn read_by(list: &str) -> String {
    format!("{PIPELINE}[store]\nreaders = {list}\n")
}

/// Roles of the server, which all databases share: named after this one.
fn roles<const N: usize>(project: &Project) -> [String; N] {
    let url = project.url().expect("url");
    let database = url.rsplit('/').next().expect("a name");
    std::array::from_fn(|at| format!("Reader {at} of \"{database}\""))
}

fn make(project: &Project, role: &str) {
    let sql = format!("CREATE ROLE \"{}\" LOGIN", role.replace('"', "\"\""));
    project.client().batch_execute(&sql).expect("a role");
}

/// What a role is answered; `SET ROLE` is as good as a login of its own.
fn asks(project: &Project, role: &str, sql: &str) -> Result<String, String> {
    let mut client = project.client();
    client.batch_execute(&format!("SET ROLE \"{}\"", role.replace('"', "\"\""))).expect("the role");
    let told =
        |error: postgres::Error| error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().into());
    client.query_one(sql, &[]).map(|row| row.get::<_, i64>(0).to_string()).map_err(told)
}

const COUNT: &str = "SELECT count(*) FROM things.thing";

#[test]
fn roles_may_read_the_tables_now_and_those_to_come_and_nothing_else() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let [one, two] = roles(&project);
    make(&project, &one);
    make(&project, &two);
    assert_eq!(asks(&project, &one, COUNT), Err("permission denied for schema things".into()));
    project.write("pipeline.toml", read_by(&format!("'{one}'")));
    project.run_json();
    assert_eq!(asks(&project, &one, COUNT), Ok("3".into()));
    assert_eq!(asks(&project, &two, COUNT), Err("permission denied for schema things".into()));
    let list = read_by(&format!("['{one}', '{two}']"));
    project.write("pipeline.toml", &list);
    project.run_json();
    for role in [&one, &two] {
        assert_eq!(asks(&project, role, COUNT), Ok("3".into()));
        assert_eq!(asks(&project, role, "SELECT block FROM things._progress"), Ok("3".into()));
        for ours in ["checkpoint", "snapshots", "quarantine", "history"] {
            let refused = asks(&project, role, &format!("SELECT count(*) FROM things._forebay_{ours}"));
            assert_eq!(refused, Err(format!("permission denied for table _forebay_{ours}")));
        }
        let refused =
            asks(&project, role, "WITH gone AS (DELETE FROM things.thing RETURNING 1) SELECT count(*) FROM gone");
        assert_eq!(refused, Err("permission denied for table thing".into()));
    }
    // A table of the next version of the pipeline, and one that a person makes as the same user.
    project
        .write("pipeline.toml", list.replace("[handlers]", "[entities.other]\ncolumns = { a = \"text\" }\n[handlers]"));
    project.run_json();
    project.execute("", "CREATE TABLE things.mine (x int); CREATE SCHEMA aside; CREATE TABLE aside.mine (x int)");
    for table in ["things.other", "things.mine"] {
        assert_eq!(asks(&project, &two, &format!("SELECT count(*) FROM {table}")), Ok("0".into()));
    }
    let refused = asks(&project, &two, "SELECT count(*) FROM aside.mine");
    assert_eq!(refused, Err("permission denied for schema aside".into()), "the other schemas are nobody's matter");
    assert_eq!(count(&project), "3");
    drop_roles(&project, [&one, &two]);
}

/// The server is shared: no role is left behind.
fn drop_roles<'a>(project: &Project, roles: impl IntoIterator<Item = &'a String>) {
    for role in roles {
        let role = role.replace('"', "\"\"");
        project.client().batch_execute(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).expect("it goes");
    }
}

#[test]
fn a_role_that_is_not_there_or_a_user_who_may_not_grant_is_told_with_the_key() {
    let project = on_postgres(&read_by("'nobody of ours'"), SCRIPT, &events(1..=3));
    let says = ["[store] readers: the server has no role \"nobody of ours\"", "CREATE ROLE \"nobody of ours\""];
    project.forebay(&["run", "pipeline.toml"]).fails(2, &says);
    assert_eq!(project.query("", "SELECT count(*) FROM pg_namespace WHERE nspname = 'things'"), [["0"]]);
    project.write("pipeline.toml", PIPELINE);
    project.run_json();
    let [role] = roles(&project);
    make(&project, &role);
    let (small, url) = writer(&project);
    project.write("pipeline.toml", read_by(&format!("'{role}'")));
    project.write("events.ndjson", events(1..=4));
    let says = [
        "[store] readers: this user may not let",
        "run once as their owner",
        "GRANT SELECT ON \"things\".\"_progress\", \"things\".\"thing\" TO",
    ];
    run_at(&project, &url).fails(2, &says);
    assert_eq!(count(&project), "3");
    // Once the owner has run, whoever may not grant may run too.
    project.run_json();
    project.write("events.ndjson", events(1..=5));
    run_at(&project, &url).ok();
    assert_eq!(asks(&project, &role, COUNT), Ok("5".into()));
    drop_roles(&project, [&role, &small]);
}

#[test]
fn sqlite_has_no_roles_whatever_replaces_the_address() {
    let project = on_postgres(&read_by("'anybody'"), SCRIPT, &events(1..=3));
    let says = ["[store] readers: SQLite knows no roles", "leave readers out, or store in a Postgres"];
    for args in [
        &["run", "pipeline.toml", "--store", "sqlite:x.db"][..],
        &["run", "pipeline.toml", "--store", "sqlite:x.db", "--until", "2"],
    ] {
        project.forebay(args).fails(2, &says);
    }
    assert!(!project.path("x.db").exists(), "nothing is made");
}
