//! Texts as the device has them: one behind the other, each from a multiple of [`STRETCH`] on.

use super::{MAX_BYTES, STRETCH};

/// Texts on their way to the device: they are copied from where they are to where it fetches them.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    texts: Vec<&'a [u8]>,
    /// First stretch and bytes of each.
    parts: Vec<u32>,
    /// With what lies between them.
    bytes: usize,
}

impl<'a> Batch<'a> {
    /// Adds a text; `false` if it is empty or there is no room for it ([`MAX_BYTES`]), and then it is not added.
    pub fn push(&mut self, part: &'a [u8]) -> bool {
        if part.is_empty() || part.len() > MAX_BYTES - self.bytes {
            return false;
        }
        // Both are below MAX_BYTES.
        self.parts.extend([(self.bytes / STRETCH) as u32, part.len() as u32]);
        self.texts.push(part);
        self.bytes += part.len().next_multiple_of(STRETCH);
        true
    }

    /// Texts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes on the device, with what lies between the texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all of them and keeps the memory.
    pub fn clear(&mut self) {
        self.texts.clear();
        self.parts.clear();
        self.bytes = 0;
    }

    /// First stretch and bytes of each text.
    pub(super) fn parts(&self) -> &[u32] {
        &self.parts
    }

    /// All bytes in parts, as they come: the texts with zeros between and behind them.
    pub(super) fn layout(&self) -> impl FnMut(&mut [u8]) {
        let mut texts = self.texts.iter();
        // What is left of the text that was begun, and of the zeros behind it.
        let (mut text, mut zeros): (&[u8], usize) = (&[], 0);
        move |mut part: &mut [u8]| {
            while !part.is_empty() {
                if text.is_empty() && zeros == 0 {
                    let Some(next) = texts.next() else { return part.fill(0) };
                    (text, zeros) = (next, next.len().next_multiple_of(STRETCH) - next.len());
                }
                let (now, later) = text.split_at(text.len().min(part.len()));
                let (to, rest) = part.split_at_mut(now.len());
                to.copy_from_slice(now);
                text = later;
                let (to, rest) = rest.split_at_mut(if text.is_empty() { zeros.min(rest.len()) } else { 0 });
                to.fill(0);
                zeros -= to.len();
                part = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_laid_out_in_parts_of_any_length() {
        let text: Vec<u8> = (1..=200).collect();
        let mut batch = Batch::default();
        for n in [200, 0, 1, 64, 63, 128, 65] {
            assert_eq!(batch.push(&text[..n]), n > 0);
        }
        assert_eq!(batch.parts(), [0, 200, 4, 1, 5, 64, 6, 63, 7, 128, 9, 65]);
        assert_eq!((batch.len(), batch.bytes()), (6, 11 * 64));
        let mut want = vec![0; batch.bytes() + 16];
        for part in batch.parts().chunks_exact(2) {
            let (from, n) = (64 * part[0] as usize, part[1] as usize);
            want[from..from + n].copy_from_slice(&text[..n]);
        }
        for length in [1, 7, 64, 100, 256, 1000] {
            let mut out = vec![255; want.len()];
            let mut fill = batch.layout();
            out.chunks_mut(length).for_each(&mut fill);
            assert_eq!(out, want, "parts of {length} bytes");
        }
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0 && batch.push(b"a") && batch.parts() == [0, 1]);
        let mut out = [255; 3];
        batch.layout()(&mut out);
        assert_eq!(out, [b'a', 0, 0]);
    }
}
