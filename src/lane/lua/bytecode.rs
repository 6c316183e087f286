//! Marks the arithmetic of a script that is to be checked.
//!
//! Lua 5.4 puts two instructions down for each operation: the operation itself, which goes on behind the second if both
//! operands are numbers, and one that calls the metamethod. Where the first is replaced by one that does nothing, the
//! metamethod is always called: `arithmetic.lua` checks there. Exact numbers have come that way all along, and are no
//! slower for it. What is read here is the form that `string.dump` of the Lua that is built in gives; any other is
//! refused.

use super::encoder::is_large;

/// How a compiled script begins: its version and format, and how wide its numbers are.
const HEAD: &[u8] = b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n\x04\x08\x08\x78\x56\0\0\0\0\0\0";
/// Behind it, the number 370.5.
const HEAD_FLOAT: [u8; 8] = 370.5_f64.to_le_bytes();

const MOVE: u32 = 0;
const ADDI: u32 = 21;
const ADDK: u32 = 22;
const SUBK: u32 = 23;
const MULK: u32 = 24;
const FIRST_BITS: u32 = 29;
const LAST_BITS_OF_CONSTANTS: u32 = 33;
const ADD: u32 = 34;
const SUB: u32 = 35;
const MUL: u32 = 36;
const BAND: u32 = 41;
const SHR: u32 = 45;
const FIRST_METAMETHOD: u32 = 46;
const LAST_METAMETHOD: u32 = 48;
const BNOT: u32 = 50;
const JMP: u32 = 56;
const FORLOOP: u32 = 73;
const TFORLOOP: u32 = 77;

/// Names by which a script gets at large integers that did not come with an event.
const SOURCES_OF_LARGE: [&[u8]; 3] = [b"maxinteger", b"mininteger", b"unpack"];

/// A compiled script whose arithmetic is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) code: Vec<u8>,
    /// Whether every sum and difference is, but those with a small constant: also of large integers.
    pub(super) is_sure: bool,
}

/// Marks the arithmetic of a compiled script: all of it, or only what may leave 64 bits as long as no large integer
/// comes. Then sums and differences outside loops are left as they are, unless the script makes large integers itself.
///
/// # Errors
/// The code is not of the Lua that is built in.
pub(super) fn check(mut code: Vec<u8>, is_all: bool) -> Result<Checked, &'static str> {
    let mut found = Found::default();
    walk(&mut code, &mut |function| found.look(function))?;
    let is_sure = is_all || found.makes_large;
    walk(&mut code, &mut |function| function.mark(is_all, is_sure))?;
    Ok(Checked { code, is_sure })
}

#[derive(Default)]
struct Found {
    makes_large: bool,
}

impl Found {
    fn look(&mut self, function: &mut Function<'_>) {
        let makes_large = |(_, word): (usize, u32)| match word & 0x7f {
            MUL | FIRST_BITS..=LAST_BITS_OF_CONSTANTS | BAND..=SHR | BNOT => true,
            MULK => matches!(function.constant(word >> 24), Some(Constant::Integer(_))),
            _ => false,
        };
        self.makes_large |= function.words().any(makes_large);
        self.makes_large |= function.constants.iter().any(|constant| match constant {
            Constant::Integer(value) => is_large(*value),
            Constant::SourceOfLarge => true,
            Constant::Other => false,
        });
    }
}

enum Constant {
    Integer(i64),
    SourceOfLarge,
    Other,
}

/// The instructions of one function, 4 bytes each, and its constants.
struct Function<'c> {
    code: &'c mut [u8],
    constants: Vec<Constant>,
}

impl Function<'_> {
    fn words(&self) -> impl Iterator<Item = (usize, u32)> {
        let (words, _) = self.code.as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word)).enumerate()
    }

    fn constant(&self, place: u32) -> Option<&Constant> {
        self.constants.get(place as usize)
    }

    /// For each instruction, whether it may be gone through again and again.
    fn loops(&self) -> Vec<bool> {
        const JUMP_ZERO: i64 = (1 << 24) - 1;
        let mut is_in_loop = vec![false; self.code.len() / 4];
        for (at, word) in self.words() {
            let next = at as i64 + 1;
            let target = match word & 0x7f {
                JMP => next + i64::from(word >> 7) - JUMP_ZERO,
                FORLOOP | TFORLOOP => next - i64::from(word >> 15),
                _ => continue,
            };
            if let Some(range) = usize::try_from(target).ok().and_then(|target| is_in_loop.get_mut(target..=at)) {
                range.fill(true);
            }
        }
        is_in_loop
    }

    fn mark(&mut self, is_all: bool, is_sure: bool) {
        let is_in_loop = self.loops();
        let words: Vec<u32> = self.words().map(|(_, word)| word).collect();
        for (at, pair) in words.windows(2).enumerate() {
            let word = pair[0];
            let is_large_constant = || match self.constants.get((word >> 24) as usize) {
                Some(Constant::Integer(value)) => is_large(*value),
                _ => false,
            };
            let is_marked = match word & 0x7f {
                MUL | MULK => true,
                ADD | SUB => is_sure || is_in_loop[at],
                ADDK | SUBK => is_all || is_large_constant(),
                ADDI => is_all,
                _ => false,
            };
            if is_marked && (FIRST_METAMETHOD..=LAST_METAMETHOD).contains(&(pair[1] & 0x7f)) {
                // The metamethod's instruction looks here for the register of the result.
                let register = word >> 7 & 0xff;
                let nothing = MOVE | register << 7 | register << 16;
                self.code[4 * at..4 * at + 4].copy_from_slice(&nothing.to_le_bytes());
            }
        }
    }
}

/// Visits each function of a compiled script.
fn walk(code: &mut [u8], visit: &mut dyn FnMut(&mut Function<'_>)) -> Result<(), &'static str> {
    const REFUSED: &str = "the compiled script is not of the Lua that is built in";
    let is_known = code.starts_with(HEAD) && code[HEAD.len()..].starts_with(&HEAD_FLOAT);
    let mut reader = Reader { code, at: HEAD.len() + HEAD_FLOAT.len() };
    let is_walked = is_known && reader.skip(1).and_then(|()| reader.function(visit)).is_some();
    if is_walked && reader.at == reader.code.len() { Ok(()) } else { Err(REFUSED) }
}

struct Reader<'c> {
    code: &'c mut [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.code.len())?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Seven bits a byte, the most significant first; the last byte has the eighth bit.
    fn number(&mut self) -> Option<usize> {
        let mut number: usize = 0;
        loop {
            let byte = self.byte()?;
            number = number.checked_mul(128)? | usize::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                return Some(number);
            }
        }
    }

    fn text(&mut self) -> Option<(usize, usize)> {
        let len = self.number()?.saturating_sub(1);
        let start = self.at;
        self.skip(len)?;
        Some((start, self.at))
    }

    fn function(&mut self, visit: &mut dyn FnMut(&mut Function<'_>)) -> Option<()> {
        self.text()?; // the source's name
        self.number()?; // first line
        self.number()?; // last line
        self.skip(3)?; // parameters, whether there may be more, registers
        let words = self.number()?.checked_mul(4)?;
        let start = self.at;
        self.skip(words)?;
        let constants = self.constants()?;
        visit(&mut Function { code: self.code.get_mut(start..start + words)?, constants });
        let upvalues = self.number()?.checked_mul(3)?;
        self.skip(upvalues)?;
        for _ in 0..self.number()? {
            self.function(visit)?;
        }
        let lines = self.number()?;
        self.skip(lines)?;
        for _ in 0..self.number()? {
            self.number()?;
            self.number()?;
        }
        for _ in 0..self.number()? {
            self.text()?; // a local's name, and where it begins and ends
            self.number()?;
            self.number()?;
        }
        for _ in 0..self.number()? {
            self.text()?; // an upvalue's name
        }
        Some(())
    }

    fn constants(&mut self) -> Option<Vec<Constant>> {
        let count = self.number()?;
        let mut constants = Vec::new();
        for _ in 0..count {
            constants.push(match self.byte()? {
                0x00 | 0x01 | 0x11 => Constant::Other,
                0x03 => {
                    let bytes = self.code.get(self.at..self.at + 8)?.try_into().ok()?;
                    self.skip(8)?;
                    Constant::Integer(i64::from_le_bytes(bytes))
                }
                0x13 => {
                    self.skip(8)?;
                    Constant::Other
                }
                0x04 | 0x14 => {
                    let (start, end) = self.text()?;
                    let text = self.code.get(start..end)?;
                    if SOURCES_OF_LARGE.contains(&text) { Constant::SourceOfLarge } else { Constant::Other }
                }
                _ => return None,
            });
        }
        Some(constants)
    }
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;

    fn compiled(text: &str) -> Vec<u8> {
        Lua::new().load(text).set_name("=script").into_function().expect("a script").dump(false)
    }

    fn checked(text: &str, is_all: bool) -> Checked {
        check(compiled(text), is_all).expect("the Lua that is built in")
    }

    /// Whether an operation is marked.
    fn is_marked(text: &str, is_all: bool) -> bool {
        checked(text, is_all).code != compiled(text)
    }

    #[test]
    fn what_may_leave_64_bits_is_marked() {
        for (body, if_all, otherwise) in [
            ("return a + b", true, false),
            ("return a - b", true, false),
            ("return a + 1", true, false),
            ("return a - 1000", true, false),
            ("return a * b", true, true),
            ("return a * 3", true, true),
            ("return a / b", false, false),
            ("return a .. b", false, false),
            ("for i = 1, a do b = b + i end return b", true, true),
            ("while a do b = b - a end", true, true),
            ("return a + b, a * b", true, true),
            ("return a + 4611686018427387904", true, true),
        ] {
            let text = format!("local function f(a, b) {body} end");
            assert_eq!((is_marked(&text, true), is_marked(&text, false)), (if_all, otherwise), "{body}");
        }
    }

    #[test]
    fn only_a_script_that_makes_no_large_integers_is_left_with_sums() {
        for (text, is_sure) in [
            ("local a, b = ... return a + b", false),
            ("local a, b = ... return a * 0.5 + b", false),
            ("local a, b = ... return a * 5 + b", true),
            ("local a, b = ... return a + b, math.maxinteger", true),
            ("local a, b = ... return a + b, a << 2", true),
            ("local a, b = ... return a + b, 4611686018427387904", true),
        ] {
            assert_eq!(checked(text, false).is_sure, is_sure, "{text}");
            assert!(checked(text, true).is_sure, "{text}");
        }
    }

    #[test]
    fn other_code_is_refused() {
        let code = compiled("return 1");
        for end in 0..code.len() {
            assert!(check(code[..end].to_vec(), true).is_err(), "{end}");
        }
        assert!(check(b"\x1bLua\x55".to_vec(), true).is_err());
    }
}
