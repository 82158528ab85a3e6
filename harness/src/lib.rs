//! The verification suite of BitNet.rs: axes, cells, trials, verdicts, records, reports.
//!
//! The matrix is model x quant x device x backend x check. Which cells exist is data
//! (`golden/matrix.toml`), what they must answer is data (`golden/snapshots/`), which of them are known
//! to fail is data (`golden/expect.toml`). This crate turns the data into libtest-mimic trials, judges
//! what comes out and keeps one record per cell. It is written so that no green can mean "not checked":
//! every declared cell is accounted for, everything that is not run says why, and the suite turns itself
//! red in its own tests (`tests/selftest`).
//!
//! | module | what |
//! |---|---|
//! | [`axes`] | axes and cells |
//! | [`select`] | flags, environment twins, requirements |
//! | [`setup`] | reading and validating the declaration |
//! | [`host`] | what this machine has |
//! | [`failure`], [`context`] | why something is wrong; what the checks of a run share |
//! | [`check`] | the trait of a check, the table of all checks |
//! | [`models`], [`generate`] | the models of the matrix, from files and from seeds |
//! | [`bench`] | speed: which models, and ours against other programs in turn |
//! | [`tokenizer_files`], [`posing`] | a model's tokenizer as files, and models that have lost theirs |
//! | [`hub`] | the hub that downloads are tried on: what it holds, and a client in a hurry |
//! | [`verdict`] | outcomes, as pure functions |
//! | [`trials`], [`matrix`] | the run |
//! | [`roster`] | test targets that are not cells, with the same accounting |
//! | [`crossval`] | our engine against another one: tokens, logits, generation, steps |
//! | [`vocabularies`], [`strings`] | real vocabularies and their oracles; strings that strain tokenizers |
//! | [`cpu_time`] | this thread's computing time |
//! | [`references`] | the C++ references as backends: what they are asked, live and recorded |
//! | [`golden`] | snapshots and blessing |
//! | [`gate`] | what the kernels cost, against what they did |
//! | [`run`], [`record`], [`account`], [`report`] | what a run was to do, and what is left of it |
//!
//! The user manual is the module documentation of `tests/matrix.rs`.

#![allow(missing_docs, reason = "a name that says it all has no comment")]

pub mod account;
mod atomic;
pub mod axes;
pub mod bench;
pub mod check;
pub mod context;
pub mod cpu_time;
pub mod crossval;
mod diff;
pub mod env;
pub mod failure;
pub mod gate;
pub mod generate;
pub mod golden;
pub mod host;
pub mod hub;
pub mod matrix;
pub mod metrics;
pub mod models;
pub mod paths;
pub mod posing;
pub mod provenance;
pub mod record;
pub mod references;
pub mod report;
pub mod roster;
pub mod run;
pub mod select;
pub mod setup;
pub mod strings;
pub mod tokenizer_files;
pub mod trials;
pub mod verdict;
pub mod vocabularies;

pub use axes::{Axis, Cell};
pub use bitnet_golden as data;
pub use check::Check;
pub use context::Context;
pub use failure::Failure;
pub use matrix::Suite;
pub use metrics::Metrics;
pub use verdict::{Availability, Outcome};
