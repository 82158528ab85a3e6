//! From an operation to its launches, each by itself: what is always right, whatever stands before and behind. [`super::fused`] rewrites
//! these into fewer ones. An operation without a kernel is refused here, by name.

use super::fused::{Before, Fused, Part};
use crate::model::Model;
use crate::ops::{Attention, Embed, Gate, Gating, Linear, Op, RmsNorm, Slot, Step, Tensors};
use bitnet_kernels::ActKind;

/// The launches of a plan, one operation after the other, or the operation that has none.
pub(super) fn lower(model: &Model) -> Result<Vec<Fused>, String> {
    let ternary = |linear: &Linear| model.weights.matrix(linear.weight).act == ActKind::I8;
    let head_norm = |norm: &RmsNorm| {
        let width = model.weights.vector(norm.weight).len();
        (width != model.widths.of(norm.src)).then_some(width)
    };
    lower_with(&model.plan, &ternary, &head_norm)
}

/// [`lower`] of steps; `ternary` says which products take int8 rows, `part` how wide a norm is that is not as wide as its slot.
pub(super) fn lower_with(
    plan: &[Step],
    ternary: &dyn Fn(&Linear) -> bool,
    part: &dyn Fn(&RmsNorm) -> Option<usize>,
) -> Result<Vec<Fused>, String> {
    let mut out = Vec::with_capacity(2 * plan.len());
    for (index, step) in plan.iter().enumerate() {
        let refuse =
            |what: &str| Err(format!("the operation `{}` of step `{}`: {what}", step.op.unit().name, step.name));
        let launch = match &step.op {
            &Op::Embed(Embed { table, dst }) => Part::Embed { table, dst },
            Op::RmsNorm(norm) => {
                let &RmsNorm { src, dst, weight, eps } = norm;
                match part(norm) {
                    None => Part::norm(src, Some((weight, eps)), dst),
                    Some(width) => Part::HeadNorm { src, dst, weight, eps, width },
                }
            }
            Op::Linear(linear) => {
                let &Linear { src, dst, weight } = linear;
                if ternary(linear) {
                    out.push(Fused { part: Part::quantise(src), steps: Vec::new() });
                    Part::Ternary { parts: vec![(weight, dst)] }
                } else {
                    Part::Dense { src, weight, dst }
                }
            }
            Op::Rotate(rotate) => Part::Rotate(rotate.clone()),
            Op::CacheAppend(append) => Part::Append { layer: append.layer },
            Op::Attention(Attention { window: Some(_), .. }) => return refuse("a window, which has no CUDA kernel"),
            Op::Attention(Attention { scale, dim, .. }) if *scale != (*dim as f32).sqrt().recip() => {
                return refuse("a scale of its own, which has no CUDA kernel");
            }
            Op::Attention(attention) => Part::Attention { layer: attention.layer },
            Op::Add(add) if add.dst == Slot::Residual => Part::Add { src: add.src },
            Op::Gate(Gate(gating @ (Gating::Relu2 | Gating::Silu))) => Part::Gate(*gating),
            Op::SelectRows(_) => Part::Select,
            _ => return refuse("it has no CUDA kernel"),
        };
        out.push(Fused { part: launch, steps: step.result().map(|_| index).into_iter().collect() });
    }
    Ok(out)
}

impl Part {
    /// A norm by itself.
    fn norm(src: Slot, weight: Option<(crate::ops::VectorId, f32)>, dst: Slot) -> Self {
        Self::Norm { before: Before::Plain, src, weight, values: Some(dst), int8: false }
    }

    /// The rows of a slot as int8.
    fn quantise(src: Slot) -> Self {
        Self::Norm { before: Before::Plain, src, weight: None, values: None, int8: true }
    }
}
