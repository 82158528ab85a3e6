//! Ternary weights times several tokens where a lane is a row: what AVX-512 and AMX share.
//!
//! Where the lanes of a register are columns, every sum ends in a reduction of its lanes, which for rows of a few thousand
//! weights is a fifth of the work. Here sixteen i32 lanes are sixteen rows: a register of weights holds four columns of
//! each, and meets four activations of a token in every lane. Nothing is left to reduce, and results are scaled and stored
//! sixteen at a time.
//!
//! A [`Strip`] of 32 rows is brought into that order once and meets all tokens. How its products are made is the
//! instruction set's own: [`super::avx512`] keeps sums in registers, for [`super::amx`] sixteen registers are a tile.
//! What they do besides is [`Sides`].

use std::cell::RefCell;
use std::ops::Range;

use super::own;
use super::ternary::{Arm, Iq1Bn, Iq2Bn, LEN, Tq1, Tq2, X86, scales_up_to};
use crate::quant::{i2_s, i2_s_arm, iq1_bn, iq2_bn, tq1_0, tq2_0};
use crate::{Activations, Format, I8Token, Matrix, OutView};

/// Tokens from which a strip is worth unpacking. With two or three of them AVX2, which multiplies packed bytes, is ahead of
/// AVX-512 by a third (640 x 2560, Xeon of 2023, all formats); for AMX it is taken over.
pub(super) const FROM: usize = 4;

/// Rows of a register.
pub(super) const LANES: usize = 16;
/// Registers of rows that are computed together.
pub(super) const GROUPS: usize = 2;
/// Rows of a strip.
pub(super) const ROWS: usize = GROUPS * LANES;
/// Columns of a register.
pub(super) const STEP: usize = 4;
/// Registers of one group that come of a step of [`LEN`] weights.
pub(super) const STEPS: usize = LEN / STEP;

/// Four columns of sixteen rows: codes 0, 1, 2.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Codes(pub(super) [u8; LANES * STEP]);

impl Codes {
    pub(super) const ZERO: Self = Self([0; LANES * STEP]);
}

/// `[cols / 4][GROUPS]`: 80 KiB for 2,560 columns.
pub(super) type Strip = [[Codes; GROUPS]];

/// The bytes of a strip: `[cols / 4][rows of the strip][4]`.
pub(super) fn bytes(strip: &Strip) -> &[u8] {
    // SAFETY: `Codes` is 64 bytes of any value, aligned to its size, so that nothing lies between two.
    unsafe { std::slice::from_raw_parts(strip.as_ptr().cast(), size_of_val(strip)) }
}

/// What an instruction set does beside the products.
pub(super) trait Sides: Sync {
    /// Writes the codes of the first sixteen of `rows` to their `group` of the strip. Lanes of rows that are not there repeat
    /// the last one; nobody looks at them.
    fn unpack(&self, w: &Matrix<'_>, rows: Range<usize>, group: usize, strip: &mut Strip);

    /// The product of rows some of which have several scales, all tokens; without the matrix's factor.
    fn mixed(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>);

    /// [`super::ternary::finish`] of the first `out.len()` rows of a strip.
    fn finish(&self, sums: &[i32; ROWS], x: &I8Token<'_>, scales: &[f32; ROWS], out: &mut [f32]);
}

/// The scales of up to [`ROWS`] rows, if each has one.
type RowScales = fn(&Matrix<'_>, Range<usize>) -> Option<[f32; ROWS]>;

/// The formats that are multiplied in strips.
static FORMATS: &[(&Format, RowScales)] = &[
    (&i2_s::FORMAT, scales_up_to::<X86, ROWS>),
    (&i2_s_arm::FORMAT, scales_up_to::<Arm, ROWS>),
    (&tq2_0::FORMAT, scales_up_to::<Tq2, ROWS>),
    (&tq1_0::FORMAT, scales_up_to::<Tq1, ROWS>),
    (&iq1_bn::FORMAT, scales_up_to::<Iq1Bn, ROWS>),
    (&iq2_bn::FORMAT, scales_up_to::<Iq2Bn, ROWS>),
];

/// How matrices of a format are multiplied in strips.
#[derive(Clone, Copy)]
pub(super) struct Strips(RowScales);

impl Strips {
    /// Of a matrix that has them.
    pub(super) fn of(w: &Matrix<'_>) -> Option<Self> {
        own(FORMATS, w).map(Self)
    }

    /// As [`crate::Kernels::matmul`], checked by `check_matmul`, without the matrix's factor. Up to `together` tokens meet a
    /// strip each time it is unpacked: `product` gets the strip, the tokens, the rows, their scales, and where to write.
    pub(super) fn matmul(
        self,
        sides: &(impl Sides + ?Sized),
        (w, x): (&Matrix<'_>, &Activations),
        rows: Range<usize>,
        y: &mut OutView<'_>,
        together: usize,
        mut product: impl FnMut(&Strip, Range<usize>, Range<usize>, &[f32; ROWS], &mut OutView<'_>),
    ) {
        thread_local! {
            static STRIP: RefCell<Vec<[Codes; GROUPS]>> = const { RefCell::new(Vec::new()) };
        }
        let mut strip = STRIP.take();
        strip.resize(w.cols / STEP, [Codes::ZERO; GROUPS]);
        for first in (0..x.n_tokens()).step_by(together) {
            let tokens = first..x.n_tokens().min(first + together);
            for row in rows.clone().step_by(ROWS) {
                let rows = row..rows.end.min(row + ROWS);
                let Some(scales) = (self.0)(w, rows.clone()) else {
                    if first == 0 {
                        sides.mixed(w, x, rows, y);
                    }
                    continue;
                };
                for (group, row) in rows.clone().step_by(LANES).enumerate() {
                    sides.unpack(w, row..rows.end, group, &mut strip);
                }
                product(&strip, tokens.clone(), rows, &scales, y);
            }
        }
        STRIP.set(strip);
    }
}
