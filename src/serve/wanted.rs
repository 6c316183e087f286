//! What is wanted of the store, and what was read of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::samples::Mark;
use crate::model::quarantine::Quarantined;
use crate::store::{PipelineStatus, SnapshotReader, StoreError, StoredSnapshot};

/// Bytes of documents that one page of them may have; one that is larger stands alone.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Documents that are asked for at once.
const PAGE_STEP: usize = 32;

/// Newest events in quarantine that are shown.
const QUARANTINE_SHOWN: usize = 20;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// How the pipeline and its regions stand.
    View,
    /// The newest document of a region.
    Document(String),
    /// The newest documents of up to so many regions behind one.
    Page { after: String, limit: usize },
}

/// What was read, when, and what the run had committed then.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) what: T,
    pub(super) read_at: Instant,
    pub(super) mark: Mark,
}

/// What the store said.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    View(Arc<View>),
    Document(Option<Arc<Document>>),
    Page(Arc<[u8]>),
}

/// How the pipeline and its regions stand.
#[derive(Debug, Default)]
pub(super) struct View {
    /// None before the first commit.
    pub(super) status: Option<PipelineStatus>,
    /// The newest events in quarantine.
    pub(super) quarantine: Vec<Quarantined>,
    /// Grows with each view that differs.
    pub(super) version: u64,
    /// In which version each region has changed last, in the order of the status.
    pub(super) changed: Vec<u64>,
}

/// A region's newest document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) tag: String,
    pub(super) seq: Option<u64>,
    pub(super) block: Option<i64>,
    pub(super) generated_at: Option<String>,
    pub(super) body: Arc<[u8]>,
}

impl Document {
    fn of(snapshot: StoredSnapshot) -> Self {
        Self {
            tag: tag(&snapshot),
            seq: snapshot.seq,
            block: snapshot.block,
            generated_at: snapshot.generated_at,
            body: snapshot.doc.into_bytes().into(),
        }
    }
}

/// What tells two snapshots of a region apart: the number and the hash, which are the end of its id.
fn tag(snapshot: &StoredSnapshot) -> String {
    let hash = snapshot.id.rsplit('.').next().unwrap_or_default();
    let is_plain = hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    format!("\"{}.{}\"", snapshot.seq.unwrap_or_default(), if is_plain { hash } else { "" })
}

/// Reads what is wanted. Blocks.
pub(super) fn read(
    reader: &mut dyn SnapshotReader,
    pipeline: &str,
    want: &Want,
    before: Option<&View>,
) -> Result<Answer, StoreError> {
    match want {
        Want::View => read_view(reader, pipeline, before).map(|view| Answer::View(Arc::new(view))),
        Want::Document(region) => {
            let found = reader.latest(pipeline, std::slice::from_ref(region))?.pop();
            Ok(Answer::Document(found.filter(|one| one.region == *region).map(|one| Arc::new(Document::of(one)))))
        }
        Want::Page { after, limit } => read_page(reader, pipeline, after, *limit).map(Answer::Page),
    }
}

fn read_view(reader: &mut dyn SnapshotReader, pipeline: &str, before: Option<&View>) -> Result<View, StoreError> {
    let status = reader.status(pipeline)?;
    let count = status.as_ref().map_or(0, |status| status.quarantined);
    let quarantine = match before.filter(|before| before.count() == count) {
        _ if count == 0 => Vec::new(),
        Some(before) => before.quarantine.clone(),
        None => {
            let mut all = reader.quarantined(pipeline)?;
            all.drain(..all.len().saturating_sub(QUARANTINE_SHOWN));
            all.reverse();
            // Their texts are not shown.
            all.iter_mut().for_each(|event| event.event = String::new());
            all
        }
    };
    let version = before.map_or(1, |before| before.version + 1);
    let known: HashMap<&str, (usize, u64)> = before.map(View::by_name).unwrap_or_default();
    let changed = status.iter().flat_map(|status| &status.regions).map(|region| {
        let same = known.get(region.region.as_str()).filter(|(at, _)| {
            before.and_then(|before| before.status.as_ref()).is_some_and(|status| status.regions[*at] == *region)
        });
        same.map_or(version, |(_, version)| *version)
    });
    let changed: Vec<u64> = changed.collect();
    Ok(View { status, quarantine, version, changed })
}

fn read_page(
    reader: &mut dyn SnapshotReader,
    pipeline: &str,
    after: &str,
    limit: usize,
) -> Result<Arc<[u8]>, StoreError> {
    let status = reader.status(pipeline)?;
    let names: Vec<String> =
        status.map(|status| status.regions).unwrap_or_default().into_iter().map(|one| one.region).collect();
    let mut names: Vec<String> = names.into_iter().filter(|name| name.as_str() > after).collect();
    names.sort_unstable();
    let (mut shown, mut bytes, mut last) = (Vec::new(), 0, None);
    'pages: for names in names.chunks(PAGE_STEP) {
        for snapshot in reader.latest(pipeline, names)? {
            if shown.len() == limit || (bytes > 0 && bytes + snapshot.doc.len() > PAGE_BYTES) {
                break 'pages;
            }
            bytes += snapshot.doc.len();
            last = Some(snapshot.region.clone());
            shown.push(shown_snapshot(snapshot));
        }
    }
    let is_end = last.as_ref().is_none_or(|last| names.last().is_none_or(|name| name <= last)) || shown.is_empty();
    let next = last.filter(|_| !is_end);
    let head = json!({ "pipeline": pipeline, "next": next });
    let text = head.to_string();
    let body = format!("{},\"snapshots\":[{}]}}\n", text.trim_end_matches('}'), shown.join(","));
    Ok(crate::model::text::plain_json(&body).into_owned().into_bytes().into())
}

/// A snapshot around its document, whose digits are not touched.
fn shown_snapshot(snapshot: StoredSnapshot) -> String {
    let StoredSnapshot { region, id, seq, block, generated_at, doc, .. } = snapshot;
    let head = json!({ "region": region, "id": id, "seq": seq, "block": block, "generated_at": generated_at });
    let doc = RawValue::from_string(doc).map_or_else(|_| "null".to_owned(), |doc| doc.get().to_owned());
    let text = head.to_string();
    format!("{},\"doc\":{doc}}}", text.strip_suffix('}').unwrap_or(&text))
}

impl View {
    fn count(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| status.quarantined)
    }

    fn by_name(&self) -> HashMap<&str, (usize, u64)> {
        let regions = self.status.iter().flat_map(|status| &status.regions);
        regions
            .zip(&self.changed)
            .enumerate()
            .map(|(at, (one, version))| (one.region.as_str(), (at, *version)))
            .collect()
    }

    /// The newest events in quarantine, without their texts.
    pub(super) fn quarantine_json(&self) -> Json {
        let shown = |event: &Quarantined| {
            json!({
                "file": event.file,
                "line": event.line,
                "block": event.block,
                "region": event.region,
                "stage": event.stage.name(),
                "error": event.error,
                "time": event.time.to_millis_text(),
            })
        };
        self.quarantine.iter().map(shown).collect()
    }

    /// How old the newest snapshot of the region is whose newest is oldest.
    pub(super) fn oldest_seconds(&self) -> Option<i64> {
        let regions = self.status.iter().flat_map(|status| &status.regions);
        regions.filter_map(|region| crate::status::age_seconds(region.snapshot.as_ref()?)).max()
    }
}

/// How long ago something was read.
pub(super) fn age<T>(found: &Found<T>, now: Instant) -> Duration {
    now.saturating_duration_since(found.read_at)
}
