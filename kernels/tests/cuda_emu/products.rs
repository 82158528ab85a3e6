//! Matrix products of many tokens: ternary, f16.

use bitnet_kernels::cuda::emu::{Arg, EmuError};
use bitnet_kernels::quant::{f16, i2_s};
use bitnet_kernels::{Activations, Matrix};

use super::common::{FILLS, Fill, Random, assert_bits, matmul, matrix, prepared, values};
use super::{How, hows, of, room, scalar};

/// Activations of some tokens, as the device holds them and as the oracle does.
pub(crate) struct Input {
    pub(crate) q: Vec<i8>,
    pub(crate) scale: Vec<f32>,
    pub(crate) host: Activations,
}

impl Input {
    /// -128 and 127 too, which add up to the largest sums.
    pub(crate) fn new(tokens: usize, cols: usize, r: &mut Random) -> Self {
        let extreme = r.below(3);
        let q: Vec<i8> = (0..tokens * cols)
            .map(|_| match extreme {
                0 => -128,
                1 => 127,
                _ => r.bits() as i8,
            })
            .collect();
        let scale: Vec<f32> = (0..tokens).map(|_| r.unit().abs() * 50.0 + 0.1).collect();
        let host = Activations::from_i8(&q, &scale, tokens, cols).unwrap();
        Self { q, scale, host }
    }

    fn isum(&self) -> Vec<i32> {
        (0..self.host.n_tokens()).map(|t| self.host.i8(t).isum).collect()
    }
}

/// `bn_gemm_i2s`.
pub(crate) fn gemm(how: How, w: &Matrix<'_>, input: &Input) -> Result<Vec<f32>, EmuError> {
    let (codes, q, scale, isum) = (of(w.data), of(&input.q), of(&input.scale), of(&input.isum()));
    let tokens = input.host.n_tokens();
    let y = room::<f32>(tokens * w.rows);
    let args = [
        Arg::Buffer(&codes),
        Arg::U32(w.rows as u32),
        Arg::U32(w.cols as u32),
        Arg::F32(w.multiplier),
        Arg::Buffer(&q),
        Arg::Buffer(&scale),
        Arg::Buffer(&isum),
        Arg::U32(tokens as u32),
        Arg::Buffer(&y),
    ];
    how.run("bn_gemm_i2s", 0, &args)?;
    Ok(y.read())
}

#[test]
fn ternary_by_many_tokens() {
    let mut r = Random::new(11);
    for (cols, rows, tokens) in
        [(128, 1, 1), (128, 130, 3), (256, 8, 65), (384, 127, 64), (640, 257, 33), (2560, 5, 70), (6912, 9, 2)]
    {
        for fill in [Fill::Wild, FILLS[r.below(FILLS.len())]] {
            let input = Input::new(tokens, cols, &mut r);
            let bytes = matrix(&i2_s::FORMAT, rows, cols, fill, &mut r);
            let w = Matrix::new(&i2_s::FORMAT, rows, cols, &bytes).unwrap().times([1.0, 0.7][r.below(2)]);
            let want = matmul(scalar(), &w, &input.host);
            for how in hows(&[[1, 1, 1], [2, 1, 1], [2, 3, 1]], &[256]).step_by(2) {
                let got = gemm(how, &w, &input).unwrap();
                assert_bits(&got, &want, &format_args!("{cols} columns, {rows} rows, {tokens} tokens, {how:?}"));
            }
        }
    }
}

/// `bn_head_f16`: the products, and the key of the largest of each token.
pub(crate) fn head(how: How, w: &Matrix<'_>, x: &[f32], with_best: bool) -> Result<(Vec<f32>, Vec<u64>), EmuError> {
    let tokens = x.len() / w.cols;
    let (weights, x) = (of(w.data), of(x));
    let (y, best) = (room::<f32>(tokens * w.rows), of(&vec![0u64; tokens]));
    let args = [
        Arg::Buffer(&weights),
        Arg::U32(w.rows as u32),
        Arg::U32(w.cols as u32),
        Arg::F32(w.multiplier),
        Arg::Buffer(&x),
        Arg::U32(tokens as u32),
        Arg::Buffer(&y),
        if with_best { Arg::Buffer(&best) } else { Arg::Null },
    ];
    how.run("bn_head_f16", w.cols.next_multiple_of(64) * 4, &args)?;
    Ok((y.read(), best.read()))
}

#[test]
fn the_head() {
    let mut r = Random::new(12);
    for (cols, rows, tokens) in [(8, 3, 1), (64, 1, 2), (72, 100, 1), (256, 65, 3), (1000, 17, 1), (2560, 50, 2)] {
        for fill in [Fill::Packed, Fill::Wild] {
            let bytes = matrix(&f16::FORMAT, rows, cols, fill, &mut r);
            let w = Matrix::new(&f16::FORMAT, rows, cols, &bytes).unwrap().times([1.0, 0.9][r.below(2)]);
            let x = values(tokens * cols, &mut r);
            let host = prepared(scalar(), bitnet_kernels::ActKind::F32, &x, tokens);
            let want = matmul(scalar(), &w, &host);
            for how in hows(&[[1, 1, 1], [3, 2, 1], [16, 1, 1]], &[32, 256]).step_by(2) {
                let (got, best) = head(how, &w, &x, how.order != 1).unwrap();
                assert_bits(&got, &want, &format_args!("{cols} columns, {rows} rows, {tokens} tokens, {how:?}"));
                for (logits, best) in want.chunks(rows).zip(best) {
                    // None asked for: 0, as nothing above minus infinity.
                    let largest = logits.iter().copied().filter(|v| *v > f32::NEG_INFINITY && how.order != 1);
                    let largest = largest.fold(f32::NEG_INFINITY, f32::max);
                    let row = logits.iter().position(|v| *v == largest && largest > f32::NEG_INFINITY);
                    assert_eq!(best & 0xffff_ffff, row.map_or(0, |row| u64::from(!(row as u32))), "{how:?}");
                }
            }
        }
    }
}
