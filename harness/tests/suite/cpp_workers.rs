//! The real workers of the C++ references: what they say, and how their faults are reported.
//!
//! | trial | what is shown |
//! |---|---|
//! | `BACKEND::hello` | the program is the one of its receipt |
//! | `BACKEND::steps` | a trace has every step of our plan, of every layer, once, and nothing else; its last step is the logits |
//! | `BACKEND::batches` | one token at a time, sixteen, all at once: the same logits but for the order of sums; chosen positions |
//! | `BACKEND::models` | one session, a model after another, a vocabulary alone, a context that is too short |
//! | `BACKEND::families` | every generated model that the matrix holds against it opens, gives sensible logits, and shows the steps of its family |
//! | `llama::pretokenizers` | every name of a pre-tokenizer cuts text where we cut it, but for the differences that are named |
//! | `llama::tokenizer-kinds` | WordPiece, Unigram and pieces with merges from GGUF metadata have its ids |
//! | `BACKEND::refused` | files that are missing, no model, or cut: refused with the log of the C++ side, and the session goes on |
//! | `BACKEND::assert`, `::kill`, `::stop`, `::hang` | a clear error within the time limit, no zombie, and the next session runs |
//! | `BACKEND::chatter` | what the C++ side prints to its stdout is not part of an answer |
//!
//! The same faults by a small program, without any C++: `cpp-sys/tests/faults.rs`.

mod answers;
mod families;
mod faults;
mod pretokenizers;

use crate::check;
use bitnet_engine::convert::{ConvertOptions, convert_to_vec};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::{Loaded, load};
use bitnet_harness::Failure;
use bitnet_harness::models;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_harness::verdict::Availability;
use bitnet_kernels::quant::{self, I2sLayout};
use cpp_sys::{CppBackend, LoadOptions, Session, SessionOptions, Workers};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A trial of a backend.
type Run = fn(&Stage) -> Result<(), Failure>;
const TRIALS: &[(&str, Run)] = &[
    ("hello", answers::hello),
    ("steps", answers::steps),
    ("batches", answers::batches),
    ("models", answers::models),
    ("families", families::families),
    ("refused", answers::refused),
    ("assert", faults::assert),
    ("kill", faults::kill),
    ("stop", faults::stop),
    ("hang", faults::hang),
    ("chatter", faults::chatter),
];

pub(crate) fn trials(paths: &Arc<Paths>) -> Vec<Named> {
    let mut trials = Vec::new();
    for backend in CppBackend::ALL {
        let availability = match Workers::new(&paths.target).preflight(backend) {
            Ok(_) => Availability::Available,
            Err(missing) => Availability::unavailable(backend.name(), missing.line(), missing.command),
        };
        // bitnet.cpp's fork knows some of the names only.
        let llama: &[(&str, Run)] =
            &[("pretokenizers", pretokenizers::pretokenizers), ("tokenizer-kinds", pretokenizers::kinds)];
        let more = if backend == CppBackend::Llama { llama } else { &[] };
        for (name, run) in TRIALS.iter().chain(more) {
            let stage = Stage { backend, paths: Arc::clone(paths) };
            let run = Arc::new(move || run(&stage));
            trials.push(Named { name: format!("{}::{name}", backend.name()), availability: availability.clone(), run });
        }
    }
    trials
}

/// What a trial works on.
struct Stage {
    backend: CppBackend,
    paths: Arc<Paths>,
}

/// Longest that anything but a planted fault may take: these machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);

impl Stage {
    /// A fresh worker that waits `timeout` for answers.
    fn session(&self, timeout: Duration) -> Result<Session, Failure> {
        let installed = Workers::new(&self.paths.target).preflight(self.backend)?;
        // One thread: sums then have one order.
        let options = SessionOptions { timeout, load_timeout: PATIENCE, threads: 1, ..SessionOptions::default() };
        Ok(Session::start(&installed, options)?)
    }

    /// A fresh worker with the tiny model in it.
    fn loaded(&self, timeout: Duration) -> Result<(Session, Model), Failure> {
        let (mut session, model) = (self.session(timeout)?, self.model()?);
        session.load(&model.path, LoadOptions::default())?;
        Ok((session, model))
    }

    /// The tiny model of the architecture that both know, in a format that this one reads.
    fn model(&self) -> Result<Model, Failure> {
        let stored = self.paths.golden.join("models/tiny-bitnet-silu.gguf");
        let loaded = load(GgufFile::open(&stored)?, Some(I2sLayout::X86), bitnet_kernels::best(), &models::pool(1)?)?;
        let folder = tempfile::tempdir()?;
        let path = match self.backend {
            CppBackend::BitNet => stored,
            CppBackend::Llama => {
                let options = ConvertOptions { linear: quant::by_name("f16")?, embedding: None };
                let path = folder.path().join("tiny-f16.gguf");
                std::fs::write(&path, convert_to_vec(&loaded.model, &options)?)?;
                path
            }
        };
        Ok(Model { path, loaded, _folder: folder })
    }
}

/// A file, and the same model in our engine.
struct Model {
    path: PathBuf,
    loaded: Loaded,
    _folder: tempfile::TempDir,
}
