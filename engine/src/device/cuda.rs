//! The device `cuda`: which cards there are, whether kernels can be compiled for them, and opening one.
//!
//! What a card would meet is said before it is opened: its driver, its memory, the compiler of its kernels and where they
//! are kept.

use crate::settings::{Settings, cuda_cache_from_env};
use bitnet_kernels::cuda::architecture::{Architecture, loads};
use bitnet_kernels::cuda::cache::Cache;
use bitnet_kernels::cuda::card::{self, Setup};
use bitnet_kernels::cuda::device::Device;
use bitnet_kernels::cuda::driver::{self, DriverError};
use bitnet_kernels::cuda::nvrtc::{Nvrtc, NvrtcError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name, alone or before `:N`.
pub const NAME: &str = "cuda";
/// The kernels of a card, run on the processor (cargo feature `cuda-emu`).
pub const EMULATED: &str = "cuda-emu";

/// Bytes of weights from which on `auto` looks for a card.
///
/// Opening a card takes some tenths of a second (context, kernels, upload), in which a processor that reads 10 to 20 GB/s
/// has done a dozen tokens of a model of this size: short answers are over by then. From there on the card's memory is
/// ten times as fast or more. An estimate from those rates: no card has been measured.
pub const WORTH: u64 = 256 << 20;

/// Whether a card with so many free bytes wins for a model with so many bytes of weights: they are at least [`WORTH`], and fit
/// with a quarter more for the cache of keys and values and for what is between.
pub fn pays(weights: u64, free: u64) -> bool {
    weights >= WORTH && weights.saturating_add(weights / 4) <= free
}

/// The device, in the form of [`super::Device`], and its cards.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cuda {
    /// `cuda`.
    pub name: &'static str,
    /// What it needs.
    pub description: &'static str,
    /// Why no model runs on it, if none does.
    pub unavailable: Option<String>,
    /// Whether `auto` takes it whatever the model: no, see [`pays`].
    pub automatic: bool,
    /// The cards that the driver shows.
    pub cards: Vec<Card>,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Card {
    /// `cuda:0`.
    pub name: String,
    /// As its maker names it.
    pub model: String,
    /// `9.0`.
    pub compute: String,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes that nobody has taken.
    pub memory_free: Option<u64>,
    /// Why the free memory is not known, if it is not.
    pub memory_unknown: Option<String>,
    /// Bytes of the second cache.
    pub l2: u64,
    /// The CUDA version that the driver speaks.
    pub driver: String,
    /// What its kernels are compiled by and for and where they are kept, or why they cannot be compiled.
    pub kernels: String,
    /// Whether they can be compiled.
    pub usable: bool,
}

/// The card that a name means: `Some(None)` is the first (`cuda`), `Some(Some(1))` a certain one (`cuda:1`).
pub fn index(name: &str) -> Option<Option<u32>> {
    match name.strip_prefix(NAME)? {
        "" => Some(None),
        rest => {
            let digits = rest.strip_prefix(':').filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok().map(Some)
        }
    }
}

/// Opens a card with its kernels, or says why not.
pub(super) fn open(index: Option<u32>, settings: &Settings) -> Result<Arc<dyn Device>, String> {
    let cache = cuda_cache_from_env(settings).map(Cache::new);
    let overlap = settings.cuda_overlap.unwrap_or(true);
    let setup = Setup { nvrtc: settings.nvrtc.as_deref(), cache: cache.as_ref(), overlap };
    let card = card::Card::open(index, setup).map_err(|error| error.to_string())?;
    for note in card.notes() {
        tracing::warn!("compiled CUDA kernels: {note}");
    }
    Ok(Arc::new(card))
}

/// A card that is emulated, or why there is none.
pub(super) fn emulation() -> Result<Arc<dyn Device>, String> {
    #[cfg(feature = "cuda-emu")]
    {
        let card = bitnet_kernels::cuda::emu::Emulation::new().map_err(|error| error.to_string())?;
        Ok(Arc::new(card))
    }
    #[cfg(not(feature = "cuda-emu"))]
    Err("this build has no emulation; build with `--features cuda-emu` (it needs a C++ compiler)".to_owned())
}

/// Whether the device [`NAME`] or [`EMULATED`] can be used here, without opening it.
///
/// # Errors
/// Why it cannot, and what fixes it.
pub fn available(name: &str, settings: &Settings) -> Result<(), (String, &'static str)> {
    if name == EMULATED {
        return emulation().map(drop).map_err(|reason| (reason, "apt-get install g++, then build again"));
    }
    let cache = cuda_cache_from_env(settings);
    match look(settings.nvrtc.as_deref(), cache).unavailable {
        None => Ok(()),
        Some(reason) => Err((reason, "run where `bitnet devices` shows a card with kernels")),
    }
}

/// Looks for cards, and for NVRTC (`nvrtc`: where, if not where the system's loader looks) where there are any.
pub fn look(nvrtc: Option<&Path>, cache: Option<PathBuf>) -> Cuda {
    cuda(driver::cards(), || Nvrtc::load(nvrtc), cache.as_deref())
}

fn cuda(
    cards: Result<Vec<driver::Card>, DriverError>,
    nvrtc: impl FnOnce() -> Result<Nvrtc, NvrtcError>,
    cache: Option<&Path>,
) -> Cuda {
    let (unavailable, cards) = match cards {
        Ok(cards) => {
            let nvrtc = nvrtc();
            let compiler = nvrtc.as_ref().map(Compiler::from).map_err(ToString::to_string);
            let cards: Vec<Card> = cards.into_iter().map(|found| card(found, compiler.as_ref(), cache)).collect();
            let unusable = !cards.iter().any(|card| card.usable);
            (unusable.then(|| "the kernels of no card can be compiled; why is said with each".to_owned()), cards)
        }
        Err(error) => (Some(error.to_string()), Vec::new()),
    };
    let description = "NVIDIA cards of compute capability 8.0 or higher, with a driver for CUDA 12.0 or newer";
    Cuda { name: NAME, description, unavailable, automatic: false, cards }
}

/// What matters of NVRTC here.
struct Compiler {
    version: (u32, u32),
    offers: Vec<u32>,
    place: String,
}

impl From<&Nvrtc> for Compiler {
    fn from(nvrtc: &Nvrtc) -> Self {
        let (offers, place) = (nvrtc.architectures().to_vec(), nvrtc.place().to_owned());
        Self { version: nvrtc.version(), offers, place }
    }
}

fn card(found: driver::Card, compiler: Result<&Compiler, &String>, cache: Option<&Path>) -> Card {
    let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let kernels = compiler.map_err(Clone::clone).and_then(|compiler| {
        loads(found.driver, compiler.version)
            .and_then(|()| Architecture::for_card(found.compute, &compiler.offers))
            .map(|architecture| {
                let kept = cache.map_or_else(|| "not kept".to_owned(), |at| format!("kept in {}", at.display()));
                format!("{architecture}, by NVRTC {} ({}), {kept}", dotted(compiler.version), compiler.place)
            })
            .map_err(|error| error.to_string())
    });
    let (memory_free, memory_unknown) = match found.memory_free {
        Ok(free) => (Some(free), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Card {
        name: format!("{NAME}:{}", found.index),
        model: found.name,
        compute: dotted(found.compute),
        multiprocessors: found.multiprocessors,
        memory_total: found.memory_total,
        memory_free,
        memory_unknown,
        l2: found.l2,
        driver: dotted(found.driver),
        usable: kernels.is_ok(),
        kernels: kernels.unwrap_or_else(|reason| format!("cannot be compiled: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cards() {
        for (name, want) in [("cuda", None), ("cuda:0", Some(0)), ("cuda:12", Some(12))] {
            assert_eq!(index(name), Some(want), "{name}");
        }
        for name in ["", "cud", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:4294967296", "cuda0", "cpu", EMULATED] {
            assert_eq!(index(name), None, "{name}");
        }
    }

    #[test]
    fn a_card_pays_for_large_models_that_fit() {
        let (two_b, free) = (1_200_000_000, 79 << 30);
        assert!(pays(two_b, free) && pays(WORTH, WORTH * 2));
        assert!(!pays(WORTH - 1, free) && !pays(two_b, two_b) && !pays(u64::MAX, u64::MAX - 1));
    }

    #[test]
    fn a_card_says_what_its_kernels_would_meet() {
        let of = |compute, driver, compiler: Result<&Compiler, &String>| {
            let found = driver::Card {
                index: 1,
                name: "a card".to_owned(),
                compute,
                memory_total: 80 << 30,
                memory_free: Ok(79 << 30),
                l2: 50 << 20,
                multiprocessors: 132,
                driver,
            };
            card(found, compiler, Some(Path::new("/c")))
        };
        let compiler = Compiler { version: (13, 5), offers: vec![80, 90, 100], place: "libnvrtc.so.13".to_owned() };
        let good = of((9, 0), (13, 0), Ok(&compiler));
        assert_eq!(good.kernels, "sm_90a, by NVRTC 13.5 (libnvrtc.so.13), kept in /c");
        assert_eq!((good.name.as_str(), good.compute.as_str(), good.driver.as_str()), ("cuda:1", "9.0", "13.0"));
        assert!(good.usable);
        let missing = "no NVRTC".to_owned();
        for (card, want) in [
            (of((9, 0), (12, 4), Ok(&compiler)), "speaks CUDA 12.4"),
            (of((7, 5), (13, 0), Ok(&compiler)), "compute capability 7.5"),
            (of((9, 0), (13, 0), Err(&missing)), "no NVRTC"),
        ] {
            let said = card.kernels.starts_with("cannot be compiled: ") && card.kernels.contains(want);
            assert!(said && !card.usable, "{}", card.kernels);
        }
    }

    #[test]
    fn nvrtc_is_not_looked_for_without_a_card() {
        let none = Err(DriverError::NoCard { driver: (13, 0) });
        let found = cuda(none, || Err(NvrtcError::NoLibrary { tried: "it was looked for".to_owned() }), None);
        let reason = found.unavailable.unwrap_or_default();
        assert!(found.cards.is_empty() && reason.contains("finds no card"), "{reason}");
    }
}
