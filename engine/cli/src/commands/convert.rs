//! `bitnet convert`

use crate::common::{self, ComputeArgs};
use crate::model::{FetchArgs, source};
use crate::output::{counted, say};
use anyhow::Context;
use bitnet_engine::checkpoint::{self, CheckpointError, ToGguf};
use bitnet_engine::convert::{ConvertError, ConvertReport, Output, Progress, convert_stored, set, targets};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::{agreed_layout, load};
use bitnet_engine::model::Model;
use bitnet_engine::settings::Settings;
use bitnet_engine::tokenizer::pretokenize::known_names;
use bitnet_kernels::quant::{self, Storage};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn after_help() -> String {
    let ternary: Vec<_> = Storage::all().filter(|storage| storage.is_ternary()).map(Storage::name).collect();
    format!(
        "Examples:\n  bitnet convert model.gguf --to i2_s-arm -o model-arm.gguf\n  bitnet convert model.gguf --to q8_0 --embedding q8_0 -o model-q8.gguf\n  bitnet convert model.gguf --set tokenizer.ggml.pre=llama-bpe -o repaired.gguf\n  bitnet convert model-00001-of-00003.gguf --merge -o model.gguf\n  bitnet convert ./bitnet-b1.58-2B-4T --to i2_s --verify -o model.gguf\n\nA folder is a checkpoint as HuggingFace has it: config.json, model.safetensors (or parts with their index), tokenizer files. Packed and master weights of BitNet become the ternary weights that the model was trained with; other weights stay what they are, or are rounded to the format. Its embedding and output matrix keep their format without --embedding.\n\nTernary formats ({}) can only be made from weights that are ternary already, and nothing is lost from one to another. q1_0 has signs alone: ternary weights with zeros are refused. A split model is read from any of its parts and written as one file, unless --split-max-tensors asks for parts. Without --to and --embedding every tensor is copied byte for byte, and the file need not be one that loads.\n\nPre-tokenizers, for --set tokenizer.ggml.pre=NAME: {}.",
        ternary.join(", "),
        known_names()
    )
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("work").required(true).multiple(true).args(["to", "embedding", "set", "merge", "split_max_tensors"])),
    after_help = after_help()
)]
pub struct Args {
    /// The GGUF to read; of a split model any part. Or the folder of a HuggingFace checkpoint. Or either on the hub:
    /// hf:ORG/REPO[@REVISION][:FILE or QUANT].
    model: PathBuf,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Format of the linear layers.
    #[arg(long, value_name = "FORMAT", help = format!("Format of the linear layers [default: as they are]: {}", targets().join(", ")), value_parser = storage)]
    to: Option<Storage>,
    /// Format of the embedding and the output matrix [default: as they are].
    #[arg(long, value_name = "FORMAT", value_parser = storage)]
    embedding: Option<Storage>,
    /// Set a metadata key, several times if need be. A key that is there keeps its type; a new one of the tokenizer gets the
    /// type that it must have, any other is a bool, an integer, a float or a string by its looks.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write a split model as one file (as everything here does that is not told to split).
    #[arg(long, conflicts_with = "split_max_tensors")]
    merge: bool,
    /// Write parts of at most so many tensors: -o model.gguf makes model-00001-of-00003.gguf and so on, none of which may
    /// be there already.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    split_max_tensors: Option<u32>,
    /// Of a checkpoint: compute logits from its own tensors too, in floats, and fail if those of the GGUF are others.
    #[arg(long, requires = "to")]
    verify: bool,
    /// The GGUF to write; replaced only once it is complete. It is not the input, nor a file of the checkpoint.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn storage(name: &str) -> Result<Storage, String> {
    Storage::by_name(name).map_err(|_| format!("unknown format `{name}`; there are {}", targets().join(", ")))
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let (linear, embedding) = (self.to, self.embedding);
        let model = source(&self.model, self.fetch.allow())?;
        if model.is_dir() {
            return self.convert_checkpoint(&model, linear, embedding, settings);
        }
        anyhow::ensure!(!self.verify, "--verify compares with a checkpoint, and {} is not a folder", model.display());
        let file = GgufFile::open(&model)?;
        // Parts have names of their own, none of which may be there already.
        if self.split_max_tensors.is_none() {
            common::not_the_input(&file, &self.output)?;
        }
        let before = file.file_len();
        let assignments = set::parse(&self.set, file.metadata())?;
        let bar = common::progress(0, "tensors");
        let mut step = common::step(&bar)?;
        let result = if linear.is_none() && embedding.is_none() {
            set::set_metadata(&file, &assignments, self.output(), &mut step)
        } else if assignments.is_empty() {
            self.convert(file, linear, embedding, settings, &mut step)?
        } else {
            // The repaired file is what must load: it exists for as long as it is read.
            let repaired = Temporary(beside(&self.output));
            match set::set_metadata(&file, &assignments, &repaired.0, &mut step) {
                Ok(_) => self.convert(GgufFile::open(&repaired.0)?, linear, embedding, settings, &mut step)?,
                Err(error) => Err(error),
            }
        };
        bar.finish_and_clear();
        let report = match result {
            Err(error @ ConvertError::Cancelled) => return Ok(cancelled(&error)),
            other => other?,
        };
        for text in &self.set {
            say(format_args!("set {text}"));
        }
        say(format_args!(
            "{}{}: {} converted, {} copied, {} bytes ({:.1} % of the original)",
            self.output.display(),
            self.split_max_tensors.map_or_else(String::new, |n| format!(" in parts of {}", counted(n, "tensor"))),
            counted(report.converted, "tensor"),
            report.copied,
            report.bytes,
            100.0 * report.bytes as f64 / before as f64
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the GGUF of a folder.
    fn convert_checkpoint(
        &self,
        folder: &Path,
        linear: Option<Storage>,
        embedding: Option<Storage>,
        settings: &Settings,
    ) -> anyhow::Result<ExitCode> {
        let shown = folder.display();
        let linear =
            linear.with_context(|| format!("{shown} is a folder: say with --to in which format to write it"))?;
        anyhow::ensure!(
            self.set.is_empty() && !self.merge && self.split_max_tensors.is_none(),
            "{shown} is a folder: --set, --merge and --split-max-tensors work on the GGUF that is made of it"
        );
        let checkpoint = checkpoint::open(folder).with_context(|| format!("cannot convert {shown}"))?;
        let compute = self.compute.start(settings)?;
        let pool = &compute.pool;
        let context = self.compute.context.map(|n| n as usize);
        let options = ToGguf { linear, embedding, verify: self.verify, context, kernels: compute.kernels, pool };
        let bar = common::progress(0, "tensors");
        let written = checkpoint.to_gguf(&options, &self.output, &mut common::step(&bar)?);
        bar.finish_and_clear();
        let written = match written {
            Err(CheckpointError::Convert(error @ ConvertError::Cancelled)) => return Ok(cancelled(&error)),
            other => other.with_context(|| format!("cannot convert {shown}"))?,
        };
        common::print_diagnostics(&written.diagnostics);
        if let Some(comparison) = &written.comparison {
            say(format_args!("the logits are those of the checkpoint: {comparison}"));
        }
        say(format_args!(
            "{}: {} of architecture {}, {} converted, {} copied, {} bytes",
            self.output.display(),
            linear.name(),
            checkpoint.architecture(),
            counted(written.report.converted, "tensor"),
            written.report.copied,
            written.report.bytes
        ));
        Ok(ExitCode::SUCCESS)
    }

    fn output(&self) -> Output<'_> {
        Output { path: &self.output, max_tensors: self.split_max_tensors.map(|n| n as usize) }
    }

    /// The outer error is one of loading.
    fn convert(
        &self,
        file: GgufFile,
        linear: Option<Storage>,
        embedding: Option<Storage>,
        settings: &Settings,
        step: &mut Progress<'_>,
    ) -> anyhow::Result<Result<ConvertReport, ConvertError>> {
        let compute = self.compute.start(settings)?;
        let (layout, i2s) = (self.compute.layout(), quant::i2_s::FORMAT.ggml_type);
        agreed_layout(&file, layout).with_context(|| format!("cannot use {}", self.model.display()))?;
        // Weights are rewritten without a tokenizer, unless a text must tell how they are laid out.
        let told = layout.is_some() || !file.tensors().iter().any(|tensor| tensor.ggml_type == i2s);
        if told && !file.metadata().contains("tokenizer.ggml.model") {
            let model = Model::load(&file, layout.unwrap_or_default(), &compute.pool)
                .with_context(|| format!("cannot use {}", self.model.display()))?;
            return Ok(convert_stored(&model, linear, embedding, self.output(), step));
        }
        let loaded = load(file, self.compute.layout(), compute.kernels, &compute.pool)
            .with_context(|| format!("cannot use {}", self.model.display()))?;
        common::print_diagnostics(&loaded.diagnostics);
        Ok(convert_stored(&loaded.model, linear, embedding, self.output(), step))
    }
}

fn cancelled(error: &ConvertError) -> ExitCode {
    say(error);
    ExitCode::from(130)
}

fn beside(output: &Path) -> PathBuf {
    output.with_file_name(format!(".bitnet-set-{}.gguf", std::process::id()))
}

/// Removed when it is no longer needed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // If it cannot be removed there is nothing better to do; its name says whose it was.
        let _ = std::fs::remove_file(&self.0);
    }
}
