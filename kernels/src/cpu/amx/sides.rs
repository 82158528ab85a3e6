//! What happens beside the products, in plain Rust: for models on machines without AVX-512, and to hold AVX-512's against.
//!
//! Codes are the signs of the exact values, so that nothing here knows a layout.

use std::ops::Range;

use crate::cpu::naive;
use crate::cpu::strips::{LANES, ROWS, STEP, Sides, Strip};
use crate::cpu::ternary::finish;
use crate::{Activations, I8Token, Matrix, OutView};

/// See the module.
pub(super) struct Plain;

impl Sides for Plain {
    fn unpack(&self, w: &Matrix<'_>, rows: Range<usize>, group: usize, strip: &mut Strip) {
        let mut values = vec![0.0; w.cols];
        for lane in 0..LANES {
            let row = (rows.start + lane).min(rows.end - 1);
            w.stored_row(row, &mut values);
            for (values, out) in values.chunks_exact(STEP).zip(strip.iter_mut()) {
                for (value, code) in values.iter().zip(&mut out[group].0[lane * STEP..]) {
                    // Scales are positive, or zero where weights are.
                    *code = u8::from(*value >= 0.0) + u8::from(*value > 0.0);
                }
            }
        }
    }

    fn mixed(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
        naive(w, x, rows, y);
    }

    fn finish(&self, sums: &[i32; ROWS], x: &I8Token<'_>, scales: &[f32; ROWS], out: &mut [f32]) {
        for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
            *out = finish(*sum, x, *scale);
        }
    }
}
