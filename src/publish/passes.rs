//! What a seeder does, noted down so that others can look at it: its passes, and how each region stands.
//!
//! Who seeds notes in steps that wait for nobody; who watches takes copies. Time is measured by a clock that does not jump,
//! and shown by the one on the wall.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::durations::Durations;
use crate::model::timestamp::Timestamp;
use crate::store::StoredSnapshot;

/// Passes that are remembered one by one.
const RECENT_MAX: usize = 30;

/// Bytes of a cause that are kept.
const CAUSE_BYTES_MAX: usize = 2048;

/// What a seeder is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SeedStep {
    /// It waits for its next pass.
    #[default]
    Waiting,
    /// It takes the lock and reads what is there.
    Reading,
    /// Its command computes.
    Computing,
    /// It publishes.
    Publishing,
}

impl SeedStep {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Computing => "computing",
            Self::Publishing => "publishing",
        }
    }
}

/// What came of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassResult {
    /// Readers have every document, as far as it changed.
    Done,
    /// Something was published, and some region failed or was missing.
    Incomplete,
    /// The command failed, and nothing was published.
    NotComputed,
    /// Redis did not answer or refused, or the lock was lost: nothing was published.
    NotPublished,
    /// Another seeder had the lock: this one had nothing to do.
    Held,
}

impl PassResult {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Done, Self::Incomplete, Self::NotComputed, Self::NotPublished, Self::Held];

    /// Its name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::NotComputed => "not_computed",
            Self::NotPublished => "not_published",
            Self::Held => "held",
        }
    }

    /// Whether nothing is wrong.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Done | Self::Held)
    }
}

/// What became of a region in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionResult {
    /// Its document is new.
    Published,
    /// Its document is the one that was there.
    Unchanged,
    /// Readers have a newer one.
    Stale,
    /// No document of it came: what is there lives on.
    Kept,
    /// It was not published.
    Failed,
}

impl RegionResult {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

/// A region in a pass.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RegionPass {
    /// Its name.
    pub region: String,
    /// What became of it.
    pub result: RegionResult,
    /// The id of its newest document, if that is known.
    pub id: Option<String>,
    /// When the document was made that was published.
    pub made_at: Option<Timestamp>,
    /// Why it was not published.
    pub error: Option<String>,
}

impl RegionPass {
    /// A region, and what became of it.
    pub fn new(region: impl Into<String>, result: RegionResult) -> Self {
        Self { region: region.into(), result, id: None, made_at: None, error: None }
    }
}

/// A pass that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pass {
    /// When it began.
    pub began_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub result: PassResult,
    /// Why it is not well; of one that had nothing to do, who had the lock.
    pub cause: Option<String>,
    /// Its regions by what became of them.
    pub regions: PassCounts,
}

/// Regions by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PassCounts {
    /// Their documents are new.
    pub published: u64,
    /// Their documents are those that were there.
    pub unchanged: u64,
    /// Readers have newer ones.
    pub stale: u64,
    /// No document of them came.
    pub kept: u64,
    /// They were not published.
    pub failed: u64,
}

impl PassCounts {
    fn add(&mut self, result: RegionResult) {
        let count = match result {
            RegionResult::Published => &mut self.published,
            RegionResult::Unchanged => &mut self.unchanged,
            RegionResult::Stale => &mut self.stale,
            RegionResult::Kept => &mut self.kept,
            RegionResult::Failed => &mut self.failed,
        };
        *count += 1;
    }
}

/// How a region of a seeder stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SeededRegion {
    /// What became of it in the last pass that came to it; none if none has yet.
    pub result: Option<RegionResult>,
    /// The id of its newest document.
    pub id: Option<String>,
    /// When that was made.
    pub made_at: Option<Timestamp>,
    /// Why it was not published in the last pass.
    pub error: Option<String>,
    /// How often each came of it.
    pub counts: PassCounts,
}

/// The passes of a seeder. Cheap to clone: clones are the same.
#[derive(Debug, Clone)]
pub struct Passes(Arc<Mutex<Noted>>);

#[derive(Debug)]
struct Noted {
    started: Instant,
    step: SeedStep,
    step_at: Instant,
    turned_at: Instant,
    began: Option<(Instant, Timestamp)>,
    next: Option<(Instant, Timestamp)>,
    is_stopping: bool,
    results: [u64; PassResult::ALL.len()],
    counts: PassCounts,
    recent: VecDeque<Arc<Pass>>,
    done_at: Option<Timestamp>,
    ill_since: Option<Instant>,
    took: Durations,
    publish_took: Durations,
    regions: Arc<BTreeMap<String, SeededRegion>>,
    version: u64,
}

/// How a seeder stands at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PassesReading {
    /// How long ago it began.
    pub uptime: Duration,
    /// What it is at.
    pub step: SeedStep,
    /// For how long.
    pub step_for: Duration,
    /// For how long its loop has not turned. Within Redis it does not.
    pub still_for: Duration,
    /// When the pass began that it is in.
    pub began_at: Option<Timestamp>,
    /// When the next pass begins, while it waits for it.
    pub next_at: Option<Timestamp>,
    /// It was asked to stop.
    pub is_stopping: bool,
    /// How many passes have ended with each of [`PassResult::ALL`].
    pub results: [u64; PassResult::ALL.len()],
    /// Regions of all passes by what became of them.
    pub counts: PassCounts,
    /// The last passes, the newest first.
    pub recent: Vec<Arc<Pass>>,
    /// When the last pass ended with all regions published.
    pub done_at: Option<Timestamp>,
    /// For how long, by the ends of passes, not all has been well; none if it is.
    pub ill_for: Option<Duration>,
    /// How long passes took.
    pub took: Durations,
    /// How long it took to publish what they brought.
    pub publish_took: Durations,
    /// The regions by name.
    pub regions: Arc<BTreeMap<String, SeededRegion>>,
    /// Changes with the regions.
    pub version: u64,
}

impl PassesReading {
    /// The last pass that has ended.
    pub fn last(&self) -> Option<&Pass> {
        self.recent.first().map(Arc::as_ref)
    }

    /// When the oldest of the regions' newest documents was made; none if none is known.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.regions.values().filter_map(|region| region.made_at).min()
    }
}

impl Default for Passes {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Noted {
            started: now,
            step: SeedStep::Waiting,
            step_at: now,
            turned_at: now,
            began: None,
            next: None,
            is_stopping: false,
            results: Default::default(),
            counts: PassCounts::default(),
            recent: VecDeque::with_capacity(RECENT_MAX),
            done_at: None,
            ill_since: None,
            took: Durations::default(),
            publish_took: Durations::default(),
            regions: Arc::default(),
            version: 0,
        })))
    }
}

impl Passes {
    /// A pass begins.
    pub fn begin(&self) {
        let mut noted = self.noted();
        (noted.began, noted.next) = (Some((Instant::now(), Timestamp::now())), None);
        noted.step(SeedStep::Reading);
    }

    /// What is there was read, and the command begins. Regions that are not there are none of this seeder's any more.
    pub fn compute(&self, there: &[StoredSnapshot]) {
        let mut noted = self.noted();
        noted.step(SeedStep::Computing);
        let known = &noted.regions;
        let regions = there.iter().map(|snapshot| {
            let mut region = known.get(&snapshot.region).cloned().unwrap_or_default();
            region.id = Some(snapshot.id.clone());
            region.made_at = snapshot.generated_at.as_deref().and_then(|time| time.parse().ok());
            (snapshot.region.clone(), region)
        });
        let regions: BTreeMap<_, _> = regions.collect();
        if regions != **known {
            noted.regions = Arc::new(regions);
            noted.version += 1;
        }
    }

    /// The loop has turned.
    pub fn turn(&self) {
        self.noted().turned_at = Instant::now();
    }

    /// The command has written its documents, and they are published.
    pub fn publish(&self) {
        self.noted().step(SeedStep::Publishing);
    }

    /// Documents were published, and so long it took.
    pub fn published(&self, took: Duration, regions: Vec<RegionPass>) -> PassCounts {
        let mut noted = self.noted();
        noted.publish_took.add(took);
        let (mut counts, mut all) = (PassCounts::default(), BTreeMap::new());
        for one in regions {
            let mut region = noted.regions.get(&one.region).cloned().unwrap_or_default();
            counts.add(one.result);
            noted.counts.add(one.result);
            region.counts.add(one.result);
            if one.result == RegionResult::Published {
                region.made_at = one.made_at;
            }
            (region.result, region.error) = (Some(one.result), one.error.map(shortened));
            region.id = one.id.filter(|_| one.result != RegionResult::Failed).or(region.id);
            all.insert(one.region, region);
        }
        noted.regions = Arc::new(all);
        noted.version += 1;
        counts
    }

    /// The pass has ended.
    pub fn end(&self, result: PassResult, cause: Option<String>, regions: PassCounts) {
        let mut noted = self.noted();
        let Some((began, began_at)) = noted.began.take() else { return };
        let (now, took) = (Instant::now(), began.elapsed());
        if let Some(count) = PassResult::ALL.iter().position(|one| *one == result) {
            noted.results[count] += 1;
        }
        match result.is_well() {
            true => noted.ill_since = None,
            false => {
                noted.ill_since.get_or_insert(now);
            }
        }
        if result == PassResult::Done {
            noted.done_at = Some(Timestamp::now());
        }
        if result != PassResult::Held {
            noted.took.add(took);
        }
        noted.recent.truncate(RECENT_MAX - 1);
        noted.recent.push_front(Arc::new(Pass { began_at, took, result, cause: cause.map(shortened), regions }));
        noted.step(SeedStep::Waiting);
    }

    /// The next pass begins in that time.
    pub fn wait(&self, span: Duration) {
        let mut noted = self.noted();
        noted.next = Some((Instant::now() + span, Timestamp::now().saturating_add(span)));
        noted.step(SeedStep::Waiting);
    }

    /// It was asked to stop.
    pub fn stop(&self) {
        self.noted().is_stopping = true;
    }

    /// How it stands now. Waits for nothing but another of these steps.
    pub fn read(&self) -> PassesReading {
        let noted = self.noted();
        PassesReading {
            uptime: noted.started.elapsed(),
            step: noted.step,
            step_for: noted.step_at.elapsed(),
            still_for: noted.turned_at.elapsed(),
            began_at: noted.began.map(|(_, at)| at),
            next_at: noted.next.map(|(_, at)| at),
            is_stopping: noted.is_stopping,
            results: noted.results,
            counts: noted.counts,
            recent: noted.recent.iter().cloned().collect(),
            done_at: noted.done_at,
            ill_for: noted.ill_since.map(|since| since.elapsed()),
            took: noted.took.clone(),
            publish_took: noted.publish_took.clone(),
            regions: Arc::clone(&noted.regions),
            version: noted.version,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn step(&mut self, step: SeedStep) {
        let now = Instant::now();
        (self.step, self.step_at, self.turned_at) = (step, now, now);
    }
}

fn shortened(mut cause: String) -> String {
    cause.truncate(cause.floor_char_boundary(CAUSE_BYTES_MAX));
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(region: &str, result: RegionResult) -> RegionPass {
        RegionPass { id: Some(format!("{region}.1.x")), ..RegionPass::new(region, result) }
    }

    #[test]
    fn passes_and_regions_are_counted_and_only_those_of_the_last_are_kept() {
        let passes = Passes::default();
        passes.end(PassResult::Done, None, PassCounts::default());
        assert_eq!(passes.read().last().map(|pass| pass.result), None, "none had begun");
        passes.begin();
        passes.compute(&[]);
        assert_eq!(passes.read().step, SeedStep::Computing);
        passes.publish();
        let made = Timestamp::now();
        let mut asia = of("asia", RegionResult::Published);
        asia.made_at = Some(made);
        let counts = passes.published(Duration::from_millis(7), vec![asia, of("europe", RegionResult::Failed)]);
        passes.end(PassResult::Incomplete, Some("europe: refused".into()), counts);
        let reading = passes.read();
        assert_eq!((reading.counts.published, reading.counts.failed, reading.results), (1, 1, [0, 1, 0, 0, 0]));
        assert_eq!(reading.regions["asia"].made_at, Some(made));
        assert_eq!(reading.regions["europe"].id, None, "what failed is nobody's newest");
        assert!(reading.ill_for.is_some() && reading.done_at.is_none());
        passes.wait(Duration::from_secs(60));
        assert!(passes.read().next_at.is_some_and(|next| next > Timestamp::now()));
        passes.begin();
        passes.compute(&[]);
        let counts = passes.published(Duration::ZERO, vec![of("asia", RegionResult::Unchanged)]);
        passes.end(PassResult::Done, None, counts);
        let reading = passes.read();
        assert_eq!(reading.regions.len(), 1, "europe is gone");
        assert!(reading.ill_for.is_none() && reading.done_at.is_some() && reading.next_at.is_none());
        assert_eq!((reading.took.count, reading.publish_took.count), (2, 2));
        for _ in 0..2 * RECENT_MAX {
            passes.begin();
            passes.end(PassResult::Held, Some("x".repeat(5000)), PassCounts::default());
        }
        let reading = passes.read();
        assert_eq!((reading.recent.len(), reading.took.count), (RECENT_MAX, 2));
        assert_eq!(reading.last().and_then(|pass| pass.cause.as_ref()).map(String::len), Some(CAUSE_BYTES_MAX));
    }
}
