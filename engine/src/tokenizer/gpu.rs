//! Batches of texts encoded on a device: the same ids as on the CPU, faster where there is much text.
//!
//! What runs there is byte-level BPE, whatever the pre-tokenizer ([`bitnet_kernels::cuda::tokenize`]); other kinds stay on the CPU,
//! and [`NotOnDevice`] says so. Special tokens are cut out here: each stretch of plain text is a text to the device. A text with
//! a piece of more than [`LONGEST_PIECE`] bytes (a line of 300 dashes) or longer than [`BATCH_BYTES`] is encoded on the CPU,
//! and [`Report`] counts it.
//!
//! # Where it pays
//! A byte of text costs about two bytes of transfer: itself up, and its share of a token down (four bytes for some 4.2 of text).
//! A batch costs four launches and four copies, whatever its size: some tenths of a millisecond. The host looks through each byte
//! for special tokens and copies it once, to where the device fetches it; it copies each id twice, the second time in all
//! threads. A CPU thread encodes some 100 to 300 MB/s, so a batch must have [`BYTES_A_THREAD`] for each thread that the CPU has
//! before the device is asked; one prompt never has. **No card has measured this yet**: the constant comes from these sums, and [`Report`] has what a
//! measurement needs: transfers, kernels and the host's own work apart.

use super::bpe::BpeTokenizer;
use super::error::TokenizerError;
use super::pretokenize::{DEFAULT_SYMBOLS, Pre};
use super::special::Part;
use super::unicode::{self, NUMBER, PUNCT};
use super::{EncodeOptions, SpecialTokens, Tokenizer, batch};
use bitnet_kernels::Pool;
use bitnet_kernels::cuda::device::{CudaError, Device};
use bitnet_kernels::cuda::tokenize::{Batch, Encoded, Encoder, Rule, Tables, class};
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

mod report;

pub use report::{NotOnDevice, Report, WhyCpu};

pub use bitnet_kernels::cuda::tokenize::{LONGEST_PIECE, MAX_BYTES, Times};

/// Fewer bytes in a batch for each thread of the CPU are encoded there (see the module on where it pays).
pub const BYTES_A_THREAD: usize = 64 << 10;

/// As [`BYTES_A_THREAD`] where the device is yet to be opened and the tables are yet to be copied, which takes some tenths of a second.
pub const OPENING_BYTES_A_THREAD: usize = 64 << 20;

/// Bytes that go to the device at once (it needs ten times as much memory); more are several runs, and a longer text stays here.
pub const BATCH_BYTES: usize = 32 << 20;

/// A tokenizer whose batches are encoded on a device where that is faster. All else is the tokenizer's own.
pub struct GpuTokenizer {
    inner: Arc<dyn Tokenizer>,
    device: Mutex<OnDevice>,
    batch_bytes: usize,
}

/// The tables there, and memory here that is used again.
struct OnDevice {
    encoder: Encoder,
    encoded: Encoded,
}

/// What a text is made of, once special tokens are cut out.
#[derive(Debug, Clone, Copy)]
enum Segment {
    /// The so-many-th text of the [`Batch`].
    Plain(usize),
    Special(u32),
}

/// Texts that go to the device together.
#[derive(Default)]
struct Wave {
    segments: Vec<Segment>,
    /// For each text where its segments end; `None` if it is for the CPU.
    ends: Vec<Option<usize>>,
}

impl std::fmt::Debug for GpuTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = self.lock().encoder.device().name().to_owned();
        f.debug_struct("GpuTokenizer").field("kind", &self.inner.kind()).field("device", &device).finish()
    }
}

/// Properties of all characters as the kernels take them.
fn classes(pre: Pre) -> Vec<u8> {
    let of = |(code, &is): (usize, &u8)| {
        let symbol = u8::try_from(code).is_ok_and(|byte| DEFAULT_SYMBOLS.contains(&byte));
        let cut = match pre {
            Pre::Smollm => is & NUMBER != 0,
            Pre::Default => is & PUNCT != 0 || symbol,
            _ => false,
        };
        is & (unicode::LETTER | NUMBER | unicode::SPACE) | if cut { class::BREAK } else { 0 }
    };
    unicode::classes().iter().enumerate().map(of).collect()
}

// The kernels' names for what `unicode` has.
const _: () = assert!(unicode::LETTER == class::LETTER && NUMBER == class::NUMBER && unicode::SPACE == class::SPACE);

impl GpuTokenizer {
    /// Copies the tables of `inner` to `device`.
    ///
    /// # Errors
    /// See [`NotOnDevice`]: `inner` then stays as good as it is, on the CPU.
    pub fn new(device: &Arc<dyn Device>, inner: Arc<dyn Tokenizer>) -> Result<Self, NotOnDevice> {
        let Some(bpe) = inner.byte_level() else {
            return Err(NotOnDevice::NotByteLevel { kind: inner.kind(), device: device.name().to_owned() });
        };
        let (pre, words, pairs, bytes) = bpe.for_device();
        let rule = match pre {
            Pre::Gpt2 => Rule::Gpt2,
            Pre::Llama3 => Rule::Llama3,
            Pre::Qwen2 => Rule::Qwen2,
            Pre::Smollm => Rule::Smollm,
            Pre::Default => Rule::Default,
            _ => {
                let rule = inner.pre().unwrap_or_default().to_owned();
                return Err(NotOnDevice::NoRule { rule, device: device.name().to_owned() });
            }
        };
        let (Some(word_entries), Some(pair_entries)) = (words.entries(), pairs.entries()) else {
            return Err(NotOnDevice::Damaged { device: device.name().to_owned() });
        };
        let tables = Tables {
            rule,
            classes: &classes(pre),
            words: &word_entries,
            arena: words.arena(),
            pairs: &pair_entries,
            bytes,
        };
        let encoder = Encoder::new(device, &tables)?;
        let device = OnDevice { encoder, encoded: Encoded::default() };
        Ok(Self { inner, device: Mutex::new(device), batch_bytes: BATCH_BYTES })
    }

    /// With other runs than of [`BATCH_BYTES`] (at most [`MAX_BYTES`] count).
    #[must_use]
    pub fn with_batch_bytes(self, bytes: usize) -> Self {
        Self { batch_bytes: bytes.min(MAX_BYTES), ..self }
    }

    /// The tokenizer.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Tokenizer> {
        &self.inner
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OnDevice> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Tokenizer::encode_batch`], on the device where that is faster; says what was done.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_batch`]. What the device cannot do is done on the CPU, and [`Report::why_cpu`] says why.
    pub fn encode_batch_report(
        &self,
        texts: &[&str],
        opts: EncodeOptions,
        pool: &Pool,
    ) -> Result<(Vec<Vec<u32>>, Report), TokenizerError> {
        let (bytes, from) = (total(texts), BYTES_A_THREAD.saturating_mul(pool.threads()));
        let why = if bytes < from {
            WhyCpu::Small { bytes, from }
        } else {
            match self.encode_on_device(texts, opts, pool) {
                Ok(done) => return done,
                Err(error) => WhyCpu::Failed(error),
            }
        };
        let ids = self.inner.encode_batch(texts, opts, pool)?;
        Ok((ids, Report { bytes, why_cpu: Some(why), ..Report::default() }))
    }

    /// As [`GpuTokenizer::encode_batch_report`], on the device however few bytes there are.
    ///
    /// # Errors
    /// Outside, the device's; inside, those of [`Tokenizer::encode_batch`].
    #[allow(clippy::type_complexity)] // a result of the device around the one that every batch has
    pub fn encode_on_device(
        &self,
        texts: &[&str],
        opts: EncodeOptions,
        pool: &Pool,
    ) -> Result<Result<(Vec<Vec<u32>>, Report), TokenizerError>, CudaError> {
        let mut report = Report { bytes: total(texts), ..Report::default() };
        let mut out = Vec::with_capacity(texts.len());
        let mut rest = texts;
        let mut device = self.lock();
        let mut batch = Batch::default();
        while !rest.is_empty() {
            let started = Instant::now();
            let wave = self.fill(&mut batch, rest, opts);
            report.prepare += started.elapsed();
            let OnDevice { encoder, encoded } = &mut *device;
            report.times += encoder.run(&batch, encoded)?;
            let (now, later) = rest.split_at(wave.ends.len());
            let started = Instant::now();
            match self.collect(&wave, encoded, now, opts, pool, &mut report) {
                Ok(ids) => out.extend(ids),
                Err(error) => return Ok(Err(in_whole_batch(error, texts.len() - rest.len()))),
            }
            report.collect += started.elapsed();
            rest = later;
        }
        Ok(Ok((out, report)))
    }

    /// Puts the first of `texts` into `batch`: as many as go to the device at once, one at least.
    fn fill<'a>(&self, to: &mut Batch<'a>, texts: &[&'a str], opts: EncodeOptions) -> Wave {
        to.clear();
        let mut wave = Wave::default();
        for text in texts {
            if !wave.ends.is_empty() && to.bytes() + text.len() > self.batch_bytes {
                break;
            }
            let whole = match self.inner.byte_level() {
                Some(bpe) if text.len() <= self.batch_bytes => cut(bpe, text, opts, to, &mut wave.segments),
                _ => false,
            };
            wave.ends.push(whole.then_some(wave.segments.len()));
        }
        wave
    }

    /// The ids of the texts of `wave`.
    fn collect(
        &self,
        wave: &Wave,
        encoded: &Encoded,
        texts: &[&str],
        opts: EncodeOptions,
        pool: &Pool,
        report: &mut Report,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let special = self.inner.special();
        let (front, back) = (special.front(opts), special.back(opts));
        // Where the segments of a text start: where those of the last before it on the device ended.
        let mut starts = Vec::with_capacity(wave.ends.len());
        let mut at = 0;
        for end in &wave.ends {
            starts.push(at);
            at = end.unwrap_or(at);
        }
        let from_device = |index: usize| -> Option<Vec<u32>> {
            let segments = wave.segments.get(*starts.get(index)?..(*wave.ends.get(index)?)?)?;
            let plain = |s: &Segment| if let Segment::Plain(part) = *s { encoded.ids(part) } else { Some(&[][..]) };
            let n = segments.iter().try_fold(0, |n, s| Some(n + plain(s)?.len() + 1))?;
            let mut ids = Vec::with_capacity(n + 2);
            ids.extend(front);
            for segment in segments {
                match *segment {
                    Segment::Plain(_) => ids.extend_from_slice(plain(segment)?),
                    Segment::Special(id) => ids.push(id),
                }
            }
            ids.extend(back);
            Some(ids)
        };
        let done = AtomicUsize::new(0);
        let ids = batch(texts.len(), pool, &|index| match from_device(index) {
            Some(ids) => {
                done.fetch_add(1, Relaxed);
                Ok(ids)
            }
            None => self.inner.encode(texts.get(index).unwrap_or(&""), opts),
        })?;
        let long_texts = wave.ends.iter().filter(|end| end.is_none()).count();
        report.on_device += done.load(Relaxed);
        report.long_texts += long_texts;
        report.long_pieces += texts.len() - long_texts - done.load(Relaxed);
        Ok(ids)
    }
}

fn total(texts: &[&str]) -> usize {
    texts.iter().map(|text| text.len()).sum()
}

/// The segments of a text; the plain ones go into `to`. `false` if one does not fit.
fn cut<'a>(
    bpe: &BpeTokenizer,
    text: &'a str,
    opts: EncodeOptions,
    to: &mut Batch<'a>,
    segments: &mut Vec<Segment>,
) -> bool {
    let before = segments.len();
    let mut whole = true;
    bpe.split_special(text.as_bytes(), opts, |part| match part {
        Part::Text { text, .. } => {
            segments.push(Segment::Plain(to.len()));
            whole &= to.push(text);
        }
        Part::Special(id) => segments.push(Segment::Special(id)),
    });
    if !whole {
        segments.truncate(before);
    }
    whole
}

/// An error of a wave's batch, with the index that the text has among all.
fn in_whole_batch(error: TokenizerError, before: usize) -> TokenizerError {
    match error {
        TokenizerError::InBatch { index, error } => TokenizerError::InBatch { index: before + index, error },
        other => other,
    }
}

impl Tokenizer for GpuTokenizer {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        self.inner.encode_bytes(bytes, opts)
    }

    fn encode_batch(&self, texts: &[&str], opts: EncodeOptions, pool: &Pool) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let (ids, report) = self.encode_batch_report(texts, opts, pool)?;
        if let Some(why @ WhyCpu::Failed(_)) = report.why_cpu {
            tracing::warn!("{why}");
        }
        Ok(ids)
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        self.inner.token_bytes(id, special)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        self.inner.decode(ids, skip_special)
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn special(&self) -> &SpecialTokens {
        self.inner.special()
    }

    fn is_eog(&self, id: u32) -> bool {
        self.inner.is_eog(id)
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn pre(&self) -> Option<&str> {
        self.inner.pre()
    }

    fn byte_level(&self) -> Option<&BpeTokenizer> {
        self.inner.byte_level()
    }

    fn adds_prefix_space(&self) -> bool {
        self.inner.adds_prefix_space()
    }
}
