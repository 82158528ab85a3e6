//! Formats and kernel sets, in one program. (`digest` prints what it finds, `card` plays a driver, and `cuda_emu` needs the
//! emulation: they are programs apart.)

#[path = "../common/mod.rs"]
mod common;

mod formats;
mod layouts;
mod matmul;
mod numerics;
mod rows;
mod screen;
mod small;
mod strips;
mod ternary;
mod tiled;
