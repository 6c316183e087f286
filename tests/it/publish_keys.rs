//! Keys in Redis: what is there stays, and no two regions share one.

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::Redis;

/// A pipeline file with these names of keys, and with ids out of the documents.
fn project(server: &Redis, keys: &str) -> Project {
    let file = format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nurl = \"{}\"\nid_field = \"id\"\n[snapshots.keys]\n{keys}\n",
        server.url()
    );
    Project::with(&file, "function on_event() end", "")
}

fn publish(project: &Project, region: &str, id: &str, value: u64) -> Outcome {
    let doc = serde_json::json!({ "region": region, "id": id, "v": value }).to_string();
    project.forebay_with_input(&["publish", "-", "--config", "pipeline.toml", "--json"], &doc)
}

fn get(server: &Redis, key: &str) -> Option<String> {
    server.ask(&["GET", key])
}

#[test]
fn a_document_of_another_region_is_not_written_over_by_a_later_call() {
    let server = Redis::start(&[]);
    for (keys, regions, ids, key) in [
        ("doc = \"by-id:<id>\"", ["mena", "europe"], ["run-42", "run-42"], "by-id:run-42"),
        ("doc = \"d:<region>:<id>\"", ["a", "a:b"], ["b:1", "1"], "d:a:b:1"),
        ("doc = \"d:<region>:<id>\"\nat = \"at:<region>:<id>:<timestamp>\"", ["c:d", "c"], ["1", "d:1"], "d:c:d:1"),
    ] {
        let project = project(&server, keys);
        publish(&project, regions[0], ids[0], 1).ok();
        let before = get(&server, key);
        let outcome = publish(&project, regions[1], ids[1], 2).ends_with(3);
        let (lines, _) = statuses(&outcome);
        assert!(lines.contains(&(regions[1].to_owned(), "failed".to_owned())), "{outcome}");
        let error = outcome.json_lines()[0]["error"].as_str().expect("an error").to_owned();
        assert!(error.contains(key) && error.contains("is not in this region's index"), "{error}");
        assert_eq!(get(&server, key), before, "{keys}");
        // Its own it may write over, and nothing of the other is in the way of the next one.
        publish(&project, regions[0], ids[0], 3).ok();
        assert!(get(&server, key).is_some_and(|doc| doc.contains("\"v\":3")), "{keys}");
        publish(&project, regions[1], "another", 4).ok();
    }
}

#[test]
fn a_key_of_nobody_is_not_written_over() {
    let server = Redis::start(&[]);
    let project = project(&server, "doc = \"by-id:<id>\"");
    let _: String = server.ask(&["SET", "by-id:1", "mine"]);
    publish(&project, "a", "1", 1).ends_with(3);
    assert_eq!(get(&server, "by-id:1").as_deref(), Some("mine"));
    // What fails leaves nothing behind.
    assert_eq!(get(&server, "forebay:{p:a}:latest"), None);
}

/// Redis has let the index go: what a region has may be published again as it was.
#[test]
fn what_redis_has_let_go_comes_back() {
    let server = Redis::start(&[]);
    let project = project(&server, "live = \"cache:<region>\"");
    publish(&project, "a", "1", 1).ok();
    let lost = ["index", "latest", "seq"].map(|name| format!("forebay:{{p:a}}:{name}"));
    for key in &lost {
        let _: i64 = server.ask(&["DEL", key]);
    }
    publish(&project, "a", "1", 1).ok();
    assert_eq!(get(&server, &lost[1]).as_deref(), Some("1"));
    for key in &lost {
        let _: i64 = server.ask(&["DEL", key]);
    }
    publish(&project, "a", "1", 2).ends_with(3);
}

/// An id whose time is over may be another region's by now.
#[test]
fn a_region_removes_no_document_of_another() {
    let server = Redis::start(&[]);
    let project = project(&server, "doc = \"by-id:<id>\"");
    publish(&project, "a", "1", 1).ok();
    let _: i64 = server.ask(&["ZADD", "forebay:{p:a}:index", "1", "1"]);
    let _: i64 = server.ask(&["DEL", "by-id:1"]);
    publish(&project, "b", "1", 2).ok();
    publish(&project, "a", "2", 3).ok();
    assert!(get(&server, "by-id:1").is_some_and(|doc| doc.contains("\"v\":2")));
    assert_eq!(server.ask::<Vec<String>>(&["ZRANGE", "forebay:{p:a}:index", "0", "-1"]), ["2"]);
    let _: i64 = server.ask(&["ZADD", "forebay:{p:a}:index", "1", "1"]);
    publish(&project, "a", "1", 4).ends_with(3);
    assert!(get(&server, "by-id:1").is_some_and(|doc| doc.contains("\"v\":2")));
}

#[test]
fn of_regions_whose_names_make_one_key_only_one_is_taken() {
    let server = Redis::start(&[]);
    let project = project(&server, "latest = \"s:<region>\"\ndoc = \"s:<region>:doc:<id>\"");
    let docs = "{\"region\":\"a\",\"id\":\"7\"}\n{\"region\":\"a:doc:7\",\"id\":\"1\"}\n";
    let args = ["publish", "-", "--config", "pipeline.toml", "--json"];
    let outcome = project.forebay_with_input(&args, docs).ends_with(3);
    assert_eq!(statuses(&outcome).0, pairs(&[("a", "published"), ("a:doc:7", "failed")]));
    assert!(outcome.stdout().contains("could also be doc of region \\\"a\\\""), "{outcome}");
    // Whoever comes first.
    let _: String = server.ask(&["FLUSHALL"]);
    publish(&project, "a:doc:7", "1", 1).ends_with(3);
    publish(&project, "a", "7", 2).ok();
    assert_eq!(get(&server, "s:a").as_deref(), Some("7"));
    assert!(get(&server, "s:a:doc:7").is_some_and(|doc| doc.contains("\"v\":2")));
    // A template that could take all keys of another takes none.
    let below = self::project(&server, "latest = \"b:<region>\"\ndoc = \"b:doc:<id>\"");
    publish(&below, "a", "7", 3).ok();
    publish(&below, "doc:8", "9", 4).ends_with(3);
    publish(&below, "a", "8", 5).ok();
    assert!(get(&server, "b:doc:7").is_some_and(|doc| doc.contains("\"v\":3")));
}
