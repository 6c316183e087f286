//! A Postgres that may only be read: by a role without rights to write, from a standby, with settings that say so.

use super::{PIPELINE, SCRIPT, count, events, on_postgres};
use crate::support::postgres_server::Server;
use crate::support::project::Project;

/// All that only reads gives the same answers there.
#[track_caller]
fn check_readable(project: &Project, url: &str) {
    for args in [
        &["latest", "--config", "pipeline.toml", "--snapshots", url][..],
        &["latest", "--snapshots", url],
        &["history", "r", "--pipeline", "things", "--snapshots", url],
    ] {
        assert_eq!(project.forebay(args).ok().stdout(), "{\"rows\":3}\n");
    }
    let status = project.forebay(&["status", "pipeline.toml", "--json", "--store", url]).ok().json();
    assert_eq!(status["checkpoint"]["events"], 3);
}

#[test]
fn a_role_that_may_only_read_can_read() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    project.run_json();
    let own = project.url().expect("url");
    let role = format!("reader_{}", own.rsplit('/').next().expect("a name"));
    let url = own.replace("forebay@", &format!("{role}@"));
    let mut client = project.client();
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).expect("a role");
    let latest = ["latest", "--pipeline", "things", "--snapshots", &url];
    let says = ["42501", "give the role USAGE on the schema of the pipeline and SELECT"];
    project.forebay(&latest).fails(1, &says);
    client.batch_execute(&format!("GRANT USAGE ON SCHEMA things TO {role}")).expect("a right");
    project.forebay(&latest).fails(1, &says);
    client.batch_execute(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA things TO {role}")).expect("a right");
    check_readable(&project, &url);
    client.batch_execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).expect("a setting");
    check_readable(&project, &url);
    // It may not write, and hears why.
    let run = project.forebay(&["run", "pipeline.toml", "--store", &url]);
    run.fails(1, &["cannot open", "set to read only"]);
}

#[test]
fn a_standby_can_be_read_also_if_it_is_all_there_is() {
    let primary = Server::start("");
    let project = Project::with(PIPELINE, SCRIPT, &events(1..=3));
    project.forebay(&["run", "pipeline.toml", "--store", &primary.url("postgres")]).ok();
    let standby = primary.standby();
    let url = standby.url("postgres");
    check_readable(&project, &url);
    let both = format!("postgres://forebay@127.0.0.1:{},127.0.0.1:{}/postgres", standby.port, primary.port);
    check_readable(&project, &both);
    primary.crash();
    check_readable(&project, &both);
}

/// Settings of a database that change how names and texts are written or compared.
#[test]
fn settings_of_the_database_change_nothing() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let own = project.url().expect("url");
    let database = own.rsplit('/').next().expect("a name");
    for setting in [
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "array_nulls = off",
        "transform_null_equals = on",
        "default_transaction_isolation = 'serializable'",
        "search_path = ''",
    ] {
        project.execute("", &format!("ALTER DATABASE {database} SET {setting}"));
    }
    for blocks in 1..=3 {
        project.forebay(&["run", "pipeline.toml", "--until", &blocks.to_string()]).ok();
    }
    assert_eq!(count(&project), "3");
    // A type that was altered is told all the same.
    project.execute("", "ALTER TABLE things.thing ALTER note TYPE varchar(10)");
    project.forebay(&["run", "pipeline.toml"]).fails(2, &["thing.note was altered from text to character varying(10)"]);
}

#[test]
fn a_database_whose_texts_are_ordered_by_icu_is_as_good_as_any() {
    let project = on_postgres(PIPELINE, SCRIPT, &events(1..=3));
    let name = format!("icu_{}", project.url().expect("url").rsplit('/').next().expect("a name"));
    let sql =
        format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'");
    Server::shared().execute("postgres", &sql);
    let url = Server::shared().url(&name);
    for _ in 1..=2 {
        project.forebay(&["run", "pipeline.toml", "--store", &url]).ok();
    }
    check_readable(&project, &url);
}
