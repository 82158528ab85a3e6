//! A matrix of a checkpoint as the model computes with it, row by row.
//!
//! | stored | a weight is |
//! |---|---|
//! | F32, F16, BF16 | itself |
//! | the same, `[in, out]` (GPT-2's Conv1D) | itself, transposed |
//! | packed: U8 `[out / 4, in]` and `X.weight_scale` | (code - 1) times or divided by the scale; row `i * (out / 4) + r` is in bits `2i` of the bytes of row `r` |
//! | a master, F32, F16 or BF16 | `t * m`: `m = max(mean abs(W), 1e-5)`, `t = W / m` rounded half to even and clamped to -1..1 |
//!
//! Sources: `unpack_weights` and `WeightQuant` of `transformers`; arXiv:2402.17764 for masters. The mean is summed in f64 and
//! rounded to f32 once.

use super::store::{Float, Store, Stored};
use bitnet_kernels::QuantError;
use std::sync::OnceLock;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    Float(Float),
    /// Stored `[in, out]`.
    Transposed(Float),
    /// Codes, and what a weight of code 2 is.
    Packed(f32),
    /// Quantised as in training. `exact`: one that is ternary already keeps its magnitude.
    Master {
        float: Float,
        exact: bool,
    },
}

/// A matrix `[rows][cols]` (outputs, inputs).
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) stored: Stored,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) values: Values,
    /// Heads whose rows GGUF has in another order: new row `2j` of a head is old row `j`, `2j + 1` is `j + d / 2`.
    pub(super) permuted: Option<usize>,
    magnitude: OnceLock<Result<f32, QuantError>>,
}

/// Name of packed matrices in messages.
const PACKED: &str = "packed";
/// Name of masters in messages.
const MASTER: &str = "master weights";
/// Smallest mean of a master's magnitudes.
const LEAST_MEAN: f32 = 1e-5;

impl Source {
    pub(super) fn new(name: String, stored: Stored, (rows, cols): (usize, usize), values: Values) -> Self {
        Self { name, stored, rows, cols, values, permuted: None, magnitude: OnceLock::new() }
    }

    /// Whether every weight is -s, 0 or s.
    pub(super) fn is_ternary(&self) -> bool {
        matches!(self.values, Values::Packed(_) | Values::Master { .. })
    }

    /// The s of a ternary matrix. A master is read as a whole for it, once.
    ///
    /// # Errors
    /// A master with a weight that is not finite.
    pub(super) fn magnitude(&self, store: &Store) -> Result<f32, QuantError> {
        match self.values {
            Values::Packed(factor) => Ok(factor),
            Values::Master { float, exact } => {
                self.magnitude.get_or_init(|| self.measured(store, float, exact)).clone()
            }
            Values::Float(_) | Values::Transposed(_) => Ok(1.0),
        }
    }

    fn measured(&self, store: &Store, float: Float, exact: bool) -> Result<f32, QuantError> {
        let mut values = vec![0.0; self.cols];
        let (mut sum, mut one, mut ternary) = (0.0_f64, 0.0_f32, exact);
        for row in 0..self.rows {
            float.read(store.bytes(&self.stored), row * self.cols, 1, &mut values);
            for (col, &value) in values.iter().enumerate() {
                if !value.is_finite() {
                    return Err(QuantError::NotFinite { format: MASTER, row, col, value });
                }
                let magnitude = value.abs();
                sum += f64::from(magnitude);
                if magnitude != 0.0 {
                    one = if one == 0.0 { magnitude } else { one };
                    ternary &= magnitude == one;
                }
            }
        }
        store.release(&self.stored);
        if ternary && one > 0.0 {
            return Ok(one);
        }
        let mean = (sum / (self.rows * self.cols) as f64) as f32;
        Ok(mean.max(LEAST_MEAN))
    }

    /// Row `row` in the order of the checkpoint.
    ///
    /// # Errors
    /// A code that means no weight, or a master that is not finite.
    pub(super) fn row(&self, store: &Store, row: usize, out: &mut [f32]) -> Result<(), QuantError> {
        let bytes = store.bytes(&self.stored);
        match self.values {
            Values::Float(float) => float.read(bytes, row * self.cols, 1, out),
            Values::Transposed(float) => float.read(bytes, row, self.rows, out),
            Values::Packed(factor) => {
                let quarter = self.rows / 4;
                let (shift, first) = (2 * (row / quarter), row % quarter * self.cols);
                for (col, (out, byte)) in out.iter_mut().zip(&bytes[first..]).enumerate() {
                    *out = match byte >> shift & 3 {
                        0 => -factor,
                        1 => 0.0,
                        2 => factor,
                        _ => return Err(QuantError::Code { format: PACKED, row, byte: first + col }),
                    };
                }
            }
            Values::Master { float, .. } => {
                let unit = self.magnitude(store)?;
                float.read(bytes, row * self.cols, 1, out);
                // A weight beyond f32 after the division is clamped like any other.
                out.iter_mut().for_each(|w| *w = (*w / unit).round_ties_even().clamp(-1.0, 1.0) * unit);
            }
        }
        Ok(())
    }

    /// Row `row` in the order of GGUF.
    pub(super) fn gguf_row(&self, store: &Store, row: usize, out: &mut [f32]) -> Result<(), QuantError> {
        self.row(store, self.permuted.map_or(row, |heads| unpermuted(row, self.rows / heads)), out)
    }
}

/// The row of the checkpoint that GGUF has as `row`, in heads of `width`.
fn unpermuted(row: usize, width: usize) -> usize {
    let (head, inner) = (row / width, row % width);
    head * width + inner / 2 + inner % 2 * (width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_head_become_neighbours() {
        let order: Vec<usize> = (0..12).map(|row| unpermuted(row, 6)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
