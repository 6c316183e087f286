//! How each region stands between the store and the target: what the publish thread remembers of it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A region whose newest snapshot is not where readers look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpublishedRegion {
    /// The region.
    pub region: String,
    /// Why.
    pub cause: String,
}

impl UnpublishedRegion {
    /// What stands for all regions, where it is not known which.
    pub(crate) fn all(cause: String) -> Self {
        Self { region: "every region".into(), cause }
    }
}

/// How a region stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum RegionState {
    /// It is yet to be tried.
    #[default]
    Untried,
    /// The target has its newest, as far as is known.
    Published,
    /// The target has a newer one than the store, which was made anew: it is left alone until the run has come as far.
    Ahead { there: u64, here: u64 },
    /// The target has this number, and the store was asked to count on above it.
    Renumbering { above: u64 },
    /// Its newest was not published.
    Failed {
        cause: String,
        /// Its server is at fault.
        is_away: bool,
        /// Where a new try begins.
        before: Box<Self>,
    },
}

impl RegionState {
    fn failed(self, cause: String, is_away: bool) -> Self {
        let before = match self {
            Self::Failed { before, .. } => before,
            state => Box::new(state),
        };
        Self::Failed { cause, is_away, before }
    }

    fn tried_again(self) -> Self {
        match self {
            Self::Failed { before, .. } => *before,
            state => state,
        }
    }

    fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

#[derive(Debug, Default)]
struct Region {
    state: RegionState,
    /// The last number that is known to be in the target.
    seq: Option<u64>,
    /// Why it failed, as the user was told last; none after it was published.
    reported: Option<String>,
}

/// The regions of which the publish thread has heard.
#[derive(Debug, Default)]
pub(super) struct Regions {
    known: BTreeMap<Arc<str>, Region>,
    failed: usize,
}

impl Regions {
    /// Notes that this number is in the target now.
    pub(super) fn published(&mut self, region: &Arc<str>, seq: u64) {
        let region = self.change(region, |_| RegionState::Published);
        (region.seq, region.reported) = (Some(seq), None);
    }

    /// Notes that the target has a newer one, which is left there, and both numbers; says whether that is news.
    pub(super) fn ahead(&mut self, region: &Arc<str>, there: u64, here: u64) -> bool {
        let ahead = RegionState::Ahead { there, here };
        let is_news = self.known.get(region).is_none_or(|region| region.state != ahead);
        self.change(region, |_| ahead);
        is_news
    }

    /// Notes that the store is to count on above this number.
    pub(super) fn renumbering(&mut self, region: &Arc<str>, above: u64) {
        self.change(region, |_| RegionState::Renumbering { above });
    }

    /// Notes a failure; says whether its cause is news to the user.
    pub(super) fn failed(&mut self, region: &Arc<str>, cause: &str, is_away: bool) -> bool {
        let region = self.change(region, |state| state.failed(cause.to_owned(), is_away));
        region.reported.replace(cause.to_owned()).as_deref() != Some(cause)
    }

    /// Notes that all that failed is tried again.
    pub(super) fn retry(&mut self) {
        if self.failed > 0 {
            let states = self.known.values_mut().map(|region| &mut region.state);
            states.for_each(|state| *state = std::mem::take(state).tried_again());
            self.failed = 0;
        }
    }

    /// Whether the target has that number, or a later one, of a region: a sweep may be ahead of the mailbox.
    pub(super) fn has(&self, region: &str, seq: u64) -> bool {
        self.known.get(region).and_then(|region| region.seq).is_some_and(|there| there >= seq)
    }

    /// Whether a region's server was away at the last try.
    pub(super) fn is_away(&self, region: &str) -> bool {
        self.known.get(region).is_some_and(|region| matches!(region.state, RegionState::Failed { is_away: true, .. }))
    }

    /// Whether any region failed at its last try.
    pub(super) fn any_failed(&self) -> bool {
        self.failed > 0
    }

    /// Whether any region's server was away at its last try.
    pub(super) fn any_away(&self) -> bool {
        self.failed > 0 && self.known.keys().any(|region| self.is_away(region))
    }

    /// The regions of which the target has newer ones, ordered by name: its number, and the store's.
    pub(super) fn all_ahead(&self) -> impl Iterator<Item = (&Arc<str>, u64, u64)> {
        self.known.iter().filter_map(|(name, region)| match region.state {
            RegionState::Ahead { there, here } => Some((name, there, here)),
            _ => None,
        })
    }

    /// The regions whose newest is not in the target, and why, ordered by name.
    pub(super) fn unpublished(&self, target: &str) -> BTreeMap<String, String> {
        let cause = |state: &RegionState| match state {
            RegionState::Failed { cause, .. } => Some(cause.clone()),
            RegionState::Renumbering { above } => {
                Some(format!("{target} has number {above} of it, and the store could not count on from there"))
            }
            RegionState::Untried | RegionState::Published | RegionState::Ahead { .. } => None,
        };
        self.known.iter().filter_map(|(name, region)| Some((name.to_string(), cause(&region.state)?))).collect()
    }

    fn change(&mut self, region: &Arc<str>, to: impl FnOnce(RegionState) -> RegionState) -> &mut Region {
        let region = self.known.entry(Arc::clone(region)).or_default();
        self.failed -= usize::from(region.state.is_failed());
        region.state = to(std::mem::take(&mut region.state));
        self.failed += usize::from(region.state.is_failed());
        region
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a region, and how it stands then.
    type Step = (fn(&mut Regions, &Arc<str>), RegionState);

    fn failed(cause: &str, is_away: bool, before: RegionState) -> RegionState {
        RegionState::Failed { cause: cause.into(), is_away, before: Box::new(before) }
    }

    #[test]
    fn a_region_goes_from_state_to_state() {
        use RegionState::{Published, Renumbering, Untried};
        let region: Arc<str> = "a".into();
        let fail: fn(&mut Regions, &Arc<str>) = |regions, region| {
            regions.failed(region, "no", false);
        };
        let lose: fn(&mut Regions, &Arc<str>) = |regions, region| {
            regions.failed(region, "gone", true);
        };
        let publish: fn(&mut Regions, &Arc<str>) = |regions, region| regions.published(region, 3);
        let renumber: fn(&mut Regions, &Arc<str>) = |regions, region| regions.renumbering(region, 7);
        let retry: fn(&mut Regions, &Arc<str>) = |regions, _| regions.retry();
        let hold: fn(&mut Regions, &Arc<str>) = |regions, region| {
            regions.ahead(region, 7, 2);
        };
        let ways: [&[Step]; 5] = [
            &[(fail, failed("no", false, Untried)), (publish, Published), (retry, Published)],
            // A new try forgets a failure, and what stood before it is known again.
            &[(renumber, Renumbering { above: 7 }), (fail, failed("no", false, Renumbering { above: 7 }))],
            &[(publish, Published), (lose, failed("gone", true, Published)), (retry, Published)],
            // The last failure counts.
            &[(lose, failed("gone", true, Untried)), (fail, failed("no", false, Untried)), (retry, Untried)],
            // A store that was made anew comes as far, is numbered anew and published.
            &[
                (hold, RegionState::Ahead { there: 7, here: 2 }),
                (renumber, Renumbering { above: 7 }),
                (retry, Renumbering { above: 7 }),
                (publish, Published),
            ],
        ];
        for way in ways {
            let mut regions = Regions::default();
            for (at, (step, expected)) in way.iter().enumerate() {
                step(&mut regions, &region);
                let state = &regions.known[&region].state;
                assert_eq!((state, regions.any_failed()), (expected, expected.is_failed()), "step {at} of {way:?}");
                let is_away = matches!(expected, RegionState::Failed { is_away: true, .. });
                assert_eq!((regions.is_away("a"), regions.any_away()), (is_away, is_away), "step {at} of {way:?}");
            }
        }
    }

    #[test]
    fn a_cause_is_news_until_the_region_was_published() {
        let mut regions = Regions::default();
        let region: Arc<str> = "a".into();
        assert!(regions.failed(&region, "no", false));
        regions.retry();
        assert!(!regions.failed(&region, "no", false) && regions.failed(&region, "gone", true));
        regions.published(&region, 1);
        assert!(regions.failed(&region, "gone", true));
    }

    #[test]
    fn a_number_that_was_published_is_known_whatever_comes_after() {
        let mut regions = Regions::default();
        let region: Arc<str> = "a".into();
        assert!(!regions.has("a", 0));
        regions.published(&region, 5);
        regions.failed(&region, "no", false);
        assert!(regions.has("a", 5) && regions.has("a", 4) && !regions.has("a", 6));
    }

    #[test]
    fn the_end_tells_what_failed_and_what_was_not_numbered_anew() {
        let mut regions = Regions::default();
        let [a, b, c, d]: [Arc<str>; 4] = ["a", "b", "c", "d"].map(Arc::from);
        regions.renumbering(&a, 7);
        regions.failed(&b, "no", false);
        assert!(regions.ahead(&c, 9, 1) && !regions.ahead(&c, 9, 1));
        regions.published(&d, 1);
        let told: Vec<(String, String)> = regions.unpublished("Redis").into_iter().collect();
        let expected = [("a", "Redis has number 7 of it, and the store could not count on from there"), ("b", "no")];
        assert_eq!(told, expected.map(|(region, cause)| (region.to_owned(), cause.to_owned())));
        assert_eq!(regions.all_ahead().collect::<Vec<_>>(), [(&c, 9, 1)]);
    }
}
