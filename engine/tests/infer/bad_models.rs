//! Every way in which a sound container can hold a model that must not run: an error that says what and where, never a
//! panic. (Requests that a sound model cannot meet are in `bad_requests.rs`.)

use crate::model_support::*;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{
    GenerateOptions, InferenceError, Needs, Session, SessionOptions, Want, generate, perplexity,
};
use bitnet_engine::load::LAYOUT_KEY;
use bitnet_kernels::quant::I2sLayout;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// What is spoilt, how, and words of the message that must name what and where.
type Row = (&'static str, fn(&mut Small) -> &mut Small, &'static [&'static str]);

/// Rows of `table` whose message lacks a word (or that load).
fn failures(table: &[Row]) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, spoil, words) in table {
        let mut small = Small::new();
        spoil(&mut small);
        match small.load() {
            Ok(_) => failures.push(format!("{name}: loads")),
            Err(error) => {
                let message = error.to_string();
                for word in words.iter().filter(|word| !message.contains(**word)) {
                    failures.push(format!("{name}: no `{word}` in: {message}"));
                }
            }
        }
    }
    failures
}

fn assert_all(table: &[Row]) {
    let failures = failures(table);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_unspoilt_model_runs() {
    let loaded = Small::new().load().unwrap();
    let logits = logits_bits(&mut session(&loaded.model, None, 8), &[1, 5, 9, 287]);
    assert_eq!((logits.len(), logits[0].len()), (4, VOCAB));
    assert!(logits.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()));
    assert!(logits.iter().flatten().any(|&bits| f32::from_bits(bits) != 0.0));
    // The table means something only if a row that spoils nothing is noticed.
    assert_eq!(failures(&[("nothing", |m| m, &["x"])]), ["nothing: loads"]);
}

#[test]
fn hyper_parameters() {
    assert_all(&[
        (
            "unknown architecture",
            |m| m.set("general.architecture", "mamba"),
            &["`mamba`", "bitnet-b1.58", "llama", "inspect"],
        ),
        ("no architecture", |m| m.remove("general.architecture"), &["general.architecture"]),
        (
            "architecture is a number",
            |m| m.set("general.architecture", 3u32),
            &["general.architecture", "string", "u32"],
        ),
        ("no block count", |m| m.remove_arch("block_count"), &["bitnet-b1.58.block_count"]),
        ("no epsilon", |m| m.remove_arch("attention.layer_norm_rms_epsilon"), &["layer_norm_rms_epsilon"]),
        ("2^31 blocks", |m| m.set_arch("block_count", 1u32 << 31), &["block_count", "2147483648", "4096"]),
        ("no blocks", |m| m.set_arch("block_count", 0u32), &["block_count", "0"]),
        ("negative blocks", |m| m.set_arch("block_count", -1i32), &["block_count", "-1"]),
        ("blocks in words", |m| m.set_arch("block_count", "one"), &["block_count", "one"]),
        ("two blocks where one is", |m| m.set_arch("block_count", 2u32), &["blk.1.attn_norm.weight", "missing"]),
        ("2^40 wide", |m| m.set_arch("embedding_length", 1u64 << 40), &["embedding_length", "1099511627776"]),
        (
            "heads that do not divide",
            |m| m.set_arch("attention.head_count", 3u32),
            &["embedding_length 128", "head_count 3"],
        ),
        ("no heads", |m| m.set_arch("attention.head_count", 0u32), &["attention.head_count"]),
        (
            "kv heads that do not divide",
            |m| m.set_arch("attention.head_count_kv", 3u32),
            &["head_count 4", "head_count_kv 3"],
        ),
        (
            "more kv heads than heads",
            |m| m.set_arch("attention.head_count_kv", 8u32),
            &["head_count 4", "head_count_kv 8"],
        ),
        ("odd rope", |m| m.set_arch("rope.dimension_count", 31u32), &["rope.dimension_count` 31", "32", "even"]),
        ("wide rope", |m| m.set_arch("rope.dimension_count", 64u32), &["rope.dimension_count` 64", "32"]),
        (
            "epsilon 0",
            |m| m.set_arch("attention.layer_norm_rms_epsilon", 0f32),
            &["layer_norm_rms_epsilon", "is 0", "expected a number from"],
        ),
        (
            "epsilon NaN",
            |m| m.set_arch("attention.layer_norm_rms_epsilon", f32::NAN),
            &["layer_norm_rms_epsilon", "NaN"],
        ),
        ("theta negative", |m| m.set_arch("rope.freq_base", -1f32), &["rope.freq_base", "-1"]),
        ("experts", |m| m.set_arch("expert_count", 8u32), &["8 experts"]),
        ("unknown scaling", |m| m.set_arch("rope.scaling.type", "dynamic"), &["rope scaling", "`dynamic`"]),
        (
            "yarn without its factor",
            |m| m.set_arch("rope.scaling.type", "yarn").set_arch("rope.scaling.original_context_length", 64u32),
            &["bitnet-b1.58.rope.scaling.factor"],
        ),
        (
            "yarn without its context",
            |m| m.set_arch("rope.scaling.type", "yarn").set_arch("rope.scaling.factor", 4f32),
            &["bitnet-b1.58.rope.scaling.original_context_length"],
        ),
        (
            "longrope without its divisors",
            |m| m.set_arch("rope.scaling.type", "longrope").set_arch("rope.scaling.original_context_length", 64u32),
            &["`rope_factors_long.weight`", "missing"],
        ),
        (
            "a rounding that is none",
            |m| m.set("bitnet.activations", "int4"),
            &["`bitnet.activations`", "`int4`", "int8-token, int8-block32, float"],
        ),
        (
            "negative scaling",
            |m| m.set_arch("rope.scaling.type", "linear").set_arch("rope.scaling.factor", -2f32),
            &["rope.scaling.factor", "-2"],
        ),
        ("other value heads", |m| m.set_arch("attention.value_length", 16u32), &["16", "32"]),
        ("no context", |m| m.set_arch("context_length", 0u32), &["context_length"]),
        ("a layout without a name", |m| m.set(LAYOUT_KEY, "sparc"), &[LAYOUT_KEY, "`sparc`", "x86", "arm"]),
        ("a layout that is a number", |m| m.set(LAYOUT_KEY, 1u32), &[LAYOUT_KEY, "string"]),
    ]);
}

#[test]
fn tensors() {
    assert_all(&[
        ("missing", |m| m.drop_tensor("blk.0.ffn_up.weight"), &["`blk.0.ffn_up.weight`", "missing"]),
        ("no embedding", |m| m.drop_tensor("token_embd.weight"), &["`token_embd.weight`", "missing"]),
        ("no sub-norm", |m| m.drop_tensor("blk.0.attn_sub_norm.weight"), &["attn_sub_norm", "missing"]),
        (
            "transposed",
            |m| m.matrix("blk.0.attn_k.weight", "i2_s", 128, KV * 2),
            &["`blk.0.attn_k.weight`", "[128, 128]", "[128, 64]"],
        ),
        (
            "short norm",
            |m| m.add("output_norm.weight", &[64], "f32", &[1.0; 64]),
            &["`output_norm.weight`", "[64]", "[128]"],
        ),
        (
            "three-dimensional",
            |m| m.add("output_norm.weight", &[64, 1, 2], "f32", &[1.0; 128]),
            &["`output_norm.weight`", "[64, 1, 2]"],
        ),
        (
            "unknown tensor",
            |m| m.add("blk.0.attn_q.bias", &[128], "f32", &[0.0; 128]),
            &["`blk.0.attn_q.bias`", "not part of", ARCH],
        ),
        (
            "MXFP4, which shares its number with TL2",
            |m| m.put("blk.0.ffn_down.weight", &[256, 128], 39, vec![0xFF; 128 * 8 * 17]),
            &["`blk.0.ffn_down.weight`", "mxfp4", "scale"],
        ),
        (
            "TL2 of nobody's tiles",
            |m| m.put("blk.0.ffn_down.weight", &[256, 128], 39, vec![0; 8192 + 32]),
            &["`blk.0.ffn_down.weight`", "tl2", "128 x 256", "tiles"],
        ),
        (
            "a factor of zero",
            |m| m.add("blk.0.attn_q.scale", &[1], "f32", &[0.0]),
            &["`blk.0.attn_q.scale`", "is 0", "positive"],
        ),
        (
            "a factor that is none",
            |m| m.put("blk.0.ffn_up.scale", &[1], 0, f32::NAN.to_le_bytes().to_vec()),
            &["`blk.0.ffn_up.scale`", "NaN", "positive"],
        ),
        ("two factors", |m| m.add("blk.0.attn_q.scale", &[2], "f32", &[1.0; 2]), &["`blk.0.attn_q.scale`", "[2]"]),
        (
            "a factor of nothing",
            |m| m.add("blk.0.attn_x.scale", &[1], "f32", &[1.0]),
            &["`blk.0.attn_x.scale`", "not part of"],
        ),
        (
            "IQ2_XXS",
            |m| m.put("blk.0.ffn_down.weight", &[256, 128], 16, vec![0; 128 * 66]),
            &["`blk.0.ffn_down.weight`", "iq2_xxs", "16", "i2_s"],
        ),
        (
            "ternary norm",
            |m| m.add("output_norm.weight", &[128], "i2_s", &ternary(1, 128, 1)),
            &["`output_norm.weight`", "i2_s", "f32, f16, bf16"],
        ),
        (
            "rows that fill no block of either layout",
            |m| m.put("blk.0.attn_q.weight", &[32, 128], 36, vec![0; 32 * 128 / 4 + 32]),
            &["`blk.0.attn_q.weight`"],
        ),
        (
            "vocabulary larger than the embedding",
            |m| m.remove_arch("vocab_size").matrix("token_embd.weight", "f16", 256, HIDDEN),
            &["286 tokens", "256 rows"],
        ),
        (
            "vocab_size that contradicts",
            |m| m.set_arch("vocab_size", 300u32),
            &["300 tokens", "token_embd.weight", "288 rows"],
        ),
        (
            "embedding of another width",
            |m| m.matrix("token_embd.weight", "f16", VOCAB, 64),
            &["`token_embd.weight`", "[64, 288]", "[128, 288]"],
        ),
        (
            "rope factors of another number",
            |m| m.add("rope_freqs.weight", &[8], "f32", &[1.0; 8]),
            &["`rope_freqs.weight`", "[8]", "[16]"],
        ),
    ]);
}

#[test]
fn damaged_weights() {
    assert_all(&[
        (
            "code 3",
            |m| put(m, "blk.0.ffn_gate.weight", 32 * 5 + 3, &[0b1100]),
            &["`blk.0.ffn_gate.weight`", "byte 163", "row 5", "a code that means no"],
        ),
        ("NaN scale", |m| scale(m, f32::NAN), &["`blk.0.attn_v.weight`", "NaN", "scale"]),
        ("zero scale", |m| scale(m, 0.0), &["`blk.0.attn_v.weight`", "is 0", "scale"]),
        ("infinite scale", |m| scale(m, f32::INFINITY), &["`blk.0.attn_v.weight`", "inf", "scale"]),
        ("negative scale", |m| scale(m, -0.05), &["`blk.0.attn_v.weight`", "-0.05", "scale"]),
        (
            "NaN norm",
            |m| put(m, "blk.0.ffn_norm.weight", 4 * 77, &f32::NAN.to_le_bytes()),
            &["`blk.0.ffn_norm.weight`", "element 77", "NaN"],
        ),
        (
            "huge norm",
            |m| put(m, "output_norm.weight", 0, &1e30f32.to_le_bytes()),
            &["`output_norm.weight`", "element 0"],
        ),
        (
            "NaN embedding",
            |m| put(m, "token_embd.weight", 2 * (128 * 3 + 9), &0x7E00u16.to_le_bytes()),
            &["`token_embd.weight`", "row 3", "column 9", "NaN"],
        ),
        (
            "infinite embedding",
            |m| put(m, "token_embd.weight", 0, &0x7C00u16.to_le_bytes()),
            &["`token_embd.weight`", "row 0", "inf"],
        ),
    ]);
}

/// Sets the scale behind the codes of `attn_v`.
fn scale(m: &mut Small, value: f32) -> &mut Small {
    let data = m.data("blk.0.attn_v.weight");
    let at = data.len() - 32;
    data[at..at + 4].copy_from_slice(&value.to_le_bytes());
    m
}

fn put<'a>(m: &'a mut Small, name: &str, at: usize, bytes: &[u8]) -> &'a mut Small {
    m.data(name)[at..at + bytes.len()].copy_from_slice(bytes);
    m
}

#[test]
fn a_tensor_type_that_nobody_knows() {
    // The writer refuses it, so the file is spoilt afterwards: name, count, two dimensions, type.
    let mut bytes = Small::new().bytes();
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at], 36, "the type field of an I2_S tensor");
    bytes[at] = 222;
    let message = load_bytes(bytes).unwrap_err().to_string();
    assert!(message.contains("blk.0.attn_q.weight") && message.contains("222"), "{message}");
}

/// Valid files (with and without a recorded layout) and where their tensors begin.
fn valid() -> &'static [(Vec<u8>, usize); 2] {
    static VALID: OnceLock<[(Vec<u8>, usize); 2]> = OnceLock::new();
    VALID.get_or_init(|| {
        [Small::new().bytes(), Small::new().set(LAYOUT_KEY, "x86").bytes()].map(|bytes| {
            let start = GgufFile::from_vec(bytes.clone()).unwrap().data_start() as usize;
            (bytes, start)
        })
    })
}

/// Where to flip (in the header, or anywhere) and what.
fn flips() -> impl Strategy<Value = (bool, Vec<(bool, prop::sample::Index, u8)>)> {
    (any::<bool>(), prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 1u8..=255), 1..=8))
}

/// Weights that are flipped into other valid weights give other logits, maybe not even finite ones; all else is an
/// error. Nothing panics.
#[test]
fn flipped_bytes_never_panic() {
    let (loads, errors) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&flips(), |(recorded, flips)| {
        let (valid, start) = &valid()[usize::from(recorded)];
        let mut bytes = valid.clone();
        for (header, index, mask) in &flips {
            let at = index.index(if *header { *start } else { bytes.len() });
            bytes[at] ^= mask;
        }
        let Ok(loaded) = load_bytes(bytes) else {
            errors.set(errors.get() + 1);
            return Ok(());
        };
        loads.set(loads.get() + 1);
        let options = SessionOptions { context: Some(8), chunk: 3, ..SessionOptions::new(kernels(), pool(1)) };
        let mut session = Session::new(Arc::clone(&loaded.model), options).unwrap();
        let vocab = loaded.model.config.vocab_size;
        let tokens = [1, 5, 100, 285].map(|t: u32| t.min(vocab as u32 - 1));
        let mut rows = 0;
        let sink = &mut |_, logits: &[f32]| rows += usize::from(logits.len() == vocab);
        session.forward(&tokens, Want::All, sink).unwrap();
        prop_assert_eq!(rows, 4);
        Ok(())
    });
    result.unwrap();
    assert!(loads.get() > 100 && errors.get() > 100, "{} load, {} do not", loads.get(), errors.get());
}

/// A row of the output matrix whose sum is infinity minus infinity: every logit but one is a number, and that one is NaN.
#[test]
fn a_nan_among_the_logits_is_an_error_of_every_way_to_them() {
    let mut small = Small::new();
    small.add("output_norm.weight", &[HIDDEN as u64], "f32", &[1e6; HIDDEN]);
    small.matrix("output.weight", "f32", VOCAB, HIDDEN);
    let row = VOCAB - 3;
    for (at, value) in (0..HIDDEN).map(|i| if i % 2 == 0 { 3e38f32 } else { -3e38 }).enumerate() {
        let byte = 4 * (row * HIDDEN + at);
        small.data("output.weight")[byte..byte + 4].copy_from_slice(&value.to_le_bytes());
    }
    let file = GgufFile::from_vec(small.bytes()).unwrap();
    let loaded = bitnet_engine::load::load(file, Some(I2sLayout::X86), kernels(), &pool(1)).unwrap();
    // Products of both signs are infinite.
    session(&loaded.model, None, 8)
        .hidden(&[1, 5], Want::All, &mut |_, row| {
            let signed = |i: usize, x: f32| if i & 1 == 0 { x } else { -x };
            let any = |sign: f32| row.iter().enumerate().any(|(i, x)| sign * signed(i, *x) > 1e3);
            assert!(row.iter().all(|x| x.is_finite()) && any(1.0) && any(-1.0));
        })
        .unwrap();
    let nan = |result: Result<(), InferenceError>, at: usize, what: &str| match result {
        Err(InferenceError::NotFinite { position }) => assert_eq!(position, at, "{what}"),
        other => panic!("{what}: {other:?}"),
    };
    for chunk in [1, 8] {
        let fresh = || session(&loaded.model, None, chunk);
        for (want, at) in [(Want::All, 0), (Want::Last, 1)] {
            let mut session = fresh();
            let forward = session.forward(&[1, 5], want, &mut |_, _| panic!("logits that are no numbers"));
            nan(forward, at, "forward");
            // The chunk that failed does not count.
            assert_eq!(session.position(), if chunk == 1 { at } else { 0 });
        }
        nan(fresh().logits(&[1, 5]).map(drop), 1, "logits");
        nan(
            fresh().logits_needed(&[1, 5], &Needs { count: 1, within: 0.0, also: Vec::new() }).map(drop),
            1,
            "logits that a sampler needs",
        );
        let mut session = fresh();
        session.hold(&[1, 5], 2).unwrap();
        nan(session.held(1, None).map(drop), 1, "a held row");
        let text = perplexity(&mut fresh(), &*loaded.tokenizer, "abc", &mut |_, _| {});
        nan(text.map(drop), 0, "perplexity");
        let (options, cancel) = (GenerateOptions::default(), AtomicBool::new(false));
        let made = generate(&mut fresh(), &*loaded.tokenizer, &[1, 5], &options, &cancel, &mut |_| {});
        nan(made.map(drop), 1, "generate");
    }
}
