//! The algorithm, for any way to compare 64 bytes at once.

use super::{BLOCK, Masks};

/// 64 bytes that can be compared.
pub(super) trait Lanes: Copy {
    /// Of a block.
    fn load(block: &[u8; BLOCK]) -> Self;
    /// Which are `byte`, which is ASCII.
    fn equal(self, byte: u8) -> u64;
    /// Which are from `first` to `last`, both ASCII.
    fn within(self, first: u8, last: u8) -> u64;
    /// Which have the top bit.
    fn high(self) -> u64;
}

#[inline(always)]
fn of<L: Lanes>(block: &[u8; BLOCK]) -> Masks {
    let lanes = L::load(block);
    let upper = lanes.within(b'A', b'Z');
    let lower = lanes.within(b'a', b'z');
    let digits = lanes.within(b'0', b'9');
    let blanks = lanes.equal(b' ');
    Masks {
        upper,
        lower,
        digits,
        spaces: blanks | lanes.within(b'\t', b'\r'),
        breaks: lanes.equal(b'\n') | lanes.equal(b'\r'),
        blanks,
        quotes: lanes.equal(b'\''),
        slashes: lanes.equal(b'/'),
        graves: lanes.equal(b'`'),
        symbols: lanes.within(b'!', b'~') & !(upper | lower | digits),
        high: lanes.high(),
    }
}

/// As [`super::TextSet::classify`].
#[inline(always)]
pub(super) fn classify<L: Lanes>(text: &[u8], out: &mut Vec<Masks>) {
    out.resize(text.len().div_ceil(BLOCK), Masks::default());
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    // A plain loop: what a closure does elsewhere is compiled without the instructions of the caller.
    for (masks, block) in out.iter_mut().zip(blocks) {
        *masks = of::<L>(block);
    }
    if let (false, Some(masks)) = (rest.is_empty(), out.last_mut()) {
        // Zeros are in no mask.
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        *masks = of::<L>(&last);
    }
}
