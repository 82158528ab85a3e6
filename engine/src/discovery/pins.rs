//! What a branch of a repository was when its tokenizer was first used here.
//!
//! The compatibility table names branches, and a branch can be moved by whoever owns it. So the checksums of the files that were
//! used first are written beside the cache, and files with others are told. A new commit with the same files is not a change.

use super::remote::Got;
use crate::hub::{Cache, HubSettings};
use crate::tokenizer::Diagnostic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Serialize, Deserialize)]
struct Pin {
    commit: String,
    /// Checksums by path.
    files: BTreeMap<String, String>,
}

/// Compares what was got with what was used first, and remembers it if it is the first. A cache that cannot be written remembers
/// nothing.
pub(super) fn check(hub: &HubSettings, revision: &str, got: &Got) -> Option<Diagnostic> {
    if got.commit == revision {
        return None;
    }
    let cache = Cache::new(&hub.cache_dir);
    let file = cache.pin_file(&got.repo, revision);
    let files: BTreeMap<String, String> =
        got.fetched.iter().map(|file| (file.path.clone(), file.digest.to_string())).collect();
    let Some(pin) = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Pin>(&text).ok()) else {
        let text = serde_json::to_vec(&Pin { commit: got.commit.clone(), files }).ok()?;
        if let Err(error) = cache.write(&file, &text) {
            tracing::info!(%error, "the commit is not remembered");
        }
        return None;
    };
    let changed: Vec<&str> = files
        .iter()
        .filter(|(path, digest)| pin.files.get(*path).is_some_and(|first| first != *digest))
        .map(|(path, _)| path.as_str())
        .collect();
    (!changed.is_empty()).then(|| warning(&got.repo, revision, &pin.commit, &got.commit, &changed, file))
}

fn warning(repo: &str, revision: &str, first: &str, now: &str, changed: &[&str], pin: PathBuf) -> Diagnostic {
    Diagnostic::warning(
        "tokenizer_changed",
        format!(
            "{repo} ({revision}) was commit {first} when its tokenizer was first used here and is {now} now, and {} \
             changed: ids may differ from those of the training",
            changed.join(", ")
        ),
        format!("if the change is wanted, forget the first one: rm {}", crate::shell::quoted(&pin)),
    )
}
