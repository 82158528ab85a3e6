//! The tensors by which a file stretches the rotary embedding, dimension by dimension.

use super::Noise;
use bitnet_golden::matrix::RopeScaling;
use std::f64::consts::TAU;

/// Name and values of the tensors of a scaling: what the angle of each pair of dimensions is divided by. `width` is that
/// of a head, all of which is rotated.
pub(super) fn factors(rope: RopeScaling, base: f32, width: usize, noise: &mut Noise) -> Vec<(&'static str, Vec<f32>)> {
    let pairs = width / 2;
    match rope {
        RopeScaling::Linear { .. } | RopeScaling::Yarn { .. } => Vec::new(),
        RopeScaling::Longrope { .. } => {
            // As in Phi-3: near one for short contexts, growing from one to tens for long ones.
            let mut one = |step: f32| (0..pairs).map(|i| 1.0 + step * i as f32 + 0.1 * noise.next().abs()).collect();
            vec![("rope_factors_short.weight", one(0.02)), ("rope_factors_long.weight", one(1.5))]
        }
        RopeScaling::Llama3 { factor, low, high, original } => {
            let (factor, low, high) = (f64::from(factor), f64::from(low), f64::from(high));
            let original = original as f64;
            let one = |i: usize| {
                let wavelength = TAU * f64::from(base).powf(2.0 * i as f64 / width as f64);
                let divisor = if wavelength < original / high {
                    1.0
                } else if wavelength > original / low {
                    factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                };
                // Coarse, so that a system's own powers cannot change the file.
                ((divisor * 1024.0).round() / 1024.0) as f32
            };
            vec![("rope_freqs.weight", (0..pairs).map(one).collect())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_dimensions_are_stretched_and_fast_ones_are_not() {
        // LLaMA-3.1: its file's `rope_freqs.weight` has these ends, and 29 ones.
        let rope = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
        let tensors = factors(rope, 500_000.0, 128, &mut Noise(1));
        let [("rope_freqs.weight", values)] = tensors.as_slice() else { panic!("{tensors:?}") };
        assert_eq!((values.len(), values[0], values[63]), (64, 1.0, 8.0));
        assert_eq!(values.iter().filter(|x| **x == 1.0).count(), 29);
        assert!(values.is_sorted() && values.iter().any(|x| (2.0..7.0).contains(x)), "{values:?}");
    }

    #[test]
    fn what_the_metadata_say_needs_no_tensor() {
        for rope in
            [RopeScaling::Linear { factor: 4.0 }, RopeScaling::Yarn { factor: 4.0, original: 16, attn_factor: 1.0 }]
        {
            assert!(factors(rope, 10_000.0, 64, &mut Noise(1)).is_empty());
        }
    }
}
