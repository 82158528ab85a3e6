//! Live workers, one for each backend in a process: started when the first cell asks, shared by all of them, and started
//! anew when one died, hung or got out of step, so that a dead worker costs the cell that saw it and no other.
//!
//! What a worker answers depends on the model file and the question alone, not on our device, so each answer is asked for
//! once a process.

use super::questions::{CONTEXT, Subject};
use crate::atomic;
use crate::context::Context;
use crate::crossval::Reference;
use crate::crossval::live::{Asking, Desk, Live};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::verdict::Availability;
use bitnet_engine::gguf::GgufFile;
use cpp_sys::{CppBackend, Hello, LoadOptions, SessionOptions, Workers};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Tokens that a worker computes at a time.
pub const CHUNK: usize = 16;
/// Threads of a worker: the cells of a run share the machine, and its answers must not depend on how many there are.
const THREADS: usize = 1;
/// What one answer about these short sequences may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the worker of a backend is built here.
pub fn availability(backend: CppBackend, target: &Path) -> Availability {
    match Workers::new(target).preflight(backend) {
        Ok(_) => Availability::Available,
        Err(missing) => Availability::unavailable(backend.name(), missing.what.join("; "), missing.command),
    }
}

/// The worker of a backend, ready for a subject.
///
/// # Errors
/// The worker is not built, or cannot be started.
pub fn reference(ctx: &Context, backend: &str, subject: &Subject) -> Result<Live, Failure> {
    let backend: CppBackend = backend.parse()?;
    let desk = desk(backend, &ctx.paths.target)?;
    let load = LoadOptions { context: CONTEXT, vocab_only: subject.vocabulary_only, ..LoadOptions::default() };
    let asking = Asking {
        name: backend.title(),
        path: staged(&subject.file, &ctx.paths.staged())?,
        load,
        chunk: CHUNK,
        kept: Some(subject.file.content_hash().to_owned()),
        version: None,
    };
    let hello = Live::at(Arc::clone(&desk), asking.clone()).hello()?;
    Ok(Live::at(desk, Asking { version: Some(version(&hello)), ..asking }))
}

/// The figures of a comparison with the name of the reference and the model, for the record.
pub fn witness(
    found: Result<Metrics, Failure>,
    reference: &dyn Reference,
    subject: &Subject,
) -> Result<Metrics, Failure> {
    let name = |mut metrics: Metrics| {
        metrics.reference = Some(reference.version().to_string());
        metrics.of_model(subject.file.content_hash())
    };
    match found {
        Ok(metrics) => Ok(name(metrics)),
        Err(Failure { message, metrics }) => Err(Failure { message, metrics: name(metrics) }),
    }
}

/// What a recording keeps of a worker: everything that may change its answers.
fn version(hello: &Hello) -> serde_json::Value {
    let build = &hello.build;
    serde_json::json!({
        "source": build.source,
        "version": build.version,
        "edits": build.edits,
        "compiler": build.compiler,
        "flags": build.flags,
        "libraries": build.libraries,
        "cpu": build.cpu,
        "system": hello.system.trim(),
        "threads": THREADS,
    })
}

fn desk(backend: CppBackend, target: &Path) -> Result<Arc<Desk>, Failure> {
    type Desks = HashMap<(&'static str, PathBuf), Arc<Desk>>;
    static DESKS: OnceLock<Mutex<Desks>> = OnceLock::new();
    let mut desks = DESKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let key = (backend.name(), target.to_owned());
    if let Some(desk) = desks.get(&key) {
        return Ok(Arc::clone(desk));
    }
    let options = SessionOptions { timeout: PATIENCE, threads: THREADS, ..SessionOptions::default() };
    let desk = Desk::new(Workers::new(target).preflight(backend)?, options);
    desks.insert(key, Arc::clone(&desk));
    Ok(desk)
}

/// The path of a file's bytes: its own, or a copy named by its hash.
fn staged(file: &GgufFile, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(path) = file.path() {
        return Ok(path.to_owned());
    }
    let path = folder.join(format!("{}.gguf", file.content_hash()));
    let there = std::fs::metadata(&path).is_ok_and(|found| found.len() == file.file_len());
    if !there {
        let mut bytes = Vec::new();
        file.copy_to(&mut bytes)?;
        atomic::write(&path, &bytes)
            .map_err(|e| Failure::new(format_args!("cannot write {} for the worker: {e}", path.display())))?;
    }
    Ok(path)
}
