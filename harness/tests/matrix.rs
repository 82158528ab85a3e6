//! The matrix of BitNet.rs: one test per model x quant x device x backend x check.
//!
//! # Running
//!
//! ```text
//! cargo test --test matrix                                     every cell
//! cargo test --test matrix -- --model tiny-bitnet --check greedy,digest
//! cargo test --test matrix -- --device cpu-avx2 --quant i2_s --backend native
//! cargo test --test matrix -- --list                           names, and why some are not run
//! cargo test --test matrix -- perplexity --skip smollm2        libtest's own filters work as ever
//! cargo nextest run --test matrix                              a process per cell
//! cargo test --test matrix -- --backend bitnet --require bitnet   against bitnet.cpp, which must be built
//! MATRIX_CHECK=digest cargo nextest run ...                    nextest passes no flags: use the twins
//! ```
//!
//! A cell's name is `model::quant::device::backend::check` on every host, whatever becomes of it.
//!
//! | flag | environment | |
//! |---|---|---|
//! | `--model`, `--quant`, `--device`, `--backend`, `--check` | `MATRIX_MODEL`, `MATRIX_QUANT`, `MATRIX_DEVICE`, `MATRIX_BACKEND`, `MATRIX_CHECK` | exact names, comma lists, repeatable; a flag wins over its twin |
//! | `--require` | `MATRIX_REQUIRE` | models, devices, backends, checks that must be available; flag and twin add up |
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
//! - `unavailable`: this host lacks the device, backend or model. Decided when listing; shown as ignored,
//!   with the reason and the command that mends it. `--require NAME` makes it a failure.
//! - `unsupported`: declared meaningless in `golden/matrix.toml`, with a reason.
//!
//! `--ignored` and `--include-ignored` insist on running what is ignored, so an unavailable or
//! unsupported cell then fails. Nothing is ever skipped by returning early.
//!
//! The run ends with a line that must add up, or the run fails:
//! `declared 120 = pass 84 + xfail 3 + fail 0 + unavailable 21 + unsupported 12 + filtered 0`.
//!
//! Exit codes: 0 all is as it should be; 101 a cell failed or the line does not add up; 2 the command
//! line, the data or the registration is wrong and nothing was run.
//!
//! # What is left of a run
//!
//! One JSON record per cell in `target/matrix/records/`, and `target/matrix/summary.md`. Terminal,
//! Markdown, JUnit and HTML reports are made from records alone, so those of several machines merge.
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
//! `cargo xtask reference record bitnet|llama|all` records anew.
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
