//! Several files of a commit in HuggingFace's cache: a checkpoint, a model and what belongs beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitnet_engine::hub::models::list_models;
use bitnet_engine::hub::{Event, HubError, HubSettings, Listing, SmartTokenizerDownload, Snapshot, Source};
use bitnet_mock_hub::{Fault, MockHub, Repo, Rule, Side, Storage};

use crate::common::{Events, REPO, client_with, hub, noise, settings};

const WANTED: [&str; 2] = ["config.json", "*.safetensors"];
const WELCOME: [&str; 2] = ["tokenizer*", "*.jinja"];

fn checkpoint() -> Repo {
    Repo::new(REPO)
        .file("config.json", "{}", Storage::Git)
        .file("model-00001-of-00002.safetensors", noise(3000, 1), Storage::Lfs)
        .file("model-00002-of-00002.safetensors", noise(4000, 2), Storage::Xet)
        .file("model.safetensors.index.json", "{\"a\": 1}", Storage::Git)
        .file("tokenizer.json", noise(2000, 3), Storage::Lfs)
        .file("README.md", "no", Storage::Git)
        .file("model.gguf", "no", Storage::Lfs)
}

fn start(rules: impl IntoIterator<Item = Rule>) -> MockHub {
    rules.into_iter().fold(MockHub::builder().repo(checkpoint()), |hub, rule| hub.rule(rule)).start().unwrap()
}

fn at(hub: &MockHub, dir: &Path) -> HubSettings {
    HubSettings { hf_caches: vec![dir.join("hf")], ..settings(hub, &dir.join("ours")) }
}

async fn get(client: &SmartTokenizerDownload) -> Result<Snapshot, HubError> {
    let Listing { files, .. } = client.select(REPO, "main", &WANTED, &WELCOME).await?;
    client.snapshot(REPO, "main", &files.iter().map(String::as_str).collect::<Vec<_>>()).await
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.iter().map(|file| file.path.as_str()).collect()
}

/// Every file of a snapshot is what the hub has.
fn sound(snapshot: &Snapshot) {
    let repo = checkpoint();
    let (commit, files) = repo.find("main").unwrap();
    assert_eq!(snapshot.commit, commit);
    for name in names(snapshot) {
        assert_eq!(std::fs::read(snapshot.folder.join(name)).unwrap(), *files[name].bytes, "{name}");
    }
}

fn incomplete(dir: &Path) -> Vec<PathBuf> {
    let blobs = dir.join("hf/models--org--name/blobs");
    let entries = std::fs::read_dir(blobs).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "incomplete")).collect()
}

#[tokio::test]
async fn files_that_match_come_once_and_stay() {
    let (hub, dir) = (start([]), tempfile::tempdir().unwrap());
    let (client, _) = client_with(at(&hub, dir.path()));
    let first = get(&client).await.unwrap();
    let files =
        ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json"];
    assert_eq!(names(&first), files);
    assert!(first.files.iter().all(|file| file.source == Source::Network && !file.compressed));
    sound(&first);
    assert_eq!(client.metrics().downloads, 4);

    // Another process: nothing is sent, online (the branch is fresh) and offline.
    hub.log().clear();
    for offline in [false, true] {
        let (client, _) = client_with(HubSettings { offline, ..at(&hub, dir.path()) });
        let again = get(&client).await.unwrap();
        assert_eq!((again.folder.clone(), names(&again)), (first.folder.clone(), names(&first)));
        assert!(again.files.iter().all(|file| file.source == Source::HuggingFaceCache));
        assert_eq!(client.metrics().requests, 0);
    }
    assert!(hub.log().is_empty());
    let models = list_models(&[dir.path().join("hf")]);
    assert_eq!(models.iter().map(|model| model.size).collect::<Vec<_>>(), [3000, 4000]);
    assert!(models.iter().all(|model| model.repo == REPO && model.verify().unwrap().is_none()));
}

#[tokio::test]
async fn each_wanted_pattern_must_match() {
    let (hub, dir) = (start([]), tempfile::tempdir().unwrap());
    let (client, _) = client_with(at(&hub, dir.path()));
    let error = client.select(REPO, "main", &["*.safetensors", "*.bin"], &WELCOME).await.unwrap_err();
    assert!(matches!(&error, HubError::NoMatch { pattern, .. } if pattern == "*.bin"), "{error}");
    assert!(error.to_string().contains("model.gguf"), "{error}");
    // No place, no packet for a file.
    let (client, _) = client_with(settings(&hub, dir.path()));
    let error = client.snapshot(REPO, "main", &["config.json"]).await.unwrap_err();
    assert!(matches!(error, HubError::Setting { name: "HF_HUB_CACHE", .. }), "{error}");
    // A missing file is the hub's word, and remembered.
    let (client, _) = client_with(at(&hub, dir.path()));
    for _ in 0..2 {
        let error = client.snapshot(REPO, "main", &["absent.bin"]).await.unwrap_err();
        assert!(matches!(error, HubError::EntryNotFound { .. }), "{error}");
    }
    assert_eq!(hub.log().count(|e| e.path.ends_with("absent.bin")), 1);
    let error = client.snapshot(REPO, "main", &["../up"]).await.unwrap_err();
    assert!(matches!(error, HubError::Name { .. }), "{error}");
}

#[tokio::test]
async fn what_is_known_of_a_list_outlives_the_hub() {
    let (hub, dir) = (start([]), tempfile::tempdir().unwrap());
    let (client, _) = client_with(HubSettings { ref_ttl: Duration::ZERO, ..at(&hub, dir.path()) });
    get(&client).await.unwrap();
    hub.fault(Fault::Refuse.always());
    let events = Events::default();
    let stale = HubSettings { ref_ttl: Duration::ZERO, ..at(&hub, dir.path()) };
    let client = SmartTokenizerDownload::with_observer(stale, events.observer()).unwrap();
    sound(&get(&client).await.unwrap());
    assert!(events.all().iter().any(|event| matches!(event, Event::Stale { .. })));
    // A commit's list never changes, so that not even a hub that is up is asked for it.
    hub.heal();
    hub.log().clear();
    let commit = checkpoint().head();
    client.list(REPO, &commit).await.unwrap();
    assert!(hub.log().is_empty());
    assert!(client.list(REPO, &"0".repeat(40)).await.is_err());
}

#[tokio::test]
async fn a_dead_transfer_goes_on_where_it_ended() {
    let cut = Fault::Cut { at: 1000 }.always().on(Side::Cdn);
    let (hub, dir) = (start([cut, Fault::IgnoreRange.always().on(Side::Cdn)]), tempfile::tempdir().unwrap());
    let (client, _) = client_with(at(&hub, dir.path()));
    assert!(get(&client).await.unwrap_err().is_network());
    assert!(list_models(&[dir.path().join("hf")]).is_empty(), "nothing half is to be seen");
    assert!(!incomplete(dir.path()).is_empty());
    hub.heal();
    let (client, _) = client_with(at(&hub, dir.path()));
    sound(&get(&client).await.unwrap());
    assert!(client.metrics().resumed_bytes >= 1000, "{:?}", client.metrics());
    assert!(incomplete(dir.path()).is_empty());
}

#[tokio::test]
async fn faults_at_random_never_put_wrong_bytes_under_a_name() {
    for seed in 0..12 {
        let rules =
            ["cut=700,on=cdn,chance=30", "corrupt=500,on=cdn,chance=20", "status=503,chance=15", "norange,chance=20"];
        let rules = rules.map(|text| text.parse::<Rule>().unwrap());
        let hub = rules.into_iter().fold(MockHub::builder().repo(checkpoint()), |hub, rule| hub.rule(rule));
        let (hub, dir) = (hub.seed(seed).start().unwrap(), tempfile::tempdir().unwrap());
        for _ in 0..6 {
            let (client, _) = client_with(at(&hub, dir.path()));
            if let Ok(snapshot) = get(&client).await {
                sound(&snapshot);
            }
            for model in list_models(&[dir.path().join("hf")]) {
                assert_eq!(model.verify().unwrap(), None, "seed {seed}");
            }
        }
        hub.heal();
        let (client, _) = client_with(at(&hub, dir.path()));
        sound(&get(&client).await.unwrap());
    }
}

#[tokio::test]
async fn a_big_file_gets_time_for_its_size() {
    // 2000 bytes at 100 bytes in 0.1 s take 2 s; the call alone has one.
    let drip = Fault::Drip { chunk: 100, pause: Duration::from_millis(100) }.always().on(Side::Cdn);
    let (hub, dir) = (start([drip]), tempfile::tempdir().unwrap());
    let mut settings = at(&hub, dir.path());
    settings.timeouts.overall = Duration::from_secs(1);
    let (client, _) = client_with(settings.clone());
    let error = client.snapshot(REPO, "main", &["tokenizer.json"]).await.unwrap_err();
    assert!(matches!(error, HubError::Deadline { .. }), "{error}");
    settings.timeouts.slowest = Some(100);
    let (client, _) = client_with(settings);
    client.snapshot(REPO, "main", &["tokenizer.json"]).await.unwrap();
}

#[tokio::test]
async fn the_same_contents_under_two_names_come_once_and_wait_for_nobody() {
    let same =
        Repo::new(REPO).file("a.gguf", noise(3000, 1), Storage::Lfs).file("b.gguf", noise(3000, 1), Storage::Lfs);
    let hub = MockHub::builder().repo(same).start().unwrap();
    hub.fault(Fault::Delay { pause: Duration::from_millis(100) }.always().on(Side::Cdn));
    for ours in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::default();
        let client = SmartTokenizerDownload::with_observer(at(&hub, dir.path()), events.observer()).unwrap();
        let paths = ["a.gguf", "b.gguf"];
        let files = if ours {
            client.fetch_all(REPO, "main", &paths).await.unwrap()
        } else {
            client.snapshot(REPO, "main", &paths).await.unwrap().files
        };
        assert!(files.iter().all(|file| *file.read().unwrap() == noise(3000, 1)));
        let metrics = client.metrics();
        assert_eq!((metrics.downloads, metrics.bytes, metrics.lock_waits), (1, 3000, 0));
        assert!(!events.all().iter().any(|event| matches!(event, Event::Waiting { .. })));
    }
}

#[tokio::test]
async fn a_damaged_file_is_passed_over_offline_and_replaced_online() {
    let (hub, dir) = (start([]), tempfile::tempdir().unwrap());
    let snapshot = |offline: bool| {
        let events = Events::default();
        let settings = HubSettings { offline, ..at(&hub, dir.path()) };
        (SmartTokenizerDownload::with_observer(settings, events.observer()).unwrap(), events)
    };
    let first = get(&snapshot(false).0).await.unwrap();
    let blob = std::fs::canonicalize(first.folder.join("tokenizer.json")).unwrap();
    std::fs::write(&blob, "damaged").unwrap();
    let (client, events) = snapshot(true);
    let error = get(&client).await.unwrap_err();
    let words = format!("{} is damaged", blob.display());
    assert!(matches!(error, HubError::Offline { .. }) && error.to_string().contains(&words), "{error}");
    assert!(events.all().iter().any(|event| matches!(event, Event::PassedOver { file, .. } if *file == blob)));
    assert_eq!((std::fs::read(&blob).unwrap(), client.metrics().damaged), (b"damaged".to_vec(), 0));
    let (client, events) = snapshot(false);
    sound(&get(&client).await.unwrap());
    let damaged = events.all().iter().filter(|event| matches!(event, Event::Damaged { .. })).count();
    assert_eq!((damaged, client.metrics().damaged, client.metrics().downloads), (1, 1, 1));
}

/// Files that are no links do not say their checksum; offline they are taken for what they are.
#[tokio::test]
async fn files_without_links_are_read_offline() {
    let (hub, dir) = (start([]), tempfile::tempdir().unwrap());
    let settings = |offline| HubSettings { offline, hf_links: false, ..at(&hub, dir.path()) };
    let first = get(&client_with(settings(false)).0).await.unwrap();
    assert!(!first.files[0].file.is_symlink());
    let again = get(&client_with(settings(true)).0).await.unwrap();
    assert_eq!(names(&again), names(&first));
    for (file, before) in again.files.iter().zip(&first.files) {
        let bytes = before.read().unwrap();
        assert_eq!((file.size, &file.read().unwrap()), (before.size, &bytes));
        assert_eq!(file.digest.to_string(), format!("sha256-{}", bitnet_mock_hub::sha256_hex(&bytes)));
    }
    std::fs::remove_file(&again.files[0].file).unwrap();
    assert!(matches!(get(&client_with(settings(true)).0).await, Err(HubError::Offline { .. })));
}

#[tokio::test]
async fn what_our_own_cache_has_is_no_download() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    for (path, fetched, downloads) in [("tokenizer.json", true, 0), ("config.json", false, 1), ("empty", false, 1)] {
        let settings = at(&hub, &dir.path().join(path));
        if fetched {
            client_with(settings.clone()).0.fetch(REPO, "main", path).await.unwrap();
        }
        let (client, _) = client_with(settings);
        client.snapshot(REPO, "main", &[path]).await.unwrap();
        assert_eq!(client.metrics().downloads, downloads, "{path}");
    }
}
