//! What is changed in a compiled script before it runs: its arithmetic is checked, and so are its texts and what it keeps.
//!
//! | file | holds |
//! |---|---|
//! | `dump` | a compiled script, taken apart and put together |
//! | `op` | instructions |
//! | `arithmetic` | sums, differences and products that are checked |
//! | `texts` | numbers that become texts, and texts in place of numbers |
//! | `keeping` | what a script keeps beyond a call: found once it is loaded, and read-only from then on |
//! | `insert` | instructions put between others |

mod arithmetic;
mod dump;
mod insert;
mod keeping;
mod op;
mod texts;

use dump::Function;

/// Has the arithmetic of a compiled script checked, and lets it be known what the script keeps.
///
/// # Errors
/// The code is not of the Lua that is built in, has no room for what checks it, or assigns to what cannot be assigned to.
pub(super) fn check(code: &[u8]) -> Result<Vec<u8>, String> {
    let mut main = dump::read(code).ok_or("the compiled script is not of the Lua that is built in")?;
    let checked = each(&mut main, arithmetic::check).and_then(|()| each(&mut main, texts::check));
    checked.map_err(|line| {
        let at = if line == 0 { String::new() } else { format!("{}:{line}: ", name_of(&main)) };
        format!("{at}the function has too many locals, or loops that are too long, to be checked; split it")
    })?;
    keeping::keep(&mut main)?;
    dump::write(&main).ok_or_else(|| "the script is too large".to_owned())
}

/// Changes a function and those within it.
///
/// # Errors
/// One has no room for it: the line where it begins.
fn each(function: &mut Function, change: fn(&mut Function) -> Option<()>) -> Result<(), u32> {
    change(function).ok_or(function.first_line)?;
    function.functions.iter_mut().try_for_each(|inner| each(inner, change))
}

/// The name of the script's file.
fn name_of(main: &Function) -> String {
    String::from_utf8_lossy(main.source.strip_prefix(b"@").unwrap_or(&main.source)).into_owned()
}

/// The same code, changed as far as it lets be known what it keeps.
#[cfg(test)]
pub(super) fn kept(code: &[u8]) -> Result<Vec<u8>, String> {
    let mut main = dump::read(code).ok_or("not of the Lua that is built in")?;
    keeping::keep(&mut main)?;
    dump::write(&main).ok_or_else(|| "too large".into())
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;

    fn compiled(text: &str) -> Vec<u8> {
        Lua::new().load(text).set_name("=script").into_function().expect("a script").dump(false)
    }

    /// The same code with its arithmetic checked, and nothing else.
    fn with_sums(code: &[u8]) -> Vec<u8> {
        let mut main = dump::read(code).expect("the Lua that is built in");
        each(&mut main, arithmetic::check).expect("room");
        dump::write(&main).expect("a script")
    }

    /// What a function of `a` and `b` with that body returns; an error is a text.
    fn result(body: &str, a: &str, b: &str) -> String {
        let lua = Lua::new();
        let number = lua.create_table().expect("a table");
        // As `arithmetic.lua`: what comes here has left 64 bits, is a product, or is no number.
        let called = |event: &'static str| move |_: &Lua, _: mlua::MultiValue| Ok(event);
        for event in ["add", "sub", "mul", "idiv", "unm", "band", "bor", "bxor", "shl", "shr", "bnot"] {
            let function = lua.create_function(called(event)).expect("a function");
            number.raw_set(format!("__{event}"), function).expect("set");
        }
        // What the script keeps is asked for by this one.
        number
            .raw_set("__mode", lua.create_function(|_, _: mlua::MultiValue| Ok(())).expect("a function"))
            .expect("set");
        lua.set_type_metatable::<mlua::Number>(Some(number.clone()));
        let text = format!("local function f(a, b) {body} end return f({a}, {b})");
        let code = with_sums(&compiled(&text));
        let chunk = lua.load(&code[..]).set_mode(mlua::chunk::ChunkMode::Binary);
        match chunk.eval::<mlua::Value>() {
            Ok(value) => value.to_string().expect("a text"),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_leaves_64_bits_goes_to_the_metamethod_and_nothing_else_does() {
        const MAX: &str = "9223372036854775807";
        const MIN: &str = "math.mininteger";
        for (body, a, b, expected) in [
            ("return a + b", "1", "2", "3"),
            ("return a + b", "-1", "2", "1"),
            ("return a + b", MAX, "0", MAX),
            ("return a + b", MAX, "-1", "9223372036854775806"),
            ("return a + b", MAX, "1", "add"),
            ("return a + b", MIN, "-1", "add"),
            ("return a + b", MIN, MIN, "add"),
            ("return a - b", "1", "2", "-1"),
            ("return a - b", MIN, "1", "sub"),
            ("return a - b", "0", MIN, "sub"),
            ("return a - b", "-1", MIN, MAX),
            ("return a - b", MAX, "-1", "sub"),
            ("return a + b", "0.5", "1", "1.5"),
            ("return a + b", "2.0", "3.5", "5.5"),
            ("return a + b", "2^63", "2.0^62", "13835058055282164000"),
            ("return a - b", "1", "0.5", "0.5"),
            ("return a + b", "1", "nil", "add"),
            ("return a + b", "{}", "1", "add"),
            ("return a + 1", MAX, "0", "add"),
            ("return a + 1", "9223372036854775806", "0", MAX),
            ("return 1 + a", MAX, "0", "add"),
            ("return a - 1", MIN, "0", "sub"),
            ("return a - 1", MAX, "0", "9223372036854775806"),
            ("return a - -1", MAX, "0", "sub"),
            ("return a + 1", "1.5", "0", "2.5"),
            ("return a + 1", "nil", "0", "add"),
            ("return a + 1000", "1", "0", "1001"),
            ("return a + 1152921504606846975", "8070450532247928833", "0", "add"),
            ("return a - 1152921504606846975", "-8070450532247928834", "0", "sub"),
            ("return a - 1152921504606846975", "-8070450532247928833", "0", "-9223372036854775808"),
            ("return a + 0.5", "1", "0", "1.5"),
            ("return a * b", "2", "3", "mul"),
            ("return a // b", "7", "2", "3"),
            ("return a // b", "7", "-2", "-4"),
            ("return a // b", MIN, "-1", "idiv"),
            ("return a // b", "7.5", "2", "3"),
            ("return a // -1", "7", "0", "idiv"),
            ("return a // 2", "7", "0", "3"),
            ("a = a // b return a", "9", "3", "3"),
            ("return -a", "7", "0", "-7"),
            ("return -a", MIN, "0", "unm"),
            ("return -a", "2.5", "0", "-2.5"),
            ("return -a", "1e20", "0", "-100000000000000000000"),
            ("a = -a return a", "9", "3", "-9"),
            ("return a & b", "12", "10", "8"),
            ("return a & b", "2^53", "1", "band"),
            ("return a & b", "1", "2^53", "band"),
            ("return a & b", "2.0", "3.0", "2"),
            ("return a & b", "2.5", "1", "band"),
            ("return a & 7", "9007199254740991", "0", "7"),
            ("return a & 7", "2^60", "0", "band"),
            ("return 7 & a", "2^60", "0", "band"),
            ("return a | b", "12", "10", "14"),
            ("return a | 0", "2^53", "0", "bor"),
            ("return a | 0", "{}", "0", "bor"),
            ("return a ~ b", "12", "10", "6"),
            ("return a ~ b", "2^53", "10", "bxor"),
            ("return a << b", "1", "4", "16"),
            ("return a << 4", "1", "0", "16"),
            ("return a << 4", "2^53", "0", "shl"),
            ("return 1 << a", "4", "0", "16"),
            ("return a >> 4", "256", "0", "16"),
            ("return a >> b", "2^53", "1", "shr"),
            ("a = a >> b return a", "256", "4", "16"),
            ("return ~a", "5", "0", "-6"),
            ("return ~a", "2^53", "0", "bnot"),
            ("return a & b | a ~ b", "12", "10", "14"),
            ("if a & b == 8 then return -a end return 0", "12", "10", "-12"),
            ("a = a + b a = a + b return a", "1", "2", "5"),
            ("b = a + b return b", "1", "2", "3"),
            ("for i = 1, 63 do a = a + a end return a", "1", "0", "add"),
            ("for i = 1, 3 do a = a + 1 end return a", "1", "0", "4"),
            ("local t = { a + b, a - b, [a + 2] = b } return t[1] .. t[2] .. #t", "1", "2", "3-13"),
            ("if a + b > 2 then return a - b end return 'no'", "1", "2", "-1"),
            ("while a < 10 do a = a + b end return a", "1", "4", "13"),
            ("return (function(...) local x = ... return x + a end)(b, b)", "1", "2", "3"),
        ] {
            assert_eq!(result(body, a, b), expected, "{body} of {a} and {b}");
        }
    }

    #[test]
    fn a_loop_that_would_be_too_long_is_checked_by_calls() {
        let body = "a = a + b ".repeat(12_000);
        assert_eq!(result(&format!("for i = 1, 1 do {body} end return a"), "1", "1"), "add");
        assert_eq!(result(&format!("while true do {body} return a end"), "1", "1"), "12001");
    }

    #[test]
    fn a_function_without_room_is_checked_by_calls() {
        let locals: Vec<String> = (0..197).map(|at| format!("l{at}")).collect();
        let sums = (0..50).map(|at| format!("l{at}")).collect::<Vec<_>>().join(", ");
        let body = format!("local {} = a return f2({sums}, a + b)", locals.join(", "));
        let text = format!(
            "local function f2(...) return (select(51, ...)) end local function f(a, b) {body} end return f(1, 2)"
        );
        let code = with_sums(&compiled(&text));
        let lua = Lua::new();
        let chunk = lua.load(&code[..]).set_mode(mlua::chunk::ChunkMode::Binary);
        // Without a metamethod of numbers the operation fails.
        assert!(chunk.eval::<i64>().is_err());
    }
}
