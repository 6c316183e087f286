//! The hand-off on its own, as a program with a store of its own uses it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use forebay::handoff::{CommitFailure, CommitThread, Committer, Refused};

const WAIT: Duration = Duration::from_secs(60);

/// Commits numbers; the test decides about each, and sees what was written.
struct Numbers {
    decide: Receiver<Result<(), &'static str>>,
    written: Vec<u32>,
}

impl Committer for Numbers {
    type Item = u32;
    type Receipt = usize;
    type Error = String;

    fn commit(&mut self, item: u32) -> Result<usize, String> {
        self.decide.recv_timeout(WAIT).map_err(|error| error.to_string())??;
        self.written.push(item);
        Ok(self.written.len())
    }
}

fn start() -> (CommitThread<Numbers>, Sender<Result<(), &'static str>>) {
    let (decide, decisions) = bounded(10);
    let numbers = Numbers { decide: decisions, written: Vec::new() };
    (CommitThread::spawn("numbers", numbers).expect("a thread"), decide)
}

#[test]
fn one_is_committed_one_waits_and_a_third_is_given_back() {
    let (commits, decide) = start();
    let first = commits.submit(1, WAIT).expect("room");
    // The thread has taken the first when the second finds room.
    let second = commits.submit(2, WAIT).expect("room");
    assert!(!commits.is_idle() && first.try_wait().is_none());
    assert!(matches!(commits.submit(3, Duration::ZERO), Err(Refused::Full(3))));
    decide.send(Ok(())).expect("the thread");
    decide.send(Ok(())).expect("the thread");
    assert_eq!(first.wait(WAIT).expect("committed"), 1);
    assert_eq!(second.wait(WAIT).expect("committed"), 2);
    let numbers = commits.finish(WAIT).expect("it ends");
    assert_eq!(numbers.written, [1, 2]);
}

#[test]
fn a_failure_reaches_everyone_who_waits_and_who_comes_later() {
    let (commits, decide) = start();
    let first = commits.submit(1, WAIT).expect("room");
    let second = commits.submit(2, WAIT).expect("room");
    decide.send(Err("full")).expect("the thread");
    let (one, two) = (first.wait(WAIT).expect_err("failed"), second.wait(WAIT).expect_err("failed"));
    let (CommitFailure::Failed(one), CommitFailure::Failed(two)) = (one, two) else { panic!("another failure") };
    assert!(Arc::ptr_eq(&one, &two), "it is the same failure");
    assert!(matches!(commits.try_submit(3), Err(Refused::Failed(3, CommitFailure::Failed(_)))));
    assert!(commits.failure().is_some());
    match commits.finish(WAIT) {
        Err(CommitFailure::Failed(error)) => assert_eq!(*error, "full"),
        _ => panic!("a failure that nobody waited for must come out at the end"),
    }
}

#[test]
fn a_failure_that_nobody_waited_for_comes_out_at_the_end() {
    let (commits, decide) = start();
    drop(commits.submit(1, WAIT).expect("room"));
    decide.send(Err("full")).expect("the thread");
    assert!(matches!(commits.finish(WAIT), Err(CommitFailure::Failed(_))));
}

#[test]
fn what_was_handed_over_is_committed_before_the_end() {
    let (commits, decide) = start();
    commits.submit(1, WAIT).expect("room");
    commits.submit(2, WAIT).expect("room");
    decide.send(Ok(())).expect("the thread");
    decide.send(Ok(())).expect("the thread");
    assert_eq!(commits.finish(WAIT).expect("it ends").written, [1, 2]);
}

#[test]
fn a_receipt_is_taken_once() {
    let (commits, decide) = start();
    let ticket = commits.submit(1, WAIT).expect("room");
    decide.send(Ok(())).expect("the thread");
    assert_eq!(ticket.wait(WAIT).expect("committed"), 1);
    assert!(matches!(ticket.wait(WAIT), Err(CommitFailure::Taken)));
    assert!(commits.failure().is_none());
}

#[test]
fn a_wait_is_bounded() {
    let (commits, decide) = start();
    let ticket = commits.submit(1, WAIT).expect("room");
    assert!(matches!(ticket.wait(Duration::from_millis(1)), Err(CommitFailure::TimedOut(_))));
    decide.send(Ok(())).expect("the thread");
    assert_eq!(ticket.wait(WAIT).expect("committed"), 1);
}

/// A committer that panics.
struct Panics;

impl Committer for Panics {
    type Item = u32;
    type Receipt = ();
    type Error = String;
    fn commit(&mut self, item: u32) -> Result<(), String> {
        panic!("cannot commit {item}")
    }
}

#[test]
fn a_panic_reaches_everyone_who_waits() {
    let commits = CommitThread::spawn("panics", Panics).expect("a thread");
    let ticket = commits.submit(7, WAIT).expect("room");
    assert!(ticket.wait(WAIT).expect_err("panicked").to_string().contains("cannot commit 7"));
    assert!(matches!(commits.finish(WAIT), Err(CommitFailure::Panicked(_))));
}
