//! The bottleneck of a run, and the most that each change could save.
//!
//! Stages work at the same time, so the one that was busy longest limited the run: handlers at work, commits, reads of
//! rows that handlers waited for, the source that they waited for, Redis at the end. What a change could save follows
//! from the waits of the handler thread, which from the first event to the last commit handles events or waits for
//! rows, for a commit, for events. A faster database, for example, saves at most the time that was waited for it,
//! whatever its speed. These are bounds: no change saves more, and most save less.

use std::fmt;
use std::time::Duration;

use super::grouped;

/// How much larger batches are in the question "what if they were larger".
const LARGER: u64 = 5;

/// What limited a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// There was nothing to do.
    Nothing,
    /// Handlers waited for events.
    Source,
    /// Handlers were at work.
    Handlers,
    /// Handlers waited for rows that were not in memory.
    Reads,
    /// Handlers stood still so that memory became free.
    Memory,
    /// Handlers waited for commits.
    Database,
    /// The run waited for the last snapshots to be published.
    Publish,
}

impl Limit {
    /// Its name in `run --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Source => "source",
            Self::Handlers => "handlers",
            Self::Reads => "reads",
            Self::Memory => "memory",
            Self::Database => "database",
            Self::Publish => "publish",
        }
    }
}

/// A hypothetical change to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hypothetical {
    /// Events come at once.
    FasterSource,
    /// Handlers take no time.
    CheaperHandlers,
    /// Each region has a lane, and a core, of its own.
    MoreLanes,
    /// All rows fit into memory.
    MoreMemory,
    /// Batches are larger: of about so many events.
    LargerBatches(u64),
    /// The way to the database takes no time.
    FewerRoundTrips,
    /// Commits and reads take no time.
    FasterDatabase,
    /// Publishing takes no time.
    FasterRedis,
}

impl Hypothetical {
    /// Its name in `run --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FasterSource => "faster_source",
            Self::CheaperHandlers => "cheaper_handlers",
            Self::MoreLanes => "more_lanes",
            Self::MoreMemory => "more_memory",
            Self::LargerBatches(_) => "larger_batches",
            Self::FewerRoundTrips => "fewer_round_trips",
            Self::FasterDatabase => "faster_database",
            Self::FasterRedis => "faster_redis",
        }
    }
}

impl fmt::Display for Hypothetical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FasterSource => f.write_str("a faster source"),
            Self::CheaperHandlers => f.write_str("cheaper handlers"),
            Self::MoreLanes => f.write_str("more lanes (cores)"),
            Self::MoreMemory => f.write_str("more memory (batch.memory)"),
            Self::LargerBatches(events) => write!(f, "batches of {} (batch.events)", grouped(*events)),
            Self::FewerRoundTrips => f.write_str("fewer round trips"),
            Self::FasterDatabase => f.write_str("a faster database"),
            Self::FasterRedis => f.write_str("a faster Redis"),
        }
    }
}

/// The most by which a change would have shortened the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WhatIf {
    /// The change.
    pub change: Hypothetical,
    /// No more than this.
    pub saves_at_most: Duration,
}

/// What a run waited for, and what its batches were like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// From the first event handled to the last commit.
    pub wall: Duration,
    /// Reading was busy.
    pub read: Duration,
    /// Handlers ran, sealed, or waited for rows.
    pub handlers: Duration,
    /// Rows were evicted.
    pub evicting: Duration,
    /// Handlers waited for rows.
    pub preload: Duration,
    /// Commits were busy.
    pub commit: Duration,
    /// The shortest commit.
    pub commit_min: Duration,
    /// Handlers waited for events.
    pub for_source: Duration,
    /// Handlers waited for a commit, the last ones after them.
    pub for_commit: Duration,
    /// Handlers waited for memory.
    pub for_memory: Duration,
    /// After the last commit, the run waited for publishing.
    pub for_publish: Duration,
    /// Batches.
    pub batches: u64,
    /// Events.
    pub events: u64,
    /// The events of the region that had most.
    pub largest_region_events: u64,
}

/// What limited a run, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// What limited it.
    pub by: Limit,
    /// What each change could save, the best first. Changes that would save nothing are left out.
    pub what_if: Vec<WhatIf>,
}

impl Limits {
    /// Works it out.
    pub(crate) fn of(facts: &Facts) -> Self {
        let Facts { wall, read, handlers, evicting, preload, commit, .. } = *facts;
        let Facts { for_source, for_commit, for_memory, for_publish, .. } = *facts;
        let working = handlers.saturating_sub(preload);
        // With more memory, rows are neither waited for nor evicted.
        let short = preload + evicting + for_memory;
        let parts = [
            (Limit::Handlers, working),
            (Limit::Database, commit),
            (if evicting + for_memory > preload { Limit::Memory } else { Limit::Reads }, short),
            (Limit::Source, for_source),
            (Limit::Publish, for_publish),
        ];
        // Of equal ones the first.
        let largest = parts.iter().rev().max_by_key(|(_, time)| *time).map_or(Limit::Nothing, |(limit, _)| *limit);
        let by = if facts.events == 0 && for_publish.is_zero() { Limit::Nothing } else { largest };
        let batches = facts.batches.max(1);
        let fewer = batches - batches.div_ceil(LARGER);
        let times = |time: Duration, number: u64| time.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        let shared = 1.0 - facts.largest_region_events as f64 / facts.events.max(1) as f64;
        let what_if = [
            (Hypothetical::FasterDatabase, for_commit + for_memory + preload),
            (
                Hypothetical::LargerBatches(rounded(facts.events / batches * LARGER)),
                times(facts.commit_min, fewer).min(for_commit),
            ),
            (Hypothetical::FewerRoundTrips, times(facts.commit_min, batches).min(for_commit)),
            (Hypothetical::MoreMemory, short),
            (Hypothetical::CheaperHandlers, wall.saturating_sub(commit.max(read)).min(handlers)),
            (
                Hypothetical::MoreLanes,
                working.mul_f64(shared.clamp(0.0, 1.0)).min(wall.saturating_sub(commit.max(read))),
            ),
            (Hypothetical::FasterSource, for_source),
            (Hypothetical::FasterRedis, for_publish),
        ];
        let mut what_if: Vec<WhatIf> = what_if
            .into_iter()
            .map(|(change, saves_at_most)| WhatIf { change, saves_at_most })
            .filter(|what_if| !what_if.saves_at_most.is_zero())
            .collect();
        what_if.sort_by_key(|what_if| std::cmp::Reverse(what_if.saves_at_most));
        Self { by, what_if }
    }

    fn saves(&self, change: impl Fn(Hypothetical) -> bool) -> Option<WhatIf> {
        self.what_if.iter().find(|what_if| change(what_if.change)).copied()
    }

    /// The changes that a sentence tells, in its order.
    fn helps(&self) -> &'static [fn(Hypothetical) -> bool] {
        match self.by {
            Limit::Handlers => &[
                |change| change == Hypothetical::CheaperHandlers,
                |change| change == Hypothetical::MoreLanes,
                |change| change == Hypothetical::FasterDatabase,
                |change| change == Hypothetical::MoreMemory,
            ],
            Limit::Database => &[
                |change| matches!(change, Hypothetical::LargerBatches(_)),
                |change| change == Hypothetical::FewerRoundTrips,
                |change| change == Hypothetical::FasterDatabase,
            ],
            Limit::Reads => {
                &[|change| change == Hypothetical::FasterDatabase, |change| change == Hypothetical::MoreMemory]
            }
            Limit::Memory => {
                &[|change| change == Hypothetical::MoreMemory, |change| change == Hypothetical::FasterDatabase]
            }
            Limit::Source => {
                &[|change| change == Hypothetical::FasterSource, |change| change == Hypothetical::CheaperHandlers]
            }
            Limit::Publish => &[|change| change == Hypothetical::FasterRedis],
            Limit::Nothing => &[],
        }
    }

    /// The limit and what would help, as a sentence.
    pub(crate) fn sentence(&self, facts: &Facts) -> String {
        let share = |time: Duration| match facts.wall.as_secs_f64() {
            0.0 => 0.0,
            wall => (100.0 * time.as_secs_f64() / wall).min(100.0),
        };
        let hidden = (facts.handlers + facts.commit).saturating_sub(facts.wall).min(facts.commit);
        let begin = match self.by {
            Limit::Nothing => return "there was nothing to do".into(),
            Limit::Handlers => format!(
                "limited by the handlers: they were busy {:.0} % of the time, and {} of {} of commits were hidden behind them",
                share(facts.handlers),
                shown(hidden),
                shown(facts.commit)
            ),
            Limit::Database => format!(
                "limited by the database: commit was busy {:.0} % of the time; hiding it saved {} of its {}",
                share(facts.commit),
                shown(hidden),
                shown(facts.commit)
            ),
            Limit::Reads => format!(
                "limited by reads: handlers waited {} for rows that were not in memory, and {} for memory",
                shown(facts.preload),
                shown(facts.for_memory)
            ),
            Limit::Memory => format!(
                "limited by memory: rows were evicted for {}, and commits waited for {}, so that it became free",
                shown(facts.evicting),
                shown(facts.for_memory)
            ),
            Limit::Source => format!(
                "limited by the source: handlers waited {} for events; reading was busy {:.0} % of the time",
                shown(facts.for_source),
                share(facts.read)
            ),
            Limit::Publish => {
                format!("limited by Redis: publishing went on for {} after the last commit", shown(facts.for_publish))
            }
        };
        let helps: Vec<String> = (self.helps())
            .iter()
            .filter_map(|help| self.saves(help))
            .filter(|what_if| what_if.saves_at_most >= Duration::from_millis(1))
            .enumerate()
            .map(|(at, WhatIf { change, saves_at_most })| match at {
                0 => format!("{change} would save at most {}", shown(saves_at_most)),
                _ => format!("{change} {}", shown(saves_at_most)),
            })
            .collect();
        if helps.is_empty() { begin } else { format!("{begin}; {}", helps.join(", ")) }
    }
}

/// Two digits of a number, and zeros.
fn rounded(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (number + unit / 2) / unit * unit
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.1 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn facts() -> Facts {
        Facts { wall: ms(4100), events: 1_000_000, batches: 100, largest_region_events: 600_000, ..Facts::default() }
    }

    #[test]
    fn the_largest_wait_is_the_limit_and_bounds_hold() {
        let run = Facts { handlers: ms(2060), commit: ms(3940), commit_min: ms(5), for_commit: ms(2040), ..facts() };
        let limits = Limits::of(&run);
        assert_eq!(limits.by, Limit::Database);
        assert_eq!(
            limits.sentence(&run),
            "limited by the database: commit was busy 96 % of the time; hiding it saved 1.9 s of its 3.9 s; \
             batches of 50,000 (batch.events) would save at most 0.4 s, fewer round trips 0.5 s, a faster database 2.0 s"
        );
        let saves =
            |change| limits.what_if.iter().find(|what_if| what_if.change == change).map(|one| one.saves_at_most);
        assert_eq!(saves(Hypothetical::CheaperHandlers), Some(ms(160)), "commits stay");
        assert_eq!(saves(Hypothetical::FasterSource), None);
        let by = |facts: Facts| Limits::of(&facts).by;
        assert_eq!(by(Facts { handlers: ms(4000), commit: ms(1000), for_commit: ms(100), ..facts() }), Limit::Handlers);
        assert_eq!(by(Facts { handlers: ms(4000), preload: ms(3000), ..facts() }), Limit::Reads);
        assert_eq!(by(Facts { handlers: ms(1000), for_source: ms(3000), ..facts() }), Limit::Source);
        assert_eq!(by(Facts { handlers: ms(1000), for_publish: ms(3000), ..facts() }), Limit::Publish);
        assert_eq!(by(Facts::default()), Limit::Nothing);
    }

    #[test]
    fn memory_is_advised_where_memory_helps() {
        let (evicting, for_memory, preload) = (ms(30), ms(3), ms(2));
        for (run, by, advised) in [
            (Facts { evicting: ms(2600), ..facts() }, Limit::Memory, "memory (batch.memory) would save at most 2.6 s"),
            (
                Facts { evicting: ms(1300), for_memory: ms(700), handlers: ms(1900), ..facts() },
                Limit::Memory,
                "memory (batch.memory) would save at most 2.0 s, a faster database 0.7 s",
            ),
            (
                Facts { evicting: ms(500), preload: ms(1500), handlers: ms(1900), ..facts() },
                Limit::Reads,
                "a faster database would save at most 1.5 s, more memory (batch.memory) 2.0 s",
            ),
            // It is told too where it would help little.
            (
                Facts { evicting, for_memory, preload, handlers: ms(4000), ..facts() },
                Limit::Handlers,
                "a faster database 5 ms, more memory (batch.memory) 35 ms",
            ),
        ] {
            let limits = Limits::of(&run);
            assert_eq!(limits.by, by, "{run:?}");
            assert!(limits.sentence(&run).ends_with(advised), "{}", limits.sentence(&run));
        }
        let run = Facts { handlers: ms(4000), commit: ms(100), ..facts() };
        assert!(!Limits::of(&run).sentence(&run).contains("memory"), "nothing was evicted");
        let run = Facts { evicting: ms(2600), for_memory: ms(200), ..facts() };
        let begin =
            "limited by memory: rows were evicted for 2.6 s, and commits waited for 0.2 s, so that it became free";
        assert!(Limits::of(&run).sentence(&run).starts_with(begin));
    }

    #[test]
    fn two_digits_say_enough() {
        let given = [0, 7, 55, 104, 47_615, 333_330, u64::MAX / 2];
        assert_eq!(given.map(rounded), [0, 7, 55, 100, 48_000, 330_000, 9_200_000_000_000_000_000]);
    }

    #[test]
    fn lanes_help_as_far_as_regions_share_the_work() {
        let more_lanes = |largest_region_events| {
            let facts = Facts { handlers: ms(4000), largest_region_events, ..facts() };
            Limits::of(&facts).saves(|change| change == Hypothetical::MoreLanes).map(|what_if| what_if.saves_at_most)
        };
        assert_eq!(more_lanes(1_000_000), None);
        assert_eq!(more_lanes(250_000), Some(ms(3000)));
    }
}
