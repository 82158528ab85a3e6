//! Frames: `u32` header length, `u64` body length (both little-endian), header, body.
//!
//! Both lengths have a limit, and memory grows with what arrives, not with what is announced: a program that writes
//! text where a frame is due is an error after 12 bytes, not an allocation of gigabytes.

use std::io::{ErrorKind, Read, Write};

/// Longest header.
pub const MAX_HEADER: u32 = 16 << 20;
/// Longest body: logits of 4096 positions of a vocabulary of 128 Ki fit.
pub const MAX_BODY: u64 = 4 << 30;

/// One frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// JSON.
    pub header: Vec<u8>,
    /// Little-endian values, or text.
    pub body: Vec<u8>,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames.
    #[error("the stream ended")]
    Ended,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame: {got} of {want} bytes of its {part}")]
    Cut {
        /// `lengths`, `header` or `body`.
        part: &'static str,
        /// Bytes that came.
        got: u64,
        /// Bytes that should have come.
        want: u64,
    },
    /// A length over its limit: in most cases not a frame at all.
    #[error("a {part} of {length} bytes (limit {limit}); the frame begins with {start}")]
    TooLong {
        /// `header` or `body`.
        part: &'static str,
        /// Announced.
        length: u64,
        /// Allowed.
        limit: u64,
        /// The first 12 bytes, as text.
        start: String,
    },
    /// Reading failed.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads a frame.
///
/// # Errors
/// See [`FrameError`].
pub fn read(from: &mut impl Read) -> Result<Frame, FrameError> {
    let mut lengths = Vec::with_capacity(12);
    match part(from, &mut lengths, "lengths", 12) {
        Err(FrameError::Cut { got: 0, .. }) => return Err(FrameError::Ended),
        other => other?,
    }
    let header = lengths.iter().take(4).rev().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let body = lengths.iter().skip(4).rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    for (part, length, limit) in [("header", u64::from(header), u64::from(MAX_HEADER)), ("body", body, MAX_BODY)] {
        if length > limit {
            let start = lengths.escape_ascii().to_string();
            return Err(FrameError::TooLong { part, length, limit, start });
        }
    }
    let mut frame = Frame::default();
    part(from, &mut frame.header, "header", u64::from(header))?;
    part(from, &mut frame.body, "body", body)?;
    Ok(frame)
}

fn part(from: &mut impl Read, into: &mut Vec<u8>, part: &'static str, want: u64) -> Result<(), FrameError> {
    let got = from.by_ref().take(want).read_to_end(into)? as u64;
    if got < want { Err(FrameError::Cut { part, got, want }) } else { Ok(()) }
}

/// A frame's bytes.
///
/// # Errors
/// A header or body over its limit.
pub fn encode(header: &[u8], body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(12 + header.len() + body.len());
    bytes.extend(lengths(header.len() as u64, body.len() as u64)?);
    bytes.extend(header);
    bytes.extend(body);
    Ok(bytes)
}

/// What a frame of these lengths begins with.
fn lengths(header: u64, body: u64) -> std::io::Result<[u8; 12]> {
    for (part, length, limit) in [("header", header, u64::from(MAX_HEADER)), ("body", body, MAX_BODY)] {
        if length > limit {
            let why = format!("the {part} is too long for a frame");
            return Err(std::io::Error::new(ErrorKind::InvalidInput, why));
        }
    }
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(header as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&body.to_le_bytes());
    Ok(bytes)
}

/// Writes a frame and flushes.
///
/// # Errors
/// A part over its limit, or writing failed.
pub fn write(to: &mut impl Write, header: &[u8], body: &[u8]) -> std::io::Result<()> {
    to.write_all(&encode(header, body)?)?;
    to.flush()
}

/// Values as a body.
#[must_use]
pub fn from_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Values as a body.
#[must_use]
pub fn from_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A body as values; `None` where its length is not a multiple of four.
#[must_use]
pub fn to_u32(body: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = body.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// A body as values; `None` where its length is not a multiple of four.
#[must_use]
pub fn to_f32(body: &[u8]) -> Option<Vec<f32>> {
    let (words, rest) = body.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let mut stream = Vec::new();
        write(&mut stream, b"{}", b"body").expect("a vector takes all");
        write(&mut stream, b"", b"").expect("a vector takes all");
        let mut from = stream.as_slice();
        assert_eq!(read(&mut from).expect("first"), Frame { header: b"{}".to_vec(), body: b"body".to_vec() });
        assert_eq!(read(&mut from).expect("second"), Frame::default());
        assert!(matches!(read(&mut from), Err(FrameError::Ended)));
    }

    #[test]
    fn a_cut_frame_says_where() {
        let whole = encode(b"head", b"body").expect("short");
        for (len, part) in [(3, "lengths"), (13, "header"), (18, "body")] {
            match read(&mut &whole[..len]) {
                Err(FrameError::Cut { part: found, .. }) => assert_eq!(found, part),
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn text_is_no_frame() {
        let error = read(&mut b"llama_model_loader: loaded".as_slice()).expect_err("text");
        assert!(error.to_string().contains("begins with llama_model_"), "{error}");
        let mut long = 0_u32.to_le_bytes().to_vec();
        long.extend((MAX_BODY + 1).to_le_bytes());
        assert!(matches!(read(&mut long.as_slice()), Err(FrameError::TooLong { part: "body", .. })));
    }

    #[test]
    fn a_frame_is_written_up_to_its_limits() {
        let header = u64::from(MAX_HEADER);
        let bytes = lengths(header, MAX_BODY).expect("the longest");
        assert!(matches!(read(&mut bytes.as_slice()), Err(FrameError::Cut { part: "header", got: 0, .. })));
        for (header, body, part) in [(header + 1, 0, "header"), (0, MAX_BODY + 1, "body"), (u64::MAX, 0, "header")] {
            let error = lengths(header, body).expect_err(part);
            assert!(error.to_string().contains(&format!("the {part} is too long")), "{error}");
        }
    }

    #[test]
    fn values_come_back() {
        assert_eq!(to_u32(&from_u32(&[1, u32::MAX])), Some(vec![1, u32::MAX]));
        assert_eq!(to_f32(&from_f32(&[1.5, -0.0])), Some(vec![1.5, -0.0]));
        assert_eq!(to_u32(&[0; 5]), None);
    }
}
