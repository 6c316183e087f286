//! A run as it is shown: from its meter, and from what is read of its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::health::{self, Health, Vitals};
use super::live_status::{self, Sources};
use super::metrics::{self, Beside};
use super::page::page_of;
use super::samples::{Mark, Samples};
use super::stored::{Known, Moment, Stored};
use super::subject::{Asked, Shown, Subject};
use super::wanted::{Found, View};
use crate::run::{RunPhase, Watched};
use crate::store::StoreUrl;

/// What is read of the store is good for so long where nobody looks closely.
const VIEW_SELDOM: Duration = Duration::from_secs(10);
const VIEW_OFTEN: Duration = Duration::from_secs(1);

/// The run, what was seen of it, and its store.
pub(super) struct RunSubject {
    watched: Watched,
    stored: Stored,
    samples: Samples,
    stall: Duration,
}

impl RunSubject {
    pub(super) fn new(watched: Watched, stored: Stored, stall: Duration) -> Self {
        Self { watched, stored, samples: Samples::new(Instant::now()), stall }
    }

    fn view(&mut self, now: Instant, fresh: Duration) -> Known<Found<Arc<View>>> {
        let moment = self.moment(now);
        self.stored.view(&moment, fresh)
    }

    fn moment(&mut self, now: Instant) -> Moment {
        let reading = self.watched.meter.read();
        let mark = Mark::of(&reading);
        let is_file = self.watched.store.as_ref().is_some_and(StoreUrl::is_file);
        let may_read = !is_file || reading.phase < RunPhase::Draining;
        Moment { now, mark, marked_for: self.samples.note(mark, now), may_read }
    }
}

impl Subject for RunSubject {
    fn look(&mut self, now: Instant) {
        self.samples.look(&self.watched.meter, now);
    }

    fn next_look(&self) -> Instant {
        self.samples.next_at()
    }

    fn page(&self) -> String {
        page_of(include_str!("page/run.html"))
    }

    fn phase(&self) -> RunPhase {
        self.watched.meter.read().phase
    }

    fn health(&self, now: Instant) -> Health {
        health::judge(&Vitals::of(&self.watched, self.samples.source_still_for(now)), self.stall)
    }

    fn progress(&self) -> Json {
        let reading = self.watched.meter.read();
        json!({
            "block": reading.checkpoint.block,
            "of": self.watched.until,
            "source_block": reading.source_block,
            "bytes_read": reading.source_bytes_read,
            "bytes_total": reading.source_bytes_total,
        })
    }

    fn metrics(&mut self, is_ready: bool, now: Instant) -> String {
        // Nobody waits for the store here: what it said last is a gauge like any other.
        let view = self.view(now, VIEW_SELDOM);
        let view = match &view {
            Known::Fresh(view) | Known::Old(view) | Known::Failed(Some(view)) => Some(view),
            Known::Awaited | Known::Failed(None) | Known::None => None,
        };
        let status = view.and_then(|view| view.what.status.as_ref());
        let beside = Beside {
            is_ready,
            oldest_snapshot_seconds: view.and_then(|view| view.what.oldest_seconds()),
            committed_at: status.and_then(|status| status.committed_at.as_ref()?.parse().ok()),
        };
        metrics::text(&self.watched, &beside)
    }

    fn status(&mut self, asked: &Asked, now: Instant) -> Option<Shown> {
        let without = asked.regions_after.is_none();
        let view = match self.view(now, if without { VIEW_SELDOM } else { VIEW_OFTEN }) {
            Known::Fresh(view) | Known::Failed(Some(view)) => Some(view),
            Known::Old(view) if without || asked.is_late => Some(view),
            Known::Awaited | Known::Old(_) if !asked.is_late => return None,
            Known::Old(view) => Some(view),
            Known::Awaited | Known::Failed(None) | Known::None => None,
        };
        let reading = self.watched.meter.read();
        let sources = Sources {
            watched: &self.watched,
            reading: &reading,
            rates: self.samples.rates(&reading, now),
            view: view.as_ref(),
            store_error: self.stored.failure(),
        };
        let object = live_status::object(&sources, asked);
        Some(Shown { object, regions_version: view.map(|view| view.what.version) })
    }

    fn stored(&mut self, now: Instant) -> Result<(&mut Stored, Moment), &'static str> {
        let moment = self.moment(now);
        match self.stored.is_readable() {
            true => Ok((&mut self.stored, moment)),
            false => Err("the store of this run cannot be read from here"),
        }
    }
}
