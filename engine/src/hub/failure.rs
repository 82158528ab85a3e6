//! One failed attempt: the error that it would be, whether another attempt makes sense, and how addresses and causes are shown.

use std::time::Duration;

use reqwest::Url;

use super::error::{HubError, Tried};

/// Whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    Backoff,
    /// The server named the wait.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<HubError>,
    /// One line for the list of what was tried.
    pub(crate) cause: String,
    pub(crate) again: Again,
}

impl Failure {
    pub(crate) fn new(error: HubError, cause: impl Into<String>, again: Again) -> Self {
        Self { error: Box::new(error), cause: cause.into(), again }
    }

    pub(crate) fn fatal(error: HubError) -> Self {
        Self::new(error, "", Again::No)
    }

    pub(crate) fn bad_answer(url: &Url, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::new(
            HubError::BadAnswer { url: shown(url), why: why.clone(), tried: Tried::default() },
            why,
            Again::Backoff,
        )
    }

    pub(crate) fn network(url: &Url, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::new(HubError::Network { url: shown(url), why: why.clone(), tried: Tried::default() }, why, Again::Backoff)
    }
}

/// An address for people: without signatures and passwords.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// An error with its causes on one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !out.ends_with(&cause_text) {
            out = format!("{out}: {cause_text}");
        }
        next = cause.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    #[test]
    fn causes_stand_on_one_line_each_once() {
        let told = |text, cause: Option<Told>| Told { text, cause: cause.map(Box::new) };
        let deep =
            told("cannot send", Some(told("connect: refused", Some(told("refused", Some(told("by whom", None)))))));
        assert_eq!(causes(&deep), "cannot send: connect: refused: by whom");
        assert_eq!(causes(&told("alone", None)), "alone");
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url = Url::parse("https://user:secret@host:8080/a/b?signature=1#part").unwrap();
        assert_eq!(shown(&url), "https://host:8080/a/b");
    }
}
