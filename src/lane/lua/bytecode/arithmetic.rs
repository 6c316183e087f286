//! Checks the arithmetic of a script: no sum, difference or product of integers leaves 64 bits without a word.
//!
//! Lua 5.4 puts two instructions down for each operation: the operation itself, which goes on behind the second if both
//! operands are numbers, and one that calls the metamethod. Where the first is replaced by one that does nothing, the
//! metamethod is always called: `arithmetic.lua` checks there. So it is with products. Exact numbers have come that way
//! all along, and are no slower for it.
//!
//! Floats that are whole are integers to operations on bits, whatever digits they have lost: large operands go to the
//! metamethod. So do negations of what is negative, and divisions by -1, of which that of the smallest integer leaves 64
//! bits.
//!
//! A call for each sum would cost too much. A sum or a difference is computed beside its place, looked at, and put there;
//! where it has left 64 bits, and where the operands are no numbers, the metamethod is called as before. What is looked
//! at is the sign: a sum of two integers has wrapped around if it has another sign than both of them.

use super::dump::{Constant, Function};
use super::insert::Insertions;
use super::op::{self, abc, jump, operation};

/// Registers that looking at a sum takes.
const SPARE: u8 = 3;
/// Bits of an integer that a float holds too, whichever it is; and the place of the sign.
const FLOAT_BITS: u32 = 53;
const SIGN_BIT: u32 = 63;
/// The most registers of a function then: what it keeps takes some too.
const REGISTERS_MAX: u8 = 250;

/// How a change by a constant shows that it has left 64 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The result is less.
    Up,
    /// The result is more.
    Down,
    /// It cannot.
    Never,
}

/// Has the arithmetic of a function checked, without those within it; none if it has no room for it.
pub(super) fn check(function: &mut Function) -> Option<()> {
    let spare = u32::from(function.registers);
    let registers = function.registers.checked_add(SPARE).filter(|registers| *registers <= REGISTERS_MAX);
    let mut needed = function.registers;
    // What nothing but what is put in can check.
    let mut has_ones = false;
    let mut insertions = Insertions::default();
    for at in 0..function.code.len() {
        let &[word, behind] = function.code.get(at..at + 2).unwrap_or_default() else { break };
        if let Some(looks) = look_at_one(word, spare)? {
            has_ones = true;
            insertions.before(at, looks);
            needed = registers?;
            continue;
        }
        if !(op::MMBIN..=op::MMBINK).contains(&operation(behind)) {
            continue;
        }
        let looks = match operation(word) {
            op::MUL | op::MULK => Vec::new(),
            op::IDIV => look_at_divisor(word)?,
            op::IDIVK if is_minus_one(function, word) => Vec::new(),
            op::BANDK..=op::SHLI => look_at_bits(word, &[op::second(word)], spare)?,
            op::BAND..=op::SHR => look_at_bits(word, &[op::second(word), op::third(word)], spare)?,
            op::ADD | op::SUB => look_at_signs(word, spare)?,
            op::ADDI | op::ADDK | op::SUBK => match change(function, word) {
                Change::Never => continue,
                change => look_at_order(word, spare, change)?,
            },
            _ => continue,
        };
        // Without room for it the metamethod is always called.
        if let Some(registers) = registers.filter(|_| !looks.is_empty()) {
            insertions.before(at, looks);
            needed = registers;
        }
        // The metamethod's instruction looks here for the register of the result.
        let register = op::register(word);
        function.code[at] = abc(op::MOVE, register, register, 0);
    }
    // Where a loop becomes longer than a jump may be, the metamethod is called too.
    match insertions.put_in(function) {
        Some(()) => function.registers = needed,
        None if has_ones => return None,
        None => {}
    }
    Some(())
}

/// What an operation with a constant does to an integer.
fn change(function: &Function, word: u32) -> Change {
    let by = match operation(word) {
        op::ADDI => i64::from(op::third(word)) - i64::from(op::SIGNED_ZERO),
        _ => match function.constants.get(op::third(word) as usize) {
            Some(Constant::Integer(value)) => *value,
            // A float makes a float.
            _ => 0,
        },
    };
    match (by.signum(), operation(word) == op::SUBK) {
        (0, _) => Change::Never,
        (1, false) | (-1, true) => Change::Up,
        _ => Change::Down,
    }
}

/// A sum or difference of two registers: `(a ~ r) & (b ~ r) < 0`, or `(a ~ r) & (a ~ b) < 0`. What is no integer is not
/// looked at: the instruction behind an operation on bits is passed by if both are integers.
fn look_at_signs(word: u32, spare: u32) -> Option<Vec<u32>> {
    let (a, b, sum) = (op::second(word), op::third(word), spare);
    let (one, other) = (spare + 1, spare + 2);
    let signs = if operation(word) == op::ADD { (b, sum) } else { (a, b) };
    // The call is the 13th instruction, behind 12 of these, and 14 is the one after all.
    let (call, put, after) = (12, 10, 14);
    let words = [
        abc(operation(word), sum, a, b),
        jump_from(1, call)?,
        abc(op::BXOR, one, a, sum),
        jump_from(3, put)?,
        abc(op::BXOR, other, signs.0, signs.1),
        jump_from(5, put)?,
        abc(op::BAND, one, one, other),
        jump_from(7, put)?,
        abc(op::LTI, one, op::SIGNED_ZERO, 0) | op::FLAG,
        jump_from(9, call)?,
        abc(op::MOVE, op::register(word), sum, 0),
        jump_from(11, after)?,
    ];
    Some(words.to_vec())
}

fn is_minus_one(function: &Function, word: u32) -> bool {
    matches!(function.constants.get(op::third(word) as usize), Some(Constant::Integer(-1)))
}

/// A whole division: only that by -1 may leave 64 bits.
fn look_at_divisor(word: u32) -> Option<Vec<u32>> {
    let (call, after) = (5, 7);
    let words = [
        abc(op::EQI, op::third(word), op::SIGNED_ZERO - 1, 0) | op::FLAG,
        jump_from(1, call)?,
        word,
        jump_from(3, call)?,
        jump_from(4, after)?,
    ];
    Some(words.to_vec())
}

/// An operation on bits: it takes a float that is whole for an integer, and one that may have lost digits is at least as
/// large as `1 << FLOAT_BITS`. What is as large, or negative, goes to the metamethod.
fn look_at_bits(word: u32, operands: &[u32], spare: u32) -> Option<Vec<u32>> {
    let call = operands.len() as i64 * 4 + 3;
    let mut words = Vec::new();
    for operand in operands {
        let at = words.len() as i64;
        words.extend([
            abc(op::SHRI, spare, *operand, op::SIGNED_ZERO + FLOAT_BITS),
            jump_from(at + 1, call)?,
            abc(op::EQI, spare, op::SIGNED_ZERO, 0),
            jump_from(at + 3, call)?,
        ]);
    }
    words.extend([word, jump_from(call - 2, call)?, jump_from(call - 1, call + 2)?]);
    Some(words)
}

/// An operation on one register: a negation, which may leave 64 bits if the operand is negative, or `~`. None if it is
/// another one.
fn look_at_one(word: u32, spare: u32) -> Option<Option<Vec<u32>>> {
    let (bits, event) = match operation(word) {
        op::UNM => (SIGN_BIT, op::UNM_EVENT),
        op::BNOT => (FLOAT_BITS, op::BNOT_EVENT),
        _ => return Some(None),
    };
    let operand = op::second(word);
    let (call, plain, after) = (6, 8, 9);
    // What is no whole number has a method of its own, or is no number for bits.
    let other = if operation(word) == op::UNM { plain } else { call };
    let words = [
        abc(op::SHRI, spare, operand, op::SIGNED_ZERO + bits),
        jump_from(1, other)?,
        abc(op::EQI, spare, op::SIGNED_ZERO, 0) | op::FLAG,
        jump_from(3, plain)?,
        jump_from(4, call)?,
        // Never run: the next one looks here for the register of its result.
        abc(op::TEST, op::register(word), 0, 0),
        abc(op::MMBIN, operand, operand, event),
        jump_from(7, after)?,
    ];
    Some(Some(words.to_vec()))
}

/// A register changed by a constant: the result has wrapped around if it lies on the wrong side of the operand.
fn look_at_order(word: u32, spare: u32, change: Change) -> Option<Vec<u32>> {
    let (a, result) = (op::second(word), spare);
    let (less, more) = if change == Change::Up { (result, a) } else { (a, result) };
    let (call, after) = (6, 8);
    let words = [
        word & !(0xff << 7) | result << 7,
        jump_from(1, call)?,
        abc(op::LT, less, more, 0) | op::FLAG,
        jump_from(3, call)?,
        abc(op::MOVE, op::register(word), result, 0),
        jump_from(5, after)?,
    ];
    Some(words.to_vec())
}

/// A jump that stands at one place of a sequence, to another one.
fn jump_from(at: i64, to: i64) -> Option<u32> {
    jump(to - at - 1)
}
