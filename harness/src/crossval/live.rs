//! A C++ reference as a side: a worker process, spoken to by `cpp-sys`. The commands have one for themselves, the cells of the
//! matrix share one for each backend.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitnet_engine::gguf::{GgufError, GgufFile};
use cpp_sys::{
    CppBackend, CppError, Hello, Installed, LoadInfo, LoadOptions, ModelFacts, Session, SessionOptions, Workers,
};
use serde_json::json;

use super::answers::Answers;
use super::reference::{Continuation, Logits, Positions, Reference, Row, SideError, Traced};
use super::report::Section;

/// Tokens that the reference computes together.
const CHUNK: usize = 512;

/// What decides which reference runs a file.
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
    pub backend: CppBackend,
    pub why: String,
    path: PathBuf,
    facts: ModelFacts,
}

/// Why there is no reference.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct NoReference {
    /// What is missing, and the command that fixes it.
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
    #[error(transparent)]
    Gguf(#[from] GgufError),
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

/// A worker process, started when the first side asks, and anew when it died, hung or got out of step: a dead worker costs the
/// question that saw it and no other. The sides that share it take turns, each with its own model file.
pub struct Desk {
    installed: Installed,
    options: SessionOptions,
    open: Mutex<Option<Open>>,
}

/// A worker and the model that it has loaded.
struct Open {
    session: Session,
    model: Option<(PathBuf, LoadOptions, LoadInfo)>,
}

impl Desk {
    /// The place of a worker; starts nothing.
    pub fn new(installed: Installed, options: SessionOptions) -> Arc<Self> {
        Arc::new(Self { installed, options, open: Mutex::new(None) })
    }

    /// Whose worker it is.
    pub fn backend(&self) -> CppBackend {
        self.installed.backend
    }

    /// Asks the worker about a file. A worker that died, hung or got out of step is forgotten, and so is one during whose answer
    /// we panicked.
    fn ask<T>(
        &self,
        (path, load): (&Path, &LoadOptions),
        question: impl FnOnce(&mut Session) -> Result<T, CppError>,
    ) -> Result<T, CppError> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match slot.take() {
            Some(open) => open,
            None => Open { session: Session::start(&self.installed, self.options.clone())?, model: None },
        };
        let mut answer = Ok(());
        if !open.model.as_ref().is_some_and(|(loaded, with, _)| loaded == path && with == load) {
            open.model = None;
            let info = open.session.load(path, load.clone());
            answer = info.map(|info| open.model = Some((path.to_owned(), load.clone(), info)));
        }
        let answer = answer.and_then(|()| question(&mut open.session));
        if !answer.as_ref().is_err_and(CppError::is_final) {
            *slot = Some(open);
        }
        answer
    }

    /// The worker, its build, the model and the times of its answers; null where none runs.
    fn state(&self) -> serde_json::Value {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Open { session, model }) = &*open else { return serde_json::Value::Null };
        let info = model.as_ref().map(|(_, _, info)| info);
        json!({ "hello": session.hello(), "build": self.installed.build, "model": info, "timings": session.timings() })
    }
}

/// What distinguishes the sides that share a worker.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The name in reports and messages.
    pub name: &'static str,
    pub path: PathBuf,
    pub load: LoadOptions,
    /// Tokens that are computed together.
    pub chunk: usize,
    /// The file's hash, where answers are kept for the length of the process: they depend on the file and the question alone.
    pub kept: Option<String>,
    /// What is said of the worker; what its desk knows, if nothing.
    pub version: Option<serde_json::Value>,
}

/// A worker, about one model file.
pub struct Live {
    desk: Arc<Desk>,
    asking: Asking,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("asking", &self.asking).finish_non_exhaustive()
    }
}

static LOGITS: Answers<Logits> = Answers::new();
static CONTINUATIONS: Answers<Continuation> = Answers::new();
static TRACES: Answers<Vec<Traced>> = Answers::new();

impl Live {
    /// A worker of its own, with the file loaded.
    pub fn start(
        installed: &Installed,
        options: SessionOptions,
        path: &Path,
        context: usize,
    ) -> Result<Self, CppError> {
        let (name, load) = (installed.backend.name(), LoadOptions { context, ..LoadOptions::default() });
        let asking = Asking { name, path: path.to_owned(), load, chunk: CHUNK, kept: None, version: None };
        let live = Self::at(Desk::new(installed.clone(), options), asking);
        live.desk.ask((path, &live.asking.load), |_| Ok(()))?;
        Ok(live)
    }

    /// A side of a worker that may have others.
    pub fn at(desk: Arc<Desk>, asking: Asking) -> Self {
        Self { desk, asking }
    }

    /// What the worker said of itself, with the file loaded.
    pub fn hello(&self) -> Result<Hello, SideError> {
        self.ask("hello", |session| Ok(session.hello().clone()))
    }

    fn ask<T>(
        &self,
        what: &'static str,
        question: impl FnOnce(&mut Session) -> Result<T, CppError>,
    ) -> Result<T, SideError> {
        let Asking { name, path, load, .. } = &self.asking;
        self.desk.ask((path, load), question).map_err(|error| SideError::failed(name, what, error))
    }

    /// An answer, from those that are kept if this side keeps any.
    fn answer<T: Clone>(
        &self,
        answers: &Answers<T>,
        question: &impl std::fmt::Debug,
        make: impl FnOnce() -> Result<T, SideError>,
    ) -> Result<T, SideError> {
        let Some(hash) = &self.asking.kept else { return make() };
        let key = format!("{} {hash} {question:?}", self.desk.backend());
        Ok(T::clone(&*answers.get(key, make)?))
    }
}

impl Reference for Live {
    fn name(&self) -> &str {
        self.asking.name
    }

    fn version(&self) -> serde_json::Value {
        self.asking.version.clone().unwrap_or_else(|| self.desk.state())
    }

    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, SideError> {
        self.ask("tokens", |session| session.tokenize(text, add_special, parse_special))
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        let question = (tokens, positions.of(tokens.len()));
        self.answer(&LOGITS, &question, || {
            self.ask("logits", |session| logits(session, tokens, positions, self.asking.chunk))
        })
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        self.answer(&CONTINUATIONS, &(prompt, max_tokens), || {
            self.ask("generation", |session| continuation(session, prompt, max_tokens))
        })
    }

    fn trace(&mut self, tokens: &[u32]) -> Result<Vec<Traced>, SideError> {
        self.answer(&TRACES, &tokens, || {
            let mut steps = self.ask("trace", |session| trace(session, tokens))?;
            let file =
                GgufFile::open(&self.asking.path).map_err(|e| SideError::failed(self.asking.name, "trace", e))?;
            fold_scales(&file, &mut steps);
            Ok(steps)
        })
    }
}

/// A weight may have a number beside it (`blk.0.attn_q.scale`, one f32). A reference shows the bare product and multiplies afterwards,
/// in an operation that has no name of ours; our step is the product with the number in it.
fn fold_scales(file: &GgufFile, steps: &mut [Traced]) {
    for step in steps {
        let scale = file.tensor(&format!("{}.scale", step.step)).and_then(|view| <[u8; 4]>::try_from(view.data).ok());
        if let Some(scale) = scale.map(f32::from_le_bytes) {
            step.values.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// Asks a worker for logits, `chunk` tokens at a time.
fn logits(session: &mut Session, tokens: &[u32], positions: &Positions, chunk: usize) -> Result<Logits, CppError> {
    let wanted = match positions {
        Positions::All => cpp_sys::Positions::All,
        Positions::List(_) => cpp_sys::Positions::List(positions.of(tokens.len())),
    };
    let found = session.logits(tokens, &wanted, chunk)?;
    let rows = found.rows().map(|row| Row::Full(row.to_vec())).collect();
    Ok(Logits { positions: found.positions.clone(), vocab: found.vocab, rows })
}

/// Asks a worker for a continuation.
fn continuation(session: &mut Session, prompt: &[u32], max_tokens: usize) -> Result<Continuation, CppError> {
    let made = session.generate(prompt, max_tokens)?;
    Ok(Continuation { tokens: made.tokens, ended: made.ended })
}

/// Asks a worker for a trace. Tensors that are not steps of ours have no name to compare under.
fn trace(session: &mut Session, tokens: &[u32]) -> Result<Vec<Traced>, CppError> {
    let steps = session.trace(tokens, &[])?;
    let named = steps
        .into_iter()
        .filter_map(|s| Some(Traced { step: s.step?, rows: s.rows, width: s.width, values: s.values }));
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_engine::gguf::GgufWriter;

    #[test]
    fn the_number_beside_a_weight_belongs_to_its_step() {
        let mut writer = GgufWriter::new(3, 32).expect("writer");
        writer.tensor("blk.0.attn_q.scale", &[1], 0, 0.5f32.to_le_bytes().to_vec()).expect("tensor");
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).expect("bytes");
        let file = GgufFile::from_vec(bytes).expect("file");
        let step = |name: &str| Traced { step: name.to_owned(), rows: 1, width: 2, values: vec![2.0, -4.0] };
        let mut steps = [step("blk.0.attn_q"), step("blk.0.attn_k")];
        fold_scales(&file, &mut steps);
        assert_eq!((&steps[0].values[..], &steps[1].values[..]), (&[1.0, -2.0][..], &[2.0, -4.0][..]));
    }
}
