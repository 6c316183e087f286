//! Histories of a source that delivers late, twice, and in part.
//!
//! The source may have positions; then it goes on after the one that is stored.
//!
//! What counts is decided by the rule alone: with `late = "skip"` what comes in its place, with `late = "replay"` all
//! events in the order of their blocks and places, each once. However the source is cut into runs, and whatever fails
//! between them, the store must hold that, and no other.

use std::collections::BTreeSet;

use forebay::source::{Late, Next, Position, Resumed, Source, SourceError, SourceEvent};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::items::{Event, Op, handle, op_json};
use super::live_many;
use super::model::State;
use super::place::{Place, modelled, stored};
use super::plan::{Plan, op};
use crate::support::folder_in_memory;
use crate::support::postgres_server::Server;

const SQLITE_CASES: u32 = 3_000;
const POSTGRES_CASES: u32 = 40;

/// One event as it is delivered.
#[derive(Debug, Clone)]
struct Delivery {
    block: i64,
    place: i64,
    region: String,
    json: String,
}

#[derive(Debug, Clone)]
enum Step {
    /// A block: how many numbers further, and its events with their regions.
    Block(u8, Vec<(u8, Op)>),
    /// An event of an earlier block, so many blocks back.
    Late(u8, u8, Op),
    /// One more event of the last block.
    More(u8, Op),
    /// An event that was delivered before comes again, so many deliveries back.
    Again(u8),
    /// A run over all that has come but the last so many events.
    Run(u8),
    /// The same, of which a commit fails; before it is durable, or after.
    Fail(u8, bool),
    /// The same, of which the source loses its connection after so many deliveries.
    Lose(u8),
}

#[derive(Debug, Clone)]
struct LatePlan {
    has_places: bool,
    has_positions: bool,
    replays: bool,
    depth: u64,
    batch_events: u64,
    evicts: bool,
    steps: Vec<Step>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..3u8, prop::collection::vec((0..3u8, op()), 1..4)).prop_map(|(gap, events)| Step::Block(gap, events)),
        3 => (1..4u8, 0..3u8, op()).prop_map(|(back, region, op)| Step::Late(back, region, op)),
        2 => (0..3u8, op()).prop_map(|(region, op)| Step::More(region, op)),
        3 => (0..6u8).prop_map(Step::Again),
        3 => (0..3u8).prop_map(Step::Run),
        1 => (1..4u8, any::<bool>()).prop_map(|(at, is_after)| Step::Fail(at, is_after)),
        1 => (1..8u8).prop_map(Step::Lose),
    ]
}

fn late_plan() -> impl Strategy<Value = LatePlan> {
    let source = (any::<bool>(), any::<bool>());
    (source, any::<bool>(), 0..2u64, 1..6u64, any::<bool>(), prop::collection::vec(step(), 3..14)).prop_map(
        |((has_places, has_positions), replays, depth, batch_events, evicts, steps)| LatePlan {
            has_places,
            has_positions,
            replays,
            // A replay goes back as far as it must.
            depth: if replays { 1_000 } else { depth * 4 },
            batch_events,
            evicts,
            steps,
        },
    )
}

/// A source over deliveries, which can be read again.
struct Deliveries {
    all: Vec<Delivery>,
    next: usize,
    has_places: bool,
    has_positions: bool,
    /// How many deliveries it gives before its connection is lost.
    loses_after: Option<u8>,
}

impl Source for Deliveries {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if let Some(left) = &mut self.loses_after {
            *left = left.checked_sub(1).ok_or_else(|| SourceError::Other("the connection is lost".into()))?;
        }
        let Some(delivery) = self.all.get(self.next) else { return Ok(Next::End) };
        self.next += 1;
        event.block = delivery.block;
        event.seq = self.has_places.then_some(delivery.place);
        event.region.clone_from(&delivery.region);
        event.json.clone_from(&delivery.json);
        event.line = self.next as u64;
        if self.has_positions {
            event.set_position(&format!("delivery {}", self.next))?;
        }
        Ok(Next::Event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        assert!(self.has_positions, "it gave none: {after}");
        let next = after.as_str().strip_prefix("delivery ").and_then(|next| next.parse().ok());
        self.next = next.expect("a position of this source");
        Ok(Resumed::After)
    }

    fn rewind(&mut self) -> Result<bool, SourceError> {
        self.next = 0;
        Ok(true)
    }
}

/// The deliveries that count, in the order in which they are handled.
fn counted(plan: &LatePlan, deliveries: &[Delivery]) -> Vec<Delivery> {
    if plan.replays {
        let mut seen = BTreeSet::new();
        let mut all: Vec<Delivery> =
            deliveries.iter().filter(|delivery| seen.insert(delivery.json.clone())).cloned().collect();
        // Without places the order is that of the source.
        all.sort_by_key(|delivery| (delivery.block, if plan.has_places { delivery.place } else { 0 }));
        return all;
    }
    let (mut last, mut has_stepped_back, mut counted) = (None, false, Vec::<Delivery>::new());
    for delivery in deliveries {
        let is_late = match last {
            None => false,
            Some((block, _)) if delivery.block != block => delivery.block < block,
            Some((_, place)) if plan.has_places => delivery.place <= place,
            Some((block, _)) => {
                let is_same = |before: &Delivery| before.block == block && before.json == delivery.json;
                has_stepped_back && counted.iter().any(is_same)
            }
        };
        if is_late {
            has_stepped_back |= last.is_some_and(|(block, _)| delivery.block < block);
            continue;
        }
        if last.is_none_or(|(block, _)| block != delivery.block) {
            has_stepped_back = false;
        }
        last = Some((delivery.block, delivery.place));
        counted.push(delivery.clone());
    }
    counted
}

fn state_of(deliveries: &[Delivery]) -> State {
    let mut state = State::default();
    for delivery in deliveries {
        let event: Event = serde_json::from_str(&delivery.json).expect("an event");
        let region = state.entry(delivery.region.clone()).or_default();
        let before = region.clone();
        // It is put aside, and leaves nothing.
        if handle(&event, region).is_err() {
            *region = before;
        }
    }
    state
}

/// Whether a run may end after so many deliveries: one that ends within a block needs places, or a replay, to go on.
fn may_end_at(plan: &LatePlan, deliveries: &[Delivery], end: usize) -> bool {
    let (before, after) = deliveries.split_at(end);
    let Some(tip) = before.iter().map(|delivery| delivery.block).max() else { return true };
    plan.has_places || plan.replays || after.iter().all(|delivery| delivery.block != tip)
}

fn live(plan: &LatePlan, place: &Place) -> Result<(), TestCaseError> {
    let mut deliveries: Vec<Delivery> = Vec::new();
    let (mut made, mut places) = (0_u64, std::collections::HashMap::<i64, i64>::new());
    let settings = Plan {
        depth: plan.depth,
        batch_events: plan.batch_events,
        evicts: plan.evicts,
        every_batch: false,
        names_parents: false,
        has_positions: plan.has_positions,
        says_back: false,
        steps: Vec::new(),
    };
    let mut deliver = |deliveries: &mut Vec<Delivery>, block: i64, region: u8, op: &Op| {
        made += 1;
        let mut json = op_json(op);
        json["n"] = made.into();
        let place = places.entry(block).or_default();
        *place += 2;
        deliveries.push(Delivery { block, place: *place, region: format!("r{region}"), json: json.to_string() });
    };
    let run = |deliveries: &[Delivery], fails: Option<(u8, bool)>, loses_after: Option<u8>| {
        let late = if plan.replays { Late::Replay } else { Late::Skip };
        let LatePlan { has_places, has_positions, .. } = *plan;
        let source = Deliveries { all: deliveries.to_vec(), next: 0, has_places, has_positions, loses_after };
        place.pipeline(&settings, fails).late(late).source(source).run()
    };
    let check = |deliveries: &[Delivery], when: &str| {
        let counted = counted(plan, deliveries);
        prop_assert_eq!(stored(place), modelled(&state_of(&counted)), "rows, {}", when);
        let counts = place.query("SELECT events FROM forebay_pipelines");
        prop_assert_eq!(&counts, &[[counted.len().to_string()]], "counts, {}", when);
        Ok(())
    };
    // How far the runs have come: no later one may see less.
    let mut ran_to = 0;
    for step in plan.steps.iter().chain([&Step::Run(0)]) {
        let tip = deliveries.iter().map(|delivery| delivery.block).max().unwrap_or(0);
        match step {
            Step::Block(gap, ops) => {
                ops.iter().for_each(|(region, op)| deliver(&mut deliveries, tip + i64::from(*gap), *region, op));
            }
            Step::Late(back, region, op) => {
                let mut blocks: Vec<i64> = deliveries.iter().map(|delivery| delivery.block).collect();
                blocks.sort_unstable();
                blocks.dedup();
                if let Some(block) = blocks.iter().nth_back(usize::from(*back)) {
                    deliver(&mut deliveries, *block, *region, op);
                }
            }
            Step::More(region, op) => deliver(&mut deliveries, tip, *region, op),
            Step::Again(back) => {
                // A replay cannot tell the same line twice in a row from a second delivery.
                let is_told = |again: &&Delivery| again.block < tip || !plan.replays;
                if let Some(again) = deliveries.iter().nth_back(usize::from(*back)).filter(is_told) {
                    deliveries.push(again.clone());
                }
            }
            Step::Run(_) | Step::Fail(..) | Step::Lose(_) => {
                let short = if let Step::Run(short) = step { usize::from(*short) } else { 0 };
                let end = deliveries.len().saturating_sub(short).max(ran_to);
                if !may_end_at(plan, &deliveries, end) || !may_end_at(plan, &deliveries, ran_to) {
                    continue;
                }
                // What it leaves does not matter here: the next run goes on from it.
                match step {
                    Step::Fail(at, is_after) => drop(run(&deliveries[..end], Some((*at, *is_after)), None)),
                    Step::Lose(after) => drop(run(&deliveries[..end], None, Some(*after))),
                    _ => {}
                }
                let ended = run(&deliveries[..end], None, None);
                prop_assert!(ended.is_ok(), "a run failed: {}", ended.err().map(|e| e.to_string()).unwrap_or_default());
                check(&deliveries[..end], "after a run")?;
                ran_to = end;
            }
        }
    }
    Ok(())
}

#[test]
fn late_histories_on_sqlite() {
    live_many(&late_plan(), SQLITE_CASES, 7, |plan| {
        let dir = folder_in_memory();
        let file = dir.path().join("h.db");
        let url = format!("sqlite:{}", file.display());
        live(plan, &Place { url, file: Some(file.clone()), database: None, script: None })
    });
}

#[test]
fn late_histories_on_postgres() {
    live_many(&late_plan(), POSTGRES_CASES, 8, |plan| {
        let database = Server::shared().make_database();
        let url = Server::shared().url(&database);
        let result = live(plan, &Place { url, file: None, database: Some(database.clone()), script: None });
        Server::shared().execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        result
    });
}
