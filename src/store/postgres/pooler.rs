//! Telling a pooler that swaps server processes between transactions, as PgBouncer does in transaction mode.
//!
//! Behind one, a lock of the session would be another session's lock a moment later, and two runs could both believe
//! they hold it. A connection without anyone in between is told by its start-up parameters having arrived, at no cost.
//! Where they have not, it is tried: a second connection opens a transaction, and whoever then gets another server
//! process than before, or the second one's, is being pooled by transaction. Poolers by session are fine.

use super::address::PostgresAddress;
use super::fault::Fault;
use super::session::{Link, Purpose, Session, Stop};

const REFUSED: &str = "a pooler stands before the database and changes the server process between transactions \
                       (PgBouncer with pool_mode = transaction or statement): the lock of the one writer would be lost \
                       unnoticed; give the address of the database itself, or of a pool by session";

/// How often a transaction is tried: a connection may break for other reasons.
const TRIES: usize = 2;

/// Refuses a connection that is pooled by transaction or statement.
pub(super) fn check(session: &mut Session, address: &PostgresAddress, stop: Stop<'_>) -> Result<(), Fault> {
    if session.greeting().is_direct {
        return Ok(());
    }
    for _ in 0..TRIES {
        let before = session.call(process)?;
        let mut other = Session::open(address, Purpose::General, stop)?;
        // That it answers at all is one thing; a pool by statement ends a connection that begins a transaction.
        other.call(process)?;
        let Ok(others) = other.call(|link| link.run("BEGIN")).and_then(|()| other.call(process)) else { continue };
        return match session.call(process)? {
            after if before == after && others != after => Ok(()),
            _ => Err(Fault::Unusable(REFUSED.into())),
        };
    }
    Err(Fault::Unusable(REFUSED.into()))
}

/// The number of the server process that answers.
fn process(link: &mut Link) -> Result<Option<String>, Fault> {
    link.text("SELECT pg_backend_pid()")
}
