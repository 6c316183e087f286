//! What a target has of a pipeline's snapshots, compared with what its store has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{RegionState, published_as_json};
use crate::model::text::plain;
use crate::publish::LatestInTarget;
use crate::store::{PipelineStatus, RegionStatus, StoredSnapshot};

/// What a target has.
#[derive(Debug)]
pub struct InTarget {
    newest: BTreeMap<String, StoredSnapshot>,
    /// The stores that have signed them.
    signatures: BTreeMap<String, String>,
    /// The store that has signed the summary.
    owner: Option<String>,
    /// The signature of our store.
    ours: Option<String>,
    /// Regions that a run has published after the store was read.
    published_since: BTreeSet<String>,
    /// Whether ids there are the store's, and can be compared.
    has_ids_of_store: bool,
    /// Whether it was asked, and has answered.
    is_known: bool,
}

impl InTarget {
    /// What was read there. `owner` is the signature of the store that publishes there, `ours` that of the pipeline's.
    pub fn new(latest: LatestInTarget, owner: Option<String>, ours: Option<String>, has_ids_of_store: bool) -> Self {
        let newest = latest.found.into_iter().map(|snapshot| (snapshot.region.clone(), snapshot)).collect();
        let (signatures, published_since) = (latest.signatures, BTreeSet::new());
        Self { newest, signatures, owner, ours, published_since, has_ids_of_store, is_known: true }
    }

    /// It did not answer, or was not asked: what the store has marked counts.
    pub fn unknown() -> Self {
        Self {
            newest: BTreeMap::new(),
            signatures: BTreeMap::new(),
            owner: None,
            ours: None,
            published_since: BTreeSet::new(),
            has_ids_of_store: false,
            is_known: false,
        }
    }

    /// The store that publishes in place of ours, and ours.
    pub fn other_owner(&self) -> Option<(&str, &str)> {
        let (theirs, ours) = (self.owner.as_deref()?, self.ours.as_deref()?);
        (theirs != ours).then_some((theirs, ours))
    }

    /// Whether any region has a number there that the store has not come to.
    pub fn has_newer(&self, status: &PipelineStatus) -> bool {
        status.regions.iter().filter_map(|region| region.snapshot.as_ref()).any(|stored| self.newer(stored).is_some())
    }

    /// Notes what the store has by now: a run may have published after it was read first.
    pub fn forgive(&mut self, later: Option<&PipelineStatus>) {
        let stored = later.iter().flat_map(|status| &status.regions).filter_map(|region| region.snapshot.as_ref());
        let caught_up = stored.filter(|stored| self.newer(stored).is_none()).map(|stored| stored.region.clone());
        let caught_up: BTreeSet<String> = caught_up.collect();
        self.published_since = caught_up;
    }

    /// What readers get of a region, where that is not its newest, as the end of a line.
    pub fn told(&self, region: &RegionStatus, state: RegionState) -> String {
        if !self.is_known || !matches!(state, RegionState::Foreign | RegionState::Unpublished) {
            return String::new();
        }
        let Some(there) = self.newest.get(&region.region) else { return "; readers get nothing".to_owned() };
        let signature = self.signatures.get(&region.region).filter(|theirs| Some(*theirs) != self.ours.as_ref());
        let by = signature.map_or_else(String::new, |theirs| format!(" of store {}", plain(theirs)));
        format!("; readers get {}{by}", plain(&there.id))
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// What readers get of a region; null if nothing, or if that is not known.
    pub(super) fn published(&self, region: &str) -> Json {
        let Some(there) = self.newest.get(region) else { return Json::Null };
        let mut published = published_as_json(there);
        if let Some(signature) = self.signatures.get(region) {
            published["signature"] = signature.as_str().into();
        }
        published
    }

    /// The snapshot of a region that readers get, if it has a number that the store has not come to.
    fn newer(&self, stored: &StoredSnapshot) -> Option<&StoredSnapshot> {
        let there = self.newest.get(&stored.region).filter(|there| there.seq > stored.seq)?;
        (!self.published_since.contains(&stored.region)).then_some(there)
    }

    /// Whether readers get what another store has published, or a content under a number that the store gave to another
    /// one, or has not come to.
    pub(super) fn has_foreign(&self, stored: &StoredSnapshot) -> bool {
        let Some(there) = self.newest.get(&stored.region) else { return false };
        let signature = self.signatures.get(&stored.region);
        if signature.zip(self.ours.as_ref()).is_some_and(|(theirs, ours)| theirs != ours) {
            return true;
        }
        match self.has_ids_of_store {
            true => {
                let is_above = self.newer(stored).is_some() || there.seq == stored.seq;
                is_above && content(there) != content(stored)
            }
            false => self.newer(stored).is_some(),
        }
    }

    /// Whether readers see another content than that of the store's newest, or none.
    pub(super) fn lacks(&self, stored: &StoredSnapshot) -> bool {
        if !self.is_known {
            return stored.published_at.is_none();
        }
        let Some(there) = self.newest.get(&stored.region) else { return true };
        stored.published_at.is_none()
            || (self.has_ids_of_store && there.seq < stored.seq && content(there) != content(stored))
    }
}

/// The end of an id is the content's hash: the same content may be there under another number.
fn content(snapshot: &StoredSnapshot) -> Option<&str> {
    snapshot.id.rsplit('.').next()
}
