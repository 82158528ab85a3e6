//! Packing, unpacking and validation of every format: bytes by hand, round trips, and each way to be wrong.

use crate::common::{self, FILLS, Fill, Random, is_i2s, matrix, weights};
use bitnet_kernels::{Format, Matrix, QuantError, quant};
use proptest::prelude::*;

fn unpack(format: &'static Format, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
    common::unpack(&Matrix::new(format, rows, cols, bytes).unwrap())
}

/// The largest error of one weight, as a fraction of its block's largest magnitude (or range), and 0 where exact.
fn tolerance(format: &Format) -> f32 {
    match format.name {
        "f32" => 0.0,
        _ if format.is_ternary() => 0.0,
        "f16" => 1.0 / 2048.0,
        "bf16" => 1.0 / 256.0,
        "q8_0" => 0.6 / 127.0,
        // The positive end is cut at +7 of 8.
        "q4_0" => 1.05 / 8.0,
        "q4_1" => 2.1 * 0.5 / 15.0,
        // The search may cut an end by a step; the steps are in 63rds of the largest.
        "q4_k" => 2.5 / 15.0,
        "q6_k" => 1.6 / 32.0,
        // The positive end is cut at +15 of 16.
        "q5_0" => 1.05 / 16.0,
        "q5_1" => 2.1 * 0.5 / 31.0,
        "q5_k" => 2.5 / 31.0,
        "q3_k" => 1.3 / 4.0,
        // Both ends may be cut by a step of a third of the range.
        "q2_k" => 2.0 / 3.0,
        // Half of the widest gap, or the end at 113 of 127.
        "iq4_nl" => 15.0 / 113.0,
        // Half of the gap from 8 to 12, or 16 cut to 12.
        "mxfp4" => 4.0 / 16.0,
        "q2_0" | "q2_0-g128" => 0.51,
        // A sign and a mean: zero is off by the mean, the largest by what it exceeds the mean.
        "q1_0" => 1.0,
        other => panic!("give {other} a tolerance"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn round_trips(rows in 1usize..6, length in 1usize..700, seed: u64) {
        for format in quant::FORMATS {
            let cols = length.next_multiple_of(format.block_len);
            let r = &mut Random::new(seed);
            let w = weights(format, rows * cols, r);
            let bytes = (format.pack)(&w, rows, cols).unwrap();
            prop_assert_eq!(bytes.len(), format.matrix_bytes(rows, cols).unwrap());
            prop_assert_eq!((format.validate)(&bytes, rows, cols), Ok(()));
            let back = unpack(format, &bytes, rows, cols);
            let block = format.block_len.max(1);
            for (i, (w, b)) in w.chunks(block).zip(back.chunks(block)).enumerate() {
                let amax = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                for (w, b) in w.iter().zip(b) {
                    prop_assert!((w - b).abs() <= tolerance(format) * amax, "{} block {i}: {w} -> {b}", format.name);
                }
            }
            // What was exact once stays so.
            if format.block_len == 1 || format.is_ternary() {
                prop_assert_eq!((format.pack)(&back, rows, cols), Ok(bytes), "{}", format.name);
            }
        }
    }

    #[test]
    fn sizes_are_exact_to_the_byte(rows in 1usize..6, blocks in 1usize..4, seed: u64) {
        for format in quant::FORMATS {
            let cols = blocks * format.block_len;
            let bytes = matrix(format, rows, cols, FILLS[(seed % 4) as usize], &mut Random::new(seed));
            let mut longer = bytes.clone();
            longer.push(0);
            for wrong in [&bytes[..bytes.len() - 1], &longer, &[]] {
                let size = QuantError::Size {
                    format: format.name, rows, cols, expected: bytes.len(), got: wrong.len() };
                prop_assert_eq!((format.validate)(wrong, rows, cols), Err(size.clone()));
                prop_assert_eq!(Matrix::new(format, rows, cols, wrong).err(), Some(size));
            }
            let count = (format.pack)(&vec![0.0; rows * cols + 1], rows, cols);
            prop_assert!(matches!(count, Err(QuantError::Count { .. })), "{}", format.name);
            if format.block_len > 1 {
                let columns = Matrix::new(format, rows, cols + 1, &bytes).err();
                prop_assert!(matches!(columns, Some(QuantError::Columns { .. })), "{}", format.name);
            }
        }
    }

    #[test]
    fn code_3_is_found(rows in 1usize..9, blocks in 1usize..5, at: usize, shift in 0usize..4, seed: u64) {
        for format in quant::FORMATS.iter().filter(|f| is_i2s(f)) {
            let cols = blocks * format.block_len;
            let mut bytes = matrix(format, rows, cols, Fill::Wild, &mut Random::new(seed));
            let byte = at % (rows * cols / 4);
            bytes[byte] |= 3 << (2 * shift);
            let error = QuantError::Code { format: format.name, row: byte / (cols / 4), byte };
            prop_assert_eq!((format.validate)(&bytes, rows, cols), Err(error));
        }
    }
}

/// Every byte of the two ternary layouts, by the drawing.
#[test]
fn ternary_layouts_by_hand() {
    let place = |name: &str, i: usize| match name {
        "i2_s" => (i / 128 * 32 + i % 32, 6 - 2 * (i % 128 / 32)),
        _ => (i / 64 * 16 + i % 16, 6 - 2 * (i % 64 / 16)),
    };
    for format in quant::FORMATS.iter().filter(|f| is_i2s(f)) {
        let (rows, cols) = (2, 256);
        for i in 0..rows * cols {
            let mut w = vec![0.0; rows * cols];
            w[i] = -2.5;
            let bytes = (format.pack)(&w, rows, cols).unwrap();
            // All codes are 1 (zero) but that of weight i, which is 0 (minus).
            let mut want = [0x55u8; 128];
            let (byte, shift) = place(format.name, i);
            want[byte] &= !(3 << shift);
            assert_eq!(bytes[..128], want, "{} weight {i}", format.name);
            assert_eq!(bytes[128..132], 2.5f32.to_le_bytes());
            assert_eq!(bytes[132..], [0; 28]);
            assert_eq!(unpack(format, &bytes, rows, cols), w);
        }
    }
}

#[test]
fn ternary_packing_refuses_what_is_not_ternary() {
    for format in common::ternary() {
        let cols = format.block_len;
        let mut w = vec![0.0f32; 3 * cols];
        (w[5], w[2 * cols + 7]) = (0.5, -0.5);
        assert!((format.pack)(&w, 3, cols).is_ok());
        w[2 * cols + 44] = 0.25;
        let error = (format.pack)(&w, 3, cols).unwrap_err();
        let unit = match (format.trailer_bytes, format.row_head) {
            (0, 0) => "each block of 256",
            (0, _) => "each row",
            _ => "the whole matrix",
        };
        let want = QuantError::NotTernary { format: format.name, unit, row: 2, col: 44, value: 0.25, scale: 0.5 };
        assert_eq!(error, want);
        assert!(error.to_string().contains("row 2, column 44"));
        w[2 * cols + 44] = f32::NAN;
        assert!(matches!((format.pack)(&w, 3, cols), Err(QuantError::NotFinite { row: 2, col: 44, .. })));
        // All zero is ternary; its scale must be one that validates.
        let zeros = (format.pack)(&vec![0.0; cols], 1, cols).unwrap();
        assert_eq!((format.validate)(&zeros, 1, cols), Ok(()));
    }
}

#[test]
fn i2_s_scales_must_be_positive_and_finite() {
    for format in quant::FORMATS.iter().filter(|f| is_i2s(f)) {
        let good = (format.pack)(&[1.0; 128], 1, 128).unwrap();
        for scale in [0.0f32, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bad = good.clone();
            bad[32..36].copy_from_slice(&scale.to_le_bytes());
            assert!(matches!((format.validate)(&bad, 1, 128), Err(QuantError::Scale { .. })), "{scale}");
        }
    }
}

#[test]
fn other_scales_must_be_finite() {
    for (format, at) in quant::FORMATS.iter().flat_map(|f| f.halves.iter().map(move |(at, _)| (f, at))) {
        let name = format.name;
        let cols = 2 * format.block_len;
        let good = (format.pack)(&vec![0.5; 3 * cols], 3, cols).unwrap();
        for bits in [0x7c00u16, 0xfc00, 0x7e01] {
            let mut bad = good.clone();
            let from = 5 * format.block_bytes + at;
            bad[from..from + 2].copy_from_slice(&bits.to_le_bytes());
            let error = (format.validate)(&bad, 3, cols).unwrap_err();
            assert!(matches!(error, QuantError::Scale { row: 2, block: 1, .. }), "{name}: {error}");
        }
    }
    for (name, bad) in [("f32", &[0u8, 0, 0x80, 0x7f][..]), ("f16", &[0, 0x7c]), ("bf16", &[0x80, 0xff])] {
        let format = quant::by_name(name).unwrap();
        let mut bytes = (format.pack)(&[1.0; 6], 2, 3).unwrap();
        let from = 4 * format.block_bytes;
        bytes[from..from + format.block_bytes].copy_from_slice(bad);
        let error = (format.validate)(&bytes, 2, 3).unwrap_err();
        assert!(matches!(error, QuantError::NotFinite { row: 1, col: 1, .. }), "{name}: {error}");
    }
}

#[test]
fn packing_refuses_what_does_not_fit() {
    for format in quant::FORMATS {
        let cols = 2 * format.block_len;
        for bad in [f32::NAN, f32::INFINITY] {
            let mut w = vec![0.0; 2 * cols];
            w[cols + 1] = bad;
            let error = (format.pack)(&w, 2, cols).unwrap_err();
            assert!(matches!(error, QuantError::NotFinite { row: 1, col: 1, .. }), "{}: {error}", format.name);
        }
        let mut w = vec![0.0; 2 * cols];
        w[cols] = f32::MAX;
        let overflows = matches!((format.pack)(&w, 2, cols), Err(QuantError::Overflow { row: 1, col: 0, .. }));
        let holds = is_i2s(format) || ["f32", "mxfp4", "iq2_bn"].contains(&format.name);
        assert_eq!(overflows, !holds, "{}", format.name);
    }
}

/// Blocks written by hand from the layout drawings.
#[test]
fn blocks_by_hand() {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let ramp = |n: usize| (0..n).map(|i| i as u8);

    let q8: Vec<u8> = half(0.5).into_iter().chain(ramp(32).map(|i| (i as i8 - 16) as u8)).collect();
    let want: Vec<f32> = (0..32).map(|i| 0.5 * (i as f32 - 16.0)).collect();
    assert_eq!(unpack(&quant::q8_0::FORMAT, &q8, 1, 32), want);

    // Byte i: code i low, code 15 - i high.
    let nibbles: Vec<u8> = ramp(16).map(|i| i | (15 - i) << 4).collect();
    let codes: Vec<f32> = (0..16).chain((0..16).rev()).map(|i| i as f32).collect();
    let q4_0 = [&half(2.0)[..], &nibbles].concat();
    let want: Vec<f32> = codes.iter().map(|c| 2.0 * (c - 8.0)).collect();
    assert_eq!(unpack(&quant::q4_0::FORMAT, &q4_0, 1, 32), want);
    let q4_1 = [&half(2.0)[..], &half(-3.0), &nibbles].concat();
    let want: Vec<f32> = codes.iter().map(|c| 2.0 * c - 3.0).collect();
    assert_eq!(unpack(&quant::q4_1::FORMAT, &q4_1, 1, 32), want);

    // Q6_K: each weight alone has code 63, all others 0 (that is -32); sub-scales 1..=16, d 0.25.
    for i in 0..256 {
        let (part, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let mut block = vec![0u8; 210];
        block[part * 64 + [l, l + 32, l, l + 32][quarter]] = [0x0f, 0x0f, 0xf0, 0xf0][quarter];
        block[128 + part * 32 + l] = 3 << (2 * quarter);
        (0..16).for_each(|s| block[192 + s] = s as u8 + 1);
        block[208..].copy_from_slice(&half(0.25));
        let want: Vec<f32> = (0..256).map(|j| 0.25 * (j / 16 + 1) as f32 * if i == j { 31.0 } else { -32.0 }).collect();
        assert_eq!(unpack(&quant::q6_k::FORMAT, &block, 1, 256), want, "weight {i}");
    }
}

/// The quantisers' definitions on numbers that can be checked by hand.
#[test]
fn packing_by_hand() {
    let mut w = [0.0f32; 32];
    (w[0], w[1], w[2], w[16]) = (-127.0, 2.5, -2.5, 1.4);
    let q8 = (quant::q8_0::FORMAT.pack)(&w, 1, 32).unwrap();
    assert_eq!(q8[..5], [0x00, 0x3c, 0x81, 3, 0xfd], "halves round away from zero");
    (w[0], w[1], w[2], w[16]) = (-8.0, 7.0, 8.0, 2.4);
    let q4_0 = (quant::q4_0::FORMAT.pack)(&w, 1, 32).unwrap();
    assert_eq!(q4_0[..5], [0x00, 0x3c, 0xa0, 0x8f, 0x8f]);
    (w[0], w[1], w[2], w[16]) = (0.0, 15.0, 7.5, 3.0);
    let q4_1 = (quant::q4_1::FORMAT.pack)(&w, 1, 32).unwrap();
    assert_eq!(q4_1[..7], [0x00, 0x3c, 0x00, 0x00, 0x30, 0x0f, 0x08]);
    for (x, bits) in [(1.0f32 + 1.0 / 2048.0, 0x3c00u16), (1.0 + 3.0 / 2048.0, 0x3c02), (-65504.0, 0xfbff)] {
        assert_eq!((quant::f16::FORMAT.pack)(&[x], 1, 1).unwrap(), bits.to_le_bytes(), "f16 of {x}");
    }
    for (x, bits) in [(1.0f32 + 1.0 / 256.0, 0x3f80u16), (1.0 + 3.0 / 256.0, 0x3f82)] {
        assert_eq!((quant::bf16::FORMAT.pack)(&[x], 1, 1).unwrap(), bits.to_le_bytes(), "bf16 of {x}");
    }
}

/// Errors lie where bits say: Q6_K between Q8_0 and a quarter of Q4_0; Q4_K is better than Q4_0, which is as large, and worse than
/// Q6_K.
#[test]
fn errors_of_k_formats_are_small() {
    let r = &mut Random::new(3);
    let w: Vec<f32> = (0..8192).map(|_| r.unit() + r.unit() + r.unit()).collect();
    let error = |name: &str| {
        let format = quant::by_name(name).unwrap();
        let back = unpack(format, &(format.pack)(&w, 8, 1024).unwrap(), 8, 1024);
        (w.iter().zip(&back).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / w.len() as f32).sqrt()
    };
    let [q8, q6, k4, q4] = ["q8_0", "q6_k", "q4_k", "q4_0"].map(error);
    assert!(q8 < q6 && q6 < q4 / 4.0 && q6 < k4 && k4 < q4, "q8_0 {q8}, q6_k {q6}, q4_k {k4}, q4_0 {q4}");
}
