//! The matrix of BitNet.rs: one test per model x quant x device x backend x check.
//!
//! # Running
//!
//! ```text
//! cargo test --test matrix                                     every cell
//! cargo test --test matrix -- --model tiny-bitnet --check greedy,digest
//! cargo test --test matrix -- --device cpu-avx2 --quant i2_s --backend native
//! cargo test --test matrix -- --list                           names, and why some are not run
//! cargo test --test matrix -- --all-devices                    a test for each cell of a device that is not here
//! cargo test --test matrix -- perplexity --skip smollm2        libtest's own filters work as ever
//! cargo nextest run --test matrix                              a process per cell
//! cargo test --test matrix -- --backend bitnet --require bitnet   against bitnet.cpp, which must be built
//! MATRIX_CHECK=digest cargo nextest run ...                    nextest passes no flags: use the twins
//! ```
//!
//! A cell's name is `model::quant::device::backend::check` on every host, whatever its outcome is.
//!
//! | flag | environment | |
//! |---|---|---|
//! | `--model`, `--quant`, `--device`, `--backend`, `--check` | `MATRIX_MODEL`, `MATRIX_QUANT`, `MATRIX_DEVICE`, `MATRIX_BACKEND`, `MATRIX_CHECK` | exact names, comma lists, repeatable; a flag wins over its twin |
//! | `--require` | `MATRIX_REQUIRE` | models, devices, backends, checks that must be available; flag and twin add up |
//! | `--all-devices` | `MATRIX_ALL_DEVICES` | cells of devices that this host lacks are tests as well, shown as ignored |
//! | | `MATRIX_OUT` | folder for records and summary instead of `target/matrix` |
//! | | `MATRIX_FIXTURES` | folder of fetched models instead of `target/fixtures` |
//! | | `MATRIX_COMMIT` | the commit to note in records, where there is no `.git` |
//!
//! An unknown value is an error that lists the valid ones. A selection that matches no cell is an error.
//! A *name filter* that matches nothing is not, because `cargo test foo` hands `foo` to every test binary
//! of the workspace; together with one of our flags, or when nextest asks for one exact cell, it is.
//!
//! # Outcomes
//!
//! - `pass`: it ran and was right.
//! - `fail`: it ran and was wrong, or it is required and cannot run.
//! - `xfail`: it ran and failed for the reason that `golden/expect.toml` gives. If it passes, or fails for
//!   another reason, it is a `fail`; an entry that matches no cell is an error.
//! - `unavailable`: this host lacks the backend or model. Decided when listing; shown as ignored,
//!   with the reason and the command that provides it. `--require NAME` makes it a failure.
//! - `unsupported`: could be, but nothing here runs it; declared in `golden/matrix.toml`, with a reason.
//! - `elsewhere`: this host lacks the device. These cells are one line for each device, with their number, the reason and what
//!   would run them. They are tests where somebody asks for them: by `--all-devices`, by the device's name (`--device`,
//!   `--require`) or the cell's (`--exact`).
//!
//! What a backend does not know at all (an architecture, a weight format) is not a cell; `golden/matrix.toml` has these facts in
//! the backend's table.
//!
//! `--ignored` and `--include-ignored` insist on running what is ignored, so an unavailable, unsupported or
//! foreign cell then fails. Nothing is ever skipped by returning early.
//!
//! The run ends with a line that must add up, or the run fails:
//! `declared 120 = pass 84 + xfail 3 + fail 0 + unavailable 1 + unsupported 2 + elsewhere 30 + filtered 0`.
//! Each number is counted by itself; a cell that is in no place turns the run red.
//!
//! Exit codes: 0 all is as it should be; 101 a cell failed or the line does not add up; 2 the command
//! line, the data or the registration is wrong and nothing was run.
//!
//! # What is left of a run
//!
//! `run.json` and one JSON record per cell in `target/matrix/records/`, and `target/matrix/summary.md`. `run.json` is written
//! first and says which cells were to be run; a run removes the records of an older one (`MATRIX_OUT` keeps runs apart).
//! Terminal, Markdown, JUnit and HTML reports are made from records alone (`cargo xtask report FOLDER...`), so those of
//! several machines merge, each with its host and commit. A cell without a record that was to be run is red, so one shard by
//! itself is. Under nextest, select by the twins: what its own filters leave out was to be run all the same.
//!
//! # Blessing
//!
//! Golden snapshots lie in `golden/snapshots/`, keyed by model, quant and check: every device and backend
//! must meet one truth. A missing or different snapshot is a failure that names the command:
//! `cargo xtask bless --model M --quant Q --check C`. Only that command writes, only from `cpu-scalar`
//! against `native`, and never under CI. `INSTA_UPDATE` has no effect here.
//!
//! # References
//!
//! Backends `bitnet` and `llama` are bitnet.cpp and llama.cpp in processes of their own (`cargo xtask setup-cpp all`). Their live
//! checks are unavailable without them; the check `recorded` holds the same questions against `golden/reference/`, always.
//! `cargo xtask reference record bitnet|llama|all` records again.
//!
//! # Adding
//!
//! - a cell, model or quant: `golden/matrix.toml`, nothing else;
//! - a check: `harness/src/check/<name>.rs`, its line in `harness/src/check.rs`, its `[[check]]` table;
//! - a device or backend: its table in `matrix.toml` and its line in `harness/src/host.rs`;
//! - a known failure: `golden/expect.toml`.
//!
//! Each of these without its counterpart is an error before anything runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    bitnet_harness::Suite::here().main(&argv)
}
