//! The form of a compiled tokenizer: a head, tables that lie as they are used, and small values.
//!
//! ```text
//! 0    magic, 8 bytes                 89 "BNTOK" 0D 0A: no text, and shows a file that was copied as text
//! 8    order of bytes, u32            0x0A0B0C0D as the machine writes it
//! 12   version, u32                   VERSION
//! 16   rules, u32                     a hash of the rules that the program knows by name
//! 20   number of sections, u32
//! 24   bytes of the file, u64
//! 32   checksum of the head, u64      with zeros in this place
//! 40   checksum of all behind it, u64
//! 48   key, 16 bytes                  what it was made of
//! 64   sections: offset u64, bytes u64 for each, zeros up to 1024
//! 1024 sections, each at a multiple of 64: tables; the last one has the small values
//! ```
//!
//! Numbers are in the machine's order: a file of another order is refused, not turned round. The small values stand one behind the
//! other, 4 bytes a number, as the code of each table writes and reads them.

use super::super::flat::{ALIGN, Flat, Pod, bytes_of};
use super::super::words::{K, fold, load};
use super::Unusable;
use crate::gguf::{FileBytes, Identity};
use std::cmp::Ordering;
use std::ops::Range;

pub(super) const MAGIC: &[u8; 8] = b"\x89BNTOK\r\n";
const ORDER: u32 = 0x0A0B_0C0D;
pub(super) const HEAD: usize = 1024;
const TABLE: usize = 64;
const MOST_SECTIONS: usize = (HEAD - TABLE) / 16;

/// What a compiled tokenizer was made of: the first half of a SHA-256.
pub(super) type Key = [u8; 16];

/// A sum that tells damage, not a forger: four lanes of multiplications over 64 bytes at a time, at the rate of memory.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    const SEEDS: [u64; 4] =
        [0x2545_F491_4F6C_DD1D, 0x9E6C_63D0_876A_3F6B, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9];
    let step = |lanes: &mut [u64; 4], block: &[u8; 64]| {
        for (i, (lane, seed)) in lanes.iter_mut().zip(SEEDS).enumerate() {
            let (a, b) = (load(&block[16 * i..16 * i + 8]), load(&block[16 * i + 8..16 * i + 16]));
            *lane = fold(a ^ seed, b ^ *lane);
        }
    };
    let mut lanes = SEEDS.map(|seed| seed ^ bytes.len() as u64);
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().for_each(|block| step(&mut lanes, block));
    let mut last = [0; 64];
    last[..rest.len()].copy_from_slice(rest);
    step(&mut lanes, &last);
    lanes.iter().fold(K, |sum, lane| fold(sum ^ lane, K).rotate_left(23) ^ lane)
}

/// Collects tables and values.
#[derive(Debug)]
pub struct Writer {
    /// The file so far; the head is filled in at the end.
    file: Vec<u8>,
    sections: Vec<Range<usize>>,
    values: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { file: vec![0; HEAD], sections: Vec::new(), values: Vec::new() }
    }

    fn section(&mut self, bytes: &[u8]) {
        self.file.resize(self.file.len().next_multiple_of(ALIGN), 0);
        let start = self.file.len();
        self.file.extend_from_slice(bytes);
        self.sections.push(start..self.file.len());
    }

    /// A table.
    pub(in crate::tokenizer) fn table<T: Pod>(&mut self, items: &[T]) {
        self.section(bytes_of(items));
    }

    pub(in crate::tokenizer) fn number(&mut self, number: u32) {
        self.values.extend_from_slice(&number.to_ne_bytes());
    }

    /// The largest number stands for none.
    pub(in crate::tokenizer) fn id(&mut self, id: Option<u32>) {
        self.number(id.unwrap_or(u32::MAX));
    }

    pub(in crate::tokenizer) fn flag(&mut self, flag: bool) {
        self.number(u32::from(flag));
    }

    pub(in crate::tokenizer) fn float(&mut self, float: f64) {
        let bits = float.to_bits();
        self.number(bits as u32);
        self.number((bits >> 32) as u32);
    }

    pub(in crate::tokenizer) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.values.extend_from_slice(text.as_bytes());
        self.values.resize(self.values.len().next_multiple_of(4), 0);
    }

    /// The whole file.
    pub(super) fn finish(mut self, key: &Key) -> Vec<u8> {
        let values = std::mem::take(&mut self.values);
        self.section(&values);
        let Self { mut file, sections, .. } = self;
        debug_assert!(sections.len() <= MOST_SECTIONS);
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &ORDER.to_ne_bytes());
        put(12, &super::VERSION.to_ne_bytes());
        put(16, &super::rules().to_ne_bytes());
        put(20, &(sections.len() as u32).to_ne_bytes());
        put(48, key);
        for (i, section) in sections.iter().enumerate() {
            put(TABLE + 16 * i, &(section.start as u64).to_ne_bytes());
            put(TABLE + 16 * i + 8, &(section.len() as u64).to_ne_bytes());
        }
        seal(&mut file);
        file
    }
}

/// Writes the length of a file and its checksums into its head. A file shorter than a head stays as it is.
pub fn seal(file: &mut [u8]) {
    let len = file.len() as u64;
    let Some((head, body)) = file.split_at_mut_checked(HEAD) else { return };
    head[24..32].copy_from_slice(&len.to_ne_bytes());
    head[40..48].copy_from_slice(&checksum(body).to_ne_bytes());
    head[32..40].fill(0);
    let sum = checksum(head);
    head[32..40].copy_from_slice(&sum.to_ne_bytes());
}

/// A file whose head is right.
pub(super) struct Form {
    file: FileBytes,
    sections: Vec<Range<usize>>,
}

impl Form {
    /// Proves the head: what is behind it is not read.
    pub(super) fn open(file: FileBytes) -> Result<Self, Unusable> {
        let bytes = file.as_slice();
        if !bytes.starts_with(MAGIC) {
            return Err(Unusable::NotCompiled);
        }
        let cut = || Unusable::Damaged("it is cut off");
        let head = bytes.first_chunk::<HEAD>().ok_or_else(cut)?;
        let u32_at = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| load_native(&head[at..at + 8]);
        match u32_at(8) {
            ORDER => {}
            order if order.swap_bytes() == ORDER => return Err(Unusable::ByteOrder),
            _ => return Err(Unusable::Damaged("its head has no order of bytes")),
        }
        let (version, rules) = (u32_at(12), u32_at(16));
        if (version, rules) != (super::VERSION, super::rules()) {
            return Err(Unusable::Version { found: version });
        }
        let mut unsigned = *head;
        unsigned[32..40].fill(0);
        if checksum(&unsigned) != u64_at(32) {
            return Err(Unusable::Damaged("the checksum of its head is wrong"));
        }
        match u64_at(24).cmp(&(bytes.len() as u64)) {
            Ordering::Less => return Err(Unusable::Damaged("it is longer than its header says")),
            Ordering::Equal => {}
            Ordering::Greater => return Err(cut()),
        }
        let count = u32_at(20) as usize;
        if count == 0 || count > MOST_SECTIONS {
            return Err(Unusable::Damaged("it has no sections, or too many"));
        }
        let section = |i: usize| {
            let start = usize::try_from(u64_at(TABLE + 16 * i)).ok()?;
            let end = start.checked_add(usize::try_from(u64_at(TABLE + 16 * i + 8)).ok()?)?;
            (start >= HEAD && end <= bytes.len()).then_some(start..end)
        };
        let sections = (0..count).map(section).collect::<Option<_>>();
        let sections = sections.ok_or(Unusable::Damaged("a section lies outside of it"))?;
        Ok(Self { file, sections })
    }

    /// What the file was known by when it was opened.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.file.identity()
    }

    pub(super) fn key(&self) -> Key {
        let bytes = self.file.as_slice();
        bytes.get(48..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
    }

    /// Whether everything behind the head is as it was written.
    pub(super) fn is_whole(&self) -> bool {
        let bytes = self.file.as_slice();
        bytes.get(HEAD..).is_some_and(|body| checksum(body) == load_native(&bytes[40..48]))
    }

    /// Its tables and values, from the first on.
    pub(super) fn reader(&self) -> Result<Reader<'_>, Unusable> {
        let (values, tables) = self.sections.split_last().ok_or(Unusable::Damaged("it has no values"))?;
        let values = self.file.as_slice().get(values.clone()).unwrap_or_default();
        Ok(Reader { file: &self.file, tables, values })
    }
}

/// 8 bytes in the machine's order.
fn load_native(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Gives tables and values back in the order in which they were written.
pub struct Reader<'a> {
    file: &'a FileBytes,
    tables: &'a [Range<usize>],
    values: &'a [u8],
}

const ENDS: Unusable = Unusable::Damaged("it has too few tables or values");

impl<'a> Reader<'a> {
    pub(in crate::tokenizer) fn table<T: Pod>(&mut self) -> Result<Flat<T>, Unusable> {
        let (table, rest) = self.tables.split_first().ok_or(ENDS)?;
        self.tables = rest;
        Flat::mapped(self.file, table.clone()).ok_or(Unusable::Damaged("a table is not as its items lie"))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Unusable> {
        let (taken, rest) = self.values.split_at_checked(bytes).ok_or(ENDS)?;
        self.values = rest;
        Ok(taken)
    }

    pub(in crate::tokenizer) fn number(&mut self) -> Result<u32, Unusable> {
        let bytes = self.take(4)?;
        bytes.try_into().map(u32::from_ne_bytes).map_err(|_| ENDS)
    }

    pub(in crate::tokenizer) fn id(&mut self) -> Result<Option<u32>, Unusable> {
        Ok(Some(self.number()?).filter(|id| *id != u32::MAX))
    }

    pub(in crate::tokenizer) fn flag(&mut self) -> Result<bool, Unusable> {
        Ok(self.number()? != 0)
    }

    pub(in crate::tokenizer) fn float(&mut self) -> Result<f64, Unusable> {
        let (low, high) = (self.number()?, self.number()?);
        Ok(f64::from_bits(u64::from(high) << 32 | u64::from(low)))
    }

    pub(in crate::tokenizer) fn text(&mut self) -> Result<&'a str, Unusable> {
        let len = self.number()? as usize;
        let text = self.take(len)?;
        self.take(len.next_multiple_of(4) - len)?;
        std::str::from_utf8(text).map_err(|_| Unusable::Damaged("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_changes_the_sum() {
        for len in [0usize, 1, 7, 63, 64, 65, 200] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37) as u8).collect();
            let sum = checksum(&bytes);
            for bit in 0..len * 8 {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(checksum(&other), sum, "{len} {bit}");
            }
            assert_ne!(checksum(&[&bytes[..], &[0]].concat()), sum);
        }
    }
}
