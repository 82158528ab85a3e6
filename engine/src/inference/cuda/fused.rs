//! From the plan's steps to launches for a chunk of tokens: a norm takes the sum or the gate before it and makes the int8 rows
//! of the products after it, products of one input are one launch.

use super::token::Token;
use crate::model::plan::Gating;
use crate::model::{MatrixId, NormId, Op, Slot, Step};
use bitnet_kernels::Rope;

/// What stands before a norm and is done with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Before {
    /// Nothing.
    Plain,
    /// `x += slot`.
    Sum(Slot),
    /// The gate.
    Gate(Gating),
}

/// One or a few launches.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// The tokens' rows of the embedding.
    Embed { table: MatrixId, dst: Slot },
    /// `src`, normed if there is a weight, as f32 to `values` and as int8 to the activations.
    Norm { before: Before, src: Slot, weight: Option<NormId>, values: Option<Slot>, int8: bool },
    /// Products of the int8 activations.
    Ternary { parts: Vec<(MatrixId, Slot)> },
    /// Products of a single token.
    Token(Token),
    /// A product of f32 rows.
    Dense { src: Slot, weight: MatrixId, dst: Slot },
    /// Rotates queries and keys, appends keys and values.
    Cache { layer: usize, kind: Rope },
    /// Attention over a layer's cache.
    Attention { layer: usize },
    /// `Residual += src`.
    Add { src: Slot },
    /// The gate in place.
    Gate(Gating),
    /// From here on only the rows of which logits are wanted.
    Select,
}

/// A part, and the steps of the plan whose results are in their slots after it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fused {
    pub(super) part: Part,
    /// Indices into the plan.
    pub(super) steps: Vec<usize>,
}

/// The launches of a plan. `ternary` says which matrices multiply int8 rows. If `observed`, every step's result is in its slot
/// after its launch; else what nobody needs is not written. `None` for an order of steps that no launch has: rotations that
/// are not those of queries and keys, followed by the cache.
pub(super) fn fuse(plan: &[Step], ternary: &dyn Fn(MatrixId) -> bool, observed: bool) -> Option<Vec<Fused>> {
    let mut fuse = Fuse { plan, ternary, observed, out: Vec::new(), before: None };
    let mut at = 0;
    while let Some(step) = plan.get(at) {
        at += fuse.step(at, &step.op)?;
    }
    fuse.flush();
    Some(fuse.out)
}

struct Fuse<'a> {
    plan: &'a [Step],
    ternary: &'a dyn Fn(MatrixId) -> bool,
    observed: bool,
    out: Vec<Fused>,
    /// A sum or a gate that waits for a norm, and its step.
    before: Option<(Before, usize)>,
}

impl Fuse<'_> {
    fn push(&mut self, part: Part, steps: impl IntoIterator<Item = usize>) {
        self.out.push(Fused { part, steps: steps.into_iter().collect() });
    }

    /// What waits is done by itself.
    fn flush(&mut self) {
        match self.before.take() {
            Some((Before::Sum(src), step)) => self.push(Part::Add { src }, [step]),
            Some((Before::Gate(gating), step)) => self.push(Part::Gate(gating), [step]),
            Some((Before::Plain, _)) | None => {}
        }
    }

    /// What waits, if it is of this slot.
    fn take(&mut self, src: Slot) -> Before {
        let fits = matches!(
            (self.before, src),
            (Some((Before::Sum(_), _)), Slot::Residual) | (Some((Before::Gate(_), _)), Slot::Gate)
        );
        if !fits {
            self.flush();
        }
        self.before.take().map_or(Before::Plain, |(before, _)| before)
    }

    fn wait(&mut self, before: Before, step: usize) {
        self.flush();
        self.before = Some((before, step));
        if self.observed {
            self.flush();
        }
    }

    /// Takes the steps from `at` on that belong together; returns how many.
    fn step(&mut self, at: usize, op: &Op) -> Option<usize> {
        match *op {
            Op::Embed { table, dst } => {
                self.flush();
                self.push(Part::Embed { table, dst }, [at]);
            }
            Op::RmsNorm { src, dst, weight } => {
                let before = self.take(src);
                let linear = self.linear(at + 1, dst);
                let int8 = linear.iter().any(|&(id, _)| (self.ternary)(id));
                let dense = linear.is_empty() || linear.iter().any(|&(id, _)| !(self.ternary)(id));
                let values = (dense || self.observed).then_some(dst);
                self.push(Part::Norm { before, src, weight: Some(weight), values, int8 }, [at]);
                return Some(1 + self.products(at + 1, dst, &linear));
            }
            Op::Linear { src, .. } => {
                let linear = self.linear(at, src);
                if linear.iter().any(|&(id, _)| (self.ternary)(id)) {
                    let before = self.take(src);
                    let dense = linear.iter().any(|&(id, _)| !(self.ternary)(id));
                    let values = dense.then_some(src);
                    self.push(Part::Norm { before, src, weight: None, values, int8: true }, []);
                } else {
                    self.flush();
                }
                return Some(self.products(at, src, &linear));
            }
            Op::Rope { slot: Slot::Query, kind, .. } => {
                self.flush();
                let rest = [self.plan.get(at + 1).map(|s| &s.op), self.plan.get(at + 2).map(|s| &s.op)];
                let [Some(&Op::Rope { slot: Slot::Key, kind: of_keys, .. }), Some(&Op::CacheAppend { layer })] = rest
                else {
                    return None;
                };
                if of_keys != kind {
                    return None;
                }
                self.push(Part::Cache { layer, kind }, [at, at + 1, at + 2]);
                return Some(3);
            }
            Op::Rope { .. } | Op::CacheAppend { .. } => return None,
            Op::Attention { layer } => {
                self.flush();
                self.push(Part::Attention { layer }, [at]);
            }
            Op::Gate(gating) => self.wait(Before::Gate(gating), at),
            Op::Add { src } => self.wait(Before::Sum(src), at),
            // A sum may wait: it is done for the rows that are left.
            Op::SelectRows => self.push(Part::Select, []),
        }
        Some(1)
    }

    /// The products from `at` on that read `src`, none of which writes it.
    fn linear(&self, at: usize, src: Slot) -> Vec<(MatrixId, Slot)> {
        crate::inference::session::linear_group(self.plan.get(at..).unwrap_or_default(), src)
    }

    /// Pushes products; returns how many steps they were.
    fn products(&mut self, at: usize, src: Slot, linear: &[(MatrixId, Slot)]) -> usize {
        let mut ternary: Vec<(usize, (MatrixId, Slot))> = Vec::new();
        for (i, &(weight, dst)) in linear.iter().enumerate() {
            if (self.ternary)(weight) {
                ternary.push((at + i, (weight, dst)));
            } else {
                self.push(Part::Dense { src, weight, dst }, [at + i]);
            }
        }
        for parts in ternary.chunks(3) {
            let steps: Vec<usize> = parts.iter().map(|p| p.0).collect();
            self.push(Part::Ternary { parts: parts.iter().map(|p| p.1).collect() }, steps);
        }
        linear.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(op: Op) -> Step {
        Step { name: String::new(), op }
    }

    fn linear(src: Slot, dst: Slot, weight: usize) -> Step {
        step(Op::Linear { src, dst, weight: MatrixId(weight) })
    }

    fn norm(src: Slot, dst: Slot, weight: usize) -> Step {
        step(Op::RmsNorm { src, dst, weight: NormId(weight) })
    }

    fn names(fused: &[Fused]) -> Vec<String> {
        fused
            .iter()
            .map(|f| match &f.part {
                Part::Norm { before, values, int8, .. } => format!("norm {before:?} {values:?} {int8}"),
                Part::Ternary { parts } => format!("ternary {}", parts.len()),
                Part::Dense { .. } => "dense".into(),
                other => format!("{other:?}").split(' ').next().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    fn block() -> Vec<Step> {
        use Slot::{Gate, Hidden, Logits, Residual, Up};
        vec![
            step(Op::Add { src: Hidden }),
            norm(Residual, Hidden, 0),
            linear(Hidden, Gate, 0),
            linear(Hidden, Up, 1),
            step(Op::Gate(Gating::Relu2)),
            norm(Gate, Gate, 1),
            linear(Gate, Hidden, 2),
            step(Op::Add { src: Hidden }),
            step(Op::SelectRows),
            norm(Residual, Hidden, 2),
            linear(Hidden, Logits, 9),
        ]
    }

    #[test]
    fn a_block_is_few_launches() {
        let fused = fuse(&block(), &|id| id.0 != 9, false).expect("launches");
        assert_eq!(
            names(&fused),
            [
                "norm Sum(Hidden) None true",
                "ternary 2",
                "norm Gate(Relu2) None true",
                "ternary 1",
                "Select",
                "norm Sum(Hidden) Some(Hidden) false",
                "dense",
            ]
        );
    }

    #[test]
    fn every_result_is_there_for_an_observer() {
        let plan = block();
        let fused = fuse(&plan, &|id| id.0 != 9, true).expect("launches");
        let seen: Vec<usize> = fused.iter().flat_map(|f| f.steps.clone()).collect();
        let with_result: Vec<usize> = (0..plan.len()).filter(|&i| plan[i].op.result().is_some()).collect();
        assert_eq!(seen, with_result);
        assert!(fused.iter().all(|f| !matches!(f.part, Part::Norm { values: None, .. })));
    }

    #[test]
    fn products_without_a_norm_quantise_by_themselves() {
        let plan = [step(Op::Gate(Gating::Silu)), linear(Slot::Gate, Slot::Hidden, 0)];
        let fused = fuse(&plan, &|_| true, false).expect("launches");
        assert_eq!(names(&fused), ["norm Gate(Silu) None true", "ternary 1"]);
        let fused = fuse(&plan, &|_| false, false).expect("launches");
        assert_eq!(names(&fused), ["Gate(Silu)", "dense"]);
    }

    #[test]
    fn a_rotation_without_a_cache_is_refused() {
        let plan = [step(Op::Rope { slot: Slot::Query, heads: 1, kind: Rope::Neox })];
        assert_eq!(fuse(&plan, &|_| true, false), None);
    }
}
