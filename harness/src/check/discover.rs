//! `discover`: wherever a model's tokenizer lies, it is found, the printed chain is the golden one, and the ids are those of the
//! embedded one; where there is none, the error names three ways out.
//!
//! Each cell takes its model's vocabulary and puts it into every place in turn (`Scene`). The models are husks: metadata and an
//! empty embedding, which is all that discovery sees of a model. For caches and hub the model poses as a known family of which
//! the mock hub has the files: the family's vocabulary size, and the model's own tokens filled up to it.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::metrics::Metrics;
use crate::posing::{Family, husk, is_tokenizer_key};
use crate::tokenizer_files::TokenizerFiles;
use crate::{hub, models};
use bitnet_engine::discovery::{
    Chain, DiscoverySettings, Step, StepKind, TokenizerDiscovery, TokenizerFallbackChain, TokenizerStrategy,
};
use bitnet_engine::gguf::{GgufFile, MetaValue};
use bitnet_engine::hub::Source;
use bitnet_engine::tokenizer::{self, EncodeOptions, Tokenizer};
use bitnet_golden::texts;
use bitnet_mock_hub::{MockHub, Repo, Storage};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub struct Discover;

impl Check for Discover {
    fn name(&self) -> &'static str {
        "discover"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let file = models::file(ctx, ctx.model(cell)?, &cell.quant)?;
        let strings = texts::strings(&ctx.paths.golden)?;
        let stage = Stage::new(&file, &strings)?;
        let mut seen = BTreeMap::new();
        let mut compared = 0;
        for scene in Scene::ALL.iter().filter(|scene| scene.exists(&stage.vocabulary)) {
            let (sight, ids) = stage
                .play(*scene, &stage.vocabulary)
                .map_err(|failure| Failure::new(format_args!("{}: {}", scene.name(), failure.message)))?;
            compared += ids;
            seen.insert(scene.name(), sight);
        }
        ctx.assert_golden_json(cell, "", &seen)?;
        Ok(Metrics::new().with("scenes", seen.len()).with("texts", strings.len()).with("id_lists_compared", compared))
    }
}

/// Where the tokenizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// In the model.
    Embedded,
    /// In the model, but `tokenizer.ggml.pre` is missing.
    WithoutPre,
    /// The same, and `tokenizer.json` beside the model.
    WithoutPreBeside,
    /// In the model, damaged, and sound beside it.
    DamagedBeside,
    /// The same in strict mode.
    DamagedStrict,
    /// `tokenizer.json` beside the model.
    Beside,
    /// `<stem>.tokenizer.json` beside the model, and another model's `tokenizer.json`.
    BesideByStem,
    /// Beside the model lies the tokenizer of another one.
    WrongBeside,
    /// Beside the model lies `merges.txt` alone.
    MergesAlone,
    /// Nowhere, and nobody knows the family.
    Nowhere,
    /// On the hub, and nobody said that it may be fetched.
    HubNotAsked,
    /// On the hub, and we are offline.
    HubOffline,
    /// On the hub, to be fetched.
    Hub,
    /// In our cache, since the scene before; offline.
    Cached,
}

impl Scene {
    /// All, in the order in which a cell plays them.
    pub const ALL: [Scene; 14] = [
        Scene::Embedded,
        Scene::WithoutPre,
        Scene::WithoutPreBeside,
        Scene::DamagedBeside,
        Scene::DamagedStrict,
        Scene::Beside,
        Scene::BesideByStem,
        Scene::WrongBeside,
        Scene::MergesAlone,
        Scene::Nowhere,
        Scene::HubNotAsked,
        Scene::HubOffline,
        Scene::Hub,
        Scene::Cached,
    ];

    /// Its name in snapshots and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::WithoutPre => "without-pre",
            Self::WithoutPreBeside => "without-pre-beside",
            Self::DamagedBeside => "damaged-beside",
            Self::DamagedStrict => "damaged-strict",
            Self::Beside => "beside",
            Self::BesideByStem => "beside-by-stem",
            Self::WrongBeside => "wrong-beside",
            Self::MergesAlone => "merges-alone",
            Self::Nowhere => "nowhere",
            Self::HubNotAsked => "hub-not-asked",
            Self::HubOffline => "hub-offline",
            Self::Hub => "hub",
            Self::Cached => "cached",
        }
    }

    /// SentencePiece's kind has neither `pre` nor merges.
    fn exists(self, vocabulary: &TokenizerFiles) -> bool {
        !vocabulary.is_spm() || !matches!(self, Self::WithoutPre | Self::WithoutPreBeside | Self::MergesAlone)
    }

    fn poses(self) -> bool {
        matches!(self, Self::HubNotAsked | Self::HubOffline | Self::Hub | Self::Cached)
    }

    /// The step that must win, if one may. A vocabulary that is `known` by its fingerprint needs no `pre`.
    fn winner(self, known: bool) -> Option<StepKind> {
        match self {
            Self::WithoutPreBeside if known => Some(StepKind::Embedded),
            Self::Embedded | Self::WithoutPre => Some(StepKind::Embedded),
            Self::WithoutPreBeside | Self::DamagedBeside | Self::Beside | Self::BesideByStem => Some(StepKind::Beside),
            Self::Hub => Some(StepKind::Download),
            Self::Cached => Some(StepKind::Cache),
            _ => None,
        }
    }
}

/// What stays the same from scene to scene.
pub struct Stage<'a> {
    file: &'a GgufFile,
    /// The model's own vocabulary.
    pub vocabulary: TokenizerFiles,
    family: Family,
    /// Whether the vocabulary's fingerprint names the pre-tokenizer.
    known: bool,
    embedded: Arc<dyn Tokenizer>,
    strings: &'a [String],
    folder: tempfile::TempDir,
    server: MockHub,
}

/// A chain without its times, and what came of it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Sight {
    steps: Vec<String>,
    winner: Option<StepKind>,
    vocab_size: usize,
    family: Option<&'static str>,
    tokenizer: Option<String>,
    diagnostics: Vec<&'static str>,
    error: Vec<String>,
    requests: usize,
}

impl<'a> Stage<'a> {
    /// A stage for one model.
    ///
    /// # Errors
    /// The model has no vocabulary, or the mock hub does not start.
    pub fn new(file: &'a GgufFile, strings: &'a [String]) -> Result<Self, Failure> {
        let vocabulary = TokenizerFiles::read(file.metadata())?;
        let family = Family::of(&vocabulary);
        let storage = |name: &str| if name == "tokenizer.json" { Storage::Lfs } else { Storage::Git };
        let repo = family
            .files(&vocabulary)?
            .into_iter()
            .fold(Repo::new(family.repo), |repo, (name, bytes)| repo.file(name, bytes, storage(name)));
        let without_pre = husk(file, |key| key != "tokenizer.ggml.pre", &[], vocabulary.len())?;
        let without_pre = tokenizer::from_gguf(GgufFile::from_vec(without_pre)?.metadata())?;
        Ok(Self {
            known: without_pre.diagnostics.iter().any(|d| d.code == "pre_from_fingerprint"),
            family,
            embedded: tokenizer::from_gguf(file.metadata())?.tokenizer,
            vocabulary,
            file,
            strings,
            folder: tempfile::tempdir()?,
            server: MockHub::builder().repo(repo).start()?,
        })
    }

    /// Plays one scene with the model's tokenizer replaced by `vocabulary`. Gives what was seen, and how many lists of ids
    /// were compared with those of the embedded tokenizer.
    ///
    /// # Errors
    /// The wrong step wins, looking and doing disagree, ids differ, packets leave that may not, or an error lacks a way out.
    pub fn play(&self, scene: Scene, vocabulary: &TokenizerFiles) -> Result<(Sight, usize), Failure> {
        let folder = self.folder.path().join(scene.name());
        std::fs::create_dir_all(&folder)?;
        let model = folder.join("model.gguf");
        std::fs::write(&model, self.model(scene)?)?;
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
        let right = || vocabulary.tokenizer_json(vocabulary.len());
        let other = || vocabulary.tokenizer_json(vocabulary.len() + 1000);
        match scene {
            Scene::WithoutPreBeside | Scene::DamagedBeside | Scene::DamagedStrict | Scene::Beside => {
                put("tokenizer.json", &right()?)?;
            }
            Scene::BesideByStem => {
                put("model.tokenizer.json", &right()?)?;
                put("tokenizer.json", &other()?)?;
            }
            Scene::WrongBeside => put("tokenizer.json", &other()?)?,
            Scene::MergesAlone => put("merges.txt", vocabulary.merges_txt().as_bytes())?,
            _ => {}
        }
        self.server.log().clear();
        let discovery = TokenizerDiscovery::from_gguf(&model)?;
        let settings = self.settings(scene);
        let looked = discovery.chain(&settings);
        let before = self.server.log().len();
        if before != 0 {
            return Err(Failure::new(format_args!("looking sent {before} requests")));
        }
        let chain = TokenizerFallbackChain::new(settings);
        let walked = chain.run(&discovery);
        let requests = self.server.log().len();
        self.compare(scene, &looked, &walked.chain)?;
        let resolved = match walked.resolved {
            Some(resolved) => Ok(resolved),
            None => chain.resolve(&discovery),
        };
        let mut compared = 0;
        let (mut tokenizer, mut diagnostics, mut error) = (None, Vec::new(), Vec::new());
        match (resolved, scene.winner(self.known)) {
            (Ok(resolved), Some(_)) => {
                diagnostics = resolved.diagnostics.iter().map(|d| d.code).collect();
                tokenizer = Some(format!("{}, {} tokens", resolved.tokenizer.kind(), resolved.tokenizer.vocab_size()));
                // A guess that says so may be wrong; everything else may not.
                if !diagnostics.contains(&"pre_unknown") {
                    compared = same_ids(&*self.embedded, &*resolved.tokenizer, self.strings)?;
                }
            }
            (Ok(resolved), None) => {
                return Err(Failure::new(format_args!("{:?} was taken, an error was to come", resolved.strategy)));
            }
            (Err(found), Some(_)) => return Err(Failure::new(format_args!("no tokenizer: {found}"))),
            (Err(found), None) => {
                let text = found.to_string();
                if scene != Scene::DamagedStrict {
                    three_ways(&text)?;
                }
                // What was tried stands in the steps, and which families there are is not this cell's business.
                let ways = text.split_once("Three ways out").map_or(text.as_str(), |(_, ways)| ways);
                let lines = ways.lines().filter(|line| line.len() > 1);
                let without_list =
                    |line: &str| line.split_once(" (known: ").map_or(line, |(line, _)| line).trim().to_owned();
                error = lines.map(|line| self.shown(&without_list(line))).collect();
            }
        }
        if scene != Scene::Hub && requests != 0 {
            return Err(Failure::new(format_args!("{requests} requests left, none was allowed")));
        }
        let sight = Sight {
            steps: walked.chain.steps.iter().map(|step| self.step(step)).collect(),
            winner: walked.chain.winner,
            vocab_size: walked.chain.vocab_size,
            family: walked.chain.family.as_ref().map(|family| family.family),
            tokenizer,
            diagnostics,
            error,
            requests,
        };
        Ok((sight, compared))
    }

    /// Looking says what doing does: the same winner, and the step that the scene is about.
    fn compare(&self, scene: Scene, looked: &Chain, walked: &Chain) -> Result<(), Failure> {
        if walked.winner != scene.winner(self.known) {
            return Err(Failure::new(format_args!(
                "{:?} wins, expected {:?}\n{walked}",
                walked.winner,
                scene.winner(self.known)
            )));
        }
        if looked.winner != walked.winner {
            return Err(Failure::new(format_args!("looking finds {:?}, doing {:?}", looked.winner, walked.winner)));
        }
        let fits = match (&walked.strategy, walked.winner) {
            (Some(TokenizerStrategy::EmbeddedGguf), Some(StepKind::Embedded)) => true,
            (Some(TokenizerStrategy::Discovered(path)), Some(StepKind::Beside)) => path.is_file(),
            (Some(TokenizerStrategy::Cached(cached)), Some(StepKind::Cache)) => cached.source == Source::Cache,
            (Some(TokenizerStrategy::NeedsDownload(_)), Some(StepKind::Download)) => true,
            (None, None) => true,
            _ => false,
        };
        if !fits {
            return Err(Failure::new(format_args!("{:?} won with {:?}", walked.winner, walked.strategy)));
        }
        Ok(())
    }

    fn model(&self, scene: Scene) -> Result<Vec<u8>, Failure> {
        let rows = self.vocabulary.len();
        if scene.poses() {
            return husk(self.file, |key| !is_tokenizer_key(key), &self.family.metadata()?, self.family.vocab);
        }
        match scene {
            Scene::Embedded => husk(self.file, |_| true, &[], rows),
            Scene::WithoutPre | Scene::WithoutPreBeside => {
                husk(self.file, |key| key != "tokenizer.ggml.pre", &[], rows)
            }
            Scene::DamagedBeside | Scene::DamagedStrict => {
                let lost = if self.vocabulary.is_spm() { "tokenizer.ggml.scores" } else { "tokenizer.ggml.merges" };
                husk(self.file, |key| key != lost, &[], rows)
            }
            _ => {
                // A family that nobody knows, whatever the model is called.
                let more: [(&str, MetaValue); 1] = [("general.name", "somebody's model".into())];
                husk(self.file, |key| !is_tokenizer_key(key), &more, rows)
            }
        }
    }

    fn settings(&self, scene: Scene) -> DiscoverySettings {
        let cache = self.folder.path().join("cache");
        DiscoverySettings {
            hub: Some(hub::settings(self.server.endpoint(), &cache, None)),
            offline: matches!(scene, Scene::HubOffline | Scene::Cached),
            strict: scene == Scene::DamagedStrict,
            auto_download: matches!(scene, Scene::HubOffline | Scene::Hub),
            ..DiscoverySettings::default()
        }
    }

    /// A step in one line, without its time.
    fn step(&self, step: &Step) -> String {
        let Step { step: kind, outcome, looked_at, why, .. } = step;
        let places = if looked_at.is_empty() { String::new() } else { format!(" [{}]", looked_at.join(", ")) };
        self.shown(&format!("{} {}: {why}{places}", kind.name(), outcome.name()))
    }

    /// A text without what differs from run to run: the folder and the hub's port.
    fn shown(&self, text: &str) -> String {
        let folder = |path: &Path| path.display().to_string();
        text.replace(&folder(self.folder.path()), "$DIR").replace(self.server.endpoint(), "$HUB")
    }
}

/// The error names three ways out, each as a command (the first only where a repository is known).
fn three_ways(text: &str) -> Result<(), Failure> {
    for way in ["Three ways out", "1. ", "2. ", "bitnet download ", "3. ", "bitnet infer --tokenizer FILE"] {
        if !text.contains(way) {
            return Err(Failure::new(format_args!("the error lacks `{way}`: {text}")));
        }
    }
    Ok(())
}

/// Both give the same ids for every text, with and without the special tokens around it. Gives the number of lists compared.
///
/// # Errors
/// The first text on which they differ.
pub fn same_ids(wanted: &dyn Tokenizer, found: &dyn Tokenizer, strings: &[String]) -> Result<usize, Failure> {
    let mut compared = 0;
    for text in strings {
        for add_special in [false, true] {
            let options = EncodeOptions { add_special, parse_special: false };
            let (a, b) = (wanted.encode(text, options)?, found.encode(text, options)?);
            if a != b {
                return Err(Failure::new(format_args!(
                    "{text:?} is {b:?}, embedded {a:?} (add_special {add_special})"
                )));
            }
            compared += 1;
        }
    }
    if compared == 0 {
        return Err(Failure::new("there is no text to compare ids on"));
    }
    Ok(compared)
}
