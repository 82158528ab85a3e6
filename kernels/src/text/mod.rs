//! Text in blocks of 64 bytes, as bit masks: which bytes are letters, digits, spaces... The tokenizers' first look at a text.
//!
//! The algorithm ([`classify`] of `lanes`) exists once; a file for each instruction set says how 64 bytes are loaded and compared
//! (`swar` in plain Rust, which any CPU runs and the others must equal; `avx2`, `avx512`, `neon`). Only ASCII is told apart
//! here: other bytes are in [`Masks::high`] (and in masks of ranges of bytes), and who knows Unicode's tables goes on from there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod swar;

use crate::Unavailable;
use std::cell::Cell;
use std::sync::OnceLock;

/// Bytes of a block.
pub const BLOCK: usize = 64;

/// What the bytes of a block are: bit i of a mask is byte i. Bytes behind the end of the text are in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Masks {
    /// `A` to `Z`.
    pub upper: u64,
    /// `a` to `z`.
    pub lower: u64,
    /// `0` to `9`.
    pub digits: u64,
    /// U+0009 to U+000D and the space.
    pub spaces: u64,
    /// Line feed and carriage return.
    pub breaks: u64,
    /// The space alone.
    pub blanks: u64,
    /// The apostrophe.
    pub quotes: u64,
    /// `/`.
    pub slashes: u64,
    /// The backquote.
    pub graves: u64,
    /// Printed, but neither letter nor digit.
    pub symbols: u64,
    /// From 0x80 on.
    pub high: u64,
    /// 0x80 to 0xBF: in UTF-8, all bytes of a character but its first.
    pub tails: u64,
    /// 0xC4 to 0xCA, 0xD0, 0xD1, 0xD3: first of two bytes that are a letter, whatever the second is.
    pub twos: u64,
    /// 0xE5 to 0xE9, 0xEB, 0xEC, and 0xE4 unless 0xB7 is behind: first of three bytes that are a letter, whatever the others are.
    pub threes: u64,
}

/// One way to make [`Masks`].
#[derive(Debug, Clone, Copy)]
pub struct TextSet {
    /// Stable name; those of [`crate::kernel_sets`] where the instructions are the same.
    pub name: &'static str,
    classify: fn(&[u8], &mut Vec<Masks>),
    places: fn(&[u64], &mut Vec<u32>),
    /// See [`TextSet::wide`].
    wide: bool,
}

impl TextSet {
    /// Whether the CPU has AVX2, BMI1, BMI2, LZCNT and POPCNT: what is compiled for these may be called where this set is used.
    #[must_use]
    pub fn wide(&self) -> bool {
        self.wide
    }

    /// The masks of all blocks of `text`, in order, in place of what `out` has. The last block may be short.
    pub fn classify(&self, text: &[u8], out: &mut Vec<Masks>) {
        (self.classify)(text, out);
    }

    /// Where bits are set, ascending, in place of what `out` has: bit i of word n is place 64 n + i.
    pub fn places(&self, words: &[u64], out: &mut Vec<u32>) {
        (self.places)(words, out);
    }
}

/// One line of the table of sets.
#[derive(Debug, Clone, Copy)]
pub struct TextSetInfo {
    /// As [`TextSet::name`].
    pub name: &'static str,
    /// The set, or why it cannot run here.
    pub detect: fn() -> Result<&'static TextSet, Unavailable>,
}

static SETS: &[TextSetInfo] = &[
    TextSetInfo { name: "scalar", detect: || Ok(&swar::SET) },
    TextSetInfo { name: "avx2", detect: avx2 },
    TextSetInfo { name: "avx512", detect: avx512 },
    TextSetInfo { name: "neon", detect: neon },
];

/// Every set, runnable here or not, the fastest last.
pub fn sets() -> &'static [TextSetInfo] {
    SETS
}

thread_local! {
    static WISHED: Cell<Option<&'static TextSet>> = const { Cell::new(None) };
}

/// The fastest set that can run here, or the one that this thread is to use ([`with`]).
pub fn best() -> &'static TextSet {
    static BEST: OnceLock<&'static TextSet> = OnceLock::new();
    let best = || *BEST.get_or_init(|| SETS.iter().rev().find_map(|set| (set.detect)().ok()).unwrap_or(&swar::SET));
    WISHED.get().unwrap_or_else(best)
}

/// Does something with a set that is not the fastest: for tests, which hold all of them to the same answers.
pub fn with<R>(set: &'static TextSet, run: impl FnOnce() -> R) -> R {
    struct Before(Option<&'static TextSet>);
    impl Drop for Before {
        fn drop(&mut self) {
            WISHED.set(self.0);
        }
    }
    let _before = Before(WISHED.replace(Some(set)));
    run()
}

/// Asks for the cache line of `at` before it is needed. Changes nothing but the time.
#[inline(always)]
pub fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch accesses nothing, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Result<&'static TextSet, Unavailable> {
    avx2::detect().map_err(|missing| lacks("avx2", missing))
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> Result<&'static TextSet, Unavailable> {
    avx512::detect().map_err(|missing| lacks("avx512", missing))
}

#[cfg(target_arch = "x86_64")]
fn lacks(name: &'static str, missing: &str) -> Unavailable {
    Unavailable { name, reason: format!("this CPU has no {missing}") }
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn neon() -> Result<&'static TextSet, Unavailable> {
    Ok(&neon::SET)
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Result<&'static TextSet, Unavailable> {
    Err(elsewhere("avx2", "x86_64"))
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Result<&'static TextSet, Unavailable> {
    Err(elsewhere("avx512", "x86_64"))
}

#[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
fn neon() -> Result<&'static TextSet, Unavailable> {
    Err(elsewhere("neon", "little-endian aarch64"))
}

fn elsewhere(name: &'static str, wanted: &str) -> Unavailable {
    Unavailable { name, reason: format!("this build is for {}, not {wanted}", std::env::consts::ARCH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The masks byte by byte, as their docs say.
    fn naive(text: &[u8]) -> Vec<Masks> {
        let block = |block: &[u8]| {
            let mask = |is: &dyn Fn(u8) -> bool| (0..).zip(block).map(|(i, b)| u64::from(is(*b)) << i).sum();
            let hexagrams: u64 =
                (0..).zip(block.windows(2)).map(|(i, pair)| u64::from(pair == [0xE4, 0xB7]) << i).sum();
            Masks {
                upper: mask(&|b| b.is_ascii_uppercase()),
                lower: mask(&|b| b.is_ascii_lowercase()),
                digits: mask(&|b| b.is_ascii_digit()),
                spaces: mask(&|b| b == b' ' || (9..=13).contains(&b)),
                breaks: mask(&|b| b == b'\n' || b == b'\r'),
                blanks: mask(&|b| b == b' '),
                quotes: mask(&|b| b == b'\''),
                slashes: mask(&|b| b == b'/'),
                graves: mask(&|b| b == b'`'),
                symbols: mask(&|b| b.is_ascii_punctuation()),
                high: mask(&|b| b >= 0x80),
                tails: mask(&|b| (0x80..=0xBF).contains(&b)),
                twos: mask(&|b| matches!(b, 0xC4..=0xCA | 0xD0 | 0xD1 | 0xD3)),
                threes: mask(&|b| matches!(b, 0xE4..=0xE9 | 0xEB | 0xEC)) & !hexagrams,
            }
        };
        text.chunks(BLOCK).map(block).collect()
    }

    #[test]
    fn every_set_makes_the_masks_that_the_docs_say() {
        // Every byte at every place of a block, and every length of a last block.
        let bytes: Vec<u8> = (0..64 * 256u32).map(|i| (i.wrapping_mul(37) ^ (i >> 8)) as u8).collect();
        let mut masks = vec![Masks { high: 1, ..Masks::default() }];
        let mut ran = 0;
        for set in sets() {
            match (set.detect)() {
                Ok(found) => {
                    ran += 1;
                    assert_eq!(found.name, set.name);
                    for shift in 0..BLOCK {
                        found.classify(&bytes[shift..], &mut masks);
                        assert_eq!(masks, naive(&bytes[shift..]), "{} from {shift}", set.name);
                        found.classify(&bytes[..shift], &mut masks);
                        assert_eq!(masks, naive(&bytes[..shift]), "{} of {shift} bytes", set.name);
                    }
                    for words in [&[][..], &[0], &[u64::MAX], &[1, 0, 1 << 63], &[u64::MAX, 0x8421, u64::MAX, 0, 3]] {
                        let all =
                            (0..64 * words.len() as u32).filter(|at| words[*at as usize / 64] >> (at % 64) & 1 != 0);
                        let mut places = vec![7];
                        found.places(words, &mut places);
                        assert_eq!(places, all.collect::<Vec<u32>>(), "{} {words:x?}", set.name);
                    }
                }
                Err(unavailable) => assert_eq!(unavailable.name, set.name),
            }
        }
        assert!(ran > 0 && sets().iter().any(|set| set.name == best().name));
        let fastest = best().name;
        assert_eq!(with(&swar::SET, || best().name), "scalar");
        assert_eq!(best().name, fastest);
    }
}
