//! What the name of a file says: whether it holds events, and how old it is among those that were rotated.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::format::Format;

/// Endings of files that hold events, of whatever format: by them it is told what a rotated file was rotated from.
const ENDINGS: [&str; 5] = [".ndjson", ".jsonl", ".json", ".csv", ".tsv"];
/// Endings behind those, of the compressed forms that are read.
const PACKED: [&str; 5] = [".gz", ".zst", ".gzip", ".bgz", ".zstd"];
/// Compressed forms that are not read.
const PACKED_OTHERWISE: [&str; 11] =
    [".xz", ".bz2", ".lz4", ".lzma", ".lz", ".lzo", ".br", ".bz", ".sz", ".snappy", ".z"];
/// Files that hold files.
const ARCHIVES: [&str; 9] = [".tar", ".tgz", ".tzst", ".txz", ".tbz", ".tbz2", ".zip", ".7z", ".rar"];
/// What may stand between a name and the stamp of its rotation.
const SEPARATORS: &[u8] = b".-_";
/// Digits of the number of a rotation at most; more are a date or a time.
const ROTATION_DIGITS_MAX: usize = 5;

/// The endings of a format, for messages.
pub(super) fn endings(format: Format) -> String {
    format!("{} (also with .gz or .zst)", format.endings().join(", "))
}

/// Whether a file of that name holds events of that format.
pub(super) fn holds_events(path: &Path, format: Format) -> bool {
    let name = without_ending(name_of(path), &PACKED);
    has_ending(name, format.endings()) || rotated(name, format.endings()).is_some()
}

/// Whether a name is hidden: it begins with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Why a file of that name is taken for none that holds events.
pub(super) fn why_not(path: &Path, format: Format) -> String {
    let name = name_of(path);
    if has_ending(without_ending(name, &PACKED), &ARCHIVES) {
        return "an archive is not read: unpack it".to_owned();
    }
    match PACKED_OTHERWISE.iter().find(|ending| has_ending(name, &[ending])) {
        Some(ending) => format!("{ending} is not read: unpack it, or pack it with gzip or zstd"),
        None => format!("only names that end in {} hold events", format.endings().join(", ")),
    }
}

/// The path as it would be if the file were not compressed.
pub(super) fn unpacked(path: &Path) -> PathBuf {
    path.with_file_name(OsStr::from_bytes(without_ending(name_of(path), &PACKED)))
}

/// Whether a file of that many bytes is less than its name says: even nothing, compressed, is some bytes.
pub(super) fn is_cut_off(path: &Path, size: u64) -> bool {
    size == 0 && has_ending(name_of(path), &PACKED)
}

/// A path for people: without control characters.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Sorts by name, with rotated files before the one that they were rotated from, oldest first. Whether a file is
/// compressed makes no difference.
pub(super) fn sort<T>(files: &mut Vec<T>, path: impl Fn(&T) -> &Path) {
    let mut places: Vec<Place> = files.iter().map(|file| Place::of(path(file))).collect();
    // One number with a zero before it: the files were numbered as they were written.
    let ascending: HashSet<PathBuf> =
        places.iter().filter(|place| place.age.is_padded()).map(|place| place.group.clone()).collect();
    for place in &mut places {
        if ascending.contains(&place.group) {
            place.age.make_ascending();
        }
    }
    let mut placed: Vec<(Place, T)> = places.into_iter().zip(files.drain(..)).collect();
    placed.sort_by(|(a, _), (b, _)| a.cmp(b));
    // `x_20260101.ndjson` stands behind `x.ndjson` by name.
    let last_dated: HashMap<PathBuf, usize> =
        placed.iter().enumerate().filter_map(|(at, (place, _))| Some((dated_base(&place.group)?, at))).collect();
    let mut rows: Vec<(usize, bool, T)> = Vec::with_capacity(placed.len());
    for (at, (place, file)) in placed.into_iter().enumerate() {
        let behind = last_dated.get(&place.group).copied().filter(|last| *last > at && place.age == Age::Newest);
        rows.push((behind.unwrap_or(at), behind.is_some(), file));
    }
    rows.sort_by_key(|(at, is_behind, _)| (*at, *is_behind));
    files.extend(rows.into_iter().map(|(_, _, file)| file));
}

/// Where a file stands among others.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The path without the stamp of a rotation, and as if the file were not compressed.
    group: PathBuf,
    age: Age,
    path: PathBuf,
}

/// How old a file is among those of its group, oldest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// `x.ndjson.2`: the higher the number, the older.
    Number { number: Reverse<u32>, is_padded: bool },
    /// `x.ndjson.002`: the higher the number, the newer.
    Part(u32),
    /// `x.ndjson-20260101`: by a text that sorts as the times do.
    Time(String),
    /// The file that is written to.
    Newest,
}

impl Age {
    fn is_padded(&self) -> bool {
        matches!(self, Self::Number { is_padded: true, .. })
    }

    fn make_ascending(&mut self) {
        if let Self::Number { number: Reverse(number), .. } = *self {
            *self = Self::Part(number);
        }
    }
}

impl Place {
    fn of(path: &Path) -> Self {
        let name = without_ending(name_of(path), &PACKED);
        let (base, age) = match rotated(name, &ENDINGS) {
            Some((base, age)) if !has_ending(name, &ENDINGS) => (without_ending(base, &PACKED), age),
            _ => (name, Age::Newest),
        };
        Self { group: path.with_file_name(OsStr::from_bytes(base)), age, path: path.to_owned() }
    }
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().map(OsStr::as_bytes).unwrap_or_default()
}

fn has_ending(name: &[u8], endings: &[&str]) -> bool {
    without_ending(name, endings).len() < name.len()
}

/// A name without one of these endings, in small or capital letters.
fn without_ending<'n>(name: &'n [u8], endings: &[&str]) -> &'n [u8] {
    let before = |ending: &&str| {
        let at = name.len().checked_sub(ending.len()).filter(|at| *at > 0)?;
        name[at..].eq_ignore_ascii_case(ending.as_bytes()).then(|| &name[..at])
    };
    endings.iter().find_map(before).unwrap_or(name)
}

/// The name that a file was rotated from, and its age: `x.ndjson.2`, `x.ndjson-20260101`, `x.ndjson.gz.1`.
fn rotated<'n>(name: &'n [u8], endings: &[&str]) -> Option<(&'n [u8], Age)> {
    let cuts = name.iter().enumerate().filter(|(_, byte)| SEPARATORS.contains(byte));
    let bases = cuts.filter(|(at, _)| has_ending(without_ending(&name[..*at], &PACKED), endings));
    bases.into_iter().find_map(|(at, separator)| Some((&name[..at], age(*separator, &name[at + 1..])?)))
}

/// For `x-20260101.ndjson` the path `x.ndjson`.
fn dated_base(path: &Path) -> Option<PathBuf> {
    let name = name_of(path);
    let stem = without_ending(name, &ENDINGS);
    let cut = |(at, byte): (usize, &u8)| {
        let is_dated = SEPARATORS.contains(byte) && at > 0 && time(&stem[at + 1..]).is_some();
        is_dated.then(|| path.with_file_name(OsStr::from_bytes(&[&stem[..at], &name[stem.len()..]].concat())))
    };
    stem.iter().enumerate().find_map(cut)
}

fn age(separator: u8, stamp: &[u8]) -> Option<Age> {
    let is_number = !stamp.is_empty() && stamp.iter().all(u8::is_ascii_digit);
    if !is_number || stamp.len() > ROTATION_DIGITS_MAX {
        return time(stamp).map(Age::Time);
    }
    if separator != b'.' {
        // `x.ndjson-2026`.
        return year(stamp).filter(|_| stamp.len() == 4).map(|year| Age::Time(year.to_string()));
    }
    let number = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some(Age::Number { number: Reverse(number), is_padded: stamp.len() > 1 && stamp[0] == b'0' })
}

fn year(stamp: &[u8]) -> Option<u32> {
    let digits = stamp.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|year| (1970..2200).contains(year))
}

/// A date, a time, or the seconds since 1970, as a text that sorts as the times do.
fn time(stamp: &[u8]) -> Option<String> {
    let digits = stamp.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_time = stamp.iter().all(|byte| byte.is_ascii_digit() || b"-_.:TtZz+".contains(byte));
    let is_dated = year(stamp).is_some();
    if !is_time || digits <= ROTATION_DIGITS_MAX || (!is_dated && digits < stamp.len()) {
        return None;
    }
    let mut text = String::with_capacity(stamp.len() + 32);
    let mut rest = stamp;
    // Year, month and day, however they are written.
    while let [byte, more @ ..] = rest
        && is_dated
        && text.len() < 8
        && (byte.is_ascii_digit() || SEPARATORS.contains(byte))
    {
        text.extend(byte.is_ascii_digit().then(|| char::from(*byte)));
        rest = more;
    }
    // The rest by its numbers.
    while let [byte, more @ ..] = rest {
        let run = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if run == 0 {
            text.push(char::from(*byte));
            rest = more;
        } else {
            let (number, more) = rest.split_at(run);
            text.extend(std::iter::repeat_n('0', 20_usize.saturating_sub(run)));
            text.extend(number.iter().map(|digit| char::from(*digit)));
            rest = more;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::format::Delimiter;

    fn sorted(names: &str) -> String {
        let mut names: Vec<&str> = names.split(' ').collect();
        names.reverse();
        for _ in 0..2 {
            sort(&mut names, |name| Path::new(*name));
            names.rotate_left(1);
        }
        sort(&mut names, |name| Path::new(*name));
        names.join(" ")
    }

    #[test]
    fn rotated_files_come_before_the_one_that_is_written_to_oldest_first() {
        for order in [
            "x.ndjson.2.gz x.ndjson.1 x.ndjson",
            "x.ndjson.10 x.ndjson.9 x.ndjson.1 x.ndjson.0 x.ndjson",
            "x.ndjson.10.gz x.ndjson.9.zst x.ndjson.2 x.ndjson.gz",
            "x.ndjson-20251231.gz x.ndjson-20260101 x.ndjson",
            "x.ndjson.20251231 x.ndjson.20260101 x.ndjson",
            "x.ndjson_2025-12-31 x.ndjson_2026-01-01 x.ndjson",
            "x-20251231.ndjson x-20260101.ndjson.gz x.ndjson",
            "x_20251231.ndjson x_20260101.ndjson.gz x.ndjson y.ndjson",
            "x.2026-01-01.ndjson x.2026-01-02.ndjson x.ndjson",
            "x.ndjson-20260101-9 x.ndjson-20260101-13 x.ndjson-20260102 x.ndjson",
            "x.ndjson-2026010109 x.ndjson-2026010113 x.ndjson",
            "x.ndjson.2026-01-01T09:00:00Z x.ndjson.2026-01-01T13:00:00Z x.ndjson.2026-01-02 x.ndjson",
            "x.ndjson-1767225600 x.ndjson-1767229200 x.ndjson",
            "x.ndjson-2025 x.ndjson-2026 x.ndjson",
            // Dates were switched on after numbers.
            "x.ndjson.2 x.ndjson.1 x.ndjson-20260101 x.ndjson",
            // Parts that were numbered as they were written.
            "x.ndjson.00 x.ndjson.01 x.ndjson.09 x.ndjson.10 x.ndjson.11",
            "a.ndjson x.ndjson.1 x.ndjson y.ndjson.1 y.ndjson",
            "in/a.ndjson in/b/x.ndjson.1 in/b/x.ndjson in/c.ndjson",
        ] {
            assert_eq!(sorted(order), order);
        }
    }

    #[test]
    fn other_files_are_in_the_order_of_their_names() {
        for order in [
            "1.ndjson 10.ndjson 2.ndjson",
            "a-1.ndjson.gz a-2.ndjson a-3.ndjson.zst",
            "2026-01-01.ndjson 2026-01-02.ndjson x.ndjson",
            "x-2026-01-01-part2.ndjson x-2026-01-01.ndjson x-2026-01-02.ndjson",
            "x.1.ndjson x.2.ndjson x.ndjson",
            "events.json notes other.txt",
        ] {
            assert_eq!(sorted(order), order);
        }
    }

    #[test]
    fn names_that_hold_events_and_names_that_do_not() {
        let is = |name: &str| holds_events(Path::new(name), Format::Ndjson);
        for name in [
            "a.ndjson",
            "A.JSONL",
            "a.json.gz",
            "a.ndjson.ZST",
            "a.ndjson.zstd",
            "a.ndjson.1",
            "a.ndjson.1.gz",
            "a.ndjson.gz.1",
            "a.jsonl-20260101.gz",
            "a.ndjson.2026-01-01T00:00:00Z",
            "a.ndjson-1767225600",
            "..ndjson",
        ] {
            assert!(is(name), "{name}");
        }
        for name in [
            "a",
            "a.log",
            "a.csv",
            "part-00000",
            "a.ndjson.xz",
            "a.ndjson.bak",
            "a.ndjson~",
            "a.ndjson.1.xz",
            "a.ndjson-1",
            "a.ndjson.aa",
            "a.ndjson.",
            "a.ndjson.20260101.tmp",
            ".ndjson",
            "ndjson",
            "x.1",
            "x.gz",
        ] {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn each_format_has_its_endings() {
        let csv = Format::Csv(Delimiter::default());
        for (name, formats) in [
            ("a.ndjson", vec![Format::Ndjson]),
            ("a.jsonl.1.gz", vec![Format::Ndjson]),
            ("a.JSON.zst", vec![Format::Ndjson, Format::Json]),
            ("a.json.2", vec![Format::Ndjson, Format::Json]),
            ("a.csv", vec![csv]),
            ("a.CSV.gz", vec![csv]),
            ("a.csv.1.zst", vec![csv]),
            ("a.tsv-20260101", vec![csv]),
            ("a.txt", vec![]),
        ] {
            let holding = [Format::Ndjson, csv, Format::Json].into_iter();
            let holding: Vec<Format> = holding.filter(|format| holds_events(Path::new(name), *format)).collect();
            assert_eq!(holding, formats, "{name}");
        }
        let why = why_not(Path::new("a.ndjson"), csv);
        assert_eq!(why, "only names that end in .csv, .tsv hold events");
        assert_eq!(sorted("x.csv.2.gz x.csv.1 x.csv x.tsv.1 x.tsv"), "x.csv.2.gz x.csv.1 x.csv x.tsv.1 x.tsv");
    }

    #[test]
    fn a_name_that_is_not_read_is_told_why() {
        for (name, said) in [
            ("a.ndjson.xz", ".xz is not read"),
            ("a.ndjson.1.BZ2", ".bz2 is not read"),
            ("a.tar.gz", "an archive"),
            ("a.zip", "an archive"),
            ("a.log", "only names that end in .ndjson, .jsonl, .json"),
        ] {
            let why = why_not(Path::new(name), Format::Ndjson);
            assert!(why.starts_with(said), "{name}: {why}");
        }
    }
}
