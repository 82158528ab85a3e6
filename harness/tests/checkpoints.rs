//! Checkpoints of HuggingFace and the GGUFs that are made of them.
//!
//! ```text
//! cargo test --test checkpoints
//! cargo test --test checkpoints -- logits::bitnet
//! cargo test --test checkpoints -- --require llama2,llama3
//! ```
//!
//! | trial | what is shown |
//! |---|---|
//! | `logits::CHECKPOINT::FORMAT` | the GGUF gives the logits that numpy computed from the checkpoint, packed, master or float |
//! | `transformers::CHECKPOINT::FORMAT` | and those that HuggingFace's own library computed |
//! | `same::PACKED::MASTER` | both forms of one model give the same codes and the same scale, in every ternary format |
//! | `planted::*` | a scale taken the other way round: the logits are others; other weights behind the converter: `--verify` says so |
//! | `verified::CHECKPOINT::FORMAT` | `--verify` lets formats that round pass |
//! | `trained::*` | the trained tiny model, written as a checkpoint and converted: the same bytes, the same ids |
//! | `tokens::VOCABULARY::FORM` | the tokenizer in the GGUF gives the ids of the crate `tokenizers` |
//! | `metadata::*` | templates, ends of a generation, padding, pooling |
//! | `refused::*` | damaged and foreign folders: the error names what and where, and nothing is written |
//!
//! Vocabularies that were not fetched are `unavailable`; `--require NAME` (or `CHECKPOINTS_REQUIRE`) makes that a failure.

#[path = "checkpoints/folder.rs"]
mod folder;
#[path = "checkpoints/logits.rs"]
mod logits;
#[path = "checkpoints/metadata.rs"]
mod metadata;
#[path = "checkpoints/refused.rs"]
mod refused;
#[path = "checkpoints/tokens.rs"]
mod tokens;
#[path = "checkpoints/trained.rs"]
mod trained;

use bitnet_engine::checkpoint::{CheckpointError, ToGguf, Written, open};
use bitnet_engine::device;
use bitnet_harness::check::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::ALL;
use bitnet_kernels::Pool;
use bitnet_kernels::quant::Storage;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let env = Env::read();
    let paths = Paths::discover(&env);
    let trials = logits::trials(&paths).map(|logits| {
        [logits, trained::trials(&paths), tokens::trials(&paths), metadata::trials(), refused::trials()].concat()
    });
    let trials = match trials {
        Ok(trials) => trials,
        Err(failure) => {
            eprintln!("checkpoints: nothing was run: {}", failure.message);
            return ExitCode::from(2);
        }
    };
    let requirable = ALL.iter().filter(|entry| entry.fixture.is_some()).map(|entry| entry.name.to_owned()).collect();
    Roster { target: "checkpoints", require_twin: "CHECKPOINTS_REQUIRE", requirable, trials }.main(&argv, &env)
}

/// A trial that runs everywhere.
fn trial(name: impl Into<String>, run: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Named {
    Named { name: name.into(), availability: Availability::Available, run: Arc::new(run) }
}

/// Fails with a message unless `good`.
fn check(good: bool, message: impl std::fmt::Display) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::new(message)) }
}

fn pool() -> &'static Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(Pool::new(1).unwrap_or_else(|error| panic!("a pool of one thread: {error}"))))
}

/// Converts a folder to `model.gguf` in `to`.
fn convert(from: &Path, format: &str, verify: bool, to: &Path) -> Result<Written, CheckpointError> {
    let kernels = device::kernels("cpu-scalar").unwrap_or_else(|error| panic!("the scalar kernels: {error}"));
    let linear = Storage::by_name(format).unwrap_or_else(|error| panic!("{error}"));
    let options = ToGguf { linear, embedding: None, verify, context: None, kernels, pool: pool() };
    open(from)?.to_gguf(&options, &to.join("model.gguf"), &mut |_, _| ControlFlow::Continue(()))
}
