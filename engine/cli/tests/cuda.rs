//! `bitnet devices` and `--device cuda` before every driver that there may be: none, old ones, broken ones, ones without cards.
//!
//! No machine of this project has a card, so a small library plays the driver: it is compiled here and put where the
//! system's loader looks first. It shows that what a driver answers is understood and never ends in a panic; it does not
//! show that a real driver answers so.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::process::Command;
use support::*;

/// Every function that we call. What is not as `-D` says is as on a machine with two cards, the second of which is full.
const DRIVER: &str = r#"
#include <string.h>
#ifndef INIT
#define INIT 0
#endif
#ifndef VERSION
#define VERSION 13000
#endif
#ifndef COUNT
#define COUNT 2
#endif
int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int* n) { *n = COUNT; return 0; }
int cuDeviceGet(int* d, int i) { *d = 70 + i; return i < COUNT ? 0 : 101; }
int cuDeviceGetName(char* name, int len, int d) { strncpy(name, d == 70 ? "Play H100" : "Play T4", len); return 0; }
int cuDeviceTotalMem_v2(unsigned long* n, int d) { *n = 80ul << 30; return 0; }
int cuDeviceGetAttribute(int* v, int which, int d) {
    switch (which) {
    case 75: *v = d == 70 ? 9 : 7; return 0;
    case 76: *v = d == 70 ? 0 : 5; return 0;
    case 38: *v = 50 << 20; return 0;
    case 16: *v = 132; return 0;
    }
    return 1;
}
static void* current = 0;
static int retained = 0;
#ifndef NO_CONTEXT
int cuDevicePrimaryCtxRetain(void** c, int d) { if (d != 70) return 2; retained++; *c = &retained; return 0; }
#endif
int cuDevicePrimaryCtxRelease_v2(int d) { return retained-- == 1 && !current ? 0 : 201; }
int cuCtxGetCurrent(void** c) { *c = current; return 0; }
int cuCtxSetCurrent(void* c) { current = c; return 0; }
int cuMemGetInfo_v2(unsigned long* free, unsigned long* total) {
    if (current != &retained) return 201;
    *free = 3ul << 30; *total = 80ul << 30; return 0;
}
"#;

/// Puts a driver into the folder.
fn driver(folder: &Path, defines: &[&str]) {
    let source = folder.join("driver.c");
    std::fs::write(&source, DRIVER).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(folder.join("libcuda.so")).args(defines).arg(&source);
    let built = cc.output().expect("a C compiler, which building this program needs too");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// The device `cuda` of `bitnet devices --format json`, and the text for people.
fn devices(folder: &Path) -> (serde_json::Value, String) {
    let text = folder.to_str().unwrap();
    let env = [("LD_LIBRARY_PATH", text), ("HOME", text)];
    let json = run_env(&env, &["devices", "--format", "json"]).ok().json();
    let list = json.as_array().unwrap();
    let cuda: Vec<_> = list.iter().filter(|device| device["name"] == "cuda").collect();
    assert_eq!(cuda.len(), 1, "{json}");
    assert_eq!(list.iter().filter(|device| device["automatic"] == true).count(), 1, "{json}");
    assert_eq!(cuda[0]["automatic"], false);
    (cuda[0].clone(), run_env(&env, &["devices"]).ok().out)
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
        driver(dir.path(), defines);
        let (cuda, text) = devices(dir.path());
        let reason = cuda["unavailable"].as_str().unwrap();
        assert!(reason.contains(want), "{defines:?}: {reason}");
        assert!(text.contains(&format!("cuda         unavailable: {reason}")), "{text}");
        assert_eq!(cuda["cards"], serde_json::json!([]));
    }
}

#[test]
fn cards_are_shown_with_what_they_lack() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path(), &[]);
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
        "cuda         unavailable: this build cannot run a model on a card yet",
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
    driver(dir.path(), &["-DCOUNT=1"]);
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
fn no_model_runs_on_a_card() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path(), &[]);
    let text = dir.path().to_str().unwrap();
    for name in ["cuda", "cuda:0", "cuda:9"] {
        let args = ["infer", "--prompt", "In", "--max-tokens", "2", "--device", name];
        let want = format!("device `{name}`: this build cannot run a model on a card yet");
        run(&args).fails_with(&[&want, "--device auto"]);
        run_env(&[("LD_LIBRARY_PATH", text)], &args).fails_with(&[&want]);
    }
    run(&["infer", "--prompt", "In", "--device", "cuda:x"]).fails_with(&["unknown device `cuda:x`"]);
    let auto = run_env(&[("LD_LIBRARY_PATH", text)], &["infer", "--prompt", "In", "--max-tokens", "2"]).ok();
    assert!(auto.err.contains(" on cpu-"), "{}", auto.err);
}
