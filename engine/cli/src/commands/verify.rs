//! `bitnet verify`: whether a model file is whole and this machine computes it right, in five lines.

use super::{Format, print_json};
use crate::common::{self, ModelArgs, TokenizerArgs};
use crate::output::{line, with_causes};
use anyhow::{Context, ensure};
use bitnet_engine::discovery::{Resolved, TokenizerDiscovery};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{Session, SessionOptions, Want, nll};
use bitnet_engine::load::{LoadOptions, Loaded, TokenizerSource, agreed_layout, load_with};
use bitnet_engine::model::HugePages;
use bitnet_engine::random::fnv1a;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::{Kernels, Pool, best, by_name, kernel_sets};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bitnet verify --model model.gguf\n  bitnet verify --model model.gguf --against scalar --tokens 64 --format json\n\nExit code: 0 if all is right, 1 if anything is wrong."
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// The kernel set that the best one of this machine is compared with; scalar is the oracle, and slow [default: the next one that
    /// this machine has].
    #[arg(long, value_name = "SET")]
    against: Option<String>,
    /// Tokens of the text that is computed.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(2..=4096))]
    tokens: u16,
    /// How I2_S tensors are laid out, which the format does not record.
    #[arg(long, default_value = "auto", value_parser = ["auto", "x86", "arm", "rows4"])]
    i2s_layout: String,
    /// Threads [default: $BITNET_THREADS, else one per processor].
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// One line of the report.
#[derive(serde::Serialize)]
struct Line {
    step: &'static str,
    /// Absent where an earlier step failed.
    ok: Option<bool>,
    text: String,
}

/// Steps, in order.
const STEPS: [&str; 5] = ["container", "tokenizer", "weights", "digest", "prediction"];

/// Long enough for every `--tokens` when it is repeated.
const TEXT: &str = "In the beginning God created the heavens and the earth. Now the earth was formless and empty, and \
                    darkness was over the surface of the deep. ";

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// Settings that cannot be used. What is wrong with the model is a line of the report.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let pool = Arc::new(Pool::new(common::threads(self.threads, settings)).context("cannot start threads")?);
        let other = self.other()?;
        let mut lines = Vec::new();
        let failed = self.steps(settings, &pool, other, &mut lines).err();
        if let Some(error) = &failed {
            let step = STEPS[lines.len()];
            lines.push(Line { step, ok: Some(false), text: with_causes(error) });
            let rest = &STEPS[lines.len()..];
            lines.extend(rest.iter().map(|step| Line { step, ok: None, text: "not looked at".to_owned() }));
        }
        if self.format == Format::Json {
            print_json(&lines)?;
        } else {
            let mut out = std::io::stdout().lock();
            for Line { step, ok, text } in &lines {
                let mark = match ok {
                    Some(true) => "ok",
                    Some(false) => "FAILED",
                    None => "-",
                };
                // The first line says what is wrong; JSON has the rest.
                let first = text.lines().next().unwrap_or_default();
                writeln!(out, "{mark:<7}{step:<12}{}", line(first))?;
            }
        }
        Ok(if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The set to compare with.
    fn other(&self) -> anyhow::Result<&'static dyn Kernels> {
        if let Some(name) = &self.against {
            // `bitnet devices` lists them as cpu-NAME.
            return Ok(by_name(name.strip_prefix("cpu-").unwrap_or(name))?);
        }
        let mut sets = kernel_sets().iter().rev().filter_map(|set| (set.detect)().ok());
        match sets.find(|set| set.name() == best().name()).and(sets.next()) {
            Some(other) => Ok(other),
            None => Ok(by_name("scalar")?),
        }
    }

    /// Adds a line for each step that is right; the error is of the step after the last line.
    fn steps(
        &self,
        settings: &Settings,
        pool: &Arc<Pool>,
        other: &'static dyn Kernels,
        lines: &mut Vec<Line>,
    ) -> anyhow::Result<()> {
        let mut right = |text: String| lines.push(Line { step: STEPS[lines.len()], ok: Some(true), text });
        let file = self.model.locate(self.tokenizer.allow(), settings)?.open()?;
        let (tensors, keys) = (file.tensors().len(), file.metadata().len());
        right(format!("{}: {tensors} tensors, {keys} keys", common::model_name(&self.model, settings)));

        let resolved = self.tokenizer.chain(settings).resolve(&TokenizerDiscovery::from_file(&file)?)?;
        let (tokens, source) = (resolved.tokenizer.vocab_size(), resolved.strategy.description());
        right(format!("{tokens} tokens, {source}{}", warnings(&resolved)));

        let (loaded, text) = self.load(file, resolved, pool)?;
        right(text);

        let ids = self.ids(&loaded)?;
        let (digest, nats) = compare(&loaded, &ids, pool, other)?;
        right(format!(
            "{} tokens: {} and {} have the same bits, {digest:016x}",
            ids.len(),
            best().name(),
            other.name()
        ));

        let noise = (loaded.model.config.vocab_size as f64).ln();
        ensure!(
            nats < noise,
            "a text has {nats:.2} nats a token, where knowing nothing has {noise:.2}: the weights are not those of a trained model, or are read wrongly"
        );
        let sense = if nats < 0.7 * noise { "" } else { ": the model hardly knows the text" };
        right(format!("{nats:.2} nats a token, {noise:.2} is knowing nothing{sense}"));
        Ok(())
    }

    fn load(&self, file: GgufFile, resolved: Resolved, pool: &Arc<Pool>) -> anyhow::Result<(Loaded, String)> {
        let options = LoadOptions {
            layout: agreed_layout(&file, I2sLayout::from_name(&self.i2s_layout))?,
            tokenizer: TokenizerSource::Given(Box::new(resolved)),
            huge_pages: HugePages::Off,
            ..LoadOptions::default()
        };
        let loaded = load_with(file, options, best(), pool)?;
        let matrices: Vec<_> = loaded.model.weights.matrices().collect();
        let bytes: usize = matrices.iter().map(|(_, matrix)| matrix.data.len()).sum();
        let mut text = format!("{} matrices, {bytes} bytes: every code and scale is valid", matrices.len());
        if let Some(layout) = &loaded.layout {
            text += &format!("; I2_S as {}: {}", layout.layout, layout.why);
        }
        Ok((loaded, text))
    }

    fn ids(&self, loaded: &Loaded) -> anyhow::Result<Vec<u32>> {
        let wanted = usize::from(self.tokens).min(loaded.model.config.context_length);
        // No token has more than a few words of it.
        let text = TEXT.repeat(1 + wanted / 8);
        let mut ids = loaded.tokenizer.encode(&text, EncodeOptions { add_special: true, parse_special: false })?;
        ids.truncate(wanted);
        ensure!(ids.len() == wanted && wanted > 1, "a text of {} characters has only {} tokens", text.len(), ids.len());
        Ok(ids)
    }
}

fn warnings(resolved: &Resolved) -> String {
    let count =
        resolved.diagnostics.iter().filter(|d| d.severity == bitnet_engine::tokenizer::Severity::Warning).count();
    if count == 0 { String::new() } else { format!(" ({count} warnings: `bitnet discover` shows them)") }
}

/// Computes the text by the best set on all threads, in one chunk, and by the other on one thread in chunks of 7, and compares all logits.
/// Their 64-bit FNV-1a digest, and the mean loss.
fn compare(loaded: &Loaded, ids: &[u32], pool: &Arc<Pool>, other: &'static dyn Kernels) -> anyhow::Result<(u64, f64)> {
    let session = |kernels, pool, chunk| {
        let options = SessionOptions { context: Some(ids.len()), chunk, ..SessionOptions::new(kernels, pool) };
        Session::new(Arc::clone(&loaded.model), options)
    };
    let (mut all, mut nats) = (Vec::new(), 0.0);
    session(best(), Arc::clone(pool), ids.len())?.forward(ids, Want::All, &mut |position, logits| {
        if let Some(&next) = ids.get(position + 1) {
            nats += nll(logits, next as usize);
        }
        all.extend_from_slice(logits);
    })?;
    let mut difference = None;
    let vocab = loaded.model.config.vocab_size;
    let one = Arc::new(Pool::new(1).context("no thread")?);
    session(other, one, 7)?.forward(ids, Want::All, &mut |position, logits| {
        let mine = &all[position * vocab..(position + 1) * vocab];
        let differs = mine.iter().zip(logits).position(|(a, b)| a.to_bits() != b.to_bits());
        if let (None, Some(token)) = (&difference, differs) {
            difference = Some((position, token, mine[token], logits[token]));
        }
    })?;
    if let Some((position, token, mine, its)) = difference {
        let (best, other) = (best().name(), other.name());
        anyhow::bail!(
            "{best} and {other} differ at position {position}, token {token}: {mine:?} and {its:?}; `cargo test --test matrix -- --check ops` names the operation"
        );
    }
    let digest = fnv1a(all.iter().flat_map(|logit| logit.to_le_bytes()));
    Ok((digest, nats / (ids.len() - 1) as f64))
}
