//! The instructions of Lua 5.4 that are looked at or put in: 7 bits of operation, 8 of a register A, then B and C of 8
//! bits each behind a flag k, or one number Bx in their place; a jump is one number in the place of all.

pub(super) const MOVE: u32 = 0;
pub(super) const LOADI: u32 = 1;
pub(super) const LOADK: u32 = 3;
pub(super) const LOADFALSE: u32 = 5;
pub(super) const LOADTRUE: u32 = 7;
const LOADNIL: u32 = 8;
pub(super) const GETUPVAL: u32 = 9;
pub(super) const SETUPVAL: u32 = 10;
const GETTABUP: u32 = 11;
const GETI: u32 = 13;
const GETFIELD: u32 = 14;
pub(super) const SETTABUP: u32 = 15;
pub(super) const SETTABLE: u32 = 16;
pub(super) const SETI: u32 = 17;
pub(super) const SETFIELD: u32 = 18;
pub(super) const NEWTABLE: u32 = 19;
pub(super) const ADDI: u32 = 21;
pub(super) const ADDK: u32 = 22;
pub(super) const SUBK: u32 = 23;
pub(super) const MULK: u32 = 24;
pub(super) const IDIVK: u32 = 28;
pub(super) const BANDK: u32 = 29;
pub(super) const SHRI: u32 = 32;
pub(super) const SHLI: u32 = 33;
pub(super) const ADD: u32 = 34;
pub(super) const SUB: u32 = 35;
pub(super) const MUL: u32 = 36;
pub(super) const IDIV: u32 = 40;
pub(super) const BAND: u32 = 41;
pub(super) const BXOR: u32 = 43;
pub(super) const SHR: u32 = 45;
/// Calls the metamethod C over A and B; its result goes where the instruction before says.
pub(super) const MMBIN: u32 = 46;
pub(super) const MMBINK: u32 = 48;
pub(super) const UNM: u32 = 49;
pub(super) const BNOT: u32 = 50;
pub(super) const CONCAT: u32 = 53;
pub(super) const JMP: u32 = 56;
pub(super) const EQ: u32 = 57;
/// Goes on with the jump behind it if A is less than B and k is set, else behind that jump.
pub(super) const LT: u32 = 58;
/// The same for equality, with a number in the place of B.
pub(super) const EQI: u32 = 61;
/// The same with a number in the place of B.
pub(super) const LTI: u32 = 62;
pub(super) const TEST: u32 = 66;
pub(super) const TEST_LAST: u32 = 67;
pub(super) const TAILCALL: u32 = 69;
pub(super) const RETURN: u32 = 70;
pub(super) const RETURN0: u32 = 71;
pub(super) const FORLOOP: u32 = 73;
pub(super) const FORPREP: u32 = 74;
pub(super) const TFORPREP: u32 = 75;
pub(super) const TFORLOOP: u32 = 77;
pub(super) const SETLIST: u32 = 78;
pub(super) const CLOSURE: u32 = 79;
pub(super) const VARARGPREP: u32 = 81;
pub(super) const EXTRAARG: u32 = 82;

/// The metamethods that no operation of Lua calls on numbers or functions: `__gc` and `__mode`.
pub(super) const GC: u32 = 2;
pub(super) const MODE: u32 = 3;

/// The metamethods of a negation and of `~`.
pub(super) const UNM_EVENT: u32 = 18;
pub(super) const BNOT_EVENT: u32 = 19;

/// What stands for 0 where B or C is a number with a sign.
pub(super) const SIGNED_ZERO: u32 = 127;

/// The flag k.
pub(super) const FLAG: u32 = 1 << 15;

/// The largest Bx.
pub(super) const BX_MAX: usize = (1 << 17) - 1;
/// What a jump of no length is written as, and the longest either way.
const JUMP_ZERO: i64 = (1 << 24) - 1;

pub(super) fn operation(word: u32) -> u32 {
    word & 0x7f
}

/// A, as a number.
pub(super) fn register(word: u32) -> u32 {
    word >> 7 & 0xff
}

/// B, as a number.
pub(super) fn second(word: u32) -> u32 {
    word >> 16 & 0xff
}

/// C, as a number.
pub(super) fn third(word: u32) -> u32 {
    word >> 24
}

/// Whether an instruction reads a register as more than the table that it writes to. It may say so of one that does not.
pub(super) fn reads(word: u32, of: u32) -> bool {
    let (is_b, is_c) = (second(word) == of, third(word) == of);
    let is_value = is_c && word & FLAG == 0;
    match operation(word) {
        MOVE | GETI | GETFIELD => is_b,
        LOADI..=LOADNIL | GETUPVAL | GETTABUP | NEWTABLE | SETLIST | CLOSURE..=EXTRAARG => false,
        SETUPVAL => register(word) == of,
        SETTABUP | SETI | SETFIELD => is_value,
        SETTABLE => is_b || is_value,
        MMBIN..=MMBINK => is_b || register(word) == of,
        _ => is_b || is_c,
    }
}

/// Bx, as a number.
pub(super) fn wide(word: u32) -> usize {
    (word >> 15) as usize
}

pub(super) fn abc(operation: u32, a: u32, b: u32, c: u32) -> u32 {
    operation | a << 7 | b << 16 | c << 24
}

pub(super) fn abx(operation: u32, a: u32, bx: usize) -> u32 {
    operation | a << 7 | (bx as u32) << 15
}

pub(super) fn jump(length: i64) -> Option<u32> {
    let length = u32::try_from(length + JUMP_ZERO).ok().filter(|length| *length < 1 << 25)?;
    Some(JMP | length << 7)
}

/// Where an instruction jumps to, if it is one that may.
pub(super) fn jump_target(at: usize, word: u32) -> Option<i64> {
    let next = at as i64 + 1;
    let length = i64::from(word >> 15);
    Some(match operation(word) {
        JMP => next + i64::from(word >> 7) - JUMP_ZERO,
        FORLOOP | TFORLOOP => next - length,
        FORPREP => next + length + 1,
        TFORPREP => next + length,
        _ => return None,
    })
}

/// The same jump to another place, or from another one.
pub(super) fn jump_to(at: usize, word: u32, target: usize) -> Option<u32> {
    let length = target as i64 - at as i64 - 1;
    let wide = match operation(word) {
        JMP => return jump(length),
        FORLOOP | TFORLOOP => -length,
        FORPREP => length - 1,
        _ => length,
    };
    let wide = usize::try_from(wide).ok().filter(|wide| *wide <= BX_MAX)?;
    Some(abx(operation(word), register(word), wide))
}
