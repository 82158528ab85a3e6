//! The tokenizer of a folder, in the GGUF: its ids against the crate `tokenizers` on the files as they are published.

use super::folder::{Tensors, floats, write};
use super::{check, convert, trial};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::{EncodeOptions, from_gguf};
use bitnet_harness::Failure;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::Named;
use bitnet_harness::strings;
use bitnet_harness::vocabularies::{ALL, Entry};
use serde_json::{Value, json};
use std::path::Path;
use std::str::FromStr;

/// The vocabularies and the forms in which folders have them.
const FORMS: &[(&str, &str)] = &[
    ("gpt2", "vocab-bpe"),
    ("gpt2", "tokenizer-json"),
    ("mistral-v1", "tokenizer-model"),
    ("mistral-v1", "tokenizer-json"),
    ("tiny-bitnet", "tokenizer-json"),
    ("llama2", "tokenizer-json"),
    ("llama3", "tokenizer-json"),
    ("smollm2", "tokenizer-json"),
];
/// Rows of the embedding behind the last token.
const PADDING: usize = 5;

pub(crate) fn trials(paths: &Paths) -> Vec<Named> {
    let of = |&(name, form): &(&'static str, &'static str)| {
        let entry = ALL.iter().find(|entry| entry.name == name);
        let (paths, label) = (paths.clone(), format!("tokens::{name}::{form}"));
        match entry {
            Some(entry) => {
                Named { availability: entry.availability(&paths), ..trial(label, move || ids(entry, form, &paths)) }
            }
            None => trial(label, move || Err(Failure::new(format_args!("no vocabulary `{name}`")))),
        }
    };
    FORMS.iter().map(of).collect()
}

/// The smallest model that has so many rows.
pub(crate) fn small(folder: &Path, vocab: usize) -> Result<Value, Failure> {
    const WIDTH: usize = 32;
    let mut tensors: Tensors = Vec::new();
    let mut add = |name: &str, shape: &[usize]| {
        let values = vec![0.5; shape.iter().product()];
        tensors.push((name.to_owned(), floats("F16", shape, &values)));
    };
    add("model.embed_tokens.weight", &[vocab, WIDTH]);
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
        add(&format!("model.layers.0.{name}.weight"), &[WIDTH, WIDTH]);
    }
    for name in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        add(&format!("model.layers.0.{name}.weight"), &[WIDTH, WIDTH]);
    }
    for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
        add(&format!("model.{name}.weight"), &[WIDTH]);
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH,
        "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
        "vocab_size": vocab, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    write(folder, &config, &tensors, 1)?;
    Ok(config)
}

fn ids(entry: &'static Entry, form: &str, paths: &Paths) -> Result<(), Failure> {
    let (dir, vocabulary) = (tempfile::tempdir()?, entry.load(paths)?);
    let tokens = vocabulary.source.tokens.len();
    small(dir.path(), tokens + PADDING)?;
    let files = vocabulary.files.iter().find(|(name, _)| *name == form);
    match files {
        Some((_, files)) => {
            for (name, bytes) in files {
                std::fs::write(dir.path().join(name), bytes)?;
            }
        }
        None => std::fs::write(dir.path().join("tokenizer.json"), vocabulary.json.to_string())?,
    }
    let written = convert(dir.path(), "f16", false, dir.path())?;
    let file = GgufFile::open(dir.path().join("model.gguf"))?;
    check(file.metadata().contains("tokenizer.ggml.tokens"), format_args!("no tokenizer: {:?}", written.diagnostics))?;
    let loaded = from_gguf(file.metadata())?;
    check(loaded.tokenizer.vocab_size() == tokens + PADDING, "the vocabulary is not padded to the rows")?;
    let last = loaded.tokenizer.token_bytes((tokens + PADDING - 1) as u32, true).unwrap_or_default().into_owned();
    check(last == format!("[PAD{}]", tokens + PADDING - 1).as_bytes(), format_args!("the last token is {last:?}"))?;
    let reading = tokenizers::Tokenizer::from_str(&vocabulary.json.to_string())?;
    let mut plain = reading.clone();
    plain.set_encode_special_tokens(true);
    let specials = vocabulary.specials();
    for &(class, count) in strings::CLASSES {
        for text in strings::make(class, count, &specials) {
            for (parse_special, oracle) in [(false, &plain), (true, &reading)] {
                let theirs = oracle.encode_fast(text.as_str(), false)?.get_ids().to_vec();
                let ours = loaded.tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special })?;
                check(ours == theirs, format_args!("{class} {text:?}: {ours:?}, not {theirs:?}"))?;
            }
        }
    }
    Ok(())
}
