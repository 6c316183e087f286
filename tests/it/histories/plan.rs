//! Histories by chance: what steps there are, and how often.

use forebay::query::Comparison;
use proptest::prelude::*;

use super::items::Op;

/// One step of a history.
#[derive(Debug, Clone)]
pub enum Step {
    /// A block: how many numbers further, and its events with their regions.
    Block(u8, Vec<(u8, Op)>),
    /// The source goes back so many blocks of the branch, as far as it can be followed.
    Fork(u8),
    /// It goes back to the branch that it left last.
    Return,
    /// The run ends here, and another goes on; its source begins anew, or goes on where the last one ended.
    Restart(bool),
    /// The source of the run that ends here gives so many entries, and loses its connection.
    Lose(u8),
    /// Of the run that ends here, that commit fails; before it is durable, or after.
    Fail(u8, bool),
    /// The run ends here, and a rollback goes back so many block numbers.
    Rollback(u8),
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub depth: u64,
    pub batch_events: u64,
    pub evicts: bool,
    pub every_batch: bool,
    pub names_parents: bool,
    /// The source gives positions, and goes on after the one that is stored.
    pub has_positions: bool,
    /// It says itself where it goes back.
    pub says_back: bool,
    pub steps: Vec<Step>,
}

pub fn op() -> impl Strategy<Value = Op> {
    let condition = || prop::option::of((prop::sample::select(Comparison::ALL.to_vec()), -4..6i8));
    prop_oneof![
        5 => (0..7u8, prop::option::weighted(0.85, -4..6i8)).prop_map(|(id, v)| Op::Set(id, v)),
        3 => (0..7u8).prop_map(Op::Delete),
        3 => (0..7u8, -3..4i8).prop_map(|(id, v)| Op::Add(id, v)),
        3 => (condition(), 0..5u8, prop::option::of(0..4u8)).prop_map(|(c, order, limit)| Op::Find(c, order, limit)),
        1 => (0..3u8, condition()).prop_map(|(tag, c)| Op::FindTag(tag, c)),
        2 => condition().prop_map(Op::Count),
        1 => (-3..4i8).prop_map(Op::Take),
        2 => (0..7u8, -3..4i8).prop_map(|(id, v)| Op::Fail(id, v)),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        14 => (1..3u8, prop::collection::vec((0..3u8, op()), 1..4)).prop_map(|(gap, events)| Step::Block(gap, events)),
        3 => (1..6u8).prop_map(Step::Fork),
        1 => Just(Step::Return),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => (1..4u8, any::<bool>()).prop_map(|(at, after)| Step::Fail(at, after)),
        1 => (1..12u8).prop_map(Step::Lose),
        1 => (0..6u8).prop_map(Step::Rollback),
    ]
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let source = (any::<bool>(), any::<bool>(), any::<bool>());
    (1..9u64, 1..6u64, any::<bool>(), any::<bool>(), source, prop::collection::vec(step(), 3..13)).prop_map(
        |(depth, batch_events, evicts, every_batch, (names_parents, has_positions, says_back), steps)| Plan {
            depth,
            batch_events,
            evicts,
            every_batch,
            names_parents,
            has_positions,
            says_back: says_back && has_positions,
            steps,
        },
    )
}
