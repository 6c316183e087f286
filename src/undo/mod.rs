//! The undo log: what rows were before a block changed them, so that a rollback can put them back.
//!
//! `log` is the format, `window` says how far back a pipeline can go, `rollback` plans one. Data in, data out: reads no
//! store and writes none.

mod error;
mod log;
mod rollback;
#[cfg(test)]
mod test_samples;
mod window;

pub use error::UndoError;
pub use log::{
    BeforeImages, BlockMark, BlockTouch, UndoBase, UndoHead, UndoRecord, begin_entry, push_absent, push_row,
    push_section, record,
};
pub use rollback::{RegionUndo, RollbackPlan, Undone, plan_rollback};
pub use window::Window;
