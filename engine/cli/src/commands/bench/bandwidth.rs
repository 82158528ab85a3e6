//! How fast memory is read: what no decoding can go beyond, measured on the machine as it is now.
//!
//! Each thread sums its own part of a buffer that is far larger than a cache. Pages are as the system gives them to any
//! program (4 KiB, or huge ones where that is its rule).

use anyhow::Context;
use bitnet_kernels::Pool;
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// Bytes that are read in a pass: eight times the largest last-level caches.
const BYTES: usize = 1 << 30;

/// What was measured.
#[derive(Debug, serde::Serialize)]
pub(super) struct Bandwidth {
    threads: usize,
    bytes: usize,
    /// Of each pass.
    samples: Vec<f64>,
    /// The median of them.
    bytes_per_second: f64,
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gb, all) = (1e-9 * self.bytes_per_second, self.samples.iter().map(|s| s * 1e-9));
        let (least, most) = all.fold((f64::MAX, 0f64), |(least, most), s| (least.min(s), most.max(s)));
        write!(f, "{} threads read memory at {gb:.1} GB/s ({least:.1}..{most:.1})", self.threads)
    }
}

/// Reads the buffer on so many threads, `passes` times (at least once).
pub(super) fn read(threads: usize, passes: usize) -> anyhow::Result<Bandwidth> {
    let pool = Pool::new(threads).with_context(|| format!("cannot start {threads} threads"))?;
    let mut words: Vec<u64> = Vec::new();
    let count = BYTES / size_of::<u64>();
    words.try_reserve_exact(count).context("no memory for the buffer of 1 GiB")?;
    // Not zeros: those may all be one page.
    words.extend((0..count as u64).map(|i| i | 1));
    let part = count.div_ceil(pool.threads());
    let mut samples = Vec::new();
    for pass in 0..=passes.max(1) {
        let started = Instant::now();
        pool.run(&|thread| {
            let from = (thread * part).min(count);
            black_box(sum(&words[from..(from + part).min(count)]));
        });
        // The first one wakes threads and fills the page tables.
        if pass > 0 {
            samples.push(BYTES as f64 / started.elapsed().as_secs_f64().max(1e-9));
        }
    }
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    let bytes_per_second = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    Ok(Bandwidth { threads, bytes: BYTES, samples, bytes_per_second })
}

/// In 32 sums that the compiler keeps in vector registers, so that reading is all that takes time.
fn sum(words: &[u64]) -> u64 {
    let (chunks, rest) = words.as_chunks::<32>();
    let mut sums = [0u64; 32];
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |all, word| all.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_word_is_read() {
        for count in [0, 1, 31, 32, 100] {
            let words: Vec<u64> = (1..=count).collect();
            assert_eq!(super::sum(&words), count * (count + 1) / 2);
        }
    }
}
