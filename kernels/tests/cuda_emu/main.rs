//! The CUDA kernels on the CPU, against the oracle, bit for bit: `cargo test -p bitnet-kernels --features cuda-emu --test cuda_emu`
//! (it needs a C++ compiler: `apt-get install g++`).
//!
//! Every kernel runs on several grids and in several orders of its blocks, warps and lanes, in buffers that end where their
//! contents end. What this finds is in `faults.rs`: kernels that are wrong on purpose, and right ones with a barrier taken
//! away, must each be noticed.

#![cfg_attr(not(cuda_emu), allow(dead_code, unused_imports))]

#[cfg(cuda_emu)]
mod attention;
#[path = "../common/mod.rs"]
mod common;
#[cfg(cuda_emu)]
mod decode;
#[cfg(cuda_emu)]
mod device;
#[cfg(cuda_emu)]
mod faults;
#[cfg(cuda_emu)]
mod products;
#[cfg(cuda_emu)]
mod rows;
#[cfg(cuda_emu)]
mod screen;
#[cfg(cuda_emu)]
mod token;
#[cfg(cuda_emu)]
mod tokenize;
#[cfg(cuda_emu)]
mod top;

use bitnet_kernels::cuda::emu::{Arg, Buffer, EmuError, Launch, Plain};
use bitnet_kernels::{Kernels, by_name};

/// Rising, falling, and another.
const ORDERS: [u32; 3] = [0, 1, 0x5eed];

fn scalar() -> &'static dyn Kernels {
    by_name("scalar").unwrap()
}

fn of<T: Plain>(values: &[T]) -> Buffer {
    Buffer::of(values).unwrap()
}

/// Room for `n` values, not numbers so far.
fn room<T: Plain>(n: usize) -> Buffer {
    Buffer::new(n * size_of::<T>()).unwrap()
}

/// A launch that may be started in any order and with a barrier taken away.
#[derive(Debug, Clone, Copy)]
struct How {
    grid: [u32; 3],
    block: u32,
    order: u32,
    skip: u32,
}

impl How {
    fn new(grid: [u32; 3], block: u32, order: u32) -> Self {
        Self { grid, block, order, skip: 0 }
    }

    fn run(self, entry: &str, shared: usize, args: &[Arg<'_>]) -> Result<(), EmuError> {
        let launch = Launch::new(entry, 1, self.block);
        let shared = shared.try_into().unwrap();
        Launch { grid: self.grid, shared, order: self.order, skip_barrier: self.skip, ..launch }.run(args)
    }
}

/// Every grid in every order.
fn hows(grids: &[[u32; 3]], blocks: &[u32]) -> impl Iterator<Item = How> {
    grids.iter().flat_map(move |&grid| {
        blocks.iter().flat_map(move |&block| ORDERS.iter().map(move |&order| How::new(grid, block, order)))
    })
}

/// Equal bits; any NaN equals any NaN.
#[track_caller]
fn assert_halves(got: &[u16], want: &[u16], what: &dyn std::fmt::Display) {
    let nan = |h: u16| h & 0x7fff > 0x7c00;
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!(g == w || nan(g) && nan(w), "{what}: [{i}] is {g:#06x}, must be {w:#06x}");
    }
}

#[cfg(not(cuda_emu))]
#[test]
#[ignore = "unavailable: no C++ compiler when this was built; `apt-get install g++`, then build again"]
fn the_emulation() {
    bitnet_kernels::cuda::emu::available().unwrap();
}
