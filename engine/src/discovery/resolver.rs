//! From a strategy to a ready tokenizer.

use super::compatibility::{Compatibility, Evidence, by_family};
use super::discovery::TokenizerDiscovery;
use super::error::TokenizerDiscoveryError;
use super::mock::{self, MockTokenizer};
use super::pins;
use super::quantization;
use super::remote;
use super::settings::DiscoverySettings;
use super::strategy::{TokenizerDownloadInfo, TokenizerStrategy};
use crate::gguf::{GgufFile, is_gguf};
use crate::hub::{HubMetrics, HubSettings, Observer, check_repo_name};
use crate::tokenizer::files::{self, FileSet, Hints, Look};
use crate::tokenizer::{self, Diagnostic, Loaded, Tokenizer, TokenizerError, compiled};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tokenizer that is ready, and where it came from.
#[derive(Clone)]
pub struct Resolved {
    /// Ready to use; behind its family's wrapper where the family is known.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// To be shown to the person who runs the model.
    pub diagnostics: Vec<Diagnostic>,
    /// Where it came from.
    pub strategy: TokenizerStrategy,
    /// Its line in the compatibility table.
    pub family: Option<&'static str>,
    /// What the network cost, if caches or hub were asked.
    pub hub: Option<HubMetrics>,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved")
            .field("strategy", &self.strategy)
            .field("kind", &self.tokenizer.kind())
            .field("vocab_size", &self.tokenizer.vocab_size())
            .field("family", &self.family)
            .field("diagnostics", &self.diagnostics)
            .finish()
    }
}

/// Codes of diagnostics that strict mode does not accept: each says that ids may differ from those of the training.
pub(super) const DOWNGRADES: [&str; 8] = [
    "tokenizer_changed",
    "pre_unknown",
    "pre_is_a_guess",
    "pre_contradicts_vocabulary",
    "no_token_types",
    "merges_outside_vocabulary",
    "family_guessed",
    "mock_tokenizer",
];

/// Turns strategies of one model into tokenizers.
#[derive(Clone)]
pub struct TokenizerStrategyResolver {
    discovery: TokenizerDiscovery,
    settings: DiscoverySettings,
    observer: Option<Observer>,
}

impl std::fmt::Debug for TokenizerStrategyResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenizerStrategyResolver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TokenizerStrategyResolver {
    /// A resolver for the model of `discovery`.
    pub fn new(discovery: TokenizerDiscovery, settings: DiscoverySettings) -> Self {
        Self { discovery, settings, observer: None }
    }

    /// Tells `observer` what happens during downloads.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The tokenizer that `strategy` stands for, checked against the model.
    ///
    /// # Errors
    /// What is wrong with it; a download or a mock that the settings do not allow.
    pub fn resolve_tokenizer(&self, strategy: &TokenizerStrategy) -> Result<Resolved, TokenizerDiscoveryError> {
        strategy.validate()?;
        Resolver { discovery: &self.discovery, settings: &self.settings, observer: self.observer.as_ref() }
            .resolve(strategy)
    }
}

/// The same with everything borrowed, for the chain.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a> {
    pub(super) discovery: &'a TokenizerDiscovery,
    pub(super) settings: &'a DiscoverySettings,
    pub(super) observer: Option<&'a Observer>,
}

impl Resolver<'_> {
    pub(super) fn resolve(&self, strategy: &TokenizerStrategy) -> Result<Resolved, TokenizerDiscoveryError> {
        match strategy {
            TokenizerStrategy::Exact(path) | TokenizerStrategy::Discovered(path) => {
                let loaded = self.at(path)?;
                self.finish(loaded, strategy.clone(), self.line(), None)
            }
            TokenizerStrategy::EmbeddedGguf => self.embedded(None),
            TokenizerStrategy::Cached(cached) => {
                let hub = self.hub()?;
                let hub = match cached.source {
                    crate::hub::Source::HuggingFaceCache => remote::hf_cache_only(hub),
                    _ => remote::our_cache_only(hub),
                };
                self.remote(hub, &[&cached.repo], &cached.info, strategy)
            }
            TokenizerStrategy::NeedsDownload(info) => {
                if let Some(why) = self.forbids_download() {
                    return Err(TokenizerDiscoveryError::DownloadNotAllowed {
                        model: self.discovery.model_name(),
                        files: info.files.join(", "),
                        repo: info.repo.clone(),
                        why,
                        ways: self.discovery.ways(self.settings.is_offline()),
                    });
                }
                let repos: Vec<&str> = info.repos().collect();
                self.remote(self.hub()?.clone(), &repos, info, strategy)
            }
            TokenizerStrategy::Mock => {
                if let Some(why) = self.forbids_mock() {
                    return Err(TokenizerDiscoveryError::MockNotAllowed { why });
                }
                let tokenizer: Arc<dyn Tokenizer> = Arc::new(MockTokenizer::default());
                quantization::check(&self.discovery.file, tokenizer.vocab_size())?;
                let (strategy, diagnostics) = (TokenizerStrategy::Mock, vec![mock::warning()]);
                Ok(Resolved { tokenizer, diagnostics, strategy, family: None, hub: None })
            }
        }
    }

    /// The tokenizer at a path: compiled, in another GGUF, or in files.
    fn at(&self, path: &Path) -> Result<Loaded, TokenizerDiscoveryError> {
        let named = |cause| TokenizerDiscoveryError::File { path: path.to_owned(), cause };
        if compiled::is_compiled(path) {
            let opened = self.settings.compiled.as_ref().map_or_else(|| compiled::open(path), |cache| cache.open(path));
            return opened.map_err(named);
        }
        if is_gguf(path) {
            return self.gguf(&GgufFile::open(path)?).map_err(named);
        }
        let hints = self.hints();
        let Some(cache) = &self.settings.compiled else {
            return files::load(&self.files(path)?.0, &hints).map_err(named);
        };
        cache.files(path, &hints, named, || Ok(self.files(path)?.0))
    }

    /// The tokenizer that a GGUF carries.
    fn gguf(&self, file: &GgufFile) -> Result<Loaded, TokenizerError> {
        match &self.settings.compiled {
            Some(cache) => cache.gguf(file),
            None => tokenizer::from_gguf(file.metadata()),
        }
    }

    /// The model's own tokenizer, if it was compiled before: to open it costs less than to look at its lists.
    pub(super) fn compiled_embedded(&self) -> Option<Loaded> {
        self.settings.compiled.as_ref()?.known_gguf(&self.discovery.file)
    }

    /// The model's own tokenizer, which may be at hand.
    pub(super) fn embedded(&self, known: Option<Loaded>) -> Result<Resolved, TokenizerDiscoveryError> {
        let loaded = match known {
            Some(loaded) => loaded,
            None => self
                .gguf(&self.discovery.file)
                .map_err(|cause| TokenizerDiscoveryError::Embedded { model: self.discovery.model_name(), cause })?,
        };
        self.finish(loaded, TokenizerStrategy::EmbeddedGguf, self.line(), None)
    }

    /// Why nothing may be fetched, if that is so.
    pub(super) fn forbids_download(&self) -> Option<String> {
        if self.settings.is_offline() {
            return Some("this run is offline (--offline, BITNET_OFFLINE, HF_HUB_OFFLINE)".to_owned());
        }
        if !self.settings.auto_download {
            return Some("nothing is fetched without --auto-download".to_owned());
        }
        self.hub().err().map(|error| error.to_string())
    }

    /// Why there is no mock, if that is so.
    pub(super) fn forbids_mock(&self) -> Option<&'static str> {
        if self.settings.strict {
            return Some("refused in strict mode");
        }
        (!self.settings.allow_mock).then_some("made only where somebody asks for it (--allow-mock-tokenizer)")
    }

    pub(super) fn hub(&self) -> Result<&HubSettings, TokenizerDiscoveryError> {
        self.settings.hub.as_ref().ok_or_else(|| TokenizerDiscoveryError::BadDownload {
            repo: self.discovery.download_info().map_or_else(|| "?".to_owned(), |info| info.repo),
            why: self.settings.no_hub.clone().unwrap_or_else(|| "there are no settings for hub and cache".to_owned()),
        })
    }

    fn line(&self) -> Option<&'static Compatibility> {
        self.discovery.recognised().map(|r| r.line)
    }

    fn hints(&self) -> Hints {
        let line = self.line();
        Hints {
            family: line.map(|line| line.family),
            pre: line.and_then(|line| line.pre).map(str::to_owned),
            // Of a padded list nobody can say how many tokens a file must have; `fits` says how many it may have.
            expected_vocab: Some(self.discovery.vocab_size()).filter(|_| self.discovery.padding() == 0),
        }
    }

    /// What the tokenizer file or folder at `path` is, without building it, checked against the model; `None` where only
    /// building can tell.
    pub(super) fn look(&self, path: &Path) -> Result<Option<Look>, TokenizerDiscoveryError> {
        if is_gguf(path) || compiled::is_compiled(path) { Ok(None) } else { Ok(self.files(path)?.1) }
    }

    /// A tokenizer file or a folder, with a look at it: a vocabulary of another model is refused before its tables are built.
    fn files(&self, path: &Path) -> Result<(FileSet, Option<Look>), TokenizerDiscoveryError> {
        let files =
            FileSet::from_path(path).map_err(|cause| TokenizerDiscoveryError::File { path: path.to_owned(), cause })?;
        let look = files::look(&files);
        if let Some(look) = &look {
            self.discovery.fits(look.tokens).map_err(|error| *error)?;
        }
        Ok((files, look))
    }

    fn remote(
        &self,
        hub: HubSettings,
        repos: &[&str],
        info: &TokenizerDownloadInfo,
        strategy: &TokenizerStrategy,
    ) -> Result<Resolved, TokenizerDiscoveryError> {
        let got = remote::get(hub, repos.iter().copied(), info, self.observer.cloned())?;
        let loaded = match &self.settings.compiled {
            Some(cache) => cache.in_memory(&got.files, &self.hints()),
            None => files::load(&got.files, &self.hints()),
        };
        let mut loaded = loaded.map_err(|cause| TokenizerDiscoveryError::File {
            path: Path::new(&got.repo).join(info.files.first().map_or("", String::as_str)),
            cause,
        })?;
        if let Some(changed) = self.hub().ok().and_then(|hub| pins::check(hub, &info.revision, &got)) {
            loaded.diagnostics.push(changed);
        }
        let from: Vec<String> =
            got.fetched.iter().map(|file| format!("{} ({} bytes, {})", file.path, file.size, file.digest)).collect();
        let message = format!("{} at {}: {}", got.repo, got.commit, from.join(", "));
        loaded.diagnostics.push(Diagnostic::info("tokenizer_from_hub", message, ""));
        // What was asked for may be the table's guess.
        if let Some(r) = self.discovery.recognised().filter(|r| r.evidence == Evidence::Guess) {
            loaded.diagnostics.push(Diagnostic::warning(
                "family_guessed",
                format!(
                    "architecture `{}` with {} tokens is taken for {}, but it may be {} as well: with the wrong one the text is nonsense",
                    self.discovery.architecture(),
                    self.discovery.vocab_size(),
                    r.line.label,
                    r.others.iter().filter_map(|f| by_family(f)).map(|line| line.label).collect::<Vec<_>>().join(" or ")
                ),
                "name the right one: bitnet infer --tokenizer FILE",
            ));
        }
        self.finish(loaded, strategy.clone(), self.line(), Some(got.metrics))
    }

    /// The checks that every tokenizer goes through.
    fn finish(
        &self,
        loaded: Loaded,
        strategy: TokenizerStrategy,
        line: Option<&'static Compatibility>,
        hub: Option<HubMetrics>,
    ) -> Result<Resolved, TokenizerDiscoveryError> {
        let Loaded { tokenizer, mut diagnostics } = loaded;
        let tokens = tokenizer.vocab_size();
        if let Some(path) = self.discovery.file.path() {
            for diagnostic in &mut diagnostics {
                diagnostic.hint = tokenizer::name_model(&diagnostic.hint, path);
            }
        }
        if strategy == TokenizerStrategy::EmbeddedGguf {
            // A file without weights (a vocabulary of its own) has no rows to compare with.
            if self.discovery.sizes().rows.is_some() {
                quantization::check(&self.discovery.file, tokens)?;
            }
        } else {
            self.discovery.fits(tokens).map_err(|error| *error)?;
        }
        if self.settings.strict
            && let Some(bad) = diagnostics.iter().find(|d| DOWNGRADES.contains(&d.code))
        {
            let remedy = if bad.hint.is_empty() {
                "name a tokenizer with --tokenizer FILE".to_owned()
            } else {
                bad.hint.clone()
            };
            return Err(TokenizerDiscoveryError::Strict { why: bad.message.clone(), remedy });
        }
        // What a model says of its frame itself is its own business.
        let says_add_bos = strategy == TokenizerStrategy::EmbeddedGguf
            && self.discovery.file.metadata().contains("tokenizer.ggml.add_bos_token");
        let tokenizer = match line {
            Some(line) => dress(tokenizer, line, says_add_bos, &mut diagnostics),
            None => tokenizer,
        };
        Ok(Resolved { tokenizer, diagnostics, strategy, family: line.map(|line| line.family), hub })
    }
}

/// Behind the wrapper of its family, where the roles are not those of the family already. A tokenizer that is right as it is
/// stays as it is; one that has the family's size but not its tokens is told.
fn dress(
    tokenizer: Arc<dyn Tokenizer>,
    line: &'static Compatibility,
    says_add_bos: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Arc<dyn Tokenizer> {
    let own = *tokenizer.special();
    let of = |key: &str| line.special.iter().find(|role| role.key == key).map(|role| role.id);
    // Instruct models end with the end of turn, which is as right.
    let ends = [of("eos_token_id"), of("eot_token_id")];
    let framed = says_add_bos || line.add_bos.is_none_or(|add| add == own.add_bos);
    let reads = |role: &super::compatibility::Role| {
        // An ordinary token of SentencePiece is read with spaces, a control token as it is written.
        let spaced = role.text.replace('▁', " ");
        let is = |text: &[u8]| text == role.text.as_bytes() || text == spaced.as_bytes();
        tokenizer.token_bytes(role.id, true).is_some_and(|text| is(&text))
    };
    if own.bos == of("bos_token_id")
        && own.eos.is_some()
        && ends.contains(&own.eos)
        && framed
        && line.special.iter().all(reads)
    {
        return tokenizer;
    }
    let Some(wrapper) = line.wrapper else { return tokenizer };
    match wrapper(Arc::clone(&tokenizer)) {
        Ok((dressed, mut told)) => {
            diagnostics.append(&mut told);
            dressed
        }
        Err(error) => {
            diagnostics.push(Diagnostic::warning(
                "not_of_family",
                format!("the tokenizer has the size of {}, but not its tokens: {error}", line.label),
                "if the text is nonsense, name another: bitnet infer --tokenizer FILE",
            ));
            tokenizer
        }
    }
}

impl TokenizerStrategy {
    /// Whether it can be tried at all: named files exist, a download names a repository, files and a size.
    ///
    /// # Errors
    /// [`TokenizerDiscoveryError::MissingFile`], [`TokenizerDiscoveryError::BadDownload`].
    pub fn validate(&self) -> Result<(), TokenizerDiscoveryError> {
        let exists = |path: &PathBuf| {
            if path.exists() { Ok(()) } else { Err(TokenizerDiscoveryError::MissingFile { path: path.clone() }) }
        };
        match self {
            Self::EmbeddedGguf | Self::Mock => Ok(()),
            Self::Exact(path) | Self::Discovered(path) => exists(path),
            Self::Cached(cached) => {
                exists(&cached.path)?;
                check(&cached.info)
            }
            Self::NeedsDownload(info) => check(info),
        }
    }
}

fn check(info: &TokenizerDownloadInfo) -> Result<(), TokenizerDiscoveryError> {
    let bad = |why: String| Err(TokenizerDiscoveryError::BadDownload { repo: info.repo.clone(), why });
    for repo in info.repos() {
        if let Err(error) = check_repo_name(repo) {
            return bad(error.to_string());
        }
    }
    if info.files.is_empty() {
        return bad("it names no file".to_owned());
    }
    if info.expected_vocab == 0 {
        return bad("it expects a vocabulary of 0 tokens".to_owned());
    }
    Ok(())
}
