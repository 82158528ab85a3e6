//! Devices by name: `auto`, `cpu` (the best instruction set here), `cpu-scalar`, `cpu-avx2`, ... The name `cuda` is known, and
//! its cards are looked for ([`cuda`]), but nothing runs on them yet, so neither `auto` nor [`devices`] has it.

pub mod cuda;

use bitnet_kernels::{KernelError, Kernels, Unavailable, best, by_name, kernel_sets};

/// Names before the instruction set.
const CPU: &str = "cpu";

/// A device that this build knows.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Device {
    /// `cpu-avx2`.
    pub name: String,
    /// What it needs and uses.
    pub description: &'static str,
    /// Why it cannot be used here, if so.
    pub unavailable: Option<String>,
    /// Whether `auto` takes it.
    pub automatic: bool,
}

/// An unknown or unavailable device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error("unknown device `{name}`; there are auto, cpu, {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Known, but not on this machine.
    #[error("device `{name}` is not available: {reason}; `bitnet devices` lists what is")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// A card, on which no model can run yet.
    #[error(
        "device `{name}`: this build cannot run a model on a card yet. Its CUDA kernels compile (`cargo xtask cuda-check`), but what would run them is not written; take --device auto"
    )]
    NoExecutor {
        /// What was asked for.
        name: String,
    },
}

/// Every device of this build that models run on, and whether it can be used here.
#[must_use]
pub fn devices() -> Vec<Device> {
    let automatic = best().name();
    kernel_sets()
        .iter()
        .map(|set| Device {
            name: format!("{CPU}-{}", set.name),
            description: set.isa,
            unavailable: (set.detect)().err().map(|Unavailable { reason, .. }| reason.to_string()),
            automatic: set.name == automatic,
        })
        .collect()
}

/// The kernels of a device.
///
/// # Errors
/// A name that is unknown, or an instruction set that this processor lacks.
pub fn kernels(name: &str) -> Result<&'static dyn Kernels, DeviceError> {
    if name == "auto" || name == CPU {
        return Ok(best());
    }
    let unknown = || DeviceError::Unknown {
        name: name.to_owned(),
        known: devices().into_iter().map(|d| d.name).collect::<Vec<_>>().join(", "),
    };
    if cuda::is_cuda(name) {
        return Err(DeviceError::NoExecutor { name: name.to_owned() });
    }
    let set = name.strip_prefix("cpu-").ok_or_else(unknown)?;
    by_name(set).map_err(|error| match error {
        KernelError::Unavailable(Unavailable { reason, .. }) => {
            DeviceError::Unavailable { name: name.to_owned(), reason: reason.to_string() }
        }
        _ => unknown(),
    })
}
