//! Which tokenizer wins, and what is told of the others.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    DiscoverySettings, Resolved, StepKind, StepOutcome, TokenizerDiscovery, TokenizerDiscoveryError,
    TokenizerFallbackChain, TokenizerStrategy, TokenizerStrategyResolver, Walked, colocated,
};
use bitnet_engine::tokenizer::EncodeOptions;
use std::path::Path;

fn run(path: &Path, settings: &DiscoverySettings) -> Walked {
    TokenizerFallbackChain::new(settings.clone()).run(&TokenizerDiscovery::from_gguf(path).unwrap())
}

fn ids(resolved: &Resolved) -> Vec<u32> {
    resolved.tokenizer.encode(HELLO, EncodeOptions::default()).unwrap()
}

/// "hello" is one merged token (259), its second occurrence is kept apart by the space.
fn hello() -> Vec<u32> {
    let byte = |b: u8| u32::from(b);
    vec![259, byte(b' '), 259]
}

#[test]
fn test_strategy_discovery_colocated_files() {
    let n = 700;
    let bytes = gguf(&arch("llama"), Some(n));
    let json = tokenizer_json(n);
    let vocab = vocab_json(n).to_string();
    let merges = merges_txt();
    // What lies beside the model, and what is taken.
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Files<'_>, Option<&str>, &str); 9] = [
        (&[("tokenizer.json", &json)], Some("tokenizer.json"), ""),
        (&[("model.tokenizer.json", &json), ("tokenizer.json", "{}")], Some("model.tokenizer.json"), ""),
        (&[("other.tokenizer.json", &json)], None, "no tokenizer.json"),
        (&[("vocab.json", &vocab), ("merges.txt", &merges)], Some("vocab.json"), ""),
        (&[("encoder.json", &vocab), ("vocab.bpe", &merges)], Some("encoder.json"), ""),
        (&[("merges.txt", &merges)], None, "merges without their vocabulary are not a tokenizer"),
        (&[("vocab.json", &vocab)], None, "a vocabulary without its merges is not a tokenizer"),
        (
            &[("tokenizer.json", "<html>404</html>"), ("vocab.json", &vocab), ("merges.txt", &merges)],
            Some("vocab.json"),
            "",
        ),
        (&[("tokenizer.model", "what is this")], None, "tokenizer.model"),
    ];
    for (files, wins, why) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = write(dir.path(), "model.gguf", &bytes);
        for (name, text) in files {
            write(dir.path(), name, text);
        }
        let walked = run(&model, &DiscoverySettings::default());
        let step = walked.chain.step(StepKind::Beside).unwrap();
        match wins {
            Some(name) => {
                let expected = TokenizerStrategy::Discovered(dir.path().join(name));
                assert_eq!(walked.chain.strategy, Some(expected), "{files:?}: {}", step.why);
                assert_eq!(ids(walked.resolved.as_ref().unwrap()), hello());
                let looked = walked.chain.step(StepKind::Beside).unwrap();
                assert!(looked.looked_at.iter().any(|place| place.ends_with(name)), "{:?}", looked.looked_at);
            }
            None => {
                assert!(walked.resolved.is_none() && walked.chain.winner.is_none());
                assert!(step.why.contains(why), "{files:?}: {}", step.why);
            }
        }
    }
    // Of a split model the name of the whole counts too.
    let dir = tempfile::tempdir().unwrap();
    for name in ["m.tokenizer.json", "m-00001-of-00002.tokenizer.json", "tokenizer.json"] {
        write(dir.path(), name, "");
    }
    let found = colocated(&dir.path().join("m-00001-of-00002.gguf")).candidates;
    let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["m-00001-of-00002.tokenizer.json", "m.tokenizer.json", "tokenizer.json"]);
    // Only names are looked at, and a bare file name has a folder too.
    assert_eq!(colocated(Path::new("no-such-model.gguf")).folder, Path::new("."));
}

#[test]
fn a_tokenizer_of_another_model_is_refused_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(700)));
    for (n, outcome) in
        [(701, StepOutcome::Rejected), (699, StepOutcome::Won), (640, StepOutcome::Won), (500, StepOutcome::Rejected)]
    {
        write(dir.path(), "tokenizer.json", tokenizer_json(n));
        let walked = run(&model, &DiscoverySettings::default());
        let step = walked.chain.step(StepKind::Beside).unwrap();
        assert_eq!(step.outcome, outcome, "{n}: {}", step.why);
        if outcome == StepOutcome::Rejected {
            assert!(step.why.contains(&format!("the tokenizer has {n} tokens and the model 700")), "{}", step.why);
        }
    }
    // A family of the table has a number that nothing else will do for.
    let model = write(dir.path(), "codellama.gguf", bare(CODELLAMA));
    write(dir.path(), "tokenizer.json", tokenizer_json(32_000));
    write(dir.path(), "vocab.json", vocab_json(CODELLAMA.1).to_string());
    write(dir.path(), "merges.txt", merges_txt());
    let walked = run(&model, &DiscoverySettings::default());
    let step = walked.chain.step(StepKind::Beside).unwrap();
    assert_eq!((step.outcome, walked.chain.winner), (StepOutcome::Won, Some(StepKind::Beside)));
    assert!(step.why.contains("vocab.json"), "the second candidate: {}", step.why);
}

#[test]
fn a_broken_embedded_tokenizer_is_reported_and_never_replaced_in_strict_mode() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("llama");
    keys.extend(without(bpe_keys(700, Some("gpt-2")), "tokenizer.ggml.merges"));
    let model = write(dir.path(), "model.gguf", gguf(&keys, Some(700)));
    write(dir.path(), "tokenizer.json", tokenizer_json(700));
    let walked = run(&model, &DiscoverySettings::default());
    assert_eq!(walked.chain.winner, Some(StepKind::Beside));
    assert_eq!(walked.chain.step(StepKind::Embedded).unwrap().outcome, StepOutcome::Rejected);
    let resolved = walked.resolved.unwrap();
    let note = &resolved.diagnostics[0];
    assert_eq!(note.code, "embedded_tokenizer_unusable");
    assert!(note.message.contains("merges"), "{note}");
    assert_eq!(ids(&resolved), hello());

    let strict = DiscoverySettings { strict: true, ..DiscoverySettings::default() };
    let found = TokenizerDiscovery::from_gguf(&model).unwrap();
    let error = TokenizerFallbackChain::new(strict.clone()).resolve(&found).unwrap_err();
    assert!(matches!(error, TokenizerDiscoveryError::Strict { .. }), "{error}");
    assert!(error.to_string().contains("merges") && error.to_string().contains("--tokenizer FILE"), "{error}");
    assert!(matches!(found.discover_tokenizer_strategy(&strict), Err(TokenizerDiscoveryError::Strict { .. })));
    // A named one is not a silent replacement.
    let named = DiscoverySettings { exact: Some(dir.path().join("tokenizer.json")), ..strict };
    let walked = run(&model, &named);
    assert_eq!((walked.chain.winner, walked.chain.steps[0].step), (Some(StepKind::Named), StepKind::Named));
}

/// A guessed pre-tokenizer works, but anything certain is better; strict mode takes no guess.
#[test]
fn without_pre() {
    guessed(None, "pre_unknown", "tokenizer.ggml.pre");
}

/// So does one whose name only one program knows: the checkpoint's own file counts more.
#[test]
fn with_a_rare_pre() {
    guessed(Some("falcon_e"), "pre_is_a_guess", "falcon_e");
}

fn guessed(pre: Option<&str>, code: &str, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("llama");
    keys.extend(bpe_keys(700, pre));
    let model = write(dir.path(), "model.gguf", gguf(&keys, Some(700)));
    let walked = run(&model, &DiscoverySettings::default());
    assert_eq!(walked.chain.winner, Some(StepKind::Embedded));
    let codes: Vec<_> = walked.resolved.unwrap().diagnostics.iter().map(|d| d.code).collect();
    assert!(codes.contains(&code), "{codes:?}");
    let download = walked.chain.step(StepKind::Download).unwrap();
    assert_eq!(download.outcome, StepOutcome::NotNeeded, "nothing is fetched while the model's own can be used");

    let strict = DiscoverySettings { strict: true, ..DiscoverySettings::default() };
    let error = TokenizerFallbackChain::new(strict.clone())
        .resolve(&TokenizerDiscovery::from_gguf(&model).unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("tried embedded: strict mode") && error.contains(words), "{error}");

    write(dir.path(), "tokenizer.json", tokenizer_json(700));
    for settings in [DiscoverySettings::default(), strict] {
        let walked = run(&model, &settings);
        assert_eq!(walked.chain.winner, Some(StepKind::Beside));
        let outcome = walked.chain.step(StepKind::Embedded).unwrap().outcome;
        assert_eq!(outcome, if settings.strict { StepOutcome::Rejected } else { StepOutcome::Doubtful });
        assert!(walked.resolved.is_some());
    }
}

#[test]
fn a_named_tokenizer_ends_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("llama");
    keys.extend(spm_keys(700));
    let model = write(dir.path(), "model.gguf", gguf(&keys, Some(700)));
    let named = |path: &Path| DiscoverySettings { exact: Some(path.to_owned()), ..DiscoverySettings::default() };
    let good = write(dir.path(), "elsewhere/my.json", tokenizer_json(700));
    let walked = run(&model, &named(&good));
    assert_eq!(walked.chain.strategy, Some(TokenizerStrategy::Exact(good)));
    assert_eq!(ids(&walked.resolved.unwrap()), hello(), "not the embedded one");
    assert_eq!(walked.chain.step(StepKind::Embedded).unwrap().outcome, StepOutcome::NotNeeded);
    // Another GGUF is a tokenizer too.
    let other = write(dir.path(), "other.gguf", gguf(&bpe_keys(700, Some("gpt-2")), None));
    assert_eq!(ids(&run(&model, &named(&other)).resolved.unwrap()), hello());
    // What is wrong with it is the error; nothing else is tried.
    let small = write(dir.path(), "small.json", tokenizer_json(300));
    let found = TokenizerDiscovery::from_gguf(&model).unwrap();
    for (path, word) in
        [(small, "the tokenizer has 300 tokens and the model 700"), (dir.path().join("none.json"), "does not exist")]
    {
        let error = TokenizerFallbackChain::new(named(&path)).resolve(&found).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(found.discover_tokenizer_strategy(&named(&path)).is_err());
    }
}

#[test]
fn a_mock_is_made_only_where_it_was_asked_for_and_never_in_strict_mode() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(700)));
    let found = TokenizerDiscovery::from_gguf(&model).unwrap();
    let plain = DiscoverySettings::default();
    let asked = DiscoverySettings { allow_mock: true, ..plain.clone() };
    let strict = DiscoverySettings { strict: true, ..asked.clone() };
    for (settings, word) in [(&plain, "--allow-mock-tokenizer"), (&strict, "strict")] {
        let error = TokenizerFallbackChain::new(settings.clone()).resolve(&found).unwrap_err().to_string();
        assert!(error.contains("tried mock") && error.contains(word), "{error}");
        let resolver = TokenizerStrategyResolver::new(found.clone(), settings.clone());
        let error = resolver.resolve_tokenizer(&TokenizerStrategy::Mock).unwrap_err();
        assert!(matches!(error, TokenizerDiscoveryError::MockNotAllowed { .. }), "{error}");
    }
    let resolved = TokenizerFallbackChain::new(asked.clone()).resolve(&found).unwrap();
    assert_eq!(resolved.strategy, TokenizerStrategy::Mock);
    assert_eq!((resolved.tokenizer.kind(), resolved.tokenizer.pre()), ("mock", None));
    assert!((0..=256).all(|id| !resolved.tokenizer.is_eog(id)), "no byte ends a text");
    assert!(resolved.diagnostics[0].message.contains("MOCK"), "{}", resolved.diagnostics[0]);
    assert_eq!(resolved.tokenizer.encode("aé", EncodeOptions::default()).unwrap(), [0x61, 0xc3, 0xa9]);
    assert_eq!(resolved.tokenizer.decode(&[0x61, 0xc3, 0xa9, 256], true), "aé".as_bytes());
    // Anything real is better.
    write(dir.path(), "tokenizer.json", tokenizer_json(700));
    assert_ne!(TokenizerFallbackChain::new(asked.clone()).resolve(&found).unwrap().tokenizer.kind(), "mock");
    // Even a mock must fit.
    let tiny = TokenizerDiscovery::from_file(&open(&arch("llama"), Some(100))).unwrap();
    assert!(TokenizerFallbackChain::new(asked).resolve(&tiny).is_err());
}

#[test]
fn counters_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = arch("llama");
    keys.extend(spm_keys(700));
    let sound = TokenizerDiscovery::from_file(&open(&keys, Some(700))).unwrap();
    let bare = TokenizerDiscovery::from_file(&open(&arch("llama"), Some(700))).unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&arch("llama"), Some(700)));
    write(dir.path(), "tokenizer.json", tokenizer_json(700));
    let beside = TokenizerDiscovery::from_gguf(&model).unwrap();
    let chain = TokenizerFallbackChain::new(DiscoverySettings::default());
    let shared = chain.clone();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                shared.resolve(&sound).unwrap();
                shared.resolve(&bare).unwrap_err();
                shared.resolve(&beside).unwrap();
            });
        }
    });
    let counters = chain.counters();
    assert_eq!((counters.resolutions, counters.succeeded), (12, 8));
    assert!((counters.success_rate - 8.0 / 12.0).abs() < 1e-12);
    let embedded = &counters.steps[&StepKind::Embedded];
    assert_eq!((embedded.tried, embedded.won, embedded.rejected), (12, 4, 0));
    let beside = &counters.steps[&StepKind::Beside];
    assert_eq!((beside.tried, beside.won), (8, 4));
    let tried: Vec<StepKind> = counters.steps.keys().copied().collect();
    assert_eq!(tried, [StepKind::Embedded, StepKind::Beside, StepKind::Download], "what was not allowed was not tried");
    let json = serde_json::to_value(&counters).unwrap();
    assert_eq!(json["steps"]["beside"]["success_rate"], 0.5);
}
