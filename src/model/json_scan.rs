//! Finds the members of a JSON object in one pass, without reading them.
//!
//! Most of an event is never looked at: the fields that say where it belongs and those that handlers ask for are few. So
//! the text is checked from its beginning to its end, by the grammar of RFC 8259, and all that is given of a member is
//! where it lies. Whatever is refused here goes to `serde_json`, which says what is wrong with it.

use std::ops::Range;

use super::bytes::{begins_with, digits, plain};

/// Levels of nesting; what lies deeper is refused.
const DEPTH_MAX: u32 = 64;

/// Members of an object that are remembered.
const MEMBERS_MAX: usize = 512;

/// Calls `take` with each member of a JSON object: its key, without quotes, and its value as it is written. False if the
/// text is no JSON object, is nested deeper than 64 levels, or if a key holds an escape: then what was given says nothing.
pub(crate) fn members<'j>(json: &'j str, mut take: impl FnMut(&'j str, &'j str)) -> bool {
    let mut scan = Scan { json, at: 0 };
    let mut read = || {
        for nth in 0.. {
            let Some(key) = scan.before_value(nth == 0)? else { break };
            take(key, json.get(scan.range()?)?);
        }
        scan.next().is_none().then_some(())
    };
    read().is_some()
}

/// What stood before each value of the last object, and what the keys there are: the next one mostly has the same.
#[derive(Debug)]
pub(crate) struct Layout<K>(Vec<Known<K>>);

#[derive(Debug)]
struct Known<K> {
    /// From the end of the value before to the beginning of this one: the comma, the key, the colon and blanks.
    before: Box<str>,
    kind: K,
}

impl<K> Default for Layout<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy> Layout<K> {
    /// As [`members`], with what each key is, as `classify` says, in place of the key, and where its value lies.
    pub(crate) fn members(
        &mut self,
        json: &str,
        classify: impl Fn(&str) -> K,
        take: impl FnMut(K, Range<usize>),
    ) -> bool {
        self.read(Scan { json, at: 0 }, classify, take).is_some()
    }

    fn read(
        &mut self,
        mut scan: Scan<'_>,
        classify: impl Fn(&str) -> K,
        mut take: impl FnMut(K, Range<usize>),
    ) -> Option<()> {
        for nth in 0.. {
            let kind = match self.0.get(nth) {
                Some(known) if begins_with(scan.rest()?, known.before.as_bytes()) => {
                    scan.at += known.before.len();
                    known.kind
                }
                _ => match self.learn(&mut scan, nth, &classify)? {
                    Some(kind) => kind,
                    None => break,
                },
            };
            take(kind, scan.range()?);
        }
        scan.next().is_none().then_some(())
    }

    /// Passes by what stands before the next value; the inner none at the end of the object.
    fn learn(&mut self, scan: &mut Scan<'_>, nth: usize, classify: impl Fn(&str) -> K) -> Option<Option<K>> {
        let start = scan.at;
        let Some(key) = scan.before_value(nth == 0)? else { return Some(None) };
        let kind = classify(key);
        if nth < MEMBERS_MAX {
            self.0.truncate(nth);
            self.0.push(Known { before: scan.json.get(start..scan.at)?.into(), kind });
        }
        Some(Some(kind))
    }
}

/// A text, and how far it is read.
struct Scan<'j> {
    json: &'j str,
    at: usize,
}

impl<'j> Scan<'j> {
    fn rest(&self) -> Option<&'j [u8]> {
        self.json.as_bytes().get(self.at..)
    }

    /// Passes by what stands before a value of an object: by the brace before the first one or a comma, a key that holds no
    /// escape, and a colon. Gives the key; the inner none at the end of the object.
    fn before_value(&mut self, is_first: bool) -> Option<Option<&'j str>> {
        let ends = if is_first {
            self.expect(b'{')?;
            let is_empty = self.next()? == b'}';
            self.at += usize::from(is_empty);
            is_empty
        } else {
            !self.goes_on(b'}')?
        };
        if ends {
            return Some(None);
        }
        let key = self.key()?;
        self.expect(b':')?;
        self.next()?;
        Some(Some(key))
    }

    /// Passes by a value and the blanks before it; where it lies.
    fn range(&mut self) -> Option<Range<usize>> {
        self.next()?;
        let start = self.at;
        self.value()?;
        Some(start..self.at)
    }

    /// The next byte that is no blank; none at the end.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.json.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        let is_there = self.next()? == wanted;
        self.at += 1;
        is_there.then_some(())
    }

    /// Passes by a comma, or by the end of an object or a list; says whether it goes on.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let byte = self.next()?;
        self.at += 1;
        match byte {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    /// A key that holds no escape.
    fn key(&mut self) -> Option<&'j str> {
        self.expect(b'"')?;
        let start = self.at;
        let is_plain = self.text()?;
        self.json.get(start..self.at - 1).filter(|_| is_plain)
    }

    /// Passes by the rest of a text and its quote; says whether it holds no escape.
    fn text(&mut self) -> Option<bool> {
        let mut is_plain = true;
        loop {
            self.at += plain(self.rest()?);
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(is_plain),
                b'\\' => {
                    is_plain = false;
                    self.escape()?;
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    /// Passes by what stands behind a backslash.
    fn escape(&mut self) -> Option<()> {
        let bytes = self.json.as_bytes();
        let byte = *bytes.get(self.at)?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let is_hex = bytes.get(self.at..self.at + 4)?.iter().all(u8::is_ascii_hexdigit);
                self.at += 4;
                is_hex.then_some(())
            }
            _ => None,
        }
    }

    /// Passes by a value, which begins here.
    fn value(&mut self) -> Option<()> {
        match *self.json.as_bytes().get(self.at)? {
            b'"' => {
                self.at += 1;
                self.text().map(drop)
            }
            b'{' | b'[' => self.nested(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is_there = self.rest()?.starts_with(word.as_bytes());
        self.at += word.len();
        is_there.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    /// Passes by digits, one at least.
    fn digits(&mut self) -> Option<()> {
        let digits = digits(self.rest()?);
        self.at += digits;
        (digits > 0).then_some(())
    }

    /// Passes by an object or a list, which begins here, and all that is in it.
    fn nested(&mut self) -> Option<()> {
        // A bit a level: whether it is an object.
        let (mut objects, mut depth) = (0_u64, 0);
        loop {
            // Here begins a value.
            let byte = self.next()?;
            let mut ends = false;
            if let b'{' | b'[' = byte {
                if depth == DEPTH_MAX {
                    return None;
                }
                (objects, depth) = (objects << 1 | u64::from(byte == b'{'), depth + 1);
                self.at += 1;
                let close = if byte == b'{' { b'}' } else { b']' };
                ends = self.next()? == close;
                self.at += usize::from(ends);
                if !ends {
                    self.member(objects)?;
                    continue;
                }
            } else {
                self.value()?;
            }
            // Here ends a value, and with it maybe those around it.
            loop {
                if ends {
                    (objects, depth) = (objects >> 1, depth - 1);
                }
                if depth == 0 {
                    return Some(());
                }
                ends = !self.goes_on(if objects & 1 == 1 { b'}' } else { b']' })?;
                if !ends {
                    self.member(objects)?;
                    break;
                }
            }
        }
    }

    /// Passes by the key of the next member, if the innermost level is an object.
    fn member(&mut self, objects: u64) -> Option<()> {
        if objects & 1 == 0 {
            return Some(());
        }
        self.expect(b'"')?;
        self.text()?;
        self.expect(b':')
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::value::RawValue;

    use super::*;

    /// Numbers that look as if drawn by chance.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }
    }

    fn scanned(json: &str) -> Option<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        members(json, |key, value| found.push((key, value))).then_some(found)
    }

    #[test]
    fn members_are_given_as_they_are_written() {
        let json = r#" { "a" : 1 ,"b":"x\"}","c":{"d":[1,{}, []],"e":{}} , "":-0.5e+7,"a":null }  "#;
        let found =
            [("a", "1"), ("b", r#""x\"}""#), ("c", r#"{"d":[1,{}, []],"e":{}}"#), ("", "-0.5e+7"), ("a", "null")];
        assert_eq!(scanned(json).as_deref(), Some(&found[..]));
        assert_eq!(scanned("{}").as_deref(), Some(&[][..]));
        for refused in ["", "[]", "1", "{} {}", r#"{"a\n":1}"#, "{\"a\":\"\u{1}\"}", r#"{"a":"\ud8"}"#, r#"{"a":01}"#] {
            assert_eq!(scanned(refused), None, "{refused}");
        }
    }

    #[test]
    fn it_takes_nothing_that_serde_json_does_not() {
        let parts = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u00e9",
            "\\ud83d",
            "é",
            "\u{1}",
            " ",
            "\n",
            "0",
            "1",
            "-",
            ".",
            "e",
            "+",
            "true",
            "false",
            "null",
            "a",
            "{\"a\":",
            "\"abcdefgh\"",
            "{\"b\":[1,2.5e-3]}",
            "1234567",
        ];
        let mut dice = Dice(7);
        let (mut taken, mut refused, mut layout) = (0, 0, Layout::default());
        for round in 0..200_000 {
            let mut json = String::from("{\"k\":");
            for _ in 0..dice.below(1 + round % 9) {
                json.push_str(parts[dice.below(parts.len() as u64) as usize]);
            }
            if dice.below(8) > 0 {
                json.push('}');
            }
            let is_json = serde_json::from_str::<IgnoredAny>(&json).is_ok();
            let mut again = Vec::new();
            let is_taken = layout.members(&json, |key| key.len(), |key, at| again.push((key, &json[at])));
            assert_eq!(is_taken, scanned(&json).is_some(), "{json}");
            match scanned(&json) {
                Some(found) => {
                    let lengths: Vec<_> = found.iter().map(|(key, value)| (key.len(), *value)).collect();
                    assert_eq!(again, lengths, "{json}");
                    taken += 1;
                    assert!(is_json, "{json}");
                    for (_, value) in found {
                        assert_eq!(serde_json::from_str::<&RawValue>(value).expect(value).get(), value);
                    }
                }
                None => {
                    refused += 1;
                    assert!(!is_json || json.contains('\\'), "{json}");
                }
            }
        }
        assert!(taken > 1000 && refused > 1000, "{taken} {refused}");
    }

    #[test]
    fn keys_are_known_again_where_they_stand() {
        let mut layout = Layout::default();
        for (json, found) in [
            (r#"{"a":1,"bc":2}"#, vec![(1, "1"), (2, "2")]),
            (r#"{"a":3,"bc":4}"#, vec![(1, "3"), (2, "4")]),
            (r#"{ "a" :3, "b":4, "c":5}"#, vec![(1, "3"), (1, "4"), (1, "5")]),
            (r#"{"ab":3,"b":4}"#, vec![(2, "3"), (1, "4")]),
            (r#"{}"#, vec![]),
            (r#"{"a":1}"#, vec![(1, "1")]),
        ] {
            let mut given = Vec::new();
            assert!(layout.members(json, |key| key.len(), |key, at| given.push((key, &json[at]))));
            assert_eq!(given, found, "{json}");
        }
    }

    #[test]
    fn what_is_nested_deeper_is_left_to_others() {
        for (depth, is_taken) in [(63, true), (64, true), (65, false), (10_000, false)] {
            let json = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(scanned(&json).is_some(), is_taken, "{depth}");
        }
        let mixed = format!("{{\"a\":{}1{}}}", "[{\"k\":".repeat(32), "}]".repeat(32));
        assert!(scanned(&mixed).is_some());
        assert!(scanned(&mixed.replace("}]", "]}")).is_none());
    }
}
