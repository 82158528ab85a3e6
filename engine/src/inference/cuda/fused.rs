//! Fewer launches that leave the same: a norm takes the sum or the gate before it and makes the int8 rows of the products after it,
//! products of one input are one launch, rotations and the cache are one.
//!
//! Each rewrite looks at neighbours only, and at what is still read later on.

use super::token::Token;
use crate::ops::{Gating, MatrixId, RopeId, Rotate, Slot, VectorId};
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
    Norm { before: Before, src: Slot, weight: Option<(VectorId, f32)>, values: Option<Slot>, int8: bool },
    /// Every `width` elements of `src`, normed.
    HeadNorm { src: Slot, dst: Slot, weight: VectorId, eps: f32, width: usize },
    /// Products of the int8 activations.
    Ternary { parts: Vec<(MatrixId, Slot)> },
    /// Products of a single token.
    Token(Token),
    /// A product of f32 rows.
    Dense { src: Slot, weight: MatrixId, dst: Slot },
    /// Rotates queries or keys.
    Rotate(Rotate),
    /// Appends keys and values.
    Append { layer: usize },
    /// Rotates queries and keys, appends keys and values.
    Cache { layer: usize, kind: Rope, rope: RopeId },
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

/// Products that one launch takes.
const PRODUCTS: usize = 3;

/// Rewrites the launches of a plan. If `observed`, every step's result is in its slot after its launch; else what nobody needs is not
/// written.
pub(super) fn fuse(mut parts: Vec<Fused>, observed: bool) -> Vec<Fused> {
    quantise_once(&mut parts);
    join(&mut parts, products);
    join(&mut parts, quantised);
    if !observed {
        sums_wait(&mut parts);
        join(&mut parts, sum_or_gate);
        forget_unread(&mut parts);
    }
    rotations(&mut parts);
    parts
}

/// Replaces neighbours by what `rewrite` makes of the first, as long as it makes something.
fn join(parts: &mut Vec<Fused>, rewrite: impl Fn(&Part, &Part) -> Option<Part>) {
    let mut out: Vec<Fused> = Vec::with_capacity(parts.len());
    for next in parts.drain(..) {
        if let Some(last) = out.last_mut()
            && let Some(part) = rewrite(&last.part, &next.part)
        {
            last.part = part;
            last.steps.extend(next.steps);
        } else {
            out.push(next);
        }
    }
    *parts = out;
}

/// Rows that are int8 already are not made again.
fn quantise_once(parts: &mut Vec<Fused>) {
    let mut int8 = None;
    parts.retain(|Fused { part, .. }| {
        if let Part::Norm { before: Before::Plain, src, weight: None, values: None, int8: true } = part {
            return int8.replace(*src) != Some(*src);
        }
        if *part == Part::Select || int8.is_some_and(|slot| part.writes().contains(&slot)) {
            int8 = None;
        }
        true
    });
}

fn products(before: &Part, after: &Part) -> Option<Part> {
    let (Part::Ternary { parts }, Part::Ternary { parts: more }) = (before, after) else { return None };
    (parts.len() < PRODUCTS).then(|| Part::Ternary { parts: [parts.as_slice(), more].concat() })
}

/// A norm makes the int8 rows of what it wrote.
fn quantised(before: &Part, after: &Part) -> Option<Part> {
    let (
        Part::Norm { int8: false, values: Some(dst), weight: Some(_), .. },
        Part::Norm { before: Before::Plain, src, weight: None, values: None, int8: true },
    ) = (before, after)
    else {
        return None;
    };
    let mut norm = before.clone();
    if let Part::Norm { int8, .. } = &mut norm {
        *int8 = true;
    }
    (dst == src).then_some(norm)
}

/// A sum before the selection of rows is done for those that are left.
fn sums_wait(parts: &mut [Fused]) {
    for i in 1..parts.len() {
        if parts[i].part == Part::Select && matches!(parts[i - 1].part, Part::Add { .. }) {
            parts.swap(i - 1, i);
        }
    }
}

fn sum_or_gate(first: &Part, after: &Part) -> Option<Part> {
    let Part::Norm { before: Before::Plain, src, .. } = after else { return None };
    let (before, of) = match *first {
        Part::Add { src } => (Before::Sum(src), Slot::Residual),
        Part::Gate(gating) => (Before::Gate(gating), Slot::Gate),
        _ => return None,
    };
    // A gate is not written: whoever norms it must write over it.
    if let Part::Norm { weight: Some(_), values, .. } = after
        && of == Slot::Gate
        && *values != Some(of)
    {
        return None;
    }
    let mut norm = after.clone();
    if let Part::Norm { before: was, weight, values, src, .. } = &mut norm {
        *was = before;
        // A sum is written where it was; a gate only if it is asked for.
        if weight.is_none() && matches!(before, Before::Gate(_)) {
            *values = Some(*src);
        }
    }
    (of == *src).then_some(norm)
}

/// Values of a norm that nobody reads are not written.
fn forget_unread(parts: &mut [Fused]) {
    for i in 0..parts.len() {
        let (head, rest) = parts.split_at_mut(i + 1);
        let Some(Fused { part: Part::Norm { values, int8: true, .. }, .. }) = head.last_mut() else { continue };
        let Some(slot) = *values else { continue };
        let mut later = rest.iter().map(|fused| &fused.part);
        let read = later.find_map(|part| {
            let (reads, writes) = (part.reads().contains(&slot), part.writes().contains(&slot));
            (reads || writes).then_some(reads)
        });
        if read != Some(true) {
            *values = None;
        }
    }
}

/// Queries, keys, cache.
fn rotations(parts: &mut Vec<Fused>) {
    let mut out: Vec<Fused> = Vec::with_capacity(parts.len());
    for next in parts.drain(..) {
        let cache = match (out.as_slice(), &next.part) {
            (
                [.., Fused { part: Part::Rotate(q), .. }, Fused { part: Part::Rotate(k), .. }],
                &Part::Append { layer },
            ) if (q.slot, k.slot, q.kind, q.rope) == (Slot::Query, Slot::Key, k.kind, k.rope) => {
                Part::Cache { layer, kind: q.kind, rope: q.rope }
            }
            _ => {
                out.push(next);
                continue;
            }
        };
        let rotated = out.split_off(out.len() - 2);
        out.push(Fused { part: cache, steps: rotated.into_iter().flat_map(|fused| fused.steps).collect() });
    }
    *parts = out;
}

impl Part {
    /// The slots that it reads as f32.
    fn reads(&self) -> Vec<Slot> {
        match self {
            Self::Embed { .. } | Self::Ternary { .. } | Self::Select => Vec::new(),
            Self::Norm { before, src, .. } => match before {
                Before::Plain => vec![*src],
                Before::Sum(term) => vec![*src, *term],
                Before::Gate(_) => vec![*src, Slot::Up],
            },
            Self::HeadNorm { src, .. } | Self::Dense { src, .. } => vec![*src],
            Self::Token(token) => vec![token.src],
            Self::Rotate(rotate) => vec![rotate.slot],
            Self::Append { .. } => vec![Slot::Key, Slot::Value],
            Self::Cache { .. } => vec![Slot::Query, Slot::Key, Slot::Value],
            Self::Attention { .. } => vec![Slot::Query],
            Self::Add { src } => vec![*src, Slot::Residual],
            Self::Gate(_) => vec![Slot::Gate, Slot::Up],
        }
    }

    /// The slots that it writes.
    fn writes(&self) -> Vec<Slot> {
        match self {
            Self::Embed { dst, .. } | Self::HeadNorm { dst, .. } | Self::Dense { dst, .. } => vec![*dst],
            Self::Norm { before, src, values, .. } => {
                let sum = matches!(before, Before::Sum(_)).then_some(*src);
                sum.into_iter().chain(*values).collect()
            }
            Self::Ternary { parts } => parts.iter().map(|(_, dst)| *dst).collect(),
            Self::Token(_) | Self::Append { .. } | Self::Select => Vec::new(),
            Self::Rotate(rotate) => vec![rotate.slot],
            Self::Cache { .. } => vec![Slot::Query, Slot::Key],
            Self::Attention { .. } => vec![Slot::Query],
            Self::Add { .. } => vec![Slot::Residual],
            Self::Gate(_) => vec![Slot::Gate],
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::lower::lower_with;
    use super::*;
    use crate::ops::{Add, Gate, Linear, Op, RmsNorm, SelectRows, Step};

    pub(crate) fn step(op: impl Into<Op>) -> Step {
        Step { name: String::new(), op: op.into() }
    }

    pub(crate) fn linear(src: Slot, dst: Slot, weight: usize) -> Step {
        step(Linear { src, dst, weight: MatrixId(weight) })
    }

    pub(crate) fn norm(src: Slot, dst: Slot, weight: usize) -> Step {
        step(RmsNorm { src, dst, weight: VectorId(weight), eps: 1e-5 })
    }

    pub(crate) fn add(src: Slot) -> Step {
        step(Add { src, dst: Slot::Residual })
    }

    pub(crate) fn select() -> Step {
        step(SelectRows { slot: Slot::Residual })
    }

    pub(crate) fn fused(plan: &[Step], ternary: &dyn Fn(MatrixId) -> bool, observed: bool) -> Vec<Fused> {
        let parts = lower_with(plan, &|linear| ternary(linear.weight), &|_| None).expect("launches");
        fuse(parts, observed)
    }

    fn names(fused: &[Fused]) -> Vec<String> {
        fused
            .iter()
            .map(|f| match &f.part {
                Part::Norm { before, values, int8, .. } => format!("norm {before:?} {values:?} {int8}"),
                Part::Ternary { parts } => format!("ternary {}", parts.len()),
                Part::Dense { .. } => "dense".into(),
                other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    fn block() -> Vec<Step> {
        use Slot::{Gate as G, Hidden, Logits, Residual, Up};
        vec![
            add(Hidden),
            norm(Residual, Hidden, 0),
            linear(Hidden, G, 0),
            linear(Hidden, Up, 1),
            step(Gate(Gating::Relu2)),
            norm(G, G, 1),
            linear(G, Hidden, 2),
            add(Hidden),
            select(),
            norm(Residual, Hidden, 2),
            linear(Hidden, Logits, 9),
        ]
    }

    #[test]
    fn a_block_is_few_launches() {
        let fused = fused(&block(), &|id| id.0 != 9, false);
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

    /// A block whose norm is read by an f16 matrix too.
    #[test]
    fn what_a_dense_product_reads_is_written() {
        let fused = fused(&block(), &|id| id.0 != 9 && id.0 != 1, false);
        assert_eq!(
            names(&fused)[..5],
            ["norm Sum(Hidden) Some(Hidden) true", "ternary 1", "dense", "norm Gate(Relu2) None true", "ternary 1"]
        );
    }

    #[test]
    fn every_result_is_there_for_an_observer() {
        let plan = block();
        let fused = fused(&plan, &|id| id.0 != 9, true);
        let seen: Vec<usize> = fused.iter().flat_map(|f| f.steps.clone()).collect();
        let with_result: Vec<usize> = (0..plan.len()).filter(|&i| plan[i].result().is_some()).collect();
        assert_eq!(seen, with_result);
        assert!(fused.iter().all(|f| !matches!(f.part, Part::Norm { values: None, .. })));
    }

    #[test]
    fn products_without_a_norm_quantise_by_themselves() {
        let plan = [step(Gate(Gating::Silu)), linear(Slot::Gate, Slot::Hidden, 0)];
        assert_eq!(names(&fused(&plan, &|_| true, false)), ["norm Gate(Silu) None true", "ternary 1"]);
        assert_eq!(names(&fused(&plan, &|_| false, false)), ["Gate", "dense"]);
    }

    /// A gate that is read beside its norm is computed by itself.
    #[test]
    fn a_gate_that_is_still_read_is_written() {
        use Slot::{Gate as G, Hidden, Query};
        let plan = [step(Gate(Gating::Silu)), norm(G, Hidden, 0), linear(Hidden, Query, 0), linear(G, Hidden, 1)];
        assert_eq!(
            names(&fused(&plan, &|_| true, false)),
            ["Gate", "norm Plain None true", "ternary 1", "norm Plain None true", "ternary 1"]
        );
    }

    #[test]
    fn operations_without_a_kernel_are_refused_by_name() {
        let window = crate::ops::Attention { layer: 0, heads: 1, kv_heads: 1, dim: 4, scale: 0.5, window: Some(4) };
        let plan = [Step { name: "blk.0.attn".into(), op: window.into() }];
        let refused = lower_with(&plan, &|_| true, &|_| None).unwrap_err();
        assert!(refused.contains("`attention`") && refused.contains("blk.0.attn"), "{refused}");
    }
}
