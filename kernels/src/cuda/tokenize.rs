//! Texts to tokens on a device: byte-level BPE of many texts at once, with the tables that the CPU's tokenizer has.
//!
//! Four launches: `bn_tokens_split` finds the pieces, `bn_tokens_words` their tokens (one probe of the vocabulary, or the
//! merges, a warp each), `bn_tokens_offsets` and `bn_tokens_gather` put the tokens one after the other. Up goes the text, down
//! come the tokens, four bytes each: that is what [`Times`] tells apart.
//!
//! A piece of more than [`LONGEST_PIECE`] bytes is refused, and with it its text, which is then for the CPU.

mod batch;

pub use batch::Batch;

use super::device::{Arg, Buffer, CudaError, Device, Launch, start};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the longest piece.
pub const LONGEST_PIECE: usize = 254;
/// Most bytes of a [`Batch`]: places in it are 32 bits.
pub const MAX_BYTES: usize = 1 << 30;

/// Bytes that a text starts at a multiple of.
const STRETCH: usize = 64;
/// Bytes of a block.
const TILE: usize = 1024;
const THREADS: u32 = 128;
/// Blocks for each multiprocessor.
const WAVES: u32 = 16;
/// An id that is none, and half of a pair that is not there.
const NONE: u32 = u32::MAX;

/// How text is split: the names of the engine's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// GPT-2's.
    Gpt2,
    /// LLaMA-3's.
    Llama3,
    /// LLaMA-3's with every number apart.
    Qwen2,
    /// GPT-2's between numbers, each of which is apart.
    Smollm,
    /// The four passes of llama.cpp.
    Default,
}

/// Properties of a character, a byte for each code point from 0 on; what is beyond has none.
pub mod class {
    /// A letter.
    pub const LETTER: u8 = 1;
    /// A number.
    pub const NUMBER: u8 = 2;
    /// White space.
    pub const SPACE: u8 = 4;
    /// An earlier pass of the rule cuts it out: [`Rule::Smollm`](super::Rule::Smollm) each of them,
    /// [`Rule::Default`](super::Rule::Default) each run.
    pub const BREAK: u8 = 8;
}

/// What the device needs of a tokenizer. Hashes are those of the engine's `WordMap` and `PairTable`, whose entries these are.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// How text is split.
    pub rule: Rule,
    /// See [`class`].
    pub classes: &'a [u8],
    /// Key (low, high), length of the word + 1 (0: empty), id or place in `arena`. A power of two.
    pub words: &'a [[u32; 4]],
    /// Words of more than 8 bytes: the id (4 bytes, the lowest first), then the word.
    pub arena: &'a [u8],
    /// Right, left (both `u32::MAX`: empty), rank, id. A power of two, two at least.
    pub pairs: &'a [[u32; 4]],
    /// Token of each byte, `u32::MAX` for none.
    pub bytes: &'a [u32; 256],
}

/// Why texts were not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TokenizeError {
    #[error(transparent)]
    Device(#[from] CudaError),
    #[error("the tokenizer's {table} is not as the device reads it: this is a mistake in BitNet.rs")]
    Table { table: &'static str },
}

/// Where the time of [`Encoder::run`] went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Text to the device, from where it is (and memory for it, if there was too little).
    pub upload: Duration,
    /// The kernels, by the device's clock.
    pub kernels: Duration,
    /// Tokens from the device.
    pub download: Duration,
}

impl Times {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.upload + self.kernels + self.download
    }
}

impl std::ops::AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        self.upload += other.upload;
        self.kernels += other.kernels;
        self.download += other.download;
    }
}

/// Tokens of a [`Batch`]; its memory is used again.
#[derive(Debug, Default)]
pub struct Encoded {
    ids: Vec<u32>,
    n_parts: usize,
    /// All tokens; the first of each text; whether it is refused.
    sums: Vec<u32>,
}

impl Encoded {
    /// The tokens of the `part`-th text; `None` if it has a piece that is too long, or is not there.
    pub fn ids(&self, part: usize) -> Option<&[u32]> {
        let (firsts, refused) = self.sums.get(1..)?.split_at_checked(self.n_parts)?;
        if *refused.get(part)? != 0 {
            return None;
        }
        let end = firsts.get(part + 1).map_or(self.ids.len(), |&next| next as usize);
        self.ids.get(*firsts.get(part)? as usize..end)
    }
}

/// Memory on the device for so many bytes and texts.
#[derive(Debug)]
struct Room {
    bytes: usize,
    n_parts: usize,
    text: Buffer,
    parts: Buffer,
    words: Buffer,
    ids: Buffer,
    out: Buffer,
    /// `[tiles + 1]` sums, then `[n_parts]` first tokens, then `[n_parts]` of those that are refused.
    sums: Buffer,
}

impl Room {
    fn new(device: &Arc<dyn Device>, bytes: usize, n_parts: usize) -> Result<Self, CudaError> {
        let what = "texts to encode";
        Ok(Self {
            bytes,
            n_parts,
            // A word is read by eights from the multiple of 8 before it to the one behind it.
            text: Buffer::new::<u8>(device, bytes + 16, what)?,
            parts: Buffer::new::<u32>(device, 2 * n_parts, what)?,
            words: Buffer::new::<u8>(device, bytes, what)?,
            ids: Buffer::new::<u32>(device, bytes, what)?,
            out: Buffer::new::<u32>(device, bytes, what)?,
            sums: Buffer::new::<u32>(device, bytes / TILE + 1 + 2 * n_parts, what)?,
        })
    }
}

/// A tokenizer's tables on a device.
#[derive(Debug)]
pub struct Encoder {
    device: Arc<dyn Device>,
    rule: u32,
    classes: Buffer,
    n_classes: u32,
    words: Buffer,
    n_words: u32,
    arena: Buffer,
    pairs: Buffer,
    shift: u32,
    byte_ids: Buffer,
    room: Option<Room>,
}

impl Encoder {
    /// Copies the tables to the device.
    ///
    /// # Errors
    /// A table is not what the kernels read, or the device has too little memory.
    pub fn new(device: &Arc<dyn Device>, tables: &Tables<'_>) -> Result<Self, TokenizeError> {
        check(tables)?;
        let what = "the tokenizer's tables";
        let mut arena = tables.arena.to_vec();
        // It is read by eights, as the text is.
        arena.resize((arena.len() + 8).next_multiple_of(16), 0);
        Ok(Self {
            device: Arc::clone(device),
            rule: match tables.rule {
                Rule::Gpt2 => 0,
                Rule::Llama3 => 1,
                Rule::Qwen2 => 2,
                Rule::Smollm => 3,
                Rule::Default => 4,
            },
            classes: Buffer::of(device, tables.classes, what)?,
            n_classes: small(tables.classes.len()),
            words: Buffer::of(device, tables.words.as_flattened(), what)?,
            n_words: small(tables.words.len()),
            arena: Buffer::of(device, &arena, what)?,
            pairs: Buffer::of(device, tables.pairs.as_flattened(), what)?,
            shift: 64 - tables.pairs.len().trailing_zeros(),
            byte_ids: Buffer::of(device, tables.bytes, what)?,
            room: None,
        })
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Encodes all texts of `batch` into `out`; says where the time went.
    ///
    /// # Errors
    /// The device has too little memory, or fails.
    pub fn run(&mut self, batch: &Batch<'_>, out: &mut Encoded) -> Result<Times, CudaError> {
        let n_parts = batch.len();
        out.n_parts = n_parts;
        out.sums.resize(1 + 2 * n_parts, 0);
        if n_parts == 0 {
            out.ids.clear();
            return Ok(Times::default());
        }
        let started = Instant::now();
        let bytes = batch.bytes().next_multiple_of(TILE);
        let room = self.take_room(bytes, n_parts)?;
        let n_tiles = bytes / TILE;
        // The bytes behind the last text are nobody's, and those beyond are only looked at.
        room.text.write_by(0, bytes + 16, &mut batch.layout())?;
        room.parts.write(0, batch.parts())?;
        let (firsts, refused) = (4 * (n_tiles + 1), 4 * (n_tiles + 1 + n_parts));
        room.sums.write(refused, &vec![0u32; n_parts])?;
        // A copy may be on its way still.
        self.device.finish()?;
        let mut times = Times { upload: started.elapsed(), ..Times::default() };

        times.kernels =
            self.device.time(&mut || self.start(&room, small(n_parts), small(n_tiles), (firsts, refused)))?;

        let started = Instant::now();
        room.sums.read(4 * n_tiles, &mut out.sums)?;
        // What was there is written over: no new memory, no zeros.
        out.ids.resize(out.sums.first().map_or(0, |&n| n as usize), 0);
        room.out.read(0, &mut out.ids)?;
        times.download = started.elapsed();
        self.room = Some(room);
        Ok(times)
    }

    /// Room for so much; what there was if it is enough.
    fn take_room(&mut self, bytes: usize, n_parts: usize) -> Result<Room, CudaError> {
        let (mut most, mut parts) = (bytes, n_parts);
        if let Some(room) = self.room.take() {
            if room.bytes >= bytes && room.n_parts >= n_parts {
                return Ok(room);
            }
            (most, parts) = (most.max(room.bytes), parts.max(room.n_parts));
        }
        Room::new(&self.device, most, parts)
    }

    /// The four launches; `firsts` and `refused` are bytes into the sums.
    fn start(&self, room: &Room, n_parts: u32, n_tiles: u32, at: (usize, usize)) -> Result<(), CudaError> {
        let (firsts, refused) = (Arg::At(&room.sums, at.0), Arg::At(&room.sums, at.1));
        let n_stretches = n_tiles * (TILE / STRETCH) as u32;
        let busy = self.device.multiprocessors().saturating_mul(WAVES).max(1);
        let (text, parts, words, ids) = (&room.text, &room.parts, &room.words, &room.ids);
        let (sums, of_parts, tiles) = (Arg::Buffer(&room.sums), Arg::U32(n_parts), Arg::U32(n_tiles));
        let launch = |entry: &'static str, blocks: u32, args: &[Arg<'_>]| {
            let block = if entry == "bn_tokens_offsets" { 1024 } else { THREADS };
            let launch = Launch { entry, grid: [blocks.min(busy), 1, 1], block, shared: 0 };
            // SAFETY: the arguments are those of the table in `super`. The room is for as many bytes and parts as the batch has
            // (16 bytes more of text), a batch's parts rise and lie within its bytes, and `check` saw the tables.
            unsafe { start(&*self.device, &launch, args) }
        };
        let b = Arg::Buffer;
        launch(
            "bn_tokens_split",
            n_stretches.div_ceil(THREADS),
            &[
                b(text),
                b(parts),
                of_parts,
                b(&self.classes),
                Arg::U32(self.n_classes),
                Arg::U32(self.rule),
                Arg::U32(n_stretches),
                b(words),
            ],
        )?;
        launch(
            "bn_tokens_words",
            n_tiles,
            &[
                b(text),
                b(parts),
                of_parts,
                b(&self.words),
                Arg::U32(self.n_words),
                b(&self.arena),
                b(&self.pairs),
                Arg::U32(self.shift),
                b(&self.byte_ids),
                tiles,
                b(words),
                b(ids),
                sums,
                refused,
            ],
        )?;
        launch("bn_tokens_offsets", 1, &[sums, tiles])?;
        let out = b(&room.out);
        launch("bn_tokens_gather", n_tiles, &[b(words), b(ids), sums, b(parts), of_parts, tiles, firsts, out])
    }
}

/// Sizes here are below 2^32: [`MAX_BYTES`] and [`check`] see to it.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What the kernels rely on: sizes that are powers of two, an empty entry that ends each search, words that lie in the arena.
fn check(tables: &Tables<'_>) -> Result<(), TokenizeError> {
    let bad = |table| Err(TokenizeError::Table { table });
    let whole = |n: usize| n.is_power_of_two() && (2..=1 << 28).contains(&n);
    if tables.classes.is_empty() || tables.classes.len() > 0x11_0000 {
        return bad("table of characters");
    }
    if !whole(tables.words.len()) || !tables.words.iter().any(|e| e[2] == 0) {
        return bad("table of words");
    }
    let outside = |&&[.., len_plus_1, at]: &&[u32; 4]| {
        len_plus_1 > 9 && at as usize + 3 + len_plus_1 as usize > tables.arena.len()
    };
    if tables.arena.len() > MAX_BYTES || tables.words.iter().find(outside).is_some() {
        return bad("list of long words");
    }
    if !whole(tables.pairs.len()) || !tables.pairs.iter().any(|e| e[0] == NONE && e[1] == NONE) {
        return bad("table of merges");
    }
    Ok(())
}
