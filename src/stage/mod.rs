//! The stage: rows between a handler and the database.
//!
//! [`batch`] is what a commit gets, [`codec`] the form in which rows travel, [`table`] the rows that a native lane
//! keeps warm (a script engine keeps its rows in its VM, by the same rules), [`history`] what a batch leaves so that it can
//! be rolled back, [`known`] which rows there may be at all.

pub mod batch;
pub mod codec;
pub mod history;
pub mod known;
pub mod table;
