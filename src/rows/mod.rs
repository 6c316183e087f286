//! Rows of one region, between a handler and the database.
//!
//! [`codec`] is the packed form in which rows travel, [`changes`] what a batch changed of a table, [`cache`] the rows that a
//! Rust lane keeps in memory (a script engine keeps its rows in its VM, by the same rules), [`existence`] a filter of the
//! rows that there may be at all. Touches memory only.

pub mod cache;
pub mod changes;
pub mod codec;
pub mod existence;
