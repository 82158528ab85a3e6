//! Why there is no tokenizer: the cause, what was tried, and the command that fixes it.

use super::chain::{Step, StepOutcome};
use super::compatibility::COMPATIBILITY;
use super::quantization::QuantizationError;
use super::strategy::TokenizerDownloadInfo;
use crate::gguf::GgufError;
use crate::hub::HubError;
use crate::shell::{folder_of, quoted};
use crate::tokenizer::{self, TokenizerError};
use std::fmt;
use std::path::{Path, PathBuf};

/// An error of discovery.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum TokenizerDiscoveryError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(
        "{model} says nowhere how many tokens there are (no tokenizer.ggml.tokens, no vocab_size, no token_embd.weight): it is no \
         language model, or incomplete; look with `bitnet inspect`"
    )]
    NoVocabularySize { model: String },
    #[error("{model} has no usable tokenizer{}{ways}", Tried(steps))]
    NothingUsable { model: String, steps: Vec<Step>, ways: Box<Ways> },
    #[error("the tokenizer inside of {model} cannot be used: {}", tokenizer::name_model(&cause.to_string(), Path::new(model)))]
    Embedded { model: String, cause: TokenizerError },
    #[error("the tokenizer {} cannot be used: {cause}", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: TokenizerError,
    },
    #[error("{}", reasons.join("; "))]
    Beside { reasons: Vec<String> },
    #[error("{} does not exist; name a tokenizer.json, tokenizer.model, vocab.json (with merges.txt beside it) or a folder", path.display())]
    MissingFile { path: PathBuf },
    #[error(
        "the tokenizer has {found} tokens and the model {expected}{}: they do not belong together",
        family.map(|name| format!(" (as {name})")).unwrap_or_default()
    )]
    WrongVocabulary { found: usize, expected: usize, rows: Option<usize>, family: Option<&'static str> },
    #[error("strict mode (--strict, BITNET_STRICT_TOKENIZERS): {why}; {remedy}")]
    Strict { why: String, remedy: String },
    #[error("{model} needs {files} of {repo} from the hub, and {why}{ways}")]
    DownloadNotAllowed { model: String, files: String, repo: String, why: String, ways: Box<Ways> },
    #[error("a download of `{repo}` cannot be tried: {why}")]
    BadDownload { repo: String, why: String },
    #[error("no repository gives the tokenizer: {}", causes.iter().map(|(repo, cause)| format!("{repo}: {cause}")).collect::<Vec<_>>().join("; "))]
    Download { causes: Vec<(String, Box<HubError>)> },
    #[error(transparent)]
    Hub(#[from] Box<HubError>),
    #[error(
        "a mock tokenizer turns every text into nonsense and is {why}; name a real one: `bitnet infer --tokenizer FILE`"
    )]
    MockNotAllowed { why: &'static str },
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
}

impl From<HubError> for TokenizerDiscoveryError {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

/// What is said of a model that the table does not know.
pub(super) fn no_repository(architecture: &str, tokens: usize) -> String {
    format!("no repository is known for architecture `{architecture}` with {tokens} tokens")
}

struct Tried<'a>(&'a [Step]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.0.iter().filter(|step| step.outcome != StepOutcome::NotNeeded) {
            write!(f, "\n  tried {}: {} ({})", step.step, step.why, step.outcome)?;
        }
        Ok(())
    }
}

/// The three ways out, each as a command.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ways {
    /// `bitnet infer --auto-download ...`, where a repository is known.
    #[serde(rename = "auto_download")]
    pub fetch: Option<String>,
    /// Why that is not a way here.
    #[serde(skip)]
    pub no_fetch: Option<String>,
    /// `bitnet download REPO --to DIR`.
    pub beside: String,
    /// `bitnet infer --tokenizer FILE`.
    #[serde(rename = "named")]
    pub name: String,
    /// Whether no packet may leave: then what needs the network comes last.
    #[serde(skip)]
    pub offline: bool,
}

impl Ways {
    /// For the model at `path`, of this architecture and number of tokens; `info` is what could be fetched.
    pub(super) fn of(
        path: Option<&Path>,
        info: Option<&TokenizerDownloadInfo>,
        (architecture, tokens): (&str, usize),
        offline: bool,
    ) -> Self {
        let model = path.map_or_else(String::new, |path| format!(" --model {}", quoted(path)));
        let dir = path.map_or(Path::new("."), folder_of);
        let no_fetch = info.is_none().then(|| {
            let known: Vec<String> = COMPATIBILITY.iter().map(|c| format!("{} {}", c.family, c.vocab_size)).collect();
            format!("{} (known: {})", no_repository(architecture, tokens), known.join(", "))
        });
        let files = info.map_or(String::new(), |info| {
            let all = info.files.iter().chain(&info.companions);
            // The command's default takes these along where they exist.
            if all.clone().all(|file| {
                matches!(file.as_str(), "tokenizer.json" | "tokenizer_config.json" | "generation_config.json")
            }) {
                return String::new();
            }
            all.map(|file| format!(" --file {file}")).collect()
        });
        let repo = info.map_or("ORG/NAME", |info| info.repo.as_str());
        Self {
            fetch: info.is_some().then(|| format!("bitnet infer --auto-download{model} --prompt TEXT")),
            no_fetch,
            beside: format!("bitnet download {repo}{files} --to {}", quoted(dir)),
            name: format!("bitnet infer --tokenizer FILE{model} --prompt TEXT"),
            offline,
        }
    }
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = ("put the files beside it:", self.beside.as_str());
        let name = ("name a tokenizer yourself:", self.name.as_str());
        let fetch = match (&self.fetch, &self.no_fetch) {
            (Some(command), _) if self.offline => ("online, let it be fetched:", command.as_str()),
            (Some(command), _) => ("let it be fetched:", command.as_str()),
            (None, why) => ("(a download) not here:", why.as_deref().unwrap_or("nothing is known")),
        };
        let online = ("online, put the files beside it:", self.beside.as_str());
        let ways = if self.offline { [name, online, fetch] } else { [fetch, beside, name] };
        write!(f, "\nThree ways out:")?;
        for (n, (what, command)) in (1..).zip(ways) {
            write!(f, "\n  {n}. {what:<32} {command}")?;
        }
        Ok(())
    }
}
