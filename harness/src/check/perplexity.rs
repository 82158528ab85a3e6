//! `perplexity`: how well the model predicts a fixed text, equal to the golden figure in all its digits.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::inference::perplexity;
use bitnet_golden::texts;

pub struct Perplexity;

impl Check for Perplexity {
    fn name(&self) -> &'static str {
        "perplexity"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let loaded = models::loaded(ctx, cell)?;
        let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
        let passage = texts::passage(&ctx.paths.golden)?;
        let text: String = passage.chars().take(plan.perplexity_characters).collect();
        let mut session = models::session(&loaded, models::kernels(cell)?, 1, 32, usize::MAX)?;
        let result = perplexity(&mut session, &*loaded.tokenizer, &text, &mut |_, _| {})?;
        // The exact sum, and what people read.
        ctx.assert_golden(
            cell,
            "",
            &format!("{} tokens, {:?} nats, {:.4} bits per token", result.tokens, result.nats, result.bits_per_token),
        )?;
        Ok(Metrics::new()
            .with("tokens", result.tokens)
            .with("perplexity", result.perplexity)
            .with("bits_per_token", result.bits_per_token)
            .with("bits_per_character", result.bits_per_character)
            .ran(models::kernels(cell)?.name())
            .of_model(loaded.file.content_hash()))
    }
}
