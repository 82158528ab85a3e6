//! What is wrong with a model of one of the newer families is said by key or tensor, and with what would be right.

use super::model;
use crate::models::pool;
use crate::setup::declare;
use bitnet_engine::device;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue, TensorView};
use bitnet_engine::inference::{Session, SessionOptions};
use bitnet_engine::load::load;
use bitnet_engine::settings::Settings;
use bitnet_golden::matrix::Source;
use bitnet_kernels::best;
use bitnet_kernels::quant::I2sLayout;
use std::path::Path;
use std::sync::Arc;

/// What is changed in a sound file.
enum Spoil {
    Without(&'static str),
    Key(&'static str, MetaValue),
    NoTensor(&'static str),
    Longer(&'static str),
}

fn sound(name: &str, quant: &str) -> GgufFile {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let matrix = declare(&golden).expect("the declaration").matrix;
    let declared = matrix.model(name).expect("a declared model");
    let Source::Generated { seed, tokenizer, shape, weights } = &declared.source else { panic!("{name} is not made") };
    let vocabulary = GgufFile::open(golden.join("models/tiny-bitnet.gguf")).expect("the vocabulary");
    let bytes = model(&declared.family, quant, *seed, tokenizer, shape, *weights, &vocabulary).expect("a model");
    GgufFile::from_vec(bytes).expect("a GGUF")
}

fn spoilt(file: &GgufFile, spoil: &Spoil) -> GgufFile {
    let mut writer = GgufWriter::new(3, 32).expect("a writer");
    let key = match spoil {
        Spoil::Without(key) | Spoil::Key(key, _) => key,
        _ => "",
    };
    assert!(key.is_empty() || file.metadata().contains(key) || matches!(spoil, Spoil::Key(..)), "{key} is not there");
    writer.copy_all_meta(file.metadata(), |name| name != key).expect("metadata");
    if let Spoil::Key(key, value) = spoil {
        writer.meta(key, value.clone()).expect("a key");
    }
    for view in file.views() {
        let name = view.info.name.as_str();
        match spoil {
            Spoil::NoTensor(gone) if *gone == name => {}
            Spoil::Longer(longer) if *longer == name => {
                let TensorView { info, data, .. } = view;
                let data = [data, &[0; 4]].concat();
                writer.tensor(name, &[info.dims[0] + 1], info.ggml_type, data).expect("a tensor");
            }
            _ => {
                writer.copy_tensor(view).expect("a tensor");
            }
        }
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).expect("bytes");
    GgufFile::from_vec(bytes).expect("a GGUF")
}

#[test]
fn errors_name_the_key_or_the_tensor() {
    let cases: &[(&str, Spoil, &[&str])] = &[
        ("gen-qwen2", Spoil::Longer("blk.1.attn_k.bias"), &["`blk.1.attn_k.bias`", "the metadata asks for"]),
        ("gen-qwen2", Spoil::NoTensor("blk.0.attn_v.bias"), &["`blk.0.attn_v.bias` is missing"]),
        ("gen-gpt2", Spoil::Longer("blk.0.attn_qkv.bias"), &["`blk.0.attn_qkv.bias`"]),
        ("gen-gpt2", Spoil::NoTensor("position_embd.weight"), &["`position_embd.weight` is missing"]),
        ("gen-gpt2", Spoil::Without("gpt2.attention.layer_norm_epsilon"), &["gpt2.attention.layer_norm_epsilon"]),
        ("gen-qwen3", Spoil::Key("qwen3.attention.key_length", 33u32.into()), &["value heads of width 96", "width 33"]),
        (
            "gen-qwen2",
            Spoil::Key("qwen2.rope.dimension_count", 33u32.into()),
            &["qwen2.rope.dimension_count", "33", "even"],
        ),
        ("gen-qwen3", Spoil::Longer("blk.0.attn_q_norm.weight"), &["`blk.0.attn_q_norm.weight`"]),
        ("gen-maple", Spoil::Without("maple.expert_used_count"), &["lacks `maple.expert_used_count`"]),
        (
            "gen-maple",
            Spoil::Key("maple.expert_used_count", 99u32.into()),
            &["maple.expert_used_count", "99", "1 to 4"],
        ),
        ("gen-maple", Spoil::Without("maple.attention.sliding_window_pattern"), &["sliding_window_pattern"]),
        ("gen-maple", Spoil::NoTensor("blk.0.ffn_up_exps.weight"), &["`blk.0.ffn_up_exps.weight` is missing"]),
        ("gen-llama-yarn", Spoil::Without("llama.rope.scaling.factor"), &["lacks `llama.rope.scaling.factor`"]),
        ("gen-llama-longrope", Spoil::NoTensor("rope_factors_long.weight"), &["`rope_factors_long.weight` is missing"]),
        ("gen-gemma3", Spoil::NoTensor("blk.0.post_ffw_norm.weight"), &["`blk.0.post_ffw_norm.weight` is missing"]),
        ("gen-gemma3", Spoil::Key("gemma3.final_logit_softcapping", 30f32.into()), &["final_logit_softcapping"]),
    ];
    let pool = pool(1).expect("a pool");
    for (name, spoil, words) in cases {
        let file = sound(name, "f32");
        load(file.clone(), Some(I2sLayout::X86), best(), &pool).unwrap_or_else(|e| panic!("{name} is sound: {e}"));
        let Err(error) = load(spoilt(&file, spoil), Some(I2sLayout::X86), best(), &pool) else {
            panic!("{name} was loaded, expected {words:?}")
        };
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {words:?} in {text}");
    }
}

/// An operation that a device has no kernel for is refused by name before anything is computed.
#[test]
fn a_card_refuses_what_it_has_no_kernel_for() {
    let pool = pool(1).expect("a pool");
    let Ok(opened) = device::open(device::cuda::EMULATED, &Settings::default()) else {
        panic!("the emulation needs a C++ compiler: apt-get install g++")
    };
    for (name, operation) in
        [("gen-qwen2", "`bias`"), ("gen-gpt2", "`positions`"), ("gen-gemma3", "`scale`"), ("gen-maple", "`attention`")]
    {
        let file = sound(name, if name == "gen-gpt2" { "f16" } else { "f32" });
        let loaded = load(file, Some(I2sLayout::X86), best(), &pool).expect("a sound model");
        let options = SessionOptions { card: opened.card.clone(), ..SessionOptions::new(best(), Arc::clone(&pool)) };
        let Err(error) = Session::new(Arc::clone(&loaded.model), options) else { panic!("{name} ran") };
        assert!(error.to_string().contains(operation), "{name}: {operation} in {error}");
    }
}
