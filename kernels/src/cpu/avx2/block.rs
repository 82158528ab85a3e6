//! Q8_0, Q4_0, Q4_1, Q6_K: blocks of 32 weights with a scale times int8 blocks with a scale.
//!
//! Eight i32 lanes of a register are the eight groups of four products of a block, which is why the contract groups by
//! four: `maddubs` adds neighbours in i16, `madd` adds those in i32, and the register goes to the lanes of even or of odd
//! blocks by one FMA. `maddubs` never saturates here, see each format.
//!
//! A few tokens: up to four rows at a time from the stored bytes. More tokens: the blocks of two rows are unpacked once into a
//! buffer in L1; a tile of two rows and four tokens then sweeps the even blocks and after them the odd ones (the lanes of
//! the two do not meet before the tree), which keeps its eight accumulators in registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{load, load_i8, prefetch, tree8};
use crate::activations::Q8_BLOCK;
use crate::quant::{q4_0, q4_1, q6_k, q8_0};
use crate::{Activations, Matrix, OutView, Q8Token};

/// A format of blocks of 32, or of super-blocks of several.
pub(super) trait Blocks {
    /// An unpacked block.
    type W: Copy;
    /// Whether blocks have a minimum.
    const MINIMUM: bool = false;

    /// Unpacks block `b` of a row.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; so for the others.
    unsafe fn weights(row: &[u8], b: usize) -> Self::W;

    /// The f16 scale of block `b`.
    fn scale(row: &[u8], b: usize) -> u16;

    /// The f16 minimum of block `b`.
    fn minimum(_row: &[u8], _b: usize) -> u16 {
        0
    }

    /// The eight exact sums of four products.
    ///
    /// # Safety
    /// As `weights`.
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i;
}

#[inline]
fn bits(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(half: u16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_u8(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The bytes `at..at + N` of a row.
#[inline]
fn part<const N: usize>(row: &[u8], at: usize) -> &[u8; N] {
    // The range check is one comparison; it is what keeps a damaged caller out of other memory.
    row[at..].first_chunk().expect("a row has whole blocks")
}

/// i16 pairs to i32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pairs(v: __m256i) -> __m256i {
    _mm256_madd_epi16(v, _mm256_set1_epi16(1))
}

/// 16 bytes of nibbles: the low ones are weights 0..16, the high ones 16..32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the array has 16 bytes.
    let packed = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// Signed weights times activations: |w| unsigned, its sign given to the activation. Exact: |w| <= 128 (as u8) and
/// |a| <= 127 (which [`Activations`] keeps), so negating `a` does not wrap and 2 * 128 * 127 = 32,512 fits i16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed(w: [__m256i; 2], a: __m256i) -> __m256i {
    pairs(_mm256_maddubs_epi16(w[0], _mm256_sign_epi8(a, w[1])))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_abs(w: __m256i) -> [__m256i; 2] {
    [_mm256_abs_epi8(w), w]
}

/// See [`q8_0`].
pub(super) struct Q8_0;

impl Blocks for Q8_0 {
    type W = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        with_abs(load_u8(part(row, b * q8_0::BYTES + 2)))
    }

    #[inline]
    fn scale(row: &[u8], b: usize) -> u16 {
        bits(row, b * q8_0::BYTES)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        signed(w, a)
    }
}

/// See [`q4_0`].
pub(super) struct Q4_0;

impl Blocks for Q4_0 {
    type W = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        let codes = nibbles(part(row, b * q4_0::BYTES + 2));
        with_abs(_mm256_sub_epi8(codes, _mm256_set1_epi8(8)))
    }

    #[inline]
    fn scale(row: &[u8], b: usize) -> u16 {
        bits(row, b * q4_0::BYTES)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        signed(w, a)
    }
}

/// See [`q4_1`]. Codes are unsigned as they are: 2 * 15 * 127 = 3,810 fits i16.
pub(super) struct Q4_1;

impl Blocks for Q4_1 {
    type W = __m256i;
    const MINIMUM: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        nibbles(part(row, b * q4_1::BYTES + 4))
    }

    #[inline]
    fn scale(row: &[u8], b: usize) -> u16 {
        bits(row, b * q4_1::BYTES)
    }

    #[inline]
    fn minimum(row: &[u8], b: usize) -> u16 {
        bits(row, b * q4_1::BYTES + 2)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        pairs(_mm256_maddubs_epi16(w, a))
    }
}

/// See [`q6_k`]. `|q - 32| <= 32`: two products are at most 2 * 32 * 127 = 8,128; `madd` then multiplies by the sub-scale
/// (i16) and adds in i32. The block of 32 has two sub-scales, one for each half of the register.
pub(super) struct Q6K;

/// Blocks of 32 in a super-block.
const SUPER: usize = q6_k::LEN / Q8_BLOCK;

impl Blocks for Q6K {
    /// |q - 32|, q - 32, sub-scales as i16.
    type W = [__m256i; 3];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        let block: &[u8; q6_k::BYTES] = part(row, b / SUPER * q6_k::BYTES);
        let (half, quarter) = (b % SUPER / 4, b % 4);
        let low = load_u8(part(block, half * 64 + quarter % 2 * 32));
        let high = load_u8(part(block, q6_k::QH + half * 32));
        // 16-bit shifts move bits between bytes; the masks drop what came from the neighbour.
        let low = _mm256_srl_epi16(low, _mm_cvtsi32_si128((quarter / 2 * 4) as i32));
        let high = _mm256_srl_epi16(high, _mm_cvtsi32_si128((quarter * 2) as i32));
        let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
        let high = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(3)));
        let w = _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
        let [s0, s1] = *part::<2>(block, q6_k::SCALES + b % SUPER * 2);
        let scales = _mm256_set_m128i(
            _mm_set1_epi16(i16::from(s1 as i8)),
            _mm_set1_epi16(i16::from(s0 as i8)),
        );
        [_mm256_abs_epi8(w), w, scales]
    }

    #[inline]
    fn scale(row: &[u8], b: usize) -> u16 {
        bits(row, b / SUPER * q6_k::BYTES + q6_k::D)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w[0], _mm256_sign_epi8(a, w[1])), w[2])
    }
}

/// See [`super::Matmul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<B: Blocks>(
    w: &Matrix<'_>,
    x: &Activations,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    if x.n_tokens() <= DIRECT {
        let mut t = 0..x.n_tokens();
        while !t.is_empty() {
            let rows = rows.clone();
            match t.len() {
                1 => direct::<B, 4, 1>(w, x, t.start, rows, y),
                2 => direct::<B, 2, 2>(w, x, t.start, rows, y),
                3 => direct::<B, 1, 3>(w, x, t.start, rows, y),
                _ => direct::<B, 1, 4>(w, x, t.start, rows, y),
            }
            t.start += t.len().min(4);
        }
        return;
    }
    // SAFETY: this function has the features; there is a first block, since a matrix is never empty.
    let first = unsafe { B::weights(w.row(0), 0) };
    let unpacked = UnpackedRow {
        weights: [first; PIECE],
        scales: [0.0; PIECE],
        minima: [0.0; PIECE],
    };
    let mut wide = [unpacked; 2];
    for first in (0..x.n_tokens()).step_by(TOKENS) {
        let tokens = first..x.n_tokens().min(first + TOKENS);
        let mut row = rows.start;
        while row + 2 <= rows.end {
            gemm::<B, 2>(w, x, tokens.clone(), row, &mut wide, y);
            row += 2;
        }
        for row in row..rows.end {
            let [wide, _] = &mut wide;
            gemm::<B, 1>(w, x, tokens.clone(), row, std::array::from_mut(wide), y);
        }
    }
}

/// Up to so many tokens, rows are multiplied straight from the stored bytes.
const DIRECT: usize = 12;

/// `T` tokens from `token` on, `R` rows at a time.
#[target_feature(enable = "avx2,fma,f16c")]
fn direct<B: Blocks, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    token: usize,
    rows: Range<usize>,
    y: &mut OutView<'_>,
) {
    let mut x_t = [x.q8(token); T];
    for (t, x_t) in x_t.iter_mut().enumerate() {
        *x_t = x.q8(token + t);
    }
    let mut row = rows.start;
    while row + R <= rows.end {
        dots::<B, R, T>(w, &x_t, token, row, y);
        row += R;
    }
    for row in row..rows.end {
        dots::<B, 1, T>(w, &x_t, token, row, y);
    }
}

/// The dots of `R` rows with `T` tokens, from the stored bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<B: Blocks, const R: usize, const T: usize>(
    w: &Matrix<'_>,
    x: &[Q8Token<'_>; T],
    token: usize,
    row: usize,
    y: &mut OutView<'_>,
) {
    let mut rows = [w.row(row); R];
    for (r, bytes) in rows.iter_mut().enumerate() {
        *bytes = w.row(row + r);
    }
    let blocks = w.cols / Q8_BLOCK;
    // Pointers to `blocks` entries each: the loop below stays free of range checks.
    let mut q = [std::ptr::null::<[i8; Q8_BLOCK]>(); T];
    let (mut d, mut bsum) = ([std::ptr::null::<f32>(); T], [std::ptr::null::<f32>(); T]);
    for t in 0..T {
        q[t] = x[t].q.as_chunks().0[..blocks].as_ptr();
        (d[t], bsum[t]) = (x[t].d[..blocks].as_ptr(), x[t].bsum[..blocks].as_ptr());
    }
    // The rows that take their turn next begin where these end; a step is at most one line of 64 bytes in every format.
    let (ahead, step) = (R * rows[0].len(), rows[0].len() / blocks);
    let mut acc = [[[_mm256_setzero_ps(); T]; R]; 2];
    let mut minimum = [[0.0f32; T]; R];
    for b in 0..blocks {
        for r in 0..R {
            prefetch(rows[r], ahead + b * step);
            // SAFETY: this function has the features.
            let weights = unsafe { B::weights(rows[r], b) };
            let scale = widen(B::scale(rows[r], b));
            for t in 0..T {
                // SAFETY: this function has the features; b < blocks.
                let (groups, d) =
                    unsafe { (B::groups(weights, load_i8(&*q[t].add(b))), *d[t].add(b)) };
                let scale = _mm256_set1_ps(scale * d);
                acc[0][r][t] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(groups), acc[0][r][t]);
            }
            if B::MINIMUM {
                let m = widen(B::minimum(rows[r], b));
                for t in 0..T {
                    // SAFETY: b < blocks.
                    minimum[r][t] = m.mul_add(unsafe { *bsum[t].add(b) }, minimum[r][t]);
                }
            }
        }
        // Even and odd blocks take turns; addition of the two at the end commutes.
        acc.swap(0, 1);
    }
    for r in 0..R {
        for t in 0..T {
            let mut value = tree8(_mm256_add_ps(acc[0][r][t], acc[1][r][t]));
            if B::MINIMUM {
                value += minimum[r][t];
            }
            y.set(token + t, row + r, value);
        }
    }
}

/// Blocks unpacked at a time, and tokens that share them.
const PIECE: usize = 64;
const TOKENS: usize = 64;
const _: () = assert!(PIECE.is_multiple_of(2) && PIECE.is_multiple_of(SUPER));

/// Some blocks of a row, unpacked.
#[derive(Clone, Copy)]
struct UnpackedRow<W> {
    weights: [W; PIECE],
    scales: [f32; PIECE],
    minima: [f32; PIECE],
}

/// Lanes and the sum of minima of one output.
#[derive(Clone, Copy)]
struct Sums {
    lanes: [__m256; 2],
    minimum: f32,
}

/// `R` rows from `row` on, up to [`TOKENS`] tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn gemm<B: Blocks, const R: usize>(
    w: &Matrix<'_>,
    x: &Activations,
    tokens: Range<usize>,
    row: usize,
    wide: &mut [UnpackedRow<B::W>; R],
    y: &mut OutView<'_>,
) {
    let blocks = x.cols() / Q8_BLOCK;
    let zero = Sums {
        lanes: [_mm256_setzero_ps(); 2],
        minimum: 0.0,
    };
    let mut sums = [[zero; R]; TOKENS];
    for from in (0..blocks).step_by(PIECE) {
        let n = (blocks - from).min(PIECE);
        for r in 0..R {
            let row = w.row(row + r);
            for b in 0..n {
                // SAFETY: this function has the features.
                wide[r].weights[b] = unsafe { B::weights(row, from + b) };
                wide[r].scales[b] = widen(B::scale(row, from + b));
                if B::MINIMUM {
                    wide[r].minima[b] = widen(B::minimum(row, from + b));
                }
            }
        }
        let mut t = tokens.clone();
        while t.len() >= 4 {
            let x = [
                x.q8(t.start),
                x.q8(t.start + 1),
                x.q8(t.start + 2),
                x.q8(t.start + 3),
            ];
            tile::<B, R, 4>(wide, n, x, from, &mut sums[t.start - tokens.start..]);
            t.start += 4;
        }
        for t in t {
            tile::<B, R, 1>(wide, n, [x.q8(t)], from, &mut sums[t - tokens.start..]);
        }
    }
    for (t, sums) in tokens.zip(sums) {
        for (r, sums) in sums.into_iter().enumerate() {
            let mut value = tree8(_mm256_add_ps(sums.lanes[0], sums.lanes[1]));
            if B::MINIMUM {
                value += sums.minimum;
            }
            y.set(t, row + r, value);
        }
    }
}

/// Adds `n` unpacked blocks of `R` rows, times `T` tokens, to their sums. `from` is the first block's number, even.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<B: Blocks, const R: usize, const T: usize>(
    w: &[UnpackedRow<B::W>; R],
    n: usize,
    x: [Q8Token<'_>; T],
    from: usize,
    sums: &mut [[Sums; R]],
) {
    let sums = &mut sums[..T];
    // Pointers to `n` entries each: the loops below stay free of range checks.
    assert!(n <= PIECE);
    let mut q = [std::ptr::null::<[i8; Q8_BLOCK]>(); T];
    let (mut d, mut bsum) = ([&x[0].d[..0]; T], [std::ptr::null::<f32>(); T]);
    for t in 0..T {
        q[t] = x[t].q.as_chunks().0[from..from + n].as_ptr();
        d[t] = &x[t].d[from..from + n];
        bsum[t] = x[t].bsum[from..from + n].as_ptr();
    }
    // d_w * d_a for every block, eight at a time.
    let mut scales = [[[0.0f32; PIECE]; T]; R];
    for r in 0..R {
        for t in 0..T {
            let (eights, rest) = d[t].as_chunks::<8>();
            for (i, d) in eights.iter().enumerate() {
                let product = _mm256_mul_ps(load(&w[r].scales.as_chunks::<8>().0[i]), load(d));
                super::lanes::store(&mut scales[r][t].as_chunks_mut::<8>().0[i], product);
            }
            for (i, d) in rest.iter().enumerate() {
                let b = eights.len() * 8 + i;
                scales[r][t][b] = w[r].scales[b] * d;
            }
        }
    }
    for parity in 0..2 {
        let mut acc = [[_mm256_setzero_ps(); T]; R];
        for r in 0..R {
            for t in 0..T {
                acc[r][t] = sums[t][r].lanes[parity];
            }
        }
        let mut b = parity;
        while b < n {
            for t in 0..T {
                // SAFETY: b < n.
                let a = load_i8(unsafe { &*q[t].add(b) });
                for r in 0..R {
                    // SAFETY: this function has the features.
                    let groups = unsafe { B::groups(w[r].weights[b], a) };
                    let scale = _mm256_set1_ps(scales[r][t][b]);
                    acc[r][t] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(groups), acc[r][t]);
                }
            }
            b += 2;
        }
        for r in 0..R {
            for t in 0..T {
                sums[t][r].lanes[parity] = acc[r][t];
            }
        }
    }
    if B::MINIMUM {
        let mut minimum = [[0.0f32; T]; R];
        for r in 0..R {
            for t in 0..T {
                minimum[r][t] = sums[t][r].minimum;
            }
        }
        for b in 0..n {
            for r in 0..R {
                for t in 0..T {
                    // SAFETY: b < n.
                    minimum[r][t] =
                        w[r].minima[b].mul_add(unsafe { *bsum[t].add(b) }, minimum[r][t]);
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                sums[t][r].minimum = minimum[r][t];
            }
        }
    }
}
