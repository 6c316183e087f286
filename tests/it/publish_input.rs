//! What `forebay publish` is given: documents in every form, bad ones, options.

use serde_json::json;

use crate::support::project::{Outcome, Project};
use crate::support::publishing::{pairs, statuses};
use crate::support::redis_server::Redis;

struct Bench {
    server: Redis,
    project: Project,
}

impl Bench {
    fn new() -> Self {
        Self { server: Redis::start(&[]), project: Project::new() }
    }

    fn publish(&self, docs: &str, args: &[&str]) -> Outcome {
        let url = self.server.url();
        let all = [&["publish", "-", "--pipeline", "p", "--snapshots", &url, "--json"], args].concat();
        self.project.forebay_with_input(&all, docs)
    }
}

#[test]
fn lines_arrays_and_documents_over_several_lines_are_read() {
    let bench = Bench::new();
    for (docs, expected) in [
        ("{\"region\":\"a\"}\r\n\n  {\"region\":\"b\"}", &["a", "b"][..]),
        ("\u{feff}[{\"region\":\"a\",\"v\":1}, {\"region\":7}]", &["a", "7"]),
        ("{\n  \"region\": \"c\"\n}\n{\n  \"region\": \"d\"\n}\n", &["c", "d"]),
    ] {
        let (regions, last) = statuses(&bench.publish(docs, &[]).ok());
        let names: Vec<&str> =
            regions.iter().filter(|(_, status)| status == "published").map(|(region, _)| region.as_str()).collect();
        assert_eq!((names, last["failed"].as_u64()), (expected.to_vec(), Some(0)), "{docs:?}");
    }
    let doc: String = bench.server.ask(&["GET", "forebay:{p:c}:latest"]);
    let doc: String = bench.server.ask(&["GET", &format!("forebay:{{p:c}}:doc:{doc}")]);
    assert_eq!(doc, "{\n  \"region\": \"c\"\n}", "a document is published as it is");
}

#[test]
fn a_bad_document_fails_its_region_only() {
    let bench = Bench::new();
    bench.publish("{\"region\":\"b\",\"meta\":{\"id\":\"x0\"}}", &["--id-field", "meta.id"]).ok();
    let docs = [
        r#"{"region":"a","meta":{"id":"x1"}}"#,
        r#"{"region":"b","meta":{}}"#,
        "{\"region\":\"c\"",
        r#"{"v":1}"#,
        "17",
        r#"{"region":"d","meta":{"id":"x2"}}"#,
    ];
    let outcome = bench.publish(&docs.join("\n"), &["--id-field", "meta.id"]).ends_with(3);
    let (regions, last) = statuses(&outcome);
    assert_eq!(
        regions,
        pairs(&[
            ("a", "published"),
            ("b", "failed"),
            ("null", "failed"),
            ("null", "failed"),
            ("null", "failed"),
            ("d", "published")
        ])
    );
    assert_eq!((&last["published"], &last["failed"]), (&json!(2), &json!(4)));
    let errors: Vec<String> =
        outcome.json_lines().iter().filter_map(|line| line["error"].as_str().map(str::to_owned)).collect();
    for (error, says) in errors.iter().zip([
        "stdin:2: the document has no field meta.id",
        "stdin:3: it is no JSON document",
        "stdin:4: the document has no field region; it is needed as the region (--region-field)",
        "stdin:5: expected a JSON object",
    ]) {
        assert!(error.contains(says), "{error}");
    }
    // What it had stays, and the summary of before.
    assert_eq!(bench.server.ask::<String>(&["GET", "forebay:{p:b}:latest"]), "x0");
    assert!(!bench.server.ask::<String>(&["GET", "forebay:p:summary"]).contains("x1"));
    // Without --json each is told on stderr.
    let url = bench.server.url();
    let args = ["publish", "-", "--pipeline", "p", "--snapshots", &url];
    let outcome = bench.project.forebay_with_input(&args, "{\"v\":1}\n{\"region\":\"a\"}").ends_with(3);
    assert!(outcome.stderr().contains("stdin:1: the document has no field region"), "{outcome}");
    assert!(outcome.stdout().contains("1 published, 1 kept, 1 failed in "), "{outcome}");
}

#[test]
fn what_cannot_be_told_apart_is_refused_whole() {
    let bench = Bench::new();
    for (docs, says) in [
        (
            "{\"region\":\"a\"}\n{\"region\":\"b\"}\n{\"region\":\"a\"}",
            "stdin:3: a second document of region \"a\"; the first is at stdin:1",
        ),
        (
            "[{\"region\":\"a\"},{\"region\":\"a\"}]",
            "stdin[1]: a second document of region \"a\"; the first is at stdin[0]",
        ),
        ("[{\"region\":\"a\"}\n,", "stdin:2: expected a JSON array"),
    ] {
        let outcome = bench.publish(docs, &[]).fails(2, &[says]);
        assert!(outcome.stdout().is_empty(), "{outcome}");
    }
    assert!(bench.server.keys().is_empty());
    bench.project.write("latin1", b"{\"region\":\"a\"}\n{\"region\":\"\xe9\"}\n");
    let url = bench.server.url();
    for (args, says) in [
        (&["publish", "latin1", "--snapshots", &url][..], "latin1:2: it is not UTF-8"),
        (&["publish", "nope", "--snapshots", &url], "nope: there is no such file"),
        (&["publish", ".", "--snapshots", &url], ".: it is a folder"),
        (&["publish", "-"], "publish where? give --snapshots"),
        (&["publish", "-", "--snapshots", "sqlite:x.db"], "--snapshots: expected redis://"),
        (&["publish", "--snapshots", &url], "<DOCS>"),
        (&["publish", "-", "--all", "--snapshots", &url], "cannot be used with"),
        (&["publish", "-", "--snapshots", &url, "--ttl", "0s"], "--ttl: expected a duration above zero"),
        (&["publish", "-", "--snapshots", &url, "--pool", "1000"], "--pool: expected at most 256"),
        (&["publish", "-", "--snapshots", &url, "--id-field", "a..b"], "--id-field: expected the name of a field"),
    ] {
        bench.project.forebay(args).fails(2, &[says]);
    }
}

/// An id that a document brings may be wrong: used twice, or used again.
#[test]
fn ids_that_are_given_twice_or_again_lose_no_content() {
    let bench = Bench::new();
    bench.project.write("handlers.lua", "function on_event() end");
    let url = bench.server.url();
    let file = format!(
        "name = \"p\"\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nurl = \"{url}\"\nid_field = \"id\"\n[snapshots.keys]\ndoc = \"doc:<id>\"\n"
    );
    bench.project.write("pipeline.toml", file);
    let publish = |docs: &str, more: &[&str]| {
        let args = [&["publish", "-", "--config", "pipeline.toml", "--json"], more].concat();
        bench.project.forebay_with_input(&args, docs)
    };
    let docs = r#"[{"region":"a","id":"x"},{"region":"b","id":"x"},{"region":"c","id":"y"}]"#;
    let outcome = publish(docs, &[]).ends_with(3);
    assert_eq!(statuses(&outcome).0, pairs(&[("a", "failed"), ("b", "failed"), ("c", "published")]));
    assert!(outcome.stdout().contains("is also that of region \\\"b\\\""), "{outcome}");
    // The same id with one content and another and back, also at the same time.
    let at = forebay::Timestamp::now().as_micros() / 1_000_000 + 1800;
    for more in [&[][..], &["--time-field", "at"]] {
        for value in [1, 2, 1, 1] {
            let doc = format!("{{\"region\":\"a\",\"id\":\"z\",\"at\":{at},\"v\":{value}}}");
            publish(&doc, more).ok();
            assert_eq!(bench.server.ask::<String>(&["GET", "doc:z"]), doc);
        }
    }
}

#[test]
fn expected_regions_that_are_missing_are_exit_3() {
    let bench = Bench::new();
    bench.publish("{\"region\":\"a\"}\n{\"region\":\"b\"}", &["--expect", "a,b"]).ok();
    let outcome = bench.publish("{\"region\":\"a\",\"v\":1}", &["--expect", "a,b,c"]).ends_with(3);
    let (regions, _) = statuses(&outcome);
    assert_eq!(regions, pairs(&[("a", "published"), ("b", "kept"), ("c", "failed")]));
    let lines = outcome.json_lines();
    for line in &lines[1..3] {
        assert_eq!(line["error"], "it was expected, and no document of it was given");
    }
}

#[test]
fn fields_that_do_not_count_are_ignored_and_a_window_ends() {
    let bench = Bench::new();
    let args = ["--dedup-ignore", "at,n", "--dedup", "1h"];
    for (at, status) in [(1, "published"), (2, "duplicate")] {
        let doc = format!("{{\"region\":\"a\",\"at\":{at},\"n\":{at}}}");
        assert_eq!(statuses(&bench.publish(&doc, &args).ok()).0, pairs(&[("a", status)]));
    }
    // Without a window everything is new.
    for _ in 0..2 {
        let (regions, _) = statuses(&bench.publish("{\"region\":\"b\"}", &["--dedup", "0s"]).ok());
        assert_eq!(regions, pairs(&[("b", "published"), ("a", "kept")]));
    }
    // Integers of any size count with all their digits.
    for end in ["1", "2"] {
        let doc = format!("{{\"region\":\"c\",\"supply\":100000000000000000000000{end}}}");
        assert_eq!(statuses(&bench.publish(&doc, &[]).ok()).0[0], ("c".into(), "published".into()));
    }
}

#[test]
fn a_place_a_name_and_keys_come_from_a_pipeline_file_or_the_environment() {
    let bench = Bench::new();
    let url = bench.server.url();
    bench.project.write("handlers.lua", "function on_event() end");
    bench.project.write(
        "pipeline.toml",
        format!(
            "name = \"shop\"\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nurl = \"{url}\"\nttl = \"1h\"\ndedup_ignore = [\"at\"]\n[snapshots.keys]\nlatest = \"newest of <region> in <pipeline>\"\n"
        ),
    );
    let publish = |at: i32| {
        let doc = format!("{{\"shop\":\"north\",\"at\":{at}}}");
        let args = ["publish", "-", "--config", "pipeline.toml", "--region-field", "shop", "--json"];
        statuses(&bench.project.forebay_with_input(&args, &doc).ok()).0
    };
    assert_eq!(publish(1), pairs(&[("north", "published")]));
    assert_eq!(publish(2), pairs(&[("north", "duplicate")]));
    let id: String = bench.server.ask(&["GET", "newest of north in shop"]);
    assert!(id.starts_with("north."));
    let ttl: i64 = bench.server.ask(&["TTL", "newest of north in shop"]);
    assert!((3595..=3600).contains(&ttl), "{ttl}");
    let args = ["publish", "-"];
    let mut command = bench.project.command(&args);
    let mut child = command.env("REDIS_URL", &url).stdin(std::process::Stdio::piped()).spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, b"{\"region\":\"a\"}").expect("stdin");
    drop(stdin);
    bench.project.finish(child, &args).ok();
    assert!(bench.server.ask::<bool>(&["EXISTS", "forebay:{default:a}:latest"]));
}

#[test]
fn a_publish_of_nothing_is_no_success() {
    let mut bench = Bench::new();
    let outcome = bench.publish("", &[]).fails(3, &["stdin holds no document", "Redis has nothing of this pipeline"]);
    assert!(
        outcome.json_lines()[0]["error"].as_str().is_some_and(|error| error.contains("--allow-empty")),
        "{outcome}"
    );
    bench.publish("{\"region\":\"a\"}\n{\"region\":\"b\"}", &[]).ok();
    let summary: String = bench.server.ask(&["GET", "forebay:p:summary"]);
    for docs in ["", "[]", "\n \n"] {
        let _: i64 = bench.server.ask(&["PEXPIRE", "forebay:{p:a}:latest", "60000"]);
        let outcome = bench.publish(docs, &[]).fails(3, &["what Redis has of 2 regions lives on", "--allow-empty"]);
        let (regions, last) = statuses(&outcome);
        assert_eq!(regions, pairs(&[("a", "kept"), ("b", "kept")]));
        assert_eq!([&last["published"], &last["kept"], &last["failed"]], [0, 2, 0]);
        // Readers are not to lose what they have because a producer died.
        assert!(bench.server.ask::<i64>(&["TTL", "forebay:{p:a}:latest"]) > 80_000);
    }
    let outcome = bench.publish("", &["--allow-empty"]).ok();
    assert!(outcome.stderr().is_empty(), "{outcome}");
    assert_eq!(statuses(&outcome).0, pairs(&[("a", "kept"), ("b", "kept")]));
    assert_eq!(bench.server.ask::<String>(&["GET", "forebay:p:summary"]), summary);
    bench.publish("", &["--allow-empty", "--expect", "a"]).ends_with(3);
    // Whether there is something to keep is not known.
    bench.server.kill();
    bench.publish("", &[]).fails(3, &["what Redis has is not known", "no connection"]);
    bench.publish("", &["--allow-empty"]).fails(3, &["what Redis has is not known"]);
    bench.server.restart();
    // A store without a snapshot.
    bench.project.write("handlers.lua", "function on_event() end function on_snapshot() end");
    let file = "name = \"p\"\n[handlers]\nscript = \"handlers.lua\"\n[snapshots]\nurl = \"URL\"\n";
    bench.project.write("pipeline.toml", file.replace("URL", &bench.server.url()));
    bench.project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], "").ok();
    let args = ["publish", "--all", "--config", "pipeline.toml"];
    bench.project.forebay(&args).fails(3, &["holds no snapshot of pipeline p", "--allow-empty"]);
    bench.project.forebay(&[&args[..], &["--allow-empty"]].concat()).ok();
}

/// It would close its region until then.
#[test]
fn a_time_ahead_of_the_clock_fails_its_region_only() {
    let bench = Bench::new();
    let soon = forebay::Timestamp::now().as_micros() / 1000 + 3_500_000;
    let docs = [
        r#"{"region":"a","at":"2126-11-25T00:00:00Z"}"#.to_owned(),
        r#"{"region":"b","at":"2026-01-01T00:00:00Z"}"#.to_owned(),
        format!("{{\"region\":\"c\",\"at\":{soon}}}"),
        format!("{{\"region\":\"d\",\"at\":{}}}", soon + 200_000),
        // Milliseconds that were taken for seconds.
        format!("{{\"region\":\"e\",\"at\":{}}}", soon * 10),
    ];
    let outcome = bench.publish(&docs.join("\n"), &["--time-field", "at"]).ends_with(3);
    let (regions, _) = statuses(&outcome);
    let expected = [("a", "failed"), ("b", "published"), ("c", "published"), ("d", "failed"), ("e", "failed")];
    assert_eq!(regions, pairs(&expected));
    let error = outcome.json_lines()[0]["error"].clone();
    let told = error.as_str().expect("an error");
    for says in [
        "stdin:1: the field at: 2126-11-25T00:00:00Z is more than an hour ahead of the clock (now 20",
        "sequence number",
    ] {
        assert!(told.contains(says), "{told}");
    }
    assert!(!bench.server.ask::<bool>(&["EXISTS", "forebay:{p:a}:seq"]));
    // An earlier version has let one in.
    let _: String = bench.server.ask(&["SET", "forebay:{p:b}:seq", "4951065600000"]);
    let outcome = bench.publish("{\"region\":\"b\",\"v\":2}", &[]).ends_with(3);
    let line = outcome.json_lines().remove(0);
    assert_eq!((&line["status"], &line["newest_seq"]), (&json!("stale"), &json!(4_951_065_600_000_u64)));
    let told = line["error"].as_str().expect("an error");
    assert!(told.contains("(2126-11-23T00:00:00.000Z)") && told.contains("delete the key forebay:{p:b}:seq"), "{told}");
    let _: i64 = bench.server.ask(&["DEL", "forebay:{p:b}:seq"]);
    assert_eq!(statuses(&bench.publish("{\"region\":\"b\",\"v\":2}", &[]).ok()).0[0], ("b".into(), "published".into()));
    bench.publish("{\"region\":\"b\",\"v\":3}", &[]).ok();
}

#[test]
fn regions_that_fail_for_one_cause_are_told_in_one_line() {
    let bench = Bench::new();
    let docs: String = (0..30).map(|at| format!("{{\"region\":\"r{at:02}\"}}\n")).collect();
    let args = ["publish", "-", "--snapshots", "redis://127.0.0.1:1", "--quiet"];
    let outcome = bench.project.forebay_with_input(&args, &docs).fails(3, &["r00, r01, r02", "no connection"]);
    assert_eq!(outcome.stderr().lines().count(), 1, "{outcome}");
}
