//! Ternary weights times several tokens, in [strips](crate::cpu::strips): a lane is a row.
//!
//! A strip meets twelve tokens at a time: 24 accumulators, 24 products for 14 loads, since four activations of a token are
//! broadcast to all lanes by the load port.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Avx512;
use super::layouts::unpack;
use crate::cpu::strips::{GROUPS, LANES, ROWS, STEP, Sides, Strip, Strips};
use crate::cpu::ternary::{Arm, Iq1Bn, Iq2Bn, Tq1, Tq2, X86};
use crate::quant::{i2_s, i2_s_arm, iq1_bn, iq2_bn, tq1_0, tq2_0};
use crate::{Activations, Format, I8Token, Matrix, OutView};

/// Tokens that share an unpacked strip; their activations stay in L2.
const TOKENS: usize = 128;

/// See [`unpack`].
type Unpack = unsafe fn(&Matrix<'_>, Range<usize>, usize, &mut Strip);

/// How the formats are unpacked.
static UNPACKS: &[(&Format, Unpack)] = &[
    (&i2_s::FORMAT, unpack::<X86>),
    (&i2_s_arm::FORMAT, unpack::<Arm>),
    (&tq2_0::FORMAT, unpack::<Tq2>),
    (&tq1_0::FORMAT, unpack::<Tq1>),
    (&iq1_bn::FORMAT, unpack::<Iq1Bn>),
    (&iq2_bn::FORMAT, unpack::<Iq2Bn>),
];

impl Sides for Avx512 {
    fn unpack(&self, w: &Matrix<'_>, rows: Range<usize>, group: usize, strip: &mut Strip) {
        let unpack = UNPACKS.iter().find(|(format, _)| std::ptr::eq(*format, w.format));
        let (_, unpack) = unpack.expect("every format of `Strips` is here, the tests run them all");
        // SAFETY: `self` proves the features.
        unsafe { unpack(w, rows, group, strip) }
    }

    fn mixed(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
        self.0.product(w, x, rows, y);
    }

    fn finish(&self, sums: &[i32; ROWS], x: &I8Token<'_>, scales: &[f32; ROWS], out: &mut [f32]) {
        // SAFETY: `self` proves the features.
        unsafe { finish_rows(sums, x, scales, out) }
    }
}

/// As [`super::Matmul`], any number of tokens.
pub(super) fn matmul(
    set: &Avx512,
    strips: Strips,
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    strips.matmul(set, (w, x), rows, y, TOKENS, |strip, tokens, rows, scales, y| {
        // SAFETY: `set` proves the features.
        unsafe { product(strip, x, tokens, rows, scales, y) }
    });
}

/// A strip times some tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn product(
    strip: &Strip,
    x: &Activations,
    tokens: Range<usize>,
    rows: Range<usize>,
    scales: &[f32; ROWS],
    y: &mut OutView<'_>,
) {
    let mut t = tokens;
    while t.len() >= 12 {
        tile::<12>(strip, x, t.start, rows.clone(), scales, y);
        t.start += 12;
    }
    if t.len() >= 8 {
        tile::<8>(strip, x, t.start, rows.clone(), scales, y);
        t.start += 8;
    }
    if t.len() >= 4 {
        tile::<4>(strip, x, t.start, rows.clone(), scales, y);
        t.start += 4;
    }
    if t.len() >= 2 {
        tile::<2>(strip, x, t.start, rows.clone(), scales, y);
        t.start += 2;
    }
    if !t.is_empty() {
        tile::<1>(strip, x, t.start, rows, scales, y);
    }
}

/// The strip of `rows` times `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const T: usize>(
    strip: &Strip,
    x: &Activations,
    token: usize,
    rows: Range<usize>,
    scales: &[f32; ROWS],
    y: &mut OutView<'_>,
) {
    let cols = strip.len() * STEP;
    let mut q_at = [std::ptr::null::<i8>(); T];
    for t in 0..T {
        q_at[t] = x.i8(token + t).q[..cols].as_ptr();
    }
    let mut acc = [[_mm512_setzero_si512(); GROUPS]; T];
    for (s, codes) in strip.iter().enumerate() {
        let mut w = [_mm512_setzero_si512(); GROUPS];
        for g in 0..GROUPS {
            // SAFETY: the array has the 64 bytes.
            w[g] = unsafe { _mm512_load_si512(codes[g].0.as_ptr().cast()) };
        }
        for t in 0..T {
            // SAFETY: 4 * s + 4 <= cols.
            let four = unsafe { q_at[t].add(STEP * s).cast::<i32>().read_unaligned() };
            let q = _mm512_set1_epi32(four);
            for g in 0..GROUPS {
                acc[t][g] = _mm512_dpbusd_epi32(acc[t][g], w[g], q);
            }
        }
    }
    for t in 0..T {
        let x = x.i8(token + t);
        let out = y.row(token + t, rows.clone());
        for (g, out) in out.chunks_mut(LANES).enumerate() {
            finish(acc[t][g], &x, &scales.as_chunks().0[g], out);
        }
    }
}

/// [`Sides::finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish_rows(sums: &[i32; ROWS], x: &I8Token<'_>, scales: &[f32; ROWS], out: &mut [f32]) {
    let groups = sums.as_chunks::<LANES>().0.iter().zip(scales.as_chunks().0);
    for ((sums, scales), out) in groups.zip(out.chunks_mut(LANES)) {
        // SAFETY: the array has the 64 bytes.
        finish(unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }, x, scales, out);
    }
}

/// As [`crate::cpu::ternary::finish`], up to sixteen rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish(codes: __m512i, x: &I8Token<'_>, scales: &[f32; LANES], out: &mut [f32]) {
    let sums = _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(x.isum)));
    // SAFETY: the array has the 64 bytes.
    let scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
    let values = _mm512_mul_ps(_mm512_div_ps(sums, _mm512_set1_ps(x.scale)), scales);
    let there = u16::MAX >> (LANES - out.len());
    // SAFETY: the mask lets through as many lanes as `out` has.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), there, values) }
}
