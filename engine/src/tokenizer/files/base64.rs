//! Standard base64 (RFC 4648, section 4), as tiktoken's rank files have it.

/// A line `base64 SPACE number` at its last space.
pub(super) fn split_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = line.iter().rposition(|&b| b == b' ')?;
    Some((&line[..space], &line[space + 1..]))
}

fn value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// The bytes; `None` for anything but whole, padded groups with zero bits at the end.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in body.chunks(4) {
        let bits = group.iter().try_fold(0u32, |bits, &b| Some(bits << 6 | value(b)?))?;
        match group.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 if bits & 3 == 0 => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            2 if bits & 15 == 0 => out.push((bits >> 4) as u8),
            _ => return None,
        }
    }
    Some(out)
}
