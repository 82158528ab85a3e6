//! The name of a model on the hub, as people write it: `hf:ORG/REPO[@REVISION][:FILE or QUANT]`.
//!
//! | reference | model |
//! |---|---|
//! | `hf:org/name` | the one that [`ORDER`](super::choose::ORDER) puts first |
//! | `hf:org/name:Q4_K_M` | the one whose file name has that quantization, in upper or lower case |
//! | `hf:org/name:sub/model.gguf` | that file; of a split model any part |
//! | `hf:org/name@v1.0:i2_s` | of a branch, tag or commit other than `main` |
//!
//! Without `hf:` it is one only where no such path exists and where it cannot be meant as one: see [`ModelRef::of`].

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::error::HubError;
use super::names::{check_path, check_repo, check_revision};

const PREFIX: &str = "hf:";
/// The revision that is meant where none is named.
pub const MAIN: &str = "main";

/// Which model of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Whatever the documented order puts first.
    Auto,
    /// The file with this path in the repository.
    File(String),
    /// The file with this quantization in its name.
    Quant(String),
}

/// A model of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// `org/name`, or `name` for the few old ones.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Which model of the repository.
    pub pick: Pick,
}

impl ModelRef {
    /// What a `--model` that may be a path means: `None` for a path. A path that exists always is one; then `hf:...` is a
    /// reference; then `ORG/REPO...`, if the repository's name has exactly one slash, is a valid one and does not end with `.gguf`
    /// (a file that is missing is not asked for on the network).
    pub fn of(model: &Path) -> Option<Result<Self, HubError>> {
        let text = model.to_str()?;
        if model.exists() {
            return None;
        }
        let bare = || {
            let repo = text.split(['@', ':']).next().unwrap_or(text);
            repo.contains('/') && !repo.ends_with(".gguf") && check_repo(repo).is_ok()
        };
        (text.starts_with(PREFIX) || bare()).then(|| text.parse())
    }

    /// The command that fetches it, as a shell takes it.
    pub fn command(&self) -> String {
        format!("bitnet download {}", crate::shell::quoted(Path::new(&self.to_string())))
    }

    /// The same repository and revision with another choice.
    pub fn with(&self, pick: Pick) -> Self {
        Self { pick, ..self.clone() }
    }
}

impl FromStr for ModelRef {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let fail = |why: String| HubError::Reference { text: text.chars().take(200).collect(), why };
        let rest = text.strip_prefix(PREFIX).unwrap_or(text);
        // no name of a repository or revision holds a colon, names of files may
        let (place, pick) = rest.split_once(':').map_or((rest, None), |(place, pick)| (place, Some(pick)));
        let (repo, revision) = place.split_once('@').map_or((place, MAIN), |(repo, revision)| (repo, revision));
        check_repo(repo).and_then(|()| check_revision(revision)).map_err(|error| fail(error.to_string()))?;
        let pick = match pick {
            None => Pick::Auto,
            Some("") => return Err(fail("nothing stands after the last `:`".to_owned())),
            Some(file) if file.ends_with(".gguf") || file.contains('/') => {
                check_path(file).map_err(|error| fail(error.to_string()))?;
                Pick::File(file.to_owned())
            }
            Some(quant) if quant.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) => {
                Pick::Quant(quant.to_owned())
            }
            Some(other) => {
                return Err(fail(format!("`{other}` is neither a file (it would end with .gguf) nor a quantization")));
            }
        };
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned(), pick })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repo)?;
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        match &self.pick {
            Pick::Auto => Ok(()),
            Pick::File(pick) | Pick::Quant(pick) => write!(f, ":{pick}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let read = |text: &str| text.parse::<ModelRef>().unwrap();
        for text in ["hf:gpt2", "hf:org/name", "hf:org/name@v1.0", "hf:org/name@refs/pr/1:i2_s", "hf:o/n:a b/m.gguf"] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("org/name@main:Q4_K_M").to_string(), "hf:org/name:Q4_K_M");
        let full = read("hf:microsoft/bitnet-b1.58-2B-4T-gguf@dev:ggml-model-i2_s.gguf");
        assert_eq!((full.repo.as_str(), full.revision.as_str()), ("microsoft/bitnet-b1.58-2B-4T-gguf", "dev"));
        assert_eq!(full.pick, Pick::File("ggml-model-i2_s.gguf".to_owned()));
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        for (text, word) in [
            ("hf:", "repository"),
            ("hf:a/b/c", "repository"),
            ("hf:../x", "repository"),
            ("hf:o/n@", "revision"),
            ("hf:o/n@a/../b", "revision"),
            ("hf:o/n:", "after the last"),
            ("hf:o/n:../up.gguf", "path"),
            ("hf:o/n:two words", "neither a file"),
        ] {
            let error = text.parse::<ModelRef>().unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_path_stays_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "").unwrap();
        for path in
            [path.to_str().unwrap(), "models/absent.gguf", "/a/b", "./a/b", "~/m", "absent", "a/b/c", "src/hub", ""]
        {
            assert!(ModelRef::of(Path::new(path)).is_none(), "{path}");
        }
        for (text, wanted) in [("hf:gpt2", "hf:gpt2"), ("org/name", "hf:org/name"), ("o/n:m.gguf", "hf:o/n:m.gguf")] {
            assert_eq!(ModelRef::of(Path::new(text)).unwrap().unwrap().to_string(), wanted);
        }
        assert!(ModelRef::of(Path::new("o/n@")).unwrap().is_err());
    }
}
