//! One HTTP request at a time: who gets the token, which redirects are followed, what an answer means.
//!
//! Redirects are followed by hand. Metadata sits on the *first* answer that knows it, usually a 302 to the CDN, so a HEAD stops there.
//! It follows inside the hub (renamed repositories), and a 307 or 308 to another host: so a mirror says that the same hub is over
//! there. Any other redirect away from the hub leads to a storage or a login page, which know no metadata. A GET goes on to the CDN.
//! None of them takes `Authorization` along: the token belongs to the endpoint's origin (scheme, host and port) and to no other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::breaker::{Breakers, Permit};
use super::digest::Digest;
use super::error::{HubError, Tried};
use super::failure::{Again, Failure, causes, shown};
use super::metrics::{Counters, add};
use super::names::{encode, is_commit};
use super::proxy::Routes;
use super::reference::MAIN;
use super::retry::asked_wait;
use super::settings::{HubSettings, Token};

/// Addresses that one request goes to, the first included.
const MAX_ADDRESSES: usize = 10;

/// What a HEAD tells about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The commit that the revision names.
    pub commit: String,
    /// The file's checksum.
    pub digest: Digest,
    /// The file's size in bytes.
    pub size: u64,
}

/// The file that a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) path: &'a str,
}

pub(crate) struct Http {
    client: Client,
    pub(crate) endpoint: Url,
    routes: Arc<Routes>,
    token: Option<Token>,
    metadata_timeout: Duration,
    pub(crate) breakers: Breakers,
}

impl Http {
    pub(crate) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        // an Err says that the program has installed a provider already, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setting = |why: String| HubError::Setting {
            name: "HF_ENDPOINT",
            value: Url::parse(&settings.endpoint).map_or_else(|_| settings.endpoint.clone(), |url| shown(&url)),
            why,
            example: "https://huggingface.co",
        };
        let endpoint =
            Url::parse(settings.endpoint.trim_end_matches('/')).map_err(|cause| setting(cause.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(setting("it must begin with https:// or http://".to_owned()));
        }
        let mut builder = Client::builder()
            .user_agent(concat!("bitnet-rs/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(settings.timeouts.connect)
            .read_timeout(settings.timeouts.stall)
            .no_proxy();
        // Offline neither token nor proxy is needed, so they cannot be wrong either.
        let online = !settings.offline;
        let routes = if online { Arc::new(settings.proxies.routes()?) } else { Arc::default() };
        if !routes.is_empty() {
            let routes = routes.clone();
            builder = builder.proxy(reqwest::Proxy::custom(move |url| routes.of(url).cloned()));
        }
        let client = builder.build().map_err(|cause| HubError::Client {
            why: format!(
                "{}; are CA certificates installed (apt install ca-certificates), or is SSL_CERT_FILE wrong?",
                causes(&cause)
            ),
        })?;
        Ok(Self {
            client,
            endpoint,
            routes,
            token: if online { settings.token.load()? } else { None },
            metadata_timeout: settings.timeouts.metadata,
            breakers: Breakers::new(settings.breaker.clone()),
        })
    }

    pub(crate) fn resolve_url(&self, target: Target<'_>) -> Result<Url, HubError> {
        self.url(&format!("{}/resolve/{}/{}", target.repo, encode(target.revision, false), encode(target.path, true)))
    }

    pub(crate) fn url(&self, rest: &str) -> Result<Url, HubError> {
        let text = format!("{}/{rest}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|_| HubError::Name { kind: "path", value: rest.to_owned(), why: "it makes no URL" })
    }

    fn at_home(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Sends one request. The permit must be told how the transfer ended; it is `None` if that is settled (5xx).
    async fn send(
        &self,
        counters: &Counters,
        method: Method,
        url: &Url,
        dress: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<(Response, Option<Permit>), Failure> {
        let permit = self.breakers.allow(&url.origin().ascii_serialization()).map_err(Failure::fatal)?;
        let mut request = self.client.request(method, url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.at_home(url)) {
            request = request.bearer_auth(token.secret());
        }
        add(&counters.requests, 1);
        match dress(request).send().await {
            Ok(response) if response.status().is_server_error() => {
                permit.failure(&format!("status {}", response.status().as_u16()));
                Ok((response, None))
            }
            Ok(response) => Ok((response, Some(permit))),
            Err(cause) => {
                let mut why = causes(&cause.without_url());
                if let Some(proxy) = self.routes.of(url) {
                    why = format!("{why} (through the proxy {})", shown(proxy));
                }
                permit.failure(&why);
                Err(Failure::network(url, why))
            }
        }
    }

    /// Whether a redirect from an address of the hub leads to another address of the hub.
    fn is_hub(&self, response: &Response, to: &Url) -> bool {
        self.at_home(to) || matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
    }

    /// The next address of a redirect, if it may be gone to.
    fn next_hop(&self, url: &Url, response: &Response, seen: &mut HashSet<String>) -> Result<Url, Failure> {
        let Some(to) = text(response.headers(), "location").and_then(|location| url.join(location).ok()) else {
            return Err(Failure::bad_answer(url, "a redirect that leads nowhere"));
        };
        match refused(url, &to, seen) {
            None => Ok(to),
            Some(why) => Err(Failure::fatal(HubError::Redirect { url: shown(url), to: shown(&to), why })),
        }
    }

    /// One HEAD for a file's metadata, for no longer than `patience` and the setting.
    pub(crate) async fn metadata(
        &self,
        counters: &Counters,
        target: Target<'_>,
        patience: Duration,
    ) -> Result<Metadata, Failure> {
        let timeout = self.metadata_timeout.min(patience);
        let mut url = self.resolve_url(target).map_err(Failure::fatal)?;
        let mut seen = HashSet::from([url.to_string()]);
        loop {
            let (response, permit) =
                self.send(counters, Method::HEAD, &url, |request| request.timeout(timeout)).await?;
            settle(permit);
            let headers = response.headers();
            let redirected = response.status().is_redirection();
            if !redirected && !response.status().is_success() {
                return Err(self.refusal(&url, true, &response, target));
            }
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag").filter(|_| !redirected));
            let size =
                text(headers, "x-linked-size").or_else(|| text(headers, "content-length").filter(|_| !redirected));
            let (commit, digest) = (text(headers, "x-repo-commit"), etag.and_then(Digest::from_etag));
            let size = size.and_then(|size| size.trim().parse::<u64>().ok());
            if let (Some(commit), Some(digest), Some(size)) = (commit, &digest, size) {
                if !is_commit(commit) {
                    return Err(Failure::bad_answer(&url, "its X-Repo-Commit is not a commit"));
                }
                return Ok(Metadata { commit: commit.to_owned(), digest: digest.clone(), size });
            }
            if !redirected {
                let lacks = match (commit, digest, size) {
                    (None, ..) => "it has no X-Repo-Commit",
                    (_, None, _) => "its ETag is not a checksum",
                    _ => "it has no size",
                };
                return Err(Failure::bad_answer(&url, lacks));
            }
            let to = self.next_hop(&url, &response, &mut seen)?;
            if !self.is_hub(&response, &to) {
                let why = "it leaves the hub without naming a checksum";
                return Err(Failure::fatal(HubError::Redirect { url: shown(&url), to: shown(&to), why }));
            }
            url = to;
        }
    }

    /// One GET of a file, from `offset` if that is not 0, through all redirects. `If-Range` makes the server send everything if it has
    /// another version than the one that the first bytes are from.
    pub(crate) async fn open(
        &self,
        counters: &Counters,
        target: Target<'_>,
        offset: u64,
        validator: Option<&str>,
    ) -> Result<(Response, Permit, Url), Failure> {
        let mut url = self.resolve_url(target).map_err(Failure::fatal)?;
        let mut seen = HashSet::from([url.to_string()]);
        let mut hub = true;
        loop {
            let (response, permit) = self
                .send(counters, Method::GET, &url, |mut request| {
                    if offset > 0 {
                        request = request.header(header::RANGE, format!("bytes={offset}-"));
                        if let Some(validator) = validator {
                            request = request.header(header::IF_RANGE, validator);
                        }
                    }
                    request
                })
                .await?;
            match permit {
                Some(permit) if response.status().is_redirection() => {
                    permit.success();
                    let to = self.next_hop(&url, &response, &mut seen)?;
                    hub &= self.is_hub(&response, &to);
                    url = to;
                }
                Some(permit)
                    if response.status().is_success() || response.status() == StatusCode::RANGE_NOT_SATISFIABLE =>
                {
                    return Ok((response, permit, url));
                }
                permit => {
                    settle(permit);
                    return Err(self.refusal(&url, hub, &response, target));
                }
            }
        }
    }

    /// One GET of JSON from the hub's API, at most `limit` bytes. Follows renamed repositories.
    pub(crate) async fn json(
        &self,
        counters: &Counters,
        rest: &str,
        target: Target<'_>,
        limit: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut url = self.url(rest).map_err(Failure::fatal)?;
        let mut seen = HashSet::from([url.to_string()]);
        loop {
            let (mut response, permit) =
                self.send(counters, Method::GET, &url, |request| request.timeout(self.metadata_timeout)).await?;
            if response.status().is_redirection() {
                settle(permit);
                let to = self.next_hop(&url, &response, &mut seen)?;
                if !self.is_hub(&response, &to) {
                    return Err(Failure::fatal(HubError::Redirect {
                        url: shown(&url),
                        to: shown(&to),
                        why: "the API leaves the hub",
                    }));
                }
                url = to;
                continue;
            }
            if !response.status().is_success() {
                settle(permit);
                return Err(self.refusal(&url, true, &response, target));
            }
            let mut body = Vec::new();
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                        return Err(Failure::bad_answer(&url, "its list is absurdly long"));
                    }
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) => break,
                    Err(cause) => return Err(Failure::network(&url, causes(&cause.without_url()))),
                }
            }
            settle(permit);
            return Ok(body);
        }
    }

    /// What a status that is neither success nor redirect means. `hub`: the hub says it, or a host that it names as itself.
    fn refusal(&self, url: &Url, hub: bool, response: &Response, target: Target<'_>) -> Failure {
        let headers = response.headers();
        let status = response.status();
        let mut message = text(headers, "x-error-message").map_or_else(
            || status.canonical_reason().unwrap_or("").to_owned(),
            |message| message.chars().filter(|c| !c.is_control()).take(200).collect(),
        );
        let cause = format!("status {} from {}", status.as_u16(), url.host_str().unwrap_or("?"));
        let (endpoint, repo) = (shown(&self.endpoint).trim_end_matches('/').to_owned(), target.repo.to_owned());
        let (revision, path) = (target.revision.to_owned(), target.path.to_owned());
        let authenticated = self.token.is_some();
        if authenticated && !self.at_home(url) {
            message = format!("{message}; it redirects to {}, which gets no token", url.origin().ascii_serialization());
        }
        match text(headers, "x-error-code").filter(|_| hub) {
            Some("GatedRepo") => {
                return Failure::fatal(HubError::Gated { endpoint, repo, message, authenticated });
            }
            Some("RepoNotFound") => {
                return Failure::fatal(HubError::RepoNotFound { endpoint, repo, message, authenticated });
            }
            Some("RevisionNotFound") => {
                let example = format!("--revision {MAIN}");
                return Failure::fatal(HubError::RevisionNotFound { repo, revision, example });
            }
            Some("EntryNotFound") => {
                let commit = text(headers, "x-repo-commit").filter(|commit| is_commit(commit)).map(str::to_owned);
                return Failure::fatal(HubError::EntryNotFound { endpoint, repo, revision, path, commit });
            }
            // the hub does not tell strangers which repositories exist
            None if hub && status == StatusCode::UNAUTHORIZED => {
                return Failure::fatal(HubError::RepoNotFound { endpoint, repo, message, authenticated });
            }
            _ => {}
        }
        let error = HubError::Status { url: shown(url), status: status.as_u16(), message, tried: Tried::default() };
        let again = match status.as_u16() {
            429 | 503 => asked_wait(headers).map_or(Again::Backoff, Again::After),
            408 | 500 | 502 | 504 => Again::Backoff,
            // a signed CDN address may have expired: the hub gives a new one
            403 if !hub => Again::Backoff,
            _ => Again::No,
        };
        Failure::new(error, cause, again)
    }
}

/// Why a redirect is not followed; it is noted in `seen`.
fn refused(url: &Url, to: &Url, seen: &mut HashSet<String>) -> Option<&'static str> {
    if !matches!(to.scheme(), "http" | "https") || (url.scheme() == "https" && to.scheme() == "http") {
        return Some("we do not leave HTTPS");
    }
    if !seen.insert(to.to_string()) {
        return Some("the redirects go round in a circle");
    }
    (seen.len() > MAX_ADDRESSES).then_some("too many redirects")
}

/// The origin answered.
fn settle(permit: Option<Permit>) {
    if let Some(permit) = permit {
        permit.success();
    }
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_mock_hub::{MockHub, Repo, Storage};

    #[test]
    fn a_redirect_stays_with_https_and_ends() {
        let refused_at_once = |from: &str, to: &str| {
            let [from, to] = [from, to].map(|url| Url::parse(url).unwrap());
            refused(&from, &to, &mut HashSet::from([from.to_string()]))
        };
        let leaves = Some("we do not leave HTTPS");
        for (from, to, why) in [
            ("https://a/x", "https://b/x", None),
            ("http://a/x", "https://b/x", None),
            ("http://a/x", "http://b/x", None),
            ("https://a/x", "http://a/x", leaves),
            ("https://a/x", "ftp://b/x", leaves),
            ("http://a/x", "file:///x", leaves),
            ("http://a/x", "http://a/x", Some("the redirects go round in a circle")),
        ] {
            assert_eq!(refused_at_once(from, to), why, "{from} {to}");
        }
        let url = |n: usize| Url::parse(&format!("http://a/{n}")).unwrap();
        let mut seen = HashSet::from([url(0).to_string()]);
        let answers: Vec<_> = (1..=10).map(|n| refused(&url(n - 1), &url(n), &mut seen)).collect();
        assert!(answers[..9].iter().all(Option::is_none) && answers[9] == Some("too many redirects"), "{answers:?}");
    }

    #[tokio::test]
    async fn an_answer_of_json_has_a_largest_size() {
        let hub = MockHub::builder().repo(Repo::new("o/n").file("f", "1", Storage::Git)).start().unwrap();
        let mut settings = HubSettings::new("unused");
        settings.endpoint = hub.endpoint().to_owned();
        let (http, counters) = (Http::new(&settings).unwrap(), Counters::default());
        let target = Target { repo: "o/n", revision: "main", path: "*" };
        let ask = async |limit| http.json(&counters, "api/models/o/n/revision/main", target, limit).await;
        let size = ask(1 << 20).await.unwrap().len();
        assert_eq!(ask(size).await.unwrap().len(), size);
        let failure = ask(size - 1).await.unwrap_err();
        assert_eq!(failure.cause, "its list is absurdly long");
    }
}
