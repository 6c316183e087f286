//! Fields of events: deeper ones that say where an event belongs, and types that the pipeline file gives.

use crate::support::cases::{assert_none, complaint, complaint_untouched};
use crate::support::project::Project;

const RUN: [&str; 2] = ["run", "pipeline.toml"];

fn pipeline(source: &str) -> String {
    format!(
        "name = \"p\"\n[entities.t]\ncolumns = {{ num = \"numeric\", big = \"bigint\", txt = \"text\", dbl = \"double\", at = \
         \"timestamptz\" }}\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n[snapshots]\nevery = \
         \"end\"\n[source]\npath = \"events.ndjson\"\n{source}\n"
    )
}

#[test]
fn events_belong_where_deeper_fields_say() {
    let script = "function on_event(e, ctx) ctx.t:add('n', { big = 1, num = ctx.block }) end";
    for (source, events, expected) in [
        (
            "block = \"id\"\nregion = \"repo.name\"\nseq = \"payload.push.seq\"",
            "{\"id\":\"2489651045\",\"repo\":{\"id\":1,\"name\":\"a/b\"},\"payload\":{\"push\":{\"seq\":\"0x1\"}}}\n\
             {\"id\":\"2489651045\",\"repo\":{\"id\":1,\"name\":\"a/b\"},\"payload\":{\"push\":{\"seq\":2}}}\n",
            [["a/b", "2", "4979302090"]],
        ),
        (
            "block = \"blockNumber\"\nregion = \"chain\"\nhash = \"head.hash\"\nparent = \"head.parent\"\n[rollback]\ndepth = 9",
            "{\"blockNumber\":\"0xc5d488\",\"chain\":1.0,\"head\":{\"hash\":\"a\",\"parent\":null}}\n\
             {\"blockNumber\":\"0xc5d489\",\"chain\":1,\"head\":{\"hash\":\"b\",\"parent\":\"a\"}}\n\
             {\"blockNumber\":\"0xc5d489\",\"chain\":1,\"head\":{\"hash\":\"c\",\"parent\":\"a\"}}\n",
            [["1", "2", "25930001"]],
        ),
        (
            "block = \"b.n\"\nregion = \"r\"",
            "{\"b.n\":17000000.0,\"b\":{\"n\":1},\"r\":7}\n{\"b\":{\"n\":1.8e7},\"r\":7}\n",
            [["7", "2", "35000000"]],
        ),
    ] {
        let project = Project::with(&pipeline(source), script, events);
        project.run_json();
        assert_eq!(project.query("p.db", "SELECT region, big, num FROM t"), expected, "{source}");
    }
}

const TYPES: &str = "[source.fields]\nnum = \"numeric\"\nbig = \"bigint\"\ntxt = \"text\"\ndbl = \"double\"\nat = { type = \
                     \"timestamptz\", unit = \"s\" }\ntx.num = \"numeric\"\n\"tx.at\" = { type = \"timestamptz\", unit = \"ms\" }\n";

/// One row for each event, from its own fields and from those of `tx`.
const SCRIPT: &str = r#"
local function is(value, kind) if value ~= nil and type(value) ~= kind then error("a " .. type(value)) end return value end
function on_event(e, ctx)
  is(e.num, "table") is(e.big, "number") is(e.txt, "string") is(e.dbl, "number") is(e.at, "string")
  ctx.t:set(e.block, { num = e.num and e.num + 1, big = e.big, txt = e.txt, dbl = e.dbl, at = e.at })
  for at, tx in ipairs(e.list or { e.tx }) do
    ctx.t:set(e.block .. "-" .. at, { num = is(tx.num, "table"), at = is(tx.at, "string"), txt = tx.txt })
  end
  if e.all then for name, value in pairs(e) do if name == "num" then is(value, "table") end end end
end
"#;

#[test]
fn a_field_with_a_type_has_it_in_each_form() {
    let forms = r#"{"block":1,"region":"r","num":5,"big":"0x1f","txt":"17","dbl":"1.5","at":1517363399}
{"block":2,"region":"r","num":"0x1f","big":1.7e1,"txt":17.0,"dbl":2,"at":"1517363399.65"}
{"block":3,"region":"r","num":115792089237316195423570985008687907853269984665640564039457584007913129639935,"big":-5.0,"txt":12345678901234567890123,"dbl":1.25e3,"at":"2018-01-31T03:49:59+02:00"}
{"block":4,"region":"r","num":9007199254740993.0,"big":null,"at":null}
{"block":5,"region":"r","num":"1e3","tx":{"num":"7","at":1517363399650.25,"txt":"a"}}
{"block":6,"region":"r","tx":{"num":0.1,"at":"1517363399650"},"all":true,"num":1}
"#;
    let expected = [
        ["1", "6", "31", "17", "1.5", "2018-01-31T01:49:59Z"],
        ["2", "32", "17", "17", "2.0", "2018-01-31T01:49:59.650Z"],
        [
            "3",
            "115792089237316195423570985008687907853269984665640564039457584007913129639936",
            "-5",
            "12345678901234567890123",
            "1250.0",
            "2018-01-31T01:49:59Z",
        ],
        ["4", "9007199254740994", "", "", "", ""],
        ["5", "1001", "", "", "", ""],
        ["5-1", "7", "", "a", "", "2018-01-31T01:49:59.650250Z"],
        ["6", "2", "", "", "", ""],
        ["6-1", "0.1", "", "", "", "2018-01-31T01:49:59.650Z"],
    ];
    // The first events fetch their fields, later ones bring them along.
    let many: String = (0..3000).map(|n| forms.replace("\"block\":", &format!("\"block\":{}", n + 1))).collect();
    for (events, prefix) in [(forms.to_owned(), String::new()), (many, "3000".to_owned())] {
        let project = Project::with(&pipeline(TYPES), SCRIPT, &events);
        project.run_json();
        let sql = format!(
            "SELECT substr(id, {}), ifnull(num,''), ifnull(big,''), ifnull(txt,''), ifnull(dbl,''), ifnull(at,'') \
             FROM t WHERE id GLOB '{prefix}[1-6]' OR id GLOB '{prefix}[1-6]-1' ORDER BY id",
            prefix.len() + 1
        );
        assert_eq!(project.query("p.db", &sql), expected);
    }
}

#[test]
fn a_value_that_is_not_of_its_type_is_named() {
    let cases = [
        (
            "num",
            r#""num":true"#,
            "field \"num\": expected a numeric: a number, or a text such as \"17.5\" or \"0x1f\", got a boolean",
        ),
        ("big", r#""big":"9223372036854775808""#, "field \"big\": expected a bigint: an integer of 64 bits"),
        ("big", r#""big":1.5"#, "got 1.5"),
        ("txt", r#""txt":{}"#, "field \"txt\": expected a text, or a number that stands for its digits, got an object"),
        ("dbl", r#""dbl":"x""#, "field \"dbl\": expected a double: a number"),
        ("at", r#""at":253402300800"#, "field \"at\": expected a timestamptz: seconds since 1970"),
        ("tx", r#""tx":{"num":"x"}"#, "field \"tx.num\": expected a numeric"),
    ];
    for events_before in [0, 3000] {
        assert_none(cases.iter().map(|(field, json, says)| {
            let before: String =
                (1..=events_before).map(|n| format!("{{\"block\":{n},\"region\":\"r\",\"{field}\":null}}\n")).collect();
            let events = format!("{before}{{\"block\":9999,\"region\":\"r\",{json}}}\n");
            // An error that the script catches counts as well.
            let script = format!("function on_event(e, ctx) pcall(function() local x = e.{field} end) end");
            let outcome = Project::with(&pipeline(TYPES), &script, &events).forebay(&RUN);
            complaint(json, &outcome, 2, &[says, &format!("events.ndjson:{}", events_before + 1)])
        }));
    }
}

#[test]
fn types_that_are_none_are_refused() {
    let cases = [
        (
            "num = \"numerik\"",
            "field num: \"numerik\" is not a type; did you mean \"numeric\"?; expected one of numeric, bigint",
        ),
        ("num = 1", "source.fields.num: expected a string, got an integer"),
        ("num = { type = \"numeric\", unit = \"s\" }", "field num: unit: only a timestamptz has one"),
        (
            "at = { type = \"timestamptz\", unit = \"sec\" }",
            "field at: unit: expected \"s\" (seconds) or \"ms\" (milliseconds)",
        ),
        (
            "at = { type = \"timestamptz\", units = \"s\" }",
            "unknown key \"units\" in [source.fields.at]; did you mean \"unit\"?",
        ),
        ("at = { unit = \"s\" }", "missing key \"source.fields.at.type\""),
        ("a.b = \"text\"\n\"a.b\" = \"text\"", "field a.b is given twice"),
        ("\"\" = \"text\"", "the name of a field may not be empty"),
    ];
    assert_none(cases.iter().map(|(fields, says)| {
        let text = pipeline(&format!("[source.fields]\n{fields}"));
        let project = Project::with(&text, SCRIPT, "");
        let outcome = project.forebay(&RUN);
        complaint_untouched(fields, &project, &outcome, &["pipeline.toml:1", says])
    }));
    let project = Project::with(&pipeline("fields = \"text\""), SCRIPT, "");
    let outcome = project.forebay(&RUN);
    assert_none([complaint_untouched("no table", &project, &outcome, &["expected a table [source.fields] of types"])]);
}

#[test]
fn a_script_makes_times_of_numbers() {
    let script = r#"
function on_event(e, ctx)
  local function same(value, expected) if value ~= expected then error(tostring(value) .. ", not " .. expected) end end
  same(timestamp(0), "1970-01-01T00:00:00Z")
  same(timestamp(1517363399), "2018-01-31T01:49:59Z")
  same(timestamp(1517363399, "s"), "2018-01-31T01:49:59Z")
  same(timestamp(1517363399.65), "2018-01-31T01:49:59.650Z")
  same(timestamp(-0.5), "1969-12-31T23:59:59.500Z")
  same(timestamp(1517363399650, "ms"), "2018-01-31T01:49:59.650Z")
  same(timestamp(1517363399650.25, "ms"), "2018-01-31T01:49:59.650250Z")
  same(timestamp(numeric("1517363399.6500019")), "2018-01-31T01:49:59.650001Z")
  same(timestamp("1517363399"), "2018-01-31T01:49:59Z")
  same(timestamp(253402300799), "9999-12-31T23:59:59Z")
  local function refused(says, ...)
    local ok, problem = pcall(timestamp, ...)
    if ok or not problem:find(says, 1, true) then error(tostring(problem) .. ", not " .. says) end
  end
  refused("253402300800 seconds since 1970 lie outside the years -4712 to 9999", 253402300800)
  refused("lie outside the years", math.maxinteger, "ms")
  refused('expected the unit "s" or "ms", got the text "us"', 1, "us")
  refused("expected seconds since 1970, got the text \"x\"", "x")
  refused("expected seconds since 1970, got a nil", nil)
  refused("expected milliseconds since 1970", 0 / 0, "ms")
  ctx.t:set("a", { at = timestamp(1517363399650, "ms") })
end
"#;
    let project = Project::with(&pipeline(""), script, "{\"block\":1,\"region\":\"r\"}\n");
    project.run_json();
    assert_eq!(project.query("p.db", "SELECT at FROM t"), [["2018-01-31T01:49:59.650Z"]]);
}

#[test]
fn any_whole_number_is_an_id_and_one_number_is_one_row() {
    let script = "function on_event(e, ctx) ctx.t:add(e.id, { big = 1 }) end";
    let ids = ["17", "17.0", "\"17\"", "1.7e1", "9223372036854775808", "\"9223372036854775808\"", "-0.0", "0"];
    let events: String = ids.iter().map(|id| format!("{{\"block\":1,\"region\":\"r\",\"id\":{id}}}\n")).collect();
    let project = Project::with(&pipeline(""), script, &events);
    project.run_json();
    let rows = project.query("p.db", "SELECT id, big FROM t ORDER BY id");
    assert_eq!(rows, [["0", "2"], ["17", "4"], ["9223372036854775808", "2"]]);
    for id in ["1.5", "true", "null"] {
        let event = format!("{{\"block\":1,\"region\":\"r\",\"id\":{id}}}\n");
        let says = ["t:add: expected an id (text or a whole number)"];
        Project::with(&pipeline(""), script, &event).forebay(&RUN).fails(1, &says);
    }
}
