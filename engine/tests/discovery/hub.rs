//! Caches and downloads, against a hub in this process that counts every request.

use crate::discovery_support::*;
use bitnet_engine::discovery::{
    DiscoverySettings, StepKind, StepOutcome, TokenizerDiscovery, TokenizerDiscoveryError, TokenizerDownloadInfo,
    TokenizerFallbackChain, TokenizerStrategy, TokenizerStrategyResolver,
};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::hub::Source;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_mock_hub::{Access, MockHub, Repo, Storage};
use std::path::Path;

fn codellama() -> TokenizerDiscovery {
    TokenizerDiscovery::from_file(&GgufFile::from_vec(bare(CODELLAMA)).unwrap()).unwrap()
}

fn allowed(hub: &MockHub, cache: &Path) -> DiscoverySettings {
    DiscoverySettings { auto_download: true, ..settings(Some(hub), cache) }
}

#[test]
fn fetched_once_then_cached_and_offline() {
    let (hub, dir, model) = (hub(CODELLAMA.2, CODELLAMA.1), tempfile::tempdir().unwrap(), codellama());
    let may_not = settings(Some(&hub), dir.path());
    let error = TokenizerFallbackChain::new(may_not.clone()).resolve(&model).unwrap_err();
    assert!(matches!(error, TokenizerDiscoveryError::NothingUsable { .. }), "{error}");
    assert!(hub.log().is_empty(), "nothing is asked without --auto-download: {:?}", hub.log().entries());
    let strategy = model.discover_tokenizer_strategy(&may_not).unwrap();
    let resolver = TokenizerStrategyResolver::new(model.clone(), may_not.clone());
    let error = resolver.resolve_tokenizer(&strategy).unwrap_err();
    assert!(matches!(error, TokenizerDiscoveryError::DownloadNotAllowed { .. }), "{error}");
    for word in ["1. let it be fetched", "2. put the files", "3. name a tokenizer", "bitnet infer --auto-download"] {
        assert!(error.to_string().contains(word), "no `{word}` in {error}");
    }
    // A look fetches nothing, allowed or not.
    let may = allowed(&hub, dir.path());
    assert_eq!(model.chain(&may).winner, Some(StepKind::Download));
    assert!(hub.log().is_empty());

    let walked = TokenizerFallbackChain::new(may.clone()).run(&model);
    let step = walked.chain.step(StepKind::Download).unwrap();
    assert_eq!((step.outcome, walked.chain.winner), (StepOutcome::Won, Some(StepKind::Download)), "{}", step.why);
    let resolved = walked.resolved.unwrap();
    assert_eq!(resolved.tokenizer.encode(HELLO, EncodeOptions::default()).unwrap(), [259, 32, 259]);
    assert_eq!(resolved.hub.as_ref().unwrap().downloads, 2, "tokenizer.json and its companion");
    assert_eq!(hub.log().requests("GET", "/tokenizer.json"), 1);

    // From now on the cache has it: no request, whatever is allowed.
    hub.log().clear();
    let offline = DiscoverySettings { offline: true, ..may_not.clone() };
    for settings in [&may, &may_not, &offline] {
        let looked = model.chain(settings);
        assert_eq!(looked.winner, Some(StepKind::Cache));
        let Some(TokenizerStrategy::Cached(cached)) = &looked.strategy else { panic!("{:?}", looked.strategy) };
        assert_eq!((cached.repo.as_str(), cached.source), (CODELLAMA.2, Source::Cache));
        assert!(cached.path.is_file() && cached.commit.len() == 40);
        let strategy = looked.strategy.clone().unwrap();
        assert!(strategy.uses_cache() && !strategy.requires_network());
        strategy.validate().unwrap();
        let walked = TokenizerFallbackChain::new(settings.clone()).run(&model);
        assert_eq!(walked.chain.winner, Some(StepKind::Cache));
        assert_eq!(walked.resolved.unwrap().hub.unwrap().requests, 0);
        let resolver = TokenizerStrategyResolver::new(model.clone(), settings.clone());
        assert_eq!(resolver.resolve_tokenizer(&strategy).unwrap().tokenizer.vocab_size(), CODELLAMA.1);
    }
    assert!(hub.log().is_empty(), "{:?}", hub.log().entries());
}

#[test]
fn offline_asks_nobody() {
    let (hub, dir, model) = (hub(CODELLAMA.2, CODELLAMA.1), tempfile::tempdir().unwrap(), codellama());
    let mut by_hub = allowed(&hub, dir.path());
    by_hub.hub.as_mut().unwrap().offline = true;
    let by_flag = DiscoverySettings { offline: true, ..allowed(&hub, dir.path()) };
    for settings in [by_hub, by_flag] {
        let error = TokenizerFallbackChain::new(settings.clone()).resolve(&model).unwrap_err().to_string();
        assert!(error.contains("this run is offline"), "{error}");
        let info = model.download_info().unwrap();
        let resolver = TokenizerStrategyResolver::new(model.clone(), settings);
        let error = resolver.resolve_tokenizer(&TokenizerStrategy::NeedsDownload(info)).unwrap_err();
        assert!(matches!(error, TokenizerDiscoveryError::DownloadNotAllowed { .. }), "{error}");
    }
    assert_eq!(hub.log().len(), 0, "{:?}", hub.log().entries());
}

#[cfg(unix)]
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The tokenizer of [`CODELLAMA`] in a cache of HuggingFace's layout; the blob.
#[cfg(unix)]
fn huggingface_cache(root: &Path) -> std::path::PathBuf {
    let home = root.join(format!("models--{}", CODELLAMA.2.replace('/', "--")));
    let json = tokenizer_json(CODELLAMA.1);
    write(&home, "refs/main", COMMIT);
    let blob = write(&home.join("blobs"), &bitnet_mock_hub::sha256_hex(json.as_bytes()), &json);
    let snapshot = home.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join("tokenizer.json")).unwrap();
    blob
}

#[test]
#[cfg(unix)]
fn an_existing_huggingface_cache_serves() {
    let (dir, model) = (tempfile::tempdir().unwrap(), codellama());
    let root = dir.path().join("hf");
    let blob = huggingface_cache(&root);
    let mut settings = settings(None, &dir.path().join("ours"));
    settings.hub.as_mut().unwrap().hf_caches = vec![root];
    assert_eq!(model.chain(&settings).winner, Some(StepKind::HuggingfaceCache));
    let walked = TokenizerFallbackChain::new(settings.clone()).run(&model);
    assert_eq!(walked.chain.winner, Some(StepKind::HuggingfaceCache), "{}", walked.chain);
    let Some(TokenizerStrategy::Cached(cached)) = walked.chain.strategy else { panic!() };
    assert_eq!((cached.commit.as_str(), cached.source), (COMMIT, Source::HuggingFaceCache));
    assert_eq!(walked.resolved.unwrap().tokenizer.vocab_size(), CODELLAMA.1);
    // A blob that is not what its name says is not used.
    std::fs::write(&blob, "{}").unwrap();
    let walked = TokenizerFallbackChain::new(settings).run(&model);
    assert_eq!(walked.chain.step(StepKind::HuggingfaceCache).unwrap().outcome, StepOutcome::Rejected);
    assert!(walked.resolved.is_none());
}

#[test]
fn a_mirror_helps_where_the_first_repository_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let json = tokenizer_json(CODELLAMA.1);
    let hub = MockHub::builder()
        .repo(Repo::new(CODELLAMA.2).access(Access::Private("hf_x".into())).file(
            "tokenizer.json",
            json.clone(),
            Storage::Lfs,
        ))
        .repo(Repo::new("meta-llama/CodeLlama-7b-hf").file("tokenizer.json", json, Storage::Lfs))
        .start()
        .unwrap();
    let resolved = TokenizerFallbackChain::new(allowed(&hub, dir.path())).resolve(&codellama()).unwrap();
    let from = resolved.diagnostics.iter().find(|d| d.code == "tokenizer_from_hub").unwrap();
    assert!(from.message.contains("meta-llama/CodeLlama-7b-hf"), "{from}");
}

#[test]
fn what_the_hub_sends_must_fit_the_model() {
    let (hub, dir) = (hub(CODELLAMA.2, 500), tempfile::tempdir().unwrap());
    let chain = TokenizerFallbackChain::new(allowed(&hub, dir.path()));
    let error = chain.resolve(&codellama()).unwrap_err().to_string();
    assert!(
        error.contains("tried download") && error.contains("the tokenizer has 500 tokens and the model 32016"),
        "{error}"
    );
    // The next run finds it in the cache, refuses it there, and does not stop at that.
    let walked = chain.run(&codellama());
    assert_eq!(walked.chain.step(StepKind::Cache).unwrap().outcome, StepOutcome::Rejected);
    assert!(walked.resolved.is_none());
    let mock = DiscoverySettings { allow_mock: true, ..allowed(&hub, dir.path()) };
    let resolved = TokenizerFallbackChain::new(mock).resolve(&codellama()).unwrap();
    assert!(resolved.diagnostics.iter().any(|d| d.code == "cached_tokenizer_refused"), "{:?}", resolved.diagnostics);
}

#[test]
fn a_dead_hub_is_one_line_of_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = DiscoverySettings { auto_download: true, ..settings(None, dir.path()) };
    settings.hub.as_mut().unwrap().retry.retries = 0;
    let error = TokenizerFallbackChain::new(settings).resolve(&codellama()).unwrap_err().to_string();
    assert!(error.contains("tried download: no repository gives the tokenizer: codellama/CodeLlama-7b-hf"), "{error}");
    assert_eq!(error.matches("cannot reach").count(), 1, "a mirror of a dead hub is dead: {error}");
    assert!(error.contains("Three ways out"), "{error}");
}

/// Every strategy of one model, one after the other.
#[test]
fn test_strategy_resolver() {
    let (hub, dir) = (hub(CODELLAMA.2, CODELLAMA.1), tempfile::tempdir().unwrap());
    let mut keys = arch(CODELLAMA.0);
    keys.extend(bpe_keys(CODELLAMA.1, Some("gpt-2")));
    let path = write(dir.path(), "model.gguf", gguf(&keys, Some(CODELLAMA.1)));
    let file = write(dir.path(), "tokenizer.json", tokenizer_json(CODELLAMA.1));
    let found = TokenizerDiscovery::from_gguf(&path).unwrap();
    let info = codellama().download_info().unwrap();
    let settings = DiscoverySettings { allow_mock: true, ..allowed(&hub, &dir.path().join("cache")) };
    let resolver = TokenizerStrategyResolver::new(found, settings);
    for strategy in [
        TokenizerStrategy::EmbeddedGguf,
        TokenizerStrategy::Exact(file.clone()),
        TokenizerStrategy::Discovered(file),
        TokenizerStrategy::NeedsDownload(info.clone()),
    ] {
        let resolved = resolver.resolve_tokenizer(&strategy).unwrap();
        assert_eq!(resolved.strategy, strategy);
        assert_eq!(resolved.tokenizer.vocab_size(), CODELLAMA.1, "{}", strategy.description());
        let ids = resolved.tokenizer.encode(HELLO, EncodeOptions::default()).unwrap();
        assert_eq!(ids, [259, 32, 259], "{}", strategy.description());
        assert_eq!(resolved.tokenizer.decode(&ids, true), HELLO.as_bytes());
    }
    assert_eq!(resolver.resolve_tokenizer(&TokenizerStrategy::Mock).unwrap().tokenizer.kind(), "mock");
    // What cannot be tried is refused before it is tried.
    let missing = TokenizerStrategy::Exact(dir.path().join("none"));
    assert!(matches!(resolver.resolve_tokenizer(&missing), Err(TokenizerDiscoveryError::MissingFile { .. })));
    let requests = hub.log().len();
    for spoil in [
        |info: &mut TokenizerDownloadInfo| info.repo = "../etc".into(),
        |info: &mut TokenizerDownloadInfo| info.files.clear(),
        |info: &mut TokenizerDownloadInfo| info.expected_vocab = 0,
    ] {
        let mut info = info.clone();
        spoil(&mut info);
        let error = resolver.resolve_tokenizer(&TokenizerStrategy::NeedsDownload(info)).unwrap_err();
        assert!(matches!(error, TokenizerDiscoveryError::BadDownload { .. }), "{error}");
    }
    assert_eq!(hub.log().len(), requests);
}

/// Everything that could give a tokenizer is there, and the hub may be asked. Then the winners go, one by one.
#[test]
#[cfg(unix)]
fn the_hub_is_asked_last() {
    let (hub, dir) = (hub(CODELLAMA.2, CODELLAMA.1), tempfile::tempdir().unwrap());
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let embedded: Keys = [arch("llama"), bpe_keys(CODELLAMA.1, Some("gpt-2"))].concat();
    let whole = write(dir.path(), "whole.gguf", gguf(&embedded, Some(CODELLAMA.1)));
    let model = write(dir.path(), "bare.gguf", bare(CODELLAMA));
    let json = tokenizer_json(CODELLAMA.1);
    let beside = write(dir.path(), "tokenizer.json", &json);
    let named = write(dir.path(), "named/tokenizer.json", &json);

    // Our cache, as a run fills it.
    std::fs::remove_file(&beside).unwrap();
    let mut settings = allowed(&hub, &ours);
    let run = |settings: &DiscoverySettings, model: &Path| {
        TokenizerFallbackChain::new(settings.clone()).run(&TokenizerDiscovery::from_gguf(model).unwrap())
    };
    assert_eq!(run(&settings, &model).chain.winner, Some(StepKind::Download));
    write(dir.path(), "tokenizer.json", &json);
    huggingface_cache(&theirs);
    settings.hub.as_mut().unwrap().hf_caches = vec![theirs.clone()];

    hub.log().clear();
    let exact = DiscoverySettings { exact: Some(named), ..settings.clone() };
    let wins = |settings: &DiscoverySettings, model: &Path, winner: StepKind| {
        let walked = run(settings, model);
        assert_eq!(walked.chain.winner, Some(winner), "{}", walked.chain);
        assert!(walked.resolved.is_some());
    };
    wins(&exact, &whole, StepKind::Named);
    wins(&settings, &whole, StepKind::Embedded);
    wins(&settings, &model, StepKind::Beside);
    std::fs::remove_file(&beside).unwrap();
    wins(&settings, &model, StepKind::Cache);
    std::fs::remove_dir_all(&ours).unwrap();
    wins(&settings, &model, StepKind::HuggingfaceCache);
    assert!(hub.log().is_empty(), "{:?}", hub.log().entries());
    std::fs::remove_dir_all(&theirs).unwrap();
    wins(&settings, &model, StepKind::Download);
    assert!(!hub.log().is_empty());
}
