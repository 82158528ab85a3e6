//! One file per command.

mod bench_gpu;
mod bench_peers;
mod benchmark;
mod bless;
mod crossval;
mod crossval_per_token;
mod cuda_check;
mod fixtures;
mod flip_weight;
mod full_crossval;
mod fuzz;
mod gate;
mod make_model;
mod mutants;
mod preflight;
mod receipt;
mod reference;
mod report;
mod setup_cpp;
mod soak;
mod stage;
mod tokenizer_peers;

use bitnet_engine::settings::Settings;
use std::process::ExitCode;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Fetch the models and vocabularies that the repository does not hold.
    Fixtures(fixtures::Args),
    /// Write golden snapshots from the scalar oracle.
    Bless(bless::Args),
    /// Record what the C++ references answer.
    Reference(reference::Args),
    /// Make reports from the records of one or more runs of the matrix.
    Report(report::Args),
    /// Measure what is held against the limits in golden/.
    Benchmark(benchmark::Args),
    /// Measure our engine and others in turn, on one model.
    BenchPeers(bench_peers::Args),
    /// Measure our tokenizers and other crates in turn, in one process.
    BenchTokenizers(tokenizer_peers::Bench),
    /// Compare the ids of random texts with HuggingFace's.
    FuzzTokenizer(tokenizer_peers::Fuzz),
    /// Feed readers of untrusted input with changed inputs.
    Fuzz(fuzz::Args),
    /// Measure a card: its bits, its memory, decode and prefill.
    BenchGpu(bench_gpu::Args),
    /// Write a model of random weights in the shape of a real one.
    MakeModel(make_model::Args),
    /// Hold what the kernels cost against golden/gates/.
    Gate(gate::Args),
    /// Compile the CUDA kernels for every architecture, and hold their registers and spills.
    CudaCheck(cuda_check::Args),
    /// Download under random faults and kill -9, with several processes on one cache.
    Soak(soak::Args),
    /// Write a model without a tokenizer, and a folder for the mock hub that has it.
    Stage(stage::Args),
    /// Compare a prompt with a C++ reference, token by token.
    CrossvalPerToken(crossval_per_token::Args),
    /// Compare everything about a model with a C++ reference, and write a receipt.
    FullCrossval(full_crossval::Args),
    /// Compare tokenizers or speed with a C++ reference.
    Crossval(crossval::Args),
    /// Check a receipt of the cross-validation.
    Receipt(receipt::Args),
    /// Change the code a little, over and over, and ask the tests whether they see it.
    Mutants(mutants::Args),
    /// Write a copy of a model with one wrong weight.
    FlipWeight(flip_weight::Args),
    /// Build the workers of the C++ references.
    SetupCpp(setup_cpp::Args),
    /// Say whether the C++ references can be used, and what is missing.
    Preflight(preflight::Args),
    /// How fast a model runs: the same as `bitnet bench`.
    Bench(bitnet_cli::commands::bench::Args),
    /// Say whether a model is whole and this machine computes it right: the same as `bitnet verify`.
    Verify(bitnet_cli::commands::verify::Args),
    /// Continue a prompt: the same as `bitnet infer`.
    Infer(bitnet_cli::commands::infer::Args),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Fixtures(args) => args.run(),
            Self::Bless(args) => args.run(),
            Self::Reference(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Benchmark(args) => args.run(),
            Self::BenchPeers(args) => args.run(),
            Self::BenchTokenizers(args) => args.run(),
            Self::FuzzTokenizer(args) => args.run(),
            Self::Fuzz(args) => args.run(),
            Self::BenchGpu(args) => args.run(&Settings::from_env()?),
            Self::MakeModel(args) => args.run(),
            Self::Bench(args) => args.run(&Settings::from_env()?),
            Self::Gate(args) => args.run(),
            Self::CudaCheck(args) => args.run(),
            Self::Soak(args) => args.run(),
            Self::Stage(args) => args.run(),
            Self::CrossvalPerToken(args) => args.run(),
            Self::FullCrossval(args) => args.run(),
            Self::Crossval(args) => args.run(),
            Self::Receipt(args) => args.run(),
            Self::Mutants(args) => args.run(),
            Self::FlipWeight(args) => args.run(),
            Self::SetupCpp(args) => args.run(),
            Self::Preflight(args) => args.run(),
            Self::Verify(args) => args.run(&Settings::from_env()?),
            Self::Infer(args) => args.run(&Settings::from_env()?),
        }
    }
}

/// Commands with exit codes of their own, in which 2 is not wrong usage but a finding.
const COMPARING: [&str; 4] = [crossval_per_token::NAME, full_crossval::NAME, crossval::NAME, receipt::NAME];

/// The exit code of a command line that clap refused.
pub(crate) fn usage_code(command: Option<&str>) -> u8 {
    if command.is_some_and(|name| COMPARING.contains(&name)) { 3 } else { 2 }
}
