//! `bitnet devices` and `--device cuda` before every driver that there may be: none, old ones, broken ones, ones without cards,
//! ones whose card is full or lost.
//!
//! No machine of this project has a card, so small libraries play the driver and NVRTC (kernels/tests/play): they are compiled here
//! and put where the system's loader looks first. They show that what a driver answers is understood and never ends in a
//! panic, and that what is asked of it is in order; they do not show that a real driver answers so.

use crate::support::*;
use std::path::Path;

/// Runs before the libraries of a folder. NVRTC is the folder's or none, whatever this machine has.
fn before(folder: &Path, args: &[&str]) -> Run {
    let text = folder.to_str().unwrap();
    let log = folder.join("log");
    let env = [("LD_LIBRARY_PATH", text), ("HOME", text), ("BITNET_NVRTC", text), ("PLAY_LOG", log.to_str().unwrap())];
    run_env(&env, args)
}

/// The device `cuda` of `bitnet devices --format json`, and the text for people.
fn devices(folder: &Path) -> (serde_json::Value, String) {
    let json = before(folder, &["devices", "--format", "json"]).ok().json();
    let list = json.as_array().unwrap();
    let cuda: Vec<_> = list.iter().filter(|device| device["name"] == "cuda").collect();
    assert_eq!(cuda.len(), 1, "{json}");
    assert_eq!(list.iter().filter(|device| device["automatic"] == true).count(), 1, "{json}");
    assert_eq!(cuda[0]["automatic"], false);
    (cuda[0].clone(), before(folder, &["devices"]).ok().out)
}

#[test]
fn every_way_to_have_no_card_is_said() {
    let cases: [(&[&str], &str); 9] = [
        (&["-DINIT=100"], "the NVIDIA driver (CUDA 13.0) finds no card; `nvidia-smi -L`"),
        (&["-DCOUNT=0"], "the NVIDIA driver (CUDA 13.0) finds no card; `nvidia-smi -L`"),
        (&["-DVERSION=11040"], "speaks CUDA 11.4, 12.0 or newer is needed; update the driver"),
        (&["-DVERSION=-1"], "speaks CUDA 0.0, 12.0 or newer is needed"),
        (&["-DINIT=803"], "cuInit failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: its library and its kernel module"),
        (&["-DINIT=34"], "cuInit failed with CUDA_ERROR_STUB_LIBRARY: that is the toolkit's stub"),
        (&["-DINIT=999"], "cuInit failed with CUDA_ERROR_UNKNOWN: the kernel module does not answer"),
        (&["-DNO_CONTEXT"], "has no function `cuDevicePrimaryCtxRetain`: it is too old, CUDA 12.0 or newer"),
        (&["-DcuInit=other"], "has no function `cuInit`: it is too old"),
    ];
    for (defines, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        crate::play::driver(dir.path(), defines);
        let (cuda, text) = devices(dir.path());
        let reason = cuda["unavailable"].as_str().unwrap();
        assert!(reason.contains(want), "{defines:?}: {reason}");
        assert!(text.contains(&format!("cuda         unavailable: {reason}")), "{text}");
        assert_eq!(cuda["cards"], serde_json::json!([]));
        infer(dir.path(), &["--device", "cuda"]).fails_with(&[
            "device `cuda` is not available: ",
            want,
            "`bitnet devices`",
        ]);
    }
}

/// A short answer with more arguments.
fn infer(folder: &Path, more: &[&str]) -> Run {
    before(folder, &[&["infer", "--prompt", "In", "--max-tokens", "6"], more].concat())
}

#[test]
fn a_machine_without_a_driver_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // What the loader finds first and cannot load, so that a driver of this machine is not found.
    for name in ["libcuda.so", "libcuda.so.1", "libnvcuda.so", "libnvcuda.so.1"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let want = "there is no NVIDIA driver here (no libcuda.so.1); it comes with the driver, not with the CUDA toolkit";
    let (cuda, text) = devices(dir.path());
    assert!(cuda["unavailable"].as_str().unwrap().starts_with(want) && text.contains(want), "{text}");
    infer(dir.path(), &["--device", "cuda"]).fails_with(&[want, "docker run --gpus all"]);
}

#[test]
fn cards_are_shown_with_what_they_lack() {
    let dir = tempfile::tempdir().unwrap();
    crate::play::driver(dir.path(), &[]);
    let (cuda, text) = devices(dir.path());
    let cards = cuda["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 2, "{cuda}");
    let [first, second] = [&cards[0], &cards[1]];
    for (key, value) in [("name", "cuda:0"), ("model", "Play H100"), ("compute", "9.0"), ("driver", "13.0")] {
        assert_eq!(first[key], value, "{first}");
    }
    for (key, value) in
        [("multiprocessors", 132_u64), ("memory_total", 80 << 30), ("memory_free", 3 << 30), ("l2", 50 << 20)]
    {
        assert_eq!(first[key], value, "{first}");
    }
    assert_eq!(
        (&second["name"], &second["compute"], &second["memory_free"]),
        (&"cuda:1".into(), &"7.5".into(), &().into())
    );
    let full = second["memory_unknown"].as_str().unwrap();
    assert!(full.contains("cuDevicePrimaryCtxRetain failed with CUDA_ERROR_OUT_OF_MEMORY"), "{full}");
    for want in [
        "cuda         unavailable: the kernels of no card can be compiled; why is said with each",
        "cuda:0: Play H100, compute capability 9.0, 132 multiprocessors, 80.0 GiB (3.0 GiB free), 50 MiB second cache, driver for CUDA 13.0",
        "cuda:1: Play T4, compute capability 7.5",
    ] {
        assert!(text.contains(want), "no `{want}` in {text}");
    }
}

/// NVRTC that is named and cannot be used, beside cards that could be.
#[test]
fn a_compiler_that_cannot_be_loaded_is_said_with_the_card() {
    let dir = tempfile::tempdir().unwrap();
    crate::play::driver(dir.path(), &["-DCOUNT=1"]);
    let text = dir.path().to_str().unwrap();
    for (nvrtc, want) in
        [("/no/such/libnvrtc.so", "cannot be compiled: NVRTC"), ("libc.so.6", "no function `nvrtcGetErrorString`")]
    {
        let env = [("LD_LIBRARY_PATH", text), ("HOME", text), ("BITNET_NVRTC", nvrtc)];
        let json = run_env(&env, &["devices", "--format", "json"]).ok().json();
        let cuda = json.as_array().unwrap().last().unwrap();
        let kernels = cuda["cards"][0]["kernels"].as_str().unwrap();
        assert!(kernels.starts_with("cannot be compiled: ") && kernels.contains(want), "{kernels}");
    }
}

#[test]
fn a_model_runs_on_a_card_as_on_the_processor() {
    if !crate::play::emulates() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    crate::play::emulating_driver(dir.path(), &[]);
    crate::play::nvrtc(dir.path(), &[]);
    let (cuda, text) = devices(dir.path());
    assert!(cuda["unavailable"].is_null() && text.contains("cuda         available\n"), "{text}");
    assert!(text.contains("kernels: sm_90a, by NVRTC 13.0 ("), "{text}");
    let [card, cpu] = ["cuda", "cpu"].map(|device| infer(dir.path(), &["--device", device, "--temperature", "0"]).ok());
    assert_eq!(card.out, cpu.out);
    assert!(card.err.contains(" on cuda:0") && cpu.err.contains(" on cpu-"), "{}{}", card.err, cpu.err);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
    assert!(
        count("captured") >= 1 && count("replay") >= 5,
        "each token but the first of the prompt is a replay: {log}"
    );
    assert_eq!((count("alloc"), count("stream gone")), (count("free"), 1), "{log}");
    assert_eq!(log.lines().last(), Some("release 1"), "{log}");
    // A model of some megabytes is not work for a card.
    let auto = infer(dir.path(), &[]).ok();
    assert!(auto.err.contains(" on cpu-"), "{}", auto.err);
}

#[test]
fn a_card_that_cannot_is_said() {
    let large = ["--device", "cuda", "--context", "4194304"];
    let first = ["--device", "cuda"];
    let cases: [[&[&str]; 4]; 6] = [
        [
            &["-DFREE=1000000000ul"],
            &[],
            &large,
            &["cuda:0 has not enough memory: ", "1000 MB are free", "a shorter --context"],
        ],
        [
            &[],
            &["-DBROKEN"],
            &first,
            &["does not compile for sm_90a:", "(7): error: identifier \"__dp4a\" is undefined"],
        ],
        [
            &[],
            &["-DMAJOR=14"],
            &first,
            &["the driver speaks CUDA 13.0 and loads no cubin of NVRTC 14.0; update the driver"],
        ],
        [
            &["-DIMAGE=200"],
            &[],
            &first,
            &["cuModuleLoadData of attention.cu failed with CUDA_ERROR_INVALID_IMAGE: ", "BITNET_NVRTC"],
        ],
        [&[], &[], &["--device", "cuda:1"], &["a card of compute capability 7.5; it offers sm_80, sm_90, sm_100"]],
        [&[], &[], &["--device", "cuda:2"], &["there is no card 2: the driver shows 2, counted from 0"]],
    ];
    for [driver, nvrtc, args, want] in cases {
        let dir = tempfile::tempdir().unwrap();
        crate::play::driver(dir.path(), driver);
        crate::play::nvrtc(dir.path(), nvrtc);
        infer(dir.path(), args).fails_with(want);
    }
    run(&["infer", "--prompt", "In", "--device", "cuda:x"]).refused_with(&["unknown device `cuda:x`", "cuda, cuda:N"]);
}

#[test]
fn a_card_that_is_lost_while_it_computes_is_said() {
    let dir = tempfile::tempdir().unwrap();
    crate::play::driver(dir.path(), &["-DLOST_AT=30", "-DLOST=719"]);
    crate::play::nvrtc(dir.path(), &[]);
    infer(dir.path(), &["--device", "cuda"]).fails_with(&[
        "failed with CUDA_ERROR_LAUNCH_FAILED: the card is lost to this process",
        "start again",
        "--device cpu computes the same without the card",
    ]);
}
