//! A C++ reference as a side: a worker process, spoken to by `cpp-sys`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitnet_engine::gguf::{GgufError, GgufFile};
use cpp_sys::{
    BuildInfo, CppBackend, CppError, Installed, LoadInfo, LoadOptions, ModelFacts, Session, SessionOptions, Workers,
};
use serde_json::json;

use super::reference::{Continuation, Logits, Positions, Reference, Row, SideError, Traced};
use super::report::Section;

/// Tokens that the reference computes together.
const CHUNK: usize = 512;

/// What decides which reference runs a file.
#[must_use]
pub fn facts(file: &GgufFile, path: &Path) -> ModelFacts {
    let metadata = file.metadata();
    let mut tensor_types: Vec<u32> = file.tensors().iter().map(|t| t.ggml_type).collect();
    tensor_types.sort_unstable();
    tensor_types.dedup();
    ModelFacts {
        architecture: metadata.str("general.architecture").ok().flatten().map(str::to_owned),
        file_type: metadata.u64("general.file_type").ok().flatten().and_then(|n| u32::try_from(n).ok()),
        tensor_types,
        file_name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
    }
}

/// A reference that was chosen for a file.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which one.
    pub backend: CppBackend,
    /// Why.
    pub why: String,
    path: PathBuf,
    facts: ModelFacts,
}

/// Why there is no reference.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct NoReference {
    /// What is missing, and the command that mends it.
    pub reason: String,
    /// The side, where it was there and failed.
    failed: Option<String>,
}

impl NoReference {
    /// Something that is not there.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), failed: None }
    }

    fn failed(backend: CppBackend, reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), failed: Some(backend.name().to_owned()) }
    }

    /// As a part of a report.
    #[must_use]
    pub fn section<T>(self) -> Section<T> {
        match self.failed {
            Some(side) => Section::Failed { side, reason: self.reason },
            None => Section::NotRun { reason: self.reason },
        }
    }
}

/// A file for which no reference can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The container.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The name.
    #[error("{0}")]
    Name(String),
}

impl Wanted {
    /// The reference of a name, or with `auto` the one that the file's metadata speak for.
    ///
    /// # Errors
    /// The file cannot be read, or there is no such name.
    pub fn choose(path: &Path, name: &str) -> Result<Self, ChooseError> {
        let file = GgufFile::open(path)?;
        let facts = facts(&file, path);
        let (backend, why) = if name == "auto" {
            let selection = CppBackend::detect(&facts);
            (selection.backend, selection.reason)
        } else {
            let backend = name.parse::<CppBackend>().map_err(|e| ChooseError::Name(e.to_string()))?;
            (backend, "asked for".to_owned())
        };
        Ok(Self { backend, why, path: path.to_owned(), facts })
    }

    /// Starts its worker and loads the file.
    ///
    /// # Errors
    /// It cannot run this file, is not built, or failed.
    pub fn start(
        &self,
        target: &Path,
        context: usize,
        threads: usize,
        timeout: Duration,
        verbose: bool,
    ) -> Result<Live, NoReference> {
        self.backend
            .supports(&self.facts)
            .map_err(|e| NoReference::new(format!("{} cannot run this file: {}", self.backend.title(), e.reason)))?;
        let installed = Workers::new(target).preflight(self.backend).map_err(|e| NoReference::new(e.to_string()))?;
        let failed = |e| NoReference::failed(self.backend, e);
        let log = verbose.then(|| -> cpp_sys::CallSink { Arc::new(|line: &str| eprintln!("{line}")) });
        let options = SessionOptions { timeout, threads, log, ..SessionOptions::default() };
        Live::start(&installed, options, &self.path, context).map_err(failed)
    }
}

/// A session with a model.
pub struct Live {
    session: Session,
    backend: CppBackend,
    build: BuildInfo,
    info: LoadInfo,
}

impl Live {
    /// Starts a worker and loads a file.
    ///
    /// # Errors
    /// The worker cannot be started, refuses the file, or fails.
    pub fn start(
        installed: &Installed,
        options: SessionOptions,
        path: &Path,
        context: usize,
    ) -> Result<Self, CppError> {
        let mut session = Session::start(installed, options)?;
        let info = session.load(path, LoadOptions { context, ..LoadOptions::default() })?;
        Ok(Self { session, backend: installed.backend, build: installed.build.clone(), info })
    }

    /// Loads another file into the same process.
    ///
    /// # Errors
    /// The worker refuses it, or fails.
    pub fn reload(&mut self, path: &Path, options: LoadOptions) -> Result<&LoadInfo, CppError> {
        self.info = self.session.load(path, options)?;
        Ok(&self.info)
    }

    /// What the reference said about the model.
    #[must_use]
    pub fn info(&self) -> &LoadInfo {
        &self.info
    }

    fn failed(&self, what: &'static str) -> impl Fn(CppError) -> SideError + use<> {
        let side = self.backend.name();
        move |error| SideError::failed(side, what, error)
    }
}

impl Reference for Live {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn version(&self) -> serde_json::Value {
        let (hello, timings) = (self.session.hello(), self.session.timings());
        json!({ "hello": hello, "build": self.build, "model": self.info, "timings": timings })
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError> {
        let failed = self.failed("tokens");
        self.session.tokenize(text, add_special, parse_special).map_err(failed)
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        let failed = self.failed("logits");
        logits(&mut self.session, tokens, positions, CHUNK).map_err(failed)
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let failed = self.failed("generation");
        continuation(&mut self.session, prompt, max_tokens).map_err(failed)
    }

    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        let failed = self.failed("trace");
        trace(&mut self.session, tokens).map_err(failed)
    }
}

/// Asks a worker for logits, `chunk` tokens at a time.
pub(crate) fn logits(
    session: &mut Session,
    tokens: &[u32],
    positions: &Positions,
    chunk: usize,
) -> Result<Logits, CppError> {
    let wanted = match positions {
        Positions::All => cpp_sys::Positions::All,
        Positions::List(_) => cpp_sys::Positions::List(positions.of(tokens.len())),
    };
    let found = session.logits(tokens, &wanted, chunk)?;
    let rows = found.rows().map(|row| Row::Full(row.to_vec())).collect();
    Ok(Logits { positions: found.positions.clone(), vocab: found.vocab, rows })
}

/// Asks a worker for a continuation.
pub(crate) fn continuation(session: &mut Session, prompt: &[u32], max_tokens: usize) -> Result<Continuation, CppError> {
    let made = session.generate(prompt, max_tokens)?;
    Ok(Continuation { tokens: made.tokens, ended: made.ended })
}

/// Asks a worker for a trace. Tensors that are no step of ours have no name to compare under.
pub(crate) fn trace(session: &mut Session, tokens: &[u32]) -> Result<Vec<Traced>, CppError> {
    let steps = session.trace(tokens, &[])?;
    let named = steps
        .into_iter()
        .filter_map(|s| Some(Traced { step: s.step?, rows: s.rows, width: s.width, values: s.values }));
    Ok(named.collect())
}
