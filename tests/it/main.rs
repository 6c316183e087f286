//! Tests of the built binary and of the library, from outside. `support` is the harness; each other module says what it
//! covers. Run one of them with `cargo test --test it NAME::`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

/// Servers, proxies, a project in a folder, tables of cases: no tests.
mod support;

/// Addresses as people give them: what nobody sees in them, and which of several counts.
mod addresses;
/// What a run says limited it: each limit is made true, and must be the one that is named.
mod bottleneck;
/// A program whose output is the stream.
mod command;
/// What stands in the way of a run is told before it does.
mod doctor;
/// Databases that an earlier version made.
mod earlier;
/// Values that a column cannot hold.
mod errors_column_value;
/// Command lines that are wrong, and questions about what is not there.
mod errors_command_line;
/// What an error leaves behind: whole batches, and nothing half done.
mod errors_keep_commits;
/// Pipeline files with a wrong syntax, key, type or name.
mod errors_pipeline_file;
/// Pipeline files that ask for what is not there, and passwords that must not come out.
mod errors_pipeline_values;
/// Scripts that cannot be loaded, and handlers that fail or do not end.
mod errors_script;
/// Events that are malformed, out of place, or break off.
mod errors_source;
/// Numbers and JSON by chance: exact from the source's digits to the row, or refused.
mod exact_numbers;
/// Real events against answers that were computed independently.
mod expected;
/// Faults at each round trip of a commit to Postgres.
mod faults;
/// Runs that go on at the end of their files.
mod follow;
/// CSV and JSON beside NDJSON.
mod formats;
/// Indexing anew beside the present tables, which readers use meanwhile.
mod fresh;
/// The guides, run as they are written.
mod guides;
/// The hand-off to the commit thread on its own.
mod handoff;
/// A SQLite file that another program holds, and one that may only be read.
mod held_file;
/// Whole histories by chance, with forks, failures and rollbacks, against a model.
mod histories;
/// The house itself: which room imports which, and how long files and functions are.
mod house;
/// A topic of Kafka as a source.
#[cfg(feature = "kafka")]
mod kafka;
/// What stands in a partition of Kafka between records.
#[cfg(feature = "kafka")]
mod kafka_log;
/// What a script keeps between calls: refused, or read-only.
mod keeping;
/// Runs over each kind of source that are killed again and again.
mod killed_sources;
/// What comes late, was changed or is gone is told, left out, or handled in its place.
mod late;
/// The man pages.
mod man;
/// The memory budget: rows are let go and come back, and the state is the same.
mod memory;
/// Handlers in Rust.
mod native;
/// Handlers run while a commit is parked; a failed commit ends the run.
mod overlap;
/// The status page, in a real browser.
#[cfg(feature = "serve")]
pub mod page;
/// A source that is told where to go on.
mod positions;
/// What is particular to Postgres: tables, connections, outages, reads.
mod postgres;
/// Ready documents in Redis, over every kind of server.
mod publish;
/// A Redis Cluster: slots that move, a server that dies.
mod publish_cluster;
/// Faults at each step of a publish.
mod publish_faults;
/// What `forebay publish` is given.
mod publish_input;
/// What fails for one region, server or publisher spreads to no other.
mod publish_isolation;
/// Keys in Redis: what is there stays, and no two regions share one.
mod publish_keys;
/// Redis as others run it: no scripts, odd certificates, replicas, a full memory.
mod publish_managed;
/// Two stores under one name, and documents by hand beside a store.
mod publish_owner;
/// Snapshots read back from Redis.
mod publish_read;
/// Publishing beside a run: Redis slow, gone, emptied.
mod publish_run;
/// Publishing to a target of one's own.
mod publish_to;
/// Reads by column before, during and after a commit.
mod quarantine;
mod reads;
/// A Redis stream as a source.
mod redis_stream;
/// Runs that are killed, stopped or have nothing to do, and the next one.
mod resume;
/// Runs over tables that have rows already.
mod resumed_tables;
/// Rollbacks and forks.
mod rollback;
/// Rows that change themselves, against the same with `get` and `set`.
mod row_changes;
/// A system that has no more threads, and no place for messages.
mod scarce;
/// What scripts can rely on.
mod script_guards;
mod scripts;
/// A cron job that computes one document a region, whole.
mod seed;
/// The wall clock jumps while a seeder is at work.
mod seed_clock;
/// The example of such a job, read as its readers read.
mod seed_example;
/// A seeder that stays, watched over HTTP and in a browser.
#[cfg(feature = "serve")]
mod seed_served;
/// The server beside a run: what each path says.
mod serve;
/// Who may ask a run.
mod serve_access;
/// Clients of a run that are slow, many, or hostile.
mod serve_clients;
/// The metrics of a run, and the rules and the board over them.
mod serve_metrics;
/// One rule for snapshots over both stores: duplicates, numbers, what is pruned.
mod snapshot_policy;
/// When snapshots are made, what counts as a change, how they are read back.
mod snapshots;
/// Fields that lie deeper, and types of fields.
mod source_fields;
/// Which files a path names, in what order, and what is said of those that it leaves out.
mod source_files;
/// Where events may come from, and in what shapes.
mod sources;
/// People who read the tables with SQL: a whole file, the order of columns, comments.
mod sql_readers;
/// Tables that change, a second writer, a disk that is full.
mod store_safety;
/// The example of a Redis stream, run as it is written.
mod stream_example;
/// A run under a supervisor: systemd, SIGHUP, the first process of a container.
mod supervised;
/// Others are told of what is new.
mod tell_others;
/// Nothing of the data acts on a terminal.
mod terminal;
/// The line of state, on a real terminal.
mod terminal_line;
/// The pictures of a run.
mod timeline;
