//! Causal attention of [`Slot::Query`] over a layer's cache; the result replaces the queries. Query heads share key heads in groups
//! (arXiv:2305.13245). A window lets a position see only the last so many positions, itself included.

use super::state::serial;
use super::{Cases, Operation, ShapeError, Shapes, Slot, State, Unit};
use bitnet_kernels::Kernels as _;
use bitnet_kernels::lines::Lines;
use std::cell::RefCell;

/// With fewer groups for a thread than this, groups are divided: one thread more or less to wait for would be a large part.
const FEW_GROUPS: usize = 8;

/// Attention over a layer's cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// The layer.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub dim: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// Positions that are seen, itself included; all if absent.
    pub window: Option<usize>,
}

pub(super) static UNIT: Unit = Unit { name: "attention", cases };

impl Operation for Attention {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![Slot::Query, Slot::Key, Slot::Value], vec![Slot::Query]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (query, key) = (shapes.read(Slot::Query)?, shapes.read(Slot::Key)?);
        let Self { heads, kv_heads, dim, .. } = *self;
        shapes.ensure(query == heads * dim && key == kv_heads * dim && heads % kv_heads.max(1) == 0, || {
            format!("queries of {query} and keys of {key} elements for {heads} heads on {kv_heads} of {dim}")
        })
    }

    fn run(&self, state: &mut State<'_>) {
        thread_local! {
            static SCORES: RefCell<Lines<f32>> = const { RefCell::new(Lines::new()) };
        }
        let &Self { layer, heads, kv_heads, dim, scale, window } = self;
        let (kernels, caches, spans) = (state.kernels, &state.memory.caches, state.spans());
        // Heads that share their keys and values, side by side in a token's row.
        let group = heads / kv_heads;
        let last = spans.iter().map(|span| span.position + span.tokens).max().unwrap_or(1);
        let mut spare = std::mem::take(&mut state.work.spare);
        let query = &state.work.slots[Slot::Query.index()];
        spare.resize(query.len());
        // Heads that a thread takes at once: a group, or where there are few of these the same number for every thread.
        let (all, threads) = (query.len() / dim, state.pool.threads());
        let taken = if all / group < FEW_GROUPS * threads { all.div_ceil(threads) } else { group };
        state.pool.for_rows(&mut spare, taken * dim, serial(last, taken * dim), &|i, mut out| {
            let mut head = i * taken;
            while !out.is_empty() {
                let (token, shared) = (head / heads, head % heads / group);
                let count = (group - head % group).min(out.len() / dim);
                let (sequence, position) = state.place(token);
                let (keys, values) = caches[sequence].head(layer, shared);
                let end = position + 1;
                let n = window.map_or(end, |window| end.min(window));
                let seen = (end - n) * dim;
                let (here, later) = out.split_at_mut(count * dim);
                SCORES.with_borrow_mut(|scores| {
                    scores.resize(scores.len().max(count * n));
                    let query = &query[head * dim..(head + count) * dim];
                    kernels.attention_group(query, dim, &keys[seen..], &values[seen..], dim, n, scale, scores, here);
                });
                (head, out) = (head + count, later);
            }
        });
        state.work.spare = std::mem::replace(&mut state.work.slots[Slot::Query.index()], spare);
    }
}

fn cases(cases: &mut Cases<'_>) {
    // Around the chunks of 128 positions and the 64 lanes of the sum.
    let sizes = [(64, 1), (64, 2), (64, 63), (64, 65), (128, 127), (64, 128), (80, 129), (128, 513), (64, 300)];
    for &(dim, n) in cases.some(&sizes) {
        let stride = dim + 8;
        let cache = cases.values(2 * n * stride, 2.0);
        let mut half = vec![0u16; cache.len()];
        bitnet_kernels::cpu::scalar::Scalar.f32_to_f16(&cache, &mut half);
        let (keys, values) = half.split_at(n * stride);
        let q = cases.values(dim, 2.0);
        cases.compare(&format!("over {n} positions of {dim}"), |k| {
            let (mut scratch, mut out) = (vec![f32::NAN; n], vec![f32::NAN; dim]);
            k.attention(&q, keys, values, stride, n, 0.125, &mut scratch, &mut out);
            out
        });
        for heads in 1..=5 {
            let q = cases.values(heads * dim, 2.0);
            cases.compare(&format!("of {heads} heads over {n} positions of {dim}"), |k| {
                let (mut scratch, mut out) = (vec![f32::NAN; heads * n], vec![f32::NAN; heads * dim]);
                k.attention_group(&q, dim, keys, values, stride, n, 0.125, &mut scratch, &mut out);
                out
            });
        }
    }
}
