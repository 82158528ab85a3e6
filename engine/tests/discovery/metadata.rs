//! What is read from a GGUF's metadata, and the strategy that follows from it.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    COMPATIBILITY, DiscoverySettings, StepKind, StepOutcome, TokenizerDiscovery, TokenizerDiscoveryError,
    TokenizerStrategy,
};
use bitnet_engine::tokenizer::SpecialTokens;

fn discover(keys: &Keys, rows: Option<usize>) -> TokenizerDiscovery {
    TokenizerDiscovery::from_file(&open(keys, rows)).unwrap()
}

/// Everything that a file says, through a path, and the strategy: its own tokenizer, whatever else there is.
#[test]
fn test_tokenizer_discovery() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("bitnet-b1.58");
    keys.extend(bpe_keys(1000, Some("llama-bpe")));
    keys.extend([
        key("bitnet-b1.58.vocab_size", 1024u32),
        key("tokenizer.ggml.bos_token_id", 998u32),
        key("tokenizer.ggml.padding_token_id", -1i32),
        key("tokenizer.ggml.add_bos_token", true),
        key("tokenizer.chat_template", "{{ messages }}"),
    ]);
    let path = write(dir.path(), "model.gguf", gguf(&keys, Some(1024)));
    write(dir.path(), "tokenizer.json", tokenizer_json(1000));
    let found = TokenizerDiscovery::from_gguf(&path).unwrap();
    assert_eq!(found.vocab_size(), 1000);
    assert_eq!(found.model_type(), Some("gpt2"));
    assert_eq!(found.architecture(), "bitnet-b1.58");
    assert_eq!((found.kind(), found.pre()), (Some("bpe"), Some("llama-bpe")));
    assert_eq!(found.chat_template(), Some("{{ messages }}"));
    let special = SpecialTokens { bos: Some(998), eos: Some(999), add_bos: true, ..SpecialTokens::default() };
    assert_eq!(*found.special(), special);
    assert!(found.recognised().is_none(), "1000 tokens are nobody's");

    let told: Vec<String> = found.disagreements().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|t| t.contains("1000") && t.contains("1024") && t.contains("padding")), "{told:?}");

    let settings = DiscoverySettings::default();
    let strategy = found.discover_tokenizer_strategy(&settings).unwrap();
    assert_eq!(strategy, TokenizerStrategy::EmbeddedGguf);
    assert!(!strategy.requires_network() && !strategy.uses_cache());
    strategy.validate().unwrap();
    let chain = found.chain(&settings);
    assert_eq!(chain.winner, Some(StepKind::Embedded));
    let outcomes: Vec<_> = chain.steps.iter().map(|s| (s.step, s.outcome)).collect();
    let mut expected = StepKind::CHAIN.map(|kind| (kind, StepOutcome::NotNeeded));
    expected[0].1 = StepOutcome::Won;
    assert_eq!(outcomes, expected, "a file beside the model is not even looked at");
    assert!(chain.steps[0].looked_at.contains(&"tokenizer.ggml.tokens".to_owned()));
    assert!(chain.steps[0].why.contains("1000 tokens") && chain.steps[0].why.contains("llama-bpe"));
    let json = serde_json::to_value(&chain).unwrap();
    assert_eq!(json["winner"], "embedded");
    assert_eq!(json["strategy"]["kind"], "embedded-gguf");
    assert_eq!(json["steps"][1]["outcome"], "not-needed");
    assert!(json["disagreements"][0]["values"][0] == 1000);
}

#[test]
fn test_llama3_vocab_size_extraction() {
    let llama3 = arch("llama");
    let declared = with(llama3.clone(), "llama.vocab_size", 128_256u64);
    // The tokens first, even against both others.
    let mut all = declared.clone();
    all.extend(spm_keys(128_000));
    let found = discover(&all, Some(128_256));
    assert_eq!(found.vocab_size(), 128_000);
    assert_eq!(found.disagreements().len(), 2);
    assert!(found.disagreements().iter().all(|d| !d.harmful));
    // Then the metadata, then the embedding.
    let found = discover(&declared, Some(128_300));
    assert_eq!((found.vocab_size(), found.disagreements().len()), (128_256, 1));
    assert!(found.disagreements()[0].harmful, "{}", found.disagreements()[0]);
    let found = discover(&llama3, Some(128_256));
    assert_eq!((found.vocab_size(), found.disagreements()), (128_256, &[][..]));
    assert_eq!(found.recognised().unwrap().line.family, "llama-3");
    assert_eq!(discover(&declared, None).vocab_size(), 128_256);
    // More tokens than rows is more than padding.
    let mut keys = llama3.clone();
    keys.extend(spm_keys(1000));
    assert!(discover(&keys, Some(900)).disagreements()[0].harmful);
    assert!(discover(&with(keys.clone(), "llama.vocab_size", 900u32), None).disagreements()[0].harmful);
    assert!(!discover(&with(keys, "llama.vocab_size", 1100u32), None).disagreements()[0].harmful);

    let none = TokenizerDiscovery::from_file(&open(&llama3, None)).unwrap_err();
    assert!(matches!(none, TokenizerDiscoveryError::NoVocabularySize { .. }), "{none}");
    let wrong = with(llama3, "llama.vocab_size", "many");
    let wrong = TokenizerDiscovery::from_file(&open(&wrong, None)).unwrap_err().to_string();
    assert!(wrong.contains("llama.vocab_size"), "{wrong}");
}

#[test]
fn test_gpt2_metadata_extraction() {
    let mut keys = arch("gpt2");
    keys.extend(bpe_keys(50_257, Some("gpt-2")));
    keys.push(key("tokenizer.ggml.bos_token_id", 50_256u32));
    let found = discover(&keys, Some(50_257));
    assert_eq!((found.vocab_size(), found.kind(), found.pre()), (50_257, Some("bpe"), Some("gpt-2")));
    assert_eq!((found.special().bos, found.special().eos), (Some(50_256), Some(50_256)));
    assert!(!found.special().add_bos);
    assert!(found.recognised().is_none(), "the right size, but other tokens");
    assert_eq!(found.chain(&DiscoverySettings::default()).winner, Some(StepKind::Embedded));
    // Without tokens architecture and size say what is needed.
    let found = discover(&arch("gpt2"), Some(50_257));
    let line = found.recognised().unwrap().line;
    assert_eq!((line.family, line.pre, found.kind()), ("gpt-2", Some("gpt-2"), Some("bpe")));
    assert_eq!(found.download_info().unwrap().expected_vocab, 50_257);
}

/// Every line of the table leads to its download where there is nothing better, and only there.
#[test]
fn test_download_strategy_inference() {
    let settings = DiscoverySettings::default();
    for line in COMPATIBILITY {
        for architecture in line.architectures {
            let mut keys = arch(architecture);
            keys.push(key("general.name", line.names[0]));
            let found = discover(&keys, Some(line.vocab_size));
            let strategy = found.discover_tokenizer_strategy(&settings).unwrap();
            let TokenizerStrategy::NeedsDownload(info) = &strategy else { panic!("{}: {strategy:?}", line.family) };
            assert_eq!(info.cache_key, format!("{}-{}", line.family, line.vocab_size));
            assert_eq!((info.repo.as_str(), info.revision.as_str()), (line.repos[0], line.revision));
            assert_eq!(info.files, line.files);
            assert!(strategy.requires_network() && strategy.uses_cache());
            assert!(strategy.description().contains(line.repos[0]));
            strategy.validate().unwrap();
            // It is only named, not allowed: the chain has no winner, and says what would help.
            let chain = found.chain(&settings);
            assert_eq!((chain.winner, chain.needs_download.as_ref()), (None, Some(info)));
            let step = chain.step(StepKind::Download).unwrap();
            assert_eq!(step.outcome, StepOutcome::NotAllowed);
            assert!(step.why.contains("--auto-download") && step.why.contains(line.files[0]), "{}", step.why);
            let allowed = DiscoverySettings { auto_download: true, ..settings_with_hub() };
            assert_eq!(found.chain(&allowed).winner, Some(StepKind::Download));
            // With a tokenizer of its own there is nothing to fetch.
            keys.extend(spm_keys(line.vocab_size));
            let strategy = discover(&keys, Some(line.vocab_size)).discover_tokenizer_strategy(&allowed).unwrap();
            assert_eq!(strategy, TokenizerStrategy::EmbeddedGguf, "{}", line.family);
        }
    }
    // Two families, one size: the name decides, and without one the guess is called a guess.
    let llama = discover(&arch("llama"), Some(32_000));
    let step = llama.chain(&settings).step(StepKind::Download).unwrap().why.clone();
    assert!(step.contains("taken for llama-2, may be mistral"), "{step}");
    let named = with(arch("llama"), "general.name", "Mistral 7B v0.1");
    let TokenizerStrategy::NeedsDownload(info) =
        discover(&named, Some(32_000)).discover_tokenizer_strategy(&settings).unwrap()
    else {
        panic!()
    };
    assert_eq!(info.cache_key, "mistral-32000");
    let strict = DiscoverySettings { strict: true, auto_download: true, ..settings_with_hub() };
    let error = llama.discover_tokenizer_strategy(&strict);
    // What is needed can be told; what is fetched in strict mode must be certain.
    assert!(matches!(&error, Ok(TokenizerStrategy::NeedsDownload(_))), "{error:?}");
    assert_eq!(llama.chain(&strict).step(StepKind::Download).unwrap().outcome, StepOutcome::Rejected);
    // 131,072 tokens are many families'.
    assert!(discover(&arch("llama"), Some(131_072)).recognised().is_none());

    // Nothing known, and offline: an error with all that was tried and the ways out.
    let unknown = discover(&arch("llama"), Some(777)).discover_tokenizer_strategy(&settings).unwrap_err().to_string();
    for word in
        ["tried embedded", "tried beside", "tried download", "bitnet download ORG/NAME --to", "--tokenizer FILE", "777"]
    {
        assert!(unknown.contains(word), "no `{word}` in {unknown}");
    }
    let offline = DiscoverySettings { offline: true, auto_download: true, ..settings_with_hub() };
    let error =
        discover(&arch(CODELLAMA.0), Some(CODELLAMA.1)).discover_tokenizer_strategy(&offline).unwrap_err().to_string();
    for word in [
        "offline",
        "bitnet infer --auto-download",
        "bitnet download codellama/CodeLlama-7b-hf --to",
        "--tokenizer FILE",
    ] {
        assert!(error.contains(word), "no `{word}` in {error}");
    }
}

fn settings_with_hub() -> DiscoverySettings {
    let nowhere = tempfile::tempdir().unwrap();
    settings(None, nowhere.path())
}

/// A look costs no build: the same verdicts for an embedded tokenizer whether it is built or not.
#[test]
fn looking_and_building_tell_the_same() {
    let chain = |settings: &DiscoverySettings| bitnet_engine::discovery::TokenizerFallbackChain::new(settings.clone());
    let cases: Vec<(Keys, Option<usize>, StepOutcome, &str)> = vec![
        (bpe_keys(300, Some("gpt-2")), Some(300), StepOutcome::Won, "`gpt-2`"),
        (bpe_keys(300, None), Some(300), StepOutcome::Won, "a guess"),
        (bpe_keys(300, Some("default")), None, StepOutcome::Won, "a guess"),
        (bpe_keys(300, Some("unheard-of")), Some(300), StepOutcome::Rejected, "unheard-of"),
        (bpe_keys(300, Some("gpt-2")), Some(299), StepOutcome::Rejected, "299 rows"),
        (without(bpe_keys(300, None), "tokenizer.ggml.merges"), Some(300), StepOutcome::Rejected, "no merges"),
        (with(spm_keys(300), "tokenizer.ggml.eos_token_id", 300u32), Some(300), StepOutcome::Rejected, "eos_token_id"),
        (with(spm_keys(300), "tokenizer.ggml.model", "rwkv"), Some(300), StepOutcome::Rejected, "rwkv"),
        (with(arch("llama"), "tokenizer.ggml.model", "no_vocab"), Some(300), StepOutcome::Absent, "no_vocab"),
        (arch("llama"), Some(300), StepOutcome::Absent, "neither"),
    ];
    for (keys, rows, outcome, word) in cases {
        let keys = with(keys, "general.architecture", "llama");
        let found = discover(&keys, rows);
        let settings = DiscoverySettings::default();
        let looked = found.chain(&settings);
        let built = chain(&settings).run(&found).chain;
        for chain in [&looked, &built] {
            let step = chain.step(StepKind::Embedded).unwrap();
            assert_eq!(step.outcome, outcome, "{word}: {}", step.why);
            assert!(step.why.contains(word), "no `{word}` in {}", step.why);
        }
        assert_eq!(looked.winner, built.winner);
    }
}
