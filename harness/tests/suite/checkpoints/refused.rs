//! Folders that are damaged, foreign or ask for another graph: an error that names what and where, and no file.

use super::folder::{Tensor, Tensors, floats, packed, safetensors};
use super::tokens::small;
use super::{check, convert, trial};
use bitnet_harness::Failure;
use bitnet_harness::roster::Named;
use serde_json::{Value, json};
use std::path::Path;

/// Spoils a small llama checkpoint: its folder, its config.json.
type Spoil = fn(&Path, &mut Value) -> Result<(), Failure>;

/// Name, spoiling, words of the error.
type Case = (&'static str, Spoil, &'static str);

/// Converted to f16.
const CASES: &[Case] = &[
    ("no-config", |dir, _| Ok(std::fs::rename(dir.join("config.json"), dir.join("x"))?), "config.json"),
    ("config-no-object", |_, config| set(config, json!([])), "config.json|not a JSON object"),
    (
        "no-tensors",
        |dir, _| Ok(std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin"))?),
        "model.safetensors|pytorch_model.bin|safe_serialization",
    ),
    ("truncated", |dir, _| cut(dir, 100), "model.safetensors"),
    ("empty", |dir, _| Ok(std::fs::write(dir.join("model.safetensors"), [])?), "model.safetensors"),
    (
        "header-beyond",
        |dir, _| Ok(std::fs::write(dir.join("model.safetensors"), u64::MAX.to_le_bytes())?),
        "model.safetensors|header",
    ),
    ("overlap", |dir, _| overlap(dir), "model.safetensors|offset"),
    (
        "index-leaves",
        |dir, _| index(dir, json!({"weight_map": {"a": "../model.safetensors"}})),
        "index.json|`a`|this folder",
    ),
    ("index-absolute", |dir, _| index(dir, json!({"weight_map": {"a": "/etc/x.safetensors"}})), "index.json|`a`"),
    ("index-lies", |dir, _| index(dir, json!({"weight_map": {"b": "part.safetensors"}})), "`b`|none of the files"),
    ("index-no-map", |dir, _| index(dir, json!({})), "weight_map"),
    (
        "architecture",
        |_, config| {
            put(config, "architectures", json!(["MambaForCausalLM"])).and(put(config, "model_type", json!("mamba")))
        },
        "MambaForCausalLM|LlamaForCausalLM",
    ),
    ("activation", |_, config| put(config, "hidden_act", json!("gelu")), "hidden_act|`gelu`|silu"),
    ("no-size", |_, config| put(config, "hidden_size", Value::Null), "`hidden_size`|missing"),
    ("size-text", |_, config| put(config, "hidden_size", json!("32")), "`hidden_size`|not a count"),
    ("heads", |_, config| put(config, "num_key_value_heads", json!(3)), "num_key_value_heads|3"),
    ("rope-dynamic", |_, config| put(config, "rope_scaling", json!({"type": "dynamic", "factor": 2.0})), "`dynamic`"),
    ("rope-no-factor", |_, config| put(config, "rope_scaling", json!({"rope_type": "linear"})), "factor"),
    (
        "rope-mscale",
        |_, config| put(config, "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0})),
        "mscale",
    ),
    (
        "rope-short",
        |_, config| {
            put(config, "rope_scaling", json!({"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}))
        },
        "long_factor|8 numbers",
    ),
    ("window", |_, config| put(config, "use_sliding_window", json!(true)), "use_sliding_window"),
    ("method", |_, config| put(config, "quantization_config", json!({"quant_method": "gptq"})), "`gptq`"),
    ("mode", |_, config| quantized(config, "quantization_mode", json!("later")), "quantization_mode|`later`"),
    (
        "floats-where-packed",
        |_, config| quantized(config, "linear_class", json!("bitlinear")),
        "q_proj.weight|F16|packed",
    ),
    (
        "missing",
        |dir, _| edit(dir, |tensors| tensors.retain(|(name, _)| !name.contains("up_proj"))),
        "model.layers.0.mlp.up_proj.weight|llama",
    ),
    (
        "unknown",
        |dir, _| edit(dir, |tensors| tensors.push(("model.extra.weight".into(), floats("F32", &[1], &[0.0])))),
        "`model.extra.weight`|llama",
    ),
    (
        "bias",
        |dir, _| {
            edit(dir, |tensors| {
                tensors.push(("model.layers.0.self_attn.q_proj.bias".into(), floats("F32", &[32], &[0.0; 32])))
            })
        },
        "q_proj.bias",
    ),
    ("more-blocks", |_, config| put(config, "num_hidden_layers", json!(2)), "model.layers.1.input_layernorm.weight"),
    ("shape", |_, config| put(config, "intermediate_size", json!(64)), "gate_proj.weight|[32, 32]|[64, 32]"),
    ("dtype", |dir, _| edit(dir, |tensors| find(tensors, "norm.weight").dtype = "I16".into()), "norm.weight|I16"),
    (
        "dtype-packed",
        |dir, _| {
            edit(dir, |tensors| {
                let tensor = find(tensors, "up_proj.weight");
                (tensor.dtype, tensor.shape) = ("I8".into(), vec![8, 32]);
                tensor.data.truncate(256);
            })
        },
        "up_proj.weight|I8",
    ),
    (
        "packed-alone",
        |dir, _| edit(dir, |tensors| *find(tensors, "up_proj.weight") = packed(&[0; 1024], 32, 32)),
        "up_proj.weight|quantization_config",
    ),
    ("no-scale", |dir, config| pack(dir, config, &[0; 1024], None), "up_proj.weight|weight_scale"),
    ("scale-zero", |dir, config| pack(dir, config, &[0; 1024], Some(0.0)), "weight_scale|not a scale"),
    ("scale-nan", |dir, config| pack(dir, config, &[0; 1024], Some(f32::NAN)), "weight_scale|NaN"),
    ("code", |dir, config| pack(dir, config, &[2; 1024], Some(1.0)), "ffn_up.weight|no ternary weight"),
    ("norm-epsilon", |_, config| quantized(config, "use_rms_norm", json!(true)), "epsilon"),
    (
        "tokens",
        |dir, _| Ok(std::fs::write(dir.join("tokenizer.json"), tokenizer(80).to_string())?),
        "80 tokens|64 rows",
    ),
    ("tokenizer-damaged", |dir, _| Ok(std::fs::write(dir.join("tokenizer.json"), "{\"model\":")?), "tokenizer.json"),
    (
        "template",
        |dir, _| Ok(std::fs::write(dir.join("tokenizer_config.json"), "{\"chat_template\": 7}")?),
        "chat_template",
    ),
];

/// By format.
const OTHERS: &[(&str, Case)] = &[
    ("i2_s", ("not-ternary", |dir, _| widen(dir), "attn_q.weight|i2_s")),
    ("tq2_0", ("master-nan", |dir, config| master(dir, config, f32::NAN), "attn_q.weight|NaN")),
    ("i2_s", ("columns", |_, _| Ok(()), "attn_q.weight|128")),
];

pub(crate) fn trials() -> Vec<Named> {
    let cases = CASES.iter().map(|case| ("f16", *case)).chain(OTHERS.iter().copied());
    cases.map(|(format, case)| trial(format!("refused::{}", case.0), move || refused(format, case))).collect()
}

fn refused(format: &str, (_, spoil, words): Case) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let before = small(dir.path(), 64)?;
    let mut config = before.clone();
    spoil(dir.path(), &mut config)?;
    if config != before {
        std::fs::write(dir.path().join("config.json"), config.to_string())?;
    }
    let to = tempfile::tempdir()?;
    let Err(error) = convert(dir.path(), format, false, to.path()) else {
        return Err(Failure::new("it was converted"));
    };
    let text = error.to_string();
    for word in words.split('|') {
        check(text.contains(word), format_args!("no `{word}` in: {text}"))?;
    }
    check(std::fs::read_dir(to.path())?.count() == 0, "a file is left")
}

fn set(config: &mut Value, value: Value) -> Result<(), Failure> {
    *config = value;
    Ok(())
}

fn put(config: &mut Value, key: &str, value: Value) -> Result<(), Failure> {
    set(&mut config[key], value)
}

fn quantized(config: &mut Value, key: &str, value: Value) -> Result<(), Failure> {
    put(config, "quantization_config", json!({ "quant_method": "bitnet", key: value }))
}

fn cut(dir: &Path, by: usize) -> Result<(), Failure> {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path)?;
    Ok(std::fs::write(path, &bytes[..bytes.len() - by])?)
}

/// Two tensors at the same place.
fn overlap(dir: &Path) -> Result<(), Failure> {
    let header = json!({
        "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, "b": {"dtype": "F16", "shape": [2], "data_offsets": [2, 6]},
    });
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 6]].concat();
    Ok(std::fs::write(dir.join("model.safetensors"), bytes)?)
}

/// An index, in the place of the one file.
fn index(dir: &Path, value: Value) -> Result<(), Failure> {
    std::fs::rename(dir.join("model.safetensors"), dir.join("part.safetensors"))?;
    Ok(std::fs::write(dir.join("model.safetensors.index.json"), value.to_string())?)
}

/// Reads a file of [`safetensors`] back.
pub(crate) fn tensors(dir: &Path) -> Result<Tensors, Failure> {
    let bytes = std::fs::read(dir.join("model.safetensors"))?;
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| Failure::new("no header"))?;
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header)?;
    let number = |value: &Value| value.as_u64().unwrap_or_default() as usize;
    let one = |(name, info): (&String, &Value)| {
        let range = number(&info["data_offsets"][0])..number(&info["data_offsets"][1]);
        let shape = info["shape"].as_array().into_iter().flatten().map(number).collect();
        let dtype = info["dtype"].as_str().unwrap_or_default().to_owned();
        (name.clone(), Tensor { dtype, shape, data: data[range].to_vec() })
    };
    Ok(header.as_object().into_iter().flatten().map(one).collect())
}

pub(crate) fn edit(dir: &Path, change: impl FnOnce(&mut Tensors)) -> Result<(), Failure> {
    let mut all = tensors(dir)?;
    change(&mut all);
    Ok(std::fs::write(dir.join("model.safetensors"), safetensors(&all))?)
}

pub(crate) fn find<'t>(tensors: &'t mut Tensors, end: &str) -> &'t mut Tensor {
    let found = tensors.iter_mut().find(|(name, _)| name.ends_with(end));
    &mut found.unwrap_or_else(|| panic!("a tensor `{end}`")).1
}

/// A packed `up_proj` among modules that are exempt.
fn pack(dir: &Path, config: &mut Value, codes: &[i8], scale: Option<f32>) -> Result<(), Failure> {
    let exempt = ["self_attn", "gate_proj", "down_proj"];
    put(config, "quantization_config", json!({ "quant_method": "bitnet", "modules_to_not_convert": exempt }))?;
    edit(dir, |tensors| {
        *find(tensors, "up_proj.weight") = packed(codes, 32, 32);
        if let Some(scale) = scale {
            tensors.push(("model.layers.0.mlp.up_proj.weight_scale".into(), floats("BF16", &[1], &[scale])));
        }
    })
}

/// The tensors of a model 128 wide, with weights that are not ternary.
fn widen(dir: &Path) -> Result<(), Failure> {
    resize(dir, |i| if i % 2 == 0 { 0.5 } else { 0.25 })
}

fn master(dir: &Path, config: &mut Value, odd: f32) -> Result<(), Failure> {
    quantized(config, "quantization_mode", json!("online"))?;
    set(config, merged(config.clone(), json!({ "hidden_size": 256, "intermediate_size": 256 })))?;
    scaled(dir, 256, |i| if i == 300 { odd } else { 0.5 })
}

fn merged(mut config: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn resize(dir: &Path, value: impl Fn(usize) -> f32 + Copy) -> Result<(), Failure> {
    let path = dir.join("config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let config = merged(config, json!({ "hidden_size": 128, "intermediate_size": 128 }));
    std::fs::write(&path, config.to_string())?;
    scaled(dir, 128, value)
}

fn scaled(dir: &Path, width: usize, value: impl Fn(usize) -> f32 + Copy) -> Result<(), Failure> {
    edit(dir, |tensors| {
        for (_, tensor) in tensors.iter_mut() {
            let shape: Vec<usize> = tensor.shape.iter().map(|&n| if n == 32 { width } else { n }).collect();
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            *tensor = floats("F16", &shape, &values);
        }
    })
}

/// A byte-level tokenizer.json of so many tokens, of which one is a merge.
pub(crate) fn tokenizer(tokens: usize) -> Value {
    let mut vocab: serde_json::Map<String, Value> =
        (1..tokens as u32).map(|id| (char::from_u32(0x100 + id).unwrap_or('?').to_string(), json!(id))).collect();
    vocab.insert("\u{101}\u{102}".to_owned(), json!(0));
    json!({
        "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["\u{101} \u{102}"]},
    })
}
