//! The downloader when the network behaves: what is fetched, what is not, and who sees the token.

use std::time::Duration;

use crate::common::*;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::{
    Algorithm, Cache, Event, HubError, HubMetrics, HubSettings, SmartTokenizerDownload, Source, Token, TokenSource,
};
use bitnet_mock_hub::{Access, Fault, Repo, Side, Storage, git_blob_sha1};

#[tokio::test]
async fn test_successful_tokenizer_download() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, events) = client(&hub, dir.path());
    let file = client.fetch(REPO, "main", "tokenizer.json").await.unwrap();
    assert_eq!(*file.read().unwrap(), body());
    assert_eq!((file.source, file.size, file.digest.algorithm), (Source::Network, 3000, Algorithm::Sha256));
    assert_eq!(file.commit.len(), 40);
    // HEAD, GET with the hub's redirect, GET at the CDN; nothing else
    let log = hub.log().entries();
    let seen: Vec<_> = log.iter().map(|entry| (entry.side, entry.method.as_str(), entry.status)).collect();
    assert_eq!(seen, [(Side::Hub, "HEAD", 302), (Side::Hub, "GET", 302), (Side::Cdn, "GET", 200)]);
    assert!(log.iter().all(|entry| entry.accept_encoding.as_deref() == Some("identity")));
    assert!(log[1].path.contains(&file.commit), "the contents are asked for by commit, not by branch: {}", log[1].path);

    let metrics = client.metrics();
    assert_eq!((metrics.files, metrics.downloads, metrics.misses, metrics.bytes, metrics.requests), (1, 1, 1, 3000, 3));
    assert!(metrics.bandwidth > 0 && metrics.hit_rate == 0.0);
    let json = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<HubMetrics>(&json).unwrap(), metrics);
    assert!(events.all().iter().any(|event| matches!(event, Event::Progress { done: 3000, total: 3000, .. })));
    assert!(matches!(events.all().last(), Some(Event::Finished { transferred: 3000, .. })));
}

#[tokio::test]
async fn every_kind_of_storage_and_name() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    for (path, wanted, algorithm) in [
        ("config.json", json(), Algorithm::GitSha1),
        ("cached.json", b"[1, 2]".to_vec(), Algorithm::GitSha1),
        ("xet.bin", noise(5000, 2), Algorithm::Sha256),
        ("sub dir/ü.txt", b"deep".to_vec(), Algorithm::GitSha1),
        ("empty", Vec::new(), Algorithm::GitSha1),
    ] {
        let file = client.fetch(REPO, "main", path).await.unwrap();
        assert_eq!((&*file.read().unwrap(), file.digest.algorithm), (&wanted, algorithm), "{path}");
        let to = dir.path().join("out").join("copy");
        file.export(&to).unwrap();
        assert_eq!(std::fs::read(to).unwrap(), wanted);
    }
    let config = client.fetch(REPO, "main", "config.json").await.unwrap();
    assert!(config.compressed && std::fs::metadata(&config.file).unwrap().len() < json().len() as u64 / 2);
    let noise = client.fetch(REPO, "main", "xet.bin").await.unwrap();
    assert!(noise.plain_file().is_some(), "what does not compress is kept as it is");
    assert_eq!(client.cache().verify().unwrap().sound.len(), 5);
}

#[tokio::test]
async fn a_second_fetch_sends_nothing_and_a_pinned_commit_never_asks() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let first = client.fetch(REPO, "main", "tokenizer.json").await.unwrap();
    hub.log().clear();
    let again = client.fetch(REPO, "main", "tokenizer.json").await.unwrap();
    let pinned = client.fetch(REPO, &first.commit, "tokenizer.json").await.unwrap();
    assert_eq!((again.source, pinned.source), (Source::Cache, Source::Cache));
    assert_eq!(*pinned.read().unwrap(), body());
    assert!(hub.log().is_empty(), "{:?}", hub.log().entries());
    let metrics = client.metrics();
    assert_eq!((metrics.cache_hits, metrics.avoided_bytes), (2, 6000));
    assert!((metrics.hit_rate - 2.0 / 3.0).abs() < 1e-9);
}

#[tokio::test]
async fn more_than_90_percent_of_duplicate_downloads_are_avoided() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.ref_ttl = Duration::ZERO; // every call asks for the branch's commit: the hard case
    let wants = 50;
    let clients: Vec<_> = (0..5).map(|_| client_with(settings.clone()).0).collect();
    for n in 0..wants {
        let file = clients[n % 5].fetch(REPO, "main", "tokenizer.json").await.unwrap();
        assert_eq!(*file.read().unwrap(), body());
    }
    let fetched = hub.log().bytes(Side::Cdn) as f64 / (wants * 3000) as f64;
    assert!(fetched < 0.1, "{:.1} % of the bytes were fetched", fetched * 100.0);
    assert_eq!(hub.log().count(|entry| entry.side == Side::Cdn), 1);
}

#[tokio::test]
async fn a_branch_that_moves_brings_only_what_changed() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.ref_ttl = Duration::ZERO;
    let (client, _) = client_with(settings);
    let old = client.fetch_all(REPO, "main", &["tokenizer.json", "config.json"]).await.unwrap();
    hub.put(Repo::new(REPO).file("tokenizer.json", body(), Storage::Lfs).file(
        "config.json",
        "{\"new\": 1}",
        Storage::Git,
    ));
    hub.log().clear();
    let new = client.fetch_all(REPO, "main", &["tokenizer.json", "config.json"]).await.unwrap();
    assert_ne!(old[0].commit, new[0].commit);
    assert_eq!((new[0].source, new[1].source), (Source::Shared, Source::Network));
    assert_eq!(*new[1].read().unwrap(), b"{\"new\": 1}");
    assert_eq!(hub.log().requests("GET", "tokenizer.json"), 0);
    // the old commit is still there, by its name
    let pinned = client.fetch(REPO, &old[0].commit, "config.json").await.unwrap();
    assert_eq!((pinned.source, &*pinned.read().unwrap()), (Source::Cache, &json()));
}

#[tokio::test]
async fn files_of_one_repo_come_at_the_same_time_and_from_one_commit() {
    let hub = hub([Fault::Delay { pause: Duration::from_millis(400) }.always()]);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&hub, dir.path());
    settings.timeouts.stall = Duration::from_secs(20);
    let (client, _) = client_with(settings);
    let started = std::time::Instant::now();
    let paths = ["config.json", "cached.json", "sub dir/ü.txt", "empty"];
    let files = client.fetch_all(REPO, "main", &paths).await.unwrap();
    // one HEAD for the commit, then HEAD and one or two GETs, in parallel: one by one it would be at least 8 x 400 ms
    assert!(started.elapsed() < Duration::from_millis(3100), "{:?}", started.elapsed());
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths);
    assert!(files.iter().all(|file| file.commit == files[0].commit));
}

#[tokio::test]
async fn revisions_and_renamed_repositories() {
    let hub = builder()
        .repo(Repo::new("new/name").file("a", "main", Storage::Git).file_at("refs/pr/1", "a", "pr", Storage::Git))
        .renamed("old/name", "new/name")
        .start()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (client, _) = client(&hub, dir.path());
    for (repo, revision, wanted) in
        [("new/name", "main", "main"), ("new/name", "refs/pr/1", "pr"), ("old/name", "main", "main")]
    {
        let file = client.fetch(repo, revision, "a").await.unwrap();
        assert_eq!(*file.read().unwrap(), wanted.as_bytes(), "{repo} {revision}");
        assert_eq!(file.digest.hex, git_blob_sha1(wanted.as_bytes()));
    }
    let listing = client.list("old/name", "main").await.unwrap();
    assert_eq!(listing.files, ["a"]);
}

#[tokio::test]
async fn the_hubs_errors_are_told_apart() {
    let hub = builder()
        .repo(Repo::new("org/gated").file("a", "a", Storage::Git).access(Access::Gated("good".to_owned())))
        .repo(private())
        .start()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let with = |token: Option<&str>| {
        let mut settings = settings(&hub, dir.path());
        settings.token = token.and_then(Token::new).map_or(TokenSource::None, TokenSource::Value);
        client_with(settings).0
    };
    let anonymous = with(None);
    let error = anonymous.fetch(REPO, "nope", "config.json").await.unwrap_err();
    assert!(matches!(&error, HubError::RevisionNotFound { revision, .. } if revision == "nope"), "{error}");
    let error = anonymous.fetch(REPO, "main", "nope.json").await.unwrap_err();
    assert!(matches!(&error, HubError::EntryNotFound { path, .. } if path == "nope.json"), "{error}");
    let error = anonymous.fetch("org/nope", "main", "a").await.unwrap_err();
    assert!(matches!(&error, HubError::RepoNotFound { authenticated: false, .. }), "{error}");
    assert!(error.to_string().contains("export HF_TOKEN"), "{error}");
    let error = anonymous.fetch("org/private", "main", "a").await.unwrap_err();
    assert!(matches!(error, HubError::RepoNotFound { .. }), "{error}");
    let error = anonymous.fetch("org/gated", "main", "a").await.unwrap_err();
    assert!(matches!(error, HubError::Gated { authenticated: false, .. }), "{error}");
    let error = with(Some("bad")).fetch("org/gated", "main", "a").await.unwrap_err();
    assert!(matches!(&error, HubError::Gated { authenticated: true, .. }), "{error}");
    assert!(!error.to_string().contains("bad"), "the token is in the text: {error}");
    let good = with(Some(" good\n"));
    for repo in ["org/gated", "org/private"] {
        assert_eq!(*good.fetch(repo, "main", "a").await.unwrap().read().unwrap(), b"a");
    }
    assert_eq!(anonymous.metrics().retries, 0, "none of these is worth a retry");
}

#[tokio::test]
async fn the_token_goes_to_the_endpoint_only() {
    let hub = hub([Fault::RedirectAway.always().on(Side::Hub).method("GET").path("config.json")]);
    let dir = tempfile::tempdir().unwrap();
    let (client, _) = client_with(HubSettings { token: token("hf_secret"), ..settings(&hub, dir.path()) });
    assert!(!format!("{client:?}").contains("secret"));
    // by the CDN, and by a mirror that the hub suddenly points at; its bytes are right, so they are taken
    client.fetch(REPO, "main", "tokenizer.json").await.unwrap();
    client.fetch(REPO, "main", "config.json").await.unwrap();
    assert_token_stays(&hub);
}

#[tokio::test]
async fn a_token_file_is_read_when_the_client_is_made() {
    let hub = builder().repo(private()).start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&hub, &dir.path().join("cache"));
    settings.token = TokenSource::File(dir.path().join("token"));
    let (before, _) = client_with(settings.clone());
    std::fs::write(dir.path().join("token"), "good\n").unwrap();
    let (after, _) = client_with(settings);
    assert!(before.fetch("org/private", "main", "a").await.is_err());
    assert!(after.fetch("org/private", "main", "a").await.is_ok());
}

#[tokio::test]
async fn offline_sends_no_packet() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (online, _) = client(&hub, dir.path());
    online.fetch(REPO, "main", "config.json").await.unwrap();
    hub.log().clear();
    let mut settings = settings(&hub, dir.path());
    settings.offline = true;
    settings.ref_ttl = Duration::ZERO;
    let (client, _) = client_with(settings);
    assert_eq!(*client.fetch(REPO, "main", "config.json").await.unwrap().read().unwrap(), json());
    let error = client.fetch(REPO, "main", "tokenizer.json").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HubError::Offline { .. }));
    assert!(
        text.contains("unset BITNET_OFFLINE")
            && text.contains("--revision main")
            && text.contains(&dir.path().display().to_string()),
        "{text}"
    );
    assert!(client.fetch("org/other", "main", "a").await.is_err());
    assert!(client.list(REPO, "main").await.is_err());
    assert_eq!((hub.log().len(), client.metrics().requests), (0, 0));
}

#[tokio::test]
async fn an_existing_huggingface_cache_is_used_and_verified() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (probe, _) = client(&hub, &dir.path().join("probe"));
    let commit = probe.fetch(REPO, "main", "config.json").await.unwrap().commit;
    // the layout that huggingface_hub leaves
    let root = dir.path().join("hf");
    let home = root.join("models--org--name");
    for folder in ["refs", "blobs"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    std::fs::create_dir_all(home.join("snapshots").join(&commit)).unwrap();
    std::fs::write(home.join("refs/main"), &commit).unwrap();
    let blob = git_blob_sha1(&json());
    std::fs::write(home.join("blobs").join(&blob), json()).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), home.join("snapshots").join(&commit).join("config.json"))
        .unwrap();

    let mut settings = settings(&hub, &dir.path().join("ours"));
    settings.hf_caches = vec![root];
    hub.log().clear();
    let mut offline = settings.clone();
    offline.offline = true;
    let file = client_with(offline).0.fetch(REPO, "main", "config.json").await.unwrap();
    assert_eq!((file.source, &*file.read().unwrap()), (Source::HuggingFaceCache, &json()));
    assert!(hub.log().is_empty());
    let (online, _) = client_with(settings);
    assert_eq!(online.fetch(REPO, "main", "config.json").await.unwrap().source, Source::HuggingFaceCache);
    assert_eq!(hub.log().requests("GET", "config.json"), 0, "a HEAD, but no contents");
    assert_eq!(online.metrics().hf_cache_hits, 1);
    // damaged there: ours is fetched instead, theirs is not touched
    std::fs::write(home.join("blobs").join(&blob), "garbage").unwrap();
    let file = online.fetch(REPO, "main", "config.json").await.unwrap();
    assert_eq!((file.source, &*file.read().unwrap()), (Source::Network, &json()));
    assert_eq!(std::fs::read(home.join("blobs").join(&blob)).unwrap(), b"garbage");
}

#[tokio::test]
async fn when_the_network_dies_the_last_known_commit_serves() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.ref_ttl = Duration::ZERO;
    let (client, events) = client_with(settings);
    client.fetch(REPO, "main", "config.json").await.unwrap();
    hub.fault(Fault::Refuse.always());
    let file = client.fetch(REPO, "main", "config.json").await.unwrap();
    assert_eq!(*file.read().unwrap(), json());
    assert!(events.all().iter().any(|event| matches!(event, Event::Stale { revision, .. } if revision == "main")));
    assert!(client.fetch(REPO, "main", "tokenizer.json").await.is_err(), "what was never fetched cannot be served");
}

#[test]
fn the_blocking_facade_works_with_and_without_a_runtime_around_it() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let client = BlockingDownload::new(settings(&hub, dir.path()), None).unwrap();
    assert_eq!(*client.fetch(REPO, "main", "tokenizer.json").unwrap().read().unwrap(), body());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // made, used and dropped inside
    runtime.block_on(async { drop(BlockingDownload::new(settings(&hub, dir.path()), None).unwrap()) });
    let inside =
        runtime.block_on(async { client.fetch_all(REPO, "main", &["config.json", "tokenizer.json"]) }).unwrap();
    assert_eq!((inside[0].source, inside[1].source), (Source::Network, Source::Cache));
    assert_eq!(client.list(REPO, "main").unwrap().files.len(), 6);
    assert_eq!((client.metrics().downloads, Cache::new(dir.path()).list().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn endpoints_with_a_slash_a_path_or_https() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.endpoint += "/";
    assert!(client_with(settings.clone()).0.fetch(REPO, "main", "config.json").await.is_ok());
    // a mirror below a path: it is asked there (and our hub knows nothing there)
    settings.endpoint += "mirror";
    settings.ref_ttl = Duration::ZERO;
    assert!(client_with(settings.clone()).0.fetch("org/other", "main", "x").await.is_err());
    assert!(hub.log().entries().last().unwrap().path.starts_with("/mirror/org/other/resolve/"));
    // TLS is set up (certificates, provider), and a plain server behind https:// is an error, not a downgrade
    settings.endpoint = hub.endpoint().replace("http://", "https://");
    settings.retry.retries = 1;
    let before = hub.log().len();
    let error = client_with(settings).0.fetch("org/other", "main", "x").await.unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert_eq!(hub.log().len(), before);
    assert!(SmartTokenizerDownload::new(HubSettings::new(dir.path())).is_ok());
}

#[tokio::test]
async fn names_and_endpoints_that_cannot_be_are_refused_before_any_packet() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    for (repo, revision, path) in [
        ("../x", "main", "a"),
        ("o/n", "..", "a"),
        ("o/n", "main", "../../etc/passwd"),
        ("o/n", "main", "/a"),
        ("", "main", "a"),
    ] {
        let error = client.fetch(repo, revision, path).await.unwrap_err();
        assert!(matches!(error, HubError::Name { .. }), "{error}");
    }
    assert!(hub.log().is_empty() && files_under(dir.path()).is_empty());
    for endpoint in ["nonsense", "ftp://x", "http://"] {
        let mut settings = HubSettings::new(dir.path());
        settings.endpoint = endpoint.to_owned();
        let error = SmartTokenizerDownload::new(settings).unwrap_err();
        assert!(matches!(&error, HubError::Setting { name: "HF_ENDPOINT", .. }), "{error}");
    }
}
