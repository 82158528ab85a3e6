//! Devices by name: `auto`, `cpu` (the best instruction set here), `cpu-scalar`, `cpu-avx2`, ...; `cuda` (the first card that
//! the kernels are written for), `cuda:1`, ...; `cuda-emu`, the kernels of a card run on the processor, for proofs.
//!
//! [`kernels`] has what computes on a processor; [`open`] has everything. A card has kernels of a processor beside it.

pub mod cuda;

use crate::settings::Settings;
use bitnet_kernels::cuda::device::Device as Accelerator;
use bitnet_kernels::{KernelError, Kernels, Unavailable, best, by_name, kernel_sets};
use std::sync::Arc;

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
#[allow(missing_docs, reason = "the messages say it")]
pub enum DeviceError {
    #[error("unknown device `{name}`; there are auto, cpu, {known}")]
    Unknown { name: String, known: String },
    #[error("device `{name}` is not available: {reason}; `bitnet devices` lists what is")]
    Unavailable { name: String, reason: String },
    #[error("device `{name}` is a card, and this computes on a processor only; take --device cpu")]
    ProcessorOnly { name: String },
}

/// A device that is ready.
#[derive(Clone)]
pub struct Opened {
    /// What computes on the processor: on a card, what the card does not do.
    pub kernels: &'static dyn Kernels,
    /// The card, if that is what the device is.
    pub card: Option<Arc<dyn Accelerator>>,
}

impl Opened {
    /// What computes: the name of the card, or of the kernel set.
    pub fn name(&self) -> &str {
        self.card.as_ref().map_or_else(|| self.kernels.name(), |card| card.name())
    }
}

impl From<&'static dyn Kernels> for Opened {
    fn from(kernels: &'static dyn Kernels) -> Self {
        Self { kernels, card: None }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("kernels", &self.kernels.name()).field("card", &self.card).finish()
    }
}

/// Every device of this build that computes on a processor, and whether it can be used here.
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

/// The kernels of a device that computes on a processor.
///
/// # Errors
/// A name that is unknown or means a card, or an instruction set that this processor lacks.
pub fn kernels(name: &str) -> Result<&'static dyn Kernels, DeviceError> {
    if name == "auto" || name == CPU {
        return Ok(best());
    }
    if is_card(name) {
        return Err(DeviceError::ProcessorOnly { name: name.to_owned() });
    }
    let set = name.strip_prefix("cpu-").ok_or_else(|| unknown(name))?;
    by_name(set).map_err(|error| match error {
        KernelError::Unavailable(Unavailable { reason, .. }) => {
            DeviceError::Unavailable { name: name.to_owned(), reason: reason.to_string() }
        }
        _ => unknown(name),
    })
}

fn is_card(name: &str) -> bool {
    name == cuda::EMULATED || cuda::index(name).is_some()
}

fn unknown(name: &str) -> DeviceError {
    let known = devices().into_iter().map(|d| d.name).chain([format!("{0}, {0}:N", cuda::NAME)]);
    DeviceError::Unknown { name: name.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
}

/// Whether a name means a device of this build, here or on another machine.
///
/// # Errors
/// [`DeviceError::Unknown`].
pub fn check_name(name: &str) -> Result<(), DeviceError> {
    match kernels(name) {
        Err(error @ DeviceError::Unknown { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// Opens a device. `auto` is the processor: [`open_for`] knows a model.
///
/// # Errors
/// A name that is unknown, or a device that cannot be used here, with the reason.
pub fn open(name: &str, settings: &Settings) -> Result<Opened, DeviceError> {
    let card = if name == cuda::EMULATED {
        Some(cuda::emulation())
    } else {
        cuda::index(name).map(|index| cuda::open(index, settings))
    };
    let Some(card) = card else {
        return Ok(Opened { kernels: kernels(name)?, card: None });
    };
    let card = card.map_err(|reason| DeviceError::Unavailable { name: name.to_owned(), reason })?;
    Ok(Opened { kernels: best(), card: Some(card) })
}

/// Opens a device for a model with so many bytes of weights: `auto` takes a card where it [pays](cuda::pays) and can be used,
/// and says nothing where it cannot.
///
/// # Errors
/// As for [`open`].
pub fn open_for(name: &str, weights: u64, settings: &Settings) -> Result<Opened, DeviceError> {
    if name == "auto" && weights >= cuda::WORTH {
        match open(cuda::NAME, settings) {
            Ok(opened) => {
                let free = opened.card.as_ref().map_or(Ok(0), |card| card.free_memory());
                if free.is_ok_and(|free| cuda::pays(weights, free)) {
                    return Ok(opened);
                }
            }
            Err(error) => tracing::debug!(%error, "auto takes no card"),
        }
    }
    open(name, settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_processor_open_without_a_card() {
        for name in ["auto", "cpu", "cpu-scalar"] {
            let opened = open(name, &Settings::default()).unwrap();
            assert!(opened.card.is_none() && opened.kernels.name() == kernels(name).unwrap().name(), "{opened:?}");
        }
        let small = open_for("auto", cuda::WORTH - 1, &Settings::default()).unwrap();
        assert!(small.card.is_none(), "{small:?}");
    }

    #[test]
    fn a_card_is_no_processor_and_a_wrong_name_is_unknown() {
        for name in ["cuda", "cuda:0", "cuda-emu"] {
            let error = kernels(name).err().map(|error| error.to_string()).unwrap();
            assert_eq!(
                error,
                format!("device `{name}` is a card, and this computes on a processor only; take --device cpu")
            );
        }
        for name in ["cuda:", "cuda:x", "cuda:4294967296", "gpu"] {
            let error = open(name, &Settings::default()).unwrap_err();
            assert!(matches!(&error, DeviceError::Unknown { known, .. } if known.contains("cuda, cuda:N")), "{error}");
        }
    }

    #[test]
    fn the_emulation_is_a_device_of_builds_that_have_it() {
        let opened = open("cuda-emu", &Settings::default());
        #[cfg(feature = "cuda-emu")]
        match bitnet_kernels::cuda::emu::available() {
            Ok(()) => assert_eq!(opened.unwrap().card.unwrap().name(), "cuda-emu"),
            // Without a C++ compiler.
            Err(reason) => assert!(opened.unwrap_err().to_string().contains(&reason.to_string())),
        }
        #[cfg(not(feature = "cuda-emu"))]
        {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("not available: this build has no emulation"), "{error}");
        }
    }
}
