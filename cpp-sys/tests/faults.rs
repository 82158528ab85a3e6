//! What a worker can do wrong, and that each is an error of ours within its time limit: no crash, no hang, no zombie.
//!
//! The program has two roles. As a test it starts sessions with small scripts that start *itself* as a worker, in the
//! role that `FAKE_WORKER` names; so a plain `cargo test` shows all this without any C++. The same faults with the real
//! workers are in the harness (`tests/suite/cpp_workers.rs`).

#![cfg(unix)]

#[path = "faults/fake.rs"]
mod fake;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cpp_sys::{BuildInfo, CppBackend, CppError, Fault, Installed, LoadOptions, Positions, Session, SessionOptions};
use fake::VOCAB;
use libtest_mimic::{Arguments, Failed, Trial};

const ROLE: &str = "FAKE_WORKER";

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return fake::play(&role);
    }
    // Before there are threads: a fork while a script is open for writing makes it "busy" for exec.
    let dir = tempfile::tempdir().expect("folder");
    for role in fake::roles() {
        write_script(dir.path(), role);
    }
    SCRIPTS.set(dir.path().to_owned()).expect("set once");
    let trials = CASES.iter().map(|(name, case)| {
        // A failed assertion is a panic, which libtest-mimic turns into a failure with its message.
        Trial::test(*name, move || {
            case();
            Ok::<(), Failed>(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

type Case = (&'static str, fn());
const CASES: &[Case] = &[
    ("a_good_worker_answers_everything", good),
    ("refusals_leave_the_session_alive", refusals),
    ("a_worker_that_dies_is_reported_with_its_last_lines", dies),
    ("a_killed_worker_is_reported_and_the_next_session_runs", killed),
    ("a_stopped_worker_is_killed_at_the_time_limit", stopped),
    ("a_large_request_to_a_stopped_worker_does_not_block", stopped_at_a_large_request),
    ("a_silent_worker_is_killed_at_the_time_limit", silent),
    ("a_stopped_worker_is_killed_when_nobody_wants_it_any_more", dropped),
    ("text_in_place_of_a_frame_is_a_protocol_error", chatter),
    ("lengths_over_the_limits_are_protocol_errors", over_long),
    ("a_frame_cut_short_is_a_death", cut),
    ("a_header_that_is_no_answer_is_a_protocol_error", garbage),
    ("an_answer_to_another_request_is_a_protocol_error", other_id),
    ("requests_are_counted", counted),
    ("a_load_has_a_limit_of_its_own", slow_load),
    ("a_body_of_the_wrong_length_is_a_protocol_error", wrong_body),
    ("another_version_or_backend_is_turned_away", strangers),
    ("a_worker_that_floods_stderr_stops_nobody", flood),
    ("a_program_that_is_not_there_is_said_with_its_command", no_program),
];

/// Longest that a case may take beyond the time limits that it sets: machines are busy.
const SLACK: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_millis(700);

static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();

fn write_script(dir: &Path, role: &str) {
    let (program, this) = (dir.join(role), std::env::current_exe().expect("this program"));
    let script = format!("#!/bin/sh\n{ROLE}={role} exec '{}'\n", this.display());
    std::fs::write(&program, script).expect("script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn started(role: &str, options: SessionOptions) -> Result<Session, CppError> {
    let program = SCRIPTS.get().expect("scripts").join(role);
    assert!(program.is_file(), "no role {role}");
    Session::start(&Installed { backend: CppBackend::Llama, program, build: BuildInfo::default() }, options)
}

fn patient() -> SessionOptions {
    SessionOptions { timeout: SLACK, load_timeout: SLACK, ..SessionOptions::default() }
}

/// A session with a toy in it that waits `timeout` for an answer.
fn loaded(role: &str, timeout: Duration) -> Session {
    let mut session = started(role, SessionOptions { timeout, ..patient() }).expect("hello");
    session.load("toy.gguf".as_ref(), LoadOptions::default()).expect("load");
    session
}

/// Gone for good: no child of ours has this id any more, not even a dead one.
fn reaped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    parent != Some(std::process::id().to_string().as_str())
}

fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill").success());
}

fn good() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let log = Arc::new(move |line: &str| sink.lock().expect("lines").push(line.to_owned()));
    let mut session = started("good", SessionOptions { log: Some(log), ..patient() }).expect("hello");
    assert_eq!(session.hello().backend, "llama");
    let info = session.load("toy.gguf".as_ref(), LoadOptions::default()).expect("load");
    assert_eq!((info.vocab_size, info.context), (VOCAB, 512));
    assert_eq!(session.tokenize("ab", true, false).expect("ids"), [1, 97, 98]);
    assert_eq!(session.detokenize(&[97, 98], false).expect("text"), b"ab");
    let logits = session.logits(&[3, 5], &Positions::All, 4).expect("logits");
    assert_eq!((logits.positions.as_slice(), logits.vocab), ([0, 1].as_slice(), VOCAB));
    let best: Vec<Option<usize>> = logits.rows().map(|row| row.iter().position(|value| *value == 1.0)).collect();
    assert_eq!(best, [Some(4), Some(6)]);
    let some = session.logits(&[3, 5, 9], &Positions::List(vec![2]), 1).expect("logits");
    assert_eq!((some.positions, some.values.len()), (vec![2], VOCAB));
    assert_eq!(session.generate(&[3], 3).expect("ids").tokens, [4, 5, 6]);
    assert_eq!(session.generate(&[250], 9).expect("ids").tokens, [251, 252, 253, 254, 255], "it may end before");
    assert!(format!("{session:?}").contains("llama"), "{session:?}");
    assert!(format!("{:?}", SessionOptions::default()).contains("timeout: 120s"));
    assert_eq!((session.timings().of("generate").calls, session.timings().of("generate").tokens), (2, 14));
    let trace = session.trace(&[3, 5], &["output".to_owned()]).expect("trace");
    assert_eq!(trace.iter().map(|step| (step.rows, step.width, step.values.len())).collect::<Vec<_>>(), [(2, 3, 6)]);
    assert_eq!((session.timings().of("logits").calls, session.timings().of("logits").tokens), (2, 5));
    let pid = session.process_id().expect("a process");
    drop(session);
    assert!(reaped(pid));
    let lines = lines.lock().expect("lines");
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("logits of 3 tokens")), "{lines:?}");
}

fn refused<T: std::fmt::Debug>(result: Result<T, CppError>, words: &str) {
    match result {
        Err(CppError::Refused { message, .. }) => assert!(message.contains(words), "{words}: {message}"),
        other => panic!("{words}: {other:?}"),
    }
}

fn refusals() {
    let mut session = started("good", patient()).expect("hello");
    refused(session.tokenize("a", true, true), "no model is loaded");
    let error = session.load("missing.gguf".as_ref(), LoadOptions::default()).expect_err("not there");
    assert!(error.to_string().ends_with("missing.gguf: no such file\n  | error: open"), "{error}");
    assert!(!error.is_final(), "a refusal leaves the session alive");
    session.load("toy.gguf".as_ref(), LoadOptions::default()).expect("load");
    let all = Positions::All;
    refused(session.logits(&[], &all, 1), "1 to 512 fit");
    refused(session.logits(&[300], &all, 1), "token 300 is not in the vocabulary of 256");
    refused(session.logits(&[0; 513], &all, 1), "513 tokens");
    refused(session.logits(&[1], &Positions::List(vec![1]), 1), "positions must ascend");
    refused(session.logits(&[1, 2], &Positions::List(vec![1, 0]), 1), "positions must ascend");
    refused(session.logits(&[1, 2], &Positions::List(vec![1, 1]), 1), "positions must ascend");
    refused(session.generate(&[1], 512), "513 tokens");
    refused(session.trace(&[300], &[]), "token 300");
    refused(session.provoke(Fault::Assert), "Assert is for real workers");
    session.load("toy.gguf".as_ref(), LoadOptions { vocab_only: true, ..LoadOptions::default() }).expect("load");
    refused(session.logits(&[1], &all, 1), "only the vocabulary");
    assert_eq!(session.tokenize("a", false, false).expect("still alive"), [97]);
}

/// Asks a worker that misbehaves, and sees that the session is over and the process gone.
fn ends(session: &mut Session) -> CppError {
    let pid = session.process_id().expect("a process");
    let begin = Instant::now();
    let error = session.logits(&[1, 2], &Positions::All, 8).expect_err("it misbehaves");
    assert!(begin.elapsed() < LIMIT + SLACK, "{:?}", begin.elapsed());
    assert!(error.is_final(), "{error}");
    assert!(reaped(pid), "{pid} is still there after {error}");
    assert_eq!(session.process_id(), None);
    let again = session.tokenize("a", false, false).expect_err("it is over");
    assert!(matches!(&again, CppError::Closed { .. }) && again.to_string().contains("start another"), "{again}");
    error
}

fn dies() {
    match ends(&mut loaded("dies", SLACK)) {
        CppError::Died { during, status, stderr, backend } => {
            assert_eq!((during.as_str(), backend.as_str()), ("logits of 2 tokens", "llama.cpp"));
            assert!(status.contains('3'), "{status}");
            assert_eq!(stderr.last().map(String::as_str), Some("GGML_ASSERT(false) failed"));
        }
        other => panic!("{other}"),
    }
}

fn killed() {
    let mut session = loaded("silent", SLACK);
    let pid = session.process_id().expect("a process");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        signal(pid, "KILL");
    });
    match ends(&mut session) {
        CppError::Died { status, .. } => assert!(status.contains("SIGKILL"), "{status}"),
        other => panic!("{other}"),
    }
    killer.join().expect("killer");
    assert_eq!(loaded("good", SLACK).tokenize("a", false, false).expect("the next one runs"), [97]);
}

fn stopped() {
    let mut session = loaded("good", LIMIT);
    signal(session.process_id().expect("a process"), "STOP");
    assert!(matches!(ends(&mut session), CppError::TimedOut { limit: LIMIT, .. }));
}

fn stopped_at_a_large_request() {
    let mut session = loaded("good", LIMIT);
    signal(session.process_id().expect("a process"), "STOP");
    let begin = Instant::now();
    // More than a pipe holds.
    let error = session.tokenize(&"x".repeat(4 << 20), false, false).expect_err("it is stopped");
    assert!(matches!(error, CppError::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() < LIMIT + SLACK);
}

/// It does not hear that its stdin has ended.
fn dropped() {
    let session = loaded("good", SLACK);
    let pid = session.process_id().expect("a process");
    signal(pid, "STOP");
    let begin = Instant::now();
    drop(session);
    assert!(begin.elapsed() < SLACK && reaped(pid), "{:?}", begin.elapsed());
}

fn silent() {
    match ends(&mut loaded("silent", LIMIT)) {
        CppError::TimedOut { during, limit, .. } => {
            assert_eq!((during.as_str(), limit), ("logits of 2 tokens", LIMIT));
        }
        other => panic!("{other}"),
    }
}

fn protocol(role: &str, words: &str) {
    match ends(&mut loaded(role, SLACK)) {
        CppError::Protocol { problem, .. } => assert!(problem.contains(words), "{role}: {problem}"),
        other => panic!("{role}: {other}"),
    }
}

fn chatter() {
    protocol("chatter", "the frame begins with llama_print");
}

fn over_long() {
    protocol("long-header", "a header of 4294967295 bytes");
    protocol("long-body", "a body of");
}

fn cut() {
    assert!(matches!(ends(&mut loaded("cut", SLACK)), CppError::Died { .. }));
}

fn garbage() {
    protocol("no-json", "the header is not an answer");
    protocol("no-outcome", "the header is not an answer");
    protocol("no-rows", "the answer's header");
}

fn other_id() {
    protocol("other-id", "an answer to request 999");
}

fn counted() {
    let logits = loaded("third", SLACK).logits(&[1, 2], &Positions::All, 1).expect("the id that was sent");
    assert_eq!(logits.values, [0.0; 2 * VOCAB]);
}

fn slow_load() {
    let mut session = started("slow-load", SessionOptions { timeout: Duration::from_millis(100), ..patient() });
    let session = session.as_mut().expect("hello");
    session.load("toy.gguf".as_ref(), LoadOptions::default()).expect("longer than other requests may take");
}

fn wrong_body() {
    protocol("odd-body", "a body of 5 bytes for values");
    protocol("short-body", "2 rows of 256 and 1 values");
    protocol("other-positions", "1 rows of 256");
    let error = loaded("too-many", SLACK).generate(&[1], 2).expect_err("more than were asked for");
    assert!(error.is_final() && error.to_string().contains("3 tokens"), "{error}");
}

fn strangers() {
    for (role, words) in [("old", "speaks version 99"), ("bitnet", "it is the worker of `bitnet`")] {
        match started(role, patient()) {
            Err(CppError::Protocol { problem, during, .. }) => {
                assert!(problem.contains(words) && during == "hello", "{problem}");
            }
            other => panic!("{role}: {other:?}"),
        }
    }
}

fn flood() {
    let logits = loaded("flood", SLACK).logits(&[1], &Positions::All, 1).expect("it answers");
    assert_eq!(logits.values.len(), VOCAB);
}

fn no_program() {
    let program = "/no/such/program".into();
    let installed = Installed { backend: CppBackend::BitNet, program, build: BuildInfo::default() };
    let error = Session::start(&installed, SessionOptions::default()).expect_err("nothing there");
    assert!(error.to_string().contains("cargo xtask setup-cpp bitnet"), "{error}");
}
