//! What can go wrong in this room: weights whose bytes do not mean what they should, and kernel sets that cannot run here.

use thiserror::Error;

/// Why bytes are not a matrix of a format, or numbers cannot become one.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum QuantError {
    #[error("no weight format is named `{name}`; the formats are: {known}")]
    UnknownName { name: String, known: String },
    #[error(
        "ggml tensor type {ggml_type} is not supported; the supported types are: {known}. Convert the model to one of them"
    )]
    UnknownType { ggml_type: u32, known: String },
    #[error("a {format} matrix of {rows} x {cols} holds nothing; both sides must be at least 1")]
    Empty { format: &'static str, rows: usize, cols: usize },
    #[error(
        "{format} stores blocks of {block_len} weights, so {cols} columns do not fit; choose a format that fits, such as {}",
        fitting(*cols)
    )]
    Columns { format: &'static str, cols: usize, block_len: usize },
    #[error("a {format} matrix of {rows} x {cols} is larger than this machine can address; the header is damaged")]
    TooLarge { format: &'static str, rows: usize, cols: usize },
    #[error(
        "a {format} matrix of {rows} x {cols} takes {expected} bytes but {got} were given; the file is truncated or its header is wrong, download it again"
    )]
    Size { format: &'static str, rows: usize, cols: usize, expected: usize, got: usize },
    #[error("packing {rows} x {cols} as {format} takes {expected} numbers but {got} were given")]
    Count { format: &'static str, rows: usize, cols: usize, expected: usize, got: usize },
    #[error(
        "{format}: byte {byte} (row {row}) holds a code that means no ternary weight; the file is damaged or is not {format}, download it again or name another layout"
    )]
    Code { format: &'static str, row: usize, byte: usize },
    #[error(
        "{format}: the {what} of row {row}, block {block} is {value}, which cannot be a scale; the file is damaged, download or convert it again"
    )]
    Scale { format: &'static str, what: &'static str, row: usize, block: usize, value: f32 },
    #[error("{format}: the weight at row {row}, column {col} is {value}; weights must be finite")]
    NotFinite { format: &'static str, row: usize, col: usize, value: f32 },
    #[error("{format}: {value} at row {row}, column {col} is beyond what the format can hold; use a wider format")]
    Overflow { format: &'static str, row: usize, col: usize, value: f32 },
    #[error(
        "{format} holds only -s, 0 and +s with one s for {unit} (here {scale}), but the weight at row {row}, column {col} is {value}; quantise to ternary first, or choose another format"
    )]
    NotTernary { format: &'static str, unit: &'static str, row: usize, col: usize, value: f32, scale: f32 },
    #[error(
        "{format} has a sign for each weight and no zero, but the weights are ternary and the one at row {row}, column {col} is zero; choose a format that has zeros, such as i2_s, tq2_0 or q2_0"
    )]
    Zero { format: &'static str, row: usize, col: usize },
    #[error(
        "{format} keeps scales as f16, and {value} (row {row}, from column {col}) is none, {rounded} is the nearest; pack the signs and keep the scale beside them, as `bitnet convert` does in a tensor `.scale`"
    )]
    InexactScale { format: &'static str, row: usize, col: usize, value: f32, rounded: f32 },
    #[error("{format} stores {multiple} rows together, so {rows} rows do not fit; choose another format")]
    Rows { format: &'static str, rows: usize, multiple: usize },
    #[error(
        "{format} cuts matrices into tiles of 32 rows and 64 columns at least and wants 256 columns, so {rows} x {cols} does not fit; choose another format, such as {}",
        fitting_ternary(*cols)
    )]
    Tiles { format: &'static str, rows: usize, cols: usize },
    #[error(
        "activations of {n_tokens} x {cols}: {what} has {got} entries where {expected} belong, or a value beyond +-127"
    )]
    Activations { what: &'static str, n_tokens: usize, cols: usize, expected: usize, got: usize },
}

/// A format for so many columns, of floats or of small blocks.
fn fitting(cols: usize) -> &'static str {
    if cols.is_multiple_of(crate::quant::q8_0::FORMAT.block_len) { "q8_0 or f16" } else { "f16" }
}

/// The same of the ternary formats, if one of them fits.
fn fitting_ternary(cols: usize) -> &'static str {
    use crate::quant::{i2_s, tq2_0};
    match (cols.is_multiple_of(i2_s::FORMAT.block_len), cols.is_multiple_of(tq2_0::FORMAT.block_len)) {
        (true, true) => "i2_s or tq2_0",
        (true, false) => "i2_s",
        (false, _) => "f16",
    }
}

impl QuantError {
    /// The same error for rows that were counted from `first`.
    #[must_use]
    pub fn below(mut self, first: usize) -> Self {
        match &mut self {
            Self::Code { row, .. }
            | Self::Scale { row, .. }
            | Self::NotFinite { row, .. }
            | Self::Overflow { row, .. }
            | Self::NotTernary { row, .. }
            | Self::Zero { row, .. }
            | Self::InexactScale { row, .. } => *row += first,
            _ => {}
        }
        self
    }

    /// The same error of another format: one that is packed by way of the first.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        match &mut self {
            Self::Count { format, .. }
            | Self::NotFinite { format, .. }
            | Self::NotTernary { format, .. }
            | Self::Empty { format, .. }
            | Self::Columns { format, .. }
            | Self::TooLarge { format, .. } => *format = name,
            _ => {}
        }
        self
    }
}

/// Why a kernel set cannot run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("kernel set `{name}` cannot run here: {reason}")]
pub struct Unavailable {
    /// Name of the set.
    pub name: &'static str,
    /// What is missing.
    pub reason: String,
}

/// Why a kernel set could not be had by name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KernelError {
    #[error("no kernel set is named `{name}`; the sets are: {known}")]
    Unknown { name: String, known: String },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
