//! The Lua files of the inner side: their order, and how they are put together.

use std::sync::LazyLock;

use mlua::chunk::ChunkMode;
use mlua::prelude::*;

use super::layout;
use crate::model::schema::Schema;

/// A Lua file.
pub(super) struct Piece {
    pub(super) name: &'static str,
    /// Its text behind the constants that it uses, compiled.
    code: LuaResult<Vec<u8>>,
}

#[cfg(test)]
impl Piece {
    /// The same piece with its code changed.
    pub(super) fn changed(&self, change: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>) -> Self {
        let code = self.code.clone().and_then(|code| change(&code).map_err(LuaError::runtime));
        Self { name: self.name, code }
    }
}

/// In the order in which they are loaded: each asks only for what those before it give.
pub(super) const FILES: [(&str, &str); 29] = [
    ("layout", include_str!("layout.lua")),
    ("protected", include_str!("protected.lua")),
    ("numeric", include_str!("numeric.lua")),
    ("values", include_str!("values.lua")),
    ("times", include_str!("times.lua")),
    ("arithmetic", include_str!("arithmetic.lua")),
    ("events", include_str!("events.lua")),
    ("rows", include_str!("rows.lua")),
    ("misses", include_str!("misses.lua")),
    ("undo", include_str!("undo.lua")),
    ("arguments", include_str!("arguments.lua")),
    ("dry", include_str!("dry.lua")),
    ("ordered", include_str!("ordered.lua")),
    ("queries", include_str!("queries.lua")),
    ("indexes", include_str!("indexes.lua")),
    ("journal", include_str!("journal.lua")),
    ("find", include_str!("find.lua")),
    ("writes", include_str!("writes.lua")),
    ("kinds", include_str!("kinds.lua")),
    ("adds", include_str!("adds.lua")),
    ("context", include_str!("context.lua")),
    ("sweep", include_str!("sweep.lua")),
    ("seal", include_str!("seal.lua")),
    ("calls", include_str!("calls.lua")),
    ("library", include_str!("library.lua")),
    ("bounded", include_str!("bounded.lua")),
    ("texts", include_str!("texts.lua")),
    ("frozen", include_str!("frozen.lua")),
    // The last, as it changes the library that all share.
    ("sandbox", include_str!("sandbox.lua")),
];

/// All of them, compiled once a process: each VM after the first has them for a fraction of that.
pub(super) static PIECES: LazyLock<Vec<Piece>> = LazyLock::new(|| {
    let lua = Lua::new();
    FILES.iter().map(|(name, text)| Piece { name, code: compile(&lua, name, text) }).collect()
});

fn compile(lua: &Lua, name: &str, text: &str) -> LuaResult<Vec<u8>> {
    let source = format!("{}{text}", layout::prefix(text));
    Ok(lua.load(source).set_name(format!("=inner:{name}")).into_function()?.dump(false))
}

/// The table that the pieces share, with what they need from outside.
pub(super) fn inner_table(lua: &Lua, host: LuaTable, kinds: LuaTable, script_name: &str) -> LuaResult<LuaTable> {
    let (constants, lists) = (lua.create_table()?, lua.create_table()?);
    for (name, value) in layout::constants() {
        constants.raw_set(name, value)?;
    }
    for list in layout::LISTS {
        lists.raw_set(list.name, list.entries)?;
    }
    let layout = lua.create_table()?;
    layout.raw_set("constants", constants)?;
    layout.raw_set("lists", lists)?;
    let inner = lua.create_table()?;
    inner.raw_set("layout", layout)?;
    inner.raw_set("host", host)?;
    inner.raw_set("kinds_given", kinds)?;
    inner.raw_set("script_name", script_name)?;
    Ok(inner)
}

/// The entities as `kinds.lua` takes them.
pub(super) fn kinds_table(lua: &Lua, schema: &Schema) -> LuaResult<LuaTable> {
    let kinds = lua.create_table()?;
    for entity in schema.entities() {
        let columns = lua.create_table()?;
        for column in &entity.columns {
            let entry = lua.create_table()?;
            entry.raw_set("name", column.name.as_str())?;
            entry.raw_set("type", column.kind.name())?;
            entry.raw_set("indexed", entity.indexes.contains(&column.name))?;
            columns.raw_push(entry)?;
        }
        let kind = lua.create_table()?;
        kind.raw_set("name", entity.name.as_str())?;
        kind.raw_set("columns", columns)?;
        kinds.raw_push(kind)?;
    }
    Ok(kinds)
}

/// Loads one piece and adds what it returns to `inner`.
///
/// # Errors
/// It asks for a name that nobody gives, gives one that is there already, or does not fit the layout.
pub(super) fn load(lua: &Lua, inner: &LuaTable, piece: &Piece) -> LuaResult<()> {
    let code = piece.code.as_ref().map_err(LuaError::clone)?;
    let given: LuaTable = lua.load(code.as_slice()).set_mode(ChunkMode::Binary).call(inner)?;
    for pair in given.pairs::<String, LuaValue>() {
        let (name, value) = pair?;
        if inner.raw_get::<LuaValue>(name.as_str())? != LuaValue::Nil {
            return Err(LuaError::runtime(format!("{}.lua gives {name}, which is there already", piece.name)));
        }
        inner.raw_set(name, value)?;
    }
    Ok(())
}

/// What all numbers and all functions answer to.
pub(super) fn set_type_metatables(lua: &Lua, inner: &LuaTable) -> LuaResult<()> {
    lua.set_type_metatable::<LuaNumber>(Some(inner.get("number_meta")?));
    lua.set_type_metatable::<LuaFunction>(Some(inner.get("function_meta")?));
    Ok(())
}
