//! How their faults are reported.

use super::{PATIENCE, Stage, check};
use bitnet_harness::Failure;
use cpp_sys::{CppError, Fault, Positions, Session};
use std::time::{Duration, Instant};

/// Time limit of the requests that a fault hits.
const LIMIT: Duration = Duration::from_secs(2);

/// Sees that a session is over, its process gone, and that the next one runs.
fn over(stage: &Stage, session: &mut Session, pid: u32, error: &CppError) -> Result<(), Failure> {
    check(error.is_final(), format_args!("not final: {error}"))?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    check(parent != Some(std::process::id().to_string().as_str()), format_args!("{pid} is still our child: {stat}"))?;
    let closed = matches!(session.tokenize("x", true, false), Err(CppError::Closed { .. }));
    check(closed, "the session goes on after its end")?;
    let (mut next, _) = stage.loaded(PATIENCE)?;
    let tokens = next.tokenize("In the beginning", true, false)?;
    let logits = next.logits(&tokens, &Positions::All, 512)?;
    check(logits.positions.len() == tokens.len(), "the next session computes nothing")
}

fn id(session: &Session) -> Result<u32, Failure> {
    session.process_id().ok_or_else(|| Failure::new("no process"))
}

fn signal(pid: u32, name: &str) -> Result<(), Failure> {
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    check(status.success(), format_args!("kill -{name} {pid}: {status}"))
}

pub(crate) fn assert(stage: &Stage) -> Result<(), Failure> {
    let (mut session, _) = stage.loaded(PATIENCE)?;
    let pid = id(&session)?;
    match session.provoke(Fault::Assert) {
        Err(error @ CppError::Died { .. }) => {
            let text = error.to_string();
            check(text.contains("SIGABRT"), format_args!("no signal: {text}"))?;
            check(
                text.contains("GGML_ASSERT(fault != 0 && \"provoked\") failed"),
                format_args!("no assertion: {text}"),
            )?;
            over(stage, &mut session, pid, &error)
        }
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

pub(crate) fn kill(stage: &Stage) -> Result<(), Failure> {
    let (mut session, _) = stage.loaded(PATIENCE)?;
    let pid = id(&session)?;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        signal(pid, "KILL").map_err(|failure| failure.message)
    });
    // In mid-request: it would never answer.
    let answer = session.provoke(Fault::Hang);
    killer.join().map_err(|_| Failure::new("the killer panicked"))?.map_err(Failure::new)?;
    match answer {
        Err(error @ CppError::Died { .. }) if error.to_string().contains("SIGKILL") => {
            over(stage, &mut session, pid, &error)
        }
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

pub(crate) fn stop(stage: &Stage) -> Result<(), Failure> {
    let (mut session, _) = stage.loaded(LIMIT)?;
    let pid = id(&session)?;
    signal(pid, "STOP")?;
    let answer = session.tokenize("In the beginning", true, false).map(drop);
    timed_out(stage, &mut session, pid, answer)
}

pub(crate) fn hang(stage: &Stage) -> Result<(), Failure> {
    let (mut session, _) = stage.loaded(LIMIT)?;
    let pid = id(&session)?;
    let answer = session.provoke(Fault::Hang);
    timed_out(stage, &mut session, pid, answer)
}

fn timed_out(stage: &Stage, session: &mut Session, pid: u32, answer: Result<(), CppError>) -> Result<(), Failure> {
    match answer {
        Err(error @ CppError::TimedOut { .. }) => {
            check(error.to_string().contains("did not answer within 2 s"), &error)?;
            over(stage, session, pid, &error)
        }
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

pub(crate) fn chatter(stage: &Stage) -> Result<(), Failure> {
    let (mut session, _) = stage.loaded(PATIENCE)?;
    let tokens = session.tokenize("In the beginning", true, false)?;
    let before = Instant::now();
    session.provoke(Fault::Chatter)?;
    check(before.elapsed() < PATIENCE, "it took its whole patience")?;
    check(session.tokenize("In the beginning", true, false)? == tokens, "answers changed after the chatter")
}
