//! Finds bytes many at a time.
//!
//! Most bytes of a source are passed by, and few of them end something. Short texts are looked at eight bytes at a time, as
//! one number; long ones in blocks, in a form that the compiler makes wide comparisons of.

/// Bytes of a block.
const BLOCK: usize = 64;
/// Bytes that are looked at eight at a time before blocks are worth their while.
const SHORT: usize = 32;

/// Whether a text in JSON ends before this byte, or the byte is not plain there: a quote, a backslash, a control character.
fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// How many bytes at the beginning of a text are plain in JSON, at least: those behind them may be too.
#[inline]
pub(crate) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let found = special(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
        if at == SHORT {
            at += plain_blocks(&bytes[at..]);
        }
    }
    at
}

/// Bytes of the blocks at the beginning that are plain.
fn plain_blocks(bytes: &[u8]) -> usize {
    let is_plain = |block: &&[u8; BLOCK]| !block.iter().fold(false, |is_found, byte| is_found | is_special(*byte));
    BLOCK * bytes.as_chunks::<BLOCK>().0.iter().take_while(is_plain).count()
}

/// Whether no byte is a backslash or a control character.
pub(crate) fn all_plain_but_quotes(bytes: &[u8]) -> bool {
    none_is::<BLOCK>(bytes, |byte| (byte < 0x20) | (byte == b'\\'))
}

/// How many bytes stand before the first quote; none if there is no quote. Most often there are few.
#[inline]
pub(crate) fn until_quote(bytes: &[u8]) -> Option<usize> {
    const QUOTES: u64 = ONES * b'"' as u64;
    let Some(sixteen) = bytes.first_chunk::<16>() else { return bytes.iter().position(|byte| *byte == b'"') };
    let word = u128::from_le_bytes(*sixteen);
    let (first, second) = (has_zero(word as u64 ^ QUOTES), has_zero((word >> 64) as u64 ^ QUOTES));
    if first != 0 {
        Some((first.trailing_zeros() / 8) as usize)
    } else if second != 0 {
        Some(8 + (second.trailing_zeros() / 8) as usize)
    } else {
        memchr::memchr(b'"', &bytes[16..]).map(|at| 16 + at)
    }
}

/// How many bytes at the beginning of a text are plain and not `byte`, at least: those behind them may be so too.
pub(crate) fn plain_before(bytes: &[u8], byte: u8) -> usize {
    let others = ONES * u64::from(byte);
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let found = u64::from_le_bytes(*eight);
        let found = special(found) | has_zero(found ^ others);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at
}

/// Whether no byte is a quote, a backslash, or a control character other than that one.
pub(crate) fn all_plain_but(bytes: &[u8], byte: u8) -> bool {
    if byte < 0x20 {
        return none_is::<BLOCK>(bytes, |other| is_special(other) & (other != byte));
    }
    none_is::<BLOCK>(bytes, is_special)
}

/// Whether no byte is odd, which is asked of so many at a time.
fn none_is<const BYTES: usize>(bytes: &[u8], is_odd: impl Fn(u8) -> bool) -> bool {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let has_odd = |block: &[u8; BYTES]| block.iter().fold(false, |is_found, byte| is_found | is_odd(*byte));
    match bytes.last_chunk::<BYTES>().filter(|_| !rest.is_empty()) {
        // What the blocks leave is looked at with some bytes before it once more.
        Some(last) => !blocks.iter().any(has_odd) && !has_odd(last),
        None if BYTES > 32 && bytes.len() >= 32 => none_is::<32>(bytes, is_odd),
        None if BYTES > 8 => none_is::<8>(bytes, is_odd),
        None => !blocks.iter().any(has_odd) && !rest.iter().any(|byte| is_odd(*byte)),
    }
}

/// Calls `take` with the place of each byte of that kind, in order.
#[inline]
pub(crate) fn each(bytes: &[u8], byte: u8, mut take: impl FnMut(usize)) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (nth, block) in blocks.iter().enumerate() {
        if block.iter().fold(false, |is_found, other| is_found | (*other == byte)) {
            each_of_words(block, byte, |at| take(BLOCK * nth + at));
        }
    }
    each_of_words(rest, byte, |at| take(BLOCK * blocks.len() + at));
}

#[inline]
fn each_of_words(bytes: &[u8], byte: u8, mut take: impl FnMut(usize)) {
    const LOW: u64 = ONES * 0x7f;
    let wanted = ONES * u64::from(byte);
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, eight) in words.iter().enumerate() {
        let zero_where_found = u64::from_le_bytes(*eight) ^ wanted;
        // Exact for each byte: none of them carries into the next.
        let mut found = !(((zero_where_found & LOW) + LOW) | zero_where_found | LOW);
        while found != 0 {
            take(8 * nth + (found.trailing_zeros() / 8) as usize);
            found &= found - 1;
        }
    }
    let begin = bytes.len() - rest.len();
    rest.iter().enumerate().filter(|(_, found)| **found == byte).for_each(|(at, _)| take(begin + at));
}

/// How many digits stand at the beginning.
#[inline]
pub(crate) fn digits(bytes: &[u8]) -> usize {
    const UPPER: u64 = ONES * 0xf0;
    const THREES: u64 = ONES * 0x30;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        // The upper half of a digit is 3, and stays so when 6 is added. The lowest mark is right.
        let others = ((word & UPPER) ^ THREES) | ((word.wrapping_add(ONES * 6) & UPPER) ^ THREES);
        if others != 0 {
            return at + (others.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Whether bytes begin with others, of which there are few.
#[inline]
pub(crate) fn begins_with(bytes: &[u8], others: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..others.len()) else { return false };
    let (first, last) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>());
    if first.is_some() && bytes.len() <= 16 {
        return first == others.first_chunk::<8>() && last == others.last_chunk::<8>();
    }
    bytes == others
}

/// Marks the bytes that end a text or are not plain: a quote, a backslash, a control character. The lowest mark is right;
/// one above it may be of a byte that is plain.
fn special(word: u64) -> u64 {
    let quotes = has_zero(word ^ (ONES * b'"' as u64));
    let backslashes = has_zero(word ^ (ONES * b'\\' as u64));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    quotes | backslashes | controls & (ONES * 0x80)
}

const ONES: u64 = u64::MAX / 255;

/// Marks the bytes that are zero. The lowest mark is right.
fn has_zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look as if drawn by chance, each below the end that is given.
    fn dice() -> impl FnMut(usize) -> usize {
        let mut state = 9_u64;
        move |end| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % end
        }
    }

    #[test]
    fn bytes_are_found_many_at_a_time_as_one_by_one() {
        let mut below = dice();
        for round in 0..20_000 {
            let kinds = [b'x', b',', b'\t', 0x80, 0xac, b'-', 1, 0x1f, b' ', b'"', b'\\', 0xff];
            let kinds = &kinds[..[1, 2, 3, 6, kinds.len()][below(5)]];
            // Few of them are odd in a long text.
            let kind = |at: usize| if round % 2 == 0 || at.is_multiple_of(64) { kinds[at % kinds.len()] } else { b'x' };
            let bytes: Vec<u8> = (0..below([40, 300][round / 2 % 2])).map(|_| kind(below(1 << 20))).collect();
            for byte in [b',', b'\t'] {
                let is_odd = |other: u8| (other < 0x20 && other != byte) || other == b'"' || other == b'\\';
                assert_eq!(all_plain_but(&bytes, byte), !bytes.iter().copied().any(is_odd), "{bytes:?}");
                let is_odd = |other: u8| other < 0x20 || other == b'\\';
                assert_eq!(all_plain_but_quotes(&bytes), !bytes.iter().copied().any(is_odd), "{bytes:?}");
                assert_eq!(until_quote(&bytes), bytes.iter().position(|other| *other == b'"'), "{bytes:?}");
                let mut found = Vec::new();
                each(&bytes, byte, |at| found.push(at));
                let expected: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == byte).collect();
                assert_eq!(found, expected, "{bytes:?}");
                let until = |is_end: &dyn Fn(u8) -> bool| bytes.iter().position(|other| is_end(*other));
                let until = |is_end: &dyn Fn(u8) -> bool| until(is_end).unwrap_or(bytes.len());
                for (passed, until) in [
                    (plain(&bytes), until(&is_special)),
                    (plain_before(&bytes, byte), until(&|other| is_special(other) || other == byte)),
                ] {
                    assert!(passed <= until && (passed == until || bytes.len() - passed < 8), "{bytes:?} {passed}");
                }
            }
        }
    }

    #[test]
    fn digits_end_where_they_do() {
        let mut below = dice();
        for _ in 0..20_000 {
            let others = [b'/', b':', b'?', b'@', b'.', b'e', 0, 0x2a, 0xb5, 0xfa, 0xff];
            let mut byte = |odd: usize| match below(odd) {
                0 => others[below(others.len())],
                _ => b'0' + below(10) as u8,
            };
            let bytes: Vec<u8> = (0..40).map(|at| byte(2 + at)).collect();
            for begin in 0..bytes.len() {
                let expected = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                assert_eq!(digits(&bytes[begin..]), expected, "{bytes:?} {begin}");
            }
        }
    }

    #[test]
    fn what_bytes_begin_with_is_compared_whole() {
        let bytes: Vec<u8> = (0..40).collect();
        for len in 0..=40 {
            let mut others = bytes[..len].to_vec();
            assert!(begins_with(&bytes, &others) && begins_with(&others, &others), "{len}");
            assert!(len == 0 || !begins_with(&bytes[..len - 1], &others), "{len}");
            for at in 0..len {
                others[at] += 1;
                assert!(!begins_with(&bytes, &others), "{len} {at}");
                others[at] -= 1;
            }
        }
    }
}
