//! The memory of this process, as Linux counts it.

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
            peak_rss_bytes: figure(&status, "VmHWM:"),
            rss_bytes: figure(&status, "VmRSS:"),
            in_huge_pages_bytes: figure(&maps, "AnonHugePages:"),
            copied_bytes: weights.copied_bytes(),
        }
    }
}

/// The most that was resident at once, so far.
pub(crate) fn peak_rss() -> Option<u64> {
    figure(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The bytes of a line `name 123 kB`.
fn figure(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text = "Name:\tbitnet\nVmHWM:\t   5216 kB\nVmRSS:\t 12 pages\nThreads:\t1\n";
        assert_eq!(figure(text, "VmHWM:"), Some(5216 * 1024));
        assert_eq!((figure(text, "VmRSS:"), figure(text, "VmSize:")), (None, None));
    }
}
