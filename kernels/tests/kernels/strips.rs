//! Several tokens of ternary weights at the edges of what AVX-512 and AMX cut them into: strips of 32 rows, twelve tokens or
//! two tiles of sixteen, and the tokens that share an unpacked strip. `matmul` has the ordinary shapes.

use crate::common::{Fill, Random, assert_bits, matrix, models, sets_for, ternary};
use bitnet_kernels::{Activations, Kernels, Matrix, OutView, by_name, quant};
use proptest::prelude::*;

/// Any int8, -128 too, with tokens at their limits among them.
fn input(tokens: usize, cols: usize, r: &mut Random) -> Activations {
    let mut q: Vec<i8> = (0..tokens * cols).map(|_| r.bits() as i8).collect();
    for token in q.chunks_mut(cols) {
        match r.below(6) {
            0 => token.fill(127),
            1 => token.fill(-128),
            _ => {}
        }
    }
    Activations::from_i8(&q, &r.floats(tokens, 9.0), tokens, cols).unwrap()
}

/// The product of `rows` by every set and model, with canaries around it, against the naive loop.
fn hold(w: &Matrix<'_>, x: &Activations, rows: std::ops::Range<usize>) {
    const CANARY: f32 = -1.234_567e33;
    const ROOM: usize = 32;
    let (tokens, width) = (x.n_tokens(), w.rows);
    let mut want = vec![CANARY; tokens * width + 2 * ROOM];
    for token in 0..tokens {
        for row in rows.clone() {
            want[ROOM + token * width + row] = w.dot(row, x, token);
        }
    }
    for k in sets_for(w.format) {
        let mut y = vec![CANARY; want.len()];
        let inside = &mut y[ROOM..ROOM + tokens * width];
        k.matmul(w, x, rows.clone(), OutView::new(inside, tokens, width));
        let what = format!("{} {} {width}x{}x{tokens} rows {rows:?}", k.name(), w.format.name, w.cols);
        assert_bits(&y, &want, &what);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_remainder_of_tokens_and_rows(
        tokens in 1usize..41, rows in 1usize..75, length in 1usize..700, from in 0usize..75, seed: u64,
    ) {
        for format in ternary() {
            let r = &mut Random::new(seed);
            let cols = length.next_multiple_of(format.block_len);
            for fill in [Fill::Packed, Fill::Wild] {
                let bytes = matrix(format, rows, cols, fill, r);
                // What follows the matrix in a file is not a weight.
                let mut around = vec![0xff; bytes.len() + 65];
                around[1..=bytes.len()].copy_from_slice(&bytes);
                let w = Matrix::new(format, rows, cols, &around[1..=bytes.len()]).unwrap().times(0.75);
                hold(&w, &input(tokens, cols, r), from % rows..rows);
            }
        }
    }
}

/// All weights and all activations at their limits, rows long enough for any narrower sum to wrap.
#[test]
fn extremes_do_not_wrap() {
    for format in ternary() {
        let (rows, cols) = (33, 6912usize.next_multiple_of(format.block_len));
        for weight in [1.0f32, -1.0, 0.0] {
            let bytes = (format.pack)(&vec![weight; rows * cols], rows, cols).unwrap();
            let w = Matrix::new(format, rows, cols, &bytes).unwrap();
            for (q, tokens) in [(127i8, 17), (-128, 33)] {
                let x = Activations::from_i8(&vec![q; tokens * cols], &vec![1.0; tokens], tokens, cols).unwrap();
                for k in sets_for(format) {
                    let want = weight * f32::from(q) * cols as f32 + 0.0;
                    let all = crate::common::matmul(k, &w, &x);
                    assert!(all.iter().all(|y| *y == want), "{} {}: {weight} x {q}", k.name(), format.name);
                }
            }
        }
    }
}

/// Strips of rows that have one scale, and of rows some of which have several or a scale of zero, in one matrix; and more
/// tokens than share a strip.
#[test]
fn rows_of_several_scales_among_the_others() {
    for format in ternary().filter(|format| format.trailer_bytes == 0) {
        let (rows, cols, row_bytes) = (100, 512, format.row_bytes(512));
        for tokens in [2, 130, 515] {
            let r = &mut Random::new(tokens as u64);
            let mut bytes = matrix(format, rows, cols, Fill::Packed, r);
            for (row, bits) in [(40, 0x3c00u16), (99, 0x0001)] {
                let row = &mut bytes[row * row_bytes..(row + 1) * row_bytes];
                match format.halves {
                    [(d, _)] => {
                        row[format.block_bytes + d..format.block_bytes + d + 2].copy_from_slice(&bits.to_le_bytes())
                    }
                    _ => row[..format.row_head].fill(0),
                }
            }
            let w = Matrix::new(format, rows, cols, &bytes).unwrap();
            hold(&w, &input(tokens, cols, r), 0..rows);
        }
    }
    // One scale for all: more tokens than share a strip of I2_S.
    let format = &quant::i2_s_arm::FORMAT;
    let r = &mut Random::new(3);
    let bytes = matrix(format, 35, 192, Fill::Packed, r);
    hold(&Matrix::new(format, 35, 192, &bytes).unwrap(), &input(515, 192, r), 1..34);
}

/// The models are really there: else all of the above says nothing of AMX.
#[test]
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
fn tiles_are_among_the_sets() {
    let names: Vec<_> = models().iter().map(|k| k.name()).collect();
    let wide = bitnet_kernels::by_name("avx512").is_ok();
    assert_eq!(names, ["amx-model", "amx-model-avx512"][..1 + usize::from(wide)]);
}

/// What tiles do not compute is that of the set beside them.
#[test]
fn the_rest_of_a_set_with_tiles_is_the_oracles() {
    let (r, scalar) = (&mut Random::new(9), by_name("scalar").unwrap());
    let (rows, cols) = (3, 100);
    let format = &quant::f32::FORMAT;
    let bytes = matrix(format, rows, cols, Fill::Packed, r);
    let w = Matrix::new(format, rows, cols, &bytes).unwrap();
    let ints: Vec<i16> = r.floats(cols, 9000.0).iter().map(|x| *x as i16).collect();
    let (dim, n, heads) = (20, 7, 3);
    let queries = r.floats(heads * dim, 2.0);
    let cache: Vec<u16> = r.floats(2 * n * dim, 2.0).iter().map(|x| bitnet_kernels::numerics::f32_to_f16(*x)).collect();
    let (keys, values) = cache.split_at(n * dim);
    let of = |k: &dyn Kernels| {
        let mut q = vec![0; rows * cols];
        let narrow = |(row, q)| k.narrow(&w, row, &mut vec![0.0; cols], q);
        let bounds: Vec<_> = q.chunks_exact_mut(cols).enumerate().map(narrow).collect();
        let (mut dots, mut scratch, mut out) = (vec![1; rows], vec![0.0; heads * n], vec![0.0; heads * dim]);
        k.dots_i8_i16(&q, &ints, &mut dots);
        k.attention_group(&queries, dim, keys, values, dim, n, 0.25, &mut scratch, &mut out);
        (bounds, q, dots, out)
    };
    let expected = of(scalar);
    for k in models() {
        assert_eq!(of(*k), expected, "{}", k.name());
    }
}
