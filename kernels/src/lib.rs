//! Quant formats, the numerics contract and the compute kernels of BitNet.rs.
//!
//! The crate is a leaf: it knows bytes, shapes and arithmetic, and nothing of models. (Its CUDA side also looks for
//! libraries and keeps what it compiled on disk.)
//!
//! * [`quant`]: one file per weight format, with its layout, packing, unpacking, validation and a naive dot product.
//! * [`activations`]: the input side of a matrix product, prepared once and used by every row.
//! * [`numerics`], [`trig`]: the order of every float reduction, and our own `exp`, `sin`, `cos`. They are why logits
//!   have the same bits on every machine, at every thread count and for every batch shape.
//! * [`cpu`]: one kernel set per instruction set. [`cpu::scalar`] is the oracle; all others equal it bit for bit.
//! * [`screen`]: the largest products of a large matrix from an int8 copy, exactly.
//! * [`text`]: text in blocks of 64 bytes, as bit masks.
//! * [`lines`]: buffers that begin at a cache line, for what kernels read and write again and again.
//! * [`pages`]: memory that may be backed with huge pages, for what every token reads.
//! * [`dispatch`]: which sets exist, which of them can run here, and why not.
//!
//! ```
//! use bitnet_kernels::{Activations, Matrix, OutView, best, quant};
//!
//! let (rows, cols) = (4, 128);
//! let format = quant::by_name("i2_s")?;
//! let weights: Vec<f32> = (0..rows * cols).map(|i| [0.5, 0.0, -0.5][i % 3]).collect();
//! let bytes = (format.pack)(&weights, rows, cols)?;
//! let w = Matrix::new(format, rows, cols, &bytes)?;
//!
//! let kernels = best();
//! let mut x = Activations::default();
//! kernels.prepare(format.act, &[1.0; 128], 1, &mut x);
//! let mut y = [0.0; 4];
//! kernels.matmul(&w, &x, 0..rows, OutView::new(&mut y, 1, rows));
//! assert_eq!(y[0], 0.5);
//! # Ok::<(), bitnet_kernels::QuantError>(())
//! ```

pub mod activations;
pub mod contract;
pub mod cpu;
pub mod cuda;
pub mod dispatch;
pub mod error;
mod forward;
pub mod lines;
pub mod numerics;
pub mod pages;
pub mod parallel;
pub mod pool;
pub mod quant;
pub mod screen;
pub mod text;
pub mod trig;
pub mod view;

pub use activations::{ActKind, Activations, I8Token, Q8Token};
pub use contract::{Kernels, Rope, check_matmul, multiply};
pub use dispatch::{KernelSetInfo, best, by_name, kernel_sets};
pub use error::{KernelError, QuantError, Unavailable};
pub use pool::Pool;
pub use quant::{Format, I2sLayout, Matrix};
pub use trig::{rope_table, sincos};
pub use view::OutView;
