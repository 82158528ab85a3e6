//! From a path to a model that is ready to talk: container, tokenizer, I2_S layout, weights, all checked against each
//! other before any compute.

use crate::discovery::quantization::{self, QuantizationError};
use crate::discovery::{
    Resolved, TokenizerDiscovery, TokenizerDiscoveryError, TokenizerFallbackChain, TokenizerStrategy,
};
use crate::gguf::{GgufError, GgufFile, TensorInfo};
use crate::inference::{InferenceError, Session, SessionOptions, Want, nll};
use crate::model::{Copied, HugePages, Model, ModelError, family_of};
use crate::tokenizer::{self, Diagnostic, EncodeOptions, Severity, Tokenizer, TokenizerError};
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::{Kernels, Pool};
use std::sync::Arc;

/// Metadata key under which our own converter records the layout of I2_S tensors.
pub const LAYOUT_KEY: &str = "bitnet.i2_s.layout";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The container.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The probe of the layout could not run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// No tokenizer was found.
    #[error(transparent)]
    Discovery(Box<TokenizerDiscoveryError>),
    /// More tokens than embeddings.
    #[error(transparent)]
    Vocabulary(#[from] QuantizationError),
    /// A value of [`LAYOUT_KEY`] that names no layout.
    #[error("`{LAYOUT_KEY}` is `{value}`, expected x86, arm or rows4; say --i2s-layout")]
    LayoutKey {
        /// The value.
        value: String,
    },
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
}

/// How the layout of I2_S tensors was found.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayoutReport {
    /// `x86`, `arm` or `rows4`.
    pub layout: &'static str,
    /// Whether anything spoke for it, or it is only the usual one.
    pub decided: bool,
    /// Why this one.
    pub why: String,
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
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("file", &self.file.path()).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// [`load_with`] for a model that carries its tokenizer.
///
/// # Errors
/// As [`load_with`].
pub fn load(
    file: GgufFile,
    layout: Option<I2sLayout>,
    kernels: &'static dyn Kernels,
    pool: &Arc<Pool>,
) -> Result<Loaded, LoadError> {
    load_with(file, LoadOptions { layout, ..LoadOptions::default() }, kernels, pool)
}

/// Loads a model: finds and builds the tokenizer, checks it against the weights, validates every tensor, and settles
/// the I2_S layout (the option, or by metadata, or by a short probe).
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
    let recorded = match file.metadata().str(LAYOUT_KEY)? {
        None => None,
        Some(value) => {
            Some(I2sLayout::from_name(value).ok_or_else(|| LoadError::LayoutKey { value: value.to_owned() })?)
        }
    };
    // Rows of an odd number of 64s fill no block of the x86 layout: nothing has to be probed.
    let is_i2s = |t: &&TensorInfo| t.ggml_type == bitnet_kernels::quant::i2_s::FORMAT.ggml_type;
    let odd = file.tensors().iter().filter(is_i2s).find(|t| t.cols() % 128 == 64);
    let only =
        odd.map(|t| (I2sLayout::Arm, format!("the rows of `{}` have {} weights, x86 wants 128s", t.name, t.cols())));
    let assumed = layout.or(recorded).or(only.as_ref().map(|(layout, _)| *layout)).unwrap_or_default();
    let load = |layout: I2sLayout| -> Result<Arc<Model>, ModelError> {
        let mut model = Model::load(&file, layout, pool)?;
        model.huge_pages = options.huge_pages;
        Ok(Arc::new(model))
    };
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
    let mut model = model?;
    let (tokens, rows) = (tokenizer.vocab_size(), model.config.vocab_size);
    if tokens < rows {
        diagnostics.push(Diagnostic {
            severity: Severity::Info,
            code: "padded_embedding",
            message: format!("the embedding has {rows} rows for {tokens} tokens; the rest is padding"),
            hint: String::new(),
        });
    }
    let report = if !model.has_i2s() {
        None
    } else if let Some(layout) = layout {
        Some(LayoutReport { layout: layout.name(), decided: true, why: "chosen by the caller".into() })
    } else if let Some(layout) = recorded {
        Some(LayoutReport { layout: layout.name(), decided: true, why: format!("recorded in `{LAYOUT_KEY}`") })
    } else if let Some((layout, why)) = only {
        Some(LayoutReport { layout: layout.name(), decided: true, why })
    } else {
        let (chosen, report) = probe(&load, &model, &*tokenizer, kernels, pool)?;
        model = chosen;
        diagnostics.push(layout_diagnostic(&report));
        Some(report)
    };
    if options.huge_pages == HugePages::On {
        diagnostics.extend(memory_diagnostic(&model.copy_hot(HugePages::On, pool)));
    }
    Ok(Loaded { file, model, tokenizer, strategy, diagnostics, layout: report })
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

fn layout_diagnostic(report: &LayoutReport) -> Diagnostic {
    let LayoutReport { layout, decided, why } = report;
    let (severity, verdict, hint) = if *decided {
        (Severity::Info, "read as", String::new())
    } else {
        let hint = "if the text is nonsense, try --i2s-layout arm, or rows4".to_owned();
        (Severity::Warning, "nothing tells the layout of the I2_S tensors; they are taken for", hint)
    };
    let verdict = if *decided { format!("I2_S tensors {verdict} {layout}") } else { format!("{verdict} {layout}") };
    Diagnostic { severity, code: "i2s_layout", message: format!("{verdict}: {why}"), hint }
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

/// A text that every English model has seen; its loss under the right layout is far below that of noise.
const PROBE: &str = "In the beginning God created the heavens and the earth. Now the earth was formless and empty, and \
                     darkness was over the surface of the deep.";
const PROBE_TOKENS: usize = 24;

/// Both layouts hold valid codes and the file does not say which one it uses: a model read in the wrong one babbles.
fn probe(
    load: &dyn Fn(I2sLayout) -> Result<Arc<Model>, ModelError>,
    model: &Arc<Model>,
    tokenizer: &dyn Tokenizer,
    kernels: &'static dyn Kernels,
    pool: &Arc<Pool>,
) -> Result<(Arc<Model>, LayoutReport), LoadError> {
    let report = |layout: I2sLayout, why| LayoutReport { layout: layout.name(), decided: true, why };
    let undecided = |why| LayoutReport { layout: I2sLayout::X86.name(), decided: false, why };
    let options = EncodeOptions { add_special: true, parse_special: false };
    let mut ids = tokenizer.encode(PROBE, options).unwrap_or_default();
    ids.truncate(PROBE_TOKENS.min(model.config.context_length));
    if ids.len() < PROBE_TOKENS / 2 {
        let why = format!("the probe text has only {} tokens here", ids.len());
        return Ok((Arc::clone(model), undecided(why)));
    }
    let loss = |model: &Arc<Model>| -> Result<f64, LoadError> {
        let options = SessionOptions { context: Some(PROBE_TOKENS), ..SessionOptions::new(kernels, Arc::clone(pool)) };
        let mut session = Session::new(Arc::clone(model), options)?;
        let mut nats = 0.0;
        session.forward(&ids, Want::All, &mut |position, logits| {
            if let Some(&target) = ids.get(position + 1) {
                nats += nll(logits, target as usize);
            }
        })?;
        Ok(nats / (ids.len().max(2) - 1) as f64)
    };
    let noise = (model.config.vocab_size as f64).ln();
    let x86 = loss(model)?;
    if x86 < 0.7 * noise {
        let why = format!("a probe text has {x86:.2} nats a token, noise would have {noise:.2}");
        return Ok((Arc::clone(model), report(I2sLayout::X86, why)));
    }
    let mut tried = format!("{x86:.2} nats a token read as x86");
    let mut best: Option<(f64, I2sLayout, Arc<Model>)> = None;
    for layout in [I2sLayout::Arm, I2sLayout::Rows4] {
        // One that does not fit the shapes, or has codes that are none, is not it.
        let Ok(other) = load(layout) else { continue };
        let nats = loss(&other)?;
        tried += &format!(", {nats:.2} as {}", layout.name());
        if best.as_ref().is_none_or(|(least, ..)| nats < *least) {
            best = Some((nats, layout, other));
        }
    }
    let why = format!("a probe text has {tried}");
    if let Some((nats, layout, other)) = best
        && nats + 1.0 < x86
    {
        return Ok((other, report(layout, why)));
    }
    Ok((Arc::clone(model), undecided(why)))
}
