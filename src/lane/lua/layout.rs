//! The numbers that the Lua files and the host share, each written here and nowhere else.
//!
//! Every Lua file sees them as constants: [`prefix`] declares those that a file uses, on its first line, so that lines
//! keep their numbers. Lua folds a constant that is declared alone into the instructions: `state[YOUNG]` costs no look-up.

use std::fmt::Write as _;

use super::encoder::DECIMALS_MAX;
use super::json::FROM_JSON;
use crate::model::limits::{DRY_EVENTS_MAX, FIND_ROWS_ALL, FIND_ROWS_MORE, FIND_ROWS_TIMES, ID_BYTES_MAX};
use crate::rows::codec::{COLUMNS_PER_MASK, Change, NUMERIC_LIMB};

/// What a call into the VM answers: it is done, or it misses rows, or the handler failed.
pub(super) const DONE: i64 = 0;
pub(super) const MISSED: i64 = 1;
const FAILED: i64 = 2;
/// The handler failed, and not for its event: it used what it may not keep.
pub(super) const MISUSED: i64 = 3;
/// The memory is used up.
pub(super) const SHORT: i64 = 4;

/// The place of the first snapshot among the suspended calls, others come below; lanes have theirs from 1.
pub(super) const SNAPSHOT_CALL: i64 = 0;

/// A list whose entries have names: the first is 1. `layout.lua` makes such lists, and checks that nothing is forgotten.
pub(super) struct List {
    pub(super) name: &'static str,
    pub(super) entries: &'static [&'static str],
}

/// What is kept of the run as a whole.
const RUN_STATE: List = List {
    name: "run_state",
    entries: &[
        "MODE",   // RUN, DRY or SNAPSHOT
        "BATCH",  // the open one
        "WRITER", // the event that is being handled: its file and line, as a number; a row carries it
        "BLOCK",  // the block of that event
        "COMMITTED",
        "EVENT",  // that event as the handler sees it
        "REGION", // the region that is being handled
        "ENDED",  // what has ended the current call, whatever the script catches; else false
        // Of the event that is run dry, and the event that is suspended meanwhile.
        "DRY_WRITES", // table state -> id -> cells, or false
        "DRY_READS",
        "SUSPENDED_WRITER",
    ],
};

/// What is kept of one table of one region.
const TABLE_STATE: List = List {
    name: "table_state",
    entries: &[
        "YOUNG", // id -> slot of the row, or false if it is known that there is none; used since the last sweep
        "OLD",   // the same, not used since
        // id -> the batch that changed it last; of rows that are written it is kept only while the table is read and
        // not whole.
        "CHANGED",
        "DIRTY", // slots of the rows that the open batch wrote
        "DIRTY_COUNT",
        "WHOLE", // whether every row of the table is here
        "KIND",
        "REGION_NUMBER",
        "TRIED",    // whether the host was asked for the whole table
        "SEGMENTS", // lists of cells
        "FOUND",    // key of a query -> what the store found
        "COUNTS",   // the same for counts
        "INDEXES",  // column (0 is the id) -> the rows in its order
        "TOP",      // the last slot in use
        "FREE",     // slots below it that are not
        "FREE_COUNT",
        "GONE",     // ids of rows that the open batch deleted
        "TOUCHED",  // whether the open batch changed anything
        "ROWS",     // how many rows are here
        "FILTERED", // whether the host knows which rows there may be: one that is not here may be known to be new
    ],
};

/// The lists whose entries have names.
pub(super) const LISTS: [List; 2] = [RUN_STATE, TABLE_STATE];

/// All other constants.
const NUMBERS: [(&str, i64); 28] = [
    // Modes.
    ("RUN", 1),
    ("DRY", 2),
    ("SNAPSHOT", 3),
    // What a call answers.
    ("DONE", DONE),
    ("MISSED", MISSED),
    ("FAILED", FAILED),
    ("MISUSED", MISUSED),
    ("SHORT", SHORT),
    ("SNAPSHOT_CALL", SNAPSHOT_CALL),
    // A slot is the number of a segment, shifted, and that of the row's first cell in it.
    ("SHIFT", 16),
    ("MASK", 0xffff),
    ("SEGMENT_CELLS", 4096),
    // The packed form of rows.
    ("DELETED", Change::Deleted as i64),
    ("WRITTEN", Change::Written as i64),
    ("NEW", Change::New as i64),
    ("COLUMNS_PER_MASK", COLUMNS_PER_MASK as i64),
    ("LIMB", NUMERIC_LIMB as i64),
    // What a row was before a block.
    ("ABSENT", 0),
    ("ROW", 1),
    ("UNKNOWN", 2), // what is committed decides
    ("NO_LIMIT", -1),
    ("FROM_JSON", FROM_JSON),
    // Limits.
    ("HINTS_MAX", DECIMALS_MAX as i64),
    ("DRY_EVENTS_MAX", DRY_EVENTS_MAX as i64),
    ("FIND_ROWS_TIMES", FIND_ROWS_TIMES as i64),
    ("FIND_ROWS_MORE", FIND_ROWS_MORE as i64),
    ("FIND_ROWS_ALL", FIND_ROWS_ALL as i64),
    ("ID_BYTES_MAX", ID_BYTES_MAX as i64),
];

/// All constants by name.
pub(super) fn constants() -> impl Iterator<Item = (&'static str, i64)> {
    let entries = LISTS.iter().flat_map(|list| list.entries.iter().copied().zip(1..));
    entries.chain(NUMBERS)
}

/// Declares the constants that a Lua file uses, in one line without its end.
pub(super) fn prefix(text: &str) -> String {
    let is_capital = |letter: &u8| letter.is_ascii_uppercase() || *letter == b'_';
    let mut words: Vec<&[u8]> = text
        .as_bytes()
        .split(|letter| !letter.is_ascii_alphanumeric() && *letter != b'_')
        .filter(|word| word.len() > 1 && word.iter().all(is_capital))
        .collect();
    words.sort_unstable();
    words.dedup();
    let mut declared = String::new();
    for (name, value) in constants().filter(|(name, _)| words.binary_search(&name.as_bytes()).is_ok()) {
        // One at a time: of several that are declared together, Lua folds only the last.
        let _ = write!(declared, "local {name} <const> = {value} ");
    }
    declared
}
