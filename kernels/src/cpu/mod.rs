//! Kernel sets for CPUs: [`scalar`], the oracle, and one module per instruction set.
//!
//! What a set must do is the trait [`crate::Kernels`]; how sets are listed and chosen is [`crate::dispatch`]. `stored`,
//! `ternary` and `blocks` are what the vector sets share: where a format has its numbers, codes and scales. `strips` is how
//! wide ones multiply several tokens.

#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod blocks;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub mod neon;
pub mod peak;
pub mod scalar;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod stored;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod strips;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod ternary;

use std::ops::Range;

use crate::{Activations, Format, Matrix, OutView};

/// The naive product of every format, without the matrix's factor: the oracle, and what a set does that has nothing better.
fn naive(w: &Matrix<'_>, x: &Activations, rows: Range<usize>, y: &mut OutView<'_>) {
    for row in rows {
        let decoded = w.decode(row);
        for token in 0..x.n_tokens() {
            y.set(token, row, decoded.dot(x, token));
        }
    }
}

/// The entry of a set's table of formats for a matrix: the kernels there are those for the format's own kind of activations.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
fn own<T: Copy>(table: &[(&Format, T)], w: &Matrix<'_>) -> Option<T> {
    let found = table.iter().find(|(format, _)| std::ptr::eq(*format, w.format));
    found.filter(|_| w.act == w.format.act).map(|(_, kernel)| *kernel)
}
