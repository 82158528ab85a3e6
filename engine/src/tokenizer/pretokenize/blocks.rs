//! A stretch of text as bit masks, 64 bytes each: what every byte's character is. ASCII is told apart 64 bytes at a time
//! ([`bitnet_kernels::text`]), the rest character by character, into the same masks.

use super::super::unicode::{LOWER, NUMBER, PUNCT, SPACE, UPPER, class_at};
use bitnet_kernels::text::{BLOCK, Masks, TextSet};

/// The characters of 64 bytes: bit i is byte i, and all bytes of a character have its bit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Block {
    /// What words are made of.
    pub(super) word: u64,
    /// `[\p{Lu}\p{Lt}]`.
    pub(super) upper: u64,
    /// `\p{Ll}`.
    pub(super) lower: u64,
    /// `\p{N}`.
    pub(super) number: u64,
    /// `\s`.
    pub(super) space: u64,
    /// None of the three. Every byte of the text is in one of the four.
    pub(super) other: u64,
    /// `[\r\n]`.
    pub(super) breaks: u64,
    /// The space alone.
    pub(super) blank: u64,
    /// The apostrophe.
    pub(super) quote: u64,
    /// All bytes of a character but its first.
    pub(super) tail: u64,
    /// `\p{P}` beyond ASCII, and ASCII that is printed, but neither letter nor digit.
    pub(super) punct: u64,
    /// The backquote.
    pub(super) grave: u64,
    /// `/`.
    pub(super) slash: u64,
    /// From 0x80 on, and not told apart yet.
    high: u64,
}

impl Block {
    /// `\s` but `[\r\n]`.
    #[inline(always)]
    pub(super) fn gap(&self) -> u64 {
        self.space & !self.breaks
    }

    /// `\S`.
    #[inline(always)]
    pub(super) fn ink(&self) -> u64 {
        self.word | self.number | self.other
    }
}

/// Bytes that are told apart at once: their masks stay near.
const CHUNK: usize = 4096;

/// Letters that their first byte gives away, whatever the others are, with all of their bytes in the block: most of those of Latin beyond
/// ASCII, Cyrillic, Chinese and Hangul. Gives all of their bytes, and those that are not first ones.
#[inline(always)]
fn letters(m: &Masks) -> (u64, u64) {
    let (second, third) = (m.tails >> 1, m.tails >> 2);
    let (twos, threes) = (m.twos & second, m.threes & second & third);
    let tails = (twos | threes) << 1 | threes << 2;
    (twos | threes | tails, tails)
}

/// Reads `text[from..to]` into `blocks`, with an empty block behind. `words` are the properties of what words are made of. With `cases`,
/// letters beyond ASCII are in the masks of cases. Gives whether there are numbers beyond ASCII.
#[inline(always)]
pub(super) fn read(
    set: &TextSet,
    (text, from, to): (&[u8], usize, usize),
    (words, cases): (u8, bool),
    masks: &mut Vec<Masks>,
    blocks: &mut Vec<Block>,
) -> bool {
    blocks.clear();
    let (mut high, mut over, mut numbers) = (0, 0, 0);
    for chunk in text[from..to].chunks(CHUNK) {
        set.classify(chunk, masks);
        blocks.extend(masks.iter().map(|m| {
            let (letters, tail) = if cases { (0, 0) } else { letters(m) };
            high |= m.high & !letters;
            Block {
                word: m.upper | m.lower | letters,
                upper: m.upper,
                lower: m.lower,
                number: m.digits,
                space: m.spaces,
                other: !(m.upper | m.lower | m.digits | m.spaces | letters),
                breaks: m.breaks,
                blank: m.blanks,
                quote: m.quotes,
                tail,
                punct: m.symbols,
                grave: m.graves,
                slash: m.slashes,
                high: m.high & !letters,
            }
        }));
    }
    let count = blocks.len();
    blocks.push(Block::default());
    if high != 0 {
        for at in 0..count {
            over = characters(text, from + at * BLOCK, words, blocks, at, over);
            numbers |= blocks[at].number & blocks[at].high;
        }
    }
    let rest = (to - from) % BLOCK;
    if rest != 0 {
        blocks[count - 1].other &= (1 << rest) - 1;
    }
    // A character may reach beyond the end.
    blocks[count] = Block::default();
    numbers != 0
}

/// Puts the characters beyond ASCII of a block into the masks; `skip` bytes belong to the last one of the block before. Gives how many
/// bytes of the next block belong to the last one here.
#[inline]
fn characters(text: &[u8], from: usize, words: u8, blocks: &mut [Block], index: usize, skip: usize) -> usize {
    let high = blocks[index].high;
    let mut left = high & (!0 << skip);
    if left == 0 {
        return 0;
    }
    let (mut word, mut upper, mut lower, mut number, mut space, mut punct, mut tail) = (0, 0, 0, 0, 0, 0, 0);
    let mut end = 0;
    while left != 0 {
        let at = left.trailing_zeros() as usize;
        let (class, len) = class_at(text, from + at);
        end = at + len;
        let bytes = ((1 << len) - 1) << at;
        let has = |property: u8| if class & property != 0 { bytes } else { 0 };
        word |= has(words);
        upper |= has(UPPER);
        lower |= has(LOWER);
        number |= has(NUMBER);
        space |= has(SPACE);
        punct |= has(PUNCT);
        tail |= bytes & (bytes - 1);
        left &= !bytes;
        if end > BLOCK {
            break;
        }
    }
    let over = end.saturating_sub(BLOCK);
    let block = &mut blocks[index];
    block.word |= word;
    block.upper |= upper;
    block.lower |= lower;
    block.number |= number;
    block.space |= space;
    block.punct |= punct;
    block.tail |= tail;
    block.other &= !(word | number | space);
    if over > 0
        && let [last, next, ..] = &mut blocks[index..]
    {
        // Its last byte here says what it is.
        let bytes = (1 << over) - 1;
        let spill = |has: u64| if has >> 63 != 0 { bytes } else { 0 };
        next.word |= spill(last.word);
        next.upper |= spill(last.upper);
        next.lower |= spill(last.lower);
        next.number |= spill(last.number);
        next.space |= spill(last.space);
        next.punct |= spill(last.punct);
        next.other &= !(next.word & bytes | next.number & bytes | next.space & bytes);
        next.tail |= bytes;
    }
    over
}
