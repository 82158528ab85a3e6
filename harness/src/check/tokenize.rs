//! `tokenize`: texts of many scripts give the golden ids, the ids give the texts back, and where another implementation
//! recorded its ids they are the same.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::tokenizer::gpu::GpuTokenizer;
use bitnet_engine::tokenizer::{EncodeOptions, StreamDecoder, Tokenizer};
use bitnet_golden::texts;
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::text;
use serde::Serialize;
use std::sync::Arc;

pub struct Tokenize;

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    ids: String,
}

impl Check for Tokenize {
    fn name(&self) -> &'static str {
        "tokenize"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let tokenizer = &*loaded.tokenizer;
        let strings = texts::strings(&ctx.paths.golden)?;
        let plain = EncodeOptions { add_special: false, parse_special: false };
        let recorded = texts::recorded_ids(&ctx.paths.golden, &cell.model)?;
        let all: Vec<&str> = strings.iter().chain(recorded.iter().map(|(text, _)| text)).map(String::as_str).collect();
        let device = models::device(cell)?;
        let ids = match &device.card {
            None => on_cpu(device.name(), tokenizer, &all, plain)?,
            Some(card) => on_device(card, &loaded.tokenizer, &all, plain)?,
        };
        let (of_strings, of_recorded) = ids.split_at(strings.len());
        let mut lines = Vec::new();
        for (text, ids) in strings.iter().zip(of_strings) {
            round_trip(tokenizer, text, ids)?;
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            lines.push(Line { text, ids: ids.join(" ") });
        }
        ctx.assert_golden_json(cell, "", &lines)?;
        for ((text, expected), ids) in recorded.iter().zip(of_recorded) {
            if ids != expected {
                return Err(Failure::new(format_args!("{text:?}: {ids:?}, the recorded reference has {expected:?}")));
            }
        }
        let metrics = Metrics::new()
            .with("texts", strings.len())
            .with("reference_texts", recorded.len())
            .with("tokenizer", tokenizer.kind().to_owned());
        // On the CPU these are the instructions that look at text, not kernels.
        Ok(if device.card.is_some() { metrics.ran(device.name()) } else { metrics })
    }
}

/// The ids of texts by the instructions of a CPU device, if text has a set of its own there. A long text, which takes another way
/// through the tokenizer, has the same ids by all of them.
fn on_cpu(
    device: &str,
    tokenizer: &dyn Tokenizer,
    texts: &[&str],
    options: EncodeOptions,
) -> Result<Vec<Vec<u32>>, Failure> {
    let sets = || text::sets().iter().filter_map(|set| (set.detect)().ok());
    let set = sets().find(|set| device.strip_prefix("cpu-") == Some(set.name)).unwrap_or_else(text::best);
    let long = texts.concat().repeat(1 + LONG / texts.iter().map(|text| text.len()).sum::<usize>().max(1));
    let ids = text::with(set, || tokenizer.encode(&long, options))?;
    for other in sets() {
        if text::with(other, || tokenizer.encode(&long, options))? != ids {
            return Err(Failure::new(format_args!(
                "a long text has other ids by `{}` than by `{}`",
                set.name, other.name
            )));
        }
    }
    Ok(text::with(set, || texts.iter().map(|text| tokenizer.encode(text, options)).collect::<Result<Vec<_>, _>>())?)
}

/// Bytes of a text that is long.
const LONG: usize = 16 << 10;

/// The ids of texts by a card, which must make all of them itself.
fn on_device(
    card: &Arc<dyn Device>,
    tokenizer: &Arc<dyn Tokenizer>,
    texts: &[&str],
    options: EncodeOptions,
) -> Result<Vec<Vec<u32>>, Failure> {
    let gpu = GpuTokenizer::new(card, Arc::clone(tokenizer))?;
    let (ids, report) = gpu.encode_on_device(texts, options, &*models::pool(1)?)??;
    if report.on_device != texts.len() {
        return Err(Failure::new(format_args!(
            "the device encoded {} of {} texts: {} have a piece that is too long for it, {} are too long themselves",
            report.on_device,
            texts.len(),
            report.long_pieces,
            report.long_texts
        )));
    }
    Ok(ids)
}

/// Decoding gives the text back, at once and token by token.
fn round_trip(tokenizer: &dyn Tokenizer, text: &str, ids: &[u32]) -> Result<(), Failure> {
    let decoded = tokenizer.decode(ids, true);
    if decoded != text.as_bytes() {
        let decoded = String::from_utf8_lossy(&decoded);
        return Err(Failure::new(format_args!("{text:?} comes back as {decoded:?} from {ids:?}")));
    }
    let mut stream = StreamDecoder::at_text_start(tokenizer);
    let mut streamed: String = ids.iter().map(|&id| stream.push_token(tokenizer, id)).collect();
    streamed.push_str(&stream.finish());
    if streamed != text {
        return Err(Failure::new(format_args!("{text:?} is streamed as {streamed:?}")));
    }
    Ok(())
}
