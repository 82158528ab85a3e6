//! Ternary weights times a few tokens, straight from the packed bytes: a lane is four columns, 256 weights are a step.
//!
//! A step is one register of packed bytes. Every byte holds weights that lie apart, one at each *place*; the activations
//! are brought into that order once for all rows ([`Packed::arrange`]), so that all layouts share the code below. `vpdpbusd`
//! adds four products of unsigned and signed bytes to an i32 without saturation. The offset of the codes, `w = code - 1`, is
//! taken off once per row: `sum(w q) = sum(code q) - sum(q)`.
//!
//! * Two bits, one token: the codes stay where they lie in their byte. Masked, they are the code times 1, 4, 16 or 64; each
//!   place has its own accumulator, whose lanes are shifted down at the end: four `and`, four `vpdpbusd` for 256 weights.
//! * Five trits a byte, one token: no trit is ever taken out. Let v_0 be the byte, a fraction of 256, and v_(n+1) the low eight
//!   bits of 3 v_n: then trit n is `(3 v_n - v_(n+1)) / 256`, and `256 sum(trit_n q_n) = 3 sum(v_n q_n) - sum(v_(n+1) q_n)`. Both
//!   sums are `vpdpbusd` of whole bytes; beside them there are two additions for a multiplication by 3.
//! * Two to four tokens: the codes are taken out once for all of them. A trit is the floor of `3 v / 256`. With the mean of
//!   `vpavgb`, which rounds up, and y the complement of v, `mean(y, mean(y, 255))` is the complement of
//!   `(v + v / 2) / 2`, rounded down twice, which has the trit in its two highest bits: it is multiplied there, as 64 times itself.
//! * More tokens: [`super::gemm`].
//!
//! Four rows go together; the sixteen lanes of their sums are added by transposing.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::Avx512;
use crate::cpu::ahead::Ahead;
use crate::cpu::own;
use crate::cpu::ternary::{Arm, Iq2Bn, LEN, Scales, Tq1, Tq2, X86, finish, scales};
use crate::quant::{i2_s, i2_s_arm, iq2_bn, tq1_0, tq2_0};
use crate::{Activations, Format, I8Token, Matrix, OutView};

/// Most tokens that are multiplied here; unpacking a strip pays for more.
pub(super) const TOKENS: usize = 12;

/// Weights of a step.
const STEP: usize = 2 * LEN;
/// Steps before accumulators are emptied. The fastest to grow are those of whole bytes: 256 times a sum of 20 products of at
/// most 2 * 128 is what a step adds to a lane.
const SPAN: usize = 1024;
const _: () = assert!(SPAN * 256 * 20 * 2 * 128 <= i32::MAX as usize);
/// Rows that share the activations in registers.
const ROWS: usize = 4;

/// The activations of one place of a step; zeros where it has no weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Place([i8; 64]);

/// How weights lie in a step.
trait Packed: Scales {
    /// Weights of a byte.
    const PLACES: usize = 4;
    /// Whether they are trits of a fraction and not bits.
    const TRITS: bool = false;

    /// Where step `b` begins in a row.
    #[inline(always)]
    fn at(b: usize) -> usize {
        b * 64
    }

    /// Brings the activations of a step into the order of its places.
    fn arrange(q: &[i8; STEP], out: &mut [Place]);
}

/// Writes groups of `N` activations in turn: group g of a place is lanes from `N * g` on.
#[inline(always)] // into the caller's instruction set
fn groups<const N: usize>(q: &[i8; STEP], out: &mut [Place], weight: impl Fn(usize, usize) -> usize) {
    for (j, out) in out.iter_mut().enumerate() {
        for (g, out) in out.0.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            *out = q.as_chunks().0[weight(j, g) / N];
        }
    }
}

impl Packed for X86 {
    #[inline(always)]
    fn arrange(q: &[i8; STEP], out: &mut [Place]) {
        groups::<32>(q, out, |j, g| LEN * g + 32 * j);
    }
}

impl Packed for Arm {
    #[inline(always)]
    fn arrange(q: &[i8; STEP], out: &mut [Place]) {
        groups::<16>(q, out, |j, g| 64 * g + 16 * j);
    }
}

impl Packed for Iq2Bn {
    #[inline(always)]
    fn at(b: usize) -> usize {
        Self::HEAD + b * 64
    }

    #[inline(always)]
    fn arrange(q: &[i8; STEP], out: &mut [Place]) {
        groups::<16>(q, out, |j, g| 64 * g + 16 * (3 - j));
    }
}

impl Packed for Tq2 {
    #[inline(always)]
    fn at(b: usize) -> usize {
        b * tq2_0::BYTES
    }

    #[inline(always)]
    fn arrange(q: &[i8; STEP], out: &mut [Place]) {
        groups::<32>(q, out, |j, g| LEN * g + 32 * (3 - j));
    }
}

impl Packed for Tq1 {
    const PLACES: usize = 5;
    const TRITS: bool = true;

    #[inline(always)]
    fn at(b: usize) -> usize {
        b * tq1_0::BYTES
    }

    #[inline(always)]
    fn arrange(q: &[i8; STEP], out: &mut [Place]) {
        use tq1_0::{D, SECOND, THIRD};
        for (j, Place(out)) in out.iter_mut().enumerate() {
            out[..SECOND].copy_from_slice(&q[32 * j..][..SECOND]);
            out[SECOND..THIRD].copy_from_slice(&q[160 + 16 * j..][..THIRD - SECOND]);
            // The last four bytes have four trits. What is loaded behind them meets zeros.
            out[THIRD..].fill(0);
            if let Some(q) = q[240..].chunks_exact(D - THIRD).nth(j) {
                out[THIRD..D].copy_from_slice(q);
            }
        }
    }
}

/// See [`matmul`].
type Matmul = unsafe fn(&Avx512, &Matrix<'_>, &Activations, Range<usize>, &mut OutView<'_>);

/// The formats of steps.
static MATMULS: &[(&Format, Matmul)] = &[
    (&i2_s::FORMAT, matmul::<X86>),
    (&i2_s_arm::FORMAT, matmul::<Arm>),
    (&tq2_0::FORMAT, matmul::<Tq2>),
    (&tq1_0::FORMAT, matmul::<Tq1>),
    (&iq2_bn::FORMAT, matmul::<Iq2Bn>),
];

/// The kernel for a matrix, if its format has steps.
pub(super) fn of(w: &Matrix<'_>) -> Option<Matmul> {
    own(MATMULS, w)
}

/// As [`super::Matmul`], up to [`TOKENS`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matmul<L: Packed>(set: &Avx512, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    thread_local! {
        static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
    }
    let mut places = PLACES.take();
    let length = w.cols.div_ceil(STEP) * L::PLACES;
    places.resize(x.n_tokens() * length, Place([0; 64]));
    for (t, places) in places.chunks_exact_mut(length).enumerate() {
        let (steps, rest) = x.i8(t).q.as_chunks();
        let (places, last) = places.split_at_mut(steps.len() * L::PLACES);
        for (q, places) in steps.iter().zip(places.chunks_exact_mut(L::PLACES)) {
            L::arrange(q, places);
        }
        if !rest.is_empty() {
            let mut q = [0; STEP];
            q[..rest.len()].copy_from_slice(rest);
            L::arrange(&q, last);
        }
    }
    let mut row = rows.start;
    while row + ROWS <= rows.end {
        tokens_of::<L, ROWS>(set, w, x, &places, row, y);
        row += ROWS;
    }
    for row in row..rows.end {
        tokens_of::<L, 1>(set, w, x, &places, row, y);
    }
    PLACES.set(places);
}

/// `R` rows from `row` on, all tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tokens_of<L: Packed, const R: usize>(
    set: &Avx512,
    w: &Matrix<'_>,
    x: &Activations,
    places: &[Place],
    row: usize,
    y: &mut OutView<'_>,
) {
    let Some(scales) = scales::<L, R>(w, row) else {
        return set.0.product(w, x, row..row + R, y);
    };
    let mut t = 0;
    while t < x.n_tokens() {
        match x.n_tokens() - t {
            1 => dots::<L, R, 1>(w, x, (places, t), row, &scales, y),
            2 => dots::<L, R, 2>(w, x, (places, t), row, &scales, y),
            3 => dots::<L, R, 3>(w, x, (places, t), row, &scales, y),
            _ => dots::<L, R, 4>(w, x, (places, t), row, &scales, y),
        }
        t += 4;
    }
}

/// `R` rows from `row` on, times `T` tokens from `token` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dots<L: Packed, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    (places, token): (&[Place], usize),
    row: usize,
    scales: &[f32; R],
    y: &mut OutView<'_>,
) {
    let (last, bytes) = (w.cols.div_ceil(STEP) - 1, w.row(row).len());
    // Pointers to the places of a token, and to rows of all but the last step: the loops below stay free of range checks.
    let mut q_at = [std::ptr::null::<Place>(); T];
    for t in 0..T {
        let length = (last + 1) * L::PLACES;
        q_at[t] = places[(token + t) * length..][..length].as_ptr();
    }
    let mut at = [std::ptr::null::<u8>(); R];
    for r in 0..R {
        at[r] = w.row(row + r)[..L::at(last)].as_ptr();
    }
    let mut ahead = Ahead::of(w.row(row), R);
    let mut total = [[_mm512_setzero_si512(); T]; R];
    let mut b = 0;
    while b <= last {
        let end = last.min(b + SPAN);
        let mut acc = [[[_mm512_setzero_si512(); 4]; T]; R];
        while b < end {
            ahead.reach(R * L::at(b + 1));
            let mut packed = [_mm512_setzero_si512(); R];
            for r in 0..R {
                // SAFETY: b < last: a whole step of the row follows, or at least its scale and another step.
                packed[r] = unsafe { _mm512_loadu_si512(at[r].add(L::at(b)).cast()) };
            }
            // SAFETY: b < last, and each token has so many steps.
            unsafe { step::<L, R, T>(packed, &q_at, b, &mut acc) }
            b += 1;
        }
        if b == last {
            ahead.reach(R * bytes);
            let there = u64::MAX >> 64usize.saturating_sub(bytes - L::at(last));
            let mut packed = [_mm512_setzero_si512(); R];
            for r in 0..R {
                // SAFETY: the mask lets through as many bytes as the row has left, 64 at most.
                packed[r] = unsafe { _mm512_maskz_loadu_epi8(there, at[r].add(L::at(last)).cast()) };
            }
            // SAFETY: `last` is a step of each token.
            unsafe { step::<L, R, T>(packed, &q_at, last, &mut acc) }
            b += 1;
        }
        for r in 0..R {
            for t in 0..T {
                total[r][t] = _mm512_add_epi32(total[r][t], level::<L, T>(acc[r][t]));
            }
        }
    }
    for t in 0..T {
        let x = x.i8(token + t);
        if R == 4 {
            let sums = sums_of_4([total[0][t], total[1 % R][t], total[2 % R][t], total[3 % R][t]]);
            finish_4(sums, &x, scales, y.row(token + t, row..row + R));
        } else {
            for r in 0..R {
                y.set(token + t, row + r, finish(_mm512_reduce_add_epi32(total[r][t]), &x, scales[r]));
            }
        }
    }
}

/// Adds the products of step `b` of `R` rows with `T` tokens to their accumulators, see [`level`].
///
/// # Safety
/// Each token has step `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn step<L: Packed, const R: usize, const T: usize>(
    packed: [__m512i; R],
    q_at: &[*const Place; T],
    b: usize,
    acc: &mut [[[__m512i; 4]; T]; R],
) {
    let mut v = packed;
    for j in 0..L::PLACES {
        let mut q = [_mm512_setzero_si512(); T];
        for t in 0..T {
            // SAFETY: the caller's; j is one of the step's places.
            q[t] = unsafe { _mm512_load_si512(q_at[t].add(b * L::PLACES + j).cast()) };
        }
        for r in 0..R {
            if T == 1 && L::TRITS {
                let acc = &mut acc[r][0];
                acc[j % 2] = _mm512_dpbusd_epi32(acc[j % 2], v[r], q[0]);
                v[r] = thrice(v[r]);
                acc[2 + j % 2] = _mm512_dpbusd_epi32(acc[2 + j % 2], v[r], q[0]);
            } else if T == 1 {
                let codes = _mm512_and_si512(packed[r], _mm512_set1_epi8((0xC0u8 >> (2 * j)) as i8));
                acc[r][0][j] = _mm512_dpbusd_epi32(acc[r][0][j], codes, q[0]);
            } else {
                let codes = if L::TRITS { trits(v[r]) } else { pair_of_bits(packed[r], j) };
                if L::TRITS && j + 1 < L::PLACES {
                    v[r] = thrice(v[r]);
                }
                for t in 0..T {
                    acc[r][t][0] = _mm512_dpbusd_epi32(acc[r][t][0], codes, q[t]);
                }
            }
        }
    }
}

/// What the accumulators of a row and one of `T` tokens come to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn level<L: Packed, const T: usize>(acc: [__m512i; 4]) -> __m512i {
    let [a, b, c, d] = acc;
    if T == 1 && L::TRITS {
        let (bytes, next) = (_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
        let thrice = _mm512_add_epi32(_mm512_add_epi32(bytes, bytes), bytes);
        _mm512_srai_epi32::<8>(_mm512_sub_epi32(thrice, next))
    } else if T == 1 {
        let high = _mm512_add_epi32(_mm512_srai_epi32::<6>(a), _mm512_srai_epi32::<4>(b));
        _mm512_add_epi32(high, _mm512_add_epi32(_mm512_srai_epi32::<2>(c), d))
    } else if L::TRITS {
        _mm512_srai_epi32::<6>(a)
    } else {
        a
    }
}

/// The two-bit codes at place `j`, from the high bits down.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pair_of_bits(packed: __m512i, j: usize) -> __m512i {
    let shifted = match j {
        0 => _mm512_srli_epi16::<6>(packed),
        1 => _mm512_srli_epi16::<4>(packed),
        2 => _mm512_srli_epi16::<2>(packed),
        _ => packed,
    };
    _mm512_and_si512(shifted, _mm512_set1_epi8(3))
}

/// Bytes times 3, modulo 256: the next trit becomes the first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn thrice(v: __m512i) -> __m512i {
    let mut twice = _mm512_add_epi8(v, v);
    // The compiler would make a product of the two additions, which it has no instruction for: what the register holds is hidden.
    // SAFETY: no instruction, and the register stays as it is.
    unsafe { asm!("/* {0} */", inlateout(zmm_reg) twice, options(pure, nomem, nostack, preserves_flags)) }
    _mm512_add_epi8(twice, v)
}

/// The first trit of each byte, times 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn trits(v: __m512i) -> __m512i {
    let all = _mm512_set1_epi8(-1);
    let y = _mm512_xor_si512(v, all);
    _mm512_andnot_si512(mean(y, mean(y, all)), _mm512_set1_epi8(0xC0u8 as i8))
}

/// `(a + b + 1) / 2` of bytes. The compiler takes the intrinsic apart where it knows an operand, and does not find the instruction
/// again.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn mean(a: __m512i, b: __m512i) -> __m512i {
    let out;
    // SAFETY: the instruction reads and writes these registers alone; it is AVX-512 BW's.
    unsafe {
        asm!("vpavgb {0}, {1}, {2}", lateout(zmm_reg) out, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The sums of the lanes of four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn sums_of_4([a, b, c, d]: [__m512i; 4]) -> __m128i {
    let two = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (two(a, b), two(c, d));
    let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
    _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

/// [`finish`] of four rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish_4(codes: __m128i, x: &I8Token<'_>, scales: &[f32], out: &mut [f32]) {
    let (scales, out) = (&scales[..ROWS], &mut out[..ROWS]);
    let sums = _mm_cvtepi32_ps(_mm_sub_epi32(codes, _mm_set1_epi32(x.isum)));
    // SAFETY: both slices have four floats.
    unsafe {
        let values = _mm_mul_ps(_mm_div_ps(sums, _mm_set1_ps(x.scale)), _mm_loadu_ps(scales.as_ptr()));
        _mm_storeu_ps(out.as_mut_ptr(), values);
    }
}
