//! What a source path names: files in order, standard input, plain or compressed.

use std::fs::{File, Metadata};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::format::{Cutter, Format};
use super::growing::{AtEnd, FileEnd, Piped, Unfinished, WholeLines};
use super::unpack::{Form, Unpacked, unpack};
use super::walk::{self, Found, InputFile, LeftOut};
use super::{FileStamp, SourceError, SourceEvent};
use super::{copies, names};

/// What a path names, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePath {
    path: String,
    format: Format,
    is_stdin: bool,
    files: Vec<InputFile>,
    left_out: LeftOut,
}

impl SourcePath {
    /// Finds the files of a path. `-` is standard input; a folder is the files in it that hold events of that format by
    /// their names; a
    /// pattern with `*`, `?`, `[…]` or `**` is the files that match it, by name. Rotated files come before the one that
    /// they were rotated from, oldest first. Blocks while it looks.
    ///
    /// # Errors
    /// Nothing is there, a folder cannot be read, a compressed file is empty, or two names are of one file.
    pub fn resolve(path: &str, format: Format) -> Result<Self, SourceError> {
        if path == "-" {
            let (path, left_out) = (path.to_owned(), LeftOut::default());
            return Ok(Self { path, format, is_stdin: true, files: Vec::new(), left_out });
        }
        Self::of(path, format, walk::find(path, format)?)
    }

    /// The same for a path that is followed: a folder or a pattern may have no file yet. Blocks while it looks.
    ///
    /// # Errors
    /// As [`SourcePath::resolve`].
    pub(super) fn resolve_followed(path: &str, format: Format) -> Result<Self, SourceError> {
        let may_be_empty = walk::is_pattern(path) || Path::new(path).is_dir();
        if path == "-" || !may_be_empty {
            Self::resolve(path, format)
        } else {
            Self::of(path, format, walk::find_now(path, format)?)
        }
    }

    fn of(path: &str, format: Format, Found { files, left_out, .. }: Found) -> Result<Self, SourceError> {
        let this = Self { path: path.to_owned(), format, is_stdin: false, files, left_out };
        if let Some(empty) = this.files.iter().find(|file| file.is_regular && names::is_cut_off(&file.path, file.size))
        {
            return Err(this.error(format!(
                "{} is empty, and its name says that it is compressed, so it was cut off; get it again, or take it away",
                names::shown(&empty.path)
            )));
        }
        copies::check_names(&this.files).map_err(|cause| this.error(cause))?;
        Ok(this)
    }

    /// The files in the order in which they are read; none for standard input.
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// Compares files of one size with each other. Reads the first 4 KiB of each, and more only of those that are equal
    /// so far; nothing of a file whose size no other has. Blocks while it reads.
    ///
    /// # Errors
    /// Two of them hold the same bytes, or one cannot be read.
    pub(super) fn check_copies<'f>(
        &self,
        files: impl IntoIterator<Item = &'f InputFile>,
        cutter: &mut Cutter,
    ) -> Result<(), SourceError> {
        copies::check_contents(files, cutter).map_err(|cause| self.error(cause))
    }

    /// What the folder or the pattern leaves out, by name and with the reasons; none if there is nothing.
    pub fn left_out(&self) -> Option<String> {
        self.left_out.named()
    }

    /// Bytes of all files as they lie on disk; none for standard input or a pipe.
    pub fn bytes_total(&self) -> Option<u64> {
        let is_known = !self.is_stdin && self.files.iter().all(|file| file.is_regular);
        is_known.then(|| self.files.iter().map(|file| file.size).sum())
    }

    /// The files that are there now, and the folders in which others may come to be.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(super) fn look(&self) -> Result<(Vec<InputFile>, Vec<PathBuf>), SourceError> {
        let found = walk::find_now(&self.path, self.format)?;
        Ok((found.files, found.folders))
    }

    /// A file has this name now; unless it was begun, it has grown to this.
    pub(super) fn rename(&mut self, at: usize, now: InputFile) {
        self.files[at].path = now.path;
    }

    /// Appends a file.
    pub(super) fn push(&mut self, file: InputFile) {
        self.files.push(file);
    }

    /// Appends the file of that place once more: it holds something else now.
    pub(super) fn push_anew(&mut self, at: usize, found: &Metadata) {
        let file = InputFile::new(self.files[at].path.clone(), found);
        self.files.push(file);
    }

    /// The file of that place was read up to `bytes`.
    pub(super) fn note_end(&mut self, at: usize, bytes: u64, found: &Metadata) {
        let path = self.files[at].path.clone();
        self.files[at] = InputFile { size: bytes, ..InputFile::new(path, found) };
    }

    /// A file that was read has changed since, and that was told.
    pub(super) fn note_change(&mut self, at: usize, now: &InputFile) {
        (self.files[at].size, self.files[at].mtime_ns) = (now.size, now.mtime_ns);
    }

    /// Whether one of the first files is not where it was.
    pub(super) fn has_lost(&self, first: usize) -> bool {
        self.files.iter().take(first).any(|file| !file.path.exists())
    }

    /// An error of reading the file of that place.
    pub(super) fn read_error(&self, at: usize, cause: std::io::Error) -> SourceError {
        let origin = self.files.get(at).map_or_else(|| "stdin".to_owned(), |file| names::shown(&file.path));
        SourceError::Read { origin: Arc::from(origin), cause }
    }

    /// What the system says of each file, in order; none if one of them is a pipe or a device.
    pub(super) fn stamps(&self) -> Vec<FileStamp> {
        if !self.files.iter().all(|file| file.is_regular) {
            return Vec::new();
        }
        let stamp = |file: &InputFile| {
            let modified = i64::try_from(file.mtime_ns).unwrap_or(i64::MAX);
            FileStamp::new(names::shown(&file.path), file.size, modified, file.inode)
        };
        self.files.iter().map(stamp).collect()
    }

    pub(super) fn len(&self) -> usize {
        if self.is_stdin { 1 } else { self.files.len() }
    }

    /// Whether the file of that place is there under its name.
    pub(super) fn has_its_name(&self, at: usize) -> bool {
        let Some(file) = self.files.get(at) else { return false };
        std::fs::metadata(&file.path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev, file.inode))
    }

    /// Opens the input of that number; `again` is the file itself, if it was open already. Of a file that may grow only whole lines are read, from the byte `grows_from` on,
    /// unless it is compressed. `read` counts its bytes, as they lie on disk.
    pub(super) fn open(
        &self,
        at: usize,
        again: Option<File>,
        grows_from: Option<u64>,
        read: &Arc<AtomicU64>,
    ) -> Result<OpenInput, SourceError> {
        let mut end = None;
        let (name, raw, is_stream) = match self.files.get(at) {
            None if grows_from.is_some() => return open_piped(read),
            None => ("stdin".to_owned(), Box::new(std::io::stdin()) as Box<dyn Read + Send>, true),
            Some(file) => {
                let name = names::shown(&file.path);
                let opened = again.map_or_else(|| File::open(&file.path), Ok).and_then(with_metadata);
                let cannot = |cause: std::io::Error| SourceError::Open { path: name.clone(), cause: cause.to_string() };
                let (open, found) = match opened {
                    Ok((open, found)) if is_listed(file, &found) => (open, found),
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error)),
                    _ => self.find_renamed(file).map_err(cannot)?,
                };
                let is_regular = found.is_file();
                let from = grows_from.filter(|_| is_regular && names::unpacked(&file.path) == file.path);
                let raw: Box<dyn Read + Send> = match from {
                    Some(from) => {
                        let (lines, its_end) = FileEnd::open(open, from).map_err(|cause| self.read_error(at, cause))?;
                        end = Some(its_end);
                        Box::new(lines)
                    }
                    None => Box::new(open),
                };
                (name, raw, !is_regular)
            }
        };
        let origin: Arc<str> = Arc::from(name);
        let counted = Counted { inner: raw, read: Arc::clone(read) };
        let unpacked = unpack(counted).map_err(|cause| SourceError::Read { origin: Arc::clone(&origin), cause })?;
        let (form, lines) = unpacked;
        Ok(OpenInput { origin, lines, end, pipe: None, is_stream, is_packed: form != Form::Plain })
    }

    /// Opens a file that has another name since it was found: files may rotate while they are read.
    fn find_renamed(&self, file: &InputFile) -> std::io::Result<(File, Metadata)> {
        let files = walk::find_now(&self.path, self.format).map(|found| found.files).unwrap_or_default();
        let renamed = files.iter().find(|now| (now.dev, now.inode) == (file.dev, file.inode));
        let opened = renamed.map(|now| File::open(&now.path).and_then(with_metadata)).transpose()?;
        opened.filter(|(_, found)| is_listed(file, found)).ok_or_else(|| std::io::Error::other(OTHER_FILE))
    }

    fn error(&self, cause: String) -> SourceError {
        SourceError::Open { path: self.path.clone(), cause }
    }
}

/// An input whose lines can be read.
pub(super) struct OpenInput {
    pub(super) origin: Arc<str>,
    pub(super) lines: Unpacked,
    /// Where it ends for now, if it may grow.
    pub(super) end: Option<Arc<FileEnd>>,
    /// The end of a pipe that is read ahead.
    pub(super) pipe: Option<PipeEnd>,
    /// Whether a read may wait for someone to write.
    pub(super) is_stream: bool,
    /// Whether its bytes are unpacked.
    pub(super) is_packed: bool,
}

impl OpenInput {
    /// Says of an event that it is of this input.
    pub(super) fn name(&self, event: &mut SourceEvent) {
        if !Arc::ptr_eq(&event.origin, &self.origin) {
            event.origin = Arc::clone(&self.origin);
        }
    }
}

/// The end of a pipe that is read ahead.
pub(super) struct PipeEnd {
    is_over: Arc<AtomicBool>,
    unfinished: Arc<Unfinished>,
}

impl PipeEnd {
    /// What is next where it gives no line.
    pub(super) fn next(&self) -> AtEnd {
        match self.is_over.load(Ordering::Relaxed) {
            false => AtEnd::Wait,
            true if self.unfinished.finish() => AtEnd::More,
            true => AtEnd::Next,
        }
    }
}

/// Standard input, read ahead: it says when it has nothing for now.
fn open_piped(read: &Arc<AtomicU64>) -> Result<OpenInput, SourceError> {
    let origin: Arc<str> = Arc::from("stdin");
    let counted = Counted { inner: Box::new(std::io::stdin()), read: Arc::clone(read) };
    let piped = Piped::start(counted).map_err(|cause| SourceError::Read { origin: Arc::clone(&origin), cause })?;
    let unfinished: Arc<Unfinished> = Arc::default();
    let pipe = Some(PipeEnd { is_over: piped.over(), unfinished: Arc::clone(&unfinished) });
    let lines: Box<dyn Read + Send> = Box::new(WholeLines::new(piped, unfinished));
    Ok(OpenInput { origin, lines: BufReader::new(lines), end: None, pipe, is_stream: true, is_packed: false })
}

/// What is told of a file that cannot be found any more.
const OTHER_FILE: &str = "it went away before it was read, or another file has its name now; put it back under a name of its \
                          own, in its order, and run again";

/// Whether that is the file that was found. On some file systems the number of a file may change.
fn is_listed(file: &InputFile, found: &Metadata) -> bool {
    let now = InputFile::new(file.path.clone(), found);
    !file.is_regular
        || (now.dev, now.inode) == (file.dev, file.inode)
        || (now.size, now.mtime_ns) == (file.size, file.mtime_ns)
}

/// A file, and what the system says of it.
fn with_metadata(file: File) -> std::io::Result<(File, Metadata)> {
    let found = file.metadata()?;
    Ok((file, found))
}

/// Counts what passes.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_renamed_since_it_was_found_is_read_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("x.ndjson.2", "a"), ("x.ndjson.1", "bb"), ("x.ndjson", "ccc")] {
            std::fs::write(at(name), text).expect("a file");
        }
        let path = SourcePath::resolve(&folder.path().to_string_lossy(), Format::Ndjson).expect("files");
        for (from, to) in [("x.ndjson.2", "x.ndjson.3"), ("x.ndjson.1", "x.ndjson.2"), ("x.ndjson", "x.ndjson.1")] {
            std::fs::rename(at(from), at(to)).expect("renamed");
        }
        std::fs::write(at("x.ndjson"), "dddd").expect("a file");
        let read = |place: usize| {
            let mut text = String::new();
            let opened = path.open(place, None, None, &Arc::default());
            opened.map(|mut input| input.lines.read_to_string(&mut text)).map(|_| text)
        };
        let texts = [0, 1, 2].map(|place| read(place).expect("it is there"));
        assert_eq!(texts, ["a", "bb", "ccc"]);
        std::fs::remove_file(at("x.ndjson.3")).expect("removed");
        let gone = read(0).expect_err("it is gone").to_string();
        assert!(gone.contains("x.ndjson.2: it went away before it was read"), "{gone}");
    }

    #[test]
    fn files_are_known_before_they_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
        for (name, bytes) in [("a.json", &b"one\ntwo\n"[..]), ("a.json.1", b"old\n"), ("b.json", &gzip)] {
            std::fs::write(folder.path().join(name), bytes).expect("a file");
        }
        let path = SourcePath::resolve(&folder.path().to_string_lossy(), Format::Ndjson).expect("files");
        let sizes: Vec<u64> = path.files().iter().map(|file| file.size).collect();
        assert_eq!((sizes, path.bytes_total(), path.len()), (vec![4, 8, 8], Some(20), 3));
        let found = std::fs::metadata(&path.files()[1].path).expect("the file");
        let modified = found.modified().expect("a time").duration_since(std::time::UNIX_EPOCH).expect("since 1970");
        assert_eq!(path.files()[1].mtime_ns, i128::try_from(modified.as_nanos()).expect("a time"));

        let read = Arc::new(AtomicU64::new(0));
        let mut text = String::new();
        let mut input = path.open(1, None, None, &read).expect("the file");
        input.lines.read_to_string(&mut text).expect("its end");
        assert_eq!((text.as_str(), input.is_packed, input.is_stream), ("one\ntwo\n", false, false));
        assert_eq!(read.load(Ordering::Relaxed), 8);
    }
}
