//! What a reference is asked about a model: the same whoever answers, and whenever.

use crate::axes::Cell;
use crate::context::Context;
use crate::failure::Failure;
use crate::golden::ORACLE_DEVICE;
use crate::models;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::{self, EncodeOptions, Tokenizer};
use bitnet_golden::matrix::Source;
use bitnet_golden::texts;
use std::sync::Arc;

/// Tokens of the context that both sides allocate: more than any question has. It decides which rotary factors count where a
/// model has two sets of them.
pub const CONTEXT: usize = 256;

/// Tokens of the passage that are a prompt, besides the prompts that the plan has for a model.
const PROMPT: usize = 8;

/// The questions about one model file.
#[derive(Debug, Clone)]
pub struct Questions {
    /// Texts whose ids are asked, each twice: bare, and with special tokens put around it and read in it.
    pub texts: Vec<String>,
    /// Sequences whose logits are asked at every position. None for a vocabulary without a model.
    pub passages: Vec<Vec<u32>>,
    /// Sequences to go on from.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens of each continuation.
    pub new_tokens: usize,
}

/// A model file and what is asked about it.
#[derive(Clone)]
pub struct Subject {
    pub file: GgufFile,
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Whether it is a vocabulary without weights.
    pub vocabulary_only: bool,
    pub questions: Questions,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("file", &self.file).field("questions", &self.questions).finish_non_exhaustive()
    }
}

/// What the checks of a cell ask: everything of [`subject`], but of the oracle, which is slow, one continuation and the beginnings of
/// the others. It has the bits of the other devices (the check `digest`), so what it would say of the rest they say.
pub fn asked(ctx: &Context, cell: &Cell) -> Result<Subject, Failure> {
    let mut subject = subject(ctx, cell)?;
    if cell.device == ORACLE_DEVICE {
        let Questions { passages, prompts, new_tokens, .. } = &mut subject.questions;
        passages.iter_mut().for_each(|ids| ids.truncate(2 * PROMPT));
        prompts.truncate(1);
        *new_tokens = PROMPT.min(*new_tokens);
    }
    Ok(subject)
}

/// How a text is encoded: bare, or with everything special.
pub fn options(special: bool) -> EncodeOptions {
    EncodeOptions { add_special: special, parse_special: special }
}

/// The subject of a cell.
///
/// # Errors
/// The model cannot be made or loaded, or is too short of text.
pub fn subject(ctx: &Context, cell: &Cell) -> Result<Subject, Failure> {
    let model = ctx.model(cell)?;
    let texts = texts::strings(&ctx.paths.golden)?;
    let passage = texts::passage(&ctx.paths.golden)?;
    if let Source::Vocabulary { vocabulary, difference } = &model.source {
        let file = models::file(ctx, model, &cell.quant)?;
        let tokenizer = tokenizer::from_gguf(file.metadata())?.tokenizer;
        let texts = match difference {
            Some(name) => vec![models::known_difference(ctx, name, vocabulary)?.text],
            None => texts.into_iter().chain([passage]).collect(),
        };
        let questions = Questions { texts, passages: Vec::new(), prompts: Vec::new(), new_tokens: 0 };
        return Ok(Subject { file, tokenizer, vocabulary_only: true, questions });
    }
    let loaded = models::loaded(ctx, cell)?;
    let plan = texts::plan(&ctx.paths.golden, &cell.model)?;
    let ids = models::ids(&loaded, &passage, plan.reference_tokens)?;
    let mut prompts = vec![ids.iter().copied().take(PROMPT).collect::<Vec<u32>>()];
    for prompt in &plan.prompts {
        prompts.push(loaded.tokenizer.encode(prompt, EncodeOptions { add_special: true, parse_special: false })?);
    }
    let questions = Questions { texts, passages: vec![ids], prompts, new_tokens: plan.reference_new_tokens };
    Ok(Subject { file: loaded.file, tokenizer: loaded.tokenizer, vocabulary_only: false, questions })
}
