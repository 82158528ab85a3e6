//! The steps of the chain in their order, and who wins.

use super::chain::{Chain, FamilyReport, Step, StepKind, StepOutcome};
use super::colocated::colocated;
use super::discovery::TokenizerDiscovery;
use super::embedded::{self, Embedded, Pre};
use super::error::{TokenizerDiscoveryError, no_repository};
use super::remote::{self, Present};
use super::resolver::{Resolved, Resolver};
use super::settings::DiscoverySettings;
use super::strategy::{CachedTokenizer, TokenizerDownloadInfo, TokenizerStrategy};
use crate::hub::{Observer, Source};
use crate::tokenizer::{Diagnostic, Severity, compiled};
use std::path::PathBuf;
use std::time::Instant;

/// Looks: nothing is fetched, and no tokenizer is built where one pass over it tells enough.
pub(super) fn look(discovery: &TokenizerDiscovery, settings: &DiscoverySettings) -> Walked {
    Walk { resolver: Resolver { discovery, settings, observer: None }, build: false }.run()
}

/// Looks and does.
pub(super) fn build(
    discovery: &TokenizerDiscovery,
    settings: &DiscoverySettings,
    observer: Option<&Observer>,
) -> Walked {
    Walk { resolver: Resolver { discovery, settings, observer }, build: true }.run()
}

/// A chain that was walked to its end.
#[derive(Debug)]
pub struct Walked {
    /// Every step.
    pub chain: Chain,
    /// The tokenizer, if a step had one (and it was to be built).
    pub resolved: Option<Resolved>,
    /// The error that ended the chain before its end.
    pub fatal: Option<TokenizerDiscoveryError>,
}

impl TokenizerDiscovery {
    /// What to do to get a tokenizer. A download is the answer only where nothing here works, whether it is allowed or
    /// not (the resolver asks `settings` before it fetches anything).
    ///
    /// # Errors
    /// [`TokenizerDiscoveryError::NothingUsable`] with every step; the error of a tokenizer that was named.
    pub fn discover_tokenizer_strategy(
        &self,
        settings: &DiscoverySettings,
    ) -> Result<TokenizerStrategy, TokenizerDiscoveryError> {
        let walked = look(self, settings);
        match (walked.chain.strategy.clone(), walked.chain.needs_download.clone()) {
            (Some(strategy), _) => Ok(strategy),
            (None, Some(info)) if !settings.is_offline() => Ok(TokenizerStrategy::NeedsDownload(info)),
            _ => Err(walked.into_error(self, settings)),
        }
    }

    /// Every step: what it looked at, what came of it, why, and how long it took. Looks only: nothing is fetched, and
    /// an embedded tokenizer is examined but not built.
    pub fn chain(&self, settings: &DiscoverySettings) -> Chain {
        look(self, settings).chain
    }

    fn no_steps_yet(&self) -> Chain {
        Chain {
            model: self.file.path().map(PathBuf::from),
            architecture: self.architecture().to_owned(),
            model_type: self.model_type().map(str::to_owned),
            vocab_size: self.vocab_size(),
            vocabulary: self.sizes(),
            disagreements: self.disagreements().to_vec(),
            family: self.recognised().map(FamilyReport::from),
            steps: Vec::with_capacity(StepKind::CHAIN.len()),
            winner: None,
            strategy: None,
            needs_download: None,
            micros: 0,
        }
    }
}

/// What a step found.
enum Found {
    Absent(String),
    NotAllowed(String),
    Rejected(TokenizerDiscoveryError),
    Works(Box<Works>),
}

struct Works {
    strategy: TokenizerStrategy,
    why: String,
    /// Something is guessed: a later step without guesses is better.
    doubt: bool,
    resolved: Option<Resolved>,
}

type Looked = (Vec<String>, Found);

#[derive(Clone, Copy)]
struct Walk<'a> {
    resolver: Resolver<'a>,
    build: bool,
}

impl Found {
    /// What was looked at and not built.
    fn seen(strategy: TokenizerStrategy, why: String, doubt: bool) -> Self {
        Self::Works(Box::new(Works { strategy, why, doubt, resolved: None }))
    }

    /// The same without a doubt, with other words for why.
    fn certain(self, why: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Works(works) => Self::Works(Box::new(Works { why: why(&works.why), doubt: false, ..*works })),
            other => other,
        }
    }
}

impl Walk<'_> {
    fn run(self) -> Walked {
        let started = Instant::now();
        let discovery = self.resolver.discovery;
        let mut chain = discovery.no_steps_yet();
        let (mut resolved, mut fatal, mut notes) = (None, None, Vec::new());
        let named = self.resolver.settings.exact.is_some();
        let kinds = named.then_some(StepKind::Named).into_iter().chain(StepKind::CHAIN);
        // A guess in hand: where its step stands, and what it came to.
        let mut doubtful: Option<(usize, Box<Works>)> = None;
        for kind in kinds {
            let over = chain.winner.is_some() || fatal.is_some() || (named && kind != StepKind::Named);
            let weak = matches!(kind, StepKind::Download | StepKind::Mock);
            if over || (weak && doubtful.is_some()) {
                let why = match chain.winner {
                    Some(winner) => format!("{winner} has it"),
                    None if doubtful.is_some() => "what is embedded is better than that".to_owned(),
                    None => "an earlier error ends the chain".to_owned(),
                };
                let (outcome, looked_at) = (StepOutcome::NotNeeded, Vec::new());
                chain.steps.push(Step { step: kind, outcome, looked_at, why, micros: 0 });
                continue;
            }
            let began = Instant::now();
            let (looked_at, found) = self.step(kind, &mut chain);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let (outcome, why) = match found {
                Found::Absent(why) => (StepOutcome::Absent, why),
                Found::NotAllowed(why) => (StepOutcome::NotAllowed, why),
                Found::Rejected(error) => {
                    let why = error.to_string();
                    if let Some(note) = rejected_note(kind, &error) {
                        notes.push(note);
                    }
                    let broken = matches!(
                        error,
                        TokenizerDiscoveryError::Embedded { .. } | TokenizerDiscoveryError::Quantization(_)
                    );
                    if kind == StepKind::Named {
                        fatal = Some(error);
                    } else if self.resolver.settings.strict && kind == StepKind::Embedded && broken {
                        // Replacing what a model carries is a downgrade, however good the replacement.
                        let remedy =
                            "name the right tokenizer with --tokenizer FILE, or convert the model again".to_owned();
                        fatal = Some(TokenizerDiscoveryError::Strict { why: why.clone(), remedy });
                    }
                    (StepOutcome::Rejected, why)
                }
                Found::Works(works) if works.doubt => {
                    let why = works.why.clone();
                    doubtful = Some((chain.steps.len(), works));
                    (StepOutcome::Doubtful, why)
                }
                Found::Works(works) => {
                    chain.winner = Some(kind);
                    chain.strategy = Some(works.strategy);
                    resolved = works.resolved;
                    (StepOutcome::Won, works.why)
                }
            };
            tracing::debug!(step = kind.name(), outcome = outcome.name(), micros, why, "tokenizer discovery");
            chain.steps.push(Step { step: kind, outcome, looked_at, why, micros });
        }
        if let (None, Some((at, works))) = (chain.winner, doubtful)
            && let Some(step) = chain.steps.get_mut(at)
        {
            step.outcome = StepOutcome::Won;
            chain.winner = Some(step.step);
            chain.strategy = Some(works.strategy);
            resolved = works.resolved;
        }
        if let Some(resolved) = &mut resolved {
            resolved.diagnostics.splice(0..0, notes);
        }
        chain.micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Walked { chain, resolved, fatal }
    }

    fn step(&self, kind: StepKind, chain: &mut Chain) -> Looked {
        match kind {
            StepKind::Named => self.named(),
            StepKind::Embedded => self.embedded(),
            StepKind::Beside => self.beside(),
            StepKind::Cache => self.cache(Source::Cache),
            StepKind::HuggingfaceCache => self.cache(Source::HuggingFaceCache),
            StepKind::Download => self.download(chain),
            StepKind::Mock => self.mock(),
        }
    }

    fn resolve(&self, strategy: TokenizerStrategy) -> Found {
        if let (false, TokenizerStrategy::Exact(path) | TokenizerStrategy::Discovered(path)) = (self.build, &strategy) {
            match self.resolver.look(path) {
                Ok(Some(look)) => {
                    let why = format!("{}, {} tokens", look.kind, look.tokens);
                    return Found::seen(strategy, why, false);
                }
                Ok(None) => {}
                Err(error) => return Found::Rejected(error),
            }
        }
        let resolved = self.resolver.resolve(&strategy);
        works(strategy, resolved)
    }

    fn named(&self) -> Looked {
        let path = self.resolver.settings.exact.clone().unwrap_or_default();
        let at = vec![path.display().to_string()];
        if !path.exists() {
            return (at, Found::Rejected(TokenizerDiscoveryError::MissingFile { path }));
        }
        // Whoever names a file has decided.
        (at, self.resolve(TokenizerStrategy::Exact(path)).certain(str::to_owned))
    }

    fn embedded(&self) -> Looked {
        let discovery = self.resolver.discovery;
        let metadata = discovery.file.metadata();
        let at = ["model", "pre", "tokens", "scores", "merges"]
            .map(|name| format!("tokenizer.ggml.{name}"))
            .into_iter()
            .filter(|key| metadata.contains(key))
            .collect();
        let model = discovery.model_name();
        // What strict mode refuses only building can tell; one that was compiled is opened sooner than looked at.
        let known = self.resolver.compiled_embedded();
        let build = self.build || self.resolver.settings.strict || known.is_some();
        let look = if build { embedded::head(metadata) } else { embedded::look(metadata) };
        let found = match look {
            Embedded::Absent(why) => Found::Absent(why),
            Embedded::Unsupported(cause) | Embedded::Broken(cause) => {
                Found::Rejected(TokenizerDiscoveryError::Embedded { model, cause })
            }
            Embedded::Unseen => works(TokenizerStrategy::EmbeddedGguf, self.resolver.embedded(known)),
            Embedded::Sound { kind, tokens, pre } => self.sound(kind, tokens, pre),
        };
        (at, found)
    }

    /// An embedded tokenizer that was looked at and not built.
    fn sound(&self, kind: &str, tokens: usize, pre: Pre) -> Found {
        let discovery = self.resolver.discovery;
        if discovery.sizes().rows.is_some()
            && let Err(error) = super::quantization::check(&discovery.file, tokens)
        {
            return Found::Rejected(error.into());
        }
        let said = discovery.pre().map_or_else(|| "is missing".to_owned(), |pre| format!("says `{pre}`"));
        let split = match pre {
            Pre::None => String::new(),
            Pre::Named(name) => format!(", pre-tokenizer `{name}`"),
            Pre::Fingerprint(known) => format!(
                ", tokenizer.ggml.pre {said}, but the vocabulary is that of {}: pre-tokenizer `{}`",
                known.name, known.pre
            ),
            Pre::Rare(name) => {
                format!(", pre-tokenizer `{name}`, a name that llama.cpp does not know: its rule is a guess")
            }
            Pre::Unknown => {
                format!(", tokenizer.ggml.pre {said} and the vocabulary is unknown: the pre-tokenizer is a guess")
            }
        };
        let why = format!("{kind}, {tokens} tokens{split}");
        Found::seen(TokenizerStrategy::EmbeddedGguf, why, matches!(pre, Pre::Unknown | Pre::Rare(_)))
    }

    fn beside(&self) -> Looked {
        let Some(path) = self.resolver.discovery.file.path() else {
            return (Vec::new(), Found::Absent("the model is not a file on a disk: nothing lies beside it".to_owned()));
        };
        let beside = colocated(path);
        let mut at: Vec<String> = beside.candidates.iter().map(|path| path.display().to_string()).collect();
        at.extend(beside.refused.iter().map(|(path, _)| path.display().to_string()));
        if at.is_empty() {
            let why = "no tokenizer.json, tokenizer.model, or vocab.json with merges.txt".to_owned();
            return (vec![format!("{}/", beside.folder.display())], Found::Absent(why));
        }
        let mut reasons: Vec<String> =
            beside.refused.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
        for path in beside.candidates {
            let shown = path.display().to_string();
            match self.resolve(TokenizerStrategy::Discovered(path)) {
                Found::Works(works) if works.doubt && self.resolver.discovery.sizes().tokens.is_some() => {
                    reasons.push(format!("{shown}: its pre-tokenizer is a guess too"));
                }
                works @ Found::Works(_) => return (at, works.certain(|why| format!("{shown}: {why}"))),
                Found::Rejected(error) => reasons.push(format!("{shown}: {error}")),
                Found::Absent(why) | Found::NotAllowed(why) => reasons.push(format!("{shown}: {why}")),
            }
        }
        (at, Found::Rejected(TokenizerDiscoveryError::Beside { reasons }))
    }

    fn info(&self) -> Result<TokenizerDownloadInfo, Box<Found>> {
        let discovery = self.resolver.discovery;
        let unknown = || Found::Absent(no_repository(discovery.architecture(), discovery.vocab_size()));
        discovery.download_info().ok_or_else(|| Box::new(unknown()))
    }

    fn cache(&self, source: Source) -> Looked {
        let hub = match self.resolver.hub() {
            Ok(hub) => hub,
            Err(error) => return (Vec::new(), Found::NotAllowed(error.to_string())),
        };
        let ours = source == Source::Cache;
        let roots = if ours { std::slice::from_ref(&hub.cache_dir) } else { hub.hf_caches.as_slice() };
        let at = roots.iter().map(|root| root.display().to_string()).collect();
        let info = match self.info() {
            Ok(info) => info,
            Err(found) => return (at, *found),
        };
        let present = if ours { remote::in_our_cache(hub, &info) } else { remote::in_hf_cache(hub, &info) };
        let Some(Present { repo, commit, path }) = present else {
            let repos: Vec<&str> = info.repos().collect();
            return (at, Found::Absent(format!("{} of {} is not there", info.files.join(", "), repos.join(" or "))));
        };
        let why = format!("{} of {repo} at {commit}", info.files.join(", "));
        let strategy = TokenizerStrategy::Cached(CachedTokenizer { info, repo, commit, source, path });
        if let Some(refused) = self.refuse_guess() {
            return (at, refused);
        }
        if !self.build {
            let why = format!("{why}{}", self.guess().unwrap_or_default());
            return (at, Found::seen(strategy, why, false));
        }
        (at, self.resolve(strategy).certain(|found| format!("{why}: {found}")))
    }

    fn download(&self, chain: &mut Chain) -> Looked {
        let info = match self.info() {
            Ok(info) => info,
            Err(found) => return (Vec::new(), *found),
        };
        let at = info.repos().map(|repo| format!("{repo} ({})", info.revision)).collect();
        chain.needs_download = Some(info.clone());
        let what = format!("{} of {}{}", info.files.join(", "), info.repo, self.guess().unwrap_or_default());
        if let Some(why) = self.resolver.forbids_download() {
            return (at, Found::NotAllowed(format!("{why}; it would be {what}")));
        }
        if let Some(refused) = self.refuse_guess() {
            return (at, refused);
        }
        let strategy = TokenizerStrategy::NeedsDownload(info);
        if !self.build {
            return (at, Found::seen(strategy, format!("to be fetched: {what}"), false));
        }
        (at, self.resolve(strategy).certain(|found| format!("fetched: {found}")))
    }

    /// What else it may be, where the table guesses.
    fn guess(&self) -> Option<String> {
        let r = self.resolver.discovery.recognised()?;
        let guessed = r.evidence == super::compatibility::Evidence::Guess;
        guessed.then(|| format!(" (taken for {}, may be {} as well)", r.line.family, r.others.join(" or ")))
    }

    /// Strict mode fetches no guess.
    fn refuse_guess(&self) -> Option<Found> {
        let why = self.guess().filter(|_| self.resolver.settings.strict)?;
        let remedy = "name the right one: bitnet infer --tokenizer FILE".to_owned();
        let why = format!("the family is a guess{why}");
        Some(Found::Rejected(TokenizerDiscoveryError::Strict { why, remedy }))
    }

    fn mock(&self) -> Looked {
        match self.resolver.forbids_mock() {
            Some(why) => (Vec::new(), Found::NotAllowed(why.to_owned())),
            None => (Vec::new(), self.resolve(TokenizerStrategy::Mock)),
        }
    }
}

/// Diagnostics which say that the pre-tokenizer is a guess.
const GUESSES: [&str; 2] = ["pre_unknown", "pre_is_a_guess"];

/// What a resolved strategy comes to.
fn works(strategy: TokenizerStrategy, resolved: Result<Resolved, TokenizerDiscoveryError>) -> Found {
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return Found::Rejected(error),
    };
    let doubt = resolved.diagnostics.iter().any(|d| GUESSES.contains(&d.code));
    Found::Works(Box::new(Works { strategy, why: words(&resolved), doubt, resolved: Some(resolved) }))
}

/// A tokenizer in words.
fn words(resolved: &Resolved) -> String {
    let t = &resolved.tokenizer;
    let pre = t.pre().map_or_else(String::new, |pre| format!(", pre-tokenizer `{pre}`"));
    let told = |code: &str| resolved.diagnostics.iter().any(|d| d.code == code);
    let by = if GUESSES.into_iter().any(told) {
        " (a guess)"
    } else if told("pre_from_fingerprint") {
        " (from the vocabulary's fingerprint)"
    } else {
        ""
    };
    let form = if told(compiled::USED) { ", compiled before" } else { "" };
    format!("{}, {} tokens{pre}{by}{form}", t.kind(), t.vocab_size())
}

/// What the user must know of a step that was passed over.
fn rejected_note(kind: StepKind, error: &TokenizerDiscoveryError) -> Option<Diagnostic> {
    let (code, severity) = match kind {
        StepKind::Embedded => ("embedded_tokenizer_unusable", Severity::Warning),
        StepKind::Beside => ("tokenizer_beside_refused", Severity::Warning),
        StepKind::Cache | StepKind::HuggingfaceCache => ("cached_tokenizer_refused", Severity::Warning),
        _ => return None,
    };
    let hint = "see `bitnet discover` for the whole chain".to_owned();
    Some(Diagnostic { severity, code, message: format!("passed over: {error}"), hint })
}

impl Walked {
    /// Why there is no tokenizer.
    pub(super) fn into_error(
        self,
        discovery: &TokenizerDiscovery,
        settings: &DiscoverySettings,
    ) -> TokenizerDiscoveryError {
        self.fatal.unwrap_or_else(|| TokenizerDiscoveryError::NothingUsable {
            model: discovery.model_name(),
            steps: self.chain.steps,
            ways: discovery.ways(settings.is_offline()),
        })
    }
}
