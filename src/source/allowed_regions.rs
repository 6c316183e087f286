//! The closed list of regions, where the pipeline has one.

use std::collections::HashSet;

use foldhash::fast::RandomState;

/// Regions that a message names at most.
const REGIONS_NAMED_MAX: usize = 20;

/// The regions that events may have; any, if there is no list.
#[derive(Debug)]
pub(super) struct AllowedRegions {
    /// In the order of the pipeline file, for messages.
    ids: Vec<String>,
    /// To look one up.
    set: Option<HashSet<String, RandomState>>,
}

impl AllowedRegions {
    pub(super) fn new(ids: Option<Vec<String>>) -> Self {
        let set = ids.as_ref().map(|ids| ids.iter().cloned().collect());
        Self { ids: ids.unwrap_or_default(), set }
    }

    /// # Errors
    /// The region is not in the list.
    pub(super) fn check(&self, region: &str) -> Result<(), String> {
        if self.set.as_ref().is_none_or(|set| set.contains(region)) {
            return Ok(());
        }
        let some = self.ids.iter().take(REGIONS_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if self.ids.len() > REGIONS_NAMED_MAX { ", …" } else { "" };
        Err(format!("region {region:?} is not in [regions] ids; expected one of {some}{more}"))
    }
}
