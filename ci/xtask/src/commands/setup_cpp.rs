//! `cargo xtask setup-cpp`: builds the workers of the C++ references into the build folder, once.
//!
//! A worker is a Cargo workspace of its own (`cpp-sys/workers/`), so this is `cargo build` over there, a copy of the
//! program to where `cpp_sys::Workers` looks for it, and a receipt beside it, written after the program has been started
//! and has said who it is.

use crate::root::{cargo_build, root, target};
use anyhow::{Context, ensure};
use cpp_sys::workers::{missing_tools, sha256};
use cpp_sys::{BuildInfo, Checkout, CppBackend, Installed, Session, SessionOptions, Workers};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Exit code where a backend is not available, here as in `crossval-per-token`.
pub(crate) const UNAVAILABLE: u8 = 4;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs cmake, clang and libclang. BITNET_CPP_DIR and LLAMA_CPP_DIR build a checkout of yours in place of the crate's sources.\nExample: eval \"$(cargo xtask setup-cpp all --emit=sh)\""
)]
pub(crate) struct Args {
    /// `bitnet`, `llama` or `all`.
    #[arg(value_parser = backends)]
    backend: Backends,
    /// Print, in place of the report, the environment in which tests find these workers and require them.
    #[arg(long, value_enum)]
    emit: Option<Emit>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Emit {
    Sh,
}

/// One backend or all.
#[derive(Debug, Clone)]
pub(crate) struct Backends(pub(crate) Vec<CppBackend>);

/// Reads `bitnet`, `llama` or `all`.
pub(crate) fn backends(name: &str) -> Result<Backends, String> {
    match name {
        "all" => Ok(Backends(CppBackend::ALL.to_vec())),
        _ => name.parse().map(|backend| Backends(vec![backend])).map_err(|_| "valid: bitnet, llama, all".to_owned()),
    }
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let lacking = missing_tools();
        if !lacking.is_empty() {
            for line in &lacking {
                eprintln!("{line}");
            }
            eprintln!("to fix it: apt-get install -y cmake make clang libclang-dev");
            return Ok(ExitCode::from(UNAVAILABLE));
        }
        let workers = Workers::new(&target());
        let mut out = std::io::stdout().lock();
        for backend in &self.backend.0 {
            let installed = install(&workers, *backend)?;
            if self.emit.is_none() {
                report(&mut out, &installed)?;
            }
        }
        if let Some(Emit::Sh) = self.emit {
            let names: Vec<&str> = self.backend.0.iter().map(|backend| backend.name()).collect();
            writeln!(out, "export CARGO_TARGET_DIR={}", quoted(&target()))?;
            writeln!(out, "export MATRIX_REQUIRE={}", names.join(","))?;
            for variable in self.backend.0.iter().map(|backend| backend.checkout_variable()) {
                if let Some(dir) = std::env::var_os(variable).filter(|dir| !dir.is_empty()) {
                    writeln!(out, "export {variable}={}", quoted(Path::new(&dir)))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn install(workers: &Workers, backend: CppBackend) -> anyhow::Result<Installed> {
    let (folder, start) = (workers.folder(backend), Instant::now());
    let build = workers.build_folder();
    eprintln!("{}: building its worker, minutes for the first time", backend.title());
    let manifest = root().join("cpp-sys/workers").join(backend.name()).join("Cargo.toml");
    let mut cargo = cargo_build(&manifest, &build);
    // Before the build: what is edited while it runs shows afterwards.
    let variable = std::env::var_os(backend.checkout_variable()).filter(|dir| !dir.is_empty());
    let fork = variable.and_then(|dir| Path::new(&dir).canonicalize().ok());
    let files = fork.map(|folder| Checkout::read(&folder, "")).transpose().context("cannot read the checkout")?;
    let status = cargo.status().with_context(|| format!("cannot run {cargo:?}"))?;
    ensure!(status.success(), "the worker of {} does not build: {cargo:?} ended with {status}", backend.title());
    let seconds = start.elapsed().as_secs();

    let (made, program, receipt) = (
        build.join("release").join(format!("cpp-worker-{}", backend.name())),
        workers.program(backend),
        workers.receipt(backend),
    );
    let built_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let hash = sha256(&made).with_context(|| format!("cannot read {}", made.display()))?;
    let before: Option<BuildInfo> = std::fs::read(&receipt).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Ok(installed) = workers.preflight(backend)
        && installed.build.program_sha256 == hash
    {
        return Ok(installed);
    }
    // By way of a rename: a worker that runs keeps its program.
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let fresh = folder.join("worker.new");
    std::fs::copy(&made, &fresh).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::rename(&fresh, &program).with_context(|| format!("cannot write {}", program.display()))?;
    let unknown = Installed { backend, program, build: BuildInfo::default() };
    let said = Session::start(&unknown, SessionOptions::default())?.hello().build.clone();
    // A build that changed nothing is the earlier one.
    let same = before.filter(|before| before.program_sha256 == hash);
    let (built_at, build_seconds) = same.map_or((built_at, seconds), |same| (same.built_at, same.build_seconds));
    let info = BuildInfo { program_sha256: hash, built_at, build_seconds, ..said };
    let noted = workers.checkout(backend);
    match files {
        Some(files) => {
            let files = Checkout { commit: info.version.clone(), ..files };
            std::fs::write(&noted, serde_json::to_vec_pretty(&files)?)
                .with_context(|| format!("cannot write {}", noted.display()))?;
        }
        // Of an earlier build.
        None if noted.exists() => std::fs::remove_file(&noted)?,
        None => {}
    }
    std::fs::write(&receipt, serde_json::to_vec_pretty(&info)?)
        .with_context(|| format!("cannot write {}", receipt.display()))?;
    workers.preflight(backend).map_err(Into::into)
}

fn report(out: &mut impl Write, installed: &Installed) -> std::io::Result<()> {
    let build = &installed.build;
    writeln!(out, "{}: {}", installed.backend.title(), installed.program.display())?;
    writeln!(out, "  source         {}", build.origin())?;
    for edit in &build.edits {
        writeln!(out, "  edited         {edit}")?;
    }
    if build.edits.is_empty() {
        writeln!(out, "  edited         nothing")?;
    }
    writeln!(out, "  architectures  {}", build.architectures.join(", "))?;
    writeln!(out, "  compiler       {}; {}", build.compiler, build.cmake)?;
    writeln!(out, "  flags          {}", build.flags.join(" "))?;
    writeln!(out, "  libraries      {}", build.libraries.join(", "))?;
    writeln!(out, "  for            {}", build.cpu)?;
    writeln!(out, "  sha256         {}", build.program_sha256)?;
    writeln!(out, "  built in       {} s", build.build_seconds)
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_for_shells() {
        assert_eq!(backends("all").expect("all").0.len(), 2);
        assert_eq!(backends("llama").expect("llama").0, [CppBackend::Llama]);
        assert!(backends("ik").expect_err("unknown").contains("bitnet, llama, all"));
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
