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
    /// Which are from `first` to `last`, neither ASCII.
    fn beyond(self, first: u8, last: u8) -> u64;
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
    let high = lanes.high();
    let (mut tails, mut twos, mut threes) = (0, 0, 0);
    if high != 0 {
        tails = lanes.beyond(0x80, 0xBF);
        twos = lanes.beyond(0xC4, 0xCA) | lanes.beyond(0xD0, 0xD1) | lanes.beyond(0xD3, 0xD3);
        let but = lanes.beyond(0xB7, 0xB7) >> 1;
        threes = lanes.beyond(0xE4, 0xE4) & !but | lanes.beyond(0xE5, 0xE9) | lanes.beyond(0xEB, 0xEC);
    }
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
        high,
        tails,
        twos,
        threes,
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

/// As [`super::TextSet::places`]: eight at a time whether they are there or not, which spares most branches.
pub(super) fn places(words: &[u64], out: &mut Vec<u32>) {
    const STEP: usize = 8;
    out.clear();
    out.reserve(words.len() * BLOCK);
    let (room, mut len) = (out.spare_capacity_mut(), 0);
    for (&word, base) in words.iter().zip((0..).step_by(BLOCK)) {
        let (mut bits, count) = (word, word.count_ones() as usize);
        // As many as were reserved for each of the words.
        let Some(room) = room.get_mut(len..len + BLOCK) else { break };
        for eight in room.chunks_exact_mut(STEP).take(count.div_ceil(STEP)) {
            for place in eight {
                place.write(base + bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
            }
        }
        len += count;
    }
    // SAFETY: so many were written, each word's in front of the next one's.
    unsafe { out.set_len(len) };
}
