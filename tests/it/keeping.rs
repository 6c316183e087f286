//! What a script keeps from one call to the next: a run and a run in pieces of the same source end alike, or the script is
//! refused with its line.

use crate::support::cases::{assert_none, blocks, complaint_untouched};
use crate::support::project::Project;

const PIPELINE: &str = r#"
name = "p"
[source]
path = "events.ndjson"
[entities.thing]
columns = { n = "bigint" }
[handlers]
script = "handlers.lua"
timeout = "2s"
[store]
url = "sqlite:p.db"
"#;

/// Name, what stands before `on_event`, what `on_event(e, ctx)` does, what is said.
const REFUSED: &[(&str, &str, &str, &[&str])] = &[
    (
        "the current ctx",
        "local ctx\nlocal function bump(id) local row = ctx.thing:get(id) or { n = 0 } row.n = row.n + 1 ctx.thing:set(id, row) end",
        "ctx = c bump(e.id) bump(e.to)",
        &["handlers.lua:4: a function assigns to ctx", "hand it to functions as an argument"],
    ),
    ("the current event", "local event", "event = e", &["handlers.lua:3: a function assigns to event"]),
    ("a counter", "local n = 0", "n = n + 1 c.thing:set(e.id, { n = n })", &["handlers.lua:3: ", "to n,"]),
    ("a cache", "local last = {}", "last = { e.id }", &["handlers.lua:3: ", "to last,", "keep it in a row"]),
    (
        "a counter of a factory",
        "local function counter() local n = 0 return function() n = n + 1 return n end end local next_id = counter()",
        "c.thing:set(e.id, { n = next_id() })",
        &["handlers.lua:2: ", "to n,"],
    ),
    (
        "an iterator",
        "local ids = ('a b c'):gmatch('%a')",
        "c.thing:set(ids(), { n = 1 })",
        &["handlers.lua:3: ids is an iterator"],
    ),
    (
        "a finaliser",
        "local o = setmetatable({}, { __gc = false })",
        "",
        &["handlers.lua:2: ", "__gc, __mode and __close"],
    ),
    (
        "a weak table",
        "local m = {} cache = setmetatable({}, m) m.__mode = 'k'",
        "",
        &["cache: __gc, __mode and __close"],
    ),
    ("other globals", "", "_ENV = {}", &["handlers.lua:3: _ENV cannot be assigned to"]),
];

fn script(head: &str, body: &str) -> String {
    format!("-- A script.\n{}\nfunction on_event(e, c) {body} end\n", head.trim_end())
}

#[test]
fn a_script_that_keeps_state_beside_its_rows_is_refused() {
    assert_none(REFUSED.iter().flat_map(|(name, head, body, says)| {
        let project = Project::with(PIPELINE, &script(head, body), &blocks(1..=3));
        ["run", "check"].map(|command| {
            let outcome = project.forebay(&[command, "pipeline.toml"]);
            complaint_untouched(&format!("{command}: {name}"), &project, &outcome, says)
        })
    }));
}

/// 200 blocks of 6 regions; ids come again, so that calls wait for rows after each restart.
fn events() -> String {
    let event = |block: u64, region: u64| {
        let (id, to) = ((block * 7 + region) % 23, (block * 5 + region * 3) % 19);
        format!("{{\"block\":{block},\"region\":\"r{region}\",\"id\":\"x{id}\",\"to\":\"y{to}\",\"v\":{block}}}\n")
    };
    (1..=200).flat_map(|block| (0..6).map(move |region| event(block, region))).collect()
}

/// What is loaded once, read by all calls, and closures and counters that begin anew with each call.
#[test]
fn one_run_and_many_runs_end_alike() {
    let head = r#"
local STEPS = { x = 2, y = 3, list = { 1, 2, 3 } }
local Row = {}
Row.__index = Row
Row.__eq = function(a, b) return a.n == b.n end
function Row.of(n) return setmetatable({ n = n }, Row) end
function Row:up(by) self.n = self.n + by return self end
local function each(list, f) for _, item in ipairs(list) do f(item) end end
local function counter() local n = 0 return function(by) n = n + by return n end end
local count = 0
local function register(name) count = count + 1 STEPS[name] = count end
register("a") register("b")
local registered = count"#;
    let body = r#"
  local sum, add = 0, counter()
  each(STEPS.list, function(n) sum = sum + n add(n) end)
  assert(sum == 6 and add(0) == 6 and registered == 2 and STEPS.b == 2)
  for _, id in ipairs{ e.id, e.to } do
    local row = c.thing:get(id) or { n = 0 }
    local made = Row.of(row.n):up(STEPS[id:sub(1, 1)] * e.v + sum)
    assert(made == Row.of(made.n) and made ~= Row.of(made.n + 1))
    row.n = made.n
    c.thing:set(id, row)
  end
"#;
    let state = |project: &Project| project.query("p.db", "SELECT region, id, n FROM thing ORDER BY 1, 2");
    let whole = Project::with(PIPELINE, &script(head, body), &events());
    whole.forebay(&["run", "pipeline.toml"]).ok();
    let pieces = Project::with(PIPELINE, &script(head, body), &events());
    for until in ["40", "80", "120", "160", "200"] {
        pieces.forebay(&["run", "pipeline.toml", "--until", until]).ok();
    }
    assert_eq!(state(&whole), state(&pieces));
    assert_eq!(state(&whole).len(), 6 * (23 + 19));
}

/// Numbers of 64 bits make the arithmetic checked everywhere: the methods that a script adds to texts are those of its
/// handlers then, too.
#[test]
fn what_a_script_adds_to_texts_is_as_checked_as_its_handlers() {
    let head = "function string.plus(text, n) return #text + n end";
    let body = "c.thing:set(e.id, { n = ('x'):plus(e.v) })";
    let event = |block: u64, v: i64| format!("{{\"block\":{block},\"region\":\"r\",\"id\":\"{block}\",\"v\":{v}}}\n");
    let events: String = (1..=3000).map(|block| event(block, 1)).chain([event(3001, i64::MAX)]).collect();
    let project = Project::with(PIPELINE, &script(head, body), &events);
    let outcome = project.forebay(&["run", "pipeline.toml"]);
    outcome.fails(1, &["handlers.lua:2: ", "leaves the 64 bits of an integer", "block 3001"]);
}
