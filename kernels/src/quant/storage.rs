//! What a tensor can be stored as: a format that is computed with as it lies, or one that is unpacked at load.

use super::tiled::{ROWS, TILED, Tiled};
use super::{FORMATS, Format, Packed, QuantError};

/// A format of files.
#[derive(Debug, Clone, Copy)]
pub enum Storage {
    /// Rows of blocks, used where they lie.
    Rows(&'static Format),
    /// Tiles, unpacked to [`ROWS`] at load.
    Tiled(&'static Tiled),
}

impl From<&'static Format> for Storage {
    fn from(format: &'static Format) -> Self {
        Self::Rows(format)
    }
}

impl PartialEq for Storage {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Storage {
    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().copied().map(Self::Rows).chain(TILED.iter().copied().map(Self::Tiled))
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Result<Self, QuantError> {
        Self::all().find(|s| s.name() == name).ok_or_else(|| QuantError::UnknownName {
            name: name.to_owned(),
            known: Self::all().map(|s| s.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Stable name, e.g. `i2_s`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows(format) => format.name,
            Self::Tiled(format) => format.name,
        }
    }

    /// The tensor type id in GGUF files.
    pub fn ggml_type(self) -> u32 {
        match self {
            Self::Rows(format) => format.ggml_type,
            Self::Tiled(format) => format.ggml_type,
        }
    }

    /// See [`Format::file_type`].
    pub fn file_type(self) -> Option<u32> {
        match self {
            Self::Rows(format) => format.file_type,
            Self::Tiled(format) => format.file_type,
        }
    }

    /// What kernels compute with.
    pub fn computed_as(self) -> &'static Format {
        match self {
            Self::Rows(format) => format,
            Self::Tiled(_) => ROWS,
        }
    }

    /// Whether it holds ternary weights and nothing else.
    pub fn is_ternary(self) -> bool {
        self.computed_as().is_ternary()
    }

    /// Whether rows can be packed some at a time.
    pub fn rows_are_independent(self) -> bool {
        matches!(self, Self::Rows(format) if format.trailer_bytes == 0)
    }

    /// Bytes of a matrix.
    pub fn matrix_bytes(self, rows: usize, cols: usize) -> Result<usize, QuantError> {
        match self {
            Self::Rows(format) => format.matrix_bytes(rows, cols),
            Self::Tiled(format) => (format.matrix_bytes)(rows, cols),
        }
    }

    /// Quantises weights `[rows][cols]`.
    pub fn pack(self, weights: &[f32], rows: usize, cols: usize) -> Packed {
        match self {
            Self::Rows(format) => (format.pack)(weights, rows, cols),
            Self::Tiled(format) => (format.pack)(weights, rows, cols),
        }
    }
}
