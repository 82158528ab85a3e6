//! The axes of the matrix as data, and the cells that they make.
//!
//! A cell is `model::quant::device::backend::check`. The name is the nextest name, the record's key and
//! the bench's id, so it never holds a status and never depends on the host: which cells exist follows
//! from `golden/matrix.toml` alone.

use std::fmt;
use std::str::FromStr;

use bitnet_golden::matrix::Matrix;

/// One axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    Model,
    /// The weight format.
    Quant,
    /// What computes.
    Device,
    /// What it is checked against.
    Backend,
    /// What is checked.
    Check,
}

impl Axis {
    /// All axes in the order of a cell's name.
    pub const ALL: [Axis; 5] = [Axis::Model, Axis::Quant, Axis::Device, Axis::Backend, Axis::Check];

    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    pub fn flag(self) -> &'static str {
        self.names()[1]
    }

    pub fn env(self) -> &'static str {
        self.names()[2]
    }

    fn names(self) -> [&'static str; 3] {
        match self {
            Axis::Model => ["model", "--model", "MATRIX_MODEL"],
            Axis::Quant => ["quant", "--quant", "MATRIX_QUANT"],
            Axis::Device => ["device", "--device", "MATRIX_DEVICE"],
            Axis::Backend => ["backend", "--backend", "MATRIX_BACKEND"],
            Axis::Check => ["check", "--check", "MATRIX_CHECK"],
        }
    }
}

/// One cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    pub model: String,
    pub quant: String,
    pub device: String,
    pub backend: String,
    pub check: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cell name; it has the form model::quant::device::backend::check")]
pub struct CellNameError(pub String);

impl Cell {
    /// The value on one axis.
    pub fn get(&self, axis: Axis) -> &str {
        match axis {
            Axis::Model => &self.model,
            Axis::Quant => &self.quant,
            Axis::Device => &self.device,
            Axis::Backend => &self.backend,
            Axis::Check => &self.check,
        }
    }

    /// All five values in the order of the name.
    pub fn parts(&self) -> [&str; 5] {
        Axis::ALL.map(|axis| self.get(axis))
    }

    /// What the golden truth is keyed by: device and backend are left out, since all of them must meet
    /// one truth.
    pub fn golden_key(&self) -> String {
        format!("{}::{}::{}", self.model, self.quant, self.check)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("::"))
    }
}

impl FromStr for Cell {
    type Err = CellNameError;

    fn from_str(text: &str) -> Result<Self, CellNameError> {
        let parts: Vec<&str> = text.split("::").collect();
        match parts.as_slice() {
            [model, quant, device, backend, check] if parts.iter().all(|p| valid_name(p)) => Ok(Cell {
                model: (*model).to_owned(),
                quant: (*quant).to_owned(),
                device: (*device).to_owned(),
                backend: (*backend).to_owned(),
                check: (*check).to_owned(),
            }),
            _ => Err(CellNameError(text.to_owned())),
        }
    }
}

/// Whether a text can be an axis value: it becomes part of test names, file names and shell commands on
/// every platform, and `__` separates the parts in file names.
pub fn valid_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(ok)
        && !name.contains("__")
        && !name.ends_with('_')
}

/// The valid values of each axis, in the order of `matrix.toml`.
#[derive(Debug, Clone)]
pub struct Axes {
    values: [Vec<String>; 5],
}

impl Axes {
    /// Reads them off the declaration; quants are the union over the models.
    pub fn of(matrix: &Matrix) -> Self {
        let mut quants: Vec<String> = Vec::new();
        for quant in matrix.models.iter().flat_map(|model| &model.quants) {
            if !quants.contains(quant) {
                quants.push(quant.clone());
            }
        }
        let values = [
            matrix.models.iter().map(|m| m.name.clone()).collect(),
            quants,
            matrix.devices.iter().map(|d| d.name.clone()).collect(),
            matrix.backends.iter().map(|b| b.name.clone()).collect(),
            matrix.checks.iter().map(|c| c.name.clone()).collect(),
        ];
        Self { values }
    }

    pub fn values(&self, axis: Axis) -> &[String] {
        // In the order of `Axis`.
        &self.values[axis as usize]
    }

    pub fn has(&self, axis: Axis, value: &str) -> bool {
        self.values(axis).iter().any(|known| known == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_round_trip() {
        let name = "tiny-bitnet::i2_s::cpu-avx2::native::digest";
        let cell: Cell = name.parse().expect("cell");
        assert_eq!(cell.to_string(), name);
        assert_eq!(cell.golden_key(), "tiny-bitnet::i2_s::digest");
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in ["", "a::b::c::d", "a::b::c::d::e::f", "A::b::c::d::e", "a::b::c::d::e__f", "a::b::::d::e"] {
            assert!(text.parse::<Cell>().is_err(), "{text}");
        }
    }
}
