//! A worker's process and its three pipes.
//!
//! Each pipe has a thread: writing to a stopped process blocks, reading from a silent one blocks, and a full stderr pipe
//! would stop a worker that logs much. The threads end when their pipe closes, which killing the process brings about.

use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::frame::{self, Frame, FrameError};

/// Lines of stderr that are kept, and bytes of each.
const LINES: usize = 40;
const LINE: usize = 400;
/// How long a process that closed its stdout, or was told to go, may take to end, and its stderr after it.
const GRACE: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(crate) enum Broken {
    /// The process ended; its status in words.
    Died(String),
    TimedOut,
    Garbage(FrameError),
}

pub(crate) struct Process {
    child: Child,
    to: Option<Sender<Vec<u8>>>,
    from: Receiver<Result<Frame, FrameError>>,
    stderr: Arc<Mutex<Tail>>,
    listener: JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(program: &Path) -> std::io::Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // At an assertion ggml starts a debugger, which holds the pipes open and may outlive the time limit. Today's
            // can be told not to; the fork's finds none.
            .env("GGML_NO_BACKTRACE", "1")
            .env("PATH", "/nonexistent")
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(std::io::Error::other("the process has no pipes"));
        };
        let (to, requests) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for bytes in requests {
                // A process that is gone shows itself at the other pipe.
                if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
                    break;
                }
            }
        });
        // Bounded: a worker that babbles waits, instead of filling our memory.
        let (frames, from) = sync_channel(1);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let frame = frame::read(&mut stdout);
                let last = frame.is_err();
                if frames.send(frame).is_err() || last {
                    break;
                }
            }
        });
        let tail = Arc::new(Mutex::new(Tail::default()));
        let listener = std::thread::spawn({
            let tail = Arc::clone(&tail);
            move || listen(stderr, &tail)
        });
        Ok(Self { child, to: Some(to), from, stderr: tail, listener })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends bytes and waits for a frame. After an error the process is gone.
    pub(crate) fn exchange(&mut self, bytes: Vec<u8>, limit: Duration) -> Result<Frame, Broken> {
        if let Some(to) = &self.to {
            // The writer is gone only if the process is, and that shows below.
            let _ = to.send(bytes);
        }
        match self.from.recv_timeout(limit) {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(FrameError::TooLong { part, length, limit, start })) => {
                self.end();
                Err(Broken::Garbage(FrameError::TooLong { part, length, limit, start }))
            }
            Ok(Err(FrameError::Ended | FrameError::Cut { .. } | FrameError::Io(_)))
            | Err(RecvTimeoutError::Disconnected) => {
                let status = match self.wait(GRACE) {
                    Some(status) => status,
                    None => "it closed its stdout and went on; killed".to_owned(),
                };
                self.end();
                Err(Broken::Died(status))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                Err(Broken::TimedOut)
            }
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }

    fn wait(&mut self, limit: Duration) -> Option<String> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return None,
                Err(error) => return Some(format!("its status is unknown: {error}")),
            }
        }
    }

    /// Kills and reaps.
    pub(crate) fn end(&mut self) {
        self.to = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What the process said last is still in the pipe; a child of its own may hold that pipe open, so not for ever.
        let start = Instant::now();
        while !self.listener.is_finished() && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its stdin asks a worker to go.
        self.to = None;
        if self.wait(GRACE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn listen(mut stderr: impl Read, tail: &Mutex<Tail>) {
    let mut buffer = [0_u8; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => tail.lock().unwrap_or_else(PoisonError::into_inner).push(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// The last lines of a stream, in bounded memory.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    current: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.line(),
                _ if self.current.len() < LINE => self.current.push(*byte),
                _ => {}
            }
        }
    }

    fn line(&mut self) {
        let line = String::from_utf8_lossy(&self.current).trim_end().to_owned();
        self.current.clear();
        if !line.is_empty() {
            self.lines.push_back(line);
        }
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    fn lines(&mut self) -> Vec<String> {
        self.line();
        self.lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as a pipe may that a signal interrupts, and that fails in the end.
    struct Interrupted(Vec<std::io::Result<&'static [u8]>>);

    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some(next) = self.0.pop() else { panic!("read behind a failure") };
            next.map(|bytes| {
                buffer[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            })
        }
    }

    #[test]
    fn a_signal_is_no_end_and_a_failure_is() {
        let fails = |kind: std::io::ErrorKind| Err(kind.into());
        let (interrupted, broken) = (std::io::ErrorKind::Interrupted, std::io::ErrorKind::BrokenPipe);
        let tail = Mutex::default();
        listen(Interrupted(vec![fails(broken), Ok(b"two\n"), fails(interrupted), Ok(b"one\n")]), &tail);
        assert_eq!(tail.into_inner().unwrap_or_else(PoisonError::into_inner).lines(), ["one", "two"]);
    }

    /// A process that does what a script says.
    fn script(text: &str) -> (tempfile::TempDir, Process) {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("script");
        std::fs::write(&path, format!("#!/bin/sh\nPATH=/bin:/usr/bin\n{text}\n")).expect("script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        // Another test that starts a process at this moment has a copy of what is open for writing.
        for _ in 0..100 {
            match Process::start(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return (dir, other.expect("it starts")),
            }
        }
        panic!("the script stays busy");
    }

    #[test]
    fn the_end_is_an_end_with_the_last_words() {
        // Twelve zeros are a frame, which says that all else was written.
        let said = "echo first >&2; echo last >&2; head -c 12 /dev/zero; exec sleep 1000";
        let (_dir, mut process) = script(said);
        process.exchange(Vec::new(), Duration::from_secs(60)).expect("a frame");
        process.end();
        assert!(process.listener.is_finished(), "its stderr was read to the end");
        assert!(matches!(process.child.try_wait(), Ok(Some(_))), "it was killed");
        assert_eq!(process.last_lines(), ["first", "last"]);
    }

    #[test]
    fn what_a_child_says_a_moment_later_is_heard() {
        let (_dir, mut process) =
            script("(sleep 0.3; echo late >&2) >/dev/null & head -c 12 /dev/zero; exec sleep 1000");
        process.exchange(Vec::new(), Duration::from_secs(60)).expect("a frame");
        process.end();
        assert_eq!(process.last_lines(), ["late"]);
    }

    /// A child that it leaves behind holds its stderr open.
    #[test]
    fn nobody_waits_for_a_grandchild() {
        let (_dir, mut process) = script("sleep 30 >/dev/null </dev/null & head -c 12 /dev/zero; exec sleep 1000");
        process.exchange(Vec::new(), Duration::from_secs(60)).expect("a frame");
        let start = Instant::now();
        process.end();
        assert!(!process.listener.is_finished() && start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    /// Its status is waited for where its stdout ends first.
    #[test]
    fn a_slow_end_has_its_status() {
        let (_dir, mut process) = script("exec >&-; sleep 0.3; exit 7");
        match process.exchange(Vec::new(), Duration::from_secs(60)) {
            Err(Broken::Died(status)) => assert_eq!(status, "exit status: 7"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.push(format!("line {n}\n\n").as_bytes());
        }
        tail.push(&[b'x'; 10_000]);
        let lines = tail.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().map(String::len), Some(LINE));
        assert_eq!(lines.first().map(String::as_str), Some("line 61"));
    }
}
