//! Time spent computing: what to compare on a machine that does other things too.

use std::time::{Duration, Instant};

/// A point in time of the work of this thread, or of the whole process.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    wall: Instant,
    cpu: Option<Duration>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
enum Clock {
    Thread,
    Process,
}

impl CpuTime {
    /// Now, of this thread.
    pub fn now() -> Self {
        Self::of(Clock::Thread)
    }

    /// Now, of all threads of this process, ended ones too.
    pub fn process() -> Self {
        Self::of(Clock::Process)
    }

    fn of(clock: Clock) -> Self {
        Self { wall: Instant::now(), cpu: time(clock), clock }
    }

    /// Work since then; wall time where the system does not say.
    pub fn elapsed(&self) -> Duration {
        match (self.cpu, time(self.clock)) {
            (Some(then), Some(now)) => now.saturating_sub(then),
            _ => self.wall.elapsed(),
        }
    }
}

/// The clocks of POSIX, exact to the nanosecond on Linux.
#[cfg(unix)]
fn time(clock: Clock) -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let id = match clock {
        Clock::Thread => ClockId::ThreadCPUTime,
        Clock::Process => ClockId::ProcessCPUTime,
    };
    let time = clock_gettime(id);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

#[cfg(not(unix))]
fn time(_: Clock) -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_while_we_compute() {
        // The process is asked before its thread, here and below the other way round: what is computed between counts for it alone.
        let (process, thread, wall) = (CpuTime::process(), CpuTime::now(), Instant::now());
        let mut sum = 0_u64;
        while wall.elapsed() < Duration::from_millis(50) || thread.elapsed().is_zero() {
            sum = std::hint::black_box(sum + 1);
        }
        let (mine, all) = (thread.elapsed(), process.elapsed());
        assert!(mine > Duration::ZERO);
        assert!(mine <= wall.elapsed() + Duration::from_millis(1));
        assert!(all >= mine, "the process computes at least what its thread does");
    }
}
