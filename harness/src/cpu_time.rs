//! Time that this thread spent computing: what to compare on a machine that does other things too.

use std::time::{Duration, Instant};

/// A point in time of this thread's work.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    wall: Instant,
    cpu: Option<Duration>,
}

impl CpuTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: Instant::now(), cpu: thread_time() }
    }

    /// Work since then; wall time where the system does not say.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match (self.cpu, thread_time()) {
            (Some(then), Some(now)) => now.saturating_sub(then),
            _ => self.wall.elapsed(),
        }
    }
}

/// Linux: nanoseconds on a CPU. The figure is brought up to date by the scheduler, so that it is exact to some
/// milliseconds only: measure tens of them.
fn thread_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_while_we_compute() {
        let (start, wall) = (CpuTime::now(), Instant::now());
        let mut sum = 0_u64;
        while wall.elapsed() < Duration::from_millis(100) || start.elapsed().is_zero() {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(start.elapsed() > Duration::ZERO);
        assert!(start.elapsed() <= wall.elapsed() + Duration::from_millis(20));
    }
}
