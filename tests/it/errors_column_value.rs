//! Values that a column cannot hold: code 1, the script's line, the column, what was expected and what came.

use crate::support::cases::{PIPELINE, assert_none, blocks, complaint};
use crate::support::project::Project;

/// The column, the value in Lua, what is said.
const CASES: &[(&str, &str, &[&str])] = &[
    ("txt", "5", &["expected text, got integer 5", "tostring"]),
    ("txt", "1.5", &["expected text, got float 1.5"]),
    ("txt", "true", &["expected text, got boolean true"]),
    ("txt", "{}", &["expected text, got a table"]),
    ("txt", "numeric(5)", &["expected text, got the number 5"]),
    ("txt", r#""a\0b""#, &["expected text", "NUL"]),
    ("txt", r#""\xff""#, &["expected text", "not UTF-8", "bytes column"]),
    ("txt", r#""\xed\xa0\x80""#, &["expected text", "not UTF-8"]),
    ("yes", "1", &["expected a boolean, got integer 1"]),
    ("yes", "\"true\"", &["expected a boolean, got the text \"true\""]),
    ("big", "1.5", &["expected a bigint (an integer of 64 bits), got float 1.5"]),
    ("big", "2^63", &["expected a bigint", "float 9.22"]),
    ("big", "0/0", &["expected a bigint", "nan"]),
    ("big", "1/0", &["expected a bigint", "inf"]),
    ("big", "\"x\"", &["expected a bigint", "got the text \"x\""]),
    ("big", "\"9223372036854775808\"", &["expected a bigint", "9223372036854775808"]),
    ("big", "\" 1\"", &["expected a bigint", "got the text \" 1\""]),
    ("big", "\"\"", &["expected a bigint", "got the text \"\""]),
    ("big", "numeric(\"9223372036854775808\")", &["expected a bigint", "got the number 9223372036854775808"]),
    ("big", "numeric(\"1.5\")", &["expected a bigint", "got the number 1.5"]),
    ("big", "true", &["expected a bigint", "got boolean true"]),
    ("big", "{}", &["expected a bigint", "got a table"]),
    ("dbl", "0/0", &["expected a double (a number that is not NaN), got float", "nan"]),
    ("dbl", "\"1.5\"", &["expected a double", "got the text \"1.5\""]),
    ("dbl", "false", &["expected a double", "got boolean false"]),
    // A number that no double comes near must not become infinity.
    ("dbl", "numeric(\"1e400\")", &["expected a double", "got the number 1"]),
    ("num", "\"garbage\"", &["expected a numeric, got the text \"garbage\""]),
    ("num", "\"\"", &["expected a numeric, got the text \"\""]),
    ("num", "\"0x10\"", &["expected a numeric, got the text \"0x10\""]),
    ("num", "0/0", &["expected a numeric", "NaN is not a finite number"]),
    ("num", "-1/0", &["expected a numeric", "inf is not a finite number"]),
    ("num", "\"1e200000\"", &["expected a numeric", "more than 131072 digits"]),
    ("num", "{}", &["expected a numeric, got a table"]),
    ("num", "true", &["expected a numeric, got boolean true"]),
    (
        "at",
        "\"yesterday\"",
        &["expected a timestamptz such as \"2018-01-31T01:49:59.650Z\", got the text \"yesterday\""],
    ),
    ("at", "\"2018-02-30T00:00:00Z\"", &["expected a timestamptz", "2018-02-30"]),
    ("at", "\"2018-01-31T01:49:59\"", &["expected a timestamptz", "2018-01-31T01:49:59"]),
    ("at", "1517363399", &["expected a timestamptz", "got integer 1517363399"]),
    ("doc", "print", &["a function has no form in JSON"]),
    ("doc", "{ a = { b = print } }", &["a.b: a function has no form in JSON"]),
    ("doc", "ctx.thing", &["an entity of ctx has no form in JSON", "get or find"]),
    ("doc", "{ a = { ctx } }", &["a[1]: ctx has no form in JSON"]),
    ("doc", "{ a = 0/0 }", &["a: NaN has no form in JSON"]),
    ("doc", "{ 1, 2, 1/0 }", &["[3]: inf has no form in JSON"]),
    ("doc", r#""\xff""#, &["not UTF-8"]),
    ("doc", r#"{ a = "\0" }"#, &["a: a text with a NUL"]),
    ("doc", "{ a = { [1.5] = 1 } }", &["a: a number as a key has no form in JSON"]),
    ("doc", "{ a = { 1, 2, nil, 4, [100] = 5 } }", &["among its keys is neither a list"]),
    ("doc", "{ [0] = 0, 1, 2, nil, 4 }", &["among its keys is neither a list"]),
    ("doc", "{ [-1] = 0, 1, nil, 3 }", &["among its keys is neither a list"]),
    ("doc", "{ a = { 1, x = 2 } }", &["a: a table with the number 1 among its keys is neither a list"]),
    ("doc", "(function() local t = {} t.t = t return t end)()", &["nested deeper than 120, or contains itself"]),
    ("raw", "5", &["expected bytes (a string), got integer 5"]),
    ("raw", "{}", &["expected bytes (a string), got a table"]),
];

#[test]
fn a_value_that_the_column_cannot_hold_is_refused() {
    assert_none(CASES.iter().flat_map(|(column, value, says)| {
        let script = format!("function on_event(event, ctx)\n  ctx.thing:set(\"a\", {{ {column} = {value} }})\nend\n");
        let project = Project::with(PIPELINE, &script, &blocks(1..=1));
        let outcome = project.forebay(&["run", "pipeline.toml"]);
        let name = format!("{column} = {value}");
        let rows = project.query("p.db", "SELECT * FROM thing");
        let written = format!("== {name}: a row was written: {rows:?}\n");
        let column_at = format!("handlers.lua:2: thing.{column}: ");
        let place = [column_at.as_str(), "block 1", "events.ndjson:1", "event {\"block\":1,"];
        [complaint(&name, &outcome, 1, &[&place, *says].concat()), (!rows.is_empty()).then_some(written)]
    }));
}
