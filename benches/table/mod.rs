//! One table for all benches: each adds its rows to `target/bench.json`, and prints what it added.

#![allow(dead_code, reason = "each bench uses a part")]

use std::path::PathBuf;

use forebay::timeline::grouped;
use serde_json::{Map, Value as Json, json};

/// A measured number.
pub struct Row {
    /// What was run.
    pub job: String,
    pub value: f64,
    /// Of what `value` is.
    pub unit: &'static str,
    /// What it is compared with, and that number in the same unit; `value` is to be at least that, or, for memory and
    /// times, at most.
    pub against: Option<(String, f64)>,
    /// More numbers of the same run.
    pub more: Map<String, Json>,
}

impl Row {
    pub fn new(job: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { job: job.into(), value, unit, against: None, more: Map::new() }
    }

    pub fn against(mut self, what: impl Into<String>, value: f64) -> Self {
        self.against = Some((what.into(), value));
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.more.insert(name.into(), value.into());
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.against.as_ref().map(|(_, other)| self.value / other)
    }
}

/// The rows of one bench.
pub struct Table {
    bench: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// The rows of a bench that prints them itself.
    pub fn silent(bench: &'static str) -> Self {
        Self { bench, rows: Vec::new() }
    }

    pub fn new(bench: &'static str) -> Self {
        print_head(bench);
        Self::silent(bench)
    }

    pub fn add(&mut self, row: Row) {
        print_row(&row.job, row.value, row.unit, row.against.as_ref().map(|(what, other)| (what.as_str(), *other)));
        self.rows.push(row);
    }

    /// Adds a row that is not printed: the bench prints it in a form of its own.
    pub fn note(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Puts the rows in the place of those of the last run of this bench.
    pub fn save(self) {
        let mut benches = saved();
        let rows: Vec<Json> = self
            .rows
            .iter()
            .map(|row| {
                let against = row.against.as_ref().map(|(what, value)| json!({ "what": what, "value": value }));
                json!({
                    "job": row.job, "value": row.value, "unit": row.unit, "against": against, "ratio": row.ratio(), "more": row.more,
                })
            })
            .collect();
        benches.insert(self.bench.into(), json!({ "at": forebay::Timestamp::now().to_string(), "rows": rows }));
        std::fs::write(path(), format!("{:#}\n", Json::Object(benches))).unwrap();
        println!("written to {}\n", path().display());
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench.json")
}

/// The rows of all benches, as they ran last.
pub fn saved() -> Map<String, Json> {
    let known = std::fs::read_to_string(path()).ok().and_then(|text| serde_json::from_str(&text).ok());
    known.unwrap_or_default()
}

pub fn print_head(title: &str) {
    println!("{title:<64} {:>12} {:<12} {:>6}  compared with", "measured", "", "ratio");
}

pub fn print_row(job: &str, value: f64, unit: &str, against: Option<(&str, f64)>) {
    let (ratio, against) = match against {
        Some((what, other)) => (format!("{:.2}", value / other), format!("{what}: {}", number(other))),
        None => (String::new(), String::new()),
    };
    println!("{job:<64} {:>12} {unit:<12} {ratio:>6}  {against}", number(value));
}

/// As many digits as say something.
fn number(value: f64) -> String {
    if value >= 1000.0 {
        grouped(value as u64)
    } else {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').into()
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
