//! What is left of runs, as anybody may hand it in: a record of the matrix, a receipt of the cross-validation, a report of speed.

use super::{files, folder, put, said};
use crate::Target;
use bitnet_harness::bench::{peers, tokenizers};
use bitnet_harness::crossval::receipt;
use bitnet_harness::record;

pub const TARGET: Target = Target {
    name: "records",
    about: "records of cells, receipts, reports of speed, answers recorded of references",
    seeds,
    run,
};

/// The cell of the seed: a record's file is named after its cell.
const CELL: &str = "tiny-bitnet__i2_s__cpu-scalar__native__digest.json";

fn run(bytes: &[u8]) -> String {
    let folder = folder().join("records");
    let path = folder.join(CELL);
    put(&path, bytes);
    let record = said(record::read(&path));
    let receipt = said(receipt::verify(&path, None));
    let speed = said(serde_json::from_slice::<peers::PeersReport>(bytes));
    let tokenizers = match serde_json::from_slice::<tokenizers::TokenizersReport>(bytes) {
        Ok(report) => {
            std::hint::black_box((tokenizers::markdown(&report), tokenizers::svg(&report, "llama3").is_ok()));
            "shown".to_owned()
        }
        Err(error) => error.to_string(),
    };
    // A recording's file is named after what it is about.
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let named = |field: &str| {
        let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        json[field].as_str().filter(plain).filter(|text| (1..64).contains(&text.len())).unwrap_or("none").to_owned()
    };
    let (golden, model, quant) = (folder.join("golden"), named("model"), named("quant"));
    let file = bitnet_golden::reference::file(&golden, "llama", &model, &quant);
    put(&file, bytes);
    let recorded = said(bitnet_golden::reference::Recording::read(&golden, "llama", &model, &quant));
    let _ = std::fs::remove_file(&file);
    // Paths are not words.
    [record, receipt, speed, tokenizers, recorded]
        .map(|text| text.replace(folder.to_string_lossy().as_ref(), ""))
        .join("; ")
}

fn seeds() -> Vec<Vec<u8>> {
    let record = serde_json::json!({
        "schema": 1, "name": "tiny-bitnet::i2_s::cpu-scalar::native::digest", "outcome": "pass", "reason": null, "remedy": null,
        "expected": null, "metrics": {"tokens": 12, "digest": "abc", "share": 0.5}, "seed": "0f", "kernel": "scalar",
        "model_sha256": null, "reference": null, "duration_ms": 1.5, "host": {"os": "linux", "arch": "x86_64", "features": ["avx2"]},
        "harness": {"version": "0.1.0", "commit": null}, "timestamp": "2026-11-28T12:00:00Z", "run": null,
    });
    let spread = serde_json::json!({"median": 2.0, "least": 1.0, "most": 3.0});
    let speed = serde_json::json!({
        "at": "2026-11-28T12:00:00Z", "commit": null, "host": {"os": "linux", "arch": "x86_64", "features": []},
        "cpu": "a processor", "rounds": 1, "texts": [{"kind": "mixed", "about": "a", "bytes": 1}], "engines": [], "absent": [],
        "vocabularies": [{"name": "llama3", "about": "", "foreign": null, "engines": [
            {"engine": "ours", "failure": null, "inexact": null, "load_ms": spread, "rates": [
                {"text": "mixed", "kib": 4, "state": "cold", "ours_is": null, "megabytes_per_second": spread}]},
            {"engine": "peer", "failure": null, "inexact": null, "load_ms": null, "rates": [
                {"text": "mixed", "kib": 4, "state": "cold", "ours_is": spread, "megabytes_per_second": spread}]}]}],
    });
    let mut seeds: Vec<Vec<u8>> = [record, speed].map(|value| value.to_string().into_bytes()).to_vec();
    seeds.extend(files("reference/llama", "json", 40_000).into_iter().take(3));
    seeds
}
