//! UTF-8-safe streaming: one token may end in the middle of a character.

use super::Tokenizer;

/// Turns token bytes into text while they arrive. Bytes that may still become a character are held back; bytes that
/// cannot any more become U+FFFD, one per maximal ill-formed part, exactly as [`String::from_utf8_lossy`] does over
/// the whole: any chunking gives the same text.
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    held: Vec<u8>,
    strip_space: bool,
}

impl StreamDecoder {
    /// For text that continues a prompt (the usual case in generation): nothing is stripped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For ids that start a text: the prefix space that `tokenizer` adds is taken off, as [`Tokenizer::decode`] does.
    #[must_use]
    pub fn at_text_start(tokenizer: &dyn Tokenizer) -> Self {
        Self { held: Vec::new(), strip_space: tokenizer.adds_prefix_space() }
    }

    /// Takes bytes, gives the text that is certain now (possibly empty).
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let bytes = match bytes.split_first() {
            None => return String::new(),
            Some((b' ', rest)) if self.strip_space => rest,
            Some(_) => bytes,
        };
        self.strip_space = false;
        self.held.extend_from_slice(bytes);
        let keep = incomplete_tail(&self.held);
        let ready = self.held.len() - keep;
        let text = String::from_utf8_lossy(&self.held[..ready]).into_owned();
        self.held.drain(..ready);
        text
    }

    /// [`StreamDecoder::push`] for one token; control tokens give nothing.
    pub fn push_token(&mut self, tokenizer: &dyn Tokenizer, id: u32) -> String {
        match tokenizer.token_bytes(id, false) {
            Some(bytes) => self.push(&bytes),
            None => String::new(),
        }
    }

    /// The end of the stream: an incomplete character becomes U+FFFD. The decoder can be used again after it.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&held).into_owned()
    }

    /// Bytes held back (0..=3).
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// Length of the tail that is a proper beginning of a character (0..=3).
fn incomplete_tail(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for start in (from..bytes.len()).rev() {
        if bytes[start] & 0xC0 != 0x80 {
            // The error of a proper prefix has no length: more bytes might complete it.
            return match std::str::from_utf8(&bytes[start..]) {
                Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() => bytes.len() - start,
                _ => 0,
            };
        }
    }
    0
}
