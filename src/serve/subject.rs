//! What a server shows: a run, or a seeder. Each says the same few things of itself, and nobody waits for it.

use std::time::Instant;

use serde_json::Value as Json;

use super::health::Health;
use super::stored::{Moment, Stored};
use crate::run::RunPhase;

/// A run or a seeder, as far as it is shown.
pub(super) trait Subject: Send {
    /// Takes a look at it, if it is time.
    fn look(&mut self, now: Instant);

    /// When the next look is to be taken.
    fn next_look(&self) -> Instant;

    /// The page that shows it.
    fn page(&self) -> String;

    /// How far it has come.
    fn phase(&self) -> RunPhase;

    /// How it is.
    fn health(&self, now: Instant) -> Health;

    /// What `/ready` says of it beside whether it is.
    fn progress(&self) -> Json;

    /// All of `/metrics`.
    fn metrics(&mut self, is_ready: bool, now: Instant) -> String;

    /// What `/status` says of it alone; none while its store is being read.
    fn status(&mut self, asked: &Asked, now: Instant) -> Option<Shown>;

    /// Its store, and what of it is good now; or why it has none that is read.
    fn stored(&mut self, now: Instant) -> Result<(&mut Stored, Moment), &'static str>;
}

/// What of `/status` is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// None leaves the regions out; else those that have changed after that version.
    pub(super) regions_after: Option<u64>,
    pub(super) timeline: bool,
    pub(super) quarantine: bool,
    /// Who asks has waited for the store for long enough.
    pub(super) is_late: bool,
}

/// What is shown of it.
pub(super) struct Shown {
    pub(super) object: Json,
    /// The version of its regions; none if they are not known.
    pub(super) regions_version: Option<u64>,
}
