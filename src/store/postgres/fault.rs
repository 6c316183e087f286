//! What can go wrong with a database, sorted by what to do about it: by SQLSTATE, never by the text, which depends on
//! the server's language.

use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

use postgres::error::SqlState;

use crate::model::cause::Reason;
use crate::model::text::quoted_lines;

/// Why a call to the database did not come to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The driver or the server said so.
    Sql(postgres::Error),
    /// No answer in time; the connection is given up.
    Stalled(Duration),
    /// The connection was given up before.
    Gone,
    /// The run was asked to stop meanwhile.
    Stopped,
    /// What listens there is no Postgres; the message says what it is.
    Stranger(String),
    /// Nothing can be written there now; the message says why.
    ReadOnly(&'static str),
    /// Our own server process of that number does not end, and still holds the lock.
    Busy(i32),
    /// The connection cannot be used as it is; the message says why.
    Unusable(String),
    /// A value in the database is not what its column may hold.
    Foreign(String),
}

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Connect anew, see what became of it, and try again: it goes over by itself.
    Retry,
    /// A row that was thought to be new was there already.
    Duplicate,
    /// It will be the same next time.
    GiveUp,
}

impl From<postgres::Error> for Fault {
    fn from(error: postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<std::io::Error> for Fault {
    /// Writing into a COPY failed: the driver wraps what the server said.
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<postgres::Error>() {
            Ok(error) => Self::Sql(error),
            Err(_) => Self::Gone,
        }
    }
}

impl Fault {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Sql(error) => match error.code() {
                Some(code) => remedy_of(code),
                // What has no code comes from the connection: refused, reset, broken off. What this program sends or
                // reads wrongly has none either, but does not get better.
                None if is_from_connection(error) => Remedy::Retry,
                None => Remedy::GiveUp,
            },
            // While a server is replaced, whatever stands before it may answer.
            Self::Stranger(_) => Remedy::Retry,
            // Whoever waits sees it.
            Self::Stopped => Remedy::Retry,
            Self::Stalled(_) | Self::Gone | Self::ReadOnly(_) | Self::Busy(_) => Remedy::Retry,
            Self::Unusable(_) | Self::Foreign(_) => Remedy::GiveUp,
        }
    }

    /// The reason of an error that says no more than the fault itself.
    pub(super) fn told(self) -> Box<Reason> {
        let text = self.to_string();
        self.into_reason(text)
    }

    /// The reason of an error that tells it as `text`. The driver's own error is behind it, if it was one.
    pub(super) fn into_reason(self, text: String) -> Box<Reason> {
        match self {
            Self::Sql(error) => Reason::new(text, error),
            _ => text.into(),
        }
    }

    /// Whether the server took a statement as such and does not do it now: it lacks a right, or something holds a lock. The
    /// connection is as good as before.
    pub(super) fn is_refusal(&self) -> bool {
        let of_lock = |code: &SqlState| *code == SqlState::LOCK_NOT_AVAILABLE;
        self.code().is_some_and(of_lock) || (self.code().is_some() && self.remedy() == Remedy::GiveUp)
    }

    /// The SQLSTATE, if the server gave one.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            _ => None,
        }
    }

    /// Whether it is likely a matter of settings, of which the user should hear even in the middle of an outage.
    pub(super) fn is_setting(&self) -> bool {
        let of_resources = |code: &SqlState| code.code().starts_with("53");
        matches!(self, Self::ReadOnly(_)) || self.code().is_some_and(of_resources)
    }

    /// Whether the server refuses a parameter of the start-up: a pooler in the way does, and Amazon's RDS Proxy in words
    /// of its own.
    pub(super) fn refuses_parameter(&self) -> bool {
        [&SqlState::PROTOCOL_VIOLATION, &SqlState::FEATURE_NOT_SUPPORTED]
            .contains(&self.code().unwrap_or(&SqlState::SUCCESSFUL_COMPLETION))
    }

    /// Whether it may come of speaking to what is no Postgres: something answered, and not as expected.
    pub(super) fn may_be_a_stranger(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
        let mut kind = None;
        while let Some(inner) = cause {
            kind = kind.or_else(|| inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
            cause = inner.source();
        }
        let is_unheard = |kind| {
            matches!(
                kind,
                ErrorKind::ConnectionRefused
                    | ErrorKind::TimedOut
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
            )
        };
        error.code().is_none() && !kind.is_some_and(is_unheard)
    }
}

fn is_from_connection(error: &postgres::Error) -> bool {
    if error.is_closed() {
        return true;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            // A certificate that is refused is an I/O error as well, and stays refused; so is a message that cannot be
            // encoded or read.
            return !matches!(io.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)
                && io.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>());
        }
        cause = inner.source();
    }
    false
}

/// Classes and codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn remedy_of(code: &SqlState) -> Remedy {
    let transient = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // The old main server, or the new one before it may write.
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    if *code == SqlState::UNIQUE_VIOLATION {
        return Remedy::Duplicate;
    }
    let class = code.code().get(..2).unwrap_or_default();
    // Connection (a pooler says 08P01 of a server that it has lost), transaction rollback, resources; 57P0x: shut down,
    // crashed, starting up, dropped; 25P04: the time limit of a transaction, of PostgreSQL 17; 25P02: it had failed before,
    // and the answer that said why was lost.
    let is_transient = transient.contains(code)
        || matches!(class, "08" | "40" | "53")
        || code.code().starts_with("57P0")
        || matches!(code.code(), "25P02" | "25P04");
    if is_transient { Remedy::Retry } else { Remedy::GiveUp }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sql(error) => match error.as_db_error() {
                Some(said) => {
                    write!(f, "{} (SQLSTATE {})", quoted_lines(said.message()), said.code().code())?;
                    said.detail().map_or(Ok(()), |detail| write!(f, "; {}", quoted_lines(detail)))?;
                    said.hint().map_or(Ok(()), |hint| write!(f, "; {}", quoted_lines(hint)))
                }
                None => {
                    write!(f, "{error}")?;
                    let mut cause = error.source();
                    while let Some(inner) = cause {
                        let text = inner.to_string();
                        if !error.to_string().contains(&text) {
                            write!(f, ": {text}")?;
                        }
                        cause = inner.source();
                    }
                    Ok(())
                }
            },
            Self::Stalled(waited) => write!(f, "no answer within {:.1} s", waited.as_secs_f64()),
            Self::Gone => f.write_str("the connection is gone"),
            Self::Stopped => f.write_str("it had not answered"),
            Self::ReadOnly(why) => f.write_str(why),
            Self::Busy(pid) => write!(f, "our own server process {pid} does not end"),
            Self::Unusable(why) | Self::Foreign(why) | Self::Stranger(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_sorted_by_their_code() {
        for (code, remedy) in [
            ("08006", Remedy::Retry),
            ("08P01", Remedy::Retry),
            ("25P02", Remedy::Retry),
            ("25P04", Remedy::Retry),
            ("40001", Remedy::Retry),
            ("40P01", Remedy::Retry),
            ("53100", Remedy::Retry),
            ("53300", Remedy::Retry),
            ("57P01", Remedy::Retry),
            ("57P03", Remedy::Retry),
            ("55P03", Remedy::Retry),
            ("57014", Remedy::Retry),
            ("25006", Remedy::Retry),
            ("23505", Remedy::Duplicate),
            ("23514", Remedy::GiveUp),
            ("22003", Remedy::GiveUp),
            ("42501", Remedy::GiveUp),
            ("28P01", Remedy::GiveUp),
            ("3D000", Remedy::GiveUp),
        ] {
            assert_eq!(remedy_of(&SqlState::from_code(code)), remedy, "{code}");
        }
    }
}
