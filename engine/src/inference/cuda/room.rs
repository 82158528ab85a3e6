//! The activations of a sequence on a device.

use super::TOKENS;
use crate::model::{Config, Slot};
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device};
use bitnet_kernels::cuda::launches::{AttentionScratch, Heads, Int8};
use std::sync::Arc;

/// Activations of so many tokens.
pub(super) struct Room {
    pub(super) tokens: usize,
    /// `[position, -, -, -, tokens ...]`, u32.
    pub(super) input: Buffer,
    pub(super) slots: [Buffer; 7],
    /// Grown when more logits are wanted.
    pub(super) logits: Buffer,
    pub(super) int8: Int8,
    pub(super) attention: AttentionScratch,
}

/// Elements of a token's row in a slot.
pub(super) fn width(config: &Config, slot: Slot) -> usize {
    match slot {
        Slot::Residual | Slot::Hidden => config.embedding_length,
        Slot::Query => config.query_width(),
        Slot::Key | Slot::Value => config.kv_width(),
        Slot::Gate | Slot::Up => config.feed_forward_length,
        Slot::Logits => config.vocab_size,
    }
}

/// The widest row that is quantised.
fn widest(config: &Config) -> usize {
    config.embedding_length.max(config.query_width()).max(config.feed_forward_length)
}

impl Room {
    pub(super) fn bytes(config: &Config, shape: Heads, tokens: usize) -> usize {
        let slots: usize = Slot::ALL.iter().take(7).map(|&slot| width(config, slot)).sum();
        tokens * (4 * slots + widest(config) + 12) + 4 * config.vocab_size + AttentionScratch::bytes(shape, tokens)
    }

    pub(super) fn new(
        device: &Arc<dyn Device>,
        config: &Config,
        shape: Heads,
        tokens: usize,
    ) -> Result<Self, CudaError> {
        let slot = |slot: Slot| Buffer::new::<f32>(device, tokens * width(config, slot), "activations");
        Ok(Self {
            tokens,
            input: Buffer::new::<u32>(device, TOKENS + tokens, "tokens")?,
            slots: [
                slot(Slot::Residual)?,
                slot(Slot::Hidden)?,
                slot(Slot::Query)?,
                slot(Slot::Key)?,
                slot(Slot::Value)?,
                slot(Slot::Gate)?,
                slot(Slot::Up)?,
            ],
            logits: slot_of_logits(device, config, 1)?,
            int8: Int8::new(device, tokens, widest(config))?,
            attention: AttentionScratch::new(device, shape, tokens)?,
        })
    }

    pub(super) fn slot(&self, slot: Slot) -> &Buffer {
        self.slots.get(slot.index()).unwrap_or(&self.logits)
    }
}

pub(super) fn slot_of_logits(device: &Arc<dyn Device>, config: &Config, rows: usize) -> Result<Buffer, CudaError> {
    Buffer::new::<f32>(device, rows * config.vocab_size, "logits")
}
