//! Answers that do not say what they should: in a header, in a status, in their length.

use std::time::Duration;

use crate::common::*;
use bitnet_engine::hub::{BreakerPolicy, BreakerState, Event, HubError};
use bitnet_mock_hub::{Fault, MockHub, Repo, Side, Storage};

/// A header of the answer, or none of that name.
fn header(name: &str, value: &str) -> Fault {
    Fault::Header { name: name.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn a_body_that_is_compressed_is_no_file() {
    let (_, error, _) = fails([header("content-encoding", "gzip").always().on(Side::Cdn)]).await;
    assert!(matches!(&error, HubError::BadAnswer { why, .. } if why.contains("compresses")), "{error}");
    survives([header("content-encoding", "identity").always().on(Side::Cdn)]).await;
}

#[tokio::test]
async fn a_range_that_is_not_known_is_given_up() {
    let (hub, events, metrics) = survives([
        Fault::Cut { at: 1000 }.always().on(Side::Cdn).times(1),
        Fault::Status { status: 416 }.always().on(Side::Cdn).skip(1).times(1),
    ])
    .await;
    assert_eq!(gets(&hub), [None, Some("bytes=1000-".to_owned()), None]);
    let told = events.iter().filter_map(|event| match event {
        Event::Restarted { why, .. } => Some(why.as_str()),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["the server does not know the range that is missing"]);
    assert_eq!((metrics.bytes, metrics.retries), (4000, 2));
}

#[tokio::test]
async fn more_bytes_than_were_promised_are_refused() {
    let repo = || Repo::new(REPO).file(FILE, body(), Storage::Lfs).claims(FILE, 2500);
    let drip = Fault::Drip { chunk: 1000, pause: Duration::from_millis(2) }.always().on(Side::Cdn);
    let (hub, dir) = (MockHub::builder().repo(repo()).rule(drip).start().unwrap(), tempfile::tempdir().unwrap());
    let error = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap_err();
    let HubError::Size { expected: 2500, got, tried, .. } = &error else { panic!("{error}") };
    // The pieces may come together.
    assert!((2501..=3000).contains(got), "{got}");
    assert!(tried.0.len() == 5 && tried.0[0].ends_with("bytes and more, 2500 promised"), "{tried}");
    assert_eq!(cached(dir.path()), [""; 0]);
}

/// A CDN whose transfers die early is left alone; one that brings the file forward is not.
#[tokio::test]
async fn transfers_that_die_early_open_the_circuit() {
    for (bytes, dead) in [(50, true), (149, true), (150, false)] {
        let (hub, dir) = (hub([Fault::Cut { at: bytes }.always().on(Side::Cdn)]), tempfile::tempdir().unwrap());
        let mut settings = settings(&hub, dir.path());
        settings.breaker = BreakerPolicy { threshold: 3, cooldown: Duration::from_secs(60) };
        let outcome = client_with(settings).0.fetch(REPO, "main", FILE).await;
        match outcome {
            Err(HubError::CircuitOpen { failures: 3, last, .. }) => {
                assert!(dead && last.contains(&format!("of {}", 3000)), "{bytes}: {last}");
            }
            other => assert!(!dead && *other.unwrap().read().unwrap() == body(), "{bytes}"),
        }
    }
}

/// Failures in a row are those without an answer between them.
#[tokio::test]
async fn an_answer_ends_a_row_of_failures() {
    let down = || Fault::Status { status: 503 }.always().on(Side::Hub);
    let (hub, dir) = (hub([down().times(1), down().skip(2).times(1)]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.breaker = BreakerPolicy { threshold: 2, cooldown: Duration::from_secs(60) };
    settings.ref_ttl = Duration::ZERO;
    let (client, events) = client_with(settings);
    for _ in 0..2 {
        assert_eq!(client.list(REPO, "main").await.unwrap().files.len(), 6);
    }
    assert_eq!((hub.log().len(), client.breaker()), (3, BreakerState::Closed));
    assert!(events.all().iter().any(|event| matches!(event, Event::Stale { .. })));
}

/// What a HEAD must say of a file that the hub has itself.
#[tokio::test]
async fn metadata_that_is_none_says_what_is_missing() {
    let hub = hub([]);
    for (name, value, words) in [
        ("x-repo-commit", "", "it has no X-Repo-Commit"),
        ("x-repo-commit", "main", "its X-Repo-Commit is not a commit"),
        ("etag", "", "its ETag is not a checksum"),
        ("etag", "W/\"1234\"", "its ETag is not a checksum"),
        ("content-length", "", "it has no size"),
    ] {
        hub.fault(header(name, value).always().on(Side::Hub).method("HEAD"));
        let dir = tempfile::tempdir().unwrap();
        let error = client(&hub, dir.path()).0.fetch(REPO, "main", "config.json").await.unwrap_err();
        assert!(matches!(&error, HubError::BadAnswer { why, .. } if why == words), "{name}: {value}: {error}");
        hub.heal();
    }
    // One that redirects says it there, or away from the hub nobody does.
    hub.fault(header("x-linked-etag", "").always().on(Side::Hub).method("HEAD"));
    let dir = tempfile::tempdir().unwrap();
    let error = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(error.to_string().contains("it leaves the hub without naming a checksum"), "{error}");
}

#[tokio::test]
async fn a_redirect_must_lead_somewhere() {
    for (value, words) in [("", "a redirect that leads nowhere"), ("ftp://host/file", "we do not leave HTTPS")] {
        let (_, error, _) = fails([header("location", value).always().on(Side::Hub).method("GET")]).await;
        assert!(error.to_string().contains(words), "{value}: {error}");
    }
}

/// A note beside a partial file that holds what no header can is not sent.
#[tokio::test]
async fn a_damaged_note_does_no_harm() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let (partial, digest) = (dir.path().join("partial"), bitnet_mock_hub::sha256_hex(&body()));
    std::fs::create_dir_all(&partial).unwrap();
    std::fs::write(partial.join(format!("sha256-{digest}.part")), &body()[..500]).unwrap();
    std::fs::write(partial.join(format!("sha256-{digest}.json")), r#"{"validator": "a\nb"}"#).unwrap();
    let file = client(&hub, dir.path()).0.fetch(REPO, "main", FILE).await.unwrap();
    assert_eq!((gets(&hub), &*file.read().unwrap()), (vec![Some("bytes=500-".to_owned())], &body()));
}

/// The hub does not tell strangers which repositories exist; elsewhere the same status is none of its words.
#[tokio::test]
async fn who_is_not_let_in_hears_why() {
    let (_, error, _) = fails([Fault::Status { status: 401 }.always().on(Side::Hub)]).await;
    assert!(matches!(&error, HubError::RepoNotFound { message, .. } if message == "Unauthorized"), "{error}");
    let (_, error, metrics) = fails([Fault::Status { status: 401 }.always().on(Side::Cdn)]).await;
    assert!(matches!(&error, HubError::Status { status: 401, .. }), "{error}");
    assert_eq!(metrics.retries, 0);
    // A token that the hub has seen did not get lost on the way.
    let (hub, dir) = (MockHub::builder().repo(private()).start().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.token = token("bad");
    let error = client_with(settings).0.fetch("org/private", "main", "a").await.unwrap_err();
    assert!(matches!(&error, HubError::RepoNotFound { authenticated: true, .. }), "{error}");
    assert!(!error.to_string().contains("gets no token"), "{error}");
    // The hub's own words, without what would move a terminal's cursor.
    hub.fault(header("x-error-message", "no\tway").always());
    let error = client(&hub, dir.path()).0.fetch("org/private", "main", "a").await.unwrap_err();
    assert!(matches!(&error, HubError::RepoNotFound { message, .. } if message == "noway"), "{error}");
}

#[test]
fn a_client_is_shown_without_its_token() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.token = token("secret");
    let shown = format!("{:?}", client_with(settings).0);
    assert!(shown.contains("SmartTokenizerDownload") && shown.contains(hub.endpoint()), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}
