//! Every kernel set equals the naive loop of every format, bit for bit, on ordinary and on adversarial input; and a
//! product does not depend on how it is split into rows, tokens or threads.

use crate::common::{
    FILLS, Fill, Random, all_sets_for, assert_bits, fast_sets, matmul, matrix, pairs, prepared, sets_for, ternary,
};
use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, OutView, by_name, quant};
use proptest::prelude::*;

/// The naive loop.
fn oracle(w: &Matrix<'_>, x: &Activations) -> Vec<f32> {
    let row = |t| (0..w.rows).map(move |r| w.dot(r, x, t));
    (0..x.n_tokens()).flat_map(row).collect()
}

/// Activations of a kind: ordinary, with outliers and zero blocks, or tiny.
fn input(k: &dyn Kernels, act: ActKind, tokens: usize, cols: usize, r: &mut Random) -> Activations {
    let mut x = r.floats(tokens * cols, 3.0);
    match r.below(4) {
        0 => (0..x.len().div_ceil(40)).for_each(|_| x[r.below(tokens * cols)] *= 1000.0),
        1 => x.chunks_mut(32).step_by(3).for_each(|block| block.fill(0.0)),
        2 => x.iter_mut().for_each(|x| *x *= 1e-39),
        _ => {}
    }
    prepared(k, act, &x, tokens)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_set_equals_the_naive_loop(
        rows in 1usize..70, length in 1usize..1200, tokens in 1usize..10, fill in 0usize..4, seed: u64,
    ) {
        for (format, act) in pairs() {
            let r = &mut Random::new(seed);
            let cols = length.next_multiple_of(format.block_len);
            let bytes = matrix(format, rows, cols, FILLS[fill], r);
            // Unaligned on purpose: a row starts anywhere in a file.
            let mut shifted = vec![0u8; 1 + bytes.len()];
            shifted[1..].copy_from_slice(&bytes);
            let w = Matrix::new(format, rows, cols, &shifted[1..]).unwrap().with_act(act);
            let x = input(by_name("scalar").unwrap(), act, tokens, cols, r);
            let want = oracle(&w, &x);
            for k in sets_for(format) {
                let what = format!("{} {} {act:?} {rows}x{cols}x{tokens} {:?} {seed}", k.name(), format.name, FILLS[fill]);
                assert_bits(&matmul(k, &w, &x), &want, &what);
            }
        }
    }

    #[test]
    fn row_ranges_write_their_columns_and_nothing_else(
        rows in 1usize..70, tokens in 1usize..10, cuts in proptest::collection::vec(0usize..70, 0..4), seed: u64,
    ) {
        for (format, act) in pairs() {
            let r = &mut Random::new(seed);
            let cols = 300usize.next_multiple_of(format.block_len);
            let bytes = matrix(format, rows, cols, Fill::Wild, r);
            let w = Matrix::new(format, rows, cols, &bytes).unwrap().with_act(act);
            for k in all_sets_for(format) {
                let x = input(k, act, tokens, cols, r);
                let whole = matmul(k, &w, &x);
                let mut cuts: Vec<_> = cuts.iter().map(|c| c % (rows + 1)).chain([0, rows]).collect();
                cuts.sort_unstable();
                // One range at a time: all else keeps its canary, also before and after y.
                const CANARY: f32 = -1.234_567e33;
                let mut merged = vec![CANARY; whole.len()];
                for range in cuts.windows(2).map(|c| c[0]..c[1]) {
                    let mut guarded = vec![CANARY; whole.len() + 64];
                    let y = &mut guarded[32..32 + whole.len()];
                    k.matmul(&w, &x, range.clone(), OutView::new(y, tokens, rows));
                    for (i, value) in guarded.iter().enumerate() {
                        let inside = (32..32 + whole.len()).contains(&i) && range.contains(&((i - 32) % rows));
                        if inside {
                            merged[i - 32] = *value;
                        } else {
                            prop_assert_eq!(*value, CANARY, "{} {} {:?} wrote outside {:?}", k.name(), format.name, act, range);
                        }
                    }
                }
                assert_bits(&merged, &whole, &format!("{} {} {act:?} split", k.name(), format.name));
            }
        }
    }

    #[test]
    fn tokens_together_equal_tokens_alone(tokens in 2usize..80, rows in 1usize..7, seed: u64) {
        for (format, act) in pairs() {
            let r = &mut Random::new(seed);
            let cols = 256usize.next_multiple_of(format.block_len);
            let bytes = matrix(format, rows, cols, Fill::Packed, r);
            let w = Matrix::new(format, rows, cols, &bytes).unwrap().with_act(act);
            let x = r.floats(tokens * cols, 1.5);
            for k in sets_for(format) {
                let together = matmul(k, &w, &prepared(k, act, &x, tokens));
                for t in 0..tokens {
                    let a = prepared(k, act, &x[t * cols..(t + 1) * cols], 1);
                    let what = format!("{} {} {act:?} token {t} of {tokens}", k.name(), format.name);
                    assert_bits(&matmul(k, &w, &a), &together[t * rows..(t + 1) * rows], &what);
                }
            }
        }
    }

    /// An oracle that owes nothing to `dot`: integer weights by `unpack_row`, an i64 sum.
    #[test]
    fn ternary_sums_are_exact(rows in 1usize..20, blocks in 1usize..60, tokens in 1usize..6, seed: u64) {
        for format in ternary() {
            let r = &mut Random::new(seed);
            let cols = blocks * format.block_len;
            let bytes = (format.pack)(
                &(0..rows * cols).map(|_| [-1.0, 0.0, 1.0][r.below(3)]).collect::<Vec<f32>>(), rows, cols).unwrap();
            let w = Matrix::new(format, rows, cols, &bytes).unwrap();
            let q: Vec<i8> = (0..tokens * cols).map(|_| r.bits() as i8).collect();
            let x = Activations::from_i8(&q, &vec![1.0; tokens], tokens, cols).unwrap();
            let mut weights = vec![0.0; cols];
            let mut want = vec![0.0; rows * tokens];
            for row in 0..rows {
                w.unpack_row(row, &mut weights);
                for t in 0..tokens {
                    let products = weights.iter().zip(&q[t * cols..]).map(|(w, q)| *w as i64 * i64::from(*q));
                    want[t * rows + row] = products.sum::<i64>() as f32;
                }
            }
            assert_bits(&oracle(&w, &x), &want, &format!("naive {}", format.name));
            for k in sets_for(format) {
                assert_bits(&matmul(k, &w, &x), &want, &format!("{} {}", k.name(), format.name));
            }
        }
    }
}

/// The input on which bitnet.cpp's i16 sums wrap: every weight and activation at its limit, long rows.
#[test]
fn ternary_extremes_do_not_wrap() {
    for format in ternary() {
        for cols in [128, 256, 1024, 1152, 4096, 4224, 6912, 16384].map(|n: usize| n.next_multiple_of(format.block_len))
        {
            for (weight, q) in [(1.0f32, 127i8), (1.0, -128), (-1.0, 127), (-1.0, -128), (0.0, -128)] {
                for tokens in [1, 2, 3] {
                    let bytes = (format.pack)(&vec![weight; 5 * cols], 5, cols).unwrap();
                    let w = Matrix::new(format, 5, cols, &bytes).unwrap();
                    let x = Activations::from_i8(&vec![q; tokens * cols], &vec![1.0; tokens], tokens, cols).unwrap();
                    let want = vec![weight * f32::from(q) * cols as f32 + 0.0; 5 * tokens];
                    assert_eq!(oracle(&w, &x), want, "naive {}", format.name);
                    for k in sets_for(format) {
                        let what = format!("{} {} K {cols}: {weight} x {q}, {tokens} tokens", k.name(), format.name);
                        assert_eq!(matmul(k, &w, &x), want, "{what}");
                    }
                }
            }
        }
    }
}

/// A row so long that accumulators have to be emptied on the way: one column of blocks more than AVX-512 adds up at once.
#[test]
fn ternary_rows_of_millions_do_not_wrap() {
    let format = quant::by_name("i2_s").unwrap();
    let cols = 16_384 * 256 + 128;
    let bytes = (format.pack)(&vec![1.0; cols], 1, cols).unwrap();
    let w = Matrix::new(format, 1, cols, &bytes).unwrap();
    for q in [127i8, -128] {
        let x = Activations::from_i8(&vec![q; cols], &[1.0], 1, cols).unwrap();
        for k in fast_sets() {
            assert_eq!(matmul(k, &w, &x), [f32::from(q) * cols as f32], "{} K {cols} x {q}", k.name());
        }
    }
}

/// Block formats at the limits of their codes, +-127 activations, scales of one: sums are integers, so exact.
#[test]
fn block_extremes_do_not_saturate() {
    let one = 0x3c00u16.to_le_bytes();
    for format in quant::FORMATS.iter().filter(|f| f.act == ActKind::Q8) {
        for code in [0u8, 0x7f, 0x80, 0x81, 0xff] {
            for q in [127i8, -127] {
                for tokens in [1, 5] {
                    let (rows, cols) = (3, 512);
                    let mut bytes = vec![code; format.matrix_bytes(rows, cols).unwrap()];
                    for block in bytes.chunks_exact_mut(format.block_bytes) {
                        for &(at, _) in format.halves {
                            block[at..at + 2].copy_from_slice(&one);
                        }
                        if format.name == "mxfp4" {
                            block[0] = 128;
                        }
                    }
                    let w = Matrix::new(format, rows, cols, &bytes).unwrap();
                    let d = vec![1.0; tokens * cols / 32];
                    let x = Activations::from_q8(&vec![q; tokens * cols], &d, tokens, cols).unwrap();
                    let mut weights = vec![0.0; cols];
                    w.unpack_row(0, &mut weights);
                    let exact: i64 = weights.iter().map(|w| *w as i64 * i64::from(q)).sum();
                    for k in fast_sets().into_iter().chain(by_name("scalar")) {
                        let what = format!("{} {} code {code:#x} q {q}", k.name(), format.name);
                        assert_eq!(matmul(k, &w, &x), vec![exact as f32; rows * tokens], "{what}");
                    }
                }
            }
        }
    }
}

/// Nearly the true product: guards against an oracle that is consistently wrong.
#[test]
fn products_are_close_to_f64() {
    let r = &mut Random::new(7);
    for (format, act) in pairs() {
        let (rows, cols) = (4, 512);
        let bytes = matrix(format, rows, cols, Fill::Packed, r);
        let w = Matrix::new(format, rows, cols, &bytes).unwrap().with_act(act);
        let x = r.floats(cols, 1.0);
        let a = prepared(by_name("scalar").unwrap(), act, &x, 1);
        let mut weights = vec![0.0; cols];
        for row in 0..rows {
            w.unpack_row(row, &mut weights);
            let exact: f64 = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let norm = weights.iter().map(|w| f64::from(w * w)).sum::<f64>().sqrt();
            let error = (f64::from(w.dot(row, &a, 0)) - exact).abs() / norm;
            // int8 activations are off by 1/254 at most, 1/440 in the mean; independent errors add as a norm.
            let limit = if act == ActKind::F32 { 1e-5 } else { 5.0 / 440.0 };
            assert!(error < limit, "{} {act:?}: off by {error}", format.name);
        }
    }
}

#[test]
#[should_panic(expected = "outside the band")]
fn rows_of_another_view_are_refused() {
    let bytes = vec![0u8; 4 * 8 * 4];
    let w = Matrix::new(&quant::f32::FORMAT, 4, 8, &bytes).unwrap();
    let mut x = Activations::default();
    x.reset(ActKind::F32, 1, 8);
    let mut y = [0.0; 4];
    let (left, _) = OutView::new(&mut y, 1, 4).split_at(2);
    bitnet_kernels::best().matmul(&w, &x, 1..3, left);
}

#[test]
#[should_panic(expected = "f16 weights have no product with I8 activations")]
fn a_kind_that_a_format_does_not_take_is_refused() {
    let w = Matrix::new(&quant::f16::FORMAT, 1, 8, &[0; 16]).unwrap().with_act(ActKind::I8);
    let mut x = Activations::default();
    x.reset(ActKind::I8, 1, 8);
    bitnet_kernels::best().matmul(&w, &x, 0..1, OutView::new(&mut [0.0], 1, 1));
}

/// Many tokens and long rows: the tiles of a set, over several of their pieces, with every remainder.
#[test]
fn batches_equal_the_naive_loop() {
    for (rows, cols, tokens) in [(5, 4352, 13), (7, 8448, 67), (3, 2304, 18), (2, 256, 131)] {
        for (format, act) in pairs() {
            for fill in [Fill::Packed, Fill::Wild] {
                let r = &mut Random::new(11);
                let bytes = matrix(format, rows, cols, fill, r);
                let w = Matrix::new(format, rows, cols, &bytes).unwrap().with_act(act);
                let x = input(by_name("scalar").unwrap(), act, tokens, cols, r);
                let want = oracle(&w, &x);
                for k in sets_for(format) {
                    let what = format!("{} {} {act:?} {rows}x{cols}x{tokens}", k.name(), format.name);
                    assert_bits(&matmul(k, &w, &x), &want, &what);
                }
            }
        }
    }
}

/// A planted mutant: a set of another crate that wraps one of ours and is wrong in one bit of one output.
struct OneBitOff(&'static dyn Kernels);

impl Kernels for OneBitOff {
    fn name(&self) -> &'static str {
        "one-bit-off"
    }
    bitnet_kernels::forward!(self, self.0; prepare rms_norm rope attention relu2_gate silu_gate add f32_to_f16);
    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: std::ops::Range<usize>, mut y: OutView<'_>) {
        let last = rows.end.checked_sub(1);
        self.0.matmul(w, x, rows, y.reborrow());
        if let Some(row) = last {
            y.set(0, row, y.get(0, row).next_up());
        }
    }
}

#[test]
#[should_panic(expected = "one-bit-off: [4] is")]
fn a_mutant_of_one_bit_is_caught() {
    let format = quant::by_name("i2_s").unwrap();
    let r = &mut Random::new(5);
    let bytes = matrix(format, 5, 256, Fill::Packed, r);
    let w = Matrix::new(format, 5, 256, &bytes).unwrap();
    let k = OneBitOff(bitnet_kernels::best());
    let x = input(&k, format.act, 1, 256, r);
    assert_bits(&matmul(&k, &w, &x), &oracle(&w, &x), &k.name());
}
