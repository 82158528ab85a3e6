//! The few logits that a sampler looks at, found on the device: [`ScreenedHead`] from an int8 copy of the output matrix,
//! [`TopK`] from logits that are there. What the host reads is the rows and their logits: some kilobytes at most.
//!
//! The logits are the bits of the whole head ([`crate::screen`] says the same of the CPU's); `screen.cu` has the proof of
//! the bounds. Which rows are picked beyond those that must be is not part of any contract.
//!
//! Launches read what is wanted from the device, so a recorded sequence of them serves every token: [`ScreenedHead::greedy`] is four
//! launches that end with the best row's key, as `bn_head_f16` leaves it for `bn_next`. Where the screen leaves too many
//! rows (or the input leaves no bound), the last of these launches multiplies all rows: slower, and the same.

use super::device::{Arg, Buffer, CudaError, Device, Launch, start};
use super::launches::holds;
use crate::screen::Wanted;
use std::ops::Range;
use std::sync::Arc;

/// Pairs of a token that the device keeps.
const CAPACITY: usize = 4096;
/// Rows of [`Wanted::also`] that the device takes; with more it picks everything.
const ALSO: usize = 1024;
/// Words of `ranks` for each token, as `top.cu` has them.
const RANK_WORDS: usize = 3 * 2048 + 8;
/// Words before the pairs, as `head.cuh` has them.
const HEADER: usize = 4;
/// Pairs that are read together with the header.
const FIRST: usize = 510;
/// Wider matrices are not screened: a token's values fit the shared memory that every block may have.
const MAX_COLS: usize = 12_288;
/// Threads of a block.
const BLOCK: u32 = 256;

/// The output matrix on the device.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// f16, `[rows][cols]`.
    pub w: &'a Buffer,
    /// Tokens of the vocabulary.
    pub rows: usize,
    /// Width of the model, a multiple of 8.
    pub cols: usize,
    /// Factor of every logit.
    pub multiplier: f32,
}

/// What was picked for one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Picked {
    /// `(row, logit)`, rows rising: at least those that were wanted.
    pub pairs: Vec<(u32, f32)>,
    /// Rows that were multiplied for it; 0 if the logits were there.
    pub rescored: usize,
    /// No logit that was computed is NaN or plus infinity.
    pub sound: bool,
}

/// What screening came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens.
    pub tokens: u64,
    /// Rows that were multiplied for them.
    pub rows: u64,
    /// Tokens for which that was every row.
    pub whole: u64,
}

fn words(n: usize) -> Arg<'static> {
    // Shapes were checked when the buffers were made.
    Arg::U32(u32::try_from(n).unwrap_or(u32::MAX))
}

/// The words by which the kernels know what is wanted.
fn wanted_words(wanted: Wanted<'_>) -> Vec<u32> {
    let also = if wanted.also.len() <= ALSO { wanted.also } else { &[] };
    let count = if wanted.also.len() <= ALSO { u32::try_from(wanted.count).unwrap_or(u32::MAX) } else { u32::MAX };
    // NaN becomes 0.
    let mut words = vec![count, wanted.within.max(0.0).to_bits(), also.len() as u32, 0];
    words.extend(also);
    words
}

/// Picks the largest of logits that lie on the device. After an error it is to be rebuilt: its histograms are half full.
#[derive(Debug)]
pub struct TopK {
    device: Arc<dyn Device>,
    n: usize,
    capacity: usize,
    wanted: Buffer,
    ranks: Buffer,
    picked: Buffer,
}

impl TopK {
    /// For logits `[tokens][n]`, `tokens` being the most that are picked from at a time.
    ///
    /// # Errors
    /// Too little memory, or the device fails.
    pub fn new(device: &Arc<dyn Device>, n: usize, tokens: usize) -> Result<Self, CudaError> {
        let (n, tokens) = (n.clamp(1, 1 << 31), tokens.max(1));
        let capacity = CAPACITY.min(n);
        let what = "the search for the largest logits";
        Ok(Self {
            device: Arc::clone(device),
            n,
            capacity,
            wanted: Buffer::new::<u32>(device, 4 + ALSO, what)?,
            ranks: Buffer::of(device, &vec![0u32; tokens * RANK_WORDS], what)?,
            picked: Buffer::of(device, &vec![0u32; tokens * (HEADER + 2 * capacity)], what)?,
        })
    }

    /// What launches look for from here on, also those that were recorded.
    ///
    /// # Errors
    /// The copy failed.
    pub fn want(&self, wanted: Wanted<'_>) -> Result<(), CudaError> {
        self.wanted.write(0, &wanted_words(wanted))
    }

    /// Blocks that keep the device busy over `n` elements.
    fn blocks(&self, n: usize) -> u32 {
        let most = self.device.multiprocessors().saturating_mul(2).max(1);
        u32::try_from(n.div_ceil(BLOCK as usize)).map_or(most, |n| n.clamp(1, most))
    }

    fn grid(&self, tokens: usize) -> [u32; 3] {
        [self.blocks(self.n), tokens.clamp(1, 65_535) as u32, 1]
    }

    fn args<'a>(&'a self, pass: u32, values: &'a Buffer, wanted: &'a Buffer, tokens: &Range<usize>) -> [Arg<'a>; 8] {
        [
            Arg::U32(pass),
            Arg::At(values, tokens.start * self.n * 4),
            words(self.n),
            words(tokens.len()),
            Arg::Buffer(wanted),
            Arg::At(&self.ranks, tokens.start * RANK_WORDS * 4),
            Arg::At(&self.picked, tokens.start * (HEADER + 2 * self.capacity) * 4),
            words(self.capacity),
        ]
    }

    /// `passes` of the search in `lower`, then the pick from `upper`, both `[tokens][n]`.
    fn search(&self, passes: u32, [lower, upper, wanted]: [&Buffer; 3], tokens: Range<usize>) -> Result<(), CudaError> {
        for buffer in [lower, upper] {
            holds(buffer, tokens.start * self.n * 4, tokens.len() * self.n * 4)?;
        }
        holds(&self.ranks, 0, tokens.end * RANK_WORDS * 4)?;
        let grid = self.grid(tokens.len());
        for pass in 0..passes {
            let launch = Launch { entry: "bn_rank", grid, block: BLOCK, shared: 0 };
            // SAFETY: the table of `cuda`, by the checks above; `start` refuses buffers of another device.
            unsafe { start(&*self.device, &launch, &self.args(pass, lower, wanted, &tokens))? };
        }
        let launch = Launch { entry: "bn_pick", grid, block: BLOCK, shared: 0 };
        // SAFETY: as before.
        unsafe { start(&*self.device, &launch, &self.args(passes, upper, wanted, &tokens)) }
    }

    /// Four launches that pick from the logits `y` f32 `[..][n]` of these tokens, all with what is wanted.
    ///
    /// # Errors
    /// More tokens than there is room for, or the device refuses.
    pub fn launch(&self, y: &Buffer, tokens: Range<usize>) -> Result<(), CudaError> {
        self.search(3, [y, y, &self.wanted], tokens)
    }

    /// What [`TopK::launch`] picked from `y` for token `t`.
    ///
    /// # Errors
    /// No such token, or the device failed.
    pub fn read(&self, y: &Buffer, t: usize) -> Result<Picked, CudaError> {
        if let Some((picked, _)) = self.pairs(t)? {
            return Ok(picked);
        }
        // More than there is room for: all of them, then.
        let mut all = vec![0f32; self.n];
        y.read(t * self.n * 4, &mut all)?;
        let sound = all.iter().all(|v| *v < f32::INFINITY);
        Ok(Picked { pairs: (0..).zip(all).collect(), rescored: 0, sound })
    }

    /// The pairs of a token, and how many there were before rows that came twice were dropped; `None` if there was no room
    /// for them.
    fn pairs(&self, t: usize) -> Result<Option<(Picked, usize)>, CudaError> {
        let start = t * (HEADER + 2 * self.capacity) * 4;
        let mut words = vec![0u32; HEADER + 2 * self.capacity.min(FIRST)];
        self.picked.read(start, &mut words)?;
        let (count, strange) = (words[0] as usize, words[1]);
        if count > self.capacity {
            return Ok(None);
        }
        let read = words.len();
        words.resize(HEADER + 2 * count, 0);
        if let Some(rest) = words.get_mut(read..).filter(|rest| !rest.is_empty()) {
            self.picked.read(start + read * 4, rest)?;
        }
        let mut pairs: Vec<(u32, f32)> =
            words[HEADER..].chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
        pairs.sort_unstable_by_key(|pair| pair.0);
        pairs.dedup_by_key(|pair| pair.0);
        Ok(Some((Picked { pairs, rescored: 0, sound: strange == 0 }, count)))
    }
}

/// An int8 copy of the output matrix on the device, with bounds, and what its use needs.
#[derive(Debug)]
pub struct ScreenedHead {
    top: TopK,
    rows: usize,
    cols: usize,
    multiplier: f32,
    /// Bytes of a row of the copy.
    stride: usize,
    /// i8 `[rows][stride]`.
    q: Buffer,
    /// f32 `[rows][4]`: scale, norm, rest.
    rows_known: Buffer,
    largest: Buffer,
    /// u8 `[tokens][2][stride]`.
    planes: Buffer,
    /// f32 `[tokens][4]`.
    tokens_known: Buffer,
    /// f32 `[tokens][rows]` each.
    bounds: [Buffer; 2],
    /// One, and no more.
    one: Buffer,
    totals: Buffer,
}

impl ScreenedHead {
    /// Makes the copy of a matrix, for `tokens` tokens at a time at most; `None` for a shape that is not screened (more than
    /// 12,288 columns, columns that are not a multiple of 8, no row). It takes a byte for each weight, and 8 bytes for each row
    /// and token.
    ///
    /// # Errors
    /// Too little memory (the whole head is the way then), or the device fails.
    pub fn build(device: &Arc<dyn Device>, output: Output<'_>, tokens: usize) -> Result<Option<Self>, CudaError> {
        let Output { w, rows, cols, multiplier } = output;
        let fits = cols > 0 && cols <= MAX_COLS && cols.is_multiple_of(8) && (1..1 << 31).contains(&rows);
        if !fits || !multiplier.is_finite() {
            return Ok(None);
        }
        holds(w, 0, rows * cols * 2)?;
        let (tokens, stride) = (tokens.max(1), cols.next_multiple_of(16));
        let what = "the screen of the output matrix";
        let new = Self {
            top: TopK::new(device, rows, tokens)?,
            rows,
            cols,
            multiplier,
            stride,
            q: Buffer::new::<i8>(device, rows * stride, what)?,
            rows_known: Buffer::new::<f32>(device, rows * 4, what)?,
            largest: Buffer::of(device, &[0u32], what)?,
            planes: Buffer::new::<u8>(device, tokens * 2 * stride, what)?,
            tokens_known: Buffer::new::<f32>(device, tokens * 4, what)?,
            bounds: [
                Buffer::new::<f32>(device, tokens * rows, what)?,
                Buffer::new::<f32>(device, tokens * rows, what)?,
            ],
            one: Buffer::of(device, &wanted_words(Wanted { count: 1, within: 0.0, also: &[] }), what)?,
            totals: Buffer::of(device, &[0u64; 3], what)?,
        };
        let args = [
            Arg::Buffer(w),
            words(rows),
            words(cols),
            words(stride),
            Arg::Buffer(&new.q),
            Arg::Buffer(&new.rows_known),
            Arg::Buffer(&new.largest),
        ];
        // A warp for a row.
        let launch = Launch { entry: "bn_screen_build", grid: [new.blocks(rows, 8), 1, 1], block: BLOCK, shared: 0 };
        // SAFETY: the table of `cuda`; `w` was checked above.
        unsafe { start(&**device, &launch, &args)? };
        // The launches that use the copy may read it before they wait for earlier ones (`super::overlap`).
        device.finish()?;
        Ok(Some(new))
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> usize {
        let top = [&self.top.wanted, &self.top.ranks, &self.top.picked];
        let own = [&self.q, &self.rows_known, &self.largest, &self.planes, &self.tokens_known, &self.one, &self.totals];
        top.into_iter().chain(own).chain(&self.bounds).map(Buffer::bytes).sum()
    }

    /// Blocks for `n` pieces of work of which a block does `each` at a time: as a rule it does so once, and the blocks that
    /// are over make room for others. Not tuned on a card.
    fn blocks(&self, n: usize, each: usize) -> u32 {
        let most = self.top.device.multiprocessors().saturating_mul(16).max(1);
        u32::try_from(n.div_ceil(each)).map_or(most, |n| n.clamp(1, most))
    }

    /// Two launches: the bounds of all logits of `n` tokens, whose values are `x` f32 `[n][cols]` from a byte on. `best` is
    /// u64 `[n]`, which becomes 0, or null.
    ///
    /// # Errors
    /// More tokens than there is room for, `x` ends too early, or the device refuses.
    pub fn screen(&self, x: (&Buffer, usize), n: usize, best: Option<&Buffer>) -> Result<(), CudaError> {
        let [lower, upper] = &self.bounds;
        holds(x.0, x.1, n * self.cols * 4)?;
        holds(lower, 0, n * self.rows * 4)?;
        if let Some(best) = best {
            holds(best, 0, n * 8)?;
        }
        let (stride, device) = (words(self.stride), &*self.top.device);
        let [planes, known, picked] = [&self.planes, &self.tokens_known, &self.top.picked].map(Arg::Buffer);
        let (multiplier, capacity) = (Arg::F32(self.multiplier), words(self.top.capacity));
        let args = [
            Arg::At(x.0, x.1),
            words(n),
            words(self.cols),
            stride,
            multiplier,
            Arg::Buffer(&self.largest),
            planes,
            known,
            picked,
            capacity,
            best.map_or(Arg::Null, Arg::Buffer),
        ];
        let grid = [n.clamp(1, 1 << 20) as u32, 1, 1];
        let launch = Launch { entry: "bn_screen_token", grid, block: BLOCK, shared: 0 };
        // SAFETY: the table of `cuda`, by the checks above and those of `build`.
        unsafe { start(device, &launch, &args)? };
        // Four at a time where their values fit what every block may have.
        let together = if n > 1 && 8 * self.stride <= 48 << 10 { 4 } else { 1 };
        let args = [
            Arg::Buffer(&self.q),
            Arg::Buffer(&self.rows_known),
            words(self.rows),
            stride,
            multiplier,
            planes,
            known,
            words(n),
            Arg::Buffer(lower),
            Arg::Buffer(upper),
            picked,
            capacity,
        ];
        let launch = Launch {
            entry: if together == 4 { "bn_screen_4" } else { "bn_screen_1" },
            grid: [self.blocks(self.rows, 64), n.div_ceil(together).clamp(1, 65_535) as u32, 1],
            block: BLOCK,
            shared: (2 * together * self.stride) as u32,
        };
        // SAFETY: as before.
        unsafe { start(device, &launch, &args) }
    }

    /// The exact logits of what was picked for these tokens; the first token's values are at `x`.
    fn rescore(
        &self,
        w: &Buffer,
        x: (&Buffer, usize),
        tokens: Range<usize>,
        best: Option<&Buffer>,
    ) -> Result<(), CudaError> {
        holds(w, 0, self.rows * self.cols * 2)?;
        holds(x.0, x.1, tokens.len() * self.cols * 4)?;
        let (rows, capacity) = (self.rows, self.top.capacity);
        let args = [
            Arg::Buffer(w),
            words(rows),
            words(self.cols),
            Arg::F32(self.multiplier),
            Arg::At(x.0, x.1),
            words(tokens.len()),
            Arg::At(&self.top.picked, tokens.start * (HEADER + 2 * capacity) * 4),
            words(capacity),
            Arg::At(&self.bounds[0], tokens.start * rows * 4),
            best.map_or(Arg::Null, Arg::Buffer),
            Arg::Buffer(&self.totals),
        ];
        // Few rows: small blocks, so that they spread.
        let launch = Launch {
            entry: "bn_rescore",
            grid: [self.blocks(rows, 8), tokens.len().clamp(1, 65_535) as u32, 1],
            block: 64,
            shared: (4 * self.cols.next_multiple_of(64)) as u32,
        };
        // SAFETY: the table of `cuda`, by the checks above, of `build` and of what was launched before.
        unsafe { start(&*self.top.device, &launch, &args) }
    }

    /// Four launches: the key of the largest logit of each of `n` tokens, as `bn_head_f16` leaves it, to `best` u64 `[n]`
    /// (whatever that holds). `w` is the matrix of the copy, `x` as for [`ScreenedHead::screen`].
    ///
    /// # Errors
    /// As [`ScreenedHead::screen`].
    pub fn greedy(&self, w: &Buffer, x: (&Buffer, usize), n: usize, best: &Buffer) -> Result<(), CudaError> {
        let [_, upper] = &self.bounds;
        self.screen(x, n, Some(best))?;
        self.top.search(0, [upper, upper, &self.one], 0..n)?;
        self.rescore(w, x, 0..n, Some(best))
    }

    /// What [`ScreenedHead::pick`] looks for from here on, also in launches that were recorded.
    ///
    /// # Errors
    /// The copy failed.
    pub fn want(&self, wanted: Wanted<'_>) -> Result<(), CudaError> {
        self.top.want(wanted)
    }

    /// Four launches: the logits that are wanted of token `t` of those that were screened last. `w` and `x` are what they
    /// were then. A token may be picked from again, with other wants.
    ///
    /// # Errors
    /// No such token, or the device refuses.
    pub fn pick(&self, w: &Buffer, x: (&Buffer, usize), t: usize) -> Result<(), CudaError> {
        let [lower, upper] = &self.bounds;
        self.top.search(2, [lower, upper, &self.top.wanted], t..t + 1)?;
        self.rescore(w, (x.0, x.1 + t * self.cols * 4), t..t + 1, None)
    }

    /// What [`ScreenedHead::pick`] found for token `t`, before anything else is wanted.
    ///
    /// # Errors
    /// No such token, or the device failed.
    pub fn read(&self, t: usize) -> Result<Picked, CudaError> {
        if let Some((picked, rescored)) = self.top.pairs(t)? {
            return Ok(Picked { rescored, ..picked });
        }
        // All rows were multiplied, over the lower bounds.
        let [y, _] = &self.bounds;
        self.top.launch(y, t..t + 1)?;
        Ok(Picked { rescored: self.rows, ..self.top.read(y, t)? })
    }

    /// What screening came to so far.
    ///
    /// # Errors
    /// The device failed.
    pub fn totals(&self) -> Result<Totals, CudaError> {
        let mut totals = [0u64; 3];
        self.totals.read(0, &mut totals)?;
        let [tokens, rows, whole] = totals;
        Ok(Totals { tokens, rows, whole })
    }
}
