//! What the hub says: one wiremock `Respond` for all three origins.
//!
//! The protocol is the one that `huggingface_hub` relies on: metadata headers sit on the first answer of
//! `{endpoint}/{repo}/resolve/{revision}/{path}`, be it 200 or a redirect; LFS and Xet contents come from another origin.

use wiremock::{Request, Respond, ResponseTemplate};

use crate::api;
use crate::faults::Fault;
use crate::log::Entry;
use crate::range::{Slice, slice};
use crate::repo::{Access, File, Repo, Storage, sha256_hex};
use crate::server::{Shared, Side, State};

/// Tells the front which log entry (and so which faults) an answer belongs to. Never leaves the process.
pub(crate) const ENTRY_HEADER: &str = "x-mock-entry";

pub(crate) struct Responder {
    pub(crate) side: Side,
    pub(crate) shared: Shared,
}

impl Respond for Responder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path = request.url.path().to_owned();
        let method = request.method.as_str().to_owned();
        if self.side == Side::Hub && path == "/_mock/log" {
            return ResponseTemplate::new(200).set_body_json(self.shared.log.entries());
        }
        let mut state = self.shared.lock();
        let faults = state.rules.strike(self.side, &method, &path);
        let ask = Ask::new(request, &faults);
        let (status, answer) = match said_by_fault(&faults, self.side, &path, &state) {
            Some(answer) => answer,
            None => match self.side {
                Side::Hub => hub(&state, &path, &ask),
                Side::Cdn => cdn(&state, &path, &ask),
                Side::Elsewhere => elsewhere(&state, &path, &ask),
            },
        };
        drop(state);
        let index = self.shared.log.push(Entry {
            side: self.side,
            method,
            path,
            // as it was asked, also where a fault makes us deaf to it
            range: header(request, "range"),
            if_range: ask.if_range,
            accept_encoding: header(request, "accept-encoding"),
            authorization: request.headers.contains_key("authorization"),
            status,
            sent: 0,
            faults,
        });
        answer.insert_header(ENTRY_HEADER, index.to_string())
    }
}

/// An answer and its status (which the template does not give back).
pub(crate) type Answer = (u16, ResponseTemplate);

/// The parts of a request that decide the answer.
pub(crate) struct Ask {
    range: Option<String>,
    if_range: Option<String>,
    pub(crate) token: Option<String>,
    corrupt: Vec<u64>,
    /// Bytes by which a part begins too late.
    late: u64,
    other_commit: bool,
}

impl Ask {
    fn new(request: &Request, faults: &[Fault]) -> Self {
        let ignore_range = faults.contains(&Fault::IgnoreRange);
        let corrupt =
            faults.iter().filter_map(|f| if let Fault::Corrupt { at } = f { Some(*at) } else { None }).collect();
        Self {
            range: header(request, "range").filter(|_| !ignore_range),
            if_range: header(request, "if-range"),
            token: header(request, "authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)),
            corrupt,
            late: faults.iter().map(|f| if let Fault::OtherRange { by } = f { *by } else { 0 }).sum(),
            other_commit: faults.contains(&Fault::OtherCommit),
        }
    }

    /// The commit that the answer names.
    fn said(&self, commit: String) -> String {
        if self.other_commit { sha256_hex(commit.as_bytes())[..40].to_owned() } else { commit }
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

pub(crate) fn bare(status: u16) -> Answer {
    (status, ResponseTemplate::new(status))
}

/// Faults that replace the answer. The first one wins.
fn said_by_fault(faults: &[Fault], side: Side, path: &str, state: &State) -> Option<Answer> {
    faults.iter().find_map(|fault| match fault {
        Fault::Html { status } => {
            let page = "<!DOCTYPE html><html><head><title>Welcome to HotelNet</title></head><body>Please log in.</body></html>";
            Some((*status, ResponseTemplate::new(*status).set_body_raw(page, "text/html; charset=utf-8")))
        }
        Fault::Status { status } => Some(bare(*status)),
        Fault::RetryAfter { seconds } => {
            Some((429, ResponseTemplate::new(429).insert_header("Retry-After", seconds.to_string())))
        }
        Fault::RateLimit { seconds } => Some((
            429,
            ResponseTemplate::new(429)
                .insert_header("ratelimit", format!("\"api\";r=0;t={seconds}"))
                .insert_header("ratelimit-policy", "\"fixed window\";\"api\";q=500;w=300"),
        )),
        Fault::RedirectLoop => {
            let home = match side {
                Side::Hub => String::new(), // relative, so that a client which follows inside the hub is caught too
                Side::Cdn => state.origins[1].clone(),
                Side::Elsewhere => state.origins[2].clone(),
            };
            Some((307, ResponseTemplate::new(307).insert_header("Location", format!("{home}{path}"))))
        }
        Fault::RedirectAway => {
            Some((302, ResponseTemplate::new(302).insert_header("Location", format!("{}{path}", state.origins[2]))))
        }
        Fault::Moved { status } => {
            let to = format!("{}{MOVED_TO}{path}", state.origins[2]);
            Some((*status, ResponseTemplate::new(*status).insert_header("Location", to)))
        }
        _ => None,
    })
}

/// Where the hub answers on the third origin.
const MOVED_TO: &str = "/hub";

/// An error as the hub words it.
fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let answer = ResponseTemplate::new(status)
        .insert_header("X-Error-Code", code)
        .insert_header("X-Error-Message", message)
        .set_body_raw(message, "text/plain; charset=utf-8");
    (status, answer)
}

/// The repository, if this asker may know of it.
pub(crate) fn visible<'a>(state: &'a State, name: &str, ask: &Ask) -> Result<&'a Repo, Box<Answer>> {
    let repo = state.repos.get(name).filter(|repo| match &repo.access {
        Access::Private(token) => ask.token.as_ref() == Some(token),
        Access::Public | Access::Gated(_) => true,
    });
    repo.ok_or_else(|| {
        Box::new(match ask.token {
            None => refusal(401, "RepoNotFound", "Invalid username or password."),
            Some(_) => refusal(404, "RepoNotFound", "Repository not found"),
        })
    })
}

fn hub(state: &State, path: &str, ask: &Ask) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if parts.first() == Some(&"api") {
        return match parts.get(1..) {
            Some(["resolve-cache", "models", org, name, commit, rest @ ..]) => {
                resolve(state, &format!("{org}/{name}"), commit, &decode(&rest.join("/")), ask, false)
            }
            Some(["models", rest @ ..]) => api::models(state, rest, ask),
            _ => bare(404),
        };
    }
    let Some(at) = parts.iter().position(|part| *part == "resolve").filter(|at| (1..=2).contains(at)) else {
        return bare(404);
    };
    let name = parts[..at].join("/");
    if let Some(new) = state.renamed.get(&name) {
        let rest = parts[at..].join("/");
        return (307, ResponseTemplate::new(307).insert_header("Location", format!("/{new}/{rest}")));
    }
    let Some((revision, rest)) = parts[at + 1..].split_first() else {
        return bare(404);
    };
    resolve(state, &name, &decode(revision), &decode(&rest.join("/")), ask, true)
}

fn resolve(state: &State, name: &str, revision: &str, path: &str, ask: &Ask, may_redirect: bool) -> Answer {
    let repo = match visible(state, name, ask) {
        Ok(repo) => repo,
        Err(refusal) => return *refusal,
    };
    if let Access::Gated(token) = &repo.access {
        match &ask.token {
            None => {
                return refusal(401, "GatedRepo", &format!("Access to model {name} is restricted. Please log in."));
            }
            Some(theirs) if theirs != token => {
                return refusal(
                    403,
                    "GatedRepo",
                    &format!("Access to model {name} is restricted and you are not in the authorized list."),
                );
            }
            Some(_) => {}
        }
    }
    let Some((commit, files)) = repo.find(revision) else {
        return refusal(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    let commit = ask.said(commit);
    let Some(file) = files.get(path) else {
        let (status, answer) = refusal(404, "EntryNotFound", "Entry not found");
        return (status, answer.insert_header("X-Repo-Commit", commit));
    };
    let etag = format!("\"{}\"", file.etag());
    let meta = |status: u16| {
        ResponseTemplate::new(status)
            .insert_header("X-Repo-Commit", commit.as_str())
            .insert_header("ETag", etag.as_str())
            .insert_header("Accept-Ranges", "bytes")
    };
    let linked = |answer: ResponseTemplate| {
        answer.insert_header("X-Linked-Etag", etag.as_str()).insert_header("X-Linked-Size", file.size.to_string())
    };
    match file.storage {
        Storage::GitCached if may_redirect => {
            let to = format!("/api/resolve-cache/models/{name}/{commit}/{path}");
            (307, linked(meta(307)).insert_header("Location", to))
        }
        Storage::Git | Storage::GitCached => contents(file, file.etag(), ask, meta),
        Storage::Lfs | Storage::Xet => {
            // the ETag beside X-Linked-Etag is the redirect's own, a trap for clients that look at it first
            let to = format!("{}/{}/{}?Expires=1&Signature=mock", state.origins[1], name, file.sha256);
            let mut answer =
                linked(meta(302)).insert_header("ETag", "\"of-the-redirect\"").insert_header("Location", to);
            if file.storage == Storage::Xet {
                let home = &state.origins[0];
                answer = answer
                    .insert_header("X-Xet-Hash", file.sha256.as_str())
                    .insert_header("X-Xet-Refresh-Route", format!("/api/models/{name}/xet-read-token/{commit}"))
                    .insert_header(
                        "Link",
                        format!("<{home}/api/models/{name}/xet-read-token/{commit}>; rel=\"xet-auth\", <{home}/reconstructions/{}>; rel=\"xet-reconstruction-info\"", file.sha256),
                    );
            }
            (302, answer)
        }
    }
}

/// `/{repo}/{sha256}`: contents only, no metadata of the hub.
fn cdn(state: &State, path: &str, ask: &Ask) -> Answer {
    let sha256 = path.rsplit('/').next().unwrap_or_default();
    let Some(file) = state.repos.values().find_map(|repo| repo.by_sha256(sha256)) else {
        return bare(403); // what a CDN says of an unsigned or unknown object
    };
    let etag = if state.cdn_etag_differs { sha256_hex(sha256.as_bytes())[..32].to_owned() } else { sha256.to_owned() };
    contents(file, &etag, ask, |status| {
        ResponseTemplate::new(status)
            .insert_header("ETag", format!("\"{etag}\""))
            .insert_header("Accept-Ranges", "bytes")
    })
}

/// A mirror: it knows the same files, under the hub's paths as well as the CDN's; below [`MOVED_TO`] it is the hub itself.
fn elsewhere(state: &State, path: &str, ask: &Ask) -> Answer {
    if let Some(path) = path.strip_prefix(MOVED_TO) {
        return hub(state, path, ask);
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let Some(at) = parts.iter().position(|part| *part == "resolve") {
        let file = state.repos.get(&parts[..at].join("/")).and_then(|repo| {
            let (revision, rest) = parts[at + 1..].split_first()?;
            repo.find(&decode(revision))?.1.get(&decode(&rest.join("/")))
        });
        return match file {
            Some(file) => contents(file, &file.sha256, ask, ResponseTemplate::new),
            None => bare(404),
        };
    }
    cdn(state, path, ask)
}

/// The body, whole or the part that was asked for.
fn contents(file: &File, etag: &str, ask: &Ask, headers: impl Fn(u16) -> ResponseTemplate) -> Answer {
    let mut bytes = file.bytes.as_ref().clone();
    let len = bytes.len();
    for at in &ask.corrupt {
        if let Some(byte) = usize::try_from(*at).ok().and_then(|at| bytes.get_mut(at % len.max(1))) {
            *byte = !*byte;
        }
    }
    match slice(ask.range.as_deref(), ask.if_range.as_deref(), etag, len) {
        Slice::Whole => (
            200,
            // named, because hyper leaves it out of the HEAD of an empty file
            headers(200)
                .insert_header("Content-Length", len.to_string())
                .set_body_raw(bytes, "application/octet-stream"),
        ),
        Slice::Unsatisfiable => (416, headers(416).insert_header("Content-Range", format!("bytes */{len}"))),
        Slice::Part { start, end } => {
            let start = start.saturating_add(usize::try_from(ask.late).unwrap_or(usize::MAX)).min(end - 1);
            let answer = headers(206)
                .insert_header("Content-Range", format!("bytes {start}-{}/{len}", end - 1))
                .set_body_raw(&bytes[start..end], "application/octet-stream");
            (206, answer)
        }
    }
}

/// Percent-decoding; what is not valid stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[i] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
