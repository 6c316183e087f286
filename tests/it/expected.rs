//! Real events against answers that were computed independently (plain Python, exact decimals).

use serde_json::Value as Json;

use crate::support::project::Project;
use crate::support::real_events::{
    EVM_PIPELINE, EVM_SCRIPT, QUAKES_PIPELINE, QUAKES_SCRIPT, check_balances, data, expected, quakes,
};

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn number(value: &Json) -> f64 {
    text(value).parse().expect("a number")
}

/// Compares one region's row with what is expected of it.
fn check_region(row: &[String], expected: &Json) {
    let [region, rows, sum, min, max, max_first_id, first_id, last_id, last_time, last_block] = row else {
        panic!("{row:?}")
    };
    assert_eq!(*rows, text(&expected["rows"]), "{region}: rows");
    assert_eq!(*sum, text(&expected["sum"]), "{region}: sum");
    assert_eq!(min.parse::<f64>().expect("min"), number(&expected["min"]), "{region}: min");
    assert_eq!(max.parse::<f64>().expect("max"), number(&expected["max"]), "{region}: max");
    assert_eq!(*max_first_id, text(&expected["max_first_id"]), "{region}: max_first_id");
    assert_eq!(*first_id, text(&expected["first"]["id"]), "{region}: first");
    assert_eq!(*last_id, text(&expected["last"]["id"]), "{region}: last");
    assert_eq!(*last_time, text(&expected["last"]["time"]), "{region}: last time");
    assert_eq!(*last_block, text(&expected["last"]["block"]), "{region}: last block");
}

fn check_quakes(source: &str, answers: &str) {
    let project = Project::with(QUAKES_PIPELINE, QUAKES_SCRIPT, "");
    let expected = expected(answers);
    let report = project.forebay(&["run", "pipeline.toml", "--json", "--source", source]).ok().json();
    assert_eq!(report["events"], expected["all"]["rows"]);
    assert_eq!(report["blocks"], expected["blocks"]);
    assert_eq!(report["checkpoint"]["block"], expected["last_block"]);
    let sql = "SELECT region, rows, sum, min, max, max_first_id, first_id, last_id, last_time, last_block FROM total ORDER BY region";
    let rows = project.query("quakes.db", sql);
    let regions = expected["regions"].as_object().expect("regions");
    assert_eq!(rows.len(), regions.len() + 1);
    for row in &rows {
        check_region(row, if row[0] == "all" { &expected["all"] } else { &regions[&row[0]] });
    }
    let docs = project.forebay(&["latest", "--config", "pipeline.toml", "--meta"]).ok().json_lines();
    assert_eq!(docs.len(), rows.len());
    for (doc, row) in docs.iter().zip(&rows) {
        assert_eq!(
            (text(&doc["region"]), text(&doc["doc"]["rows"]), text(&doc["doc"]["sum"])),
            (row[0].clone(), row[1].clone(), row[2].clone())
        );
    }
}

crate::both_stores! {
    fn fifty_years_of_earthquakes() {
        check_quakes(&quakes("quakes.ndjson.gz"), "expected-quakes.json");
    }

    fn a_week_of_earthquakes() {
        check_quakes(&data("quakes-week.ndjson.gz"), "expected-quakes-week.json");
    }
}

crate::both_stores! {
    fn token_transfers_of_ethereum() {
        let project = Project::with(EVM_PIPELINE, EVM_SCRIPT, "");
        let expected = expected("expected-evm-ethereum.json");
        let source = data("evm-ethereum.ndjson.gz");
        let report = project.forebay(&["run", "pipeline.toml", "--json", "--source", &source]).ok().json();
        assert_eq!(report["events"], expected["rows"]);
        check_balances(&project.query("evm.db", "SELECT region, id, balance FROM account"), &expected);
        let tokens = project.query("evm.db", "SELECT region, transfers, value_sum, value_max, last_id FROM token");
        assert_eq!(tokens.len() as u64, expected["tokens"].as_u64().expect("tokens"));
        for row in tokens {
            let token = &expected["per_token"][&row[0]];
            let answers = [&token["transfers"], &token["value_sum"], &token["value_max"], &token["last"]["id"]].map(text);
            assert_eq!(row[1..], answers, "{}", row[0]);
        }
    }
}

crate::both_stores! {
    /// Each run goes on from the last: all rows it needs come from the store.
    fn the_same_balances_come_of_tiny_batches() {
        let pipeline = format!("{EVM_PIPELINE}\n[batch]\nevents = 7\n");
        let project = Project::with(&pipeline, EVM_SCRIPT, "");
        let source = data("evm-ethereum.ndjson.gz");
        for until in [4_369_999, 12_505_500, 18_601_899, 18_606_000, i64::MAX] {
            project.forebay(&["run", "pipeline.toml", "--source", &source, "--until", &until.to_string()]).ok();
        }
        check_balances(
            &project.query("evm.db", "SELECT region, id, balance FROM account"),
            &expected("expected-evm-ethereum.json"),
        );
    }
}
