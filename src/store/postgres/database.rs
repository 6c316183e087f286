//! A database, how it is connected to, and what it says when it cannot be.

use std::sync::atomic::{AtomicBool, AtomicU64};

use super::address::PostgresAddress;
use super::fault::Fault;
use super::session::{Purpose, Session, Stop};
use crate::store::{StoreError, StorePlan};

/// A database and what it is used for.
pub(super) struct Database {
    pub(super) address: PostgresAddress,
    /// How it is called in messages.
    pub(super) name: String,
    pub(super) plan: StorePlan,
    /// Whether the user was told that it is away. Commits and readers notice it apart, and it is told once.
    pub(super) is_reported: AtomicBool,
    /// Grows with each connection of the writer: what readers connected to before may be another server by now.
    pub(super) generation: AtomicU64,
}

impl Database {
    pub(super) fn error(&self, doing: &'static str, fault: Fault) -> StoreError {
        error_of(&self.name, doing, fault)
    }

    /// Connects to a server that takes writes; also to read, since what a standby has may be old.
    pub(super) fn connect(&self, purpose: Purpose, stop: Stop<'_>) -> Result<Session, Fault> {
        let session = Session::open(&self.address, purpose, stop)?;
        match session.greeting().read_only {
            Some(why) => Err(Fault::ReadOnly(why)),
            None => Ok(session),
        }
    }

    pub(super) fn cannot_open(&self, cause: impl std::fmt::Display) -> StoreError {
        StoreError::Open { store: self.name.clone(), cause: cause.to_string().into() }
    }

    /// The same, of a fault that is told as `cause`.
    pub(super) fn unopened(&self, cause: String, fault: Fault) -> StoreError {
        StoreError::Open { store: self.name.clone(), cause: fault.into_reason(cause) }
    }
}

pub(super) fn error_of(store: &str, doing: &'static str, fault: Fault) -> StoreError {
    let cause = format!("{fault}{}", advice(&fault));
    StoreError::Sql { store: store.to_owned(), doing, cause: fault.into_reason(cause) }
}

/// The next step, where there is one.
pub(super) fn advice(fault: &Fault) -> &'static str {
    let code = fault.code().map_or("", |code| code.code());
    match (code, code.get(..2)) {
        ("42501", _) => {
            "; give the role the right (also TEMPORARY on the database; a schema of the pipeline's name that is its own will \
             do), or let its owner make the schema and its tables once"
        }
        (_, Some("28")) => "; look at user and password: in the address, PGPASSWORD or ~/.pgpass",
        (_, Some("3D")) => "; make the database first: createdb NAME",
        _ => "",
    }
}

pub(super) fn warn_exposed(name: &str) {
    tracing::warn!("the connection to {name} is not encrypted; sslmode=verify-full in the address makes it safe");
}
