//! What Linux says of memory: files of lines like `VmHWM:     5216 kB`.

/// The bytes that the line of this name (`VmHWM:`, with its colon) says; `None` where there is no such line, or no number of kB.
pub fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text = "Name:\tbitnet\nVmHWM:\t   5216 kB\nVmRSS:\t 12 pages\nThreads:\t1\n";
        assert_eq!(bytes_of(text, "VmHWM:"), Some(5216 * 1024));
        assert_eq!((bytes_of(text, "VmRSS:"), bytes_of(text, "VmSize:")), (None, None));
    }
}
