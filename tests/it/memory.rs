//! The memory budget: whatever a table's size, the state is the same, and rows are let go and come back.

use crate::support::project::Project;

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = {{ t = \"text\", i = \"bigint\", nxt = \"text\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \"end\"\n{more}\n"
    )
}

fn mib(report: &serde_json::Value) -> u64 {
    report["memory_peak_bytes"].as_u64().expect("bytes") >> 20
}

crate::both_stores! {
    /// A table several times the memory: rows are let go and come back, and nothing changes but the time it takes.
    fn a_small_budget_comes_to_the_same_state() {
        let script = r#"function on_event(e, ctx)
          for _, id in ipairs{ e.a, e.b } do
            local t = ctx.thing:get(id) or { i = 0, t = ("x"):rep(300) }
            t.i = t.i + 1
            if t.i % 5 == 0 then ctx.thing:delete(id) else ctx.thing:set(id, t) end
          end
        end"#;
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 30_000
        };
        let events: String = (0..60_000)
            .map(|n| format!("{{\"block\":{n},\"region\":\"r{}\",\"a\":\"{}\",\"b\":\"{}\"}}\n", n % 2, next(), next()))
            .collect();
        let project = Project::with(&pipeline(""), script, &events);
        let large = project.run_json();
        let state = project.query("p.db", "SELECT region, id, i FROM thing ORDER BY region, id");
        let tight = Project::with(&pipeline("[batch]\nmemory = \"16MiB\"\nevents = 2000"), script, &events);
        let small = tight.run_json();
        assert_eq!(tight.query("p.db", "SELECT region, id, i FROM thing ORDER BY region, id"), state);
        assert!(mib(&small) < 80 && mib(&small) * 3 < mib(&large) * 2, "{} MiB against {} MiB", mib(&small), mib(&large));
    }
}

crate::both_stores! {
    /// Batches that do not fit are sealed early, and a block that does not fit beside what is warm drives that out.
    fn large_rows_make_small_batches() {
        let script = r#"function on_event(e, ctx) ctx.thing:set(e.id, { t = ("x"):rep(e.size) .. e.id }) end
        function on_snapshot(ctx) return { rows = ctx.thing:count() } end"#;
        for (rows, regions, size) in [(20_000, 1, 500), (5000, 4, 3000), (200, 1, 100_000)] {
            let event =
                |n: u32| format!("{{\"block\":{n},\"region\":\"r{}\",\"id\":\"{n}\",\"size\":{size}}}\n", n % regions);
            let events: String = (0..rows).map(event).collect();
            let project = Project::with(&pipeline("[batch]\nmemory = \"16MiB\""), script, &events);
            let report = project.run_json();
            let counted = project.query("p.db", &format!("SELECT count(*), min(length(t)) > {size} FROM thing"));
            assert_eq!(counted, [[rows.to_string(), "1".into()]]);
            let docs = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json_lines();
            assert_eq!(docs.iter().map(|doc| doc["rows"].as_u64().expect("rows")).sum::<u64>(), u64::from(rows));
            assert!(mib(&report) < 120, "{rows} rows of {size} bytes: {} MiB", mib(&report));
        }
    }
}

crate::both_stores! {
    /// A region of which nothing is in memory any more takes next to none, and comes back as it was.
    fn many_regions_come_and_go_in_little_memory() {
        let script = r#"function on_event(e, ctx)
          local t = ctx.thing:get("x") or { i = 0 }
          ctx.thing:set("x", { i = t.i + 1, t = ctx.region })
        end"#;
        let event = |n: u32| format!("{{\"block\":{n},\"region\":\"0x{:040x}\"}}\n", n % 40_000 * 7919);
        let events: String = (0..50_000).map(event).collect();
        let project = Project::with(&pipeline("[batch]\nmemory = \"16MiB\"\nevents = 2000"), script, &events);
        let report = project.run_json();
        let sql = "SELECT count(*), sum(i), sum(CASE WHEN t = region THEN 1 ELSE 0 END) FROM thing";
        assert_eq!(project.query("p.db", sql), [["40000", "50000", "40000"]]);
        assert!(mib(&report) < 80, "{} MiB", mib(&report));
    }
}

/// Regions are made known for their snapshots alone, and let go of again.
#[test]
fn snapshots_of_many_regions_need_little_memory() {
    let script = "function on_event(e, ctx) ctx.thing:add(\"a\", { i = 1 }) end
        function on_snapshot(ctx) return { c = ctx.thing:count() } end";
    let events: String = (0..50_000).map(|n| format!("{{\"block\":{},\"region\":\"r{n}\"}}\n", n / 10)).collect();
    let project = Project::with(&pipeline("[batch]\nmemory = \"16MiB\""), script, &events);
    let report = project.run_json();
    assert_eq!(project.query("p.db", "SELECT count(*), min(doc) FROM forebay_snapshots"), [["50000", "{\"c\":1}"]]);
    assert!(mib(&report) < 160, "{} MiB", mib(&report));
}

crate::both_stores! {
    /// What rows were is taken out in parts, so that it needs little room beside the rows.
    fn large_rows_with_an_undo_log_fit() {
        let script = r#"function on_event(e, ctx)
          local t = ctx.thing:get(e.id) or { i = 0 }
          ctx.thing:set(e.id, { i = t.i + 1, t = ("x"):rep(e.size) .. t.i })
        end"#;
        let memory = "[rollback]\ndepth = 1000\n[batch]\nmemory = \"16MiB\"";
        for (events, ids, per_block, size) in [(1000, 50, 1, 20_000), (300, 20, 1, 100_000), (240, 60, 60, 100_000)] {
            let event = |n: u32| {
                let (block, id) = (n / per_block, n % ids);
                format!("{{\"block\":{block},\"region\":\"r\",\"id\":\"{id}\",\"size\":{size}}}\n")
            };
            let project = Project::with(&pipeline(memory), script, &(0..events).map(event).collect::<String>());
            project.run_json();
            let counted = project.query("p.db", "SELECT count(*), sum(i) FROM thing");
            assert_eq!(counted, [[ids.to_string(), events.to_string()]]);
            project.forebay(&["rollback", "pipeline.toml", "--to", "0"]).ok();
            let counted = project.query("p.db", "SELECT count(*), sum(i) FROM thing");
            assert_eq!(counted, [[per_block.to_string(), per_block.to_string()]]);
        }
    }
}

crate::both_stores! {
    /// Rows that a dry run asks for come along as far as there is room: the call that needs them gets them in its order.
    fn large_rows_that_come_ahead_take_what_memory_is_left() {
        let set = r#"function on_event(e, ctx) ctx.thing:set(e.id, { i = 1, t = ("x"):rep(300000) }) end"#;
        let get = r#"function on_event(e, ctx) ctx.thing:set("of " .. e.id, { i = #ctx.thing:get(e.id).t }) end"#;
        let events = |from: u32| -> String {
            let event = |n: u32| format!("{{\"block\":{n},\"region\":\"r\",\"id\":\"{}\"}}\n", n % 30);
            (from..from + 30).map(event).collect()
        };
        let project = Project::with(&pipeline("[batch]\nmemory = \"64MiB\""), set, &events(0));
        project.run_json();
        project.write("pipeline.toml", pipeline("[batch]\nmemory = \"16MiB\""));
        project.write("handlers.lua", get);
        project.write("events.ndjson", events(0) + &events(30));
        project.run_json();
        let counted = project.query("p.db", "SELECT count(*), sum(i) FROM thing");
        assert_eq!(counted, [["60", "9000030"]]);
    }

    /// One row that does not fit is a lack of memory of the handler that reads it, and names its event.
    fn a_row_that_does_not_fit_ends_the_run_at_its_event() {
        let set = r#"function on_event(e, ctx) ctx.thing:set(e.id, { i = 1, t = ("x"):rep(e.size) }) end"#;
        let get = r#"function on_event(e, ctx) local t = ctx.thing:get(e.id) end"#;
        // Alone, and among regions that cross together.
        for others in [0, 5] {
            let line = |n: u32, region: u32| {
                let size = if region == 0 { 9_000_000 } else { 1 };
                format!("{{\"block\":{n},\"region\":\"r{region}\",\"id\":\"a\",\"size\":{size}}}\n")
            };
            let event = |n: u32| (0..=others).map(|region| line(n, region)).collect::<String>();
            let project = Project::with(&pipeline("[batch]\nmemory = \"64MiB\""), set, &event(1));
            project.run_json();
            project.write("pipeline.toml", pipeline("[batch]\nmemory = \"16MiB\""));
            project.write("handlers.lua", get);
            project.write("events.ndjson", event(1) + &event(2));
            let line = format!("events.ndjson:{}", others + 2);
            project.forebay(&["run", "pipeline.toml"]).fails(1, &[&line, "memory"]);
        }
    }
}

crate::both_stores! {
    /// Counted in the store and in what is staged, while batches commit.
    fn a_count_is_right_at_every_event_without_the_rows() {
        let script = r#"function on_event(e, ctx)
          if e.gone then ctx.thing:delete(e.id) else ctx.thing:set(e.id, { t = ("x"):rep(200), i = 1 }) end
          if ctx.thing:count() ~= e.count then error(ctx.thing:count() .. " rows, not " .. e.count) end
        end"#;
        let mut live = std::collections::BTreeSet::new();
        let mut state = 3_u64;
        let mut events = String::new();
        for block in 0..6000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let id = (state >> 33) % 5000;
            let gone = (state >> 20).is_multiple_of(4);
            if gone {
                live.remove(&id)
            } else {
                live.insert(id)
            };
            events.push_str(&format!(
                "{{\"block\":{block},\"region\":\"r\",\"id\":\"{id}\",\"gone\":{gone},\"count\":{}}}\n",
                live.len()
            ));
        }
        let project = Project::with(&pipeline("[batch]\nevents = 50"), script, &events);
        // The table is too large to be loaded whole when the second run begins.
        project.forebay(&["run", "pipeline.toml", "--until", "3000"]).ok();
        project.run_json();
        assert_eq!(project.query("p.db", "SELECT count(*) FROM thing"), [[live.len().to_string()]]);
    }
}

crate::both_stores! {
    /// A call that is tried ahead must not see half of what the one before it does, or it might run for ever.
    fn a_call_that_is_tried_ahead_sees_whole_events_only() {
        let script = r#"function on_event(e, ctx)
          if e.kind == "row" then ctx.thing:set(e.id, { i = 1, t = ("x"):rep(400) }) return end
          if e.kind == "half" then
            ctx.thing:set("x", { nxt = "x" })
            ctx.thing:get(e.id)
            ctx.thing:set("x", { i = 7 })
            return
          end
          local at = "x"
          repeat at = (ctx.thing:get(at) or {}).nxt until at == nil
          ctx.thing:set("seen", { i = ctx.thing:get("x").i })
        end"#;
        let mut events: String =
            (0..3000).map(|n| format!("{{\"block\":{n},\"region\":\"r\",\"kind\":\"row\",\"id\":\"k{n}\"}}\n")).collect();
        events.push_str("{\"block\":3000,\"region\":\"r\",\"kind\":\"half\",\"id\":\"k7\"}\n{\"block\":3001,\"region\":\"r\",\"kind\":\"walk\"}\n");
        let project = Project::with(&pipeline("").replace("script =", "timeout = \"2s\"\nscript ="), script, &events);
        project.forebay(&["run", "pipeline.toml", "--until", "2999"]).ok();
        project.run_json();
        assert_eq!(project.query("p.db", "SELECT i FROM thing WHERE id IN ('x', 'seen')"), [["7"], ["7"]]);
    }
}

crate::both_stores! {
    /// A call that is tried ahead may look for what the parked one has not written yet; that must not end the run.
    fn a_call_that_is_tried_ahead_ends_even_if_it_looks_for_ever() {
        let script = r#"function on_event(e, ctx)
          if e.kind == "row" then ctx.thing:set(e.id, { i = 1, t = ("x"):rep(400) }) return end
          if e.kind == "open" then
            ctx.slot:set("slot:7", {})
            ctx.thing:get(e.id)
            return
          end
          local n = 0
          while not ctx.slot:get("slot:" .. n) do n = n + 1 end
          ctx.slot:set("found", { i = n })
        end"#;
        let mut events: String =
            (0..3000).map(|n| format!("{{\"block\":{n},\"region\":\"r\",\"kind\":\"row\",\"id\":\"k{n}\"}}\n")).collect();
        events.push_str("{\"block\":3000,\"region\":\"r\",\"kind\":\"open\",\"id\":\"k7\"}\n{\"block\":3000,\"region\":\"r\",\"kind\":\"look\"}\n");
        let entities = "[entities.slot]\ncolumns = { i = \"bigint\" }\n[handlers]\ntimeout = \"2s\"";
        let project = Project::with(&pipeline("").replace("[handlers]", entities), script, &events);
        project.forebay(&["run", "pipeline.toml", "--until", "2999"]).ok();
        project.run_json();
        assert_eq!(project.query("p.db", "SELECT i FROM slot WHERE id = 'found'"), [["7"]]);
    }
}

/// Rows of a table that is never read are let go once they are committed; what is known of them must stay right.
const UNREAD: &str = r#"function on_event(e, ctx)
  if e.kind == "set" then ctx.thing:set(e.id, { i = e.block, t = ("x"):rep(e.long or 0) })
  elseif e.kind == "delete" then ctx.thing:delete(e.id)
  else
    local row = ctx.thing:get(e.id)
    ctx.slot:set(e.id, { i = row and row.i or -1 })
  end
end"#;

fn unread(more: &str) -> String {
    pipeline("").replace("[handlers]", &format!("[entities.slot]\ncolumns = {{ i = \"bigint\" }}\n{more}\n[handlers]"))
}

fn event(block: u64, kind: &str, id: &str) -> String {
    format!("{{\"block\":{block},\"region\":\"r\",\"kind\":\"{kind}\",\"id\":\"{id}\"}}\n")
}

crate::both_stores! {
    /// A row that is made, removed and made again in one batch was written, and not said to be new: it is there all the same.
    fn a_row_that_was_let_go_is_known_to_be_there() {
        for last in ["delete", "get"] {
            let mut events: String = (1..300).map(|block| event(block, "set", &format!("a{block}"))).collect();
            for kind in ["set", "delete", "set"] {
                events.push_str(&event(300, kind, "x"));
            }
            events.extend((301..600).map(|block| event(block, "set", &format!("b{block}"))));
            events.push_str(&event(600, last, "x"));
            let project = Project::with(&unread("[batch]\nevents = 1"), UNREAD, &events);
            project.run_json();
            let is_there = project.query("p.db", "SELECT i FROM thing WHERE id = 'x'");
            let seen = project.query("p.db", "SELECT i FROM slot");
            match last {
                "delete" => assert!(is_there.is_empty(), "{is_there:?}"),
                _ => assert_eq!((is_there, seen), (vec![vec!["300".to_owned()]], vec![vec!["300".to_owned()]])),
            }
        }
    }
}

crate::both_stores! {
    /// Rows are moved together when memory is short, while those of batches that are not committed wait to be let go.
    fn rows_that_are_never_read_are_all_stored_when_memory_is_short() {
        let rows = 40_000;
        let events: String = (0..rows)
            .map(|n| {
                let kind = if n % 7 == 6 { "delete" } else { "set" };
                // Some rows are written again, some of those that went are made again.
                let id = if n % 3 == 0 { n / 2 } else { n };
                format!("{{\"block\":{n},\"region\":\"r{}\",\"kind\":\"{kind}\",\"id\":\"k{id}\",\"long\":{}}}\n", n % 2, 200 + n % 300)
            })
            .collect();
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..rows {
            let id = (format!("r{}", n % 2), format!("k{}", if n % 3 == 0 { n / 2 } else { n }));
            if n % 7 == 6 { expected.remove(&id); } else { expected.insert(id, n.to_string()); }
        }
        let project = Project::with(&unread("[batch]\nevents = 50\nmemory = \"16MiB\""), UNREAD, &events);
        project.run_json();
        let found = project.query("p.db", "SELECT region, id, i FROM thing");
        let found = found.into_iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
        assert!(expected == found, "rows are wrong");
    }
}

crate::both_stores! {
    /// A table that only snapshots read: what was removed and made again is counted and found once it was let go.
    fn a_table_that_only_snapshots_read_is_counted_whole() {
        let script = format!("{UNREAD}\nfunction on_snapshot(ctx)
          local ids = {{}}
          for at, row in ipairs(ctx.thing:find{{ limit = 3 }}) do ids[at] = row.id end
          return {{ count = ctx.thing:count(), ids = ids }}
        end");
        let mut events = String::new();
        for (kind, id) in [("set", "a"), ("set", "b"), ("delete", "a"), ("set", "a")] {
            events.push_str(&event(1, kind, id));
        }
        events.extend((2..1500).map(|block| event(block, "set", &format!("k{block:04}"))));
        let project = Project::with(&unread("[batch]\nevents = 4"), &script, &events);
        project.run_json();
        let latest = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json_lines();
        assert_eq!(latest[0], serde_json::json!({ "count": 1500, "ids": ["a", "b", "k0002"] }));
    }
}
