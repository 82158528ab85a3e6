//! A plan run one step at a time, for somebody who looks at slots between two steps, or puts other values there: the replay of the
//! cross-validation does.

use super::InferenceError;
use crate::model::Model;
use crate::ops::{Batch, KvCache, Memory, Slot, Span, State, Step, Workspace};
use bitnet_kernels::{Kernels, Pool};

/// Some tokens of one sequence, from position 0, on their way through a plan.
pub struct Stepwise<'m> {
    model: &'m Model,
    kernels: &'m dyn Kernels,
    pool: &'m Pool,
    tokens: &'m [u32],
    work: Workspace,
    memory: Memory,
}

impl<'m> Stepwise<'m> {
    /// Before the first step.
    ///
    /// # Errors
    /// A cache for the tokens that memory has no room for.
    pub fn new(
        model: &'m Model,
        kernels: &'m dyn Kernels,
        pool: &'m Pool,
        tokens: &'m [u32],
    ) -> Result<Self, InferenceError> {
        let (config, context) = (&model.config, tokens.len());
        let cache = KvCache::new(config.block_count, context, config.kv_heads, config.head_dim)
            .ok_or(InferenceError::ContextTooLarge { context })?;
        let memory = Memory::new(vec![cache], &model.ropes, context);
        Ok(Self { model, kernels, pool, tokens, work: Workspace::default(), memory })
    }

    /// Runs a step of the plan; logits are wanted of every token.
    pub fn run(&mut self, step: &Step) {
        let tokens = self.tokens.len();
        let spans = [Span { sequence: 0, position: 0, tokens, wanted: tokens }];
        let batch = Batch { tokens: self.tokens, spans: &spans };
        let set = (self.kernels, self.pool);
        let mut state = State::new(set, &self.model.weights, &batch, &mut self.work, &mut self.memory);
        step.op.as_operation().run(&mut state);
    }

    /// What is in a slot, `[tokens][width]`.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> &[f32] {
        &self.work.slots[slot.index()]
    }

    /// Puts other values into a slot.
    ///
    /// # Panics
    /// If they are more or fewer than there were.
    pub fn replace(&mut self, slot: Slot, values: &[f32]) {
        self.work.slots[slot.index()].copy_from_slice(values);
    }
}
