//! `ops`: everything of a kernel set that is not a matrix product, bit-equal to the scalar oracle.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::generate::Noise;
use crate::metrics::Metrics;
use crate::models;
use bitnet_kernels::{Kernels, Rope, by_name};

/// The check.
pub struct Ops;

impl Check for Ops {
    fn name(&self) -> &'static str {
        "ops"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let compared = compare(models::kernels(cell)?, ctx.seed(cell))?;
        Ok(Metrics::new().with("values_compared", compared).ran(models::kernels(cell)?.name()))
    }
}

/// Runs norms, rotations, attention, gates, sums and roundings over many lengths; returns how many values were compared.
///
/// # Errors
/// The first value whose bits differ.
pub fn compare(kernels: &dyn Kernels, seed: u64) -> Result<usize, Failure> {
    let oracle = by_name("scalar")?;
    let mut noise = Noise(seed);
    let mut values = |n: usize, size: f32| -> Vec<f32> { (0..n).map(|_| noise.next() * size).collect() };
    let mut compared = 0;
    let mut same = |what: &str, run: &dyn Fn(&dyn Kernels) -> Vec<f32>| -> Result<(), Failure> {
        let (found, expected) = (run(kernels), run(oracle));
        compared += expected.len();
        match (0..expected.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
            None => Ok(()),
            Some(i) => {
                Err(Failure::new(format_args!("{what}, element {i}: {:e} instead of {:e}", found[i], expected[i])))
            }
        }
    };
    for n in [1, 7, 8, 63, 64, 65, 127, 200, 512, 1000] {
        let (x, y) = (values(n, 8.0), values(n, 3.0));
        same(&format!("rms_norm of {n}"), &|k| {
            let mut out = vec![f32::NAN; n];
            k.rms_norm(&x, &y, 1e-5, &mut out);
            out
        })?;
        for (what, gate) in [("relu2_gate", true), ("silu_gate", false)] {
            // Far beyond where the exponential under- and overflows.
            let x: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * [1.0, 0.01, 30.0][i % 3]).collect();
            same(&format!("{what} of {n}"), &|k| {
                let mut out = x.clone();
                if gate {
                    k.relu2_gate(&mut out, &y)
                } else {
                    k.silu_gate(&mut out, &y)
                }
                out
            })?;
        }
        same(&format!("add of {n}"), &|k| {
            let mut out = x.clone();
            k.add(&mut out, &y);
            out
        })?;
        same(&format!("f32_to_f16 of {n}"), &|k| {
            let wide: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * [1.0, 1e-6, 2e4][i % 3]).collect();
            let mut out = vec![0xFFFF; n];
            k.f32_to_f16(&wide, &mut out);
            out.into_iter().map(|bits| f32::from_bits(u32::from(bits))).collect()
        })?;
    }
    for (dim, rotated) in [(64, 64), (128, 128), (80, 64), (32, 20)] {
        let (x, cos, sin) = (values(dim, 5.0), values(rotated / 2, 1.0), values(rotated / 2, 1.0));
        for kind in [Rope::Neox, Rope::Norm] {
            same(&format!("rope {kind:?} of {rotated} in {dim}"), &|k| {
                let mut out = x.clone();
                k.rope(kind, &mut out, &cos, &sin);
                out
            })?;
        }
    }
    // Around the chunks of 128 positions and the 64 lanes of the sum.
    for (dim, n) in [(64, 1), (64, 2), (64, 63), (64, 65), (128, 127), (64, 128), (80, 129), (64, 300), (128, 513)] {
        let stride = dim + 8;
        let (q, cache) = (values(dim, 2.0), values(2 * n * stride, 2.0));
        let mut half = vec![0u16; cache.len()];
        oracle.f32_to_f16(&cache, &mut half);
        let (keys, vals) = half.split_at(n * stride);
        same(&format!("attention over {n} positions of {dim}"), &|k| {
            let (mut scratch, mut out) = (vec![f32::NAN; n], vec![f32::NAN; dim]);
            k.attention(&q, keys, vals, stride, n, 0.125, &mut scratch, &mut out);
            out
        })?;
        for heads in 1..=5 {
            let q = values(heads * dim, 2.0);
            same(&format!("attention of {heads} heads over {n} positions of {dim}"), &|k| {
                let (mut scratch, mut out) = (vec![f32::NAN; heads * n], vec![f32::NAN; heads * dim]);
                k.attention_group(&q, dim, keys, vals, stride, n, 0.125, &mut scratch, &mut out);
                out
            })?;
        }
    }
    Ok(compared)
}
