//! Tokenizer against weights, before any compute.

use crate::model_support::{Small, VOCAB};
use bitnet_engine::discovery::quantization::{QuantizationError, check};
use bitnet_engine::gguf::{GgufFile, GgufWriter, tensor_size};
use bitnet_engine::load::LoadError;

const ROWS: usize = 512;

/// A file whose embedding is f16 and whose weights are of type `ggml_type`.
fn file(architecture: &str, ggml_type: u32) -> GgufFile {
    let mut writer = GgufWriter::new(3, 32).unwrap();
    writer.meta("general.architecture", architecture).unwrap();
    writer.tensor("token_embd.weight", &[256, ROWS as u64], 1, vec![0u8; 2 * 256 * ROWS]).unwrap();
    let dims = [256u64, 256];
    // TL1 and TL2 leave their size to the writer; bitnet.cpp's is n/4 + 32 for TL1.
    let size = tensor_size("w", 0, ggml_type, &dims).unwrap().unwrap_or(256 * 256 / 4 + 32);
    writer.tensor("blk.0.ffn_up.weight", &dims, ggml_type, vec![0u8; size as usize]).unwrap();
    // The type of most weights counts.
    writer.tensor("blk.0.ffn_gate_inp.weight", &[256, 2], 1, vec![0u8; 1024]).unwrap();
    // A vector is no weight, however long it is.
    writer.tensor("blk.0.attn_norm.weight", &[70_000], 0, vec![0u8; 280_000]).unwrap();
    GgufFile::from_vec(writer.into_vec().unwrap()).unwrap()
}

#[test]
fn test_quantization_compatibility() {
    // Every format of BitNet files is known by name, whether we have kernels for it or not.
    for (ggml_type, name) in [
        (36, "i2_s"),
        (38, "tl1"),
        (39, "tl2"),
        (34, "tq1_0"),
        (35, "tq2_0"),
        (8, "q8_0"),
        (2, "q4_0"),
        (1, "f16"),
        (30, "bf16"),
        (16, "iq2_xxs"),
    ] {
        let file = file("bitnet-b1.58", ggml_type);
        let report = check(&file, ROWS).unwrap();
        assert_eq!((report.format, report.embedding), (name, "f16"));
        assert_eq!((report.tokens, report.rows, report.padding), (ROWS, ROWS, 0));
        let computable = bitnet_kernels::quant::Storage::all().any(|s| s.ggml_type() == ggml_type);
        assert_eq!((report.computable, computable), (computable, name != "iq2_xxs"), "{name}");
        assert_eq!(check(&file, ROWS - 100).unwrap().padding, 100, "padding is not a fault");
        let error = check(&file, ROWS + 1).unwrap_err();
        let expected = QuantizationError::MoreTokensThanRows { tokens: 513, rows: 512, embedding: "f16", format: name };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(
            text.contains("513") && text.contains("512") && text.contains(name) && text.contains("--tokenizer"),
            "{text}"
        );
    }
    let mut writer = GgufWriter::new(3, 32).unwrap();
    writer.meta("general.architecture", "llama").unwrap();
    let bytes = writer.into_vec().unwrap();
    let none = check(&GgufFile::from_vec(bytes).unwrap(), 5).unwrap_err();
    assert_eq!(none, QuantizationError::NoEmbedding);
}

/// Loading refuses a tokenizer that does not fit, for every format that we compute with, before it reads a weight.
#[test]
fn test_tokenizer_quantization_integration() {
    let tokens = Small::new().load().unwrap().tokenizer.vocab_size();
    assert!(tokens < VOCAB, "the small model's embedding is padded");
    for format in ["f16", "f32", "bf16", "q8_0"] {
        let mut small = Small::new();
        small.set_arch("vocab_size", tokens as u32 - 1);
        small.matrix("token_embd.weight", format, tokens - 1, crate::model_support::HIDDEN);
        // Damage that reading the weights would find: code 3 does not exist in I2_S.
        small.data("blk.0.ffn_up.weight").fill(0xff);
        let error = small.load().unwrap_err();
        let LoadError::Vocabulary(QuantizationError::MoreTokensThanRows {
            tokens: t,
            rows,
            embedding,
            format: weights,
        }) = &error
        else {
            panic!("{error}")
        };
        assert_eq!((*t, *rows, *embedding, *weights), (tokens, tokens - 1, format, "i2_s"));
        // One row more, and the damage is what is found.
        small.set_arch("vocab_size", tokens as u32);
        small.matrix("token_embd.weight", format, tokens, crate::model_support::HIDDEN);
        let error = small.load().unwrap_err();
        assert!(matches!(error, LoadError::Model(_)), "{error}");
    }
    let padded = Small::new().load().unwrap();
    assert!(padded.diagnostics.iter().any(|d| d.code == "padded_embedding"));
}
