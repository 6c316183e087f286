//! Settings that do not go together, judged: ok, warning or problem, and what to do. Pure.

use std::time::Duration;

use super::SnapshotsConfig;
use crate::model::finding::Finding;
use crate::model::judgement::millis_text;
use crate::snapshot::Every;

/// So many times the pause between two snapshots they must be kept: one that comes late, or fails, is missed by nobody.
const PAUSES_MIN: u32 = 3;

impl SnapshotsConfig {
    /// Whether snapshots are kept until the next ones come: `ttl` against `every`. Does not block.
    pub fn examine(&self) -> Finding {
        const NAME: &str = "snapshots_ttl";
        let text = |span: Duration| millis_text(span.as_secs_f64() * 1000.0);
        let kept = format!("snapshots are kept for {}", text(self.ttl));
        let Every::Time(every) = self.every else { return Finding::ok(NAME, kept) };
        let text = format!("{kept} and made every {}", text(every));
        let advice = format!("set [snapshots] ttl to at least {PAUSES_MIN} times every");
        match self.ttl {
            ttl if ttl < every => {
                Finding::problem(NAME, format!("{text}: readers find none before the next one"), advice)
            }
            ttl if ttl < every.saturating_mul(PAUSES_MIN) => {
                Finding::warning(NAME, format!("{text}: readers find none where one comes late or fails"), advice)
            }
            _ => Finding::ok(NAME, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::FindingState::{Ok, Problem, Warning};

    #[test]
    fn snapshots_live_longer_than_the_pause_between_them() {
        for (every, ttl, state, says) in [
            ("10s", 30, Ok, "kept for 30 s and made every 10 s"),
            ("10s", 29, Warning, "comes late or fails"),
            ("10s", 10, Warning, "comes late or fails"),
            ("10s", 9, Problem, "before the next one"),
            ("batch", 1, Ok, "kept for 1 s"),
            ("100 blocks", 1, Ok, "kept for 1 s"),
            ("end", 7200, Ok, "kept for 2 h"),
        ] {
            let config = SnapshotsConfig {
                every: every.parse().expect("a schedule"),
                ttl: Duration::from_secs(ttl),
                ..SnapshotsConfig::default()
            };
            let found = config.examine();
            assert!(found.state == state && found.message.contains(says), "{every}, {ttl} s: {found:?}");
        }
    }
}
