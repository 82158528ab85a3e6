use super::*;
use crate::convert::ConvertError;
use crate::device;
use bitnet_kernels::Pool;
use bitnet_kernels::quant::Storage;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A small config.json with what `more` has; `null` takes a key away.
fn config(model_type: &str, more: &Value) -> Value {
    let class = FORMS.iter().find(|form| form.types.contains(&model_type)).unwrap().classes[0];
    let mut config = json!({
        "architectures": [class], "model_type": model_type, "hidden_size": 32, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 40,
        "max_position_embeddings": 64,
    });
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => _ = config.as_object_mut().unwrap().remove(key),
            value => config[key] = value.clone(),
        }
    }
    config
}

/// A folder with the tensors that the family asks for; a head of its own where there is a name for it.
fn folder(config: &Value, head: Option<&str>) -> tempfile::TempDir {
    let object = Object::new(config);
    let (form, _) = form_of(object).unwrap();
    let defaults = defaults::of(config["model_type"].as_str().unwrap(), form.types);
    let sizes = Sizes::read(object, defaults, false).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut state = 1_u32;
    let mut add = |name: String, shape: Vec<usize>| {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend((if shape.len() == 1 { 1.0 + value } else { value }).to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    };
    let shape = |what: What| -> Vec<usize> {
        let of = |width: Width| width.of(&sizes);
        match what {
            What::Table(rows) => vec![of(rows), sizes.hidden],
            What::Head => vec![sizes.vocab, sizes.hidden],
            What::Matrix(rows, cols) | What::Permuted(rows, cols) => vec![of(rows), of(cols)],
            What::Transposed(rows, cols) => vec![of(cols), of(rows)],
            What::Vector(length) | What::PlusOne(length) => vec![of(length)],
        }
    };
    for part in form.first.iter().chain(form.last).filter(|part| part.what != What::Head) {
        add(format!("{}{}", form.prefix, part.names[0]), shape(part.what));
    }
    for (block, part) in (0..sizes.layers).flat_map(|b| form.block.iter().copied().flatten().map(move |part| (b, part)))
    {
        add(format!("{}{}{block}.{}", form.prefix, form.blocks, part.names[0]), shape(part.what));
    }
    if let Some(head) = head {
        add(head.to_owned(), shape(What::Head));
    }
    let dir = tempfile::tempdir().unwrap();
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn verify(checkpoint: &Checkpoint, to: &Path, context: Option<usize>) -> Result<Written, CheckpointError> {
    let options = ToGguf {
        linear: Storage::by_name("f32").unwrap(),
        embedding: None,
        verify: true,
        context,
        kernels: device::kernels("cpu-scalar").unwrap(),
        pool: &Arc::new(Pool::new(1).unwrap()),
    };
    checkpoint.to_gguf(&options, &to.join("model.gguf"), &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn absent_keys_mean_what_the_classes_of_transformers_say() {
    let gemma = json!({ "head_dim": null, "num_attention_heads": 8, "num_key_value_heads": null });
    for (model_type, more, keys) in [
        ("llama", json!({}), &[("rope.freq_base", 1e4), ("attention.layer_norm_rms_epsilon", 1e-6)][..]),
        ("bitnet", json!({}), &[("rope.freq_base", 5e5), ("attention.layer_norm_rms_epsilon", 1e-5)]),
        ("bitnet", json!({ "rope_theta": 7.0 }), &[("rope.freq_base", 7.0)]),
        ("qwen2", json!({}), &[("rope.freq_base", 1e4), ("attention.layer_norm_rms_epsilon", 1e-6)]),
        ("qwen3", json!({ "head_dim": null }), &[("rope.freq_base", 1e4), ("attention.key_length", 128.0)]),
        ("llama", json!({ "max_position_embeddings": null }), &[("context_length", 2048.0)]),
        (
            "bitnet",
            json!({ "num_attention_heads": 10, "num_key_value_heads": null }),
            &[("attention.head_count_kv", 5.0)],
        ),
        (
            "gemma3_text",
            gemma,
            &[
                ("rope.freq_base", 1e6),
                ("rope.freq_base_swa", 1e4),
                ("attention.sliding_window", 4096.0),
                ("attention.head_count_kv", 4.0),
                ("attention.key_length", 256.0),
            ],
        ),
    ] {
        let dir = folder(&config(model_type, &more), (model_type != "gemma3_text").then_some(LM_HEAD));
        let checkpoint = open(dir.path()).unwrap();
        for (key, expected) in keys {
            let found = match checkpoint.key(key) {
                Some(MetaValue::F32(value)) => *value,
                Some(MetaValue::U32(value)) => *value as f32,
                other => panic!("{model_type} {key}: {other:?}"),
            };
            assert_eq!(found, *expected as f32, "{model_type} {more}: {key}");
        }
    }
    let scalar = open(folder(&config("gemma3_text", &json!({})), None).path()).unwrap_err().to_string();
    assert!(scalar.contains("query_pre_attn_scalar"), "{scalar}");
    let mut none = config("gemma3_text", &json!({ "query_pre_attn_scalar": 16 }));
    none["sliding_window"] = Value::Null;
    let window = open(folder(&none, None).path()).unwrap_err().to_string();
    assert!(window.contains("sliding_window"), "{window}");
}

#[test]
fn verify_sees_another_rotation() {
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16 });
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    let long = json!({
        "rope_type": "longrope", "original_max_position_embeddings": 16, "long_factor": [9, 9, 9, 9, 9, 9, 9, 9],
        "short_factor": [1.0, 1.5, 2, 2, 3, 3, 4, 4],
    });
    let gemma = json!({ "query_pre_attn_scalar": 16, "sliding_window_pattern": 2 });
    let spoilt = |model_type: &str, more: &Value, spoil: &dyn Fn(&mut Graph)| {
        let dir = folder(&config(model_type, more), None);
        let mut checkpoint = open(dir.path()).unwrap();
        let written = verify(&checkpoint, dir.path(), None).unwrap_or_else(|e| panic!("{model_type} {more}: {e}"));
        assert_eq!(written.comparison.unwrap().tokens, 12);
        spoil(&mut checkpoint.graph);
        let error = verify(&checkpoint, dir.path(), None).unwrap_err();
        let seen = matches!(error, CheckpointError::Convert(ConvertError::Different(_)));
        assert!(seen, "{model_type} {more}: {error}");
    };
    let set = |name: &'static str, value: f32| {
        move |graph: &mut Graph| graph.keys.iter_mut().filter(|(key, _)| *key == name).for_each(|k| k.1 = value.into())
    };
    let ones = |graph: &mut Graph| graph.tensors.iter_mut().for_each(|(_, factors)| factors.fill(1.0));
    spoilt("llama", &json!({}), &set("rope.freq_base", 500.0));
    spoilt("llama", &json!({ "rope_scaling": { "type": "linear", "factor": 4.0 } }), &set("rope.scaling.factor", 2.0));
    spoilt("llama", &json!({ "rope_scaling": llama3 }), &ones);
    spoilt("llama", &json!({ "rope_scaling": yarn }), &set("rope.scaling.factor", 16.0));
    spoilt("llama", &json!({ "rope_parameters": long }), &ones);
    spoilt("gemma3_text", &gemma, &set("rope.freq_base", 1e3));
    spoilt("gemma3_text", &gemma, &set("rope.freq_base_swa", 1e2));
}

#[test]
fn a_context_bounds_what_is_compared() {
    let dir = folder(&config("llama", &json!({})), None);
    let written = verify(&open(dir.path()).unwrap(), dir.path(), Some(4)).unwrap();
    assert_eq!(written.comparison.unwrap().tokens, 4);
}

#[test]
fn ids_and_templates_that_nobody_can_use_are_named() {
    let dir = folder(&config("llama", &json!({})), None);
    let codes = |generation: &str, template: &str| {
        std::fs::write(dir.path().join("generation_config.json"), generation).unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        let written = verify(&open(dir.path()).unwrap(), dir.path(), None).unwrap();
        let odd = written.diagnostics.iter().map(|found| found.code).filter(|code| *code != "no_tokenizer");
        odd.collect::<Vec<_>>()
    };
    let good = ("{\"eos_token_id\": [1, 39]}", "{% for m in messages %}{{ m.content }}{% endfor %}");
    assert!(codes(good.0, good.1).is_empty());
    for generation in ["{\"eos_token_id\": 40}", "{\"eos_token_id\": [-1]}", "{"] {
        assert_eq!(codes(generation, good.1), ["generation_config"], "{generation}");
    }
    assert_eq!(codes(good.0, "{% for m in messages %}"), ["template_syntax"]);
}

#[test]
fn a_head_that_is_not_used_is_named() {
    let codes = |tied: bool, head| {
        let dir = folder(&config("qwen2", &json!({ "tie_word_embeddings": tied })), head);
        open(dir.path()).unwrap().warnings.iter().map(|warning| warning.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(true, Some(LM_HEAD)), ["head_left_out"]);
    assert!(codes(false, Some(LM_HEAD)).is_empty() && codes(true, None).is_empty());
}
