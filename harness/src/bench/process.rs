//! A child process that is measured from outside: its output, how long it took, how much memory it had.

use bitnet_engine::memory::bytes_of;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a child's memory is looked at. The mark is a maximum that only rises, so only what is had for the first time in
/// a child's last moments can be missed.
const LOOK: Duration = Duration::from_millis(5);

/// What a child left.
#[derive(Debug)]
pub struct Ran {
    pub out: String,
    /// Seconds from before its start to after its end.
    pub seconds: f64,
    /// The most memory it had, in bytes.
    pub peak_rss: Option<u64>,
}

/// Why a child left nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {program}: {source}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} ended with {status}{}", tail(stderr))]
    Ended { program: String, status: String, stderr: String },
    #[error("{program} did not end within {} s and was killed{}", limit.as_secs(), tail(stderr))]
    TimedOut { program: String, limit: Duration, stderr: String },
}

fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].iter().map(|line| format!("\n  | {line}")).collect()
}

/// Runs a program to its end, which must be a success within `limit`.
///
/// # Errors
/// It cannot be started, fails, or takes too long.
pub fn run(program: &Path, args: &[String], limit: Duration) -> Result<Ran, ProcessError> {
    let name = program.display().to_string();
    let failed = |source| ProcessError::Start { program: name.clone(), source };
    let started = Instant::now();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let mut peak = None;
    let ended = loop {
        peak = peak_rss(child.id()).max(peak);
        match child.try_wait().map_err(failed)? {
            Some(status) => break Some(status),
            None if started.elapsed() > limit => {
                kill(&mut child);
                break None;
            }
            None => std::thread::sleep(LOOK),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    let Some(status) = ended else {
        // Not joined: a grandchild may keep the pipes open.
        return Err(ProcessError::TimedOut { program: name, limit, stderr: String::new() });
    };
    let (out, stderr) = (text(out), text(err));
    if status.success() {
        Ok(Ran { out, seconds, peak_rss: peak })
    } else {
        Err(ProcessError::Ended { program: name, status: status.to_string(), stderr })
    }
}

fn read(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a pipe broke is what there is.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn kill(child: &mut Child) {
    // One that has ended meanwhile needs no killing.
    let _ = child.kill();
    let _ = child.wait();
}

/// The most memory that a running process has had (`VmHWM`), in bytes; `None` where the system does not say, or it is gone.
pub fn peak_rss(process: u32) -> Option<u64> {
    bytes_of(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmHWM:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: u64) -> Result<Ran, ProcessError> {
        run(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], Duration::from_millis(limit))
    }

    #[test]
    fn what_a_child_leaves() {
        let ran = sh("echo a; sleep 0.05; echo b >&2; echo c", 20_000).expect("a run");
        assert_eq!(ran.out, "a\nc\n");
        assert!(ran.seconds >= 0.05);
        if cfg!(target_os = "linux") {
            assert!(ran.peak_rss.expect("Linux says it") > 100_000);
        }
    }

    #[test]
    fn a_child_that_fails_hangs_or_is_not_there() {
        let failed = sh("echo 1; echo no such model >&2; exit 3", 20_000).expect_err("exit 3").to_string();
        assert!(failed.contains("exit status: 3") && failed.ends_with("| no such model"), "{failed}");
        let hung = sh("exec sleep 30", 50).expect_err("a limit").to_string();
        assert!(hung.contains("did not end within"), "{hung}");
        let gone = run(Path::new("/no/such/program"), &[], LOOK).expect_err("nothing there").to_string();
        assert!(gone.starts_with("cannot start /no/such/program"), "{gone}");
    }

    #[test]
    fn the_mark_is_read_from_the_status() {
        let of_status = |status| bytes_of(status, "VmHWM:");
        assert_eq!(of_status("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    12 kB\nVmRSS:\t 3 kB\n"), Some(12 * 1024));
        assert_eq!(of_status("Name:\tx\n"), None);
        assert_eq!(of_status("VmHWM:\tmany kB"), None);
    }
}
