//! Checkpoints of HuggingFace and the GGUFs that are made of them.
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

mod folder;
mod logits;
mod metadata;
mod refused;
mod tokens;
mod trained;

use crate::{check, trial};
use bitnet_engine::checkpoint::{CheckpointError, ToGguf, Written, open};
use bitnet_engine::device;
use bitnet_harness::Failure;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_kernels::Pool;
use bitnet_kernels::quant::Storage;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub(crate) fn trials(paths: &Paths) -> Result<Vec<Named>, Failure> {
    let logits = logits::trials(paths)?;
    Ok([logits, trained::trials(paths), tokens::trials(paths), metadata::trials(), refused::trials()].concat())
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
