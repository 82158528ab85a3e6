//! Checkpoints of HuggingFace: which files of a repository belong to one, and whether a cache has all of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::choose::choose;
use super::download::SmartTokenizerDownload;
use super::error::HubError;
use super::glob;
use super::hf_cache::{self, Look, commit_of, home};
use super::models::files_of;
use super::names::is_commit;
use super::reference::{ModelRef, Pick};
use super::settings::HubSettings;
use super::snapshot::SnapshotPlan;

/// A checkpoint has a file for each of these patterns.
const WANTED: [&str; 2] = ["config.json", "model*.safetensors"];
/// These belong to it where they are.
const WELCOME: [&str; 4] = ["*.json", "tokenizer.model", "merges.txt", "*.jinja"];
/// Which file has which tensor, where there are several.
const INDEX: &str = "model.safetensors.index.json";

/// Whether files of a repository or a folder are those of a checkpoint.
pub fn is_checkpoint(files: &[String]) -> bool {
    WANTED.iter().all(|pattern| files.iter().any(|file| glob::matches(pattern, file)))
}

/// A command that fetches what a reference means, where the files of its repository are a model or a checkpoint.
pub fn command(reference: &ModelRef, files: &[String]) -> Option<String> {
    (choose(reference, files).is_ok() || is_checkpoint(files)).then(|| reference.command())
}

/// The command that makes a GGUF of a checkpoint. `source` is its folder or reference; `fetch`: it may have to be fetched.
pub fn convert_command(source: &Path, fetch: bool) -> String {
    let (source, fetch) = (crate::shell::quoted(source), if fetch { " --auto-download" } else { "" });
    format!("bitnet convert {source}{fetch} --to i2_s -o FILE (--to f16 if its weights are not ternary)")
}

/// A checkpoint that is here.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    /// The commit.
    pub commit: String,
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// Paths in the repository.
    pub files: Vec<String>,
}

impl SmartTokenizerDownload {
    /// What is here of a checkpoint, and what is to be fetched.
    ///
    /// # Errors
    /// [`HubError::NoMatch`] if the repository has none.
    pub async fn plan_checkpoint(&self, reference: &ModelRef) -> Result<SnapshotPlan, HubError> {
        let ModelRef { repo, revision, .. } = reference;
        let selected = self.select(repo, revision, &WANTED, &WELCOME).await;
        let files = selected.map_err(|error| error.of(reference))?.files;
        self.plan(repo, revision, &files.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

/// The folder of a checkpoint that a cache of HuggingFace's layout has: with all files that the list of its commit names, or, where
/// no list is known (another tool has filled the cache), with all that its own index names. Only names are looked at.
pub fn cached(settings: &HubSettings, reference: &ModelRef) -> Option<CheckpointFiles> {
    find(settings, reference).map(|(_, here)| here)
}

/// As [`cached`], and each file is what its checksum says.
pub fn sound(settings: &HubSettings, reference: &ModelRef) -> Option<PathBuf> {
    let (root, CheckpointFiles { commit, folder, files }) = find(settings, reference)?;
    // A file that is not a link does not say its checksum.
    let damaged =
        |path: &String| matches!(hf_cache::find(&root, &reference.repo, &commit, path, None), Look::Damaged { .. });
    (!files.iter().any(damaged)).then_some(folder)
}

fn find(settings: &HubSettings, ModelRef { repo, revision, pick }: &ModelRef) -> Option<(PathBuf, CheckpointFiles)> {
    if *pick != Pick::Auto {
        return None;
    }
    settings.hf_caches.iter().find_map(|root| {
        let commit = if is_commit(revision) { revision.clone() } else { commit_of(root, repo, revision)? };
        let folder = home(root, repo).join("snapshots").join(&commit);
        let there = files_of(&folder);
        let listed = Cache::new(&settings.cache_dir).files_of(repo, &commit);
        let belongs = |file: &String| WANTED.iter().chain(&WELCOME).any(|pattern| glob::matches(pattern, file));
        let files: Vec<String> =
            listed.as_ref().unwrap_or(&there).iter().filter(|file| belongs(file)).cloned().collect();
        let whole = is_checkpoint(&files)
            && files.iter().all(|file| there.contains(file))
            && (listed.is_some() || indexed(&folder, &there));
        whole.then(|| (root.clone(), CheckpointFiles { commit, folder, files }))
    })
}

/// Whether the files that hold tensors are all there.
fn indexed(folder: &Path, there: &[String]) -> bool {
    let has = |name: &str| there.iter().any(|file| file == name);
    if !has(INDEX) {
        return has("model.safetensors");
    }
    let index =
        fs::read(folder.join(INDEX)).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let map = index.as_ref().and_then(|index| index.get("weight_map")?.as_object());
    map.is_some_and(|map| map.values().all(|file| file.as_str().is_some_and(has)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_command_that_converts_is_one_for_a_shell() {
        let source = Path::new("hf:o/n");
        let end = "--to i2_s -o FILE (--to f16 if its weights are not ternary)";
        assert_eq!(convert_command(source, true), format!("bitnet convert hf:o/n --auto-download {end}"));
        assert_eq!(convert_command(Path::new("a b"), false), format!("bitnet convert 'a b' {end}"));
    }

    /// A list that is known says what belongs to the checkpoint.
    #[test]
    fn all_files_of_the_list_must_be_here() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = HubSettings::new(dir.path().join("ours"));
        settings.hf_caches = vec![dir.path().join("hf")];
        let folder = dir.path().join("hf/models--o--n/snapshots").join(COMMIT);
        fs::create_dir_all(&folder).unwrap();
        let reference: ModelRef = format!("hf:o/n@{COMMIT}").parse().unwrap();
        let here = |listed: &[&str], there: &[&str]| {
            for file in files_of(&folder) {
                fs::remove_file(folder.join(file)).unwrap();
            }
            there.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
            let listed: Vec<String> = listed.iter().map(|file| (*file).to_owned()).collect();
            Cache::new(&settings.cache_dir).set_files("o/n", COMMIT, &listed).unwrap();
            cached(&settings, &reference).map(|here| here.files)
        };
        let (one, two) = ("model-1.safetensors", "model-2.safetensors");
        assert_eq!(here(&["config.json", one, two], &["config.json", one]), None);
        assert_eq!(here(&["config.json"], &["config.json"]), None);
        assert_eq!(here(&["config.json", one, "README.md"], &["config.json", one]).unwrap(), ["config.json", one]);
        // Of one that is not listed the folder says it.
        fs::remove_file(dir.path().join("ours/lists/o--n").join(format!("{COMMIT}.json"))).unwrap();
        assert!(cached(&settings, &reference).is_none());
        fs::write(folder.join("model.safetensors"), "").unwrap();
        assert!(cached(&settings, &reference).is_some());
    }
}
