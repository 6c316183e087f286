//! Unpacks what begins like gzip or zstd, whatever its name, and passes the rest through.

use std::io::{BufRead, BufReader, Cursor, Error, ErrorKind, Read, Result};

use flate2::bufread::GzDecoder;

const BUFFER_BYTES: usize = 256 * 1024;

/// Zstd's window in powers of two: the largest that its format has, as `zstd --long=31` writes it.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;

/// Bytes that tell a form from the others.
const HEAD_BYTES: usize = 4;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Gzip,
    Zstd,
}

/// What is read, unpacked.
pub(super) type Unpacked = BufReader<Box<dyn Read + Send>>;

/// Finds out how bytes are packed, and unpacks them. Blocks until as many bytes are there as that takes: one, unless
/// the first ones are those of a packed form.
///
/// # Errors
/// Reading failed. What is damaged shows when it is read.
pub(super) fn unpack(mut raw: impl Read + Send + 'static) -> Result<(Form, Unpacked)> {
    let (form, head) = begin(&mut raw)?;
    let raw = Cursor::new(head).chain(raw);
    let buffered = |raw| BufReader::with_capacity(BUFFER_BYTES, raw);
    let reader: Box<dyn Read + Send> = match form {
        Form::Gzip => Box::new(Members::new(buffered(raw))),
        Form::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(raw))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Form::Plain => Box::new(raw),
    };
    Ok((form, BufReader::with_capacity(BUFFER_BYTES, reader)))
}

/// Reads until the form is decided; gives what was read.
fn begin(raw: &mut impl Read) -> Result<(Form, Vec<u8>)> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let mut byte = [0];
    loop {
        if let Some(form) = form_of(&head) {
            return Ok((form, head));
        }
        // Few bytes, and mostly one: what comes after is read in large pieces.
        match raw.read(&mut byte) {
            Ok(0) => return Ok((Form::Plain, head)),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The form of what begins so; none as long as it may be one or the other.
pub(super) fn form_of(head: &[u8]) -> Option<Form> {
    let gzip = [0x1f, 0x8b];
    let zstd = [0x28, 0xb5, 0x2f, 0xfd];
    // A frame that holds no data; some programs put one first. It has sixteen names.
    let skippable = [0x50 | (head.first()? & 0x0f), 0x2a, 0x4d, 0x18];
    if head.starts_with(&gzip) {
        Some(Form::Gzip)
    } else if head.starts_with(&zstd) || head.starts_with(&skippable) {
        Some(Form::Zstd)
    } else if gzip.starts_with(head) || zstd.starts_with(head) || skippable.starts_with(head) {
        None
    } else {
        Some(Form::Plain)
    }
}

/// The members of a gzip file, one after the other. Zeros behind the last one fill a block of a device or a tape, and
/// hold nothing; other bytes are an error.
struct Members<R> {
    decoder: GzDecoder<Slot<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(raw: R) -> Self {
        let mut decoder = GzDecoder::new(Slot(None));
        decoder.reset(Slot(Some(raw)));
        Self { decoder }
    }

    /// Whether another member follows.
    fn next_member(&mut self) -> Result<bool> {
        let raw = self.decoder.get_mut();
        match raw.fill_buf()?.first() {
            None => Ok(false),
            Some(0x1f) => {
                let raw = Slot(raw.0.take());
                self.decoder.reset(raw);
                Ok(true)
            }
            Some(0) => skip_zeros(raw).map(|()| false),
            Some(_) => Err(behind_the_data()),
        }
    }
}

fn skip_zeros(raw: &mut impl BufRead) -> Result<()> {
    loop {
        let bytes = raw.fill_buf()?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(behind_the_data());
        }
        match bytes.len() {
            0 => return Ok(()),
            zeros => raw.consume(zeros),
        }
    }
}

fn behind_the_data() -> Error {
    Error::new(ErrorKind::InvalidData, "behind its data stand bytes that are no gzip")
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            match self.decoder.read(into)? {
                0 if !into.is_empty() && self.next_member()? => {}
                bytes => return Ok(bytes),
            }
        }
    }
}

/// A reader that can be taken out. A decoder begins anew with a reader of its own.
struct Slot<R>(Option<R>);

impl<R: BufRead> Read for Slot<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.0.as_mut().map_or(Ok(0), |inner| inner.read(into))
    }
}

impl<R: BufRead> BufRead for Slot<R> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.0.as_mut().map_or(Ok(&[]), BufRead::fill_buf)
    }

    fn consume(&mut self, bytes: usize) {
        if let Some(inner) = &mut self.0 {
            inner.consume(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"{\"block\":1}\n{\"block\":2}\n";
    /// A frame that holds no data.
    const SKIPPABLE: [u8; 11] = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 7, 8, 9];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("zstd")
    }

    /// As `zstd --long=31` writes from a pipe: with a window of 2 GiB, and no length.
    fn zstd_long(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("zstd");
        encoder.window_log(31).expect("a window");
        encoder.write_all(bytes).expect("zstd");
        encoder.finish().expect("zstd")
    }

    /// Gives so many bytes at a time.
    struct Slow(Cursor<Vec<u8>>, usize);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> Result<usize> {
            let len = into.len().min(self.1);
            self.0.read(&mut into[..len])
        }
    }

    fn read(bytes: &[u8], at_a_time: usize) -> Result<Vec<u8>> {
        let (_, mut reader) = unpack(Slow(Cursor::new(bytes.to_vec()), at_a_time))?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn whatever_gzip_and_zstd_read_is_read() {
        let (first, second) = TEXT.split_at(12);
        let forms: [(&str, Vec<u8>); 11] = [
            ("plain", TEXT.to_vec()),
            ("gzip", gzip(TEXT)),
            ("gzip of two members", [gzip(first), gzip(second)].concat()),
            ("gzip as bgzip ends it", [gzip(first), gzip(second), gzip(b"")].concat()),
            ("gzip with zeros behind it", [gzip(TEXT), vec![0; 700_000]].concat()),
            ("zstd", zstd(TEXT)),
            ("zstd of two frames", [zstd(first), zstd(second)].concat()),
            ("zstd behind a skippable frame", [&SKIPPABLE[..], &zstd(TEXT)].concat()),
            ("zstd around a skippable frame", [&zstd(first)[..], &SKIPPABLE, &zstd(second)].concat()),
            ("zstd before a skippable frame", [&zstd(TEXT)[..], &SKIPPABLE].concat()),
            ("zstd with a long window", zstd_long(TEXT)),
        ];
        for (name, bytes) in forms {
            for at_a_time in [1, 3, 1 << 20] {
                let text = read(&bytes, at_a_time).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(text == TEXT, "{name}, {at_a_time} bytes at a time");
            }
        }
        assert_eq!(read(&SKIPPABLE, 1).expect("no data"), b"");
        assert_eq!(read(b"", 1).expect("no data"), b"");
    }

    #[test]
    fn what_breaks_off_or_goes_on_as_something_else_is_an_error() {
        let (gzip, zstd) = (gzip(TEXT), zstd(TEXT));
        for (name, whole) in [("gzip", &gzip), ("zstd", &zstd)] {
            for len in 4..whole.len() {
                assert!(read(&whole[..len], 7).is_err(), "{name}: {len} of {} bytes", whole.len());
            }
        }
        let tails: [&[u8]; 5] = [b"x", b"{}\n", &[0, 0, 1], &[0x1f], &[0x28, 0xb5, 0x2f]];
        for tail in tails {
            assert!(read(&[&gzip[..], tail].concat(), 7).is_err(), "gzip and {tail:?}");
            assert!(read(&[&zstd[..], tail].concat(), 7).is_err(), "zstd and {tail:?}");
        }
        assert!(read(&[&gzip[..], &zstd].concat(), 7).is_err());
        assert!(read(&[&zstd[..], &SKIPPABLE[..9]].concat(), 7).is_err());
        assert!(read(&[&zstd[..], &[0; 8]].concat(), 7).is_err());
    }

    #[test]
    fn the_first_bytes_decide() {
        for (head, form) in [
            (&b""[..], None),
            (b"{", Some(Form::Plain)),
            (b"\x1f", None),
            (b"\x1f{", Some(Form::Plain)),
            (b"\x1f\x8b", Some(Form::Gzip)),
            (b"\x28\xb5\x2f", None),
            (b"\x28\xb5\x2f\xfd", Some(Form::Zstd)),
            (b"P*", None),
            (b"PAR1", Some(Form::Plain)),
            (b"\x5f\x2a\x4d\x18", Some(Form::Zstd)),
            (b"\x60\x2a\x4d\x18", Some(Form::Plain)),
        ] {
            assert_eq!(form_of(head), form, "{head:?}");
        }
    }
}
