//! The source is what was committed: what comes late, was changed or is gone is told, left out or handled in its place.

use std::collections::BTreeMap;
use std::fs::File;

use serde_json::Value as Json;

use crate::support::cases::replaced;
use crate::support::project::Project;

const PIPELINE: &str = r#"name = "p"
[source]
path = "in"
[handlers]
script = "handlers.lua"
[entities.seen]
columns = { at = "bigint", n = "bigint" }
[store]
url = "sqlite:p.db"
"#;

/// Each event notes how many came before it, so that order and number of events show in the rows.
const SCRIPT: &str = r#"
function on_event(event, ctx)
  local count = ctx.seen:get("count") or { n = 0 }
  ctx.seen:set("count", { n = count.n + 1 })
  ctx.seen:set(event.id, { at = count.n + 1, n = event.n })
end
"#;

const HISTORY: &str = "[rollback]\ndepth = 1000\n";

const HASH: &str = "hash = \"h\"";
const HASHES: &str = "hash = \"h\"\nparent = \"p\"";

fn line(block: i64, id: &str, n: i64) -> String {
    format!("{{\"block\":{block},\"region\":\"r\",\"id\":\"{id}\",\"n\":{n}}}\n")
}

/// A line of each block; its id is the block.
fn lines(blocks: &[i64]) -> String {
    blocks.iter().map(|block| line(*block, &block.to_string(), 0)).collect()
}

fn project(late: &str, end: &str) -> Project {
    let source = format!("[source]\nlate = \"{late}\"\nend = \"{end}\"");
    let project = Project::with(&(replaced(PIPELINE, "[source]", &source) + HISTORY), SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    project
}

/// The ids in the order in which they were handled.
fn handled(project: &Project) -> String {
    let rows = project.query("p.db", "SELECT id FROM seen WHERE id <> 'count' ORDER BY at");
    let events = project.query("p.db", "SELECT n FROM seen WHERE id = 'count'");
    assert_eq!(events.first().map(|row| row[0].clone()), Some(rows.len().to_string()), "each event counts once");
    rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>().join(" ")
}

fn run(project: &Project) -> Json {
    project.run_json()
}

fn warnings(project: &Project, args: &[&str]) -> Vec<String> {
    let outcome = project.forebay(args).ok();
    outcome.stderr().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
}

crate::both_stores! {
    fn a_file_that_comes_late_is_an_error_is_left_out_or_takes_its_place() {
        for (late, says, expected) in [
            ("error", "in/2.ndjson", "1 3 10 11"),
            ("skip", "in/2.ndjson", "1 3 10 11 12"),
            ("replay", "", "1 3 5 6 10 11 12"),
        ] {
            let project = project(late, "complete");
            project.write("in/1.ndjson", lines(&[1, 3]));
            project.write("in/3.ndjson", lines(&[10, 11]));
            run(&project);
            project.write("in/2.ndjson", lines(&[5, 6]));
            project.write("in/4.ndjson", lines(&[12]));
            let outcome = project.forebay(&["run", "pipeline.toml"]);
            assert_eq!(outcome.code(), Some(if late == "error" { 2 } else { 0 }), "{late}: {outcome}");
            assert!(outcome.stderr().contains(says), "{late}: {outcome}");
            assert_eq!(handled(&project), expected, "{late}");
            if late != "error" {
                assert_eq!(run(&project)["events"], 0, "{late}: and that is all");
            }
        }
    }

    fn a_line_that_comes_late_takes_its_place() {
        let project = project("replay", "complete");
        project.write("in/1.ndjson", lines(&[1, 2, 3]));
        run(&project);
        // Behind newer ones, into an older block, twice, and in a run of its own.
        project.write("in/1.ndjson", lines(&[1, 2, 3, 4]) + &line(2, "2b", 0) + &line(1, "1b", 0) + &line(2, "2b", 0) + &lines(&[3, 5]));
        run(&project);
        assert_eq!(handled(&project), "1 1b 2 2b 3 4 5");
        project.write("in/2.ndjson", lines(&[6]) + &line(4, "4b", 0));
        run(&project);
        assert_eq!(handled(&project), "1 1b 2 2b 3 4 4b 5 6");
        assert_eq!(run(&project)["events"], 0);
        assert_eq!(handled(&project), "1 1b 2 2b 3 4 4b 5 6");
    }

    fn what_was_changed_is_told() {
        let blocks = lines(&[1, 2, 3]);
        for (name, before, now, says) in [
            ("a line put between", lines(&[1, 3]), lines(&[1, 2, 3, 4]), "block 2"),
            ("one more of an old block", blocks.clone(), lines(&[1]) + &line(1, "1b", 0) + &lines(&[2, 3, 4]), "block 1"),
            ("one more of the last block", blocks.clone(), blocks.clone() + &line(3, "3b", 0), "end = \"open\""),
            ("the last block corrected", blocks.clone(), lines(&[1, 2]) + &line(3, "3", 7) + &lines(&[4]), "block 3"),
            ("an old block corrected", blocks.clone(), line(1, "1", 7) + &lines(&[2, 3]), "block 1"),
            ("the last block with fewer", blocks.clone() + &line(3, "3b", 0), lines(&[1, 2, 3, 4]), "block 3"),
            ("a block that is gone", blocks.clone(), lines(&[1, 3, 4]), "block 2"),
            ("another chain", blocks.clone(), blocks.replace("\"n\":0", "\"n\":1") + &lines(&[4]), "block 1"),
        ] {
            for depth in [HISTORY, ""] {
                let project = Project::with(&(PIPELINE.to_owned() + depth), SCRIPT, "");
                std::fs::create_dir(project.path("in")).expect("a folder");
                project.write("in/a.ndjson", &before);
                run(&project);
                let rows = handled(&project);
                project.write("in/a.ndjson", &now);
                let outcome = project.forebay(&["run", "pipeline.toml"]);
                assert_eq!(outcome.code(), Some(2), "{name}: {outcome}");
                assert!(outcome.stderr().contains("in/a.ndjson"), "{name}: {outcome}");
                if !depth.is_empty() {
                    assert!(outcome.stderr().contains(says), "{name}, {says}: {outcome}");
                }
                assert_eq!(handled(&project), rows, "{name}");
            }
        }
    }

    fn a_file_may_be_renamed_packed_touched_or_removed() {
        let project = project("error", "complete");
        project.write("in/x.ndjson", lines(&[1, 2]));
        run(&project);
        // As logrotate does.
        std::fs::rename(project.path("in/x.ndjson"), project.path("in/w.ndjson")).expect("renamed");
        project.write("in/x.ndjson", lines(&[3]));
        let said = warnings(&project, &["run", "pipeline.toml"]);
        assert!(said.is_empty(), "{said:?}");
        let packed = zstd::encode_all(lines(&[1, 2]).as_bytes(), 1).expect("packed");
        project.write("in/w.ndjson.zst", packed);
        std::fs::remove_file(project.path("in/w.ndjson")).expect("removed");
        assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0]);
        std::fs::remove_file(project.path("in/w.ndjson.zst")).expect("removed");
        project.write("in/x.ndjson", lines(&[3]));
        project.write("in/y.ndjson", lines(&[4]));
        assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0]);
        assert_eq!(handled(&project), "1 2 3 4");
    }

    fn a_file_that_has_not_changed_is_not_read_again() {
        let project = project("error", "complete");
        project.write("in/1.ndjson", lines(&[1, 2]));
        project.write("in/2.ndjson", lines(&[3]));
        run(&project);
        for name in ["in/1.ndjson", "in/2.ndjson"] {
            // Who read it would notice.
            let (path, modified) = (project.path(name), std::fs::metadata(project.path(name)).and_then(|found| found.modified()));
            let text = std::fs::read_to_string(&path).expect("text").replace("block", "bl0ck");
            std::fs::write(&path, text).expect("written");
            File::options().write(true).open(&path).and_then(|file| file.set_modified(modified?)).expect("its old time");
        }
        let report = run(&project);
        assert_eq!((&report["events"], &report["source_bytes_read"]), (&0.into(), &0.into()));
        project.write("in/3.ndjson", lines(&[4]));
        let report = run(&project);
        assert_eq!((&report["events"], &report["source_bytes_read"]), (&1.into(), &lines(&[4]).len().into()));
        assert_eq!(handled(&project), "1 2 3 4");
    }

    fn a_source_that_is_cut_off_or_begins_later_is_told_in_one_warning() {
        let project = project("error", "complete");
        project.write("in/1.ndjson", lines(&[1, 2, 9]));
        run(&project);
        project.write("in/1.ndjson", lines(&[1, 2]));
        let said = warnings(&project, &["run", "pipeline.toml"]);
        assert!(said.len() == 1 && said[0].contains("ends with block 2"), "{said:?}");
        let gap = project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &lines(&[12, 13])).ok();
        assert_eq!(gap.stderr().matches("begins with block 12").count(), 1, "{gap}");
        let empty = project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], "").ok();
        assert_eq!(empty.stderr().matches("holds no event").count(), 1, "{empty}");
        let none = project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &lines(&[14, 15])).ok();
        assert!(!none.stderr().contains("WARN"), "{none}");
    }

    fn a_folder_that_a_stream_has_gone_on_from_ends_before_what_is_committed() {
        let project = project("error", "complete");
        project.write("in/1.ndjson", lines(&[1, 2]));
        run(&project);
        let stream = project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &lines(&[3, 4])).ok();
        assert!(!stream.stderr().contains("WARN"), "{stream}");
        let said = warnings(&project, &["run", "pipeline.toml"]);
        assert!(said.len() == 1 && said[0].contains("ends with block 2, and block 4 is committed"), "{said:?}");
        assert_eq!(handled(&project), "1 2 3 4");
    }

    fn the_last_block_of_a_file_that_grows_is_left_open() {
        let project = project("error", "open");
        project.write("in/1.ndjson", lines(&[1]) + &line(2, "2a", 0));
        run(&project);
        assert_eq!(handled(&project), "1");
        project.write("in/1.ndjson", lines(&[1]) + &line(2, "2a", 0) + &line(2, "2b", 0) + &lines(&[3]));
        run(&project);
        assert_eq!(handled(&project), "1 2a 2b");
    }

    fn within_a_block_it_goes_on_by_places() {
        let place = |block: i64, place: i64| format!("{{\"block\":{block},\"s\":{place},\"region\":\"r\",\"id\":\"{block}.{place}\",\"n\":0}}\n");
        for late in ["error", "skip"] {
            let project = project(late, "complete");
            project.write("pipeline.toml", std::fs::read_to_string(project.path("pipeline.toml")).expect("a file").replace("[source]", "[source]\nseq = \"s\""));
            // As a file that grows, and as a stream that goes on.
            project.write("in/1.ndjson", place(1, 0) + &place(2, 0));
            run(&project);
            project.write("in/1.ndjson", place(1, 0) + &place(2, 0) + &place(2, 1));
            run(&project);
            project.forebay_with_input(&["run", "pipeline.toml", "--source", "-"], &(place(2, 2) + &place(3, 0))).ok();
            assert_eq!(handled(&project), "1.0 2.0 2.1 2.2 3.0", "{late}");
            // Back to before a block that two runs have handled.
            project.forebay(&["rollback", "pipeline.toml", "--to", "1"]).ok();
            assert_eq!(handled(&project), "1.0");
            project.write("in/1.ndjson", place(1, 0) + &place(2, 0) + &place(2, 1) + &place(2, 2) + &place(3, 0));
            run(&project);
            assert_eq!(handled(&project), "1.0 2.0 2.1 2.2 3.0", "{late}");
        }
    }

    fn a_replay_goes_back_to_the_first_block_that_differs_or_not_at_all() {
        let all: Vec<i64> = (1..=20).collect();
        for (depth, before, now, expected) in [
            // One lies within the history and one before it.
            (5, vec![("b", all.clone())], vec![("c", vec![5, 19])], None),
            (1000, vec![("b", vec![3, 4, 7, 8])], vec![("c", vec![2, 3])], Some("2 3 3 4 7 8")),
            (1000, vec![("b", vec![3, 4, 7, 8])], vec![("c", vec![1, 2])], Some("1 2 3 4 7 8")),
            // It comes first in the order of names, or within the last block.
            (5, vec![("b", all.clone())], vec![("a", vec![19])], Some("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 19 20")),
            (5, vec![("b", vec![1, 2, 3, 4, 5, 6, 8])], vec![("c", vec![7]), ("d", vec![9]), ("e", vec![9])], Some("1 2 3 4 5 6 7 8 9 9")),
        ] {
            let project = project("replay", "complete");
            let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
            project.write("pipeline.toml", replaced(&pipeline, "depth = 1000", &format!("depth = {depth}")));
            let text = |name: &str, blocks: &[i64]| -> String {
                blocks.iter().map(|block| line(*block, &format!("{block}{name}"), 0)).collect()
            };
            for (name, blocks) in &before {
                project.write(&format!("in/{name}.ndjson"), text(name, blocks));
            }
            run(&project);
            let rows = handled(&project);
            for (name, blocks) in &now {
                project.write(&format!("in/{name}.ndjson"), text(name, blocks));
                let outcome = project.forebay(&["run", "pipeline.toml"]);
                assert_eq!(outcome.code(), Some(if expected.is_some() { 0 } else { 2 }), "{now:?}: {outcome}");
            }
            let Some(expected) = expected else {
                assert_eq!(handled(&project), rows, "{now:?}");
                continue;
            };
            let blocks = |rows: String| rows.replace(|letter: char| letter.is_ascii_lowercase(), "");
            assert_eq!(blocks(handled(&project)), expected, "{now:?}");
            assert_eq!(run(&project)["events"], 0, "{now:?}");
        }
    }

    fn a_replay_is_right_where_a_file_was_packed_meanwhile() {
        let project = project("replay", "complete");
        project.write("in/b.ndjson", lines(&[3, 4, 7, 8]));
        run(&project);
        project.write("in/b.ndjson.zst", zstd::encode_all(lines(&[3, 4, 7, 8]).as_bytes(), 1).expect("packed"));
        std::fs::remove_file(project.path("in/b.ndjson")).expect("removed");
        project.write("in/a.ndjson", line(4, "4a", 0) + &line(5, "5a", 0));
        run(&project);
        assert_eq!(handled(&project), "3 4a 4 5a 7 8");
        assert_eq!(run(&project)["events"], 0);
    }

    fn files_may_be_rotated_and_the_oldest_removed() {
        let project = project("error", "complete");
        let rotate = |from: &str, to: &str| std::fs::rename(project.path(from), project.path(to)).expect("renamed");
        for (name, block) in [("in/x.ndjson.2", 1), ("in/x.ndjson.1", 2), ("in/x.ndjson", 3)] {
            project.write(name, lines(&[block]));
        }
        run(&project);
        for block in 4..7 {
            rotate("in/x.ndjson.1", "in/x.ndjson.2");
            rotate("in/x.ndjson", "in/x.ndjson.1");
            project.write("in/x.ndjson", lines(&[block]));
            for _ in 0..2 {
                assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0], "block {block}");
            }
        }
        assert_eq!(handled(&project), "1 2 3 4 5 6");
    }

    fn a_name_may_be_given_to_another_file() {
        for late in ["error", "skip", "replay"] {
            // Written anew from time to time, emptied, and names that go round.
            for steps in [
                &[&[("a", "1")][..], &[("a", "2")], &[("a", "3 4")]][..],
                &[&[("a", "1"), ("b", "2")], &[("b", "")], &[("b", "3")], &[("a", "")], &[("b", "4")]],
                &[&[("a", "1"), ("b", "2"), ("c", "3")], &[("b", "4"), ("c", "5")], &[("a", ""), ("c", "6")]],
            ] {
                let project = project(late, "complete");
                let mut expected = String::new();
                for step in steps {
                    for (name, blocks) in *step {
                        let _ = std::fs::remove_file(project.path(&format!("in/{name}.ndjson")));
                        let numbers: Vec<i64> = blocks.split_whitespace().map(|block| block.parse().expect("a block")).collect();
                        project.write(&format!("in/{name}.ndjson"), lines(&numbers));
                        expected += &blocks.split_whitespace().map(|block| format!("{block} ")).collect::<String>();
                    }
                    for _ in 0..2 {
                        assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0], "{late} {step:?} of {steps:?}");
                        assert_eq!(handled(&project), expected.trim(), "{late} {step:?} of {steps:?}");
                    }
                }
            }
        }
    }

    fn what_a_replay_would_lose_is_refused() {
        for (late, before, now, is_refused) in [
            // As many events are new as are lost.
            ("replay", &[("a", "1")][..], &[("a", ""), ("b", "1 2 3")][..], true),
            // The late line comes behind all that is committed, of which nothing is there.
            ("replay", &[("a", "8 9 10")], &[("a", ""), ("b", "11 12 9")], true),
            ("replay", &[("a", "1"), ("b", "2 3")], &[("a", ""), ("b", "2 2 3")], false),
            ("replay", &[("a", "1"), ("b", "2 3")], &[("a", ""), ("b", "2 3 1")], true),
            // A late line where the oldest file is removed at the same time.
            ("error", &[("a", "1"), ("b", "2"), ("c", "3")], &[("a", ""), ("b", "2 2"), ("d", "4")], true),
            ("error", &[("a", "1"), ("b", "2")], &[("a", ""), ("b", "2 3")], false),
        ] {
            let project = project(late, "complete");
            let write = |files: &[(&str, &str)], step: usize| for (name, blocks) in files {
                let path = project.path(&format!("in/{name}.ndjson"));
                let event = |(at, block): (usize, &str)| line(block.parse().expect("a block"), &format!("{block}{name}{step}{at}"), 0);
                match blocks.is_empty() {
                    true => std::fs::remove_file(path).expect("removed"),
                    false => {
                        let known = std::fs::read_to_string(&path).unwrap_or_default();
                        let kept = known.lines().count();
                        let text: String = match late {
                            // What was there stays there, behind what is new.
                            _ if kept > 0 && kept < blocks.split(' ').count() && !blocks.starts_with("2 2") => {
                                known + &blocks.split(' ').enumerate().skip(kept).map(event).collect::<String>()
                            }
                            _ if kept > 0 => event((9, blocks.split(' ').next().expect("one"))) + &known,
                            _ => blocks.split(' ').enumerate().map(event).collect(),
                        };
                        project.write(&format!("in/{name}.ndjson"), text);
                    }
                }
            };
            write(before, 0);
            run(&project);
            let rows = handled(&project);
            write(now, 1);
            let outcome = project.forebay(&["run", "pipeline.toml"]);
            assert_eq!(outcome.code(), Some(if is_refused { 2 } else { 0 }), "{late} {now:?}: {outcome}");
            if is_refused {
                assert_eq!(handled(&project), rows, "{late} {now:?}");
            } else {
                assert_eq!(run(&project)["events"], 0, "{late} {now:?}");
            }
        }
    }

    fn what_a_rollback_leaves_is_not_taken_for_gone() {
        for is_by_hand in [true, false] {
            let project = project("replay", "complete");
            project.write("in/m.ndjson", lines(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
            run(&project);
            // What is read first of all lies behind what is left.
            project.write("in/a.ndjson", line(6, "6a", 0) + &line(8, "8a", 0));
            if is_by_hand {
                run(&project);
                assert_eq!(warnings(&project, &["rollback", "pipeline.toml", "--to", "5"]), [""; 0]);
            } else {
                // A replay that gets no further than to where it goes back.
                project.write("handlers.lua", "function on_event(event) error(\"no\") end");
                project.forebay(&["run", "pipeline.toml"]).ends_with(1);
                project.write("handlers.lua", SCRIPT);
            }
            assert_eq!(handled(&project), "1 2 3 4 5", "{is_by_hand}");
            run(&project);
            assert_eq!(handled(&project), "1 2 3 4 5 6a 6 7 8a 8 9", "{is_by_hand}");
            let gone = project.query("p.db", "SELECT events FROM forebay_source_files WHERE name = '(gone)' AND events > 0");
            assert!(gone.is_empty(), "{is_by_hand}: {gone:?}");
            project.forebay(&["rollback", "pipeline.toml", "--to", "7"]).ok();
            project.write("in/z.ndjson", line(4, "4z", 0));
            run(&project);
            assert_eq!(handled(&project), "1 2 3 4 4z 5 6a 6 7 8a 8 9", "{is_by_hand}");
            run(&project);
            assert_eq!(run(&project)["events"], 0, "{is_by_hand}");
        }
    }

    fn a_replay_is_right_where_the_history_begins_within_a_file_that_is_gone() {
        let project = project("replay", "complete");
        project.write("pipeline.toml", std::fs::read_to_string(project.path("pipeline.toml")).expect("a file").replace("depth = 1000", "depth = 2"));
        project.write("in/a.ndjson", lines(&[1, 2, 3, 4]));
        project.write("in/c.ndjson", lines(&[5]));
        run(&project);
        std::fs::remove_file(project.path("in/a.ndjson")).expect("removed");
        project.write("in/c.ndjson", lines(&[5]) + &line(5, "5b", 0));
        run(&project);
        assert_eq!(handled(&project), "1 2 3 4 5 5b");
        assert_eq!(run(&project)["events"], 0);
    }

    fn what_came_too_late_is_in_its_place_after_a_rollback() {
        let project = project("skip", "complete");
        project.write("in/1.ndjson", lines(&[1, 2, 3]));
        run(&project);
        project.write("in/2.ndjson", line(3, "3b", 0));
        project.write("in/0.ndjson", line(1, "1b", 0) + &line(2, "2b", 0));
        assert_eq!(run(&project)["late_skipped"], 3);
        project.forebay(&["rollback", "pipeline.toml", "--to", "2"]).ok();
        for _ in 0..2 {
            run(&project);
            assert_eq!(handled(&project), "1 2 3 3b");
        }
        project.forebay(&["rollback", "pipeline.toml", "--to", "0"]).ok();
        std::fs::rename(project.path("in/0.ndjson"), project.path("in/00.ndjson")).expect("renamed");
        run(&project);
        assert_eq!(handled(&project), "1b 2b 2 3 3b");
    }

    fn the_name_of_a_file_that_is_gone_may_be_given_again_before_a_run_fails() {
        let project = project("error", "complete");
        project.write("pipeline.toml", std::fs::read_to_string(project.path("pipeline.toml")).expect("a file") + "[batch]\nevents = 1\n");
        project.write("in/a.ndjson", lines(&[1]));
        run(&project);
        project.write("in/a.ndjson", lines(&[3]));
        project.write("in/a.ndjson.1", lines(&[2]));
        project.write("handlers.lua", format!("{SCRIPT}\nlocal as_before = on_event\nfunction on_event(event, ctx)\n  if event.id == \"3\" then error(\"no\") end\n  as_before(event, ctx)\nend\n"));
        project.forebay(&["run", "pipeline.toml"]).ends_with(1);
        assert_eq!(handled(&project), "1 2");
        project.write("handlers.lua", SCRIPT);
        for _ in 0..3 {
            assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0]);
        }
        assert_eq!(handled(&project), "1 2 3");
    }

    fn a_rollback_reads_no_event_and_misses_none() {
        for late in ["error", "skip", "replay"] {
            let project = project(late, "complete");
            project.write("in/1.ndjson", lines(&[1, 2, 3]));
            run(&project);
            assert!(["2", "2", "0"].iter().all(|to| warnings(&project, &["rollback", "pipeline.toml", "--to", to]).is_empty()));
            assert_eq!(run(&project)["events"], 3, "{late}");
        }
    }

    fn a_file_that_grows_before_it_is_rotated_is_known_again() {
        for late in ["error", "skip", "replay"] {
            let project = project(late, "complete");
            project.write("in/a.ndjson", lines(&[1]));
            project.write("in/b.ndjson", lines(&[2]));
            run(&project);
            std::fs::remove_file(project.path("in/a.ndjson")).expect("removed");
            std::fs::remove_file(project.path("in/b.ndjson")).expect("removed");
            project.write("in/b.ndjson.1.zst", zstd::encode_all(lines(&[2, 3]).as_bytes(), 1).expect("packed"));
            project.write("in/b.ndjson", lines(&[4]));
            for _ in 0..2 {
                assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0], "{late}");
            }
            // And its first row is not counted a second time once all are gone.
            std::fs::remove_file(project.path("in/b.ndjson.1.zst")).expect("removed");
            project.write("in/b.ndjson", lines(&[5]));
            for _ in 0..2 {
                assert_eq!(warnings(&project, &["run", "pipeline.toml"]), [""; 0], "{late}");
            }
            assert_eq!(handled(&project), "1 2 3 4 5");
        }
    }

    fn what_was_accepted_once_is_not_refused_later() {
        let project = project("error", "complete");
        project.write("in/a.ndjson", lines(&[1]));
        project.write("in/b.ndjson", lines(&[2]));
        project.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        std::fs::remove_file(project.path("in/a.ndjson")).expect("removed");
        for _ in 0..3 {
            run(&project);
        }
        project.write("in/b.ndjson", lines(&[2, 3]));
        std::fs::rename(project.path("in/b.ndjson"), project.path("in/c.ndjson")).expect("renamed");
        for _ in 0..2 {
            run(&project);
        }
        assert_eq!(handled(&project), "1 2 3");
        // A line that was changed is told by every run.
        let project = self::project("skip", "complete");
        project.write("in/a.ndjson", lines(&[1, 2]));
        run(&project);
        project.write("in/a.ndjson", line(1, "other", 7) + &lines(&[2]));
        for _ in 0..3 {
            assert_eq!(warnings(&project, &["run", "pipeline.toml"]).len(), 1);
        }
    }

    fn up_to_a_block_all_is_compared_too() {
        let project = project("error", "complete");
        project.write("in/a.ndjson", lines(&[1]));
        project.write("in/b.ndjson", lines(&[2]));
        run(&project);
        project.write("in/a.ndjson", line(1, "new", 0) + &lines(&[1]));
        project.write("in/c.ndjson", lines(&[4]));
        let outcome = project.forebay(&["run", "pipeline.toml", "--until", "3"]);
        assert_eq!(outcome.code(), Some(2), "{outcome}");
    }

    fn a_late_file_on_the_committed_chain_is_no_branch() {
        let project = project("error", "complete");
        let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
        project.write("pipeline.toml", replaced(&pipeline, "[source]", "[source]\nhash = \"h\""));
        let block = |block: i64, id: &str| line(block, id, 0).replace('}', &format!(",\"h\":\"h{block}\"}}"));
        project.write("in/b.ndjson", (1..=3).map(|number| block(number, &number.to_string())).collect::<String>());
        run(&project);
        project.write("in/b.ndjson", (1..=4).map(|number| block(number, &number.to_string())).collect::<String>());
        project.write("in/a.ndjson", block(2, "late"));
        let outcome = project.forebay(&["run", "pipeline.toml"]);
        assert_eq!(outcome.code(), Some(2), "{outcome}");
        assert!(outcome.stderr().contains("in/a.ndjson"), "{outcome}");
    }

    fn a_block_that_comes_late_is_never_silently_taken_for_a_branch() {
        let block = |block: i64, id: &str| line(block, id, 0).replace('}', &format!(",\"h\":\"h{block}\"}}"));
        let blocks = |blocks: &[i64]| blocks.iter().map(|at| block(*at, &at.to_string())).collect::<String>();
        let with_parents = |text: String| -> String {
            (1..9).fold(text, |text, at| text.replace(&format!("\"h{at}\"}}"), &format!("\"h{at}\",\"p\":\"h{}\"}}", at - 1)))
        };
        let project_of = |late: &str, fields: &str| {
            let project = project(late, "complete");
            let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
            project.write("pipeline.toml", replaced(&pipeline, "[source]", &format!("[source]\n{fields}")));
            project
        };
        let shown = blocks(&[2]) + &block(3, "3b");
        // The same block behind it shows that it is no branch, in the first run, and in a later one, with its file or without.
        for before in [&[][..], &["a"], &["a", "gone"]] {
            for late in ["error", "skip"] {
                let project = project_of(late, HASH);
                project.write("in/a.ndjson", blocks(&[1, 3, 4]));
                if !before.is_empty() {
                    run(&project);
                }
                if before.contains(&"gone") {
                    std::fs::remove_file(project.path("in/a.ndjson")).expect("removed");
                }
                project.write("in/b.ndjson", &shown);
                let outcome = project.forebay(&["run", "pipeline.toml"]);
                assert_eq!(outcome.code(), Some(2), "{before:?} {late}: {outcome}");
                assert!(outcome.stderr().contains("in/b.ndjson"), "{before:?} {late}: {outcome}");
            }
        }
        // Nothing shows it: what was undone is told.
        for before in [false, true] {
            let project = project_of("error", HASH);
            project.write("in/a.ndjson", blocks(&[1, 3]));
            if before {
                run(&project);
            }
            project.write("in/b.ndjson", blocks(&[2]));
            let warnings = warnings(&project, &["run", "pipeline.toml"]);
            assert!(warnings.iter().any(|line| line.contains("in/b.ndjson:1: block 2 comes after block 3")), "{warnings:?}");
            assert_eq!(handled(&project), "1 2");
        }
        // The parent behind it shows it.
        for (late, code) in [("error", 2), ("skip", 0)] {
            let project = project_of(late, HASHES);
            project.write("in/a.ndjson", with_parents(blocks(&[1, 3])));
            project.write("in/b.ndjson", with_parents(blocks(&[2]) + &block(3, "3b")));
            let outcome = project.forebay(&["run", "pipeline.toml"]);
            assert_eq!(outcome.code(), Some(code), "{late}: {outcome}");
            assert!(outcome.stderr().contains(if code == 2 { "in/b.ndjson:1: block 2 comes after" } else { "WARN" }), "{outcome}");
        }
    }

    fn a_file_that_was_committed_is_not_told_as_late_beside_one_that_is() {
        let project = project("skip", "complete");
        project.write("in/b.ndjson", lines(&[1, 2]));
        run(&project);
        project.write("in/b.ndjson.zst", zstd::encode_all(lines(&[1, 2, 3]).as_bytes(), 1).expect("packed"));
        std::fs::remove_file(project.path("in/b.ndjson")).expect("removed");
        project.write("in/a.ndjson", line(2, "late", 0));
        assert_eq!(run(&project)["late_skipped"], 1);
        assert_eq!(handled(&project), "1 2 3");
    }

    fn a_branch_may_begin_in_a_file_of_its_own() {
        let project = project("error", "complete");
        let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
        project.write("pipeline.toml", replaced(&pipeline, "[source]", "[source]\nhash = \"h\"\nparent = \"p\""));
        let block = |block: i64, hash: &str, parent: &str| {
            format!("{{\"block\":{block},\"region\":\"r\",\"id\":\"{hash}\",\"n\":0,\"h\":\"{hash}\",\"p\":\"{parent}\"}}\n")
        };
        project.write("in/f0.ndjson", block(1, "a1", "g") + &block(2, "a2", "a1") + &block(3, "a3", "a2"));
        run(&project);
        project.write("in/f1.ndjson", block(2, "b2", "a1") + &block(3, "b3", "b2") + &block(4, "b4", "b3"));
        for _ in 0..4 {
            project.forebay(&["run", "pipeline.toml"]).ok();
            assert_eq!(handled(&project), "a1 b2 b3 b4");
        }
        project.write("in/f2.ndjson", block(1, "c1", "g") + &block(2, "c2", "c1") + &block(5, "c5", "c2"));
        for _ in 0..4 {
            project.forebay(&["run", "pipeline.toml"]).ok();
            assert_eq!(handled(&project), "c1 c2 c5");
        }
    }

    fn lines_that_cannot_be_read_are_told_by_every_run_until_they_are_put_aside() {
        let project = project("replay", "complete");
        let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
        project.write("pipeline.toml", pipeline + "[errors]\nmax = 10\non_event = \"quarantine\"\n");
        project.write("in/a.ndjson", lines(&[1, 2]));
        run(&project);
        project.write("in/a.ndjson", lines(&[1, 2]) + "{bad\n");
        for _ in 0..2 {
            let said = warnings(&project, &["run", "pipeline.toml"]);
            assert!(said.len() == 1 && said[0].contains("cannot be read"), "{said:?}");
        }
        project.write("in/b.ndjson", lines(&[3]));
        assert_eq!(run(&project)["quarantined"], 1);
        assert_eq!(handled(&project), "1 2 3");
    }

    fn a_replay_over_a_first_line_that_cannot_be_read_ends() {
        let project = project("replay", "complete");
        let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
        project.write("pipeline.toml", pipeline + "[errors]\nmax = 10\non_event = \"quarantine\"\n");
        project.write("in/a.ndjson", "{broken\n".to_owned() + &lines(&[3, 4]));
        run(&project);
        project.write("in/b.ndjson", line(3, "3b", 0));
        run(&project);
        assert_eq!(handled(&project), "3 3b 4");
        assert_eq!(run(&project)["events"], 0);
    }

    fn a_line_that_cannot_be_read_belongs_where_its_file_says() {
        for (late, before, now, expected) in [
            // A late event comes before the one that the first line waited for.
            ("replay", &[("b", "{broken\n3 4")][..], &[("c", "2 3")][..], "2 3 3 4"),
            ("replay", &[("b", "{broken\n3 4")], &[("a", "1 2")], "1 2 3 4"),
            ("replay", &[("a", "1 2"), ("b", "{broken\n{too\n5")], &[("aa", "2 3"), ("c", "{bad\n6")], "1 2 2 3 5 6"),
            // What comes before its file changes nothing, and no more does what is left out before it.
            ("error", &[("a", "1 2"), ("b", "{broken\n3 4")], &[("b", "{broken\n3 4 5"), ("c", "{bad\n6")], "1 2 3 4 5 6"),
            ("skip", &[("b", "{broken\n3 4")], &[("a", "1 2"), ("c", "5")], "3 4 5"),
            // A file of such lines alone, which grows.
            ("error", &[("b", "{broken\n{too\n")], &[("b", "{broken\n{too\n{three\n"), ("c", "5")], "5"),
            ("skip", &[("b", "{broken\n{too\n")], &[("b", "{broken\n{too\n{three\n"), ("c", "5")], "5"),
        ] {
            let project = project(late, "complete");
            let pipeline = std::fs::read_to_string(project.path("pipeline.toml")).expect("a file");
            project.write("pipeline.toml", pipeline + "[errors]\nmax = 10\non_event = \"quarantine\"\n");
            let write = |files: &[(&str, &str)], is_one_by_one: bool| {
                for (name, what) in files {
                    let text: String = what.split('\n').map(|part| match part.starts_with('{') {
                        true => format!("{part}\n"),
                        false => part.split_whitespace().map(|block| line(block.parse().expect("a block"), &format!("{block}{name}"), 0)).collect(),
                    }).collect();
                    project.write(&format!("in/{name}.ndjson"), text);
                    if is_one_by_one {
                        run(&project);
                    }
                }
                run(&project);
            };
            write(before, false);
            write(now, true);
            let left = handled(&project).replace(|letter: char| letter.is_ascii_lowercase(), "");
            assert_eq!(left.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>(), "{late} {before:?} {now:?}");
            assert_eq!(run(&project)["events"], 0, "{late} {before:?} {now:?}");
            let mut files: BTreeMap<&str, &str> = before.iter().copied().collect();
            files.extend(now.iter().copied());
            let bad: usize = files.values().map(|what| what.matches('{').count()).sum();
            let listed = project.forebay(&["quarantine", "pipeline.toml", "--json"]).ok().json_lines().len();
            assert_eq!(listed, bad, "{late} {before:?} {now:?}");
        }
    }

    fn two_files_of_the_same_lines_are_refused() {
        let project = project("skip", "complete");
        project.write("in/1.ndjson", lines(&[1]));
        project.write("in/2.ndjson", lines(&[2]));
        project.write("in/3.ndjson.zst", zstd::encode_all(lines(&[2]).as_bytes(), 1).expect("packed"));
        let outcome = project.forebay(&["run", "pipeline.toml"]);
        assert_eq!(outcome.code(), Some(2), "{outcome}");
        assert!(outcome.stderr().contains("in/2.ndjson") && outcome.stderr().contains("in/3.ndjson.zst"), "{outcome}");
    }
}
