//! The tokenizer that a branch had first is remembered; another one under the same name is told, and refused in strict mode.

use crate::discovery_support::*;
use bitnet_engine::discovery::{DiscoverySettings, Resolved, TokenizerDiscovery, TokenizerFallbackChain};
use bitnet_engine::gguf::GgufFile;
use bitnet_mock_hub::{MockHub, Repo, Storage};
use std::path::Path;
use std::time::Duration;

fn repo(tokenizer: &str, readme: &str) -> Repo {
    Repo::new(CODELLAMA.2).file("tokenizer.json", tokenizer, Storage::Lfs).file("README.md", readme, Storage::Git)
}

fn resolve(hub: &MockHub, cache: &Path, strict: bool) -> Result<Resolved, String> {
    let model = TokenizerDiscovery::from_file(&GgufFile::from_vec(bare(CODELLAMA)).unwrap()).unwrap();
    let mut settings = DiscoverySettings { auto_download: true, strict, ..settings(Some(hub), cache) };
    if let Some(hub) = &mut settings.hub {
        hub.ref_ttl = Duration::ZERO;
    }
    // The entries of the cache are out of the way, so that the branch is asked for again.
    let _ = std::fs::remove_dir_all(cache.join("entries"));
    TokenizerFallbackChain::new(settings).resolve(&model).map_err(|error| error.to_string())
}

fn told(resolved: &Resolved) -> Vec<String> {
    let told = resolved.diagnostics.iter().filter(|d| d.code == "tokenizer_changed");
    told.map(ToString::to_string).collect()
}

#[test]
fn a_moved_branch_is_told_and_refused_in_strict_mode() {
    let dir = tempfile::tempdir().unwrap();
    let first = tokenizer_json(CODELLAMA.1);
    let hub = MockHub::builder().repo(repo(&first, "one")).start().unwrap();
    assert!(told(&resolve(&hub, dir.path(), true).unwrap()).is_empty());
    assert!(told(&resolve(&hub, dir.path(), true).unwrap()).is_empty());

    // Another commit with the same tokenizer is not a change of the tokenizer.
    hub.put(repo(&first, "two"));
    assert!(told(&resolve(&hub, dir.path(), true).unwrap()).is_empty());

    let second = first.replace("unreachable300", "unreachable3oo");
    assert_ne!(first, second);
    hub.put(repo(&second, "two"));
    for _ in 0..2 {
        let told = told(&resolve(&hub, dir.path(), false).unwrap());
        assert_eq!(told.len(), 1);
        for word in ["warning[tokenizer_changed]", CODELLAMA.2, "(main)", "tokenizer.json", "rm "] {
            assert!(told[0].contains(word), "no `{word}` in {}", told[0]);
        }
    }
    let error = resolve(&hub, dir.path(), true).unwrap_err();
    assert!(error.contains("strict mode") && error.contains("first used here"), "{error}");

    // Forgetting the first one, as the hint says, accepts the second.
    let pin = dir.path().join("pins");
    assert!(pin.is_dir());
    std::fs::remove_dir_all(pin).unwrap();
    assert!(told(&resolve(&hub, dir.path(), true).unwrap()).is_empty());
}
