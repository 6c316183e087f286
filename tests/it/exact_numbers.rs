//! Numbers and JSON by chance, from the source's digits to the row: every sum, copy and document is as the schoolbook
//! says, or refused. What is expected is computed here, on digits, by nothing that the program has.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forebay::{Context, EntityTable, ExactJson, Handler, HandlerError, Numeric, Pipeline};
use serde_json::value::RawValue;

use crate::support::project::Project;

/// Events of one run: each is a case with a row of its own.
const CASES: usize = 10_000;
const REGIONS: usize = 20;

/// Chance that is the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// An integer of any size within 64 bits, often one at an edge.
    fn integer(&mut self) -> i64 {
        const EDGES: [i64; 7] = [i64::MAX, i64::MIN, 0, -1, 1 << 53, 1 << 62, 5_000_000_000_000_000_000];
        if self.is(6) {
            return EDGES[self.below(EDGES.len())];
        }
        let size = self.below(64);
        self.next() as i64 >> size
    }

    /// A JSON number as somebody may write it.
    fn number(&mut self) -> String {
        let sign = if self.is(3) { "-" } else { "" };
        if self.is(12) {
            // Often midway between two decimals that both stand for it; either is written.
            let float = (self.below(1 << 24) | 1) as f64 / f64::from(1 << (15 + self.below(6)));
            let text = if self.is(2) { format!("{float}") } else { json(float) };
            return format!("{sign}{text}");
        }
        let long = if self.is(3) { 80 } else { 18 };
        let whole = match self.below(long) {
            0 => "0".to_owned(),
            count => format!("{}{}", 1 + self.below(9), self.digits(count - 1)),
        };
        let long = if self.is(3) { 60 } else { 16 };
        let fraction = match self.below(4) {
            0 | 1 => String::new(),
            2 => format!(".{}", self.of(&["0", "5", "25", "10", "000"])),
            _ => {
                let count = 1 + self.below(long);
                format!(".{}", self.digits(count))
            }
        };
        let exponent = match self.below(6) {
            0 => format!("{}{}{}", self.of(&["e", "E"]), self.of(&["", "+", "-"]), self.below(40)),
            _ => String::new(),
        };
        format!("{sign}{whole}{fraction}{exponent}")
    }
}

/// What a float is written as in JSON.
fn json(float: f64) -> String {
    serde_json::to_string(&float).expect("a number")
}

/// A decimal number: digits without zeros at either end, and the power of ten of the last one. Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    last: i64,
}

impl Decimal {
    fn new(is_negative: bool, mut digits: Vec<u8>, mut last: i64) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
            last += 1;
        }
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        if digits.is_empty() {
            return Self { is_negative: false, digits, last: 0 };
        }
        Self { is_negative, digits, last }
    }

    fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let unsigned = mantissa.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        let exponent: i64 = exponent.trim_start_matches('+').parse().expect("an exponent");
        Self::new(unsigned.len() < mantissa.len(), digits, exponent - fraction.len() as i64)
    }

    /// The digits in the unit 10^`last`, the least first.
    fn units(&self, last: i64) -> Vec<u8> {
        let zeros = vec![0; (self.last - last) as usize];
        zeros.into_iter().chain(self.digits.iter().rev().copied()).collect()
    }

    fn plus(&self, other: &Self) -> Self {
        let last = match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, _) => return other.clone(),
            (_, true) => return self.clone(),
            _ => self.last.min(other.last),
        };
        let (mut a, mut b) = (self.units(last), other.units(last));
        let len = a.len().max(b.len()) + 1;
        a.resize(len, 0);
        b.resize(len, 0);
        let is_same = self.is_negative == other.is_negative;
        let mut is_negative = self.is_negative;
        if !is_same && a.iter().rev().lt(b.iter().rev()) {
            std::mem::swap(&mut a, &mut b);
            is_negative = other.is_negative;
        }
        let mut carry = 0;
        let mut sum = Vec::with_capacity(len);
        for (a, b) in a.into_iter().zip(b) {
            let (a, b) = (i32::from(a), i32::from(b));
            let digit = if is_same { a + b + carry } else { a - b + carry };
            carry = digit.div_euclid(10);
            sum.push(digit.rem_euclid(10) as u8);
        }
        sum.reverse();
        Self::new(is_negative, sum, last)
    }

    fn negated(&self) -> Self {
        Self::new(!self.is_negative, self.digits.clone(), self.last)
    }

    fn times(&self, other: &Self) -> Self {
        let mut product = vec![0_u32; self.digits.len() + other.digits.len() + 1];
        for (place, a) in self.digits.iter().rev().enumerate() {
            for (shift, b) in other.digits.iter().rev().enumerate() {
                product[place + shift] += u32::from(*a) * u32::from(*b);
            }
        }
        let mut digits = Vec::with_capacity(product.len());
        let mut carry = 0;
        for sum in product {
            digits.push(((sum + carry) % 10) as u8);
            carry = (sum + carry) / 10;
        }
        digits.reverse();
        Self::new(self.is_negative != other.is_negative, digits, self.last + other.last)
    }

    /// As `numeric` columns write it: no exponent, no zeros that say nothing.
    fn text(&self) -> String {
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let sign = if self.is_negative { "-" } else { "" };
        if self.last >= 0 {
            let text = format!("{digits}{}", "0".repeat(self.last as usize));
            return if digits.is_empty() { "0".to_owned() } else { format!("{sign}{text}") };
        }
        let after = (-self.last) as usize;
        let padded = format!("{}{digits}", "0".repeat((after + 1).saturating_sub(digits.len())));
        let (whole, fraction) = padded.split_at(padded.len() - after);
        format!("{sign}{whole}.{fraction}")
    }

    /// Whether a reader with floats keeps it: an integer up to 2^53, or what a float is written as.
    fn is_kept_by_floats(&self, is_integer: bool) -> bool {
        if is_integer {
            let limit = Self::read("9007199254740992");
            let below = limit.plus(&Self { is_negative: true, ..self.clone() });
            return !below.is_negative;
        }
        let float: f64 = self.text().parse().expect("a float");
        float.is_finite() && Self::read(&json(float)) == *self
    }
}

/// A JSON value: what is written, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    Null,
    Boolean(bool),
    /// A number; whether it stands there without point and exponent.
    Number(Decimal, bool),
    Text(String),
    List(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

/// A text as it stands in JSON, with what it is.
fn text(chance: &mut Chance) -> (String, String) {
    let (mut json, mut text) = ("\"".to_owned(), String::new());
    for _ in 0..chance.below(6) {
        let (written, is) = [
            ("abc", "abc"),
            ("\\ud83dz", "\u{fffd}z"),
            ("\\uDE00x", "\u{fffd}x"),
            ("\\ud83d\\ude00", "😀"),
            ("\\\\u0041", "\\u0041"),
            ("12345678901234567890", "12345678901234567890"),
            ("\\n\\\"", "\n\""),
            ("é", "é"),
        ][chance.below(8)];
        json.push_str(written);
        text.push_str(is);
    }
    json.push('"');
    (json, text)
}

fn tree(chance: &mut Chance, depth: usize) -> (String, Tree) {
    match chance.below(if depth > 3 { 6 } else { 10 }) {
        0 => ("null".to_owned(), Tree::Null),
        1 => ("true".to_owned(), Tree::Boolean(true)),
        2 => {
            let (json, text) = text(chance);
            (json, Tree::Text(text))
        }
        3..=5 => {
            let number = chance.number();
            let is_integer = !number.contains(['.', 'e', 'E']);
            let value = Tree::Number(Decimal::read(&number), is_integer);
            (number, value)
        }
        6 | 7 => {
            let (written, items): (Vec<_>, Vec<_>) = (0..chance.below(5)).map(|_| tree(chance, depth + 1)).unzip();
            (format!("[{}]", written.join(", ")), Tree::List(items))
        }
        _ => {
            let (mut written, mut fields) = (Vec::new(), BTreeMap::new());
            for at in 0..chance.below(5) {
                let (key, name) = text(chance);
                let (json, value) = tree(chance, depth + 1);
                written.push(format!("\"{at}{}: {json}", &key[1..]));
                fields.insert(format!("{at}{name}"), value);
            }
            (format!("{{{}}}", written.join(",")), Tree::Object(fields))
        }
    }
}

impl Tree {
    /// What a JSON text says; numbers by their digits.
    fn read(json: &str) -> Self {
        match json.as_bytes()[0] {
            b'n' => Self::Null,
            b't' | b'f' => Self::Boolean(json == "true"),
            b'"' => Self::Text(serde_json::from_str(json).expect("a text")),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(json).expect("a list");
                Self::List(items.iter().map(|item| Self::read(item.get())).collect())
            }
            b'{' => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).expect("an object");
                Self::Object(fields.into_iter().map(|(name, value)| (name, Self::read(value.get()))).collect())
            }
            _ => Self::Number(Decimal::read(json), !json.contains(['.', 'e', 'E'])),
        }
    }

    /// The same value, however its numbers are written; in a document, long ones are texts.
    fn normal(&self, in_document: bool) -> Self {
        match self {
            Self::Number(value, is_integer) if in_document && !value.is_kept_by_floats(*is_integer) => {
                Self::Text(value.text())
            }
            Self::Number(value, _) => Self::Number(value.clone(), true),
            Self::List(items) => Self::List(items.iter().map(|item| item.normal(in_document)).collect()),
            Self::Object(fields) => {
                Self::Object(fields.iter().map(|(name, value)| (name.clone(), value.normal(in_document))).collect())
            }
            other => other.clone(),
        }
    }
}

/// What the rows of a case must hold, each as the store shows it.
struct Expected {
    id: String,
    region: String,
    columns: Vec<String>,
    doc: Tree,
}

const PIPELINE: &str = r#"name = "p"
[source]
path = "events.ndjson"
[entities.t]
columns = { num = "numeric", total = "numeric", less = "numeric", times = "numeric", big = "bigint", refused = "boolean", whole = "bigint", txt = "text", doc = "jsonb" }
[handlers]
script = "handlers.lua"
[batch]
events = 1000
[store]
url = "sqlite:p.db"
[snapshots]
every = "end"
"#;

const SCRIPT: &str = r#"
local ops = {
  add = function(e) return e.a + e.b end,
  sub = function(e) return e.a - e.b end,
  mul = function(e) return e.a * e.b end,
  more = function(e) return e.a + 100 end,
  less = function(e) local a = e.a return a - 1000000 end,
  thrice = function(e) return 3 * e.a end,
  loop = function(e) local s = 0 for i = 1, 5 do s = s + e.a end return s end,
}
function on_event(e, ctx)
  local num, other = numeric(e.num), numeric(e.other)
  local ok, big = pcall(ops[e.op], e)
  local whole = pcall(function() ctx.t:set(e.id, { whole = e.whole }) end) and e.whole or nil
  ctx.t:set(e.id, { num = e.num, total = num + other, less = num - other, times = num * other,
    big = ok and big or nil, refused = not ok, whole = whole, txt = e.txt, doc = e.doc })
  ctx.t:set("last", { doc = e.doc, num = num + other })
end
function on_snapshot(ctx)
  local last = ctx.t:get("last")
  return { doc = last.doc, num = last.num }
end
"#;

/// What an operation comes to, where that fits 64 bits.
fn computed(op: &str, a: i64, b: i64) -> Option<i64> {
    let (a, b) = (i128::from(a), i128::from(b));
    let exact = match op {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "more" => a + 100,
        "less" => a - 1_000_000,
        "thrice" => 3 * a,
        _ => 5 * a,
    };
    i64::try_from(exact).ok()
}

/// An integer in one of the forms that a `bigint` column takes, or one that is too large for it.
fn whole(chance: &mut Chance) -> (String, Option<i64>) {
    let value = chance.integer();
    match chance.below(7) {
        0 => (format!("{value}.0"), Some(value)),
        1 => (format!("\"{value}\""), Some(value)),
        2 if value != 0 => (format!("{value}0e-1"), Some(value)),
        3 => (format!("\"{}e3\"", value / 1000), Some(value / 1000 * 1000)),
        4 => (format!("{}E+3", value / 1000), Some(value / 1000 * 1000)),
        5 if value != 0 => (format!("{value}12345678901234567890"), None),
        _ => (value.to_string(), Some(value)),
    }
}

fn case(chance: &mut Chance, number: usize) -> (String, Expected) {
    let (id, region) = (format!("c{number}"), format!("r{}", number % REGIONS));
    let (num, other) = (chance.number(), chance.number());
    let (a, b) = (chance.integer(), chance.integer());
    let op = chance.of(&["add", "sub", "mul", "more", "less", "thrice", "loop"]);
    let ((whole, is_whole), (txt, is_txt), (doc, is_doc)) = (whole(chance), text(chance), tree(chance, 0));
    let half = if chance.is(3) { ",\"\\ud83d\":1" } else { "" };
    let quote = if chance.is(5) { "\"" } else { "" };
    let event = format!(
        "{{\"block\":{number},\"region\":\"{region}\",\"id\":\"{id}\",\"num\":{quote}{num}{quote},\"other\":{other},\
         \"op\":\"{op}\",\"a\":{a},\"b\":{b},\"whole\":{whole},\"txt\":{txt},\"doc\":{doc}{half}}}\n"
    );
    let (num, other) = (Decimal::read(&num), Decimal::read(&other));
    let result = computed(op, a, b);
    let shown = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let columns = vec![
        num.text(),
        num.plus(&other).text(),
        num.plus(&other.negated()).text(),
        num.times(&other).text(),
        shown(result),
        u8::from(result.is_none()).to_string(),
        shown(is_whole),
        is_txt,
    ];
    (event, Expected { id, region, columns, doc: is_doc })
}

const ROWS: &str = "SELECT id, coalesce(CAST(num AS text), 'NULL'), CAST(total AS text), CAST(less AS text), \
    CAST(times AS text), coalesce(CAST(big AS text), 'NULL'), CASE WHEN refused THEN '1' ELSE '0' END, \
    coalesce(CAST(whole AS text), 'NULL'), txt, coalesce(CAST(doc AS text), 'null') FROM t WHERE id <> 'last'";

crate::both_stores! {
    fn every_number_is_exact_or_refused() {
        let mut chance = Chance(20_261_128);
        let (events, expected): (Vec<_>, Vec<_>) = (0..CASES).map(|at| case(&mut chance, at)).unzip();
        let project = Project::with(PIPELINE, SCRIPT, &events.concat());
        project.run_json();
        let rows: BTreeMap<String, Vec<String>> =
            project.query("p.db", ROWS).into_iter().map(|mut row| (row.remove(0), row)).collect();
        assert_eq!(rows.len(), CASES);
        let mut wrong = String::new();
        for (event, expected) in events.iter().zip(&expected) {
            let (columns, doc) = rows[&expected.id].split_at(expected.columns.len());
            let doc_is = Tree::read(&doc[0]).normal(false);
            if columns != expected.columns || doc_is != expected.doc.normal(false) {
                let _ = writeln!(wrong, "{event}  expected {:?}\n  got      {columns:?} {doc:?}", expected.columns);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.chars().take(6000).collect::<String>());
        check_documents(&project, &events, &expected);
    }

    fn a_large_integer_among_small_ones_is_summed_exactly_or_refused() {
        let script = r#"
        function on_event(e, ctx)
          local s = ctx.t:get("all") or { big = 0 }
          local ok, sum = pcall(function() return e.minus and s.big - e.a or s.big + e.a end)
          s.big, s.refused = ok and sum or 0, not ok
          ctx.t:set("all", s)
          ctx.t:set(e.id, s)
        end"#;
        let mut chance = Chance(7);
        let (mut events, mut expected, mut sum) = (String::new(), Vec::new(), 0_i64);
        for at in 0..CASES as i64 {
            // At first small ones only, then some whose sum grows large, then any.
            let a = match at {
                0..5000 => chance.integer() >> 30,
                5000..8000 if at % 300 == 0 => 1 << 60,
                5000..8000 => chance.integer() >> 20,
                _ => chance.integer(),
            };
            let minus = at > 8000 && chance.is(2);
            let exact = if minus { sum.checked_sub(a) } else { sum.checked_add(a) };
            sum = exact.unwrap_or(0);
            let _ = writeln!(
                events,
                "{{\"block\":{at},\"region\":\"r\",\"id\":\"c{at}\",\"a\":{a},\"minus\":{minus}}}"
            );
            expected.push(vec![format!("c{at}"), sum.to_string(), u8::from(exact.is_none()).to_string()]);
        }
        let project = Project::with(PIPELINE, script, &events);
        project.run_json();
        let mut rows = project.query(
            "p.db",
            "SELECT id, CAST(big AS text), CASE WHEN refused THEN '1' ELSE '0' END FROM t WHERE id <> 'all'",
        );
        rows.sort_by_key(|row| row[0][1..].parse::<i64>().expect("a number"));
        let wrong = rows.iter().zip(&expected).find(|(row, expected)| row != expected);
        assert_eq!(wrong, None);
        assert_eq!(rows.len(), CASES);
        assert!(expected.iter().any(|row| row[2] == "1"), "something has to leave 64 bits");
    }
}

/// The document of each region holds what its last event held; its long numbers are texts.
fn check_documents(project: &Project, events: &[String], expected: &[Expected]) {
    let url = project.store("p.db");
    let documents = project.forebay(&["latest", "--snapshots", &url, "--meta"]).ok().stdout();
    assert_eq!(documents.lines().count(), REGIONS);
    for line in documents.lines() {
        let Tree::Object(meta) = Tree::read(line) else { panic!("{line}") };
        let last = expected.iter().rposition(|case| Tree::Text(case.region.clone()) == meta["region"]).expect("a case");
        let Tree::Object(doc) = &meta["doc"] else { panic!("{line}") };
        assert_eq!(doc["num"], Tree::Text(expected[last].columns[1].clone()), "{line}");
        let of_event = doc.get("doc").cloned().unwrap_or(Tree::Null);
        assert_eq!(of_event.normal(false), expected[last].doc.normal(true).normal(false), "{line}\n{}", events[last]);
    }
}

forebay::entity! {
    /// What came, as it came.
    struct Kept in "kept" {
        n: Numeric,
        text: String,
        doc: ExactJson,
    }
}

#[derive(serde::Deserialize)]
struct Came {
    n: Numeric,
    text: String,
    doc: ExactJson,
}

struct Keeper;

impl Handler for Keeper {
    type Event<'e> = Came;

    fn entities(&self) -> Vec<EntityTable> {
        vec![<Kept as forebay::EntityRow>::table()]
    }

    fn on_event(&self, event: Came, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let Came { n, text, doc } = event;
        let again = ctx.get::<Kept>("one")?.map(|kept| kept.doc);
        ctx.set("one", Kept { n, text, doc: again.unwrap_or(doc) })
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
        Ok(Some(serde_json::json!({ "block": ctx.block(), "long": 9_007_199_254_740_993_i64 })))
    }
}

crate::both_stores! {
    fn handlers_in_rust_keep_every_digit_and_read_half_characters() {
        let doc = r#"{"b":[null,18446744073709551617, 0.1234567890123456789],"a":"x\ud83d"}"#;
        let event = |block| format!(
            "{{\"block\":{block},\"region\":\"r\",\"n\":0.1234567890123456789,\"text\":\"\\udc00\",\"doc\":{doc}}}\n"
        );
        let project = Project::with(PIPELINE, SCRIPT, &(event(1) + &event(2)));
        let store = project.store("p.db");
        let events = project.path("events.ndjson");
        let pipeline = Pipeline::new("p", Keeper).expect("a pipeline").store_url(&store).expect("a store");
        pipeline.source_path(&events.to_string_lossy()).run().expect("it succeeds");
        let rows = project.query("p.db", "SELECT CAST(n AS text), text, CAST(doc AS text) FROM kept");
        assert_eq!(rows[0][..2], ["0.1234567890123456789", "\u{fffd}"]);
        let expected = doc.replace("\\ud83d", "\u{fffd}");
        assert_eq!(Tree::read(&rows[0][2]).normal(false), Tree::read(&expected).normal(false));
        let latest = project.forebay(&["latest", "--snapshots", &store]).ok().stdout();
        assert_eq!(latest.trim(), r#"{"block":2,"long":"9007199254740993"}"#);
    }

    fn integers_of_documents_are_texts_or_numbers() {
        let script = r#"
        function on_event(e, ctx) ctx.t:set("one", { doc = e.doc, num = "18446744073709551617" }) end
        function on_snapshot(ctx)
          local row = ctx.t:get("one")
          return { doc = row.doc, small = 9007199254740992, big = -9007199254740993, num = row.num, none = null }
        end"#;
        let event = r#"{"block":1,"region":"r","doc":[18446744073709551617,0.5,0.1234567890123456789,null]}"#;
        for (setting, expected) in [
            ("text", r#"{"big":"-9007199254740993","doc":["18446744073709551617",0.5,"0.1234567890123456789",null],"none":null,"num":"18446744073709551617","small":9007199254740992}"#),
            ("number", r#"{"big":-9007199254740993,"doc":[18446744073709551617,0.5,0.1234567890123456789,null],"none":null,"num":"18446744073709551617","small":9007199254740992}"#),
        ] {
            let project = Project::with(&format!("{PIPELINE}integers = {setting:?}\n"), script, event);
            project.run_json();
            let latest = project.forebay(&["latest", "--snapshots", &project.store("p.db")]).ok().stdout();
            assert_eq!(latest.trim(), expected);
        }
    }
}

/// What Lua makes of texts and floats, digits and all, or the error in its place.
#[test]
fn no_digit_is_lost_between_texts_floats_and_integers() {
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[entities.o]\ncolumns = { n = \"bigint\", t = \"text\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n";
    let event = r#"{"block":1,"region":"r","text":"9007199254740993","hex":"0x10000000000000001","edge":9007199254740991.0,"large":12345678901234567,"p":1234567.12345678,"q":1234567.12345679,"a":3e15,"note":"3e16","3e16":"0xfa3e16bc 0.30000000000000004","list":["3e16"]}"#;
    let run = |body: &str| {
        let script = format!("function on_event(e, ctx)\n  local f = e.large / 1\n  {body}\nend\n");
        let project = Project::with(pipeline, &script, event);
        (project.forebay(&["run", "pipeline.toml"]), project)
    };
    for (value, says) in [
        ("math.floor(e.text)", "math.floor: expected a number"),
        ("math.ceil(e.text)", "math.ceil: expected a number"),
        ("math.abs(e.text)", "math.abs: expected a number"),
        ("math.tointeger(e.text .. \".0\")", "math.tointeger: expected a number"),
        ("math.fmod(e.text, 10)", "math.fmod: expected a number"),
        ("string.format(\"%d\", e.text)", "string.format: expected a number"),
        ("string.format(\"%.0f\", e.hex)", "string.format: expected a number"),
        ("(function() for i = 1, e.hex do return i end end)()", "numeric("),
        ("e.edge + 2.0", "o.n: expected a bigint"),
        ("9007199254740993 * 1.0", "o.n: expected a bigint"),
        ("math.floor(e.edge + 2)", "o.n: expected a bigint"),
        ("(math.modf(f))", "o.n: expected a bigint"),
        ("string.format(\"%d\", f)", "has no exact value for %d"),
        ("string.format(\"%.0f\", f)", "has no exact value for %.0f"),
        // The sum ends in 1. Its float stands in the event, but within texts and keys.
        ("e.a * 10 + 1", "has no exact value"),
        ("numeric(0.1 + 0.2)", "more digits than a float keeps"),
        (
            "string.format(\"%d\", setmetatable({}, { __tostring = function() return \"5\" end }))",
            "number expected, got table",
        ),
    ] {
        let (outcome, _) = run(&format!("ctx.o:set(\"a\", {{ n = {value} }})"));
        outcome.fails(1, &["handlers.lua:3:", says]);
    }
    let (outcome, project) = run(r#"for _, p in ipairs{ e.p, e.q } do
    ctx.o:set("id" .. p, { t = tostring(p) .. string.format(" %s ", p) .. table.concat({ p, 0.5, 7 }, " "), n = e.edge })
  end
  ctx.o:set("z", { t = -1 .. " " .. 1e15 .. " " .. 0.1 .. " " .. 9007199254740993 })
  ctx.o:set("zz", { t = string.format("%s %.1f %q %s", 0.5, 0 / 0, 0 / 0, 1234567.12345679):gsub("-nan", "nan") .. "" })"#);
    outcome.ok();
    let row = |p: &str| [format!("id{p}"), "9007199254740991".into(), format!("{p} {p} {p} 0.5 7")];
    let not_a_number = ["zz".to_owned(), String::new(), "0.5 nan (0/0) 1234567.12345679".to_owned()];
    let last = ["z".to_owned(), String::new(), "-1 1e+15 0.1 9007199254740993".to_owned()];
    assert_eq!(
        project.query("p.db", "SELECT id, coalesce(n, ''), t FROM o ORDER BY id"),
        [row("1234567.12345678"), row("1234567.12345679"), last, not_a_number]
    );
}

#[test]
fn a_large_float_is_taken_where_the_event_has_it_as_a_number() {
    let pipeline = "name = \"p\"\n[source]\npath = \"events.ndjson\"\n[source.fields]\nd = \"double\"\nj = \"jsonb\"\n\"o.d\" = \"double\"\n[entities.o]\ncolumns = { n = \"bigint\" }\n[handlers]\nscript = \"handlers.lua\"\n[store]\nurl = \"sqlite:p.db\"\n";
    let script = "function on_event(e, ctx)\n  ctx.o:set(1, { n = e.f })\n  ctx.o:set(2, { n = e.d })\n  ctx.o:set(3, { n = e.j[1].f })\n  ctx.o:set(4, { n = e.o[1].d })\n  ctx.o:set(5, { n = e.l[2] })\nend\n";
    let event = r#"{"block":1,"region":"r","f":3e16,"d":"40000000000000000","j":"[{\"f\":5e16}]","o":[{"d":60000000000000000}],"l":["7e16",7.0e16]}"#;
    let project = Project::with(pipeline, script, event);
    project.forebay(&["run", "pipeline.toml"]).ok();
    let rows = (1..).zip(3..8).map(|(id, n): (u8, u8)| [id.to_string(), format!("{n}0000000000000000")]);
    assert_eq!(project.query("p.db", "SELECT id, n FROM o ORDER BY id"), rows.collect::<Vec<_>>());
}
