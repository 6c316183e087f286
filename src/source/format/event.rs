//! One event: from its text, or from names and texts, to where it belongs and its JSON.

use std::borrow::Cow;

use crate::model::json_text::{put_text, whole_characters};
use crate::model::limits::LINE_BYTES_MAX;
use crate::model::quarantine::EVENT_TEXT_BYTES_MAX;
use crate::source::SourceEvent;
use crate::source::event_head::{Head, HeadReader, HeadTexts, PartOfHead, Piece};
use crate::source::fields::Fields;
use crate::source::foreign;
use crate::source::refused::Refused;

/// Reads events. One that cannot be read is given as refused, with its text and what can be read of where it belongs.
pub(in crate::source) struct EventReader {
    head: HeadReader,
    piece: Piece,
}

impl EventReader {
    /// A reader of events that come in such pieces.
    pub(in crate::source) fn new(fields: Fields, piece: Piece) -> Self {
        Self { head: HeadReader::new(fields), piece }
    }

    /// Reads an event from its JSON text. The caller sets origin and line.
    pub(in crate::source) fn read_json(&self, text: &[u8], event: &mut SourceEvent) {
        event.refused = None;
        if let Err(error) = self.try_json(text, event, |_, column| format!("column {column}")) {
            self.refuse_json(text, error, event);
        }
    }

    /// Reads an event from its JSON text, which may be spread over lines and begins on that line behind so many bytes.
    /// The caller sets the origin.
    pub(super) fn read_document(&self, text: &[u8], (begin, before): (u64, u64), event: &mut SourceEvent) {
        event.refused = None;
        let place = |line: usize, byte: usize| {
            let before = if line == 1 { before } else { 0 };
            format!("line {}, byte {}", begin + line as u64 - 1, before + byte as u64)
        };
        if let Err(error) = self.try_json(text, event, place) {
            self.refuse_json(text, error, event);
        }
    }

    fn try_json(
        &self,
        text: &[u8],
        event: &mut SourceEvent,
        place: impl FnOnce(usize, usize) -> String,
    ) -> Result<(), String> {
        if text.len() > LINE_BYTES_MAX {
            return Err(too_long(self.piece));
        }
        let json = std::str::from_utf8(text)
            .map_err(|error| format!("the {} is not UTF-8 (byte {})", self.piece.name, error.valid_up_to() + 1))?;
        let json = json.trim();
        let whole;
        let (json, head) = match self.head.read(json) {
            Ok(head) => (json, head),
            Err(problem) => {
                // A key, or a field of the head, with half a character.
                whole = whole_characters(json);
                let head = if matches!(whole, Cow::Owned(_)) { self.head.read(&whole) } else { Err(problem) };
                (&*whole, head.map_err(|problem| problem.explain(self.piece, place))?)
            }
        };
        event.json.clear();
        event.json.push_str(json);
        set_position(&self.head, head.position.as_deref(), event);
        fill(event, &head);
        Ok(())
    }

    fn refuse_json(&self, text: &[u8], error: String, event: &mut SourceEvent) {
        let is_whole = text.len() <= LINE_BYTES_MAX;
        let zeros = if is_whole { foreign::zeros(self.piece.name, text) } else { None };
        let text = text.trim_ascii();
        let part = match std::str::from_utf8(text) {
            Ok(json) if is_whole => self.head.read_part(json),
            _ => PartOfHead::default(),
        };
        let only_block =
            std::str::from_utf8(text).ok().filter(|_| is_whole).and_then(|json| self.head.only_block(json));
        set_position(&self.head, part.position.as_deref(), event);
        refuse(event, zeros.unwrap_or(error), part);
        note_only_block(event, only_block.is_some());
        put_bounded(event, text);
    }

    /// Refuses an event of which nothing is known but a text.
    #[cfg_attr(not(any(feature = "redis", feature = "kafka")), allow(dead_code, reason = "only streams do"))]
    pub(in crate::source) fn refuse(&self, text: &[u8], error: String, event: &mut SourceEvent) {
        refuse(event, error, PartOfHead::default());
        put_bounded(event, text);
    }

    /// Reads an event from names and texts: its JSON is the object of the texts, in their order. The caller sets origin
    /// and line.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only streams do"))]
    pub(in crate::source) fn read_texts<'t>(
        &self,
        texts: impl IntoIterator<Item = (&'t str, &'t str)>,
        event: &mut SourceEvent,
    ) {
        event.refused = None;
        event.json.clear();
        event.json.push('{');
        let (mut found, mut given) = (HeadTexts::default(), 0);
        for (name, text) in texts {
            given += usize::from(!text.is_empty());
            if event.json.len() > 1 {
                event.json.push(',');
            }
            put_text(name, &mut event.json);
            event.json.push(':');
            put_text(text, &mut event.json);
            let fields = self.head.wanted().filter(|(_, wanted)| *wanted == name);
            fields.for_each(|(field, _)| found.set(field, Cow::Borrowed(text)));
        }
        event.json.push('}');
        let head = match event.json.len() > LINE_BYTES_MAX {
            true => Err(too_long(self.piece)),
            false => self.head.of_texts(&found),
        };
        match head {
            Ok(head) => {
                set_position(&self.head, head.position.as_deref(), event);
                fill(event, &head);
            }
            Err(error) => {
                let part = self.head.part_of_texts(&found);
                set_position(&self.head, part.position.as_deref(), event);
                refuse(event, error, part);
                let has_block = event.refused.as_ref().is_some_and(|refused| refused.has_block);
                note_only_block(event, given == 1 && has_block);
                let text = std::mem::take(&mut event.json);
                put_bounded(event, text.as_bytes());
            }
        }
    }
}

/// What a piece is told that is too long.
pub(super) fn too_long(piece: Piece) -> String {
    let Piece { name, rule } = piece;
    format!("the {name} is longer than {} MiB; expected {rule}", LINE_BYTES_MAX >> 20)
}

/// Sets the position after the event, if events say it; else it is the source's to set.
pub(super) fn set_position(head: &HeadReader, position: Option<&str>, event: &mut SourceEvent) {
    if head.has_positions() {
        // It is one: it was checked when it was read.
        let is_set = position.is_some_and(|position| event.set_position(position).is_ok());
        event.position.take_if(|_| !is_set);
    }
}

/// Puts in where an event belongs.
pub(super) fn fill(event: &mut SourceEvent, head: &Head<'_>) {
    event.block = head.block;
    event.seq = head.seq;
    event.region.clear();
    event.region.push_str(&head.region);
    copy(head.hash.as_deref(), &mut event.hash);
    copy(head.parent.as_deref(), &mut event.parent);
}

/// Marks an event that cannot be read, with what can be read of where it belongs.
pub(super) fn refuse(event: &mut SourceEvent, error: String, part: PartOfHead<'_>) {
    let (has_block, has_region) = (part.block.is_some(), part.region.is_some());
    let refused = Refused { error, has_block, has_region, is_only_block: false };
    event.refused = Some(Box::new(refused));
    event.block = part.block.unwrap_or(0);
    event.seq = part.seq;
    event.region = part.region.map_or_else(String::new, Cow::into_owned);
    event.hash = part.hash.map(Cow::into_owned);
    event.parent = part.parent.map(Cow::into_owned);
}

/// Says whether what cannot be read holds a block and nothing else.
pub(super) fn note_only_block(event: &mut SourceEvent, is_only_block: bool) {
    if let Some(refused) = &mut event.refused {
        refused.is_only_block = is_only_block;
    }
}

/// Puts in the text of an event that cannot be read: a little more than is kept, so that it is seen to be cut.
pub(super) fn put_bounded(event: &mut SourceEvent, text: &[u8]) {
    let kept = &text[..text.len().min(EVENT_TEXT_BYTES_MAX + 4)];
    event.json = String::from_utf8_lossy(kept).into_owned();
}

/// Copies a text into a buffer that is used again.
fn copy(text: Option<&str>, into: &mut Option<String>) {
    match (text, into) {
        (Some(text), Some(buffer)) => {
            buffer.clear();
            buffer.push_str(text);
        }
        (text, into) => *into = text.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> EventReader {
        let fields = Fields { seq: Some("seq".into()), hash: Some("h.own".into()), ..Fields::default() };
        EventReader::new(fields, Piece::LINE)
    }

    fn read<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> SourceEvent {
        let mut event = SourceEvent::default();
        reader().read_texts(texts, &mut event);
        event
    }

    #[test]
    fn names_and_texts_are_an_event() {
        let event = read([("block", "0x11"), ("v", "a\"\\\n\u{1}é"), ("region", "17"), ("seq", "3"), ("h.own", "")]);
        assert_eq!(event.refused, None);
        assert_eq!((event.block, event.seq, event.region.as_str(), event.hash), (17, Some(3), "17", None));
        let expected = r#"{"block":"0x11","v":"a\"\\\n\u0001é","region":"17","seq":"3","h.own":""}"#;
        assert_eq!(event.json, expected);
        // A number in a text is a number all the same, and of two values the last one counts.
        let event = read([("block", "1"), ("block", "2.0"), ("region", "r"), ("seq", "1e1"), ("h.own", "x")]);
        assert_eq!((event.block, event.seq, event.hash.as_deref()), (2, Some(10), Some("x")));
        let nested =
            SourceEvent { refused: None, ..read([("block", "1"), ("region", "r"), ("seq", "1"), ("h", "{}")]) };
        assert_eq!((nested.block, nested.hash), (1, None));
    }

    #[test]
    fn texts_that_are_no_event_are_refused_with_what_is_known() {
        for (texts, says, block) in [
            (
                vec![("block", "x"), ("region", "r"), ("seq", "1"), ("h.own", "")],
                "field \"block\": expected an int",
                None,
            ),
            (vec![("block", "7"), ("seq", "1"), ("h.own", "")], "field \"region\" is missing", Some(7)),
            (vec![("block", "7"), ("region", ""), ("seq", "1"), ("h.own", "")], "\"region\": expected the na", Some(7)),
            (vec![("block", "7"), ("region", "r"), ("seq", "1")], "field \"h.own\" is missing", Some(7)),
        ] {
            let event = read(texts.clone());
            let refused = event.refused.expect("it is no event");
            assert!(refused.error.contains(says), "{texts:?}: {}", refused.error);
            assert_eq!(refused.has_block.then_some(event.block), block, "{texts:?}");
            assert!(event.json.starts_with("{\"block\":"), "{}", event.json);
        }
    }
}
