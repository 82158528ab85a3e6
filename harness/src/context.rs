//! What the checks of a run share.

use crate::axes::Cell;
use crate::env::Env;
use crate::failure::Failure;
use crate::golden::Golden;
use crate::paths::Paths;
use bitnet_golden::matrix::{Matrix, Model};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a check is given besides its cell.
#[derive(Debug, Clone)]
pub struct Context {
    /// The declaration, for models and their sources.
    pub matrix: Arc<Matrix>,
    pub paths: Paths,
    pub golden: Golden,
}

impl Context {
    pub fn new(matrix: Matrix, paths: Paths, env: &Env) -> Self {
        Self { golden: Golden::new(paths.snapshots(), env), matrix: Arc::new(matrix), paths }
    }

    /// The declaration of the cell's model.
    ///
    /// # Errors
    /// If the cell names a model that is not declared, which a listed cell never does.
    pub fn model(&self, cell: &Cell) -> Result<&Model, Failure> {
        self.matrix
            .model(&cell.model)
            .ok_or_else(|| Failure::new(format_args!("the model `{}` is not declared", cell.model)))
    }

    /// Whether the check of a cell is also declared for its model and quant on another device.
    pub fn is_declared(&self, cell: &Cell, device: &str) -> bool {
        let check = self.matrix.checks.iter().find(|check| check.name == cell.check);
        check.is_some_and(|check| check.cells.iter().any(|r| r.names(&cell.model, &cell.quant, device)))
    }

    /// The seed for everything random in the cell: the same on every device, backend and host.
    pub fn seed(&self, cell: &Cell) -> u64 {
        seed(cell)
    }

    /// Compares a text with the golden snapshot of the cell. `part` names one of several snapshots of a
    /// cell and may be empty. Trailing white space of the whole text does not count.
    ///
    /// # Errors
    /// If the snapshot is missing or differs: the message has the difference and how to bless.
    pub fn assert_golden(&self, cell: &Cell, part: &str, actual: &str) -> Result<(), Failure> {
        Ok(self.golden.assert(cell, part, actual)?)
    }

    /// The same for anything that serialises, as pretty JSON.
    ///
    /// # Errors
    /// As [`Context::assert_golden`], and if the value cannot be written as JSON.
    pub fn assert_golden_json(&self, cell: &Cell, part: &str, actual: &impl Serialize) -> Result<(), Failure> {
        self.assert_golden(cell, part, &serde_json::to_string_pretty(actual)?)
    }
}

/// First eight bytes of SHA-256 of the golden key, little endian.
pub fn seed(cell: &Cell) -> u64 {
    let digest = Sha256::digest(cell.golden_key().as_bytes());
    digest.iter().take(8).rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> Cell {
        name.parse().expect("cell")
    }

    #[test]
    fn the_seed_leaves_out_device_and_backend() {
        let seed_of = |name| seed(&cell(name));
        assert_eq!(seed_of("m::q::d1::b1::c"), seed_of("m::q::d2::b2::c"));
        assert_ne!(seed_of("m::q::d1::b1::c"), seed_of("m::q2::d1::b1::c"));
    }
}
