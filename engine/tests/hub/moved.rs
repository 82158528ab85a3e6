//! Mirrors that say "the hub is over there" (307, 308): followed for metadata, contents and lists, without the token.

use crate::common::*;
use bitnet_engine::hub::{HubError, HubSettings};
use bitnet_mock_hub::{Fault, Side};

#[tokio::test]
async fn a_mirror_that_sends_us_to_the_hub_is_followed() {
    for status in [307, 308] {
        let hub = builder().rule(Fault::Moved { status }.always().on(Side::Hub)).start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (client, _) = client_with(HubSettings { token: token("hf_secret"), ..settings(&hub, dir.path()) });
        assert_eq!(*client.fetch(REPO, "main", "tokenizer.json").await.unwrap().read().unwrap(), body());
        assert_eq!(*client.fetch(REPO, "main", "config.json").await.unwrap().read().unwrap(), json());
        assert!(client.list(REPO, "main").await.unwrap().files.contains(&"config.json".to_owned()));
        assert_token_stays(&hub);
        // What the other host says is the hub's word.
        let error = client.fetch(REPO, "main", "nope.json").await.unwrap_err();
        assert!(matches!(&error, HubError::EntryNotFound { .. }), "{error}");
        assert_eq!(client.metrics().retries, 0);
    }
}

#[tokio::test]
async fn a_private_repository_over_there_says_where_the_token_did_not_go() {
    let hub = builder().repo(private()).rule(Fault::Moved { status: 307 }.always().on(Side::Hub)).start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = HubSettings { token: token("good"), ..self::settings(&hub, dir.path()) };
    let error = client_with(settings).0.fetch("org/private", "main", "a").await.unwrap_err();
    assert!(matches!(&error, HubError::RepoNotFound { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(hub.origin(Side::Elsewhere)) && text.contains("gets no token"), "{text}");
    // At home it went along: there the token is not the right one.
    let hub = builder().repo(private()).start().unwrap();
    let settings = HubSettings { token: token("bad"), ..self::settings(&hub, dir.path()) };
    let text = client_with(settings).0.fetch("org/private", "main", "a").await.unwrap_err().to_string();
    assert!(text.contains("whether HF_TOKEN may read it") && !text.contains("redirects"), "{text}");
}

#[tokio::test]
async fn other_redirects_away_are_not_followed_for_metadata() {
    for status in [301, 302, 303] {
        let hub = hub([Fault::Moved { status }.always().on(Side::Hub)]);
        let dir = tempfile::tempdir().unwrap();
        let (client, _) = client(&hub, dir.path());
        for error in
            [client.fetch(REPO, "main", "config.json").await.unwrap_err(), client.list(REPO, "main").await.unwrap_err()]
        {
            assert!(matches!(&error, HubError::Redirect { .. }), "{status}: {error}");
        }
        assert_eq!(hub.log().count(|entry| entry.side == Side::Elsewhere), 0);
    }
}
