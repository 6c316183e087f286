//! Instructions of a fixed small run, counted by callgrind: stable where times are not, so that a slow-down shows on a
//! noisy machine too. Compared with `benches/instructions.json`; `FOREBAY_BENCH=record` records them there.
//!
//! `cargo bench --bench instructions`, or `make bench`. Needs valgrind; without it nothing is measured.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

#[path = "../examples/erc20/chain.rs"]
mod chain;
mod table;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use chain::Chain;
use serde_json::{Map, Value as Json};
use table::{Row, Table};

/// Small enough for callgrind, large enough for two batches.
const CHAIN: Chain = Chain { transfers: 20_000, accounts: 1000, tokens: 1, a_block: 10, seed: 20 };

/// Two counts of the same program differ by less: threads wait for each other now and then.
const NOISE: f64 = 0.02;

fn instructions(pipeline: &str, chain: &Path, dir: &Path) -> f64 {
    let store = format!("sqlite:{}", dir.join(format!("{pipeline}.db")).display());
    let out = dir.join(format!("{pipeline}.callgrind"));
    let file = format!("{}/examples/erc20/{pipeline}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]);
    command
        .arg(env!("CARGO_BIN_EXE_forebay"))
        .args(["run", &file, "--quiet", "--store", &store, "--source"])
        .arg(chain);
    let output = command.env_remove("DATABASE_URL").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out).unwrap();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    totals.unwrap().trim().parse().unwrap()
}

fn main() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: valgrind is not there (Debian package valgrind); nothing is measured");
        return;
    }
    let recorded_at = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let recorded: Map<String, Json> = std::fs::read_to_string(&recorded_at)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let records = std::env::var_os("FOREBAY_BENCH").is_some_and(|value| value == "record");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let chain = dir.path().join("chain.ndjson");
    let mut out = BufWriter::new(File::create(&chain).unwrap());
    CHAIN.write(&mut out).unwrap();
    out.flush().unwrap();
    let mut table = Table::new("instructions");
    let mut counted = Map::new();
    for pipeline in ["balances", "transfers"] {
        let count = instructions(pipeline, &chain, dir.path());
        let an_event = (count / CHAIN.transfers as f64).round();
        let mut row = Row::new(format!("Lua, {pipeline}, 20,000 events, SQLite, whole process"), an_event, "an event");
        if let Some(before) = recorded.get(pipeline).and_then(Json::as_f64) {
            row = row.against("recorded", before);
            if an_event > before * (1.0 + NOISE) {
                println!("  {pipeline} costs more than recorded");
            }
        }
        table.add(row);
        counted.insert(pipeline.into(), an_event.into());
    }
    table.save();
    if records {
        std::fs::write(&recorded_at, format!("{:#}\n", Json::Object(counted))).unwrap();
        println!("recorded in {}", recorded_at.display());
    }
}
