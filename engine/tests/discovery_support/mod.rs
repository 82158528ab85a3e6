//! Models without and with tokenizers, tokenizer files, and settings that reach no real network.
#![allow(dead_code, reason = "each test target uses its part")]
#![allow(unreachable_pub, reason = "shared by test targets")]

use bitnet_engine::discovery::DiscoverySettings;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_engine::hub::HubSettings;
use bitnet_engine::tokenizer::byte_alphabet;
use bitnet_mock_hub::{MockHub, Repo, Storage};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest family of the table that no other shares its size with.
pub const CODELLAMA: (&str, usize, &str) = ("llama", 32_016, "codellama/CodeLlama-7b-hf");

pub type Keys = Vec<(String, MetaValue)>;

pub fn key(name: &str, value: impl Into<MetaValue>) -> (String, MetaValue) {
    (name.to_owned(), value.into())
}

pub fn arch(name: &str) -> Keys {
    vec![key("general.architecture", name)]
}

/// A GGUF of keys and an embedding of `rows` rows.
pub fn gguf(keys: &Keys, rows: Option<usize>) -> Vec<u8> {
    let mut writer = GgufWriter::new(3, 32).unwrap();
    for (name, value) in keys {
        writer.meta(name, value.clone()).unwrap();
    }
    if let Some(rows) = rows {
        writer.tensor("token_embd.weight", &[1, rows as u64], 0, vec![0u8; 4 * rows]).unwrap();
    }
    writer.into_vec().unwrap()
}

pub fn open(keys: &Keys, rows: Option<usize>) -> GgufFile {
    GgufFile::from_vec(gguf(keys, rows)).unwrap()
}

/// A model without a tokenizer.
pub fn bare((architecture, tokens, _): (&str, usize, &str)) -> Vec<u8> {
    gguf(&arch(architecture), Some(tokens))
}

pub fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// All bytes in GPT-2's alphabet, some merges, tokens that no text becomes, and one control token at the end.
pub fn bpe_tokens(n: usize) -> Vec<String> {
    let mut tokens: Vec<String> = (0..=255u8).map(|b| byte_alphabet::encode(&[b])).collect();
    tokens.extend(["he", "ll", "hell", "hello"].map(str::to_owned));
    tokens.extend((tokens.len()..n - 1).map(|i| format!("unreachable{i}")));
    tokens.push("<|endoftext|>".to_owned());
    tokens
}

pub const MERGES: [&str; 4] = ["h e", "l l", "he ll", "hell o"];

/// Keys of a byte-level BPE; `pre` as given.
pub fn bpe_keys(n: usize, pre: Option<&str>) -> Keys {
    let mut types = vec![1i32; n];
    types[n - 1] = 3;
    let mut keys = vec![
        key("tokenizer.ggml.model", "gpt2"),
        key("tokenizer.ggml.tokens", bpe_tokens(n)),
        key("tokenizer.ggml.token_type", types),
        key("tokenizer.ggml.merges", MERGES.map(str::to_owned).to_vec()),
        key("tokenizer.ggml.eos_token_id", n as u32 - 1),
    ];
    keys.extend(pre.map(|pre| key("tokenizer.ggml.pre", pre)));
    keys
}

/// Keys of an SPM of bytes and letters.
pub fn spm_keys(n: usize) -> Keys {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut types = vec![2i32, 3, 3];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    tokens.extend((tokens.len()..n).map(|i| format!("unreachable{i}")));
    types.resize(n, 1);
    vec![
        key("tokenizer.ggml.model", "llama"),
        key("tokenizer.ggml.scores", (0..n).map(|i| -(i as f32)).collect::<Vec<_>>()),
        key("tokenizer.ggml.tokens", tokens),
        key("tokenizer.ggml.token_type", types),
        key("tokenizer.ggml.bos_token_id", 1u32),
        key("tokenizer.ggml.eos_token_id", 2u32),
    ]
}

pub fn without(mut keys: Keys, name: &str) -> Keys {
    keys.retain(|(other, _)| other != name);
    keys
}

pub fn with(keys: Keys, name: &str, value: impl Into<MetaValue>) -> Keys {
    let mut keys = without(keys, name);
    keys.push(key(name, value));
    keys
}

/// `vocab.json` of `n` tokens.
pub fn vocab_json(n: usize) -> Value {
    bpe_tokens(n).into_iter().enumerate().map(|(id, text)| (text, json!(id))).collect::<serde_json::Map<_, _>>().into()
}

pub fn merges_txt() -> String {
    format!("#version: 0.2\n{}\n", MERGES.join("\n"))
}

/// A `tokenizer.json` with the same vocabulary as [`bpe_keys`].
pub fn tokenizer_json(n: usize) -> String {
    let end = json!({
        "id": n - 1, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [end],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab_json(n), "merges": MERGES,
        },
    })
    .to_string()
}

/// Ids of "hello hello" in all of these vocabularies: the merges make one token of the first word; the second one's
/// space keeps it apart.
pub const HELLO: &str = "hello hello";

/// Settings that look at `cache` and, if there is one, at the mock.
pub fn settings(hub: Option<&MockHub>, cache: &Path) -> DiscoverySettings {
    let mut settings = HubSettings::new(cache);
    settings.endpoint = hub.map_or("http://127.0.0.1:9", MockHub::endpoint).to_owned();
    settings.timeouts.connect = Duration::from_secs(2);
    settings.retry.base = Duration::from_millis(1);
    settings.retry.cap = Duration::from_millis(2);
    DiscoverySettings { hub: Some(settings), ..DiscoverySettings::default() }
}

/// A hub with `repo`, whose tokenizer has `n` tokens.
pub fn hub(repo: &str, n: usize) -> MockHub {
    MockHub::builder()
        .repo(Repo::new(repo).file("tokenizer.json", tokenizer_json(n), Storage::Lfs).file(
            "tokenizer_config.json",
            "{\"eos_token\": \"<|endoftext|>\"}",
            Storage::Git,
        ))
        .start()
        .unwrap()
}

/// Keys of GPT-2's real vocabulary, as a converter writes them that knows nothing of it: no `pre`, no ids with a role.
pub fn gpt2_keys() -> Keys {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find_map(|dir| {
        let folder = dir.join("golden/vocab/gpt2");
        folder.is_dir().then_some(folder)
    });
    let folder = folder.expect("golden/vocab/gpt2");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let vocabulary: std::collections::HashMap<String, usize> = serde_json::from_str(&read("encoder.json")).unwrap();
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (text, id) in vocabulary {
        tokens[id] = text;
    }
    let merges: Vec<String> =
        read("vocab.bpe").lines().filter(|l| !l.starts_with("#version") && !l.is_empty()).map(str::to_owned).collect();
    let mut types = vec![1i32; tokens.len()];
    types[50_256] = 3;
    vec![
        key("general.architecture", "llama"),
        key("tokenizer.ggml.model", "gpt2"),
        key("tokenizer.ggml.tokens", tokens),
        key("tokenizer.ggml.token_type", types),
        key("tokenizer.ggml.merges", merges),
    ]
}
