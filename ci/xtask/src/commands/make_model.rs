//! `cargo xtask make-model`: a model of random weights in the shape of a real one, to measure speed on. The same arguments
//! give the same bytes on every machine.

use crate::root::{root, target};
use anyhow::Context;
use bitnet_cli::usage;
use bitnet_engine::gguf::GgufFile;
use bitnet_harness::bench::models::folder;
use bitnet_harness::env::Env;
use bitnet_harness::generate::streamed::{ARCHITECTURES, Recipe, Writer};
use bitnet_harness::paths::Paths;
use bitnet_harness::{Context as HarnessContext, models, setup};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask make-model --shape 2b4t --as microsoft\n  cargo xtask make-model --shape 2b4t --quant tq2_0 --architecture bitnet\n  cargo xtask make-model --matrix gen-qwen3 --quant q2_0 --out qwen3.gguf\n\nllama.cpp runs the architecture `bitnet` in tq2_0, tq1_0 and f16; bitnet.cpp both in i2_s. `cargo xtask bench-peers` and `cargo bench` find the first of these files where it is written by default."
)]
pub(crate) struct Args {
    /// tiny, 100m, 700m or 2b4t.
    #[arg(long, required_unless_present = "matrix")]
    shape: Option<String>,
    /// A generated model of golden/matrix.toml instead, e.g. gen-qwen3, in one of its formats.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["shape", "architecture"], requires = "out")]
    matrix: Option<String>,
    /// Format of the linear layers: i2_s, tq2_0, tq1_0, tl1, tl2 or any other that `bitnet convert` writes.
    #[arg(long, default_value = "i2_s")]
    quant: String,
    /// Another seed gives other weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// bitnet-b1.58 (squared ReLU) or bitnet (SiLU) [default: the shape's own].
    #[arg(long, value_parser = ARCHITECTURES)]
    architecture: Option<String>,
    /// Whose metadata: ours, or microsoft for exactly the keys of the official GGUF of BitNet-2B-4T (no layout of I2_S, no `pre`, the placeholder of a chat template).
    #[arg(long = "as", value_name = "WRITER", value_enum, default_value_t = As::Ours, conflicts_with = "matrix")]
    written_as: As,
    /// The file [default: <target>/bench/models/SHAPE-QUANT-seedN[-microsoft].gguf].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum As {
    Ours,
    Microsoft,
}

impl From<As> for Writer {
    fn from(written_as: As) -> Self {
        match written_as {
            As::Ours => Self::Ours,
            As::Microsoft => Self::Microsoft,
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if let (Some(model), Some(out)) = (&self.matrix, &self.out) {
            return self.of_matrix(model, out);
        }
        let shape = self.shape.as_deref().unwrap_or_default();
        let recipe = Recipe::new(shape, &self.quant, self.seed, self.architecture.as_deref());
        let recipe = recipe.and_then(|recipe| recipe.written_as(self.written_as.into())).or_else(usage)?;
        let out = self.out.clone().unwrap_or_else(|| folder(&target()).join(recipe.file_name()));
        write(&recipe, &out)?;
        println!("{}", out.display());
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    /// Writes a model of the matrix.
    fn of_matrix(&self, name: &str, out: &Path) -> anyhow::Result<ExitCode> {
        let env = Env::read();
        let paths = Paths::below(root(), &env);
        let problems = |problems: Vec<_>| anyhow::anyhow!("the declaration of the matrix is wrong: {problems:?}");
        let ctx = HarnessContext::new(setup::declare(&paths.golden).map_err(problems)?.matrix, paths, &env);
        let model = ctx.matrix.model(name).with_context(|| format!("golden/matrix.toml has no model `{name}`"))?;
        if !model.quants.contains(&self.quant) {
            return usage(format!("`{name}` has no format `{}`; it has {}", self.quant, model.quants.join(", ")));
        }
        let file = models::file(&ctx, model, &self.quant).map_err(|failure| anyhow::anyhow!(failure.message))?;
        file.copy_to(&mut std::fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?)?;
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
