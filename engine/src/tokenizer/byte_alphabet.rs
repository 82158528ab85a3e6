//! GPT-2's alphabet: every byte is written as one printable character, so that a vocabulary is a list of strings.
//!
//! Printable Latin-1 stands for itself (`!`..`~`, `¡`..`¬`, `®`..`ÿ`); the other 68 bytes, in ascending order, are
//! U+0100, U+0101, ... (a space is `Ġ`). Source: `bytes_to_unicode` of OpenAI's GPT-2 `encoder.py`.

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const CHARS: [char; 256] = {
    let mut out = ['\0'; 256];
    let (mut byte, mut next) = (0usize, 0u8);
    while byte < 256 {
        if stands_for_itself(byte as u8) {
            out[byte] = byte as u8 as char;
        } else {
            // 68 such bytes: U+0100 + 0..68 are all valid characters.
            out[byte] = match char::from_u32(0x100 + next as u32) {
                Some(c) => c,
                None => '\0',
            };
            next += 1;
        }
        byte += 1;
    }
    out
};

/// U+0000..U+0144 back to bytes; `u16::MAX` where no byte is written so.
const BYTES: [u16; 0x144] = {
    let mut out = [u16::MAX; 0x144];
    let mut byte = 0;
    while byte < 256 {
        out[CHARS[byte] as usize] = byte as u16;
        byte += 1;
    }
    out
};

/// The character that stands for `byte`.
#[must_use]
pub fn to_char(byte: u8) -> char {
    CHARS[byte as usize]
}

/// The byte that `c` stands for.
#[must_use]
pub fn to_byte(c: char) -> Option<u8> {
    BYTES.get(c as usize).and_then(|&b| u8::try_from(b).ok())
}

/// Text in the alphabet back to the bytes it stands for; `None` if it is not UTF-8 or has a character outside it.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    decode_into(text, &mut out).then_some(out)
}

/// The same at the end of `out`; `false` where that cannot be, and `out` may then have some of it.
pub(super) fn decode_into(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    text.chars().all(|c| match to_byte(c) {
        Some(byte) => {
            out.push(byte);
            true
        }
        None => false,
    })
}

/// Bytes written in the alphabet.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| to_char(b)).collect()
}
