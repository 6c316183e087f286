//! The functions of the inner side (`prelude.lua`) that the host calls.

use mlua::WeakLua;
use mlua::prelude::*;

/// What the prelude returns.
pub(super) struct Inner {
    pub(super) run: LuaFunction,
    pub(super) resume: LuaFunction,
    pub(super) snapshot: LuaFunction,
    pub(super) seal: LuaFunction,
    pub(super) changed_rows: LuaFunction,
    pub(super) sweep: LuaFunction,
    pub(super) forget: LuaFunction,
    pub(super) supply: LuaFunction,
    pub(super) supply_found: LuaFunction,
    pub(super) begin_batch: LuaFunction,
    pub(super) define_region: LuaFunction,
    pub(super) define_hot: LuaFunction,
    pub(super) define_shape: LuaFunction,
    pub(super) define_texts: LuaFunction,
    pub(super) load: LuaFunction,
    /// Makes an exact number from its canonical text.
    pub(super) numeric: LuaFunction,
    pub(super) numeric_meta: LuaTable,
    pub(super) array_meta: LuaTable,
    border: LuaTable,
    // Weak: the VM's own functions hold this, and would otherwise keep the VM alive for ever.
    lua: WeakLua,
}

impl Inner {
    pub(super) fn new(lua: &Lua, border: LuaTable) -> LuaResult<Self> {
        Ok(Self {
            run: border.raw_get("run")?,
            resume: border.raw_get("resume")?,
            snapshot: border.raw_get("snapshot")?,
            seal: border.raw_get("seal")?,
            changed_rows: border.raw_get("changed_rows")?,
            sweep: border.raw_get("sweep")?,
            forget: border.raw_get("forget")?,
            supply: border.raw_get("supply")?,
            supply_found: border.raw_get("supply_found")?,
            begin_batch: border.raw_get("begin_batch")?,
            define_region: border.raw_get("define_region")?,
            define_hot: border.raw_get("define_hot")?,
            define_shape: border.raw_get("define_shape")?,
            define_texts: border.raw_get("define_texts")?,
            load: border.raw_get("load")?,
            numeric: border.raw_get("numeric")?,
            numeric_meta: border.raw_get("numeric_meta")?,
            array_meta: border.raw_get("array_meta")?,
            border,
            lua: lua.weak(),
        })
    }

    /// Packed bytes as a text of the VM.
    pub(super) fn supply_text(&self, bytes: &[u8]) -> LuaResult<LuaString> {
        self.lua.try_upgrade().ok_or_else(|| LuaError::runtime("the VM is gone"))?.create_string(bytes)
    }

    /// What an encoder should look at instead of a table with a metatable. There once the script is loaded.
    pub(super) fn plain(&self) -> Option<LuaFunction> {
        self.border.raw_get("plain").ok()
    }
}
