//! x86-64 with AVX2, FMA and F16C: what every x86 server and desktop since 2013 (Intel) and 2015 (AMD) has.
//!
//! Bit-identical to [`super::scalar`]. The files, by what they multiply:
//!
//! * `lanes`: loads, the 64- and 16-lane trees, `exp` on eight lanes.
//! * `dense`: f32, f16, bf16 weights. `ternary`: ternary weights, which `layouts` makes codes of, `gemm` with many tokens. `block`: Q8_0, Q4_0,
//!   Q4_1, Q4_K, Q6_K, which `unpack` makes registers of.
//! * Other pairs of a format and a kind of activations: `block` and `dense` again, with rows that
//!   [`crate::quant::decode`] has made integers or floats of.
//! * `rows`: quantising activations, norm, rope, gates, conversion. `attention`. `screen`.
//!
//! Functions carry `#[target_feature]` and call each other safely; the only way in is [`Avx2`], which exists only where
//! [`Avx2::detect`] found the instructions. Left inside as `unsafe` are pointer loads whose bounds the callers state.

// Register tiles are arrays of arrays indexed by row and token; iterators would hide the tile.
#![allow(clippy::needless_range_loop)]

mod attention;
mod block;
mod dense;
mod gemm;
mod lanes;
mod layouts;
mod rows;
mod screen;
mod ternary;
mod unpack;

use std::ops::Range;

pub(super) use attention::softmax_parts;
pub(super) use dense::unpack;
pub(super) use layouts::Layout;

use crate::contract::{
    check_attention, check_dots, check_layer_norm, check_matmul, check_narrow, check_rope, multiply,
};
use crate::cpu::{blocks, naive, own, stored, ternary as codes};
use crate::quant::Shape;
use crate::quant::{bf16, f16, f32, i2_s, i2_s_arm, iq1_bn, iq2_bn, q4_0, q4_1, q4_k, q6_k, q8_0, tq1_0, tq2_0};
use crate::screen::Bound;
use crate::{ActKind, Activations, Format, Kernels, Matrix, OutView, Rope};

/// The set; an instance is the proof that the CPU has AVX2, FMA and F16C.
#[derive(Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The set, or the name of the first missing feature.
    pub fn detect() -> Result<&'static Self, &'static str> {
        static SET: Avx2 = Avx2(());
        for (feature, found) in [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("F16C", is_x86_feature_detected!("f16c")),
        ] {
            if !found {
                return Err(feature);
            }
        }
        Ok(&SET)
    }

    /// [`Kernels::matmul`] without the matrix's factor.
    pub(super) fn product(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
        check_matmul(w, x, &rows, y);
        match own(MATMULS, w).or_else(|| decoded(w)) {
            // SAFETY: `self` proves the features, and the arguments are checked.
            Some(matmul) => unsafe { matmul(w, x, rows, y) },
            None => naive(w, x, rows, y),
        }
    }
}

/// A matrix product for one format: arguments as [`Kernels::matmul`], checked by `check_matmul`, on a CPU with the
/// features of [`Avx2`].
type Matmul = unsafe fn(&Matrix<'_>, &Activations, Range<usize>, &mut OutView<'_>);

/// The formats that have a kernel here.
static MATMULS: &[(&Format, Matmul)] = &[
    (&f32::FORMAT, dense::matmul::<stored::F32>),
    (&f16::FORMAT, dense::matmul::<stored::F16>),
    (&bf16::FORMAT, dense::matmul::<stored::Bf16>),
    (&i2_s::FORMAT, ternary::matmul::<codes::X86>),
    (&i2_s_arm::FORMAT, ternary::matmul::<codes::Arm>),
    (&tq2_0::FORMAT, ternary::matmul::<codes::Tq2>),
    (&tq1_0::FORMAT, ternary::matmul::<codes::Tq1>),
    (&iq1_bn::FORMAT, ternary::matmul::<codes::Iq1Bn>),
    (&iq2_bn::FORMAT, ternary::matmul::<codes::Iq2Bn>),
    (&q8_0::FORMAT, block::matmul::<blocks::Q8_0>),
    (&q4_0::FORMAT, block::matmul::<blocks::Q4_0>),
    (&q4_1::FORMAT, block::matmul::<blocks::Q4_1>),
    (&q4_k::FORMAT, block::matmul::<blocks::Q4K>),
    (&q6_k::FORMAT, block::matmul::<blocks::Q6K>),
];

/// The kernel for a matrix whose format has none of its own for these activations.
fn decoded(w: &Matrix<'_>) -> Option<Matmul> {
    match (w.act, w.format.decoder()?.shape) {
        (ActKind::F32, _) => Some(dense::decoded),
        (ActKind::Q8, Shape::Scale) => Some(block::decoded::<unpack::Scale>),
        (ActKind::Q8, Shape::Minimum) => Some(block::decoded::<unpack::Minimum>),
        (ActKind::Q8, Shape::Halves) => Some(block::decoded::<unpack::Halves>),
        (ActKind::Q8, Shape::HalfMinima) => Some(block::decoded::<unpack::HalfMinima>),
        (ActKind::I8, _) => None,
    }
}

impl Kernels for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn prepare(&self, kind: ActKind, x: &[f32], n_tokens: usize, out: &mut Activations) {
        let cols = x.len().checked_div(n_tokens).unwrap_or(0);
        assert_eq!(x.len(), n_tokens * cols, "x must be [n_tokens][K]");
        let out = out.reset(kind, n_tokens, cols);
        match kind {
            ActKind::F32 => out.values.copy_from_slice(x),
            // SAFETY: `self` proves the features.
            ActKind::I8 => unsafe { rows::prepare_i8(x, cols, out) },
            // SAFETY: `self` proves the features.
            ActKind::Q8 => unsafe { rows::prepare_q8(x, out) },
        }
    }

    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        self.product(w, x, rows.clone(), &mut y);
        multiply(w, &rows, &mut y);
    }

    fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        assert!(x.len() == w.len() && x.len() == y.len(), "x, w and y must be of one length");
        // SAFETY: `self` proves the features.
        unsafe { rows::rms_norm(x, w, eps, y) }
    }

    fn layer_norm(&self, x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
        check_layer_norm(x, w, b, y);
        // SAFETY: `self` proves the features.
        unsafe { rows::layer_norm(x, (w, b), eps, y) }
    }

    fn gelu(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the features.
        unsafe { rows::gelu(x) }
    }

    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        check_rope(x, cos, sin);
        // SAFETY: `self` proves the features.
        unsafe { rows::rope(kind, x, cos, sin) }
    }

    fn attention(
        &self,
        q: &[f32],
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        check_attention((q, k, v), stride, n, scratch, out);
        // SAFETY: `self` proves the features.
        unsafe { attention::attention(q, k, v, stride, scale, &mut scratch[..n], out) }
    }

    fn relu2_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        // SAFETY: `self` proves the features.
        unsafe { rows::relu2_gate(gate, up) }
    }

    fn silu_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        // SAFETY: `self` proves the features.
        unsafe { rows::silu_gate(gate, up) }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "x and y must be of one length");
        // SAFETY: `self` proves the features.
        unsafe { rows::add(x, y) }
    }

    fn f32_to_f16(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "x and out must be of one length");
        // SAFETY: `self` proves the features.
        unsafe { rows::f32_to_f16(x, out) }
    }
    fn dots_i8_i16(&self, w: &[i8], x: &[i16], out: &mut [i32]) {
        check_dots(w, x, out);
        // SAFETY: `self` proves the features, and the arguments are checked.
        unsafe { screen::dots(w, x, out) }
    }

    fn narrow(&self, w: &Matrix<'_>, row: usize, values: &mut [f32], q: &mut [i8]) -> Bound {
        check_narrow(w, row, values, q);
        // SAFETY: `self` proves the features, and the arguments are checked.
        unsafe { screen::narrow(w, row, values, q) }
    }
}
