//! Positions: a source of one's own that is told to go on after the last event that was committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forebay::config::BatchConfig;
use forebay::source::{End, Late, Next, Position, Resumed, Source, SourceError, SourceEvent};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, Report};

use crate::support::project::Project;

forebay::entity! {
    /// A counter.
    struct Sum in "tally" {
        events: i64,
        total: i64,
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    key: String,
    v: i64,
}

struct Sums;

impl Handler for Sums {
    type Event<'e> = Entry;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Sum::table()]
    }

    fn on_event(&self, entry: Entry, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let sum = ctx.get::<Sum>(&entry.key)?.unwrap_or(Sum { events: 0, total: 0 });
        ctx.set(&entry.key, Sum { events: sum.events + 1, total: sum.total * 3 + entry.v })
    }
}

/// A block of the log, with its hash, that of its parent, and its events.
struct Block {
    number: i64,
    hash: String,
    parent: String,
    events: i64,
}

fn block(number: i64, branch: &str, parent: &str) -> Block {
    Block {
        number,
        hash: format!("{branch}{number}"),
        parent: format!("{parent}{}", number - 1),
        events: number % 3 + 1,
    }
}

/// What tests see of a log that a pipeline has taken.
#[derive(Clone, Default)]
struct Seen {
    /// The position behind the last event of each block.
    positions: Arc<Mutex<BTreeMap<i64, Position>>>,
    read: Arc<AtomicU64>,
}

/// An event of the log: block, hash, parent, place, JSON.
type Logged = (i64, String, String, i64, String);

/// A log: its events have numbers, and it can be read from any of them.
struct Log {
    events: Vec<Logged>,
    next: usize,
    seen: Seen,
    has_hashes: bool,
    has_places: bool,
    can_resume: bool,
}

impl Log {
    fn new(blocks: &[Block]) -> Self {
        let events = blocks.iter().flat_map(|block| {
            let json = |n| format!(r#"{{"key":"k{}","v":{}}}"#, (block.number + n) % 4, block.number * 7 + n);
            (0..block.events).map(move |n| (block.number, block.hash.clone(), block.parent.clone(), n, json(n)))
        });
        let (events, seen) = (events.collect(), Seen::default());
        Self { events, next: 0, seen, has_hashes: true, has_places: false, can_resume: true }
    }

    /// The first so many events of it.
    fn up_to(mut self, events: usize) -> Self {
        self.events.truncate(events);
        self
    }

    /// Without hashes, with places.
    fn with_places(self) -> Self {
        Self { has_hashes: false, has_places: true, ..self }
    }
}

impl Source for Log {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        let Some((block, hash, parent, place, json)) = self.events.get(self.next) else { return Ok(Next::End) };
        self.next += 1;
        self.seen.read.fetch_add(1, Ordering::Relaxed);
        event.block = *block;
        event.json.clone_from(json);
        event.region.replace_range(.., if self.next.is_multiple_of(3) { "east" } else { "west" });
        if self.has_hashes {
            (event.hash, event.parent) = (Some(hash.clone()), Some(parent.clone()));
        }
        event.seq = self.has_places.then_some(*place);
        event.set_position(&format!("entry {}", self.next))?;
        let position = event.position.clone().expect("it was set");
        self.seen.positions.lock().expect("positions").insert(*block, position);
        Ok(Next::Event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        if !self.can_resume {
            return Ok(Resumed::FromStart);
        }
        let next = after.as_str().strip_prefix("entry ").and_then(|next| next.parse().ok());
        self.next = next
            .filter(|next| *next <= self.events.len())
            .ok_or_else(|| SourceError::Other(format!("the log has no {after}")))?;
        Ok(Resumed::After)
    }
}

fn pipeline(project: &Project) -> Pipeline {
    let batch = BatchConfig::default().with_events(5).expect("events");
    let pipeline =
        Pipeline::new("log", Sums).expect("a pipeline").store_url(&project.store("log.db")).expect("a store");
    pipeline.batch(batch).rollback_depth(10)
}

fn run(project: &Project, log: Log, until: Option<i64>) -> Report {
    let pipeline = pipeline(project).source(log);
    let pipeline = match until {
        Some(until) => pipeline.until(until),
        None => pipeline,
    };
    pipeline.run().expect("it succeeds")
}

fn project() -> Project {
    Project::with("name = \"log\"\n", "", "")
}

fn state(project: &Project) -> Vec<Vec<String>> {
    let mut rows = project.query("log.db", "SELECT region, id, events, total FROM tally ORDER BY region, id");
    rows.extend(project.query("log.db", "SELECT block, block_events, blocks, events, position FROM forebay_pipelines"));
    rows
}

fn position(project: &Project) -> String {
    project.query("log.db", "SELECT position FROM forebay_pipelines").remove(0).remove(0)
}

/// A chain of 40 blocks, of which the last ten come once more on another branch.
fn blocks() -> Vec<Block> {
    let chain = (1..=40).map(|number| block(number, "a", "a"));
    chain.chain([block(31, "b", "a")]).chain((32..=45).map(|number| block(number, "b", "b"))).collect()
}

/// How many events come up to the end of that many blocks.
fn events_of(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| usize::try_from(block.events).expect("a count")).sum()
}

crate::both_stores! {
    fn a_source_that_goes_on_after_a_position_is_not_read_again() {
        let whole = project();
        run(&whole, Log::new(&blocks()), None);
        for until in [1, 17, 30, 40] {
            for can_resume in [true, false] {
                let project = project();
                // The branch comes behind the 40 blocks.
                let log = Log::new(&blocks()[..40]);
                let first = log.seen.clone();
                let stored = run(&project, log, Some(until)).checkpoint;
                assert_eq!(stored.block, Some(until));
                assert_eq!(position(&project), format!("entry {}", stored.events));
                assert_eq!(first.positions.lock().expect("positions")[&until].as_str(), position(&project));

                let log = Log { can_resume, ..Log::new(&blocks()) };
                let (all, again) = (log.events.len() as u64, log.seen.clone());
                run(&project, log, None);
                let read = if can_resume { all - stored.events } else { all };
                assert_eq!(again.read.load(Ordering::Relaxed), read, "after block {until}");
                assert_eq!(state(&project), state(&whole), "after block {until}");
            }
        }
    }

    fn a_rollback_restores_the_position_of_the_block_that_it_goes_back_to() {
        let whole = project();
        run(&whole, Log::new(&blocks()[..40]), None);
        for to in [39, 35, 30] {
            let project = project();
            run(&project, Log::new(&blocks()[..40]), None);
            assert_eq!(pipeline(&project).rollback(to).expect("a rollback").checkpoint.block, Some(to));
            let kept = events_of(&blocks()[..usize::try_from(to).expect("a block")]);
            assert_eq!(position(&project), format!("entry {kept}"));
            let log = Log::new(&blocks()[..40]);
            let (all, again) = (log.events.len(), log.seen.clone());
            run(&project, log, None);
            assert_eq!(again.read.load(Ordering::Relaxed), (all - kept) as u64, "after block {to}");
            assert_eq!(state(&project), state(&whole), "after block {to}");
        }
        // Before the first block there is none.
        let project = project();
        run(&project, Log::new(&blocks()[..4]), None);
        pipeline(&project).rollback(0).expect("a rollback");
        assert_eq!(position(&project), "NULL");
        run(&project, Log::new(&blocks()[..40]), None);
        assert_eq!(state(&project), state(&whole));
    }

    fn a_block_that_was_begun_goes_on_behind_its_position() {
        let events = events_of(&blocks()[..12]);
        let log = || Log::new(&blocks()[..12]).with_places();
        let whole = project();
        run(&whole, log(), None);
        for (from, step) in [(events - 7, 1), (events - 6, 2), (events - 6, 5)] {
            let project = project();
            for end in (from..events).step_by(step).chain([events, events]) {
                run(&project, log().up_to(end), None);
                assert_eq!(position(&project), format!("entry {end}"));
            }
            assert_eq!(state(&project), state(&whole), "{from} {step}");
            // Of a block that two runs have handled the position is that of the second.
            for to in [12, 11, 10] {
                pipeline(&project).rollback(to).expect("a rollback");
                let kept = events_of(&blocks()[..usize::try_from(to).expect("a block")]);
                assert_eq!(position(&project), format!("entry {kept}"), "{from} {step}: block {to}");
            }
            run(&project, log(), None);
            assert_eq!(state(&project), state(&whole), "{from} {step}");
        }
    }

    fn a_block_that_is_left_open_comes_again_whole() {
        let project = project();
        let open = |events: usize| {
            let log = Log::new(&blocks()[..12]).up_to(events);
            let read = log.seen.clone();
            pipeline(&project).source(log).end(End::Open).run().expect("it succeeds");
            read.read.load(Ordering::Relaxed)
        };
        let before = events_of(&blocks()[..10]);
        // Block 11 has three events.
        for (events, read) in [(before + 1, before + 1), (before + 2, 2), (before + 3, 3), (before + 4, 4)] {
            assert_eq!(open(events), read as u64);
            let last = events_of(&blocks()[..if events > before + 3 { 11 } else { 10 }]);
            assert_eq!(position(&project), format!("entry {last}"));
        }
        let whole = self::project();
        run(&whole, Log::new(&blocks()[..12]), None);
        run(&project, Log::new(&blocks()[..12]), None);
        assert_eq!(state(&project), state(&whole));
    }

    fn a_position_that_is_not_stored_is_noted_once_all_was_compared() {
        let project = project();
        run(&project, Log::new(&blocks()[..12]), None);
        let expected = state(&project);
        project.execute("log.db", "UPDATE forebay_pipelines SET position = NULL");
        let log = || Log::new(&blocks()[..12]);
        let events = events_of(&blocks()[..12]) as u64;
        for read in [events, 0] {
            let log = log();
            let again = log.seen.clone();
            run(&project, log, None);
            assert_eq!(again.read.load(Ordering::Relaxed), read);
            assert_eq!(state(&project), expected);
        }
    }

    fn a_replay_leaves_no_position_that_the_source_could_not_go_on_from() {
        let project = project();
        let run = |order: &[usize]| {
            let all = blocks();
            let events = order.iter().flat_map(|at| Log::new(&all[*at..=*at]).events).collect();
            let log = Rewound(Log { events, ..Log::new(&[]).with_places() });
            pipeline(&project).late(Late::Replay).source(log).run().expect("it succeeds").checkpoint.events
        };
        assert_eq!(run(&[0, 1, 3]), 7);
        assert_eq!(position(&project), "entry 7");
        // Block 3 comes late, and the source goes on after block 4.
        assert_eq!(run(&[0, 1, 3, 2]), 8);
        assert_eq!(position(&project), "NULL");
        assert_eq!(run(&[0, 1, 3, 2, 4]), 11);
    }
}

/// A log that can be read again.
struct Rewound(Log);

impl Source for Rewound {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        self.0.next(event)
    }

    fn resume(&mut self, after: &Position) -> Result<Resumed, SourceError> {
        self.0.resume(after)
    }

    fn rewind(&mut self) -> Result<bool, SourceError> {
        self.0.next = 0;
        Ok(true)
    }
}

crate::both_stores! {
    fn a_field_of_the_event_may_hold_the_position() {
        let events = |last: &str| {
            "{\"block\":1,\"region\":\"r\",\"at\":{\"lsn\":\"0/1\"}}\n{\"block\":2,\"region\":\"r\",\"at\":{\"lsn\":17}}\n"
                .to_owned()
                + last
        };
        let file = "name = \"log\"\n[source]\npath = \"events.ndjson\"\nposition = \"at.lsn\"\n[handlers]\nscript = \"handlers.lua\"\n\
            [store]\nurl = \"sqlite:log.db\"\n[rollback]\ndepth = 5\n[errors]\non_event = \"quarantine\"\n\
            [entities.tally]\ncolumns = { n = \"bigint\" }\n";
        let project = Project::with(file, "function on_event(e, ctx) ctx.tally:add('n', { n = 1 }) end", &events(""));
        project.run_json();
        let status = || project.forebay(&["status", "pipeline.toml", "--json"]).ok().json();
        assert_eq!(status()["checkpoint"]["position"], "17");
        project.forebay(&["rollback", "pipeline.toml", "--to", "1"]).ok();
        assert_eq!(status()["checkpoint"]["position"], "0/1");
        // Behind an event whose position cannot be read, and behind one that has none, it is not known.
        project.write("events.ndjson", events("{\"block\":3,\"region\":\"r\",\"at\":{\"lsn\":1.5}}\n"));
        assert_eq!(project.run_json()["quarantined"], 1);
        assert_eq!(status()["checkpoint"]["position"], serde_json::Value::Null);
        project.write("events.ndjson", events("{\"block\":3,\"region\":\"r\",\"at\":{\"lsn\":1.5}}\n{\"block\":4,\"region\":\"r\",\"at\":{\"lsn\":null}}\n"));
        assert_eq!(project.run_json()["events"], 1);
        assert_eq!(status()["checkpoint"]["position"], serde_json::Value::Null);
        assert_eq!(project.query("log.db", "SELECT n FROM tally"), [["3"]]);
    }
}

#[test]
fn a_position_of_another_source_is_refused_by_the_source() {
    let mut log = Log::new(&blocks());
    for foreign in ["17", "entry -1", "entry 100000"] {
        let position = Position::new(foreign).expect("a position");
        assert_eq!(log.resume(&position).expect_err("refused").to_string(), format!("the log has no {foreign}"));
    }
}
