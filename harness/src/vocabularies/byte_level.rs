//! Vocabularies of byte-level BPE.

use super::{Vocabulary, odd, read, read_json};
use crate::failure::Failure;
use crate::tokenizer_files::{LLAMA3, TokenizerFiles, added, bpe_file};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::{TokenKind, VocabSource, byte_alphabet};
use serde_json::{Value, json};
use std::path::PathBuf;

/// `encoder.json` and `vocab.bpe`. OpenAI's code knows the one special token of the vocabulary without being told.
pub(super) fn gpt2(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    let [encoder, bpe] = paths else { return Err(odd("two files")) };
    let (encoder, bpe) = (read(encoder)?, read(bpe)?);
    let vocab: Value = serde_json::from_slice(&encoder)?;
    let merges: Vec<Value> = String::from_utf8(bpe.clone())?
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(|line| json!(line))
        .collect();
    let end = vocab["<|endoftext|>"].as_u64().ok_or_else(|| odd("<|endoftext|>"))?;
    let added = vec![added(usize::try_from(end)?, "<|endoftext|>", true)];
    let json = bpe_file("gpt-2", vocab, merges.into(), added)?;
    let source =
        VocabSource { bos: Some(u32::try_from(end)?), eos: Some(u32::try_from(end)?), ..source(&json, "gpt-2")? };
    let files = vec![
        ("vocab-bpe", vec![("encoder.json", encoder), ("vocab.bpe", bpe)]),
        ("tokenizer-json", vec![("tokenizer.json", json.to_string().into_bytes())]),
    ];
    Ok(Vocabulary { name: "gpt2", json, source, files })
}

/// `tokenizer.json` as it is published.
pub(super) fn llama3(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    let [path] = paths else { return Err(odd("one file")) };
    let json = read_json(path)?;
    let expression = json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].as_str();
    if expression != Some(LLAMA3) {
        return Err(odd("splitting expression of LLaMA-3"));
    }
    let source = VocabSource { bos: Some(128_000), eos: Some(128_001), ..source(&json, "llama-bpe")? };
    let files = vec![
        ("tokenizer-json", vec![("tokenizer.json", read(path)?)]),
        ("tiktoken", vec![("tokenizer.model", ranks(&source.tokens[..128_000])?.into_bytes())]),
    ];
    Ok(Vocabulary { name: "llama3", json, source, files })
}

/// The rank file of Meta's own release: every ordinary token's bytes in base64, and its rank, which is its id.
fn ranks(tokens: &[Vec<u8>]) -> Result<String, Failure> {
    let mut text = String::new();
    for (rank, token) in tokens.iter().enumerate() {
        let bytes = byte_alphabet::decode(token).ok_or_else(|| odd("token in the byte alphabet"))?;
        text.push_str(&format!("{} {rank}\n", STANDARD.encode(&bytes)));
    }
    Ok(text)
}

/// The metadata of SmolLM2's GGUF.
pub(super) fn smollm2(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    from_gguf("smollm2", "smollm", paths)
}

/// The metadata of the tiny model.
pub(super) fn tiny(paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    from_gguf("tiny-bitnet", "gpt-2", paths)
}

fn from_gguf(name: &'static str, pre: &str, paths: &[PathBuf]) -> Result<Vocabulary, Failure> {
    let [path] = paths else { return Err(odd("one file")) };
    let file = GgufFile::open(path)?;
    let metadata = file.metadata();
    if metadata.str("tokenizer.ggml.pre")? != Some(pre) {
        return Err(odd(&format!("pre-tokenizer {pre}")));
    }
    let own = TokenizerFiles::read(metadata)?;
    let mut json: Value = serde_json::from_slice(&own.tokenizer_json(own.len())?)?;
    json["post_processor"] = Value::Null;
    let source = VocabSource {
        bos: metadata.u32("tokenizer.ggml.bos_token_id")?,
        eos: metadata.u32("tokenizer.ggml.eos_token_id")?,
        ..source(&json, pre)?
    };
    let files = vec![("tokenizer-json", vec![("tokenizer.json", json.to_string().into_bytes())])];
    Ok(Vocabulary { name, json, source, files })
}

/// What a converter writes into a GGUF for this tokenizer.json.
pub(super) fn source(json: &Value, pre: &str) -> Result<VocabSource, Failure> {
    let vocab = json["model"]["vocab"].as_object().ok_or_else(|| odd("vocab"))?;
    let added = json["added_tokens"].as_array().ok_or_else(|| odd("added_tokens"))?;
    let id = |value: &Value| value.as_u64().and_then(|id| usize::try_from(id).ok()).ok_or_else(|| odd("id"));
    let mut texts: Vec<(usize, &str, TokenKind)> = Vec::new();
    for (text, value) in vocab {
        texts.push((id(value)?, text, TokenKind::Normal));
    }
    for token in added {
        let kind = if token["special"] == json!(true) { TokenKind::Control } else { TokenKind::UserDefined };
        texts.push((id(&token["id"])?, token["content"].as_str().ok_or_else(|| odd("content"))?, kind));
    }
    let size = texts.iter().map(|t| t.0 + 1).max().unwrap_or(0);
    let (mut tokens, mut token_types) = (vec![Vec::new(); size], vec![TokenKind::Normal; size]);
    for (id, text, kind) in texts {
        tokens[id] = text.as_bytes().to_vec();
        token_types[id] = kind;
    }
    let merges = json["model"]["merges"].as_array().ok_or_else(|| odd("merges"))?;
    let merge = |merge: &Value| match (merge.as_str(), merge[0].as_str(), merge[1].as_str()) {
        (Some(merge), ..) => Ok(merge.as_bytes().to_vec()),
        (None, Some(left), Some(right)) => Ok(format!("{left} {right}").into_bytes()),
        _ => Err(odd("merge")),
    };
    Ok(VocabSource {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        merges: merges.iter().map(merge).collect::<Result<_, _>>()?,
        tokens,
        token_types,
        ..VocabSource::default()
    })
}
