//! One table of what all benches measured when they ran last.
//!
//! `cargo bench --bench report`; `make bench-all` ends with it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod table;

use serde_json::Value as Json;

fn main() {
    for (bench, result) in table::saved() {
        let at = result["at"].as_str().unwrap_or("");
        table::print_head(&format!("{bench} ({})", at.get(..10).unwrap_or(at)));
        for row in result["rows"].as_array().into_iter().flatten() {
            let text = |value: &Json| value.as_str().unwrap_or("").to_owned();
            let against = &row["against"];
            let against = against["value"].as_f64().map(|value| (text(&against["what"]), value));
            let against = against.as_ref().map(|(what, value)| (what.as_str(), *value));
            table::print_row(&text(&row["job"]), row["value"].as_f64().unwrap_or(0.0), &text(&row["unit"]), against);
        }
        println!();
    }
}
