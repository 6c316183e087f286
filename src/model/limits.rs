//! The fixed bounds of the program, each with its reason.
//!
//! Policy: a number that bounds a queue, a loop, a wait or an input lives here, with its unit in its name. What a
//! user may change is in the pipeline file ([`crate::config`]); these are what no configuration can lift.

use std::time::Duration;

/// Bytes of text in one page that the reader hands over. Large enough that a hand-over costs nothing, small
/// enough that many fit in the read-ahead.
pub const PAGE_BYTES: usize = 256 * 1024;

/// Bytes of one line of the source. A longer line is refused: it would not fit in the read-ahead.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a pipeline file, a script, a certificate or a password file: they are read as a whole, and nobody writes one
/// that is nearly as long.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the documents of one `forebay publish`, which are held in memory.
pub const DOCUMENTS_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Pages that wait between the reader and the handlers at most; their bytes are bounded apart, by the read-ahead.
pub const PAGES_WAITING_MAX: usize = 256;

/// The least and the most bytes that may be read ahead of the handlers. The amount between is a sixteenth of
/// `batch.memory`: more hides nothing, since the reader is several times faster than any handler. Two rounds fit: one
/// that is handled, and one that is read meanwhile.
pub const READ_AHEAD_BYTES_MIN: usize = 512 * 1024;
/// See [`READ_AHEAD_BYTES_MIN`].
pub const READ_AHEAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of a held branch: events of another branch, held while it is not known whether the source stays on it. Past
/// this limit we switch to the branch: still correct, but it costs a rollback.
pub const ASIDE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of late events that are held to be put in their place (`late = "replay"`).
pub const LATE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a position in a source: it is stored with every checkpoint, and for each block that can be rolled back.
pub const POSITION_BYTES_MAX: usize = 1024;

/// Events that are spread over the lanes at a time. A round ends when its slowest lane ends, so a round should be
/// long against a thread hand-over (tens of microseconds) and short against a batch.
pub const ROUND_EVENTS_MAX: usize = 8192;

/// Events of the first round, and of any round when memory is short: what handlers write is not known before.
pub const ROUND_EVENTS_MIN: u64 = 64;

/// Events that cross into a script engine in one call.
pub const CHUNK_EVENTS_MAX: usize = 1024;

/// Rows that a query without a limit, or with a larger one, asks the store for at first: how large they are says how many
/// more it may ask for.
pub const FIND_ROWS: usize = 1024;

/// A query that needs some rows asks for so many times as many, and [`FIND_ROWS_MORE`] more: those that a handler changed
/// do not count. Where that would take too much memory, as many as it needs are enough.
pub const FIND_ROWS_TIMES: usize = 2;
/// See [`FIND_ROWS_TIMES`].
pub const FIND_ROWS_MORE: usize = 16;
/// A query that would ask for so many rows asks for all of them.
pub const FIND_ROWS_ALL: usize = 1 << 20;

/// The part of a handler's memory that the rows of one query may take, packed: as they are kept they take four times as
/// much.
pub const FIND_MEMORY_PART: usize = 4;
/// What it may take in any case, in bytes: rows that are wanted are worth the memory of those that can be evicted.
pub const FIND_BYTES_MIN: usize = 1 << 20;
/// The part of what is left of it that rows may take, packed, that no call which counts waits for.
pub const LOADED_MEMORY_PART: usize = 8;

/// Events in one dry run, behind a call that misses a row, to learn which rows will be missed next.
pub const DRY_EVENTS_MAX: usize = 1024;

/// How long the dry runs behind one call may take. It is less than asking the store many times takes, and far more than
/// handlers need: where it is used up, an event sees rows that in its order it would not, and may go on for ever.
pub const DRY_TIME_MAX: Duration = Duration::from_millis(100);

/// A region's table of up to this many rows is loaded whole at the first miss, so that later misses are answered
/// without asking the store.
pub const WHOLE_REGION_ROWS_MAX: usize = 1000;
/// The same in bytes, in packed form.
pub const WHOLE_REGION_BYTES_MAX: usize = 256 * 1024;

/// Regions whose tables are tried whole in one query, if nothing is known of how large they are: this and the bound above
/// limit what is read in vain.
pub const REGIONS_TRIED_MIN: usize = 32;
/// Times as many in the next query, if they turned out to be small.
pub const REGIONS_TRIED_GROWTH: usize = 16;
/// And at most, so that an answer that was expected to be small is not very large: as many as a round has events.
pub const REGIONS_TRIED_MAX: usize = ROUND_EVENTS_MAX;

/// Regions whose snapshots are computed at a time, so that what they miss is loaded together. What one of them takes in a
/// script engine while it waits is some kilobytes.
pub const SNAPSHOTS_TOGETHER_MAX: usize = 4096;

/// Script engines per lane thread. More than one, so that uneven regions can be spread; bounded, whatever the
/// number of regions.
pub const ENGINES_PER_THREAD: usize = 2;

/// Lane threads at most.
pub const LANE_THREADS_MAX: usize = 64;

/// How much larger than its target an open batch may grow while the commit thread is busy, before it is sealed and
/// waits in the channel. Sealing late writes a hot row less often.
pub const OPEN_BATCH_GROWTH_MAX: u64 = 8;

/// How long an open batch that has its events may keep growing while the same rows are written again. A crash loses
/// that much more work.
pub const OPEN_BATCH_TIME: Duration = Duration::from_millis(100);

/// How long a stream may be silent before the events that came so far are committed.
pub const LINGER: Duration = Duration::from_millis(200);

/// How long a store that has gone away, or a file that another program holds, is waited for while a run goes on: a
/// restart takes seconds, a failover up to minutes, and a person with a file open in an editor about as long.
pub const STORE_OUTAGE_MAX: Duration = Duration::from_secs(300);

/// The longest wait of any thread before it checks whether it should stop.
pub const WAIT_STEP: Duration = Duration::from_millis(50);

/// How long a drain may take by default after a stop was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one call of a handler may take by default. A handler takes microseconds: one that takes longer than
/// this is stuck.
pub const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest default of `batch.memory`, in bytes; a control group may make it less.
pub const MEMORY_BYTES_DEFAULT_MAX: u64 = 512 * 1024 * 1024;
/// The least `batch.memory`: below it a script engine and a page do not fit.
pub const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The default of `batch.events`.
pub const BATCH_EVENTS: u64 = 10_000;

/// Bytes of a pipeline name: it is a schema, a key prefix and a lock.
pub const PIPELINE_NAME_BYTES_MAX: usize = 40;

/// Bytes of the name of an entity or a column: Postgres cuts longer ones off
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>, NAMEDATALEN).
pub const NAME_BYTES_MAX: usize = 63;

/// Bytes of an id and of a region's name. Together they are a key, of which an index of Postgres takes about 2,700 bytes
/// (<https://www.postgresql.org/docs/current/btree.html>: a third of a page); a longer one would break its batch.
pub const ID_BYTES_MAX: usize = 2048;
/// See [`ID_BYTES_MAX`].
pub const REGION_BYTES_MAX: usize = 512;

/// Columns of an entity. SQLite binds 32,766 values and Postgres has 1,600 columns; nobody needs as many here.
pub const COLUMNS_MAX: usize = 200;

/// Bytes of a comment on a table or a column. Each connection of SQLite reads it with the table.
pub const COMMENT_BYTES_MAX: usize = 4096;

/// Digits before the decimal point of a `numeric`, as in Postgres
/// (<https://www.postgresql.org/docs/current/datatype-numeric.html>).
pub const NUMERIC_DIGITS_BEFORE_MAX: usize = 131_072;
/// Digits after the decimal point of a `numeric`, as in Postgres.
pub const NUMERIC_DIGITS_AFTER_MAX: usize = 16_383;

/// Digits after the point that a division of `numeric`s keeps at least, when it does not come out even.
pub const NUMERIC_DIVISION_SCALE_MIN: usize = 20;

/// Of a message that comes from a script, a handler or the data: more than anyone reads, and a log line is bounded.
pub const ERROR_BYTES_MAX: usize = 4 * 1024;

/// How deep a JSON document may be nested: what serde_json reads back at most.
pub const JSON_DEPTH_MAX: usize = 120;

/// Expired snapshots that one commit deletes at most, so that a long pause does not make one commit slow.
pub const SNAPSHOT_PRUNE_ROWS_MAX: usize = 1000;

/// Undo records that one commit deletes at most; it leaves one.
pub const HISTORY_PRUNE_RECORDS_MAX: usize = 16;

/// The default of `snapshots.ttl`: how long a snapshot is kept that is not its region's newest.
pub const SNAPSHOTS_TTL: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long a seeder's lock lasts if nobody renews it: longer than any ordinary job, shorter than anybody waits.
pub const SEED_LOCK: Duration = Duration::from_secs(15 * 60);

/// The shortest time of such a lock: it is renewed three times in that time, over connections that may be slow.
pub const SEED_LOCK_MIN: Duration = Duration::from_secs(1);

/// How long a seeder's command may take.
pub const SEED_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a seeder's command that was asked to end may take for it, before it is killed.
pub const SEED_GRACE: Duration = Duration::from_secs(5);

/// The default of `snapshots.dedup`: how long the same content of a region counts as a duplicate.
pub const SNAPSHOTS_DEDUP: Duration = Duration::from_secs(15 * 60);

/// How far the time of a document given by hand, which is its sequence number, may be ahead of the clock: hosts differ by
/// seconds, and what is wrong by more would close its region until then.
pub const SEQ_AHEAD_MAX: Duration = Duration::from_secs(3600);

/// How long a Redis that is read may take to connect, and how long it may be silent.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server that is read may be away while a run is under way: as long as a database may.
pub const SOURCE_OUTAGE_MAX: Duration = STORE_OUTAGE_MAX;

/// The default of `snapshots.pool`: connections to Redis, and threads that publish.
pub const PUBLISH_POOL: usize = 8;
/// Connections to Redis at most: each has a thread, and a server takes 10,000 clients by default.
pub const PUBLISH_POOL_MAX: usize = 256;

/// The default of `snapshots.timeout`: how long connecting to Redis may take, and how long it may be silent.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of documents in one request to Redis at most. They are held once more while they are sent.
pub const PUBLISH_REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A document above this size goes in a request of its own: a server may be set to refuse it
/// (`proto-max-bulk-len`, 1 MiB at least) by hanging up, which must touch no other region.
pub const DOCUMENT_ALONE_BYTES: usize = 1024 * 1024;

/// Bytes of a document at most: the default of `proto-max-bulk-len`
/// (<https://redis.io/docs/latest/develop/data-types/strings/>, 512 MB).
pub const DOCUMENT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Breaks of a connection that one request goes on after.
pub const PUBLISH_BREAKS_MAX: u32 = 8;

/// Waits between two tries while a slot moves, a server loads its data or a cluster elects a master.
pub const PUBLISH_RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
/// See [`PUBLISH_RETRY_WAIT_MIN`].
pub const PUBLISH_RETRY_WAIT_MAX: Duration = Duration::from_millis(500);

/// The most regions that write the summary among themselves: it is put together inside Redis, which does nothing else
/// meanwhile. With more regions it is written from here, with one more round trip.
pub const PUBLISH_VOTERS_MAX: usize = 512;

/// Regions that are taken from the store at once to be published.
pub const OUTBOX_PAGE: usize = 1000;

/// Regions whose newest snapshots are read from Redis at once by one script.
pub const REGIONS_READ_MAX: usize = 256;

/// Bytes of documents that may wait for the publish thread within a memory budget of `memory_bytes`. Beyond it they are
/// read from the store again.
pub fn publish_waiting_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / 16).unwrap_or(usize::MAX)
}

const _: () = assert!(READ_AHEAD_BYTES_MIN >= 2 * PAGE_BYTES, "two pages must fit, or reading and handling alternate");
const _: () = assert!(READ_AHEAD_BYTES_MAX as u64 <= MEMORY_BYTES_MIN, "the read-ahead is part of the memory budget");
const _: () = assert!(CHUNK_EVENTS_MAX <= ROUND_EVENTS_MAX);

/// Bytes of events that are spread over the lanes at a time within a memory budget of `memory_bytes`: what handlers
/// write is about as large as what they read, and a round must fit beside what is staged.
pub fn round_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / 64).unwrap_or(usize::MAX).min(READ_AHEAD_BYTES_MAX / 2)
}

/// Bytes that may be read ahead within a memory budget of `memory_bytes`.
pub fn read_ahead_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / 16).unwrap_or(usize::MAX).clamp(READ_AHEAD_BYTES_MIN, READ_AHEAD_BYTES_MAX)
}

/// Rows of one table that go to Postgres as arrays: up to here it is faster than a COPY, which costs two round trips.
pub const UNNEST_ROWS_MAX: usize = 1000;
