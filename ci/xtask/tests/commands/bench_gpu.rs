//! `bench-gpu` as a user runs it: on the emulation, on a card before libraries that play driver and NVRTC, and where no card
//! can be used. Figures of these mean nothing, and none is looked at.

#[cfg(target_os = "linux")]
#[path = "../../../../kernels/tests/play/mod.rs"]
mod play;

use bitnet_harness::bench::gpu::CardReport;
use std::path::Path;
use std::process::Command;

/// Exit code, stdout, stderr, before the libraries of a folder.
fn bench_gpu(args: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    for twin in ["BITNET_GGUF", "BITNET_DEVICE", "BITNET_THREADS", "BITNET_CUDA_CACHE", "BITNET_CUDA_OVERLAP"] {
        command.env_remove(twin);
    }
    for (name, value) in [("LD_LIBRARY_PATH", folder), ("BITNET_NVRTC", folder), ("HOME", folder)] {
        command.env(name, value);
    }
    let out = command.arg("bench-gpu").args(args).env("CARGO_TARGET_DIR", folder).output().expect("xtask starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// What a small run must have found.
fn holds(report: &CardReport, device: &str) {
    assert_eq!((report.outcome.as_str(), report.device.as_str()), ("measured", device));
    assert_eq!(report.model.name, "tiny-i2_s-seed1.gguf");
    let bits = &report.bits;
    assert!(bits.equal() && bits.tokens == 6 && bits.greedy[1].len() == 16, "{bits:?}");
    assert_eq!(bits.card.iter().map(|(chunk, _)| *chunk).collect::<Vec<_>>(), [1, 6]);
    assert!(report.copy_bytes_per_second.least > 0.0);
    let [decode] = report.decode.as_slice() else { panic!("{report:?}") };
    // Two layers of two KV heads with 64 dimensions, keys and values, f16; ten positions.
    assert_eq!((decode.context, decode.token_bytes - report.model.weight_bytes), (8, 2 * 2 * 2 * 64 * 2 * 10));
    assert!(decode.tokens_per_second.least > 0.0 && decode.share > 0.0);
    // A token is one recording, so it can be timed alone.
    assert!(
        decode.card.tokens_per_second.is_some_and(|rate| rate.least > 0.0) && decode.card.launches > 0,
        "{decode:?}"
    );
    let [prefill] = report.prefill.as_slice() else { panic!("{report:?}") };
    assert!(prefill.tokens == 16 && prefill.tokens_per_second.least > 0.0);
    assert!(prefill.card.tokens_per_second.is_some_and(|rate| rate.least > 0.0), "{prefill:?}");
    assert!(prefill.card.launches > decode.card.launches, "two chunks: {prefill:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_emulation_goes_all_the_way() {
    if !play::emulates() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (code, out, err) = bench_gpu(&["--device", "cuda-emu", "--small", "--format", "json"], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let report: CardReport = serde_json::from_str(&out).expect("one JSON document");
    holds(&report, "cuda-emu");
    let record = std::fs::read(dir.path().join("bench/gpu.json")).expect("a record");
    assert_eq!(serde_json::from_slice::<CardReport>(&record).expect("the same"), report);
}

#[cfg(target_os = "linux")]
#[test]
fn a_card_goes_the_same_way() {
    if !play::emulates() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    play::emulating_driver(dir.path(), &[]);
    play::nvrtc(dir.path(), &[]);
    let (code, out, err) = bench_gpu(&["--small"], dir.path());
    assert_eq!(code, Some(0), "{err}");
    for words in
        ["cuda:0: Play H100, sm_90a", "in chunks of 1: the scalar oracle's", "| context | generate 4, tokens/s |"]
    {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    let record = std::fs::read(dir.path().join("bench/gpu.json")).expect("a record");
    holds(&serde_json::from_slice(&record).expect("a report"), "cuda:0");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_card_it_is_unavailable() {
    let dir = tempfile::tempdir().expect("a folder");
    play::driver(dir.path(), &["-DVERSION=11040"]);
    let want = "device `cuda` is not available: the NVIDIA driver speaks CUDA 11.4, 12.0 or newer is needed; update the driver";
    let (code, out, err) = bench_gpu(&[], dir.path());
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(err.contains(&format!("unavailable: {want}")), "{err}");
    let (code, out, _) = bench_gpu(&["--format", "json"], dir.path());
    let said: serde_json::Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!((code, said["outcome"].as_str()), (Some(4), Some("unavailable")));
    assert!(said["reason"].as_str().is_some_and(|reason| reason.starts_with(want)), "{said}");
}

#[test]
fn a_processor_is_no_card() {
    let dir = tempfile::tempdir().expect("a folder");
    let (code, _, err) = bench_gpu(&["--device", "cpu", "--small"], dir.path());
    assert!(code == Some(2) && err.contains("`cpu` is not a card"), "{code:?} {err}");
    let (code, _, err) = bench_gpu(&["--device", "cuda:x", "--small"], dir.path());
    assert!(code == Some(2) && err.contains("unknown device `cuda:x`"), "{code:?} {err}");
}
