//! aarch64 with NEON (Advanced SIMD): every such processor. Two sets from one text: `neon` with what all of them have, and
//! `neon-dotprod` with the dot product extension (`sdot`), which is in most since 2018.
//!
//! Bit-identical to [`super::scalar`]. The files, by what they multiply:
//!
//! * `dots`: products of int8, the one thing in which the two sets differ. `lanes`: loads, the 64-lane tree, `exp`.
//! * `dense`: f32, f16, bf16 weights. `ternary`: ternary weights, which `layouts` makes codes of. `block`: Q8_0, Q4_0,
//!   Q4_1, Q4_K, Q6_K, which `unpack` makes registers of.
//! * Other pairs of a format and a kind of activations: `block` and `dense` again, with rows that
//!   [`crate::quant::decode`] has made integers or floats of.
//! * `rows`: quantising activations, norm, gate, conversion. `attention`. `screen`.
//! * Sums, `relu2` and RoPE are the oracle's: its loops become four lanes by themselves, since NEON needs no permission.
//!
//! Proven under emulation only (`ci/neon-under-qemu.sh`), on no processor: no figure of speed is known, and what only a
//! measurement can justify (prefetches, blocking by cache, `smmla`) is not here.

// Register tiles are arrays of arrays indexed by row and token; iterators would hide the tile.
#![allow(clippy::needless_range_loop)]

mod attention;
mod block;
mod dense;
mod dots;
mod lanes;
mod layouts;
mod rows;
mod screen;
mod ternary;
mod unpack;

use std::ops::Range;
use std::sync::OnceLock;

pub use dots::{Dots, Plain, Sdot};

use super::scalar::Scalar;
use crate::contract::{check_attention, check_dots, check_matmul, multiply};
use crate::cpu::{blocks, naive, own, stored, ternary as codes};
use crate::quant::{bf16, f16, f32, i2_s, i2_s_arm, iq1_bn, iq2_bn, q4_0, q4_1, q4_k, q6_k, q8_0, tq1_0, tq2_0};
use crate::{ActKind, Activations, Format, Kernels, Matrix, OutView, Rope};

/// A set; what it holds is the proof that its products of int8 can run.
#[derive(Debug)]
pub struct Neon<D>(D);

impl Neon<Plain> {
    /// The set that runs on every aarch64.
    pub fn plain() -> &'static Self {
        static SET: Neon<Plain> = Neon(Plain);
        &SET
    }
}

impl Neon<Sdot> {
    /// The set with `sdot`, or the name of the missing feature.
    pub fn detect() -> Result<&'static Self, &'static str> {
        let sdot = Sdot::detect()?;
        static SET: OnceLock<Neon<Sdot>> = OnceLock::new();
        Ok(SET.get_or_init(|| Self(sdot)))
    }
}

/// A matrix product for one format: the rest of the arguments as [`Kernels::matmul`], checked by `check_matmul`, on a
/// CPU with NEON.
type Matmul<D> = unsafe fn(D, &Matrix<'_>, &Activations, Range<usize>, &mut OutView<'_>);

impl<D: Dots> Neon<D> {
    /// The formats that have a kernel here.
    const MATMULS: [(&Format, Matmul<D>); 14] = [
        (&f32::FORMAT, dense::matmul::<stored::F32, D>),
        (&f16::FORMAT, dense::matmul::<stored::F16, D>),
        (&bf16::FORMAT, dense::matmul::<stored::Bf16, D>),
        (&i2_s::FORMAT, ternary::matmul::<codes::X86, D>),
        (&i2_s_arm::FORMAT, ternary::matmul::<codes::Arm, D>),
        (&tq2_0::FORMAT, ternary::matmul::<codes::Tq2, D>),
        (&tq1_0::FORMAT, ternary::matmul::<codes::Tq1, D>),
        (&iq1_bn::FORMAT, ternary::matmul::<codes::Iq1Bn, D>),
        (&iq2_bn::FORMAT, ternary::matmul::<codes::Iq2Bn, D>),
        (&q8_0::FORMAT, block::matmul::<blocks::Q8_0, D>),
        (&q4_0::FORMAT, block::matmul::<blocks::Q4_0, D>),
        (&q4_1::FORMAT, block::matmul::<blocks::Q4_1, D>),
        (&q4_k::FORMAT, block::matmul::<blocks::Q4K, D>),
        (&q6_k::FORMAT, block::matmul::<blocks::Q6K, D>),
    ];

    /// The kernel for a matrix whose format has none of its own for these activations.
    fn decoded(w: &Matrix<'_>) -> Option<Matmul<D>> {
        match w.act {
            ActKind::F32 => Some(dense::decoded::<D>),
            ActKind::Q8 => Some(block::decoded::<D>),
            ActKind::I8 => None,
        }
    }
}

impl<D: Dots> Kernels for Neon<D> {
    fn name(&self) -> &'static str {
        D::SET
    }

    fn prepare(&self, kind: ActKind, x: &[f32], n_tokens: usize, out: &mut Activations) {
        let cols = x.len().checked_div(n_tokens).unwrap_or(0);
        assert_eq!(x.len(), n_tokens * cols, "x must be [n_tokens][K]");
        let out = out.reset(kind, n_tokens, cols);
        match kind {
            ActKind::F32 => out.values.copy_from_slice(x),
            // SAFETY: NEON is part of the target.
            ActKind::I8 => unsafe { rows::prepare_i8(x, cols, out) },
            // SAFETY: NEON is part of the target.
            ActKind::Q8 => unsafe { rows::prepare_q8(x, out) },
        }
    }

    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        check_matmul(w, x, &rows, &y);
        match own(&Self::MATMULS, w).or_else(|| Self::decoded(w)) {
            // SAFETY: NEON is part of the target, and the arguments are checked.
            Some(matmul) => unsafe { matmul(self.0, w, x, rows.clone(), &mut y) },
            None => naive(w, x, rows.clone(), &mut y),
        }
        multiply(w, &rows, &mut y);
    }

    fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        assert!(x.len() == w.len() && x.len() == y.len(), "x, w and y must be of one length");
        // SAFETY: NEON is part of the target.
        unsafe { rows::rms_norm(x, w, eps, y) }
    }

    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        Scalar.rope(kind, x, cos, sin);
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
        // SAFETY: NEON is part of the target.
        unsafe { attention::attention(q, k, v, stride, scale, &mut scratch[..n], out) }
    }

    fn relu2_gate(&self, gate: &mut [f32], up: &[f32]) {
        Scalar.relu2_gate(gate, up);
    }

    fn silu_gate(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
        // SAFETY: NEON is part of the target.
        unsafe { rows::silu_gate(gate, up) }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        Scalar.add(x, y);
    }

    fn f32_to_f16(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "x and out must be of one length");
        // SAFETY: NEON is part of the target.
        unsafe { rows::f32_to_f16(x, out) }
    }

    fn dots_i8_i16(&self, w: &[i8], x: &[i16], out: &mut [i32]) {
        check_dots(w, x, out);
        // SAFETY: NEON is part of the target.
        unsafe { screen::dots(w, x, out) }
    }
}
