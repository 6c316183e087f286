//! Rows of one region, between a handler and the database.
//!
//! [`codec`] is the packed form in which rows travel; [`changes`] what a batch changed of a table; [`cache`] the row
//! cache of a Rust lane (Lua keeps its rows in the VM, by the same rules); [`existence`] the existence filter. Touches
//! memory only.

pub mod cache;
pub mod changes;
pub mod codec;
pub mod existence;
