//! From a path to a model that is ready to talk: container, tokenizer, I2_S layout, weights, all checked against each
//! other before any compute.

use crate::discovery::quantization::{self, QuantizationError};
use crate::discovery::{
    Resolved, TokenizerDiscovery, TokenizerDiscoveryError, TokenizerFallbackChain, TokenizerStrategy,
};
use crate::gguf::{GgufError, GgufFile, TensorInfo};
use crate::inference::InferenceError;
use crate::model::{Copied, HugePages, Model, ModelError, family_of};
use crate::tokenizer::{self, Diagnostic, Severity, Tokenizer, TokenizerError};
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::{Kernels, Pool};
use layout::{Build, Open, probe};
use memory::Memory;
use std::path::Path;
use std::sync::Arc;

mod evidence;
mod layout;
mod memory;

pub use layout::{LayoutReport, Settled};

/// Metadata key under which our own converter records the layout of I2_S tensors.
pub const LAYOUT_KEY: &str = "bitnet.i2_s.layout";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Discovery(Box<TokenizerDiscoveryError>),
    #[error(transparent)]
    Vocabulary(#[from] QuantizationError),
    #[error("`{LAYOUT_KEY}` is `{value}`, expected x86, arm or rows4; say --i2s-layout")]
    LayoutKey { value: String },
    #[error(
        "the file says in `{LAYOUT_KEY}` that its I2_S tensors are laid out as {}, not {}; leave --i2s-layout out, or correct the key: bitnet convert FILE --set {LAYOUT_KEY}={} -o CORRECTED",
        recorded.name(), asked.name(), asked.name()
    )]
    OtherLayout { asked: I2sLayout, recorded: I2sLayout },
}

impl From<TokenizerDiscoveryError> for LoadError {
    fn from(error: TokenizerDiscoveryError) -> Self {
        Self::Discovery(Box::new(error))
    }
}

/// Where [`load_with`] takes the tokenizer from.
#[derive(Debug, Default)]
pub enum TokenizerSource<'a> {
    /// The file itself, and nowhere else.
    #[default]
    Embedded,
    /// Wherever this chain finds one.
    Discover(&'a TokenizerFallbackChain),
    /// It is there already.
    Given(Box<Resolved>),
}

/// What [`load_with`] may be told.
#[derive(Debug, Default)]
pub struct LoadOptions<'a> {
    /// The layout of I2_S tensors, where the caller knows it.
    pub layout: Option<I2sLayout>,
    /// The tokenizer.
    pub tokenizer: TokenizerSource<'a>,
    /// Whether hot weights are copied into huge pages.
    pub huge_pages: HugePages,
    /// A folder that remembers which layout a file's I2_S tensors proved to have.
    pub layouts: Option<&'a Path>,
    /// The caller will ask [`Loaded::settle`] before the first token: a layout that nothing tells is left open until then.
    pub by_prompt: bool,
}

/// A model that is ready to run.
#[derive(Clone)]
pub struct Loaded {
    /// The container.
    pub file: GgufFile,
    /// Plan and weights.
    pub model: Arc<Model>,
    /// The tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Where the tokenizer came from.
    pub strategy: TokenizerStrategy,
    /// What the user should know.
    pub diagnostics: Vec<Diagnostic>,
    /// The I2_S layout, if the model has such tensors.
    pub layout: Option<LayoutReport>,
    /// What is to be found out yet.
    open: Option<Open>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("file", &self.file.path()).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// [`load_with`] for a model that carries its tokenizer.
pub fn load(
    file: GgufFile,
    layout: Option<I2sLayout>,
    kernels: &'static dyn Kernels,
    pool: &Arc<Pool>,
) -> Result<Loaded, LoadError> {
    load_with(file, LoadOptions { layout, ..LoadOptions::default() }, kernels, pool)
}

fn recorded_layout(file: &GgufFile) -> Result<Option<I2sLayout>, LoadError> {
    let Some(value) = file.metadata().str(LAYOUT_KEY)? else { return Ok(None) };
    I2sLayout::from_name(value).map(Some).ok_or_else(|| LoadError::LayoutKey { value: value.to_owned() })
}

/// The layout that a person asks for. [`load_with`] leaves the last word to its caller, and weights that are read in another layout than
/// their own are scrambled.
///
/// # Errors
/// The file records another one, or none that there is.
pub fn agreed_layout(file: &GgufFile, asked: Option<I2sLayout>) -> Result<Option<I2sLayout>, LoadError> {
    match (asked, recorded_layout(file)?) {
        (Some(asked), Some(recorded)) if asked != recorded => Err(LoadError::OtherLayout { asked, recorded }),
        _ => Ok(asked),
    }
}

/// Loads a model: finds and builds the tokenizer, checks it against the weights, validates every tensor, and settles
/// the I2_S layout (the option, or by metadata, or as it was found out before, or by the prompt or a short probe).
///
/// # Errors
/// What is wrong with the file, and where; or what was tried to find a tokenizer.
pub fn load_with(
    file: GgufFile,
    options: LoadOptions<'_>,
    kernels: &'static dyn Kernels,
    pool: &Arc<Pool>,
) -> Result<Loaded, LoadError> {
    // An unknown architecture is named before anything else that may be odd about its file.
    family_of(&file)?;
    let layout = options.layout;
    let recorded = recorded_layout(&file)?;
    // Rows of an odd number of 64s fill no block of the x86 layout: nothing has to be probed.
    let is_i2s = |t: &&TensorInfo| t.ggml_type == bitnet_kernels::quant::i2_s::FORMAT.ggml_type;
    let odd = file.tensors().iter().filter(is_i2s).find(|t| t.cols() % 128 == 64);
    let only =
        odd.map(|t| (I2sLayout::Arm, format!("the rows of `{}` have {} weights, x86 wants 128s", t.name, t.cols())));
    let told = layout.or(recorded).or(only.as_ref().map(|(layout, _)| *layout));
    let nothing_tells = told.is_none() && file.tensors().iter().any(|t| is_i2s(&t));
    let memory = options.layouts.filter(|_| nothing_tells).and_then(|folder| Memory::of(folder, &file));
    let mut remembered = memory.as_ref().and_then(Memory::read);
    let build = Build { file: file.clone(), huge_pages: options.huge_pages, kernels, pool: Arc::clone(pool) };
    let load = |memory: Option<I2sLayout>| build.model(told.or(memory).unwrap_or_default());
    let assumed = remembered.as_ref().and_then(|found| found.layout());
    let find = || tokenizer_of(&file, options.tokenizer);
    // A large vocabulary takes one thread as long as the weights take all of them.
    let (found, model) = if pool.threads() > 1 {
        std::thread::scope(|scope| {
            let model = scope.spawn(|| load(assumed));
            (find(), model.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    } else {
        (find(), load(assumed))
    };
    let (tokenizer, mut diagnostics, strategy) = found?;
    // Sooner than what else may be wrong with the weights; a file without an embedding is the model's to complain about.
    if file.tensor("token_embd.weight").is_some() {
        quantization::check(&file, tokenizer.vocab_size())?;
    }
    let mut model = match model {
        // What was remembered does not fit the file.
        Err(_) if assumed.is_some() => {
            remembered = None;
            load(None)?
        }
        model => model?,
    };
    let (tokens, rows) = (tokenizer.vocab_size(), model.config.vocab_size);
    if tokens < rows {
        let message = format!("the embedding has {rows} rows for {tokens} tokens; the rest is padding");
        diagnostics.push(Diagnostic::info("padded_embedding", message, ""));
    }
    let mut open = None;
    let report = if !model.has_i2s() {
        None
    } else if let Some(layout) = layout {
        Some(LayoutReport { layout: layout.name(), decided: true, why: "chosen by the caller".into() })
    } else if let Some(layout) = recorded {
        Some(LayoutReport { layout: layout.name(), decided: true, why: format!("recorded in `{LAYOUT_KEY}`") })
    } else if let Some((layout, why)) = only {
        Some(LayoutReport { layout: layout.name(), decided: true, why })
    } else if let Some(found) = remembered.and_then(|found| found.report(&*tokenizer)) {
        diagnostics.push(found.diagnostic());
        Some(found)
    } else {
        let still = Open { build, memory };
        if options.by_prompt {
            open = Some(still);
            Some(LayoutReport::undecided("the prompt will tell".into()))
        } else {
            let (chosen, report) = probe(&still, &model, &*tokenizer)?;
            model = chosen;
            diagnostics.push(report.diagnostic());
            Some(report)
        }
    };
    if options.huge_pages == HugePages::On {
        diagnostics.extend(memory_diagnostic(&model.copy_hot(HugePages::On, pool)));
    }
    Ok(Loaded { file, model, tokenizer, strategy, diagnostics, layout: report, open })
}

type Found = (Arc<dyn Tokenizer>, Vec<Diagnostic>, TokenizerStrategy);

fn tokenizer_of(file: &GgufFile, source: TokenizerSource<'_>) -> Result<Found, LoadError> {
    Ok(match source {
        TokenizerSource::Embedded => {
            let tokenizer::Loaded { tokenizer, diagnostics } = tokenizer::from_gguf(file.metadata())?;
            (tokenizer, diagnostics, TokenizerStrategy::EmbeddedGguf)
        }
        TokenizerSource::Discover(chain) => {
            let Resolved { tokenizer, diagnostics, strategy, .. } =
                chain.resolve(&TokenizerDiscovery::from_file(file)?)?;
            (tokenizer, diagnostics, strategy)
        }
        TokenizerSource::Given(resolved) => (resolved.tokenizer, resolved.diagnostics, resolved.strategy),
    })
}

fn memory_diagnostic(copied: &Copied) -> Option<Diagnostic> {
    const MIB: f64 = (1 << 20) as f64;
    let (severity, message, hint) = match *copied {
        Copied::Nothing => return None,
        Copied::Bytes(bytes) => {
            let message = format!("{:.1} MiB of weights were copied into huge pages", bytes as f64 / MIB);
            (Severity::Info, message, String::new())
        }
        Copied::NoRoom { needed, available } => {
            let message = format!(
                "weights of {:.1} MiB are not copied into huge pages: {:.1} MiB of memory are available",
                needed as f64 / MIB,
                available as f64 / MIB
            );
            (Severity::Warning, message, "the results are the same; --huge-pages off asks for nothing".to_owned())
        }
    };
    Some(Diagnostic { severity, code: "huge_pages", message, hint })
}
