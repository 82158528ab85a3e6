//! `cargo xtask bless`: the one command that writes golden snapshots, always from the scalar oracle.

use crate::root::cargo;
use anyhow::Context;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bless --model tiny-bitnet --quant i2_s --check greedy\n  cargo xtask bless\n\nLook at `git diff golden/snapshots` afterwards: what is written there is the truth from then on."
)]
pub(crate) struct Args {
    /// Models, separated by commas [default: all].
    #[arg(long)]
    model: Option<String>,
    /// Weight formats, separated by commas [default: all].
    #[arg(long)]
    quant: Option<String>,
    /// Checks, separated by commas [default: all].
    #[arg(long)]
    check: Option<String>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut command = cargo();
        // Without --package: cargo would build the dependencies again, with fewer features.
        command.args(["test", "--test", "matrix", "--"]);
        for (flag, value) in [("--model", &self.model), ("--quant", &self.quant), ("--check", &self.check)] {
            if let Some(value) = value {
                command.args([flag, value.as_str()]);
            }
        }
        command.args(["--device", "cpu-scalar", "--backend", "native"]);
        if let Some(models) = &self.model {
            // A model that is not here would be passed over.
            command.args(["--require", models]);
        }
        // What the shell selects must not narrow what is blessed.
        for twin in ["MODEL", "QUANT", "DEVICE", "BACKEND", "CHECK", "REQUIRE"] {
            command.env_remove(format!("MATRIX_{twin}"));
        }
        let status = command.env("BITNET_BLESS", "1").status().context("cannot run cargo test")?;
        if status.success() {
            eprintln!(
                "blessed what could run (the summary above names what could not); look at `git diff golden/snapshots` before you commit it"
            );
            return Ok(ExitCode::SUCCESS);
        }
        anyhow::bail!("some cells failed for another reason than their snapshot, see above")
    }
}
