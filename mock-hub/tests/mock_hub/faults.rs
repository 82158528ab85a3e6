//! Each fault as a client sees it.

use std::time::{Duration, Instant};

use bitnet_mock_hub::{Fault, MockHub, Repo, Rule, Side, Storage, sha256_hex};
use reqwest::Response;

use crate::client;

fn body() -> Vec<u8> {
    (0..3000u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn hub(rules: impl IntoIterator<Item = Rule>) -> MockHub {
    let builder = MockHub::builder().repo(Repo::new("o/n").file("big.bin", body(), Storage::Lfs));
    rules.into_iter().fold(builder, |builder, rule| builder.rule(rule)).start().unwrap()
}

async fn get(hub: &MockHub) -> reqwest::Result<Response> {
    client().get(format!("{}/o/n/{}", hub.origin(Side::Cdn), sha256_hex(&body()))).send().await
}

/// The bytes that arrived, and whether the body ended well.
async fn read(mut response: Response) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => out.extend_from_slice(&chunk),
            Ok(None) => return (out, true),
            Err(_) => return (out, false),
        }
    }
}

#[tokio::test]
async fn cut() {
    let hub = hub([Fault::Cut { at: 100 }.always()]);
    let (bytes, whole) = read(get(&hub).await.unwrap()).await;
    assert_eq!((bytes.as_slice(), whole), (&body()[..100], false));
    assert_eq!(hub.log().bytes(Side::Cdn), 100);
}

#[tokio::test]
async fn drip() {
    let hub = hub([Fault::Drip { chunk: 1000, pause: Duration::from_millis(20) }.always()]);
    let started = Instant::now();
    let (bytes, whole) = read(get(&hub).await.unwrap()).await;
    assert!(whole && bytes == body());
    assert!(started.elapsed() >= Duration::from_millis(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn stall() {
    let hub = hub([Fault::Stall { at: 500, pause: Duration::from_secs(60) }.always()]);
    let mut response = get(&hub).await.unwrap();
    let mut bytes = 0;
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await {
        bytes += chunk.len();
    }
    assert_eq!(bytes, 500);
}

#[tokio::test]
async fn wrong_length() {
    let longer = hub([Fault::WrongLength { delta: 10 }.always()]);
    let response = get(&longer).await.unwrap();
    assert_eq!(response.content_length(), Some(3010));
    assert!(!read(response).await.1);
    let shorter = hub([Fault::WrongLength { delta: -2900 }.always()]);
    let (bytes, whole) = read(get(&shorter).await.unwrap()).await;
    assert_eq!((bytes.len(), whole), (100, true));
    let none = hub([Fault::NoLength.always()]);
    let response = get(&none).await.unwrap();
    assert_eq!(response.content_length(), None);
    assert_eq!(read(response).await, (body(), true));
}

#[tokio::test]
async fn corrupt() {
    let hub = hub([Fault::Corrupt { at: 5 }.always()]);
    let (bytes, whole) = read(get(&hub).await.unwrap()).await;
    let differing: Vec<usize> = (0..3000).filter(|i| bytes[*i] != body()[*i]).collect();
    assert_eq!((differing, whole), (vec![5], true));
}

#[tokio::test]
async fn html_and_statuses() {
    for status in [200, 403, 500] {
        let hub = hub([Fault::Html { status }.always()]);
        let response = get(&hub).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(response.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    }
    let late = hub([Fault::RetryAfter { seconds: 30 }.always()]);
    let response = get(&late).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "30"));
    let limited = hub([Fault::RateLimit { seconds: 55 }.always()]);
    let response = get(&limited).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["ratelimit"].to_str().unwrap()),
        (429, "\"api\";r=0;t=55")
    );
}

#[tokio::test]
async fn redirects_lead_in_circles_and_away() {
    let circle = hub([Fault::RedirectLoop.always().on(Side::Hub)]);
    let response = client().get(format!("{}/o/n/resolve/main/big.bin", circle.endpoint())).send().await.unwrap();
    assert_eq!(response.headers()["location"], "/o/n/resolve/main/big.bin");
    let away = hub([Fault::RedirectAway.always().on(Side::Hub)]);
    let response = client().get(format!("{}/o/n/resolve/main/big.bin", away.endpoint())).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(away.origin(Side::Elsewhere)));
    assert_eq!(client().get(location).send().await.unwrap().bytes().await.unwrap(), body());
    assert_eq!(away.log().count(|entry| entry.side == Side::Elsewhere), 1);
}

#[tokio::test]
async fn refuse_delay_and_flapping() {
    let hub =
        hub([Fault::Refuse.always().times(2), Fault::Delay { pause: Duration::from_millis(50) }.always().skip(3)]);
    assert!(get(&hub).await.is_err());
    assert!(get(&hub).await.is_err());
    assert_eq!(get(&hub).await.unwrap().status(), 200);
    let started = Instant::now();
    assert_eq!(get(&hub).await.unwrap().status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(50));
    hub.heal();
    assert_eq!(get(&hub).await.unwrap().status(), 200);
}

#[tokio::test]
async fn faults_compose_and_range_can_be_ignored() {
    let hub = hub([Fault::Corrupt { at: 5 }.always(), Fault::Cut { at: 100 }.always(), Fault::IgnoreRange.always()]);
    let url = format!("{}/o/n/{}", hub.origin(Side::Cdn), sha256_hex(&body()));
    let response = client().get(url).header("Range", "bytes=50-").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (bytes, whole) = read(response).await;
    assert_eq!((bytes.len(), whole, bytes[5] == body()[5]), (100, false, false));
    assert_eq!(hub.log().entries()[0].range.as_deref(), Some("bytes=50-"), "the log has what was asked");
}

#[tokio::test]
async fn a_part_begins_elsewhere_and_says_so() {
    let hub = hub([Fault::OtherRange { by: 7 }.always()]);
    let url = format!("{}/o/n/{}", hub.origin(Side::Cdn), sha256_hex(&body()));
    for (asked, first) in [("bytes=1000-", 1007), ("bytes=2998-", 2999)] {
        let part = client().get(&url).header("Range", asked).send().await.unwrap();
        assert_eq!(part.headers()["content-range"], format!("bytes {first}-2999/3000").as_str());
        assert_eq!(part.bytes().await.unwrap(), body()[first..]);
    }
    assert_eq!(read(get(&hub).await.unwrap()).await, (body(), true), "the whole is whole");
}

#[tokio::test]
async fn another_commit_is_named() {
    let hub = hub([Fault::OtherCommit.always().times(1)]);
    let commit = |answer: Response| answer.headers()["x-repo-commit"].to_str().unwrap().to_owned();
    let ask = || client().head(format!("{}/o/n/resolve/main/big.bin", hub.endpoint())).send();
    let (other, own) = (commit(ask().await.unwrap()), commit(ask().await.unwrap()));
    assert!(other != own && other.len() == own.len(), "{other} {own}");
}
