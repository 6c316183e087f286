//! Scripts that are wrong: code 2 and nothing made if they cannot be loaded; code 1, the script's line, the block and
//! the event if a handler fails.

use crate::support::cases::{PIPELINE, SCRIPT, assert_none, blocks, complaint, complaint_untouched, replaced};
use crate::support::project::Project;

const RUN: [&str; 2] = ["run", "pipeline.toml"];

/// Name, script, what is said.
type Case = (&'static str, &'static str, &'static [&'static str]);

const LOADING: &[Case] = &[
    ("syntax", "function on_event(event, ctx)\n  x = = 1\nend", &["handlers.lua:2:", "unexpected symbol near '='"]),
    ("no end", "function on_event(event, ctx)\n", &["handlers.lua:2:", "'end' expected"]),
    ("empty", "", &["handlers.lua", "there is no function on_event"]),
    ("another name", "function on_evnet(event, ctx) end", &["handlers.lua", "there is no function on_event"]),
    ("on_event a number", "on_event = 5", &["handlers.lua", "on_event"]),
    (
        "on_snapshot a text",
        "function on_event() end\non_snapshot = \"x\"",
        &["handlers.lua", "on_snapshot is a string", "expected a function"],
    ),
    ("nil index", "local x = nil\nlocal y = x.z", &["handlers.lua:2:", "attempt to index a nil value"]),
    ("error", "error(\"boom\")", &["handlers.lua:1: boom"]),
    ("error with a table", "error({})", &["handlers.lua", "a table"]),
    ("error with nil", "error()", &["handlers.lua", "nil"]),
    (
        "memory",
        "local t = {} while true do t[#t+1] = string.rep(\"x\", 1e6) end",
        &["handlers.lua", "memory", "batch.memory"],
    ),
    ("bytecode", "\u{1b}Lua", &["handlers.lua", "binary chunk"]),
    ("io", "local f = io.open(\"x\")", &["handlers.lua:1:", "'io'"]),
    ("os", "\nlocal f = os.time()", &["handlers.lua:2:", "'os'"]),
    ("require", "require(\"x\")", &["handlers.lua:1:", "'require'"]),
    ("load", "load(\"return 1\")", &["handlers.lua:1:", "'load'"]),
    ("dofile", "dofile(\"x\")", &["handlers.lua:1:", "'dofile'"]),
    ("debug", "debug.getinfo(1)", &["handlers.lua:1:", "'debug'"]),
    ("math.random", "math.random()", &["handlers.lua:1:", "'random'"]),
];

#[test]
fn a_script_that_cannot_be_loaded_makes_nothing() {
    let pipeline = replaced(PIPELINE, "events = 1", "memory = \"32MiB\"");
    assert_none(LOADING.iter().flat_map(|(name, script, says)| {
        let project = Project::with(&pipeline, script, &blocks(1..=3));
        ["run", "check"].map(|command| {
            let outcome = project.forebay(&[command, "pipeline.toml"]);
            complaint_untouched(&format!("{command}: {name}"), &project, &outcome, says)
        })
    }));
}

#[test]
fn a_script_that_is_no_text_makes_nothing() {
    let project = Project::with(PIPELINE, "", &blocks(1..=3));
    project.write("handlers.lua", b"-- \xff\nfunction on_event() end\n");
    let outcome = project.forebay(&RUN);
    assert_none([complaint_untouched("not UTF-8", &project, &outcome, &["handlers.lua", "UTF-8"])]);
}

/// Runs a handler whose third line is `body`, in block 3.
fn run_body(pipeline: &str, head: &str, body: &str) -> (Project, crate::support::project::Outcome) {
    let script = format!(
        "{head}function on_event(event, ctx)\n  if event.block < 3 then ctx.thing:set(event.block, {{ big = 1 }}) return end\n  {body}\nend\n"
    );
    let project = Project::with(pipeline, &script, &blocks(1..=3));
    let outcome = project.forebay(&RUN);
    (project, outcome)
}

#[track_caller]
fn check_bodies(pipeline: &str, head: &str, line: &str, cases: &[Case]) {
    assert_none(cases.iter().flat_map(|(name, body, says)| {
        let (project, outcome) = run_body(pipeline, head, body);
        let place = [line, "block 3", "region \"r\"", "events.ndjson:3", "event {\"block\":3,"];
        let rows = project.query("p.db", "SELECT id FROM thing WHERE id NOT IN ('1', '2')");
        let committed = format!("== {name}: the failed batch is committed: {rows:?}\n");
        [complaint(name, &outcome, 1, &[&place, *says].concat()), (!rows.is_empty()).then_some(committed)]
    }));
}

const FAILING: &[Case] = &[
    ("nil index", "local x = event.nothing.deep", &["attempt to index a nil value (field 'nothing')"]),
    ("nil call", "nofunc()", &["attempt to call a nil value (global 'nofunc')"]),
    ("arithmetic", "local x = event.region + {}", &["attempt to"]),
    ("error", "error(\"not so\")", &[": not so"]),
    ("assert", "assert(false, \"not so\")", &["not so"]),
    (
        "unknown entity",
        "ctx.thign:get(\"a\")",
        &["ctx has no \"thign\"", "did you mean \"thing\"?", "region, block, thing"],
    ),
    ("unknown entity, tail call", "return ctx.thign:get(\"a\")", &["did you mean \"thing\"?"]),
    (
        "unknown column",
        "ctx.thing:set(\"a\", { bgi = 1 })",
        &["thing:set: there is no column \"bgi\"", "did you mean \"big\"?"],
    ),
    ("a list as a row", "ctx.thing:set(\"a\", { 1 })", &["thing:set: there is no column"]),
    ("unknown method", "ctx.thing:upsert(\"a\", {})", &["'upsert'"]),
    ("a dot", "ctx.thing.set(\"a\", {})", &["call it with a colon", "ctx.entity:set"]),
    (
        "set without an id",
        "ctx.thing:set(nil, { big = 1 })",
        &["thing:set: expected an id (text or a whole number), got", "nil"],
    ),
    ("set by a float", "ctx.thing:set(1.5, { big = 1 })", &["thing:set: expected an id", "1.5"]),
    ("get by a table", "ctx.thing:get({})", &["thing:get: expected an id", "table"]),
    ("an id with a NUL", r#"ctx.thing:set("a\0", { big = 1 })"#, &["thing:set: id", "NUL"]),
    (
        "an id that is too long",
        r#"ctx.thing:set(("x"):rep(2049), { big = 1 })"#,
        &["thing:set: an id of 2049 bytes; expected at most 2048"],
    ),
    ("an id that is not UTF-8", r#"ctx.thing:set("\xff", { big = 1 })"#, &["thing:set: id", "not UTF-8"]),
    (
        "a bad id that was asked for before",
        r#"ctx.thing:get("\xff") ctx.thing:set("\xff", { big = 1 })"#,
        &["thing:", "not UTF-8"],
    ),
    ("delete without an id", "ctx.thing:delete()", &["thing:delete: expected an id"]),
    ("set without a row", "ctx.thing:set(\"a\")", &["thing:set: expected a table of columns, got", "nil"]),
    ("set of a number", "ctx.thing:set(\"a\", 5)", &["thing:set: expected a table of columns, got integer 5"]),
    ("a global", "counter = 1", &["globals are read-only", "counter", "keep state in entities"]),
    ("_G", "_G.counter = 1", &["globals are read-only", "counter"]),
    ("a library", "string.x = 1", &["string is read-only", "keep state in entities", "in: string.x = 1"]),
    ("ctx", "ctx.x = 1", &["ctx is read-only", "x"]),
    ("ctx.region", "ctx.region = \"s\"", &["ctx is read-only", "region"]),
    ("ctx.block", "ctx.block = 7", &["ctx is read-only", "block"]),
    ("ctx.thing", "ctx.thing = nil", &["ctx is read-only", "thing"]),
    ("an entity", "ctx.thing.x = 1", &["read-only", "x"]),
    ("the inside of an entity", "ctx.thing[1] = {}", &["read-only"]),
    ("find: an event", "ctx.thing:find(event)", &["thing:find: expected a table such as"]),
    ("count: an event", "ctx.thing:count(event)", &["thing:count: expected a table such as"]),
    ("find: an event as conditions", "ctx.thing:find{ where = event }", &["where: expected a list of conditions"]),
    (
        "find: no index",
        "ctx.thing:find{ order = \"dbl\" }",
        &["thing:find", "\"dbl\" needs the line indexes = [\"dbl\"] in [entities.thing]"],
    ),
    (
        "find: condition without an index",
        "ctx.thing:find{ where = {{ \"dbl\", \"=\", 1 }} }",
        &["thing:find", "\"dbl\" needs the line"],
    ),
    (
        "find: unknown column",
        "ctx.thing:find{ order = \"-bgi\" }",
        &["thing:find: there is no column \"bgi\"", "did you mean \"big\"?"],
    ),
    (
        "find: operator",
        "ctx.thing:find{ where = {{ \"big\", \"!=\", 1 }} }",
        &["thing:find: ", "\"!=\" is no operator", "= < <= > >="],
    ),
    ("find: value", "ctx.thing:find{ where = {{ \"big\", \"=\", \"x\" }} }", &["thing.big: expected a bigint"]),
    ("find: nil", "ctx.thing:find{ where = {{ \"big\", \"=\" }} }", &["thing:find", "nil, which nothing matches"]),
    ("find: key", "ctx.thing:find{ oder = \"big\" }", &["thing:find: unknown key", "\"oder\"", "where, order, limit"]),
    ("find: limit", "ctx.thing:find{ limit = -1 }", &["thing:find: limit: expected a count, got integer -1"]),
    ("find: a text", "ctx.thing:find(\"big\")", &["thing:find: expected a table"]),
    ("find: where a text", "ctx.thing:find{ where = \"big\" }", &["thing:find: where: expected a list"]),
    ("find: where by name", "ctx.thing:find{ where = { big = 1 } }", &["thing:find: where: expected a list"]),
    (
        "find: one condition without its list",
        "ctx.thing:find{ where = { \"big\", \"=\", 1 } }",
        &["thing:find: where: expected a list"],
    ),
    ("numeric of a text", "numeric(\"x\")", &["numeric: expected a decimal number, got \"x\""]),
    ("numeric by zero", "local x = numeric(1) / 0", &["division by zero"]),
    ("numeric and nil", "local x = numeric(1) + nil", &["numeric: expected a number", "nil"]),
    ("array", "array(5)", &["array: expected a plain table"]),
    ("io", "io.open(\"x\")", &["'io'"]),
    ("os", "os.time()", &["'os'"]),
    ("require", "require(\"x\")", &["'require'"]),
    ("load", "load(\"return 1\")", &["'load'"]),
    ("math.random", "math.random()", &["'random'"]),
];

#[test]
fn a_failing_handler_names_line_block_and_event() {
    check_bodies(PIPELINE, "", "handlers.lua:3: ", FAILING);
}

const GLOBAL_TABLES: &[Case] = &[
    ("a field", "state.n = 1", &["read-only", "n"]),
    ("a nested one", "state.inner.n = 1", &["read-only", "n"]),
    ("table.insert", "table.insert(state, 1)", &["read-only"]),
];

#[test]
fn a_table_of_the_script_is_read_only_once_it_is_loaded() {
    check_bodies(PIPELINE, "state = { inner = {} }\n", "handlers.lua:4: ", GLOBAL_TABLES);
}

/// Lua gives no line with these, but the script has a name.
const WITHOUT_LINE: &[Case] = &[
    ("a table", "error({})", &["a table"]),
    ("nil", "error()", &["nil"]),
    ("a number", "error(5)", &["5"]),
    ("a table with a text", "error(setmetatable({}, { __tostring = function() return \"mine\" end }))", &["mine"]),
    ("a table whose text fails", "error(setmetatable({}, { __tostring = function() error(\"x\") end }))", &["a table"]),
    ("a text without a place", "error(\"plain\", 0)", &["plain"]),
    ("a table that hides its metatable", "error(setmetatable({}, { __metatable = true }))", &["a table"]),
    ("a tail call", "return ctx.thing:find{ order = \"dbl\" }", &["thing:find", "indexes = [\"dbl\"]"]),
];

#[test]
fn an_error_of_any_kind_names_the_script() {
    check_bodies(PIPELINE, "", "handlers.lua", WITHOUT_LINE);
}

const ENDLESS: &[Case] = &[
    ("while", "while true do end", &["200 ms (handlers.timeout)"]),
    ("pcall", "while true do pcall(error) end", &["200 ms (handlers.timeout)"]),
    ("goto", "::again:: goto again", &["200 ms (handlers.timeout)"]),
    ("a pattern", "string.find((\"a\"):rep(40000), (\".-\"):rep(40) .. \"b\")", &["200 ms (handlers.timeout)"]),
    (
        "a row's metatable",
        "ctx.thing:set(\"a\", setmetatable({}, { __index = function() while true do end end }))",
        &["200 ms"],
    ),
];

#[test]
fn an_endless_handler_is_ended() {
    let pipeline = replaced(PIPELINE, "script =", "timeout = \"200ms\"\nscript =");
    check_bodies(&pipeline, "", "handlers.lua", ENDLESS);
    let project = Project::with(&pipeline, "while true do end", &blocks(1..=3));
    let outcome = project.forebay(&RUN);
    let says = ["handlers.lua", "200 ms (handlers.timeout)", "loaded"];
    assert_none([complaint_untouched("while it is loaded", &project, &outcome, &says)]);
}

#[test]
fn endless_memory_is_refused() {
    const CASES: &[Case] = &[
        (
            "texts",
            "local t = {} while true do t[#t+1] = string.rep(\"x\", 1e6) end",
            &["memory", "32 MiB", "batch.memory"],
        ),
        ("one text", "local s = string.rep(\"x\", 1e9)", &["memory", "batch.memory"]),
        ("tables", "local t = {} while true do t = { t } end", &["memory", "batch.memory"]),
    ];
    check_bodies(&replaced(PIPELINE, "events = 1", "memory = \"32MiB\""), "", "handlers.lua", CASES);
}

/// Name, what `on_snapshot` does on the script's third line, what is said.
const SNAPSHOTS: &[Case] = &[
    ("set", "ctx.thing:set(\"a\", { big = 1 })", &["handlers.lua:3: on_snapshot may read, and not write"]),
    ("delete", "ctx.thing:delete(1)", &["handlers.lua:3: on_snapshot may read, and not write"]),
    ("an error", "local x = nil + 1", &["handlers.lua:3:", "arithmetic on a nil value"]),
    (
        "find without an index",
        "local x = ctx.thing:find{ order = \"dbl\" }",
        &["handlers.lua:3: thing:find", "indexes = [\"dbl\"]"],
    ),
    ("a global", "counter = 1", &["handlers.lua:3: globals are read-only"]),
    ("a function", "return print", &["handlers.lua: what on_snapshot returned: a function has no form in JSON"]),
    ("a function within", "return { a = { print } }", &["returned: a[1]: a function has no form in JSON"]),
    ("NaN", "return { x = 0/0 }", &["returned: x: NaN has no form in JSON"]),
    ("infinity", "return { x = { 1, 1/0 } }", &["returned: x[2]: inf has no form in JSON"]),
    ("a key that is no text", "return { a = { [true] = 1 } }", &["returned: a: a boolean as a key"]),
    ("such a key at the top", "return { [true] = 1 }", &["on_snapshot returned: a boolean as a key"]),
    ("a list with a hole", "return { [5] = 1 }", &["on_snapshot returned: a table with the number 5 among its keys"]),
    (
        "a list and an object",
        "return { 1, x = 2 }",
        &["on_snapshot returned: a table with the number 1 among its keys"],
    ),
    ("itself", "local t = {} t.t = t return t", &["nested deeper than 120, or contains itself"]),
    ("not UTF-8", r#"return { t = "\xff" }"#, &["returned: t: a text that is not UTF-8"]),
];

#[test]
fn a_failing_snapshot_names_region_and_block() {
    assert_none(SNAPSHOTS.iter().map(|(name, body, says)| {
        let project =
            Project::with(PIPELINE, &format!("{SCRIPT}function on_snapshot(ctx)\n  {body}\nend\n"), &blocks(1..=3));
        let place = ["handlers.lua", "the snapshot of region \"r\"", "block 3"];
        complaint(name, &project.forebay(&RUN), 1, &[&place, *says].concat())
    }));
}

#[test]
fn an_endless_snapshot_is_ended() {
    let pipeline = replaced(PIPELINE, "script =", "timeout = \"200ms\"\nscript =");
    let script = format!("{SCRIPT}function on_snapshot(ctx) while true do end end\n");
    let project = Project::with(&pipeline, &script, &blocks(1..=3));
    project.forebay(&RUN).fails(1, &["handlers.lua", "200 ms", "the snapshot of region \"r\"", "block 3"]);
}
