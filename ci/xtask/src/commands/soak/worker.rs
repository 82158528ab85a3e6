//! One process of the soak: fetches what it wants, file by file, and notes the outcome. Killed and started again, it
//! goes on after its last note.

use anyhow::Context;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::{HubError, HubSettings, Source};
use bitnet_harness::hub;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const REPO: &str = "soak/repo";
/// Errors that the network forced on us before we call a file lost.
const TRIES: u32 = 40;

/// Name of file `n`.
pub(super) fn name(n: u64) -> String {
    format!("file-{n}.bin")
}

/// Contents of file `n`: 20 to 80 KB that do not compress.
pub(super) fn contents(n: u64) -> Vec<u8> {
    hub::noise(20_000 + usize::try_from(n * 7919 % 60_000).unwrap_or(0), n + 1000)
}

/// The cache that all share.
pub(super) fn cache(scratch: &Path) -> PathBuf {
    scratch.join("cache")
}

/// A client that asks for the branch every time: the hard case.
pub(super) fn settings(endpoint: &str, scratch: &Path) -> HubSettings {
    let mut settings = hub::settings(endpoint, &cache(scratch), None);
    settings.ref_ttl = Duration::ZERO;
    settings.retry.seed = None;
    settings.timeouts.stall = Duration::from_millis(400);
    settings.timeouts.overall = Duration::from_secs(60);
    settings
}

/// Fetches `wants`, from the first that has no note yet.
pub(super) fn work(wants: &[u64], planted: bool, endpoint: &str, scratch: &Path, worker: u64) -> anyhow::Result<()> {
    let folder = scratch.join("notes");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(worker.to_string());
    let mut done = 0;
    if path.is_file() {
        done = std::fs::read_to_string(&path)?.lines().filter(|line| settled(line)).count();
    }
    let mut file = std::fs::File::options().create(true).append(true).open(&path)?;
    // One write a note, so that a kill leaves a whole one or none.
    let mut note = |text: String| file.write_all(format!("{text}\n").as_bytes()).context("cannot write the notes");
    for &n in wants.iter().skip(done) {
        let mut tries = 0;
        loop {
            let client = BlockingDownload::new(settings(endpoint, scratch), None)?;
            let fetched = client.fetch(REPO, "main", &name(n)).and_then(|file| Ok((file.source, file.read()?)));
            let mut truth = contents(n);
            if let Some(byte) = truth.first_mut().filter(|_| planted && n == 0) {
                *byte = !*byte;
            }
            match fetched {
                Ok((Source::Network, bytes)) if *bytes == truth => break note(format!("sound {n} transferred"))?,
                Ok((_, bytes)) if *bytes == truth => break note(format!("sound {n}"))?,
                Ok(_) => break note(format!("wrong {n}"))?,
                Err(error) => {
                    tries += 1;
                    // None of these is the network's fault: the cache's, or ours.
                    let what = match &error {
                        HubError::Deadline { .. } => "hang",
                        HubError::Io { .. } | HubError::Corrupt { .. } | HubError::Client { .. } => "trouble",
                        _ => "error",
                    };
                    note(format!("{what} {n} {}", error.to_string().replace('\n', " ")))?;
                    if tries == TRIES {
                        break note(format!("lost {n}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether a note is the last word on a file.
fn settled(line: &str) -> bool {
    ["sound ", "wrong ", "lost "].iter().any(|word| line.starts_with(word))
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) lines: u64,
    pub(super) sound: u64,
    pub(super) transfers: u64,
    pub(super) wrong: u64,
    pub(super) errors: u64,
    pub(super) hangs: u64,
    pub(super) trouble: Vec<String>,
}

impl Notes {
    /// Reads them. Files that nobody has begun yet are empty.
    pub(super) fn read(scratch: &Path) -> anyhow::Result<Self> {
        let mut notes = Self::default();
        let folder = scratch.join("notes");
        if !folder.is_dir() {
            return Ok(notes);
        }
        for entry in std::fs::read_dir(&folder)? {
            for line in std::fs::read_to_string(entry?.path())?.lines() {
                notes.add(line);
            }
        }
        Ok(notes)
    }

    fn add(&mut self, line: &str) {
        self.lines += 1;
        match line.split(' ').next() {
            Some("sound") => {
                self.sound += 1;
                self.transfers += u64::from(line.ends_with("transferred"));
            }
            Some("wrong") => self.wrong += 1,
            Some("error") => self.errors += 1,
            Some("hang") => self.hangs += 1,
            // "lost" and "trouble", and whatever else may stand there: not what should.
            _ => self.trouble.push(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_counts_once() {
        let mut notes = Notes::default();
        for line in
            ["sound 1", "sound 2 transferred", "wrong 3", "error 4 why", "hang 5 why", "trouble 6 why", "lost 7", "so"]
        {
            notes.add(line);
        }
        assert_eq!((notes.lines, notes.sound, notes.transfers, notes.wrong), (8, 2, 1, 1));
        assert_eq!((notes.errors, notes.hangs, notes.trouble.len()), (1, 1, 3));
        assert_eq!(["sound 1", "wrong 3", "lost 7", "error 4 why"].map(settled), [true, true, true, false]);
    }
}
