//! What scripts can rely on: exact values, their own copies, events that are whole, and rows that come back as they
//! were after a restart or after they were let go.

use forebay::Numeric;

use crate::support::project::Project;

fn pipeline(entities: &str, more: &str) -> String {
    format!(
        "name = \"p\"\n[source]\npath = \"events.ndjson\"\n{entities}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n{more}\n"
    )
}

/// For scripts: the ids of rows, in a text.
const IDS: &str = "local function ids(rows) local t = {} for i, row in ipairs(rows) do t[i] = row.id end return table.concat(t, ' ') end\n";

const ALL_TYPES: &str = r#"[entities.thing]
columns = { t = "text", b = "boolean", i = "bigint", d = "double", n = "numeric", at = "timestamptz", j = "jsonb", x = "bytes" }"#;

#[test]
fn every_type_comes_back_after_a_restart_as_it_was_set() {
    let script = r#"
    local function check(row)
      assert(row.t == "Grüße\n" and row.b == false and row.i == math.mininteger and row.d == 0.1)
      assert(row.n == numeric("-123456789012345678901234567890.5") and row.at == "2018-01-31T01:49:59.650Z")
      assert(#row.j.list == 2 and row.j.list[2].deep == "x" and row.j.n == 7 and row.x == "\0\255bytes")
    end
    function on_event(event, ctx)
      if ctx.block == 1 then
        ctx.thing:set("one", { t = "Grüße\n", b = false, i = math.mininteger, d = 0.1,
          n = numeric("-123456789012345678901234567890.50"), at = "2018-01-31T03:49:59.65+02:00",
          j = { list = { 1, { deep = "x" } }, n = 7 }, x = "\0\255bytes" })
        ctx.thing:set("nulls", {})
        ctx.thing:set("widened", { i = 3.0, d = 7, n = 0.1 })
      end
      check(ctx.thing:get("one"))
      assert(next(ctx.thing:get("nulls")) == nil)
      local widened = ctx.thing:get("widened")
      assert(math.type(widened.i) == "integer" and math.type(widened.d) == "float" and tostring(widened.n) == "0.1")
    end"#;
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, "{\"block\":1,\"region\":\"r\"}\n");
    project.run_json();
    project.write("events.ndjson", "{\"block\":1,\"region\":\"r\"}\n{\"block\":2,\"region\":\"r\"}\n");
    project.run_json();
    let sql = "SELECT typeof(t), typeof(b), typeof(i), typeof(d), typeof(n), typeof(at), typeof(j), typeof(x), n, at, j FROM thing WHERE id = 'one'";
    let expected = [
        "text",
        "integer",
        "integer",
        "real",
        "text",
        "text",
        "text",
        "blob",
        "-123456789012345678901234567890.5",
        "2018-01-31T01:49:59.650Z",
        r#"{"list":[1,{"deep":"x"}],"n":7}"#,
    ];
    assert_eq!(project.query("p.db", sql), [expected]);
    assert_eq!(
        project.query("p.db", "SELECT count(*) FROM thing WHERE coalesce(t, b, i, d, n, at, j, x) IS NULL"),
        [["1"]]
    );
}

#[test]
fn integers_are_exact_from_the_event_to_the_row() {
    let script = r#"function on_event(event, ctx)
      assert(math.type(event.small) == "integer" and math.type(event.float) == "float")
      ctx.thing:set("1", { i = event.max, n = event.huge })
      ctx.thing:set("2", { i = event.text, n = event.huge_text })
      ctx.thing:set("3", { i = event.past53, n = event.past53 + 0 })
      ctx.thing:set("4", { i = numeric(event.min), n = event.huge - numeric(1) })
    end"#;
    let huge = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let event = format!(
        r#"{{"block":1,"region":"r","small":1,"float":1.0,"max":9223372036854775807,"min":-9223372036854775808,"past53":9007199254740993,"text":"-9223372036854775808","huge":{huge},"huge_text":"{huge}"}}"#
    );
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, &event);
    project.run_json();
    let rows = project.query("p.db", "SELECT i, n FROM thing ORDER BY id");
    let less = format!("{}4", &huge[..huge.len() - 1]);
    assert_eq!(
        rows,
        [
            ["9223372036854775807", huge],
            ["-9223372036854775808", huge],
            ["9007199254740993", "9007199254740993"],
            ["-9223372036854775808", &less]
        ]
    );
}

/// A number of 1 to `digits` digits, sometimes negative, sometimes with a fraction.
fn random_number(state: &mut u64, digits: u64) -> String {
    let mut next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    };
    let len = 1 + next() % digits;
    let mut text: String = (0..len)
        .map(|at| if at == 0 { (b'1' + (next() % 9) as u8) as char } else { (b'0' + (next() % 10) as u8) as char })
        .collect();
    match next() % 6 {
        0 => text.push_str(&format!(".{}", 1 + next() % 999)),
        1 => text = "9".repeat(len as usize),
        2 => text = format!("1{}", "0".repeat(len as usize)),
        _ => {}
    }
    if next().is_multiple_of(2) { format!("-{text}") } else { text }
}

/// Two limbs in Lua against 128 bits and big decimals in Rust.
#[test]
fn numeric_arithmetic_of_scripts_is_that_of_the_library() {
    let script = r#"function on_event(e, ctx)
      local a, b = numeric(e.a), numeric(e.b)
      local function is(op, got, expected)
        if tostring(got) ~= expected then error(e.a .. " " .. op .. " " .. e.b .. " = " .. tostring(got) .. ", not " .. expected) end
        if type(got) == "table" and got ~= numeric(expected) then error(expected .. " has two forms") end
      end
      is("+", a + b, e.add) is("-", a - b, e.sub) is("*", a * b, e.mul) is("/", a / b, e.div)
      is("//", a // b, e.idiv) is("%", a % b, e.rem) is("neg", -a, e.neg)
      is("<", a < b, e.lt) is("<=", a <= b, e.le) is("==", a == b, e.eq)
    end"#;
    let mut state = 42;
    let mut events = String::new();
    for _ in 0..4000 {
        let (a, b) = (random_number(&mut state, 40), random_number(&mut state, 40));
        let (x, y): (Numeric, Numeric) = (a.parse().expect("number"), b.parse().expect("number"));
        let event = serde_json::json!({
            "block": 1, "region": "r", "a": a, "b": b, "add": &x + &y, "sub": &x - &y, "mul": &x * &y, "neg": -&x,
            "div": x.checked_div(&y).expect("not zero"), "idiv": x.checked_floor_div(&y).expect("not zero"),
            "rem": x.checked_rem(&y).expect("not zero"),
            "lt": (x < y).to_string(), "le": (x <= y).to_string(), "eq": (x == y).to_string(),
        });
        events.push_str(&format!("{event}\n"));
    }
    Project::with(&pipeline("", ""), script, &events).run_json();
}

#[test]
fn an_event_is_whole_however_it_is_read() {
    let script = r#"
    local function count(tab) local n = 0 for _ in pairs(tab) do n = n + 1 end return n end
    function on_event(e, ctx)
      assert(e.text == "a\"ü\u{1F600}" and e.missing == nil and e.null == nil and e.yes == true)
      assert(e.list[1] == 1 and #e.list == 3 and e.object.inner[1].x == 2.5 and #e.empty == 0)
      if ctx.block == 2 then assert(count(e) == 8) end
      if ctx.block == 3 then assert(next(e) ~= nil and e.text) end
      e.own = 1
      assert(e.own == 1)
      ctx.thing:set(tostring(ctx.block), { j = e })
    end"#;
    let line = |block: i64| {
        format!(
            r#"{{"block":{block},"region":"r","text":"a\"ü\ud83d\ude00","null":null,"yes":true,"list":[1,2,3],"object":{{"inner":[{{"x":2.5}}]}},"empty":[],"f":1.0}}"#
        ) + "\n"
    };
    let events: String = (1..=2500).map(line).collect();
    let project = Project::with(&pipeline(ALL_TYPES, "[batch]\nevents = 50"), script, &events);
    project.run_json();
    let rows = project.query("p.db", "SELECT id, j FROM thing");
    assert_eq!(rows.len(), 2500);
    for row in rows {
        let expected = format!(
            r#"{{"block":{},"empty":[],"f":1.0,"list":[1,2,3],"null":null,"object":{{"inner":[{{"x":2.5}}]}},"own":1,"region":"r","text":"a\"ü😀","yes":true}}"#,
            row[0]
        );
        assert_eq!(row[1], expected);
    }
}

#[test]
fn fields_that_vary_from_event_to_event_arrive_as_they_are() {
    let script = r#"
    local kinds = { ["nil"] = "n", boolean = "b", string = "s", table = "t" }
    function on_event(e, ctx)
      local seen = ""
      for i = 1, 6 do
        local v = e["f" .. i]
        seen = seen .. (math.type(v) == "integer" and "i" or math.type(v) == "float" and "d" or kinds[type(v)])
      end
      if seen ~= e.expected then error(seen .. " is not " .. e.expected) end
    end"#;
    // More shapes than are compiled, in an order that never repeats soon.
    let forms = [
        ("null", 'n'),
        ("7", 'i'),
        ("7.5", 'd'),
        ("\"x\"", 's'),
        ("true", 'b'),
        ("[1]", 't'),
        ("99999999999999999999", 't'),
        ("\"\\u00e9\"", 's'),
    ];
    let mut events = String::new();
    for number in 0..6000_usize {
        let picked: Vec<(&str, char)> =
            (0..6).map(|place| forms[(number / 8_usize.pow(place) + number * 7) % 8]).collect();
        let fields: String =
            picked.iter().enumerate().map(|(at, (form, _))| format!(",\"f{}\":{form}", at + 1)).collect();
        let expected: String = picked.iter().map(|(_, kind)| *kind).collect();
        events.push_str(&format!("{{\"block\":{number},\"region\":\"r\"{fields},\"expected\":\"{expected}\"}}\n"));
    }
    Project::with(&pipeline("", ""), script, &events).run_json();
}

#[test]
fn rows_are_copies_and_deletes_count() {
    let script = r#"
    function on_event(e, ctx)
      local t = ctx.thing
      t:set("a", { i = 1, j = { 1 } })
      local mine = t:get("a")
      mine.i, mine.j[1] = 99, 99
      assert(t:get("a").i == 1 and t:get("a").j[1] == 1)
      local given = { i = 2 }
      t:set("b", given)
      given.i = 99
      assert(t:get("b").i == 2 and t:count() == 2)
      t:delete("a")
      assert(t:get("a") == nil and t:count() == 1)
      t:set("a", { i = 3 })
      assert(t:count() == 2)
      t:delete("a") t:delete("never was")
      t:set(7, { i = 7 })
      assert(t:get("7").i == 7 and t:count() == 2)
    end
    function on_snapshot(ctx) return { count = ctx.thing:count() } end"#;
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, "{\"block\":1,\"region\":\"r\"}\n");
    project.run_json();
    assert_eq!(project.query("p.db", "SELECT id, i FROM thing ORDER BY id"), [["7", "7"], ["b", "2"]]);
}

#[test]
fn find_filters_orders_and_limits() {
    let script = r#"
    function on_event(e, ctx) ctx.thing:set(e.id, { i = e.i, n = e.n and numeric(e.n), t = e.t }) end
    function on_snapshot(ctx)
      local t = ctx.thing
      return { all = ids(t:find()), down = ids(t:find{ order = "-i" }), up = ids(t:find{ order = "i", limit = 2 }),
        ge = ids(t:find{ where = {{"i", ">=", 2}}, order = "i" }), two = ids(t:find{ where = {{"i", "=", 2}, {"n", ">", "5"}} }),
        big = ids(t:find{ order = "-n", limit = 1 }), text = ids(t:find{ where = {{"t", "<", "b"}} }), row = t:find{ limit = 1 }[1] }
    end"#;
    let events = [
        ("a", "1", "null", "\"x\""),
        ("b", "2", "\"10\"", "\"a\""),
        ("c", "2", "\"5\"", "null"),
        ("d", "null", "\"99999999999999999999\"", "\"b\""),
        ("e", "2", "\"7\"", "\"\""),
    ];
    let events: String = events
        .iter()
        .map(|(id, i, n, t)| {
            format!("{{\"block\":1,\"region\":\"r\",\"id\":\"{id}\",\"i\":{i},\"n\":{n},\"t\":{t}}}\n")
        })
        .collect();
    let entities = format!("{ALL_TYPES}\nindexes = [\"i\", \"n\", \"t\"]");
    let project = Project::with(&pipeline(&entities, ""), &format!("{IDS}{script}"), &events);
    project.run_json();
    let doc = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json();
    let expected = serde_json::json!({"all": "a b c d e", "down": "b c e a d", "up": "a b", "ge": "b c e", "two": "b e", "big": "d", "text": "b e", "row": {"id": "a", "i": 1, "t": "x"}});
    assert_eq!(doc, expected);
    // And again over rows that have to be loaded first.
    project.write("events.ndjson", events + "{\"block\":2,\"region\":\"r\",\"id\":\"f\",\"i\":3}\n");
    project.run_json();
    let doc = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().json();
    assert_eq!((&doc["down"], &doc["ge"]), (&"f b c e a d".into(), &"b c e f".into()));
}

#[test]
fn ten_thousand_regions_share_a_few_engines() {
    let script = r#"function on_event(e, ctx)
      local t = ctx.thing:get("n") or { i = 0 }
      t.i = t.i + 1
      ctx.thing:set("n", t)
    end
    function on_snapshot(ctx) return ctx.thing:get("n") end"#;
    let events: String = (0..30_000).map(|n| format!("{{\"block\":{n},\"region\":\"r{}\"}}\n", n % 10_000)).collect();
    let project = Project::with(&pipeline(ALL_TYPES, "[snapshots]\nevery = \"end\""), script, &events);
    let report = project.run_json();
    assert_eq!(project.query("p.db", "SELECT count(*), min(i), max(i) FROM thing"), [["10000", "3", "3"]]);
    assert_eq!(report["snapshots"]["stored"], 10_000);
    let mib = report["memory_peak_bytes"].as_u64().expect("bytes") >> 20;
    assert!(mib < 150, "{mib} MiB");
}

#[test]
fn pairs_has_one_order() {
    let script = r#"function on_event(e, ctx)
      local keys = {}
      for key in pairs{ z = 1, a = 2, [3] = 3, [1] = 1, [2.5] = 1, m = 4, [true] = 5 } do keys[#keys + 1] = tostring(key) end
      for key in pairs(e) do keys[#keys + 1] = key end
      local gone = { a = 1, b = 2, c = 3 }
      for key in pairs(gone) do gone.b = nil keys[#keys + 1] = key end
      ctx.thing:set("order", { t = table.concat(keys, " ") .. " " .. tostring({}) })
    end"#;
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, "{\"region\":\"r\",\"q\":1,\"block\":1}\n");
    project.run_json();
    let expected = "true 1 2.5 3 a m z block q region a c table";
    assert_eq!(project.query("p.db", "SELECT t FROM thing"), [[expected]]);
}

/// What a script's author writes without thinking of us: classes, closures, varargs, libraries.
#[test]
fn ordinary_lua_works() {
    let script = r##"
    Stack = {}
    Stack.__index = Stack
    Stack.__len = function(s) return s.n end
    function Stack.new(...) return setmetatable({ n = select("#", ...), ... }, Stack) end
    function Stack:top() return self[self.n] end
    Limits = setmetatable({ low = 1, names = { "a", "b" } }, { __index = function(_, key) return key .. "?" end, __call = function(_, x) return x + 1 end })
    Locked = setmetatable({ x = 1 }, { __metatable = "locked" })
    local function sorted(t) table.sort(t, function(a, b) return a > b end) return table.concat(t, ",") end
    function on_event(e, ctx)
      local s = Stack.new(1, nil, 3)
      assert(s:top() == 3 and #s == 3 and getmetatable(s) == Stack)
      assert(Limits.low == 1 and Limits.other == "other?" and Limits(4) == 5 and #Limits.names == 2)
      assert(not pcall(function() Limits.low = 2 end) and not pcall(function() Stack.top = nil end) and not pcall(function() Limits.names[3] = "c" end))
      assert(sorted{ 3, 1, 2 } == "3,2,1" and ("%d-%s"):format(7 // 2, "x") == "3-x" and #("é") == 2 and utf8.len("é") == 1)
      assert(tonumber("0x10") == 16 and tonumber(numeric("2.5")) == 2.5 and tostring(numeric(".5") + numeric("5.")) == "5.5")
      assert(select(2, table.unpack{ 1, 2, 3 }) == 2 and next({}) == nil and math.tointeger(3.0) == 3 and 7 // 2 == 3)
      local count = 0
      for name in pairs(_G) do count = count + (name == "Stack" and 1 or 0) end
      for key in pairs(setmetatable({ a = 1 }, { __metatable = false })) do count = count + #key end
      assert(count == 2 and Locked.x == 1 and getmetatable(Locked) == "locked" and next(_G) ~= nil)
      local ok, problem = pcall(error, { code = 1 })
      assert(not ok and problem.code == 1)
      ctx.thing:set("list", { j = e.list })
    end"##;
    let event = "{\"block\":1,\"region\":\"r\",\"list\":[1,null,3,null,[null,\"x\"]]}\n";
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, event);
    project.run_json();
    assert_eq!(project.query("p.db", "SELECT j FROM thing"), [[r#"[1,null,3,null,[null,"x"]]"#]]);
}

#[test]
fn find_compares_times_and_not_their_texts() {
    let script = r#"
    function on_event(e, ctx) ctx.thing:set(e.id, { at = e.at }) end
    function on_snapshot(ctx)
      local from = ctx.thing:find{ where = {{"at", ">=", "2020-01-01T01:00:00+01:00"}}, order = "at" }
      return { all = ids(ctx.thing:find{ order = "-at" }), from = ids(from) }
    end"#;
    let times = [
        ("a", "00:00:00Z"),
        ("b", "00:00:00.5Z"),
        ("c", "00:00:00.25Z"),
        ("d", "00:00:01Z"),
        ("e", "00:00:00.250001Z"),
    ];
    let event = |(id, time): (&str, &str)| {
        format!("{{\"block\":1,\"region\":\"r\",\"id\":\"{id}\",\"at\":\"2020-01-01T{time}\"}}\n")
    };
    let entities = format!("{ALL_TYPES}\nindexes = [\"at\"]");
    let project = Project::with(&pipeline(&entities, ""), &format!("{IDS}{script}"), &times.map(event).concat());
    project.run_json();
    let doc = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout();
    assert_eq!(doc, "{\"all\":\"d b e c a\",\"from\":\"a c e b d\"}\n");
}

/// What Lua leaves to chance is not: equal elements keep their order, addresses are not shown, a removed field stays
/// removed, and finalisers are refused.
#[test]
fn nothing_is_left_to_chance() {
    let script = r##"function on_event(e, ctx)
      local rows = {}
      for i = 1, 1000 do rows[i] = { key = i // 4, at = i } end
      table.sort(rows, function(a, b) return a.key > b.key end)
      local order = {}
      for i = 1, 8 do order[i] = rows[i].at end
      local words = { "b", "a", "c" }
      table.sort(words)
      e.gone = nil
      assert(e.gone == nil and e.cold ~= nil)
      e.cold = nil
      assert(e.cold == nil)
      for key in pairs(e) do assert(key ~= "gone" and key ~= "cold") end
      assert(not pcall(string.format, "%p", {}) and not pcall(setmetatable, {}, { __gc = print }))
      local text = string.format("%s %s %5.1f", {}, print, 2.25) .. table.concat(order, " ") .. table.concat(words)
      ctx.thing:set(tostring(ctx.block), { t = text })
    end"##;
    let events: String =
        (1..=200).map(|block| format!("{{\"block\":{block},\"region\":\"r\",\"gone\":1,\"cold\":2}}\n")).collect();
    let project = Project::with(&pipeline(ALL_TYPES, ""), script, &events);
    project.run_json();
    let texts = project.query("p.db", "SELECT DISTINCT t FROM thing");
    assert_eq!(texts, [["table function   2.21000 996 997 998 999 992 993 994abc"]]);
}

#[test]
fn booleans_are_found_and_ordered() {
    let script = r#"
    function on_event(e, ctx) ctx.thing:set(e.id, { b = e.b }) end
    function on_snapshot(ctx)
      local t = ctx.thing
      return { no = ids(t:find{ where = {{"b", "<", true}} }), yes = ids(t:find{ where = {{"b", "=", true}} }), all = ids(t:find{ order = "-b" }) }
    end"#;
    let event = |(id, b): (&str, &str)| format!("{{\"block\":1,\"region\":\"r\",\"id\":\"{id}\",\"b\":{b}}}\n");
    let entities = format!("{ALL_TYPES}\nindexes = [\"b\"]");
    let events = [("x", "true"), ("y", "false"), ("z", "null")].map(event).concat();
    let project = Project::with(&pipeline(&entities, ""), &format!("{IDS}{script}"), &events);
    project.run_json();
    let doc = project.forebay(&["latest", "--config", "pipeline.toml"]).ok().stdout();
    assert_eq!(doc, "{\"all\":\"x y z\",\"no\":\"y\",\"yes\":\"x\"}\n");
}

/// Amounts as texts cross with their limbs, of a few fields; the others are as good.
#[test]
fn an_event_may_have_many_amounts() {
    let fields: Vec<String> =
        (0..80).map(|n| format!("\"f{n}\":\"{}\"", 12_345_678_901_234_567_890_u128 * 10 + n)).collect();
    let line = |block: u64| format!("{{\"block\":{block},\"region\":\"r\",{}}}\n", fields.join(","));
    let events: String = (0..5).map(line).collect();
    let script = "function on_event(e, ctx)
      local sum = numeric(0)
      for n = 0, 79 do sum = sum + numeric(e[\"f\" .. n]) end
      ctx.thing:set(\"x\", { sum = sum })
    end";
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.thing]\ncolumns = { sum = \"numeric\" }\n[handlers]\nscript = \"handlers.lua\"";
    let project = Project::with(pipeline, script, &events);
    project.forebay(&["run", "pipeline.toml", "--store", "sqlite:p.db"]).ok();
    let sum = 80 * 123_456_789_012_345_678_900_u128 + (0..80).sum::<u128>();
    assert_eq!(project.query("p.db", "SELECT sum FROM thing"), [[sum.to_string()]]);
}
