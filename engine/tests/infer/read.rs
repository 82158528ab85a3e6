//! What is read from a model's keys: sizes, rotation, rounding of activations.

use crate::model_support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_engine::load::load;
use bitnet_engine::model::Model;
use bitnet_engine::ops::RopeSpec;
use std::sync::Arc;

fn model(change: impl FnOnce(&mut Small)) -> Arc<Model> {
    let mut small = Small::new();
    change(&mut small);
    small.load().unwrap().model
}

/// Heads of 32 elements, all of which turn.
const PAIRS: usize = 16;

#[test]
fn sizes() {
    let config = |change: fn(&mut Small)| model(change).config.clone();
    let plain = config(|_| {});
    assert_eq!(plain.architecture, ARCH);
    assert_eq!((plain.vocab_size, plain.context_length, plain.embedding_length), (VOCAB, CONTEXT, HIDDEN));
    assert_eq!((plain.block_count, plain.feed_forward_length), (1, FFN));
    assert_eq!((plain.heads, plain.kv_heads, plain.head_dim), (4, 2, 32));
    assert_eq!((plain.query_width(), plain.kv_width()), (HIDDEN, KV));
    let none = config(|m| {
        m.set_arch("expert_count", 0u32);
    });
    assert_eq!(none, plain, "no experts");
    // Without the key the embedding says how many tokens there are; a head may have a width of its own.
    let other = config(|m| {
        m.remove_arch("vocab_size").set_arch("attention.head_count", 8u32).set_arch("attention.head_count_kv", 4u32);
        m.set_arch("attention.key_length", 16u32).set_arch("attention.value_length", 16u32);
        m.remove_arch("rope.dimension_count");
    });
    assert_eq!((other.vocab_size, other.heads, other.kv_heads, other.head_dim), (VOCAB, 8, 4, 16));
    assert_eq!((other.query_width(), other.kv_width()), (HIDDEN, KV));
}

#[test]
fn rotations() {
    let rope = |change: &dyn Fn(&mut Small)| model(|m| change(m)).ropes[0].clone();
    let plain = RopeSpec { dims: 32, theta: 10_000.0, factors: None, magnitude: 1.0, beyond: None };
    let by = |factor: f32| RopeSpec { factors: Some(vec![factor; PAIRS]), ..plain.clone() };
    assert_eq!(rope(&|_| {}), plain);
    assert_eq!(
        rope(&|m| {
            m.set_arch("rope.freq_base", 5e5f32);
        }),
        RopeSpec { theta: 5e5, ..plain.clone() }
    );
    assert_eq!(
        rope(&|m| {
            m.set_arch("rope.dimension_count", 16u32);
        }),
        RopeSpec { dims: 16, ..plain.clone() }
    );
    assert_eq!(
        rope(&|m| {
            m.remove_arch("rope.dimension_count");
        }),
        plain
    );
    // Linear: by either key, the newer one first; 0 and 1 mean none.
    let (new, old) = ("rope.scaling.factor", "rope.scale_linear");
    for (keys, kind, expected) in [
        (&[(new, 2f32)][..], None, by(2.0)),
        (&[(old, 3.0)], None, by(3.0)),
        (&[(new, 2.0), (old, 3.0)], Some("linear"), by(2.0)),
        (&[(new, 0.0)], Some("linear"), plain.clone()),
        (&[(new, 1.0)], Some("linear"), plain.clone()),
        (&[(new, 2.0)], Some("none"), plain.clone()),
    ] {
        let found = rope(&|m| {
            keys.iter().for_each(|(name, value)| {
                m.set_arch(name, *value);
            });
            kind.into_iter().for_each(|kind| {
                m.set_arch("rope.scaling.type", kind);
            });
        });
        assert_eq!(found, expected, "{keys:?} {kind:?}");
    }
    // The file's own divisors, and both together.
    let own: Vec<f32> = (1..=PAIRS).map(|i| i as f32).collect();
    let freqs = |m: &mut Small| {
        m.add("rope_freqs.weight", &[PAIRS as u64], "f32", &own);
    };
    assert_eq!(rope(&freqs).factors.as_ref(), Some(&own));
    let both = rope(&|m| {
        freqs(m);
        m.set_arch(new, 2f32);
    });
    assert_eq!(both.factors, Some(own.iter().map(|f| 2.0 * f).collect()));
    for (value, sound) in [(1e-6f32, true), (9e-7, false), (-1.0, false)] {
        let mut small = Small::new();
        let mut divisors = own.clone();
        divisors[3] = value;
        small.add("rope_freqs.weight", &[PAIRS as u64], "f32", &divisors);
        let loaded = small.load();
        assert_eq!(loaded.is_ok(), sound, "{value}");
        assert!(loaded.map_or_else(|e| e.to_string().contains("`rope_freqs.weight`: element 3"), |_| true));
    }
}

#[test]
fn rotations_of_long_contexts() {
    let yarn = |factor: f32, attn: Option<f32>| {
        let model = model(|m| {
            m.set_arch("rope.scaling.type", "yarn").set_arch("rope.scaling.factor", factor);
            m.set_arch("rope.scaling.original_context_length", 64u32);
            attn.into_iter().for_each(|attn| {
                m.set_arch("rope.scaling.attn_factor", attn);
            });
        });
        model.ropes[0].clone()
    };
    // In 64 positions no pair turns 32 times, and from the fifth on none turns once: between them it is mixed.
    let found = yarn(4.0, None);
    let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
    let expected = [1.0, 1.0 / 0.85, 1.0 / 0.7, 1.0 / 0.55, 1.0 / 0.4, 4.0];
    let factors = found.factors.unwrap();
    assert!(factors.iter().zip(expected).all(|(a, b)| near(*a, b)), "{factors:?}");
    assert!(factors.len() == PAIRS && factors[5..].iter().all(|f| *f == 4.0), "{factors:?}");
    assert!(near(found.magnitude, 1.0 + 0.1 * 4f32.ln()) && found.beyond.is_none(), "{}", found.magnitude);
    assert!(near(yarn(4.0, Some(0.5)).magnitude, 0.5 * (1.0 + 0.1 * 4f32.ln())));
    assert_eq!(yarn(0.5, None).magnitude, 1.0, "never less");
    let long = model(|m| {
        m.set_arch("rope.scaling.type", "longrope").set_arch("rope.scaling.original_context_length", 32u32);
        m.set_arch("rope.scaling.attn_factor", 1.5f32);
        m.add("rope_factors_long.weight", &[PAIRS as u64], "f32", &[3.0; PAIRS]);
        m.add("rope_factors_short.weight", &[PAIRS as u64], "f32", &[2.0; PAIRS]);
    });
    let expected = RopeSpec {
        dims: 32,
        theta: 10_000.0,
        factors: Some(vec![2.0; PAIRS]),
        magnitude: 1.5,
        beyond: Some((32, vec![3.0; PAIRS])),
    };
    assert_eq!(long.ropes, [expected]);
}

#[test]
fn roundings() {
    let llama = |m: &mut Small| {
        m.keys.iter_mut().for_each(|(key, _)| *key = key.replace(ARCH, "llama"));
        m.set("general.architecture", "llama");
        m.drop_tensor("blk.0.attn_sub_norm.weight").drop_tensor("blk.0.ffn_sub_norm.weight");
    };
    let all_as = |m: &mut Small, kind: &str| {
        for name in m.tensors.iter().map(|t| (t.name.clone(), t.dims.clone())).collect::<Vec<_>>() {
            if name.0.starts_with("blk.") && name.1.len() == 2 {
                m.matrix(&name.0, kind, name.1[1] as usize, name.1[0] as usize);
            }
        }
    };
    type Change<'a> = &'a dyn Fn(&mut Small);
    let cases: [(Change<'_>, &str, &str); 5] = [
        (&|_| {}, "int8-token", "models of architecture bitnet-b1.58 are trained so"),
        (
            &|m| {
                m.set("bitnet.activations", "float");
            },
            "float",
            "`bitnet.activations` says so",
        ),
        (
            &|m| {
                m.set("bitnet.activations", "int8-block32");
            },
            "int8-block32",
            "`bitnet.activations` says so",
        ),
        (&|m| llama(m), "int8-token", "i2_s is a format for models that were trained so"),
        (
            &|m| {
                llama(m);
                all_as(m, "f16");
            },
            "int8-block32",
            "nothing says that architecture llama was trained with int8 activations",
        ),
    ];
    for (change, name, why) in cases {
        let rounding = model(|m| change(m)).rounding.clone();
        assert_eq!((rounding.name(), rounding.why.as_str()), (name, why));
    }
}

/// Of a split model the file is named that holds what is wrong.
#[test]
fn the_part_is_named_that_holds_the_tensor() {
    let (dir, mut small, name) = (tempfile::tempdir().unwrap(), Small::new(), "blk.0.ffn_down.weight");
    small.put(name, &[256, 128], 16, vec![0; 128 * 66]);
    let whole = small.load().map(drop).unwrap_err().to_string();
    assert!(whole.starts_with(&format!("tensor `{name}` at byte")), "{whole}");
    let mut writer = GgufWriter::new(3, 32).unwrap();
    small.keys.iter().for_each(|(key, value)| {
        writer.meta(key, value.clone()).unwrap();
    });
    for t in &small.tensors {
        writer.tensor(&t.name, &t.dims, t.ggml_type, t.data.as_slice()).unwrap();
    }
    let parts = writer.write_parts(&dir.path().join("m.gguf"), 4).unwrap().paths;
    let part = small.tensors.iter().position(|t| t.name == name).unwrap() / 4;
    assert!(part > 0, "another file than the one that is opened");
    let error = load(GgufFile::open(&parts[0]).unwrap(), None, kernels(), &pool(1)).map(drop).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: tensor `{name}` at byte", parts[part].display())), "{error}");
}

/// The small model's keys under another architecture's name, and none of its blocks.
fn as_family(architecture: &str) -> Small {
    let mut small = Small::new();
    small.keys.iter_mut().for_each(|(key, _)| *key = key.replace(ARCH, architecture));
    small.set("general.architecture", architecture);
    small.tensors.retain(|t| !t.name.starts_with("blk."));
    small
}

fn plan(small: &Small) -> Vec<String> {
    let loaded = small.load().unwrap();
    let logits = logits_bits(&mut session(&loaded.model, None, 8), &[1, 5, 9]);
    assert!(logits.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()));
    loaded.model.plan.iter().map(|step| step.name.clone()).collect()
}

#[test]
fn gpt_2_has_biases_and_learnt_positions() {
    let mut small = as_family("gpt2");
    small.set("gpt2.attention.layer_norm_epsilon", 1e-5f32);
    small.matrix("position_embd.weight", "f16", CONTEXT, HIDDEN);
    let both = |small: &mut Small, name: &str, rows: usize, cols: usize| {
        small.matrix(&format!("{name}.weight"), "f16", rows, cols);
        small.add(&format!("{name}.bias"), &[rows as u64], "f32", &vec![0.1; rows]);
    };
    both(&mut small, "blk.0.attn_qkv", HIDDEN + 2 * KV, HIDDEN);
    both(&mut small, "blk.0.attn_output", HIDDEN, HIDDEN);
    both(&mut small, "blk.0.ffn_up", FFN, HIDDEN);
    both(&mut small, "blk.0.ffn_down", HIDDEN, FFN);
    for norm in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"] {
        small.add(&format!("{norm}.weight"), &[HIDDEN as u64], "f32", &[1.0; HIDDEN]);
        small.add(&format!("{norm}.bias"), &[HIDDEN as u64], "f32", &[0.1; HIDDEN]);
    }
    let block = "attn_norm attn_qkv attn_qkv_bias attn_split cache attn attn_output attn_output_bias attn_residual ffn_norm ffn_up \
                 ffn_up_bias ffn_act ffn_down ffn_down_bias ffn_residual";
    let block = block.split_whitespace().map(|part| format!("blk.0.{part}"));
    let expected = ["token_embd", "position_embd"].map(str::to_owned).into_iter().chain(block);
    let end = ["select_rows", "output_norm", "output"].map(str::to_owned);
    assert_eq!(plan(&small), expected.chain(end).collect::<Vec<_>>());
    assert_eq!(small.load().unwrap().model.positions, Some(CONTEXT));
}

#[test]
fn maple_has_experts() {
    const EXPERTS: usize = 3;
    let mut small = as_family("maple");
    for (key, value) in [
        ("expert_count", EXPERTS as u32),
        ("expert_used_count", 2),
        ("expert_feed_forward_length", KV as u32),
        ("attention.sliding_window", 4),
        ("attention.sliding_window_pattern", 1),
    ] {
        small.set(&format!("maple.{key}"), value);
    }
    small.set("maple.swiglu_clamp_exp", vec![0f32]);
    for (part, rows, cols) in [
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", KV, HIDDEN),
        ("attn_v", KV, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_gate_inp", EXPERTS, HIDDEN),
    ] {
        small.matrix(&format!("blk.0.{part}.weight"), "f16", rows, cols);
    }
    for (part, rows, cols) in [("gate", KV, HIDDEN), ("up", KV, HIDDEN), ("down", HIDDEN, KV)] {
        let dims = [cols as u64, rows as u64, EXPERTS as u64];
        small.add(&format!("blk.0.ffn_{part}_exps.weight"), &dims, "f16", &ternary(EXPERTS * rows, cols, 3));
    }
    for (norm, width) in [("attn_norm", HIDDEN), ("ffn_norm", HIDDEN), ("attn_q_norm", 32), ("attn_k_norm", 32)] {
        small.add(&format!("blk.0.{norm}.weight"), &[width as u64], "f32", &vec![1.0; width]);
    }
    let block = "attn_norm attn_q attn_k attn_v attn_q_norm attn_k_norm cache attn attn_output attn_residual ffn_norm ffn_gate_inp \
                 ffn_experts ffn_residual";
    let block = block.split_whitespace().map(|part| format!("blk.0.{part}"));
    let expected = std::iter::once("token_embd".to_owned()).chain(block);
    let end = ["select_rows", "output_norm", "output"].map(str::to_owned);
    assert_eq!(plan(&small), expected.chain(end).collect::<Vec<_>>());
    // In a block with the window it is rotated too.
    small.set("maple.attention.sliding_window_pattern", 2u32);
    let rotated = plan(&small);
    assert!(rotated.contains(&"blk.0.attn_q_rope".to_owned()) && rotated.len() == 20, "{rotated:?}");
    small.set("maple.expert_used_count", EXPERTS as u32 + 1);
    assert!(small.load().map(drop).unwrap_err().to_string().contains("expert_used_count"));
}

#[test]
fn a_cap_of_logits_is_refused() {
    for (cap, refused) in [(Some(0f32), false), (Some(30.0), true), (None, false)] {
        let mut small = as_family("gemma3");
        cap.into_iter().for_each(|cap| {
            small.set("gemma3.final_logit_softcapping", cap);
        });
        let error = small.load().map(drop).unwrap_err().to_string();
        assert_eq!(error.contains("the model uses `gemma3.final_logit_softcapping`"), refused, "{error}");
    }
}
