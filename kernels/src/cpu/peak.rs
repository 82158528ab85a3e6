//! What the arithmetic of a core can do at most: loops of nothing but the instructions that multiply ternary weights, on registers.
//! A kernel's products a second are compared with these, measured in the same run.

/// A loop of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// The kernel set that multiplies like this.
    pub set: &'static str,
    /// The instructions of the loop.
    pub instructions: &'static str,
    /// Products of a weight and an activation in a round.
    pub products: u64,
    run: fn(usize),
}

impl Peak {
    /// Goes through the loop so many times.
    pub fn rounds(&self, rounds: usize) {
        (self.run)(rounds);
    }
}

/// The loops that can run here.
#[must_use]
pub fn peaks() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    return x86::peaks();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Peak;
    use crate::cpu::avx2::Avx2;
    use crate::cpu::avx512::Avx512;
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Sums that do not wait for each other: more than latency times throughput everywhere.
    const SUMS: usize = 12;

    pub(super) fn peaks() -> Vec<Peak> {
        let mut peaks = Vec::new();
        if Avx2::detect().is_ok() {
            let products = (SUMS * 32) as u64;
            // SAFETY: the set was detected.
            let run = |rounds| unsafe { avx2(rounds) };
            peaks.push(Peak { set: "avx2", instructions: "vpmaddubsw and vpaddw", products, run });
        }
        if Avx512::detect().is_ok() {
            let products = (SUMS * 64) as u64;
            // SAFETY: the set was detected.
            let run = |rounds| unsafe { avx512(rounds) };
            peaks.push(Peak { set: "avx512", instructions: "vpdpbusd", products, run });
        }
        peaks
    }

    #[target_feature(enable = "avx2")]
    fn avx2(rounds: usize) {
        let (weights, activations) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi8(black_box(3)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                let products;
                // SAFETY: the instruction reads and writes these registers alone; a compiler would make one product of all.
                unsafe {
                    asm!("vpmaddubsw {0}, {1}, {2}", out(ymm_reg) products, in(ymm_reg) weights, in(ymm_reg) activations,
                        options(nomem, nostack, preserves_flags));
                }
                *sum = _mm256_add_epi16(*sum, products);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn avx512(rounds: usize) {
        let (weights, activations) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(3)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: the instruction reads and writes these registers alone.
                unsafe {
                    asm!("vpdpbusd {0}, {1}, {2}", inout(zmm_reg) *sum, in(zmm_reg) weights, in(zmm_reg) activations,
                        options(nomem, nostack, preserves_flags));
                }
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    /// Each loop goes as often as it is told: twice the rounds take longer, and none take no time.
    #[test]
    fn rounds_take_time() {
        for peak in super::peaks() {
            assert!(crate::by_name(peak.set).is_ok() && peak.products > 0);
            let best = |rounds| {
                let time = || {
                    let started = std::time::Instant::now();
                    peak.rounds(rounds);
                    started.elapsed()
                };
                (0..20).map(|_| time()).min()
            };
            assert!(best(100_000) > best(10_000), "{}", peak.instructions);
        }
    }
}
