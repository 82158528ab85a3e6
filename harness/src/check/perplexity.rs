//! `perplexity`: how well the model predicts a fixed text, equal to the golden figure in all its digits. The oracle, which is slow, is
//! asked the beginning of the text, unless it blesses: the digests hold that its logits are those of the other devices.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::golden::{Mode, ORACLE_DEVICE};
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::inference::{Perplexity, perplexity};
use bitnet_golden::texts;

pub struct PerplexityCheck;

impl Check for PerplexityCheck {
    fn name(&self) -> &'static str {
        "perplexity"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        let passage = texts::passage(&ctx.paths.golden)?;
        let ask = |characters: usize, part: &str| -> Result<Perplexity, Failure> {
            let text: String = passage.chars().take(characters).collect();
            let mut session = models::session(&loaded, models::kernels(cell)?, 1, 32, usize::MAX)?;
            let found = perplexity(&mut session, &*loaded.tokenizer, &text, &mut |_, _| {})?;
            // The exact sum, and what people read.
            let (tokens, nats, bits) = (found.tokens, found.nats, found.bits_per_token);
            ctx.assert_golden(cell, part, &format!("{tokens} tokens, {nats:?} nats, {bits:.4} bits per token"))?;
            Ok(found)
        };
        let start = plan.perplexity_start_characters;
        let slow = cell.device == ORACLE_DEVICE && start > 0;
        let begun = if slow { Some(ask(start, "start")?) } else { None };
        let result = match begun {
            Some(begun) if ctx.golden.mode() == Mode::Compare => begun,
            _ => ask(plan.perplexity_characters, "")?,
        };
        Ok(Metrics::new()
            .with("tokens", result.tokens)
            .with("perplexity", result.perplexity)
            .with("bits_per_token", result.bits_per_token)
            .with("bits_per_character", result.bits_per_character)
            .ran(models::kernels(cell)?.name())
            .of_model(loaded.file.content_hash()))
    }
}
