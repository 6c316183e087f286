//! A file that is read as a whole: no more of it than fits its kind. A device or a pipe may never end.

use std::io::{Error, ErrorKind, Read};

/// The text of what is read.
///
/// # Errors
/// It cannot be read, has more bytes than `bytes_max`, or is not UTF-8 (`InvalidData`).
pub(crate) fn read_text(from: impl Read, bytes_max: usize) -> Result<String, Error> {
    let no_text = |_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(read_bytes(from, bytes_max)?).map_err(no_text)
}

/// What is read.
///
/// # Errors
/// It cannot be read, or has more bytes than `bytes_max`.
pub(crate) fn read_bytes(from: impl Read, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    from.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= bytes_max {
        true => Ok(bytes),
        false => Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {} MiB", bytes_max >> 20))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_left() {
        assert_eq!(read_text(&b"abc"[..], 3).expect("a text"), "abc");
        assert_eq!(read_text(&b"abcd"[..], 3).expect_err("too long").kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_bytes(std::io::repeat(0), 1 << 20).expect_err("endless").to_string(), "it has more than 1 MiB");
        assert_eq!(read_text(&b"\xff"[..], 3).expect_err("no text").kind(), ErrorKind::InvalidData);
    }
}
