//! Trials that are not cells of the matrix, in one program, under the same law (`src/roster.rs`).
//!
//! ```text
//! cargo test --test suite
//! cargo test --test suite -- checkpoints::logits::bitnet
//! cargo test --test suite -- --require bitnet,llama cpp_workers       against the C++ references, which must be built
//! cargo test --test suite -- --require chromium report_page
//! ```
//!
//! | trials | what is shown |
//! |---|---|
//! | [`checkpoints`] | GGUFs that are made of HuggingFace's checkpoints |
//! | [`cpp_workers`] | the real workers of the C++ references, and how their faults are reported |
//! | [`references`] | the cross-validation on faults that were planted |
//! | [`report_page`] | the HTML report in a browser |
//!
//! What a trial lacks (a vocabulary, a worker, the browser) makes it `unavailable`; `--require NAME` (or `SUITE_REQUIRE`) makes
//! that a failure.

mod checkpoints;
mod cpp_workers;
mod references;
mod report_page;

use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies;
use cpp_sys::CppBackend;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let (argv, env): (Vec<String>, _) = (std::env::args().collect(), Env::read());
    let paths = Arc::new(Paths::discover(&env));
    let checkpoints = match checkpoints::trials(&paths) {
        Ok(trials) => trials,
        Err(failure) => {
            eprintln!("suite: nothing was run: {}", failure.message);
            return ExitCode::from(2);
        }
    };
    let trials = [
        ("checkpoints", checkpoints),
        ("cpp_workers", cpp_workers::trials(&paths)),
        ("references", references::trials()),
        ("report_page", report_page::trials()),
    ];
    let named = |(of, trials): (&str, Vec<Named>)| -> Vec<Named> {
        trials.into_iter().map(|trial| Named { name: format!("{of}::{}", trial.name), ..trial }).collect()
    };
    let fetched = vocabularies::ALL.iter().filter(|entry| entry.fixture.is_some()).map(|entry| entry.name);
    let requirable = fetched.chain(CppBackend::ALL.map(CppBackend::name)).chain([report_page::CHROMIUM]);
    Roster {
        target: "suite",
        require_twin: "SUITE_REQUIRE",
        requirable: requirable.map(str::to_owned).collect(),
        trials: trials.into_iter().flat_map(named).collect(),
    }
    .main(&argv, &env)
}

/// A trial that runs everywhere.
fn trial(name: impl Into<String>, run: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Named {
    Named { name: name.into(), availability: Availability::Available, run: Arc::new(run) }
}

/// Fails with a message unless `good`.
fn check(good: bool, message: impl std::fmt::Display) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::new(message)) }
}
