//! The noise guard: what else the processors did while something was measured.
//!
//! Busy time of the whole machine (`/proc/stat`: user, nice, system, irq, softirq and steal, in ticks) less the time of this
//! process and of every process below it (`/proc/PID/stat`: utime, stime, and cutime, cstime of those that ended) is foreign load.
//! It is given as a share of what the machine's processors could have done. Source of the fields: proc(5).
//!
//! What cannot be seen: others that share a core or the memory from outside of a virtual machine, unless it shows as steal.

use std::collections::BTreeMap;
use std::time::Duration;

/// Ticks that the two sources may differ by without any foreign load: each is rounded for each processor.
const ROUNDING: u64 = 3;

/// The machine's time and our own, in ticks, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Of all processors, idle or not.
    all: u64,
    /// Of all processors, not idle.
    busy: u64,
    /// Of this process and those below it.
    own: u64,
}

impl Moment {
    /// Now; `None` where the system does not say.
    pub fn now() -> Option<Self> {
        let own = own(&processes(), std::process::id());
        let (all, busy) = machine(&std::fs::read_to_string("/proc/stat").ok()?)?;
        Some(Self { all, busy, own })
    }

    /// The share of the machine, from 0 to 1, that went to others since then.
    pub fn foreign(self, now: Self) -> f64 {
        let since = |then: u64, now: u64| now.saturating_sub(then);
        let foreign = since(self.busy, now.busy).saturating_sub(since(self.own, now.own));
        foreign.saturating_sub(ROUNDING) as f64 / since(self.all, now.all).max(1) as f64
    }
}

/// How much foreign load a measurement may have, and how often it is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// The most that is not noise, as a share of the machine.
    pub limit: f64,
    /// Times that a measurement with more is repeated.
    pub repeats: usize,
    /// Before each of these.
    pub pause: Duration,
}

impl Guard {
    /// The usual one: 3 % of the machine, two repetitions.
    pub const USUAL: Self = Self { limit: 0.03, repeats: 2, pause: Duration::from_secs(2) };

    /// Measures until a measurement is quiet; the quietest if none is. Beside it stands its foreign load, `None` where the
    /// system does not say.
    pub fn quiet<T, E>(&self, mut measure: impl FnMut() -> Result<T, E>) -> Result<(T, Option<f64>), E> {
        self.quietest(&mut || {
            let before = Moment::now();
            let result = measure()?;
            Ok((result, before.zip(Moment::now()).map(|(before, after)| before.foreign(after))))
        })
    }

    fn quietest<T, E>(&self, measure: &mut dyn FnMut() -> Result<(T, Option<f64>), E>) -> Result<(T, Option<f64>), E> {
        let mut best = measure()?;
        for _ in 0..self.repeats {
            if best.1.is_none_or(|foreign| foreign <= self.limit) {
                break;
            }
            std::thread::sleep(self.pause);
            let next = measure()?;
            if next.1.is_none_or(|foreign| best.1.is_none_or(|least| foreign < least)) {
                best = next;
            }
        }
        Ok(best)
    }
}

/// All ticks and busy ones. The ticks of guests are in those of `user` and `nice` already.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line.split_ascii_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
    // Kernels before 2.6.11 have no steal.
    let [user, nice, system, idle, iowait, irq, softirq, ref steal @ ..] = *ticks else { return None };
    let busy = user + nice + system + irq + softirq + steal.iter().sum::<u64>();
    Some((busy + idle + iowait, busy))
}

/// A process: its parent, and its ticks with those of its children that ended.
fn process(stat: &str) -> Option<(u32, u64)> {
    // The name stands in brackets and may hold anything, brackets and blanks too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|n| n.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((fields.get(1)?.parse().ok()?, ticks))
}

fn processes() -> BTreeMap<u32, (u32, u64)> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let ids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ended meanwhile is in its parent's time.
    ids.filter_map(|id| Some((id, process(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?))).collect()
}

/// The ticks of a process and of all below it.
fn own(processes: &BTreeMap<u32, (u32, u64)>, root: u32) -> u64 {
    let below = |mut id: u32| {
        // A chain of parents is no longer than there are processes.
        for _ in 0..=processes.len() {
            match processes.get(&id) {
                _ if id == root => return true,
                Some((parent, _)) => id = *parent,
                None => return false,
            }
        }
        false
    };
    processes.iter().filter(|(id, _)| below(**id)).map(|(_, (_, ticks))| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_is_what_is_not_ours() {
        let text = |user: u64, idle: u64, steal: u64| {
            format!("cpu  {user} 10 20 {idle} 5 1 2 {steal} 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 5\n")
        };
        assert_eq!(machine(&text(100, 1000, 4)), Some((1142, 137)));
        assert_eq!(machine("cpu  1 2 3 4 5 6 7\n"), Some((28, 19)));
        assert_eq!(machine("cpu  1 2 x 4 5 6 7\n"), None);
        assert_eq!(machine("intr 5\n"), None);
        let at = |all, busy, own| Moment { all, busy, own };
        let start = at(1000, 500, 100);
        assert_eq!(start.foreign(at(2000, 1400, 1000)), 0.0);
        assert_eq!(start.foreign(at(2000, 1400, 997)), 0.0, "rounding");
        assert_eq!(start.foreign(at(2000, 1400, 697)), 0.3);
        assert_eq!(start.foreign(at(1000, 500, 120)), 0.0, "no time has passed");
    }

    #[test]
    fn own_time_is_that_of_a_tree() {
        assert_eq!(process("7 (a) (b c) S 3 7 7 0 -1 0 0 0 0 0 11 22 33 44 20 0 1"), Some((3, 110)));
        assert_eq!(process("7 (a) S 3 7"), None);
        let all = BTreeMap::from([(1, (0, 1)), (5, (1, 10)), (6, (5, 100)), (7, (6, 1000)), (8, (1, 5)), (9, (9, 3))]);
        assert_eq!((own(&all, 5), own(&all, 1), own(&all, 4)), (1110, 1116, 0));
        #[cfg(target_os = "linux")]
        assert!(Moment::now().is_some_and(|now| now.all > now.busy && now.busy > 0 && now.own < now.busy));
    }

    #[test]
    fn a_noisy_measurement_is_repeated_and_the_quietest_counts() {
        let guard = Guard { limit: 0.05, repeats: 2, pause: Duration::ZERO };
        let run = |loads: &[Option<f64>]| {
            let mut asked = 0;
            let best = guard.quietest(&mut || {
                asked += 1;
                loads.get(asked - 1).map(|load| (asked, *load)).ok_or("no more")
            });
            (best, asked)
        };
        assert_eq!(run(&[Some(0.05)]), (Ok((1, Some(0.05))), 1));
        assert_eq!(run(&[Some(0.3), Some(0.01)]), (Ok((2, Some(0.01))), 2));
        assert_eq!(run(&[Some(0.3), Some(0.2), Some(0.4), Some(0.0)]), (Ok((2, Some(0.2))), 3));
        assert_eq!(run(&[None]), (Ok((1, None)), 1));
        assert_eq!(run(&[Some(0.3)]), (Err("no more"), 2));
    }
}
