//! Snapshots: when they are made, what counts as a change, how they are read back.

use serde_json::{Value as Json, json};

use crate::support::project::Project;

const SCRIPT: &str = r#"
function on_event(event, ctx)
  if event.v ~= nil then ctx.thing:set("v", { v = event.v }) end
end
function on_snapshot(ctx)
  local thing = ctx.thing:get("v")
  if thing == nil then return nil end
  return { value = thing.v, block = ctx.block, region = ctx.region }
end
"#;

fn pipeline(snapshots: &str) -> String {
    format!(
        "name = \"things\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:things.db\"\n[batch]\nevents = 1\n[snapshots]\n{snapshots}\n"
    )
}

fn event(block: i64, region: &str, value: &str) -> String {
    format!("{{\"block\":{block},\"region\":\"{region}\",\"v\":{value}}}\n")
}

fn history(project: &Project, region: &str) -> Vec<Json> {
    project.forebay(&["history", region, "--config", "pipeline.toml", "--meta"]).ok().json_lines()
}

fn blocks(project: &Project, region: &str) -> Vec<Json> {
    let mut blocks: Vec<Json> =
        history(project, region).iter().map(|snapshot| snapshot["doc"]["block"].clone()).collect();
    blocks.reverse();
    blocks
}

crate::both_stores! {
    fn every_n_blocks_means_blocks_of_the_data_and_the_end() {
        // Gaps do not count, and neither does where a run was interrupted.
        let numbers = [3, 4, 10, 11, 50, 51, 52, 53];
        let events: String = numbers.iter().map(|block| event(*block, "a", &block.to_string())).collect();
        let project = Project::with(&pipeline("every = \"3 blocks\""), SCRIPT, &events);
        project.run_json();
        assert_eq!(blocks(&project, "a"), [10, 51, 53]);
        let split = Project::with(&pipeline("every = \"3 blocks\"\ndedup = \"0s\""), SCRIPT, &events);
        split.forebay(&["run", "pipeline.toml", "--until", "11"]).ok();
        split.run_json();
        assert_eq!(blocks(&split, "a"), [10, 11, 51, 53], "11 was an end too");
    }
}

crate::both_stores! {
    fn at_the_end_only_touched_regions_and_only_changes() {
        let events = event(1, "a", "1") + &event(1, "b", "2");
        let project = Project::with(&pipeline("every = \"end\"\ndedup_ignore = [\"block\"]"), SCRIPT, &events);
        let report = project.run_json();
        assert_eq!(report["snapshots"], json!({"stored": 2, "published": 0, "duplicate": 0, "stale": 0, "kept": 0, "failed": 0}));
        // The same value at a later block: the ignored field alone is no change.
        project.write("events.ndjson", format!("{events}{}", event(2, "a", "1")));
        let report = project.run_json();
        assert_eq!(report["snapshots"], json!({"stored": 0, "published": 0, "duplicate": 1, "stale": 0, "kept": 0, "failed": 0}));
        project.write("events.ndjson", format!("{events}{}{}", event(2, "a", "1"), event(3, "a", "7")));
        assert_eq!(project.run_json()["snapshots"]["stored"], 1);
        assert_eq!(blocks(&project, "a"), [1, 3]);
        assert_eq!(blocks(&project, "b"), [1]);
    }
}

crate::both_stores! {
    /// What a handler says of the block is the same however the source was cut into runs and batches.
    fn the_block_of_a_document_is_the_last_one_of_its_region() {
        let events = event(1, "a", "1") + &event(2, "b", "2") + &event(4, "a", "1") + &event(5, "c", "3") + &event(9, "b", "2");
        let latest = |project: &Project| {
            let lines = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json_lines();
            lines.into_iter().map(|line| line["block"].clone()).collect::<Vec<_>>()
        };
        for (every, batch) in [("end", 1), ("end", 100), ("batch", 1), ("batch", 100), ("2 blocks", 3)] {
            let pipeline = pipeline(&format!("every = \"{every}\"\n[rollback]\ndepth = 20"))
                .replace("events = 1", &format!("events = {batch}"));
            let whole = Project::with(&pipeline, SCRIPT, &events);
            whole.run_json();
            assert_eq!(latest(&whole), [4, 9, 5], "{every}, {batch}");
            let pieces = Project::with(&pipeline, SCRIPT, &events);
            for until in ["1", "3", "5", "8", "9"] {
                pieces.forebay(&["run", "pipeline.toml", "--until", until]).ok();
            }
            assert_eq!(latest(&pieces), [4, 9, 5], "{every}, {batch}, in pieces");
            if every == "end" {
                // The checkpoint is what a snapshot holds up to, and not the document's block.
                assert_eq!(history(&whole, "c")[0]["block"], 9);
            }
            for to in ["8", "4"] {
                pieces.forebay(&["rollback", "pipeline.toml", "--to", to]).ok();
            }
            let back = latest(&pieces);
            assert_eq!((&back[0], &back[1]), (&json!(4), &json!(2)), "{every}, {batch}, set back");
        }
    }

    /// A region that has nothing to say any more says so: readers would go by what is not so any more.
    fn a_document_that_is_taken_back_is_null() {
        let script = SCRIPT.replace("if event.v ~= nil then ctx.thing:set(\"v\", { v = event.v }) end",
            "if event.v then ctx.thing:set(\"v\", { v = event.v }) else ctx.thing:delete(\"v\") end");
        let events = event(1, "a", "1") + &event(1, "mute", "null") + &event(2, "a", "null") + &event(2, "b", "2");
        let project = Project::with(&pipeline("every = \"batch\""), &script, &events);
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        let report = project.run_json();
        assert_eq!(report["snapshots"]["stored"], 2, "{report}");
        let docs = |region| history(&project, region).iter().map(|one| one["doc"].clone()).collect::<Vec<_>>();
        assert_eq!(docs("a"), [json!(null), json!({"block": 1, "region": "a", "value": 1})]);
        project.forebay(&["latest", "mute", "--config", "pipeline.toml"]).fails(1, &["no snapshot of mute"]);
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!((&status["regions"][0]["state"], &status["regions"][2]["state"]), (&json!("fresh"), &json!("none")));
        // It is said once, and another document takes its place.
        project.write("events.ndjson", events.clone() + &event(3, "a", "null"));
        assert_eq!(project.run_json()["snapshots"]["stored"], 0);
        project.write("events.ndjson", events + &event(3, "a", "null") + &event(4, "a", "7"));
        assert_eq!(project.run_json()["snapshots"]["stored"], 1);
        assert_eq!(docs("a").len(), 3);
        project.forebay(&["latest", "--config", "pipeline.toml"]).ok();
    }
}

crate::both_stores! {
    /// A value that comes back is a change: the newest snapshot has to say it.
    fn back_to_an_earlier_content_is_no_duplicate() {
        let events: String =
            [1, 2, 1].iter().zip(1..).map(|(value, block)| event(block, "a", &value.to_string())).collect();
        let project = Project::with(&pipeline("every = \"1 blocks\"\ndedup_ignore = [\"block\"]"), SCRIPT, &events);
        project.run_json();
        let values: Vec<Json> = history(&project, "a").iter().map(|snapshot| snapshot["doc"]["value"].clone()).collect();
        assert_eq!(values, [1, 2, 1]);
    }
}

crate::both_stores! {
    fn without_a_window_everything_is_stored() {
        let events: String = (1..=4).map(|block| event(block, "a", "1")).collect();
        let project =
            Project::with(&pipeline("every = \"1 block\"\ndedup = \"0s\"\ndedup_ignore = [\"block\"]"), SCRIPT, &events);
        assert_eq!(project.run_json()["snapshots"]["stored"], 4);
    }
}

crate::both_stores! {
    fn old_snapshots_go_and_the_newest_of_a_region_stays() {
        let project = Project::with(
            &pipeline("every = \"1 blocks\"\nttl = \"1d\""),
            SCRIPT,
            &(event(1, "a", "1") + &event(2, "a", "2") + &event(2, "b", "1")),
        );
        project.run_json();
        project.execute("things.db", "UPDATE forebay_snapshots SET generated_at = '2001-01-01T00:00:00.000Z'");
        project
            .write("events.ndjson", event(1, "a", "1") + &event(2, "a", "2") + &event(2, "b", "1") + &event(3, "a", "3"));
        project.run_json();
        assert_eq!(blocks(&project, "a"), [3]);
        assert_eq!(blocks(&project, "b"), [2]);
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ends_with(1).json();
        assert_eq!(status["healthy"], false);
        assert_eq!(status["regions"][1]["state"], "stale", "b's newest is older than its time to live: {status}");
    }
}

crate::both_stores! {
    fn ids_say_region_number_and_hash_and_show_finds_them() {
        let project = Project::with(&pipeline("every = \"end\""), SCRIPT, &event(1, "a.b", "1"));
        project.run_json();
        let snapshot = &history(&project, "a.b")[0];
        // printf '%s' '{"block":1,"region":"a.b","value":1}' | sha256sum
        assert_eq!(snapshot["id"], "a.b.1.1544195ba57bfa1a");
        let doc = project.forebay(&["show", "a.b.1.1544195ba57bfa1a", "--config", "pipeline.toml"]).ok().stdout();
        assert_eq!(doc, "{\"block\":1,\"region\":\"a.b\",\"value\":1}\n");
        let stored =
            project.query("things.db", "SELECT region, id, seq, block, doc, published_at FROM forebay_snapshots");
        assert_eq!(stored, [["a.b", "a.b.1.1544195ba57bfa1a", "1", "1", doc.trim(), "NULL"]]);
    }
}

crate::both_stores! {
    fn a_region_that_has_nothing_to_say_is_healthy() {
        let project =
            Project::with(&pipeline("every = \"end\""), SCRIPT, &(event(1, "a", "1") + &event(1, "mute", "null")));
        assert_eq!(project.run_json()["snapshots"]["stored"], 1);
        let status = project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!(status["healthy"], true);
        assert_eq!(status["regions"][1]["state"], "none");
        project.forebay(&["latest", "mute", "--config", "pipeline.toml"]).fails(1, &["no snapshot of mute"]);
    }
}

crate::both_stores! {
    fn latest_and_history_are_limited_as_asked() {
        let events: String = (1..=9).map(|block| event(block, "a", &block.to_string())).collect();
        let project = Project::with(&pipeline("every = \"1 blocks\""), SCRIPT, &events);
        project.run_json();
        let read = |args: &[&str]| {
            let args = [args, &["--config", "pipeline.toml"][..]].concat();
            project.forebay(&args).ok().json_lines().iter().map(|doc| doc["value"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(read(&["latest", "a"]), [9]);
        assert_eq!(read(&["history", "a", "--limit", "2"]), [9, 8]);
        assert_eq!(read(&["history", "a", "--since", "1h"]).len(), 9);
        assert!(read(&["history", "a", "--since", "2999-01-01T00:00:00Z"]).is_empty());
        let table = project.forebay(&["latest", "--table", "--config", "pipeline.toml"]).ok().stdout();
        assert!(table.contains("region") && table.contains("value"), "{table}");
    }
}

crate::both_stores! {
    fn every_batch_makes_one_at_each_batch() {
        let events: String = (1..=200).map(|block| event(block, "a", &block.to_string())).collect();
        let project = Project::with(&pipeline("every = \"batch\""), SCRIPT, &events);
        let report = project.run_json();
        assert_eq!(report["snapshots"]["stored"], report["batches"]);
    }
}
