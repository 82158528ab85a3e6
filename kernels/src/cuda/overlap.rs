//! Launches that overlap: a kernel that begins while the one before it in the stream ends.
//!
//! A decoded token is a graph of many small launches, and between two of them a card stands still: the last blocks end, what they
//! wrote is made visible, the next launch is sent out, its first loads are on their way. From compute capability 9.0 on a launch
//! may ask for the end of that (programmatic dependent launch): it begins once every block of the one before has called
//! `let_next_begin` (or is over), and `wait_for_earlier` in it returns when the one before is over and its writes are
//! visible. In graphs that are recorded from a stream it works from CUDA 12.3 on. (PTX ISA, `griddepcontrol`; CUDA C++
//! programming guide, "Programmatic Dependent Launch and Synchronization"; `CUlaunchAttributeID`.)
//!
//! # The rule
//! An entry that is listed here keeps it, and only such an entry is launched so:
//! * every thread waits, whatever else it does, before it reads what any kernel writes, and before it writes anything but shared
//!   memory;
//! * before that it reads only what [`early`] names: what the host wrote, or a kernel that somebody waited for since, and that
//!   stays as it is.
//!
//! # Why it is right
//! A launch waits only for the one before it. By the rule that one cannot be over before it has waited itself; so when it is
//! over, all before it are over, and what they wrote is visible. That holds for whatever comes next, also for copies, events,
//! and launches of entries that are not listed: these begin when what is before them is over, and so end a chain. No block
//! waits for one that has not begun: all of a launch's blocks have begun when the next launch's first does.
//!
//! What holds it: the emulation (`cuda-emu`) refuses a thread that ends without having waited, a block that never lets the next
//! launch begin, and every touch of other memory before the wait; `Emulation`, as a device, refuses memory at an early place
//! that a kernel got at another since somebody last waited for the device. What ran beyond that: a library that plays the
//! driver. What did not: a card, so that it is quicker is not shown.

use super::architecture::Architecture;

/// Entries that keep the rule, and which of their arguments (from 0 on) they may read before they wait.
const LISTED: &[(&str, &[usize])] = &[
    ("bn_embed_f16", &[0]),
    ("bn_add", &[]),
    ("bn_gate", &[]),
    ("bn_norm_quant", &[3]),
    ("bn_gemv_store", &[1, 5, 9, 13]),
    ("bn_gemv_add", &[1, 5]),
    ("bn_gemv_gate", &[1, 6, 8]),
    ("bn_gemv_rope", &[1, 5, 7, 9, 12, 13]),
    ("bn_gemm_i2s", &[0]),
    ("bn_rope_append", &[4, 5]),
    ("bn_attention_scores_4", &[]),
    ("bn_attention_values_4", &[]),
    ("bn_attention_scores_16", &[]),
    ("bn_attention_values_16", &[]),
    ("bn_head_f16", &[0]),
    ("bn_argmax", &[]),
    ("bn_next", &[]),
    ("bn_screen_token", &[5]),
    ("bn_screen_1", &[0, 1]),
    ("bn_screen_4", &[0, 1]),
    ("bn_rescore", &[0]),
    ("bn_rank", &[]),
    ("bn_pick", &[]),
];

/// The arguments that an entry may read before it waits; `None` if it does not keep the rule.
pub fn early(entry: &str) -> Option<&'static [usize]> {
    LISTED.iter().find(|(name, _)| *name == entry).map(|(_, early)| *early)
}

/// Whether launches of an entry may overlap with the one before.
pub fn overlaps(entry: &str) -> bool {
    early(entry).is_some()
}

/// Whether code for an architecture can begin early and wait.
pub fn compiled(architecture: Architecture) -> bool {
    architecture.major >= 9
}

/// Whether a card does it: the architecture that its kernels are compiled for, and the CUDA version that its driver speaks.
pub fn possible(architecture: Architecture, driver: (u32, u32)) -> bool {
    compiled(architecture) && driver >= (12, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::sources;

    /// That they keep the rule, the emulation sees.
    #[test]
    fn what_is_listed_is_an_entry() {
        for (i, (entry, _)) in LISTED.iter().enumerate() {
            assert!(sources().iter().any(|source| source.entries.contains(entry)), "there is no {entry}");
            assert!(LISTED[..i].iter().all(|(other, _)| other != entry), "{entry} is there twice");
        }
        assert!(!overlaps("bn_screen_build") && !overlaps("bn_tokens_split") && overlaps("bn_gemv_store"));
    }

    #[test]
    fn old_cards_and_old_drivers_do_not() {
        for (name, driver, want) in [
            ("sm_90a", (12, 3), true),
            ("sm_100", (13, 0), true),
            ("sm_89", (13, 0), false),
            ("sm_90", (12, 2), false),
            ("sm_80", (12, 2), false),
        ] {
            assert_eq!(possible(name.parse().unwrap(), driver), want, "{name}, {driver:?}");
        }
    }
}
