//! A test target that is not the matrix, with trials that fail: in a program of its own, so that no `FAILED` stands in the
//! output of a green run.

use bitnet_harness::Availability;
use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::roster::{Named, Roster};
use std::process::ExitCode;
use std::sync::Arc;

use crate::cases::cases;
use crate::toy::{Ran, start};

cases![what_is_missing_is_shown_unless_it_is_required, failures_and_panics_are_red, requirements_are_checked];

/// The variable that makes this program the target.
pub(crate) const ROSTER: &str = "HARNESS_SELFTEST_ROSTER";

/// The target's role.
pub(crate) fn target(argv: &[String]) -> ExitCode {
    let named = |name: &str, availability, run: fn() -> Result<(), Failure>| Named {
        name: name.to_owned(),
        availability,
        run: Arc::new(run),
    };
    let gone = Availability::unavailable("v", "it is not here", "fetch it");
    let trials = vec![
        named("good", Availability::Available, || Ok(())),
        named("gone", gone, || Ok(())),
        named("bad", Availability::Available, || Err(Failure::new("wrong"))),
        named("panics", Availability::Available, || panic!("no")),
    ];
    let roster = Roster { target: "toy", require_twin: "MATRIX_REQUIRE", requirable: vec!["v".to_owned()], trials };
    roster.main(argv, &Env::read())
}

fn go(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let role = [(ROSTER, "1")];
    start(args, &[&role, env].concat())
}

fn what_is_missing_is_shown_unless_it_is_required() {
    go(&["good", "--exact"], &[]).is(0, "declared 4 = pass 1");
    go(&["gone", "--exact"], &[]).is(0, "unavailable 1").is(0, "to fix it: fetch it");
    let required = "it is required, but `v` is not available";
    go(&["gone", "--exact", "--require", "v"], &[]).is(101, required);
    go(&["gone", "--exact"], &[("MATRIX_REQUIRE", "v")]).is(101, required);
    go(&["gone", "--exact", "--ignored"], &[]).is(101, "it was asked to run");
    go(&["gone", "--exact"], &[("NEXTEST", "1")]).is(101, "it was asked to run");
}

fn failures_and_panics_are_red() {
    go(&["bad", "--exact"], &[]).is(101, "wrong");
    go(&["panics", "--exact"], &[]).is(101, "it panicked: no");
    go(&["nothing", "--exact"], &[]).is(0, "+ filtered 4");
    go(&["nothing", "--exact"], &[("NEXTEST", "1")]).is(2, "no trial is called nothing");
}

fn requirements_are_checked() {
    go(&["--require", "w"], &[]).is(2, "valid: v");
    go(&["--require"], &[]).is(2, "needs a value");
    go(&["--require=w"], &[]).is(2, "unknown name `w`");
}
