//! The two sides of a comparison, from the command line.

use anyhow::{Context, ensure};
use bitnet_engine::device;
use bitnet_engine::discovery::{TokenizerDiscovery, TokenizerFallbackChain, TokenizerStrategy};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::load::LoadError;
use bitnet_engine::settings::{Settings, discovery_from_env};
use bitnet_engine::tokenizer::files::Hints;
use bitnet_engine::tokenizer::{self, Tokenizer};
use bitnet_golden::thresholds;
use bitnet_harness::crossval::live::{Live, NoReference, Wanted};
use bitnet_harness::crossval::report::{Asked, FileFacts, TokenizerFacts};
use bitnet_harness::crossval::{Ours, Thresholds};
use bitnet_kernels::Pool;
use bitnet_kernels::quant::I2sLayout;
use cpp_sys::workers::sha256;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::root::{root, target};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SideArgs {
    /// The GGUF file [default: $BITNET_GGUF].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Our tokenizer, if not the one in the model's file: tokenizer.json, tokenizer.model, a folder, or another GGUF.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// bitnet, llama, or auto: by the model's metadata.
    #[arg(long, default_value = "auto", value_parser = ["auto", "bitnet", "llama"])]
    cpp_backend: String,
    /// Another file for the reference, to compare two versions of a model.
    #[arg(long, value_name = "FILE")]
    cpp_model: Option<PathBuf>,
    /// Least cosine of a position [default: by model and backend, golden/thresholds.toml].
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub(crate) cos_tol: Option<f64>,
    /// Seconds that the reference may take for one request.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Threads of either side [default: $BITNET_THREADS, else one per processor].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Our device: auto, cpu, or one that `bitnet devices` lists [default: $BITNET_DEVICE, else auto].
    #[arg(long)]
    device: Option<String>,
    /// How our side reads I2_S tensors: auto, x86, arm, rows4.
    #[arg(long, default_value = "auto", value_parser = ["auto", "x86", "arm", "rows4"])]
    i2s_layout: String,
    /// Every call of the reference, with its time, on stderr.
    #[arg(short, long)]
    verbose: bool,
}

fn cosine(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a cosine is a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a cosine to ask for lies between 0 and 1".to_owned()) }
}

/// Our side and what is known of it.
pub(crate) struct Sides {
    pub(crate) ours: Ours,
    pub(crate) limits: Thresholds,
    pub(crate) model: FileFacts,
    pub(crate) tokenizer: TokenizerFacts,
    pub(crate) reference_model: Option<FileFacts>,
}

impl SideArgs {
    /// The model's path.
    ///
    /// # Errors
    /// Neither flag nor variable names one.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        let settings = Settings::from_env()?;
        self.model.clone().or(settings.gguf).context("no model: give --model FILE or set BITNET_GGUF")
    }

    fn threads(&self) -> anyhow::Result<usize> {
        let default = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(self.threads.map(usize::from).or(Settings::from_env()?.threads).unwrap_or_else(default))
    }

    /// Our side, ready to compute, and its limits.
    ///
    /// # Errors
    /// What is wrong with the files or options.
    pub(crate) fn ours(&self, asked: &Asked) -> anyhow::Result<Sides> {
        let settings = Settings::from_env()?;
        let path = self.path()?;
        let kernels = device::kernels(self.device.as_deref().or(settings.device.as_deref()).unwrap_or("auto"))?;
        let pool = Arc::new(Pool::new(self.threads()?).context("cannot start the threads")?);
        let mut discovery = discovery_from_env(&settings);
        if let Some(tokenizer) = &self.tokenizer {
            ensure!(tokenizer.exists(), "the tokenizer {} is not there", tokenizer.display());
        }
        let chain = TokenizerFallbackChain::new(discovery.clone());
        discovery.exact.clone_from(&self.tokenizer);
        let named_chain = TokenizerFallbackChain::new(discovery);
        let layout = I2sLayout::from_name(&self.i2s_layout);
        let named = || format!("cannot use {}", path.display());
        let open = |chain| Ours::open(&path, layout, chain, kernels, Arc::clone(&pool));
        let ours = match (&self.tokenizer, open(&chain)) {
            (Some(path), Ok(ours)) => match named_chain.resolve(&TokenizerDiscovery::from_file(&ours.loaded.file)?) {
                Ok(resolved) => ours.with_tokenizer(resolved.tokenizer, resolved.strategy),
                // A tokenizer that does not fit the model is what a comparison of tokens is there to show.
                Err(error) => {
                    let tokenizer = as_it_is(path).ok_or(error)?;
                    ours.with_tokenizer(tokenizer, TokenizerStrategy::Exact(path.clone()))
                }
            },
            (Some(_), Err(LoadError::Discovery(_))) => open(&named_chain).with_context(named)?,
            (_, ours) => ours.with_context(named)?,
        };
        let model = ours.facts(&path.to_string_lossy());
        let reference_model = match &self.cpp_model {
            None => None,
            Some(other) => Some(Ours::facts_of(other).with_context(|| format!("cannot use {}", other.display()))?),
        };
        let mut limits = limits_of(&model, self.wanted()?.backend.name())?;
        if let Some(least) = asked.cos_tol {
            limits.least_cosine = least;
        }
        let mut tokenizer = ours.tokenizer_facts();
        // A folder has no hash.
        tokenizer.sha256 = self.tokenizer.as_ref().and_then(|path| sha256(path).ok());
        Ok(Sides { ours, limits, model, tokenizer, reference_model })
    }

    fn wanted(&self) -> anyhow::Result<Wanted> {
        let path = self.cpp_model.clone().map_or_else(|| self.path(), Ok)?;
        Wanted::choose(&path, &self.cpp_backend)
            .with_context(|| format!("cannot choose a reference for {}", path.display()))
    }

    /// The reference, with the model loaded, and why it is this one; or what is missing.
    pub(crate) fn reference(&self, context: usize) -> Result<(Live, String), NoReference> {
        let wanted = self.wanted().map_err(|e| NoReference::new(format!("{e:#}")))?;
        let threads = self.threads().map_err(|e| NoReference::new(format!("{e:#}")))?;
        let limit = Duration::from_secs(self.timeout);
        let live = wanted.start(&target(), context, threads, limit, self.verbose)?;
        Ok((live, wanted.why))
    }
}

/// The limits of the data for a model and a backend.
///
/// # Errors
/// The data cannot be read, or have none.
pub(crate) fn limits_of(model: &FileFacts, backend: &str) -> anyhow::Result<Thresholds> {
    Ok(thresholds::crossval(&root().join("golden"), backend, &name(model), &model.quant)?)
}

/// The tokenizer of a file or folder, not checked against any model.
fn as_it_is(path: &Path) -> Option<Arc<dyn Tokenizer>> {
    let loaded = match GgufFile::open(path) {
        Ok(file) => tokenizer::from_gguf(file.metadata()),
        Err(_) => tokenizer::files::load_path(path, &Hints::default()),
    };
    loaded.ok().map(|loaded| loaded.tokenizer)
}

/// A model's name in the data: the file's without ending and quant.
fn name(facts: &FileFacts) -> String {
    let stem = Path::new(&facts.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.strip_suffix(&format!("-{}", facts.quant)).map_or(stem.clone(), str::to_owned)
}
