//! `bitnet repair-tokenizer`

use super::{Format, print_json};
use crate::common;
use crate::model::{FetchArgs, locate};
use crate::output::{counted, plain, say};
use anyhow::Context;
use bitnet_engine::convert::{ConvertError, set};
use bitnet_engine::discovery::TokenizerDiscovery;
use bitnet_engine::discovery::repair::{Repair, plan, vouched};
use bitnet_engine::gguf::GgufFile;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  bitnet repair-tokenizer ggml-model-i2_s.gguf -o repaired.gguf\n\nOnly what the vocabulary's fingerprint and the texts of the tokens vouch for is written; every tensor is copied byte for byte. The input is never touched. If there is nothing to repair, nothing is written; a vocabulary that is not known is an error. Other keys: bitnet convert FILE --set KEY=VALUE -o FIXED"
)]
pub struct Args {
    /// The GGUF to read, or a model of the hub: hf:ORG/REPO[@REVISION][:FILE or QUANT].
    model: PathBuf,
    #[command(flatten)]
    fetch: FetchArgs,
    /// The GGUF to write; it appears only once it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(serde::Serialize)]
struct Report<'a> {
    model: String,
    /// Absent if there was nothing to repair.
    output: Option<String>,
    repairs: &'a [Repair],
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let shown = self.model.display();
        let file = GgufFile::open(locate(&self.model, self.fetch.allow())?)?;
        common::not_the_input(&file, &self.output)?;
        let discovery = TokenizerDiscovery::from_file(&file).with_context(|| format!("cannot use {shown}"))?;
        let repairs = plan(&discovery);
        if repairs.is_empty() {
            let (why, code) = match vouched(&discovery) {
                Some(label) => (format!("nothing to repair (its keys are those of {label})"), ExitCode::SUCCESS),
                None => {
                    let why = match discovery.sizes().tokens {
                        Some(_) => {
                            "its vocabulary is not a known one, so that nothing can be said of it with certainty"
                        }
                        None => "it has no vocabulary to repair",
                    };
                    (format!("{why} (by hand: bitnet convert {shown} --set KEY=VALUE -o FIXED)"), ExitCode::FAILURE)
                }
            };
            say(format_args!("{shown}: {why}; nothing is written"));
            self.print(&repairs, None)?;
            return Ok(code);
        }
        let texts: Vec<String> = repairs.iter().map(Repair::assignment).collect();
        let assignments = set::parse(&texts, file.metadata())?;
        let bar = common::progress(0, "tensors");
        let written = set::set_metadata(&file, &assignments, &self.output, &mut common::step(&bar)?);
        bar.finish_and_clear();
        let report = match written {
            Err(error @ ConvertError::Cancelled) => {
                say(&error);
                return Ok(ExitCode::from(130));
            }
            other => other?,
        };
        let left = plan(&TokenizerDiscovery::from_gguf(&self.output)?);
        anyhow::ensure!(
            left.is_empty(),
            "{} was written, but still lacks {}: its metadata cannot be repaired, convert the model again",
            self.output.display(),
            left.iter().map(|r| r.key.as_str()).collect::<Vec<_>>().join(", ")
        );
        self.print(&repairs, Some(&self.output))?;
        let copied = counted(report.copied, "tensor");
        say(format_args!("{}: {copied} copied, {} bytes", self.output.display(), report.bytes));
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, repairs: &[Repair], output: Option<&Path>) -> anyhow::Result<()> {
        if self.format == Format::Json {
            let text = |path: &Path| path.display().to_string();
            return print_json(&Report { model: text(&self.model), output: output.map(text), repairs });
        }
        let mut out = std::io::stdout().lock();
        for r in repairs {
            let old = r.old.as_deref().unwrap_or("absent");
            writeln!(out, "{}", plain(&format!("{}: {old} -> {} ({})", r.key, r.new, r.why)))?;
        }
        Ok(())
    }
}
