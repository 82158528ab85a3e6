//! `bitnet convert`

use crate::common::{self, ComputeArgs};
use anyhow::Context;
use bitnet_engine::convert::{ConvertOptions, convert, targets};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::load;
use bitnet_engine::settings::Settings;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bitnet convert model.gguf --to i2_s-arm -o model-arm.gguf\n  bitnet convert model.gguf --to q8_0 --embedding q8_0 -o model-q8.gguf\n\nTernary formats can only be made from weights that are ternary already.")]
pub struct Args {
    /// The GGUF to read.
    model: PathBuf,
    /// Format of the linear layers: f32, f16, bf16, q8_0, q4_0, q4_1, q6_k, i2_s, i2_s-arm.
    #[arg(long, value_name = "FORMAT")]
    to: String,
    /// Format of the embedding and the output matrix [default: as they are].
    #[arg(long, value_name = "FORMAT")]
    embedding: Option<String>,
    /// The GGUF to write; replaced only once it is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let format = |name: &str| {
            bitnet_kernels::quant::by_name(name)
                .with_context(|| format!("unknown format `{name}`; there are {}", targets().join(", ")))
        };
        let options = ConvertOptions {
            linear: format(&self.to)?,
            embedding: self.embedding.as_deref().map(format).transpose()?,
        };
        let compute = self.compute.start(settings)?;
        let loaded = load(GgufFile::open(&self.model)?, self.compute.layout(), compute.kernels, &compute.pool)
            .with_context(|| format!("cannot use {}", self.model.display()))?;
        common::print_diagnostics(&loaded.diagnostics);
        let bar = common::progress(0, "tensors");
        let report = convert(&loaded.model, &options, &self.output, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let report = report?;
        eprintln!(
            "{}: {} tensors converted to {}, {} copied, {} bytes ({:.1} % of the original)",
            self.output.display(),
            report.converted,
            self.to,
            report.copied,
            report.bytes,
            100.0 * report.bytes as f64 / loaded.file.file_len() as f64
        );
        Ok(ExitCode::SUCCESS)
    }
}
