//! The hub is down, and the caches have what is wanted: served from them at once.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::*;
use bitnet_engine::hub::{Event, HubError, Source};
use bitnet_mock_hub::{Fault, Side};

/// A second, so that one attempt and no retry is told from any other number of them.
fn patient(hub: &bitnet_mock_hub::MockHub, dir: &std::path::Path) -> bitnet_engine::hub::HubSettings {
    let mut settings = settings(hub, dir);
    settings.ref_ttl = Duration::ZERO;
    settings.retry.base = Duration::from_secs(1);
    settings.retry.cap = Duration::from_secs(1);
    settings.timeouts.metadata = Duration::from_secs(9);
    settings
}

#[tokio::test]
async fn what_is_cached_is_served_after_one_glance() {
    for fault in [Fault::Refuse, Fault::Status { status: 503 }, Fault::Delay { pause: Duration::from_secs(8) }] {
        let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
        let (client, _) = client_with(patient(&hub, dir.path()));
        let files = ["tokenizer.json", "config.json"];
        client.fetch_all(REPO, "main", &files).await.unwrap();
        assert!(matches!(client.fetch(REPO, "main", "nope").await, Err(HubError::EntryNotFound { .. })));

        hub.fault(fault.clone().always().on(Side::Hub));
        hub.log().clear();
        let (client, events) = client_with(patient(&hub, dir.path()));
        let started = Instant::now();
        let got = client.fetch_all(REPO, "main", &files).await.unwrap();
        assert!(got.iter().all(|file| file.source == Source::Cache));
        assert!(started.elapsed() < Duration::from_secs(2), "{fault:?}: {:?}", started.elapsed());
        assert_eq!(hub.log().len(), 1, "{fault:?}");
        assert!(events.all().iter().any(|event| matches!(event, Event::Stale { .. })), "{fault:?}: it is said");
        // That a commit lacks a file stays known too.
        let error = client.fetch(REPO, &got[0].commit, "nope").await.unwrap_err();
        assert!(matches!(error, HubError::EntryNotFound { .. }), "{error}");
        assert_eq!(hub.log().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_not_cached_is_fought_for() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    client(&hub, dir.path()).0.fetch(REPO, "main", "config.json").await.unwrap();
    hub.fault(Fault::Status { status: 503 }.always().on(Side::Hub).times(2));
    let mut settings = settings(&hub, dir.path());
    settings.ref_ttl = Duration::ZERO;
    let (client, _) = client_with(settings);
    assert_eq!(client.fetch(REPO, "main", "tokenizer.json").await.unwrap().source, Source::Network);
    assert_eq!(client.metrics().retries, 2);
}

#[tokio::test]
async fn a_damaged_file_of_another_tools_cache_is_named() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (online, _) = client(&hub, &dir.path().join("ours"));
    let file = online.fetch(REPO, "main", "config.json").await.unwrap();
    let home = dir.path().join("hf/models--org--name");
    let (blob, snapshot) = (home.join("blobs").join(&file.digest.hex), home.join("snapshots").join(&file.commit));
    for folder in [home.join("blobs"), home.join("refs"), snapshot.clone()] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(home.join("refs/main"), &file.commit).unwrap();
    fs::write(&blob, &json()[1..]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&blob, snapshot.join("config.json")).unwrap();

    let mut offline = settings(&hub, &dir.path().join("none"));
    offline.offline = true;
    offline.hf_caches = vec![dir.path().join("hf")];
    let (client, events) = client_with(offline.clone());
    let error = client.fetch(REPO, "main", "config.json").await.unwrap_err().to_string();
    assert!(error.contains(&format!("{} is damaged", blob.display())) && !error.contains("in no cache"), "{error}");
    let told = events.all().into_iter().filter(|event| matches!(event, Event::PassedOver { .. })).count();
    assert_eq!(told, 1);
    assert!(blob.exists(), "it is not ours to remove");
    // Online the file is fetched instead.
    offline.offline = false;
    assert_eq!(*client_with(offline).0.fetch(REPO, "main", "config.json").await.unwrap().read().unwrap(), json());
}
