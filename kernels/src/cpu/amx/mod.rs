//! x86-64 with AMX, tiles of int8: Intel servers since 2023 (Sapphire Rapids).
//!
//! Bit-identical to [`super::scalar`]. What tiles are for is here, ternary weights times four tokens or more; the rest is
//! [`super::avx512`]'s, which every such processor has too.
//!
//! * `tiles`: what a tile is, and what can be done with it, a trait. `hardware`: the processor's, by inline assembly.
//!   `model`: the manual's pseudo-code, which runs anywhere.
//! * `gemm`: the product of a strip, whatever the tiles. `sides`: what happens beside the products, in plain Rust.
//! * `detect`: whether the hardware's can be used; they are held against the model before they are.
//!
//! Written on a machine without AMX: that machine has never run `hardware`, of which it could only compare the encodings of the
//! six instructions with the manual's. Everything else is run by the tests on [`models`], on every machine, and on hardware
//! nothing is believed before its own products were compared. No figure of speed is known, and what only a measurement can
//! justify (prefetches, packing activations) is not here.

#[cfg(target_arch = "x86_64")]
mod detect;
mod gemm;
#[cfg(target_arch = "x86_64")]
mod hardware;
mod model;
mod sides;
mod tiles;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::OnceLock;

use super::scalar::Scalar;
use super::strips::{FROM, Sides, Strips};
use crate::contract::{check_matmul, multiply};
use crate::screen::Bound;
use crate::{Activations, Kernels, Matrix, OutView};
use model::Model;
use tiles::Tiles;

/// Where a set has its tiles from.
trait Source: Debug + Send + Sync + 'static {
    type Tiles: Tiles;

    /// The tiles of this thread.
    fn tiles(&self) -> Self::Tiles;
}

/// A set: tiles, and what runs beside them.
struct Amx<S> {
    name: &'static str,
    source: S,
    sides: &'static dyn Sides,
    /// What is computed without tiles.
    base: &'static dyn Kernels,
}

#[cfg(target_arch = "x86_64")]
impl Source for &'static detect::Granted {
    type Tiles = hardware::Hardware;

    fn tiles(&self) -> Self::Tiles {
        hardware::Hardware::new(self)
    }
}

/// The source of models.
#[derive(Debug)]
struct Modelled;

impl Source for Modelled {
    type Tiles = Model;

    fn tiles(&self) -> Model {
        Model::new()
    }
}

/// The set on the processor's tiles, or why it cannot run here.
#[cfg(target_arch = "x86_64")]
pub fn detect() -> Result<&'static dyn Kernels, String> {
    static SET: OnceLock<Amx<&'static detect::Granted>> = OnceLock::new();
    let source = detect::granted().map_err(|missing| missing.to_string())?;
    let avx512 = super::avx512::Avx512::detect().map_err(|missing| detect::Missing::Avx512(missing).to_string())?;
    Ok(SET.get_or_init(|| Amx { name: "amx", source, sides: avx512, base: avx512 }))
}

/// The same on modelled tiles, far too slow to be of use: for tests, which so run the set where no processor has tiles. One
/// has the sides of plain Rust, one those of AVX-512, which the set itself has, if this CPU knows AVX-512.
#[must_use]
pub fn models() -> &'static [&'static dyn Kernels] {
    static PLAIN: OnceLock<Amx<Modelled>> = OnceLock::new();
    static ALL: OnceLock<Vec<&'static dyn Kernels>> = OnceLock::new();
    ALL.get_or_init(|| {
        let plain =
            |base| PLAIN.get_or_init(|| Amx { name: "amx-model", source: Modelled, sides: &sides::Plain, base });
        #[cfg(target_arch = "x86_64")]
        if let Ok(avx512) = super::avx512::Avx512::detect() {
            static WIDE: OnceLock<Amx<Modelled>> = OnceLock::new();
            let wide =
                WIDE.get_or_init(|| Amx { name: "amx-model-avx512", source: Modelled, sides: avx512, base: avx512 });
            return vec![plain(avx512), wide];
        }
        vec![plain(&Scalar)]
    })
}

impl<S: Source> Kernels for Amx<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    crate::forward!(self, self.base; prepare rms_norm layer_norm gelu rope attention relu2_gate silu_gate add f32_to_f16);

    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        match Strips::of(w).filter(|_| x.n_tokens() >= FROM) {
            Some(strips) => {
                check_matmul(w, x, &rows, &y);
                gemm::matmul(self.source.tiles(), self.sides, strips, (w, x), rows.clone(), &mut y);
                multiply(w, &rows, &mut y);
            }
            None => self.base.matmul(w, x, rows, y),
        }
    }

    fn attention_group(
        &self,
        q: &[f32],
        dim: usize,
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        self.base.attention_group(q, dim, k, v, stride, n, scale, scratch, out);
    }

    fn dots_i8_i16(&self, w: &[i8], x: &[i16], out: &mut [i32]) {
        self.base.dots_i8_i16(w, x, out);
    }

    fn narrow(&self, w: &Matrix<'_>, row: usize, values: &mut [f32], q: &mut [i8]) -> Bound {
        self.base.narrow(w, row, values, q)
    }
}
