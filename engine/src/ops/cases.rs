//! Examples by which kernel sets are compared: every [`Unit`](super::Unit) says its own, the check `ops` of the matrix and
//! [`self_check`](crate::inference::self_check) run all of them.

use super::UNITS;
use crate::random::SplitMix64;
use bitnet_kernels::{Kernels, by_name};

/// A kernel whose bits differ from the scalar oracle's.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "kernel set `{set}` breaks the numerics contract in {operation}: element {index} is {found:e}, the scalar oracle \
     says {expected:e}; run with --device cpu-scalar and report this processor"
)]
pub struct BrokenContract {
    /// The kernel set.
    pub set: String,
    /// The operation.
    pub operation: String,
    /// First element that differs.
    pub index: usize,
    /// The kernel's value.
    pub found: f32,
    /// The oracle's value.
    pub expected: f32,
}

/// An example: what it computes with a kernel set.
pub(super) type Run<'r> = &'r dyn Fn(&dyn Kernels) -> Vec<f32>;
/// Compares the results of an example, which it names.
pub(super) type Compare<'a> = &'a mut dyn FnMut(&str, Run<'_>) -> Result<(), BrokenContract>;

/// What the examples of an operation are given: values, and somebody who compares results.
pub struct Cases<'a> {
    thorough: bool,
    noise: SplitMix64,
    compare: Compare<'a>,
    first: Option<BrokenContract>,
}

impl Cases<'_> {
    /// All of `thorough`, or the last of it where the check must be quick.
    pub fn some<'t, T>(&self, thorough: &'t [T]) -> &'t [T] {
        let from = if self.thorough { 0 } else { thorough.len().saturating_sub(1) };
        &thorough[from..]
    }

    /// `n` values in `-size..size`, in steps that f32 holds exactly before they are multiplied with `size`.
    pub fn values(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| self.noise.next() * size).collect()
    }

    /// Compares what `run` computes; after the first difference nothing more is run.
    pub fn compare(&mut self, what: &str, run: impl Fn(&dyn Kernels) -> Vec<f32>) {
        if self.first.is_none() {
            self.first = (self.compare)(what, &run).err();
        }
    }

    /// [`Cases::compare`] of what `run` makes of `values`.
    pub fn change(&mut self, what: &str, values: &[f32], run: impl Fn(&dyn Kernels, &mut [f32])) {
        self.compare(what, |kernels| {
            let mut out = values.to_vec();
            run(kernels, &mut out);
            out
        });
    }
}

/// Runs every operation on `kernels` and on the scalar oracle and compares the results, bit for bit; returns how many values were
/// compared. `thorough` takes all examples instead of one of a kind.
///
/// # Errors
/// The first difference.
pub fn compare(kernels: &dyn Kernels, thorough: bool, seed: u64) -> Result<usize, BrokenContract> {
    let oracle = by_name("scalar").expect("the scalar set is always there");
    let mut compared = 0;
    for unit in UNITS {
        let mut same = |what: &str, run: Run<'_>| {
            let (found, expected) = (run(kernels), run(oracle));
            compared += expected.len();
            match (0..expected.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
                None => Ok(()),
                Some(index) => Err(BrokenContract {
                    set: kernels.name().to_owned(),
                    operation: if what.is_empty() { unit.name.to_owned() } else { format!("{} {what}", unit.name) },
                    index,
                    found: found[index],
                    expected: expected[index],
                }),
            }
        };
        let mut cases = Cases { thorough, noise: SplitMix64(seed), compare: &mut same, first: None };
        (unit.cases)(&mut cases);
        if let Some(broken) = cases.first {
            return Err(broken);
        }
    }
    Ok(compared)
}

/// Gives the examples of an operation to `compare`.
#[cfg(test)]
pub(super) fn show(unit: &super::Unit, thorough: bool, compare: Compare<'_>) {
    let mut cases = Cases { thorough, noise: SplitMix64(1), compare, first: None };
    (unit.cases)(&mut cases);
}

/// Around vector lengths, and longer than any.
pub(super) const LENGTHS: [usize; 10] = [1, 7, 8, 63, 64, 65, 127, 200, 1000, 512];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_equals_itself_in_every_unit() {
        let quick = compare(by_name("scalar").unwrap(), false, 1).unwrap();
        let thorough = compare(by_name("scalar").unwrap(), true, 1).unwrap();
        assert!(0 < quick && quick < thorough, "{quick} {thorough}");
    }

    #[test]
    fn names_are_not_given_twice() {
        let mut names: Vec<_> = UNITS.iter().map(|unit| unit.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), UNITS.len());
    }
}
