//! Names from outside (repository, revision, path), checked before they become part of a URL or a file name.

use std::fmt::Write as _;

use super::error::HubError;

/// File names have 255 bytes on every file system we meet; the cache adds a suffix.
const LONGEST: usize = 230;

fn bad(kind: &'static str, value: &str, why: &'static str) -> HubError {
    HubError::Name { kind, value: value.chars().take(100).collect(), why }
}

/// `name` or `org/name`, as the hub allows them.
pub(crate) fn check_repo(repo: &str) -> Result<(), HubError> {
    let fail = |why| Err(bad("repository", repo, why));
    if repo.is_empty() || repo.len() > 96 {
        return fail("it must have 1 to 96 characters, as in org/name");
    }
    if repo.split('/').count() > 2 {
        return fail("it must be name or org/name");
    }
    for part in repo.split('/') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return fail("only letters, digits, `-`, `_` and `.` may stand around the `/`");
        }
        if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) || part.contains("..") || part.contains("--") {
            return fail("no part may start or end with `.` or `-`, or hold `..` or `--`");
        }
    }
    Ok(())
}

/// A branch, tag or commit.
pub(crate) fn check_revision(revision: &str) -> Result<(), HubError> {
    if revision.is_empty() || encode(revision, false).len() > LONGEST {
        return Err(bad("revision", revision, "it must have 1 to about 200 characters"));
    }
    if revision.chars().any(char::is_control) || revision.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad("revision", revision, "it must not hold control characters or empty, `.` or `..` parts"));
    }
    Ok(())
}

/// A file's path inside a repository.
pub(crate) fn check_path(path: &str) -> Result<(), HubError> {
    if path.is_empty() || encode(path, false).len() > LONGEST {
        return Err(bad("path", path, "it must have 1 to about 200 characters"));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') || path.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(bad(
            "path",
            path,
            "it must be relative, without control characters, `\\`, or empty, `.` or `..` parts",
        ));
    }
    Ok(())
}

/// Whether a revision is a full commit hash, which never moves.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3), and slashes if they are to stay.
pub(crate) fn encode(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    out
}

/// `org/name` as the folder name `org--name`.
pub(crate) fn folder(repo: &str) -> String {
    repo.replace('/', "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_escape_are_refused() {
        for repo in ["", "a/b/c", "../x", "a/..", "a/.b", "a b", "/a", "a/", "a--b/c", "a\n", "é/x"] {
            assert!(check_repo(repo).is_err(), "{repo:?}");
        }
        for repo in ["gpt2", "microsoft/bitnet-b1.58-2B-4T-gguf", "a_b/C.d"] {
            check_repo(repo).unwrap();
        }
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\\b", "a\0", "./a"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        check_path("original/tokenizer.model").unwrap();
        for revision in ["", "a/../b", "/x", "a\nb"] {
            assert!(check_revision(revision).is_err(), "{revision:?}");
        }
        check_revision("refs/pr/1").unwrap();
        // To the byte, as they are written in a file's name.
        let long = |n: usize| "a".repeat(n);
        assert!(check_repo(&long(96)).is_ok() && check_repo(&long(97)).is_err());
        for check in [check_revision, check_path] {
            assert!(check(&long(LONGEST)).is_ok() && check(&long(LONGEST + 1)).is_err());
            assert!(check(&"/".repeat(3)).is_err() && check(&"ü".repeat(LONGEST / 6 + 1)).is_err());
        }
        let Err(HubError::Name { value, .. }) = check_path(&long(1000)) else { panic!() };
        assert_eq!(value.len(), 100, "a message names the beginning");
    }

    #[test]
    fn a_commit_is_forty_hex_digits() {
        assert!(is_commit("0123456789abcdef0123456789abcdef01234567"));
        for no in ["", "0123abc", &"a".repeat(39), &"a".repeat(41), &"A".repeat(40), &"g".repeat(40)] {
            assert!(!is_commit(no), "{no}");
        }
    }

    #[test]
    fn encoding() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü?.json", true), "a%20b/%C3%BC%3F.json");
    }
}
