//! Rows that change themselves: `add`, `max` and `min` of scripts, and `update` of handlers in Rust, against the same with
//! `get` and `set`.

use std::fmt::Write as _;

use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline};

use crate::support::dice::Dice;
use crate::support::project::Project;

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = {{ big = \"bigint\", num = \"numeric\", \
         dbl = \"double\", txt = \"text\", at = \"timestamptz\", pad = \"text\" }}\nindexes = [\"big\", \"at\"]\n[handlers]\n\
         script = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \"end\"\n{more}\n"
    )
}

/// What both scripts do beside the changes: rows that are read, found, written and deleted meanwhile.
const SHARED: &str = r#"
function on_event(e, ctx)
  if e.op == "set" then return ctx.t:set(e.id, { big = e.big, pad = ("x"):rep(e.pad) }) end
  if e.op == "delete" then return ctx.t:delete(e.id) end
  if e.op == "find" then
    local found = ctx.t:find{ order = "-big", limit = 1 }[1]
    return ctx.t:set("found", { big = found and found.big, txt = found and found.id, num = ctx.t:count() })
  end
  if e.op == "read" then
    local row = ctx.t:get(e.id)
    return ctx.t:set("read", { big = row and row.big, num = row and row.num, txt = row and row.txt })
  end
  local ok = pcall(change, ctx, e.id, e)
  -- A change that comes after another one of the same call.
  if e.twice then pcall(change, ctx, e.twice, e) end
  if not ok then ctx.t:set("refused", { txt = e.id, big = e.block }) end
end
"#;

const SHORT: &str = r#"
function change(ctx, id, e)
  if e.op == "add" then ctx.t:add(id, { big = e.big, num = e.num, dbl = e.dbl }) end
  if e.op == "max" then ctx.t:max(id, { big = e.big, num = e.num, txt = e.txt, at = e.at }) end
  if e.op == "min" then ctx.t:min(id, { big = e.big, num = e.num, txt = e.txt, at = e.at }) end
end
"#;

const LONG: &str = r#"
function better(op, was, value)
  if was == nil then return value end
  if op == "max" then return value > was and value or was end
  return value < was and value or was
end
function change(ctx, id, e)
  local row = ctx.t:get(id) or {}
  if e.op == "add" then
    local sum = numeric(row.big or 0) + numeric(e.big or 0)
    if e.big then row.big = sum end
    if e.num then row.num = (row.num or numeric(0)) + numeric(e.num) end
    if e.dbl then row.dbl = (row.dbl or 0.0) + e.dbl end
  else
    if e.big then row.big = better(e.op, row.big, e.big) end
    if e.num then row.num = better(e.op, row.num, numeric(e.num)) end
    if e.txt then row.txt = better(e.op, row.txt, e.txt) end
    if e.at then row.at = better(e.op, row.at, e.at) end
  end
  ctx.t:set(id, row)
end
"#;

fn events(count: u64, ids: u64, pad: u64, seed: u64) -> String {
    let mut dice = Dice(seed);
    let mut events = String::new();
    for n in 0..count {
        let (block, region, id) = (n / 20, dice.below(2), dice.below(ids));
        let op = ["add", "add", "add", "add", "max", "min", "set", "delete", "read", "find"][dice.below(10) as usize];
        let op = if op == "find" && dice.below(20) > 0 { "add" } else { op };
        let _ = write!(events, r#"{{"block":{block},"region":"r{region}","op":"{op}","id":"i{id}","pad":{pad}"#);
        if dice.below(4) > 0 {
            let big = match dice.below(20) {
                0 => i64::MAX - dice.below(3) as i64,
                1 => i64::MIN + dice.below(3) as i64,
                _ => dice.below(2000) as i64 - 1000,
            };
            let _ = write!(events, r#","big":{big}"#);
        }
        if dice.below(4) > 0 {
            let num = match dice.below(6) {
                0 => format!("{}.{}", dice.below(100), dice.below(100)),
                1 => "9".repeat(1 + dice.below(45) as usize),
                2 => format!("-{}", "9".repeat(1 + dice.below(45) as usize)),
                _ => dice.below(1_000_000_000).to_string(),
            };
            let _ = write!(events, r#","num":"{num}""#);
        }
        if dice.below(2) == 0 {
            let _ = write!(events, r#","dbl":{}.5,"txt":"t{}""#, dice.below(100), dice.below(100));
            let _ = write!(events, r#","at":"20{:02}-01-01T00:00:00Z""#, dice.below(100));
        }
        if dice.below(5) == 0 {
            let _ = write!(events, r#","twice":"i{}""#, dice.below(ids));
        }
        events.push_str("}\n");
    }
    events
}

const ROWS: &str = "SELECT region, id, big, num, dbl, txt, at FROM t ORDER BY region, id";

/// Runs both scripts over the same events, goes back, and goes on.
fn compare(events: &str, more: &str, back_to: Option<&str>) {
    let [short, long] =
        [SHORT, LONG].map(|change| Project::with(&pipeline(more), &format!("{change}{SHARED}"), events));
    let same = |what: &str| {
        let (left, right) = (short.query("p.db", ROWS), long.query("p.db", ROWS));
        assert_eq!(left.len(), right.len(), "{what}: rows");
        for (left, right) in left.iter().zip(&right) {
            assert_eq!(left, right, "{what}");
        }
        assert!(left.len() > 100, "{what}: {} rows", left.len());
    };
    for project in [&short, &long] {
        project.run_json();
    }
    same("after a run");
    assert_eq!(short.query("p.db", "SELECT count(*) FROM t WHERE id = 'refused'"), [["2"]], "sums were refused");
    if let Some(block) = back_to {
        for project in [&short, &long] {
            project.forebay(&["rollback", "pipeline.toml", "--to", block]).ok();
        }
        same("after a rollback");
        for project in [&short, &long] {
            project.run_json();
        }
        same("after a run that goes on");
    }
}

crate::both_stores! {
    fn changes_are_what_get_and_set_would_be_with_a_history() {
        compare(&events(6000, 150, 10, 1), "[rollback]\ndepth = 200\n[batch]\nevents = 300", Some("170"));
    }
}

#[test]
fn changes_are_what_get_and_set_would_be_without_one() {
    compare(&events(6000, 400, 10, 2), "[batch]\nevents = 100", None);
}

/// Rows are let go and come back.
#[test]
fn changes_are_what_get_and_set_would_be_in_little_memory() {
    let more = "[rollback]\ndepth = 40\n[batch]\nevents = 500\nmemory = \"16MiB\"";
    compare(&events(16_000, 6000, 3000, 3), more, Some("770"));
}

#[test]
fn what_leaves_64_bits_is_named() {
    let events = "{\"block\":1,\"region\":\"r\",\"op\":\"add\",\"id\":\"a\",\"big\":9223372036854775807}\n\
                  {\"block\":2,\"region\":\"r\",\"op\":\"add\",\"id\":\"a\",\"big\":1}\n";
    let script = "function on_event(e, ctx) ctx.t:add(e.id, { big = e.big }) end";
    Project::with(&pipeline(""), script, events).forebay(&["run", "pipeline.toml"]).fails(
        1,
        &[
            "handlers.lua:1: t.big: add to the row the text \"a\": 9223372036854775807 + 1 leaves the 64 bits of a bigint",
            "block 2, region \"r\", events.ndjson:2",
        ],
    );
    let script = "function on_event(e, ctx) ctx.t:add(e.id, { bigg = e.big }) end";
    let says = ["t:add: there is no column \"bigg\"; did you mean \"big\"?"];
    Project::with(&pipeline(""), script, events).forebay(&["run", "pipeline.toml"]).fails(1, &says);
}

forebay::entity! {
    /// A thing that is counted.
    struct Thing in "t" {
        big: i64,
        txt: Option<String>,
    }
}

#[derive(serde::Deserialize)]
struct Change {
    id: String,
    #[serde(default)]
    twice: Option<String>,
    #[serde(default)]
    big: Option<i64>,
    op: String,
}

/// The same handler with `update`, or with `get`, `set` and `delete`.
struct Things {
    in_place: bool,
}

impl Handler for Things {
    type Event<'e> = Change;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Thing::table()]
    }

    fn on_event(&self, change: Change, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let apply = |thing: &mut Option<Thing>| match change.op.as_str() {
            "delete" => *thing = None,
            // Filled in by some, left alone by others.
            "read" => {}
            _ => {
                let thing = thing.get_or_insert(Thing { big: 0, txt: None });
                thing.big = thing.big.wrapping_add(change.big.unwrap_or(1));
                thing.txt = Some(format!("{}{}", thing.txt.take().unwrap_or_default().len(), change.op));
            }
        };
        for id in std::iter::once(&change.id).chain(&change.twice) {
            if self.in_place {
                ctx.update(id, apply)?;
                continue;
            }
            let was = ctx.get::<Thing>(id)?;
            let mut thing = was.clone();
            apply(&mut thing);
            match thing {
                Some(thing) => ctx.set(id, thing)?,
                None if was.is_some() => ctx.delete::<Thing>(id)?,
                None => {}
            }
        }
        Ok(())
    }
}

#[test]
fn update_is_what_get_and_set_would_be() {
    let projects = [true, false].map(|in_place| {
        let project = Project::new();
        project.write("events.ndjson", events(6000, 150, 10, 4));
        let pipeline = || {
            let batch = forebay::config::BatchConfig::default().with_events(300).expect("events");
            Pipeline::new("p", Things { in_place })
                .and_then(|pipeline| pipeline.store_url(&project.store("p.db")))
                .expect("a pipeline")
                .source_path(&project.path("events.ndjson").to_string_lossy())
                .batch(batch)
                .rollback_depth(200)
        };
        pipeline().run().expect("a run");
        let first = project.query("p.db", "SELECT region, id, big, txt FROM t ORDER BY region, id");
        pipeline().rollback(170).expect("a rollback");
        let back = project.query("p.db", "SELECT region, id, big, txt FROM t ORDER BY region, id");
        pipeline().run().expect("a run that goes on");
        assert_eq!(project.query("p.db", "SELECT region, id, big, txt FROM t ORDER BY region, id"), first);
        assert_ne!(first, back);
        (first, back)
    });
    assert!(projects[0].0.len() > 100);
    assert_eq!(projects[0], projects[1]);
}
