//! Any request: an answer of HTTP or a closed connection, never a panic; a range gets exactly its bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use bitnet_mock_hub::{Access, MockHub, Repo, Side, Storage, sha256_hex};
use proptest::prelude::*;

fn body() -> Vec<u8> {
    (0..3000u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn hub() -> &'static MockHub {
    static HUB: OnceLock<MockHub> = OnceLock::new();
    HUB.get_or_init(|| {
        MockHub::builder()
            .repo(Repo::new("o/n").file("a b/ü.bin", body(), Storage::Lfs).file("c", "", Storage::Git))
            .repo(Repo::new("o/g").file("c", "c", Storage::GitCached).access(Access::Gated("good".to_owned())))
            .renamed("old", "o/n")
            .start()
            .unwrap()
    })
}

/// What comes back on a connection of its own.
fn ask(side: Side, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(hub().origin(side).trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Who has heard enough hangs up; what it said until then counts.
    let _ = stream.write_all(request).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in 20 s"),
        _ => answer,
    }
}

/// Status, head and body.
fn parts(answer: &[u8]) -> (u16, String, &[u8]) {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), &answer[end + 4..])
}

fn text() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "api",
        "models",
        "resolve",
        "resolve-cache",
        "main",
        "o",
        "n",
        "g",
        "old",
        "revision",
        "tree",
        "c",
        "a%20b",
        "%C3%BC.bin",
        "%",
        "%zz",
        "%C3",
        "..",
        "",
        "_mock",
        "log",
        "hub",
    ];
    let part = prop_oneof![8 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => "[ -~]{0,8}"];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.into_iter().map(|part| format!("/{part}")).collect())
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(&[Side::Hub, Side::Cdn, Side::Elsewhere][..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request_has_an_answer(
        side in side(),
        method in prop::sample::select(&["GET", "HEAD", "POST", "PUT", "X"][..]),
        path in text(),
        fields in prop::collection::vec(("(Range|If-Range|Authorization|Accept|X-[a-z]{1,5})", "[ -~]{0,20}"), 0..4),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let path: String = path.chars().map(|c| if matches!(c, ' ' | '#' | '?') { '_' } else { c }).collect();
        let head = |with: &str| format!("{method} /{} HTTP/1.1\r\nHost: here\r\n{with}\r\n", path.trim_start_matches('/'));
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = ask(side, head(&fields).as_bytes());
        let (status, ..) = parts(&answer);
        prop_assert!((200..500).contains(&status), "{} {}: {}", method, path, status);
        // What is no request at all may be left without an answer; the hub goes on.
        ask(side, &bytes);
        ask(side, &head(&fields).as_bytes()[..bytes.len().min(20)]);
        prop_assert_eq!(parts(&ask(Side::Hub, b"GET /o/n/resolve/main/c HTTP/1.1\r\nHost: here\r\n\r\n")).0, 200);
    }

    #[test]
    fn a_range_has_exactly_its_bytes(first in prop::option::of(0..3100usize), last in prop::option::of(0..3100usize)) {
        let text = |at: Option<usize>| at.map(|at| at.to_string()).unwrap_or_default();
        let (range, body) = (format!("bytes={}-{}", text(first), text(last)), body());
        let url = format!("/o/n/{}", sha256_hex(&body));
        let answer = ask(Side::Cdn, format!("GET {url} HTTP/1.1\r\nHost: here\r\nRange: {range}\r\n\r\n").as_bytes());
        let (status, head, got) = parts(&answer);
        // RFC 9110, section 14.1.2: from, from-to, the last so many.
        let wanted = match (first, last) {
            (Some(first), Some(last)) if last < first => None,
            (Some(first), last) => Some(first..last.map_or(3000, |last| (last + 1).min(3000))),
            (None, Some(last)) => Some(3000 - last.min(3000)..3000),
            (None, None) => None,
        };
        match wanted {
            None => prop_assert_eq!((status, got), (200, &body[..]), "{}", range),
            Some(wanted) if wanted.start >= 3000 => {
                prop_assert_eq!((status, got.len()), (416, 0), "{}", range);
                prop_assert!(head.contains("content-range: bytes */3000"), "{}", head);
            }
            Some(wanted) => {
                let said = format!("content-range: bytes {}-{}/3000", wanted.start, wanted.end - 1);
                prop_assert_eq!((status, got), (206, &body[wanted]), "{}", range);
                prop_assert!(head.contains(&said), "{}", head);
            }
        }
    }
}
