//! Every step of our plan, computed from what the *reference* had before it.
//!
//! Two engines that round differently drift apart layer by layer, and in the end a small fault is hidden below what
//! piled up. Here nothing piles up: before each step the reference's own values stand in for ours, so what a step gives
//! can be held against the reference's result with a limit that knows only the rounding of one step. A step that the
//! reference does not show is computed from what came before it and so becomes part of the next.

use std::collections::HashMap;

use bitnet_engine::model::plan::Gating;
use bitnet_engine::model::{Model, Op, Slot};
use bitnet_kernels::parallel::{Product, matmul};
use bitnet_kernels::{Activations, Kernels, Pool, Rope, rope_table};

use super::reference::Traced;

/// One step, computed from the reference's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Our result.
    pub result: Traced,
    /// The steps whose results went in: the nearest ones that the reference shows.
    pub inputs: Vec<String>,
}

/// What stands in a slot, and the shown steps that it comes from.
#[derive(Debug, Clone, Default)]
struct Held {
    values: Vec<f32>,
    from: Vec<String>,
}

/// Replays the plan over `tokens`. Steps from the first on whose input cannot be had (a reference that shows fewer
/// rows than there are tokens) are left out.
#[must_use]
pub fn replay(
    model: &Model,
    kernels: &dyn Kernels,
    pool: &Pool,
    tokens: &[u32],
    reference: &[Traced],
) -> Vec<Replayed> {
    let shown: HashMap<&str, &Traced> = reference.iter().map(|step| (step.step.as_str(), step)).collect();
    let mut state = State {
        model,
        kernels,
        pool,
        rows: tokens.len(),
        slots: vec![Held::default(); Slot::ALL.len()],
        keys: Held::default(),
        values: Held::default(),
    };
    let mut out = Vec::new();
    for step in &model.plan {
        let Some(held) = state.compute(&step.op, tokens) else { break };
        let Some(slot) = step.op.result() else { continue };
        let width = held.values.len() / state.rows.max(1);
        let mut next = held.clone();
        if let Some(theirs) = shown.get(step.name.as_str()) {
            let result = Traced { step: step.name.clone(), rows: state.rows, width, values: held.values };
            out.push(Replayed { result, inputs: held.from });
            next.from = vec![step.name.clone()];
            if theirs.values.len() == next.values.len() {
                next.values.clone_from(&theirs.values);
            }
        }
        if let Some(target) = state.slots.get_mut(slot.index()) {
            *target = next;
        }
    }
    out
}

struct State<'a> {
    model: &'a Model,
    kernels: &'a dyn Kernels,
    pool: &'a Pool,
    rows: usize,
    slots: Vec<Held>,
    keys: Held,
    values: Held,
}

impl State<'_> {
    fn slot(&self, slot: Slot) -> &Held {
        &self.slots[slot.index()]
    }

    /// The result of an operation and where it came from; `None` where a value that it needs is not there.
    fn compute(&mut self, op: &Op, tokens: &[u32]) -> Option<Held> {
        let config = &self.model.config;
        match *op {
            Op::Embed { table, .. } => {
                let table = self.model.weights.matrix(table);
                let mut values = vec![0.0; tokens.len() * table.cols];
                for (row, &token) in values.chunks_exact_mut(table.cols).zip(tokens) {
                    table.unpack_row(token as usize, row);
                }
                Some(Held { values, from: Vec::new() })
            }
            Op::RmsNorm { src, weight, .. } => {
                let (weight, input) = (self.model.weights.norm(weight), self.slot(src));
                let mut values = vec![0.0; input.values.len()];
                for (x, y) in input.values.chunks_exact(weight.len()).zip(values.chunks_exact_mut(weight.len())) {
                    self.kernels.rms_norm(x, weight, config.rms_eps, y);
                }
                Some(Held { values, from: input.from.clone() })
            }
            Op::Linear { src, weight, .. } => {
                let (matrix, input) = (self.model.weights.matrix(weight), self.slot(src));
                if input.values.len() != self.rows * matrix.cols {
                    return None;
                }
                let mut prepared = Activations::default();
                self.kernels.prepare(matrix.format.act, &input.values, self.rows, &mut prepared);
                let mut values = vec![0.0; self.rows * matrix.rows];
                matmul(self.pool, self.kernels, &mut [Product { matrix, out: &mut values }], &prepared);
                Some(Held { values, from: input.from.clone() })
            }
            Op::Rope { slot, heads, kind } => Some(self.rotate(slot, heads, kind)),
            Op::CacheAppend { .. } => {
                self.keys = self.slot(Slot::Key).clone();
                self.values = self.slot(Slot::Value).clone();
                Some(Held::default())
            }
            Op::Attention { .. } => self.attention(),
            Op::Gate(gating) => {
                let (gate, up) = (self.slot(Slot::Gate), self.slot(Slot::Up));
                if gate.values.len() != up.values.len() {
                    return None;
                }
                let mut values = gate.values.clone();
                match gating {
                    Gating::Relu2 => self.kernels.relu2_gate(&mut values, &up.values),
                    Gating::Silu => self.kernels.silu_gate(&mut values, &up.values),
                }
                Some(Held { values, from: joined(&[gate, up]) })
            }
            Op::Add { src } => {
                let (residual, term) = (self.slot(Slot::Residual), self.slot(src));
                if residual.values.len() != term.values.len() {
                    return None;
                }
                let mut values = residual.values.clone();
                self.kernels.add(&mut values, &term.values);
                Some(Held { values, from: joined(&[residual, term]) })
            }
            // All rows are wanted.
            Op::SelectRows => Some(Held::default()),
        }
    }

    fn rotate(&self, slot: Slot, heads: usize, kind: Rope) -> Held {
        let config = &self.model.config;
        let half = config.rope_dims / 2;
        let scaled: Option<Vec<f32>> = match self.model.weights.rope_factors.as_deref() {
            Some(factors) => Some(factors.iter().map(|f| f * config.rope_scale).collect()),
            None if config.rope_scale == 1.0 => None,
            None => Some(vec![config.rope_scale; half]),
        };
        let input = self.slot(slot);
        let mut values = input.values.clone();
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        for (position, row) in values.chunks_exact_mut(heads * config.head_dim).enumerate() {
            rope_table(config.rope_dims, config.rope_theta, scaled.as_deref(), position, &mut cos, &mut sin);
            for head in row.chunks_exact_mut(config.head_dim) {
                self.kernels.rope(kind, head, &cos, &sin);
            }
        }
        Held { values, from: input.from.clone() }
    }

    fn attention(&self) -> Option<Held> {
        let config = &self.model.config;
        let (dim, heads, kv_heads) = (config.head_dim, config.heads, config.kv_heads);
        let query = self.slot(Slot::Query);
        let kv = self.rows * kv_heads * dim;
        if query.values.len() != self.rows * heads * dim
            || self.keys.values.len() != kv
            || self.values.values.len() != kv
        {
            return None;
        }
        let half = |values: &[f32]| {
            let mut bits = vec![0; values.len()];
            self.kernels.f32_to_f16(values, &mut bits);
            bits
        };
        let (keys, vals) = (half(&self.keys.values), half(&self.values.values));
        let mut values = vec![0.0; query.values.len()];
        let mut scratch = vec![0.0; self.rows];
        let scale = 1.0 / (dim as f32).sqrt();
        for (i, (q, out)) in query.values.chunks_exact(dim).zip(values.chunks_exact_mut(dim)).enumerate() {
            let (token, head) = (i / heads, i % heads);
            let at = head / (heads / kv_heads) * dim;
            let stride = kv_heads * dim;
            self.kernels.attention(q, &keys[at..], &vals[at..], stride, token + 1, scale, &mut scratch, out);
        }
        Some(Held { values, from: joined(&[query, &self.keys, &self.values]) })
    }
}

fn joined(parts: &[&Held]) -> Vec<String> {
    let mut from: Vec<String> = Vec::new();
    for name in parts.iter().flat_map(|part| &part.from) {
        if !from.contains(name) {
            from.push(name.clone());
        }
    }
    from
}
