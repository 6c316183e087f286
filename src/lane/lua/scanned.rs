//! What is known of rows that the VM does not have: guessed, or found by the scan.

use std::sync::Arc;

use mlua::prelude::*;

use super::ScriptEngine;
use crate::model::ids::EntityNo;
use crate::rows::existence::KnownRows;

impl ScriptEngine {
    /// Where new rows are guessed, each that is not here may be one, as where it is known which rows there may be.
    pub(super) fn guess(&self) -> LuaResult<()> {
        if !self.context.scan.guesses_new() {
            return Ok(());
        }
        let inner = self.host.inner()?;
        (1..=self.host.schema.entities().len()).try_for_each(|kind| inner.set_filtered.call(kind))
    }

    /// Tells the scan which rows were not known, and takes in what it has found since.
    pub(super) fn catch_up(&self) -> LuaResult<()> {
        let (inner, scan) = (self.host.inner()?, &self.context.scan);
        let is_complete: Vec<bool> = self.host.lock().known.iter().map(KnownRows::is_complete).collect();
        for (entity, _) in EntityNo::in_order().zip(is_complete).filter(|(_, is_complete)| !is_complete) {
            scan.note_unknown(entity, inner.take_unknown.call(entity.index() + 1)?);
            scan.note_unknown(entity, self.host.lock().known[entity.index()].take_unknown());
            if let Some(found) = scan.found(entity) {
                inner.set_filtered.call::<()>(entity.index() + 1)?;
                self.host.lock().known[entity.index()].complete(Arc::clone(found));
            }
        }
        Ok(())
    }
}
