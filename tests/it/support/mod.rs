//! The harness: what tests are run over and read with. It holds no tests.

/// Tables of cases of what is refused, checked together.
pub mod cases;
/// A proxy before Postgres that counts round trips and breaks them.
pub mod postgres_proxy;
/// Private PostgreSQL servers, and PgBouncer before them.
pub mod postgres_server;
/// A folder with a pipeline, the built binary, and what came of it.
pub mod project;
/// What `forebay publish --json` says.
pub mod publishing;
/// Real events, and answers that were computed independently.
pub mod real_events;
/// A proxy before Redis that counts steps, delays and breaks them.
pub mod redis_proxy;
/// Private Redis servers and clusters.
pub mod redis_server;
