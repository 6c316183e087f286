//! Finds the members of a JSON object in one pass, without reading them.
//!
//! Most of an event is never looked at: the fields that say where it belongs and those that handlers ask for are few. So
//! the text is checked from its beginning to its end, by the grammar of RFC 8259, and all that is given of a member is
//! where it lies. Whatever is refused here goes to `serde_json`, which says what is wrong with it.

use std::ops::Range;

use super::bytes::{all_plain_but_quotes, begins_with, digits, plain, until_quote};

/// Levels of nesting; what lies deeper is refused.
const DEPTH_MAX: u32 = 64;

/// Members of an object that are remembered.
const MEMBERS_MAX: usize = 512;

/// Calls `take` with each member of a JSON object: its key, without quotes, and its value as it is written. False if the
/// text is no JSON object, is nested deeper than 64 levels, or if a key holds an escape: then what was given says nothing.
pub(crate) fn members<'j>(json: &'j str, mut take: impl FnMut(&'j str, &'j str)) -> bool {
    let mut scan = Scan::new(json);
    let mut read = || {
        for nth in 0.. {
            let Some(key) = scan.before_value(nth == 0)? else { break };
            take(json.get(key)?, json.get(scan.range()?)?);
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
    /// Where the key lies in it, without quotes.
    key: Range<usize>,
    kind: K,
}

impl<K> Default for Layout<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy> Layout<K> {
    /// As [`members`], but only those whose key is wanted: what the key is, as `classify` says, in place of the key, and
    /// where the value lies.
    pub(crate) fn members<W>(
        &mut self,
        json: &str,
        classify: impl Fn(&str) -> K,
        wanted: impl Fn(K) -> Option<W>,
        mut take: impl FnMut(W, Range<usize>),
    ) -> bool {
        let mut walk = self.walk(json);
        let mut read = || {
            while let Some(Member { kind, value, .. }) = walk.next(&classify, &wanted)? {
                take(kind, value);
            }
            Some(())
        };
        read().is_some()
    }

    /// The same, member by member.
    pub(crate) fn walk<'l, 'j>(&'l mut self, json: &'j str) -> Walk<'l, 'j, K> {
        Walk { layout: self, scan: Scan::new(json), nth: 0 }
    }
}

/// A member of an object.
pub(crate) struct Member<W> {
    /// What its key is.
    pub(crate) kind: W,
    /// Where its key lies, without quotes.
    pub(crate) key: Range<usize>,
    /// Where its value lies.
    pub(crate) value: Range<usize>,
}

/// Goes through the members of an object.
pub(crate) struct Walk<'l, 'j, K> {
    layout: &'l mut Layout<K>,
    scan: Scan<'j>,
    /// Members that are passed.
    nth: usize,
}

impl<K: Copy> Walk<'_, '_, K> {
    /// The next member whose key is wanted; the inner none at the end of the text. None for what [`members`] refuses.
    #[inline]
    pub(crate) fn next<W>(
        &mut self,
        classify: impl Fn(&str) -> K,
        wanted: impl Fn(K) -> Option<W>,
    ) -> Option<Option<Member<W>>> {
        let bytes = self.scan.json.as_bytes();
        loop {
            // Most members are where they were, are texts, and not wanted. The place is a local meanwhile, which is faster.
            let (mut at, mut nth) = (self.scan.at, self.nth);
            while let Some(known) = self.layout.0.get(nth)
                && begins_with(bytes.get(at..)?, known.before.as_bytes())
            {
                let start = at;
                at += known.before.len();
                nth += 1;
                let begin;
                if self.scan.is_plain && bytes.get(at) == Some(&b'"') {
                    begin = at;
                    at += 2 + until_quote(bytes.get(at + 1..)?)?;
                } else {
                    self.scan.at = at;
                    Range { start: begin, end: at } = self.scan.range()?;
                }
                if let Some(kind) = wanted(known.kind) {
                    (self.scan.at, self.nth) = (at, nth);
                    let key = start + known.key.start..start + known.key.end;
                    return Some(Some(Member { kind, key, value: begin..at }));
                }
            }
            (self.scan.at, self.nth) = (at, nth);
            let Some((kind, key)) = self.learn(&classify)? else {
                return self.scan.next().is_none().then_some(None);
            };
            let value = self.scan.range()?;
            if let Some(kind) = wanted(kind) {
                return Some(Some(Member { kind, key, value }));
            }
        }
    }

    /// Sets what the key of the last member is, from now on.
    pub(crate) fn set_kind(&mut self, kind: K) {
        if let Some(known) = self.nth.checked_sub(1).and_then(|last| self.layout.0.get_mut(last)) {
            known.kind = kind;
        }
    }

    /// Passes by what stands before the next value: what its key is, and where that lies. The inner none at the end of the
    /// object.
    fn learn(&mut self, classify: impl Fn(&str) -> K) -> Option<Option<(K, Range<usize>)>> {
        let start = self.scan.at;
        let Some(key) = self.scan.before_value(self.nth == 0)? else { return Some(None) };
        let kind = classify(self.scan.json.get(key.clone())?);
        if self.nth < MEMBERS_MAX {
            let before = self.scan.json.get(start..self.scan.at)?.into();
            self.layout.0.truncate(self.nth);
            self.layout.0.push(Known { before, key: key.start - start..key.end - start, kind });
        }
        self.nth += 1;
        Some(Some((kind, key)))
    }
}

/// A text, and how far it is read.
struct Scan<'j> {
    json: &'j str,
    at: usize,
    /// Whether nowhere in it is a backslash or a control character: then each quote begins or ends a text.
    is_plain: bool,
}

impl<'j> Scan<'j> {
    fn new(json: &'j str) -> Self {
        Self { json, at: 0, is_plain: all_plain_but_quotes(json.as_bytes()) }
    }

    #[inline]
    fn rest(&self) -> Option<&'j [u8]> {
        self.json.as_bytes().get(self.at..)
    }

    /// Passes by what stands before a value of an object: by the brace before the first one or a comma, a key that holds no
    /// escape, and a colon. Where the key lies; the inner none at the end of the object.
    fn before_value(&mut self, is_first: bool) -> Option<Option<Range<usize>>> {
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
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.json.as_bytes().get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
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

    /// A key that holds no escape: where it lies, without quotes.
    fn key(&mut self) -> Option<Range<usize>> {
        self.expect(b'"')?;
        let start = self.at;
        self.text()?.then(|| start..self.at - 1)
    }

    /// Passes by the rest of a text and its quote; says whether it holds no escape.
    #[inline]
    fn text(&mut self) -> Option<bool> {
        if !self.is_plain {
            return self.text_with_escapes();
        }
        self.at += until_quote(self.rest()?)? + 1;
        Some(true)
    }

    fn text_with_escapes(&mut self) -> Option<bool> {
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
        if self.peek()? == b'"' {
            self.at += 1;
            return self.text().map(drop);
        }
        self.other_value()
    }

    /// The same for what is no text.
    fn other_value(&mut self) -> Option<()> {
        match self.peek()? {
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
            let is_taken = layout.members(&json, |key| key.len(), Some, |key, at| again.push((key, &json[at])));
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
            assert!(layout.members(json, |key| key.len(), Some, |key, at| given.push((key, &json[at]))));
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
