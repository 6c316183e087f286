//! A seeder as it is shown: from the passes that it notes down.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::health::{self, Health};
use super::live_status::seconds;
use super::page::page_of;
use super::prometheus::Text;
use super::samples::STEP;
use super::stored::{Moment, Stored};
use super::subject::{Asked, Shown, Subject};
use crate::model::address::without_logins;
use crate::model::timestamp::Timestamp;
use crate::publish::{Pass, PassCounts, PassResult, Passes, PassesReading, SeededRegion};
use crate::run::RunPhase;

/// What is shown of a seeder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WatchedSeeder {
    /// The name of its pipeline.
    pub pipeline: String,
    /// Its passes.
    pub passes: Passes,
    /// What it runs, in a few words.
    pub command: String,
    /// How long after one pass has begun the next one begins.
    pub every: Duration,
    /// How long the command may take.
    pub timeout: Duration,
    /// Where it publishes.
    pub target: String,
}

impl WatchedSeeder {
    /// A seeder that does it again every so long, and whose command may take so long. The command and the target are empty.
    pub fn new(pipeline: impl Into<String>, passes: Passes, every: Duration, timeout: Duration) -> Self {
        Self { pipeline: pipeline.into(), passes, command: String::new(), every, timeout, target: String::new() }
    }
}

/// The seeder, and what counts as too long.
pub(super) struct SeederSubject {
    seeder: WatchedSeeder,
    stall: Duration,
    next_look: Instant,
}

impl SeederSubject {
    pub(super) fn new(seeder: WatchedSeeder, stall: Duration) -> Self {
        Self { seeder, stall, next_look: Instant::now() }
    }
}

impl Subject for SeederSubject {
    fn look(&mut self, now: Instant) {
        // There is nothing to compare: passes are noted down one by one.
        if now >= self.next_look {
            self.next_look = now + STEP;
        }
    }

    fn next_look(&self) -> Instant {
        self.next_look
    }

    fn page(&self) -> String {
        page_of(include_str!("page/seeder.html"))
    }

    fn phase(&self) -> RunPhase {
        phase_of(&self.seeder.passes.read())
    }

    fn health(&self, _: Instant) -> Health {
        health::judge_seeder(&self.seeder.passes.read(), self.seeder.timeout, self.stall)
    }

    fn progress(&self) -> Json {
        let reading = self.seeder.passes.read();
        json!({
            "last_pass": reading.last().map(pass_json),
            "done_at": reading.done_at.map(Timestamp::to_millis_text),
            "next_at": reading.next_at.map(Timestamp::to_millis_text),
        })
    }

    fn metrics(&mut self, is_ready: bool, _: Instant) -> String {
        metrics(&self.seeder, &self.seeder.passes.read(), is_ready)
    }

    fn status(&mut self, asked: &Asked, _: Instant) -> Option<Shown> {
        let reading = self.seeder.passes.read();
        let mut object = status(&self.seeder, &reading);
        if let Some(after) = asked.regions_after {
            let regions = reading.regions.iter().filter(|_| reading.version > after);
            object["regions"] = regions.map(|(name, region)| region_json(name, region)).collect();
        }
        Some(Shown { object, regions_version: Some(reading.version) })
    }

    fn stored(&mut self, _: Instant) -> Result<(&mut Stored, Moment), &'static str> {
        Err("the documents of a seeder are in Redis only; `forebay latest` reads them there")
    }
}

fn phase_of(reading: &PassesReading) -> RunPhase {
    match (reading.is_stopping, reading.last()) {
        (true, _) => RunPhase::Draining,
        (false, None) => RunPhase::Starting,
        (false, Some(_)) => RunPhase::Live,
    }
}

fn status(seeder: &WatchedSeeder, reading: &PassesReading) -> Json {
    let time = |time: Option<Timestamp>| time.map(Timestamp::to_millis_text);
    let passes = PassResult::ALL.iter().zip(reading.results);
    json!({
        "pipeline": seeder.pipeline,
        "uptime_seconds": seconds(reading.uptime),
        "seeder": {
            "command": seeder.command,
            "every_seconds": seconds(seeder.every),
            "timeout_seconds": seconds(seeder.timeout),
            "step": reading.step.name(),
            "step_seconds": seconds(reading.step_for),
            "began_at": time(reading.began_at),
            "next_at": time(reading.next_at),
            "done_at": time(reading.done_at),
            "passes": passes.map(|(result, count)| (result.name().to_owned(), Json::from(count))).collect::<Json>(),
            "last": reading.last().map(pass_json),
            "recent": reading.recent.iter().map(|pass| pass_json(pass)).collect::<Json>(),
            "median_seconds": reading.took.median().map(seconds),
            "max_seconds": (reading.took.count > 0).then(|| seconds(reading.took.max)),
        },
        "counts": { "snapshots": counts_json(&reading.counts) },
        "publish": { "target": seeder.target, "median_seconds": reading.publish_took.median().map(seconds) },
        "oldest_at": time(reading.oldest()),
    })
}

fn pass_json(pass: &Pass) -> Json {
    json!({
        "began_at": pass.began_at.to_millis_text(),
        "seconds": seconds(pass.took),
        "result": pass.result.name(),
        "cause": pass.cause.as_deref().map(without_logins),
        "regions": counts_json(&pass.regions),
    })
}

fn counts_json(counts: &PassCounts) -> Json {
    let PassCounts { published, unchanged, stale, kept, failed } = counts;
    json!({ "published": published, "unchanged": unchanged, "stale": stale, "kept": kept, "failed": failed })
}

fn region_json(name: &str, region: &SeededRegion) -> Json {
    json!({
        "region": name,
        "state": region.result.map(|result| result.name()),
        "id": region.id,
        "generated_at": region.made_at.map(Timestamp::to_millis_text),
        "error": region.error.as_deref().map(without_logins),
        "counts": counts_json(&region.counts),
    })
}

fn metrics(seeder: &WatchedSeeder, reading: &PassesReading, is_ready: bool) -> String {
    let mut text = Text::of(&seeder.pipeline, phase_of(reading), is_ready);
    let now = Timestamp::now();
    let unix = |time: Option<Timestamp>| time.map(|time| time.as_micros() as f64 / 1e6);
    let help = "How long after one pass of a seeder has begun the next one begins.";
    text.one("forebay_seed_interval_seconds", "gauge", help, seeder.every.as_secs_f64());
    let name = "forebay_seed_passes_total";
    text.family(name, "counter", "Passes that have ended, by what came of them.");
    for (result, count) in PassResult::ALL.iter().zip(reading.results) {
        text.sample(name, &[("result", result.name())], count);
    }
    text.histogram("forebay_seed_pass_duration_seconds", "How long passes took.", &reading.took);
    let help = "When a pass ended last that brought every region where readers look.";
    text.optional("forebay_seed_last_success_timestamp_seconds", "gauge", help, unix(reading.done_at));
    let help = "When the next pass begins, while it is waited for.";
    text.optional("forebay_seed_next_pass_timestamp_seconds", "gauge", help, unix(reading.next_at));
    let oldest = reading.oldest().map(|time| (now.as_micros() - time.as_micros()).max(0) as f64 / 1e6);
    let help = "How old the newest document is of the region whose newest is oldest.";
    text.optional("forebay_snapshot_oldest_age_seconds", "gauge", help, oldest);
    let name = "forebay_publishes_total";
    text.family(name, "counter", "Documents that were to be published, by what became of them.");
    let PassCounts { published, unchanged, stale, kept, failed } = reading.counts;
    let results =
        [("published", published), ("duplicate", unchanged), ("stale", stale), ("kept", kept), ("failed", failed)];
    for (result, count) in results {
        text.sample(name, &[("result", result)], count);
    }
    let help = "How long publishes took; the regions of one pass are one.";
    text.histogram("forebay_publish_duration_seconds", help, &reading.publish_took);
    text.out()
}
