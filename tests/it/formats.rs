//! CSV and JSON: the same events in each format are the same rows and the same quarantine, and what each format says of
//! lines, headers, files and restarts.

use std::io::Write as _;

use forebay::source::{Delimiter, Format};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, fields};
use serde_json::Value as Json;

use crate::support::cases::{assert_none, complaint, complaint_untouched, replaced};
use crate::support::project::Project;
use crate::support::real_events::quakes;
use crate::support::stream::Stream;

const PIPELINE: &str = r#"name = "p"
[source]
path = "events"
format = "csv"
[entities.t]
columns = { v = "text", n = "bigint" }
[handlers]
script = "handlers.lua"
[rollback]
depth = 1000
[store]
url = "sqlite:p.db"
"#;

const SCRIPT: &str = "function on_event(e, ctx) ctx.t:set(ctx.block .. e.v, { v = e.v, n = 1 }) end";
const ROWS: &str = "SELECT region, id, v FROM t ORDER BY region, id";
const RUN: [&str; 3] = ["run", "pipeline.toml", "--json"];

fn project(pipeline: &str, events: &str) -> Project {
    let project = Project::with(pipeline, SCRIPT, "");
    project.write("events", events);
    project
}

fn rows(project: &Project) -> Vec<String> {
    project.query("p.db", ROWS).into_iter().map(|row| row.join("|")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("gzip");
    encoder.finish().expect("gzip")
}

/// Chance that is the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn digits(&mut self, up_to: usize) -> String {
        let rest = self.below(up_to);
        (0..=rest)
            .map(|at| char::from(b'0' + (if at == 0 { 1 + self.below(9) } else { self.below(10) }) as u8))
            .collect()
    }

    /// A value whose digits JSON has as a number or as a text, and CSV as they are.
    fn number(&mut self, digits: String) -> (String, String) {
        (if self.is(2) { digits.clone() } else { format!("\"{digits}\"") }, digits)
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 17] =
            ["a", "b", "7", " ", ",", ";", "\"", "\"\"", "'", "\n", "\r\n", "\r", "\t", "\\", "é", "😀", "\u{1}"];
        (0..self.below(6)).map(|_| self.of(&PARTS)).collect()
    }
}

/// The fields of an event: each with its JSON, and with its text in CSV.
type Event = Vec<(&'static str, (String, String))>;

/// Events of which some are none, and some are refused by their handler.
fn events(chance: &mut Chance, count: usize) -> Vec<Event> {
    let (mut events, mut block, mut seq) = (Vec::with_capacity(count), 5, 0);
    let quoted = |text: &str| (Json::from(text).to_string(), text.to_owned());
    for _ in 0..count {
        (block, seq) = if chance.is(3) { (block + 1 + chance.below(3), 0) } else { (block, seq + 1) };
        let null =
            |value: (String, String), is_null: bool| if is_null { ("null".to_owned(), String::new()) } else { value };
        let region = quoted(["r", "s", "Größe", "a,b"][chance.below(4)]);
        let num = match chance.below(4) {
            0 => quoted(&format!("0x{}", chance.digits(20))),
            1 => {
                let digits = format!("-{}.{}", chance.digits(20), chance.digits(9));
                chance.number(digits)
            }
            2 => {
                let digits = format!("{}e{}", chance.digits(4), chance.below(30));
                chance.number(digits)
            }
            _ => {
                let digits = chance.digits(40);
                chance.number(digits)
            }
        };
        let big = chance.digits(18);
        let dbl = format!("{}.{}", chance.digits(5), chance.digits(5));
        let at = match chance.below(3) {
            0 => quoted("2018-01-31T03:49:59.65+02:00"),
            _ => {
                let digits = chance.digits(9);
                chance.number(digits)
            }
        };
        let text = chance.text();
        let mut event = vec![
            ("txt", quoted(&text)),
            ("block", chance.number(block.to_string())),
            ("num", null(num, chance.is(9))),
            ("region", region),
            ("big", null(chance.number(big), chance.is(9))),
            ("dbl", null(chance.number(dbl), chance.is(9))),
            ("seq", chance.number(seq.to_string())),
            ("at", null(at, chance.is(9))),
            ("fail", quoted(if chance.is(40) { "yes" } else { "" })),
        ];
        if chance.is(25) {
            let (name, value) = [
                ("block", quoted("five")),
                ("block", null(quoted(""), true)),
                ("region", quoted("")),
                ("seq", quoted("1.5")),
                ("num", quoted("many")),
                ("big", quoted("9223372036854775808")),
                ("at", quoted("yesterday")),
            ][chance.below(7)]
            .clone();
            event.iter_mut().filter(|(field, _)| *field == name).for_each(|(_, slot)| *slot = value.clone());
        }
        events.push(event);
    }
    events
}

fn object(event: &Event, blank: &mut dyn FnMut() -> String) -> String {
    let fields =
        event.iter().map(|(name, (json, _))| format!("{}\"{name}\"{}:{}{json}{}", blank(), blank(), blank(), blank()));
    let fields: Vec<String> = fields.collect();
    format!("{{{}}}", fields.join(","))
}

fn ndjson(events: &[Event]) -> String {
    events.iter().map(|event| object(event, &mut String::new) + "\n").collect()
}

fn json(chance: &mut Chance, events: &[Event]) -> String {
    let is_list = chance.is(2);
    let mut text = String::from(if is_list { "[" } else { "" });
    for (at, event) in events.iter().enumerate() {
        let mut blank = || chance.of(&["", "", " ", "\n", "\r\n\t"]).to_owned();
        text += &blank();
        text += &object(event, &mut blank);
        text += &blank();
        text += if is_list && at + 1 < events.len() { "," } else { "" };
    }
    text + if is_list { "]\n" } else { "\n" }
}

fn csv(chance: &mut Chance, events: &[Event], delimiter: char) -> String {
    let mut order: Vec<usize> = (0..events[0].len()).collect();
    order.rotate_left(chance.below(5));
    let end = if chance.is(2) { "\r\n" } else { "\n" };
    let names: Vec<&str> = order.iter().map(|at| events[0][*at].0).collect();
    let mut text = names.join(&delimiter.to_string()) + end;
    for event in events {
        let field = |at: &usize| {
            let value = &event[*at].1.1;
            match value.contains(['"', '\n', '\r', delimiter]) || chance.is(5) {
                true => format!("\"{}\"", value.replace('"', "\"\"")),
                false => value.clone(),
            }
        };
        let fields: Vec<String> = order.iter().map(field).collect();
        text += &(fields.join(&delimiter.to_string()) + end);
    }
    text
}

const TYPED: &str = r#"name = "p"
[source]
path = "events"
seq = "seq"
[source.fields]
num = "numeric"
big = "bigint"
dbl = "double"
at = { type = "timestamptz", unit = "s" }
seq = "bigint"
[entities.t]
columns = { num = "numeric", big = "bigint", dbl = "double", at = "timestamptz", txt = "text", seen = "bigint" }
[handlers]
script = "handlers.lua"
[batch]
events = 100
[errors]
on_event = "quarantine"
max = 100000
[rollback]
depth = 1000000
[store]
url = "sqlite:p.db"
"#;

const TYPED_SCRIPT: &str = r#"
local seen = 0
function on_event(e, ctx)
  ctx.t:add("all", { seen = 1 })
  if e.fail == "yes" then error("no") end
  ctx.t:set(ctx.block .. "-" .. e.seq, { num = e.num, big = e.big, dbl = e.dbl, at = e.at, txt = e.txt })
end
"#;

/// What came of a run over these events in that format: rows, quarantine, and the counts of its report.
fn lived(name: &str, format: &str, text: &str, until: usize) -> (Vec<Vec<String>>, Vec<Vec<String>>, [Json; 3]) {
    let pipeline = replaced(TYPED, "[source.fields]", &format!("{format}\n[source.fields]"));
    let project = Project::with(&pipeline, &replaced(TYPED_SCRIPT, "local seen = 0\n", ""), "");
    project.write("events", if until.is_multiple_of(2) { gzip(text) } else { text.into() });
    project.forebay(&["run", "pipeline.toml", "--quiet", "--until", &until.to_string()]).ok();
    let report = project.run_json();
    let again = project.run_json();
    assert_eq!(
        (&again["events"], &again["source_bytes_read"]),
        (&0.into(), &0.into()),
        "{name}: nothing is read again"
    );
    let aside = "SELECT block, place, region, stage, CASE stage WHEN 'handler' THEN error END FROM forebay_quarantine \
                 ORDER BY batch, number";
    let counts = ["events", "blocks", "quarantined"].map(|key| report[key].clone());
    (project.query("p.db", "SELECT * FROM t ORDER BY region, id"), project.query("p.db", aside), counts)
}

#[test]
fn the_same_events_are_the_same_rows_and_the_same_quarantine_in_each_format() {
    for seed in 0..4 {
        let mut chance = Chance(seed);
        let events = events(&mut chance, 600);
        let until = 5 + chance.below(300);
        let lines = lived("ndjson", "", &ndjson(&events), until);
        assert!(lines.1.len() > 10 && lines.0.len() > 400, "{} rows, {} aside", lines.0.len(), lines.1.len());
        let records = csv(&mut chance, &events, ';');
        assert_eq!(
            lived("csv", "format = \"csv\"\ndelimiter = \";\"", &records, until),
            lines,
            "seed {seed}\n{records}"
        );
        let records = csv(&mut chance, &events, ',');
        assert_eq!(lived("csv", "format = \"csv\"", &records, until), lines, "seed {seed}\n{records}");
        let documents = json(&mut chance, &events);
        assert_eq!(lived("json", "format = \"json\"", &documents, until), lines, "seed {seed}\n{documents}");
    }
}

#[test]
fn earthquakes_from_csv_are_those_from_ndjson() {
    let states = ["pipeline.toml", "csv.toml"].map(|pipeline| {
        let project = Project::new();
        let file = quakes(pipeline);
        let report = project.forebay(&["run", &file, "--json", "--store", "sqlite:q.db"]).ok().json();
        assert_eq!(report["events"], 25_409);
        let tables = ["country", "total"]
            .map(|table| project.query("q.db", &format!("SELECT * FROM {table} ORDER BY region, id")));
        (tables, project.forebay(&["latest", "--config", &file, "--snapshots", "sqlite:q.db"]).ok().stdout())
    });
    assert_eq!(states[0], states[1]);
}

#[test]
fn a_script_gets_texts_and_what_the_types_make_of_them() {
    let script = r#"
function on_event(e, ctx)
  local kinds = {}
  for _, name in ipairs { "v", "n", "x", "repo.id", "empty" } do kinds[#kinds + 1] = type(e[name]) .. "=" .. tostring(e[name]) end
  ctx.t:set(ctx.block, { v = table.concat(kinds, " "), n = e.n })
end
"#;
    let pipeline = PIPELINE.to_owned() + "[source.fields]\nn = \"bigint\"\nx = \"text\"\n\"repo.id\" = \"numeric\"\n";
    let project = Project::with(&replaced(&pipeline, "\"csv\"", "\"csv\"\nblock = \"a.b\""), script, "");
    project.write("events", "a.b,region,v,n,x,repo.id,empty\n1,r,007,17,1.50,0x11,\n0x2,r,,,,,\"\"\n3,r,,,,,\n");
    project.run_json();
    let expected = [
        ["1", "string=007 number=17 string=1.50 userdata=17 string="],
        ["2", "string= nil=nil string= nil=nil string="],
        ["3", "string= nil=nil string= nil=nil string="],
    ];
    let rows = project.query("p.db", "SELECT id, v FROM t ORDER BY id");
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| cell.replace("table=17", "userdata=17")).collect()).collect();
    assert_eq!(rows, expected);
}

#[test]
fn booleans_and_json_come_out_of_texts() {
    let script = r#"
function on_event(e, ctx)
  if e.doc ~= nil and type(e.doc) == "table" and e.doc.n then e.doc.n = e.doc.n + 1 end
  ctx.t:set(ctx.block, { yes = e.yes, doc = e.doc, kind = type(e.doc) })
end
"#;
    let keys = "v = \"text\", n = \"bigint\"";
    let pipeline = replaced(PIPELINE, keys, "yes = \"boolean\", doc = \"jsonb\", kind = \"text\"");
    let pipeline = pipeline + "[source.fields]\nyes = \"boolean\"\ndoc = \"jsonb\"\n\"doc.n\" = \"numeric\"\n";
    let forms = [
        ("true", r#"{"a":[1.50,null,"1"],"n":"7"}"#),
        ("F", "[\"x\", 123456789012345678901234567890]"),
        ("1", "\"{}\""),
        ("", ""),
        ("0", "17"),
        ("t", " null "),
    ];
    let expected = [
        ["1", r#"{"a":[1.5,null,"1"],"n":"8"}"#, "table"],
        ["0", r#"["x",123456789012345678901234567890]"#, "table"],
        ["1", "\"{}\"", "string"],
        ["NULL", "NULL", "nil"],
        ["0", "17", "number"],
        ["1", "NULL", "nil"],
    ];
    // The first events fetch their fields, later ones bring them along; a long one is asked for.
    for count in [1, 500] {
        let project = Project::with(&pipeline, script, "");
        let mut text = String::from("block,region,yes,doc\n");
        let all = (0..count).flat_map(|_| forms).enumerate();
        for (at, (yes, doc)) in all {
            let long = if at % 3 == 1 { " ".repeat(5000) } else { String::new() };
            let doc = if doc.is_empty() { String::new() } else { format!("{long}{doc}") };
            text += &format!("{at},r,{yes},\"{}\"\n", doc.replace('"', "\"\""));
        }
        project.write("events", text);
        project.run_json();
        let rows = project.query("p.db", "SELECT yes, doc, kind FROM t ORDER BY CAST(id AS INTEGER) DESC LIMIT 6");
        let rows: Vec<Vec<String>> = rows.into_iter().rev().collect();
        assert_eq!(rows, expected, "{count}");
    }
    let project = Project::with(&pipeline, script, "");
    project.write("events", "block,region,yes,doc\n1,r,maybe,\n");
    project.forebay(&RUN).fails(2, &["field \"yes\": expected a boolean, or a text such as", "got the text \"maybe\""]);
    project.write("events", "block,region,yes,doc\n1,r,,{\n");
    project.forebay(&RUN).fails(2, &["field \"doc\": expected a text that holds JSON, got the text \"{\""]);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_to_do() {
    assert_none(
        [
            ("csv", "block,region,v\n1,r,\"a\nb\"\n2,r\n", "events:4: the record has 2 fields; expected 3"),
            (
                "csv",
                "block,region,v\n1,r,\"a\nb\"\nx,r,c\n",
                "events:4: field \"block\": expected an integer of 64 bits",
            ),
            ("csv", "block,region,v\n2,r,\"a\nb\"\n1,r,c\n", "events:4: block 1 comes after block 2"),
            ("csv", "block,region,v,v\n", "events:1: columns 3 and 4 of the header have one name, \"v\""),
            ("csv", "block,,v\n", "events:1: column 2 of the header has no name"),
            ("csv", "block,regoin,v\n", "events:1: the header has no column \"region\"; it has \"block\", \"regoin\""),
            ("csv", "block;region;v\n1;r;x\n", "is the delimiter another one? [source] delimiter = \";\""),
            (
                "csv",
                "block,region,v\n1,r,a\n2,r,\"b\n3,r,c\n",
                "events:3: column \"v\": the quote that opens at line 3, byte 5",
            ),
            ("csv", "{\"block\":1}\n", "events:1: this is JSON; [source] format = \"ndjson\" or \"json\" reads it"),
            (
                "json",
                "[\n{\"block\":1,\"region\":\"r\",\"v\":\"a\"},\n\n{\"block\":\n2,\"v\":\"b\"}]",
                "events:4: field \"region\" is missing",
            ),
            (
                "json",
                "[{\"block\":1,\n\"region\":\"r\",\n\"v\":tru}]",
                "events:1: expected a JSON object; at line 3, byte 8",
            ),
            (
                "json",
                "[\n{\"block\":1,\"region\":\"r\",\"v\":\"a\"}\n",
                "events:3: the list that begins on line 1 breaks off",
            ),
            ("json", "[]\n17", "events:2: byte 1 of the line: expected a list of objects"),
            ("json", "[{\"a\":1]]", "events:1: document 1, which begins here: its brackets are broken"),
            (
                "ndjson",
                "[{\"block\":1,\"region\":\"r\"}]\n",
                "got a list; events are one object a line, and [source] format = \"json\"",
            ),
            ("ndjson", "block,region,v\n1,r,x\n", "is this the header of CSV? [source] format = \"csv\" reads it"),
        ]
        .map(|(format, events, says)| {
            let project = project(&replaced(PIPELINE, "\"csv\"", &format!("{format:?}")), events);
            complaint(says, &project.forebay(&["run", "pipeline.toml"]), 2, &[says])
        }),
    );
}

#[test]
fn keys_and_flags_that_are_wrong_are_told() {
    assert_none(
        [
            ("format = \"xml\"", "pipeline.toml:4:10: format: expected \"ndjson\", \"csv\" or \"json\", got \"xml\""),
            ("format = \"josn\"", "did you mean \"json\"?"),
            ("format = 1", "source.format: expected a string, got an integer"),
            ("format = \"csv\"\ndelimiter = \"ab\"", "pipeline.toml:5:13: delimiter: expected one ASCII character"),
            ("format = \"csv\"\ndelimiter = \"\\\"\"", "delimiter: expected one ASCII character"),
            ("delimiter = \";\"", "pipeline.toml:4:1: delimiter: only format = \"csv\" has one"),
            ("format = \"json\"\ndelimiter = \";\"", "pipeline.toml:5:1: delimiter: only format = \"csv\" has one"),
        ]
        .map(|(keys, says)| {
            let project = project(&replaced(PIPELINE, "format = \"csv\"", keys), "");
            complaint_untouched(says, &project, &project.forebay(&["run", "pipeline.toml"]), &[says])
        }),
    );
    let project = project(PIPELINE, "");
    for command in ["run", "check"] {
        let outcome = project.forebay(&[command, "pipeline.toml", "--format", "xml"]);
        outcome.fails(2, &["format: expected \"ndjson\", \"csv\" or \"json\", got \"xml\""]);
    }
}

#[test]
fn the_format_is_given_on_the_command_line_too() {
    let project =
        project(&replaced(PIPELINE, "\"csv\"", "\"csv\"\ndelimiter = \"\\t\""), "block\tregion\tv\n1\tr\ta,b\n");
    // The file's delimiter stays.
    project.forebay(&["run", "pipeline.toml", "--format", "csv"]).ok();
    project.forebay(&["check", "pipeline.toml"]).ok();
    project.write("events", "[{\"block\":1,\"region\":\"r\",\"v\":\"a,b\"}]");
    project.forebay(&["check", "pipeline.toml", "--format", "json"]).ok();
    let input = "{\"block\":1,\"region\":\"r\",\"v\":\"c\"}\n";
    let stdin = ["run", "pipeline.toml", "--format", "ndjson", "--source", "-", "--store", "sqlite:other.db"];
    project.forebay_with_input(&stdin, input).ok();
    assert_eq!(rows(&project), ["r|1a,b|a,b"]);
    assert_eq!(project.query("other.db", ROWS), [["r", "1c", "c"]]);
}

#[test]
fn a_folder_holds_files_of_its_format_each_with_a_header_of_its_own() {
    let project = Project::with(&replaced(PIPELINE, "\"events\"", "\"in\""), SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    project.write("in/a.csv", "block,region,v\n1,r,a\n");
    project.write("in/b.CSV.gz", gzip("v,more,block,region\nb,x,2,r\n"));
    project.write(
        "in/c.csv.zst",
        zstd::encode_all(&b"\"region\",\"v\",\"block\"\r\n\"r\",\"c\",\"3\"\r\n"[..], 1).expect("zstd"),
    );
    // Two days on which nothing happened are no copies of each other.
    project.write("in/d.csv", "block,region,v\n");
    project.write("in/e.csv", "block,region,v\n");
    project.write("in/f.ndjson", "{}\n");
    project.forebay(&RUN).ok().fails(0, &["in/f.ndjson (only names that end in .csv, .tsv hold events)"]);
    assert_eq!(rows(&project), ["r|1a|a", "r|2b|b", "r|3c|c"]);
    let again = project.run_json();
    // The header of a file without records is read to know that there are none.
    assert_eq!((&again["events"], &again["source_bytes_read"]), (&0.into(), &30.into()));
    project.write("in/g.csv", "block,region,v\n1,r,a\n");
    let anew = ["run", "pipeline.toml", "--store", "sqlite:new.db"];
    project.forebay(&anew).fails(2, &["in/a.csv and ", "in/g.csv hold the same: their events would count twice"]);
    std::fs::remove_file(project.path("in/g.csv")).expect("the copy");
    project.write("in/e.csv", "block,region,v\n9,r,\"e\ne\"\n");
    assert_eq!(project.run_json()["events"], 1);

    let project =
        Project::with(&replaced(&replaced(PIPELINE, "\"events\"", "\"in\""), "\"csv\"", "\"json\""), SCRIPT, "");
    std::fs::create_dir(project.path("in")).expect("a folder");
    project.write("in/a.json", "[]");
    project.write("in/b.json", "[]");
    project.write("in/c.json.gz", gzip("[{\"block\":1,\n\"region\":\"r\",\"v\":\"a\"}]"));
    project.write("in/d.ndjson", "{}\n");
    project.forebay(&RUN).ok().fails(0, &["in/d.ndjson (only names that end in .json hold events)"]);
    assert_eq!(rows(&project), ["r|1a|a"]);
}

#[test]
fn what_is_committed_is_compared_in_each_format() {
    for (format, first, same, changed, more) in [
        (
            "csv",
            "block,region,v\n1,r,a\n2,r,b\n",
            "\"block\",\"region\",\"v\"\r\n1,\"r\",a\r\n2,r,\"b\"\r\n",
            "block,region,v\n1,r,A\n2,r,b\n",
            "block,region,v\n1,r,a\n2,r,b\n3,r,c\n",
        ),
        (
            "json",
            "[{\"block\":1,\"region\":\"r\",\"v\":\"a\"},{\"block\":2,\"region\":\"r\",\"v\":\"b\"}]",
            "{\"block\":1,\"region\":\"r\",\"v\":\"a\"}\n{\"block\":2,\"region\":\"r\",\"v\":\"b\"}\n",
            "[{\"block\":1,\"region\":\"r\",\"v\":\"A\"},{\"block\":2,\"region\":\"r\",\"v\":\"b\"}]",
            "[{\"block\":1,\"region\":\"r\",\"v\":\"a\"},\n{\"block\":2,\"region\":\"r\",\"v\":\"b\"},\n{\"block\":3,\"region\":\"r\",\"v\":\"c\"}]",
        ),
    ] {
        let project = project(&replaced(PIPELINE, "\"csv\"", &format!("{format:?}")), first);
        assert_eq!(project.run_json()["events"], 2, "{format}");
        for (text, events) in [(first, 0), (same, 0)] {
            project.write("events", text);
            assert_eq!(project.run_json()["events"], events, "{format}: {text}");
        }
        project.write("events", changed);
        project.forebay(&RUN).fails(2, &["block 1"]);
        project.write("events", more);
        assert_eq!(project.run_json()["events"], 1, "{format}");
        assert_eq!(rows(&project), ["r|1a|a", "r|2b|b", "r|3c|c"], "{format}");
    }
}

#[test]
fn what_comes_late_is_put_in_its_place_in_each_format() {
    let record = |block: i64| format!("block,region,v\n{block},r,\"x\n\"\n{},r,y\n", block + 1);
    let document = |block: i64| {
        format!(
            "[{{\"block\":{block},\n\"region\":\"r\",\"v\":\"x\\n\"}},{{\"block\":{},\"region\":\"r\",\"v\":\"y\"}}]",
            block + 1
        )
    };
    let script = "function on_event(e, ctx) ctx.t:add('n', { n = 1 }) ctx.t:set(ctx.block, { v = e.v, n = ctx.t:get('n').n }) end";
    let forms: [(&str, &dyn Fn(i64) -> String); 2] = [("csv", &record), ("json", &document)];
    for (format, text) in forms {
        let keys = format!("{format:?}\nlate = \"replay\"");
        let pipeline = replaced(&replaced(PIPELINE, "\"events\"", "\"in\""), "\"csv\"", &keys);
        let project = Project::with(&pipeline, script, "");
        std::fs::create_dir(project.path("in")).expect("a folder");
        project.write(&format!("in/1.{format}"), text(1));
        project.write(&format!("in/2.{format}"), text(7));
        project.run_json();
        // It lies before what is committed, and comes behind it.
        project.write(&format!("in/3.{format}"), text(4));
        project.run_json();
        let order = project.query("p.db", "SELECT id FROM t WHERE id <> 'n' ORDER BY n");
        assert_eq!(order.concat(), ["1", "2", "4", "5", "7", "8"], "{format}");
        assert_eq!(project.query("p.db", "SELECT n FROM t WHERE id = 'n'"), [["6"]], "{format}");
    }
}

#[test]
fn a_list_that_breaks_off_loses_nothing_that_is_whole_before() {
    let event = |block: i64| format!("{{\"block\":{block},\"region\":\"r\",\"v\":\"a\"}}");
    let project =
        project(&replaced(PIPELINE, "\"csv\"", "\"json\""), &format!("[{},\n{},\n{}", event(1), event(2), event(3)));
    project.forebay(&RUN).fails(2, &["events:3: the list that begins on line 1 breaks off behind 3 documents"]);
    assert_eq!(rows(&project), ["r|1a|a", "r|2a|a"]);
    project.write("events", format!("[{},\n{},\n{}]", event(1), event(2), event(3)));
    assert_eq!(project.run_json()["events"], 1);
    assert_eq!(rows(&project), ["r|1a|a", "r|2a|a", "r|3a|a"]);
}

#[test]
fn broken_records_are_put_aside_with_their_text() {
    let pipeline = PIPELINE.to_owned() + "[errors]\non_event = \"quarantine\"\n";
    let project = project(&pipeline, "block,region,v\n1,r,a\n1,r\n2,r,\"b\"x\nthree,r,c\n3,r,d\n");
    let report = project.run_json();
    assert_eq!((&report["events"], &report["quarantined"]), (&5.into(), &3.into()));
    let aside = project.query("p.db", "SELECT line, block, event FROM forebay_quarantine ORDER BY number");
    assert_eq!(aside, [["3", "1", "1,r"], ["4", "1", "2,r,\"b\"x"], ["5", "1", "three,r,c"]]);
    let checked = project.forebay(&["check", "pipeline.toml"]).ok();
    assert!(
        checked.stderr().contains("events:4 (block 1) would be put aside: column \"v\": byte 8: text stands behind")
    );
    // Nobody can tell what else is in it: it is not put aside alone.
    project.write("events", "block,region,v\n1,r,a\n1,r\n2,r,\"b\"x\nthree,r,c\n3,r,d\n4,r,\"e\n5,r,f\n");
    project.forebay(&RUN).fails(2, &["events:7: column \"v\": the quote that opens at line 7, byte 5 never ends"]);
}

#[test]
fn a_stream_that_pauses_is_committed_record_by_record() {
    for (format, parts) in [
        ("csv", ["block,region,v\n1,r,\"a\n\"\n2,r,\"b\n", "\"\n"]),
        (
            "json",
            ["[{\"block\":1,\n\"region\":\"r\",\"v\":\"a\\n\"},{\"block\":2,\"region\":\"r\",", "\"v\":\"b\\n\"}]"],
        ),
    ] {
        let pipeline = replaced(PIPELINE, "\"csv\"", &format!("{format:?}"));
        let project = project(&pipeline, "");
        let mut stream = Stream::start(&project, &["-vv", "run", "pipeline.toml", "--source", "-"]);
        stream.send(parts[0]);
        stream.send(parts[1]);
        let (outcome, _) = stream.end(&project);
        outcome.ok();
        assert_eq!(rows(&project), ["r|1a\n|a\n", "r|2b\n|b\n"], "{format}");
    }
}

#[test]
fn an_event_that_is_still_being_written_waits_for_its_rest() {
    for (format, parts) in [
        ("csv", ["block,region,v\n1,r,\"a\n", "a\"\n2,r,b\n", "3,r,c\n"]),
        (
            "json",
            [
                "[{\"block\":1,\n",
                "\"region\":\"r\",\"v\":\"a\\na\"}\n,{\"block\":2,\"region\":\"r\",",
                "\"v\":\"b\"},\n{\"block\":3,\"region\":\"r\",\"v\":\"c\"}\n",
            ],
        ),
    ] {
        let project = project(&replaced(PIPELINE, "\"csv\"", &format!("{format:?}")), parts[0]);
        let args = ["run", "pipeline.toml", "--follow", "--until", "2"];
        let child = project.command(&args).spawn().expect("the binary starts");
        for part in &parts[1..] {
            let events = std::fs::OpenOptions::new().append(true).open(project.path("events"));
            events.and_then(|mut events| events.write_all(part.as_bytes())).expect("the events");
        }
        project.finish(child, &args).ok();
        assert_eq!(rows(&project), ["r|1a\na|a\na", "r|2b|b"], "{format}");
    }
}

#[test]
fn a_program_writes_in_each_format() {
    for (format, events, broken) in [
        ("csv", "block,region,v\n1,r,\"a\n\"\n2,r,b", "block,region,v\n1,r,\"a\n\"\n2,r,b\n3,r,\"c\n"),
        (
            "json",
            "[{\"block\":1,\n\"region\":\"r\",\"v\":\"a\\n\"},\n{\"block\":2,\"region\":\"r\",\"v\":\"b\"}]",
            "{\"block\":1,\n\"region\":\"r\",\"v\":\"a\\n\"}{\"block\":2,\"region\":\"r\",\"v\":\"b\"}\n{\"block\":3,",
        ),
    ] {
        let pipeline = replaced(PIPELINE, "path = \"events\"", "command = [\"sh\", \"-c\", \"cat events\"]");
        let project = project(&replaced(&pipeline, "\"csv\"", &format!("{format:?}")), events);
        project.run_json();
        assert_eq!(rows(&project), ["r|1a\n|a\n", "r|2b|b"], "{format}");
        project.write("events", broken);
        project.forebay(&RUN).fails(2, &["sh:"]);
        assert_eq!(rows(&project), ["r|1a\n|a\n", "r|2b|b"], "{format}");
    }
}

#[derive(serde::Deserialize)]
struct Sale {
    v: String,
    #[serde(deserialize_with = "fields::bigint")]
    n: i64,
}

forebay::entity! {
    struct Row in "t" {
        v: String,
        n: i64,
    }
}

struct Sales;

impl Handler for Sales {
    type Event<'e> = Sale;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Row::table()]
    }

    fn on_event(&self, sale: Sale, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        ctx.set(&sale.v, Row { v: sale.v.clone(), n: sale.n })
    }
}

#[test]
fn a_handler_in_rust_reads_them_too() {
    let project = Project::new();
    project.write("sales.csv", "block|region|v|n\n1|r|x|17\n");
    let format = Format::Csv(Delimiter::new("|").expect("a delimiter"));
    let pipeline = Pipeline::new("p", Sales).expect("a pipeline").format(format);
    let pipeline = pipeline.source_path(&project.path("sales.csv").to_string_lossy());
    assert_eq!(pipeline.store_url(&project.store("p.db")).expect("a store").run().expect("a run").events, 1);
    assert_eq!(project.query("p.db", "SELECT id, v, n FROM t"), [["x", "x", "17"]]);
}
