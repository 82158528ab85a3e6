//! Against the live references: parity, a flipped weight, a wrong tokenizer, receipts.

use crate::tool::{Ran, arg, flipped, golden, paths, xtask};
use crate::{check, trial};
use bitnet_harness::Failure;
use bitnet_harness::env::{self, Env};
use bitnet_harness::roster::Named;
use bitnet_harness::verdict::Availability;
use cpp_sys::{CppBackend, Workers};
use serde_json::Value;
use std::path::PathBuf;

/// The fetched model of the llama family.
pub(crate) const SMOLLM2: &str = "smollm2";

/// A model and the reference that runs it.
#[derive(Clone)]
struct Case {
    name: &'static str,
    backend: CppBackend,
    model: fn() -> String,
    /// A weight to flip, and the step and layer that it belongs to.
    flip: (&'static str, usize, usize, &'static str, usize),
    fetched: bool,
}

fn smollm2() -> PathBuf {
    paths().fixtures.join("smollm2-135m-q4_1.gguf")
}

const CASES: [Case; 3] = [
    Case {
        name: "bitnet::tiny-bitnet",
        backend: CppBackend::BitNet,
        model: || golden("models/tiny-bitnet.gguf"),
        flip: ("blk.1.ffn_up.weight", 7, 9, "blk.1.ffn_up", 1),
        fetched: false,
    },
    Case {
        name: "bitnet::tiny-bitnet-silu",
        backend: CppBackend::BitNet,
        model: || golden("models/tiny-bitnet-silu.gguf"),
        flip: ("blk.0.attn_output.weight", 3, 5, "blk.0.attn_output", 0),
        fetched: false,
    },
    Case {
        name: "llama::smollm2",
        backend: CppBackend::Llama,
        model: || arg(&smollm2()),
        // A weight with a loud input: int8 scales in f16 drown the weakest of weights.
        flip: ("blk.2.ffn_up.weight", 6, 330, "blk.2.ffn_up", 2),
        fetched: true,
    },
];

pub(crate) fn trials() -> Vec<Named> {
    let mut out = Vec::new();
    for case in CASES {
        for (name, run) in [
            ("parity", parity as fn(&Case) -> Result<(), Failure>),
            ("flip", flip),
            ("tokenizer", tokenizer),
            ("receipt", receipt),
        ] {
            let case = case.clone();
            out.push(trial(format!("{}::{name}", case.name), availability(&case), move || run(&case)));
        }
    }
    out
}

fn availability(case: &Case) -> Availability {
    let env = Env::read();
    let target = env.get(env::CARGO_TARGET_DIR).map_or_else(|| paths().root.join("target"), |d| paths().root.join(d));
    if let Err(missing) = Workers::new(&target).preflight(case.backend) {
        return Availability::unavailable(case.backend.name(), missing.line(), missing.command);
    }
    if case.fetched && !smollm2().is_file() {
        let remedy = "cargo xtask fixtures fetch smollm2-135m";
        return Availability::unavailable(SMOLLM2, "SmolLM2 has not been fetched", remedy);
    }
    Availability::Available
}

fn compare(case: &Case, more: &[&str]) -> Result<Ran, Failure> {
    let model = (case.model)();
    let args = ["crossval-per-token", "--model", &model, "--prompt", "In the beginning God created", "--threads", "2"];
    xtask(&[&args[..], more].concat(), None)
}

/// Text and JSON agree, exit 0, every part ran.
fn parity(case: &Case) -> Result<(), Failure> {
    let args = ["--max-tokens", "4", "--trace"];
    let text = compare(case, &args)?.expect(0)?;
    check(text.out.contains("parity (exit 0)") && text.out.contains("verdict"), &text.out)?;
    let json = compare(case, &[&args[..], &["--format", "json"]].concat())?.expect(0)?.json()?;
    check(json["reference"]["backend"] == case.backend.name(), &json["reference"])?;
    let prompt = &json["prompts"][0];
    for part in ["tokens", "logits", "generation", "trace"] {
        check(prompt[part]["status"] == "ran", format_args!("{part}: {}", prompt[part]))?;
    }
    let steps = prompt["trace"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let own = steps.iter().filter(|s| !s["own"].is_null()).count();
    check(own > 10, format_args!("only {own} steps were compared from the reference's own input"))
}

/// One wrong weight on the reference's side: exit 1, and the very layer and step.
fn flip(case: &Case) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (tensor, row, column, step, layer) = case.flip;
    let wrong = arg(&flipped(folder.path(), &(case.model)(), tensor, row, column)?);
    let args = ["--cpp-model", &wrong, "--max-tokens", "2", "--trace"];
    let text = compare(case, &args)?.expect(1)?;
    check(text.out.contains(&format!("first diverging step {step}: its input was the same")), &text.out)?;
    let json = compare(case, &[&args[..], &["--format", "json"]].concat())?.expect(1)?.json()?;
    let first = &json["prompts"][0]["trace"]["first"];
    check(first["step"] == step && first["layer"] == layer && first["column"] == row, first)
}

/// Another model's tokenizer on our side: exit 2, both sequences, nothing behind them.
fn tokenizer(case: &Case) -> Result<(), Failure> {
    let args = ["--tokenizer", &golden("vocab/mistral-v1/tokenizer.model"), "--trace"];
    let text = compare(case, &args)?.expect(2)?;
    check(text.out.contains("token mismatch (exit 2)") && text.out.contains("hint (other_tokenizer)"), &text.out)?;
    let json = compare(case, &[&args[..], &["--format", "json"]].concat())?.expect(2)?.json()?;
    let prompt = &json["prompts"][0];
    let tokens = &prompt["tokens"];
    check(tokens["ours"] != tokens["reference"] && tokens["first_difference"].is_u64(), tokens)?;
    check(prompt["logits"]["status"] == "not_run" && prompt["trace"]["status"] == "not_run", prompt)
}

/// The receipt of everything is valid, and no longer after an edit of one figure.
fn receipt(case: &Case) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (model, path) = ((case.model)(), folder.path().join("r.json"));
    let file = arg(&path);
    let args = [
        "full-crossval",
        "--model",
        &model,
        "--prompt",
        "In the beginning",
        "--max-tokens",
        "3",
        "--runs",
        "1",
        "--threads",
        "2",
        "--receipt",
        &file,
        "--format",
        "json",
    ];
    let json: Value = xtask(&args, None)?.expect(0)?.json()?;
    for part in ["tokenizer_parity", "performance", "reference"] {
        check(json[part]["status"] == "ran", format_args!("{part}: {}", json[part]))?;
    }
    xtask(&["receipt", "verify", &file], None)?.expect(0)?;
    let text = std::fs::read_to_string(&path)?;
    let start = text.find("\"cosine\": ").ok_or_else(|| Failure::new("no cosine"))?;
    let old: String = text[start..].chars().take_while(|c| *c != ',').collect();
    std::fs::write(&path, text.replacen(&old, "\"cosine\": 0.5", 1))?;
    let refused = xtask(&["receipt", "verify", &file], None)?.expect(1)?;
    check(refused.out.contains("cosine"), &refused.out)
}
