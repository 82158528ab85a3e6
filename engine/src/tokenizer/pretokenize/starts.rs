//! Where pieces start, worked out for 64 bytes at once: the expressions of the rules as sums of masks.
//!
//! A match depends on the text behind its start only, so any start of a piece is a place to begin. What the expressions let a piece
//! take depends on runs of characters of one kind, and the masks know where these start and end: `a & !before(a)` are the
//! starts of runs, and a sum carries a bit from the start of a run to its end. What is rare (long numbers, spaces in front of
//! the break of a line) is done run by run.

use super::super::unicode::{NUMBER, class_at};
use super::blocks::Block;
use super::contraction;
use bitnet_kernels::text::BLOCK;

/// The end of the piece that starts at a place.
pub(super) type Scanner = fn(&[u8], usize) -> usize;

/// A stretch of text and its masks.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// All of the text.
    pub(super) text: &'a [u8],
    /// Where the stretch starts in it.
    pub(super) from: usize,
    /// Bytes of the stretch.
    pub(super) len: usize,
    /// Its blocks, and an empty one.
    pub(super) blocks: &'a [Block],
    /// Whether there are numbers beyond ASCII.
    pub(super) wide_numbers: bool,
}

/// How a rule treats numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// `\p{N}`
    Single,
    /// `\p{N}{1,3}`
    Threes,
}

/// What is cut out of numbers behind [`Stretch::punctuation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    /// `[0-9]`
    Single,
    /// `[0-9][0-9][0-9]`
    Threes,
    /// `\p{N}+`, then `[0-9][0-9][0-9]`; and the backquote is not punctuation.
    ApartInThrees,
}

/// The bits of `bits`, by place.
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (bits != 0).then(|| {
            let at = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            at
        })
    })
}

/// `mask` one byte on; `before` is the same mask of the block before.
#[inline(always)]
fn after(mask: u64, before: u64) -> u64 {
    mask << 1 | before >> 63
}

/// From every bit of `starts` to the end of the run in `run` that starts there: the first place behind. `carry` goes from block to block.
#[inline(always)]
fn ends(starts: u64, run: u64, carry: &mut bool) -> u64 {
    let (sum, over) = starts.overflowing_add(run);
    let (sum, again) = sum.overflowing_add(u64::from(*carry));
    *carry = over | again;
    sum & !run
}

/// Moves the bits of `last`, the last bytes of characters, to their first bytes, which may be in the block before.
#[cold]
fn first_bytes(blocks: &[Block], at: usize, last: u64, starts: &mut [u64]) -> u64 {
    let mut moved = last & !blocks[at].tail;
    for place in places(last & blocks[at].tail) {
        let (mut block, mut place) = (at, place);
        while blocks[block].tail >> place & 1 != 0 {
            (block, place) = if place == 0 { (block - 1, BLOCK - 1) } else { (block, place - 1) };
        }
        match block == at {
            true => moved |= 1 << place,
            false => starts[block] |= 1 << place,
        }
    }
    moved
}

/// Sets or clears the start at a place of the stretch, if it is inside.
fn set(starts: &mut [u64], place: usize, is: bool) {
    if let Some(word) = starts.get_mut(place / BLOCK) {
        let bit = 1 << (place % BLOCK);
        *word = if is { *word | bit } else { *word & !bit };
    }
}

impl Stretch<'_> {
    /// Starts in a number that starts at `place`, every three characters.
    fn threes(&self, place: usize, starts: &mut [u64]) {
        let mut at = self.from + place;
        let end = self.from + self.len;
        for count in 0.. {
            if at >= end {
                return;
            }
            let (class, len) = class_at(self.text, at);
            if class & NUMBER == 0 {
                return;
            }
            if count % 3 == 0 {
                set(starts, at - self.from, true);
            }
            at += len;
        }
    }

    /// Whether byte `place` of the stretch is in a mask.
    fn is(&self, place: usize, mask: impl Fn(&Block) -> u64) -> bool {
        mask(&self.blocks[place / BLOCK]) >> (place % BLOCK) & 1 != 0
    }

    /// A break of a line behind spaces, at `place`: they are part of its piece, if they are behind a break themselves.
    #[cold]
    fn spaces_before_break(&self, place: usize, starts: &mut [u64]) {
        let mut first = place;
        while first > 0 && self.is(first - 1, Block::gap) {
            first -= 1;
        }
        let mut from = first;
        while from > 0 && self.is(from - 1, |b| b.breaks) {
            from -= 1;
        }
        // Breaks behind symbols are part of their piece.
        if from < first && !(from > 0 && self.is(from - 1, |b| b.other)) {
            set(starts, first, false);
        }
    }

    /// The rules of words by case, whose pieces `scan` gives one by one: [`Stretch::llama`], but that a capital behind a small letter starts
    /// a word, that `[\r\n/]*` is behind symbols, and contractions are behind words if `contractions`. Where these are met, and in a
    /// stretch with letters that have no case, the scanner says where pieces start.
    pub(super) fn cased(&self, numbers: Numbers, contractions: bool, scan: Scanner, starts: &mut [u64]) {
        if self.blocks.iter().any(|b| b.word & !(b.upper | b.lower) != 0) {
            let mut at = 0;
            while at < self.len {
                at = scan(self.text, self.from + at) - self.from;
                if at < self.len {
                    set(starts, at, true);
                }
            }
            return;
        }
        let mut odd = Vec::new();
        self.words::<true>(numbers, starts, &mut |place, quote| {
            if !quote || (contractions && contraction(self.text, self.from + place) > 0) {
                odd.push(place);
            }
        });
        odd.sort_unstable();
        let mut done = 0;
        for place in odd {
            if place >= done {
                done = self.again(place, scan, starts);
            }
        }
    }

    /// Puts the starts right from that in front of `place` on, up to where what is in front does not matter; gives that place.
    fn again(&self, place: usize, scan: Scanner, starts: &mut [u64]) -> usize {
        let mut at = place.saturating_sub(1);
        while at > 0 && starts[at / BLOCK] >> (at % BLOCK) & 1 == 0 {
            at -= 1;
        }
        while at < self.len {
            let end = (scan(self.text, self.from + at) - self.from).min(self.len);
            for inside in at + 1..end {
                set(starts, inside, false);
            }
            at = end;
            if at < self.len {
                set(starts, at, true);
                if at > place && !self.is(at - 1, |b| b.other) && !self.is(at, |b| b.other) {
                    break;
                }
            }
        }
        at
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where
    /// letters are what words are made of.
    #[inline(always)]
    pub(super) fn llama(&self, numbers: Numbers, starts: &mut [u64]) {
        self.words::<false>(numbers, starts, &mut |_, _| {});
    }

    /// Both; `odd` gets the places of what [`Stretch::cased`] has to look at, and whether it is an apostrophe.
    #[inline(always)]
    fn words<const CASED: bool>(&self, numbers: Numbers, starts: &mut [u64], odd: &mut impl FnMut(usize, bool)) {
        let mut before = Block::default();
        let (mut symbol_before, mut in_first, mut in_breaks, mut thirds) = (0, false, false, 0u64);
        for (at, pair) in self.blocks.windows(2).enumerate() {
            let [b, next] = pair else { return };
            // A space that is not a break and is followed by no space starts a piece, and a word goes with it.
            let gap = b.gap();
            let after_gap = after(gap, before.gap());
            let mut last = gap & (b.ink() >> 1 | next.ink() << 63);
            if last & b.tail != 0 {
                last = first_bytes(self.blocks, at, last, starts);
            }
            // Symbols start a piece, or go with the blank in front. A word goes with a symbol that starts a piece alone.
            let after_other = after(b.other, before.other);
            let symbol = b.other & !after_other & !after(b.blank, before.blank);
            let first = ends(after(symbol, symbol_before), b.tail, &mut in_first);
            let mut word = b.word & !after(b.word, before.word) & !after_gap & !first;
            if CASED {
                word |= b.upper & after(b.lower, before.lower);
            }
            let number = match numbers {
                Numbers::Single => b.number & !b.tail,
                Numbers::Threes => b.number & !after(b.number, before.number),
            };
            // Breaks behind symbols go with them; what follows starts a piece.
            let with_symbol = b.breaks & after_other;
            let behind = ends(with_symbol, b.breaks, &mut in_breaks);
            let space = b.space & !after(b.space, before.space) & !with_symbol;
            let after_breaks = gap & (after(b.breaks, before.breaks) | behind);
            starts[at] |= last | symbol | word | number | space | after_breaks;
            for place in places(b.breaks & after_gap) {
                self.spaces_before_break(at * BLOCK + place, starts);
            }
            if numbers == Numbers::Threes && self.wide_numbers {
                let ahead = |n| b.number >> n | next.number << (64 - n);
                for place in places(number & ahead(1) & ahead(2) & ahead(3)) {
                    self.threes(at * BLOCK + place, starts);
                }
            } else if numbers == Numbers::Threes {
                let run = b.number & after(b.number, before.number) & (b.number << 2 | before.number >> 62);
                // Three places behind a start, with numbers up to there.
                let mut third = (number << 3 | thirds >> (BLOCK - 3)) & run;
                thirds = number;
                while third != 0 {
                    thirds |= third;
                    third = third << 3 & run;
                }
                starts[at] |= thirds;
            }
            if CASED {
                places(behind & b.slash).for_each(|place| odd(at * BLOCK + place, false));
                places(b.quote & after(b.word, before.word)).for_each(|place| odd(at * BLOCK + place, true));
                (before, symbol_before) = (*b, symbol);
                continue;
            }
            for place in places(symbol & b.quote & (b.word >> 1 | next.word << 63)) {
                let place = at * BLOCK + place;
                let len = contraction(self.text, self.from + place);
                if len > 0 && place + len < self.len {
                    set(starts, place + len, true);
                }
            }
            (before, symbol_before) = (*b, symbol);
        }
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`; or, if numbers are `APART`, between them, which
    /// are one character each.
    #[inline(always)]
    pub(super) fn gpt2<const APART: bool>(&self, starts: &mut [u64]) {
        let mut before = Block::default();
        let mut short_before = 0;
        for (at, pair) in self.blocks.windows(2).enumerate() {
            let [b, next] = pair else { return };
            let after_blank = after(b.blank, before.blank);
            // The last space of a run starts a piece, unless the text ends there.
            let follows = |b: &Block| if APART { b.word | b.other } else { b.ink() };
            let mut last = b.space & (follows(b) >> 1 | follows(next) << 63);
            if last & b.tail != 0 {
                last = first_bytes(self.blocks, at, last, starts);
            }
            let number =
                if APART { b.number & !b.tail } else { b.number & !after(b.number, before.number) & !after_blank };
            let word = b.word & !after(b.word, before.word);
            let other = b.other & !after(b.other, before.other) & !after_blank;
            let mut short = 0;
            for place in places(other & b.quote & (b.word >> 1 | next.word << 63)) {
                let from = at * BLOCK + place;
                let len = match &self.text[self.from + from + 1..] {
                    [b's' | b't' | b'm' | b'd', ..] => 2,
                    [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => 3,
                    _ => continue,
                };
                short |= 1 << place;
                if from + len < self.len {
                    set(starts, from + len, true);
                }
            }
            let word = word & !after_blank & !after(short, short_before);
            starts[at] |= last | number | word | other | b.space & !after(b.space, before.space);
            (before, short_before) = (*b, short);
        }
    }

    /// Runs of punctuation apart, then [`Stretch::gpt2`] between, then numbers as `digits` says.
    #[inline(always)]
    pub(super) fn punctuation(&self, digits: Digits, starts: &mut [u64]) {
        let hit = |b: &Block| if digits == Digits::ApartInThrees { b.punct & !b.grave } else { b.punct };
        let mut before = Block::default();
        for (at, pair) in self.blocks.windows(2).enumerate() {
            let [b, next] = pair else { return };
            let after_blank = after(b.blank, before.blank);
            let (cut, cut_before) = (hit(b), hit(&before));
            let (other, other_before) = (b.other & !cut, before.other & !cut_before);
            let follows = |b: &Block| b.ink() & !hit(b);
            let mut last = b.space & (follows(b) >> 1 | follows(next) << 63);
            if last & b.tail != 0 {
                last = first_bytes(self.blocks, at, last, starts);
            }
            let number = b.number & !after(b.number, before.number);
            let runs = b.word & !after(b.word, before.word) | other & !after(other, other_before);
            let apart = if digits == Digits::ApartInThrees { number } else { number & !after_blank };
            let spaces = b.space & !after(b.space, before.space);
            starts[at] |= last | runs & !after_blank | apart | spaces | cut & !after(cut, cut_before);
            let width = if digits == Digits::Single { 1 } else { 3 };
            let ahead = |n| b.number >> n | next.number << (64 - n);
            let some = if width == 1 { number } else { number & ahead(1) & ahead(2) };
            for place in places(some) {
                self.digits(at * BLOCK + place, width, starts);
            }
            before = *b;
        }
    }

    /// Groups of `width` ASCII digits of a number that starts at `place` are pieces.
    fn digits(&self, place: usize, width: usize, starts: &mut [u64]) {
        let mut at = self.from + place;
        let end = self.from + self.len;
        while at < end {
            match self.text.get(at..at + width) {
                Some(group) if group.iter().all(u8::is_ascii_digit) => {
                    set(starts, at - self.from, true);
                    at += width;
                    if at < end {
                        set(starts, at - self.from, true);
                    }
                }
                _ => match class_at(self.text, at) {
                    (class, len) if class & NUMBER != 0 => at += len,
                    _ => return,
                },
            }
        }
    }
}
