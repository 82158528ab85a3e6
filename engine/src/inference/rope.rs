//! Rotary tables of the positions seen so far, computed once on the host by our own sine and cosine.

use bitnet_kernels::rope_table;

/// Cosines and sines, `[positions][n_rot / 2]` each; grows with the sequence.
#[derive(Debug)]
pub(crate) struct RopeTable {
    half: usize,
    theta: f32,
    /// Divisors of the frequencies: linear scaling times the file's own factors.
    factors: Option<Vec<f32>>,
    positions: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(crate) fn new(n_rot: usize, theta: f32, scale: f32, factors: Option<&[f32]>) -> Self {
        let half = n_rot / 2;
        let factors = match factors {
            Some(factors) => Some(factors.iter().map(|f| f * scale).collect()),
            None if scale == 1.0 => None,
            None => Some(vec![scale; half]),
        };
        Self { half, theta, factors, positions: 0, cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes [`RopeTable::at`] valid below `positions`.
    pub(crate) fn extend_to(&mut self, positions: usize) {
        if positions <= self.positions {
            return;
        }
        let half = self.half;
        self.cos.resize(positions * half, 0.0);
        self.sin.resize(positions * half, 0.0);
        for position in self.positions..positions {
            let range = position * half..(position + 1) * half;
            let (cos, sin) = (&mut self.cos[range.clone()], &mut self.sin[range]);
            rope_table(2 * half, self.theta, self.factors.as_deref(), position, cos, sin);
        }
        self.positions = positions;
    }

    /// Cosines and sines of all positions so far.
    pub(crate) fn all(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Cosines and sines of a position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
