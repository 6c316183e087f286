//! Two names of one file: its events would count twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::SourceEvent;
use super::format::Cutter;
use super::names;
use super::unpack::unpack;
use super::walk::InputFile;

/// Bytes that are compared first: most files differ in them.
const FIRST_BYTES: u64 = 4 * 1024;
/// Bytes that are compared then, and at a time from there on.
const PIECE_BYTES: u64 = 64 * 1024;

/// Finds two names of one file by what the system says of them: links, and a file beside its compressed form.
///
/// # Errors
/// There are two: the message names both.
pub(super) fn check_names(files: &[InputFile]) -> Result<(), String> {
    let mut places = HashMap::with_capacity(files.len());
    let mut stems: HashMap<PathBuf, &InputFile> = HashMap::with_capacity(files.len());
    for file in files.iter().filter(|file| file.is_regular) {
        // Some file systems have no such numbers and make them up; size and time tell such files apart.
        let place = (file.dev, file.inode, file.size, file.mtime_ns);
        if let Some(other) = places.insert(place, file) {
            return Err(twice(other, file, "are two names of one file"));
        }
        if let Some(other) = stems.insert(names::unpacked(&file.path), file) {
            return Err(twice(other, file, "have one name, plain and compressed"));
        }
    }
    Ok(())
}

/// Finds two files that hold the same bytes. Reads nothing of a file whose size no other has, and little of one that
/// differs from the others in its first bytes. Blocks while it reads.
///
/// # Errors
/// There are two, or one cannot be read: the message names them.
pub(super) fn check_contents<'f>(
    files: impl IntoIterator<Item = &'f InputFile>,
    cutter: &mut Cutter,
) -> Result<(), String> {
    let mut sizes: HashMap<u64, Vec<&InputFile>> = HashMap::new();
    for file in files.into_iter().filter(|file| file.is_regular && file.size > 0) {
        sizes.entry(file.size).or_default().push(file);
    }
    let mut groups: Vec<Vec<&InputFile>> = sizes.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_by(|a, b| a[0].path.cmp(&b[0].path));
    groups.into_iter().try_for_each(|group| check_group(group, cutter))
}

/// Compares files of one size, piece by piece, as long as there are several that were equal so far.
fn check_group(files: Vec<&InputFile>, cutter: &mut Cutter) -> Result<(), String> {
    let mut open: Vec<(Vec<&InputFile>, u64)> = vec![(files, 0)];
    while let Some((files, from)) = open.pop() {
        let size = files[0].size;
        if from >= size {
            // Of a file without an event nothing counts at all.
            if holds_an_event(files[0], cutter)? {
                return Err(twice(files[0], files[1], "hold the same"));
            }
            continue;
        }
        let len = if from == 0 { FIRST_BYTES } else { PIECE_BYTES }.min(size - from);
        let mut pieces: HashMap<[u8; 32], Vec<&InputFile>> = HashMap::new();
        for file in files {
            if let Some(digest) = digest(file, from, len)? {
                pieces.entry(digest).or_default().push(file);
            }
        }
        open.extend(pieces.into_values().filter(|equal| equal.len() > 1).map(|equal| (equal, from + len)));
    }
    Ok(())
}

/// Whether a file, unpacked, holds an event. Of one that cannot be read the reading says so.
fn holds_an_event(file: &InputFile, cutter: &mut Cutter) -> Result<bool, String> {
    let open = File::open(&file.path).map_err(|error| format!("{}: {error}", names::shown(&file.path)))?;
    let Ok((_, mut input)) = unpack(open) else { return Ok(true) };
    cutter.begin();
    let mut event = SourceEvent::default();
    let read = cutter.next(&mut input, &mut event).and_then(|is_event| Ok(is_event || cutter.end(&mut event)?));
    Ok(read.unwrap_or(true))
}

/// The digest of a piece of a file; none if it is gone or shorter now.
fn digest(file: &InputFile, from: u64, len: u64) -> Result<Option<[u8; 32]>, String> {
    let mut piece = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    let read = File::open(&file.path).and_then(|mut open| {
        std::io::Seek::seek(&mut open, std::io::SeekFrom::Start(from))?;
        open.take(len).read_to_end(&mut piece)
    });
    match read {
        Ok(read) if read as u64 == len => Ok(Some(Sha256::digest(&piece).into())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", names::shown(&file.path))),
    }
}

fn twice(one: &InputFile, other: &InputFile, what: &str) -> String {
    let (one, other) = if one.path <= other.path { (one, other) } else { (other, one) };
    format!(
        "{} and {} {what}: their events would count twice; take one of them away, or give a pattern that matches only \
         one",
        names::shown(&one.path),
        names::shown(&other.path)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fields::Fields;
    use crate::source::format::{Delimiter, Format};
    use crate::source::walk;

    fn check(files: &[(&str, &[u8])]) -> Result<(), String> {
        check_as(Format::Ndjson, files)
    }

    fn check_as(format: Format, files: &[(&str, &[u8])]) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).expect("a file");
        }
        let found = walk::find(&folder.path().to_string_lossy(), format).expect("files");
        let mut cutter = Cutter::new(format, Fields::default());
        check_names(&found.files).and_then(|()| check_contents(&found.files, &mut cutter))
    }

    #[test]
    fn files_of_one_size_are_the_same_only_if_every_byte_is() {
        for len in [1, 4095, 4096, 4097, 69_631, 69_632, 69_633, 300_000] {
            let one = vec![b'x'; len];
            let mut other = one.clone();
            other[len - 1] = b'y';
            let mut third = one.clone();
            third[0] = b'z';
            check(&[("a.json", &one), ("b.json", &other), ("c.json", &third)]).expect("they differ");
            let refused =
                check(&[("a.json", &one), ("b.json", &other), ("c.json", &other)]).expect_err("two are equal");
            assert!(refused.contains("b.json and ") && refused.contains("c.json hold the same"), "{len}: {refused}");
        }
        check(&[("a.json", b""), ("b.json", b"")]).expect("empty files hold no events");
        check(&[("a.json", b"1"), ("b.json", b"12")]).expect("they differ");
    }

    #[test]
    fn files_without_events_are_no_copies() {
        let csv = Format::Csv(Delimiter::default());
        for (format, name, empty, full) in [
            (Format::Ndjson, ".json", " \n\n", "{\"block\":1,\"region\":\"r\"}"),
            (csv, ".csv", "block,region\n", "block,region\n1,r\n"),
            (Format::Json, ".json", "[\n]\n", "[{\"block\":1,\"region\":\"r\"}]"),
        ] {
            let names = ["a", "b"].map(|stem| format!("{stem}{name}"));
            let both =
                |text: &'static str| [(names[0].as_str(), text.as_bytes()), (names[1].as_str(), text.as_bytes())];
            check_as(format, &both(empty)).expect("no event counts twice");
            check_as(format, &both(full)).expect_err("an event would count twice");
        }
    }

    #[test]
    fn a_file_beside_its_compressed_form_is_one_file() {
        for (one, other) in [("5.json", "5.json.gz"), ("5.json.gz", "5.json.zst"), ("5.json.1", "5.json.1.gz")] {
            let refused = check(&[(one, b"1"), (other, b"12")]).expect_err("one file");
            assert!(refused.contains("5.json") && refused.contains(&format!("{other} have one name")), "{refused}");
        }
        check(&[("5.json", b"1"), ("5.json.1.gz", b"12"), ("5.jsonl", b"123")]).expect("three files");
    }
}
