//! Caches and hub: whether the files are there, and getting them. All of it is the hub client's work; offline mode of the
//! same client serves both caches, so that there is one way to read them.

use super::error::TokenizerDiscoveryError;
use super::strategy::TokenizerDownloadInfo;
use crate::hub::blocking::BlockingDownload;
use crate::hub::{Cache, Fetched, HubError, HubMetrics, HubSettings, Observer, hf_present};
use crate::tokenizer::files::FileSet;
use std::path::PathBuf;

/// Files of a tokenizer in a cache, unread.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) repo: String,
    pub(super) commit: String,
    pub(super) path: PathBuf,
}

/// Whether our cache has every file of `info`. Looks for names only.
pub(super) fn in_our_cache(hub: &HubSettings, info: &TokenizerDownloadInfo) -> Option<Present> {
    let cache = Cache::new(&hub.cache_dir);
    info.repos().find_map(|repo| {
        let (commit, _) = cache.commit_of(repo, &info.revision)?;
        let files = info.files.iter().map(|file| cache.find(repo, &commit, file)).collect::<Option<Vec<_>>>()?;
        let path = files.first()?.file.clone();
        Some(Present { repo: repo.to_owned(), commit, path })
    })
}

/// The same for caches in HuggingFace's layout.
pub(super) fn in_hf_cache(hub: &HubSettings, info: &TokenizerDownloadInfo) -> Option<Present> {
    info.repos().find_map(|repo| {
        hub.hf_caches.iter().find_map(|root| {
            let files = info.files.iter().map(|file| hf_present(root, repo, &info.revision, file));
            let (commit, path) = files.collect::<Option<Vec<_>>>()?.into_iter().next()?;
            Some(Present { repo: repo.to_owned(), commit, path })
        })
    })
}

/// Settings under which only our cache is read.
pub(super) fn our_cache_only(hub: &HubSettings) -> HubSettings {
    HubSettings { offline: true, hf_caches: Vec::new(), ..hub.clone() }
}

/// Settings under which only HuggingFace's caches are read.
pub(super) fn hf_cache_only(hub: &HubSettings) -> HubSettings {
    // A folder that the cache never makes: names in it are `blobs`, `entries`, `refs`...
    HubSettings { offline: true, cache_dir: hub.cache_dir.join("none"), ..hub.clone() }
}

/// The files of one repository, verified.
pub(super) struct Got {
    pub(super) repo: String,
    pub(super) commit: String,
    pub(super) files: FileSet,
    pub(super) fetched: Vec<Fetched>,
    pub(super) metrics: HubMetrics,
}

/// Gets the files from the first repository that has them.
pub(super) fn get<'a>(
    hub: HubSettings,
    repos: impl Iterator<Item = &'a str>,
    info: &TokenizerDownloadInfo,
    observer: Option<Observer>,
) -> Result<Got, TokenizerDiscoveryError> {
    let client = BlockingDownload::new(hub, observer)?;
    let mut causes = Vec::new();
    for repo in repos {
        match of_repo(&client, repo, info) {
            Ok(fetched) => {
                let mut files = FileSet::new();
                for file in &fetched {
                    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
                    files.add(name, file.read()?.as_slice().to_vec());
                }
                let commit = fetched.first().map_or_else(String::new, |file| file.commit.clone());
                return Ok(Got { repo: repo.to_owned(), commit, files, fetched, metrics: client.metrics() });
            }
            Err(error) => {
                // A mirror is of the same hub: if that is down, so is the mirror.
                let hopeless = error.is_network();
                causes.push((repo.to_owned(), Box::new(error)));
                if hopeless {
                    break;
                }
            }
        }
    }
    Err(TokenizerDiscoveryError::Download { causes })
}

/// Companions first: once the files without which there is no tokenizer are in the cache, all of it is.
fn of_repo(client: &BlockingDownload, repo: &str, info: &TokenizerDownloadInfo) -> Result<Vec<Fetched>, HubError> {
    let mut revision = info.revision.clone();
    let mut companions = Vec::new();
    for path in &info.companions {
        match client.fetch(repo, &revision, path) {
            Ok(file) => {
                // From here on one commit, even if the branch moves.
                revision.clone_from(&file.commit);
                companions.push(file);
            }
            Err(HubError::EntryNotFound { .. } | HubError::Offline { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let paths: Vec<&str> = info.files.iter().map(String::as_str).collect();
    let mut all = client.fetch_all(repo, &revision, &paths)?;
    all.append(&mut companions);
    Ok(all)
}
