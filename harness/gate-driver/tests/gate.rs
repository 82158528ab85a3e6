//! The gate can be red, and is not by itself, on a driver that this run of cargo built.
//!
//! ```text
//! cargo test --test gate
//! cargo test --test gate -- --require valgrind      a machine without valgrind is a failure
//! ```
//!
//! The driver is whatever profile the test is, so the baseline is its own first run: it is the gate that is proven here, not
//! the kernels. `cargo xtask gate --self-test` does the same with the release build and the committed baselines.

use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::gate::driver::{Driver, valgrind};
use bitnet_harness::gate::{GateError, GateOutcome, proof, ratios};
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let needs_valgrind = match valgrind() {
        Ok(_) => Availability::Available,
        Err(GateError::NoValgrind { reason, remedy }) => Availability::unavailable("valgrind", reason, remedy),
        Err(error) => Availability::unavailable("valgrind", error.to_string(), "cargo xtask gate"),
    };
    let named = |name: &str, availability: &Availability, run: fn() -> Result<(), Failure>| Named {
        name: name.to_owned(),
        availability: availability.clone(),
        run: Arc::new(run),
    };
    let roster = Roster {
        target: "gate",
        require_twin: "GATE_REQUIRE",
        requirable: vec!["valgrind".to_owned()],
        trials: vec![
            named("instructions::ten_quiet_runs_and_a_planted_tenth", &needs_valgrind, counts),
            named("instructions::a_case_that_is_not_there", &needs_valgrind, nothing),
            named("ratios::twice_the_work_is_half_the_speed", &Availability::Available, twice),
            named("driver::counting_without_valgrind_is_refused", &Availability::Available, refused),
        ],
    };
    roster.main(&argv, &Env::read())
}

fn driver(cases: &[&str]) -> Driver {
    Driver {
        program: PathBuf::from(env!("CARGO_BIN_EXE_gate-driver")),
        cases: cases.iter().map(|case| (*case).to_owned()).collect(),
        plant: 0,
        fall_back: false,
    }
}

/// One case of each kind, one that allocates among them: that is what might differ from run to run.
fn counts() -> Result<(), Failure> {
    let driver = driver(&["gemv/i2_s", "gemm/tq2_0", "int8-token", "rms-norm", "attention", "gemv/f16", "unpack/tl2"]);
    let proof = proof::of_counts(&driver, None, 10, proof::least_plant())?;
    println!("{proof:?}");
    if proof.quiet != [GateOutcome::Green; 10] || proof.spread_percent >= 0.1 {
        return Err(Failure::new(format_args!("quiet runs differ: {proof:?}")));
    }
    // Every case is seen, not one of them.
    if proof.planted != GateOutcome::Red || proof.seen != proof.cases || proof.cases < 7 {
        return Err(Failure::new(format_args!("a planted slowdown was not seen: {proof:?}")));
    }
    Ok(())
}

fn nothing() -> Result<(), Failure> {
    match driver(&["no-such-case"]).count(&["scalar"]) {
        Err(error) if error.to_string().contains("no case begins with no-such-case") => Ok(()),
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

/// A ratio means what it says: with the work of one side doubled it halves, within the noise of a busy machine.
fn twice() -> Result<(), Failure> {
    let quiet = driver(&["gemv/f32"]);
    let pairs = ratios::arguments(&ratios::pairs(&quiet.build()?));
    let pairs = pairs.get(..1).ok_or_else(|| Failure::new("the table has one kernel set"))?;
    let (timed, slow) = (quiet.time(pairs)?, Driver { plant: 100, ..quiet.clone() }.time(pairs)?);
    match (timed.paired.as_slice(), slow.paired.as_slice()) {
        ([quiet], [slow]) if (1.2..5.0).contains(&(quiet.ratio / slow.ratio)) => Ok(()),
        ([], []) if !timed.unavailable.is_empty() => {
            // Nothing but plain Rust runs here; the driver said so, and why.
            println!("{:?}", timed.unavailable);
            Ok(())
        }
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

fn refused() -> Result<(), Failure> {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_gate-driver")).args(["count", "scalar"]).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() && (said.contains("under valgrind only") || said.contains("written for x86_64")) {
        return Ok(());
    }
    Err(Failure::new(format_args!("{}: {said}", out.status)))
}
