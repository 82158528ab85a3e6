//! The trained tiny models, taken apart into checkpoints and converted back.

use super::folder::{Tensors, floats, packed, write};
use super::{check, convert, trial};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::{Loaded, load};
use bitnet_engine::model::Keys;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_harness::Failure;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_harness::{strings, vocabularies};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn trials(paths: &Paths) -> Vec<Named> {
    let of = |name: &'static str, class: Option<&'static str>, act: &'static str| {
        let paths = paths.clone();
        let form = class.unwrap_or("default");
        trial(format!("trained::{name}::{form}"), move || back(&paths, name, class, act))
    };
    vec![
        of("tiny-bitnet", Some("autobitlinear"), "relu2"),
        of("tiny-bitnet", None, "relu2"),
        of("tiny-bitnet-silu", Some("autobitlinear"), "silu"),
    ]
}

/// A GGUF as the checkpoint that it may have been made of, packed, with its tokenizer; and its files.
pub(crate) fn taken_apart(
    paths: &Paths,
    name: &str,
    class: Option<&str>,
    act: &str,
    folder: &Path,
) -> Result<Loaded, Failure> {
    let file = GgufFile::open(paths.golden.join(format!("models/{name}.gguf")))?;
    let loaded = load(file, None, bitnet_engine::device::kernels("auto")?, super::pool())?;
    let (model, config) = (&loaded.model, &loaded.model.config);
    let mut tensors: Tensors = Vec::new();
    for (name, matrix) in model.weights.matrices() {
        let (theirs, mut values) = (their_name(name)?, vec![0.0; matrix.rows * matrix.cols]);
        for (row, out) in values.chunks_exact_mut(matrix.cols).enumerate() {
            matrix.unpack_row(row, out);
        }
        if !matrix.format.is_ternary() {
            tensors.push((theirs, floats("F16", &[matrix.rows, matrix.cols], &values)));
            continue;
        }
        let scale = values.iter().find(|w| **w != 0.0).map_or(1.0, |w| w.abs());
        let codes: Vec<i8> = values.iter().map(|w| (w / scale) as i8).collect();
        tensors.push((theirs.clone(), packed(&codes, matrix.rows, matrix.cols)));
        let stored = if class == Some("autobitlinear") { scale } else { 1.0 / scale };
        tensors.push((format!("{theirs}_scale"), floats("F32", &[1], &[stored])));
    }
    for view in loaded.file.views().filter(|view| view.info.dims.len() == 1) {
        let values: Vec<f32> = view.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.push((their_name(&view.info.name)?, floats("F32", &[values.len()], &values)));
    }
    let keys = Keys::of(loaded.file.metadata())?;
    let json = json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": act,
        "hidden_size": config.embedding_length, "intermediate_size": config.feed_forward_length,
        "num_hidden_layers": config.block_count, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "max_position_embeddings": config.context_length,
        "vocab_size": config.vocab_size, "tie_word_embeddings": true,
        "rms_norm_eps": keys.required_float("attention.layer_norm_rms_epsilon", 0.0, 1.0)?,
        "rope_theta": keys.required_float("rope.freq_base", 1.0, 1e9)?,
        "quantization_config": { "quant_method": "bitnet", "linear_class": class },
    });
    write(folder, &json, &tensors, 1)?;
    let entry = vocabularies::by_name("tiny-bitnet").ok_or_else(|| Failure::new("no vocabulary `tiny-bitnet`"))?;
    let vocabulary = entry.load(paths)?;
    std::fs::write(folder.join("tokenizer.json"), vocabulary.json.to_string())?;
    let special = loaded.tokenizer.special();
    let text = |id: Option<u32>| -> Value {
        let bytes = id.and_then(|id| loaded.tokenizer.token_bytes(id, true));
        bytes.map_or(Value::Null, |bytes| json!(String::from_utf8_lossy(&bytes)))
    };
    let companion = json!({ "tokenizer_class": "LlamaTokenizer", "bos_token": text(special.bos), "eos_token": text(special.eos), "add_bos_token": special.add_bos });
    std::fs::write(folder.join("tokenizer_config.json"), companion.to_string())?;
    Ok(loaded)
}

fn their_name(ours: &str) -> Result<String, Failure> {
    let (place, part) = match ours.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((block, part)) => (format!("model.layers.{block}."), part),
        None => ("model.".to_owned(), ours),
    };
    let module = match part.strip_suffix(".weight").unwrap_or(part) {
        "token_embd" => "embed_tokens",
        "output_norm" => "norm",
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_sub_norm" => "self_attn.attn_sub_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_sub_norm" => "mlp.ffn_sub_norm",
        other => return Err(Failure::new(format_args!("no name for `{other}`"))),
    };
    Ok(format!("{place}{module}.weight"))
}

fn back(paths: &Paths, name: &str, class: Option<&str>, act: &str) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let original = taken_apart(paths, name, class, act, dir.path())?;
    let written = convert(dir.path(), "i2_s", false, dir.path())?;
    check(
        written.diagnostics.iter().all(|d| d.code != "tokenizer_not_written"),
        format_args!("{:?}", written.diagnostics),
    )?;
    let made = GgufFile::open(dir.path().join("model.gguf"))?;
    check(made.tensors().len() == original.file.tensors().len(), "another number of tensors")?;
    for view in original.file.views() {
        let tensor = &view.info.name;
        let found = made.tensor(tensor).ok_or_else(|| Failure::new(format_args!("{tensor} is missing")))?;
        // A scale that was divided by twice may be its neighbour.
        let codes = if class.is_none() && view.info.ggml_type == 36 { view.data.len() - 32 } else { view.data.len() };
        let same = (&found.info.dims, found.info.ggml_type) == (&view.info.dims, view.info.ggml_type)
            && found.data[..codes] == view.data[..codes];
        check(same, format_args!("{tensor} is not what it was"))?;
    }
    let made = load(made, None, bitnet_engine::device::kernels("auto")?, super::pool())?;
    let (ours, theirs) = (&made.model.config, &original.model.config);
    check(ours == theirs, format_args!("{ours:?}, not {theirs:?}"))?;
    check(made.model.rounding.act == original.model.rounding.act, "another rounding of activations")?;
    let (ours, theirs) = (made.tokenizer.special(), original.tokenizer.special());
    check(ours == theirs, format_args!("the roles are {ours:?}, not {theirs:?}"))?;
    for &(class, count) in strings::CLASSES {
        for text in strings::make(class, count.min(100), &[]) {
            for (add_special, parse_special) in [(true, false), (false, true)] {
                let options = EncodeOptions { add_special, parse_special };
                let (a, b) = (made.tokenizer.encode(&text, options)?, original.tokenizer.encode(&text, options)?);
                check(a == b, format_args!("{text:?}: {a:?}, not {b:?}"))?;
            }
        }
    }
    Ok(())
}
