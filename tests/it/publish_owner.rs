//! Whose snapshots readers get: two stores under one name, and documents given by hand beside a store.

use serde_json::{Value as Json, json};

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::Redis;

const SCRIPT: &str = r#"
function on_event(event, ctx) ctx.thing:set("v", { v = event.v }) end
function on_snapshot(ctx) return { v = ctx.thing:get("v").v } end
"#;

/// A project whose store is its own, with events of blocks 1 to `last` in the regions a and b.
fn project(server: &Redis, last: u64, offset: u64) -> Project {
    let file = format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \"end\"\nurl = \"{}\"\n",
        server.url()
    );
    Project::with(&file, SCRIPT, &events(last, offset))
}

fn events(last: u64, offset: u64) -> String {
    let event = |block, region| format!("{{\"block\":{block},\"region\":\"{region}\",\"v\":{}}}\n", block + offset);
    (1..=last).flat_map(|block| ["a", "b"].map(|region| event(block, region))).collect()
}

fn run(project: &Project, more: &[&str]) -> Outcome {
    project.forebay(&[&["run", "pipeline.toml", "--json"], more].concat())
}

fn status(project: &Project) -> Outcome {
    project.forebay(&["status", "pipeline.toml"])
}

fn value(server: &Redis, region: &str) -> Json {
    let id: String = server.ask(&["GET", &format!("forebay:{{p:{region}}}:latest")]);
    let doc: String = server.ask(&["GET", &format!("forebay:{{p:{region}}}:doc:{id}")]);
    serde_json::from_str::<Json>(&doc).expect("JSON")["v"].clone()
}

fn summary(server: &Redis) -> Json {
    serde_json::from_str(&server.ask::<String>(&["GET", "forebay:p:summary"])).expect("JSON")
}

fn signature(project: &Project) -> Json {
    project.forebay(&["status", "pipeline.toml", "--json"]).json()["signature"].clone()
}

crate::both_stores! {
    fn another_store_under_the_same_name_is_refused_until_it_takes_over() {
        let server = Redis::start(&[]);
        let (production, staging) = (project(&server, 4, 0), project(&server, 6, 100));
        run(&production, &[]).ok();
        let ours = signature(&production);
        assert_eq!(summary(&server)["store"], ours);
        assert_eq!(json!(server.ask::<String>(&["GET", "forebay:{p:a}:seq:store"])), ours);
        let [a, b] = ["a", "b"].map(|region| server.ask::<i64>(&["PTTL", &format!("forebay:{{p:{region}}}:seq:store")]));
        assert!(a > 89 * 86_400_000 && b > 89 * 86_400_000);
        let (keys, before) = (server.keys(), summary(&server));
        let says = ["another store publishes to redis://127.0.0.1:", "under the name p", "give --take-over", "another name"];
        run(&staging, &[]).fails(2, &says);
        let publish = ["publish", "--all", "--config", "pipeline.toml"];
        staging.forebay(&publish).fails(2, &says);
        // Without the summary each region says it.
        let _: i64 = server.ask(&["DEL", "forebay:p:summary"]);
        let outcome = run(&staging, &[]).fails(3, &["not published: a, b: another store publishes to"]);
        assert_eq!(outcome.json()["snapshots"]["failed"], 2);
        let _: String = server.ask(&["SET", "forebay:p:summary", &before.to_string()]);
        assert_eq!((value(&server, "a"), server.keys()), (json!(4), keys));
        status(&production).ok();
        let told = status(&staging).fails(1, &["another store publishes under the name p"]);
        assert_eq!(told.stdout().matches("readers get a.1.").count(), 1, "{told}");
        assert_eq!(run(&production, &[]).ok().json()["snapshots"]["published"], 0);
        // It takes over, and production hears of it.
        run(&staging, &["--take-over"]).ok();
        assert_eq!((value(&server, "a"), value(&server, "b")), (json!(106), json!(106)));
        status(&staging).ok();
        run(&staging, &[]).ok();
        let told = status(&production).fails(1, &["another store publishes under the name p", "--take-over"]);
        assert!(told.stdout().contains("foreign") && told.stdout().contains(" of store "), "{told}");
        let told = production.forebay(&["status", "pipeline.toml", "--json"]).ends_with(1).json();
        assert_eq!((&told["healthy"], &told["regions"][0]["state"]), (&json!(false), &json!("foreign")));
        assert_eq!((&told["published_by"], &told["signature"]), (&signature(&staging), &ours));
        assert_eq!(told["regions"][0]["published"]["signature"], signature(&staging));
        run(&production, &[]).fails(2, &says);
        // Taken back, once it has come as far.
        production.write("events.ndjson", events(6, 0));
        run(&production, &["--take-over"]).ok();
        assert_eq!((value(&server, "a"), value(&server, "b")), (json!(6), json!(6)));
        status(&production).ok();
        status(&staging).ends_with(1);
        // Also without anything new, and whatever the numbers are.
        for (project, value_of) in [(&staging, 106), (&production, 6), (&staging, 106)] {
            run(project, &["--take-over"]).ok();
            assert_eq!((value(&server, "a"), value(&server, "b")), (json!(value_of), json!(value_of)));
            status(project).ok();
        }
    }

    fn a_take_over_that_is_interrupted_goes_on_without_being_told_again() {
        let server = Redis::start(&[]);
        let (first, second) = (project(&server, 4, 0), project(&server, 6, 0));
        run(&first, &[]).ok();
        let outcome = run(&second, &["--take-over", "--until", "2"]).ok();
        assert!(outcome.stderr().contains("Redis has newer snapshots than this store, of 2 regions"), "{outcome}");
        assert_eq!((value(&server, "a"), outcome.json()["snapshots"]["stale"].clone()), (json!(4), json!(2)));
        assert_eq!(summary(&server)["predecessor"], signature(&first));
        run(&second, &[]).ok();
        assert_eq!((value(&server, "a"), value(&server, "b")), (json!(6), json!(6)));
        assert_eq!(json!(server.ask::<String>(&["GET", "forebay:{p:b}:seq:store"])), signature(&second));
        status(&second).ok();
        run(&first, &[]).ends_with(2);
    }

    /// What an earlier version left: no signature in Redis, and none in the store.
    fn keys_without_a_signature_are_signed_by_the_first_store_that_comes() {
        let server = Redis::start(&[]);
        let (first, second) = (project(&server, 4, 0), project(&server, 6, 100));
        run(&first, &[]).ok();
        let mut old = summary(&server);
        old.as_object_mut().expect("an object").remove("store");
        let _: String = server.ask(&["SET", "forebay:p:summary", &old.to_string()]);
        let _: i64 = server.ask(&["DEL", "forebay:{p:a}:seq:store", "forebay:{p:b}:seq:store"]);
        first.execute("p.db", "DELETE FROM forebay_signatures");
        assert_eq!(signature(&first), Json::Null);
        status(&first).ok();
        // There is nothing to publish, and it signs all the same.
        let report = run(&first, &[]).ok().json();
        assert_eq!(report["snapshots"]["published"], 0);
        let ours = signature(&first);
        assert!(ours.as_str().is_some_and(|text| text.len() == 32), "{ours}");
        assert_eq!((&summary(&server)["store"], &summary(&server)["regions"]), (&ours, &old["regions"]));
        run(&second, &[]).ends_with(2);
        assert_eq!(value(&server, "a"), 4);
        run(&first, &[]).ok();
        assert_eq!(signature(&first), ours, "it is made once");
    }
}

/// Neither is refused; each is told of the other.
#[test]
fn documents_given_by_hand_stay_until_the_store_s_next_run() {
    let server = Redis::start(&[]);
    let project = project(&server, 3, 0);
    run(&project, &[]).ok();
    let publish = ["publish", "-", "--config", "pipeline.toml", "--json"];
    let docs = "{\"region\":\"a\",\"v\":70}\n{\"region\":\"c\",\"v\":1}\n";
    let outcome = project.forebay_with_input(&publish, docs).ok();
    assert_eq!(statuses(&outcome).0, pairs(&[("a", "published"), ("c", "published"), ("b", "kept")]));
    assert!(outcome.stderr().contains("a store publishes 1 region of these too (a for one)"), "{outcome}");
    assert_eq!(value(&server, "a"), 70);
    assert_eq!(summary(&server)["store"], signature(&project));
    let told = status(&project).ends_with(1).stdout();
    assert!(told.contains("foreign     a") && told.contains("fresh       b"), "{told}");
    assert_eq!(run(&project, &[]).ok().json()["snapshots"]["published"], 1);
    assert_eq!((value(&server, "a"), value(&server, "c")), (json!(3), json!(1)));
    status(&project).ok();
    // A host whose clock is wrong, or anybody else, has left a number that is too high.
    let _: String = server.ask(&["SET", "forebay:{p:b}:seq", "4950000000000"]);
    status(&project).ok();
    project.write("events.ndjson", events(4, 0));
    run(&project, &[]).ok();
    assert_eq!((value(&server, "b"), server.ask::<u64>(&["GET", "forebay:{p:b}:seq"])), (json!(4), 4_950_000_000_001));
    status(&project).ok();
}

#[test]
fn a_rollback_is_done_whoever_publishes() {
    let server = Redis::start(&[]);
    let (first, second) = (project(&server, 4, 0), project(&server, 4, 100));
    let file = std::fs::read_to_string(second.path("pipeline.toml")).expect("file");
    second.write("pipeline.toml", file.replace("[store]", "[rollback]\ndepth = 9\n[store]"));
    second.forebay(&["run", "pipeline.toml", "--snapshots", "redis://127.0.0.1:1"]).ends_with(3);
    run(&first, &[]).ok();
    let outcome = second.forebay(&["rollback", "pipeline.toml", "--to", "2", "--json"]);
    let outcome = outcome.fails(3, &["not published: every region: another store publishes to"]);
    assert_eq!(outcome.json()["checkpoint"]["block"], 2);
    assert_eq!(value(&server, "a"), 4);
}
