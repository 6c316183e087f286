//! JSON: one list of objects, or objects one after another, over as many lines as they like. Read as a stream.
//!
//! A document ends where its brackets do. Where they are broken nobody can tell what a document holds, so the run ends, also
//! where events are put aside; a document whose brackets are whole and that is no event otherwise is refused alone.

use std::io::BufRead;

use super::event::{EventReader, too_long};
use super::{CutError, SourceEvent};
use crate::model::bytes::plain;
use crate::model::json_scan::members;
use crate::model::limits::LINE_BYTES_MAX;
use crate::source::event_head::Piece;
use crate::source::fields::Fields;
use crate::source::foreign;

/// How deep a list is looked for in a document that is no event.
const LIST_DEPTH_MAX: u32 = 3;

/// Bytes that a message shows of what is unexpected.
const SHOWN_BYTES_MAX: usize = 30;

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Cuts an input into documents.
pub(in crate::source) struct DocumentCutter {
    reader: EventReader,
    text: Vec<u8>,
    between: Between,
    /// Documents of the input so far.
    count: u64,
    /// Bytes of the input so far.
    offset: u64,
    /// The line of the next byte, and how many bytes of it were read.
    line: u64,
    column: u64,
    /// The line on which the list begins.
    list_line: u64,
    /// The document that is being read, if it is not whole yet.
    open: Option<Open>,
    /// Bytes of a document at most.
    bytes_max: usize,
}

/// A document whose end was not found yet.
struct Open {
    scan: Scan,
    /// The line on which it begins, and the bytes before it there.
    line: u64,
    column: u64,
}

/// Where the cutter stands between documents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    /// In no list.
    Top,
    /// Behind the bracket of a list.
    Begin,
    /// Behind a document of a list.
    Document,
    /// Behind a comma.
    Comma,
}

impl DocumentCutter {
    pub(super) fn new(fields: Fields) -> Self {
        Self {
            reader: EventReader::new(fields, Piece::DOCUMENT),
            text: Vec::new(),
            between: Between::Top,
            count: 0,
            offset: 0,
            line: 1,
            column: 0,
            list_line: 0,
            open: None,
            bytes_max: LINE_BYTES_MAX,
        }
    }

    pub(super) fn begin(&mut self) {
        (self.between, self.open) = (Between::Top, None);
        (self.count, self.offset, self.line, self.column) = (0, 0, 1, 0);
    }

    pub(super) fn next(&mut self, input: &mut impl BufRead, event: &mut SourceEvent) -> Result<bool, CutError> {
        use Between::{Begin, Comma, Document, Top};
        loop {
            if let Some(open) = self.open.take() {
                return self.document(open, input, event);
            }
            let ahead = self.ahead(input)?;
            let Some(first) = ahead.first().copied() else { return Ok(false) };
            let blanks = ahead.iter().take_while(|byte| is_blank(**byte)).count();
            if blanks > 0 {
                self.pass(&ahead[..blanks]);
                input.consume(blanks);
                continue;
            }
            let after = match (self.between, first) {
                (Top, b'{') => {
                    self.open_document(first);
                    continue;
                }
                (Top, b'[') => Begin,
                (Begin | Document, b']') => Top,
                (Document, b',') => Comma,
                (Begin | Comma, b',' | b':' | b'}' | b']') => return Err(self.unexpected(ahead)),
                (Begin | Comma, _) => {
                    self.open_document(first);
                    continue;
                }
                (Top, byte) if self.offset < 3 && BOM[self.offset as usize] == byte => {
                    (self.offset, self.column) = (self.offset + 1, 0);
                    input.consume(1);
                    continue;
                }
                (Top | Document, _) => return Err(self.unexpected(ahead)),
            };
            if after == Begin {
                self.list_line = self.line;
            }
            self.between = after;
            self.pass(&ahead[..1]);
            input.consume(1);
        }
    }

    /// Whether bytes hold a whole document.
    pub(super) fn is_ready(&self, ahead: &[u8]) -> bool {
        if let Some(open) = &self.open {
            return open.scan.clone().pass(ahead).is_some();
        }
        let begin = ahead.iter().position(|byte| !is_blank(*byte) && !matches!(byte, b'[' | b']' | b','));
        begin.is_some_and(|begin| Scan::new(ahead[begin]).pass(&ahead[begin..]).is_some())
    }

    /// What is there to be read; nothing at the end.
    fn ahead<'i>(&self, input: &'i mut impl BufRead) -> Result<&'i [u8], CutError> {
        loop {
            match input.fill_buf() {
                Ok(_) => break,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(CutError::Read { line: self.line, cause }),
            }
        }
        // A second call gives what is there: the borrow of the loop would outlive it.
        input.fill_buf().map_err(|cause| CutError::Read { line: self.line, cause })
    }

    /// Notes where the input stands behind these bytes.
    fn pass(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.offset += len;
        // Looked for first: that is fast, and most documents stand on one line.
        let last = bytes.contains(&b'\n').then(|| bytes.iter().rposition(|byte| *byte == b'\n')).flatten();
        match last {
            None => self.column += len,
            Some(last) => {
                self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.column = (bytes.len() - last - 1) as u64;
            }
        }
    }

    /// A document begins here.
    fn open_document(&mut self, first: u8) {
        self.count += 1;
        self.text.clear();
        self.open = Some(Open { scan: Scan::new(first), line: self.line, column: self.column });
    }

    /// Reads on in a document; false if the input has no more of it for now.
    fn document(
        &mut self,
        mut open: Open,
        input: &mut impl BufRead,
        event: &mut SourceEvent,
    ) -> Result<bool, CutError> {
        loop {
            let ahead = self.ahead(input)?;
            if ahead.is_empty() {
                self.open = Some(open);
                return Ok(false);
            }
            let end = open.scan.pass(ahead);
            let taken = end.unwrap_or(ahead.len());
            if self.text.len() + taken > self.bytes_max {
                return Err(self.broken(&open, &too_long(Piece::DOCUMENT)));
            }
            self.text.extend_from_slice(&ahead[..taken]);
            self.pass(&ahead[..taken]);
            input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if self.between != Between::Top {
            self.between = Between::Document;
        }
        event.line = open.line;
        self.reader.read_document(&self.text, (open.line, open.column), event);
        if event.refused.is_some() && !has_whole_brackets(&self.text) {
            return Err(self.broken(&open, "its brackets are broken"));
        }
        if let Some(refused) = &mut event.refused {
            refused.error.push_str(&format!(" (document {})", self.count));
            let text = std::str::from_utf8(&self.text).ok().filter(|_| !refused.has_block);
            if let Some(key) = text.and_then(|text| list_in(text, LIST_DEPTH_MAX)) {
                refused.error.push_str(&format!(
                    "; a document is one event, and {key:?} of this one holds a list of objects: if those are the events, \
                     the input must be that list, or its objects one after another"
                ));
            }
        }
        Ok(true)
    }

    /// A document that does not end, or nobody can tell where.
    fn broken(&self, open: &Open, what: &str) -> CutError {
        let mut event = SourceEvent::default();
        self.reader.read_document(&self.text, (open.line, open.column), &mut event);
        let more = event.refused.map_or_else(String::new, |refused| format!(": {}", refused.error));
        let number = self.count;
        let message = format!("document {number}, which begins here: {what}{more}; nobody can tell what else it holds");
        CutError::Input { line: open.line, message }
    }

    /// Something that stands between documents and may not.
    fn unexpected(&self, ahead: &[u8]) -> CutError {
        let line = self.line;
        if let Some(message) = foreign::named(if self.offset == 0 { 1 } else { line.max(2) }, ahead) {
            return CutError::Input { line, message };
        }
        let shown = &ahead[..ahead.len().min(SHOWN_BYTES_MAX)];
        let shown = String::from_utf8_lossy(shown.split(|byte| *byte == b'\n').next().unwrap_or_default());
        let expected = match self.between {
            Between::Top if self.count == 0 => "a list of objects, or an object",
            Between::Top => "another object or list, or the end of the input",
            Between::Begin | Between::Comma => "an object",
            Between::Document => "a comma or the end of the list",
        };
        let message = format!("byte {} of the line: expected {expected}, got {:?}", self.column + 1, shown.trim_end());
        CutError::Input { line, message }
    }

    /// The input is over.
    pub(super) fn end(&mut self) -> Result<(), CutError> {
        if let Some(open) = self.open.take() {
            return Err(self.broken(&open, "it breaks off at the end of the input"));
        }
        if self.between == Between::Top {
            return Ok(());
        }
        let message = format!(
            "the list that begins on line {} breaks off behind {} documents: was the file cut off, or is it still being \
             written?",
            self.list_line, self.count
        );
        Err(CutError::Input { line: self.line, message })
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The name of a member of an object, or of an object in it, that is a list of objects; with dots where it lies deeper.
fn list_in(json: &str, depth: u32) -> Option<String> {
    let mut found = Vec::new();
    let is_object = members(json, |key, value| found.push((key, value)));
    let is_list = |value: &str| value.strip_prefix('[').is_some_and(|list| list.trim_start().starts_with('{'));
    let list = found.iter().find(|(_, value)| is_list(value)).map(|(key, _)| (*key).to_owned());
    let deeper = || found.iter().find_map(|(key, value)| Some(format!("{key}.{}", list_in(value, depth - 1)?)));
    list.or_else(|| if depth > 0 { deeper() } else { None }).filter(|_| is_object)
}

/// Finds the end of a value by its brackets.
#[derive(Clone)]
struct Scan {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
    is_token: bool,
}

impl Scan {
    fn new(first: u8) -> Self {
        Self { depth: 0, in_text: false, is_escaped: false, is_token: !matches!(first, b'{' | b'[' | b'"') }
    }

    /// Goes on over these bytes; where among them the value ends, if it does.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_token {
            return bytes.iter().position(|byte| is_blank(*byte) || b",[]{}\"".contains(byte));
        }
        let mut at = usize::from(std::mem::take(&mut self.is_escaped) && !bytes.is_empty());
        loop {
            if self.in_text {
                at = self.pass_text(bytes, at)?;
            } else {
                at += bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))? + 1;
                match bytes[at - 1] {
                    b'"' => {
                        self.in_text = true;
                        continue;
                    }
                    b'{' | b'[' => self.depth += 1,
                    _ => self.depth = self.depth.saturating_sub(1),
                }
            }
            if self.depth == 0 {
                return Some(at);
            }
        }
    }

    /// Goes on within a text; where it ends.
    fn pass_text(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            at += plain(bytes.get(at..)?);
            match bytes.get(at)? {
                b'"' => {
                    self.in_text = false;
                    return Some(at + 1);
                }
                b'\\' if at + 1 == bytes.len() => {
                    self.is_escaped = true;
                    return None;
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
}

/// What may come next within a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    Key,
    Colon,
    /// A comma, or the bracket that closes.
    Comma,
}

/// Whether brackets, colons and commas of a value stand where they may, and each text ends on its line: then it holds what
/// it seems to hold, whatever its numbers and words are.
fn has_whole_brackets(text: &[u8]) -> bool {
    use Expected::{Colon, Comma, Key, Value};
    // Whether each bracket that is open is an object's.
    let mut open: Vec<bool> = Vec::new();
    let (mut expected, mut at, mut begins) = (Value, 0, true);
    while let Some(byte) = text.get(at).copied() {
        let is_object = open.last().copied();
        at += 1;
        match (expected, byte) {
            (_, byte) if is_blank(byte) => continue,
            (Comma, _) if is_object.is_none() => return false,
            (Value, b'{' | b'[') => {
                open.push(byte == b'{');
                (expected, begins) = (if byte == b'{' { Key } else { Value }, true);
                continue;
            }
            (Comma, b',') => expected = if is_object == Some(true) { Key } else { Value },
            (Colon, b':') => expected = Value,
            (Comma, b'}' | b']') | (Key | Value, b'}' | b']') if expected == Comma || begins => {
                if open.pop() != Some(byte == b'}') {
                    return false;
                }
                expected = Comma;
            }
            (Key | Value, b'"') => {
                let Some(end) = end_of_text(text, at) else { return false };
                at = end;
                expected = if expected == Key { Colon } else { Comma };
            }
            (Value, byte) if !b",:}]".contains(&byte) => {
                at += text[at..].iter().take_while(|byte| !is_blank(**byte) && !b",:[]{}\"".contains(byte)).count();
                expected = Comma;
            }
            _ => return false,
        }
        begins = false;
    }
    open.is_empty() && expected == Comma
}

/// Where a text of one line ends, whose first byte stands at `at`.
fn end_of_text(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\n' => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    /// Gives so many bytes at a time.
    struct Slow<'b>(&'b [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let len = into.len().min(self.1);
            self.0.read(&mut into[..len])
        }
    }

    /// The documents with their lines, and how the input ends.
    fn cut(text: &str, at_a_time: usize) -> (Vec<String>, String) {
        let mut input = BufReader::with_capacity(at_a_time.max(8), Slow(text.as_bytes(), at_a_time));
        let mut cutter = DocumentCutter::new(Fields::default());
        let (mut event, mut documents) = (SourceEvent::default(), Vec::new());
        cutter.begin();
        loop {
            match cutter.next(&mut input, &mut event) {
                Ok(true) => documents.push(match &event.refused {
                    Some(refused) => format!("{} ! {}", event.line, refused.error),
                    None => format!("{} {}", event.line, event.json),
                }),
                Ok(false) => match cutter.end() {
                    Ok(()) => return (documents, String::new()),
                    Err(CutError::Input { line, message }) => return (documents, format!("{line}: {message}")),
                    Err(error) => panic!("{error:?}"),
                },
                Err(CutError::Input { line, message }) => return (documents, format!("{line}: {message}")),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    const A: &str = r#"{"block":1,"region":"r","v":"]}\"[{"}"#;
    const B: &str = "{\n \"block\": 2,\n \"region\": \"r\", \"v\": [1.50, {\"w\": []}]\n}";

    #[test]
    fn documents_are_cut_wherever_they_stand() {
        let both = |a: u64, b: u64| vec![format!("{a} {A}"), format!("{b} {B}")];
        for (text, expected) in [
            (String::new(), Vec::new()),
            (" \n\t".to_owned(), Vec::new()),
            ("[]".to_owned(), Vec::new()),
            ("[ ]\n[\n]".to_owned(), Vec::new()),
            (format!("[{A},{B}]"), both(1, 1)),
            (format!("[\n{A}\n,\r\n  {B} ]\n"), both(2, 4)),
            (format!("{A}{B}"), both(1, 1)),
            (format!("{A}\n\n{B}\n"), both(1, 3)),
            (format!("[{A}]\n[{B}]"), both(1, 2)),
            (format!("[{A}]{B}"), both(1, 1)),
            (format!("\u{feff}[{A},{B}]"), both(1, 1)),
        ] {
            for at_a_time in [1, 2, 7, 1 << 16] {
                assert_eq!(cut(&text, at_a_time), (expected.clone(), String::new()), "{text:?}, {at_a_time}");
            }
        }
    }

    #[test]
    fn what_is_no_event_is_refused_alone() {
        for (document, says) in [
            ("17", "2 ! expected a JSON object, got a number (document 2)"),
            ("\"a,]\"", "2 ! expected a JSON object, got a text (document 2)"),
            ("[[],{}]", "2 ! expected a JSON object, got a list (document 2)"),
            ("null", "2 ! expected a JSON object, got null (document 2)"),
            ("{}", "2 ! field \"block\" is missing; expected an integer of 64 bits (document 2)"),
            ("{\"block\":tru}", "2 ! expected a JSON object; at line 2, byte 13: expected ident (document 2)"),
            ("{\"a\":\n01}", "2 ! expected a JSON object; at line 3, byte 2: invalid number (document 2)"),
            ("{\"a\":\"\u{1}\"}", "2 ! expected a JSON object; at line 2, byte 6: control character"),
            ("nonsense", "2 ! expected a JSON object; at line 2, byte 2: expected ident (document 2)"),
        ] {
            let text = format!("[{A},\n{document},{B}]");
            for at_a_time in [1, 5, 1 << 16] {
                let (documents, end) = cut(&text, at_a_time);
                assert_eq!((documents.len(), end.as_str()), (3, ""), "{document}: {documents:?}");
                assert!(documents[1].starts_with(says), "{document}: {}", documents[1]);
            }
        }
    }

    #[test]
    fn a_document_that_holds_the_events_in_a_list_is_told_so() {
        for (text, key) in [
            ("{\"data\": [ {\"block\":1}, {}]}", Some("\"data\"")),
            ("{\"n\":[1],\"meta\":{\"links\":[]},\"result\":{\"page\":1,\"items\":[{}]}}", Some("\"result.items\"")),
            ("{\"n\":[1,{}],\"a\":{\"b\":{\"c\":{\"d\":{\"e\":[{}]}}}}}", None),
            ("{\"block\":1,\"data\":[{}]}", None),
            ("[[{}]]", None),
        ] {
            let (documents, _) = cut(text, 7);
            let told = documents[0].split("; a document is one event, and ").nth(1).map(|told| told.split(' ').next());
            assert_eq!(told.flatten(), key, "{documents:?}");
        }
    }

    #[test]
    fn what_is_broken_between_or_within_ends_the_input_behind_what_is_whole() {
        for (text, whole, says) in [
            (format!("[{A}"), 1, "1: the list that begins on line 1 breaks off behind 1 documents"),
            (format!("[{A},"), 1, "1: the list that begins on line 1 breaks off"),
            (format!("\n[{A},\n{}", &B[..30]), 1, "3: document 2, which begins here: it breaks off at the end"),
            (B[..30].to_owned(), 0, "1: document 1, which begins here: it breaks off at the end"),
            (format!("[{A}]\n x"), 1, "2: byte 2 of the line: expected another object or list"),
            (format!("[{A}],{B}"), 1, "1: byte 40 of the line: expected another"),
            (format!("{A},{B}"), 1, "1: byte 38 of the line: expected another object"),
            (format!("[{A} {B}]"), 1, "1: byte 40 of the line: expected a comma or the end of the list, got \"{\""),
            (format!("[{A},]"), 1, "1: byte 40 of the line: expected an object, got \"]\""),
            (format!("[,{A}]"), 0, "1: byte 2 of the line: expected an object"),
            ("17".to_owned(), 0, "1: byte 1 of the line: expected a list of objects, or an object, got \"17\""),
            // A bracket is missing: documents up to the next one too many seem to be one.
            (
                format!("[{{\"a\":1,{A},{B}}}]"),
                0,
                "1: document 1, which begins here: its brackets are broken: expected",
            ),
            ("{\"a\":[1}]".to_owned(), 0, "1: document 1, which begins here: its brackets are broken"),
            ("{\"a\":\"x\n,\"b\":\"y\"}".to_owned(), 0, "1: document 1, which begins here"),
            ("PK\u{3}\u{4}".to_owned(), 0, "1: this is zip"),
        ] {
            for at_a_time in [1, 5, 1 << 16] {
                let (documents, end) = cut(&text, at_a_time);
                assert_eq!(documents.len(), whole, "{text}: {documents:?} {end}");
                if at_a_time > 5 {
                    assert!(end.starts_with(says), "{text}: {end}");
                }
                assert!(!end.is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_still_being_written_goes_on_where_it_stopped() {
        let mut cutter = DocumentCutter::new(Fields::default());
        let mut event = SourceEvent::default();
        cutter.begin();
        for (mut piece, is_ready, expected) in [
            (&b"[\n"[..], false, None),
            (b"{\"block\":1,\"v\":\"\\", false, None),
            (b"\"\",\n\"region\":\"r\"", false, None),
            (b"}", true, Some("2 {\"block\":1,\"v\":\"\\\"\",\n\"region\":\"r\"}")),
            (b"\n,", false, None),
            (b"{\"block\":2,\"region\":\"r\"}]", true, Some("4 {\"block\":2,\"region\":\"r\"}")),
        ] {
            assert_eq!(cutter.is_ready(piece), is_ready, "{expected:?}");
            let is_event = cutter.next(&mut piece, &mut event).expect("no error");
            let read = is_event.then(|| format!("{} {}", event.line, event.json));
            assert_eq!(read.as_deref(), expected);
            let rest = cutter.next(&mut piece, &mut event);
            assert!(matches!(rest, Ok(false)), "{rest:?}");
        }
        assert!(cutter.end().is_ok());
    }

    #[test]
    fn a_document_that_is_too_long_ends_the_input() {
        let mut cutter = DocumentCutter::new(Fields::default());
        cutter.bytes_max = 100;
        let text = format!("[{A},{{\"a\":1{}}}]", " ".repeat(100));
        let (mut input, mut event) = (text.as_bytes(), SourceEvent::default());
        cutter.begin();
        assert!(matches!(cutter.next(&mut input, &mut event), Ok(true)));
        match cutter.next(&mut input, &mut event) {
            Err(CutError::Input { line: 1, message }) => {
                assert!(
                    message.starts_with("document 2, which begins here: the document is longer than 64 MiB"),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn brackets_are_whole_or_not() {
        for text in
            ["{}", "[]", "{\"a\":[{},[],1,tru],\"b\":\"}\\\"\"}", "1", "x-", " [ 1 , 2 ] ", "{\"a\":{\"b\":{}}}"]
        {
            assert!(has_whole_brackets(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "{",
            "}",
            "[1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "{1:2}",
            "[1 2]",
            "[{]}",
            "{}{}",
            "\"a\nb\"",
        ] {
            assert!(!has_whole_brackets(text.as_bytes()), "{text}");
        }
    }
}
