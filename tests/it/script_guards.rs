//! Scripts that would be wrong without a word: one run and many runs come to the same state, or the run ends and names
//! the script's line.

use crate::support::cases::{assert_none, complaint};
use crate::support::project::Project;

fn pipeline(more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = {{ v = \"bigint\", s = \"text\", n = \"numeric\", j = \"jsonb\" }}\nindexes = [\"v\"]\n[entities.u]\ncolumns = {{ v = \"bigint\" }}\n[handlers]\nscript = \"handlers.lua\"\ntimeout = \"60s\"\n[batch]\nevents = 5\nmemory = \"64MiB\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \"end\"\n{more}\n"
    )
}

/// Events of some regions: block, region, id, `v`.
fn events(blocks: i64, regions: &[&str], ids: i64) -> String {
    let mut lines = String::new();
    for block in 1..=blocks {
        for region in regions {
            let id = block % ids;
            lines += &format!("{{\"block\":{block},\"region\":\"{region}\",\"id\":\"x{id}\",\"v\":{block}}}\n");
        }
    }
    lines
}

const RUN: [&str; 2] = ["run", "pipeline.toml"];
const STATE: &str = "SELECT region, id, v, s, n, j FROM t ORDER BY region, id";

const OTHERS: &str = "SELECT region, id, v FROM u ORDER BY region, id";

/// What an inner test finds out of a `ctx` that was kept all the same, no script gets to.
#[test]
fn what_would_keep_a_call_is_refused() {
    let cases: &[(&str, &str, &str, i32, &str)] = &[
        ("a local", "local kept", "kept = ctx", 2, "assigns to kept"),
        (
            "a cell",
            "local function cell() local x return function(y) x = y end end\nlocal keep = cell()",
            "keep(ctx)",
            2,
            "assigns to x",
        ),
        ("an event", "local last", "last = e", 2, "assigns to last"),
        ("a table", "local held = {}", "held.ctx = ctx", 1, "held is read-only"),
        ("a list", "local held = {}", "table.insert(held, e)", 1, "held is read-only"),
        ("a closure", "local held = {}", "held.get = function(id) return ctx.t:get(id) end", 1, "held is read-only"),
    ];
    assert_none(cases.iter().map(|(name, head, body, code, says)| {
        let script = format!("{head}\nfunction on_event(e, ctx)\n  {body}\n  ctx.t:set(e.id, {{ v = e.v }})\nend\n");
        let project = Project::with(&pipeline(""), &script, &events(3, &["a", "b"], 2));
        complaint(name, &project.forebay(&RUN), *code, &["handlers.lua:", says])
    }));
}

/// The state after one run, after many, and with rows that are let go in between.
fn lived(name: &str, script: &str, lines: &str, blocks: i64) {
    let whole = Project::with(&pipeline(""), script, lines);
    whole.forebay(&RUN).ok();
    let rows = |project: &Project| [STATE, OTHERS].map(|sql| project.query("p.db", sql));
    let state = rows(&whole);
    assert!(!state[0].is_empty(), "{name}: nothing was written");
    let documents = |project: &Project| {
        let lines = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json_lines();
        lines.into_iter().map(|line| (line["region"].clone(), line["rows"].clone())).collect::<Vec<_>>()
    };
    let pieces = Project::with(&pipeline(""), script, lines);
    for block in 1..=blocks {
        pieces.forebay(&["run", "pipeline.toml", "--until", &block.to_string()]).ok();
    }
    pieces.forebay(&RUN).ok();
    assert_eq!(rows(&pieces), state, "{name}: in pieces\n{script}");
    assert_eq!(documents(&pieces), documents(&whole), "{name}: in pieces");
}

#[test]
fn rows_with_metatables_are_read_before_anything_is_looked_up() {
    let end = "\nfunction on_snapshot(ctx) return { rows = ctx.t:find{ order = \"v\" }, n = ctx.t:count() } end\n";
    for (name, body) in [
        (
            "defaults out of a row",
            "if e.v == 1 then ctx.t:set(\"d\", { v = 0, s = \"default\" }) end
            ctx.t:set(e.id, setmetatable({ v = e.v }, { __index = function(_, k) local d = ctx.t:get(\"d\") return d and d[k] end }))",
        ),
        (
            "a row that writes itself",
            "ctx.t:set(e.id, setmetatable({}, { __index = function(_, k)
              if k == \"v\" then ctx.t:set(e.id, { v = 7, s = \"inner\" }) return e.v end
              if k == \"s\" then local row = ctx.t:get(e.id) ctx.t:delete(e.id) return row and row.s end
            end }))",
        ),
        (
            "a row that searches",
            "ctx.t:set(e.id, setmetatable({ v = e.v }, { __index = function(_, k)
              if k == \"n\" then return #ctx.t:find{ where = {{ \"v\", \">\", 0 }} } + ctx.t:count() end
            end }))",
        ),
        (
            "the event as a row",
            "ctx.t:set(e.id, e)",
        ),
        (
            "a query that is computed",
            "local found = ctx.t:find(setmetatable({}, { __index = function(_, k) return k == \"limit\" and ctx.t:count() + 1 or nil end }))
            ctx.t:set(e.id, { v = e.v, n = #found })",
        ),
    ] {
        let script = format!("function on_event(e, ctx)\n  {body}\nend{end}");
        lived(name, &script, &events(8, &["a", "b"], 3), 8);
    }
}

#[test]
fn tables_of_the_script_that_are_read_only_are_what_they_stand_for() {
    let script = "ROW = { v = 5, j = { a = { 1, 2 } } }
    ONE = { v = 1 }
    TOP = { where = {{ \"v\", \">=\", 6 }}, order = \"-v\", limit = 1 }
    BAD = { were = {} }
    function on_event(e, ctx)
      ctx.t:set(e.id, ROW)
      ctx.t:add(e.id, ONE)
      ctx.t:max(e.id, ONE)
      ctx.t:set(\"found\", { v = 0, n = #ctx.t:find(TOP), s = tostring(pcall(ctx.t.find, ctx.t, BAD)) })
    end";
    let project = Project::with(&pipeline(""), script, &events(2, &["a"], 1));
    project.forebay(&RUN).ok();
    let expected = [["a", "found", "0", "false", "1", ""], ["a", "x0", "6", "", "", "{\"a\":[1,2]}"]];
    assert_eq!(
        project.query(
            "p.db",
            "SELECT region, id, v, coalesce(s, ''), coalesce(n, ''), coalesce(j, '') FROM t ORDER BY id"
        ),
        expected
    );
}

#[test]
fn no_metamethod_runs_where_a_value_is_read() {
    // Each would raise an error.
    let script = "local function no() error(\"a metamethod ran\") end
    local NO = { __index = no, __len = no, __pairs = no, __tostring = no, __eq = no, __lt = no, __le = no, __concat = no, __call = no, __name = {} }
    local function odd(t) return setmetatable(t, NO) end
    function on_event(e, ctx)
      ctx.t:set(e.id, { v = e.v, j = odd{ a = odd{ 1, 2, odd{} }, b = { odd{ c = 1 } } } })
      ctx.t:add(e.id, odd{ v = 1 })
      ctx.t:max(e.id, odd{ v = 1, s = \"m\" })
      for name, use in pairs{
        id = function(x) ctx.t:get(x) end, set = function(x) ctx.t:set(\"k\", { v = x }) end,
        text = function(x) ctx.t:set(\"k\", { s = x }) end, numeric = function(x) ctx.t:set(\"k\", { n = x }) end,
        key = function(x) ctx.t:set(\"k\", { [x] = 1 }) end, add = function(x) ctx.t:add(\"k\", { [x] = 1 }) end,
        json = function(x) ctx.t:set(\"k\", { j = { [x] = 1 } }) end, field = function(x) return ctx[x] end,
        write = function(x) ctx[x] = 1 end, entity = function(x) ctx.t[x] = 1 end, number = function(x) numeric(x) end,
        order = function(x) ctx.t:find{ order = x } end, limit = function(x) ctx.t:find{ limit = x } end,
        operator = function(x) ctx.t:find{ where = {{ \"v\", x, 1 }} } end,
        value = function(x) ctx.t:find{ where = {{ \"v\", \"=\", x }} } end,
        column = function(x) ctx.t:find{ where = {{ x, \"=\", 1 }} } end,
        time = function(x) timestamp(x) end, list = function(x) array(x) end,
      } do
        local ok, failure = pcall(use, odd{})
        if ok or failure:find(\"a metamethod ran\", 1, true) then error(name .. \": \" .. tostring(failure)) end
      end
    end";
    let project = Project::with(&pipeline(""), script, &events(1, &["a"], 2));
    project.forebay(&RUN).ok();
    let state = project.query("p.db", "SELECT v, s, j FROM t");
    assert_eq!(state, [["2", "m", "{\"a\":[1,2,{}],\"b\":[{\"c\":1}]}"]]);
}

#[test]
fn a_dry_run_is_not_seen_by_what_catches_errors() {
    for (name, read) in [
        ("pcall", "local ok, row repeat ok, row = pcall(ctx.t.get, ctx.t, e.id) until ok"),
        ("pcall of pcall", "local a, b, row repeat a, b, row = pcall(pcall, ctx.t.get, ctx.t, e.id) until a and b"),
        (
            "xpcall",
            "local seen, row, ok = 0
            repeat ok, row = xpcall(ctx.t.get, function(x) seen = seen + 1 return x end, ctx.t, e.id) until ok
            ctx.t:add(\"seen\", { v = seen })",
        ),
        ("find", "local ok, all repeat ok, all = pcall(ctx.t.find, ctx.t) until ok local row = ctx.t:get(e.id)"),
        (
            "a metamethod",
            "local get = setmetatable({}, { __index = function(_, id) return ctx.t:get(id) end })
            local ok, row repeat ok, row = pcall(function() return get[e.id] end) until ok",
        ),
        (
            "a function of the library",
            "local row repeat local ok = pcall(string.gsub, \"x\", \".\", function() row = ctx.t:get(e.id) end) until ok",
        ),
    ] {
        let script = format!(
            "function on_event(e, ctx)\n  {read}\n  ctx.t:set(e.id, {{ v = (row and row.v or 0) + e.v }})\nend\nfunction on_snapshot(ctx) return {{ rows = ctx.t:find() }} end"
        );
        lived(name, &script, &events(40, &["a"], 10), 3);
    }
}

/// The last event is run dry while the one before it waits for a row, and sees the step of the second.
#[test]
fn a_dry_run_ends_that_would_not_end_by_itself() {
    let cases = [
        ("a loop", "while n < 10 do n = n + x.v end"),
        ("a text", "local s = \"x\" while #s * x.v < 10 do s = s .. s end"),
        ("a long text", "local s = \"x\" while #s * x.v < 10 do s = (\"x\"):rep(10 + 1000000000 * (1 - x.v)) end"),
        ("tables", "local list = {} while #list * x.v < 10 do list[#list + 1] = { n } end"),
        ("caught", "local ok while not ok do ok = pcall(function() while n < 10 do n = n + x.v end end) end"),
        ("caught at length", "while n < 10 do pcall(error) pcall(function() n = n + x.v end) end"),
        (
            "memory that is caught",
            "local list = {} while n < 10 do pcall(function() list[#list + 1] = { n } n = n + x.v end) end",
        ),
        ("reads", "while n < 10 do n = n + ctx.t:get(\"step\").v end"),
        ("writes", "while n < 10 do ctx.u:set(\"n\", { v = n }) n = ctx.u:get(\"n\").v + x.v end"),
        ("exact numbers", "local m = numeric(0) while m < 10 do m = m + x.v end"),
        ("JSON", "while n < 10 do ctx.t:set(\"list\", { j = { n, { n } } }) n = n + x.v end"),
        ("a callback", "(\"x\"):rep(100):gsub(\"x\", function() while n < 10 do n = n + x.v end end)"),
        (
            "a metamethod",
            "local t = setmetatable({}, { __index = function() return x.v end }) while n < 10 do n = n + t.x end",
        ),
        ("an order", "table.sort({ 3, 1, 2 }, function(a, b) while n < 10 do n = n + x.v end return a < b end)"),
    ];
    let lines: String =
        (1..=4).map(|i| format!("{{\"block\":{i},\"region\":\"a\",\"id\":\"x\",\"i\":{i}}}\n")).collect();
    for puts_aside in ["", "[errors]\non_event = \"quarantine\"\n"] {
        // Much less than what the dry run may take.
        let pipeline = pipeline(puts_aside).replace("timeout = \"60s\"", "timeout = \"2s\"");
        assert_none(cases.iter().map(|(name, body)| {
            let script = format!(
                "function on_event(e, ctx)
  if e.i == 1 then ctx.u:set(\"goal\", {{ v = 10 }})
  elseif e.i == 2 then ctx.t:set(\"step\", {{ v = 0 }})
  elseif e.i == 3 then
    ctx.t:set(\"at\", {{ v = ctx.u:get(\"goal\").v }})
    ctx.t:set(\"step\", {{ v = 1 }})
  else
    local x, n = ctx.t:get(\"step\"), 0
    {body}
    ctx.t:set(\"end\", {{ v = x.v }})
  end
end
"
            );
            let whole = Project::with(&pipeline, &script, &lines);
            let complaint_of_one = complaint(name, &whole.forebay(&RUN), 0, &[]);
            let pieces = Project::with(&pipeline, &script, &lines);
            pieces.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
            let complaint_of_many = complaint(name, &pieces.forebay(&RUN), 0, &[]);
            let rows = |project: &Project| [STATE, OTHERS].map(|sql| project.query("p.db", sql));
            assert_eq!(rows(&pieces), rows(&whole), "{name}");
            complaint_of_one.or(complaint_of_many)
        }));
    }
}

#[test]
fn memory_and_stack_that_are_used_up_are_not_caught() {
    let fill = "local t = {} for i = 1, 1e9 do t[i] = (\"x\"):rep(1e5) .. i end";
    let big = "local s, t = (\"x\"):rep(1e6), {} for i = 1, 30000 do t[i] = s end";
    let set = "for i = 1, 1e9 do ctx.t:set(i, { s = (\"x\"):rep(1e5) }) end";
    let cases = [
        ("memory", format!("while true do pcall(function() {fill} end) end"), "batch.memory"),
        ("rows", format!("while true do xpcall(function() {set} end, print) end"), "batch.memory"),
        ("a column", format!("{big} pcall(ctx.t.set, ctx.t, e.id, {{ j = t }})"), "batch.memory"),
        (
            "keys",
            "local t = {} for i = 1, 150 do t[(\"k\"):rep(2e5) .. i] = 1 end pcall(ctx.t.set, ctx.t, e.id, { j = t })"
                .into(),
            "batch.memory",
        ),
        ("a stack", "local function f() return 1 + f() end pcall(f)".into(), "handlers.lua"),
        ("calls", "local function f() pcall(f) end f()".into(), "stack overflow"),
    ];
    assert_none(cases.iter().map(|(name, body, says)| {
        let script = format!("function on_event(e, ctx)\n  {body}\n  print(\"caught\")\nend\n");
        let project = Project::with(&pipeline(""), &script, &events(1, &["a"], 1));
        let outcome = project.forebay(&RUN);
        let caught = outcome.stderr().contains("caught").then(|| format!("== {name} was caught\n"));
        complaint(name, &outcome, 1, &["handlers.lua", says, "block 1"]).or(caught)
    }));
}

#[test]
fn json_is_built_within_the_memory() {
    for body in ["ctx.t:set(e.id, { j = big() })", "ctx.t:set(e.id, { v = 1 })"] {
        let script = format!(
            "local function big() local s, t = (\"x\"):rep(1e6), {{}} for i = 1, 3000 do t[i] = s end return t end\nfunction on_event(e, ctx) {body} end\nfunction on_snapshot() return big() end\n"
        );
        let project = Project::with(&pipeline(""), &script, &events(1, &["a"], 1));
        let started = std::time::Instant::now();
        project.forebay(&RUN).fails(1, &["handlers.lua used more memory than the", "batch.memory"]);
        // Three gigabytes take longer to build, even where there is room for them.
        assert!(started.elapsed().as_secs() < 60, "{body}");
    }
}

#[test]
fn an_event_that_is_nested_deep_is_refused_at_once() {
    let n = 5_000_000;
    let deep =
        |id| format!("{{\"block\":1,\"region\":\"a\",\"id\":\"{id}\",\"deep\":{}{}}}\n", "[".repeat(n), "]".repeat(n));
    let fine = "{\"block\":1,\"region\":\"a\",\"id\":\"x\",\"deep\":[[1]]}\n";
    let script = "function on_event(e, ctx) ctx.t:set(e.id, { v = e.deep[1][1] }) end";
    let lines = format!("{}{}{}", fine.repeat(1500), deep("y"), fine);
    let project = Project::with(&pipeline(""), script, &lines);
    project.forebay(&RUN).fails(2, &["events.ndjson:1501", "\"deep\"", "nested deeper than 120"]);
}

#[test]
fn large_values_arrive_as_they_are() {
    let text = "ä".repeat(100_000);
    let event = |v: i64| {
        format!(
            "{{\"block\":{v},\"region\":\"a\",\"id\":\"x\",\"text\":\"{text}\",\"list\":[{}{v}],\"v\":{v}}}\n",
            "0,".repeat(70_000)
        )
    };
    let script = "function on_event(e, ctx)
      if e.v % 2 == 0 then e.text = nil end
      ctx.t:set(e.v, { v = #e.list, n = e.list[#e.list], s = tostring(e.text and #e.text) })
    end";
    let small: String =
        (1..1100).map(|v| format!("{{\"block\":0,\"region\":\"a\",\"list\":[],\"v\":{}}}\n", v % 2)).collect();
    let project = Project::with(&pipeline(""), script, &format!("{small}{}{}", event(4), event(5)));
    project.forebay(&RUN).ok();
    let state = project.query("p.db", "SELECT id, v, n, s FROM t WHERE id IN ('4', '5') ORDER BY id");
    assert_eq!(state, [["4", "70001", "4", "nil"], ["5", "70001", "5", "200000"]]);
}

#[test]
fn messages_are_bounded() {
    let cases = [
        ("error", "error((\"ä\"):rep(2e6))", "bytes more)"),
        ("a table", "error(setmetatable({}, { __tostring = function() return (\"x\"):rep(2e6) end }))", "bytes more)"),
        ("a column", "ctx.t:set(e.id, { [(\"x\"):rep(2e6)] = 1 })", "there is no column"),
        ("a field", "print(ctx[(\"x\"):rep(2e6)])", "ctx has no"),
        ("an id", "ctx.t:get((\"x\"):rep(2e6))", "2000000 bytes"),
        ("a number", "numeric((\"9\"):rep(2e6))", "digits"),
        ("a key", "local t = {} t[(\"k\"):rep(2e6)] = print ctx.t:set(e.id, { j = { t } })", "has no form in JSON"),
    ];
    assert_none(cases.iter().flat_map(|(name, body, says)| {
        let script = format!("function on_event(e, ctx)\n  {body}\nend\n");
        let project = Project::with(&pipeline(""), &script, &events(1, &["a"], 1));
        let outcome = project.forebay(&RUN);
        let len = outcome.stderr().len();
        [
            complaint(name, &outcome, 1, &["handlers.lua:", says]),
            (len > 6000).then(|| format!("== {name}: a message of {len} bytes\n")),
        ]
    }));
    let script = "error((\"x\"):rep(2e6))\nfunction on_event() end\n";
    let outcome = Project::with(&pipeline(""), script, "").forebay(&RUN);
    assert!(outcome.stderr().len() < 6000, "{} bytes", outcome.stderr().len());
}

/// Tables lie in another order in each process, and a script may keep what an error says.
#[test]
fn an_error_says_the_same_in_each_process() {
    let script = "local kept = {} first, other = kept, kept
function on_event(e, ctx)
  local t, number = ctx.t, numeric(1)
  local function names() return { foo = 1, bar = 2, baz = 3, qux = 4, [e.id] = 5, [7] = nil } end
  local said = {}
  for _, use in ipairs {
    function() t:set(\"x\", names()) end, function() t:add(\"x\", names()) end, function() t:max(\"x\", names()) end,
    function() t:min(\"x\", names()) end, function() t:find(names()) end, function() t:count(names()) end,
    function() t:set(\"x\", { j = { [4] = 1, [2] = 2, [70] = 3, [9] = 4, [-5] = 5, [true] = 1, [0.5] = 1, k = 1 } }) end,
    function() t:set(\"x\", { j = { [true] = 1, [0.5] = 1, [{}] = 1, [print] = 1, [\"\\255\"] = 1 } }) end,
    function() kept.x = 1 end, function() string.format(\"%.99999f\", number) end,
  } do
    local ok, failure = pcall(use)
    assert(not ok)
    said[#said + 1] = failure
  end
  t:set(e.id, { s = table.concat(said, \"\\n\") })
end
";
    let expected = "handlers.lua:7: t:set: there is no column \"bar\"
handlers.lua:7: t:add: there is no column \"bar\"
handlers.lua:7: t:max: there is no column \"bar\"
handlers.lua:8: t:min: there is no column \"bar\"
handlers.lua:8: t:find: unknown key \"bar\"; expected where, order, limit
handlers.lua:8: t:count: unknown key \"bar\"; expected where
handlers.lua:9: t.j: a table with the number -5 among its keys is neither a list (1 to n) nor an object (texts); make the keys texts
handlers.lua:10: t.j: a boolean as a key has no form in JSON
handlers.lua:11: first is read-only once the script is loaded; keep state in entities, or make the table in the call in: function() kept.x = 1 end, function() string.format(\"%.99999f\", number) end,
handlers.lua:11: invalid conversion specification: '%.99999f'";
    for _ in 0..8 {
        let project = Project::with(&pipeline(""), script, &events(1, &["a"], 2));
        project.forebay(&RUN).ok();
        assert_eq!(project.query("p.db", "SELECT s FROM t"), [[expected]]);
    }
}

/// Functions of the library are called from files of ours, and say the script's line all the same.
#[test]
fn errors_of_the_library_name_the_scripts_line() {
    let cases = [
        ("math.floor", "math.floor(\"x\")", "math.floor: expected a number, got the text \"x\""),
        ("math.max", "local m = math.max(1, {})", "math.max: expected a number, got a table"),
        (
            "string.format",
            "local s = string.format(\"%d\", \"x\")",
            "string.format: expected a number, got the text \"x\"",
        ),
        ("table.concat", "table.concat({ {} })", "invalid value"),
        ("ipairs", "for _ in ipairs() do end", "attempt to index a nil value"),
        ("a comparison", "table.sort({ 1, {}, 2 })", "attempt to compare"),
        (
            "within pcall",
            "local _, failure = pcall(function() math.abs({}) end) error(failure, 0)",
            "expected a number, got a table",
        ),
        (
            "within xpcall",
            "local seen xpcall(math.ceil, function(failure) seen = failure end, {}) error(seen, 0)",
            "math.ceil: expected a number, got a table",
        ),
        (
            "two nils",
            "local x = e.none + e.gone",
            "attempt to perform arithmetic on a nil value in: local x = e.none + e.gone",
        ),
        ("two nils, one of which is named", "local n, m local x = n + m", "arithmetic on a nil value (local 'n')"),
        ("JSON", "ctx.t:set(e.id, { j = { a = { print } } })", "t.j: a[1]: a function has no form in JSON"),
    ];
    assert_none(cases.iter().map(|(name, body, says)| {
        let script = format!("function on_event(e, ctx)\n  {body}\nend\n");
        let project = Project::with(&pipeline(""), &script, &events(1, &["a"], 1));
        complaint(name, &project.forebay(&RUN), 1, &["handlers.lua:2:", says])
    }));
}

/// Integers as large as amounts of wei come late, long after many small ones: what leaves 64 bits is an error wherever a
/// run began, and what does not is right.
#[test]
fn sums_are_exact_or_refused_however_long_a_run_has_gone_on() {
    let large = 4_611_686_018_427_387_904_i64;
    let event = |block: i64| match block {
        3999 => format!(
            "{{\"block\":{block},\"region\":\"r\",\"v\":2300000000000000000,\"late\":{large},\"o\":{{\"v\":{large}}}}}\n"
        ),
        _ => format!("{{\"block\":{block},\"region\":\"r\",\"v\":{block}}}\n"),
    };
    let events: String = (1..4000).map(event).collect();
    let refused = "leaves the 64 bits of an integer";
    let cases: &[(&str, &str, &str, &str)] = &[
        (
            "calls in a loop",
            "local function add(a, b) return a + b end",
            "local x = 3 for i = 1, 64 do x = add(x, x) end",
            "",
        ),
        (
            "recursion",
            "local function fib(a, b, n) if n == 0 then return a end return fib(b, a + b, n - 1) end",
            "local x = fib(0, 1, 100) % 1000",
            "",
        ),
        ("a callback", "", "local x = 3 (('a'):rep(72)):gsub('a', function() x = x + x end)", ""),
        ("a constant", "", "local x = 0 for i = 1, 20 do x = x + 1152921504606846975 end", ""),
        ("tonumber", "", "local x = tonumber('4611686018427387904') x = x + x", ""),
        (
            "a row's own sum",
            "",
            "ctx.t:add('x', { v = 2305843009213693000 }) ctx.t:add('x', { v = 2305843009213693000 }) local r = ctx.t:get('x') local x = r.v + r.v + r.v",
            "",
        ),
        ("a field read once", "", "local x = e.late + e.late", ""),
        ("a nested field", "", "local v = e.o.v local x = v + v", ""),
        ("many of a field", "", "local v = e.v local x = v + v + v + v + v", ""),
        ("few of a field", "", "local v = e.v local x = v + v + v", "6900000000000000000"),
        ("down", "", "local x = math.mininteger + 5 for i = 1, 6 do x = x - 1 end", ""),
    ];
    assert_none(cases.iter().flat_map(|(name, head, body, expected)| {
        let body = format!("local v = e.v if e.block == 3999 then {body} ctx.t:set('y', {{ v = x }}) end");
        let script = format!("{head}\nfunction on_event(e, ctx) {body} end\n");
        let text = pipeline("").replace("events = 5\n", "");
        ["", "3990"].map(|until| {
            let project = Project::with(&text, &script, &events);
            if !until.is_empty() {
                project.forebay(&["run", "pipeline.toml", "--until", until]).ok();
            }
            let outcome = project.forebay(&RUN);
            if expected.is_empty() {
                return complaint(name, &outcome, 1, &["handlers.lua:", refused]);
            }
            let rows = project.query("p.db", "SELECT v FROM t WHERE id = 'y'");
            (outcome.code() != Some(0) || rows != [[(*expected).to_owned()]])
                .then(|| format!("{name}: {outcome}: {rows:?}"))
        })
    }));
}

/// What a handler removes from an event stays removed, whether it came along or not.
#[test]
fn fields_that_are_removed_stay_so_however_long_a_run_has_gone_on() {
    let big = "x".repeat(70_000);
    let event = |block: i64| {
        let wide = if block % 1000 == 999 { &*big } else { "x" };
        format!("{{\"block\":{block},\"region\":\"r\",\"v\":{block},\"w\":1,\"big\":\"{wide}\"}}\n")
    };
    let events: String = (1..3001).map(event).collect();
    let script = "function on_event(e, ctx)\n  local big, v = e.big, e.v\n  e.v = nil\n  if e.block % 2 == 0 then local w = e.w\n  \
                  else e.w = 5 e.w = nil ctx.t:set(e.block, { s = e.w ~= nil and 'back' or 'gone' }) end\n  \
                  ctx.u:set(e.block, { v = e.v })\nend\n";
    let text = pipeline("").replace("events = 5\n", "");
    for untils in [&[][..], &["500", "998", "1500", "1998"]] {
        let project = Project::with(&text, script, &events);
        for until in untils {
            project.forebay(&["run", "pipeline.toml", "--until", until]).ok();
        }
        project.forebay(&RUN).ok();
        for (table, is_back) in [("t", "s <> 'gone'"), ("u", "v IS NOT NULL")] {
            let rows = project.query("p.db", &format!("SELECT id FROM {table} WHERE {is_back}"));
            assert!(rows.is_empty(), "{table}: {rows:?}");
        }
    }
}

/// What was found to get around the guards: state from call to call, and tables that pass for what they are not. Each is
/// refused, or one run and many come to the same state.
#[test]
fn no_way_around_the_guards_is_left() {
    let kept: &[(&str, &str, &str)] = &[
        (
            "__len that writes while the script is looked at",
            "local T = setmetatable({}, { __len = function(t) if not t.kept then t.kept = { n = 0 } end return 0 end })",
            "T.kept.n = T.kept.n + 1 ctx.t:set(\"a\", { v = T.kept.n })",
        ),
        (
            "a metatable that is equal to all",
            "local T do
               local count = 0
               T = setmetatable({}, setmetatable({ __index = function() count = count + 1 return count end },
                 { __eq = function() return true end }))
             end",
            "ctx.t:set(\"a\", { v = T.x })",
        ),
        (
            "a table in such a metatable",
            "local meta = setmetatable({ m = {} }, { __eq = function() return true end })
             meta.__index = meta
             M = setmetatable({}, meta)",
            "M.m.n = (M.m.n or 0) + 1 ctx.t:set(\"a\", { v = M.m.n })",
        ),
        (
            "a key of the globals",
            "_G[{}] = true",
            "for k in pairs(_G) do if type(k) == \"table\" then k.n = (k.n or 0) + 1 ctx.t:set(\"a\", { v = k.n }) end end",
        ),
        (
            "a function as a key of the globals",
            "do local c = 0 _G[function() c = c + 1 return c end] = true end",
            "for k in pairs(_G) do if type(k) == \"function\" then ctx.t:set(\"a\", { v = k() }) end end",
        ),
        (
            "a length that is a float",
            "local T = setmetatable({ 0, 0, 0 }, { __len = function() return 1.0 end })",
            "table.insert(T, T[2] + 1) ctx.t:set(\"a\", { v = T[2] })",
        ),
        (
            "a length that is a text",
            "local T = setmetatable({ 0, 0, 0 }, { __len = function() return \"1\" end })",
            "table.insert(T, T[2] + 1) ctx.t:set(\"a\", { v = T[2] })",
        ),
        (
            "a length that is another one later",
            "local T = setmetatable({ 0, 0, 0 }, { __len = function(t) return pcall(function() t.zz = 1 end) and 3 or 1 end })",
            "table.insert(T, T[2] + 1) ctx.t:set(\"a\", { v = T[2] })",
        ),
        (
            "a length below nothing",
            "local T = setmetatable({ 0 }, { __len = function() return -2 end })",
            "table.insert(T, 1, T[1] + 1) ctx.t:set(\"a\", { v = T[1] })",
        ),
        (
            "a length that wraps around",
            "local T = setmetatable({ 0 }, { __len = function() return math.maxinteger end })",
            "table.insert(T, 1, T[1] + 1) ctx.t:set(\"a\", { v = T[1] })",
        ),
        (
            "the probe",
            "local P
             local meta = {}
             local t0 = setmetatable({}, meta)
             meta.__eq = function(a, b) P = b return false end
             t0.x = 1
             do
               local count, busy, pm = 0, false, {}
               setmetatable(P, pm)
               pm.__eq = function(a) if not busy then busy = true count = count + 1 a.seen = count busy = false end return false end
             end
             local function touch(t) t.x = 1 return t.seen end",
            "ctx.t:set(\"a\", { v = touch({}) })",
        ),
    ];
    let forged: &[(&str, &str, &str)] = &[
        (
            "a numeric",
            "ctx.t:set(\"a\", { n = setmetatable({ 1, 5 }, { __metatable = yes }) })",
            "t.n: expected a numeric",
        ),
        (
            "a numeric of no digits",
            "ctx.t:set(\"a\", { n = setmetatable({ \"abc\", 5 }, yes) })",
            "t.n: expected a numeric",
        ),
        ("an id", "ctx.t:set(setmetatable({ false, \"12abc'\" }, { __metatable = yes }), { v = 1 })", "expected an id"),
        (
            "an event",
            "ctx.t:set(\"a\", setmetatable({ v = 1, n = 1, s = \"\", j = 1, nn = 2 }, yes))",
            "no column \"nn\"",
        ),
    ];
    let refused = kept.iter().map(|(name, head, body)| {
        let script = format!("{head}\nfunction on_event(e, ctx)\n  {body}\nend\n");
        let project = Project::with(&pipeline(""), &script, &events(3, &["a"], 2));
        let outcome = project.forebay(&RUN);
        let is_refused = outcome.stderr().contains("handlers.lua");
        (!is_refused).then(|| format!("== {name}: was let pass: {}\n", outcome.stderr()))
    });
    assert_none(refused);
    assert_none(forged.iter().map(|(name, body, says)| {
        let head = "function on_event(e, ctx)\n  local yes = setmetatable({}, { __eq = function() return true end })";
        let project = Project::with(&pipeline(""), &format!("{head}\n  {body}\nend\n"), &events(1, &["a"], 1));
        complaint(name, &project.forebay(&RUN), 1, &["handlers.lua:3:", says])
    }));
    // What is looked at is looked at in one order, whether the row is here or not.
    let rows = "function on_event(e, ctx)
      if e.v == 1 then for i = 1, 1200 do ctx.t:set(\"k\" .. i, { v = i }) end return end
      local function row() return setmetatable({ nope = 1 }, { __index = function() ctx.u:add(\"calls\", { v = 1 }) end }) end
      local _, message = pcall(ctx.t.set, ctx.t, \"k5\", row())
      local _, number = pcall(ctx.t.set, ctx.t, \"k5\", numeric(5))
      local _, sum = pcall(ctx.t.add, ctx.t, \"k5\", numeric(5))
      ctx.t:set(\"m\" .. e.v, { s = message .. number .. sum })
    end";
    lived("columns that a metatable computes", rows, &events(3, &["a"], 1), 3);
}

/// How deep functions of the library may call each other, and how long a list may be that they return, depends on more
/// than the event.
#[test]
fn what_has_no_room_on_the_stack_is_neither_caught_nor_put_aside() {
    let deep = "local function f(n) if n == 0 then return \"x\" end return ((\"x\"):gsub(\"x\", function() return f(n - 1) end)) end pcall(f, 250)";
    let fill = "local s, r = {}, (\"x\"):rep(1 << 20) for i = 1, 11 do s[i] = r .. i end";
    let cases = [
        ("calls", deep.to_owned(), "C stack overflow"),
        ("a list", format!("{fill} pcall(table.unpack, {{}}, 1, 250000)"), "too many results to unpack"),
        ("bytes", format!("{fill} pcall(string.byte, r, 1, 250000)"), "string slice too long"),
    ];
    for more in ["", "[errors]\non_event = \"quarantine\""] {
        assert_none(cases.iter().map(|(name, body, says)| {
            let script = format!("function on_event(e, ctx)\n  {body}\n  print(\"caught\")\nend\n");
            let pipeline = pipeline(more).replace("64MiB", "16MiB");
            let project = Project::with(&pipeline, &script, &events(1, &["a"], 1));
            complaint(name, &project.forebay(&RUN), 1, &["handlers.lua", says, "block 1"])
        }));
    }
    // Its line is told apart from its name, whatever that is.
    let script = format!("function on_event(e, ctx)\n  {deep}\nend\n");
    let project = Project::with(&pipeline("").replace("handlers.lua", "v1:10: x.lua"), "", &events(1, &["a"], 1));
    project.write("v1:10: x.lua", script);
    project.forebay(&RUN).fails(1, &["v1:10: x.lua", "C stack overflow"]);
}

#[test]
fn a_metatable_that_is_not_shown_works_as_in_lua_and_shows_no_address() {
    let pipeline = "name = \"things\"\nsource.path = \"events.ndjson\"\nhandlers.script = \"handlers.lua\"\n\
                    entities.o.columns = { t = \"text\" }\n";
    let script = r#"
local money = { __metatable = false, __tostring = function(m) return "EUR " .. m.v end }
local pages = { __metatable = false, __pairs = function() return next, { a = 1 }, nil end }
local function keys(t)
  local all = {}
  for k in pairs(t) do all[#all + 1] = k end
  return table.concat(all, ",")
end
function on_event(event, ctx)
  ctx.o:set("tostring", { t = tostring(setmetatable({ v = 5 }, money)) })
  ctx.o:set("format", { t = string.format("%s", setmetatable({ v = 5 }, money)) })
  ctx.o:set("pairs", { t = keys(setmetatable({}, pages)) })
  ctx.o:set("no tostring", { t = tostring(setmetatable({}, { __metatable = { __tostring = true } })) })
  ctx.o:set("no pairs", { t = keys(setmetatable({ c = 1, a = 1, b = 1 }, { __metatable = { __pairs = 1 } })) })
end
"#;
    let project = Project::with(pipeline, script, "{\"block\":1,\"region\":\"r\"}\n");
    project.forebay(&["run", "pipeline.toml"]).ok();
    let rows = project.query("things.db", "SELECT id, t FROM o ORDER BY id");
    let expected =
        [["format", "EUR 5"], ["no pairs", "a,b,c"], ["no tostring", "table"], ["pairs", "a"], ["tostring", "EUR 5"]];
    assert_eq!(rows, expected);
}

#[test]
fn what_a_dry_run_prints_is_printed_once() {
    let script = "function on_event(e, ctx)
      print(\"at \" .. e.v)
      local row = ctx.t:get(e.id) or { v = 0 }
      ctx.t:set(e.id, { v = row.v + 1 })
    end";
    let project = Project::with(&pipeline("").replace("events = 5", "events = 1000"), script, &events(40, &["a"], 20));
    project.forebay(&["run", "pipeline.toml", "--until", "20"]).ok();
    let said = project.forebay(&RUN).ok().stderr();
    for block in 21..=40 {
        let times = said.lines().filter(|line| line.ends_with(&format!("at {block}"))).count();
        assert_eq!(times, 1, "block {block}: {said}");
    }
}

/// What a dry run sees is of before: there a function of the library may take for ever that in its order is done at once.
#[test]
fn a_dry_run_ends_within_the_library() {
    let cases = [
        ("a pattern", "n = #(((\"a\"):rep(x.v):match(\".-.-.-.-.-b\")) or \"\")"),
        ("find", "n = ((\"a\"):rep(x.v):find(\"a*a*a*a*a*b\")) or 0"),
        ("gsub", "n = select(2, ((\"a\"):rep(x.v):gsub(\"a-a-a-a-a-b\", \"\")))"),
        ("gmatch", "for _ in ((\"a\"):rep(x.v)):gmatch(\"a+a+a+a+a+b\") do n = n + 1 end"),
        ("pairs of brackets", "n = ((\"(\"):rep(x.v * 100):find(\"%b()\")) or 0"),
        ("move", "table.move({}, 1, x.v * 1000000, 2)"),
        ("a length", "local t = setmetatable({}, { __len = function() return x.v * 1000000 end }) table.remove(t, 1)"),
    ];
    let lines: String =
        (1..=4).map(|i| format!("{{\"block\":{i},\"region\":\"a\",\"id\":\"x\",\"i\":{i}}}\n")).collect();
    let pipeline = pipeline("").replace("timeout = \"60s\"", "timeout = \"3s\"");
    assert_none(cases.iter().map(|(name, body)| {
        let script = format!(
            "function on_event(e, ctx)
  if e.i == 1 then ctx.u:set(\"goal\", {{ v = 3 }})
  elseif e.i == 2 then ctx.t:set(\"long\", {{ v = 5000 }})
  elseif e.i == 3 then ctx.t:set(\"long\", {{ v = ctx.u:get(\"goal\").v }})
  else
    local x, n = ctx.t:get(\"long\"), 0
    {body}
    ctx.t:set(\"end\", {{ v = n }})
  end
end
"
        );
        let whole = Project::with(&pipeline, &script, &lines);
        let complaint_of_one = complaint(name, &whole.forebay(&RUN), 0, &[]);
        let pieces = Project::with(&pipeline, &script, &lines);
        pieces.forebay(&["run", "pipeline.toml", "--until", "1"]).ok();
        let complaint_of_many = complaint(name, &pieces.forebay(&RUN), 0, &[]);
        assert_eq!(pieces.query("p.db", STATE), whole.query("p.db", STATE), "{name}");
        complaint_of_one.or(complaint_of_many)
    }));
}

/// An event may say what Lua says when memory or a stack is used up: it is one bad event all the same.
#[test]
fn what_an_event_says_is_not_what_lua_says() {
    let texts =
        ["not enough memory", "stack overflow", "C stack overflow", "stack overflow (x)", "too many results to unpack"];
    let lines: String = texts
        .iter()
        .zip(1..)
        .map(|(text, i)| format!("{{\"block\":{i},\"region\":\"a\",\"s\":\"{text}\",\"i\":{i}}}\n"))
        .collect();
    // Without a line Lua takes these words for its own: `error("not enough memory", 0)` is how it ends a call.
    let bare = "error(e.s, e.s == \"not enough memory\" and 1 or 0)";
    for (name, body) in [
        ("error", "error(e.s)"),
        ("a bare error", bare),
        ("assert", "assert(false, e.s)"),
        ("within a text", "error(\"no: \" .. e.s)"),
        ("a column", "ctx.t:set(\"x\", { v = e.s })"),
        ("a key", "ctx.t:set(\"x\", { [e.s] = 1 })"),
        ("a value of JSON", "ctx.t:set(\"x\", { j = { [e.s] = { [1.5] = 1 } } })"),
        ("a handler of errors", "error(\"no: \" .. select(2, xpcall(error, function() return e.s end)))"),
    ] {
        let script = format!("function on_event(e, ctx)\n  pcall(function() {body} end)\n  {body}\nend\n");
        let project = Project::with(&pipeline("[errors]\non_event = \"quarantine\""), &script, &lines);
        let outcome = project.forebay(&RUN);
        assert_eq!(outcome.code(), Some(0), "{name}: {outcome}");
        let aside = project.query("p.db", "SELECT error FROM forebay_quarantine ORDER BY block");
        assert_eq!(aside.len(), texts.len(), "{name}: {aside:?}");
        for (row, text) in aside.iter().zip(texts) {
            assert!(row[0].contains(text) && row[0].contains("handlers.lua"), "{name}: {row:?}");
        }
    }
}

/// What a query without a limit finds is bounded by the memory, and named.
#[test]
fn a_find_without_a_limit_stays_within_the_memory() {
    let wide = "x".repeat(2000);
    let lines: String = (1..=12_000)
        .map(|i| format!("{{\"block\":{i},\"region\":\"a\",\"id\":\"x{i}\",\"v\":{i},\"s\":\"{wide}\"}}\n"))
        .collect();
    let script = |body: &str| {
        format!(
            "function on_event(e, ctx)\n  ctx.t:set(e.id, {{ v = e.v, s = e.s }})\n  if e.v == 12000 then {body} end\nend\n"
        )
    };
    let text = pipeline("").replace("events = 5", "events = 1000").replace("64MiB", "24MiB");
    let project = Project::with(&text, &script("print(#ctx.t:find{ order = \"-v\", limit = 50 })"), &lines);
    project.forebay(&["run", "pipeline.toml", "--until", "11999"]).ok();
    let said = project.forebay(&RUN).ok().stderr();
    assert!(said.contains("50"), "{said}");
    let project = Project::with(&text, &script("pcall(ctx.t.find, ctx.t)"), &lines);
    project.forebay(&["run", "pipeline.toml", "--until", "11999"]).ok();
    let outcome = project.forebay(&RUN);
    outcome.fails(1, &["t: what a find in region \"a\" finds takes more than", "give it a limit"]);
}

/// What floats have lost does not come back as an integer that looks exact.
#[test]
fn a_float_that_may_have_lost_digits_becomes_no_integer() {
    let cases = [
        ("a sum", "ctx.t:set(\"x\", { v = e.v + 1.0 })", "2^53"),
        ("a sum, as a numeric", "ctx.t:set(\"x\", { n = e.v + 1.0 })", "2^53"),
        ("a quotient", "ctx.t:set(\"x\", { v = e.w / 1 })", "2^53"),
        ("a product", "ctx.t:set(\"x\", { n = e.w * 1.0 })", "2^53"),
        ("bits", "ctx.t:set(\"x\", { v = (e.v + 1.0) | 0 })", "the bits of float"),
        ("bits of both", "ctx.t:set(\"x\", { v = e.v & (e.v + 1.0) })", "the bits of float"),
        ("a constant", "ctx.t:set(\"x\", { v = 2 ~ (e.v + 1.0) })", "the bits of float"),
        ("a shift", "ctx.t:set(\"x\", { v = (e.v + 1.0) << 0 })", "the bits of float"),
        ("a shift back", "ctx.t:set(\"x\", { v = (e.v + 1.0) >> e.zero })", "the bits of float"),
        ("the complement", "ctx.t:set(\"x\", { v = ~(e.v + 1.0) })", "the bits of float"),
        ("packed", "ctx.t:set(\"x\", { v = string.unpack(\"<i8\", string.pack(\"<i8\", e.v + 1.0)) })", "string.pack"),
        ("packed behind", "string.pack(\">s1 Xi4 x d i8\", \"a\", 1e300, e.v + 1.0)", "string.pack"),
        ("a negation", "ctx.t:set(\"x\", { v = -e.least })", "leaves the 64 bits"),
        ("a whole quotient", "ctx.t:set(\"x\", { v = e.least // e.minus })", "leaves the 64 bits"),
        ("a constant quotient", "ctx.t:set(\"x\", { v = e.least // -1 })", "leaves the 64 bits"),
        ("bits of a fraction", "local v = e.half & 1", "number has no integer representation"),
        ("a shift by a fraction", "local v = 1 << e.half", "number has no integer representation"),
        ("the complement of a fraction", "local v = ~e.half", "number has no integer representation"),
        ("bits of no number", "local v = (0 / 0) | e.v", "number has no integer representation"),
    ];
    let line = "{\"block\":1,\"region\":\"a\",\"v\":9007199254740992,\"w\":9007199254740993,\"zero\":0,\
                \"least\":-9223372036854775808,\"minus\":-1,\"half\":2.5}\n";
    assert_none(cases.iter().map(|(name, body, says)| {
        let script = format!("function on_event(e, ctx)\n  {body}\nend\n");
        let project = Project::with(&pipeline(""), &script, line);
        complaint(name, &project.forebay(&RUN), 1, &["handlers.lua:2:", says])
    }));
    let script = "function on_event(e, ctx)
      local s = string.pack(\"<i8 d s1 z\", e.v, e.v + 1.0, \"a\", \"b\")
      ctx.t:set(\"x\", { v = (e.v | 1) ~ (2.0 & 3) << 4 >> 1, s = #s .. \" \" .. -e.minus .. -7 // e.minus .. ~0 .. (~5 & 0xff), n = e.w })
    end";
    let project = Project::with(&pipeline(""), script, line);
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT v, s, n FROM t");
    assert_eq!(rows, [["9007199254741009", "20 17-1250", "9007199254740993"]]);
}

/// A message of Lua gets its place in the script; a text that a script raises is that text, whatever it begins with.
#[test]
fn a_text_that_a_script_raises_stays_as_it_is() {
    let script =
        "local texts = { 'none', 'attempt to call a closed account', 'bad argument #2: amount', 'inner:kinds:5: x',
        'attempt to perform arithmetic on a nil value' }
    local function caught(f, ...)
      local _, why = pcall(f, ...)
      return why
    end
    function on_event(e, ctx)
      for at, text in ipairs(texts) do
        local all = { caught(error, text, 0), caught(function() error(text, 0) end), caught(assert, false, text),
          select(2, xpcall(error, function(said) return said end, text, 0)) }
        for nth, said in ipairs(all) do
          if said ~= text then ctx.t:set(at .. '-' .. nth, { s = said }) end
        end
      end
      ctx.t:set('x', { s = caught(function() return e.none + 1 end) })
      ctx.t:set('y', { s = caught(string.rep) })
    end";
    let project = Project::with(&pipeline(""), script, "{\"block\":1,\"region\":\"a\"}\n");
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT id, s FROM t ORDER BY id");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row[1].starts_with("handlers.lua:")), "{rows:?}");
}

/// A level of `error` names the function that Lua would name, and never one of ours.
#[test]
fn an_error_stands_where_lua_would_have_it() {
    let script = "local M = {}
M.__index = M
M.__add = function(a, b) error('add', 2) end
M.__eq = function(a, b) error('eq', 2) end
M.__tostring = function() error('text', 2) end
local function deep(v) error('deep', 3) end
local function caught(f, ...) return select(2, pcall(f, ...)) end
function on_event(e, ctx)
  local o, p = setmetatable({}, M), setmetatable({}, M)
  local all = {
    caught(error, 'a', 2),
    caught(error, 'b'),
    caught(deep),
    caught(function() return 1 + o end),
    caught(function()
      return o == p
    end),
    caught(tostring, o),
    caught(string.gsub, 'x', 'x', function() error('g', 2) end),
    caught(table.sort, { 2, 1 }, function() error('s', 2) end),
    caught(error, 'none', 0),
    caught(error, 'far', 99),
    tostring(caught(error, { 'no text' }, 2)),
  }
  ctx.t:set('x', { s = table.concat(all, '|') })
end";
    let project = Project::with(&pipeline(""), script, "{\"block\":1,\"region\":\"a\"}\n");
    project.forebay(&RUN).ok();
    let here = |line: u8, text: &str| format!("handlers.lua:{line}: {text}");
    let all = [
        here(7, "a"),
        "b".into(),
        here(7, "deep"),
        here(14, "add"),
        here(16, "eq"),
        "text".into(),
        "g".into(),
        "s".into(),
        "none".into(),
        "far".into(),
        "table".into(),
    ];
    assert_eq!(project.query("p.db", "SELECT s FROM t"), [[all.join("|")]]);
}

/// A list that a method gives is asked for each item once; a number that nothing holds is an error.
#[test]
fn what_a_list_gives_is_joined_as_it_is_read() {
    let script = "function on_event(e, ctx)
  local n = 0
  local list = setmetatable({}, { __len = function() return 3 end, __index = function(_, at) n = n + 1 return at / 2 + n end })
  ctx.t:set('x', { s = table.concat(list, ',') .. select(2, pcall(table.concat, { 1, {}, 0.5 })) })
  ctx.t:set('z', { s = select(2, pcall(string.pack, '<!4xXi4 s4 j', 1.5, '9007199254740993.0')) })
  ctx.t:set('y', { s = select(2, pcall(tonumber, '1e1000000')) .. tostring(tonumber('1e400') > 1) })
end";
    let project = Project::with(&pipeline(""), script, "{\"block\":1,\"region\":\"a\"}\n");
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT s FROM t ORDER BY id");
    assert_eq!(rows[0], ["1.5,3.0,4.5handlers.lua:4: invalid value (table) at index 2 in table for 'concat'"]);
    assert_eq!(rows[2], ["handlers.lua:5: string.pack: expected a number, got the text \"9007199254740993.0\""]);
    assert!(rows[1][0].starts_with("handlers.lua:6: tonumber: the text \"1e1000000\": "), "{rows:?}");
    assert!(rows[1][0].ends_with("true"), "{rows:?}");
}

/// A metatable of its own is read-only once it is in use, as any other.
#[test]
fn a_table_that_is_its_own_metatable_is_looked_after() {
    let script = "local Early = {}
Early.__index = function(_, key) return key .. '!' end
setmetatable(Early, Early)
function on_event(e, ctx)
  local m = { __index = function(_, key) return key .. '?' end }
  setmetatable(m, m)
  local _, why = pcall(function() m.__gc = function() end end)
  local _, chance = pcall(function() local o = { __mode = 'k' } setmetatable(o, o) end)
  ctx.t:set('a', { s = Early.x .. m.y .. tostring(getmetatable(m) == m) })
  ctx.t:set('b', { s = why })
  ctx.t:set('c', { s = chance })
end";
    let project = Project::with(&pipeline(""), script, "{\"block\":1,\"region\":\"a\"}\n");
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT s FROM t ORDER BY id");
    assert_eq!(rows[0], ["x!y?true"]);
    assert!(rows[1][0].contains("a metatable is read-only once it is in use"), "{rows:?}");
    assert!(rows[2][0].contains("__gc, __mode and __close are not for handlers"), "{rows:?}");
}

/// `pairs` gives what a loop may use twice, and go on with; `_G` is no metatable; a float's text is that float.
#[test]
fn pairs_gives_an_iterator_that_begins_anew() {
    let script = "function on_event(e, ctx)
  local t = { a = 1, b = 2, c = 3 }
  local next_of, all, first = pairs(t)
  local seen = {}
  for _ = 1, 2 do for k, v in next_of, all, first do seen[#seen + 1] = k .. v end end
  for k in next_of, all do for inner in next_of, all do seen[#seen + 1] = k .. inner end end
  seen[#seen + 1] = next_of(all) .. next_of(all) .. next_of(all, 'b') .. tostring(next_of(all, 'c'))
  seen[#seen + 1] = tostring(all == t) .. tostring(first) .. tostring(getmetatable(4))
  ctx.t:set('a', { s = table.concat(seen, ' ') })
  local fields, event = pairs(e)
  local names = {}
  for name in fields, event do if name ~= 'block' then names[#names + 1] = name end end
  for name in fields, event do names[#names + 1] = name end
  ctx.t:set('b', { s = table.concat(names, ' ') })
  ctx.t:set('c', { s = select(2, pcall(setmetatable, {}, _G)) })
  ctx.t:set('d', { s = tostring(2 ^ -24) .. tostring(tonumber(tostring(2 ^ -24)) == 2 ^ -24) .. tostring(e.x == 2 ^ -24) })
end";
    let event = "{\"block\":1,\"region\":\"a\",\"x\":5.960464477539063e-08}\n";
    let project = Project::with(&pipeline(""), script, event);
    project.forebay(&RUN).ok();
    let twice = "a1 b2 c3 a1 b2 c3 aa ab ac ba bb bc ca cb cc aacnil truenilnil";
    assert_eq!(
        project.query("p.db", "SELECT s FROM t ORDER BY id"),
        [
            [twice],
            ["region x block region x"],
            ["handlers.lua:15: setmetatable: _G is no metatable; make a table of its own"],
            ["5.960464477539063e-08truetrue"],
        ]
    );
}

/// What a dry run would find may be too much: the call that counts asks for less.
#[test]
fn a_find_of_a_dry_run_ends_no_call() {
    let wide = "x".repeat(40_000);
    let mut lines: String = (1..=300)
        .map(|i| format!("{{\"block\":{i},\"region\":\"a\",\"id\":\"x{i}\",\"v\":{i},\"s\":\"{wide}\"}}\n"))
        .collect();
    lines.push_str("{\"block\":500,\"region\":\"a\",\"v\":0}\n{\"block\":501,\"region\":\"a\",\"v\":-1}\n");
    let script = "function on_event(e, ctx)
  if e.v > 0 then
    ctx.t:set(e.id, { v = e.v, s = e.s })
    ctx.t:set('limit', { v = 100000 })
  elseif e.v == 0 then
    local limit = ctx.t:get('limit')
    local found = ctx.t:find{ order = 'v', limit = 1 }
    ctx.t:set('limit', { v = 1 })
    ctx.t:set('a', { v = #found })
  else
    local limit = ctx.t:get('limit')
    ctx.t:set('b', { v = #ctx.t:find{ order = 'v', limit = limit.v } })
  end
end";
    for events in ["events = 1\n", "events = 100\n"] {
        let text = pipeline("").replace("events = 5\n", events).replace("64MiB", "16MiB");
        let project = Project::with(&text, script, &lines);
        project.forebay(&["run", "pipeline.toml", "--until", "400"]).ok();
        project.forebay(&RUN).ok();
        let rows = project.query("p.db", "SELECT id, v FROM t WHERE id < 'limit' ORDER BY id");
        assert_eq!(rows, [["a", "1"], ["b", "1"]], "{events}");
    }
}

/// What a script sees of a table that it made while it was loaded is the same before its first use as a metatable.
#[test]
fn a_metatable_looks_the_same_before_it_is_used() {
    let script = "local function same(a, b) return a.x == b.x end
    local M = { __eq = same, __newindex = {} }
    function on_event(e, ctx)
      ctx.t:set('x' .. e.block, { s = tostring(M.__eq == same) .. type(M.__newindex) })
      local a, b = setmetatable({ x = 1 }, M), setmetatable({ x = 1 }, M)
      ctx.t:set('y' .. e.block, { s = tostring(a == b) })
    end";
    let lines: String = (1..=4).map(|block| format!("{{\"block\":{block},\"region\":\"a\"}}\n")).collect();
    let project = Project::with(&pipeline(""), script, &lines);
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT DISTINCT substr(id, 1, 1), s FROM t ORDER BY 1");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[1], ["y", "true"]);
}

/// What is put aside is an event; a script whose numbers nobody can check does not begin.
#[test]
fn bits_of_a_fraction_are_an_error_of_the_script() {
    let script = "function on_event(e, ctx)
      local ok, why = pcall(function() return ~e.v end)
      ctx.t:set(\"x\" .. e.block, { s = ok and \"bits\" or why:match(\": (.*)\") })
      ctx.t:set(\"y\", { v = e.v & 1 })
    end";
    let events = [1.0, 2.5, 3.0]
        .iter()
        .zip(1..)
        .map(|(v, block)| format!("{{\"block\":{block},\"region\":\"a\",\"v\":{v:?}}}\n"));
    let project = Project::with(&pipeline("[errors]\non_event = \"quarantine\""), script, &events.collect::<String>());
    let said = project.forebay(&RUN).ok().stderr();
    assert!(said.contains("1 event"), "{said}");
    assert_eq!(
        project.query("p.db", "SELECT id, v, s FROM t ORDER BY id"),
        [["x1", "NULL", "bits"], ["x3", "NULL", "bits"], ["y", "1", "NULL"]]
    );

    let sum = "      local x = e.v\n".to_owned() + &"      x = x + e.v\n".repeat(12_000);
    let script = format!("function on_event(e, ctx)\n    for i = 1, 2 do\n{sum}      x = -x\n    end\nend\n");
    let project = Project::with(&pipeline(""), &script, "{\"block\":1,\"region\":\"a\",\"v\":1}\n");
    project.forebay(&RUN).fails(2, &["handlers.lua:1: the function has", "loops that are too long"]);
}

/// What `==` says of a table that the script keeps is what it said while the script was loaded.
#[test]
fn a_table_that_is_read_only_is_equal_to_what_says_so() {
    let script = "local MT = { __eq = function(a, b) return a.k == b.k end }
    KEPT, LIST, OTHER, NAMED = { k = 1 }, array{}, setmetatable({ k = 1 }, MT), setmetatable({ k = 1 }, { __name = \"x\" })
    local function all()
      local new = setmetatable({ k = 1 }, MT)
      local found = { KEPT == new, new == KEPT, NAMED == new, new == NAMED, OTHER == new, KEPT == OTHER, OTHER == KEPT,
        KEPT == NAMED, LIST == new, KEPT == {}, KEPT == KEPT, numeric(1) == KEPT, KEPT == numeric(1) }
      for at, is_equal in ipairs(found) do found[at] = is_equal and 1 or 0 end
      return table.concat(found)
    end
    FIRST = all()
    function on_event(e, ctx) ctx.t:set(\"x\", { s = FIRST .. \" \" .. all() }) end";
    let project = Project::with(&pipeline(""), script, &events(1, &["a"], 1));
    project.forebay(&RUN).ok();
    let rows = project.query("p.db", "SELECT s FROM t");
    let expected = "1111111000100";
    assert_eq!(rows, [[format!("{expected} {expected}")]]);
}

/// A number that is too large for exact numbers says so where it is computed with, and `pcall` hears it.
#[test]
fn a_number_that_is_out_of_range_is_an_error_of_the_script() {
    let script = "local function says(f) local ok, why = pcall(f) return ok and 'fine' or why:match(': (.*)') end
    function on_event(e, ctx)
      local calls = {
        function() local is = e.v < 3 return is end,
        function() local max = math.max(e.v, 3) return max end,
        function() local text = string.format('%.2f', e.v) return text end,
        function() local number = tonumber(('f'):rep(200000), 16) return number end,
        function() table.sort(setmetatable({}, { __len = function() return math.maxinteger end })) end,
      }
      for at, call in ipairs(calls) do ctx.t:set(tostring(at), { s = says(call) }) end
      ctx.t:set('hex', { n = tonumber('-' .. ('f'):rep(40), 16), s = tostring(tonumber(('z'):rep(13), 36)) })
    end";
    let lines = format!("{{\"block\":1,\"region\":\"a\",\"v\":{}}}\n", "7".repeat(140_000));
    let project = Project::with(&pipeline(""), script, &lines);
    project.forebay(&RUN).ok();
    let says = project.query("p.db", "SELECT s FROM t WHERE id < '6' ORDER BY id");
    let range = "numeric: the number has more than 131072 digits before or 16383 after the point";
    let fixed = range.replace("numeric: ", "string.format: ");
    let long = "table.sort: a list of 9223372036854775807 is too long";
    assert_eq!(says, [[range], [range], [&*fixed], [range], [long]]);
    let hex = project.query("p.db", "SELECT n, s FROM t WHERE id = 'hex'");
    assert_eq!(hex, [["-1461501637330902918203684832716283019655932542975", "170581728179578208255"]]);
}

/// What a condition on a double compares with is a double, or it is refused: the nearest one may be on the other side.
#[test]
fn a_condition_on_a_double_compares_with_what_it_says() {
    let script = "local function found(ctx, ...)
      local ok, rows = pcall(ctx.t.find, ctx.t, { where = { { 'd', ... } } })
      if not ok then return rows:match(': (.*)') end
      local ids = {}
      for at, row in ipairs(rows) do ids[at] = row.id end
      return table.concat(ids, ',')
    end
    function on_event(e, ctx)
      ctx.t:set('a', { d = 2.0 ^ 53 })
      ctx.t:set('b', { d = 1 })
      ctx.u:set('1', { s = found(ctx, '<', 9007199254740993) })
      ctx.u:set('2', { s = found(ctx, '=', 9007199254740992) })
      ctx.u:set('3', { s = found(ctx, '>', numeric('0.99999999999999999999999')) })
      ctx.u:set('4', { s = found(ctx, '>=', numeric('1')) .. ' ' .. found(ctx, '<', numeric('1.5')) })
    end";
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.t]\ncolumns = { d = \"double\" }\nindexes = [\"d\"]\n[entities.u]\ncolumns = { s = \"text\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n";
    let project = Project::with(pipeline, script, "{\"block\":1,\"region\":\"a\"}\n");
    project.forebay(&RUN).ok();
    let refused = |value: &str| format!("t:find: the condition on \"d\": no double is {value}; one comes near it");
    assert_eq!(
        project.query("p.db", "SELECT s FROM u ORDER BY id"),
        [[refused("9007199254740993")], ["a".to_owned()], [refused("0.99999999999999999999999")], ["a,b b".to_owned()]]
    );
}

/// By what values are told apart no script can get at: not by the metatable that a value shows, nor by that of a metatable.
#[test]
fn no_script_is_given_what_values_are_told_apart_by() {
    let calls = "pcall(error, x) pcall(numeric, x) pcall(math.max, x, 1) pcall(array, x) pcall(table.concat, { x })
      pcall(function() return numeric(1) + x end) pcall(function() return x < numeric(1) end) pcall(pairs, x)
      pcall(ctx.t.set, ctx.t, x, { v = x }) pcall(ctx.t.set, ctx.t, 'y', x) pcall(ctx.t.find, ctx.t, x) pcall(math.floor, x)
      pcall(tostring, x) pcall(string.format, '%s', x) pcall(next, x) pcall(ipairs, x) pcall(tonumber, x) pcall(function() return -x end)";
    let in_a_call = format!(
        "function on_event(e, ctx)
      local got = {{}}
      local X = setmetatable({{}}, {{ __eq = function(a, b) got[#got + 1] = b got[#got + 1] = a return false end }})
      for _, meta in ipairs{{ {{ __metatable = X }}, X }} do
        local x = setmetatable({{}}, meta)
        {calls}
      end
      local others = 0
      for _, one in ipairs(got) do if not rawequal(one, X) then others = others + 1 end end
      ctx.t:set(e.id, {{ v = others }})
    end"
    );
    let while_loading = "do
      local M, got = {}, {}
      local X = setmetatable({}, M)
      M.__eq = function(a, b) if b.__div then got.numeric = b elseif b.__name then got[#got + 1] = b end return false end
      pcall(numeric, setmetatable({}, { __metatable = X }))
      pcall(error, setmetatable({}, { __metatable = X }))
      pcall(pairs, setmetatable({}, X))
      local count = 0
      if got.numeric then got.numeric.__div = function() count = count + 1 return count end end
      function found() return #got end
    end
    function on_event(e, ctx) ctx.t:set(e.id, { v = found() + numeric(1) / 1 - 1 }) end";
    let lines: String = (1..=4).map(|n| format!("{{\"block\":{n},\"region\":\"a\",\"id\":\"k{n}\"}}\n")).collect();
    for script in [in_a_call.as_str(), while_loading] {
        let project = Project::with(&pipeline(""), script, &lines);
        project.forebay(&RUN).ok();
        assert_eq!(project.query("p.db", "SELECT DISTINCT v FROM t WHERE id LIKE 'k%'"), [["0"]], "{script}");
    }
}
