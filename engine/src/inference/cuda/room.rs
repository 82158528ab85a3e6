//! The activations of a sequence on a device.

use super::TOKENS;
use crate::ops::{Slot, Widths};
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device};
use bitnet_kernels::cuda::launches::{AttentionScratch, Heads, Int8};
use std::sync::Arc;

/// Activations of so many tokens.
pub(super) struct Room {
    pub(super) tokens: usize,
    /// `[position, -, -, -, tokens ...]`, u32.
    pub(super) input: Buffer,
    pub(super) slots: Vec<Buffer>,
    /// Grown when more logits are wanted.
    pub(super) logits: Buffer,
    pub(super) int8: Int8,
    pub(super) attention: AttentionScratch,
}

/// The slots that live in a room of their own; those of the logits grow when more are wanted.
const SLOTS: usize = Slot::ALL.len() - 1;
const _: () = assert!(matches!(Slot::ALL[SLOTS], Slot::Logits));

/// The widest row that is quantised.
fn widest(widths: &Widths) -> usize {
    Slot::ALL.into_iter().take(SLOTS).map(|slot| widths.of(slot)).max().unwrap_or(0)
}

impl Room {
    pub(super) fn bytes(widths: &Widths, shape: Heads, tokens: usize) -> usize {
        let slots: usize = Slot::ALL.iter().take(SLOTS).map(|&slot| widths.of(slot)).sum();
        let logits = 4 * widths.of(Slot::Logits);
        tokens * (4 * slots + widest(widths) + 12) + logits + AttentionScratch::bytes(shape, tokens)
    }

    pub(super) fn new(
        device: &Arc<dyn Device>,
        widths: &Widths,
        shape: Heads,
        tokens: usize,
    ) -> Result<Self, CudaError> {
        // A slot that the plan does not use has one element, so that it is a buffer.
        let slot = |slot: &Slot| Buffer::new::<f32>(device, (tokens * widths.of(*slot)).max(1), "activations");
        Ok(Self {
            tokens,
            input: Buffer::new::<u32>(device, TOKENS + tokens, "tokens")?,
            slots: Slot::ALL.iter().take(SLOTS).map(slot).collect::<Result<_, _>>()?,
            logits: slot_of_logits(device, widths, 1)?,
            int8: Int8::new(device, tokens, widest(widths))?,
            attention: AttentionScratch::new(device, shape, tokens)?,
        })
    }

    pub(super) fn slot(&self, slot: Slot) -> &Buffer {
        self.slots.get(slot.index()).unwrap_or(&self.logits)
    }
}

pub(super) fn slot_of_logits(device: &Arc<dyn Device>, widths: &Widths, rows: usize) -> Result<Buffer, CudaError> {
    Buffer::new::<f32>(device, rows * widths.of(Slot::Logits), "logits")
}
