//! `digest`: the bits of all logits of a fixed text, for every number of threads and every chunk size.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::golden::ORACLE_DEVICE;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::device::{self, Opened};
use bitnet_engine::inference::Want;
use bitnet_engine::load::Loaded;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_golden::texts;
use sha2::{Digest as _, Sha256};

/// The check.
pub struct Digest;

const THREADS: [usize; 3] = [1, 2, 4];
const CHUNKS: [usize; 4] = [1, 7, 64, 512];

impl Check for Digest {
    fn name(&self) -> &'static str {
        "digest"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        let ids = ids(&loaded, &texts::passage(&ctx.paths.golden)?, plan.digest_tokens)?;
        let opened = models::device(cell)?;
        let runs: Vec<(usize, usize)> = match &opened.card {
            // Slow; single tokens are what `greedy` asks.
            Some(_) if cell.device == device::cuda::EMULATED => vec![(1, 7), (1, 64)],
            // Its threads are none of ours.
            Some(_) => CHUNKS.map(|chunk| (1, chunk)).to_vec(),
            // The oracle is slow and its threads do nothing of their own: the corners are enough.
            None if cell.device == ORACLE_DEVICE => vec![(1, 1), (2, 7)],
            None => THREADS.into_iter().flat_map(|t| CHUNKS.map(|c| (t, c))).collect(),
        };
        let digest = consistent(&loaded, &opened, &ids, &runs)?;
        ctx.assert_golden(cell, "", &format!("{} tokens: {}", ids.len(), digest))?;
        Ok(Metrics::new()
            .with("tokens", ids.len())
            .with("runs", runs.len())
            .with("digest", digest)
            .ran(opened.name())
            .of_model(loaded.file.content_hash()))
    }
}

/// The first `limit` tokens of a text, the beginning-of-sequence token included.
///
/// # Errors
/// The text is shorter than that, or cannot be encoded.
pub fn ids(loaded: &Loaded, text: &str, limit: usize) -> Result<Vec<u32>, Failure> {
    let mut ids = loaded.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?;
    ids.truncate(limit);
    if ids.len() < limit || limit < 2 {
        return Err(Failure::new(format_args!(
            "the passage has {} tokens, {limit} (at least 2) are needed",
            ids.len()
        )));
    }
    Ok(ids)
}

/// The one digest that all runs of (threads, chunk) give.
///
/// # Errors
/// Two runs give other bits, or the tokens cannot be computed.
pub fn consistent(loaded: &Loaded, device: &Opened, ids: &[u32], runs: &[(usize, usize)]) -> Result<String, Failure> {
    let mut first: Option<(String, (usize, usize))> = None;
    for &(threads, chunk) in runs {
        let found = digest(loaded, device, ids, threads, chunk)?;
        match &first {
            None => first = Some((found, (threads, chunk))),
            Some((expected, _)) if *expected == found => {}
            Some((_, (t0, c0))) => {
                return Err(Failure::new(format_args!(
                    "{threads} threads and chunks of {chunk} give other bits than {t0} threads and chunks of {c0}"
                )));
            }
        }
    }
    first.map(|(digest, _)| digest).ok_or_else(|| Failure::new("no run was asked for"))
}

/// SHA-256 over the logits of every position, as little-endian f32.
///
/// # Errors
/// The tokens cannot be computed.
pub fn digest(loaded: &Loaded, device: &Opened, ids: &[u32], threads: usize, chunk: usize) -> Result<String, Failure> {
    let mut session = models::session(loaded, device.clone(), threads, chunk, ids.len())?;
    let mut hash = Sha256::new();
    session.forward(ids, Want::All, &mut |_, logits| {
        for logit in logits {
            hash.update(logit.to_le_bytes());
        }
    })?;
    Ok(hex::encode(hash.finalize()))
}
