//! The launches of one token: a product takes the norm before it and the sum, the gate or the rotation behind it.
//!
//! What a product leaves for a sum or a gate is read by nothing else: families' plans are made so.

use super::fused::{Before, Fused, Part};
use crate::ops::{Gating, MatrixId, RopeId, Slot, VectorId};
use bitnet_kernels::Rope;

/// Products of one row, and what follows them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// The row.
    pub(super) src: Slot,
    /// Its norm's weight and epsilon.
    pub(super) weight: Option<(VectorId, f32)>,
    pub(super) out: Out,
}

/// Where products go.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Out {
    /// To their slots: three at most.
    Store(Vec<(MatrixId, Slot)>),
    /// `Residual += product`.
    Sum(MatrixId),
    /// `Gate = gate(gate, up)`.
    Gate { kind: Gating, gate: MatrixId, up: MatrixId },
    /// Queries, rotated, to their slot; keys, rotated, and values to the cache.
    Cache { layer: usize, kind: Rope, rope: RopeId, of: [MatrixId; 3] },
}

/// The launches of a single token from those of a chunk that nobody observes, without the selection of rows. `None` if rows are
/// wider than `fits` takes, or a product would overwrite its own row.
pub(super) fn single(chunk: &[Fused], fits: &dyn Fn(MatrixId) -> bool) -> Option<Vec<Part>> {
    let mut out: Vec<Part> = Vec::with_capacity(chunk.len());
    // The row of the next products, and its norm.
    let mut row = None;
    for Fused { part, .. } in chunk {
        match part {
            Part::Select => {}
            Part::Norm { before, src, weight, values, int8 } => {
                let before = if follow(&mut out, *before) { Before::Plain } else { *before };
                if values.is_none() {
                    match before {
                        Before::Plain => {}
                        Before::Sum(src) => out.push(Part::Add { src }),
                        Before::Gate(kind) => out.push(Part::Gate(kind)),
                    }
                    row = Some((*src, *weight));
                    continue;
                }
                row = values.filter(|_| *int8).map(|values| (values, None));
                out.push(Part::Norm { before, src: *src, weight: *weight, values: *values, int8: false });
            }
            Part::Ternary { parts, .. } => {
                let (src, weight) = row?;
                if parts.iter().any(|&(id, dst)| dst == src || !fits(id)) {
                    return None;
                }
                out.push(Part::Token(Token { src, weight, out: Out::Store(parts.clone()) }));
            }
            Part::Cache { layer, kind, rope } => {
                let of = match last(&mut out) {
                    Some((_, Out::Store(parts))) => match parts[..] {
                        [(q, Slot::Query), (k, Slot::Key), (v, Slot::Value)] => Some([q, k, v]),
                        _ => None,
                    },
                    _ => None,
                };
                match (of, last(&mut out)) {
                    (Some(of), Some((_, out))) => *out = Out::Cache { layer: *layer, kind: *kind, rope: *rope, of },
                    _ => out.push(part.clone()),
                }
            }
            Part::Add { src } if follow(&mut out, Before::Sum(*src)) => {}
            Part::Gate(kind) if follow(&mut out, Before::Gate(*kind)) => {}
            other => out.push(other.clone()),
        }
    }
    Some(out)
}

/// The products that were started last.
fn last(out: &mut [Part]) -> Option<(Slot, &mut Out)> {
    match out.last_mut() {
        Some(Part::Token(token)) => Some((token.src, &mut token.out)),
        _ => None,
    }
}

/// Whether the products that were started last do this behind themselves. They must not write the row that they read.
fn follow(out: &mut [Part], before: Before) -> bool {
    let Some((src, out)) = last(out) else { return before == Before::Plain };
    let new = match (before, &*out) {
        (Before::Plain, _) => return true,
        (Before::Sum(slot), Out::Store(parts)) => match parts[..] {
            [(id, dst)] if dst == slot && src != Slot::Residual => Out::Sum(id),
            _ => return false,
        },
        (Before::Gate(kind), Out::Store(parts)) => match parts[..] {
            [(gate, Slot::Gate), (up, Slot::Up)] if src != Slot::Gate => Out::Gate { kind, gate, up },
            _ => return false,
        },
        _ => return false,
    };
    *out = new;
    true
}

#[cfg(test)]
mod tests {
    use super::super::fused::tests::{add, fused, linear, norm, select, step};
    use super::*;
    use crate::ops::{Attention, CacheAppend, Gate, Op, RmsNorm, Rotate, Step};

    const ROPE: RopeId = RopeId(0);

    /// A layer as BitNet b1.58 has it, and the end of the model.
    fn layer() -> Vec<Step> {
        use Slot::{Gate as G, Hidden, Key, Logits, Query, Residual, Up, Value};
        let rope = |slot| step(Rotate { slot, heads: 1, dim: 4, kind: Rope::Neox, rope: ROPE });
        vec![
            norm(Residual, Hidden, 0),
            linear(Hidden, Query, 0),
            linear(Hidden, Key, 1),
            linear(Hidden, Value, 2),
            rope(Query),
            rope(Key),
            step(CacheAppend { layer: 7 }),
            step(Attention { layer: 7, heads: 1, kv_heads: 1, dim: 4, scale: 0.5, window: None }),
            norm(Query, Query, 1),
            linear(Query, Hidden, 3),
            add(Hidden),
            norm(Residual, Hidden, 2),
            linear(Hidden, G, 4),
            linear(Hidden, Up, 5),
            step(Gate(Gating::Relu2)),
            norm(G, G, 3),
            linear(G, Hidden, 6),
            add(Hidden),
            select(),
            norm(Residual, Hidden, 4),
            linear(Hidden, Logits, 9),
        ]
    }

    fn parts(plan: &[Step], ternary: &dyn Fn(MatrixId) -> bool, fits: bool) -> Option<Vec<Part>> {
        single(&fused(plan, ternary, false), &|_| fits)
    }

    fn weight(id: usize) -> (VectorId, f32) {
        (VectorId(id), 1e-5)
    }

    fn token(src: Slot, norm: Option<usize>, out: Out) -> Part {
        Part::Token(Token { src, weight: norm.map(weight), out })
    }

    /// Attention is two launches.
    #[test]
    fn a_layer_is_six_launches() {
        let [q, k, v, o, gate, up, down] = [0, 1, 2, 3, 4, 5, 6].map(MatrixId);
        let last = Slot::Hidden;
        let want = [
            token(Slot::Residual, Some(0), Out::Cache { layer: 7, kind: Rope::Neox, rope: ROPE, of: [q, k, v] }),
            Part::Attention { layer: 7 },
            token(Slot::Query, Some(1), Out::Sum(o)),
            token(Slot::Residual, Some(2), Out::Gate { kind: Gating::Relu2, gate, up }),
            token(Slot::Gate, Some(3), Out::Sum(down)),
            Part::Norm {
                before: Before::Plain,
                src: Slot::Residual,
                weight: Some(weight(4)),
                values: Some(last),
                int8: false,
            },
            Part::Dense { src: last, weight: MatrixId(9), dst: Slot::Logits },
        ];
        assert_eq!(parts(&layer(), &|id| id.0 != 9, true).as_deref(), Some(&want[..]));
        assert_eq!(parts(&layer(), &|id| id.0 != 9, false), None, "rows that are too wide");
    }

    /// Without sub-norms rows are still made int8 where they are multiplied.
    #[test]
    fn norms_may_be_missing() {
        let sub = |op: &Op| matches!(op, Op::RmsNorm(RmsNorm { weight: VectorId(1 | 3), .. }));
        let plan: Vec<Step> = layer().into_iter().filter(|step| !sub(&step.op)).collect();
        let parts = parts(&plan, &|id| id.0 != 9, true).expect("launches");
        assert!(parts.contains(&token(Slot::Query, None, Out::Sum(MatrixId(3)))), "{parts:?}");
        assert!(parts.contains(&token(Slot::Gate, None, Out::Sum(MatrixId(6)))), "{parts:?}");
    }

    /// A dense matrix among ternary ones: the norm is written once, and what does not fit behind a product is by itself.
    #[test]
    fn dense_matrices_between() {
        let parts = parts(&layer(), &|id| ![9, 5].contains(&id.0), true).expect("launches");
        let dense = Part::Dense { src: Slot::Hidden, weight: MatrixId(5), dst: Slot::Up };
        let at = parts.iter().position(|part| *part == dense).expect("the product");
        let norm = Part::Norm {
            before: Before::Plain,
            src: Slot::Residual,
            weight: Some(weight(2)),
            values: Some(Slot::Hidden),
            int8: false,
        };
        let gate = token(Slot::Hidden, None, Out::Store(vec![(MatrixId(4), Slot::Gate)]));
        assert_eq!(parts[at - 2..at + 2], [norm, gate, dense, Part::Gate(Gating::Relu2)]);
    }

    #[test]
    fn a_product_into_its_own_row_is_not_one_launch() {
        assert_eq!(parts(&[linear(Slot::Gate, Slot::Gate, 0)], &|_| true, true), None);
    }
}
