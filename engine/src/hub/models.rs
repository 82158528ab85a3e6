//! Models by reference: what the cache has, what the hub would give, and all models that are here.
//!
//! What is here is used without a packet, as long as it fits the reference: `bitnet download` is what asks for something newer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cache::Cache;
use super::choose::{Choice, choose};
use super::digest::Digest;
use super::download::SmartTokenizerDownload;
use super::error::HubError;
use super::hf_cache::{commit_of, home};
use super::names::{check_repo, is_commit};
use super::reference::{ModelRef, Pick};
use super::settings::HubSettings;
use super::snapshot::{Snapshot, SnapshotPlan};

/// Files that belong to a model and may lie beside it.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
];

/// No snapshot has more folders in each other.
const DEPTH: usize = 8;

/// A model that is here.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// What was chosen.
    pub choice: Choice,
    /// The commit.
    pub commit: String,
    /// The file to open: of a split model the first part.
    pub file: PathBuf,
}

/// A model that the hub has.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// What was chosen.
    pub choice: Choice,
    /// The files: the model's and those beside it.
    pub plan: SnapshotPlan,
}

/// The model that a reference means in the caches of HuggingFace's layout. Only names are looked at: nothing is sent, and nothing
/// read but lists of files.
///
/// # Errors
/// What is here fits the reference more than once.
pub fn cached(settings: &HubSettings, reference: &ModelRef) -> Result<Option<ModelFiles>, HubError> {
    let ModelRef { repo, revision, .. } = reference;
    for root in &settings.hf_caches {
        let known = if is_commit(revision) { Some(revision.clone()) } else { commit_of(root, repo, revision) };
        let Some(commit) = known else { continue };
        let folder = home(root, repo).join("snapshots").join(&commit);
        match choose(reference, &files_of(&folder)) {
            Ok(mut choice) => {
                if reference.pick == Pick::Auto {
                    choice.why = among(reference, &choice, Cache::new(&settings.cache_dir).files_of(repo, &commit));
                }
                let file = folder.join(choice.first());
                return Ok(Some(ModelFiles { choice, commit, file }));
            }
            Err(HubError::NoModel { .. } | HubError::NoPart { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Why a model of the cache was chosen, where the repository may have one that comes before it.
fn among(reference: &ModelRef, choice: &Choice, list: Option<Vec<String>>) -> String {
    let why = &choice.why;
    match list.map(|list| choose(reference, &list)) {
        Some(Ok(all)) if all.files == choice.files => why.clone(),
        Some(Ok(all)) => {
            let first = reference.with(Pick::File(all.first().to_owned()));
            format!("of those in the cache {why}; the first of all is fetched by: {}", first.command())
        }
        _ => format!("of those in the cache {why}; the first of all is fetched by: {}", reference.command()),
    }
}

impl SmartTokenizerDownload {
    /// Chooses a model among what the hub lists and finds out what is to be fetched for it: its file or parts, and the files of
    /// tokenizer and chat template in the same folder.
    pub async fn plan_model(&self, reference: &ModelRef) -> Result<ModelPlan, HubError> {
        let ModelRef { repo, revision, .. } = reference;
        let listing = self.list(repo, revision).await.map_err(|error| error.of(reference))?;
        let choice = choose(reference, &listing.files)?;
        let folder = choice.first().rsplit_once('/').map_or("", |(folder, _)| folder);
        let belongs = |file: &String| {
            let (dir, name) = file.rsplit_once('/').unwrap_or(("", file));
            dir == folder && COMPANIONS.contains(&name)
        };
        let mut paths: Vec<&str> = choice.files.iter().map(String::as_str).collect();
        paths.extend(listing.files.iter().filter(|file| belongs(file)).map(String::as_str));
        let plan = self.plan(repo, revision, &paths).await?;
        Ok(ModelPlan { choice, plan })
    }

    /// Fetches what is missing of a model.
    pub async fn fetch_model(&self, plan: ModelPlan) -> Result<(ModelFiles, Snapshot), HubError> {
        let ModelPlan { choice, plan } = plan;
        let snapshot = self.complete(plan).await?;
        let file = snapshot.folder.join(choice.first());
        Ok((ModelFiles { choice, commit: snapshot.commit.clone(), file }, snapshot))
    }
}

/// A model's file in a cache of HuggingFace's layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// The repository.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// The branches and tags that are this commit, as far as is known here.
    pub revisions: Vec<String>,
    /// The file's path in the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its checksum, if the cache's links say it.
    pub digest: Option<Digest>,
    /// Where it lies.
    #[serde(serialize_with = "crate::shell::text")]
    pub file: PathBuf,
}

impl ModelEntry {
    /// The command that fetches it, as a shell takes it.
    pub fn command(&self) -> String {
        let path = crate::shell::quoted(Path::new(&self.path));
        format!("bitnet download {} --revision {} --file {path}", self.repo, self.commit)
    }

    /// Reads the file and compares its checksum: what is wrong with it, if anything is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn verify(&self) -> Result<Option<String>, HubError> {
        let fail = |cause| HubError::io("read", &self.file, cause);
        match &self.digest {
            None => Ok(None),
            Some(digest) => digest.check(fs::File::open(&self.file).map_err(fail)?, self.size, |_| {}).map_err(fail),
        }
    }
}

/// All models (GGUF and safetensors) in caches of HuggingFace's layout, ordered by repository, commit and path.
pub fn list_models(roots: &[PathBuf]) -> Vec<ModelEntry> {
    let mut out = Vec::new();
    for folder in roots.iter().flat_map(|root| children(root)) {
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("models--"));
        let Some(repo) = name.map(|name| name.replace("--", "/")).filter(|repo| check_repo(repo).is_ok()) else {
            continue;
        };
        let mut revisions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for revision in files_of(&folder.join("refs")) {
            if let Ok(commit) = fs::read_to_string(folder.join("refs").join(&revision)) {
                revisions.entry(commit.trim().to_owned()).or_default().push(revision);
            }
        }
        for snapshot in children(&folder.join("snapshots")) {
            let Some(commit) = snapshot.file_name().and_then(|name| name.to_str()).filter(|name| is_commit(name))
            else {
                continue;
            };
            for path in files_of(&snapshot).into_iter().filter(|path| is_model(path)) {
                let file = snapshot.join(&path);
                let Ok(meta) = fs::metadata(&file) else { continue };
                let blob = fs::read_link(&file).ok();
                let etag = blob.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
                out.push(ModelEntry {
                    repo: repo.clone(),
                    commit: commit.to_owned(),
                    revisions: revisions.get(commit).cloned().unwrap_or_default(),
                    size: meta.len(),
                    digest: etag.and_then(Digest::from_etag),
                    path,
                    file,
                });
            }
        }
    }
    out.sort_by(|a, b| (&a.repo, &a.commit, &a.path).cmp(&(&b.repo, &b.commit, &b.path)));
    out
}

/// Whether a file of a repository is (a part of) a model, which belongs into HuggingFace's cache and is not compressed.
pub fn is_model(path: &str) -> bool {
    path.ends_with(".gguf") || path.ends_with(".safetensors")
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    out.sort();
    out
}

/// Paths of the files below a folder, with slashes; links that lead nowhere are not files.
pub(super) fn files_of(dir: &Path) -> Vec<String> {
    let (mut out, mut open) = (Vec::new(), vec![(dir.to_owned(), String::new(), 0)]);
    while let Some((dir, prefix, depth)) = open.pop() {
        for path in children(&dir) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let here = format!("{prefix}{name}");
            if path.is_file() {
                out.push(here);
            } else if depth < DEPTH && path.is_dir() && !path.is_symlink() {
                open.push((path, format!("{here}/"), depth + 1));
            }
        }
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_into_to_a_depth() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |n: usize| format!("{}file", "d/".repeat(n));
        for n in [0, 1, DEPTH, DEPTH + 1] {
            let file = dir.path().join(deep(n));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        assert_eq!(files_of(dir.path()), [deep(DEPTH), deep(1), deep(0)]);
    }
}
