//! Real events, pipelines over them, and answers that were computed independently.

use std::collections::BTreeMap;
use std::path::Path;

use forebay::Numeric;
use serde_json::Value as Json;

/// A file of `tests/data`.
pub fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).to_string_lossy().into_owned()
}

/// A file of `examples/quakes`.
pub fn quakes(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quakes").join(name).to_string_lossy().into_owned()
}

/// An expected answer of `tests/data`.
pub fn expected(name: &str) -> Json {
    let text = std::fs::read_to_string(data(name)).expect(name);
    serde_json::from_str(&text).expect(name)
}

/// Sums of the magnitudes of earthquakes, by region and of all.
pub const QUAKES_PIPELINE: &str = r#"
name = "quakes"
[source]
seq = "seq"
[entities.total]
columns = { rows = "bigint", sum = "numeric", min = "double", max = "double", max_first_id = "text", first_id = "text", last_id = "text", last_time = "timestamptz", last_block = "bigint" }
[handlers]
script = "handlers.lua"
[regions]
all = "all"
[store]
url = "sqlite:quakes.db"
"#;

pub const QUAKES_SCRIPT: &str = r#"
function on_event(event, ctx)
  local t = ctx.total:get("mag") or { rows = 0, sum = numeric(0), first_id = event.id }
  t.rows = t.rows + 1
  t.sum = t.sum + numeric(event.mag)
  if t.min == nil or event.mag < t.min then t.min = event.mag end
  if t.max == nil or event.mag > t.max then t.max, t.max_first_id = event.mag, event.id end
  t.last_id, t.last_time, t.last_block = event.id, event.time, event.block
  ctx.total:set("mag", t)
end
function on_snapshot(ctx) return ctx.total:get("mag") end
"#;

/// Balances of token transfers; each token is a region.
pub const EVM_PIPELINE: &str = r#"
name = "erc20"
[source]
seq = "seq"
[entities.account]
columns = { balance = "numeric", transfers = "bigint" }
[entities.token]
columns = { transfers = "bigint", value_sum = "numeric", value_max = "numeric", last_id = "text" }
[handlers]
script = "handlers.lua"
[store]
url = "sqlite:evm.db"
"#;

pub const EVM_SCRIPT: &str = r#"
local function move(ctx, id, amount)
  local a = ctx.account:get(id) or { balance = numeric(0), transfers = 0 }
  a.balance, a.transfers = a.balance + amount, a.transfers + 1
  ctx.account:set(id, a)
end
function on_event(event, ctx)
  local value = numeric(event.value)
  move(ctx, event.from, -value)
  move(ctx, event.to, value)
  local t = ctx.token:get("t") or { transfers = 0, value_sum = numeric(0), value_max = numeric(0) }
  t.transfers, t.value_sum, t.last_id = t.transfers + 1, t.value_sum + value, event.id
  if value > t.value_max then t.value_max = value end
  ctx.token:set("t", t)
end
"#;

/// Compares every account of every token.
pub fn check_balances(rows: &[Vec<String>], expected: &Json) {
    let mut balances: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for row in rows {
        balances.entry(&row[0]).or_default().insert(&row[1], &row[2]);
    }
    let tokens = expected["per_token"].as_object().expect("tokens");
    assert_eq!(balances.len(), tokens.len());
    for (token, answers) in tokens {
        let answers = answers["balances"].as_object().expect("balances");
        let answers: BTreeMap<&str, &str> =
            answers.iter().map(|(id, balance)| (id.as_str(), balance.as_str().expect("text"))).collect();
        assert_eq!(balances[token.as_str()], answers, "{token}");
    }
    let sum = rows.iter().fold(Numeric::ZERO, |sum, row| sum + row[2].parse().expect("balance"));
    assert_eq!(sum, Numeric::ZERO);
}
