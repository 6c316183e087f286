//! What input is that is no NDJSON: told by its bytes, with what to do.

use super::unpack::{Form, form_of};

/// What the bytes of a file begin with, what that is, and how it becomes text.
const FORMATS: &[(&[u8], &str, &str)] = &[
    (b"\xfd7zXZ\0", "xz", "xz -dc FILE"),
    (b"BZh", "bzip2", "bzip2 -dc FILE"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc FILE"),
    (b"\x02\x21\x4c\x18", "lz4", "lz4 -dc FILE"),
    (b"\x5d\0\0", "lzma", "xz -dc FILE"),
    (b"LZIP", "lzip", "lzip -dc FILE"),
    (b"\x89LZO", "lzop", "lzop -dc FILE"),
    (b"\x1f\x9d", "compress (.Z)", "gzip -dc FILE"),
    (b"\xff\x06\0\0sNaPpY", "snappy", "a program that unpacks it"),
    (b"PK\x03\x04", "zip", "unzip -p FILE"),
    (b"PK\x05\x06", "an empty zip", "unzip -p FILE"),
    (b"PK\x07\x08", "zip", "unzip -p FILE"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "7z x -so FILE"),
    (b"Rar!", "rar", "a program that unpacks it"),
    (b"PAR1", "Parquet", "a program that writes it as NDJSON"),
    (b"PARE", "encrypted Parquet", "a program that writes it as NDJSON"),
    (b"ORC", "ORC", "a program that writes it as NDJSON"),
    (b"Obj\x01", "Avro", "a program that writes it as NDJSON"),
    (b"ARROW1", "Arrow", "a program that writes it as NDJSON"),
    (b"SQLite format 3\0", "a SQLite database", "sqlite3 FILE 'SELECT json_object(…) FROM …'"),
];

/// Where a tar has its name, and the name.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// What a refused line belongs to, if that is no NDJSON; none if only the line is wrong. `line_no` counts from 1.
pub(super) fn named(line_no: u64, line: &[u8]) -> Option<String> {
    if line.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Some(piped("a tar", "tar -xOf FILE"));
    }
    if line_no == 1
        && let Some((_, name, program)) = FORMATS.iter().find(|(magic, ..)| line.starts_with(magic))
    {
        return Some(piped(name, program));
    }
    if line_no == 1 && matches!(line, [0x1e | 0x22..=0x27, 0xb5, 0x2f, 0xfd, ..]) {
        return Some(piped("zstd of a format before 1.0", "zstd -dc FILE"));
    }
    if let Some(Form::Gzip | Form::Zstd) = form_of(line.get(..4).unwrap_or(line)) {
        return Some(
            "compressed data begins here, within other data: a file is compressed as a whole and once, or not at all"
                .to_owned(),
        );
    }
    if let Some(encoding) = wide(line_no, line) {
        return Some(format!(
            "this is {encoding}; events are UTF-8: iconv -f {encoding} -t UTF-8 FILE | forebay run PIPELINE --source -"
        ));
    }
    if line.starts_with(b"\xef\xbb\xbf") {
        return Some(
            "a byte-order mark stands in the middle of the file, as where files were put together: take it out, or \
             read the files one by one"
                .to_owned(),
        );
    }
    if line.starts_with(b"\x1e") {
        return Some(
            "this is a JSON text sequence (each text begins with the byte 0x1e, RFC 7464): tr -d '\\036' < FILE | \
             forebay run PIPELINE --source -"
                .to_owned(),
        );
    }
    None
}

/// What a line or another piece of text is told that holds NUL bytes; none if it holds none.
pub(super) fn zeros(piece: &str, line: &[u8]) -> Option<String> {
    let zeros = line.iter().filter(|byte| **byte == 0).count();
    (zeros > 0 && std::str::from_utf8(line).is_ok()).then(|| {
        format!(
            "the {piece} holds {zeros} NUL bytes, as in a file that was being written when its machine stopped; take them \
             out, or get the file again"
        )
    })
}

fn piped(name: &str, program: &str) -> String {
    format!(
        "this is {name}, which is not read: gzip, zstd and plain text are; {program} | forebay run PIPELINE --source -"
    )
}

/// The encoding of text that is not in bytes.
fn wide(line_no: u64, line: &[u8]) -> Option<&'static str> {
    let is_first = line_no == 1;
    match line {
        [0xff, 0xfe, 0, 0, ..] | [b'{' | b'[', 0, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, b'{' | b'[', ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] if is_first => Some("UTF-16"),
        [0xfe, 0xff, ..] if is_first => Some("UTF-16"),
        [b'{' | b'[', 0, ..] => Some("UTF-16LE"),
        [0, b'{' | b'[', ..] => Some("UTF-16BE"),
        _ => None,
    }
}
