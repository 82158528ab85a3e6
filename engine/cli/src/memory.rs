//! The memory of this process, as Linux counts it.

use bitnet_engine::memory::bytes_of;
use bitnet_engine::model::Weights;

/// What a report says about memory; what the system does not say is absent.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Memory {
    /// The most that was resident at once (`VmHWM`), pages of mapped files included.
    peak_rss_bytes: Option<u64>,
    /// What is resident now (`VmRSS`).
    rss_bytes: Option<u64>,
    /// What lies in huge pages now.
    in_huge_pages_bytes: Option<u64>,
    /// Weights that were copied for their sake.
    copied_bytes: usize,
}

impl Memory {
    /// The figures of this moment.
    pub(crate) fn now(weights: &Weights) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let maps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        Self {
            peak_rss_bytes: bytes_of(&status, "VmHWM:"),
            rss_bytes: bytes_of(&status, "VmRSS:"),
            in_huge_pages_bytes: bytes_of(&maps, "AnonHugePages:"),
            copied_bytes: weights.copied_bytes(),
        }
    }
}

/// The most that was resident at once, so far.
pub(crate) fn peak_rss() -> Option<u64> {
    bytes_of(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}
