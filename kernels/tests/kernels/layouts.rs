//! Blocks written by hand from the layout drawings, weight by weight, and what packing must make of known weights. The older
//! formats' are in `formats` and `ternary`.

use bitnet_kernels::quant::{self, by_name, iq4_nl, mxfp4};
use bitnet_kernels::{Format, Matrix, QuantError};

fn unpack(name: &str, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
    let w = Matrix::new(by_name(name).unwrap(), rows, cols, bytes).unwrap();
    w.validate().unwrap();
    crate::common::unpack(&w)
}

fn pack(name: &str, weights: &[f32], rows: usize, cols: usize) -> Vec<u8> {
    (by_name(name).unwrap().pack)(weights, rows, cols).unwrap()
}

fn half(x: f32) -> [u8; 2] {
    half::f16::from_f32(x).to_le_bytes()
}

/// Every weight alone differs: `block(i)` are the bytes, `value(i, j)` is weight j of them.
fn each(name: &str, block: impl Fn(usize) -> Vec<u8>, value: impl Fn(usize, usize) -> f32) {
    let len = by_name(name).unwrap().block_len;
    for i in 0..len {
        let want: Vec<f32> = (0..len).map(|j| value(i, j)).collect();
        assert_eq!(unpack(name, &block(i), 1, len), want, "{name} weight {i}");
    }
}

#[test]
fn q1_0() {
    let block = |i: usize| {
        let mut block = vec![0; 18];
        block[..2].copy_from_slice(&half(0.5));
        block[2 + i / 8] = 1 << (i % 8);
        block
    };
    each("q1_0", block, |i, j| if i == j { 0.5 } else { -0.5 });
    // The mean of the magnitudes, the signs; zero is positive.
    let mut w = [-0.5f32; 128];
    (w[0], w[9], w[127]) = (0.5, 0.0, 1.0);
    let bytes = pack("q1_0", &w, 1, 128);
    assert_eq!((bytes[..4].to_vec(), bytes[17]), ([&half(0.5)[..], &[1, 2]].concat(), 0x80));
}

#[test]
fn q2_0_in_both_forms() {
    for (name, len) in [("q2_0", 64), ("q2_0-g128", 128)] {
        let block = |code: u8| {
            move |i: usize| {
                // All zero, code 1, but weight i.
                let mut block = [&half(-0.25)[..], &vec![0x55; len / 4]].concat();
                block[2 + i / 4] = 0x55 & !(3 << (2 * (i % 4))) | code << (2 * (i % 4));
                block
            }
        };
        for (code, steps) in [(0, -1.0f32), (1, 0.0), (2, 1.0), (3, 2.0)] {
            each(name, block(code), |i, j| if i == j { -0.25 * steps } else { -0.0 });
        }
        // Ternary weights, and those of four values, come back as they were; of the latter the block has one scale.
        for values in [[-0.5f32, 0.0, 0.5, 0.0], [-0.5, 0.0, 0.5, 1.0]] {
            let w: Vec<f32> = (0..2 * len).map(|i| values[i * 7 % 5 % 4]).collect();
            assert_eq!(unpack(name, &pack(name, &w, 1, 2 * len), 1, 2 * len), w, "{name}");
        }
        let bytes = pack(name, &vec![0.0; len], 1, len);
        assert_eq!((&bytes[..2], bytes[2]), (&[0, 0][..], 0x55), "{name}");
    }
    // The forms differ in where scales lie and in nothing else.
    let w: Vec<f32> = (0..128).map(|i| [1.0, -1.0, 0.0][i % 3]).collect();
    let (short, long) = (pack("q2_0", &w, 1, 128), pack("q2_0-g128", &w, 1, 128));
    assert_eq!([&short[..18], &short[20..]].concat(), long);
}

/// Byte i of the low bits: code i low, code 15 - i high; every third has the fifth bit.
#[test]
fn q5_0_and_q5_1() {
    let low: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
    let high = (0..32).filter(|i| i % 3 == 0).fold(0u32, |h, i| h | 1 << i).to_le_bytes();
    let codes =
        (0..16).chain((0..16).rev()).enumerate().map(|(i, code)| (code + if i % 3 == 0 { 16 } else { 0 }) as f32);
    let codes: Vec<f32> = codes.collect();
    let q5_0 = [&half(2.0)[..], &high, &low].concat();
    assert_eq!(unpack("q5_0", &q5_0, 1, 32), codes.iter().map(|c| 2.0 * (c - 16.0)).collect::<Vec<_>>());
    let q5_1 = [&half(2.0)[..], &half(-3.0), &high, &low].concat();
    assert_eq!(unpack("q5_1", &q5_1, 1, 32), codes.iter().map(|c| 2.0 * c - 3.0).collect::<Vec<_>>());
    let mut w = [0.0f32; 32];
    (w[0], w[1], w[2], w[16]) = (-16.0, 15.0, 16.0, 2.4);
    // Codes 0, 31, 31 (cut), 18, all others 16.
    assert_eq!(pack("q5_0", &w, 1, 32)[..9], [0x00, 0x3c, 0xfe, 0xff, 0xff, 0xff, 0x20, 0x0f, 0x0f]);
    (w[0], w[1], w[2], w[16]) = (0.0, 31.0, 15.5, 3.0);
    assert_eq!(pack("q5_1", &w, 1, 32)[..11], [0x00, 0x3c, 0, 0, 0x06, 0, 0, 0, 0x30, 0x0f, 0x00]);
}

/// Each weight alone has the largest code; scales 5 * j + 24, minima 63 - 9 * j: both above and below 16.
#[test]
fn q4_k_and_q5_k() {
    let (scale, minimum) = (|j: usize| 5 * j as u8 + 24, |j: usize| 63 - 9 * j as u8);
    for (name, bytes, largest) in [("q4_k", 144, 15.0), ("q5_k", 176, 31.0)] {
        let block = |i: usize| {
            let mut block = vec![0u8; bytes];
            block[..2].copy_from_slice(&half(0.5));
            block[2..4].copy_from_slice(&half(2.0));
            for j in 0..4 {
                block[4 + j] = scale(j) | scale(j + 4) >> 4 << 6;
                block[8 + j] = minimum(j) | minimum(j + 4) >> 4 << 6;
                block[12 + j] = scale(j + 4) & 15 | (minimum(j + 4) & 15) << 4;
            }
            if name == "q5_k" {
                block[16 + i % 32] = 1 << (i / 32);
            }
            block[bytes - 128 + i / 64 * 32 + i % 32] = if i % 64 < 32 { 0x0f } else { 0xf0 };
            block
        };
        each(name, block, |i, j| {
            0.5 * f32::from(scale(j / 32)) * if i == j { largest } else { 0.0 } - 2.0 * f32::from(minimum(j / 32))
        });
    }
}

/// Each weight alone has code 3; scale j is j, minimum 15 - j.
#[test]
fn q2_k() {
    let block = |i: usize| {
        let mut block: Vec<u8> = (0..16).map(|j| j | (15 - j) << 4).collect();
        block.resize(80, 0);
        block[16 + i / 128 * 32 + i % 32] = 3 << (2 * (i % 128 / 32));
        block.extend([half(0.5), half(2.0)].concat());
        block
    };
    each("q2_k", block, |i, j| {
        let part = (j / 16) as f32;
        0.5 * part * if i == j { 3.0 } else { 0.0 } - 2.0 * (15.0 - part)
    });
}

/// Each weight alone has code 7 or 3 (with and without the third bit), all others 0; scale j is 4 j, less 32.
#[test]
fn q3_k() {
    for (third, code) in [(1u8, 7.0), (0, 3.0)] {
        let block = |i: usize| {
            let mut block = vec![0u8; 110];
            block[i % 32] = third << (i / 32);
            block[32 + i / 128 * 32 + i % 32] = 3 << (2 * (i % 128 / 32));
            for j in 0..16 {
                let scale = 4 * j as u8;
                block[96 + j % 8] |= (scale & 15) << (j / 8 * 4);
                block[104 + j % 4] |= scale >> 4 << (j / 4 * 2);
            }
            block[108..].copy_from_slice(&half(-0.25));
            block
        };
        each("q3_k", block, |i, j| -0.25 * (4.0 * (j / 16) as f32 - 32.0) * (if i == j { code } else { 0.0 } - 4.0));
    }
}

/// Tables of sixteen values: byte i has code i low and 15 - i high.
#[test]
fn iq4_nl_and_mxfp4() {
    let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
    let table = |values: [i8; 16], scale: f32| -> Vec<f32> {
        values.iter().chain(values.iter().rev()).map(|v| scale * f32::from(*v)).collect()
    };
    assert_eq!(unpack("iq4_nl", &[&half(-0.5)[..], &codes].concat(), 1, 32), table(iq4_nl::VALUES, -0.5));
    assert_eq!(iq4_nl::VALUES.map(i32::from).iter().sum::<i32>(), -94);
    // 2^(e - 128): also where it is not a normal number.
    for (e, scale) in [(128u8, 1.0f32), (129, 2.0), (100, 2f32.powi(-28)), (2, 2f32.powi(-126)), (252, 2f32.powi(124))]
    {
        assert_eq!(unpack("mxfp4", &[&[e][..], &codes].concat(), 1, 32), table(mxfp4::VALUES, scale), "e {e}");
    }
    for (e, bits) in [(0u8, 0x0020_0000u32), (1, 0x0040_0000)] {
        let want = table(mxfp4::VALUES, f32::from_bits(bits));
        assert_eq!(unpack("mxfp4", &[&[e][..], &codes].concat(), 1, 32), want, "e {e}");
    }
    for e in [253u8, 254, 255] {
        let mut bytes = pack("mxfp4", &[1.0; 64], 1, 64);
        bytes[17] = e;
        let error = (mxfp4::FORMAT.validate)(&bytes, 1, 64).unwrap_err();
        assert!(matches!(error, QuantError::Scale { row: 0, block: 1, what: "exponent", .. }), "{error}");
    }
    // What either can hold comes back exactly; of MXFP4 at every power, the smallest ones of f32 included.
    let w = table(iq4_nl::VALUES, 0.5);
    assert_eq!(unpack("iq4_nl", &pack("iq4_nl", &w, 1, 32), 1, 32), w);
    for power in (-120..=124).step_by(4) {
        let w = table(mxfp4::VALUES, 2f32.powi(power));
        assert_eq!(unpack("mxfp4", &pack("mxfp4", &w, 1, 32), 1, 32), w, "2^{power}");
    }
}

/// Two rows with scales of their own; each weight alone is a minus among pluses.
#[test]
fn ternary_rows_with_scales() {
    let (rows, cols) = (2, 128);
    for i in 0..rows * cols {
        let (row, col) = (i / cols, i % cols);
        let mut w = [vec![0.1f32; cols], vec![3.0; cols]].concat();
        w[i] = -w[i];
        let mut want = vec![];
        for r in 0..rows {
            want.extend(if r == 0 { 0.1f32 } else { 3.0 }.to_le_bytes());
            let mut codes = [0xaa_u8; 32];
            if r == row {
                codes[col / 64 * 16 + col % 16] &= !(3 << (2 * (col % 64 / 16)));
            }
            want.extend(codes);
        }
        assert_eq!(pack("iq2_bn", &w, rows, cols), want, "iq2_bn weight {i}");
        assert_eq!(unpack("iq2_bn", &want, rows, cols), w, "iq2_bn weight {i}");

        // A scale that an f16 has. All five trits are 2 in every byte, four in each thirteenth.
        let w: Vec<f32> = w.iter().map(|w| w.signum() * if w.abs() == 3.0 { 3.0 } else { 0.125 }).collect();
        let mut want = vec![];
        for r in 0..rows {
            want.extend(half(if r == 0 { 0.125 } else { 3.0 }));
            let mut numbers = [[242u32; 13]; 2];
            numbers.iter_mut().for_each(|block| block[12] = 80);
            if r == row {
                let (group, j) = (col % 64 / 16, col % 16);
                let (byte, trit) = if j == 15 { (12, group) } else { (3 * group + j / 5, j % 5) };
                numbers[col / 64][byte] -= 2 * 3u32.pow(trit as u32);
            }
            want.extend(numbers.as_flattened().iter().map(|v| (v * 256).div_ceil(243) as u8));
        }
        assert_eq!(pack("iq1_bn", &w, rows, cols), want, "iq1_bn weight {i}");
        assert_eq!(unpack("iq1_bn", &want, rows, cols), w, "iq1_bn weight {i}");
    }
}

#[test]
fn scales_of_ternary_rows_are_checked() {
    let formats: [(&Format, usize); 2] = [(&quant::iq1_bn::FORMAT, 2), (&quant::iq2_bn::FORMAT, 4)];
    for (format, head) in formats {
        let (name, bytes) = (format.name, format.row_bytes(128));
        let good = pack(name, &[0.5; 3 * 128], 3, 128);
        for scale in [-0.5f32, -0.0, f32::INFINITY, f32::NAN] {
            let mut bad = good.clone();
            match head {
                2 => bad[bytes..bytes + 2].copy_from_slice(&half(scale)),
                _ => bad[bytes..bytes + 4].copy_from_slice(&scale.to_le_bytes()),
            }
            let error = (format.validate)(&bad, 3, 128).unwrap_err();
            assert!(matches!(error, QuantError::Scale { row: 1, .. }), "{name} {scale}: {error}");
        }
    }
    // f16 scales are not rounded.
    let error = (quant::iq1_bn::FORMAT.pack)(&[0.1; 64], 1, 64).unwrap_err();
    assert!(matches!(error, QuantError::InexactScale { row: 0, value: 0.1, .. }), "{error}");
}
