//! Tests of the built binary and of the library, from outside.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod expected;
mod faults;
mod handoff;
mod histories;
mod limits;
mod memory;
mod native;
mod overlap;
mod postgres;
mod proxy;
mod publish;
mod publish_cluster;
mod publish_faults;
mod publish_input;
mod publish_odd;
mod publish_read;
mod publish_run;
mod publish_to;
mod reads;
mod redis_server;
mod resume;
mod rollback;
mod scripts;
mod server;
mod snapshot_policy;
mod snapshots;
mod sources;
mod stored;
mod wire;
mod wrong;
mod wrong_config;
mod wrong_file;
mod wrong_script;
mod wrong_source;
mod wrong_usage;
mod wrong_value;
