//! What was done where and why, and where the time went.

use super::LONGEST_PIECE;
use bitnet_kernels::cuda::device::CudaError;
use bitnet_kernels::cuda::tokenize::{Times, TokenizeError};
use std::fmt;
use std::time::Duration;

/// Why a tokenizer has no encoder on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum NotOnDevice {
    /// Only byte-level BPE runs there.
    #[error(
        "a tokenizer of kind `{kind}` does not run on {device}, byte-level BPE (`bpe`) does; it is encoded on the CPU"
    )]
    NotByteLevel {
        /// Its [`kind`](crate::tokenizer::Tokenizer::kind).
        kind: &'static str,
        device: String,
    },
    /// A table of a compiled file without an empty entry, where a search on a device would not end.
    #[error("the compiled tokenizer is damaged and does not run on {device}; text is encoded on the CPU")]
    Damaged { device: String },
    /// Its pre-tokenizer is not one of those that run there.
    #[error("the pre-tokenizer `{rule}` does not run on {device}; text is encoded on the CPU")]
    NoRule { rule: String, device: String },
    /// The device refused the tables.
    #[error(transparent)]
    Device(#[from] TokenizeError),
}

/// Why a whole batch was encoded on the CPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum WhyCpu {
    /// It is faster there.
    #[error("{bytes} bytes are fewer than the {from} from which the device is faster")]
    Small { bytes: usize, from: usize },
    /// The device failed.
    #[error("the device failed, and the batch was encoded on the CPU: {0}")]
    Failed(CudaError),
}

/// Where a batch was encoded, and where the time went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Texts that the device encoded.
    pub on_device: usize,
    /// Texts with a piece of more than [`LONGEST_PIECE`] bytes: encoded on the CPU.
    pub long_pieces: usize,
    /// Texts longer than a run ([`BATCH_BYTES`](super::BATCH_BYTES)): encoded on the CPU.
    pub long_texts: usize,
    /// Why nothing went to the device, if so.
    pub why_cpu: Option<WhyCpu>,
    /// Bytes of all texts.
    pub bytes: usize,
    /// The device: transfers and kernels.
    pub times: Times,
    /// Cutting out special tokens.
    pub prepare: Duration,
    /// The ids of each text for themselves, and the texts of the CPU.
    pub collect: Duration,
}

impl fmt::Display for Report {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on_device, long_pieces, long_texts, bytes, times, prepare, collect, .. } = self;
        if let Some(why) = &self.why_cpu {
            return write!(f, "on the CPU: {why}");
        }
        let ms = |time: &Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        write!(
            f,
            "{bytes} bytes, {on_device} texts on the device: preparing {}, upload {}, kernels {}, download {}, collecting {}",
            ms(prepare),
            ms(&times.upload),
            ms(&times.kernels),
            ms(&times.download),
            ms(collect)
        )?;
        if long_pieces + long_texts > 0 {
            write!(
                f,
                "; on the CPU {long_pieces} texts with a piece of more than {LONGEST_PIECE} bytes, and {long_texts} that are longer than a run"
            )?;
        }
        Ok(())
    }
}
