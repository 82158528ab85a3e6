//! The hub that downloads are tried on: what it holds, and a client that is in a hurry.
//!
//! The server is crate `bitnet-mock-hub`, the client is the engine's own; nothing here knows what must come out. One scene
//! for every fault, so that a cell differs from its neighbours in the fault alone.

use bitnet_engine::hub::{HubSettings, RetryPolicy, Timeouts, Token, TokenSource};
use bitnet_mock_hub::{Access, MockHub, MockHubBuilder, Repo, Storage};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::generate::Noise;

/// The repository of most requests.
pub const REPO: &str = "org/name";
/// The token for which [`scene`] opens its private and gated repositories.
pub const TOKEN: &str = "good";

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    (0..len).map(|_| (noise.bits() >> 56) as u8).collect()
}

/// The repositories of the scene. `org/name` has one file of every kind of storage and of every awkward name.
pub fn repos() -> Vec<Repo> {
    let config: String = (0..500).map(|i| format!("{{\"token\": {i}}}\n")).collect();
    let restricted = |name: &str| Repo::new(name).file("tokenizer.json", noise(3000, 4), Storage::Lfs);
    vec![
        Repo::new(REPO)
            .file("tokenizer.json", noise(3000, 1), Storage::Lfs)
            .file("config.json", config, Storage::Git)
            .file("cached.json", "[1, 2]", Storage::GitCached)
            .file("xet.bin", noise(5000, 2), Storage::Xet)
            .file("sub dir/ü.txt", "deep", Storage::Git)
            .file("empty", "", Storage::Git)
            .file_at("refs/pr/1", "config.json", "{}", Storage::Git),
        restricted("org/private").access(Access::Private(TOKEN.to_owned())),
        restricted("org/gated").access(Access::Gated(TOKEN.to_owned())),
    ]
}

/// The scene as a server that is about to start. `old/name` is renamed to [`REPO`].
pub fn scene() -> MockHubBuilder {
    repos().into_iter().fold(MockHub::builder(), MockHubBuilder::repo).renamed("old/name", REPO)
}

/// What the hub really holds under these names; a renamed repository is followed.
pub fn truth(repo: &str, revision: &str, file: &str) -> Option<Vec<u8>> {
    let repo = if repo == "old/name" { REPO } else { repo };
    let repos = repos();
    let (_, files) = repos.iter().find(|r| r.name == repo)?.find(revision)?;
    Some(files.get(file)?.bytes.to_vec())
}

/// A client that tries again after milliseconds and waits 2 s at most for a server's sake. Its limits on silence are generous
/// where a fault does not lower them: a busy machine must not look like a broken line.
pub fn settings(endpoint: &str, cache: &Path, token: Option<&str>) -> HubSettings {
    let mut settings = HubSettings::new(cache);
    settings.endpoint = endpoint.to_owned();
    settings.token = token.and_then(Token::new).map_or(TokenSource::None, TokenSource::Value);
    let seconds = Duration::from_secs;
    settings.timeouts = Timeouts {
        connect: seconds(5),
        metadata: seconds(10),
        stall: seconds(10),
        overall: seconds(30),
        slowest: None,
    };
    settings.retry = RetryPolicy {
        retries: 5,
        base: Duration::from_millis(2),
        cap: Duration::from_millis(10),
        longest_wait: Duration::from_secs(2),
        seed: Some(1),
    };
    settings
}

/// Every file under a folder, in order, as paths below it.
///
/// # Errors
/// A folder cannot be listed. A folder that does not exist is empty.
pub fn files_under(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::new(format_args!("cannot list {}: {error}", folder.display()))),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files.into_iter().map(|path| path.strip_prefix(folder).map_or(path.clone(), Path::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_follows_revisions_and_new_names() {
        assert_eq!(truth(REPO, "main", "tokenizer.json").map(|bytes| bytes.len()), Some(3000));
        assert_eq!(truth("old/name", "main", "tokenizer.json"), truth(REPO, "main", "tokenizer.json"));
        assert_eq!(truth(REPO, "refs/pr/1", "config.json").as_deref(), Some(&b"{}"[..]));
        assert_eq!(truth(REPO, "main", "no-such-file"), None);
    }
}
