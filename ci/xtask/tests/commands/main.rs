//! Commands of xtask as a user runs them, in one program: each test program links everything that xtask is made of.

mod bench_gpu;
mod bench_peers;
mod soak;
