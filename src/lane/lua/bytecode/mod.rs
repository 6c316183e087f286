//! What is changed in a compiled script before it runs: its arithmetic is checked, and so is what it keeps.
//!
//! | file | holds |
//! |---|---|
//! | `dump` | a compiled script, taken apart and put together |
//! | `op` | instructions |
//! | `arithmetic` | sums, differences and products that are checked |
//! | `keeping` | what a script keeps beyond a call: found once it is loaded, and read-only from then on |
//! | `insert` | instructions put between others |

mod arithmetic;
mod dump;
mod insert;
mod keeping;
mod op;

/// A compiled script that is checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) code: Vec<u8>,
    /// Whether every sum and difference is, but those with a small constant: also of large integers.
    pub(super) is_sure: bool,
}

/// Marks the arithmetic of a compiled script: all of it, or only what may leave 64 bits as long as no large integer
/// comes. Then sums and differences outside loops are left as they are, unless the script makes large integers itself.
/// And lets it be known what the script keeps.
///
/// # Errors
/// The code is not of the Lua that is built in, or assigns to what cannot be assigned to.
pub(super) fn check(code: &[u8], is_all: bool) -> Result<Checked, String> {
    let mut main = dump::read(code).ok_or("the compiled script is not of the Lua that is built in")?;
    let is_sure = is_all || arithmetic::makes_large(&main);
    arithmetic::mark(&mut main, is_all, is_sure);
    keeping::keep(&mut main)?;
    let code = dump::write(&main).ok_or("the script is too large")?;
    Ok(Checked { code, is_sure })
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

    fn checked(text: &str, is_all: bool) -> Checked {
        check(&compiled(text), is_all).expect("the Lua that is built in")
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
}
