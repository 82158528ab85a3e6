//! `tokenize`: texts of many scripts give the golden ids, the ids give the texts back, and where another implementation
//! recorded its ids they are the same.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::tokenizer::{EncodeOptions, StreamDecoder, Tokenizer};
use bitnet_golden::texts;
use serde::Serialize;

/// The check.
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
        let mut lines = Vec::new();
        for text in &strings {
            let ids = tokenizer.encode(text, plain)?;
            round_trip(tokenizer, text, &ids)?;
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            lines.push(Line { text, ids: ids.join(" ") });
        }
        ctx.assert_golden_json(cell, "", &lines)?;
        let recorded = texts::recorded_ids(&ctx.paths.golden, &cell.model)?;
        for (text, expected) in &recorded {
            let ids = tokenizer.encode(text, plain)?;
            if ids != *expected {
                return Err(Failure::new(format_args!("{text:?}: {ids:?}, the recorded reference has {expected:?}")));
            }
        }
        Ok(Metrics::new()
            .with("texts", strings.len())
            .with("reference_texts", recorded.len())
            .with("tokenizer", tokenizer.kind().to_owned()))
    }
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
