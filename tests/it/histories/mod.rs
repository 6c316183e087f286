//! Whole histories against a model that keeps the state as of every block.
//!
//! A history is a stream of blocks over several regions, with forks, run in pieces: with restarts over a source that is
//! read from its beginning again or goes on (where it was told to, or after the position that is stored), connections of
//! the source that are lost, commits that fail before or after they are durable, rollbacks that are asked
//! for, memory so short that all that is committed is let go, events that fail and are put aside. Handlers write down what they read, so that a wrong read is
//! a wrong state. After each run the store must hold what the model says: rows, regions, counts, snapshots.
//!
//! `FOREBAY_SOAK=N` runs N histories with other seeds instead: see `make soak`.

/// A folder of files that changes between runs.
mod files;
/// What events do, over real entities and over the model's.
mod items;
/// Late, repeated and partial deliveries.
mod late;
/// The same handlers as a script.
mod lua;
/// The model: branches, and the state as of every block.
mod model;
/// The source, a store whose commits fail when they are told to, and what it must hold.
mod place;
/// Histories by chance.
mod plan;
/// Histories that once went wrong, shrunk.
mod regressions;
/// Scripts by chance.
mod scripts;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::items::Op;
use self::lua::{PIPELINE, SCRIPT};
use self::model::Model;
use self::place::{Delivered, Place, check, check_position, check_some};
use self::plan::{Plan, Step, plan};
use crate::support::folder_in_memory;
use crate::support::postgres_server::Server;

/// Histories of one test, of which there are [`SQLITE_TESTS`].
const SQLITE_CASES: u32 = 5_000;
const SQLITE_TESTS: u8 = 4;
const POSTGRES_CASES: u32 = 60;
const LUA_CASES: u32 = 400;

/// Lives a history.
fn live(plan: &Plan, place: &Place) -> Result<(), TestCaseError> {
    let mut model = Model { depth: plan.depth, floor: i64::MIN, ..Model::default() };
    // The first block has a number before which nothing is.
    let mut delivered_before = 0;
    let run = |model: &Model, from: usize, fails: Option<(u8, bool)>| {
        // A source with positions goes on by itself.
        let from = if plan.has_positions { 0 } else { from };
        place.pipeline(plan, fails).source(Delivered::new(&model.delivered[from..], plan)).run()
    };
    let check = |model: &Model, tip: &Model, when: &str| {
        check(place, tip, when)?;
        check_position(place, plan, &model.delivered, tip.chain.last())
    };
    for step in plan.steps.iter().chain([&Step::Restart(true)]) {
        match step {
            Step::Block(gap, ops) => model.make(*gap, ops),
            Step::Fork(blocks) => {
                if model.fork(*blocks) {
                    // The other branch must have a block, or nobody knows of it.
                    model.make(1, &[(0, Op::Add(0, 1))]);
                }
            }
            Step::Return => {
                let left = std::mem::take(&mut model.left);
                let Some(first) = left.first() else { continue };
                let at = model.chain.iter().position(|block| Some(&block.hash) == first.parent.as_ref());
                // Without parents it is seen only by a block that is held with another hash, and only as far back.
                let next = |at: &usize| model.chain.get(*at + 1).is_some_and(|next| next.number >= first.number);
                let is_seen = plan.names_parents || (first.number <= model.tip() && at.as_ref().is_some_and(next));
                let is_kept = |at: &usize| *at + 1 < model.chain.len() && model.chain[*at].number >= model.floor;
                let Some(at) = at.filter(is_kept).filter(|_| is_seen) else { continue };
                model.chain.truncate(at + 1);
                left.into_iter().for_each(|block| model.push(block));
                model.has_returned = true;
            }
            Step::Restart(is_anew) => {
                let from = if *is_anew { 0 } else { delivered_before };
                let ended = run(&model, from, None);
                prop_assert!(ended.is_ok(), "a run failed: {}", ended.err().map(|e| e.to_string()).unwrap_or_default());
                check(&model, &model, "after a run")?;
                delivered_before = model.delivered.len();
            }
            Step::Fail(at, is_after) => {
                if run(&model, 0, Some((*at, *is_after))).is_err() {
                    check_some(place, &model)?;
                    let ended = run(&model, 0, None);
                    let text = ended.err().map(|error| error.to_string());
                    prop_assert!(text.is_none(), "the run after a failed one: {:?}", text);
                }
                check(&model, &model, "after a failed commit")?;
                delivered_before = model.delivered.len();
            }
            Step::Lose(entries) => {
                let source = Delivered::new(&model.delivered, plan).that_loses_after(usize::from(*entries));
                if place.pipeline(plan, None).source(source).run().is_err() {
                    check_some(place, &model)?;
                }
                let ended = run(&model, 0, None);
                let text = ended.err().map(|error| error.to_string());
                prop_assert!(text.is_none(), "the run after a lost connection: {:?}", text);
                check(&model, &model, "after a lost connection")?;
                delivered_before = model.delivered.len();
            }
            Step::Rollback(blocks) => {
                // Where a branch was gone back to, its blocks come twice, and a source that begins anew would have to go
                // back further than is kept.
                if model.has_returned || model.chain.is_empty() {
                    continue;
                }
                run(&model, 0, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
                let to = (model.tip() - i64::from(*blocks)).max(model.floor);
                let tip = model.tip();
                let report = place.pipeline(plan, None).rollback(to);
                let report = report.map_err(|error| TestCaseError::fail(format!("to {to}: {error}")))?;
                prop_assert_eq!(report.rollbacks.len(), usize::from(to < tip));
                let mut then = Model { depth: plan.depth, ..Model::default() };
                then.chain.extend(model.chain.iter().filter(|block| block.number <= to).cloned());
                check(&model, &then, "after a rollback")?;
                // A second one changes nothing.
                let again = place.pipeline(plan, None).rollback(to);
                prop_assert!(again.is_ok_and(|again| again.rollbacks.is_empty()));
                run(&model, 0, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
                check(&model, &model, "after going on from a rollback")?;
                delivered_before = model.delivered.len();
            }
        }
    }
    Ok(())
}

fn live_on_sqlite(plan: &Plan) -> Result<(), TestCaseError> {
    let dir = folder_in_memory();
    let file = dir.path().join("h.db");
    let place =
        Place { url: format!("sqlite:{}", file.display()), file: Some(file.clone()), database: None, script: None };
    live(plan, &place)
}

fn live_in_lua(plan: &Plan) -> Result<(), TestCaseError> {
    let dir = folder_in_memory();
    let file = dir.path().join("h.db");
    std::fs::write(dir.path().join("pipeline.toml"), PIPELINE).expect("the pipeline file");
    std::fs::write(dir.path().join("handlers.lua"), SCRIPT).expect("the script");
    let script = Some(dir.path().join("pipeline.toml"));
    let url = format!("sqlite:{}", file.display());
    live(plan, &Place { url, file: Some(file.clone()), database: None, script })
}

fn live_on_postgres(plan: &Plan) -> Result<(), TestCaseError> {
    let database = Server::shared().make_database();
    let url = Server::shared().url(&database);
    let result = live(plan, &Place { url, file: None, database: Some(database.clone()), script: None });
    Server::shared().execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    result
}

/// Lives so many histories; with the same seed they are the same.
fn live_many<P: std::fmt::Debug>(
    plans: &impl Strategy<Value = P>,
    cases: u32,
    seed: u8,
    live: impl Fn(&P) -> Result<(), TestCaseError>,
) {
    let soak = std::env::var("FOREBAY_SOAK").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: soak.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    };
    let mut runner = match soak {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])),
    };
    match runner.run(plans, |plan| live(&plan)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, plan)) => panic!("{reason}\nshrunk: {plan:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn five_thousand_histories_on_sqlite_1() {
    live_many(&plan(), SQLITE_CASES, 1, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_2() {
    live_many(&plan(), SQLITE_CASES, 2, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_3() {
    live_many(&plan(), SQLITE_CASES, 3, live_on_sqlite);
}

#[test]
fn five_thousand_histories_on_sqlite_4() {
    live_many(&plan(), SQLITE_CASES, SQLITE_TESTS, live_on_sqlite);
}

#[test]
fn histories_in_lua() {
    live_many(&plan(), LUA_CASES, 5, live_in_lua);
}

#[test]
fn histories_on_postgres() {
    live_many(&plan(), POSTGRES_CASES, 6, live_on_postgres);
}
