//! The device `cuda`: which cards there are, and whether kernels could be compiled for them.
//!
//! No model runs on a card yet, so the device is never available and `auto` never takes it. What is here says what a card
//! would meet: its driver, its memory, the compiler of its kernels and where they are kept.

use bitnet_kernels::cuda::architecture::{Architecture, loads};
use bitnet_kernels::cuda::driver::{self, DriverError};
use bitnet_kernels::cuda::nvrtc::{Nvrtc, NvrtcError};
use std::path::{Path, PathBuf};

/// The name, alone or before `:N`.
const NAME: &str = "cuda";

/// The device, in the form of [`super::Device`], and its cards.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cuda {
    /// `cuda`.
    pub name: &'static str,
    /// What it needs.
    pub description: &'static str,
    /// Why no model runs on it.
    pub unavailable: String,
    /// Whether `auto` takes it: no.
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
}

/// Whether a name means a card: `cuda`, `cuda:1`.
#[must_use]
pub fn is_cuda(name: &str) -> bool {
    match name.strip_prefix(NAME) {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    }
}

/// Looks for cards, and for NVRTC (`nvrtc`: where, if not where the system's loader looks) where there are any.
#[must_use]
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
            let cards = cards.into_iter().map(|found| card(found, compiler.as_ref(), cache)).collect();
            ("this build cannot run a model on a card yet".to_owned(), cards)
        }
        Err(error) => (error.to_string(), Vec::new()),
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
        kernels: kernels.unwrap_or_else(|reason| format!("cannot be compiled: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cards() {
        for name in ["cuda", "cuda:0", "cuda:12"] {
            assert!(is_cuda(name), "{name}");
        }
        for name in ["", "cud", "cuda:", "cuda:x", "cuda:-1", "cuda0", "cpu", "cuda-emu"] {
            assert!(!is_cuda(name), "{name}");
        }
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
        let missing = "no NVRTC".to_owned();
        for (card, want) in [
            (of((9, 0), (12, 4), Ok(&compiler)), "speaks CUDA 12.4"),
            (of((7, 5), (13, 0), Ok(&compiler)), "compute capability 7.5"),
            (of((9, 0), (13, 0), Err(&missing)), "no NVRTC"),
        ] {
            assert!(
                card.kernels.starts_with("cannot be compiled: ") && card.kernels.contains(want),
                "{}",
                card.kernels
            );
        }
    }

    #[test]
    fn nvrtc_is_not_looked_for_without_a_card() {
        let none = Err(DriverError::NoCard { driver: (13, 0) });
        let found = cuda(none, || Err(NvrtcError::NoLibrary { tried: "it was looked for".to_owned() }), None);
        assert!(found.cards.is_empty() && found.unavailable.contains("finds no card"), "{}", found.unavailable);
    }
}
