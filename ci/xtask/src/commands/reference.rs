//! `cargo xtask reference record`: the one command that writes `golden/reference/<backend>/`.

use crate::root::root;
use anyhow::{Context as _, bail};
use bitnet_harness::Failure;
use bitnet_harness::axes::{Axis, Cell};
use bitnet_harness::check::Check as _;
use bitnet_harness::check::numpy::{self, Numpy};
use bitnet_harness::check::recorded::RecordedAnswers;
use bitnet_harness::env::Env;
use bitnet_harness::golden::ORACLE_DEVICE;
use bitnet_harness::host::Host;
use bitnet_harness::paths::Paths;
use bitnet_harness::references::record::{self, Written};
use bitnet_harness::verdict::Availability;
use bitnet_harness::{Context, models, setup};
use std::process::{Command, ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Ask the live workers everything that the cells `recorded` compare, and write it to golden/reference.
    #[command(
        after_help = "Examples:\n  cargo xtask setup-cpp all && cargo xtask fixtures fetch\n  cargo xtask reference record all\n  cargo xtask reference record bitnet --model tiny-bitnet\n\nAnswers that did not change are left as they are. Look at `git diff --stat golden/reference` afterwards."
    )]
    Record {
        /// The reference; `all` are those in C++, `numpy` the implementation in golden/train, `checkpoint` the same on tiny checkpoints of
        /// HuggingFace, and `transformers` HuggingFace's library on these (with torch, transformers and accelerate).
        #[arg(value_parser = ["bitnet", "llama", "numpy", "checkpoint", "transformers", "all"])]
        backend: String,
        /// Models, separated by commas [default: all that the matrix declares].
        #[arg(long, value_delimiter = ',')]
        model: Vec<String>,
    },
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let Subcommand::Record { backend, model } = &self.command;
        let env = Env::read();
        let paths = Paths::below(root(), &env);
        let checkpoints = match backend.as_str() {
            "checkpoint" => Some("checkpoints.py"),
            "transformers" => Some("checkpoints_transformers.py"),
            _ => None,
        };
        if let Some(script) = checkpoints {
            anyhow::ensure!(
                model.is_empty(),
                "--model chooses among the models of the matrix; checkpoints are recorded together"
            );
            let mut python = Command::new("python3");
            python.arg(paths.golden.join("train").join(script));
            python.arg("--record").arg(paths.golden.join("reference").join(backend));
            let status = python.status().context("cannot run python3")?;
            anyhow::ensure!(status.success(), "{script} failed; what it needs is named at its top");
            return Ok(ExitCode::SUCCESS);
        }
        let declaration = setup::declare(&paths.golden).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the declaration of the matrix is wrong:\n  {}", lines.join("\n  "))
        })?;
        if let Some(unknown) = model.iter().find(|name| declaration.matrix.model(name).is_none()) {
            bail!("unknown model `{unknown}`; valid: {}", declaration.axes.values(Axis::Model).join(", "));
        }
        let wanted = |cell: &Cell| {
            let asked = match backend.as_str() {
                "numpy" => cell.check == Numpy.name(),
                backend => cell.check == RecordedAnswers.name() && (backend == "all" || cell.backend == backend),
            };
            asked && cell.device == ORACLE_DEVICE && (model.is_empty() || model.contains(&cell.model))
        };
        let survey = Host::here(env.clone(), &paths).survey(&declaration, &paths);
        let cells: Vec<&Cell> = declaration
            .cells
            .iter()
            .filter(|declared| declared.unsupported.is_none() && wanted(&declared.cell))
            .map(|declared| &declared.cell)
            .collect();
        let ctx = Context::new(declaration.matrix.clone(), paths.clone(), &Env::default());
        if backend == "numpy" {
            return record_numpy(&ctx, &cells);
        }
        let (mut new, mut unchanged, mut left_out) = (0usize, 0usize, Vec::new());
        for cell in &cells {
            let name = format!("{} {} {}", cell.backend, cell.model, cell.quant);
            if let Some(Availability::Unavailable { reason, remedy, .. }) =
                survey.missing(cell, true).into_iter().next()
            {
                left_out.push(format!("{name}: {reason}; {remedy}"));
                continue;
            }
            match record::write(&ctx, cell) {
                Ok((path, written)) => {
                    let word = match written {
                        Written::New => "written",
                        Written::Unchanged => "unchanged",
                    };
                    new += usize::from(written == Written::New);
                    unchanged += usize::from(written == Written::Unchanged);
                    println!("{word}: {}", path.strip_prefix(&paths.root).unwrap_or(&path).display());
                }
                Err(failure) => left_out.push(format!("{name}: {}", failure.message)),
            }
        }
        println!("{} to record = {new} written + {unchanged} unchanged + {} left out", cells.len(), left_out.len());
        if cells.is_empty() || !left_out.is_empty() {
            bail!("not everything was recorded:\n  {}", left_out.join("\n  "));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs `golden/train/families.py` on every model of the check `numpy`.
fn record_numpy(ctx: &Context, cells: &[&Cell]) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    for cell in cells {
        let failed = |failure: Failure| anyhow::anyhow!("{} {}: {}", cell.model, cell.quant, failure.message);
        let loaded = models::loaded(ctx, cell).map_err(failed)?;
        let file = folder.path().join(format!("{}__{}.gguf", cell.model, cell.quant));
        loaded.file.copy_to(&mut std::fs::File::create(&file)?)?;
        let mut python = Command::new("python3");
        python.arg(ctx.paths.golden.join("train/families.py")).arg("--model").arg(&file);
        python.args(numpy::questions(ctx, cell, &loaded).map_err(failed)?);
        python.arg("--record").arg(ctx.paths.golden.join("reference/numpy"));
        python.args(["--name", &cell.model, "--quant", &cell.quant]);
        let status = python.status().context("cannot run python3 (with numpy: golden/train/requirements.txt)")?;
        anyhow::ensure!(status.success(), "families.py failed for {} in {}", cell.model, cell.quant);
        println!("recorded: {} {}", cell.model, cell.quant);
    }
    anyhow::ensure!(!cells.is_empty(), "no cell of the check `numpy` has such a model");
    Ok(ExitCode::SUCCESS)
}
