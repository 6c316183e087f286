//! What a source path names: files in order, standard input, plain or compressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FileStamp, SourceError};

const BUFFER_BYTES: usize = 256 * 1024;

/// Names of files in a folder that hold events.
const ENDINGS: [&str; 3] = [".ndjson", ".jsonl", ".json"];

/// What a path names, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePath {
    inputs: Vec<Input>,
    bytes_total: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Input {
    Stdin,
    File(PathBuf),
}

impl SourcePath {
    /// Finds the files of a path: `-` is standard input, a folder is its NDJSON files by name, a pattern with `*`, `?`
    /// or `[…]` the files it matches by name.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn resolve(path: &str) -> Result<Self, SourceError> {
        let cannot = |cause: String| SourceError::Open { path: path.to_owned(), cause };
        if path == "-" {
            return Ok(Self { inputs: vec![Input::Stdin], bytes_total: None });
        }
        let files = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                files_of_folder(Path::new(path)).map_err(|error| cannot(error.to_string()))?
            }
            Ok(_) => vec![PathBuf::from(path)],
            Err(_) if path.contains(['*', '?', '[']) => files_of_pattern(path).map_err(cannot)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(cannot("there is no such file; expected a file, a folder, a pattern or -".into()));
            }
            Err(error) => return Err(cannot(error.to_string())),
        };
        if files.is_empty() {
            let what = if Path::new(path).is_dir() { "the folder holds no" } else { "the pattern matches no" };
            return Err(cannot(format!("{what} file that ends in {} (also with .gz or .zst)", ENDINGS.join(", "))));
        }
        let bytes_total = files.iter().map(|file| file_bytes(file)).sum();
        Ok(Self { inputs: files.into_iter().map(Input::File).collect(), bytes_total })
    }

    /// Bytes of all files as they lie on disk; none for standard input or a pipe.
    pub fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// What the system says of each file, in order; none if there is one that is no file.
    pub(super) fn stamps(&self) -> Vec<FileStamp> {
        let stamp = |input: &Input| match input {
            Input::Stdin => None,
            Input::File(path) => stamp_of(path),
        };
        self.inputs.iter().map(stamp).collect::<Option<_>>().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Opens the input of that number. `read` counts its bytes.
    pub(super) fn open(&self, at: usize, read: &Arc<AtomicU64>) -> Result<OpenInput, SourceError> {
        let (origin, raw, is_stream): (String, Box<dyn Read + Send>, bool) = match &self.inputs[at] {
            Input::Stdin => ("stdin".into(), Box::new(std::io::stdin()), true),
            Input::File(path) => {
                let origin = path.display().to_string();
                let open = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
                let (is_file, file) =
                    open.map_err(|error| SourceError::Open { path: origin.clone(), cause: error.to_string() })?;
                (origin, Box::new(file), !is_file)
            }
        };
        let origin: Arc<str> = Arc::from(origin);
        let counted = Counted { inner: raw, read: Arc::clone(read) };
        let lines = decompress(counted).map_err(|cause| SourceError::Read { origin: Arc::clone(&origin), cause })?;
        Ok(OpenInput { origin, lines, is_stream })
    }
}

/// An input whose lines can be read.
pub(super) struct OpenInput {
    pub(super) origin: Arc<str>,
    pub(super) lines: BufReader<Box<dyn Read + Send>>,
    /// Whether a read may wait for someone to write.
    pub(super) is_stream: bool,
}

fn stamp_of(path: &Path) -> Option<FileStamp> {
    let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let modified = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Some(FileStamp::new(path.display().to_string(), found.len(), modified, found.ino()))
}

fn file_bytes(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|found| found.len())
}

fn files_of_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if holds_events(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn holds_events(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn files_of_pattern(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let found = glob::glob(pattern).map_err(|error| format!("the pattern is not understood: {error}"))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|error| error.to_string())?;
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Unpacks what begins like gzip or zstd, whatever its name; passes the rest through.
fn decompress(raw: Counted) -> std::io::Result<BufReader<Box<dyn Read + Send>>> {
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
    let begin = raw.fill_buf()?;
    let reader: Box<dyn Read + Send> = if begin.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(raw)?)
    } else {
        // Read past this buffer: only one is needed.
        Box::new(raw)
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, reader))
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
