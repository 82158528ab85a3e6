//! TQ1_0 and TQ2_0 by hand, and what holds between all ternary formats: the same weights give the same bits.

use crate::common::{
    Fill, Random, all_sets_for, any_i8, assert_bits, fast_sets, matmul, matrix, prepared, ternary, unpack,
};
use bitnet_kernels::quant::{self, FORMATS, by_name};
use bitnet_kernels::{Activations, Format, Matrix, QuantError, by_name as set};
use half::f16;
use proptest::prelude::*;

const TQ: [&str; 2] = ["tq2_0", "tq1_0"];

fn tq(name: &str) -> (&'static Format, usize) {
    let format = by_name(name).unwrap();
    (format, format.block_bytes - 2)
}

/// A block of plus with one minus: every weight's bits by the drawings.
#[test]
fn blocks_by_hand() {
    for i in 0..256 {
        let mut w = vec![0.5f32; 256];
        w[i] = -0.5;
        let two = (quant::tq2_0::FORMAT.pack)(&w, 1, 256).unwrap();
        let mut want = [0xaa_u8; 66];
        want[i / 128 * 32 + i % 32] &= !(3 << (2 * (i % 128 / 32)));
        want[64..].copy_from_slice(&0x3800_u16.to_le_bytes());
        assert_eq!(two, want, "tq2_0 weight {i}");

        let one = (quant::tq1_0::FORMAT.pack)(&w, 1, 256).unwrap();
        let (byte, n, trits) = match i {
            0..160 => (i % 32, i / 32, 5),
            160..240 => (32 + (i - 160) % 16, (i - 160) / 16, 5),
            _ => (48 + (i - 240) % 4, (i - 240) / 4, 4),
        };
        // 2 in every trit; trit n of one byte is 0. Four trits are followed by a zero.
        let number = |of: usize, hole: Option<usize>| -> u32 {
            let digits = (0..5).map(|t| if t >= of || Some(t) == hole { 0 } else { 2 });
            digits.fold(0, |v, digit| v * 3 + digit)
        };
        let fraction = |v: u32| (v * 256).div_ceil(243) as u8;
        let mut want = [fraction(number(5, None)); 54];
        want[48..52].fill(fraction(number(4, None)));
        want[byte] = fraction(number(trits, Some(n)));
        want[52..].copy_from_slice(&0x3800_u16.to_le_bytes());
        assert_eq!(one, want, "tq1_0 weight {i}");

        for (format, bytes) in [(&quant::tq2_0::FORMAT, two), (&quant::tq1_0::FORMAT, one)] {
            assert_eq!(unpack(&Matrix::new(format, 1, 256, &bytes).unwrap()), w, "{} weight {i}", format.name);
        }
    }
}

#[test]
fn scales_are_finite_and_not_negative() {
    for name in TQ {
        let (format, d) = tq(name);
        let good = (format.pack)(&vec![0.5; 3 * 512], 3, 512).unwrap();
        for bits in [0x7c00_u16, 0x7e00, 0xfc00, 0xb800, 0x8000] {
            let mut bad = good.clone();
            let at = 5 * format.block_bytes + d;
            bad[at..at + 2].copy_from_slice(&bits.to_le_bytes());
            let error = (format.validate)(&bad, 3, 512).unwrap_err();
            assert!(matches!(error, QuantError::Scale { row: 2, block: 1, .. }), "{name} {bits:#x}: {error}");
        }
    }
}

/// Every byte that packing cannot have written is refused, every other is taken.
#[test]
fn impossible_bytes_are_found() {
    for name in ["tq2_0", "tq1_0", "iq2_bn", "iq1_bn"] {
        let format = by_name(name).unwrap();
        let (row_bytes, head) = (format.row_bytes(256), format.row_head);
        let good = (format.pack)(&vec![0.5; 2 * 256], 2, 256).unwrap();
        // The scale stands in front of the row, or behind the block.
        for at in if head > 0 { head..row_bytes } else { 0..row_bytes - 2 } {
            let mut refused = 0;
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[row_bytes + at] = byte;
                match (format.validate)(&bytes, 2, 256) {
                    Ok(()) => {
                        let w = unpack(&Matrix::new(format, 2, 256, &bytes).unwrap());
                        assert_eq!((format.pack)(&w, 2, 256).as_ref(), Ok(&bytes), "{name} {at} {byte}");
                    }
                    Err(error) => {
                        assert_eq!(error, QuantError::Code { format: name, row: 1, byte: row_bytes + at });
                        refused += 1;
                    }
                }
            }
            let four_trits = match name {
                "tq1_0" => at >= 48,
                "iq1_bn" => (at - head) % 13 == 12,
                _ => true,
            };
            assert_eq!(256 - refused, if four_trits { 81 } else { 243 }, "{name} byte {at}");
        }
    }
}

#[test]
fn a_scale_that_is_no_f16_is_refused_and_not_rounded() {
    for name in TQ {
        let (format, _) = tq(name);
        let mut w = vec![0.0f32; 2 * 512];
        w[512 + 300] = 0.1;
        let error = (format.pack)(&w, 2, 512).unwrap_err();
        let rounded = f16::from_f32(0.1).to_f32();
        assert_eq!(error, QuantError::InexactScale { format: format.name, row: 1, col: 256, value: 0.1, rounded });
        assert!(error.to_string().contains(".scale"), "{error}");
        // Too small for f16 is not zero either.
        w[512 + 300] = 1e-9;
        assert!(matches!((format.pack)(&w, 2, 512), Err(QuantError::InexactScale { rounded: 0.0, .. })));
    }
}

/// A block of scale 0 has weights, whatever its codes say: none.
#[test]
fn blocks_of_scale_zero_count_nothing() {
    for name in TQ {
        let (format, d) = tq(name);
        for zeroed in [&[0usize][..], &[1], &[2], &[0, 2], &[0, 1, 2]] {
            let mut bytes = (format.pack)(&vec![-0.5; 3 * 256], 1, 768).unwrap();
            for block in zeroed {
                let at = block * format.block_bytes + d;
                bytes[at..at + 2].fill(0);
            }
            let w = Matrix::new(format, 1, 768, &bytes).unwrap();
            w.validate().unwrap();
            let x = Activations::from_i8(&[1; 768], &[4.0], 1, 768).unwrap();
            let want = [-0.5 * 256.0 * (3 - zeroed.len()) as f32 / 4.0 + 0.0];
            assert_bits(&[w.dot(0, &x, 0)], &want, &name);
            for k in fast_sets() {
                assert_bits(&matmul(k, &w, &x), &want, &name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Any format to any other and back is the same bytes, and all have one product, on every kernel set. The scale is any
    /// that an f32 can be; where it is not an f16 it stands beside the matrix.
    #[test]
    fn one_matrix_in_every_format(
        rows in 1usize..12, blocks in 1usize..8, tokens in 1usize..20, scale in 1e-6f32..1e3, half: bool, seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let cols = blocks * 256;
        let scale = if half { f16::from_f32(scale).to_f32() } else { scale };
        let signs: Vec<f32> = (0..rows * cols).map(|_| [-1.0, 0.0, 1.0][r.below(3)]).collect();
        let weights: Vec<f32> = signs.iter().map(|w| w * scale).collect();
        let packed: Vec<_> = ternary()
            .map(|f| match (f.pack)(&weights, rows, cols) {
                Ok(bytes) => (f, bytes, 1.0),
                Err(QuantError::InexactScale { .. }) => (f, (f.pack)(&signs, rows, cols).unwrap(), scale),
                Err(error) => panic!("{error}"),
            })
            .collect();
        let view = |(f, bytes, multiplier): &(&'static Format, Vec<u8>, f32)| -> Vec<f32> {
            unpack(&Matrix::new(f, rows, cols, bytes).unwrap().times(*multiplier))
        };
        let x = any_i8(tokens, cols, 1e3, r);
        let mut sets = fast_sets();
        sets.push(set("scalar").unwrap());
        let mut first: Option<Vec<f32>> = None;
        for from in &packed {
            let values = view(from);
            assert_bits(&values, &weights, &from.0.name);
            for to in &packed {
                let signs: Vec<f32> = values.iter().map(|w| w / to.2).collect();
                let bytes = (to.0.pack)(&signs, rows, cols).unwrap();
                prop_assert!(bytes == to.1, "{} {}", from.0.name, to.0.name);
            }
            let w = Matrix::new(from.0, rows, cols, &from.1).unwrap().times(from.2);
            for k in &sets {
                let y = matmul(*k, &w, &x);
                let want = first.get_or_insert_with(|| y.clone());
                assert_bits(&y, want, &format!("{} {}", k.name(), from.0.name));
            }
        }
    }

    /// TQ1_0 and TQ2_0 hold the same matrices, blocks of different scales included.
    #[test]
    fn the_two_tq_formats_are_one(rows in 1usize..6, blocks in 1usize..6, tokens in 1usize..15, seed: u64) {
        for (from, to) in [(TQ[0], TQ[1]), (TQ[1], TQ[0])] {
            let r = &mut Random::new(seed);
            let (from, to) = (by_name(from).unwrap(), by_name(to).unwrap());
            let cols = blocks * 256;
            let bytes = matrix(from, rows, cols, Fill::Wild, r);
            let w = Matrix::new(from, rows, cols, &bytes).unwrap();
            let other = (to.pack)(&unpack(&w), rows, cols).unwrap();
            let w2 = Matrix::new(to, rows, cols, &other).unwrap();
            let x = any_i8(tokens, cols, 9.0, r);
            for k in all_sets_for(to) {
                assert_bits(&matmul(k, &w2, &x), &matmul(k, &w, &x), &k.name());
            }
        }
    }

    /// A factor beside a matrix of any format is the last multiplication.
    #[test]
    fn multipliers_come_last(rows in 1usize..9, tokens in 1usize..15, factor in -9.0f32..9.0, seed: u64) {
        for format in FORMATS {
            let r = &mut Random::new(seed);
            let cols = 2 * format.block_len.max(64);
            let bytes = matrix(format, rows, cols, Fill::Packed, r);
            let w = Matrix::new(format, rows, cols, &bytes).unwrap();
            let x = prepared(set("scalar").unwrap(), format.act, &r.floats(tokens * cols, 2.0), tokens);
            for k in all_sets_for(format) {
                let want: Vec<f32> = matmul(k, &w, &x).iter().map(|y| y * factor).collect();
                assert_bits(&matmul(k, &w.times(factor), &x), &want, &format!("{} {}", k.name(), format.name));
            }
        }
    }
}
