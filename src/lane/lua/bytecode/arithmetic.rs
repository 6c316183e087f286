//! Marks the arithmetic of a script that is to be checked.
//!
//! Lua 5.4 puts two instructions down for each operation: the operation itself, which goes on behind the second if both
//! operands are numbers, and one that calls the metamethod. Where the first is replaced by one that does nothing, the
//! metamethod is always called: `arithmetic.lua` checks there. Exact numbers have come that way all along, and are no
//! slower for it.

use super::dump::{Constant, Function};
use super::op::{self, jump_target, operation};
use crate::lane::lua::encoder::is_large;

/// Names by which a script gets at large integers that did not come with an event.
const SOURCES_OF_LARGE: [&[u8]; 3] = [b"maxinteger", b"mininteger", b"unpack"];

/// Whether the script may make large integers itself.
pub(super) fn makes_large(function: &Function) -> bool {
    let makes_large = |word: &u32| match operation(*word) {
        op::MUL | op::FIRST_BITS..=op::LAST_BITS_OF_CONSTANTS | op::BAND..=op::SHR | op::BNOT => true,
        op::MULK => matches!(function.constants.get(op::third(*word) as usize), Some(Constant::Integer(_))),
        _ => false,
    };
    let is_source = |constant: &Constant| match constant {
        Constant::Integer(value) => is_large(*value),
        Constant::Text(text) => SOURCES_OF_LARGE.contains(&text.as_slice()),
        _ => false,
    };
    function.code.iter().any(makes_large)
        || function.constants.iter().any(is_source)
        || function.functions.iter().any(self::makes_large)
}

/// For each instruction, whether it may be gone through again and again.
fn loops(function: &Function) -> Vec<bool> {
    let mut is_in_loop = vec![false; function.code.len()];
    for (at, word) in function.code.iter().enumerate() {
        if !matches!(operation(*word), op::JMP | op::FORLOOP | op::TFORLOOP) {
            continue;
        }
        let target = jump_target(at, *word).and_then(|target| usize::try_from(target).ok());
        if let Some(range) = target.and_then(|target| is_in_loop.get_mut(target..=at)) {
            range.fill(true);
        }
    }
    is_in_loop
}

/// Marks the arithmetic of a function and of those within it.
pub(super) fn mark(function: &mut Function, is_all: bool, is_sure: bool) {
    let is_in_loop = loops(function);
    for (at, is_in_loop) in is_in_loop.into_iter().enumerate() {
        let &[word, behind] = function.code.get(at..at + 2).unwrap_or_default() else { break };
        let is_large_constant = || match function.constants.get(op::third(word) as usize) {
            Some(Constant::Integer(value)) => is_large(*value),
            _ => false,
        };
        let is_marked = match operation(word) {
            op::MUL | op::MULK => true,
            op::ADD | op::SUB => is_sure || is_in_loop,
            op::ADDK | op::SUBK => is_all || is_large_constant(),
            op::ADDI => is_all,
            _ => false,
        };
        if is_marked && (op::MMBIN..=op::MMBINK).contains(&operation(behind)) {
            // The metamethod's instruction looks here for the register of the result.
            let register = op::register(word);
            function.code[at] = op::abc(op::MOVE, register, register, 0);
        }
    }
    function.functions.iter_mut().for_each(|inside| mark(inside, is_all, is_sure));
}
