//! `cargo xtask flip-weight`: a copy of a model with one wrong weight, to see the cross-validation find it.

use crate::root::target;
use anyhow::Context;
use bitnet_engine::gguf::GgufFile;
use bitnet_harness::crossval::plant::flip;
use bitnet_kernels::quant::I2sLayout;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask flip-weight --model golden/models/tiny-bitnet.gguf --tensor blk.2.ffn_up.weight --row 7 --column 9 -o wrong.gguf\n  cargo xtask crossval-per-token --model golden/models/tiny-bitnet.gguf --cpp-model wrong.gguf --prompt \"In the beginning\" --trace"
)]
pub(crate) struct Args {
    /// The GGUF file.
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    /// The tensor.
    #[arg(long)]
    tensor: String,
    /// Output of the matrix that the weight belongs to.
    #[arg(long, default_value_t = 0)]
    row: usize,
    /// Input of the matrix that the weight multiplies.
    #[arg(long, default_value_t = 0)]
    column: usize,
    /// How I2_S tensors are laid out.
    #[arg(long, default_value = "x86", value_parser = ["x86", "arm"])]
    i2s_layout: String,
    /// The copy [default: <target>/crossval/flipped.gguf].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let file = GgufFile::open(&self.model)?;
        let layout = I2sLayout::from_name(&self.i2s_layout).unwrap_or_default();
        let planted = flip(&file, &self.tensor, self.row, self.column, layout)?;
        let output = self.output.clone().unwrap_or_else(|| target().join("crossval/flipped.gguf"));
        if let Some(folder) = output.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&output, &planted.bytes).with_context(|| format!("cannot write {}", output.display()))?;
        let (before, after) = (planted.before, planted.after);
        println!("{}: {}[{}][{}] was {before}, is {after}", output.display(), self.tensor, self.row, self.column);
        Ok(ExitCode::SUCCESS)
    }
}
