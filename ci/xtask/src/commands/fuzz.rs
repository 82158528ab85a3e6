//! `cargo xtask fuzz`: feeds a target of `harness/fuzz` with changed inputs, in a process of its own, and keeps what breaks it.

use crate::root::{cargo, target};
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// [`bitnet_fuzz::FINDING`] as the system tells it.
const FINDING: i32 = bitnet_fuzz::FINDING as i32;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz gguf --seconds 60\n  cargo xtask fuzz all --seconds 2\n  cargo xtask fuzz hub --input target/fuzz/hub/finding-1\n\nA finding is kept in target/fuzz/TARGET/; put it into harness/fuzz/corpus/TARGET/ once it is fixed.\nExit codes: 0 nothing was found, 1 a finding or an error."
)]
pub(crate) struct Args {
    /// A target of harness/fuzz, or `all`, one after the other.
    target: String,
    /// How long, each.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The run's inputs are those of its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Execute this input and nothing else.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Build optimised: faster, without overflow checks and assertions.
    #[arg(long)]
    release: bool,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let runner = self.build()?;
        let names: Vec<&str> = match self.target.as_str() {
            "all" => bitnet_fuzz::ALL.iter().map(|target| target.name).collect(),
            name => match bitnet_fuzz::by_name(name) {
                Some(target) => vec![target.name],
                None => bail!("unknown target `{name}`; there are{}", list()),
            },
        };
        ensure!(self.input.is_none() || names.len() == 1, "--input is for one target");
        let mut found = false;
        for name in names {
            found |= !self.one(&runner, name)?;
        }
        Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn build(&self) -> anyhow::Result<PathBuf> {
        let mut cargo = cargo();
        // Without --package: with it, cargo would build again what the tests have with more features.
        cargo.args(["build", "--quiet", "--bin", "bitnet-fuzz"]);
        if self.release {
            cargo.arg("--release");
        }
        let status = cargo.stdin(Stdio::null()).status().with_context(|| format!("cannot run {cargo:?}"))?;
        ensure!(status.success(), "the runner does not build: {cargo:?} ended with {status}");
        let profile = if self.release { "release" } else { "debug" };
        Ok(target().join(profile).join(format!("bitnet-fuzz{}", std::env::consts::EXE_SUFFIX)))
    }

    /// Runs one target; whether nothing was found.
    fn one(&self, runner: &Path, name: &str) -> anyhow::Result<bool> {
        let out = target().join("fuzz").join(name);
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        // Its own, since another run may feed the same target.
        let files = tempfile::tempdir_in(&out).with_context(|| format!("cannot make a folder in {}", out.display()))?;
        let mut command = Command::new(runner);
        command
            .arg(name)
            .args(["--seconds", &self.seconds.to_string(), "--seed", &self.seed.to_string()])
            .arg("--out")
            .arg(files.path());
        if let Some(input) = &self.input {
            command.arg("--input").arg(input);
        }
        let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {command:?}"))?;
        let found = files.path().join("finding");
        match status.code() {
            Some(0) => return Ok(true),
            Some(FINDING) if self.input.is_some() => return Ok(false),
            Some(FINDING) => (),
            Some(_) => bail!("{command:?} ended with {status}"),
            // A signal: the stack or the memory ran out, or the watch ended it. What it executed is on disk.
            None => {
                println!("{name}: the process died: {status}");
                if self.input.is_some() {
                    return Ok(false);
                }
                let input = bitnet_fuzz::run::left(&files.path().join("current"))?;
                std::fs::write(&found, input).with_context(|| format!("cannot write {}", found.display()))?;
            }
        }
        let kept = keep(&found, &out)?;
        println!("again: cargo xtask fuzz {name} --input {}", kept.display());
        Ok(false)
    }
}

/// The targets, a line each.
fn list() -> String {
    let width = bitnet_fuzz::ALL.iter().map(|target| target.name.len()).max().unwrap_or_default();
    bitnet_fuzz::ALL.iter().map(|target| format!("\n  {:<width$}  {}", target.name, target.about)).collect()
}

/// Moves an input to the first free name.
fn keep(input: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let free = (1..).map(|n| folder.join(format!("finding-{n}"))).find(|path| !path.exists());
    let path = free.context("no name is free")?;
    std::fs::rename(input, &path).with_context(|| format!("cannot keep {}", input.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_targets_are_about_stands_in_one_column() {
        let list = super::list();
        let columns =
            bitnet_fuzz::ALL.iter().map(|t| list.lines().find_map(|line| line.strip_suffix(t.about)).map(str::len));
        let columns: std::collections::BTreeSet<_> = columns.collect();
        assert!(columns.len() == 1 && columns.first().is_some_and(Option::is_some), "{list}");
    }

    #[test]
    fn findings_are_kept_side_by_side() {
        let dir = tempfile::tempdir().expect("a folder");
        let input = dir.path().join("current");
        for (text, name) in [("a", "finding-1"), ("b", "finding-2")] {
            std::fs::write(&input, text).expect("written");
            let kept = super::keep(&input, dir.path()).expect("kept");
            assert_eq!((std::fs::read_to_string(&kept).expect("read").as_str(), kept), (text, dir.path().join(name)));
        }
        assert!(super::keep(&input, dir.path()).is_err(), "there is nothing to keep");
    }
}
