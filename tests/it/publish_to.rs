//! Runs that publish to a target of a program's own: a fake in memory, which may be away, refuse a region, or be ahead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use forebay::config::{BatchConfig, SnapshotsConfig};
use forebay::publish::{Delivery, Known, Patience, Publication, PublishError, PublishReceipt, PublishStatus, Target};
use forebay::snapshot::Every;
use forebay::source::{Next, Source, SourceError, SourceEvent};
use forebay::{Context, EntityRow, EntityTable, Handler, HandlerError, Pipeline, Report};

use crate::support::project::Project;

/// The longest wait for something that is to happen.
const WAIT: Duration = Duration::from_secs(60);

/// What the fake holds and did.
#[derive(Default)]
struct Place {
    newest: BTreeMap<String, Publication>,
    /// Each snapshot that became a region's newest, in order.
    log: Vec<(String, u64)>,
    is_away: bool,
    /// The region that it does not take.
    refused: &'static str,
    /// Is told each number that was published.
    tell: Option<Sender<u64>>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Place>>);

impl Fake {
    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.0.lock().expect("the fake")
    }

    /// Number and document of each region's newest.
    fn newest(&self) -> Vec<(String, u64, String)> {
        let of = |(region, one): (&String, &Publication)| (region.clone(), one.seq, one.doc.to_string());
        self.place().newest.iter().map(of).collect()
    }
}

impl Target for Fake {
    fn name(&self) -> &str {
        "the fake"
    }

    fn publish(&mut self, items: &[Publication], _: Patience) -> Delivery {
        let Place { newest, log, is_away, refused, tell } = &mut *self.place();
        let mut put = |item: &Publication| match newest.get(&*item.region) {
            _ if *is_away => PublishReceipt::of(item, Err(away())),
            _ if *item.region == **refused => PublishReceipt::of(item, Err(PublishError::Refused("not that".into()))),
            Some(there) if there.seq > item.seq => PublishReceipt::of(there, Ok(PublishStatus::Stale)),
            Some(there) if there.id == item.id => PublishReceipt::of(there, Ok(PublishStatus::Duplicate)),
            _ => {
                newest.insert(item.region.to_string(), item.clone());
                log.push((item.region.to_string(), item.seq));
                if let Some(tell) = &tell {
                    let _ = tell.try_send(item.seq);
                }
                PublishReceipt::of(item, Ok(PublishStatus::Published))
            }
        };
        Delivery::of(items.iter().map(&mut put).collect())
    }

    fn read_known(&mut self) -> Result<(), PublishError> {
        if self.place().is_away { Err(away()) } else { Ok(()) }
    }

    fn known(&self, region: &str) -> Option<Known> {
        self.place().newest.get(region).map(|there| Known::new(there.seq, there.block))
    }
}

fn away() -> PublishError {
    PublishError::Away { target: "the fake".into(), cause: "it is away".into() }
}

forebay::entity! {
    /// The last block of a region.
    struct Last in "last" {
        block: i64,
    }
}

struct Blocks;

#[derive(serde::Deserialize)]
struct Event {}

impl Handler for Blocks {
    type Event<'e> = Event;

    fn entities(&self) -> Vec<EntityTable> {
        vec![Last::table()]
    }

    fn on_event(&self, _: Event, ctx: &mut Context<'_>) -> Result<(), HandlerError> {
        let block = ctx.block();
        ctx.set("last", Last { block })
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn on_snapshot(&self, ctx: &mut Context<'_>) -> Result<Option<serde_json::Value>, HandlerError> {
        Ok(ctx.get::<Last>("last")?.map(|last| serde_json::json!(last.block)))
    }
}

fn events(blocks: std::ops::RangeInclusive<i64>) -> String {
    blocks
        .flat_map(|block| ["a", "b"].map(|region| format!("{{\"block\":{block},\"region\":\"{region}\"}}\n")))
        .collect()
}

fn project(blocks: std::ops::RangeInclusive<i64>) -> Project {
    let project = Project::new();
    project.write("pipeline.toml", "name = \"p\"\n");
    project.write("events.ndjson", events(blocks));
    project
}

fn pipeline(project: &Project, fake: &Fake) -> Pipeline {
    let snapshots = SnapshotsConfig::default().with_every(Every::Batch).expect("every").with_dedup(Duration::ZERO);
    let pipeline = Pipeline::new("p", Blocks).expect("a pipeline").store_url(&project.store("p.db")).expect("a store");
    let batch = BatchConfig::default().with_events(2).expect("events");
    pipeline
        .source_path(&project.path("events.ndjson").to_string_lossy())
        .snapshots(snapshots)
        .batch(batch)
        .publish_to(fake.clone())
}

fn unpublished(report: &Report) -> Vec<(&str, &str)> {
    report.unpublished.iter().map(|one| (one.region.as_str(), one.cause.as_str())).collect()
}

/// Regions whose newest snapshot is not marked as published.
fn unmarked(project: &Project) -> Vec<Vec<String>> {
    let sql = "SELECT s.region FROM forebay_snapshots s JOIN forebay_regions r
               ON r.region = s.region AND r.seq = s.seq
               WHERE s.published_at IS NULL ORDER BY s.region";
    project.query("p.db", sql)
}

/// Snapshots of another store that readers have: with this number, as of this block.
fn ahead(fake: &Fake, seq: u64, block: i64) {
    for region in ["a", "b"] {
        let mut publication = Publication::new(region, seq, serde_json::Value::Null).with_block(block);
        publication.id = format!("{region}.{seq}.other");
        publication.hash.clear();
        fake.place().newest.insert(region.into(), publication);
    }
}

crate::both_stores! {
    fn what_has_committed_is_published_once_and_marked() {
        let (project, fake) = (project(1..=40), Fake::default());
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!(report.unpublished, []);
        let newest = fake.newest();
        assert_eq!(newest.iter().map(|(region, _, doc)| (region.as_str(), doc.as_str())).collect::<Vec<_>>(), [("a", "40"), ("b", "40")]);
        assert!(unmarked(&project).is_empty());
        let log = fake.place().log.clone();
        let mut once = log.clone();
        once.sort();
        once.dedup();
        assert_eq!((once.len(), log.len() as u64), (log.len(), report.snapshots.published));
        // There is nothing left to do.
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!((report.snapshots.published, fake.newest()), (0, newest));
    }

    fn while_it_is_away_the_run_goes_on_and_the_next_one_catches_up() {
        let (project, fake) = (project(1..=9), Fake::default());
        fake.place().is_away = true;
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        let cause = "the fake: it is away";
        let expected = ["a", "b"].map(|region| (region, cause));
        assert_eq!((unpublished(&report), report.checkpoint.block), (expected.to_vec(), Some(9)));
        fake.place().is_away = false;
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!((report.unpublished, report.snapshots.published), (Vec::new(), 2));
        assert_eq!(fake.newest().into_iter().map(|(.., doc)| doc).collect::<Vec<_>>(), ["9", "9"]);
    }

    fn a_region_that_it_refuses_blocks_no_other() {
        let (project, fake) = (project(1..=9), Fake::default());
        fake.place().refused = "a";
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!(unpublished(&report), [("a", "not that")]);
        assert_eq!(unmarked(&project), [["a"]]);
        fake.place().refused = "";
        assert_eq!(pipeline(&project, &fake).run().expect("it succeeds").unpublished, []);
        assert!(unmarked(&project).is_empty());
    }

    fn a_store_that_is_behind_counts_on_above_it_at_the_end_of_the_run() {
        let (project, fake) = (project(1..=9), Fake::default());
        ahead(&fake, 50, 9);
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!(report.unpublished, []);
        assert_eq!(fake.newest(), ["a", "b"].map(|region| (region.to_owned(), 51, "9".to_owned())));
        assert!(unmarked(&project).is_empty());
        // One that it is not as far as is left alone.
        ahead(&fake, 90, 100);
        project.write("events.ndjson", events(1..=12));
        let report = pipeline(&project, &fake).run().expect("it succeeds");
        assert_eq!((report.unpublished.as_slice(), fake.newest()[0].1), (&[][..], 90));
    }

    /// The order to number anew goes through the commit thread, and waits for no batch.
    fn a_stream_that_is_silent_is_numbered_anew_all_the_same() {
        let (project, fake) = (project(1..=1), Fake::default());
        ahead(&fake, 50, 1);
        let (tell, told) = bounded(100);
        fake.place().tell = Some(tell);
        let stream = Stream { block: 0, told };
        let report = pipeline(&project, &fake).source(stream).run().expect("it succeeds");
        assert_eq!((report.unpublished, unmarked(&project)), (Vec::new(), Vec::new()));
        assert_eq!(fake.newest()[0].2, "3");
        // Above what was there, and each number once.
        let log = fake.place().log.clone();
        assert!(log.first().is_some_and(|(_, seq)| *seq > 50) && log.is_sorted_by(|one, next| one.1 < next.1), "{log:?}");
    }
}

/// Three blocks; before the third ends it waits until something was published.
struct Stream {
    block: i64,
    told: Receiver<u64>,
}

impl Source for Stream {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        if self.block == 3 {
            let seq = self.told.recv_timeout(WAIT).expect("a snapshot is published while the stream is silent");
            assert!(seq > 50, "{seq}");
            return Ok(Next::End);
        }
        self.block += 1;
        event.block = self.block;
        event.region.replace_range(.., "a");
        event.json.replace_range(.., "{}");
        Ok(Next::Event)
    }

    fn is_ready(&self) -> bool {
        self.block < 3
    }
}
