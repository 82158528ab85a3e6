//! `cargo xtask cuda-check`: every CUDA source of the kernels compiles for every architecture, has the entries that it is said
//! to have, spills no more than `golden/gates/cuda.toml` allows, and asks for its first weights before it waits for earlier
//! launches. No GPU, no driver and no CUDA toolkit is needed: NVRTC comes as a Python wheel, pinned by version and SHA-256.
//!
//! Exit codes: 0 all is well; 1 something is not, or an error; 2 wrong usage; 4 nothing could be compiled (no NVRTC).

use crate::crossval::Format;
use crate::root::{root, target};
use anyhow::{Context, ensure};
use bitnet_golden::cuda::Cuda;
use bitnet_kernels::cuda::architecture::Architecture;
use bitnet_kernels::cuda::nvrtc::{Nvrtc, NvrtcError, OPTIONS};
use bitnet_kernels::cuda::{HEADERS, sources};
use judge::{Findings, Unit};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use wheel::Missing;

mod cubin;
mod judge;
mod ptxas;
mod wheel;

const UNAVAILABLE: u8 = 4;

/// Makes NVRTC's log say registers, spills and shared memory of every entry.
const VERBOSE: &str = "--ptxas-options=-v";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask cuda-check\n  cargo xtask cuda-check --arch sm_90a --format json\n  cargo xtask cuda-check --source new.cu --entry bn_new\n\nExit codes: 0 all compiles and keeps its limits, 1 something does not, 4 NVRTC is not here."
)]
pub(crate) struct Args {
    /// Architectures [default: those of golden/gates/cuda.toml].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    arch: Vec<Architecture>,
    /// NVRTC's library or its folder [default: the pinned wheel, fetched into the build folder].
    #[arg(long, value_name = "PATH")]
    nvrtc: Option<PathBuf>,
    /// Compile this file instead of the kernels.
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// The entries that --source must have [default: those that it has].
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "source")]
    entry: Vec<String>,
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let golden = bitnet_golden::cuda::read(&root().join("golden"))?;
        // Before anything is fetched: what the user wrote wrong needs no compiler to be said.
        let units = self.units()?;
        let library = match wheel::library(&golden, self.nvrtc.as_deref(), &target())? {
            Ok(library) => library,
            Err(missing) => return self.unavailable(&missing),
        };
        let unusable = |reason: String| {
            self.unavailable(&Missing { reason, remedy: wheel::remedy(self.nvrtc.as_deref(), &library) })
        };
        let nvrtc = match Nvrtc::load(Some(&library)) {
            Ok(nvrtc) => nvrtc,
            Err(NvrtcError::NoLibrary { tried }) => return unusable(format!("NVRTC cannot be loaded ({tried})")),
            Err(NvrtcError::NoSymbol { library, symbol }) => {
                return unusable(format!(
                    "{library} is not the NVRTC of CUDA 11.2 or newer: it has no function `{symbol}`"
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let (architectures, left_out) = self.architectures(&golden, &nvrtc)?;
        if architectures.is_empty() {
            return unusable(format!("NVRTC {} offers none of {}", version(&nvrtc), left_out.join(", ")));
        }
        let report = judge::judge(&golden, &nvrtc, &units, &architectures, left_out, self.source.is_none());
        match self.format {
            Format::Json => writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&report)?)?,
            Format::Text => std::io::stdout().lock().write_all(text(&report).as_bytes())?,
        }
        Ok(if report.green() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn units(&self) -> anyhow::Result<Vec<Unit>> {
        let headers = HEADERS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<Vec<_>>();
        if let Some(path) = &self.source {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let entries = (!self.entry.is_empty()).then(|| self.entry.clone());
            return Ok(vec![Unit { name: path.display().to_string(), text, entries, headers }]);
        }
        ensure!(!sources().is_empty(), "bitnet_kernels::cuda::sources() is empty: nothing would be compiled");
        let unit = |source: &bitnet_kernels::cuda::Source| Unit {
            name: format!("{}.cu", source.name),
            text: source.text.to_owned(),
            entries: Some(source.entries.iter().map(|entry| (*entry).to_owned()).collect()),
            headers: headers.clone(),
        };
        Ok(sources().iter().map(unit).collect())
    }

    /// The architectures to compile for, and the names of those that this NVRTC does not offer. What was asked for by name
    /// must be offered.
    fn architectures(&self, golden: &Cuda, nvrtc: &Nvrtc) -> anyhow::Result<(Vec<Architecture>, Vec<String>)> {
        let offers = |arch: &Architecture| nvrtc.architectures().contains(&arch.number());
        if let Some(unknown) = self.arch.iter().find(|arch| !offers(arch)) {
            let offered = bitnet_kernels::cuda::architecture::list(nvrtc.architectures());
            anyhow::bail!("NVRTC {} makes nothing for {unknown}; it offers {offered}", version(nvrtc));
        }
        if !self.arch.is_empty() {
            return Ok((self.arch.clone(), Vec::new()));
        }
        let all = golden.architectures.iter().map(|name| name.parse()).collect::<Result<Vec<Architecture>, _>>();
        let (offered, not): (Vec<_>, Vec<_>) = all.context("golden/gates/cuda.toml")?.into_iter().partition(offers);
        Ok((offered, not.iter().map(ToString::to_string).collect()))
    }

    fn unavailable(&self, missing: &Missing) -> anyhow::Result<ExitCode> {
        let (reason, remedy) = (&missing.reason, &missing.remedy);
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => {
                let outcome = serde_json::json!({ "outcome": "unavailable", "reason": reason, "remedy": remedy });
                writeln!(out, "{outcome:#}")?;
            }
            Format::Text => writeln!(out, "cuda-check: unavailable: {reason}\n  to fix it: {remedy}")?,
        }
        Ok(ExitCode::from(UNAVAILABLE))
    }
}

fn version(nvrtc: &Nvrtc) -> String {
    let (major, minor) = nvrtc.version();
    format!("{major}.{minor}")
}

/// The table, what is wrong, and a line that adds up.
fn text(report: &Findings) -> String {
    let mut text = String::new();
    let width = report.rows.iter().map(|row| row.entry.len()).max().unwrap_or(0).max(8);
    text += &format!(
        "{:<width$} {:<8} {:>9} {:>6} {:>6} {:>7} {:>9} {:>6}  finding\n",
        "kernel", "arch", "registers", "spill", "stack", "shared", "constant", "early"
    );
    for row in &report.rows {
        let cost = row.cost.as_ref();
        let figure = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        text += &format!(
            "{:<width$} {:<8} {:>9} {:>6} {:>6} {:>7} {:>9} {:>6}  {}\n",
            row.entry,
            row.architecture,
            figure(cost.map(|cost| cost.registers)),
            figure(cost.map(|cost| cost.spill_stores + cost.spill_loads)),
            figure(cost.map(|cost| cost.stack)),
            figure(cost.map(|cost| cost.shared)),
            figure(cost.map(|cost| cost.constant)),
            figure(cost.and_then(|cost| cost.early)),
            row.finding.as_deref().unwrap_or("ok"),
        );
    }
    for failure in &report.failures {
        text += &format!("{failure}\n");
    }
    for warning in &report.warnings {
        text += &format!("{warning}\n");
    }
    for name in &report.left_out {
        text += &format!("{name}: not offered by NVRTC {}, so nothing was compiled for it\n", report.nvrtc);
    }
    let bad = report.rows.iter().filter(|row| row.finding.is_some()).count();
    text += &format!(
        "cuda-check: {}: {} sources x {} architectures by NVRTC {} ({}): {} entries = {} ok + {bad} red; {} more failures, {} warnings\n",
        if report.green() { "green" } else { "RED" },
        report.sources,
        report.architectures.len(),
        report.nvrtc,
        OPTIONS.join(" "),
        report.rows.len(),
        report.rows.len() - bad,
        report.failures.len(),
        report.warnings.len(),
    );
    text
}
