//! Lists that a converter filled up to the rows of the embedding: the tokenizer's own files have fewer tokens, and are the
//! right ones all the same.

use crate::discovery_support::*;
use bitnet_engine::discovery::{StepKind, TokenizerDiscovery, TokenizerDiscoveryError, TokenizerFallbackChain};
use bitnet_engine::gguf::GgufFile;

const REAL: usize = 700;
const PADDED: usize = 768;

/// A list of `REAL` tokens and padding, its type given by `kind`; no `pre`, so that a file beside it is better.
fn padded(pad: impl Fn(usize) -> (String, i32)) -> Keys {
    let (mut tokens, mut types) = (bpe_tokens(REAL), vec![1i32; REAL]);
    types[REAL - 1] = 3;
    for (text, kind) in (REAL..PADDED).map(pad) {
        tokens.push(text);
        types.push(kind);
    }
    let keys = with(bpe_keys(REAL, None), "tokenizer.ggml.tokens", tokens);
    [arch("llama"), with(keys, "tokenizer.ggml.token_type", types)].concat()
}

fn discover(keys: &Keys) -> TokenizerDiscovery {
    TokenizerDiscovery::from_file(&open(keys, Some(PADDED))).unwrap()
}

#[test]
fn padding_is_seen_by_text_or_by_type() {
    for (keys, wanted) in [
        (padded(|id| (format!("[PAD{id}]"), 5)), PADDED - REAL),
        (padded(|id| (format!("[PAD{id}]"), 1)), PADDED - REAL),
        (padded(|id| (format!("nothing{id}"), 5)), PADDED - REAL),
        (padded(|id| (format!("[PADx{id}]"), 1)), 0),
        (padded(|id| (format!("word{id}"), 1)), 0),
        // Only the end of the list is padding.
        (padded(|id| if id == PADDED - 1 { ("end".to_owned(), 1) } else { (format!("[PAD{id}]"), 5) }), 0),
        ([arch("llama"), bpe_keys(REAL, None)].concat(), 0),
    ] {
        let file = GgufFile::from_vec(gguf(&keys, Some(PADDED))).unwrap();
        assert_eq!(TokenizerDiscovery::from_file(&file).unwrap().padding(), wanted);
    }
}

#[test]
fn the_tokenizers_own_file_fits_a_padded_list() {
    let dir = tempfile::tempdir().unwrap();
    let keys = padded(|id| (format!("[PAD{id}]"), 5));
    let model = write(dir.path(), "model.gguf", gguf(&keys, Some(PADDED)));
    let discovery = TokenizerDiscovery::from_gguf(&model).unwrap();
    let with_file = |n: usize| {
        let file = write(dir.path(), "elsewhere/tokenizer.json", tokenizer_json(n));
        let mut settings = settings(None, &dir.path().join("cache"));
        settings.exact = Some(file);
        (discovery.chain(&settings).winner, TokenizerFallbackChain::new(settings).resolve(&discovery))
    };
    // All that the padding allows for, and nothing else.
    for n in [REAL, REAL + 1, PADDED] {
        let (winner, resolved) = with_file(n);
        let resolved = resolved.unwrap();
        assert_eq!((winner, resolved.tokenizer.vocab_size()), (Some(StepKind::Named), n));
        assert!(resolved.diagnostics.iter().all(|d| d.code != "vocab_size_unexpected"), "{:?}", resolved.diagnostics);
    }
    for n in [REAL - 1, PADDED + 1] {
        let (winner, resolved) = with_file(n);
        let error = resolved.unwrap_err();
        assert!(winner.is_none() && matches!(error, TokenizerDiscoveryError::WrongVocabulary { .. }), "{n}: {error}");
    }
    // Without padding the number is exact, as ever.
    let error = {
        let words = discover(&padded(|id| (format!("word{id}"), 1)));
        let mut settings = settings(None, &dir.path().join("cache"));
        settings.exact = Some(write(dir.path(), "elsewhere/tokenizer.json", tokenizer_json(REAL)));
        TokenizerFallbackChain::new(settings).resolve(&words).unwrap_err()
    };
    assert!(matches!(error, TokenizerDiscoveryError::WrongVocabulary { found: REAL, expected: PADDED, .. }), "{error}");
}

#[test]
fn a_family_is_recognised_under_its_padding() {
    let (real, rows) = (50_257, 50_304);
    let mut keys = gpt2_keys();
    for (name, value) in &mut keys {
        match name.as_str() {
            "tokenizer.ggml.tokens" => {
                let bytes = gguf(&gpt2_keys(), None);
                let file = GgufFile::from_vec(bytes).unwrap();
                let list = file.metadata().array("tokenizer.ggml.tokens").unwrap().unwrap();
                let texts = list.strings().unwrap().map(|t| String::from_utf8(t.to_vec()).unwrap());
                let padding = (real..rows).map(|id| format!("[PAD{id}]"));
                *value = texts.chain(padding).collect::<Vec<_>>().into();
            }
            "tokenizer.ggml.token_type" => {
                let mut types = vec![1i32; real];
                types[real - 1] = 3;
                types.resize(rows, 5);
                *value = types.into();
            }
            _ => {}
        }
    }
    let keys = with(keys, "general.architecture", "gpt2");
    let file = GgufFile::from_vec(gguf(&keys, Some(rows))).unwrap();
    let discovery = TokenizerDiscovery::from_file(&file).unwrap();
    assert_eq!(discovery.recognised().map(|r| r.line.family), Some("gpt-2"));
}

#[test]
fn falcon3_is_recognised_by_its_special_tokens() {
    let mut tokens: Vec<String> = (0..131_072).map(|id| format!("word{id}")).collect();
    for (id, text) in [(0, ">>TITLE<<"), (7, ">>DOMAIN<<"), (11, "<|endoftext|>"), (25, ">>KEY<<")] {
        tokens[id] = text.to_owned();
    }
    let keys = with(with(arch("llama"), "tokenizer.ggml.model", "gpt2"), "tokenizer.ggml.tokens", tokens);
    let file = GgufFile::from_vec(gguf(&keys, None)).unwrap();
    let discovery = TokenizerDiscovery::from_file(&file).unwrap();
    assert_eq!(discovery.recognised().map(|r| r.line.family), Some("falcon3"));
}
