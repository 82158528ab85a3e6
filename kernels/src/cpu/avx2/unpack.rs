//! How the blocks of Q8_0, Q4_0, Q4_1, Q4_K and Q6_K become registers, and the exact products of one block.
//!
//! `maddubs` never saturates here; each format says why.

use std::arch::x86_64::*;

use super::lanes::load_i8;
use crate::cpu::blocks::{Places, Q4_0, Q4_1, Q4K, Q6K, Q8_0, SUPER, part};
use crate::quant::{Block, q4_0, q4_1, q4_k, q6_k, q8_0};

/// An unpacked block of 32 weights, and its products.
pub(super) trait Unpacked {
    /// The weights.
    type W: Copy;
    /// Whether blocks have a minimum, which is multiplied with the sum of the activations.
    const MINIMUM: bool = false;
    /// Whether they have one for each 16 weights: see [`Unpacked::minima`].
    const HALF_MINIMA: bool = false;

    /// The eight exact sums of four products.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; so for the others.
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i;

    /// The eight exact sums of four activations, times the integer minimum of their 16 weights.
    ///
    /// # Safety
    /// As `groups`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn minima(_w: Self::W, _a: __m256i) -> __m256i {
        _mm256_setzero_si256()
    }
}

/// A format of blocks of 32, or of super-blocks of several.
pub(super) trait Blocks: Places + Unpacked {
    /// Unpacks block `b` of a row.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; so for the others.
    unsafe fn weights(row: &[u8], b: usize) -> Self::W;

    /// The whole scale of block `b`.
    ///
    /// # Safety
    /// As `weights`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn step(row: &[u8], b: usize) -> f32 {
        let (bits, factor) = Self::scale(row, b);
        widen(bits) * factor
    }

    /// What is multiplied with the sum of block `b`'s activations.
    ///
    /// # Safety
    /// As `weights`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn offset(row: &[u8], b: usize) -> f32 {
        let (bits, factor) = Self::minimum(row, b);
        widen(bits) * factor
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn widen(half: u16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_u8(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
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
/// |a| <= 127 (which [`crate::Activations`] keeps), so negating `a` does not wrap and 2 * 128 * 127 = 32,512 fits i16.
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

impl Unpacked for Q8_0 {
    type W = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        signed(w, a)
    }
}

impl Blocks for Q8_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        with_abs(load_u8(part(row, b * q8_0::BYTES + 2)))
    }
}

impl Unpacked for Q4_0 {
    type W = [__m256i; 2];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        signed(w, a)
    }
}

impl Blocks for Q4_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        let codes = nibbles(part(row, b * q4_0::BYTES + 2));
        with_abs(_mm256_sub_epi8(codes, _mm256_set1_epi8(8)))
    }
}

/// Codes are unsigned as they are: 2 * 15 * 127 = 3,810 fits i16.
impl Unpacked for Q4_1 {
    type W = __m256i;
    const MINIMUM: bool = <Self as Places>::MINIMUM;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        pairs(_mm256_maddubs_epi16(w, a))
    }
}

impl Blocks for Q4_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        nibbles(part(row, b * q4_1::BYTES + 4))
    }
}

/// Codes as in [`Q4_1`].
impl Unpacked for Q4K {
    type W = __m256i;
    const MINIMUM: bool = <Self as Places>::MINIMUM;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        pairs(_mm256_maddubs_epi16(w, a))
    }
}

impl Blocks for Q4K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weights(row: &[u8], b: usize) -> Self::W {
        let codes = load_u8(part(Self::super_block(row, b), q4_k::CODES + b % SUPER / 2 * 32));
        // 16-bit shifts move bits between bytes; the mask drops what came from the neighbour.
        let codes = _mm256_srl_epi16(codes, _mm_cvtsi32_si128((b % 2 * 4) as i32));
        _mm256_and_si256(codes, _mm256_set1_epi8(15))
    }
}

/// `|q - 32| <= 32`: two products are at most 2 * 32 * 127 = 8,128; `madd` then multiplies by the sub-scale
/// (i16) and adds in i32. The block of 32 has two sub-scales, one for each half of the register.
impl Unpacked for Q6K {
    /// |q - 32|, q - 32, sub-scales as i16.
    type W = [__m256i; 3];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w[0], _mm256_sign_epi8(a, w[1])), w[2])
    }
}

impl Blocks for Q6K {
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
        let scales = _mm256_set_m128i(_mm_set1_epi16(i16::from(s1 as i8)), _mm_set1_epi16(i16::from(s0 as i8)));
        [_mm256_abs_epi8(w), w, scales]
    }
}

/// Blocks that a format's decoder has written. Integers are at least -127, but for Q8_0's: see [`signed`].
pub(super) trait Shaped: Unpacked {
    /// Takes a block up.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    unsafe fn load(block: &Block) -> Self::W;
}

/// The integers of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn integers(block: &Block) -> [__m256i; 2] {
    with_abs(load_i8(&block.q))
}

/// One number for the first 16 weights, one for the others.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves([low, high]: [i16; 2]) -> __m256i {
    _mm256_set_m128i(_mm_set1_epi16(high), _mm_set1_epi16(low))
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident, minimum $minimum:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Unpacked for $name {
            type W = [__m256i; 2];
            const MINIMUM: bool = $minimum;

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
                signed(w, a)
            }
        }

        impl Shaped for $name {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load(block: &Block) -> Self::W {
                integers(block)
            }
        }
    )*};
}

shapes! {
    /// See [`crate::quant::Shape::Scale`].
    Scale, minimum false;
    /// See [`crate::quant::Shape::Minimum`].
    Minimum, minimum true;
}

/// See [`crate::quant::Shape::Halves`]. `madd` multiplies by the factor (i16) and adds in i32.
pub(super) struct Halves;

impl Unpacked for Halves {
    /// |q|, q, factors.
    type W = [__m256i; 3];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w[0], _mm256_sign_epi8(a, w[1])), w[2])
    }
}

impl Shaped for Halves {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(block: &Block) -> Self::W {
        let [abs, q] = integers(block);
        [abs, q, halves(block.factors)]
    }
}

/// See [`crate::quant::Shape::HalfMinima`].
pub(super) struct HalfMinima;

impl Unpacked for HalfMinima {
    /// |q|, q, factors, minima.
    type W = [__m256i; 4];
    const HALF_MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn groups(w: Self::W, a: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w[0], _mm256_sign_epi8(a, w[1])), w[2])
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn minima(w: Self::W, a: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), a), w[3])
    }
}

impl Shaped for HalfMinima {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(block: &Block) -> Self::W {
        let [abs, q] = integers(block);
        [abs, q, halves(block.factors), halves(block.minima)]
    }
}
