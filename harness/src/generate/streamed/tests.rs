//! The bytes depend on the recipe alone; the engine runs them, in every ternary format with the same bits.

use super::*;
use bitnet_engine::inference::{Session, SessionOptions};
use bitnet_engine::load::load;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_kernels::{Pool, best};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A vocabulary of 259 tokens that no trained model can change.
fn vocabulary() -> GgufFile {
    let mut tokens = vec!["<end>".to_owned()];
    // Any 256 characters: nothing is encoded with them here.
    tokens.extend((0..256u32).filter_map(|i| char::from_u32(0x100 + i)).map(String::from));
    let merges = ["\u{100} \u{101}", "\u{102} \u{103}"];
    tokens.extend(merges.map(|m| m.replace(' ', "")));
    let mut writer = GgufWriter::new(3, 32).expect("a writer");
    writer.meta("tokenizer.ggml.tokens", tokens).expect("tokens");
    writer.meta("tokenizer.ggml.merges", merges.to_vec()).expect("merges");
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).expect("a file");
    GgufFile::from_vec(bytes).expect("a GGUF")
}

fn made(quant: &str, seed: u64, architecture: Option<&str>, vocabulary: &GgufFile, threads: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.gguf");
    let recipe = Recipe::new("tiny", quant, seed, architecture).expect("a recipe");
    let bytes = recipe.write(vocabulary, &path, threads).expect("a model");
    let read = std::fs::read(&path).expect("the file");
    assert_eq!(bytes, read.len() as u64);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 1, "nothing else is left");
    read
}

#[test]
fn a_seed_is_these_bytes() {
    let one = "3f62a30ba1ade47675e86f531ba62ea38ca1f28c3bbc3254cf03071404d7e48e";
    let two = "cd597979bc0de842e4b42d0afa806c5a91e6276ec101e8ef9d9e92ae80a91154";
    for (seed, threads, sha256) in [(1, 1, one), (1, 3, one), (2, 2, two)] {
        let found = hex::encode(Sha256::digest(made("i2_s", seed, None, &vocabulary(), threads)));
        assert_eq!(found, sha256, "seed {seed} on {threads} threads");
    }
}

/// Keys, in order, of Microsoft's GGUF of BitNet-2B-4T: what llama.cpp prints when it loads the file, e.g. in issue 373 of
/// microsoft/BitNet.
const OFFICIAL: [&str; 24] = [
    "general.architecture",
    "general.name",
    "bitnet-b1.58.vocab_size",
    "bitnet-b1.58.context_length",
    "bitnet-b1.58.embedding_length",
    "bitnet-b1.58.block_count",
    "bitnet-b1.58.feed_forward_length",
    "bitnet-b1.58.rope.dimension_count",
    "bitnet-b1.58.attention.head_count",
    "bitnet-b1.58.attention.head_count_kv",
    "tokenizer.ggml.add_bos_token",
    "bitnet-b1.58.attention.layer_norm_rms_epsilon",
    "bitnet-b1.58.rope.freq_base",
    "general.file_type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
    "general.quantization_version",
];

#[test]
fn as_microsoft_has_the_official_keys_and_the_same_weights() {
    let golden = crate::paths::Paths::discover(&crate::env::Env::read()).golden;
    let vocabulary = GgufFile::open(golden.join("models/tiny-bitnet.gguf")).expect("the tiny model");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.gguf");
    let recipe = Recipe::new("tiny", "i2_s", 1, None).and_then(|r| r.written_as(Writer::Microsoft)).expect("a recipe");
    assert_eq!(recipe.file_name(), "tiny-i2_s-seed1-microsoft.gguf");
    recipe.write(&vocabulary, &path, 2).expect("a model");
    let file = GgufFile::open(&path).expect("a GGUF");
    let ours = GgufFile::from_vec(made("i2_s", 1, None, &vocabulary, 2)).expect("a GGUF");
    let keys: Vec<&str> = file.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, OFFICIAL);
    let described = |key: &str| file.metadata().get(key).expect(key).describe();
    assert_eq!(described("general.file_type"), "u32 40");
    assert_eq!(described("general.name"), "string \"bitnet2b_2501\"");
    assert_eq!(described("tokenizer.ggml.bos_token_id"), "u32 448");
    assert_eq!(described("tokenizer.ggml.padding_token_id"), described("tokenizer.ggml.eos_token_id"));
    let template = file.metadata().str("tokenizer.chat_template").expect("a text").expect("a template");
    assert!(template.contains("BITNETAssistant"));
    assert!(file.views().zip(ours.views()).all(|(a, b)| a.info.name == b.info.name && a.data == b.data));

    // Nothing tells the layout; what is written has that of x86, and control tokens are where the real ones are.
    let pool = Arc::new(Pool::new(2).expect("threads"));
    let loaded = load(file, None, best(), &pool).expect("a model");
    let report = loaded.layout.expect("a report");
    assert_eq!((report.layout, report.decided), ("x86", false), "{report:?}");
    let options = EncodeOptions { add_special: true, parse_special: true };
    let ids = loaded.tokenizer.encode("In the beginning<|eot_id|>", options).expect("ids");
    assert!(ids.len() > 2 && ids[0] == 448 && ids.last() == Some(&457), "{ids:?}");
    assert!(loaded.tokenizer.is_eog(449));
}

/// Logits of a model after some tokens, by their bits.
fn logits(bytes: Vec<u8>) -> Vec<u32> {
    let pool = Arc::new(Pool::new(2).expect("threads"));
    let loaded = load(GgufFile::from_vec(bytes).expect("a GGUF"), None, best(), &pool).expect("a model");
    let mut session = Session::new(loaded.model, SessionOptions::new(best(), pool)).expect("a session");
    session.logits(&[0, 40, 300, 511]).expect("finite logits").iter().map(|l| l.to_bits()).collect()
}

#[test]
fn one_model_in_every_ternary_format() {
    let tiny =
        GgufFile::open(crate::paths::Paths::discover(&crate::env::Env::read()).golden.join("models/tiny-bitnet.gguf"));
    let vocabulary = tiny.expect("the tiny model");
    for architecture in ARCHITECTURES {
        let of = |quant| logits(made(quant, 1, Some(architecture), &vocabulary, 2));
        let expected = of("i2_s");
        let values: Vec<f32> = expected.iter().map(|&bits| f32::from_bits(bits)).collect();
        let size = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!((0.01..100.0).contains(&size), "logits of size {size}");
        let ternary: Vec<_> = Storage::all().filter(|storage| storage.is_ternary()).map(Storage::name).collect();
        assert!(ternary.len() >= 7, "{ternary:?}");
        for quant in ternary {
            assert!(of(quant) == expected, "{architecture}, {quant}: other logits");
        }
    }
}

#[test]
fn what_cannot_be_made_is_said() {
    let error =
        |shape, quant, architecture| Recipe::new(shape, quant, 1, architecture).expect_err("an error").to_string();
    for (shape, quant, architecture, words) in [
        ("huge", "i2_s", None, "there is no shape `huge`; there are tiny (two layers"),
        ("tiny", "i3_s", None, "i2_s"),
        ("tiny", "i2_s", Some("llama"), "there are bitnet-b1.58, bitnet"),
    ] {
        let found = error(shape, quant, architecture);
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn real_shapes_have_their_sizes() {
    // Microsoft's file has 1,187,801,280 bytes, norms and a vocabulary among them.
    let recipe = Recipe::new("2b4t", "i2_s", 1, None).expect("a recipe");
    assert_eq!(recipe.matrices().expect("matrices").len(), 211);
    let bytes: u64 = recipe.matrices().expect("matrices").iter().map(|m| m.bytes).sum();
    assert_eq!(bytes, 1_177_688_640);
    assert_eq!(recipe.file_name(), "2b4t-i2_s-seed1.gguf");
    let silu = Recipe::new("2b4t", "tq2_0", 7, Some("bitnet")).expect("a recipe");
    assert_eq!(silu.file_name(), "2b4t-bitnet-tq2_0-seed7.gguf");
    assert_eq!(super::super::pieces::MICROSOFT.specials(128_256), 256);
    for shape in SHAPES {
        for quant in ["i2_s", "tq2_0", "tq1_0", "tl1", "tl2"] {
            Recipe::new(shape.name, quant, 1, None).expect(quant);
        }
    }
}

#[test]
fn where_nothing_can_be_written_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = Recipe::new("tiny", "i2_s", 1, None).expect("a recipe");
    let error = recipe.write(&vocabulary(), &dir.path().join("no/folder.gguf"), 1).expect_err("no folder").to_string();
    assert!(error.contains("nothing was written") && error.contains("folder.gguf"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 0);
}
