//! What stands in a partition between records: gaps of compaction, transactions, ends that are not what they seem.

use std::time::{Duration, Instant};

use forebay::source::{EntryBlock, Fields, KafkaPlan, KafkaTopic, Next, Position, Source, SourceEvent};

use crate::support::cases::{PIPELINE, SCRIPT, replaced};
use crate::support::kafka_log::{Batch, KafkaLog, Kind, Log};
use crate::support::project::Project;
use crate::support::wait_until;

const EVENT: &str = "{\"region\":\"r\"}";

/// A batch with events at these offsets.
fn batch(kind: Kind, first: i64, last: i64, offsets: &[i64]) -> Batch {
    Batch::new(kind, first, last, &offsets.iter().map(|offset| (*offset, EVENT)).collect::<Vec<_>>())
}

fn log(high: i64, batches: Vec<Batch>) -> Log {
    Log { high, stable: high, batches, ..Log::default() }
}

fn open(kafka: &KafkaLog, follows: bool) -> KafkaTopic {
    let plan = KafkaPlan::new(format!("127.0.0.1:{}", kafka.port), "log").expect("a plan");
    KafkaTopic::new(plan.with_block(EntryBlock::Offset).with_follow(follows), Fields::default())
}

/// Offsets of the events that there are, the last position, and how it ended.
fn read(kafka: &KafkaLog, after: Option<&Position>) -> (Vec<i64>, Option<Position>, Result<Next, String>) {
    let mut source = open(kafka, false);
    if let Some(after) = after {
        source.resume(after).expect("a position");
    }
    let (mut offsets, mut event) = (Vec::new(), SourceEvent::default());
    loop {
        match source.next(&mut event) {
            Ok(Next::Event) => offsets.push(event.block),
            Ok(Next::End) => return (offsets, event.position, Ok(Next::End)),
            Ok(_) => {}
            Err(error) => return (offsets, event.position, Err(error.to_string())),
        }
    }
}

fn take(source: &mut KafkaTopic, count: usize) -> Vec<i64> {
    let (mut offsets, mut event) = (Vec::new(), SourceEvent::default());
    wait_until(|| {
        if source.next(&mut event).expect("it goes on") == Next::Event {
            offsets.push(event.block);
        }
        offsets.len() == count
    });
    offsets
}

fn fails(ended: &Result<Next, String>, says: &str) {
    assert!(ended.as_ref().is_err_and(|error| error.contains(says)), "{says}: {ended:?}");
}

/// What compaction has left: holes, an end without records, and later the last record that was read is gone too.
#[test]
fn gaps_of_compaction_are_no_error() {
    let batches =
        vec![batch(Kind::Plain, 0, 4, &[1, 3]), batch(Kind::Plain, 5, 9, &[9]), batch(Kind::Plain, 10, 14, &[])];
    let kafka = KafkaLog::start(log(15, batches));
    let (offsets, position, ended) = read(&kafka, None);
    assert_eq!((offsets, ended), (vec![1, 3, 9], Ok(Next::End)));
    let behind = position.expect("a position");
    assert_eq!(read(&kafka, Some(&behind)).0, [] as [i64; 0]);
    {
        let mut log = kafka.log();
        (log.high, log.stable) = (21, 21);
        log.batches = vec![batch(Kind::Plain, 0, 14, &[]), batch(Kind::Plain, 15, 20, &[17, 20])];
    }
    let (offsets, _, ended) = read(&kafka, Some(&behind));
    assert_eq!((offsets, ended), (vec![17, 20], Ok(Next::End)));
}

/// Records of transactions count when those are over, and none that was taken back.
#[test]
fn transactions_are_read_once_they_are_over() {
    let mut given = log(
        9,
        vec![
            batch(Kind::Transaction(7), 0, 2, &[0, 1, 2]),
            Batch::new(Kind::End(7, true), 3, 3, &[]),
            batch(Kind::Transaction(8), 4, 5, &[4, 5]),
            Batch::new(Kind::End(8, false), 6, 6, &[]),
            batch(Kind::Transaction(7), 7, 8, &[7, 8]),
        ],
    );
    (given.stable, given.taken_back) = (7, vec![(8, 4)]);
    let kafka = KafkaLog::start(given);
    let (offsets, position, ended) = read(&kafka, None);
    assert_eq!((offsets, ended), (vec![0, 1, 2], Ok(Next::End)));
    let behind = position.expect("a position");
    // Marks are no records: if retention takes all that was read and them, nothing is lost.
    kafka.log().low = 7;
    let (offsets, _, ended) = read(&kafka, Some(&behind));
    assert_eq!((offsets, ended), (vec![], Ok(Next::End)), "{behind:?}");
    {
        let mut log = kafka.log();
        (log.high, log.stable) = (10, 10);
        log.batches.push(Batch::new(Kind::End(7, true), 9, 9, &[]));
    }
    let (offsets, _, ended) = read(&kafka, Some(&behind));
    assert_eq!((offsets, ended), (vec![7, 8], Ok(Next::End)));
    kafka.log().low = 8;
    fails(&read(&kafka, Some(&behind)).2, "taken out unread");
}

/// A leader who does not know all yet says that the end is there: it is not believed.
#[test]
fn an_end_that_comes_too_early_is_looked_at_again() {
    let batches = (0..10).map(|offset| batch(Kind::Plain, offset, offset, &[offset])).collect();
    let kafka = KafkaLog::start(Log { then_lagging: Some(4), ..log(10, batches) });
    let mut source = open(&kafka, false);
    assert_eq!(take(&mut source, 4), [0, 1, 2, 3]);
    let (mut event, begun) = (SourceEvent::default(), Instant::now());
    wait_until(|| {
        assert!(matches!(source.next(&mut event).expect("it waits"), Next::Pending | Next::Whole { .. }));
        begun.elapsed() > Duration::from_secs(1)
    });
    kafka.log().lagging = None;
    assert_eq!(take(&mut source, 6), [4, 5, 6, 7, 8, 9]);
}

/// Brokers go and come back with what they had: nothing is lost, and nothing read twice.
#[test]
fn brokers_that_go_and_come_back_are_waited_for() {
    let kafka = KafkaLog::start(log(2, vec![batch(Kind::Plain, 0, 1, &[0, 1])]));
    let mut source = open(&kafka, true);
    assert_eq!(take(&mut source, 2), [0, 1]);
    kafka.log().is_away = true;
    // Longer than a question may take.
    let (mut event, begun) = (SourceEvent::default(), Instant::now());
    wait_until(|| {
        assert!(matches!(source.next(&mut event).expect("it waits"), Next::Pending | Next::Whole { .. }));
        begun.elapsed() > Duration::from_secs(7)
    });
    {
        let mut log = kafka.log();
        (log.is_away, log.high, log.stable) = (false, 4, 4);
        log.batches.push(batch(Kind::Plain, 2, 3, &[2, 3]));
    }
    assert_eq!(take(&mut source, 2), [2, 3]);
}

/// Retention overtakes a run that is under way.
#[test]
fn records_that_go_while_it_reads_are_missed() {
    let batches = vec![batch(Kind::Plain, 0, 0, &[0])];
    let kafka = KafkaLog::start(log(1, batches));
    let mut source = open(&kafka, true);
    assert_eq!(take(&mut source, 1), [0]);
    {
        let mut log = kafka.log();
        (log.low, log.high, log.stable) = (5, 6, 6);
        log.batches = vec![batch(Kind::Plain, 5, 5, &[5])];
    }
    let mut event = SourceEvent::default();
    let mut error = None;
    wait_until(|| {
        match source.next(&mut event) {
            Ok(next) => assert_ne!(next, Next::Event),
            Err(text) => error = Some(text.to_string()),
        }
        error.is_some()
    });
    let error = error.expect("an error");
    assert!(error.contains("log/0") && error.contains("retention.ms"), "{error}");
}

#[test]
fn a_record_that_was_damaged_stops_the_run() {
    let batches = vec![batch(Kind::Plain, 0, 0, &[0]), batch(Kind::Plain, 1, 1, &[1]).damaged()];
    let kafka = KafkaLog::start(log(2, batches));
    let (offsets, _, ended) = read(&kafka, None);
    assert_eq!(offsets, [0]);
    fails(&ended, "log/0");
}

/// These brokers know no groups.
#[test]
fn a_group_that_cannot_be_told_is_a_warning() {
    let kafka = KafkaLog::start(log(1, vec![batch(Kind::Plain, 0, 0, &[0])]));
    let source = format!(
        "topic = \"log\"\nblock = \"@offset\"\n[source.kafka]\nbootstrap.servers = \"127.0.0.1:{}\"\ngroup.id = \"g\"",
        kafka.port
    );
    let project = Project::with(
        &replaced(PIPELINE, "path = \"events.ndjson\"", &source),
        &SCRIPT.replace("event.block", "ctx.block"),
        "",
    );
    let begun = Instant::now();
    let run = project.forebay(&["run", "pipeline.toml"]).ok();
    assert!(run.stderr().contains("the group g was not told what is committed"), "{run}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(project.query("p.db", "SELECT count(*) FROM thing"), [["1"]]);
}
