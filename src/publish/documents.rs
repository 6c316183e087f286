//! Ready documents, one a region, read from a text: NDJSON, or one JSON array.
//!
//! A document that cannot be used is a failure of its own and touches no other. Two of one region are an error of the
//! whole text: which one is meant cannot be told.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::dedup::DedupRule;
use super::fields::{DocumentFields, FieldPath};
use super::{Publication, PublishError};
use crate::model::json_text;
use crate::model::limits::{REGION_BYTES_MAX, SEQ_AHEAD_MAX};
use crate::model::timestamp::Timestamp;
use crate::snapshot::snapshot_id;

/// A text that cannot be taken as documents at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentsError(String);

/// One document.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Document {
    /// Where it stands: `file:line`, or `file[n]` of an array.
    pub place: String,
    /// Its region, if that could be read.
    pub region: Option<Arc<str>>,
    /// What is to be published, or why it cannot be.
    pub publication: Result<Publication, PublishError>,
}

/// Documents, in their order.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Documents {
    /// The documents.
    pub documents: Vec<Document>,
}

impl Documents {
    /// Reads a text that is called `name` in messages; `region` is the field of the region, `dedup` says what tells
    /// duplicates. Where no field holds the time of
    /// a document, it is now; the sequence number is the time in milliseconds.
    ///
    /// # Errors
    /// The text is neither NDJSON nor an array of objects, or has two documents of one region.
    pub fn parse(
        text: &[u8],
        name: &str,
        fields: &DocumentFields,
        region: &FieldPath,
        dedup: &DedupRule,
    ) -> Result<Self, DocumentsError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            DocumentsError(format!("{name}:{line}: it is not UTF-8 text; expected JSON documents"))
        })?;
        let reader = DocumentReader { fields, region, dedup, now: Timestamp::now() };
        let documents = match text.trim_start().starts_with('[') {
            true => reader.array(text, name)?,
            false => reader.lines(text, name),
        };
        let documents = Self { documents };
        documents.check_regions()?;
        Ok(documents)
    }

    fn check_regions(&self) -> Result<(), DocumentsError> {
        let mut first: HashMap<&str, &str> = HashMap::new();
        for document in &self.documents {
            let Some(region) = &document.region else { continue };
            if let Some(before) = first.insert(region, &document.place) {
                return Err(DocumentsError(format!(
                    "{}: a second document of region {region:?}; the first is at {before}, expected one a region",
                    document.place
                )));
            }
        }
        Ok(())
    }
}

/// Reads each by as many threads as there are cores; here, if the system gives none.
fn each<T: Sync>(items: &[T], read: impl Fn(&T) -> Document + Sync + Send) -> Vec<Document> {
    if items.len() > 1
        && let Ok(threads) = rayon::ThreadPoolBuilder::new().thread_name(|at| format!("forebay-docs-{at}")).build()
    {
        return threads.install(|| items.par_iter().map(read).collect());
    }
    items.iter().map(read).collect()
}

struct DocumentReader<'r> {
    fields: &'r DocumentFields,
    region: &'r FieldPath,
    dedup: &'r DedupRule,
    now: Timestamp,
}

impl DocumentReader<'_> {
    fn array(&self, text: &str, name: &str) -> Result<Vec<Document>, DocumentsError> {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
            DocumentsError(format!("{name}:{}: expected a JSON array of documents: {error}", error.line()))
        })?;
        let read = |(at, item): &(usize, &&RawValue)| self.document(item.get(), format!("{name}[{at}]"));
        let items: Vec<(usize, &&RawValue)> = items.iter().enumerate().collect();
        Ok(each(&items, read))
    }

    fn lines(&self, text: &str, name: &str) -> Vec<Document> {
        let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        let read = |(at, line): &(usize, &str)| self.document(line.trim(), format!("{name}:{}", at + 1));
        let documents = each(&lines, read);
        let is_broken = documents.iter().any(|document| document.region.is_none());
        // A document that is spread over lines is no NDJSON, and plain to read all the same.
        if is_broken && let Some(spread) = self.spread(text, name) { spread } else { documents }
    }

    /// Documents one after another, however they are broken into lines; none if that is not what the text is.
    fn spread(&self, text: &str, name: &str) -> Option<Vec<Document>> {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        let mut documents = Vec::new();
        loop {
            let before = text[stream.byte_offset()..].len() - text[stream.byte_offset()..].trim_start().len();
            let line = text[..stream.byte_offset() + before].matches('\n').count() + 1;
            match stream.next() {
                None => return Some(documents),
                Some(Err(_)) => return None,
                Some(Ok(item)) => documents.push(self.document(item.get(), format!("{name}:{line}"))),
            }
        }
    }

    fn document(&self, text: &str, place: String) -> Document {
        let refused = |message: String| PublishError::Document(format!("{place}: {message}"));
        let doc: Json = match json_text::read(text) {
            Ok(doc @ Json::Object(_)) => doc,
            Ok(_) => {
                let error = refused("expected a JSON object".into());
                return Document { place, region: None, publication: Err(error) };
            }
            Err(error) => {
                let error = refused(format!("it is no JSON document: {error}"));
                return Document { place, region: None, publication: Err(error) };
            }
        };
        let region: Arc<str> = match self.region.text(&doc) {
            Ok(region) if region.len() <= REGION_BYTES_MAX => region.into(),
            Ok(region) => {
                let error = refused(format!(
                    "the region's name has {} bytes; expected {REGION_BYTES_MAX} at most",
                    region.len()
                ));
                return Document { place, region: None, publication: Err(error) };
            }
            Err(message) => {
                let error = refused(format!("{message}; it is needed as the region (--region-field)"));
                return Document { place, region: None, publication: Err(error) };
            }
        };
        let publication = self.publication(text, doc, &region).map_err(|error| refused(error.to_string()));
        Document { place, region: Some(region), publication }
    }

    /// A time that is the sequence number: too far ahead, nothing older could replace it until then.
    fn fit(&self, time: Timestamp) -> Result<Timestamp, PublishError> {
        let ahead = i64::try_from(SEQ_AHEAD_MAX.as_micros()).unwrap_or(i64::MAX);
        match &self.fields.time {
            Some(field) if time.as_micros().saturating_sub(ahead) > self.now.as_micros() => {
                Err(PublishError::Document(format!(
                    "the field {field}: {time} is more than an hour ahead of the clock (now {}): it is the sequence number, \
                     and nothing older could replace it until then",
                    self.now.to_millis_text()
                )))
            }
            _ => Ok(time),
        }
    }

    fn publication(&self, text: &str, doc: Json, region: &Arc<str>) -> Result<Publication, PublishError> {
        let (id, time) = self.fields.carried(&doc)?;
        let time = self.fit(time.unwrap_or(self.now))?;
        let seq = u64::try_from(time.as_micros().div_euclid(1000)).map_err(|_| {
            PublishError::Document(format!("the time {time} is before 1970; it is the sequence number"))
        })?;
        let hash = self.dedup.hash(text, doc, time)?;
        let id = id.unwrap_or_else(|| snapshot_id(region, seq, &hash));
        Ok(Publication {
            region: Arc::clone(region),
            id,
            seq,
            block: None,
            time,
            hash,
            doc: text.into(),
            follows_rollback: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_with_half_a_character_is_published_as_it_is() {
        let text = "{\"region\":\"a\\ud83d\",\"t\":\"\\udc00\"}\n{\"region\":\"b\"}";
        let region = FieldPath::new("region").expect("a path");
        let fields = DocumentFields::default();
        let documents =
            Documents::parse(text.as_bytes(), "docs", &fields, &region, &DedupRule::default()).expect("documents");
        let first = documents.documents[0].publication.as_ref().expect("a document");
        assert_eq!((&*first.region, &*first.doc), ("a\u{fffd}", text.lines().next().expect("a line")));
        assert!(documents.documents[1].publication.is_ok());
    }
}
