//! The timeline of a run: what each stage did and when, what limited the run, and what would help at most.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the recording: spans of time by stage, in bounded memory however long the run is |
//! | `bottleneck` | what limited a run, and bounds of what would help |
//! | `svg` | the picture: one bar a batch |
//! | `trace` | the same for Perfetto and `chrome://tracing` |
//!
//! Runs no handler and touches no store: stages report to it.

pub mod bottleneck;
mod svg;
mod trace;

pub use crate::model::text::grouped;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most spans kept of one stage. Beyond it, neighbours are merged.
const SPANS_MAX: usize = 4096;

/// The most spans kept of one stage in each of the last two windows, for a picture of what goes on now.
const RECENT_MAX: usize = 256;

/// How long such a window is.
const RECENT_WINDOW: Duration = Duration::from_secs(60);

/// Work on the same batch with a smaller gap is one span.
const GAP: Duration = Duration::from_millis(2);

/// A stage of the pipeline: it does one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// The reader thread.
    Read,
    /// The thread that runs handlers, over all lanes.
    Handlers,
    /// The commit thread.
    Commit,
    /// The publish thread.
    Publish,
}

impl Stage {
    /// All, in the order in which data passes them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Handlers, Self::Commit, Self::Publish];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Handlers => "handlers",
            Self::Commit => "commit",
            Self::Publish => "publish",
        }
    }
}

/// What a stage does in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// Its work.
    Working,
    /// Sealing a batch: taking out what it changed, and its snapshots.
    Sealing,
    /// Evicting rows so that memory becomes free.
    Evicting,
    /// Waiting for events.
    WaitingForSource,
    /// Waiting until a commit makes room for the next batch, or the last one is done.
    WaitingForCommit,
    /// Waiting until a commit gives memory back.
    WaitingForMemory,
    /// Waiting until events that were read ahead are taken.
    WaitingForRoom,
}

impl Activity {
    /// What it is, as one reads it in a picture.
    pub fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Sealing => "sealing",
            Self::Evicting => "evicting rows",
            Self::WaitingForSource => "waiting for events",
            Self::WaitingForCommit => "waiting for the commit",
            Self::WaitingForMemory => "waiting for memory",
            Self::WaitingForRoom => "waiting until events are taken",
        }
    }

    /// Whether it is work and not a wait.
    pub fn is_work(self) -> bool {
        matches!(self, Self::Working | Self::Sealing)
    }
}

/// A span of time in which a stage did one thing; in a long run, several neighbours merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// From the beginning of the run.
    pub start: Duration,
    /// From the beginning of the run.
    pub end: Duration,
    /// What it did.
    pub doing: Activity,
    /// The first batch of it, counted from 1 in this run; 0 where it is about none.
    pub first_batch: u64,
    /// The last batch of it.
    pub last_batch: u64,
    /// How much of it was work.
    pub busy: Duration,
}

impl Span {
    /// How long it is.
    pub fn len(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// Whether the span has zero length.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    fn goes_on(&self, next: &Self) -> bool {
        self.doing == next.doing && self.last_batch == next.first_batch && next.start.saturating_sub(self.end) <= GAP
    }

    fn take_in(&mut self, next: &Self) {
        self.end = self.end.max(next.end);
        self.busy += next.busy;
        self.last_batch = self.last_batch.max(next.last_batch);
    }
}

/// The spans of one stage, in order.
#[derive(Debug)]
struct Spans {
    spans: Vec<Span>,
    /// How many are kept at most.
    max: usize,
    /// Where they begin.
    base: Duration,
    /// Neighbours shorter than this were merged.
    resolution: Duration,
}

impl Default for Spans {
    fn default() -> Self {
        Self::new(SPANS_MAX, Duration::ZERO)
    }
}

impl Spans {
    fn new(max: usize, base: Duration) -> Self {
        Self { spans: Vec::new(), max, base, resolution: Duration::ZERO }
    }

    fn add(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last) if last.goes_on(&span) => last.take_in(&span),
            Some(last) if span.end.saturating_sub(last.start) < self.resolution => {
                last.take_in(&span);
                last.doing = Activity::Working;
            }
            _ => self.spans.push(span),
        }
        if self.spans.len() > self.max {
            self.merge(span.end);
        }
    }

    /// Merges neighbours until there are half as many.
    fn merge(&mut self, end: Duration) {
        self.resolution = (self.resolution * 2).max(end.saturating_sub(self.base) / (self.max as u32 / 4));
        let mut merged: Vec<Span> = Vec::with_capacity(self.spans.len());
        for span in self.spans.drain(..) {
            match merged.last_mut() {
                Some(last) if span.end.saturating_sub(last.start) < self.resolution => {
                    last.take_in(&span);
                    last.doing = Activity::Working;
                }
                _ => merged.push(span),
            }
        }
        self.spans = merged;
    }
}

/// The spans of one stage in the last two windows: however long a run is, its last minute is not drawn coarser.
#[derive(Debug)]
struct Recent {
    before: Spans,
    now: Spans,
}

impl Default for Recent {
    fn default() -> Self {
        let empty = || Spans::new(RECENT_MAX, Duration::ZERO);
        Self { before: empty(), now: empty() }
    }
}

impl Recent {
    fn add(&mut self, span: Span) {
        if span.start.saturating_sub(self.now.base) >= RECENT_WINDOW {
            self.before = std::mem::replace(&mut self.now, Spans::new(RECENT_MAX, span.start));
        }
        self.now.add(span);
    }

    /// Those that end behind that moment.
    fn since(&self, moment: Duration) -> Vec<Span> {
        let all = self.before.spans.iter().chain(&self.now.spans);
        let mut all: Vec<Span> = all.filter(|span| span.end > moment).copied().collect();
        // A wait in which something else was done is recorded after it.
        all.sort_by_key(|span| span.start);
        all
    }
}

/// What is recorded of one stage.
#[derive(Debug, Default)]
struct Recorded {
    all: Spans,
    recent: Recent,
}

/// What a run records into; shared by its threads.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    /// Batches that were committed before this run.
    before: u64,
    stages: [Mutex<Recorded>; Stage::ALL.len()],
}

impl Recorder {
    /// A recorder of a run that begins behind batch `before`.
    pub(crate) fn new(before: u64) -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), before, stages: Default::default() })
    }

    /// Records what a stage did from `started` to `ended`, for a batch or for none (0).
    pub(crate) fn span(&self, stage: Stage, doing: Activity, batch: u64, started: Instant, ended: Instant) {
        let batch = batch.saturating_sub(self.before);
        let since = |at: Instant| at.saturating_duration_since(self.started);
        let (start, end) = (since(started), since(ended));
        let busy = if doing.is_work() { end.saturating_sub(start) } else { Duration::ZERO };
        let span = Span { start, end, doing, first_batch: batch, last_batch: batch, busy };
        if !span.is_empty() {
            let mut recorded = self.stages[stage as usize].lock().unwrap_or_else(PoisonError::into_inner);
            recorded.all.add(span);
            recorded.recent.add(span);
        }
    }

    /// What was recorded so far.
    pub(crate) fn timeline(&self) -> Timeline {
        let spans = |stage: &Mutex<Recorded>| stage.lock().unwrap_or_else(PoisonError::into_inner).all.spans.clone();
        Timeline { stages: self.stages.iter().map(spans).collect() }
    }

    /// What was recorded of the last minute, and how long ago the recording began.
    pub(crate) fn last_minute(&self) -> (Timeline, Duration) {
        let now = self.started.elapsed();
        let from = now.saturating_sub(RECENT_WINDOW);
        let spans = |stage: &Mutex<Recorded>| stage.lock().unwrap_or_else(PoisonError::into_inner).recent.since(from);
        (Timeline { stages: self.stages.iter().map(spans).collect() }, now)
    }
}

/// What the stages of a run did, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    stages: Vec<Vec<Span>>,
}

impl Timeline {
    /// The spans of a stage, in order.
    pub fn spans(&self, stage: Stage) -> &[Span] {
        self.stages.get(stage as usize).map_or(&[], Vec::as_slice)
    }

    /// The time in which each batch was staged, from its seal to the end of its commit: number, from, to. Only batches
    /// that have spans of their own.
    pub fn staged(&self) -> Vec<(u64, Duration, Duration)> {
        let alone = |span: &&Span| span.first_batch == span.last_batch && span.first_batch > 0;
        let mut commits = self.spans(Stage::Commit).iter().filter(alone).peekable();
        let mut staged = Vec::new();
        for sealed in self.spans(Stage::Handlers).iter().filter(alone).filter(|span| span.doing == Activity::Sealing) {
            while commits.next_if(|commit| commit.first_batch < sealed.first_batch).is_some() {}
            if let Some(commit) = commits.peek().filter(|commit| commit.first_batch == sealed.first_batch)
                && commit.end > sealed.end
            {
                staged.push((sealed.first_batch, sealed.end, commit.end));
            }
        }
        staged
    }

    /// The end of the last span.
    pub fn end(&self) -> Duration {
        self.stages.iter().flatten().map(|span| span.end).max().unwrap_or_default()
    }

    /// A picture of the run as SVG, for a page in light or dark. `title` stands over it and `note` below.
    pub fn to_svg(&self, title: &str, note: &str) -> String {
        svg::draw(self, title, note)
    }

    /// The run in the trace format of Chrome, which <https://ui.perfetto.dev> opens: an object with `traceEvents`.
    pub fn to_trace(&self, name: &str) -> serde_json::Value {
        trace::trace(self, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, batch: u64) -> Span {
        let (start, end) = (Duration::from_millis(start), Duration::from_millis(end));
        Span { start, end, doing: Activity::Working, first_batch: batch, last_batch: batch, busy: end - start }
    }

    #[test]
    fn rounds_of_a_batch_are_one_span_and_a_long_run_stays_small() {
        let mut spans = Spans::default();
        spans.add(span(0, 10, 1));
        spans.add(span(11, 20, 1));
        spans.add(span(20, 30, 2));
        assert_eq!(spans.spans, [Span { busy: Duration::from_millis(19), ..span(0, 20, 1) }, span(20, 30, 2)]);
        for batch in 3..1_000_000 {
            spans.add(span(batch * 10, batch * 10 + 5, batch));
        }
        assert!(spans.spans.len() <= SPANS_MAX, "{}", spans.spans.len());
        let busy: Duration = spans.spans.iter().map(|span| span.busy).sum();
        assert_eq!(busy, Duration::from_millis(29 + 5 * (1_000_000 - 3)), "no work is lost");
        assert!(spans.spans.is_sorted_by_key(|span| span.start));
    }

    #[test]
    fn the_last_minute_stays_fine_however_long_the_run_is() {
        let mut recent = Recent::default();
        for batch in 1..1_000_000 {
            recent.add(span(batch * 10, batch * 10 + 5, batch));
        }
        let spans = recent.since(Duration::from_millis(9_940_000));
        assert!((100..=2 * RECENT_MAX).contains(&spans.len()), "{}", spans.len());
        assert!(spans.iter().all(|span| span.len() < Duration::from_secs(2)));
        assert!(spans.is_sorted_by_key(|span| span.start));
    }

    #[test]
    fn a_batch_is_staged_from_its_seal_to_the_end_of_its_commit() {
        let recorder = Recorder::new(0);
        let at = |millis: u64| recorder.started + Duration::from_millis(millis);
        for (batch, seal, commit) in [(1, 10, 12), (2, 20, 30)] {
            recorder.span(Stage::Handlers, Activity::Sealing, batch, at(seal - 2), at(seal));
            recorder.span(Stage::Commit, Activity::Working, batch, at(commit), at(commit + 10));
        }
        let staged = recorder.timeline().staged();
        let millis = |number, from, to| (number, Duration::from_millis(from), Duration::from_millis(to));
        assert_eq!(staged, [millis(1, 10, 22), millis(2, 20, 40)]);
    }
}
