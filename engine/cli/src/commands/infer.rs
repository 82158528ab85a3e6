//! `bitnet infer`: one prompt, streamed; or many from a file (`many`).

mod many;
mod request;

use super::{Format, print_json};
use crate::common::{self, RunArgs};
use crate::generation::{GenerationArgs, timings, write};
use crate::memory::Memory;
use crate::output::{counted, say};
use bitnet_engine::chat::prompt::{self, Input, Prompt, PromptOptions};
use bitnet_engine::chat::{Message, PromptTemplate};
use bitnet_engine::inference::{Generation, StopReason, extend};
use bitnet_engine::load::Loaded;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::Diagnostic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most tokens, if nothing is said.
const MAX_TOKENS: usize = 128;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet infer --prompt \"In the beginning\" --max-tokens 60 --seed 1\n  bitnet infer --model model.gguf --prompt \"Why is the sky blue?\" --temperature 0\n  bitnet infer --model model.gguf --prompt \"Once upon a time\" --prompt-template raw\n  bitnet infer --model model.gguf --prompt-file question.txt --format json\n  bitnet infer --model model.gguf --input-file questions.jsonl --output answers.jsonl\n  bitnet infer --model bare.gguf --prompt \"Hello\" --auto-download"
)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// The text to continue, or the question to answer.
    #[arg(short, long, conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with the prompt; `-` is stdin, which is also read if neither is given.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Many prompts instead, each a line of JSON (`-` is stdin): `prompt` or `messages` (each with `role` and `content`, a text or a list of text parts), and what of it differs from the arguments: `system`, `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `stop`; `id` is repeated in the answer.
    #[arg(long, value_name = "FILE", requires = "output", conflicts_with_all = ["prompt", "prompt_file", "no_echo", "format"])]
    input_file: Option<PathBuf>,
    /// Where their answers go, a line of JSON each, in order; `-` is stdout. Lines that are there already are kept, if they answer the same input under the same arguments; the run goes on after them.
    #[arg(long, value_name = "FILE", requires = "input_file")]
    output: Option<PathBuf>,
    #[command(flatten)]
    generation: GenerationArgs,
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
    /// In JSON only: the system goes through all pages to say it.
    memory: Option<Memory>,
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
        if let (Some(input), Some(output)) = (&self.input_file, &self.output) {
            return self.many(input, output, settings);
        }
        let prompt = common::text(self.prompt.as_deref(), self.prompt_file.as_deref(), "prompt")?;
        anyhow::ensure!(!prompt.is_empty(), "the prompt is empty: give some text to continue or to answer");
        let compute = self.run.compute.start(settings)?;
        let (mut loaded, load_time) = self.run.load_for(&compute, settings, true)?;
        // Nobody asks the embedded model a question.
        let tell = self.generation.prompt_template.is_some() || loaded.file.path().is_some();
        let template = self.generation.template(&loaded, tell)?;
        let Prompt { text, ids, .. } = self.wrap(&template, &prompt, &loaded, settings)?;
        let session = self.run.compute.session(&loaded, &compute, self.generation.head)?;

        let seed = settings.seed(self.generation.seed);
        let options = self.generation.options(&template, &loaded, seed, MAX_TOKENS)?;
        let cancel = common::on_interrupt()?;
        let mut settled = common::settle(&mut loaded, session, &ids)?;
        let (session, tokenizer) = (&mut settled.session, &*loaded.tokenizer);
        let streaming = self.format == Format::Text;
        let echo = streaming && !self.no_echo && template == PromptTemplate::Raw;
        // Echoed with the first new text: before that the prompt may still prove too long, and stdout is for results.
        let mut before = if echo { prompt.as_str() } else { "" };
        // A closed pipe ends the generation; the error is looked at when it is over.
        let mut written = Ok(());
        let mut generation = extend(session, tokenizer, &ids, &options, &cancel, &mut |piece| {
            if streaming && written.is_ok() {
                written = write(std::mem::take(&mut before)).and_then(|()| write(piece));
                if written.is_err() {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
        })?;
        settled.count(&mut generation.timings);
        if streaming {
            written.and_then(|()| write(before)).and_then(|()| write("\n"))?;
        }
        let report = Report {
            model: self.run.name(settings),
            architecture: &loaded.model.config.architecture,
            device: compute.device(),
            threads: compute.pool.threads(),
            tokenizer: loaded.strategy.description(),
            template: template.name(),
            seed,
            prompt: &text,
            prompt_tokens: &ids,
            load_seconds: load_time.as_secs_f64(),
            memory: (!streaming).then(|| Memory::now(&loaded.model.weights)),
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

    fn wrap(
        &self,
        template: &PromptTemplate,
        prompt: &str,
        loaded: &Loaded,
        settings: &Settings,
    ) -> anyhow::Result<Prompt> {
        let mut messages: Vec<Message> = self.generation.system.iter().map(Message::system).collect();
        messages.push(Message::user(prompt));
        let options = PromptOptions { template, parse_special: self.generation.parse_special, clock: settings.clock() };
        Ok(prompt::prompt(&*loaded.tokenizer, Input::Messages(&messages), options)?)
    }
}

fn summary(report: &Report<'_>, load: Duration) -> String {
    format!(
        "[{} on {}, {}, seed {} | load {:.0} ms | {} | {}]",
        report.model,
        report.device,
        counted(report.threads, "thread"),
        report.seed,
        load.as_secs_f64() * 1e3,
        timings(&report.generation.timings),
        match report.generation.stop {
            StopReason::EndOfGeneration => "end of generation",
            StopReason::MaxTokens => "--max-tokens reached",
            StopReason::StopText => "stop text or token",
            StopReason::ContextFull => "context full",
            StopReason::Cancelled => "cancelled",
        }
    )
}
