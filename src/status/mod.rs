//! How a pipeline stands, in its store and where readers look: one judgement and one JSON for whoever shows it.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | how each region stands, and the JSON |
//! | `in_target` | what a target has, compared with the store |
//!
//! Opens nothing: it is given what was read. `forebay status` and the service use it.

mod in_target;

use std::time::Duration;

use serde_json::{Value as Json, json};

pub use in_target::InTarget;

use crate::model::position::Position;
use crate::model::timestamp::Timestamp;
use crate::store::{PipelineStatus, RegionStatus, StoredSnapshot};

/// How one region's snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionState {
    /// It holds all of the region's events, and is kept.
    Fresh,
    /// The region has had events since, or it is older than its time to live.
    Stale,
    /// There is none.
    Missing,
    /// The target does not have it, or has an older one.
    Unpublished,
    /// The target has one that this store has not published, or not as its newest.
    Foreign,
    /// The handlers make none.
    None,
}

impl RegionState {
    fn of(region: &RegionStatus, has_snapshots: bool, ttl_seconds: i64, target: Option<&InTarget>) -> Self {
        let is_unpublished = |snapshot: &StoredSnapshot| target.is_some_and(|target| target.lacks(snapshot));
        let is_foreign = |snapshot: &StoredSnapshot| target.is_some_and(|target| target.has_foreign(snapshot));
        match &region.snapshot {
            _ if !has_snapshots => Self::None,
            // A handler may have nothing to say of a region; after a rollback it may have no event any more.
            None if region.events == 0 || region.snapshot_block.is_some_and(|covered| covered >= region.block) => {
                Self::None
            }
            None => Self::Missing,
            Some(snapshot) if is_foreign(snapshot) => Self::Foreign,
            Some(snapshot) if age_seconds(snapshot).is_some_and(|age| age > ttl_seconds) => Self::Stale,
            Some(snapshot) if is_unpublished(snapshot) => Self::Unpublished,
            Some(_) if region.snapshot_block.is_none_or(|covered| covered < region.block) => Self::Stale,
            Some(_) => Self::Fresh,
        }
    }

    /// Its name, in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Unpublished => "unpublished",
            Self::Foreign => "foreign",
            Self::None => "none",
        }
    }

    /// Whether all is well with it.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Fresh | Self::None)
    }
}

/// How old a snapshot is, in seconds.
pub fn age_seconds(snapshot: &StoredSnapshot) -> Option<i64> {
    snapshot.generated_at.as_deref().and_then(seconds_since)
}

/// Seconds from an RFC 3339 time to now; none if it is no time.
pub fn seconds_since(time: &str) -> Option<i64> {
    let time: Timestamp = time.parse().ok()?;
    Some((Timestamp::now().as_micros() - time.as_micros()) / 1_000_000)
}

/// How a pipeline stands.
#[derive(Debug)]
pub struct Standing<'s> {
    name: &'s str,
    status: &'s PipelineStatus,
    target: Option<&'s InTarget>,
    states: Vec<RegionState>,
}

impl<'s> Standing<'s> {
    /// Judges a pipeline by its store, and by what the target has, if it publishes there. A snapshot counts as fresh for `ttl`.
    pub fn new(name: &'s str, status: &'s PipelineStatus, ttl: Duration, target: Option<&'s InTarget>) -> Self {
        let ttl_seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let state = |region: &RegionStatus| RegionState::of(region, status.has_snapshots, ttl_seconds, target);
        Self { name, status, target, states: status.regions.iter().map(state).collect() }
    }

    /// The regions, each with its state.
    pub fn regions(&self) -> impl Iterator<Item = (&'s RegionStatus, RegionState)> + '_ {
        self.status.regions.iter().zip(self.states.iter().copied())
    }

    /// Whether all is well: every region, and the store whose snapshots readers get.
    pub fn is_healthy(&self) -> bool {
        let is_ours = self.target.is_none_or(|target| target.other_owner().is_none());
        is_ours && self.states.iter().all(|state| state.is_healthy())
    }

    /// The object that `forebay status --json` prints, where nothing else is wrong (`is_well`).
    pub fn to_json(&self, is_well: bool) -> Json {
        let mut object = self.head(is_well);
        object["regions"] = self.regions().map(|(region, state)| self.region(region, state)).collect();
        object
    }

    /// The same without its regions.
    pub fn head(&self, is_well: bool) -> Json {
        let status = self.status;
        let mut object = json!({
            "pipeline": self.name,
            "healthy": is_well && self.is_healthy(),
            "signature": status.signature,
            "checkpoint": {
                "block": status.checkpoint.block,
                "position": status.position.as_ref().map(Position::as_str),
                "blocks": status.checkpoint.blocks,
                "events": status.checkpoint.events,
                "committed_at": status.committed_at,
            },
            "lag": { "seconds": status.committed_at.as_deref().and_then(seconds_since) },
            "quarantined": status.quarantined,
            "fresh": status.fresh.map(|fresh| json!({ "block": fresh.block, "events": fresh.events })),
        });
        if let Some(target) = self.target {
            object["published_by"] = target.owner().into();
        }
        object
    }

    /// A region of that object.
    pub fn region(&self, region: &RegionStatus, state: RegionState) -> Json {
        let snapshot = region.snapshot.as_ref();
        let mut stands = json!({
            "region": region.region,
            "state": state.name(),
            "block": region.block,
            "events": region.events,
            "id": snapshot.map(|snapshot| &snapshot.id),
            "seq": snapshot.and_then(|snapshot| snapshot.seq),
            "snapshot_block": region.snapshot_block,
            "generated_at": snapshot.and_then(|snapshot| snapshot.generated_at.as_ref()),
            "age_seconds": snapshot.and_then(age_seconds),
        });
        if let Some(target) = self.target {
            stands["published"] = target.published(&region.region);
        }
        stands
    }
}

/// The object of a pipeline that has committed nothing.
pub fn nothing_as_json(name: &str) -> Json {
    json!({
        "pipeline": name,
        "healthy": false,
        "checkpoint": { "block": null },
        "lag": { "seconds": null },
        "quarantined": 0,
        "fresh": null,
        "regions": [],
    })
}

/// A snapshot as readers get it, as a part of that object.
pub fn published_as_json(snapshot: &StoredSnapshot) -> Json {
    json!({
        "id": snapshot.id,
        "seq": snapshot.seq,
        "generated_at": snapshot.generated_at,
        "age_seconds": age_seconds(snapshot),
    })
}
