//! `bitnet infer`

use super::{Format, print_json};
use crate::common::{self, ComputeArgs, ModelArgs, TokenizerArgs};
use crate::memory::Memory;
use crate::output::say;
use anyhow::Context;
use bitnet_engine::chat::prompt::{self, Input, Prompt, PromptOptions};
use bitnet_engine::chat::source::{self, Wanted};
use bitnet_engine::chat::{Message, PromptTemplate};
use bitnet_engine::inference::{
    GenerateOptions, Generation, Head, MAX_DRAFT, SamplerOptions, Screening, Speculation, StopReason, generate,
};
use bitnet_engine::load::Loaded;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::Diagnostic;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet infer --prompt \"In the beginning\" --max-tokens 60 --seed 1\n  bitnet infer --model model.gguf --prompt \"Why is the sky blue?\" --temperature 0\n  bitnet infer --model model.gguf --prompt \"Once upon a time\" --prompt-template raw\n  bitnet infer --model model.gguf --prompt-file question.txt --format json\n  bitnet infer --model bare.gguf --prompt \"Hello\" --auto-download"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// The text to continue, or the question to answer.
    #[arg(short, long, conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with the prompt; `-` is stdin, which is also read if neither is given.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// A system message, for templates that know one.
    #[arg(long)]
    system: Option<String>,
    /// How the prompt is wrapped: auto (the model's own chat template, raw if it has none), raw (not at all: the text is continued), instruct, llama3-chat, or the name of one of the model's templates [default: auto].
    #[arg(long, value_name = "NAME")]
    prompt_template: Option<String>,
    /// A Jinja template to use, or a tokenizer_config.json with one.
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,
    /// Read control tokens that are spelled out in the prompt as those tokens, also without a template.
    #[arg(long)]
    parse_special: bool,
    /// Most tokens to make.
    #[arg(short = 'n', long, default_value_t = 128)]
    max_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    /// Choose among the k most likely tokens (0: all).
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Choose among the most likely tokens that together reach this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Leave out tokens below this share of the most likely one's probability.
    #[arg(long, default_value_t = 0.05)]
    min_p: f32,
    /// Make recent tokens less likely (1: off) [default: 1.1, or off at temperature 0].
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Repeats the text exactly [default: $BITNET_SEED, else a new one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// End before this text, or at the control token that it spells; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// End at this token; may be given several times.
    #[arg(long, value_name = "N")]
    stop_id: Vec<u32>,
    /// Go on after the end of the model's answer.
    #[arg(long)]
    ignore_eos: bool,
    /// The output matrix: screened computes only the logits that may be drawn; the text is the same.
    #[arg(long, default_value = "auto", value_name = "auto|whole|screened")]
    head: Head,
    /// Guess up to so many tokens ahead from what was said before and compute them in one pass (0: none); the text is the
    /// same, and comes sooner where it repeats itself or the prompt.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = drafts)]
    speculate: usize,
    /// Print only what the model adds, not the prompt that it continues.
    #[arg(long)]
    no_echo: bool,
    /// Output; json is one document at the end.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    model: String,
    architecture: &'a str,
    device: String,
    threads: usize,
    /// Where the tokenizer came from.
    tokenizer: String,
    template: &'a str,
    seed: u64,
    prompt: &'a str,
    prompt_tokens: &'a [u32],
    load_seconds: f64,
    memory: Memory,
    /// What is to be known of the model and its tokenizer.
    diagnostics: &'a [Diagnostic],
    #[serde(flatten)]
    generation: &'a Generation,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong, with its causes.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let prompt = common::text(self.prompt.as_deref(), self.prompt_file.as_deref(), "prompt")?;
        anyhow::ensure!(!prompt.is_empty(), "the prompt is empty: give some text to continue or to answer");
        let compute = self.compute.start(settings)?;
        let (loaded, load_time) = common::load_model(&self.model, &self.tokenizer, &self.compute, &compute, settings)?;
        let tokenizer = &*loaded.tokenizer;
        let template = self.template(&loaded)?;
        let Prompt { text, ids, .. } = self.wrap(&template, &prompt, &loaded, settings)?;
        let mut session = self.compute.session(&loaded, &compute, self.head)?;

        let seed = settings.seed(self.seed);
        let options = self.options(&template, &loaded, seed)?;
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancel);
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
        let streaming = self.format == Format::Text;
        let echo = streaming && !self.no_echo && template == PromptTemplate::Raw;
        // Echoed with the first new text: before that the prompt may still prove too long, and stdout is for results.
        let mut before = if echo { prompt.as_str() } else { "" };
        // A closed pipe ends the generation; the error is looked at when it is over.
        let mut written = Ok(());
        let generation = generate(&mut session, tokenizer, &ids, &options, &cancel, &mut |piece| {
            if streaming && written.is_ok() {
                written = write(std::mem::take(&mut before)).and_then(|()| write(piece));
                if written.is_err() {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
        })?;
        if streaming {
            written.and_then(|()| write(before)).and_then(|()| write("\n"))?;
        }
        let report = Report {
            model: common::model_name(&self.model, settings),
            architecture: &loaded.model.config.architecture,
            device: compute.device(),
            threads: compute.pool.threads(),
            tokenizer: loaded.strategy.description(),
            template: template.name(),
            seed,
            prompt: &text,
            prompt_tokens: &ids,
            load_seconds: load_time.as_secs_f64(),
            memory: Memory::now(&loaded.model.weights),
            diagnostics: &loaded.diagnostics,
            generation: &generation,
        };
        if !streaming {
            print_json(&report)?;
        }
        say(summary(&report, load_time));
        let cancelled = generation.stop == StopReason::Cancelled;
        Ok(if cancelled { ExitCode::from(130) } else { ExitCode::SUCCESS })
    }

    fn template(&self, loaded: &Loaded) -> anyhow::Result<PromptTemplate> {
        let name = self.prompt_template.as_deref();
        let model = loaded.file.path();
        let wanted = Wanted {
            name: name.unwrap_or("auto"),
            file: self.chat_template_file.as_deref(),
            model,
            // Nobody asks the embedded model a question.
            tell: name.is_some() || model.is_some(),
        };
        let choice = source::choose(wanted, loaded.file.metadata())?;
        common::print_diagnostics(&choice.diagnostics);
        Ok(choice.template)
    }

    fn wrap(
        &self,
        template: &PromptTemplate,
        prompt: &str,
        loaded: &Loaded,
        settings: &Settings,
    ) -> anyhow::Result<Prompt> {
        let mut messages: Vec<Message> = self.system.iter().map(Message::system).collect();
        messages.push(Message::user(prompt));
        let options = PromptOptions { template, parse_special: self.parse_special, clock: settings.clock() };
        Ok(prompt::prompt(&*loaded.tokenizer, Input::Messages(&messages), options)?)
    }

    fn options(&self, template: &PromptTemplate, loaded: &Loaded, seed: u64) -> anyhow::Result<GenerateOptions> {
        let tokenizer = &*loaded.tokenizer;
        if let Some(id) = self.stop_id.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
            anyhow::bail!("--stop-id {id}: the vocabulary has {} tokens, from 0", tokenizer.vocab_size());
        }
        let (ends, odd) = prompt::ends(tokenizer, template, loaded.file.metadata(), loaded.file.path());
        common::print_diagnostics(&odd);
        let stops = template.stops().iter().map(ToString::to_string);
        Ok(GenerateOptions {
            sampler: SamplerOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty.unwrap_or(if self.temperature == 0.0 { 1.0 } else { 1.1 }),
                seed,
                ..SamplerOptions::default()
            },
            max_tokens: Some(self.max_tokens),
            stop: self.stop.iter().cloned().chain(stops).collect(),
            stop_ids: self.stop_id.clone(),
            ends,
            ignore_eos: self.ignore_eos,
            speculate: self.speculate,
        })
    }
}

fn drafts(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n <= MAX_DRAFT => Ok(n),
        _ => Err(format!("expected 0 to {MAX_DRAFT} tokens")),
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn summary(report: &Report<'_>, load: Duration) -> String {
    let t = &report.generation.timings;
    format!(
        "[{} on {}, {} threads, seed {} | load {:.0} ms | prompt {} tokens, {:.1} ms, {:.0} tokens/s | {} new tokens, \
         {:.1} ms, {:.0} tokens/s{}{} | {}]",
        report.model,
        report.device,
        report.threads,
        report.seed,
        load.as_secs_f64() * 1e3,
        t.prompt_tokens,
        t.prefill.as_secs_f64() * 1e3,
        t.prefill_rate(),
        t.generated_tokens,
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
        match report.generation.stop {
            StopReason::EndOfGeneration => "end of generation",
            StopReason::MaxTokens => "--max-tokens reached",
            StopReason::StopText => "stop text or token",
            StopReason::ContextFull => "context full",
            StopReason::Cancelled => "cancelled",
        }
    )
}
