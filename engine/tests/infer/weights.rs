//! How tensors become matrices and vectors: shapes, padding, and what is copied.

use crate::model_support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_engine::model::{Copied, HugePages, Model};
use bitnet_kernels::quant::{I2sLayout, TILED, Tiled};

const DOWN: &str = "blk.0.ffn_down.weight";

fn tl1() -> &'static Tiled {
    TILED.iter().find(|format| format.name == "tl1").unwrap()
}

/// The small model with one matrix as TL1, `extra` bytes behind it.
fn with_tl1(extra: usize, alignment: u64) -> Result<Model, String> {
    let mut small = Small::new();
    let mut data = (tl1().pack)(&ternary(HIDDEN, FFN, 5), HIDDEN, FFN).unwrap();
    data.resize(data.len() + extra, 0);
    small.put(DOWN, &[FFN as u64, HIDDEN as u64], tl1().ggml_type, data).set("bitnet.tl.tiles", "own");
    let mut writer = GgufWriter::new(3, alignment).unwrap();
    for (key, value) in &small.keys {
        writer.meta(key, value.clone()).unwrap();
    }
    for t in &small.tensors {
        writer.tensor(&t.name, &t.dims, t.ggml_type, t.data.as_slice()).unwrap();
    }
    let file = GgufFile::from_vec(writer.into_vec().unwrap()).unwrap();
    Model::load(&file, I2sLayout::X86, &pool(1)).map_err(|error| error.to_string())
}

#[test]
fn padding_behind_tiles_is_less_than_the_alignment() {
    // 8,224 bytes, a multiple of 32 and not of 64.
    assert_eq!((tl1().matrix_bytes)(HIDDEN, FFN).unwrap(), 8224);
    for (extra, alignment, sound) in [(0, 32, true), (0, 64, true), (32, 64, true), (1, 32, false), (33, 64, false)] {
        match with_tl1(extra, alignment) {
            Ok(model) => {
                assert!(sound, "{extra} {alignment}");
                let mut row = vec![0.0; FFN];
                let (_, matrix) = model.weights.matrices().find(|(name, _)| *name == DOWN).unwrap();
                matrix.unpack_row(HIDDEN - 1, &mut row);
                assert_eq!(row, ternary(HIDDEN, FFN, 5)[(HIDDEN - 1) * FFN..]);
            }
            Err(error) => assert!(!sound && error.contains(&format!("tensor `{DOWN}` at byte")), "{error}"),
        }
    }
}

/// What was unpacked is in memory of its own already.
#[test]
fn only_what_lies_in_the_file_is_copied() {
    let model = with_tl1(0, 32).unwrap();
    let lengths = model.weights.matrices().filter(|(name, _)| *name != DOWN).map(|(_, matrix)| matrix.data.len());
    let bytes = lengths.fold(0, |end: usize, len| end.next_multiple_of(64) + len);
    assert_eq!(model.copy_hot(HugePages::On, &pool(1)), Copied::Bytes(bytes));
    assert_eq!(model.weights.copied_bytes(), bytes);
    let data = |name: &str| model.weights.matrices().find(|(other, _)| *other == name).unwrap().1.data.as_ptr();
    let file = model.weights.file();
    let layers: Vec<_> =
        file.views().filter(|view| view.info.name.starts_with("blk.") && view.info.dims.len() == 2).collect();
    assert!(layers.len() >= 7, "{} matrices", layers.len());
    for view in layers {
        assert!(data(&view.info.name) != view.data.as_ptr(), "{} is read where it was copied to", view.info.name);
    }
}

#[test]
fn trailing_dimensions_of_one_mean_nothing() {
    let load = |dims: &[u64]| {
        let mut small = Small::new();
        small.add("output_norm.weight", dims, "f32", &vec![1.0; dims.iter().product::<u64>() as usize]);
        small.load().map(drop).map_err(|error| error.to_string())
    };
    for dims in [&[HIDDEN as u64][..], &[HIDDEN as u64, 1], &[HIDDEN as u64, 1, 1, 1]] {
        load(dims).unwrap();
    }
    for dims in [&[HIDDEN as u64, 2][..], &[HIDDEN as u64, 1, 2], &[64]] {
        let error = load(dims).unwrap_err();
        assert!(error.contains(&format!("`output_norm.weight` has dimensions {dims:?}")), "{error}");
    }
}

/// The type's number is that of I2_S in every layout; other tensors are what they say.
#[test]
fn a_layout_is_of_i2_s_alone() {
    let file = GgufFile::from_vec(Small::new().bytes()).unwrap();
    for (layout, name) in [(I2sLayout::X86, "i2_s"), (I2sLayout::Rows4, "i2_s-rows4")] {
        let model = Model::open(&file, layout).unwrap();
        assert!(model.weights.storages().count() > 7);
        for (tensor, storage) in model.weights.storages() {
            let expected = if tensor == "token_embd.weight" { "f16" } else { name };
            assert_eq!(storage.name(), expected, "{tensor}");
        }
    }
}
