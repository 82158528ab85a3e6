//! The same input on every run.

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// -1..1
    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.bits() & 0xff_ffff) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// -scale, 0 or scale, with the scale of each `block`.
    pub(crate) fn ternary(&mut self, n: usize, block: usize, scale: impl Fn(usize) -> f32) -> Vec<f32> {
        (0..n).map(|i| scale(i / block) * ((self.bits() % 3) as f32 - 1.0)).collect()
    }
}
