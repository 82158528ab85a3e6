//! What lies in caches of HuggingFace's layout: models, checkpoints, and what they say of themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use bitnet_engine::hub::{HubError, HubSettings, ModelRef, Source, checkpoints, models};
use bitnet_mock_hub::{Fault, MockHub, Repo, Side, Storage, sha256_hex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn reference(text: &str) -> ModelRef {
    text.parse().unwrap()
}

/// The folder of a commit in a cache with this root.
fn snapshot(root: &Path, commit: &str) -> PathBuf {
    let home = root.join("models--org--name");
    let folder = home.join("snapshots").join(commit);
    for folder in [home.join("refs"), home.join("blobs"), folder.clone()] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(home.join("refs/main"), commit).unwrap();
    folder
}

fn settings_with(dir: &Path) -> HubSettings {
    let mut settings = HubSettings::new(dir.join("ours"));
    settings.hf_caches = vec![dir.join("hf")];
    settings
}

#[tokio::test]
async fn an_old_list_is_asked_for_again() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.ref_ttl = Duration::ZERO;
    let (client, _) = client_with(settings);
    assert_eq!(client.list(REPO, "main").await.unwrap().files.len(), 6);
    hub.put(Repo::new(REPO).file("new", "1", Storage::Git));
    assert_eq!(client.list(REPO, "main").await.unwrap().files, ["new"]);
    // Also where the clock was put back since.
    let seen = dir.path().join("refs/org--name/main");
    for (path, listed) in [("newer", true), ("newest", false)] {
        hub.put(Repo::new(REPO).file(path, "1", Storage::Git));
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        fs::File::options().append(true).open(&seen).unwrap().set_modified(later).unwrap();
        if listed {
            assert_eq!(client.list(REPO, "main").await.unwrap().files, [path]);
        } else {
            assert_eq!(*client.fetch(REPO, "main", path).await.unwrap().read().unwrap(), b"1");
        }
    }
}

/// A branch whose history was rewritten: what the hub does not have any more is not what the branch is.
#[tokio::test]
async fn a_commit_that_is_gone_is_forgotten() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let old = client.fetch(REPO, "main", "config.json").await.unwrap().commit;
    hub.put(Repo::new(REPO).file("tokenizer.json", "new", Storage::Lfs));
    let error = client.fetch(REPO, "main", "tokenizer.json").await.unwrap_err();
    assert!(matches!(&error, HubError::RevisionNotFound { revision, .. } if *revision == old), "{error}");
    let new = client.fetch(REPO, "main", "tokenizer.json").await.unwrap();
    assert_eq!((&*new.read().unwrap(), new.commit != old), (&b"new".to_vec(), true));
}

#[test]
fn a_checkpoint_is_here_with_all_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, folder) = (settings_with(dir.path()), snapshot(&dir.path().join("hf"), COMMIT));
    let wanted = reference("hf:org/name");
    let files = || checkpoints::cached(&settings, &wanted).map(|here| here.files);
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    put("config.json", "{}");
    assert_eq!(files(), None);
    // Without an index a name that no index explains is not enough.
    put("model-00001-of-00002.safetensors", "1");
    assert_eq!(files(), None);
    put(
        "model.safetensors.index.json",
        r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#,
    );
    assert_eq!(files(), None);
    put("model-00002-of-00002.safetensors", "2");
    put("README.md", "no part of it");
    let all = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(files().unwrap(), all);
    let here = checkpoints::cached(&settings, &wanted).unwrap();
    assert_eq!((here.commit.as_str(), &here.folder), (COMMIT, &folder));
    assert_eq!(checkpoints::sound(&settings, &wanted), Some(folder.clone()));
    // A reference to a quantization means no checkpoint.
    assert!(checkpoints::cached(&settings, &reference("hf:org/name:Q8_0")).is_none());
    // A link says the checksum of what it leads to.
    let blob = folder.join("../../blobs").join(sha256_hex(b"1"));
    fs::remove_file(folder.join(all[1])).unwrap();
    fs::write(&blob, "1").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&blob, folder.join(all[1])).unwrap();
    assert_eq!(checkpoints::sound(&settings, &wanted), Some(folder));
    fs::write(&blob, "2").unwrap();
    assert!(checkpoints::cached(&settings, &wanted).is_some());
    assert_eq!(checkpoints::sound(&settings, &wanted), None);
}

#[test]
fn what_makes_a_model_or_a_checkpoint() {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let wanted = reference("hf:org/name");
    for (files, checkpoint, model) in [
        (&["config.json", "model.safetensors"][..], true, false),
        (&["config.json"], false, false),
        (&["model.safetensors"], false, false),
        (&["a.gguf"], false, true),
        (&["README.md"], false, false),
    ] {
        let files = list(files);
        assert_eq!(checkpoints::is_checkpoint(&files), checkpoint, "{files:?}");
        let command = (checkpoint || model).then(|| wanted.command());
        assert_eq!(checkpoints::command(&wanted, &files), command, "{files:?}");
    }
    assert!(wanted.command().contains("download") && wanted.command().contains("org/name"), "{}", wanted.command());
}

#[test]
fn models_of_a_cache_are_listed_once_with_their_commands() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("hf");
    let folder = snapshot(&root, COMMIT);
    fs::create_dir_all(folder.join("a b")).unwrap();
    fs::write(folder.join("a b/x.gguf"), "xyz").unwrap();
    fs::write(folder.join("y.safetensors"), "y").unwrap();
    fs::write(folder.join("z.txt"), "z").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(".", folder.join("circle")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("gone.gguf")).unwrap();
    }
    let models = models::list_models(&[root]);
    let found: Vec<_> =
        models.iter().map(|model| (model.path.as_str(), model.size, model.revisions.join(","))).collect();
    assert_eq!(found, [("a b/x.gguf", 3, "main".to_owned()), ("y.safetensors", 1, "main".to_owned())]);
    assert_eq!(models[0].command(), format!("bitnet download org/name --revision {COMMIT} --file 'a b/x.gguf'"));
}

/// The better model that the repository has, and how it is fetched.
#[tokio::test]
async fn a_model_of_the_cache_says_what_comes_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new(REPO).file("m-i2_s.gguf", "1", Storage::Git).file("m-q8_0.gguf", "2", Storage::Git);
    let hub = MockHub::builder().repo(repo).start().unwrap();
    let mut settings = settings(&hub, &dir.path().join("ours"));
    settings.hf_caches = vec![dir.path().join("hf")];
    let commit = client_with(settings.clone()).0.list(REPO, "main").await.unwrap().commit;
    let folder = snapshot(&dir.path().join("hf"), &commit);
    fs::write(folder.join("m-q8_0.gguf"), "2").unwrap();
    let wanted = reference("hf:org/name");
    let found = models::cached(&settings, &wanted).unwrap().unwrap();
    assert_eq!((found.choice.first(), &found.file), ("m-q8_0.gguf", &folder.join("m-q8_0.gguf")));
    let why = &found.choice.why;
    assert!(why.contains("of those in the cache q8_0 comes first") && why.contains("m-i2_s.gguf"), "{why}");
    // With both, the first of all is the one.
    fs::write(folder.join("m-i2_s.gguf"), "1").unwrap();
    let found = models::cached(&settings, &wanted).unwrap().unwrap();
    assert_eq!((found.choice.first(), found.choice.why.as_str()), ("m-i2_s.gguf", "i2_s comes first"));
    assert_eq!(found.choice.others, ["m-q8_0.gguf"]);
}

#[tokio::test]
async fn a_list_that_cannot_be_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    for (path, packets) in [("../up", 2), ("up", 1)] {
        let hub = MockHub::builder().repo(Repo::new(REPO).file(path, "1", Storage::Git)).start().unwrap();
        let (client, _) = client(&hub, &dir.path().join(packets.to_string()));
        for _ in 0..2 {
            assert_eq!(client.list(REPO, "main").await.unwrap().files, [path]);
        }
        assert_eq!(hub.log().len(), packets);
    }
}

/// What is known stands in for a hub that is down, and for none that has an answer.
#[tokio::test]
async fn a_list_is_known_or_asked_for() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    (settings.ref_ttl, settings.retry.retries) = (Duration::ZERO, 0);
    let (client, _) = client_with(settings);
    let down = || Fault::Status { status: 503 }.always().on(Side::Hub);
    hub.fault(down());
    let error = client.list(REPO, "main").await.unwrap_err();
    assert!(matches!(error, HubError::Status { status: 503, .. }), "{error}");
    hub.heal();
    let known = client.list(REPO, "main").await.unwrap();
    hub.fault(down());
    assert_eq!(client.list(REPO, "main").await.unwrap(), known);
    hub.heal();
    hub.fault(Fault::Status { status: 404 }.always().on(Side::Hub));
    let error = client.list(REPO, "main").await.unwrap_err();
    assert!(matches!(error, HubError::Status { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn parts_that_are_there_are_selected_once() {
    let part = |n: u32| format!("m-0000{n}-of-00003.gguf");
    let repo = Repo::new(REPO).file("a.json", "1", Storage::Git);
    let repo = [1, 3].into_iter().fold(repo, |repo, n| repo.file(&part(n), "1", Storage::Git));
    let (hub, dir) = (MockHub::builder().repo(repo).start().unwrap(), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let selected = client.select(REPO, "main", &["*.gguf", &part(3)], &["*.json"]).await.unwrap();
    assert_eq!(selected.files, ["a.json".to_owned(), part(1), part(3)]);
}

#[tokio::test]
async fn a_model_comes_with_what_lies_beside_it() {
    let repo = ["sub/tokenizer.json", "sub/README.md", "tokenizer.json", "sub/more/tokenizer.json"].into_iter();
    let repo = repo.fold(Repo::new(REPO), |repo, path| repo.file(path, "1234", Storage::Git));
    let model = noise(3000, 1);
    let repo = repo.file("sub/m.gguf", model.clone(), Storage::Lfs);
    let (hub, dir) = (MockHub::builder().repo(repo).start().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, &dir.path().join("ours"));
    settings.hf_caches = vec![dir.path().join("hf")];
    let (client, _) = client_with(settings);
    let wanted = reference("hf:org/name");
    let blobs = dir.path().join("hf/models--org--name/blobs");
    let part = blobs.join(format!("{}.incomplete", sha256_hex(&model)));
    // What an earlier run left need not come again, but for what is too long.
    fs::create_dir_all(&blobs).unwrap();
    for (left, missing) in [(0, 3004), (1000, 2004), (3000, 4), (3001, 3004)] {
        fs::write(&part, vec![0; left]).unwrap();
        let plan = client.plan_model(&wanted).await.unwrap();
        assert_eq!(plan.plan.missing_files().collect::<Vec<_>>(), ["sub/m.gguf", "sub/tokenizer.json"]);
        assert_eq!(plan.plan.missing_bytes(), missing, "{left}");
    }
    fs::write(&part, &model[..1000]).unwrap();
    let plan = client.plan_model(&wanted).await.unwrap();
    assert_eq!((plan.plan.commit().len(), plan.choice.first()), (40, "sub/m.gguf"));
    let (here, snapshot) = client.fetch_model(plan).await.unwrap();
    assert_eq!((fs::read(&here.file).unwrap(), snapshot.files.len()), (model, 2));
    assert_eq!(client.metrics().resumed_bytes, 1000);
    let [found] = models::list_models(&[dir.path().join("hf")]).try_into().unwrap();
    assert_eq!((&found.file, found.commit.as_str()), (&here.file, here.commit.as_str()));
    assert_eq!(found.verify().unwrap(), None);
    fs::write(fs::canonicalize(&here.file).unwrap(), noise(3000, 2)).unwrap();
    assert!(found.verify().unwrap().unwrap().starts_with("sha256 "));
}

/// What was verified from the cache is in memory: it does not go away with the cache.
#[tokio::test]
async fn a_small_file_is_read_once() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap();
    let file = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap();
    assert_eq!(file.source, Source::Cache);
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(*file.read().unwrap(), body());
}

/// What cannot be read may be sound: it is neither removed nor fetched again. The kernel refuses to read what is at address 0.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_of_the_cache_that_cannot_be_read_is_an_error() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let blob = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap().file;
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &blob).unwrap();
    hub.log().clear();
    let error = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(matches!(&error, HubError::Io { doing: "read", path, .. } if *path == blob), "{error}");
    assert!(blob.is_symlink() && hub.log().is_empty());
}
