//! The commands of the cross-validation as a user runs them: exit codes, text, JSON, receipts.
//!
//! ```text
//! cargo test --test crossval
//! cargo test --test crossval -- --require bitnet,llama,smollm2
//! CROSSVAL_CLI_REQUIRE=bitnet cargo nextest run --test crossval
//! ```
//!
//! Trials `cli::*` need no reference. Trials `bitnet::*` and `llama::*` run the live worker, which `cargo xtask
//! setup-cpp all` builds; without it they are `unavailable`.

#[path = "crossval/alone.rs"]
mod alone;
#[path = "crossval/live.rs"]
mod live;
#[path = "crossval/tool.rs"]
mod tool;

use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let trials = [alone::trials(), live::trials()].concat();
    let roster = Roster {
        target: "crossval",
        require_twin: "CROSSVAL_CLI_REQUIRE",
        requirable: ["bitnet", "llama", live::SMOLLM2].map(str::to_owned).to_vec(),
        trials,
    };
    roster.main(&argv, &Env::read())
}

fn trial(
    name: impl Into<String>,
    availability: Availability,
    run: impl Fn() -> Result<(), Failure> + Send + Sync + 'static,
) -> Named {
    Named { name: name.into(), availability, run: Arc::new(run) }
}

/// Fails with a message unless `good`.
fn check(good: bool, message: impl std::fmt::Display) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(Failure::new(message)) }
}
