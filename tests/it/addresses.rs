//! Addresses as people give them: what nobody sees in them, and which of several counts.

use std::process::Stdio;

use crate::support::postgres_server::free_port;
use crate::support::project::{Outcome, Project};

const PIPELINE: &str = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \"end\"\n";

const SCRIPT: &str = "function on_event(e, ctx) ctx.t:set(ctx.block, { n = ctx.block }) end
function on_snapshot(ctx) return { n = ctx.t:count() } end";

fn project() -> Project {
    Project::with(PIPELINE, SCRIPT, "{\"block\":1,\"region\":\"r\"}\n")
}

fn with_variable(project: &Project, args: &[&str], name: &str, value: &str) -> Outcome {
    let child = project.command(args).stdin(Stdio::null()).env(name, value).spawn().expect("the binary starts");
    project.finish(child, args)
}

/// The names of the databases in the project's folder.
fn databases(project: &Project) -> Vec<String> {
    let listed = std::fs::read_dir(project.path("")).expect("the folder").flatten();
    let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".db")).collect()
}

#[test]
fn what_nobody_sees_at_the_ends_of_an_address_is_lost() {
    for (before, after) in
        [("", "\r"), ("", "\n"), ("", " "), (" \t", "\r\n"), ("\u{feff}", ""), ("\u{a0}", "\u{a0}"), ("", "\u{200b}")]
    {
        let url = format!("{before}sqlite:x.db{after}");
        let by_variable = project();
        with_variable(&by_variable, &["run", "pipeline.toml"], "DATABASE_URL", &url).ok();
        let by_option = project();
        by_option.forebay(&["run", "pipeline.toml", "--store", &url]).ok();
        by_option.forebay(&["latest", "--snapshots", &url]).ok();
        let by_file = project();
        let escaped = url.replace('\r', "\\r").replace('\n', "\\n");
        by_file.write("pipeline.toml", PIPELINE.replace("sqlite:p.db", &escaped));
        by_file.forebay(&["run", "pipeline.toml"]).ok();
        for project in [by_variable, by_option, by_file] {
            assert_eq!(databases(&project), ["x.db"], "{url:?}");
        }
    }
    // A blank one is as good as none.
    let project = project();
    with_variable(&project, &["run", "pipeline.toml"], "DATABASE_URL", " \r\n").ok();
    project.forebay(&["run", "pipeline.toml", "--store", " "]).ok();
    assert_eq!(databases(&project), ["p.db"]);
}

#[test]
fn what_nobody_sees_within_an_address_is_refused_with_where_it_was_given() {
    let project = project();
    let (store, redis) = ("postgres://u:hunter2@h\u{200b}/d", "redis://u:hunter2@h\u{202e}:1");
    project.write("store.toml", PIPELINE.replace("sqlite:p.db", store));
    project.write("redis.toml", PIPELINE.replace("every = ", &format!("url = \"{redis}\"\nevery = ")));
    project.write("published.toml", PIPELINE.replace("every = ", "url = \"redis://h\"\nevery = "));
    let run = ["run", "pipeline.toml"];
    for (outcome, says) in [
        (project.forebay(&["run", "store.toml"]), "store.toml:9:7: url: the address postgres://…@h<U+200B>/d"),
        (project.forebay(&["run", "redis.toml"]), "redis.toml:11:7: url: the address redis://…@h<U+202E>:1"),
        (project.forebay(&["run", "pipeline.toml", "--store", store]), "--store: the address postgres://…@h<U+200B>/d"),
        (with_variable(&project, &run, "DATABASE_URL", store), "DATABASE_URL: the address postgres://…@h<U+200B>/d"),
        (project.forebay(&["run", "pipeline.toml", "--snapshots", redis]), "--snapshots: the address redis://…@h"),
        (with_variable(&project, &["run", "published.toml"], "REDIS_URL", redis), "REDIS_URL: the address redis://…@h"),
        (with_variable(&project, &["publish", "-"], "REDIS_URL", redis), "REDIS_URL: the address redis://…@h"),
        (project.forebay(&["latest", "--snapshots", store]), "--snapshots: the address postgres://…@h<U+200B>/d"),
        (with_variable(&project, &["latest"], "DATABASE_URL", store), "DATABASE_URL: the address postgres://…@h"),
        (with_variable(&project, &run, "DATABASE_URL", "sqlite:a\tb.db"), "sqlite:a<U+0009>b.db holds a tab (U+0009)"),
        (with_variable(&project, &run, "DATABASE_URL", "sqlite:a\u{1b}b.db"), "holds a control character (U+001B)"),
    ] {
        let outcome = outcome.fails(2, &[says]);
        assert!(!outcome.stderr().contains("hunter2"), "{outcome}");
        assert!(databases(&project).is_empty(), "{outcome}");
    }
}

#[test]
fn a_variable_that_wins_over_the_file_is_told_in_one_line() {
    let project = project();
    let told = with_variable(&project, &["run", "pipeline.toml"], "DATABASE_URL", "sqlite:x.db").ok();
    assert!(told.stderr().contains("INFO DATABASE_URL is set: sqlite:x.db instead of sqlite:./p.db"), "{told}");
    assert_eq!(told.stderr().lines().count(), 1, "{told}");
    assert_eq!(databases(&project), ["x.db"]);
    let status = with_variable(&project, &["status", "pipeline.toml"], "DATABASE_URL", "sqlite:x.db").ok();
    assert!(status.stderr().contains("DATABASE_URL is set"), "{status}");
    // The same address, an option, and --quiet leave nothing to tell.
    for (args, url) in [
        (&["run", "pipeline.toml"][..], "sqlite:./p.db"),
        (&["run", "pipeline.toml", "--store", "sqlite:y.db"], "sqlite:x.db"),
        (&["run", "pipeline.toml", "--quiet"], "sqlite:x.db"),
    ] {
        let outcome = with_variable(&project, args, "DATABASE_URL", url).ok();
        assert_eq!(outcome.stderr(), "", "{outcome}");
    }
    let published = PIPELINE.replace("every = ", "url = \"redis://u:hunter2@127.0.0.1:1\"\nevery = ");
    project.write("published.toml", published);
    let url = format!("redis://:hunter3@127.0.0.1:{}", free_port());
    let told = with_variable(&project, &["run", "published.toml"], "REDIS_URL", &url).ends_with(3);
    assert!(told.stderr().contains("REDIS_URL is set: redis://127.0.0.1:"), "{told}");
    assert!(told.stderr().contains("instead of redis://127.0.0.1:1, which the pipeline file says"), "{told}");
    assert!(!told.stderr().contains("hunter"), "{told}");
}

#[test]
fn a_redis_of_the_environment_turns_no_publishing_on() {
    let project = project();
    let url = format!("redis://127.0.0.1:{}", free_port());
    let run = with_variable(&project, &["run", "pipeline.toml", "--json"], "REDIS_URL", &url).ok();
    assert_eq!(run.json()["snapshots"]["failed"], 0);
    assert!(run.stderr().contains("REDIS_URL is set, and nothing is published"), "{run}");
    let status = with_variable(&project, &["status", "pipeline.toml", "--json"], "REDIS_URL", &url).ok().json();
    assert_eq!((&status["healthy"], &status["regions"][0]["state"]), (&true.into(), &"fresh".into()));
    // The snapshots are where the pipeline file says.
    let latest = with_variable(&project, &["latest", "--config", "pipeline.toml"], "REDIS_URL", &url).ok();
    assert_eq!(latest.stdout(), "{\"n\":1}\n");
    // An option does, and so does a command that needs an address.
    project.write("events.ndjson", "{\"block\":1,\"region\":\"r\"}\n{\"block\":2,\"region\":\"r\"}\n");
    project.forebay(&["run", "pipeline.toml", "--snapshots", &url]).fails(3, &["not published: r"]);
    let publish = with_variable(&project, &["publish", "--all", "--config", "pipeline.toml"], "REDIS_URL", &url);
    publish.fails(3, &["Connection refused"]);
    with_variable(&project, &["latest"], "REDIS_URL", &url).fails(1, &[&url]);
    // Where the store is not here, readers' side is asked.
    for args in [&["status", "pipeline.toml"][..], &["latest", "--config", "pipeline.toml"]] {
        std::fs::remove_file(project.path("p.db")).ok();
        with_variable(&project, args, "REDIS_URL", &url).fails(1, &[&url]);
    }
}

/// Who mistypes an address, or gives it in another's place, finds no password in a message.
#[test]
fn a_password_in_the_wrong_place_is_not_shown() {
    let project = project();
    let login = "u:Hunter2@127.0.0.1:1/d";
    let all = |addresses: &[&str], args: &dyn Fn(&str) -> Vec<String>| {
        for address in addresses {
            for format in ["text", "json"] {
                let mut args = args(address);
                args.extend(["--log-format".to_owned(), format.to_owned()]);
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let outcome = project.forebay(&args);
                assert_ne!(outcome.code(), Some(0), "{outcome}");
                let said = outcome.stdout() + &outcome.stderr();
                assert!(!said.contains("unter2") && said.len() > 20, "{outcome}");
            }
        }
    };
    let schemes =
        ["sqlite://", "sqlite:", "postgres:/", "postgres:", "postgress://", "redis:/", "rediis://", "mysql://", "://"];
    let mut addresses: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}{login}")).collect();
    for odd in [
        "Hunter2@127.0.0.1:1/d",
        "u:a@Hunter2@127.0.0.1:1/d",
        "u:a/Hunter2@127.0.0.1:1",
        "u:Hunter2/a@127.0.0.1:1",
        "u:Hunter2",
        "127.0.0.1:1/u:Hunter2",
    ] {
        addresses.extend(["sqlite://", "postgres://", "redis://"].map(|scheme| format!("{scheme}{odd}")));
    }
    // Those that are taken for a server that is away cost time.
    let addresses: Vec<&str> =
        addresses.iter().map(String::as_str).filter(|text| !text.starts_with("postgres://Hunter2")).collect();
    let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    all(&addresses, &|address| owned(&["status", "pipeline.toml", "--store", address]));
    all(&addresses, &|address| owned(&["latest", "--snapshots", address]));
    let whole = format!("postgres://{login}");
    let wrong: &[&str] = &[&whole, addresses[1], addresses[2]];
    all(wrong, &|address| owned(&["run", "pipeline.toml", address]));
    all(wrong, &|address| owned(&["run", address]));
    all(wrong, &|address| owned(&["run", "pipeline.toml", "--source", address]));
    all(wrong, &|address| owned(&["run", "pipeline.toml", "--stor", address]));
    all(wrong, &|address| owned(&["run", "pipeline.toml", "--until", address]));
    all(wrong, &|address| owned(&["latest", "--config", "pipeline.toml", address]));
    all(wrong, &|address| owned(&["publish", "--snapshots", "redis://127.0.0.1:1", address]));
    all(wrong, &|address| owned(&["publish", "-", "--pipeline", address, "--snapshots", "redis://127.0.0.1:1"]));
    all(&[wrong[0]], &|address| owned(&[address]));
    for line in [
        format!("[store]\nurl = postgres://{login}"),
        format!("[store]\n\"postgres://{login}\" = 1"),
        format!("[store]\nurl = \"x\"\nurl = \"postgres://{login}\""),
        format!("[\"postgres://{login}\"]"),
        format!("[store]\nurl = [\"postgres://{login}\"]"),
        format!("[snapshots]\nevery = \"redis://{login}\""),
        format!("[snapshots]\nurl = \"redis:/{login}\""),
    ] {
        project.write("wrong.toml", PIPELINE.split("[store]").next().expect("a beginning").to_owned() + &line);
        all(&["wrong.toml"], &|file| owned(&["check", file]));
    }
    for (name, address) in [("DATABASE_URL", addresses[0]), ("DATABASE_URL", addresses[4]), ("REDIS_URL", addresses[5])]
    {
        let outcome = with_variable(&project, &["latest"], name, address).ends_with(2);
        assert!(outcome.stderr().contains(name) && !outcome.stderr().contains("unter2"), "{outcome}");
    }
}
