//! How activations are rounded before they meet ternary weights: as the model was trained, whatever format its weights have.
//!
//! BitNet models are trained with int8 activations, one scale a token (arXiv:2402.17764). Models that are ternary in their weights
//! only (TriLM, Bonsai, BitCPM) were trained with floats: one scale a token would cost them accuracy, so theirs are rounded in blocks
//! of 32. Other formats do not round, or in blocks of 32, as their definition says.

use super::ModelError;
use super::keys::Keys;
use bitnet_kernels::ActKind;
use bitnet_kernels::quant::Storage;

/// The metadata key by which a file says it: `int8-token`, `int8-block32` or `float`. Our converter writes it where nothing else tells.
pub const ACTIVATIONS_KEY: &str = "bitnet.activations";

/// A rounding, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rounding {
    /// What ternary matrices are multiplied with.
    pub act: ActKind,
    /// Why.
    pub why: String,
}

/// The names of [`ACTIVATIONS_KEY`].
const NAMES: [(&str, ActKind); 3] =
    [("int8-token", ActKind::I8), ("int8-block32", ActKind::Q8), ("float", ActKind::F32)];

/// Whether only engines of BitNet models write a format: I2_S, TL1 and TL2 (bitnet.cpp), IQ1_BN and IQ2_BN (ik_llama.cpp).
fn is_bitnets(format: Storage) -> bool {
    matches!(format, Storage::Tiled(_)) || [36, 134, 135].contains(&format.ggml_type())
}

impl Rounding {
    /// The key's value.
    pub fn name(&self) -> &'static str {
        Self::name_of(self.act)
    }

    /// The key's value for a rounding.
    pub(crate) fn name_of(act: ActKind) -> &'static str {
        NAMES.iter().find(|(_, other)| *other == act).map_or("", |(name, _)| name)
    }

    /// The rounding of a model: the file's own word, else that of the family, else what its formats tell.
    ///
    /// # Errors
    /// A value of the key that is none.
    pub(super) fn decide(
        keys: Keys<'_>,
        trained: Option<ActKind>,
        mut formats: impl Iterator<Item = Storage>,
    ) -> Result<Self, ModelError> {
        if let Some(value) = keys.metadata().str(ACTIVATIONS_KEY)? {
            let known = NAMES.iter().find(|(name, _)| *name == value);
            let &(_, act) = known.ok_or_else(|| ModelError::Activations {
                value: value.to_owned(),
                known: NAMES.map(|(name, _)| name).join(", "),
            })?;
            return Ok(Self { act, why: format!("`{ACTIVATIONS_KEY}` says so") });
        }
        if let Some(act) = trained {
            return Ok(Self { act, why: format!("models of architecture {} are trained so", keys.architecture()) });
        }
        Ok(match formats.find(|format| is_bitnets(*format)) {
            Some(format) => {
                Self { act: ActKind::I8, why: format!("{} is a format for models that were trained so", format.name()) }
            }
            None => Self {
                act: ActKind::Q8,
                why: format!(
                    "nothing says that architecture {} was trained with int8 activations",
                    keys.architecture()
                ),
            },
        })
    }
}
