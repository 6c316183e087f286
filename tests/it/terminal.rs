//! Nothing that comes from events, scripts or servers acts on a terminal, or looks like another message.

use crate::support::project::{Outcome, Project, Stores, with_store};

const PIPELINE: &str = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nevery = \"end\"\n";

/// A name of a region that clears the screen, turns texts around, and says that all is well.
const EVIL: &str = "r\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\nERROR all is lost";

const SCRIPT: &str = "function on_event(e, ctx)
  if e.say then print(e.say) end
  if e.fail then error(e.fail) end
  ctx.t:set(ctx.block, { n = ctx.block })
end
function on_snapshot(ctx) return { [ctx.region] = ctx.region, n = ctx.t:count() } end";

fn project(fields: &serde_json::Value) -> Project {
    let mut event = serde_json::json!({ "block": 1, "region": EVIL });
    for (name, value) in fields.as_object().expect("fields") {
        event[name] = value.clone();
    }
    Project::with(PIPELINE, SCRIPT, &format!("{event}\n"))
}

#[track_caller]
fn check(outcome: &Outcome, text: &str) {
    let acts = |character: char| {
        let hides = ['\u{202e}', '\u{2066}', '\u{200b}'].contains(&character);
        hides || (character.is_control() && !['\n', '\t'].contains(&character))
    };
    assert!(!text.contains(acts), "{:?} in {text:?}\n{outcome}", text.chars().find(|character| acts(*character)));
    assert!(!text.lines().any(|line| line.trim_start().starts_with("ERROR all is lost")), "a forged line\n{outcome}");
}

#[test]
fn tables_summaries_and_statuses_are_harmless() {
    let project = project(&serde_json::json!({}));
    for args in [
        &["run", "pipeline.toml"][..],
        &["check", "pipeline.toml"],
        &["status", "pipeline.toml"],
        &["status", "pipeline.toml", "--json"],
        &["latest", "--config", "pipeline.toml", "--table"],
        &["latest", "--config", "pipeline.toml", "--meta"],
        &["history", EVIL, "--config", "pipeline.toml", "--table"],
        &["run", "pipeline.toml", "--json"],
    ] {
        let outcome = project.forebay(args).ok();
        check(&outcome, &outcome.stdout());
        check(&outcome, &outcome.stderr());
    }
    // JSON is escaped, and the same value.
    let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
    assert_eq!(status["regions"][0]["region"], EVIL);
    // A program gets a document as it is.
    let latest = project.forebay(&["latest", "--config", "pipeline.toml"]).ok();
    assert!(latest.stdout().contains('\u{9b}') && latest.stdout().contains('\u{202e}'), "{latest}");
    assert_eq!(latest.json()[EVIL], EVIL);
}

#[test]
fn what_scripts_print_and_fail_with_looks_like_no_other_message() {
    let forged = format!("x\nerror: forged\n  batch 9 was committed\r\n{EVIL}");
    for format in ["text", "json"] {
        let printed = project(&serde_json::json!({ "say": forged }));
        let outcome = printed.forebay(&["run", "pipeline.toml", "--log-format", format]).ok();
        check(&outcome, &outcome.stderr());
        assert!(!outcome.stderr().lines().any(|line| line.starts_with("error:")), "{outcome}");
        let failed = project(&serde_json::json!({ "fail": forged }));
        let outcome = failed.forebay(&["run", "pipeline.toml", "--log-format", format]).ends_with(1);
        check(&outcome, &outcome.stderr());
        assert_eq!(
            outcome.stderr().lines().filter(|line| line.starts_with("error:")).count(),
            usize::from(format == "text")
        );
        if format == "json" {
            assert!(outcome.stderr().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        } else {
            assert!(outcome.stderr().contains("\n  |   batch 9 was committed\n"), "{outcome}");
            assert!(outcome.stderr().contains("\n  at block 1,"), "{outcome}");
        }
    }
}

#[test]
fn names_of_what_is_not_there_are_harmless() {
    let project = project(&serde_json::json!({}));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let missing = format!("{EVIL}!");
    for args in [
        &["latest", &missing, "--config", "pipeline.toml"][..],
        &["history", &missing, "--config", "pipeline.toml"],
        &["show", &missing, "--config", "pipeline.toml"],
    ] {
        let outcome = project.forebay(args).ends_with(1);
        check(&outcome, &outcome.stderr());
    }
}

/// Names with a line in them that looks like one of ours.
const FORGED: &str = "x\u{1b}[2J\u{61c}\u{200f}\n  forged line\r\nERROR all is lost";

#[track_caller]
fn check_forged(outcome: &Outcome) {
    for text in [outcome.stdout(), outcome.stderr()] {
        check(outcome, &text);
        assert!(!text.contains(['\u{61c}', '\u{200f}']), "{outcome}");
        assert!(!text.lines().any(|line| line.starts_with("  forged")), "a forged line\n{outcome}");
    }
}

/// Names of files, regions and options: in arguments, in the pipeline file, in folders.
#[test]
fn names_forge_no_line_of_a_message() {
    let project = project(&serde_json::json!({ "region": FORGED }));
    project.forebay(&["run", "pipeline.toml"]).ok();
    let (file, gone) = (format!("{FORGED}.ndjson"), format!("{FORGED}.gone"));
    project.write(&file, "no event\n");
    project.write("script.toml", PIPELINE.replace("\"handlers.lua\"", &serde_json::json!(FORGED).to_string()));
    project.write("key.toml", format!("{PIPELINE}{} = 1\n", serde_json::json!(FORGED)));
    for args in [
        &["latest", &gone, "--config", "pipeline.toml"][..],
        &["history", &gone, "--config", "pipeline.toml"],
        &["show", &gone, "--config", "pipeline.toml"],
        &["run", &gone],
        &["run", "script.toml"],
        &["run", "key.toml"],
        &["status", &gone],
        &["check", "pipeline.toml", "--source", &file],
        &["run", "pipeline.toml", "--source", &gone],
        &["run", "pipeline.toml", "--store", &format!("sqlite:{FORGED}/x.db")],
        &["run", "pipeline.toml", "--timeline", &format!("{FORGED}/x.svg")],
        &["run", "pipeline.toml", "--until", FORGED],
        &["run", "pipeline.toml", FORGED],
        &[FORGED],
        &["publish", &gone, "--snapshots", "redis://127.0.0.1:1"],
    ] {
        let outcome = project.forebay(args);
        assert_ne!(outcome.code(), Some(0), "{outcome}");
        check_forged(&outcome);
    }
    check_forged(&project.forebay(&["latest", "--config", "pipeline.toml", "--table"]).ok());
    let docs = format!("{}\n", serde_json::json!({ "region": FORGED }));
    check_forged(
        &project.forebay_with_input(&["publish", "-", "--snapshots", "redis://127.0.0.1:1"], &docs).ends_with(3),
    );
}

#[test]
fn what_a_server_says_forges_no_line() {
    use std::io::{Read, Write};
    let project = project(&serde_json::json!({}));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let said = format!("-ERR \u{1b}[2J\u{202e}{}\r\n", "ERROR all is lost").repeat(9);
            while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) && stream.write_all(said.as_bytes()).is_ok()
            {
            }
        }
    });
    check_forged(&project.forebay(&["latest", "--snapshots", &url, "--pipeline", "p"]).ends_with(1));
    check_forged(&project.forebay(&["run", "pipeline.toml", "--snapshots", &url]).ends_with(3));
    let project = {
        let mut made = None;
        with_store(Stores::Postgres, || {
            made = Some(Project::with(PIPELINE, SCRIPT, "{\"block\":1,\"region\":\"r\"}\n"))
        });
        made.expect("a project")
    };
    project.forebay(&["run", "pipeline.toml"]).ok();
    project.execute(
        "",
        &format!(
            "CREATE FUNCTION p.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION '%', '{FORGED}' USING DETAIL = '{FORGED}', HINT = '{FORGED}'; END $$;
             CREATE TRIGGER no BEFORE INSERT OR UPDATE ON p.t FOR EACH ROW EXECUTE FUNCTION p.no()"
        ),
    );
    project.write("events.ndjson", "{\"block\":1,\"region\":\"r\"}\n{\"block\":2,\"region\":\"r\"}\n");
    let outcome = project.forebay(&["run", "pipeline.toml"]).ends_with(1);
    check_forged(&outcome);
    assert!(outcome.stderr().contains("\n  |   forged line\n"), "{outcome}");
}
