//! `examples/stream`: the producer, the pipeline and `make stream`, as they are written.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::project::Project;
use crate::support::redis_server::Redis;

fn example(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/stream").join(file)
}

fn produce(server: &Redis, orders: u64) {
    let (orders, port) = (orders.to_string(), server.port.to_string());
    let status = Command::new(example("produce.sh")).args([&orders, "-h", "127.0.0.1", "-p", &port]).status();
    assert!(status.expect("the producer").success());
}

/// What is expected of so many orders in each of several goes: region, product, orders, sold.
fn expected(goes: &[u64]) -> Vec<Vec<String>> {
    let mut rows = std::collections::BTreeMap::<(&str, &str), (u64, u64)>::new();
    for order in goes.iter().flat_map(|orders| 0..*orders) {
        let region = ["north", "south", "east", "west"][(order % 4) as usize];
        let row = rows.entry((region, ["tea", "coffee", "cocoa"][(order % 3) as usize])).or_default();
        *row = (row.0 + 1, row.1 + order % 5 + 1);
    }
    let row = |((region, product), (orders, sold)): ((&str, &str), (u64, u64))| {
        vec![region.to_owned(), product.to_owned(), orders.to_string(), sold.to_string()]
    };
    rows.into_iter().map(row).collect()
}

#[test]
fn orders_of_a_stream_count_once_whatever_run_reads_them() {
    let (project, server) = (Project::new(), Redis::start(&[]));
    let pipeline = std::fs::read_to_string(example("pipeline.toml")).expect("the example");
    project.write("pipeline.toml", pipeline.replace("redis://localhost", &server.url()));
    std::fs::copy(example("handlers.lua"), project.path("handlers.lua")).expect("the example");
    let mut goes = Vec::new();
    for orders in [500, 1, 700] {
        produce(&server, orders);
        goes.push(orders);
        assert_eq!(project.run_json()["events"], orders);
        let rows = project.query("orders.db", "SELECT region, id, orders, sold FROM product ORDER BY region, id");
        assert_eq!(rows, expected(&goes));
        assert_eq!(server.ask::<u64>(&["XLEN", "orders"]), 1);
    }
    let latest = project.forebay(&["latest", "north", "--config", "pipeline.toml"]).ok().json();
    let north = expected(&goes).into_iter().filter(|row| row[0] == "north");
    let best = north.max_by_key(|row| row[3].parse::<u64>().expect("a number")).expect("products");
    assert_eq!(
        [&latest["products"], &latest["best"], &latest["sold"].to_string().into()],
        [&json!(3), &json!(best[1]), &json!(best[3])]
    );
}

#[test]
fn make_stream_shows_it_and_leaves_nothing_behind() {
    let project = Project::new();
    let mut command = Command::new(example("run.sh"));
    command.env("FOREBAY", env!("CARGO_BIN_EXE_forebay")).env("TMPDIR", project.path(""));
    let output = command.output().expect("the example");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && wrong.is_empty(), "{said}{wrong}");
    for text in ["orders  2,000 events", "went on from block", " west ", "entries left in the stream: 1"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(std::fs::read_dir(project.path("")).expect("the folder").count(), 0);
}
