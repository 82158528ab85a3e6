//! x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI: Intel servers since 2019, AMD since Zen 4.
//!
//! Bit-identical to [`super::scalar`]. Only what gains from 64-byte registers stands here; the rest is [`Avx2`]'s, which
//! every such CPU has too:
//!
//! * `lanes`: loads, the 64-lane tree.
//! * `packed`: ternary weights times a few tokens, `vpdpbusd`. `gemm`: times more; `layouts` makes its registers of their
//!   bytes. `dense`: f32, f16, bf16 weights.
//! * `attention`.
//! * `screen`: int8 copies of f16 rows.
//! * AVX2: block formats, IQ1_BN times up to three tokens, attention of one head or of heads that are no multiple of 64, products
//!   with int8 rows (memory is their limit), and what runs over single rows.

// Register tiles are arrays of arrays indexed by row and token; iterators would hide the tile.
#![allow(clippy::needless_range_loop)]

mod attention;
mod dense;
mod gemm;
mod lanes;
mod layouts;
mod packed;
mod screen;

use std::ops::Range;
use std::sync::OnceLock;

use super::avx2::Avx2;
use crate::contract::{check_attention, check_matmul, check_narrow, multiply};
use crate::cpu::strips::{FROM, Strips};
use crate::cpu::{own, stored};
use crate::quant::{bf16, f16, f32};
use crate::screen::Bound;
use crate::{ActKind, Activations, Format, Kernels, Matrix, OutView};

/// The set; an instance is the proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI besides what [`Avx2`] proves.
#[derive(Debug)]
pub struct Avx512(&'static Avx2);

impl Avx512 {
    /// The set, or the name of the first missing feature.
    pub fn detect() -> Result<&'static Self, &'static str> {
        let avx2 = Avx2::detect()?;
        for (feature, found) in [
            ("AVX512F", is_x86_feature_detected!("avx512f")),
            ("AVX512BW", is_x86_feature_detected!("avx512bw")),
            ("AVX512DQ", is_x86_feature_detected!("avx512dq")),
            ("AVX512VL", is_x86_feature_detected!("avx512vl")),
            ("AVX512VNNI", is_x86_feature_detected!("avx512vnni")),
        ] {
            if !found {
                return Err(feature);
            }
        }
        static SET: OnceLock<Avx512> = OnceLock::new();
        Ok(SET.get_or_init(|| Self(avx2)))
    }
}

/// As [`super::avx2`]'s, on a CPU with the features of [`Avx512`].
type Matmul = unsafe fn(&Matrix<'_>, &Activations, Range<usize>, &mut OutView<'_>);

/// The formats of floats, which have a kernel here.
static MATMULS: &[(&Format, Matmul)] = &[
    (&f32::FORMAT, dense::matmul::<stored::F32>),
    (&f16::FORMAT, dense::matmul::<stored::F16>),
    (&bf16::FORMAT, dense::matmul::<stored::Bf16>),
];

impl Kernels for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
    }

    crate::forward!(self, self.0; prepare rms_norm layer_norm gelu rope attention relu2_gate silu_gate add f32_to_f16);

    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        let few = packed::of(w).filter(|_| x.n_tokens() <= packed::TOKENS);
        if let Some(matmul) = few {
            check_matmul(w, x, &rows, &y);
            // SAFETY: `self` proves the features, and the arguments are checked.
            unsafe { matmul(self, w, x, rows.clone(), &mut y) }
            return multiply(w, &rows, &mut y);
        }
        if let Some(strips) = Strips::of(w).filter(|_| x.n_tokens() >= FROM) {
            check_matmul(w, x, &rows, &y);
            gemm::matmul(self, strips, w, x, rows.clone(), &mut y);
            return multiply(w, &rows, &mut y);
        }
        let decoded = || (w.act == ActKind::F32).then_some(dense::decoded as Matmul);
        match own(MATMULS, w).or_else(decoded) {
            Some(matmul) => {
                check_matmul(w, x, &rows, &y);
                // SAFETY: `self` proves the features, and the arguments are checked.
                unsafe { matmul(w, x, rows.clone(), &mut y) }
                multiply(w, &rows, &mut y);
            }
            None => self.0.matmul(w, x, rows, y),
        }
    }

    fn attention_group(
        &self,
        q: &[f32],
        dim: usize,
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        assert!(dim > 0 && q.len().is_multiple_of(dim) && q.len() == out.len(), "q and out must be [heads][{dim}]");
        if !dim.is_multiple_of(64) {
            return self.0.attention_group(q, dim, k, v, stride, n, scale, scratch, out);
        }
        for (q, out) in q.chunks(4 * dim).zip(out.chunks_mut(4 * dim)) {
            let count = q.len() / dim;
            if count == 1 {
                self.0.attention(q, k, v, stride, n, scale, scratch, out);
                continue;
            }
            check_attention((&q[..dim], k, v), stride, n, &scratch[..], &out[..dim]);
            assert!(scratch.len() >= count * n, "scratch of {} floats for {count} heads, {n} positions", scratch.len());
            let e = &mut scratch[..count * n];
            // SAFETY: `self` proves the features.
            unsafe {
                match count {
                    2 => attention::group::<2>(q, (k, v), stride, scale, e, out),
                    3 => attention::group::<3>(q, (k, v), stride, scale, e, out),
                    _ => attention::group::<4>(q, (k, v), stride, scale, e, out),
                }
            }
        }
    }

    fn dots_i8_i16(&self, w: &[i8], x: &[i16], out: &mut [i32]) {
        self.0.dots_i8_i16(w, x, out);
    }

    fn narrow(&self, w: &Matrix<'_>, row: usize, values: &mut [f32], q: &mut [i8]) -> Bound {
        if stored::plain_f16(w) {
            check_narrow(w, row, values, q);
            // SAFETY: `self` proves the features.
            return unsafe { screen::narrow_f16(w.row(row), q) };
        }
        self.0.narrow(w, row, values, q)
    }
}
