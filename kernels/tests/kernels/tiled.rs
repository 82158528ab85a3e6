//! TL1 and TL2: the bytes of bitnet.cpp's converter, the way there and back, and each way to be wrong.

use crate::common::{Random, any_i8, assert_bits, matmul, sets_for, unpack};
use bitnet_kernels::quant::{TILED, Tiled, i2_s, tiled::ROWS};
use bitnet_kernels::{Matrix, QuantError};
use proptest::prelude::*;

fn format(name: &str) -> &'static Tiled {
    TILED.iter().find(|f| f.name == name).unwrap()
}

/// The polynomial of zip and PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Weight `i` is `(i * 2654435761 mod 2^32 >> 16) mod 3 - 1`.
fn numbered(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) % 3).map(|code| code as f32 - 1.0).collect()
}

/// Checksums of what bitnet.cpp's `convert-hf-to-gguf-bitnet.py` makes of [`numbered`] with the tiles of its set-up, run
/// with numpy: the tiles, then the scale of 1 at its place.
#[test]
fn bytes_of_the_original_converter() {
    for (name, rows, cols, bytes, crc) in [
        ("tl1", 1536, 4096, 1_572_864, 0xc83d_c349_u32),
        ("tl1", 1536, 1536, 589_824, 0x7b10_13fb),
        ("tl1", 3200, 3200, 2_560_000, 0xd1cd_83c9),
        ("tl2", 1536, 4096, 1_327_104, 0xb86f_d480),
        ("tl2", 1536, 1536, 507_904, 0x0c5e_f3e0),
        ("tl2", 3200, 3200, 2_167_488, 0x374f_47a1),
    ] {
        let format = format(name);
        assert!((format.preset)(rows, cols), "{name} {rows}x{cols}");
        let weights = numbered(rows * cols);
        let packed = (format.pack)(&weights, rows, cols).unwrap();
        assert_eq!(packed.len(), bytes + 32, "{name} {rows}x{cols}");
        assert_eq!(crc32(&packed[..bytes]), crc, "{name} {rows}x{cols}");
        assert_eq!(packed[bytes..bytes + 4], 1.0f32.to_le_bytes());
        let unpacked = (format.unpack)(&packed, rows, cols).unwrap();
        assert!(unpacked == (ROWS.pack)(&weights, rows, cols).unwrap(), "{name} {rows}x{cols}");
    }
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// There and back is the same, and the product is I2_S's.
    #[test]
    fn any_shape_and_any_scale(
        rows in 1usize..12, cols in 4usize..16, tokens in 1usize..15, scale in 1e-9f32..1e9, seed: u64,
    ) {
        let r = &mut Random::new(seed);
        let (rows, cols) = (rows * 32, cols * 64);
        let weights: Vec<f32> = (0..rows * cols).map(|_| [-scale, 0.0, scale][r.below(3)]).collect();
        let want = (ROWS.pack)(&weights, rows, cols).unwrap();
        let x = any_i8(tokens, cols, 9.0, r);
        for format in TILED {
            let packed = (format.pack)(&weights, rows, cols).unwrap();
            prop_assert_eq!(packed.len(), (format.matrix_bytes)(rows, cols).unwrap());
            let unpacked = (format.unpack)(&packed, rows, cols).unwrap();
            prop_assert!(unpacked == want, "{}", format.name);
            let w = Matrix::new(ROWS, rows, cols, &unpacked).unwrap();
            w.validate().unwrap();
            for k in sets_for(ROWS) {
                let y = matmul(k, &w, &x);
                if cols.is_multiple_of(i2_s::LEN) {
                    let bytes = (i2_s::FORMAT.pack)(&weights, rows, cols).unwrap();
                    let i2_s = Matrix::new(&i2_s::FORMAT, rows, cols, &bytes).unwrap();
                    assert_bits(&y, &matmul(k, &i2_s, &x), &format.name);
                }
                let last = y.len() - 1;
                assert_bits(&[y[0], y[last]], &[w.dot(0, &x, 0), w.dot(rows - 1, &x, tokens - 1)], &format.name);
            }
        }
    }

    /// A changed byte is refused or means another matrix; nothing is accepted that packing would write otherwise.
    #[test]
    fn every_accepted_byte_is_canonical(at: usize, byte: u8, seed: u64) {
        let r = &mut Random::new(seed);
        let (rows, cols) = (64, 320);
        let weights: Vec<f32> = (0..rows * cols).map(|_| [-1.0, 0.0, 1.0][r.below(3)]).collect();
        for format in TILED {
            let good = (format.pack)(&weights, rows, cols).unwrap();
            // Up to the padding of TL2: rows * (288 * 5 / 24 + 32 / 4) bytes.
            let used = if format.name == "tl2" { rows * 68 } else { rows * cols / 4 };
            let mut bytes = good.clone();
            bytes[at % used] = byte;
            if let Ok(unpacked) = (format.unpack)(&bytes, rows, cols) {
                let w = Matrix::new(ROWS, rows, cols, &unpacked).unwrap();
                prop_assert!((format.pack)(&unpack(&w), rows, cols).unwrap() == bytes, "{}", format.name);
            }
        }
    }
}

#[test]
fn damage_is_found() {
    for format in TILED {
        let (rows, cols) = (64, 320);
        let good = (format.pack)(&numbered(rows * cols), rows, cols).unwrap();
        for wrong in [&good[..good.len() - 1], &good[..0], &[&good[..], &[0]].concat()] {
            assert!(matches!((format.unpack)(wrong, rows, cols), Err(QuantError::Size { .. })), "{}", format.name);
        }
        let mut bad = good.clone();
        bad[37] = 0xf0;
        let error = (format.unpack)(&bad, rows, cols).unwrap_err();
        assert!(matches!(error, QuantError::Code { byte: 37, .. }), "{error}");
        let scale = good.iter().rposition(|b| *b != 0).unwrap() - 3;
        for value in [0.0f32, -1.0, f32::NAN, f32::INFINITY] {
            let mut bad = good.clone();
            bad[scale..scale + 4].copy_from_slice(&value.to_le_bytes());
            let error = (format.unpack)(&bad, rows, cols).unwrap_err();
            assert!(matches!(error, QuantError::Scale { .. }), "{error}");
        }
    }
    // A pair of TL2, and a sign of zero.
    let tl2 = format("tl2");
    let good = (tl2.pack)(&vec![0.0; 64 * 320], 64, 320).unwrap();
    for (at, byte) in [(64 * 288 / 6, 1), (64 * 60 + 5, 0x4a)] {
        let mut bad = good.clone();
        bad[at] = byte | if at < 64 * 60 { 0 } else { 0x90 };
        assert!(matches!((tl2.unpack)(&bad, 64, 320), Err(QuantError::Code { .. })), "{at}");
    }
}

#[test]
fn four_rows_to_a_byte() {
    let rows4 = format("i2_s-rows4");
    for i in 0..8 * 64 {
        let mut w = vec![0.5f32; 8 * 64];
        w[i] = -0.5;
        let mut want = [0xaa_u8; 2 * 64 + 32];
        want[i / 256 * 64 + i % 64] &= !(0xc0 >> (2 * (i / 64 % 4)));
        want[128..].fill(0);
        want[128..132].copy_from_slice(&0.5f32.to_le_bytes());
        let packed = (rows4.pack)(&w, 8, 64).unwrap();
        assert_eq!(packed, want, "weight {i}");
        assert_eq!((rows4.unpack)(&packed, 8, 64), (ROWS.pack)(&w, 8, 64));
    }
    let error = (rows4.matrix_bytes)(6, 64).unwrap_err();
    assert_eq!(error, QuantError::Rows { format: "i2_s-rows4", rows: 6, multiple: 4 });
    let error = (rows4.matrix_bytes)(8, 96).unwrap_err();
    assert_eq!(error, QuantError::Columns { format: "i2_s-rows4", cols: 96, block_len: 64 });
    assert!(error.to_string().ends_with("such as q8_0 or f16"), "{error}");
    let error = (rows4.matrix_bytes)(8, 72).unwrap_err();
    assert!(error.to_string().ends_with("such as f16"), "{error}");
}

#[test]
fn shapes_that_have_no_tiles() {
    for format in TILED.iter().filter(|f| f.name.starts_with("tl")) {
        for (rows, cols) in [(48, 256), (32, 96), (32, 192), (32, 288)] {
            let error = (format.matrix_bytes)(rows, cols).unwrap_err();
            assert!(matches!(error, QuantError::Tiles { .. }), "{rows}x{cols}: {error}");
            // What is named instead fits the columns.
            let fits = if cols == 256 { "such as i2_s or tq2_0" } else { "such as f16" };
            assert!(error.to_string().ends_with(fits), "{rows}x{cols}: {error}");
            assert_eq!((format.pack)(&vec![0.0; rows * cols], rows, cols), Err(error));
        }
        assert!(matches!((format.matrix_bytes)(0, 256), Err(QuantError::Empty { .. })));
        assert!(matches!((format.matrix_bytes)(1 << 40, 1 << 40), Err(QuantError::TooLarge { .. })));
        assert!((format.matrix_bytes)(32, 256).is_ok() && !(format.preset)(32, 256));
        let mut w = vec![0.5f32; 32 * 256];
        w[300] = 0.25;
        let error = (format.pack)(&w, 32, 256).unwrap_err();
        assert!(matches!(error, QuantError::NotTernary { row: 1, col: 44, .. }), "{error}");
        assert!(error.to_string().starts_with(format.name), "{error}");
        assert!(matches!((format.pack)(&w[1..], 32, 256), Err(QuantError::Count { .. })));
    }
}
