//! The end of a file that someone writes to.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use super::whole_lines::{Unfinished, WholeLines};
use crate::model::source_progress::SourceDigest;

/// Bytes before the end that are looked at, to see whether the file was written over.
const LAST_BYTES: usize = 256;
/// Bytes before a place in a file that tell whether it is still the same file.
const HASHED_BYTES: u64 = 4096;

/// How far a file is read. Shared with whoever reads it.
#[derive(Debug)]
pub(in crate::source) struct FileEnd {
    file: File,
    /// Where the next read begins.
    at: AtomicU64,
    /// The bytes before that.
    last: Mutex<Vec<u8>>,
    /// The end was reached, and nothing is known of what became of the file since: nothing is read of it.
    is_at_end: AtomicBool,
    unfinished: Arc<Unfinished>,
}

/// What became of a file behind what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Growth {
    /// Nothing.
    None,
    /// It is longer.
    Longer,
    /// It was cut, or written over.
    WrittenAnew,
}

impl FileEnd {
    /// Opens the whole lines of a file from that byte on.
    ///
    /// # Errors
    /// The system cannot seek in it.
    pub(in crate::source) fn open(
        file: File,
        from: u64,
    ) -> io::Result<(WholeLines<impl Read + Send + 'static>, Arc<Self>)> {
        (&file).seek(SeekFrom::Start(from))?;
        let unfinished: Arc<Unfinished> = Arc::default();
        let end = Self {
            file,
            at: from.into(),
            last: Mutex::default(),
            is_at_end: false.into(),
            unfinished: Arc::clone(&unfinished),
        };
        let end = Arc::new(end);
        Ok((WholeLines::new(Reading(Arc::clone(&end)), unfinished), end))
    }

    /// The same file, to be read once more.
    pub(in crate::source) fn again(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The open file, to be watched.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A hash of the last bytes before a place.
    pub(in crate::source) fn hash_before(&self, bytes: u64) -> io::Result<Option<SourceDigest>> {
        hash_before(&self.file, bytes)
    }

    /// The file from its beginning, besides what is read of it.
    pub(in crate::source) fn begin(&self) -> impl Read {
        FromBegin { file: &self.file, at: 0 }
    }

    /// What the system says of the file.
    pub(in crate::source) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Bytes that were read, those of the last line too if that has no end.
    pub(in crate::source) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }

    /// The last line, if that has no end.
    pub(in crate::source) fn unfinished(&self) -> &Unfinished {
        &self.unfinished
    }

    /// The bytes before the end. Whoever held the lock left them whole.
    fn last(&self) -> MutexGuard<'_, Vec<u8>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of it since its end was reached. If it is longer, reading goes on.
    pub(in crate::source) fn growth(&self) -> io::Result<Growth> {
        let len = self.metadata()?.len();
        let last = self.last();
        let mut found = [0; LAST_BYTES];
        let found = &mut found[..last.len()];
        // One that was written over may have the length that it had.
        let is_same = len >= self.at()
            && match self.file.read_exact_at(found, self.at() - last.len() as u64) {
                Ok(()) => *found == **last,
                // Cut since we asked for its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error),
            };
        let growth = match is_same {
            false => Growth::WrittenAnew,
            true if len == self.at() => Growth::None,
            true => Growth::Longer,
        };
        self.is_at_end.store(growth != Growth::Longer, Ordering::Relaxed);
        Ok(growth)
    }
}

/// A hash of the last bytes before a place in a file; none if the file is shorter, or if no line ends there.
///
/// # Errors
/// The file cannot be read.
pub(in crate::source) fn hash_before(file: &File, bytes: u64) -> io::Result<Option<SourceDigest>> {
    let len = bytes.min(HASHED_BYTES);
    let mut before = vec![0; usize::try_from(len).unwrap_or_default()];
    match file.read_exact_at(&mut before, bytes - len) {
        Ok(()) if before.last() == Some(&b'\n') => Ok(Some(SourceDigest::new(xxh3_128(&before)))),
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file from its beginning, wherever others read it.
struct FromBegin<'f> {
    file: &'f File,
    at: u64,
}

impl Read for FromBegin<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads a file, and notes how far.
struct Reading(Arc<FileEnd>);

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_at_end.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let read = (&self.0.file).read(into)?;
        self.0.is_at_end.store(read == 0, Ordering::Relaxed);
        let mut last = self.0.last();
        let new = &into[read - read.min(LAST_BYTES)..read];
        let kept = last.len().min(LAST_BYTES - new.len());
        let dropped = last.len() - kept;
        last.drain(..dropped);
        last.extend_from_slice(new);
        self.0.at.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(lines: &mut impl Read) -> String {
        let mut text = String::new();
        lines.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn a_file_grows_or_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        let mut writer = File::create(&path).expect("a file");
        writer.write_all(b"first\nsecond\nth").expect("written");
        let (mut lines, end) = FileEnd::open(File::open(&path).expect("the file"), 6).expect("a file");
        assert_eq!((text(&mut lines).as_str(), end.at(), end.unfinished().bytes()), ("second\n", 15, 2));
        assert_eq!(end.growth().expect("a file"), Growth::None);
        writer.write_all(b"ird\n").expect("written");
        assert_eq!(text(&mut lines), "", "before it was looked at");
        assert_eq!(end.growth().expect("a file"), Growth::Longer);
        assert_eq!(text(&mut lines), "third\n");
        writer.write_at(b"?", 15).expect("written");
        assert_eq!(end.growth().expect("a file"), Growth::WrittenAnew, "of the same length");
        writer.set_len(7).expect("cut");
        assert_eq!(end.growth().expect("a file"), Growth::WrittenAnew);
        std::fs::write(&path, "other lines, and more of them than before\n").expect("written");
        assert_eq!(end.growth().expect("a file"), Growth::WrittenAnew);
    }

    #[test]
    fn the_last_bytes_are_kept_across_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("a file");
        let (_, end) = FileEnd::open(File::open(&path).expect("the file"), 0).expect("a file");
        let mut reading = Reading(Arc::clone(&end));
        for len in [100, 100, 300, 1, 499, 10] {
            let read = reading.read(&mut vec![0; len]).expect("bytes");
            let at = end.at() as usize;
            assert_eq!(*end.last(), bytes[at.saturating_sub(LAST_BYTES)..at], "{read}");
        }
    }
}
