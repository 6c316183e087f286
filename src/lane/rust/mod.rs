//! Handlers in Rust.
//!
//! [`handler`] is what a program writes; [`engine`] runs it over [`crate::rows::cache`].

pub(crate) mod engine;
pub mod handler;
