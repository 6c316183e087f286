//! What both stores share: names and counters as SQL takes them, and what may change about a table.

use std::hash::{BuildHasher, RandomState};

use crate::model::schema::{Entity, parse_columns};
use crate::model::timestamp::Timestamp;

/// Adds to `found` what the noted columns have that the plan does not, beyond what is added by itself.
pub(super) fn differences_of(planned: &Entity, stored: &str, found: &mut Vec<String>) {
    for (name, kind) in parse_columns(stored) {
        match planned.columns.iter().find(|column| column.name == name) {
            None => found.push(format!("{}.{name} ({kind}) is missing from the pipeline file", planned.name)),
            Some(column) if column.kind.name() != kind => {
                found.push(format!(
                    "{}.{name} is {kind} in the store and {} in the pipeline file",
                    planned.name, column.kind
                ));
            }
            Some(_) => {}
        }
    }
}

/// A name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The integers of SQL are signed; no counter of ours comes near 2^63.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The way back from [`signed`].
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A signature for a new store: a text that no other store has.
pub(super) fn new_signature() -> String {
    // The keys of the hashers come from the system's random numbers; the time tells apart what should not be equal anyway.
    let now = (Timestamp::now(), std::process::id());
    format!("{:016x}{:016x}", RandomState::new().hash_one(now.0.as_micros()), RandomState::new().hash_one(now.1))
}
