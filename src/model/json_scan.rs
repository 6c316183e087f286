//! Finds the members of a JSON object in one pass, without reading them.
//!
//! Most of an event is never looked at: the fields that say where it belongs and those that handlers ask for are few. So
//! the text is checked from its beginning to its end, by the grammar of RFC 8259, and all that is given of a member is
//! where it lies. Whatever is refused here goes to `serde_json`, which says what is wrong with it.

/// Levels of nesting; what lies deeper is refused.
const DEPTH_MAX: u32 = 64;

/// Keys that are remembered.
const KEYS_MAX: usize = 64;

/// Calls `take` with each member of a JSON object: its key, without quotes, and its value as it is written. False if the
/// text is no JSON object, is nested deeper than 64 levels, or if a key holds an escape: then what was given says nothing.
pub(crate) fn members<'j>(json: &'j str, take: impl FnMut(&'j str, &'j str)) -> bool {
    let mut scan = Scan { json, at: 0 };
    scan.object(|scan, _| scan.key(), take).is_some()
}

/// The keys of the last object, and what they are: the next one mostly has the same in the same order.
#[derive(Debug)]
pub(crate) struct Layout<K>(Vec<(Box<str>, K)>);

impl<K> Default for Layout<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy> Layout<K> {
    /// As [`members`], with what each key is, as `classify` says, in place of the key.
    pub(crate) fn members<'j>(
        &mut self,
        json: &'j str,
        classify: impl Fn(&str) -> K,
        take: impl FnMut(K, &'j str),
    ) -> bool {
        let key = |scan: &mut Scan<'j>, nth| self.key(scan, nth, &classify);
        Scan { json, at: 0 }.object(key, take).is_some()
    }

    /// What the key is that comes next.
    fn key(&mut self, scan: &mut Scan<'_>, nth: usize, classify: impl Fn(&str) -> K) -> Option<K> {
        scan.next()?;
        let rest = scan.json.as_bytes().get(scan.at..)?;
        if let Some((known, kind)) = self.0.get(nth)
            && rest.starts_with(known.as_bytes())
        {
            scan.at += known.len();
            return Some(*kind);
        }
        let start = scan.at;
        let kind = classify(scan.key()?);
        if nth < KEYS_MAX {
            self.0.truncate(nth);
            self.0.push((scan.json.get(start..scan.at)?.into(), kind));
        }
        Some(kind)
    }
}

/// A text, and how far it is read.
struct Scan<'j> {
    json: &'j str,
    at: usize,
}

impl<'j> Scan<'j> {
    /// Passes by an object. `key` passes by a key, quotes and all.
    fn object<K>(
        &mut self,
        mut key: impl FnMut(&mut Self, usize) -> Option<K>,
        mut take: impl FnMut(K, &'j str),
    ) -> Option<()> {
        self.expect(b'{')?;
        if self.next()? == b'}' {
            self.at += 1;
        } else {
            for nth in 0.. {
                let key = key(self, nth)?;
                self.expect(b':')?;
                self.next()?;
                let start = self.at;
                self.value()?;
                take(key, self.json.get(start..self.at)?);
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        self.next().is_none().then_some(())
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
            self.at += plain(self.json.as_bytes().get(self.at..)?);
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
        let is_there = self.json.as_bytes().get(self.at..)?.starts_with(word.as_bytes());
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
        let digits = self.json.as_bytes().get(self.at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
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

/// How many bytes at the beginning of a text are plain, at least: those behind them may be too.
pub(crate) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(words) = bytes.get(at..at + 16) {
        let (first, second) = words.split_at(8);
        let (first, second) = (special(word(first)), special(word(second)));
        if first | second != 0 {
            let found = if first == 0 { 64 + second.trailing_zeros() } else { first.trailing_zeros() };
            return at + (found / 8) as usize;
        }
        at += 16;
    }
    match bytes.get(at..at + 8) {
        Some(bytes) => at + (special(word(bytes)).trailing_zeros() / 8) as usize,
        None => at,
    }
}

/// How many bytes at the beginning of a text are plain and not `byte`, at least: those behind them may be so too.
pub(crate) fn plain_before(bytes: &[u8], byte: u8) -> usize {
    let others = ONES * u64::from(byte);
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let found = word(eight);
        let found = special(found) | has_zero(found ^ others);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at
}

/// Whether no byte is a quote, a backslash, or a control character other than that one.
pub(crate) fn all_plain_but(bytes: &[u8], byte: u8) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let last = bytes.last_chunk::<8>().filter(|_| !rest.is_empty());
    let found = words.iter().chain(last).fold(0, |found, eight| found | special(u64::from_le_bytes(*eight)));
    let is_plain = |other: &u8| (*other >= 0x20 || *other == byte) && *other != b'"' && *other != b'\\';
    if bytes.len() < 8 || byte < 0x20 { bytes.iter().all(is_plain) } else { found == 0 }
}

/// Calls `take` with the place of each byte of that kind, in order.
pub(crate) fn each(bytes: &[u8], byte: u8, mut take: impl FnMut(usize)) {
    const LOW: u64 = ONES * 0x7f;
    let wanted = ONES * u64::from(byte);
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, eight) in words.iter().enumerate() {
        let zero_where_found = u64::from_le_bytes(*eight) ^ wanted;
        // Exact for each byte: none of them carries into the next.
        let mut found = !(((zero_where_found & LOW) + LOW) | zero_where_found | LOW);
        while found != 0 {
            take(8 * nth + (found.trailing_zeros() / 8) as usize);
            found &= found - 1;
        }
    }
    let begin = bytes.len() - rest.len();
    rest.iter().enumerate().filter(|(_, found)| **found == byte).for_each(|(at, _)| take(begin + at));
}

/// Eight bytes as one number.
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Marks the bytes that end a text or are not plain: a quote, a backslash, a control character. The lowest mark is right;
/// one above it may be of a byte that is plain.
fn special(word: u64) -> u64 {
    let quotes = has_zero(word ^ (ONES * b'"' as u64));
    let backslashes = has_zero(word ^ (ONES * b'\\' as u64));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    quotes | backslashes | controls & (ONES * 0x80)
}

const ONES: u64 = u64::MAX / 255;

/// Marks the bytes that are zero. The lowest mark is right.
fn has_zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES * 0x80)
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
    fn bytes_are_found_many_at_a_time_as_one_by_one() {
        let mut dice = Dice(9);
        let mut below = |end: usize| dice.below(end as u64) as usize;
        for _ in 0..20_000 {
            let kinds = [b'x', b',', b'\t', 0x80, 0xac, b'-', 1, 0x1f, b' ', b'"', b'\\', 0xff];
            let kinds = &kinds[..[1, 2, 3, 6, kinds.len()][below(5)]];
            let bytes: Vec<u8> = (0..below(40)).map(|_| kinds[below(kinds.len())]).collect();
            for byte in [b',', b'\t'] {
                let is_odd = |other: u8| (other < 0x20 && other != byte) || other == b'"' || other == b'\\';
                assert_eq!(all_plain_but(&bytes, byte), !bytes.iter().copied().any(is_odd), "{bytes:?}");
                let mut found = Vec::new();
                each(&bytes, byte, |at| found.push(at));
                let expected: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == byte).collect();
                assert_eq!(found, expected, "{bytes:?}");
                let is_end = |other: u8| is_odd(other) || other == byte;
                let until = bytes.iter().position(|other| is_end(*other)).unwrap_or(bytes.len());
                let passed = plain_before(&bytes, byte);
                assert!(passed <= until && (passed == until || bytes.len() - passed < 8), "{bytes:?} {passed}");
            }
        }
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
            let is_taken = layout.members(&json, |key| key.len(), |key, value| again.push((key, value)));
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
            assert!(layout.members(json, |key| key.len(), |key, value| given.push((key, value))));
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
