//! Text to tokens, kernel by kernel: pieces where it is plain where they start, tokens of a vocabulary made up here, sums, and
//! the tokens one after the other. That whole texts have the ids of the engine's tokenizer is for the engine's tests.

use std::collections::HashMap;

use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::cuda::emu::{Arg, Buffer, EmuError, Emulation};
use bitnet_kernels::cuda::tokenize::{Batch, Encoded, Encoder, LONGEST_PIECE, Rule, Tables, TokenizeError, class};

use super::common::Random;
use super::{How, hows, of, room};

const NONE: u32 = u32::MAX;
const TILE: usize = 1024;
/// A byte without a token.
const STRANGER: u8 = b'z';

/// What hashes have in common (see the engine's `words.rs` and `merge.rs`).
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn load(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

fn key_of(word: &[u8]) -> u64 {
    if word.len() <= 8 {
        return load(word);
    }
    let h = word.chunks_exact(8).fold(word.len() as u64, |h, chunk| fold(h ^ load(chunk), MIX));
    fold(h ^ load(&word[word.len() - 8..]), MIX ^ h)
}

fn put(table: &mut [[u32; 4]], slot: u64, entry: [u32; 4], empty: [u32; 4]) {
    let mask = table.len() - 1;
    let mut slot = slot as usize & mask;
    while table[slot] != empty {
        slot = (slot + 1) & mask;
    }
    table[slot] = entry;
}

/// Some tokens of the bytes a to e, the merges to them, and what the kernels read of them.
pub(crate) struct Toy {
    by_text: HashMap<Vec<u8>, u32>,
    merges: HashMap<(u32, u32), (u32, u32)>,
    words: Vec<[u32; 4]>,
    arena: Vec<u8>,
    pairs: Vec<[u32; 4]>,
    bytes: [u32; 256],
}

impl Toy {
    pub(crate) fn new(r: &mut Random) -> Self {
        let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
        let mut merges = HashMap::new();
        while merges.len() < 120 {
            let mut pick = || {
                if tokens.len() == 256 || r.below(2) == 0 { 97 + r.below(5) } else { 256 + r.below(tokens.len() - 256) }
            };
            let (left, right) = (pick(), pick());
            let text = [&tokens[left][..], &tokens[right]].concat();
            // Some ranks twice: then the leftmost counts.
            let (n, id) = (merges.len() as u32, tokens.len() as u32);
            if text.len() <= 40 && merges.insert((left as u32, right as u32), (n / 2, id)).is_none() {
                tokens.push(text);
            }
        }
        let mut toy = Self {
            by_text: HashMap::new(),
            merges,
            words: vec![[0; 4]; 256],
            arena: Vec::new(),
            pairs: vec![[NONE, NONE, NONE, NONE]; 256],
            bytes: std::array::from_fn(|b| if b as u8 == STRANGER { NONE } else { b as u32 }),
        };
        // Half of the tokens are found as they stand, the others only by merges.
        for (id, text) in tokens.iter().enumerate().skip(256).step_by(2) {
            if toy.by_text.contains_key(text) {
                continue;
            }
            toy.by_text.insert(text.clone(), id as u32);
            let (key, at) = (key_of(text), toy.arena.len() as u32);
            let value = if text.len() <= 8 { id as u32 } else { at };
            if text.len() > 8 {
                toy.arena.extend((id as u32).to_le_bytes());
                toy.arena.extend(text);
            }
            let entry = [key as u32, (key >> 32) as u32, text.len() as u32 + 1, value];
            put(&mut toy.words, fold(key ^ text.len() as u64, MIX), entry, [0; 4]);
        }
        for (&(left, right), &(rank, id)) in &toy.merges {
            let key = u64::from(left) << 32 | u64::from(right);
            let mixed = (key ^ (key >> 32)).wrapping_mul(MIX);
            let slot = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56;
            put(&mut toy.pairs, slot, [right, left, rank, id], [NONE; 4]);
        }
        assert!(toy.by_text.keys().any(|text| text.len() > 16), "no long words");
        toy
    }

    fn tokens(&self, piece: &[u8]) -> Vec<u32> {
        if let Some(&id) = self.by_text.get(piece) {
            return vec![id];
        }
        let mut ids: Vec<u32> = piece.iter().map(|&b| self.bytes[usize::from(b)]).filter(|&id| id != NONE).collect();
        loop {
            let pair = |i: usize| self.merges.get(&(ids[i], ids[i + 1])).map(|&(rank, id)| (rank, i, id));
            match (0..ids.len().saturating_sub(1)).filter_map(pair).min() {
                Some((_, i, id)) => drop(ids.splice(i..i + 2, [id])),
                None => return ids,
            }
        }
    }

    fn tables(&self, classes: &'static [u8]) -> Tables<'_> {
        let Self { words, arena, pairs, bytes, .. } = self;
        Tables { rule: Rule::Gpt2, classes, words, arena, pairs, bytes }
    }
}

/// Pieces of random lengths that cover three tiles: the text, and what `bn_tokens_split` would say of it.
pub(crate) struct Pieces {
    text: Vec<u8>,
    starts: Vec<usize>,
    words: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(toy: &Toy, r: &mut Random) -> Self {
        let known: Vec<&Vec<u8>> = toy.by_text.keys().collect();
        let (mut text, mut starts) = (Vec::new(), Vec::new());
        while text.len() < 3 * TILE {
            starts.push(text.len());
            match r.below(8) {
                0 => text.extend((0..=r.below(LONGEST_PIECE - 1)).map(|_| b"abcdez"[r.below(6)])),
                1..4 => text.extend((0..=r.below(8)).map(|_| b"abcdez"[r.below(6)])),
                4 => text.push(STRANGER),
                _ => text.extend(known[r.below(known.len())]),
            }
        }
        text.truncate(3 * TILE);
        let mut words = vec![0; text.len()];
        for (i, &start) in starts.iter().enumerate() {
            let len = starts.get(i + 1).unwrap_or(&text.len()) - start;
            words[start] = len as u8;
        }
        Self { text, starts, words }
    }

    fn piece(&self, i: usize) -> &[u8] {
        &self.text[self.starts[i]..*self.starts.get(i + 1).unwrap_or(&self.text.len())]
    }
}

/// `bn_tokens_words`: numbers of tokens, tokens (where there are some), totals, what is refused.
pub(crate) fn words(how: How, toy: &Toy, pieces: &Pieces, parts: &[u32]) -> Result<Vec<u32>, EmuError> {
    let (tiles, mut text) = (pieces.text.len() / TILE, pieces.text.clone());
    text.resize(text.len() + 8, 0);
    let mut arena = toy.arena.clone();
    arena.resize((arena.len() + 8).next_multiple_of(16), 0);
    let (text, parts_there, arena) = (of(&text), of(parts), of(&arena));
    let (vocabulary, pairs, bytes) = (of(toy.words.as_flattened()), of(toy.pairs.as_flattened()), of(&toy.bytes));
    let (counts, ids, totals) = (of(&pieces.words), room::<u32>(pieces.text.len()), room::<u32>(tiles));
    let refused = of(&vec![0u32; parts.len() / 2]);
    let args = [
        Arg::Buffer(&text),
        Arg::Buffer(&parts_there),
        Arg::U32(parts.len() as u32 / 2),
        Arg::Buffer(&vocabulary),
        Arg::U32(toy.words.len() as u32),
        Arg::Buffer(&arena),
        Arg::Buffer(&pairs),
        Arg::U32(56),
        Arg::Buffer(&bytes),
        Arg::U32(tiles as u32),
        Arg::Buffer(&counts),
        Arg::Buffer(&ids),
        Arg::Buffer(&totals),
        Arg::Buffer(&refused),
    ];
    how.run("bn_tokens_words", 0, &args)?;
    let (counts, ids): (Vec<u8>, Vec<u32>) = (counts.read(), ids.read());
    let mut out: Vec<u32> = counts.iter().map(|&n| u32::from(n)).collect();
    for (at, &n) in counts.iter().enumerate() {
        out.extend(&ids[at..(at + usize::from(n)).min(ids.len())]);
    }
    out.extend(totals.read::<u32>());
    out.extend(refused.read::<u32>());
    Ok(out)
}

#[test]
fn tokens_of_pieces() {
    let mut r = Random::new(50);
    let toy = Toy::new(&mut r);
    for round in 0..4 {
        let mut pieces = Pieces::new(&toy, &mut r);
        let parts = [0, 100, 20, 64, 21, 1000];
        let (mut counts, mut ids) = (vec![0; pieces.text.len()], Vec::new());
        for i in 0..pieces.starts.len() {
            let tokens = toy.tokens(pieces.piece(i));
            counts[pieces.starts[i]] = tokens.len() as u32;
            ids.push(tokens);
        }
        let mut refused = [0, 0, 0];
        if round > 0 {
            // One that is too long, in the text that starts in stretch 20 or 21.
            let at = pieces.starts.iter().position(|&s| s / 64 >= 19 + round).unwrap();
            let start = pieces.starts[at];
            pieces.words[start] = 255;
            (counts[start], ids[at]) = (0, Vec::new());
            refused[if start / 64 >= 21 { 2 } else { 1 }] = 1;
        }
        let totals: Vec<u32> = counts.chunks(TILE).map(|tile| tile.iter().sum()).collect();
        let want = [counts, ids.concat(), totals, refused.to_vec()].concat();
        for how in hows(&[[1, 1, 1], [2, 1, 1], [5, 1, 1]], &[128]) {
            assert!(words(how, &toy, &pieces, &parts).unwrap() == want, "{how:?}");
        }
    }
}

#[test]
fn sums_of_tiles() {
    let mut r = Random::new(51);
    for n in [1, 31, 32, 33, 1000, 1024, 1025, 5000] {
        let totals: Vec<u32> = (0..n).map(|_| r.below(1279) as u32).collect();
        let want: Vec<u32> = (0..=n).map(|i| totals[..i].iter().sum()).collect();
        for how in hows(&[[1, 1, 1], [2, 1, 1]], &[32, 256, 1024]) {
            assert_eq!(offsets(how, &totals).unwrap(), want, "{n}, {how:?}");
        }
    }
}

pub(crate) fn offsets(how: How, totals: &[u32]) -> Result<Vec<u32>, EmuError> {
    let sums = of(&[totals, &[NONE]].concat());
    how.run("bn_tokens_offsets", 0, &[Arg::Buffer(&sums), Arg::U32(totals.len() as u32)])?;
    Ok(sums.read())
}

/// `bn_tokens_gather` on counts and tokens where they were found: firsts, then all tokens.
pub(crate) fn gather(how: How, counts: &[u8], ids: &[u32], parts: &[u32]) -> Result<Vec<u32>, EmuError> {
    let sum = |counts: &[u8]| counts.iter().map(|&n| u32::from(n)).sum::<u32>();
    let tiles = counts.len() / TILE;
    let offsets: Vec<u32> = (0..=tiles).map(|tile| sum(&counts[..tile * TILE])).collect();
    let buffers: [Buffer; 4] = [of(counts), of(ids), of(&offsets), of(parts)];
    let (firsts, out) = (room::<u32>(parts.len() / 2), room::<u32>(sum(counts) as usize));
    let mut args: Vec<Arg<'_>> = buffers.iter().map(Arg::Buffer).collect();
    args.extend([Arg::U32(parts.len() as u32 / 2), Arg::U32(tiles as u32), Arg::Buffer(&firsts), Arg::Buffer(&out)]);
    how.run("bn_tokens_gather", 0, &args)?;
    Ok([firsts.read::<u32>(), out.read::<u32>()].concat())
}

/// Counts that fit, and tokens.
pub(crate) fn scattered(r: &mut Random) -> (Vec<u8>, Vec<u32>) {
    let n = 3 * TILE;
    let mut counts = vec![0u8; n];
    let mut at = 0;
    while at < n {
        let room = 1 + r.below(12).min(n - at - 1);
        counts[at] = r.below(room + 1) as u8;
        at += room;
    }
    (counts, (0..n as u32).map(|i| i * 7 + 1).collect())
}

#[test]
fn tokens_one_after_the_other() {
    let mut r = Random::new(52);
    let parts = [0, 10, 1, 64, 2, 1500, 30, 1, 31, 1];
    let (counts, ids) = scattered(&mut r);
    let mut want: Vec<u32> =
        parts.chunks(2).map(|p| counts[..p[0] as usize * 64].iter().map(|&n| u32::from(n)).sum()).collect();
    for (at, &n) in counts.iter().enumerate() {
        want.extend(&ids[at..at + usize::from(n)]);
    }
    for how in hows(&[[1, 1, 1], [2, 1, 1], [4, 1, 1]], &[128]) {
        assert!(gather(how, &counts, &ids, &parts).unwrap() == want, "{how:?}");
    }
}

/// Letters, numbers and white space of ASCII.
static CLASSES: [u8; 128] = {
    let mut out = [0; 128];
    let mut b = 0;
    while b < 128 {
        let byte = b as u8;
        out[b] = if byte.is_ascii_alphabetic() {
            class::LETTER
        } else if byte.is_ascii_digit() {
            class::NUMBER
        } else if byte.is_ascii_whitespace() {
            class::SPACE
        } else {
            0
        };
        b += 1;
    }
    out
};

#[test]
fn pieces_of_plain_words() {
    let mut r = Random::new(53);
    // Words with one space between: a piece starts at each space.
    let mut text = Vec::new();
    let mut starts = vec![0];
    while text.len() < 1000 {
        text.extend((0..=r.below(if text.len() > 500 { 20 } else { 150 })).map(|_| b'a' + r.below(26) as u8));
        starts.push(text.len());
        text.push(b' ');
    }
    text.push(b'x');
    // Two texts: this one from stretch 0 on, its front from stretch 20 on.
    let parts = [0, text.len() as u32, 20, 130];
    let mut all = text.clone();
    all.resize(20 * 64, b'?');
    all.extend(&text[..130]);
    all.resize(2 * TILE, b'?');
    let mut want = vec![0u8; all.len()];
    for (base, len) in [(0, text.len()), (20 * 64, 130)] {
        let own: Vec<usize> = starts.iter().copied().filter(|&s| s < len).chain([len]).collect();
        for pair in own.windows(2) {
            want[base + pair[0]] = (pair[1] - pair[0]) as u8;
        }
    }
    for how in hows(&[[1, 1, 1], [3, 1, 1]], &[32, 128]) {
        for rule in 0..5 {
            let (there, parts, classes, words) = (of(&all), of(&parts), of(&CLASSES), room::<u8>(all.len()));
            let args = [
                Arg::Buffer(&there),
                Arg::Buffer(&parts),
                Arg::U32(2),
                Arg::Buffer(&classes),
                Arg::U32(128),
                Arg::U32(rule),
                Arg::U32(all.len() as u32 / 64),
                Arg::Buffer(&words),
            ];
            how.run("bn_tokens_split", 0, &args).unwrap();
            assert_eq!(words.read::<u8>(), want, "rule {rule}, {how:?}");
        }
    }
}

#[test]
fn all_of_it() {
    let mut r = Random::new(54);
    let toy = Toy::new(&mut r);
    let device: std::sync::Arc<dyn Device> = std::sync::Arc::new(Emulation::new().unwrap());
    let mut encoder = Encoder::new(&device, &toy.tables(&CLASSES)).unwrap();
    let mut encoded = Encoded::default();
    encoder.run(&Batch::default(), &mut encoded).unwrap();
    assert_eq!(encoded.ids(0), None);
    // More, then fewer: memory is used again.
    for n in [3, 40, 1, 7] {
        let texts: Vec<Vec<u8>> = (0..n)
            .map(|i| {
                (0..=r.below(90))
                    .map(|_| b"abcdez"[r.below(6)])
                    .chain(vec![b'a'; if i == 2 { 255 } else { 0 }])
                    .collect()
            })
            .collect();
        let mut batch = Batch::default();
        assert!(!batch.push(b""));
        for text in &texts {
            assert!(batch.push(text));
        }
        assert_eq!((batch.len(), batch.is_empty(), batch.bytes() % 64), (n, false, 0));
        let times = encoder.run(&batch, &mut encoded).unwrap();
        assert!(times.total() >= times.kernels && !times.kernels.is_zero());
        for (i, text) in texts.iter().enumerate() {
            let want = (text.len() <= LONGEST_PIECE).then(|| toy.tokens(text));
            assert_eq!(encoded.ids(i), want.as_deref(), "{i} of {n}");
        }
        assert_eq!(encoded.ids(n), None);
    }
}

#[test]
fn tables_that_the_kernels_must_not_read() {
    let toy = Toy::new(&mut Random::new(55));
    let device: std::sync::Arc<dyn Device> = std::sync::Arc::new(Emulation::new().unwrap());
    let tables = toy.tables(&CLASSES);
    let full = [[1u32; 4]; 4];
    for (bad, says) in [
        (Tables { classes: &[], ..tables }, "table of characters"),
        (Tables { words: &toy.words[1..], ..tables }, "table of words"),
        (Tables { words: &full, ..tables }, "table of words"),
        (Tables { arena: &toy.arena[..toy.arena.len() - 1], ..tables }, "list of long words"),
        (Tables { pairs: &toy.pairs[..1], ..tables }, "table of merges"),
        (Tables { pairs: &full, ..tables }, "table of merges"),
    ] {
        assert_eq!(Encoder::new(&device, &bad).unwrap_err(), TokenizeError::Table { table: says });
    }
}
