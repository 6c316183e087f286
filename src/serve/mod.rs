//! The server beside a run or a seeder: probes, metrics, status and snapshots over HTTP, and a page that shows them.
//!
//! | file | holds |
//! |---|---|
//! | `listen`, `access` | where it listens, and who may ask: checked before the run begins |
//! | `event_loop`, `client` | the one thread that serves every client; one connection, bounded in bytes and time |
//! | `request`, `response` | the head of a request, read; an answer, written |
//! | `routes` | which path gives what |
//! | `subject` | what is shown: the few things that a run and a seeder say of themselves |
//! | `of_run`, `of_seeder` | a run; a seeder |
//! | `health`, `samples` | pure: what the live numbers say; how fast a run went in the last seconds |
//! | `metrics`, `live_status` | the numbers of a run as Prometheus reads them; as JSON |
//! | `prometheus` | the text that Prometheus reads |
//! | `stored`, `wanted` | what only the store knows, read on a thread of its own; what is wanted of it |
//! | `warnings` | the last warnings of the log |
//! | `page`, `page/` | the status page: of a run, of a seeder, and what both share |
//!
//! Reads only. A run is never asked and never waits: all that is shown of it comes from its [`Meter`](crate::Meter), and the
//! rest from the store over a connection of its own. Nor is a seeder: it notes its passes down
//! ([`Passes`](crate::publish::Passes)). What clients cost is bounded: one
//! thread, [`CLIENTS_MAX`] connections, a head of 16 KiB, seconds for each request, and a tenth of a core.

mod access;
mod client;
mod event_loop;
mod health;
mod listen;
mod live_status;
mod metrics;
mod of_run;
mod of_seeder;
mod page;
mod prometheus;
mod request;
mod response;
mod routes;
mod samples;
mod stored;
mod subject;
mod wanted;
mod warnings;

pub use access::Access;
pub use event_loop::{CLIENTS_MAX, Serving};
pub use listen::{Listen, ListenError, Listening};
pub use of_seeder::WatchedSeeder;
pub use warnings::{Level, Warnings};
