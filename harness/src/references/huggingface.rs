//! The third opinion where a reference and we disagree about ids: the crate `tokenizers`, on the vocabulary as it was
//! published.

use crate::axes::Cell;
use crate::context::Context;
use crate::{models, vocabularies};
use bitnet_golden::matrix::Source;
use std::str::FromStr;

/// The bare ids of a text, special tokens not read. `None` for models whose vocabulary is not a published one.
pub fn ids(ctx: &Context, cell: &Cell, text: &str) -> Option<Vec<u32>> {
    let model = ctx.matrix.model(&cell.model)?;
    let vocabulary = match (&model.source, cell.model.as_str()) {
        (Source::Vocabulary { .. }, _) => models::vocabulary(ctx, model).ok()?,
        (_, "tiny-bitnet" | "tiny-bitnet-silu") => vocabularies::by_name("tiny-bitnet")?.load(&ctx.paths).ok()?,
        (_, "smollm2-135m") => vocabularies::by_name("smollm2")?.load(&ctx.paths).ok()?,
        _ => return None,
    };
    let mut tokenizer = tokenizers::Tokenizer::from_str(&vocabulary.json.to_string()).ok()?;
    tokenizer.set_encode_special_tokens(true);
    Some(tokenizer.encode_fast(text, false).ok()?.get_ids().to_vec())
}
