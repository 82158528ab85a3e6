//! Small things that only a conversion or an error message shows.

use crate::common::{Random, matmul, pairs, weights};
use bitnet_kernels::quant::{I2sLayout, Storage};
use bitnet_kernels::screen::Screen;
use bitnet_kernels::{ActKind, Activations, Matrix, Pool, QuantError, kernel_sets, quant};

#[test]
fn layouts_have_names() {
    for (layout, name) in [(I2sLayout::X86, "x86"), (I2sLayout::Arm, "arm"), (I2sLayout::Rows4, "rows4")] {
        assert_eq!((layout.name(), I2sLayout::from_name(name)), (name, Some(layout)));
    }
    assert_eq!(I2sLayout::from_name("X86"), None);
}

#[test]
fn a_storage_is_its_format() {
    for storage in Storage::all() {
        let name = storage.name();
        assert_eq!(Storage::by_name(name), Ok(storage));
        assert_eq!(Storage::all().filter(|other| *other == storage).count(), 1, "{name}");
        if let Storage::Rows(format) = storage {
            let (rows, cols) = (3, format.block_len * 2);
            assert_eq!((storage.ggml_type(), storage.file_type()), (format.ggml_type, format.file_type));
            assert_eq!(storage.rows_are_independent(), format.trailer_bytes == 0, "{name}");
            assert_eq!(
                storage.pack(&vec![0.0; rows * cols], rows, cols),
                (format.pack)(&vec![0.0; rows * cols], rows, cols)
            );
            assert_eq!(storage.matrix_bytes(rows, cols), format.matrix_bytes(rows, cols));
        } else {
            assert!(
                storage.is_ternary() && !storage.rows_are_independent() && storage.computed_as().name == "i2_s-arm"
            );
            let too_large = |rows, cols| matches!(storage.matrix_bytes(rows, cols), Err(QuantError::TooLarge { .. }));
            // Products of sizes are limited where tiles are made of them.
            if name.starts_with("tl") {
                assert!(!too_large(1 << 24, 1 << 24) && too_large(1 << 24, (1 << 24) + 64), "{name}");
            }
        }
    }
    assert!(Storage::by_name("q9").is_err_and(|error| error.to_string().contains("tl2")));
}

/// Row, column and value of the element, wherever it lies.
#[test]
fn what_is_not_finite_is_named_with_its_place() {
    for (name, bad) in [("f32", &[0u8, 0, 0x80, 0xff][..]), ("f16", &[0, 0xfc]), ("bf16", &[0x80, 0xff])] {
        let format = quant::by_name(name).unwrap();
        let (rows, cols) = (4, 5);
        for at in 0..rows * cols {
            let mut bytes = (format.pack)(&[1.0; 20], rows, cols).unwrap();
            bytes[at * bad.len()..(at + 1) * bad.len()].copy_from_slice(bad);
            match (format.validate)(&bytes, rows, cols) {
                Err(QuantError::NotFinite { format: found, row, col, value }) => {
                    assert_eq!((found, row, col, value), (name, at / cols, at % cols, f32::NEG_INFINITY));
                }
                other => panic!("{name} {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn an_exponent_that_is_none_is_named_with_its_place() {
    let format = quant::by_name("mxfp4").unwrap();
    for at in 0..6 {
        let mut bytes = (format.pack)(&[1.0; 192], 3, 64).unwrap();
        bytes[17 * at] = 255;
        match (format.validate)(&bytes, 3, 64) {
            Err(QuantError::Scale { row, block, value, .. }) => {
                assert_eq!((row, block, value), (at / 2, at % 2, 255.0), "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[test]
fn a_factor_beside_the_bytes_is_in_the_exact_values() {
    let format = &quant::tq2_0::FORMAT;
    let bytes = (format.pack)(&[[0.5; 128], [-0.5; 128]].concat(), 1, 256).unwrap();
    let mut out = [0.0; 256];
    for factor in [1.0, 3.0] {
        let w = Matrix::new(format, 1, 256, &bytes).unwrap().times(factor);
        w.unpack_row(0, &mut out);
        assert_eq!((out[0], out[255]), (0.5 * factor, -0.5 * factor));
    }
}

/// What was prepared before, or in another way, is not read: a wrong answer would be silent.
#[test]
fn only_what_was_prepared_last_is_read() {
    let set = bitnet_kernels::by_name("scalar").unwrap();
    let refused = |x: &Activations, read: fn(&Activations)| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(x))).is_err()
    };
    for kind in [ActKind::I8, ActKind::Q8, ActKind::F32] {
        let mut x = Activations::default();
        set.prepare(kind, &[1.0; 3 * 256], 3, &mut x);
        set.prepare(kind, &[2.0; 256], 1, &mut x);
        for (other, first, second) in [
            (
                ActKind::I8,
                (|x| assert_eq!(x.i8(0).q.len(), 256)) as fn(&Activations),
                (|x| assert_eq!(x.i8(1).q.len(), 256)) as fn(&Activations),
            ),
            (ActKind::Q8, |x| assert_eq!(x.q8(0).q.len(), 256), |x| assert_eq!(x.q8(1).q.len(), 256)),
            (ActKind::F32, |x| assert_eq!(x.f32(0).len(), 256), |x| assert_eq!(x.f32(1).len(), 256)),
        ] {
            assert_eq!(refused(&x, first), other != kind, "{kind:?} read as {other:?}");
            assert!(refused(&x, second), "{kind:?}: a second token of {other:?}");
        }
    }
}

#[test]
fn what_can_be_screened_and_what_it_holds() {
    let (f32s, q8) = (quant::by_name("f32").unwrap(), quant::by_name("q8_0").unwrap());
    let zeros = vec![0u8; 4 * 65_537];
    let empty = |format, rows: usize, cols: usize| {
        Screen::empty(
            &Matrix::new(format, rows, cols, &zeros[..format.matrix_bytes(rows, cols).unwrap()]).unwrap(),
            Some(false),
        )
    };
    assert!(empty(f32s, 1, 65_536).is_some() && empty(f32s, 1, 65_537).is_none());
    assert!(empty(q8, 1, 32).is_none());
    let w = Matrix::new(q8, 1, 32, &zeros[..34]).unwrap();
    assert!(Screen::empty(&w.with_act(ActKind::F32), Some(false)).is_none());
    let w = Matrix::new(f32s, 2, 8, &zeros[..64]).unwrap();
    assert!(
        Screen::empty(&w.times(3.0), Some(false)).is_none()
            && Screen::empty(&w, Some(false)).is_some_and(|s| s.bytes() == 0)
    );
    // A byte for each weight, and a bound for each row.
    let (set, pool) = (bitnet_kernels::by_name("scalar").unwrap(), Pool::new(1).unwrap());
    let bytes = |rows: usize, cols: usize| {
        let w = Matrix::new(f32s, rows, cols, &zeros[..4 * rows * cols]).unwrap();
        Screen::new(&w, (set, &pool)).unwrap().bytes()
    };
    assert_eq!(bytes(3, 64) - bytes(3, 8), 3 * 56);
    assert_eq!(bytes(6, 8), 2 * bytes(3, 8));
    assert!(bytes(1, 8) > 8 && bytes(1, 8) < 64, "{}", bytes(1, 8));
}

/// Blocks of one row with scales of their own, each several times: every set adds up all of them.
#[test]
fn runs_of_blocks_with_other_scales_are_added_up() {
    let scales = [0.5, 0.5, 2.0, 0.0, 2.0, 0.25, 0.5];
    let signs: Vec<f32> = (0..7 * 256).map(|i| [1.0, -1.0, 1.0, 0.0, 1.0][i % 5]).collect();
    let weights: Vec<f32> = signs.iter().enumerate().map(|(i, sign)| sign * scales[i / 256]).collect();
    let expected: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    assert!(expected > 400.0);
    for name in ["tq2_0", "tq1_0"] {
        let format = quant::by_name(name).unwrap();
        let bytes = (format.pack)(&weights, 1, weights.len()).unwrap();
        for (_, act) in pairs().filter(|(with, _)| with.name == name) {
            let w = Matrix::new(format, 1, weights.len(), &bytes).unwrap().with_act(act);
            for set in kernel_sets().iter().filter_map(|set| (set.detect)().ok()) {
                for tokens in [1, 5] {
                    let mut x = Activations::default();
                    set.prepare(act, &vec![1.0; tokens * weights.len()], tokens, &mut x);
                    for y in matmul(set, &w, &x) {
                        let off = (f64::from(y) - expected).abs();
                        assert!(off < 1e-3 * expected, "{name} {act:?} {}: {y}, must be {expected}", set.name());
                    }
                }
            }
        }
    }
}

/// What a conversion writes, to the bit: whoever changes a packer changes its number here, and every file that is made with it.
#[test]
fn packers_write_the_same_bytes() {
    let expected: &[(&str, u64)] = &[
        ("f32", 0xf4b4_6132_0e1e_5a42),
        ("f16", 0xb7d1_1a26_511f_5094),
        ("bf16", 0x07b0_f033_dbe3_1e71),
        ("q8_0", 0x7e5d_8693_5dc6_ce12),
        ("q4_0", 0xf6a6_c075_5bd6_6c04),
        ("q4_1", 0x28c6_da6c_17ed_b0fb),
        ("q4_k", 0x1745_a527_b7ca_cb10),
        ("q6_k", 0x74de_3591_8cce_2e8c),
        ("i2_s", 0x2137_836c_c9d0_fd65),
        ("i2_s-arm", 0xf105_8f95_e8cc_261f),
        ("tq2_0", 0xf7a3_b24c_2f60_942d),
        ("tq1_0", 0x9bdf_668d_0fcf_0281),
        ("iq2_bn", 0xca5e_6169_14a0_95ef),
        ("iq1_bn", 0x0419_3a51_6d6e_ac0e),
        ("q1_0", 0xb56b_3769_f8a3_d686),
        ("q2_0", 0x7966_739a_70bd_d810),
        ("q2_0-g128", 0xfd16_3c6f_d47c_3503),
        ("q5_0", 0x3cdc_0b9c_ca8e_e5c5),
        ("q5_1", 0x5d6b_6965_fa44_ab0d),
        ("q2_k", 0xf6db_827f_6582_1b09),
        ("q3_k", 0x8136_624d_49ed_da9c),
        ("q5_k", 0x6012_bcb2_19e4_6393),
        ("iq4_nl", 0x23d3_89d7_0068_3364),
        ("mxfp4", 0x1f17_cb3a_82c9_5b06),
    ];
    let found: Vec<(&str, u64)> = quant::FORMATS
        .iter()
        .map(|format| {
            let (rows, r) = (3, &mut Random::new(7));
            let cols = 1024_usize.next_multiple_of(format.block_len);
            let mut w = weights(format, rows * cols, r);
            if !format.is_ternary() {
                // Blocks of one sign, of small numbers, with outliers, of zeros, of numbers whose scale is zero as an f16.
                w[..256].iter_mut().for_each(|w| *w = w.abs() + 0.1);
                w[256..512].iter_mut().for_each(|w| *w = -0.01 * w.abs());
                w[512..768].iter_mut().step_by(29).for_each(|w| *w *= 30.0);
                w[768..900].fill(0.0);
                w[1024..1280].iter_mut().for_each(|w| *w *= 1e-8);
            }
            let bytes = (format.pack)(&w, rows, cols).unwrap();
            // FNV-1a, 64 bits.
            let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            (format.name, bytes.iter().fold(0xcbf2_9ce4_8422_2325, add))
        })
        .collect();
    assert_eq!(found, expected);
}
