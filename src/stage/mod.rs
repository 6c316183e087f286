//! The stage: rows between a handler and the database.
//!
//! [`batch`] is what a commit gets, [`codec`] the form in which rows travel, [`table`] the rows that a native lane
//! keeps warm. (A script engine keeps its rows in its VM, by the same rules.)

pub mod batch;
pub mod codec;
pub mod table;
