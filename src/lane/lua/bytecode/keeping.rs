//! What a script keeps from one call to the next. Rows are the place for that: anything else is gone when a run ends, and
//! is seen by the calls of other regions while one waits for a row. So once a script is loaded, what it can reach may not
//! change: `frozen.lua` refuses functions that assign to what outlives a call, and makes tables read-only. Lua tells
//! neither what a function holds nor who writes to a table, so instructions are put in that do:
//!
//! - Before each write to a table, the table is compared with one that is like no other, the *probe*. To compare costs
//!   next to nothing, but a table that is read-only has an `__eq`, which raises. To read it costs nothing at all. A table
//!   that is written to within its own constructor is new.
//! - Behind each closure that shares locals with the functions around it, as long as the script is being loaded, another
//!   one is made that shares the same ones: its *reader*, which returns them. The two are handed out together.
//!
//! Functions find the probe, and whether the script is being loaded, in two hidden upvalues of the main chunk, which its
//! first instructions fill. The inner side gives and takes through the metamethod `__mode` of numbers and functions, which
//! no operation of a script calls.

use super::dump::{Constant, Function, Upvalue};
use super::insert::Insertions;
use super::op::{self, abc, abx, jump_target, operation, register, second, wide};

/// Upvalues of one reader: each takes two of its registers.
const READ_TOGETHER: usize = 100;
/// Bytes of a name that are shown.
const NAME_MAX: usize = 40;
/// The most registers and upvalues of a function.
const COUNT_MAX: usize = 255;
/// Where the main chunk has the globals, the probe, and whether it is being loaded.
const MAIN_PROBE: u8 = 1;
const MAIN_LOADING: u8 = 2;

/// Where a function assigns to what it shares with a function around it.
#[derive(Debug, Clone)]
struct Assigned {
    line: u32,
    name: Vec<u8>,
}

/// What is found in a function.
struct Found {
    /// For each upvalue, whether it is the table of globals.
    is_globals: Vec<bool>,
    /// For each upvalue, where the function or one within it assigns to it.
    assigned: Vec<Option<Assigned>>,
    /// The instructions before which the table is compared.
    writes: Vec<usize>,
    /// Whether it or a function within it asks for the hidden upvalues.
    needs_hidden: bool,
    inside: Vec<Found>,
}

impl Found {
    /// Whether it holds more than globals.
    fn shares(&self) -> bool {
        self.is_globals.contains(&false)
    }
}

/// Lets it be known what a script keeps, and stops writes to what is read-only.
///
/// # Errors
/// It assigns to `_ENV`, or is too large.
pub(super) fn keep(main: &mut Function) -> Result<(), String> {
    const TOO_LARGE: &str = "a function of the script has too many locals, upvalues or instructions";
    if main.upvalues.len() != 1 || main.code.first().map(|word| operation(*word)) != Some(op::VARARGPREP) {
        return Err("the compiled script is not of the Lua that is built in".into());
    }
    let found = look(main, vec![true]).map_err(|line| {
        format!(
            "{}:{line}: _ENV cannot be assigned to; declare a local _ENV, or give globals other names",
            super::name_of(main)
        )
    })?;
    if !found.needs_hidden {
        return Ok(());
    }
    change(main, &found, None).ok_or_else(|| TOO_LARGE.to_owned())
}

/// Looks at a function whose upvalues are known; or the line at which `_ENV` is assigned to.
fn look(function: &Function, is_globals: Vec<bool>) -> Result<Found, u32> {
    let line = |at: usize| function.lines.get(at).copied().unwrap_or(function.first_line);
    let mut assigned: Vec<Option<Assigned>> = vec![None; is_globals.len()];
    for (at, word) in function.code.iter().enumerate().filter(|(_, word)| operation(**word) == op::SETUPVAL) {
        let upvalue = second(*word) as usize;
        match (is_globals.get(upvalue), assigned.get_mut(upvalue), function.upvalues.get(upvalue)) {
            (Some(false), Some(assigned), Some(Upvalue { name, .. })) => {
                assigned.get_or_insert(Assigned { line: line(at), name: name.clone() });
            }
            _ => return Err(line(at)),
        }
    }
    let mut inside = Vec::new();
    for inner in &function.functions {
        let of_inner =
            |upvalue: &Upvalue| !upvalue.is_register && is_globals.get(usize::from(upvalue.at)) == Some(&true);
        let found = look(inner, inner.upvalues.iter().map(of_inner).collect())?;
        for (upvalue, theirs) in inner.upvalues.iter().zip(&found.assigned) {
            if let (false, Some(theirs), Some(ours)) =
                (upvalue.is_register, theirs, assigned.get_mut(usize::from(upvalue.at)))
            {
                ours.get_or_insert_with(|| theirs.clone());
            }
        }
        inside.push(found);
    }
    let writes = writes(function, &is_globals);
    let needs_hidden = !writes.is_empty() || inside.iter().any(|inner| inner.shares() || inner.needs_hidden);
    Ok(Found { is_globals, assigned, writes, needs_hidden, inside })
}

/// The instructions that write to a table which may be an old one. Globals look after themselves.
fn writes(function: &Function, is_globals: &[bool]) -> Vec<usize> {
    let is_new = constructors(function);
    let is_write = |(at, word): &(usize, &u32)| match operation(**word) {
        op::SETTABLE | op::SETI | op::SETFIELD => !is_new.get(*at).copied().unwrap_or(false),
        op::SETTABUP => is_globals.get(register(**word) as usize) != Some(&true),
        _ => false,
    };
    function.code.iter().enumerate().filter(is_write).map(|(at, _)| at).collect()
}

/// For each instruction, whether it writes to a table that the function has just made.
fn constructors(function: &Function) -> Vec<bool> {
    let code = &function.code;
    let (mut is_new, mut is_target) = (vec![false; code.len()], vec![false; code.len() + 1]);
    for target in code.iter().enumerate().filter_map(|(at, word)| jump_target(at, *word)) {
        if let Some(is_target) = usize::try_from(target).ok().and_then(|target| is_target.get_mut(target)) {
            *is_target = true;
        }
    }
    let captures = |word: u32, table: u32| {
        let inner = function.functions.get(wide(word));
        inner.is_none_or(|inner| {
            inner.upvalues.iter().any(|upvalue| upvalue.is_register && u32::from(upvalue.at) == table)
        })
    };
    for (at, word) in code.iter().enumerate().filter(|(_, word)| operation(**word) == op::NEWTABLE) {
        let table = register(*word);
        for (at, word) in code.iter().enumerate().skip(at + 1) {
            // What else holds the table may pass it on.
            let is_passed_on = op::reads(*word, table);
            let goes_on = match operation(*word) {
                op::SETTABLE | op::SETI | op::SETFIELD | op::SETLIST => {
                    is_new[at] |= register(*word) == table && !is_target[at];
                    !is_passed_on
                }
                // What they write to is no register of this function.
                op::SETTABUP | op::SETUPVAL | op::MMBIN..=op::MMBINK | op::EXTRAARG => !is_passed_on,
                op::CLOSURE => register(*word) > table && !captures(*word, table),
                op::JMP..=op::TEST_LAST | op::TAILCALL..=op::TFORLOOP => false,
                _ => register(*word) > table && !is_passed_on,
            };
            if !goes_on || is_target[at] {
                break;
            }
        }
    }
    is_new
}

/// Puts the instructions in; none if the function has no room for them. `outer` are the places of the hidden upvalues in
/// the function around it; the main chunk has none.
fn change(function: &mut Function, found: &Found, outer: Option<[u8; 2]>) -> Option<()> {
    let hidden = match outer {
        _ if !found.needs_hidden => return Some(()),
        None => [MAIN_PROBE, MAIN_LOADING],
        Some(_) => {
            let first = u8::try_from(function.upvalues.len()).ok()?;
            [first, first.checked_add(1)?]
        }
    };
    for (at, name) in [b"(probe)".as_slice(), b"(loading)"].into_iter().enumerate() {
        let place = outer.map_or(0, |outer| outer[at]);
        function.upvalues.push(Upvalue { is_register: outer.is_none(), at: place, kind: 0, name: name.to_vec() });
    }
    let [spare, second_spare] = [u32::from(function.registers), u32::from(function.registers) + 1];
    function.registers = function.registers.checked_add(2)?;
    if function.upvalues.len() > COUNT_MAX {
        return None;
    }
    let [probe, loading] = hidden.map(u32::from);
    let mut insertions = Insertions::default();
    for at in &found.writes {
        let word = *function.code.get(*at)?;
        let mut table = register(word);
        if operation(word) == op::SETTABUP {
            insertions.before(*at, [abc(op::GETUPVAL, second_spare, table, 0)]);
            table = second_spare;
        }
        let compare = abc(op::EQ, table, spare, 0) | op::FLAG;
        insertions.before(*at, [abc(op::GETUPVAL, spare, probe, 0), compare, op::jump(0)?]);
    }
    for (at, word) in function.code.iter().enumerate().filter(|(_, word)| operation(**word) == op::CLOSURE) {
        let (inner, found) = (function.functions.get(wide(*word))?, found.inside.get(wide(*word))?);
        let mut hand_out = Vec::new();
        for reader in readers(inner, found)? {
            let place = function.functions.len();
            hand_out.extend([closure(spare, place)?, abc(op::MMBIN, register(*word), spare, op::MODE)]);
            function.functions.push(reader);
        }
        if outer.is_some() && !hand_out.is_empty() {
            let is_loading = [abc(op::GETUPVAL, spare, loading, 0), abc(op::TEST, spare, 0, 0)];
            insertions.behind(at, is_loading);
            insertions.behind(at, [op::jump(hand_out.len() as i64)?]);
        }
        insertions.behind(at, hand_out);
    }
    for (inner, found) in function.functions.iter_mut().zip(&found.inside) {
        change(inner, found, Some(hidden))?;
    }
    if outer.is_none() {
        let place = function.functions.len();
        function.functions.push(loaded());
        insertions.behind(0, begin(spare, place)?);
    }
    insertions.put_in(function)
}

fn closure(to: u32, place: usize) -> Option<u32> {
    (place <= op::BX_MAX).then(|| abx(op::CLOSURE, to, place))
}

/// What the main chunk begins with: it asks a number for the probe, and hands out the function that ends the loading.
fn begin(spare: u32, loaded: usize) -> Option<[u32; 7]> {
    let ask = abc(op::MMBIN, spare, spare, op::MODE);
    Some([
        abx(op::LOADI, spare, 0),
        ask,
        abc(op::SETUPVAL, spare, MAIN_PROBE.into(), 0),
        abc(op::LOADTRUE, spare, 0, 0),
        abc(op::SETUPVAL, spare, MAIN_LOADING.into(), 0),
        closure(spare, loaded)?,
        ask,
    ])
}

/// The function that ends the loading.
fn loaded() -> Function {
    Function {
        registers: 2,
        code: vec![abc(op::LOADFALSE, 0, 0, 0), abc(op::SETUPVAL, 0, 0, 0), abc(op::RETURN0, 0, 1, 0)],
        upvalues: vec![Upvalue { is_register: false, at: MAIN_LOADING, kind: 0, name: b"(loading)".to_vec() }],
        ..Function::default()
    }
}

/// The readers of a function, most often one; none of a function that shares no locals. What they return: where it assigns
/// to one and which that is, or false and false; the line where the function begins; and all of them, each behind its name.
fn readers(function: &Function, found: &Found) -> Option<Vec<Function>> {
    let shared: Vec<&Upvalue> =
        function.upvalues.iter().zip(&found.is_globals).filter(|(_, is)| !**is).map(|(upvalue, _)| upvalue).collect();
    let assigned = found.assigned.iter().flatten().min_by_key(|assigned| assigned.line);
    let shown = |name: &[u8]| Constant::Text(name[..name.len().min(NAME_MAX)].to_vec());
    let reader = |shared: &[&Upvalue]| {
        let mut reader = Function { upvalues: shared.iter().copied().cloned().collect(), ..Function::default() };
        let (line, name) = match assigned {
            Some(Assigned { line, name }) => (Constant::Integer((*line).into()), shown(name)),
            None => (Constant::False, Constant::False),
        };
        reader.constants.extend([line, name, Constant::Integer(function.first_line.into())]);
        let mut code: Vec<u32> = (0..3).map(|at| abx(op::LOADK, at, at as usize)).collect();
        for (at, upvalue) in (0..).zip(shared) {
            code.extend([abx(op::LOADK, 3 + 2 * at, 3 + at as usize), abc(op::GETUPVAL, 4 + 2 * at, at, 0)]);
            reader.constants.push(shown(&upvalue.name));
        }
        let values = u32::try_from(3 + 2 * shared.len()).ok()?;
        code.push(abc(op::RETURN, 0, values + 1, 0));
        (reader.code, reader.registers) = (code, u8::try_from(values).ok()?);
        Some(reader)
    };
    shared.chunks(READ_TOGETHER).map(reader).collect()
}

#[cfg(test)]
mod tests {
    use mlua::prelude::*;

    use super::super::dump;
    use super::*;

    fn compiled(text: &str) -> Function {
        let code = Lua::new().load(text).set_name("@script.lua").into_function().expect("a script").dump(false);
        dump::read(&code).expect("the Lua that is built in")
    }

    fn kept(text: &str) -> Function {
        let mut main = compiled(text);
        keep(&mut main).expect("a script that is not too large");
        main
    }

    /// A VM that gives a probe, and counts what is handed out.
    fn vm() -> Lua {
        let lua = Lua::new();
        let metas: (LuaTable, LuaTable) = lua
            .load("handed_out = 0 return { __mode = function() return {} end }, { __mode = function() handed_out = handed_out + 1 end }")
            .eval()
            .expect("metatables");
        lua.set_type_metatable::<LuaNumber>(Some(metas.0));
        lua.set_type_metatable::<LuaFunction>(Some(metas.1));
        lua
    }

    /// What the script returns, as a text; or its error.
    fn run(lua: &Lua, main: &Function) -> String {
        let code = dump::write(main).expect("a form");
        match lua.load(code).set_name("@script.lua").set_mode(mlua::chunk::ChunkMode::Binary).call::<LuaMultiValue>(())
        {
            Ok(values) => values.iter().map(|value| format!("{} ", value.to_string().expect("a text"))).collect(),
            Err(error) => error.to_string(),
        }
    }

    fn compares(main: &Function) -> usize {
        let own =
            main.code.windows(2).filter(|pair| operation(pair[0]) == op::EQ && pair[1] == op::jump(0).unwrap_or(0));
        own.count() + main.functions.iter().map(compares).sum::<usize>()
    }

    /// Jumps of all kinds over what is put in, and back.
    const PROGRAMS: [&str; 14] = [
        "local t = {} for i = 1, 10 do if i % 2 == 0 then t[i] = i else t[#t + 1] = -i end t.n = i end return #t, t.n, t[10]",
        "local t = {} for i = 10, 1, -3 do t[i] = i t.last = i end return t.last, t[10], t[1]",
        "local t = {} for i = 5, 1 do t[i] = i end t.x = 1 return next(t)",
        "local t, n = { a = 1 }, 0 for k, v in pairs({ x = 1, y = 2 }) do t[k] = v n = n + v end return t.x, t.y, n",
        "local t, i = {}, 0 while i < 5 do i = i + 1 if i == 2 then goto on end t[i] = i if i == 4 then break end ::on:: end return #t, t[1], t[3], t[4]",
        "local t, i = {}, 0 repeat local j = i t[j] = function() i = i + 1 return j end i = i + 1 until t[j]() >= 3 return i, t[0](), t[3]()",
        "local t = { a = { b = {} } } t.a.b.c = t.a and t.a.b and 1 or 2 t.a.b[1] = not t.x t['k' .. 1] = t.a.b.c == 1 return t.a.b.c, t.a.b[1], t.k1",
        "local function f(...) local t = {} t.n = select('#', ...) t[1] = ... return t end local t = f(1, 2) t.z = 3 return t.n, t[1], f().n, t.z",
        "local t = setmetatable({}, { __newindex = function(t, k, v) rawset(t, k, v * 2) end }) t.a = 2 t[1] = 3 return t.a, t[1]",
        "local t, u = {}, {} t.u, t.a, u.b, t[1] = u, 1, 2, u u.b, t.a = t.a, u.b return t.a, u.b, t[1].b",
        "local t = {} function t.f(n) if n == 0 then return 'end' end t.n = n return t.f(n - 1) end return t.f(100), t.n",
        "local t = {} local function each(f) for i = 1, 3 do f(i) end end each(function(i) t[i] = i each(function(j) t[i * j] = j end) end) return #t, t[9], t[6]",
        "local t = {} do local x <close> = setmetatable({}, { __close = function() t.closed = 1 end }) t.open = 1 end return t.open, t.closed",
        "local fs = {} for i = 1, 3 do local n = i fs[i] = function() n = n + 10 return n end end return fs[1](), fs[1](), fs[2](), fs[3]()",
    ];

    #[test]
    fn a_script_does_what_it_did() {
        for text in PROGRAMS {
            let (before, after) = (compiled(text), kept(text));
            assert_ne!(before, after, "{text}");
            assert_eq!(run(&vm(), &before), run(&vm(), &after), "{text}");
        }
        for (before, after) in [("x", "t.x"), ("self", "self.x"), ("f", "t[f]")] {
            // Jumps that become longer, many functions, and lines that are listed apart.
            let assigned: String =
                (0..400).map(|at| format!("if t[{at}] then t[{at}] = {at} end {after} = {at}\n")).collect();
            let text = format!(
                "local t, {before} = {{ [399] = 1 }}, {{}} for _ = 1, 2 do {assigned} end return t[399], {after}, error('line')"
            );
            assert_eq!(run(&vm(), &compiled(&text)), run(&vm(), &kept(&text)), "{before}");
        }
    }

    #[test]
    fn errors_name_the_lines_and_variables_that_they_did() {
        for text in [
            "local t = {}\n\nfor i = 1, 2 do\n  t.a = 1\n  t.b.c = 1\nend",
            "local row\nrow.n = 1",
            "local t = {}\nfunction t.f(list)\n  list[1] = 1\nend\nt.f()",
            "local t\nlocal function f()\n  t.x = 1\nend\nf()",
            "local t = {}\nlocal function f() t.n = (t.n or 0) + 1\n return t.n + t.x end\nf()",
        ] {
            let [before, after] = [compiled(text), kept(text)].map(|main| run(&vm(), &main));
            assert!(before.contains("script.lua:"), "{before}");
            assert_eq!(before.lines().next(), after.lines().next(), "{text}");
        }
    }

    #[test]
    fn a_table_is_compared_before_a_write_unless_it_is_new() {
        for (body, count) in [
            ("t.x = 1", 1),
            ("t[1] = 1", 1),
            ("t[u] = 1", 1),
            ("g = 1", 0),
            ("return t.x, t[1], #t", 0),
            ("return { a = 1, b = u.x, [u] = 2, 3, 4 }", 0),
            ("return { a = 1, b = { c = t, d = u } }", 0),
            ("local n = {} n.a = u n.b = u", 0),
            ("local n = {} n.a = u and 1 n.b = 2", 2),
            ("local n = {} for i = 1, 2 do n.a = i n = t end", 1),
            ("local n = {} local function f() n = t end n.a = 1", 1),
            ("local n if u then n = {} end n.a = 1", 1),
            ("local n = {} n = t n.a = 1", 1),
            ("local n = {} f(n) n.a = 1", 1),
            ("local n = {} n:f() n.a = 1", 1),
            ("local n = {} u[n] = 1 n.a = 1", 2),
            ("local n = {} u.x = n n.a = 1", 2),
            ("local n = {} n.n = n n.a = 1", 1),
            ("local n = {} g = n n.a = 1", 1),
            ("local n = {} ::again:: n.a = 1 n = t goto again", 1),
        ] {
            let text = format!("local function f(t, u) {body} end");
            assert_eq!(compares(&kept(&text)), count, "{body}");
        }
        assert_eq!(compares(&kept("local t = {} function f() t.x = 1 t[1] = 2 end")), 2);
        assert_eq!(compares(&kept("local e = {} do local _ENV = e function f() x = 1 end end")), 2);
    }

    #[test]
    fn closures_are_handed_out_while_the_main_chunk_runs() {
        for (text, count) in [
            ("function f() return g end", 0),
            // One ends the loading.
            ("local a = 1 function f() return a end", 2),
            ("local a = 1 function f() return function() return a end end f() f()", 4),
            ("local function f(x) return function() return x end end f(1) f(2)", 3),
        ] {
            let lua = vm();
            assert_eq!(run(&lua, &kept(text)), "", "{text}");
            assert_eq!(lua.globals().get::<usize>("handed_out").expect("a number"), count, "{text}");
        }
    }

    #[test]
    fn a_script_may_be_as_large_as_lua_lets_it_be() {
        let locals = |count: usize| (0..count).map(|at| format!("local v{at} = {at} ")).collect::<String>();
        let sum = |count: usize| (0..count).map(|at| format!("v{at}")).collect::<Vec<_>>().join(" + ");
        let text =
            format!("{} local t = {{}} local function f() t.x = {} return t.x end return f()", locals(190), sum(190));
        assert_eq!(run(&vm(), &compiled(&text)), run(&vm(), &kept(&text)));
        let arguments = (0..251).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!("local t = g t.x = select('#', {arguments}) return t.x");
        assert!(keep(&mut compiled(&text)).expect_err("no room").contains("too many locals"));
    }

    #[test]
    fn globals_are_not_exchanged() {
        for (text, line) in [("_ENV = {}", 1), ("\nlocal function f()\n return function() _ENV = nil end end", 3)] {
            let problem = keep(&mut compiled(text)).expect_err("refused");
            assert!(problem.starts_with(&format!("script.lua:{line}: _ENV")), "{problem}");
        }
    }
}
