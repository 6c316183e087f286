//! Why a rollback is refused.

use crate::rows::codec::CodecError;

/// Why nothing can be rolled back to a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    /// The undo log does not reach that far back.
    #[error("{}", beyond_text(*.to, *.oldest, *.depth))]
    Beyond {
        /// The block.
        to: i64,
        /// The oldest block that is possible; none if nothing is committed.
        oldest: Option<i64>,
        /// `rollback.depth`.
        depth: u64,
    },
    /// A record that does not follow the format.
    #[error("the history of batch {batch} cannot be read: {cause}")]
    Malformed {
        /// The batch.
        batch: u64,
        /// What is wrong.
        cause: String,
    },
    /// A fault of this program.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

fn beyond_text(to: i64, oldest: Option<i64>, depth: u64) -> String {
    let Some(oldest) = oldest else {
        return format!("there is nothing to roll back to block {to}: nothing is committed");
    };
    match depth {
        0 => format!(
            "cannot roll back to block {to}: no history is kept (rollback.depth = 0); the oldest block possible is {oldest}. \
             Set rollback.depth for what comes, or index anew with it: `forebay run --fresh`"
        ),
        _ => format!(
            "cannot roll back to block {to}: the oldest block possible is {oldest} (rollback.depth = {depth}). For an older \
             state index into a new store"
        ),
    }
}
