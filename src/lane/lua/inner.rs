//! The functions of the inner side (the Lua files) that the host calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use mlua::WeakLua;
use mlua::prelude::*;

/// What the host calls of it.
pub(super) struct Inner {
    pub(super) run: LuaFunction,
    pub(super) run_few: LuaFunction,
    pub(super) resume: LuaFunction,
    pub(super) pass_over: LuaFunction,
    pub(super) pass_over_few: LuaFunction,
    pub(super) snapshot: LuaFunction,
    pub(super) seal: LuaFunction,
    pub(super) changed_rows: LuaFunction,
    pub(super) sweep: LuaFunction,
    pub(super) forget: LuaFunction,
    pub(super) supply: LuaFunction,
    pub(super) supply_found: LuaFunction,
    pub(super) begin_batch: LuaFunction,
    pub(super) take_unknown: LuaFunction,
    pub(super) set_filtered: LuaFunction,
    pub(super) define_region: LuaFunction,
    pub(super) define_projection: LuaFunction,
    pub(super) define_shape: LuaFunction,
    pub(super) define_texts: LuaFunction,
    pub(super) load_script: LuaFunction,
    /// What an encoder should look at instead of a table with a metatable.
    pub(super) plain: LuaFunction,
    /// Makes the exact number that stood in JSON from its canonical text.
    pub(super) exact: LuaFunction,
    /// Makes an exact number of its canonical text.
    pub(super) canonical: LuaFunction,
    pub(super) numeric_meta: LuaTable,
    pub(super) array_meta: LuaTable,
    /// That of arrays which may not change.
    pub(super) frozen_array_meta: LuaTable,
    /// Bytes that the VM may take.
    memory_bytes: AtomicUsize,
    // Weak: the VM's own functions hold this, and would otherwise keep the VM alive for ever.
    lua: WeakLua,
}

impl Inner {
    pub(super) fn new(lua: &Lua, inner: &LuaTable, memory_bytes: usize) -> LuaResult<Self> {
        Ok(Self {
            run: inner.get("run")?,
            run_few: inner.get("run_few")?,
            resume: inner.get("resume")?,
            pass_over: inner.get("pass_over")?,
            pass_over_few: inner.get("pass_over_few")?,
            snapshot: inner.get("snapshot")?,
            seal: inner.get("seal")?,
            changed_rows: inner.get("changed_rows")?,
            sweep: inner.get("sweep")?,
            forget: inner.get("forget")?,
            supply: inner.get("supply")?,
            supply_found: inner.get("supply_found")?,
            begin_batch: inner.get("begin_batch")?,
            take_unknown: inner.get("take_unknown")?,
            set_filtered: inner.get("set_filtered")?,
            define_region: inner.get("define_region")?,
            define_projection: inner.get("define_projection")?,
            define_shape: inner.get("define_shape")?,
            define_texts: inner.get("define_texts")?,
            load_script: inner.get("load_script")?,
            plain: inner.get("plain")?,
            exact: inner.get("exact")?,
            canonical: inner.get("canonical")?,
            numeric_meta: inner.get("numeric_meta")?,
            array_meta: inner.get("array_meta")?,
            frozen_array_meta: inner.get("frozen_array_meta")?,
            memory_bytes: memory_bytes.into(),
            lua: lua.weak(),
        })
    }

    /// Bytes that the VM may take yet.
    pub(super) fn memory_left(&self) -> usize {
        let limit = self.memory_bytes.load(Ordering::Relaxed);
        self.lua.try_upgrade().map_or(0, |lua| limit.saturating_sub(lua.used_memory()))
    }

    /// The VM may take so many bytes from now on.
    pub(super) fn set_memory(&self, memory_bytes: usize) {
        self.memory_bytes.store(memory_bytes, Ordering::Relaxed);
    }

    /// Packed bytes as a text of the VM.
    pub(super) fn supply_text(&self, bytes: &[u8]) -> LuaResult<LuaString> {
        self.lua.try_upgrade().ok_or_else(|| LuaError::runtime("the VM is gone"))?.create_string(bytes)
    }
}
