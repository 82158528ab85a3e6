//! The cache: budget, order, damage, and what other hands leave in it.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::common::*;
use bitnet_engine::hub::{Cache, Event, HubError, Source};
use bitnet_mock_hub::{MockHub, Repo, Side, Storage};

/// Four files of 10,000 bytes that do not compress.
fn four() -> MockHub {
    let repo = (0..4).fold(Repo::new(REPO), |repo, i| repo.file(&format!("f{i}"), noise(10_000, i), Storage::Lfs));
    MockHub::builder().repo(repo).start().unwrap()
}

/// Sets a blob's last use to `seconds` before now.
fn age(cache: &Cache, path: &str, seconds: u64) {
    let entry = cache.list().unwrap().into_iter().find(|entry| entry.path == path).unwrap();
    let file = fs::File::options().append(true).open(entry.file).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn paths(cache: &Cache) -> Vec<String> {
    cache.list().unwrap().into_iter().map(|entry| entry.path).collect()
}

#[tokio::test]
async fn test_download_cache_management() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let cache = client.cache();
    assert_eq!((cache.list().unwrap().len(), cache.stats().unwrap().stored), (0, 0), "an empty cache is not an error");
    client.fetch_all(REPO, "main", &["tokenizer.json", "config.json"]).await.unwrap();

    let list = cache.list().unwrap();
    assert_eq!(paths(cache), ["config.json", "tokenizer.json"]);
    assert!(list[0].compressed && list[0].stored < list[0].size, "{list:?}");
    let stats = cache.stats().unwrap();
    assert_eq!((stats.entries, stats.blobs, stats.logical), (2, 2, 3000 + json().len() as u64));
    assert_eq!(stats.stored, list.iter().map(|entry| entry.stored).sum::<u64>());
    assert_eq!(cache.read(&list[0]).unwrap(), json());

    let found = cache.verify().unwrap();
    assert_eq!((found.sound.len(), found.damaged.len()), (2, 0));
    assert_eq!(cache.clear().unwrap(), stats.stored);
    assert_eq!((cache.list().unwrap().len(), cached(dir.path()).len()), (0, 0));
    // and it fills again
    assert_eq!(client.fetch(REPO, "main", "config.json").await.unwrap().source, Source::Network);
}

#[tokio::test]
async fn test_cache_lru_eviction() {
    let (hub, dir) = (four(), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.cache_budget = 30_000;
    let (client, _) = client_with(settings);
    let cache = client.cache();
    for (name, seconds) in [("f0", 300), ("f1", 200), ("f2", 100)] {
        client.fetch(REPO, "main", name).await.unwrap();
        age(cache, name, seconds);
    }
    // f0 is the oldest, but it is used again: f1 must go when f3 comes
    assert_eq!(client.fetch(REPO, "main", "f0").await.unwrap().source, Source::Cache);
    client.fetch(REPO, "main", "f3").await.unwrap();
    assert_eq!(paths(cache), ["f0", "f2", "f3"]);
    assert_eq!(cache.stats().unwrap().stored, 30_000);
    // by hand, down to one: the next oldest go first
    let evicted = cache.evict(10_000, &[]).unwrap();
    assert_eq!((evicted.removed.len(), evicted.freed, evicted.left), (2, 20_000, 10_000));
    assert_eq!(paths(cache), ["f3"]);
    // what was evicted comes again
    let again = client.fetch(REPO, "main", "f1").await.unwrap();
    assert_eq!((again.source, &*again.read().unwrap()), (Source::Network, &noise(10_000, 1)));
}

#[tokio::test]
async fn a_file_bigger_than_the_budget_stays_alone() {
    let (hub, dir) = (four(), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.cache_budget = 100;
    let (client, _) = client_with(settings);
    for name in ["f0", "f1"] {
        let file = client.fetch(REPO, "main", name).await.unwrap();
        assert_eq!(file.read().unwrap().len(), 10_000);
        assert_eq!(paths(client.cache()), [name]);
    }
}

#[tokio::test]
async fn damage_is_noticed_on_read_and_repaired_by_the_next_fetch() {
    for (name, wanted) in [("config.json", json()), ("tokenizer.json", body())] {
        let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
        let (client, events) = client(&hub, dir.path());
        let file = client.fetch(REPO, "main", name).await.unwrap();
        for damage in 0..3 {
            let mut bytes = fs::read(&file.file).unwrap();
            match damage {
                0 => bytes.truncate(bytes.len() / 2),
                1 => *bytes.last_mut().unwrap() ^= 1,
                _ => bytes.extend_from_slice(b"more"),
            }
            fs::write(&file.file, bytes).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(&error, HubError::Corrupt { .. }), "{name} {damage}: {error}");
            assert!(!file.file.exists(), "a damaged blob is removed");
            let repaired = client.fetch(REPO, "main", name).await.unwrap();
            assert_eq!((repaired.source, &*repaired.read().unwrap()), (Source::Network, &wanted), "{name} {damage}");
        }
        // damage that the fetch itself meets
        fs::write(&file.file, b"garbage").unwrap();
        assert_eq!(client.fetch(REPO, "main", name).await.unwrap().source, Source::Network);
        assert!(events.all().iter().any(|event| matches!(event, Event::Damaged { .. })));
        assert_eq!(client.metrics().damaged, 1);
        // damage that `bitnet cache verify` meets
        fs::write(&file.file, b"garbage").unwrap();
        let found = client.cache().verify().unwrap();
        assert_eq!((found.sound.len(), found.damaged.len()), (0, 1));
        assert!(cached(dir.path()).is_empty(), "{:?}", cached(dir.path()));
    }
}

#[tokio::test]
async fn equal_contents_are_stored_and_fetched_once() {
    let hub = MockHub::builder()
        .repo(Repo::new("a/one").file("x", body(), Storage::Lfs))
        .repo(Repo::new("b/two").file("y", body(), Storage::Lfs))
        .start()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (client, _) = client(&hub, dir.path());
    assert_eq!(client.fetch("a/one", "main", "x").await.unwrap().source, Source::Network);
    assert_eq!(client.fetch("b/two", "main", "y").await.unwrap().source, Source::Shared);
    let stats = client.cache().stats().unwrap();
    assert_eq!((stats.entries, stats.blobs), (2, 1));
    assert_eq!(hub.log().count(|entry| entry.side == Side::Cdn), 1);
    assert_eq!(client.metrics().shared_hits, 1);
}

#[tokio::test]
async fn rubbish_in_the_folder_harms_nobody() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let file = client.fetch(REPO, "main", "config.json").await.unwrap();
    let note = files_under(dir.path()).into_iter().find(|name| name.starts_with("entries")).unwrap();
    let root = dir.path();
    fs::write(root.join(&note).with_file_name("x.json"), "not json").unwrap();
    fs::write(root.join("blobs/README"), "hello").unwrap();
    fs::write(root.join("entries/stray"), "hello").unwrap();
    fs::write(root.join("refs/org--name/main"), "not a commit").unwrap();
    assert_eq!(client.cache().list().unwrap().len(), 1);
    assert_eq!(client.cache().verify().unwrap().sound.len(), 1);
    assert_eq!(client.fetch(REPO, "main", "config.json").await.unwrap().source, Source::Cache);
    // a note that points at another file's contents is not believed
    fs::create_dir_all(root.join("entries/org--evil").join(&file.commit)).unwrap();
    fs::copy(root.join(&note), root.join("entries/org--evil").join(&file.commit).join("config.json.json")).unwrap();
    assert!(client.cache().find("org/evil", &file.commit, "config.json").is_none());
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_says_so() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let blocker = dir.path().join("file");
    fs::write(&blocker, "in the way").unwrap();
    let (client, _) = client(&hub, &blocker);
    let error = client.fetch(REPO, "main", "config.json").await.unwrap_err();
    assert!(matches!(error, HubError::Io { .. }), "{error}");
    assert!(error.to_string().contains("BITNET_TOKENIZER_CACHE"), "{error}");
}
