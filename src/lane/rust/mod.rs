//! Handlers in Rust.
//!
//! [`handler`] is what a program writes; [`engine`] runs it over [`crate::rows::cache`].

mod access;
pub(crate) mod engine;
mod error;
mod event;
pub mod fields;
pub mod handler;
mod rows;
