//! What is said of a snapshot that Redis refuses.

use crate::model::timestamp::Timestamp;
use crate::publish::PublishError;

/// What is said of a number that is ahead of the clock of Redis, which is at `clock`.
pub(super) fn ahead_of_redis(seq: u64, clock: &str) -> PublishError {
    let text = |millis: u64| i64::try_from(millis).ok()?.checked_mul(1000).and_then(Timestamp::from_micros);
    let text = |millis: u64| text(millis).map_or_else(|| millis.to_string(), Timestamp::to_millis_text);
    PublishError::Document(format!(
        "its time {} is more than an hour ahead of the clock of Redis ({}): it is the sequence number, and nothing older \
         could replace it; is the clock of this host right?",
        text(seq),
        text(clock.parse().unwrap_or_default())
    ))
}
