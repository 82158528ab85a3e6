//! `bitnet convert FOLDER`: what a person sees. What the GGUF computes is shown by the harness (`--test checkpoints`).

mod support;

use bitnet_engine::gguf::GgufFile;
use serde_json::json;
use std::path::Path;
use support::*;

const WIDTH: usize = 32;
const VOCAB: usize = 48;

/// A llama checkpoint of one block in f16; `extra` is one more tensor.
fn write(folder: &Path, extra: Option<&str>) {
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, WIDTH])];
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
        shapes.push((format!("model.layers.0.{name}.weight"), vec![WIDTH, WIDTH]));
    }
    for name in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        shapes.push((format!("model.layers.0.{name}.weight"), vec![WIDTH, WIDTH]));
    }
    for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
        shapes.push((format!("model.{name}.weight"), vec![WIDTH]));
    }
    shapes.extend(extra.map(|name| (name.to_owned(), vec![1])));
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in shapes {
        let start = data.len();
        for i in 0..shape.iter().product::<usize>() {
            // f16 of 2^-3 times -1.75 to 2.
            let bits = 0x3000 | ((i * 37 + i / 29) as u16 % 4) << 8 | ((i * 11 % 2) as u16) << 15;
            data.extend(bits.to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH,
        "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 64, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_folder_becomes_a_model() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), None);
    let out = dir.path().join("model.gguf");
    let said = run(&["convert", text(dir.path()), "--to", "q8_0", "--verify", "-o", text(&out)]).ok();
    assert_eq!(said.out, "");
    for words in [
        "no tokenizer file",
        "tokenizer.json into the folder",
        "the logits are those of the checkpoint: 12 positions",
        "q8_0 of architecture llama, 7 tensors converted, 4 copied",
    ] {
        assert!(said.err.contains(words), "no `{words}` in: {}", said.err);
    }
    let file = GgufFile::open(&out).unwrap();
    let ty = |name: &str| file.type_name(file.tensor(name).unwrap().info);
    assert_eq!((ty("blk.0.attn_q.weight"), ty("token_embd.weight")), ("q8_0", "f16"));
    assert_eq!(file.metadata().u32("general.file_type").unwrap(), Some(7));
    assert!(run(&["inspect", text(&out)]).ok().out.contains("llama"));
}

#[test]
fn what_a_folder_is_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), None);
    let (folder, out) = (text(dir.path()), dir.path().join("model.gguf"));
    let convert = |more: &[&str]| {
        let args = [&["convert", folder, "-o", text(&out)], more].concat();
        run(&args)
    };
    convert(&["--embedding", "f16"]).fails_with(&["is a folder", "--to"]);
    convert(&["--to", "f16", "--set", "general.name=x"]).fails_with(&["is a folder", "--set"]);
    convert(&["--to", "f16", "--split-max-tensors", "3"]).fails_with(&["is a folder", "--split-max-tensors"]);
    convert(&["--to", "i2_s"]).fails_with(&["blk.0.attn_q.weight", "i2_s"]);
    run(&["convert", text(&tiny()), "--to", "f16", "--verify", "-o", text(&out)])
        .fails_with(&["--verify", "not a folder"]);
    assert!(!out.exists());

    // What a file is called there does not reach the terminal as it is.
    write(dir.path(), Some("model.\u{1b}]0;title\u{7}.weight"));
    let said = convert(&["--to", "f16"]).fails_with(&["\\u{1b}]0;title\\u{7}"]);
    assert!(!said.err.contains('\u{1b}') && !out.exists(), "{}", said.err);
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    convert(&["--to", "f16"]).fails_with(&["config.json"]);
}
