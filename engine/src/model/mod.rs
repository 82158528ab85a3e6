//! Model families: from a GGUF to a plan and its weights.
//!
//! A new family is one file that describes its decoder and one line in [`FAMILIES`]. Everything is validated here,
//! before the first multiplication: keys, shapes, sizes to the byte, codes, scales, norm weights.

mod bitnet;
mod builder;
mod config;
mod error;
mod gemma3;
mod gpt2;
mod hot;
mod keys;
mod llama;
mod maple;
mod minicpm;
mod qwen2;
mod qwen3;
mod rope;
mod rounding;
mod weights;
mod window;

pub use builder::Builder;
use builder::Parts;
pub use config::Config;
pub use error::ModelError;
pub(crate) use hot::SCREENED;
pub use hot::{Copied, HugePages};
pub use keys::Keys;
pub use rounding::{ACTIVATIONS_KEY, Rounding};
pub(crate) use weights::{TILES_KEY, scale_name};
pub use weights::{TensorSource, Weights};

use crate::gguf::GgufFile;
use crate::ops::{Linear, Op, RopeSpec, Shapes, Slot, Step, Widths};
use bitnet_kernels::quant::I2sLayout;
use bitnet_kernels::screen::Screen;
use bitnet_kernels::{ActKind, Pool};
use std::sync::OnceLock;

/// Every family, one line each.
pub static FAMILIES: &[&Family] = &[
    &bitnet::B158,
    &bitnet::BITNET,
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &minicpm::MINICPM,
    &gemma3::GEMMA3,
    &maple::MAPLE,
    &gpt2::GPT2,
];

/// What a family says of itself.
#[derive(Debug)]
pub struct Family {
    /// Name in messages and reports.
    pub name: &'static str,
    /// Values of `general.architecture` that belong to it.
    pub architectures: &'static [&'static str],
    /// How activations were rounded in training, if all its models were trained so: see [`Rounding`].
    pub trained: Option<ActKind>,
    /// Emits the plan of a file.
    pub plan: fn(&mut Builder<'_, '_>) -> Result<(), ModelError>,
}

/// A model that is ready to run: hyper-parameters, plan, weights.
#[derive(Debug)]
pub struct Model {
    /// Hyper-parameters.
    pub config: Config,
    /// The family.
    pub family: &'static Family,
    /// What to compute, in order. The last step is the output matrix.
    pub plan: Vec<Step>,
    /// How wide the plan's slots become.
    pub widths: Widths,
    /// The rotations that the plan names.
    pub ropes: Vec<RopeSpec>,
    /// Positions that the model has embeddings for, if it has any.
    pub positions: Option<usize>,
    /// How activations are rounded for ternary matrices.
    pub rounding: Rounding,
    /// With what.
    pub weights: Weights,
    /// How I2_S tensors were read.
    pub i2s_layout: I2sLayout,
    /// The int8 copy of the output matrix, once a session made it.
    pub(crate) screen: OnceLock<Option<Screen>>,
    /// Whether that copy asks for huge pages, and whether a session may copy the layers.
    pub(crate) huge_pages: HugePages,
}

impl Model {
    /// Builds the plan of a file and validates every tensor. `layout` says how I2_S tensors are laid out, which the
    /// format does not record; `pool` shares the work of validation.
    ///
    /// # Errors
    /// What is wrong, in which key or tensor.
    pub fn load(file: &GgufFile, layout: I2sLayout, pool: &Pool) -> Result<Self, ModelError> {
        let model = Self::open(file, layout)?;
        model.weights.validate(pool).map_err(|e| e.in_part(file))?;
        Ok(model)
    }

    /// [`Model::load`] without reading the tensors' bytes (but those of TL1 and TL2): for `inspect`.
    ///
    /// # Errors
    /// As [`Model::load`], but for damage inside of tensors.
    pub fn open(file: &GgufFile, layout: I2sLayout) -> Result<Self, ModelError> {
        let family = family_of(file)?;
        let keys = Keys::of(file.metadata())?;
        let mut config = Config::read(keys)?;
        config.vocab_size = vocab_size(file, &config)?;
        let mut source = TensorSource::new(file, keys, &config, layout);
        let mut builder = Builder::new(&mut source);
        (family.plan)(&mut builder).map_err(|e| e.in_part(file))?;
        let Parts { plan, ropes, positions } = builder.parts;
        let (weights, rounding) = source.finish(family.trained).map_err(|e| e.in_part(file))?;
        let widths = Shapes::check(&plan, &weights)?;
        Ok(Self {
            config,
            family,
            plan,
            widths,
            ropes,
            positions,
            rounding,
            weights,
            i2s_layout: layout,
            screen: OnceLock::new(),
            huge_pages: HugePages::default(),
        })
    }

    /// The output matrix.
    pub fn output(&self) -> Option<&Linear> {
        match self.plan.last() {
            Some(Step { op: Op::Linear(linear @ Linear { dst: Slot::Logits, .. }), .. }) => Some(linear),
            _ => None,
        }
    }

    /// Steps before the output matrix.
    pub fn body(&self) -> usize {
        self.plan.len() - usize::from(self.output().is_some())
    }

    /// Whether any tensor is stored as I2_S, whose layout the file does not say.
    pub fn has_i2s(&self) -> bool {
        self.weights.storages().any(|(_, s)| s.ggml_type() == bitnet_kernels::quant::i2_s::FORMAT.ggml_type)
    }
}

/// The family of a file's architecture.
///
/// # Errors
/// The key is absent or names an architecture that no family knows.
pub fn family_of(file: &GgufFile) -> Result<&'static Family, ModelError> {
    let architecture = file
        .metadata()
        .str("general.architecture")?
        .ok_or_else(|| ModelError::MissingKey { key: "general.architecture".into() })?;
    FAMILIES.iter().copied().find(|f| f.architectures.contains(&architecture)).ok_or_else(|| {
        ModelError::UnknownArchitecture {
            architecture: architecture.to_owned(),
            known: FAMILIES.iter().flat_map(|f| f.architectures).copied().collect::<Vec<_>>().join(", "),
        }
    })
}

/// Rows of the embedding; the metadata may leave the number out, but must not contradict it.
fn vocab_size(file: &GgufFile, config: &Config) -> Result<usize, ModelError> {
    let name = "token_embd.weight";
    let view = file.tensor(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() })?;
    let rows = view.info.dims.get(1).copied().unwrap_or(1);
    if config.vocab_size != 0 && config.vocab_size as u64 != rows {
        return Err(ModelError::Mismatch {
            what: format!(
                "the metadata names a vocabulary of {} tokens, the embedding `{name}` has {rows} rows",
                config.vocab_size
            ),
        });
    }
    usize::try_from(rows)
        .ok()
        .filter(|&rows| rows <= 1 << 24)
        .ok_or_else(|| ModelError::Mismatch { what: format!("an embedding of {rows} rows") })
}
