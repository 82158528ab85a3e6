//! The mock hub seen from outside: the protocol when all is well.

use bitnet_mock_hub::{Access, MockHub, Repo, Side, Storage, git_blob_sha1, sha256_hex};
use reqwest::{Method, Response, StatusCode};

use crate::client;

fn big() -> Vec<u8> {
    (0..3000u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn hub() -> MockHub {
    MockHub::builder()
        .repo(
            Repo::new("org/name")
                .file("config.json", "{}", Storage::Git)
                .file("sub/cached.json", "[1]", Storage::GitCached)
                .file("big.bin", big(), Storage::Lfs)
                .file("xet.bin", big(), Storage::Xet)
                .file_at("refs/pr/1", "config.json", "{\"pr\":1}", Storage::Git),
        )
        .repo(Repo::new("org/gated").file("a", "a", Storage::Git).access(Access::Gated("good".to_owned())))
        .repo(Repo::new("org/private").file("a", "a", Storage::Git).access(Access::Private("good".to_owned())))
        .repo(Repo::new("gpt2").file("a", "a", Storage::Git))
        .renamed("old/name", "org/name")
        .start()
        .unwrap()
}

async fn ask(hub: &MockHub, method: Method, path: &str) -> Response {
    client().request(method, format!("{}{path}", hub.endpoint())).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or("")
}

#[tokio::test]
async fn a_git_file_comes_from_the_hub_with_its_blob_sha1() {
    let hub = hub();
    let head = ask(&hub, Method::HEAD, "/org/name/resolve/main/config.json").await;
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "etag"), format!("\"{}\"", git_blob_sha1(b"{}")));
    assert_eq!(header(&head, "content-length"), "2");
    let commit = header(&head, "x-repo-commit").to_owned();
    assert_eq!(commit.len(), 40);
    let get = ask(&hub, Method::GET, &format!("/org/name/resolve/{commit}/config.json")).await;
    assert_eq!(get.text().await.unwrap(), "{}");
    let pr = ask(&hub, Method::GET, "/org/name/resolve/refs%2Fpr%2F1/config.json").await;
    assert_ne!(header(&pr, "x-repo-commit"), commit);
    assert_eq!(pr.text().await.unwrap(), "{\"pr\":1}");
    assert_eq!(ask(&hub, Method::GET, "/gpt2/resolve/main/a").await.text().await.unwrap(), "a");
}

#[tokio::test]
async fn lfs_metadata_sits_on_the_redirect_and_the_cdn_is_another_origin() {
    let hub = hub();
    for (file, xet) in [("big.bin", false), ("xet.bin", true)] {
        let head = ask(&hub, Method::HEAD, &format!("/org/name/resolve/main/{file}")).await;
        assert_eq!(head.status(), 302);
        assert_eq!(header(&head, "x-linked-etag"), format!("\"{}\"", sha256_hex(&big())));
        assert_eq!(header(&head, "x-linked-size"), "3000");
        assert_eq!(head.headers().contains_key("x-xet-hash"), xet);
        let location = header(&head, "location").to_owned();
        assert!(location.starts_with(hub.origin(Side::Cdn)) && !location.starts_with(hub.endpoint()));
        let body = client().get(&location).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(body, big());
    }
    assert_eq!(hub.log().bytes(Side::Cdn), 6000);
    assert_eq!(hub.log().count(|entry| entry.side == Side::Cdn), 2);
}

#[tokio::test]
async fn range_and_if_range() {
    let hub = hub();
    let url = format!("{}/org/name/{}", hub.origin(Side::Cdn), sha256_hex(&big()));
    let get = |range: &'static str, condition: String| {
        client().get(&url).header("Range", range).header("If-Range", condition).send()
    };
    let etag = format!("\"{}\"", sha256_hex(&big()));
    let part = get("bytes=1000-", etag.clone()).await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 1000-2999/3000");
    assert_eq!(part.bytes().await.unwrap(), big()[1000..]);
    let other = get("bytes=1000-", "\"another\"".to_owned()).await.unwrap();
    assert_eq!((other.status(), other.bytes().await.unwrap().len()), (StatusCode::OK, 3000));
    let beyond = get("bytes=3000-", etag).await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&beyond, "content-range"), "bytes */3000");
    assert_eq!(hub.log().entries()[0].range.as_deref(), Some("bytes=1000-"));
}

#[tokio::test]
async fn redirects_inside_the_hub_are_relative() {
    let hub = hub();
    let renamed = ask(&hub, Method::HEAD, "/old/name/resolve/main/config.json").await;
    assert_eq!((renamed.status().as_u16(), header(&renamed, "location")), (307, "/org/name/resolve/main/config.json"));
    let cached = ask(&hub, Method::HEAD, "/org/name/resolve/main/sub/cached.json").await;
    let location = header(&cached, "location").to_owned();
    assert!(location.starts_with("/api/resolve-cache/models/org/name/"), "{location}");
    assert_eq!(ask(&hub, Method::GET, &location).await.text().await.unwrap(), "[1]");
}

#[tokio::test]
async fn errors_carry_the_hubs_codes() {
    let hub = hub();
    for (path, token, status, code) in [
        ("/org/name/resolve/main/nope", None, 404, "EntryNotFound"),
        ("/org/name/resolve/nope/config.json", None, 404, "RevisionNotFound"),
        ("/org/nope/resolve/main/a", None, 401, "RepoNotFound"),
        ("/org/nope/resolve/main/a", Some("good"), 404, "RepoNotFound"),
        ("/org/private/resolve/main/a", None, 401, "RepoNotFound"),
        ("/org/private/resolve/main/a", Some("bad"), 404, "RepoNotFound"),
        ("/org/private/resolve/main/a", Some("good"), 200, ""),
        ("/org/gated/resolve/main/a", None, 401, "GatedRepo"),
        ("/org/gated/resolve/main/a", Some("bad"), 403, "GatedRepo"),
        ("/org/gated/resolve/main/a", Some("good"), 200, ""),
    ] {
        let mut request = client().head(format!("{}{path}", hub.endpoint()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(&answer, "x-error-code")), (status, code), "{path} {token:?}");
        assert_eq!(hub.log().entries().last().unwrap().authorization, token.is_some());
    }
}

#[tokio::test]
async fn a_new_commit_moves_the_branch_and_the_log_is_served() {
    let hub = hub();
    let before = ask(&hub, Method::HEAD, "/gpt2/resolve/main/a").await;
    hub.put(Repo::new("gpt2").file("a", "b", Storage::Git));
    let after = ask(&hub, Method::HEAD, "/gpt2/resolve/main/a").await;
    assert_ne!(header(&before, "x-repo-commit"), header(&after, "x-repo-commit"));
    let log: serde_json::Value =
        serde_json::from_slice(&ask(&hub, Method::GET, "/_mock/log").await.bytes().await.unwrap()).unwrap();
    assert_eq!(log.as_array().unwrap().len(), 2);
    assert_eq!(log[0]["side"], "hub");
    let info = ask(&hub, Method::GET, "/api/models/org/name/revision/main").await.bytes().await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info["siblings"].as_array().unwrap().len(), 4);
}

#[test]
fn a_folder_becomes_a_hub() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("o/n/sub")).unwrap();
    std::fs::write(dir.path().join("o/n/a.json"), "small").unwrap();
    std::fs::write(dir.path().join("o/n/sub/b.bin"), vec![7; 500]).unwrap();
    let repos = bitnet_mock_hub::load_dir(dir.path(), 100, false).unwrap();
    assert_eq!(repos.len(), 1);
    let (_, files) = repos[0].find("main").unwrap();
    assert_eq!(files["a.json"].storage, Storage::Git);
    assert_eq!(files["sub/b.bin"].storage, Storage::Lfs);
    assert!(bitnet_mock_hub::load_dir(&dir.path().join("nope"), 100, false).is_err());
}
