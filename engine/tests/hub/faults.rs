//! Everything that a hub, its CDN and the network between can do to us; first the rows of the table in which both official clients fail.
//! Each test says what must come out, and that nothing unverified is left in the cache.

use std::time::{Duration, Instant};

use crate::common::*;
use bitnet_engine::hub::{BreakerPolicy, BreakerState, Event, HubError, Source};
use bitnet_mock_hub::{Fault, Repo, Side, Storage};

// The table of shared knowledge on both official clients, row by row.

#[tokio::test]
async fn row_1_get_answers_403_with_html() {
    for side in [Side::Hub, Side::Cdn] {
        let (_, error, metrics) = fails([Fault::Html { status: 403 }.always().on(side).method("GET")]).await;
        assert!(matches!(error, HubError::Status { status: 403, .. }), "{error}");
        // The CDN's address may have expired.
        assert_eq!(metrics.retries, if side == Side::Cdn { 5 } else { 0 });
    }
}

#[tokio::test]
async fn row_2_get_answers_500_with_html() {
    let (_, error, metrics) = fails([Fault::Html { status: 500 }.always().on(Side::Cdn)]).await;
    assert!(matches!(&error, HubError::Status { status: 500, tried, .. } if tried.0.len() == 5), "{error}");
    assert_eq!(metrics.retries, 5);
    let HubError::Status { tried, .. } = &error else { panic!() };
    let counted = (1..).zip(&tried.0).all(|(n, line)| line.starts_with(&format!("{n}: status 500 from 127.0.0.1")));
    assert!(counted, "{tried:?}");
}

#[tokio::test]
async fn row_3_100_of_3000_bytes() {
    // a Content-Length that lies: the answer looks complete
    let (hub, _, metrics) = survives([Fault::WrongLength { delta: -2900 }.always().on(Side::Cdn).times(1)]).await;
    assert_eq!(gets(&hub), [None, Some("bytes=100-".to_owned())]);
    assert_eq!((metrics.bytes, metrics.retries), (3000, 1));
}

#[tokio::test]
async fn row_4_right_size_corrupt_bytes() {
    let (hub, error, metrics) = fails([Fault::Corrupt { at: 1500 }.always().on(Side::Cdn)]).await;
    assert!(matches!(error, HubError::Checksum { .. }), "{error}");
    assert_eq!(metrics.checksum_failures, 2, "once more from byte 0, then no more");
    assert_eq!(gets(&hub)[..2], [None, None]);
    survives([Fault::Corrupt { at: 0 }.always().on(Side::Cdn).times(1)]).await;
}

#[tokio::test]
async fn row_5_revision_not_found() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let error = client(&hub, dir.path()).0.fetch(REPO, "no-such-branch", FILE).await.unwrap_err();
    assert!(matches!(error, HubError::RevisionNotFound { .. }), "{error}");
}

#[tokio::test]
async fn row_6_429_with_retry_after() {
    // 30 s is more than our bound of 2 s here: one HEAD, no hammering, and the wait is named
    let (hub, error, _) = fails([Fault::RetryAfter { seconds: 30 }.always().on(Side::Hub)]).await;
    assert!(matches!(&error, HubError::RateLimited { wait, .. } if *wait == Duration::from_secs(30)), "{error}");
    assert_eq!(hub.log().count(|entry| entry.status == 429), 1);
    // 1 s is waited for, visibly
    let started = Instant::now();
    let (_, events, metrics) = survives([Fault::RetryAfter { seconds: 1 }.always().on(Side::Hub).times(1)]).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(metrics.waited_ms >= 1000);
    let visible = |event: &Event| matches!(event, Event::Retry { rate_limited: true, delay, .. } if *delay == Duration::from_secs(1));
    assert!(events.iter().any(visible), "{events:?}");
}

#[tokio::test]
async fn row_7_cut_in_the_body_resumes_at_the_byte() {
    let (hub, events, metrics) = survives([Fault::Cut { at: 1234 }.always().on(Side::Cdn).times(1)]).await;
    assert_eq!(gets(&hub), [None, Some("bytes=1234-".to_owned())]);
    let conditions: Vec<_> = hub.log().entries().into_iter().filter_map(|entry| entry.if_range).collect();
    assert!(!conditions.is_empty(), "Range needs If-Range");
    assert_eq!((metrics.bytes, hub.log().bytes(Side::Cdn)), (3000, 3000), "no byte came twice");
    assert!(
        events.iter().any(|event| matches!(event, Event::Retry { why, .. } if why.contains("byte 1234 of 3000"))),
        "{events:?}"
    );
}

// The other faults.

#[tokio::test]
async fn test_download_with_resume() {
    // the first run dies with the file half there; the second, another client, takes it from that byte on
    let hub = builder()
        .cdn_etag_differs()
        .rule(Fault::Cut { at: 1000 }.always().on(Side::Cdn).times(1))
        .rule(Fault::Refuse.always().on(Side::Cdn).skip(1).times(1))
        .start()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut first = settings(&hub, dir.path());
    first.retry.retries = 0;
    let error = client_with(first).0.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    let (client, events) = client(&hub, dir.path());
    let file = client.fetch(REPO, "main", FILE).await.unwrap();
    assert_eq!(*file.read().unwrap(), body());
    let from = Some("bytes=1000-".to_owned());
    assert_eq!(gets(&hub), [None, from.clone(), from]);
    assert!(events.all().contains(&Event::Started { path: FILE.to_owned(), resumed: 1000, total: 3000 }));
    let metrics = client.metrics();
    assert_eq!((metrics.bytes, metrics.resumed_bytes), (2000, 1000));
    // the CDN's own ETag, not the hub's, stands in If-Range
    let last = hub.log().entries().into_iter().rfind(|entry| entry.side == Side::Cdn).unwrap();
    assert_eq!((last.status, last.if_range.map(|etag| etag.len())), (206, Some(34)));
}

#[tokio::test]
async fn a_cut_after_every_few_bytes_still_ends() {
    // 20 cuts of 150 bytes: each brings 5 % and is free; retries alone would allow 6
    let (hub, _, metrics) = survives([Fault::Cut { at: 150 }.always().on(Side::Cdn)]).await;
    assert_eq!((gets(&hub).len(), metrics.bytes), (20, 3000));
    // 10 bytes at a time is not progress worth the name: it ends with an error, and the next run goes on
    let (_, error, _) = fails([Fault::Cut { at: 10 }.always().on(Side::Cdn)]).await;
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    let (hub, events, metrics) =
        survives([Fault::Cut { at: 1000 }.always().on(Side::Cdn).times(1), Fault::IgnoreRange.always().on(Side::Cdn)])
            .await;
    assert_eq!((gets(&hub).len(), metrics.bytes), (2, 4000));
    let why = events.iter().filter_map(|event| match event {
        Event::Restarted { why, .. } => Some(why.as_str()),
        _ => None,
    });
    assert_eq!(why.collect::<Vec<_>>(), ["the server sends the whole file instead of the missing part"]);
    // A file that comes at once, or goes on where it was, is not begun again.
    for rules in [vec![], vec![Fault::Cut { at: 1000 }.always().on(Side::Cdn).times(1)]] {
        let (_, events, _) = survives(rules).await;
        assert!(!events.iter().any(|event| matches!(event, Event::Restarted { .. })), "{events:?}");
    }
}

/// The checksum would find the bytes in the end; the range is seen before any of them is kept.
#[tokio::test]
async fn another_range_than_the_one_that_was_asked_for_is_refused_by_its_header() {
    let (hub, events, metrics) = survives([
        Fault::Cut { at: 1000 }.always().on(Side::Cdn).times(1),
        Fault::OtherRange { by: 7 }.always().on(Side::Cdn).skip(1).times(1),
    ])
    .await;
    assert_eq!(gets(&hub), [None, Some("bytes=1000-".to_owned()), None]);
    assert_eq!((metrics.checksum_failures, metrics.bytes), (0, 4000));
    let told = |event: &Event| matches!(event, Event::Restarted { why, .. } if why.contains("another range"));
    assert!(events.iter().any(told), "{events:?}");
}

#[tokio::test]
async fn a_hub_that_answers_for_another_commit_is_refused() {
    let (hub, dir, other) = (hub([]), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let commit = client(&hub, other.path()).0.fetch(REPO, "main", "config.json").await.unwrap().commit;
    hub.log().clear();
    hub.fault(Fault::OtherCommit.always().on(Side::Hub));
    let error = client(&hub, dir.path()).0.fetch(REPO, &commit, FILE).await.unwrap_err();
    let asked = format!("when asked for {commit}");
    assert!(matches!(&error, HubError::BadAnswer { why, .. } if why.contains(&asked)), "{error}");
    assert_eq!((hub.log().len(), cached(dir.path())), (1, Vec::new()), "it is not asked again, and nothing is kept");
    hub.heal();
    assert_eq!(*client(&hub, dir.path()).0.fetch(REPO, &commit, FILE).await.unwrap().read().unwrap(), body());
}

#[tokio::test]
async fn a_stall_is_noticed_and_resumed() {
    let started = Instant::now();
    let (hub, ..) =
        survives([Fault::Stall { at: 2000, pause: Duration::from_secs(60) }.always().on(Side::Cdn).times(1)]).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(gets(&hub), [None, Some("bytes=2000-".to_owned())]);
}

#[tokio::test]
async fn a_slow_drip_is_no_stall_but_meets_the_deadline() {
    survives([Fault::Drip { chunk: 1000, pause: Duration::from_millis(50) }.always().on(Side::Cdn)]).await;
    let hub = hub([Fault::Drip { chunk: 1, pause: Duration::from_millis(20) }.always().on(Side::Cdn)]);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&hub, dir.path());
    settings.timeouts.overall = Duration::from_millis(500);
    let (client, _) = client_with(settings);
    let started = Instant::now();
    let error = client.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(matches!(error, HubError::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("BITNET_DOWNLOAD_TIMEOUT"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(cached(dir.path()), [""; 0]);
}

#[tokio::test]
async fn wrong_lengths() {
    survives([Fault::WrongLength { delta: 10 }.always().on(Side::Cdn)]).await;
    survives([Fault::NoLength.always().on(Side::Cdn)]).await;
    // metadata without a size: there is nothing to hold the file against
    let (_, error, _) = fails([Fault::Status { status: 200 }.always().on(Side::Hub)]).await;
    assert!(matches!(error, HubError::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn html_with_200_is_a_login_page() {
    let (_, error, _) = fails([Fault::Html { status: 200 }.always().on(Side::Hub)]).await;
    assert!(matches!(&error, HubError::BadAnswer { why, .. } if why.contains("X-Repo-Commit")), "{error}");
    let (_, error, _) = fails([Fault::Html { status: 200 }.always().on(Side::Cdn)]).await;
    assert!(matches!(&error, HubError::BadAnswer { why, .. } if why.contains("web page")), "{error}");
}

#[tokio::test]
async fn the_hubs_own_ratelimit_header() {
    let (_, error, _) = fails([Fault::RateLimit { seconds: 55 }.always().on(Side::Hub)]).await;
    assert!(matches!(&error, HubError::RateLimited { wait, .. } if *wait == Duration::from_secs(56)), "{error}");
    let started = Instant::now();
    survives([Fault::RateLimit { seconds: 0 }.always().on(Side::Hub).times(1)]).await;
    assert!(started.elapsed() >= Duration::from_secs(1), "t + 1 s");
}

#[tokio::test]
async fn redirects_that_lead_nowhere() {
    for side in [Side::Hub, Side::Cdn] {
        let (hub, error, _) = fails([Fault::RedirectLoop.always().on(side)]).await;
        assert!(matches!(&error, HubError::Redirect { why, .. } if why.contains("circle")), "{error}");
        assert!(hub.log().len() < 12, "{}", hub.log().len());
    }
    let (hub, error, _) = fails([Fault::RedirectAway.always().on(Side::Hub).method("HEAD")]).await;
    assert!(matches!(&error, HubError::Redirect { why, .. } if why.contains("checksum")), "{error}");
    assert_eq!(hub.log().count(|entry| entry.side == Side::Elsewhere), 0, "nobody goes there for metadata");
}

#[tokio::test]
async fn flapping() {
    for fault in [
        Fault::Refuse,
        Fault::Status { status: 503 },
        Fault::Status { status: 500 },
        Fault::Html { status: 200 },
        Fault::Cut { at: 0 },
    ] {
        for side in [Side::Hub, Side::Cdn] {
            let (_, _, metrics) = survives([fault.clone().always().on(side).method("GET").times(3)]).await;
            assert_eq!(
                metrics.retries,
                if fault == (Fault::Cut { at: 0 }) && side == Side::Hub { 0 } else { 3 },
                "{fault:?} {side:?}"
            );
        }
        if !matches!(fault, Fault::Cut { .. }) {
            survives([fault.always().method("HEAD").times(4)]).await;
        }
    }
}

#[tokio::test]
async fn nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&hub([]), dir.path()); // the hub is gone when this line ends
    settings.retry.retries = 2;
    let error = client_with(settings).0.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(matches!(&error, HubError::Network { tried, .. } if tried.0.len() == 2), "{error}");
}

#[tokio::test]
async fn a_dead_hub_is_left_alone_and_probed() {
    let (hub, dir) = (hub([Fault::Status { status: 503 }.always().on(Side::Hub)]), tempfile::tempdir().unwrap());
    let mut settings = settings(&hub, dir.path());
    settings.breaker = BreakerPolicy { threshold: 3, cooldown: Duration::from_millis(150) };
    let (client, _) = client_with(settings);
    let error = client.fetch(REPO, "main", FILE).await.unwrap_err();
    assert!(matches!(&error, HubError::CircuitOpen { failures: 3, last, .. } if last == "status 503"), "{error}");
    assert_eq!((hub.log().len(), client.breaker()), (3, BreakerState::Open));
    // open: not a packet
    assert!(matches!(client.fetch(REPO, "main", FILE).await, Err(HubError::CircuitOpen { .. })));
    assert_eq!(hub.log().len(), 3);
    // half-open: one probe, which fails and opens it again
    tokio::time::sleep(Duration::from_millis(160)).await;
    assert_eq!(client.breaker(), BreakerState::HalfOpen);
    assert!(client.fetch(REPO, "main", FILE).await.is_err());
    assert_eq!((hub.log().len(), client.breaker()), (4, BreakerState::Open));
    // healed: the probe closes it
    hub.heal();
    tokio::time::sleep(Duration::from_millis(160)).await;
    assert_eq!(*client.fetch(REPO, "main", FILE).await.unwrap().read().unwrap(), body());
    assert_eq!(client.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn partial_files_from_other_hands() {
    let (hub, dir) = (hub([]), tempfile::tempdir().unwrap());
    let digest = format!("sha256-{}", bitnet_mock_hub::sha256_hex(&body()));
    let partial = dir.path().join("partial");
    let part = partial.join(format!("{digest}.part"));
    let mut wrong = body();
    wrong[10] ^= 1;
    let mut long = body();
    long.extend_from_slice(b"and more");
    // complete, not yet renamed: nothing is fetched; damaged prefix: checksum, then from byte 0; too long: from byte 0; complete but wrong
    for (left, ranges) in [
        (body(), vec![]),
        (wrong[..500].to_vec(), vec![Some("bytes=500-".to_owned()), None]),
        (long, vec![None]),
        (wrong.clone(), vec![None]),
        (Vec::new(), vec![None]),
    ] {
        std::fs::create_dir_all(&partial).unwrap();
        std::fs::write(&part, &left).unwrap();
        hub.log().clear();
        let (client, _) = client(&hub, dir.path());
        let file = client.fetch(REPO, "main", FILE).await.unwrap();
        assert_eq!((file.source, &*file.read().unwrap()), (Source::Network, &body()));
        assert_eq!(gets(&hub), ranges, "{} bytes left", left.len());
        client.cache().clear().unwrap();
    }
}

#[tokio::test]
async fn faults_at_random_never_corrupt() {
    let all = [
        "cut=700,on=cdn,chance=25",
        "corrupt=9,on=cdn,chance=5",
        "html=500,chance=5",
        "html=200,chance=5",
        "status=503,chance=5",
        "refuse,chance=10",
        "length=-800,on=cdn,chance=10",
        "norange,chance=20",
        "nolength,chance=20",
    ];
    let mut builder = builder().seed(3);
    for rule in all {
        builder = builder.rule(rule.parse().unwrap());
    }
    let hub = builder.start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut good, mut bad) = (0, 0);
    for n in 0..60u64 {
        hub.put(Repo::new("soak/repo").file("f", noise(4000, n), Storage::Lfs));
        let mut settings = settings(&hub, dir.path());
        settings.ref_ttl = Duration::ZERO;
        settings.retry.seed = Some(n);
        let (client, _) = client_with(settings);
        match client.fetch("soak/repo", "main", "f").await {
            // under a dead network the last known commit may serve: older, but sound
            Ok(file) => {
                let bytes = file.read().unwrap();
                assert!((0..=n).any(|k| *bytes == noise(4000, k)), "round {n}: wrong bytes");
                good += 1;
            }
            Err(error) => {
                assert!(!matches!(error, HubError::Io { .. } | HubError::Corrupt { .. }), "round {n}: {error}");
                bad += 1;
            }
        }
    }
    assert!(good >= 50, "{good} good, {bad} bad");
    let (client, _) = client(&hub, dir.path());
    assert_eq!(client.cache().verify().unwrap().damaged.len(), 0);
}
