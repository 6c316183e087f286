//! CSV (RFC 4180): records of texts, which the header of their file names.
//!
//! A record ends with its line, unless a quote is open there. What is ambiguous is refused rather than guessed: text behind
//! a closing quote, a carriage return on its own. Where quotes that are broken leave open where a record of several lines
//! ends, the run ends, also where events are put aside: what follows may be a part of it.

use std::io::BufRead;

use super::event::{fill, note_only_block, put_bounded, refuse, set_position, too_long};
use super::line::read_line;
use super::named::Delimiter;
use super::split::{Fault, Kinds, Part};
use super::{CutError, SourceEvent};
use crate::model::json_text::{put_text, put_within_text};
use crate::model::limits::LINE_BYTES_MAX;
use crate::model::text::nearest;
use crate::source::event_head::{FIELDS, Field, HeadReader, HeadTexts, PartOfHead, Piece};
use crate::source::fields::Fields;
use crate::source::foreign;

/// What stands in the JSON of an event behind the text of its last column.
const AFTER_LAST: &str = "\"}";

/// Columns that a message names at most.
const COLUMNS_NAMED_MAX: usize = 20;

/// Cuts an input into records. Empty lines are none.
pub(in crate::source) struct RecordCutter {
    head: HeadReader,
    kinds: Kinds,
    header: Option<Header>,
    /// The bytes of the record, with its line end.
    record: Vec<u8>,
    /// Its fields, as far as it is as it should be.
    parts: Vec<Part>,
    fault: Option<Fault>,
    /// The line on which it begins.
    first_line: u64,
    /// The last line that was read, and the bytes up to its end.
    line_no: u64,
    bytes: u64,
    /// Where in the record a quote opens that is not closed.
    open_quote: Option<usize>,
    /// Bytes of a record at most.
    bytes_max: usize,
}

/// The header of a file.
struct Header {
    columns: Vec<Column>,
    /// The columns that hold fields of the head.
    heads: Vec<(usize, Field)>,
    /// Bytes that an event's JSON has beside the texts of its columns.
    bytes: usize,
    /// Its bytes, to know it again.
    record: Vec<u8>,
    line: u64,
}

struct Column {
    name: String,
    /// What stands in the JSON of an event before the text of this column.
    before: String,
    /// The fields of the head that it is.
    fields: Vec<Field>,
}

/// Why a record is no event.
struct Broken {
    error: String,
    /// It is not sure that the record ends where it seems to.
    is_unsure: bool,
}

impl Broken {
    fn sure(error: String) -> Self {
        Self { error, is_unsure: false }
    }
}

impl RecordCutter {
    pub(super) fn new(fields: Fields, delimiter: Delimiter) -> Self {
        Self {
            head: HeadReader::new(fields),
            kinds: Kinds::new(delimiter.byte()),
            header: None,
            record: Vec::new(),
            parts: Vec::new(),
            fault: None,
            first_line: 0,
            line_no: 0,
            bytes: 0,
            open_quote: None,
            bytes_max: LINE_BYTES_MAX,
        }
    }

    pub(super) fn begin(&mut self) {
        (self.header, self.line_no, self.bytes, self.open_quote) = (None, 0, 0, None);
    }

    /// Goes on behind so many lines and bytes of an input that begins with `before`: its header is read there. False if
    /// there is none.
    pub(super) fn go_on(&mut self, lines: u64, bytes: u64, before: &mut impl BufRead) -> bool {
        self.begin();
        self.header = match self.next_record(before) {
            Ok(true) => self.read_header().ok(),
            Ok(false) | Err(_) => None,
        };
        (self.line_no, self.bytes, self.open_quote) = (lines, bytes, None);
        self.header.is_some()
    }

    /// Lines and bytes up to the end of the last record.
    pub(super) fn place_behind(&self) -> (u64, u64) {
        (self.line_no, self.bytes)
    }

    pub(super) fn next(&mut self, input: &mut impl BufRead, event: &mut SourceEvent) -> Result<bool, CutError> {
        if self.header.is_none() && self.next_record(input)? {
            self.header = Some(self.read_header().map_err(|message| self.error(message))?);
        }
        if self.header.is_none() || !self.next_record(input)? {
            return Ok(false);
        }
        self.take(event).map(|()| true)
    }

    /// The input is over: whether what is left of it is an event.
    pub(super) fn end(&mut self, event: &mut SourceEvent) -> Result<bool, CutError> {
        if self.open_quote.is_none() {
            return Ok(false);
        }
        self.split();
        self.open_quote = None;
        match self.header {
            Some(_) => self.take(event).map(|()| true),
            None => self.read_header().map(|_| false).map_err(|message| self.error(message)),
        }
    }

    /// Takes the record as an event.
    fn take(&self, event: &mut SourceEvent) -> Result<(), CutError> {
        let Some(header) = &self.header else { return Ok(()) };
        event.line = self.first_line;
        event.refused = None;
        let broken = self.read(header, event).err();
        if broken.is_none() && event.refused.is_none() {
            return Ok(());
        }
        if let Some(message) = foreign::named(self.first_line, &self.record) {
            return Err(self.error(message));
        }
        if let Some(Broken { error, is_unsure }) = broken {
            if is_unsure && self.first_line < self.line_no {
                return Err(self.error(format!("{error}; nobody can tell where the next record begins")));
            }
            set_position(&self.head, None, event);
            refuse(event, error, PartOfHead::default());
        }
        put_bounded(event, without_line_end(&self.record));
        Ok(())
    }

    /// Whether bytes hold a whole record.
    pub(super) fn is_ready(&self, ahead: &[u8]) -> bool {
        let mut quote = self.open_quote.map(|_| 0);
        let lines = ahead.split_inclusive(|byte| *byte == b'\n');
        lines.filter(|line| line.ends_with(b"\n") && **line != *b"\n" && **line != *b"\r\n").any(|line| {
            quote = self.kinds.open_quote(line, quote);
            quote.is_none()
        })
    }

    fn error(&self, message: String) -> CutError {
        CutError::Input { line: self.first_line, message }
    }

    /// Reads the next record into `self.record`; false if the input has no more of it for now.
    fn next_record(&mut self, input: &mut impl BufRead) -> Result<bool, CutError> {
        if self.open_quote.is_none() {
            self.record.clear();
        }
        loop {
            let begin = self.record.len();
            self.line_no += 1;
            if begin == 0 {
                self.first_line = self.line_no;
            }
            let read = read_line(input, self.bytes_max - begin + 1, &mut self.record);
            let read = read.map_err(|cause| CutError::Read { line: self.line_no, cause })?;
            if read == 0 {
                self.line_no -= 1;
                return Ok(false);
            }
            self.bytes += read as u64;
            if self.line_no == 1 && self.record.starts_with(b"\xef\xbb\xbf") {
                self.record.drain(..3);
            }
            if without_line_end(&self.record).is_empty() {
                self.record.clear();
                continue;
            }
            if self.open_quote.is_some() {
                // A quote that was open before the line is the same one, unless it was closed there.
                let open = self.kinds.open_quote(&self.record[begin..], Some(0));
                self.open_quote = open.map(|at| if at == 0 { self.open_quote.unwrap_or(begin) } else { begin + at });
            }
            if self.open_quote.is_none() {
                self.split();
            }
            if self.record.len() > self.bytes_max {
                return Err(self.endless());
            }
            if self.open_quote.is_none() {
                return Ok(true);
            }
        }
    }

    /// Splits the record, unless a quote is open at its end.
    fn split(&mut self) {
        self.fault = self.kinds.split(without_line_end(&self.record), &mut self.parts).err();
        self.open_quote = match self.fault {
            Some(Fault::Open(at)) => Some(at),
            // Behind what is wrong a quote may open all the same.
            Some(_) => self.kinds.open_quote(&self.record, None),
            None => None,
        };
    }

    /// A record that is longer than one may be.
    fn endless(&self) -> CutError {
        if let Some(message) = foreign::named(self.first_line, &self.record) {
            return self.error(message);
        }
        self.error(match self.open_quote {
            None => too_long(Piece::RECORD),
            Some(at) => {
                let (line, mib) = (self.first_line + lines_in(&self.record[..at]), LINE_BYTES_MAX >> 20);
                format!(
                    "the quote that opens on line {line} does not end within {mib} MiB; a quote within quotes is written \
                     twice"
                )
            }
        })
    }

    fn read_header(&self) -> Result<Header, String> {
        if let Some(message) = foreign::named(1, &self.record) {
            return Err(message);
        }
        let record = without_line_end(&self.record);
        let text = std::str::from_utf8(record)
            .map_err(|error| format!("the header is not UTF-8 (byte {})", error.valid_up_to() + 1))?;
        if text.starts_with(['{', '[']) {
            return Err("this is JSON; [source] format = \"ndjson\" or \"json\" reads it".to_owned());
        }
        let mut columns: Vec<Column> = Vec::with_capacity(self.parts.len());
        for (at, part) in self.parts.iter().enumerate() {
            let (at, name) = (at + 1, part.decoded(text).into_owned());
            if name.is_empty() {
                return Err(format!("column {at} of the header has no name; expected one for each column"));
            }
            if let Some(before) = columns.iter().position(|column| column.name == name) {
                return Err(format!("columns {} and {at} of the header have one name, {name:?}", before + 1));
            }
            columns.push(self.column(name, at == 1));
        }
        if let Some(fault) = &self.fault {
            return Err(format!("the header, column {}: {}", columns.len() + 1, self.explain(fault)));
        }
        for (field, name) in self.head.wanted() {
            if !columns.iter().any(|column| column.fields.contains(&field)) {
                return Err(missing_column(name, &columns, text));
            }
        }
        let mut heads = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            heads.extend(column.fields.iter().map(|field| (at, *field)));
        }
        let bytes = columns.iter().map(|column| column.before.len()).sum::<usize>() + AFTER_LAST.len();
        Ok(Header { columns, heads, bytes, record: record.to_vec(), line: self.first_line })
    }

    fn column(&self, name: String, is_first: bool) -> Column {
        let mut before = String::from(if is_first { "{" } else { "\"," });
        put_text(&name, &mut before);
        before.push_str(":\"");
        let fields = self.head.wanted().filter(|(_, wanted)| *wanted == name).map(|(field, _)| field).collect();
        Column { name, before, fields }
    }

    /// Reads the record as an event: an object of its texts, in the order of the header. If only the head is not as it
    /// should be, the event is marked as refused, with what is known of where it belongs.
    fn read(&self, header: &Header, event: &mut SourceEvent) -> Result<(), Broken> {
        let record = without_line_end(&self.record);
        let is_whole = self.fault.is_none() && self.parts.len() == header.columns.len();
        if is_whole && self.parts.iter().all(|part| part.is_plain()) && self.read_plain(header, record, event) {
            return Ok(());
        }
        let text = self.text(record)?;
        if let Some(fault) = &self.fault {
            return Err(self.broken(header.columns.get(self.parts.len()), fault));
        }
        if self.parts.len() != header.columns.len() {
            return Err(self.wrong_count(header));
        }
        event.json.clear();
        for (column, part) in header.columns.iter().zip(&self.parts) {
            event.json.push_str(&column.before);
            match part.plain(text) {
                Some(plain) => event.json.push_str(plain),
                None => put_within_text(&part.decoded(text), &mut event.json),
            }
        }
        event.json.push_str(AFTER_LAST);
        let mut texts = HeadTexts::default();
        for (at, field) in &header.heads {
            texts.set(*field, self.parts[*at].decoded(text));
        }
        self.set_head(header, &texts, event);
        Ok(())
    }

    /// The same of a record whose texts are all the same in JSON. So it is with most of them: its bytes are copied, and
    /// looked at once more to see that they are UTF-8. False if they are not.
    fn read_plain(&self, header: &Header, record: &[u8], event: &mut SourceEvent) -> bool {
        let mut json = std::mem::take(&mut event.json).into_bytes();
        json.clear();
        json.reserve(header.bytes + record.len());
        // Where the texts of the head lie in it.
        let (mut heads, mut found) = (header.heads.iter().peekable(), [(0, 0); FIELDS]);
        for (nth, (column, part)) in header.columns.iter().zip(&self.parts).enumerate() {
            json.extend_from_slice(column.before.as_bytes());
            let begin = json.len();
            json.extend_from_slice(part.bytes(record));
            while let Some((_, field)) = heads.next_if(|(at, _)| *at == nth) {
                found[*field as usize] = (begin, json.len());
            }
        }
        json.extend_from_slice(AFTER_LAST.as_bytes());
        let Ok(json) = String::from_utf8(json) else { return false };
        let mut texts = HeadTexts::default();
        for (_, field) in &header.heads {
            let (begin, end) = found[*field as usize];
            let Some(text) = json.get(begin..end) else { return false };
            texts.set(*field, text.into());
        }
        self.set_head(header, &texts, event);
        event.json = json;
        true
    }

    /// The record as text.
    fn text<'r>(&self, record: &'r [u8]) -> Result<&'r str, Broken> {
        std::str::from_utf8(record)
            .map_err(|error| Broken::sure(format!("the record is not UTF-8 ({})", self.place(error.valid_up_to()))))
    }

    /// Sets where an event belongs. If that is not as it should be, marks it as refused.
    fn set_head(&self, header: &Header, texts: &HeadTexts<'_>, event: &mut SourceEvent) {
        match self.head.of_texts(texts) {
            Ok(head) => {
                set_position(&self.head, head.position.as_deref(), event);
                fill(event, &head);
            }
            Err(error) => {
                let is_header = without_line_end(&self.record) == header.record;
                let error = if is_header { "this is the header once more".to_owned() } else { error };
                let part = self.head.part_of_texts(texts);
                set_position(&self.head, part.position.as_deref(), event);
                refuse(event, error, part);
                let has_block = event.refused.as_ref().is_some_and(|refused| refused.has_block);
                let given = self.parts.iter().filter(|part| !part.is_empty()).count();
                note_only_block(event, has_block && given == 1);
            }
        }
    }

    fn wrong_count(&self, header: &Header) -> Broken {
        let (count, columns, line) = (self.parts.len(), header.columns.len(), header.line);
        let fields = if count == 1 { "field" } else { "fields" };
        let error = format!("the record has {count} {fields}; expected {columns}, as many as the header (line {line})");
        Broken { error, is_unsure: true }
    }

    fn broken(&self, column: Option<&Column>, fault: &Fault) -> Broken {
        if let Some(zeros) = foreign::zeros(Piece::RECORD.name, &self.record) {
            return Broken::sure(zeros);
        }
        let explained = self.explain(fault);
        let error = match column {
            Some(column) => format!("column {:?}: {explained}", column.name),
            None => format!("behind the last column: {explained}"),
        };
        Broken { error, is_unsure: fault.is_unsure() }
    }

    fn explain(&self, fault: &Fault) -> String {
        let place = self.place(fault.at());
        match fault {
            Fault::Behind(_) => format!(
                "{place}: text stands behind the closing quote; expected the delimiter or the end of the line; a quote \
                 within quotes is written twice"
            ),
            Fault::Open(_) => format!(
                "the quote that opens at {place} never ends: was the file cut off, or is it still being written? A quote \
                 within quotes is written twice"
            ),
            Fault::Return(_) => format!(
                "{place}: a carriage return that ends no line; lines end with LF or CRLF, and a text that holds one \
                 stands in quotes"
            ),
            Fault::Nul(_) => format!("{place}: a NUL byte"),
        }
    }

    /// A place in the record, for messages: its byte, counted from 1, and its line if the record has several.
    fn place(&self, at: usize) -> String {
        let before = &self.record[..at];
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        match lines_in(without_line_end(&self.record)) {
            0 => format!("byte {}", at + 1),
            _ => format!("line {}, byte {}", self.first_line + lines_in(before), at - begin + 1),
        }
    }
}

/// What is told where the header lacks a column.
fn missing_column(name: &str, columns: &[Column], header: &str) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let other = [",", ";", "\t", "|"].into_iter().filter(|other| columns.len() == 1 && header.contains(other));
    let hint = match other.max_by_key(|other| header.matches(other).count()) {
        Some(other) => format!("; is the delimiter another one? [source] delimiter = {other:?}"),
        None => nearest(name, &names),
    };
    let shown: Vec<String> = names.iter().take(COLUMNS_NAMED_MAX).map(|name| format!("{name:?}")).collect();
    let more =
        if names.len() > shown.len() { format!(" and {} more", names.len() - shown.len()) } else { String::new() };
    format!("the header has no column {name:?}; it has {}{more}{hint}", shown.join(", "))
}

/// A record without the end of its line.
fn without_line_end(record: &[u8]) -> &[u8] {
    let line = record.strip_suffix(b"\n").unwrap_or(record);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// How many lines end in a text.
fn lines_in(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(event: &SourceEvent) -> String {
        match &event.refused {
            Some(refused) => {
                let block = if refused.has_block { event.block.to_string() } else { "-".to_owned() };
                format!("{} ! {block} {}", event.line, refused.error)
            }
            None => format!("{} {}/{} {}", event.line, event.block, event.region, event.json),
        }
    }

    /// The records with their lines, and how the input ends.
    fn cut_as(fields: Fields, delimiter: &str, inputs: &[&[u8]]) -> (Vec<String>, String) {
        cut_with(&mut RecordCutter::new(fields, Delimiter::new(delimiter).expect("a delimiter")), inputs)
    }

    fn cut_with(cutter: &mut RecordCutter, inputs: &[&[u8]]) -> (Vec<String>, String) {
        let (mut event, mut records) = (SourceEvent::default(), Vec::new());
        for mut input in inputs.iter().copied() {
            cutter.begin();
            loop {
                match cutter.next(&mut input, &mut event) {
                    Ok(true) => records.push(shown(&event)),
                    Ok(false) => match cutter.end(&mut event) {
                        Ok(true) => records.push(shown(&event)),
                        Ok(false) => break,
                        Err(CutError::Input { line, message }) => return (records, format!("{line}: {message}")),
                        Err(error) => panic!("{error:?}"),
                    },
                    Err(CutError::Input { line, message }) => return (records, format!("{line}: {message}")),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        (records, String::new())
    }

    fn cut(text: &str) -> (Vec<String>, String) {
        cut_as(Fields::default(), ",", &[text.as_bytes()])
    }

    #[test]
    fn records_are_objects_of_texts_in_the_order_of_the_header() {
        let one = r#"2 1/r {"v":"5","region":"r","block":"1"}"#;
        for (text, expected) in [
            ("", vec![]),
            ("\n\r\n", vec![]),
            ("v,region,block\n", vec![]),
            ("v,region,block\n5,r,1\n", vec![one]),
            ("v,region,block\r\n5,r,1\r\n", vec![one]),
            ("\u{feff}v,region,block\n5,r,1", vec![one]),
            ("\"v\",\"region\",\"block\"\n\"5\",\"r\",\"1\"\n", vec![one]),
            ("v,region,block\n5,r,1\n\n\n6,s,2\n", vec![one, r#"5 2/s {"v":"6","region":"s","block":"2"}"#]),
            (
                "block,region,\"a\"\"\tb\"\n1,r,\"x\n\ny\"\n2,r,\\\n",
                vec![
                    r#"2 1/r {"block":"1","region":"r","a\"\tb":"x\n\ny"}"#,
                    r#"5 2/r {"block":"2","region":"r","a\"\tb":"\\"}"#,
                ],
            ),
            (
                "block,region\n1.70e1,x\n0x10,y\n-3,z\n",
                vec![
                    r#"2 17/x {"block":"1.70e1","region":"x"}"#,
                    r#"3 16/y {"block":"0x10","region":"y"}"#,
                    r#"4 -3/z {"block":"-3","region":"z"}"#,
                ],
            ),
        ] {
            assert_eq!(cut(text), (expected.iter().map(ToString::to_string).collect(), String::new()), "{text:?}");
        }
    }

    #[test]
    fn each_input_is_read_by_its_own_header() {
        let fields = Fields { hash: Some("repo.id".into()), ..Fields::default() };
        let inputs: [&[u8]; 3] = [b"block;region;repo.id\n1;r;a\n", b"", b"repo.id;region;n;block\n;r;7;2\n"];
        let (records, end) = cut_as(fields, ";", &inputs);
        let expected = [
            r#"2 1/r {"block":"1","region":"r","repo.id":"a"}"#,
            r#"2 2/r {"repo.id":"","region":"r","n":"7","block":"2"}"#,
        ];
        assert_eq!((records, end.as_str()), (expected.map(str::to_owned).to_vec(), ""));
    }

    #[test]
    fn a_record_says_its_position() {
        let fields = Fields { position: Some("at".into()), ..Fields::default() };
        let mut cutter = RecordCutter::new(fields, Delimiter::default());
        let (mut event, mut positions) = (SourceEvent::default(), Vec::new());
        let mut input = &b"block,region,at\n1,r,c1\n1,r,\n2,,c3\n2,r\n3,r,c5\n"[..];
        cutter.begin();
        while cutter.next(&mut input, &mut event).expect("records") {
            positions.push(event.position.as_ref().map(|position| position.as_str().to_owned()));
        }
        let expected = [Some("c1"), None, Some("c3"), None, Some("c5")];
        assert_eq!(positions, expected.map(|position| position.map(str::to_owned)));
    }

    #[test]
    fn a_record_that_is_no_event_is_refused_alone() {
        let long_region = "r".repeat(2000);
        for (record, says) in [
            ("1,r", "2 ! - the record has 2 fields; expected 3, as many as the header (line 1)"),
            ("1,r,x,", "2 ! - the record has 4 fields; expected 3"),
            ("x", "2 ! - the record has 1 field; expected 3"),
            ("x,r,v", "2 ! - field \"block\": expected an integer of 64 bits such as 17 or 0x1f, got x"),
            (",r,v", "2 ! - field \"block\": expected an integer of 64 bits such as 17 or 0x1f, got an empty text"),
            ("7,,v", "2 ! 7 field \"region\": expected the name of a region, a text that is not empty, got an empty"),
            (&format!("7,{long_region},v"), "2 ! 7 field \"region\": a region's name of 2000 bytes"),
            ("7,r,\"a\"b", "2 ! - column \"v\": byte 8: text stands behind the closing quote"),
            ("7,r,a\rb", "2 ! - column \"v\": byte 6: a carriage return that ends no line"),
            ("7,r,\0", "2 ! - the record holds 1 NUL bytes"),
            ("block,region,v", "2 ! - this is the header once more"),
        ] {
            let text = format!("block,region,v\n{record}\n8,r,\"w\"\n");
            let (records, end) = cut(&text);
            assert_eq!((records.len(), end.as_str()), (2, ""), "{record}: {records:?}");
            assert!(records[0].starts_with(says), "{record}: {}", records[0]);
            assert_eq!(records[1], r#"3 8/r {"block":"8","region":"r","v":"w"}"#, "{record}");
        }
        let (records, end) = cut_as(Fields::default(), ",", &[b"block,region\n1,r\xff\n2,\"a\n\xff\"\n3,r\n"]);
        assert_eq!(end, "");
        assert_eq!(records[0], "2 ! - the record is not UTF-8 (byte 4)");
        assert_eq!(records[1], "3 ! - the record is not UTF-8 (line 4, byte 1)");
        assert!(records[2].starts_with("5 3/r"), "{}", records[2]);
        // A quote that is open on the last line of the input is open in that record only.
        let (records, end) = cut("block,region\n1,r\n2,\"r");
        assert_eq!((records.len(), end.as_str()), (2, ""));
        assert!(
            records[1].starts_with("3 ! - column \"region\": the quote that opens at byte 3 never ends"),
            "{records:?}"
        );
    }

    #[test]
    fn quotes_that_leave_open_where_a_record_ends_end_the_input() {
        for (text, whole, says) in [
            ("block,region\n1,r\n2,\"r\n3,r\n4,r\n", 1, "3: column \"region\": the quote that opens at line 3, byte 3"),
            ("block,region\n1,\"r\n2,\"r\n", 0, "2: column \"region\": line 3, byte 4: text stands behind the closing"),
            ("block,region,v\n1,\"r\"x,\"a\n2,r,b\n", 0, "2: column \"region\": line 2, byte 6: text stands behind"),
            ("block,region,v\n1,\"r\"x,\"a\n2\",r,b\n3,r,c\n", 0, "2: column \"region\": line 2, byte 6: text stands"),
            ("block,region,v\n1,r,v\n2,\"r\n3,r\"\n", 1, "3: the record has 2 fields; expected 3"),
            ("block,region\n1,r\nPK\u{3}\u{4},x,y\n", 2, ""),
            ("PK\u{3}\u{4}\n", 0, "1: this is zip"),
            ("block,region\n1,r\n\u{feff}block,region\n", 1, "3: a byte-order mark stands in the middle"),
        ] {
            let (records, end) = cut(text);
            assert_eq!(records.len(), whole, "{text:?}: {records:?} {end}");
            assert!(end.starts_with(says) && end.is_empty() == says.is_empty(), "{text:?}: {end}");
        }
        let long = "x\n".repeat(500);
        for (text, whole, says) in [
            (
                format!("block,region\n1,r\n2,\"{long}"),
                1,
                "3: the quote that opens on line 3 does not end within 64 MiB",
            ),
            (format!("block,region\n1,\"r\n\",\"{long}"), 0, "2: the quote that opens on line 3 does not end within"),
            (
                format!("block,region\n1,{}\n2,r", "x".repeat(100)),
                0,
                "2: the record is longer than 64 MiB; expected one",
            ),
            (format!("block,region\n1,{}\n", "x".repeat(97)), 1, ""),
        ] {
            let mut cutter = RecordCutter::new(Fields::default(), Delimiter::default());
            cutter.bytes_max = 100;
            let (records, end) = cut_with(&mut cutter, &[text.as_bytes()]);
            assert_eq!(records.len(), whole, "{end}");
            assert!(end.starts_with(says) && end.is_empty() == says.is_empty(), "{end}");
        }
    }

    #[test]
    fn a_header_names_each_column_once_and_those_that_are_wanted() {
        for (header, says) in [
            ("block,,region", "1: column 2 of the header has no name"),
            ("block,region,", "1: column 3 of the header has no name"),
            ("block,region,v,v", "1: columns 3 and 4 of the header have one name, \"v\""),
            (
                "blok,region",
                "1: the header has no column \"block\"; it has \"blok\", \"region\"; did you mean \"blok\"?",
            ),
            (
                "block;region;v",
                "1: the header has no column \"block\"; it has \"block;region;v\"; is the delimiter another",
            ),
            ("block,\"region", "1: the header, column 2: the quote that opens at byte 7 never ends"),
            ("block,region\r1,r\r", "1: the header, column 2: byte 13: a carriage return that ends no line"),
            ("{\"block\":1,\"region\":\"r\"}", "1: this is JSON; [source] format = \"ndjson\" or \"json\" reads it"),
        ] {
            let (records, end) = cut(header);
            assert_eq!(records, Vec::<String>::new(), "{header}");
            assert!(end.starts_with(says), "{header}: {end}");
        }
    }

    #[test]
    fn what_is_still_being_written_goes_on_where_it_stopped() {
        let mut cutter = RecordCutter::new(Fields::default(), Delimiter::default());
        let mut event = SourceEvent::default();
        cutter.begin();
        // Whole lines, as whoever follows a file gives them.
        for (mut piece, is_ready, expected) in [
            (&b"block,\"region\n"[..], false, None),
            (b"", false, None),
            (b"\",region\n", true, None),
            (b"1,\"a\n", false, None),
            (b"\n", false, None),
            (b"b\",r\n2,x,\"s\n", true, Some("3 {\"block\":\"1\",\"region\\n\":\"a\\n\\nb\",\"region\":\"r\"}")),
            (b"\"\n", true, Some("6 {\"block\":\"2\",\"region\\n\":\"x\",\"region\":\"s\\n\"}")),
        ] {
            assert_eq!(cutter.is_ready(piece), is_ready, "{expected:?}");
            let is_event = cutter.next(&mut piece, &mut event).expect("no error");
            let read = is_event.then(|| format!("{} {}", event.line, event.json));
            assert_eq!(read.as_deref(), expected);
            let rest = cutter.next(&mut piece, &mut event);
            assert!(matches!(rest, Ok(false)), "{rest:?}");
        }
        assert!(matches!(cutter.end(&mut event), Ok(false)));
    }

    #[test]
    fn a_record_is_ready_when_its_last_line_is() {
        let cutter = RecordCutter::new(Fields::default(), Delimiter::default());
        for (ahead, is_ready) in [
            ("", false),
            ("1,r", false),
            ("1,r\n", true),
            ("1,\"r\n", false),
            ("1,\"r\n\"", false),
            ("1,\"r\n\"\n", true),
            ("\n\r\n", false),
            ("\n1\n", true),
        ] {
            assert_eq!(cutter.is_ready(ahead.as_bytes()), is_ready, "{ahead:?}");
        }
    }
}
