//! People who read the tables of a Postgres with SQL: comments.

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
    let rights: String = ["forebay", "things"]
        .map(|schema| {
            format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"
            )
        })
        .concat();
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
