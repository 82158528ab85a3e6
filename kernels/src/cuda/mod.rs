//! The CUDA kernels of the engine, as source text that NVRTC compiles for the card at hand.

pub mod architecture;
pub mod cache;
pub mod driver;
pub mod nvrtc;

/// One file of kernels.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The file's name without its ending, e.g. `rows`.
    pub name: &'static str,
    /// The text, which includes [`HEADERS`] by their names.
    pub text: &'static str,
    /// The `extern "C" __global__` functions in it.
    pub entries: &'static [&'static str],
}

/// `(name, text)` of every header: the include list of `nvrtcCreateProgram`.
pub const HEADERS: &[(&str, &str)] = &[("common.cuh", include_str!("common.cuh"))];

/// Every file of kernels.
#[must_use]
pub fn sources() -> &'static [Source] {
    &[Source { name: "rows", text: include_str!("rows.cu"), entries: &["bn_embed_f16", "bn_add", "bn_gate"] }]
}
