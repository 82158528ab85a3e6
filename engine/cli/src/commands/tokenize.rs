//! `bitnet tokenize`

use super::print_json;
use crate::common::{self, AUTO, ModelArgs, TextArgs, TokenizerArgs};
use crate::output::say;
use crate::usage;
use anyhow::Context;
use bitnet_engine::device;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::gpu::{GpuTokenizer, NotOnDevice, OPENING_BYTES_A_THREAD};
use bitnet_engine::tokenizer::{EncodeOptions, Tokenizer};
use bitnet_kernels::Pool;
use bitnet_kernels::cuda::device::Device;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet tokenize --text \"Hello, world\"\n  bitnet tokenize --model model.gguf --text-file page.txt --format pieces\n  echo -n text | bitnet tokenize --no-bos\n  bitnet tokenize --text-file pages.txt --lines --device cuda"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Add no beginning- or end-of-sequence token.
    #[arg(long)]
    no_bos: bool,
    /// Read control tokens such as `<|endoftext|>` in the text as plain characters.
    #[arg(long)]
    no_special: bool,
    /// Every line is a text of its own, without its line break; the ids of each in a line.
    #[arg(long)]
    lines: bool,
    /// Where lines are encoded: auto (a card where there is enough text for it), cpu, cuda, cuda:N, or one that `bitnet devices`
    /// lists; the ids are the same [default: $BITNET_DEVICE, else auto].
    #[arg(long, requires = "lines", value_parser = common::device_name)]
    device: Option<String>,
    /// Threads that encode lines [default: $BITNET_THREADS, else one per processor].
    #[arg(short, long, requires = "lines", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Output.
    #[arg(long, value_enum, default_value_t = Output::Ids)]
    format: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The ids in one line.
    Ids,
    /// One token a line: id and text.
    Pieces,
    /// One JSON document.
    Json,
}

#[derive(serde::Serialize)]
struct Piece {
    id: u32,
    text: String,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let tokenizer = common::tokenizer(&self.model, &self.tokenizer, settings)?.tokenizer;
        let text = self.text.read()?;
        let options = EncodeOptions { add_special: !self.no_bos, parse_special: !self.no_special };
        if self.lines {
            return self.run_lines(&tokenizer, &text, options, settings);
        }
        let ids = tokenizer.encode(&text, options)?;
        let piece = |id: u32| {
            let bytes = tokenizer.token_bytes(id, true).unwrap_or_default();
            Piece { id, text: String::from_utf8_lossy(&bytes).into_owned() }
        };
        let mut out = std::io::stdout().lock();
        match self.format {
            Output::Ids => writeln!(out, "{}", line_of(&ids))?,
            Output::Pieces => {
                for p in ids.iter().map(|&id| piece(id)) {
                    writeln!(out, "{:>7} {:?}", p.id, p.text)?;
                }
            }
            Output::Json => {
                drop(out);
                let pieces: Vec<Piece> = ids.iter().map(|&id| piece(id)).collect();
                print_json(&serde_json::json!({
                    "tokenizer": tokenizer.kind(),
                    "pre": tokenizer.pre(),
                    "ids": ids,
                    "pieces": pieces,
                }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Every line for itself, on the device that was asked for.
    fn run_lines(
        &self,
        tokenizer: &Arc<dyn Tokenizer>,
        text: &str,
        options: EncodeOptions,
        settings: &Settings,
    ) -> anyhow::Result<ExitCode> {
        if self.format == Output::Pieces {
            return usage("--lines has no --format pieces; take ids or json");
        }
        let texts: Vec<&str> = text.lines().collect();
        let threads = common::threads(self.threads, settings);
        let pool = Pool::new(threads).with_context(|| format!("cannot start {threads} threads"))?;
        let card = self.card(text.len(), threads, settings)?;
        let on_card = card.map(|card| GpuTokenizer::new(&card, Arc::clone(tokenizer)));
        let (ids, report) = match on_card {
            Some(Ok(gpu)) => {
                let (ids, report) = gpu.encode_on_device(&texts, options, &pool)??;
                say(&report);
                (ids, Some(report))
            }
            Some(Err(reason @ NotOnDevice::NotByteLevel { .. })) => {
                say(&reason);
                (tokenizer.encode_batch(&texts, options, &pool)?, None)
            }
            Some(Err(error)) => return Err(error.into()),
            None => (tokenizer.encode_batch(&texts, options, &pool)?, None),
        };
        if self.format == Output::Ids {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            for ids in &ids {
                writeln!(out, "{}", line_of(ids))?;
            }
            out.flush()?;
        } else {
            print_json(&serde_json::json!({
                "tokenizer": tokenizer.kind(),
                "pre": tokenizer.pre(),
                "ids": ids,
                "device": report.map(|report| report.to_string()),
            }))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The card that was asked for; with `auto` one that is worth to be opened for so many bytes, if there is one.
    fn card(&self, bytes: usize, threads: usize, settings: &Settings) -> anyhow::Result<Option<Arc<dyn Device>>> {
        let name = self.device.as_deref().or(settings.device.as_deref()).unwrap_or(AUTO);
        if name != AUTO {
            return Ok(device::open(name, settings)?.card);
        }
        if bytes < OPENING_BYTES_A_THREAD.saturating_mul(threads) {
            return Ok(None);
        }
        match device::open(device::cuda::NAME, settings) {
            Ok(opened) => Ok(opened.card),
            Err(error) => {
                tracing::debug!(%error, "auto takes no card");
                Ok(None)
            }
        }
    }
}

fn line_of(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}
