//! Tests of the built binary and of the library, from outside.

mod common;
mod expected;
mod handoff;
mod overlap;
mod resume;
mod scripts;
mod snapshots;
mod sources;
mod stored;
