//! What can go wrong with a download, with the data to act on and the command that fixes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::digest::Algorithm;
use super::reference::{MAIN, ModelRef};
use crate::shell::quoted;

/// What was tried before giving up, one line an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried(pub Vec<String>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("tried: nothing else");
        }
        write!(f, "tried: {}", self.0.join("; "))
    }
}

/// The longest list that a message holds.
const SHOWN: usize = 20;

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let list = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { list } else { format!("{list} and {more} more") }
}

fn there_is(what: &str, names: &[String]) -> String {
    if names.is_empty() { format!("{what}: none") } else { format!("{what}: {}", some(names)) }
}

/// The variable that says where a file of a cache lies.
fn folder_variable(path: &Path) -> &'static str {
    let hf = |part: &std::ffi::OsStr| part.to_string_lossy().starts_with("models--");
    if path.iter().any(hf) { "HF_HUB_CACHE" } else { "BITNET_TOKENIZER_CACHE" }
}

/// An error of the hub module. URLs in it carry no query, and no text ever holds a token.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum HubError {
    #[error("`{value}` is not a valid {kind}: {why}")]
    Name { kind: &'static str, value: String, why: &'static str },
    #[error(
        "`{text}` does not name a model: {why}; write hf:ORG/REPO[@REVISION][:FILE or QUANT], or the path of a file"
    )]
    Reference { text: String, why: String },
    #[error("{reference}: there is no {wanted}; {}{remedy}", there_is("its GGUF files", there))]
    NoModel {
        reference: String,
        wanted: String,
        there: Vec<String>,
        /// Empty, or what to do with what is there instead.
        remedy: String,
    },
    #[error("{reference} fits several models; name one of them: {}", some(choices))]
    SeveralModels { reference: String, choices: Vec<String> },
    #[error("{reference}: {file} is a part of a split model, and the part {missing} is not there; choose another file")]
    NoPart { reference: String, file: String, missing: String },
    #[error("no file of {repo} ({revision}) matches {pattern}; {}", there_is("its files", there))]
    NoMatch { repo: String, revision: String, pattern: String, there: Vec<String> },
    #[error(
        "{needed} bytes are to be fetched into {}, where {free} bytes are free; make room (`bitnet cache list` shows the models), or use \
         another folder: export HF_HUB_CACHE=DIR", path.display()
    )]
    Space { path: PathBuf, needed: u64, free: u64 },
    #[error("setting {name}=`{value}` cannot be used: {why}; set it as in {name}={example}, or unset {name}")]
    Setting {
        name: &'static str,
        /// Its value (never a token).
        value: String,
        why: String,
        example: &'static str,
    },
    #[error("the access token of {place} cannot be sent: {why}; write the token alone there, or unset it")]
    Token { place: String, why: String },
    #[error(
        "offline, and no cache has a sound copy of {path} of {repo} ({revision}) ({tried}); go online (unset BITNET_OFFLINE HF_HUB_OFFLINE \
         TRANSFORMERS_OFFLINE) and run: bitnet download {repo} --revision {} --file {}",
        quoted(Path::new(revision)),
        quoted(Path::new(path))
    )]
    Offline { repo: String, revision: String, path: String, tried: Tried },
    #[error(
        "{endpoint} has no repository {repo}, or it is private ({message}); check the name{}",
        if *authenticated { ", or whether HF_TOKEN may read it: https://huggingface.co/settings/tokens" }
        else { ", or log in: export HF_TOKEN=hf_..." }
    )]
    RepoNotFound { endpoint: String, repo: String, message: String, authenticated: bool },
    #[error(
        "{repo} is gated ({message}); accept its terms at {endpoint}/{repo}{}",
        if *authenticated { " with the account of your HF_TOKEN" } else { ", then: export HF_TOKEN=hf_..." }
    )]
    Gated { endpoint: String, repo: String, message: String, authenticated: bool },
    #[error("{repo} has no revision `{revision}`; name one that it has, as in {example}")]
    RevisionNotFound { repo: String, revision: String, example: String },
    #[error("{repo} has no file {path} in revision `{revision}`; its files: {endpoint}/{repo}/tree/{revision}")]
    EntryNotFound { endpoint: String, repo: String, revision: String, path: String, commit: Option<String> },
    #[error(
        "{url} is rate limited and asks for {wait:?} of patience, more than the {limit:?} left ({tried}); log in for a higher \
         limit (export HF_TOKEN=hf_...), or allow more time: export BITNET_DOWNLOAD_TIMEOUT={}", wait.as_secs() * 2 + 60
    )]
    RateLimited { url: String, wait: Duration, limit: Duration, tried: Tried },
    #[error(
        "{url} answers {status} {message} ({tried}); run the command again later, or try a mirror: export HF_ENDPOINT=https://..."
    )]
    Status { url: String, status: u16, message: String, tried: Tried },
    #[error(
        "{url} does not answer like a HuggingFace hub: {why} ({tried}); is there a login page or proxy in between? See: curl -I {url}"
    )]
    BadAnswer { url: String, why: String, tried: Tried },
    #[error("{url} redirects to {to}: {why}; check HF_ENDPOINT, and see: curl -I {url}")]
    Redirect { url: String, to: String, why: &'static str },
    #[error(
        "cannot reach {url}: {why} ({tried}); check network and proxy (curl -I {url}), then run the command again: it resumes"
    )]
    Network { url: String, why: String, tried: Tried },
    #[error("{what} took longer than {limit:?} ({tried}); run the command again: it resumes, or allow more: export BITNET_DOWNLOAD_TIMEOUT={}", limit.as_secs() * 4 + 60)]
    Deadline { what: String, limit: Duration, tried: Tried },
    #[error(
        "{origin} failed {failures} times in a row (last: {last}) and is left alone for {retry_in:?}; check it (curl -I {origin}), then run the command again"
    )]
    CircuitOpen { origin: String, failures: u32, retry_in: Duration, last: String },
    #[error(
        "{url} sent a file with {algorithm} {got}, but the hub promises {expected} ({tried}); nothing was kept. Run the command again, or \
         try another network or mirror: export HF_ENDPOINT=https://..."
    )]
    Checksum { url: String, algorithm: Algorithm, expected: String, got: String, tried: Tried },
    #[error(
        "{url} sent {got} bytes where the hub promises {expected} ({tried}); nothing was kept. Run the command again"
    )]
    Size { url: String, expected: u64, got: u64, tried: Tried },
    #[error("cannot {doing} {}: {why}; check space and permissions (df -h, ls -ld), or use another folder: export {}=DIR", path.display(), folder_variable(path))]
    Io { doing: &'static str, path: PathBuf, why: String },
    #[error("cached file {} is damaged: {why}; run: bitnet cache verify", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("the download client does not work: {why}")]
    Client { why: String },
}

impl HubError {
    pub(crate) fn io(doing: &'static str, path: &Path, why: impl fmt::Display) -> Self {
        HubError::Io { doing, path: path.to_owned(), why: why.to_string() }
    }

    /// The same error where a reference was asked for, and not files.
    #[must_use]
    pub fn of(self, reference: &ModelRef) -> Self {
        match self {
            HubError::RevisionNotFound { repo, revision, .. } => {
                let main = ModelRef { revision: MAIN.to_owned(), ..reference.clone() };
                let example = main.to_string().replacen(&repo, &format!("{repo}@{MAIN}"), 1);
                HubError::RevisionNotFound { repo, revision, example }
            }
            other => other,
        }
    }

    /// Whether the network, and not the request, is to blame: then a cached answer may stand in.
    pub fn is_network(&self) -> bool {
        match self {
            HubError::Network { .. } | HubError::Deadline { .. } | HubError::CircuitOpen { .. } => true,
            HubError::RateLimited { .. } | HubError::BadAnswer { .. } => true,
            HubError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// The same error with what was tried before it.
    pub(crate) fn with_tried(mut self, lines: Vec<String>) -> Self {
        match &mut self {
            HubError::Offline { tried, .. }
            | HubError::RateLimited { tried, .. }
            | HubError::Status { tried, .. }
            | HubError::BadAnswer { tried, .. }
            | HubError::Network { tried, .. }
            | HubError::Deadline { tried, .. }
            | HubError::Checksum { tried, .. }
            | HubError::Size { tried, .. } => *tried = Tried(lines),
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_long_is_cut() {
        let names = |n: usize| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&names(3)), "1, 2, 3");
        assert!(some(&names(20)).ends_with("19, 20"));
        assert!(some(&names(22)).ends_with("19, 20 and 2 more"));
        assert_eq!(
            (there_is("its files", &[]), there_is("its files", &names(2))),
            ("its files: none".to_owned(), "its files: 1, 2".to_owned())
        );
    }

    #[test]
    fn the_network_is_to_blame_or_the_request() {
        let (text, tried, limit) = (String::new, Tried::default, Duration::ZERO);
        let status = |status| HubError::Status { url: text(), status, message: text(), tried: tried() };
        for (error, network) in [
            (HubError::Network { url: text(), why: text(), tried: tried() }, true),
            (HubError::Deadline { what: text(), limit, tried: tried() }, true),
            (HubError::CircuitOpen { origin: text(), failures: 1, retry_in: limit, last: text() }, true),
            (HubError::RateLimited { url: text(), wait: limit, limit, tried: tried() }, true),
            (HubError::BadAnswer { url: text(), why: text(), tried: tried() }, true),
            (status(500), true),
            (status(499), false),
            (HubError::Size { url: text(), expected: 1, got: 2, tried: tried() }, false),
            (HubError::io("read", Path::new("x"), "why"), false),
        ] {
            assert_eq!(error.is_network(), network, "{error:?}");
        }
    }
}
