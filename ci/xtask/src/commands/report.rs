//! `cargo xtask report`: reports from records alone, so that the shards of several machines merge.

use crate::root::{root, target};
use anyhow::Context;
use bitnet_harness::{report, setup};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cargo xtask report --html matrix.html --junit matrix.xml shard-1/records shard-2/records\n\nExit codes: 0 green; 1 red: a cell failed, or was to be run by one of the runs and has no record, or a folder is not a run's."
)]
pub(crate) struct Args {
    /// Folders of records [default: those of the last run here].
    records: Vec<PathBuf>,
    /// Write one self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let folders =
            if self.records.is_empty() { vec![target().join("matrix/records")] } else { self.records.clone() };
        let declaration = setup::declare(&root().join("golden")).map_err(|problems| {
            anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let report = report::load(&folders)?.against(declaration.cells.iter().map(|d| d.cell.to_string()));
        for (path, text) in [
            (&self.html, report::html(&report)),
            (&self.junit, report::junit(&report)),
            (&self.markdown, report::markdown(&report)),
        ] {
            if let Some(path) = path {
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
                eprintln!("wrote {}", path.display());
            }
        }
        std::io::stdout().write_all(report::terminal(&report).as_bytes())?;
        Ok(if report.is_red() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
