//! `digest`: the bits of all logits of a fixed text, for several numbers of threads and chunk sizes.
//!
//! Every run is held against the one snapshot, so a run proves its own threads and chunk size and needs no other beside it.
//! Each cell runs single tokens, chunks of seven, and either chunks of 64 or the whole text; the numbers of threads go round
//! from cell to cell, so that the cells of a device together run every pair. The oracle and the emulation of a card run one pair in
//! a cell. Slow devices compute the beginning of the text, which has a snapshot of its own: the emulation, and the oracle where
//! `golden/texts/plan.toml` says so.
//!
//! A cell that fails asks the oracle before anybody blesses: if `cpu-scalar` meets the golden bits, the device is wrong, and
//! the first step of the plan whose bits differ is named ([`crate::check::place`]).

use super::{Check, Context, Failure, place};
use crate::axes::Cell;
use crate::golden::{Mode, ORACLE_DEVICE};
use crate::metrics::Metrics;
use crate::models::{self, digest, ids};
use bitnet_engine::device::{self, Opened};
use bitnet_engine::load::Loaded;
use bitnet_golden::texts;

pub struct Digest;

pub const THREADS: [usize; 3] = [1, 2, 4];
pub const CHUNKS: [usize; 4] = [1, 7, 64, 512];

/// The part of the snapshot that is about the beginning of the text.
const START: &str = "start";

impl Check for Digest {
    fn name(&self) -> &'static str {
        "digest"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        let ids = ids(&loaded, &texts::passage(&ctx.paths.golden)?, plan.digest_tokens)?;
        let opened = models::device(cell)?;
        let start = &ids[..plan.start_tokens.min(ids.len())];
        let (emulated, oracle) = (cell.device == EMULATED, cell.device == ORACLE_DEVICE);
        let blessing = ctx.golden.mode() == Mode::Bless;
        let mut runs = runs(cell, ids.len());
        let mut found = Vec::new();
        let short = start.len() < ids.len() && (emulated || oracle && plan.starts_only(&cell.quant));
        // The oracle writes what the emulation is held against.
        if short || oracle && start.len() < ids.len() && ctx.is_declared(cell, EMULATED) {
            found.push(held(ctx, cell, &Stage { loaded: &loaded, device: &opened, ids: start, part: START }, &runs)?);
        }
        if !short || blessing {
            if emulated {
                // Beyond the first positions the chunks of seven show nothing that the other cells' do not.
                runs = vec![(1, 64)];
            }
            if blessing {
                runs = vec![(1, 1), (2, 7), (1, 512)];
            }
            found.push(held(ctx, cell, &Stage { loaded: &loaded, device: &opened, ids: &ids, part: "" }, &runs)?);
        }
        let pairs: Vec<String> = runs.iter().map(|(threads, chunk)| format!("{threads}x{chunk}")).collect();
        Ok(Metrics::new()
            .with("digest", found.join("; "))
            .with("threads_by_chunk", pairs.join(" "))
            .ran(opened.name())
            .of_model(loaded.file.content_hash()))
    }
}

const EMULATED: &str = device::cuda::EMULATED;

/// The pairs of threads and chunk that a cell runs over a text of so many tokens.
pub fn runs(cell: &Cell, tokens: usize) -> Vec<(usize, usize)> {
    // Threads for each chunk size. Four threads for single tokens are slow on a small machine, so few cells run them.
    const ROUND: [[usize; 4]; 3] = [[1, 2, 4, 1], [2, 4, 1, 2], [4, 1, 2, 4]];
    let seed = super::seed(cell);
    let turn = seed % 8;
    let threads = ROUND[if turn == 0 { 2 } else { (turn % 2) as usize }];
    let pairs = threads.into_iter().zip(CHUNKS);
    // A chunk that holds the whole text is one chunk, however large. Where both a large chunk with a rest and the whole text can be
    // run, cells take turns.
    let whole = CHUNKS.into_iter().find(|chunk| *chunk >= tokens).unwrap_or(usize::MAX);
    let other = if (seed / 8).is_multiple_of(2) { CHUNKS[2] } else { CHUNKS[3] };
    let pairs =
        pairs.filter(|(_, chunk)| *chunk <= whole && (whole < CHUNKS[3] || *chunk < CHUNKS[2] || *chunk == other));
    match cell.device.as_str() {
        // A chunk and a rest, or all at once: the cells take turns.
        EMULATED => vec![(1, if turn.is_multiple_of(2) { CHUNKS[1] } else { CHUNKS[2] })],
        // Its threads are none of ours.
        name if device::cuda::index(name).is_some() => pairs.map(|(_, chunk)| (1, chunk)).collect(),
        // Its threads do nothing of their own, and every device is held against what it gave.
        ORACLE_DEVICE => pairs.skip((turn % 2) as usize).take(1).collect(),
        _ => pairs.collect(),
    }
}

/// What a snapshot is about.
struct Stage<'a> {
    loaded: &'a Loaded,
    device: &'a Opened,
    ids: &'a [u32],
    part: &'a str,
}

/// Holds the digest of each run against the snapshot. One that differs on another device than the oracle's is shown to the oracle.
fn held(ctx: &Context, cell: &Cell, stage: &Stage<'_>, runs: &[(usize, usize)]) -> Result<String, Failure> {
    let Stage { loaded, device, ids, part } = *stage;
    let text = |digest: String| format!("{} tokens: {digest}", ids.len());
    if ctx.golden.mode() == Mode::Bless {
        let text = text(consistent(loaded, device, ids, runs)?);
        ctx.assert_golden(cell, part, &text)?;
        return Ok(text);
    }
    let mut golden = None;
    for &run in runs {
        let found = text(digest(loaded, device, ids, run.0, run.1)?);
        let Err(failure) = ctx.assert_golden(cell, part, &found) else {
            golden = Some(found);
            continue;
        };
        if cell.device == ORACLE_DEVICE {
            return Err(failure);
        }
        let oracle: Opened = device::kernels(ORACLE_DEVICE)?.into();
        let told = text(digest(loaded, &oracle, ids, 1, run.1)?);
        let Failure { message, .. } = failure;
        return Err(Failure::new(match ctx.assert_golden(cell, part, &told) {
            Ok(()) => format!(
                "{ORACLE_DEVICE} meets the golden, so this device is wrong: do not bless\n  {} threads, chunks of {}: {}\n  {ORACLE_DEVICE}: {told}\n  {}: {found}",
                run.0,
                run.1,
                place::first_difference(loaded, (&oracle, device), ids, run)?,
                cell.device
            ),
            Err(_) if told == found => format!("{message}\n  {ORACLE_DEVICE} gives the same new bits as this device"),
            Err(_) => format!("{message}\n  {ORACLE_DEVICE} does not meet the golden either, and gives others: {told}"),
        }));
    }
    golden.ok_or_else(|| Failure::new("no run was asked for"))
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
