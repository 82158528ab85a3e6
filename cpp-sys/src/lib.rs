//! The C++ references, bitnet.cpp and llama.cpp, as worker processes.
//!
//! Both cannot live in one program (their symbols clash), neither can live in ours (a failed `GGML_ASSERT` aborts the
//! process), and neither is needed to build or use this crate: it holds the [protocol](wire), its client ([`Session`]),
//! the serving half ([`serve`]) and the rules about which file goes to which reference ([`CppBackend::detect`]). The
//! workers themselves are Cargo workspaces of their own under `cpp-sys/workers/`, built by `cargo xtask setup-cpp`.
//!
//! ```no_run
//! use cpp_sys::{CppBackend, LoadOptions, Positions, Session, SessionOptions, Workers};
//! let installed = Workers::new("target".as_ref()).preflight(CppBackend::Llama)?;
//! let mut session = Session::start(&installed, SessionOptions::default())?;
//! session.load("model.gguf".as_ref(), LoadOptions::default())?;
//! let tokens = session.tokenize("The capital of France is", true, false)?;
//! let logits = session.logits(&tokens, &Positions::All, 512)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![allow(missing_docs, reason = "a name that says it all has no comment")]

mod backend;
mod build;
mod checkout;
mod error;
pub mod frame;
mod process;
pub mod serve;
mod session;
mod sources;
mod timings;
pub mod wire;
pub mod workers;

pub use backend::{CppBackend, ModelFacts, Selection, UnknownBackend, Unsupported};
pub use build::BuildInfo;
pub use checkout::Checkout;
pub use error::CppError;
pub use session::{CallSink, Session, SessionOptions};
pub use sources::fingerprint;
pub use timings::{Tally, Timings};
pub use wire::{CacheType, Fault, Generated, Hello, LoadInfo, LoadOptions, Logits, Positions, TraceStep};
pub use workers::{Installed, Missing, Workers};
