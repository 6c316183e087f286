//! Checks where Lua takes numbers for texts, and texts for numbers: no digit is lost without a word.
//!
//! - Of a float Lua puts 14 digits into a text (`..`). Before each concatenation the operands are looked at. What is a
//!   fraction, or lies outside of 0 to 2^46, is exchanged for what the metamethod `__gc` of numbers makes of it: a text
//!   with all digits, if what stands beside it is a text or a number (`arithmetic.lua`). No operation of Lua calls that
//!   metamethod on a number. To look costs next to nothing.
//! - The bounds of a loop may be texts. Each is negated before the loop, and that is left to the metamethod of texts, which
//!   refuses it.

use super::dump::{Constant, Function};
use super::insert::Insertions;
use super::op::{self, abc, jump, jump_target, operation, register, wide};

/// Bits of a number that surely has no more than 14 digits.
const SHORT_BITS: u32 = 46;

/// Has a function looked after, without those within it; none if it has no room for it.
pub(super) fn check(function: &mut Function) -> Option<()> {
    let spare = u32::from(function.registers);
    let is_target = targets(function);
    let mut insertions = Insertions::default();
    for (at, word) in function.code.iter().enumerate() {
        let first = register(*word);
        match operation(*word) {
            op::CONCAT => {
                let last = first + op::second(*word) - 1;
                for operand in first..=last {
                    if !is_constant(function, &is_target, at, operand) {
                        insertions.before(at, look(operand, beside(operand, last), spare)?);
                    }
                }
            }
            op::FORPREP => {
                for bound in first..first + 3 {
                    if !is_constant(function, &is_target, at, bound) {
                        insertions.before(at, [abc(op::UNM, spare, bound, 0)]);
                    }
                }
            }
            _ => {}
        }
    }
    if !insertions.is_empty() {
        insertions.put_in(function)?;
        function.registers = function.registers.checked_add(1)?;
    }
    Some(())
}

/// For each instruction, whether one jumps to it.
fn targets(function: &Function) -> Vec<bool> {
    let mut is_target = vec![false; function.code.len() + 1];
    for target in function.code.iter().enumerate().filter_map(|(at, word)| jump_target(at, *word)) {
        if let Some(is_target) = usize::try_from(target).ok().and_then(|target| is_target.get_mut(target)) {
            *is_target = true;
        }
    }
    is_target
}

/// Whether a register holds a text or a small integer that stands in the script: it is loaded before an instruction on the
/// only way there.
fn is_constant(function: &Function, is_target: &[bool], at: usize, of: u32) -> bool {
    for place in (0..at).rev() {
        let word = function.code[place];
        if is_target.get(place + 1) != Some(&false) || operation(word) == op::JMP {
            return false;
        }
        if register(word) == of {
            return match operation(word) {
                op::LOADI => true,
                op::LOADK => {
                    matches!(function.constants.get(wide(word)), Some(Constant::Text(_)))
                        && operation(function.code[at]) == op::CONCAT
                }
                _ => false,
            };
        }
    }
    false
}

/// What an operand is joined to, as far as that is known. Lua joins the last two operands first, so each of them has the
/// other beside it. An operand before those is joined to what comes out, which may be anything: it counts as beside a
/// number, itself, and becomes a text.
fn beside(operand: u32, last: u32) -> u32 {
    match last - operand {
        0 => last - 1,
        1 => last,
        _ => operand,
    }
}

/// Exchanges a long number for its text, if it is joined to a text or a number. The instruction behind an operation is
/// passed by if the operands are numbers, or, with bits, if they are whole.
fn look(operand: u32, beside: u32, spare: u32) -> Option<Vec<u32>> {
    let (is_number, exchange, after) = (4, 8, 9);
    let words = [
        abc(op::SHRI, spare, operand, op::SIGNED_ZERO + SHORT_BITS),
        jump_from(1, is_number)?,
        abc(op::EQI, spare, op::SIGNED_ZERO, 0) | op::FLAG,
        jump_from(3, after)?,
        abc(op::ADDI, spare, operand, op::SIGNED_ZERO),
        jump_from(5, after)?,
        jump_from(6, exchange)?,
        // Never run: the next one looks here for the register of its result, which messages do not take for a new value.
        abc(op::TEST, operand, 0, 0),
        abc(op::MMBIN, operand, beside, op::GC),
    ];
    Some(words.to_vec())
}

/// A jump that stands at one place of a sequence, to another one.
fn jump_from(at: i64, to: i64) -> Option<u32> {
    jump(to - at - 1)
}

#[cfg(test)]
mod tests {
    use mlua::prelude::*;

    use super::super::dump;
    use super::*;

    /// What a function of `a` and `b` with that body returns, or its error.
    fn result(body: &str, a: &str, b: &str) -> String {
        let lua = Lua::new();
        let metas: (LuaTable, LuaTable) = lua
            .load(
                "local texts = getmetatable('') texts.__unm = function() error('a text', 0) end
                local function gc(n, beside) return type(beside) == 'table' and n or '<' .. n .. '>' end
                return { __gc = gc }, texts",
            )
            .eval()
            .expect("metatables");
        lua.set_type_metatable::<LuaNumber>(Some(metas.0));
        let text = format!("local function f(a, b) {body} end return f({a}, {b})");
        let code = lua.load(text).set_name("=script").into_function().expect("a script").dump(false);
        let mut main = dump::read(&code).expect("the Lua that is built in");
        super::super::each(&mut main, check).expect("room");
        let code = dump::write(&main).expect("a script");
        match lua.load(code).set_mode(mlua::chunk::ChunkMode::Binary).eval::<LuaValue>() {
            Ok(value) => value.to_string().expect("a text"),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// An object that tells what it is joined to.
    const JOINS: &str = "setmetatable({}, { __concat = function(a, b)
        local other = type(a) == 'table' and b or a
        return other .. ' ' .. (math.type(other) or type(other))
    end })";

    #[test]
    fn a_number_that_may_be_long_is_exchanged_for_its_text_and_nothing_else_is() {
        for (body, a, b, expected) in [
            ("return a .. b", "'x'", "'y'", "xy"),
            ("return a .. b", "'1'", "'2.5'", "12.5"),
            ("return a .. b", "'x'", "1", "x1"),
            ("return a .. b", "1", "2", "12"),
            ("return a .. b", "0", "99.0", "099.0"),
            ("return a .. b", "70368744177663", "'x'", "70368744177663x"),
            ("return a .. b", "70368744177664", "'x'", "<70368744177664>x"),
            ("return a .. b", "-1", "'x'", "<-1>x"),
            ("return a .. b", "'x'", "1.5", "x<1.5>"),
            ("return a .. b", "1e300", "1/0", "<1e+300><inf>"),
            ("return 'k' .. a .. ':' .. b .. 7 .. 1.5", "2.5", "'x'", "k<2.5>:x7<1.5>"),
            ("return (a and 'k' or b) .. 'x'", "false", "2.5", "<2.5>x"),
            ("return 'x' .. (a or 'k')", "2.5", "1", "x<2.5>"),
            ("local t = '' for i = 1.5, 3 do t = t .. i end return t", "1", "1", "<1.5><2.5>"),
            ("return { k = 'x' .. a, b }", "1.5", "1", "table"),
            ("return a .. b", "1.5", JOINS, "<1.5> float"),
            ("return b .. a", "1.5", JOINS, "<1.5> float"),
            ("return b .. a .. 'x'", "1.5", JOINS, "<1.5>x string"),
            ("return 'x' .. b .. a", "1.5", JOINS, "x<1.5> float"),
            ("return a .. b .. 'x'", "1.5", JOINS, "<1.5>x string"),
        ] {
            let found = result(body, a, b);
            assert!(found == expected || found.starts_with("table:"), "{body} of {a} and {b}: {found}");
        }
        assert!(result("local t = {} return 'x' .. t.none", "1", "1").contains("field 'none'"));
        assert!(result("local n return 1.5 .. n", "1", "1").contains("local 'n'"));
    }

    #[test]
    fn no_text_is_a_bound_of_a_loop() {
        let body = "local n = 0 for i = a, b do n = n + i end return n";
        assert_eq!(result(body, "1", "3"), "6");
        assert_eq!(result(body, "1.5", "3"), "4");
        for (a, b) in [("1", "'3'"), ("'1'", "3"), ("1", "'0x10000000000000001'")] {
            assert!(result(body, a, b).contains("a text"), "{a} {b}");
        }
        assert!(result("for i = 1, 3, a do end", "'1'", "1").contains("a text"));
        assert!(result("for i = 1, a and 3 or b do end", "false", "'1'").contains("a text"));
        assert!(result(body, "1", "{}").contains("for' limit") || result(body, "1", "{}").contains("arithmetic"));
    }
}
