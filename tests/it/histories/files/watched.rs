//! The library's own file source, with the times and numbers of files that the history says, and what it warns of.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use forebay::source::{Fields, FileStamp, Format, InputSource, Next, Source, SourceError, SourceEvent};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::folder::{Folder, Form, Hashes, Held};

/// What a run warns of.
pub type Said = Arc<Mutex<Vec<String>>>;

thread_local! {
    static SAID: RefCell<Option<Said>> = const { RefCell::new(None) };
}

/// Keeps what a thread warns of, where somebody listens to that thread.
struct Listener;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("forebay")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        SAID.with_borrow(|said| {
            if let Some(said) = said {
                said.lock().expect("what was said").push(message.0);
            }
        });
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Listens to this thread from now on.
pub fn listen(said: &Said) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener).expect("no other listener"));
    SAID.with_borrow_mut(|listening| {
        if listening.as_ref().is_none_or(|other| !Arc::ptr_eq(other, said)) {
            *listening = Some(Arc::clone(said));
        }
    });
}

/// Files, watched.
pub struct Watched {
    inner: InputSource,
    stamps: HashMap<String, (i64, u64)>,
    said: Said,
    read: Arc<AtomicU64>,
}

impl Watched {
    pub fn open(
        path: &Path,
        folder: &Folder,
        form: Form,
        said: &Said,
        read: &Arc<AtomicU64>,
    ) -> Result<Self, SourceError> {
        listen(said);
        let mut fields = Fields::default();
        if form.has_places {
            fields = fields.with_seq("seq").expect("a field");
        }
        if form.hashes != Hashes::None {
            fields = fields.with_hash("hash").expect("a field");
        }
        if form.hashes == Hashes::Parent {
            fields = fields.with_parent("parent").expect("a field");
        }
        let stamp = |file: &Held| (file.name(), (file.modified, file.inode));
        Ok(Self {
            inner: InputSource::open(&path.to_string_lossy(), Format::Ndjson, fields)?,
            stamps: folder.files.iter().map(stamp).collect(),
            said: Arc::clone(said),
            read: Arc::clone(read),
        })
    }
}

impl Source for Watched {
    fn next(&mut self, event: &mut SourceEvent) -> Result<Next, SourceError> {
        listen(&self.said);
        let next = self.inner.next(event);
        self.read.store(self.inner.bytes_read(), Ordering::Relaxed);
        next
    }
    fn files(&self) -> Vec<FileStamp> {
        let stamp = |stamp: FileStamp| {
            let name = stamp.name.rsplit('/').next().unwrap_or_default();
            match self.stamps.get(name) {
                Some((modified, inode)) => FileStamp::new(stamp.name, stamp.bytes, *modified, *inode),
                None => stamp,
            }
        };
        self.inner.files().into_iter().map(stamp).collect()
    }
    fn leave_out(&mut self, is_left_out: &[bool]) {
        listen(&self.said);
        self.inner.leave_out(is_left_out);
    }
    fn file(&self) -> Option<usize> {
        self.inner.file()
    }
    fn rewind(&mut self) -> Result<bool, SourceError> {
        self.inner.rewind()
    }
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }
    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }
    fn bytes_total(&self) -> Option<u64> {
        self.inner.bytes_total()
    }
}
