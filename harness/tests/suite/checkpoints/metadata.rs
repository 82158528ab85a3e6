//! What the small files of a folder become: templates, ends of a generation, pooling; and what the weights' keys say.

use super::folder::{floats, write};
use super::refused::{edit, find, tensors};
use super::tokens::small;
use super::{check, convert, trial};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::from_gguf;
use bitnet_harness::Failure;
use bitnet_harness::roster::Named;
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn trials() -> Vec<Named> {
    vec![
        trial("metadata::templates", templates),
        trial("metadata::ends", ends),
        trial("metadata::tokens-without-rows", tokens_without_rows),
        trial("metadata::no-tokenizer", no_tokenizer),
        trial("metadata::other-tokenizer", other_tokenizer),
        trial("metadata::pooling", pooling),
        trial("metadata::exempt", exempt),
        trial("metadata::tied", tied),
        trial("metadata::names", names),
    ]
}

fn converted(dir: &Path) -> Result<(GgufFile, Vec<String>), Failure> {
    let written = convert(dir, "f16", false, dir)?;
    let codes = written.diagnostics.iter().map(|d| d.code.to_owned()).collect();
    Ok((GgufFile::open(dir.join("model.gguf"))?, codes))
}

fn text(file: &GgufFile, key: &str) -> Result<String, Failure> {
    Ok(file.metadata().str(key)?.unwrap_or("absent").to_owned())
}

fn templates() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    small(dir.path(), 64)?;
    let list = json!([{"name": "default", "template": "in config"}, {"name": "tool_use", "template": "tools"}]);
    std::fs::write(dir.path().join("tokenizer_config.json"), json!({ "chat_template": list }).to_string())?;
    let (file, _) = converted(dir.path())?;
    check(text(&file, "tokenizer.chat_template")? == "in config", "the default of the list")?;
    check(text(&file, "tokenizer.chat_template.tool_use")? == "tools", "the named one")?;
    std::fs::write(dir.path().join("chat_template.jinja"), "in a file")?;
    let (file, _) = converted(dir.path())?;
    check(text(&file, "tokenizer.chat_template")? == "in a file", "the file wins")
}

/// A byte-level tokenizer with special tokens behind its 256 bytes.
fn with_specials(dir: &Path, specials: &[&str]) -> Result<usize, Failure> {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        vocab.insert(bitnet_engine::tokenizer::byte_alphabet::to_char(byte).to_string(), json!(byte));
    }
    vocab.insert("he".to_owned(), json!(256));
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(i, text)| {
            json!({"id": 257 + i, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let json = json!({
        "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h e"]},
    });
    std::fs::write(dir.join("tokenizer.json"), json.to_string())?;
    Ok(257 + specials.len())
}

fn ends() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let tokens = with_specials(dir.path(), &["<begin>", "<end>", "<turn>", "<message>"])?;
    small(dir.path(), tokens + 3)?;
    let config = json!({"bos_token": "<begin>", "eos_token": "<end>", "add_bos_token": true});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string())?;
    std::fs::write(dir.path().join("generation_config.json"), json!({"eos_token_id": [258, 259, 260]}).to_string())?;
    let (file, codes) = converted(dir.path())?;
    let tokenizer = from_gguf(file.metadata())?.tokenizer;
    let special = tokenizer.special();
    check(text(&file, "tokenizer.ggml.pre")? == "gpt-2", "the rule")?;
    check((special.bos, special.eos) == (Some(257), Some(258)), format_args!("{special:?} {codes:?}"))?;
    let ends: Vec<u32> = (0..tokens as u32 + 3).filter(|id| tokenizer.is_eog(*id)).collect();
    check(ends == [258, 259, 260], format_args!("a generation ends at {ends:?}"))
}

/// Control tokens behind the last row of the embedding are left out; other tokens there are an error (`refused::tokens`).
fn tokens_without_rows() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let tokens = with_specials(dir.path(), &["<begin>", "<picture>"])?;
    small(dir.path(), tokens - 1)?;
    let (file, codes) = converted(dir.path())?;
    check(codes.contains(&"tokens_without_rows".to_owned()), format_args!("{codes:?}"))?;
    let tokenizer = from_gguf(file.metadata())?.tokenizer;
    check(tokenizer.vocab_size() == tokens - 1, format_args!("{} tokens", tokenizer.vocab_size()))
}

fn no_tokenizer() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    small(dir.path(), 64)?;
    let (file, codes) = converted(dir.path())?;
    check(codes == ["no_tokenizer"] && !file.metadata().contains("tokenizer.ggml.model"), format_args!("{codes:?}"))
}

/// A tokenizer that a GGUF cannot hold is said, and left beside.
fn other_tokenizer() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    small(dir.path(), 64)?;
    let json = json!({
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"},
    });
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string())?;
    let (file, codes) = converted(dir.path())?;
    check(codes.contains(&"tokenizer_not_written".to_owned()), format_args!("{codes:?}"))?;
    check(!file.metadata().contains("tokenizer.ggml.model"), "a tokenizer was written")
}

fn pooling() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    small(dir.path(), 64)?;
    std::fs::create_dir(dir.path().join("1_Pooling"))?;
    let config = json!({"pooling_mode_mean_tokens": false, "pooling_mode_lasttoken": true});
    std::fs::write(dir.path().join("1_Pooling/config.json"), config.to_string())?;
    let (file, _) = converted(dir.path())?;
    check(file.metadata().u32("llama.pooling_type")? == Some(3), "the last token")
}

/// What `modules_to_not_convert` names keeps its type, among masters.
fn exempt() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let config = small(dir.path(), 64)?;
    let quantization = json!({"quant_method": "bitnet", "quantization_mode": "online", "modules_to_not_convert": ["lm_head", "v_proj"]});
    let mut changed = config.clone();
    changed["quantization_config"] = quantization;
    let wide: Vec<_> = tensors(dir.path())?
        .into_iter()
        .map(|(name, tensor)| {
            let shape: Vec<usize> = tensor.shape.iter().map(|&n| if n == 32 { 128 } else { n }).collect();
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i % 7) as f32 - 3.0).collect();
            (name, floats("BF16", &shape, &values))
        })
        .collect();
    (changed["hidden_size"], changed["intermediate_size"]) = (json!(128), json!(128));
    write(dir.path(), &changed, &wide, 1)?;
    convert(dir.path(), "i2_s", true, dir.path())?;
    let file = GgufFile::open(dir.path().join("model.gguf"))?;
    let ty = |name: &str| file.tensor(name).map(|view| file.type_name(view.info).to_owned()).unwrap_or_default();
    let found = (ty("blk.0.attn_v.weight"), ty("blk.0.attn_q.weight"), ty("token_embd.weight"));
    check(found == ("bf16".into(), "i2_s".into(), "bf16".into()), format_args!("{found:?}"))?;
    check(text(&file, "bitnet.activations")? == "int8-token", "trained with int8 activations")?;
    check(text(&file, "bitnet.i2_s.layout")? == "x86", "the layout is recorded")
}

/// A copy of the embedding that the tied head is stored as is not a head; a head of its own is.
fn tied() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut config = small(dir.path(), 64)?;
    edit(dir.path(), |tensors| {
        let head = find(tensors, "embed_tokens.weight").clone();
        tensors.push(("lm_head.weight".into(), head));
    })?;
    check(converted(dir.path())?.0.tensor("output.weight").is_none(), "a tied head was written")?;
    config["tie_word_embeddings"] = json!(false);
    std::fs::write(dir.path().join("config.json"), config.to_string())?;
    check(converted(dir.path())?.0.tensor("output.weight").is_some(), "the head is missing")
}

/// Tensors without the prefix of a model with a head.
fn names() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    small(dir.path(), 64)?;
    edit(dir.path(), |tensors| {
        tensors.iter_mut().for_each(|(name, _)| *name = name.trim_start_matches("model.").to_owned());
    })?;
    check(converted(dir.path())?.0.tensor("blk.0.ffn_up.weight").is_some(), "no tensor")
}
