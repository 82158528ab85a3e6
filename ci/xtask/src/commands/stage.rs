//! `cargo xtask stage`: a model without a tokenizer, and a hub's folder that has it: what a person or a script needs to
//! watch discovery at work without the real hub.

use crate::root::root;
use anyhow::Context;
use bitnet_engine::gguf::GgufFile;
use bitnet_golden::matrix::Matrix;
use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::posing::{Family, runnable};
use bitnet_harness::tokenizer_files::TokenizerFiles;
use bitnet_harness::{Context as CheckContext, models};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The model: noise, but with a real tokenizer and of a family that the hub knows.
const MODEL: (&str, &str) = ("gen-llama3", "f16");

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask stage --to /tmp/stage\n  cargo run -p bitnet-mock-hub -- --dir /tmp/stage/hub --port 8000 &\n  HF_ENDPOINT=http://127.0.0.1:8000 cargo run -p bitnet-cli -- infer --model /tmp/stage/model.gguf --auto-download --prompt Moses"
)]
pub(crate) struct Args {
    /// The folder: model.gguf has no tokenizer, embedded.gguf is the same model with it, hub/ORG/NAME/ has its files.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let file = model().map_err(|failure| anyhow::anyhow!(failure.message))?;
        let (family, files, posing) = parts(&file).map_err(|failure| anyhow::anyhow!(failure.message))?;
        let mut embedded = Vec::new();
        file.copy_to(&mut embedded)?;
        write(&self.to.join("embedded.gguf"), &embedded)?;
        write(&self.to.join("model.gguf"), &posing)?;
        for (name, bytes) in &files {
            write(&self.to.join("hub").join(family.repo).join(name), bytes)?;
        }
        writeln!(std::io::stdout(), "{}", family.repo)?;
        Ok(ExitCode::SUCCESS)
    }
}

type Parts = (Family, Vec<(&'static str, Vec<u8>)>, Vec<u8>);

fn parts(file: &GgufFile) -> Result<Parts, Failure> {
    let vocabulary = TokenizerFiles::read(file.metadata())?;
    let family = Family::of(&vocabulary);
    Ok((family, family.files(&vocabulary)?, runnable(file, &family)?))
}

fn model() -> Result<GgufFile, Failure> {
    let env = Env::default();
    let paths = Paths::below(root(), &env);
    let matrix = Matrix::read(&paths.golden.join("matrix.toml"))?;
    let ctx = CheckContext::new(matrix, paths, &env);
    let (name, quant) = MODEL;
    let model = ctx.matrix.model(name).ok_or_else(|| Failure::new(format_args!("matrix.toml has no model {name}")))?;
    models::file(&ctx, model, quant)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
