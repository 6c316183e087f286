//! Histories that once went wrong, shrunk; each test says what went wrong.

use forebay::query::Comparison::{Equal, Greater, Less};

use super::items::Op::{Add, Count, Delete, Find, FindTag, Set, Take};
use super::live_on_sqlite;
use super::plan::Plan;
use super::plan::Step::{self, Block, Fail, Fork, Restart, Return, Rollback};

fn check(depth: u64, names_parents: bool, steps: Vec<Step>) {
    let plan = Plan {
        depth,
        batch_events: 1,
        evicts: false,
        every_batch: false,
        names_parents,
        has_positions: false,
        says_back: false,
        steps,
    };
    live_on_sqlite(&plan).unwrap_or_else(|error| panic!("{error}\n{plan:?}"));
}

fn block(gap: u8) -> Step {
    Block(gap, vec![(0, Set(0, None))])
}

#[test]
fn a_run_that_failed_gives_the_lock_back_before_it_ends() {
    check(1, false, vec![block(1), Fail(1, false), block(1), block(1)]);
}

#[test]
fn a_branch_that_was_left_has_a_later_block_than_the_one_that_counts() {
    check(5, false, vec![block(1), block(2), Fork(1), Restart(false)]);
    check(5, false, vec![block(1), block(2), block(2), Fork(2), block(1), Restart(false)]);
    check(5, false, vec![block(1), block(2), block(1), Fork(2), block(1), Return]);
}

#[test]
fn the_block_that_a_rollback_came_to_is_not_on_a_branch_that_was_left() {
    let last = Block(1, vec![(0, Add(6, 1)), (0, Find(Some((Less, 5)), 1, Some(2))), (2, Add(6, 0))]);
    let steps = vec![block(1), block(1), Fork(1), block(2), Fork(3), block(1), block(1), block(2), block(1), last];
    check(5, false, steps.into_iter().chain([Rollback(5)]).collect());
}

#[test]
fn snapshots_follow_a_branch_that_is_gone_back_to() {
    let plan = Plan {
        depth: 2,
        batch_events: 2,
        evicts: false,
        every_batch: false,
        names_parents: false,
        has_positions: false,
        says_back: false,
        steps: vec![
            Block(2, vec![(0, Set(1, Some(3))), (0, Delete(0)), (1, Find(Some((Greater, -4)), 1, None))]),
            Block(1, vec![(1, Add(3, -2))]),
            Fork(5),
            Fail(2, true),
            Return,
            Block(
                2,
                vec![(2, Count(Some((Greater, 5)))), (0, Set(3, Some(2))), (0, Find(Some((Greater, 5)), 4, None))],
            ),
            Fail(3, false),
        ],
    };
    live_on_sqlite(&plan).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_source_that_begins_anew_after_a_rollback_before_its_first_block() {
    let steps = vec![
        Block(2, vec![(2, Set(6, Some(-4))), (2, Delete(0))]),
        Block(2, vec![(0, Delete(5)), (2, Find(Some((Less, -2)), 3, Some(3)))]),
        Restart(false),
        Block(1, vec![(0, Find(None, 3, Some(2)))]),
        Fail(2, true),
        Block(1, vec![(0, Take(-3)), (2, Delete(4))]),
        Block(2, vec![(2, Set(6, Some(0))), (2, Delete(4))]),
        Fork(4),
        Block(2, vec![(2, FindTag(2, Some((Greater, 2))))]),
        Rollback(4),
        Block(2, vec![(0, Add(4, -2))]),
        Block(1, vec![(0, Delete(1)), (2, Count(None))]),
        Restart(false),
        Block(1, vec![(0, Add(1, 2))]),
        Block(1, vec![(0, Delete(3)), (0, Find(Some((Equal, 1)), 0, Some(3)))]),
        Block(1, vec![(2, Set(4, Some(4))), (2, Add(6, 0)), (0, Find(Some((Greater, 1)), 1, None))]),
        Rollback(4),
        Fork(2),
        Block(2, vec![(2, Find(None, 2, Some(3))), (0, Delete(0))]),
    ];
    check(7, false, steps);
}

#[test]
fn what_is_compared_reaches_back_to_where_a_long_branch_left() {
    check(2, false, vec![block(1), block(1), Restart(false), Fork(1), block(1), block(2)]);
}
