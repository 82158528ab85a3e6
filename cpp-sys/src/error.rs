//! What can go wrong with a worker. Nothing that it does is a crash of ours.

use std::path::PathBuf;
use std::time::Duration;

/// An error of a worker or of talking to it.
///
/// After [`CppError::Died`], [`CppError::TimedOut`] and [`CppError::Protocol`] the session is over and its process is gone;
/// start another. After [`CppError::Refused`] it goes on.
#[derive(Debug, thiserror::Error)]
pub enum CppError {
    #[error("cannot start {}: {source}; build it again: {command}", program.display())]
    Start { program: PathBuf, source: std::io::Error, command: String },
    #[error("the {backend} worker died during {during} ({status}){}", tail(stderr))]
    Died { backend: String, during: String, status: String, stderr: Vec<String> },
    #[error("the {backend} worker did not answer within {} s during {during}, and was killed{}", limit.as_secs_f64(), tail(stderr))]
    TimedOut { backend: String, during: String, limit: Duration, stderr: Vec<String> },
    #[error("{backend} refused {during}: {message}{}", tail(stderr))]
    Refused { backend: String, during: String, message: String, stderr: Vec<String> },
    /// The worker said something that the protocol does not allow, and was killed.
    #[error("the {backend} worker broke the protocol during {during}: {problem}{}", tail(stderr))]
    Protocol { backend: String, during: String, problem: String, stderr: Vec<String> },
    #[error("this session with the {backend} worker is over ({earlier}): start another")]
    Closed { backend: String, earlier: String },
}

impl CppError {
    /// Whether the session can go on.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

fn tail(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  | {line}")).collect()
}
