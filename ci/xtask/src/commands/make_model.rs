//! `cargo xtask make-model`: a model of random weights in the shape of a real one, to measure speed on. The same arguments
//! give the same bytes on every machine.

use crate::root::{root, target};
use anyhow::Context;
use bitnet_engine::gguf::GgufFile;
use bitnet_harness::bench::models::folder;
use bitnet_harness::generate::streamed::{ARCHITECTURES, Recipe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask make-model --shape 2b4t --quant i2_s --seed 1\n  cargo xtask make-model --shape 2b4t --quant tq2_0 --architecture bitnet\n\nllama.cpp runs the architecture `bitnet` in tq2_0, tq1_0 and f16; bitnet.cpp both in i2_s. `cargo xtask bench-peers` and `cargo bench` find the file where it is written by default."
)]
pub(crate) struct Args {
    /// tiny, 100m, 700m or 2b4t.
    #[arg(long)]
    shape: String,
    /// Format of the linear layers: i2_s, tq2_0, tq1_0, tl1, tl2 or any other that `bitnet convert` writes.
    #[arg(long, default_value = "i2_s")]
    quant: String,
    /// Another seed gives other weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// bitnet-b1.58 (squared ReLU) or bitnet (SiLU) [default: the shape's own].
    #[arg(long, value_parser = ARCHITECTURES)]
    architecture: Option<String>,
    /// The file [default: <target>/bench/models/SHAPE-QUANT-seedN.gguf].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let recipe = Recipe::new(&self.shape, &self.quant, self.seed, self.architecture.as_deref())?;
        let out = self.out.clone().unwrap_or_else(|| folder(&target()).join(recipe.file_name()));
        write(&recipe, &out)?;
        println!("{}", out.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the model, and says on stderr what it took.
pub(super) fn write(recipe: &Recipe, out: &Path) -> anyhow::Result<()> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let vocabulary = GgufFile::open(root().join("golden/models/tiny-bitnet.gguf"))?;
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bytes = recipe.write(&vocabulary, out, threads)?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{} parameters, {bytes} bytes, {seconds:.1} s", recipe.parameters()?);
    Ok(())
}
