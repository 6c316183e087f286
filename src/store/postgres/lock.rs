//! The one writer of a pipeline: an advisory lock of the session that commits.
//!
//! The lock lives and dies with its session, and the session with its connection. Every commit goes over the session
//! that holds it, and names its server process, so that a connection behind which the process was swapped is noticed.
//! After a lost connection the lock is also what is waited on: as long as our own old process holds it, what it last did
//! is not decided.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::outage::TryError;
use super::session::{Backend, Link, Session, Stop, is_set};
use crate::model::limits::WAIT_STEP;
use crate::model::wait::pause;
use crate::store::StoreError;

/// How long a lock that another holds is waited for: a run that was killed just now leaves it to the server to notice.
const OTHER_WAIT: Duration = Duration::from_secs(3);

/// How long our own old process is waited for: it may be in the middle of a commit. Then it is an outage.
const OWN_WAIT: Duration = Duration::from_secs(10);

/// The number of a pipeline's lock.
pub(super) fn key(pipeline: &str) -> i64 {
    let digest = Sha256::digest(format!("forebay pipeline {pipeline}"));
    digest.first_chunk::<8>().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Takes the lock for the session, unless another run has it. If a process of `ours` still holds it, that one is ended
/// first.
pub(super) fn take(session: &mut Session, pipeline: &str, ours: &[Backend], stop: Stop<'_>) -> Result<(), TryError> {
    let key = key(pipeline);
    let started = Instant::now();
    let mut was_ended = false;
    loop {
        let Some((holder, text)) = session.call(move |link| try_lock(link, key))? else { return Ok(()) };
        // A holder that ended while we asked leaves the lock free.
        let is_own = holder.pid == 0 || ours.contains(&holder);
        if is_own && started.elapsed() > OWN_WAIT {
            return Err(Fault::Busy(holder.pid).into());
        }
        if !is_own && started.elapsed() > OTHER_WAIT {
            return Err(TryError::Refused(StoreError::Held { pipeline: pipeline.to_owned(), holder: text }));
        }
        if is_own && holder.pid != 0 && !was_ended {
            let pid = holder.pid;
            session.call(move |link| link.run(&format!("SELECT pg_terminate_backend({pid})")))?;
            was_ended = true;
        }
        pause(WAIT_STEP, || is_set(stop));
        if is_set(stop) {
            return Err(Fault::Stopped.into());
        }
    }
}

/// Gives the lock back that the session has taken.
pub(super) fn give_back(link: &mut Link, pipeline: &str) -> Result<(), Fault> {
    link.text(&format!("SELECT pg_advisory_unlock({})", key(pipeline))).map(drop)
}

/// Tries to take the lock; if another has it, who.
fn try_lock(link: &mut Link, key: i64) -> Result<Option<(Backend, String)>, Fault> {
    if link.text(&format!("SELECT pg_try_advisory_lock({key})"))?.as_deref() == Some("t") {
        return Ok(None);
    }
    let ended = || (Backend { pid: 0, started: String::new() }, "another session, which has just ended".to_owned());
    Ok(Some(holder(link, key)?.unwrap_or_else(ended)))
}

/// Who holds the lock; none if nobody does.
pub(super) fn holder(link: &mut Link, key: i64) -> Result<Option<(Backend, String)>, Fault> {
    // A key of 64 bits is shown in two halves.
    let sql = format!(
        "SELECT a.pid, a.backend_start, coalesce(nullif(a.application_name, ''), 'a program without a name'),
           -- Of another role's session only the name can be seen.
           coalesce(' since ' || a.backend_start::text || coalesce(' from ' || host(a.client_addr), ''), '')
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_database d ON d.oid = l.database
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND d.datname = current_database()
           AND ((l.classid::bigint << 32) | l.objid::bigint) = {key}"
    );
    let row = link.texts(&sql)?;
    let field = |at: usize| row.get(at).cloned().unwrap_or_default();
    let holder = Backend { pid: field(0).parse().unwrap_or(0), started: field(1) };
    let text = format!("{}{} (server process {})", field(2), field(3), holder.pid);
    Ok((holder.pid != 0).then_some((holder, text)))
}
