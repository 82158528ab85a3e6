//! Speed: which models are measured, and our engine against other programs.
//!
//! | module | what |
//! |---|---|
//! | [`models`] | the models of `cargo bench` and of `cargo xtask bench-peers` |
//! | [`inputs`] | matrices, activations and tokens of the benches |
//! | [`ratio`] | paired ratios: what two engines did in the same round |
//! | [`engine`] | what can be measured: a program like `llama-bench`, ours among them, or a worker of `cpp-sys` |
//! | [`llama_bench`] | what such a program prints |
//! | [`noise`] | foreign load while something is measured |
//! | [`process`] | a child process: its output, its time, its memory |
//! | [`peers`] | the run: rounds in turn, the report |
//! | [`person`] | what a person waits for: from the start of a process to the last token |
//! | [`table`], [`plot`], [`curve`] | the report for people |
//! | [`tokenizers`] | our tokenizers against other crates: the report of `harness/tokenizer-peers` |
//! | [`gpu`] | a card: bits, speed, and the share of what its memory allows |
//!
//! A machine's speed drifts by a third within an hour. So no figure here is held against one of another run: every
//! statement is a ratio within a round, in which the engines ran one after the other, or a share of what memory could be
//! read at in that round. Nothing is assumed about a peer; what could not be measured is absent and says why.

/// Adds a line to a text.
macro_rules! line {
    ($out:expr, $($text:tt)*) => {{
        use std::fmt::Write as _;
        // A string takes whatever is written.
        let _ = writeln!($out, $($text)*);
    }};
}

/// The `main` of a bench: how many samples, how long it warms up and measures, what it runs.
#[macro_export]
macro_rules! criterion_main {
    ($samples:literal samples, $warm:literal ms warm, $time:literal ms: $($target:ident),+) => {
        criterion::criterion_group! {
            name = benches;
            config = criterion::Criterion::default()
                .sample_size($samples)
                .warm_up_time(std::time::Duration::from_millis($warm))
                .measurement_time(std::time::Duration::from_millis($time));
            targets = $($target),+
        }
        criterion::criterion_main!(benches);
    };
}

pub mod curve;
pub mod engine;
pub mod gpu;
pub mod inputs;
pub mod llama_bench;
pub mod models;
pub mod noise;
pub mod peers;
pub mod person;
pub mod plot;
pub mod process;
pub mod ratio;
pub mod table;
pub mod tokenizers;
pub mod worker;
