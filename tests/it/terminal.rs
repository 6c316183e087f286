//! Nothing that comes from events, scripts or servers acts on a terminal, or looks like another message.

use crate::support::project::{Outcome, Project};

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
