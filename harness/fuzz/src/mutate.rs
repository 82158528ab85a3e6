//! Changed inputs: of bytes, of lengths, of words and numbers of a text, of stretches between brackets, and of two inputs together.

use bitnet_harness::strings::Random;

/// Numbers at the ends of what fits somewhere.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// What numbers are in a text, some of them none.
const WRITTEN: [&str; 16] = [
    "0",
    "1",
    "-1",
    "255",
    "256",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "0.5",
];

/// Pieces that break readers of texts.
const PIECES: [&[u8]; 16] = [
    b"\0",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xEF\xBB\xBF",
    b"\xF0\x9F\x98\x80",
    b"\xFF\xFE",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"\r\n",
    b"{}",
    b"\xE2\x96\x81",
];

/// The longest input that is made.
pub const LONGEST: usize = 1 << 18;

/// Makes `bytes` a changed copy of `input`, of at most `most` bytes. `others` are inputs that parts may come from.
pub fn mutate(r: &mut Random, input: &[u8], others: &[Vec<u8>], most: usize, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(input);
    // Often one change, which stays close to what is sound, seldom many.
    for _ in 0..1 << r.below(4) {
        one(r, bytes, others, most);
        bytes.truncate(most);
        if r.below(2) == 0 {
            break;
        }
    }
}

fn one(r: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>], most: usize) {
    let n = bytes.len();
    if n == 0 {
        bytes.extend_from_slice(PIECES[r.below(PIECES.len())]);
        return;
    }
    let at = r.below(n);
    match r.below(16) {
        0 => bytes[at] ^= 1 << r.below(8),
        1 => bytes[at] = NUMBERS[r.below(8)] as u8,
        2 | 3 => number(r, bytes, at),
        4 => drop(bytes.drain(at..(at + length(r, n)).min(n))),
        5 => {
            let copy = bytes[at..(at + length(r, n)).min(n)].to_vec();
            put(bytes, r.below(n + 1), &copy);
        }
        6 => {
            let copy = bytes[at..(at + length(r, n)).min(n)].to_vec();
            let count = 1 << r.below(10);
            put(bytes, at, &copy.repeat(count.min(most / copy.len().max(1))));
        }
        7 => bytes.truncate(at),
        8 => put(bytes, at, PIECES[r.below(PIECES.len())]),
        9 => splice(r, bytes, at, others),
        10 | 11 => written(r, bytes, at),
        12 => quoted(r, bytes, at),
        13 => bracketed(r, bytes, at, most),
        14 => line(r, bytes, at),
        _ => {
            let end = (at + length(r, 16)).min(n);
            bytes[at..end].iter_mut().for_each(|byte| *byte = r.bits() as u8);
        }
    }
}

/// Short ones as likely as long ones.
fn length(r: &mut Random, most: usize) -> usize {
    1 + (r.below(most) >> r.below(12))
}

fn put(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

/// A little-endian number of two, four or eight bytes: a telling one, or one near to what it was.
fn number(r: &mut Random, bytes: &mut [u8], at: usize) {
    let width = 2 << r.below(3);
    // Fields of binary formats are often aligned.
    let at = if r.below(2) == 0 { at & !3 } else { at };
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let was = field.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let is = match r.below(4) {
        0 => was.wrapping_add(1 + r.below(4) as u64),
        1 => was.wrapping_sub(1 + r.below(4) as u64),
        _ => NUMBERS[r.below(NUMBERS.len())],
    };
    for (byte, value) in field.iter_mut().zip(is.to_le_bytes()) {
        *byte = value;
    }
}

/// A part of another input in place of a part of this one.
fn splice(r: &mut Random, bytes: &mut Vec<u8>, at: usize, others: &[Vec<u8>]) {
    let Some(other) = (!others.is_empty()).then(|| &others[r.below(others.len())]).filter(|other| !other.is_empty())
    else {
        return;
    };
    let from = r.below(other.len());
    let part = other[from..(from + length(r, other.len())).min(other.len())].to_vec();
    let end = (at + length(r, bytes.len())).min(bytes.len());
    let end = if r.below(3) == 0 { bytes.len() } else { end };
    bytes.splice(at..end, part);
}

/// The stretch around or behind `at` whose bytes are of a kind.
fn stretch(bytes: &[u8], at: usize, of: impl Fn(u8) -> bool) -> Option<(usize, usize)> {
    let start = at + bytes[at..].iter().position(|byte| of(*byte))?;
    let end = bytes[start..].iter().position(|byte| !of(*byte)).map_or(bytes.len(), |n| start + n);
    let start = bytes[..start].iter().rposition(|byte| !of(*byte)).map_or(0, |n| n + 1);
    Some((start, end))
}

/// Another number in a text.
fn written(r: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    if let Some((start, end)) = stretch(bytes, at, |byte| byte.is_ascii_digit()) {
        bytes.splice(start..end, WRITTEN[r.below(WRITTEN.len())].bytes());
    }
}

/// One quoted text in place of another, or nothing.
fn quoted(r: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let find = |bytes: &[u8], at: usize| {
        let start = at + bytes[at..].iter().position(|byte| *byte == b'"')? + 1;
        let end = start + bytes[start..].iter().position(|byte| *byte == b'"')?;
        Some((start, end))
    };
    let Some((start, end)) = find(bytes, at) else { return };
    let other = find(bytes, r.below(bytes.len())).map(|(start, end)| bytes[start..end].to_vec());
    bytes.splice(start..end, other.filter(|_| r.below(4) != 0).unwrap_or_default());
}

/// A stretch from a bracket to its partner is gone, doubled, or nested in itself.
fn bracketed(r: &mut Random, bytes: &mut Vec<u8>, at: usize, most: usize) {
    let open = |byte: u8| matches!(byte, b'{' | b'[' | b'(');
    let Some(start) = bytes[at..].iter().position(|byte| open(*byte)).map(|n| at + n) else { return };
    let (mut depth, mut end) = (0_usize, bytes.len());
    for (i, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            byte if open(*byte) => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            end = i + 1;
            break;
        }
    }
    let part = bytes[start..end].to_vec();
    match r.below(4) {
        0 => drop(bytes.drain(start..end)),
        1 => put(bytes, start, &part),
        2 if part.len() > 1 => {
            let count = (1 << r.below(12)).min(most / 2);
            let inner = [vec![part[0]; count], part.clone(), vec![part[part.len() - 1]; count]].concat();
            bytes.splice(start..end, inner);
        }
        _ => drop(bytes.splice(start..end, *b"null")),
    }
}

/// A line is gone, or stands somewhere else too.
fn line(r: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let Some((start, end)) = stretch(bytes, at, |byte| byte != b'\n') else { return };
    let end = (end + 1).min(bytes.len());
    if r.below(2) == 0 {
        bytes.drain(start..end);
    } else {
        let copy = bytes[start..end].to_vec();
        put(bytes, r.below(bytes.len() + 1), &copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn changes_are_many_bounded_and_the_same_from_a_seed() {
        let input = b"{\"a\": [1, 22, {\"b\": \"text\"}], \"c\": null}\nline two\n".to_vec();
        let run = |seed: &str, most: usize| {
            let (mut r, mut bytes) = (Random::new(seed), Vec::new());
            let mut changed = |_| {
                mutate(&mut r, &input, std::slice::from_ref(&input), most, &mut bytes);
                bytes.clone()
            };
            (0..5000).map(&mut changed).collect::<Vec<_>>()
        };
        let made = run("a", LONGEST);
        assert_eq!(made, run("a", LONGEST));
        assert!(made.iter().all(|bytes| bytes.len() <= LONGEST) && made.iter().any(|bytes| bytes.len() > 4096));
        assert!(run("a", 100).iter().all(|bytes| bytes.len() <= 100));
        assert!(made.iter().collect::<HashSet<_>>().len() > 2500, "most are new");
        assert!(made.iter().any(|bytes| bytes.windows(19).any(|w| w == b"9223372036854775807")), "numbers are written");
        let (mut r, mut empty) = (Random::new("b"), Vec::new());
        for _ in 0..200 {
            let input = empty.clone();
            mutate(&mut r, &input, &[], LONGEST, &mut empty);
        }
    }
}
