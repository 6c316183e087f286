//! Tests of the Lua files in a VM: each file of `tests/` loads some of the pieces over a host that it makes itself.

use mlua::prelude::*;

use super::bytecode;
use super::{host, layout, pieces};
use crate::model::value::ColumnType;

/// What the tests have: see `tests/harness.lua`. If the pieces are `kept`, their code is changed as that of a script is.
fn harness(lua: &Lua, is_kept: bool) -> LuaResult<LuaTable> {
    if is_kept {
        let answers = "local probe = {} return { __mode = function() return probe end }, { __mode = function() end }";
        let (of_numbers, of_functions): (LuaTable, LuaTable) = lua.load(answers).eval()?;
        lua.set_type_metatable::<LuaNumber>(Some(of_numbers));
        lua.set_type_metatable::<LuaFunction>(Some(of_functions));
    }
    let real = lua.create_table()?;
    host::numeric_functions(lua, &real)?;
    host::script_functions(lua, &real)?;
    real.raw_set("column_types", ColumnType::ALL.map(ColumnType::name))?;
    let load = move |lua: &Lua, (host, kinds, last): (LuaTable, LuaTable, String)| {
        let inner = pieces::inner_table(lua, host, kinds, "handlers.lua")?;
        let end = pieces::PIECES.iter().position(|piece| piece.name == last);
        for piece in &pieces::PIECES[..=end.ok_or_else(|| LuaError::runtime(format!("no piece {last}")))?] {
            match is_kept {
                true => pieces::load(lua, &inner, &piece.changed(bytecode::kept))?,
                false => pieces::load(lua, &inner, piece)?,
            }
        }
        if last == "sandbox" {
            pieces::set_type_metatables(lua, &inner)?;
        } else if !is_kept {
            // As in a run, all values but tables, booleans and nil have a metatable.
            lua.set_type_metatable::<LuaNumber>(inner.raw_get("number_meta")?);
            lua.set_type_metatable::<LuaFunction>(Some(lua.create_table()?));
        }
        Ok(inner)
    };
    let constants = lua.create_table()?;
    for (name, value) in layout::constants() {
        constants.raw_set(name, value)?;
    }
    let text = include_str!("tests/harness.lua");
    lua.load(text).set_name("=harness").call((lua.create_function(load)?, real, constants))
}

/// Runs the tests of one file: a table of functions by name.
fn run(name: &str, text: &str, is_kept: bool) {
    let lua = Lua::new();
    let source = format!("{}{text}", layout::prefix(text));
    let chunk = lua.load(source).set_name(format!("={name}")).into_function().unwrap();
    let tests: LuaTable = chunk.call(harness(&lua, is_kept).unwrap()).unwrap();
    let mut failed = Vec::new();
    let mut count = 0;
    for pair in tests.pairs::<String, LuaFunction>() {
        let (test, function) = pair.unwrap();
        count += 1;
        if let Err(error) = function.call::<()>(()) {
            failed.push(format!("{name}.lua: {test}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count > 0, "{name}.lua has no tests");
}

macro_rules! lua_tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), include_str!(concat!("tests/", stringify!($name), ".lua")), false);
        })*

        /// The inner side is Lua of all kinds: with what is put into a script's code it does what it did.
        #[test]
        fn code_that_is_changed_does_what_it_did() {
            $(if !["keeping", "order", "texts"].contains(&stringify!($name)) {
                run(stringify!($name), include_str!(concat!("tests/", stringify!($name), ".lua")), true);
            })*
        }
    };
}

lua_tests! {
    layout_is_checked kinds_and_types rows writes undo journal sweep seal events numeric arithmetic queries calls adds
    keeping kept order protected texts
}

/// Some locals are always left in each file's main function, which may have 200.
#[test]
fn every_piece_has_room_for_ten_more_locals() {
    let lua = Lua::new();
    for (name, text) in pieces::FILES {
        let (body, end) = text.rsplit_once("\nreturn ").unwrap();
        let more: String = (0..10).map(|at| format!("local spare_{at} = 0 ")).collect();
        let longer = format!("{}{body}\n{more}\nreturn {end}", layout::prefix(text));
        let compiled = lua.load(longer).into_function();
        assert!(compiled.is_ok(), "{name}: {}", compiled.unwrap_err());
    }
}

#[test]
fn constants_have_one_name_each_and_all_are_used() {
    let mut names: Vec<&str> = layout::constants().map(|(name, _)| name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a constant is given twice");
    for name in names {
        let is_used = |text: &str| layout::prefix(text).contains(&format!("local {name} <const>"));
        assert!(pieces::FILES.iter().any(|(_, text)| is_used(text)), "{name} is used by no file");
    }
}

/// The constants lie before the first line, which is a comment, so that errors name the right ones.
#[test]
fn lines_keep_their_numbers() {
    for (name, text) in pieces::FILES {
        assert!(text.starts_with("-- "), "{name}");
        assert!(!layout::prefix(text).contains('\n'), "{name}");
    }
}
