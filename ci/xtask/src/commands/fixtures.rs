//! `cargo xtask fixtures`: models and vocabularies that the repository does not hold, through the clients of the package
//! registries that ship them, pinned by version and SHA-256 (`golden/fixtures.toml`).

use crate::root::{root, target};
use anyhow::{Context, bail, ensure};
use bitnet_golden::fixtures::{Convert, Fixture, read};
use cpp_sys::workers::sha256;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

mod llama2;
pub(super) mod package;
mod text;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Fetch what is missing (the named ones, else all but those that are fetched by name only) into the build folder.
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
                    writeln!(out, "{:<18} {state:<12} {}, {}", f.name, f.about, f.licence)?;
                }
            }
            Action::Fetch { names } => {
                if let Some(unknown) = names.iter().find(|n| !fixtures.iter().any(|f| f.name == **n)) {
                    let known: Vec<&str> = fixtures.iter().map(|f| f.name.as_str()).collect();
                    bail!("unknown fixture `{unknown}`; there are {}", known.join(", "));
                }
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                for f in fixtures.iter().filter(|f| wanted(f, names)) {
                    fetch(f, &folder).with_context(|| format!("cannot fetch {}", f.name))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn wanted(fixture: &Fixture, names: &[String]) -> bool {
    if names.is_empty() { !fixture.only_by_name } else { names.contains(&fixture.name) }
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
    let kept = tempfile::Builder::new().prefix(".fetch-").tempdir_in(folder)?;
    let work = kept.path();
    let package = package::fetch(&fixture.package, work)?;
    let mut file = package.join(&fixture.member);
    if let Some(extension) = &fixture.extension {
        file = text::concatenated(&file, extension, &work.join("concatenated"))?;
    }
    let found = sha256(&file).with_context(|| format!("the package has no {}", fixture.member))?;
    pinned(&fixture.member, &found, &fixture.member_sha256)?;
    if let Some(convert) = fixture.convert {
        let source = std::fs::read_to_string(&file)?;
        let text = match convert {
            Convert::LlamaTokenizerJs => llama2::tokenizer_json(&source)?,
            Convert::HtmlText => text::of_html(&source),
        };
        file = work.join("converted");
        std::fs::write(&file, text)?;
        pinned(&fixture.file, &sha256(&file)?, &fixture.sha256)?;
    }
    std::fs::rename(&file, &path).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("{}: {} ({}), sha256 right", fixture.name, path.display(), fixture.licence);
    Ok(())
}

fn pinned(what: &str, found: &str, pinned: &str) -> anyhow::Result<()> {
    ensure!(found == pinned, "{what} has the sha256 {found}, golden/fixtures.toml pins {pinned}; nothing was kept");
    Ok(())
}
