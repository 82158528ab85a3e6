//! What a soak must show, and what it showed.

use std::fmt;

/// Share of the duplicate downloads that must be avoided.
const AVOIDED: f64 = 0.9;

/// The figures of one soak.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Summary {
    /// Downloads that were wanted.
    pub(super) downloads: u64,
    /// Processes that wanted them.
    pub(super) processes: u64,
    pub(super) seed: u64,
    /// Different files.
    pub(super) files: u64,
    /// Downloads that ended with the right bytes.
    pub(super) sound: u64,
    /// Files with wrong bytes, handed out or in the cache.
    pub(super) corrupt: u64,
    /// Files that had been fetched and were not there at the end.
    pub(super) lost: u64,
    /// Calls that passed their deadline, and processes that fell silent.
    pub(super) hangs: u64,
    /// Errors of the cache or the client, which no network excuses.
    pub(super) trouble: Vec<String>,
    /// Errors that were reported because the network gave no other chance, and tried again by the caller.
    pub(super) errors: u64,
    /// Processes that were to be killed.
    pub(super) kills_wanted: u64,
    pub(super) kills: u64,
    /// Requests that the hub saw.
    pub(super) requests: u64,
    /// Requests with a fault (slowness does not count).
    pub(super) faulty: u64,
    /// Different faults that struck.
    pub(super) kinds: u64,
    /// Transfers that went on where an earlier one had ended.
    pub(super) resumed: u64,
    /// Downloads that used the network to the end.
    pub(super) transfers: u64,
    /// Bytes of the different files.
    pub(super) unique_bytes: u64,
    /// Bytes of all downloads, as if there were no cache.
    pub(super) wanted_bytes: u64,
    /// Bytes that really were sent, repetitions that faults and kills forced on us included.
    pub(super) sent_bytes: u64,
    pub(super) seconds: f64,
    /// Share of the bytes of duplicate downloads that were not sent, 0 to 1.
    pub(super) avoided: f64,
    /// The promises that were broken. Empty is good.
    pub(super) broken: Vec<String>,
}

impl Summary {
    /// Fills in what follows from the rest.
    pub(super) fn judge(&mut self) {
        let duplicate = self.wanted_bytes.saturating_sub(self.unique_bytes);
        let again = self.sent_bytes.saturating_sub(self.unique_bytes);
        self.avoided = if duplicate == 0 { 1.0 } else { 1.0 - again as f64 / duplicate as f64 };
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(text);
            }
        };
        promise(self.sound == self.downloads, format!("{} of {} downloads came", self.sound, self.downloads));
        promise(self.corrupt == 0, format!("{} corrupt files", self.corrupt));
        promise(self.lost == 0, format!("{} lost files", self.lost));
        promise(self.hangs == 0, format!("{} hangs", self.hangs));
        promise(self.trouble.is_empty(), format!("trouble: {}", self.trouble.join("; ")));
        promise(
            self.avoided > AVOIDED,
            format!("{:.1} % of the duplicate bytes were avoided, not {:.0} %", self.avoided * 100.0, AVOIDED * 100.0),
        );
        // A soak in which nothing went wrong shows nothing.
        promise(self.kills == self.kills_wanted, format!("{} of {} kills struck", self.kills, self.kills_wanted));
        promise(self.faulty > 0 && self.kinds > 1, "no fault struck".to_owned());
        self.broken = broken;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "soak: {} downloads of {} files by {} processes on one cache, seed {}, {:.1} s",
            self.downloads, self.files, self.processes, self.seed, self.seconds
        )?;
        writeln!(
            f,
            "faults: {} of {} requests, {} kinds; {} times kill -9; {} transfers resumed; {} errors reported and tried again",
            self.faulty, self.requests, self.kinds, self.kills, self.resumed, self.errors
        )?;
        writeln!(
            f,
            "bytes: {} wanted, {} of different files, {} sent: {:.1} % of the duplicates avoided; {} downloads used the network",
            self.wanted_bytes,
            self.unique_bytes,
            self.sent_bytes,
            self.avoided * 100.0,
            self.transfers
        )?;
        writeln!(
            f,
            "{} sound, {} corrupt, {} lost, {} hangs, {} other troubles",
            self.sound,
            self.corrupt,
            self.lost,
            self.hangs,
            self.trouble.len()
        )?;
        for text in &self.broken {
            writeln!(f, "BROKEN PROMISE: {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Plant = fn(&mut Summary);

    fn good() -> Summary {
        Summary {
            downloads: 100,
            sound: 100,
            kills_wanted: 3,
            kills: 3,
            faulty: 9,
            kinds: 4,
            unique_bytes: 1000,
            wanted_bytes: 10_000,
            sent_bytes: 1500,
            ..Summary::default()
        }
    }

    #[test]
    fn each_promise_can_be_broken() {
        let mut summary = good();
        summary.judge();
        assert_eq!(summary.broken, Vec::<String>::new());
        assert!((summary.avoided - (1.0 - 500.0 / 9000.0)).abs() < 1e-12);
        let plants: [(&str, Plant); 9] = [
            ("99 of 100", |s| s.sound = 99),
            ("1 corrupt", |s| s.corrupt = 1),
            ("1 lost", |s| s.lost = 1),
            ("1 hangs", |s| s.hangs = 1),
            ("trouble: disk", |s| s.trouble.push("disk".to_owned())),
            ("85.0 %", |s| s.sent_bytes = 2350),
            ("2 of 3 kills", |s| s.kills = 2),
            ("no fault", |s| s.faulty = 0),
            ("no fault", |s| s.kinds = 1),
        ];
        for (words, plant) in plants {
            let mut summary = good();
            plant(&mut summary);
            summary.judge();
            assert_eq!(summary.broken.len(), 1, "{words}: {:?}", summary.broken);
            assert!(summary.broken[0].contains(words), "{:?}", summary.broken);
            assert!(summary.to_string().contains("BROKEN PROMISE"));
        }
    }
}
