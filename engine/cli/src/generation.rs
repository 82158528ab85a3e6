//! What the commands that make text share: the template, how tokens are chosen, what ends a text.

use crate::common;
use crate::output::counted;
use bitnet_engine::chat::source::{self, Wanted};
use bitnet_engine::chat::{PromptTemplate, prompt};
use bitnet_engine::inference::{
    AUTO_DRAFT, GenerateOptions, Head, MAX_DRAFT, SamplerOptions, Screening, Speculation, Timings,
};
use bitnet_engine::load::Loaded;
use std::path::PathBuf;

/// How prompts are wrapped and texts are made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GenerationArgs {
    /// A system message, for templates that know one.
    #[arg(long)]
    pub system: Option<String>,
    /// How the prompt is wrapped: auto (the model's own chat template, raw if it has none), raw (not at all: the text is continued), instruct, llama3-chat, or the name of one of the model's templates [default: auto].
    #[arg(long, value_name = "NAME")]
    pub prompt_template: Option<String>,
    /// A Jinja template to use, or a tokenizer_config.json with one.
    #[arg(long, value_name = "FILE")]
    pub chat_template_file: Option<PathBuf>,
    /// Read control tokens that are spelled out in the prompt as those tokens, also without a template.
    #[arg(long)]
    pub parse_special: bool,
    /// Most tokens to make [default: 128; 1024 for an answer of chat].
    #[arg(short = 'n', long)]
    pub max_tokens: Option<usize>,
    /// 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.7)]
    pub temperature: f32,
    /// Choose among the k most likely tokens (0: all).
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Choose among the most likely tokens that together reach this probability.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Leave out tokens below this share of the most likely one's probability.
    #[arg(long, default_value_t = 0.05)]
    pub min_p: f32,
    /// Make recent tokens less likely (1: off) [default: 1.1, or off at temperature 0].
    #[arg(long)]
    pub repetition_penalty: Option<f32>,
    /// Repeats the text exactly [default: $BITNET_SEED, else a new one each time].
    #[arg(long)]
    pub seed: Option<u64>,
    /// End before this text, or at the control token that it spells; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// End at this token; may be given several times.
    #[arg(long, value_name = "N")]
    pub stop_id: Vec<u32>,
    /// Go on after the end of the model's answer.
    #[arg(long)]
    pub ignore_eos: bool,
    /// The output matrix: screened computes only the logits that may be drawn; the text is the same.
    #[arg(long, default_value = "auto", value_name = "auto|whole|screened")]
    pub head: Head,
    /// Guess up to so many tokens ahead from what was said before and compute them in one pass (0: none; auto: as many as pay, by
    /// what passes take on this machine); the text is the same, and comes sooner where it repeats itself or the prompt.
    #[arg(long, default_value = "0", value_name = "N|auto", value_parser = drafts)]
    pub speculate: usize,
}

impl GenerationArgs {
    /// The template; `tell` says whether it is worth a word that the model has none. Says what is odd.
    pub(crate) fn template(&self, loaded: &Loaded, tell: bool) -> anyhow::Result<PromptTemplate> {
        let wanted = Wanted {
            name: self.prompt_template.as_deref().unwrap_or("auto"),
            file: self.chat_template_file.as_deref(),
            model: loaded.file.path(),
            tell,
        };
        let choice = source::choose(wanted, loaded.file.metadata())?;
        common::print_diagnostics(&choice.diagnostics);
        Ok(choice.template)
    }

    /// How tokens are chosen.
    pub(crate) fn sampler(&self, seed: u64) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: repetition_penalty(self.repetition_penalty, self.temperature),
            seed,
            ..SamplerOptions::default()
        }
    }

    /// How a text is made: `max_tokens` where the arguments say nothing. Says what is odd about the model's end tokens.
    pub(crate) fn options(
        &self,
        template: &PromptTemplate,
        loaded: &Loaded,
        seed: u64,
        max_tokens: usize,
    ) -> anyhow::Result<GenerateOptions> {
        let tokenizer = &*loaded.tokenizer;
        if let Some(id) = self.stop_id.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
            anyhow::bail!("--stop-id {id}: the vocabulary has {} tokens, from 0", tokenizer.vocab_size());
        }
        let (ends, odd) = prompt::ends(tokenizer, template, loaded.file.metadata(), loaded.file.path());
        common::print_diagnostics(&odd);
        let stops = template.stops().iter().map(ToString::to_string);
        Ok(GenerateOptions {
            sampler: self.sampler(seed),
            max_tokens: Some(self.max_tokens.unwrap_or(max_tokens)),
            stop: self.stop.iter().cloned().chain(stops).collect(),
            stop_ids: self.stop_id.clone(),
            ends,
            ignore_eos: self.ignore_eos,
            speculate: self.speculate,
        })
    }
}

/// The penalty; at temperature 0 there is none unless it was asked for.
pub(crate) fn repetition_penalty(asked: Option<f32>, temperature: f32) -> f32 {
    asked.unwrap_or(if temperature == 0.0 { 1.0 } else { 1.1 })
}

fn drafts(text: &str) -> Result<usize, String> {
    if text == "auto" {
        return Ok(AUTO_DRAFT);
    }
    match text.parse() {
        Ok(n) if n <= MAX_DRAFT => Ok(n),
        _ => Err(format!("expected 0 to {MAX_DRAFT} tokens")),
    }
}

/// Times of a generation, for people.
pub(crate) fn timings(t: &Timings) -> String {
    format!(
        "prompt {}, {:.1} ms, {:.0} tokens/s | {}, {:.1} ms, {:.0} tokens/s{}{}",
        counted(t.prompt_tokens, "token"),
        t.prefill.as_secs_f64() * 1e3,
        t.prefill_rate(),
        counted(t.generated_tokens, "new token"),
        t.decode.as_secs_f64() * 1e3,
        t.decode_rate(),
        match t.screening {
            Screening { tokens: 0, .. } => String::new(),
            Screening { tokens, rows } => format!(" | head screened, {:.1} rows a token", rows as f64 / tokens as f64),
        },
        match t.speculation {
            Speculation { batches: 0, .. } => String::new(),
            Speculation { batches, drafted, accepted } => {
                format!(" | {accepted} of {drafted} guessed tokens were right, in {batches} passes")
            }
        },
    )
}

/// Writes a piece of text to stdout at once.
pub(crate) fn write(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
