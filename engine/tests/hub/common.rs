//! What the hub tests share: a hub, settings in milliseconds instead of seconds, and an observer that remembers.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(unreachable_pub, reason = "shared by the modules of one test program")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitnet_engine::hub::{
    Event, HubError, HubMetrics, HubSettings, Observer, RetryPolicy, SmartTokenizerDownload, Timeouts, Token,
    TokenSource,
};
use bitnet_mock_hub::{Access, MockHub, MockHubBuilder, Repo, Rule, Side, Storage};

pub const REPO: &str = "org/name";

/// 3000 bytes that do not compress, as in the fault table.
pub fn body() -> Vec<u8> {
    noise(3000, 1)
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

pub fn json() -> Vec<u8> {
    (0..500).flat_map(|i| format!("{{\"token\": {i}}}\n").into_bytes()).collect()
}

pub fn builder() -> MockHubBuilder {
    MockHub::builder().repo(
        Repo::new(REPO)
            .file("tokenizer.json", body(), Storage::Lfs)
            .file("config.json", json(), Storage::Git)
            .file("cached.json", "[1, 2]", Storage::GitCached)
            .file("xet.bin", noise(5000, 2), Storage::Xet)
            .file("sub dir/ü.txt", "deep", Storage::Git)
            .file("empty", "", Storage::Git),
    )
}

pub fn hub(rules: impl IntoIterator<Item = Rule>) -> MockHub {
    rules.into_iter().fold(builder(), MockHubBuilder::rule).start().unwrap()
}

pub fn settings(hub: &MockHub, cache: &Path) -> HubSettings {
    let mut settings = HubSettings::new(cache);
    settings.endpoint = hub.endpoint().to_owned();
    settings.timeouts = Timeouts {
        connect: Duration::from_secs(2),
        metadata: Duration::from_secs(2),
        stall: Duration::from_millis(250),
        overall: Duration::from_secs(10),
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

#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub fn observer(&self) -> Option<Observer> {
        let events = self.0.clone();
        Some(Arc::new(move |event: &Event| events.lock().unwrap().push(event.clone())))
    }
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

pub fn client(hub: &MockHub, cache: &Path) -> (SmartTokenizerDownload, Events) {
    client_with(settings(hub, cache))
}

pub fn client_with(settings: HubSettings) -> (SmartTokenizerDownload, Events) {
    let events = Events::default();
    (SmartTokenizerDownload::with_observer(settings, events.observer()).unwrap(), events)
}

pub fn token(text: &str) -> TokenSource {
    TokenSource::Value(Token::new(text).unwrap())
}

/// A repository that wants the token `good`.
pub fn private() -> Repo {
    Repo::new("org/private").file("a", "a", Storage::Git).access(Access::Private("good".to_owned()))
}

/// The hub was sent a token; others were asked without.
#[track_caller]
pub fn assert_token_stays(hub: &MockHub) {
    assert!(hub.log().token_seen(Side::Hub));
    for side in [Side::Cdn, Side::Elsewhere] {
        assert!(hub.log().count(|entry| entry.side == side) > 0, "{side:?} must have been asked");
        assert!(!hub.log().token_seen(side), "the token leaked to {side:?}");
    }
}

/// Every file under a folder, for "nothing was cached".
pub fn files_under(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path)
            } else {
                out.push(path.strip_prefix(dir).unwrap().display().to_string())
            }
        }
    }
    out.sort();
    out
}

/// Blobs and entries: what counts as cached.
pub fn cached(dir: &Path) -> Vec<String> {
    files_under(dir).into_iter().filter(|name| name.starts_with("blobs") || name.starts_with("entries")).collect()
}

pub const FILE: &str = "tokenizer.json";

/// Fetches under faults and expects the right bytes; returns the hub for questions.
pub async fn survives(rules: impl IntoIterator<Item = Rule>) -> (MockHub, Vec<Event>, HubMetrics) {
    let (hub, dir) = (hub(rules), tempfile::tempdir().unwrap());
    let (client, events) = client(&hub, dir.path());
    let file = client.fetch(REPO, "main", FILE).await.unwrap();
    assert_eq!(*file.read().unwrap(), body());
    assert_eq!(client.cache().verify().unwrap().sound.len(), 1);
    let left: Vec<_> = files_under(dir.path()).into_iter().filter(|name| name.starts_with("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
    (hub, events.all(), client.metrics())
}

/// Fetches under faults that do not end and expects an error, and nothing in the cache; when the faults end, all is well.
pub async fn fails(rules: impl IntoIterator<Item = Rule>) -> (MockHub, HubError, HubMetrics) {
    let (hub, dir) = (hub(rules), tempfile::tempdir().unwrap());
    let (client, _) = client(&hub, dir.path());
    let started = Instant::now();
    let error = client.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(cached(dir.path()), [""; 0], "nothing may be cached");
    let text = error.to_string();
    assert!(!text.contains("Signature"), "the signed part of an address is shown: {text}");
    assert!(
        text.contains("run") || text.contains("check") || text.contains("export") || text.contains("curl"),
        "no way out is named: {text}"
    );
    let metrics = client.metrics();
    hub.heal();
    let (client, _) = client_with(settings(&hub, dir.path()));
    assert_eq!(*client.fetch(REPO, "main", FILE).await.unwrap().read().unwrap(), body());
    (hub, error, metrics)
}

pub fn gets(hub: &MockHub) -> Vec<Option<String>> {
    hub.log().entries().into_iter().filter(|entry| entry.side == Side::Cdn).map(|entry| entry.range).collect()
}
