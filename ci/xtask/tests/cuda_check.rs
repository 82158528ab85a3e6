//! `cargo xtask cuda-check` as a user runs it, and that it turns red where it must.
//!
//! ```text
//! cargo test --test cuda_check
//! cargo test --test cuda_check -- --require nvrtc
//! CUDA_CHECK_REQUIRE=nvrtc cargo nextest run --test cuda_check
//! ```
//!
//! Trials `cli::*` need nothing. Trials `nvrtc::*` compile, with the library that `cargo xtask cuda-check` fetches; without it
//! they are `unavailable`.

use bitnet_golden::cuda::{Cuda, read};
use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::verdict::Availability;
use bitnet_kernels::cuda::cache::Cache;
use bitnet_kernels::cuda::nvrtc::{Nvrtc, NvrtcError, Program};
use bitnet_kernels::cuda::sources;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

const NVRTC: &str = "nvrtc";

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let here = nvrtc_here();
    type Run = fn() -> Result<(), Failure>;
    let cli: [(&str, Run); 3] = [
        ("no_network_is_unavailable", no_network_is_unavailable),
        ("no_library_is_unavailable", no_library_is_unavailable),
        ("wrong_usage", wrong_usage),
    ];
    let nvrtc: [(&str, Run); 9] = [
        ("kernels_compile", kernels_compile),
        ("a_compile_error_is_red", a_compile_error_is_red),
        ("an_absent_entry_is_red", an_absent_entry_is_red),
        ("an_entry_that_is_not_listed_is_red", an_entry_that_is_not_listed_is_red),
        ("a_spill_is_red", a_spill_is_red),
        ("a_late_fetch_is_red", a_late_fetch_is_red),
        ("no_entry_is_red", no_entry_is_red),
        ("an_architecture_that_is_not_offered", an_architecture_that_is_not_offered),
        ("a_cubin_is_compiled_once", a_cubin_is_compiled_once),
    ];
    let trial = |group: &str, (name, run): &(&str, Run), availability: &Availability| Named {
        name: format!("{group}::{name}"),
        availability: availability.clone(),
        run: Arc::new(*run),
    };
    let trials = cli.iter().map(|t| trial("cli", t, &Availability::Available));
    let trials = trials.chain(nvrtc.iter().map(|t| trial(NVRTC, t, &here))).collect();
    let requirable = vec![NVRTC.to_owned()];
    Roster { target: "cuda_check", require_twin: "CUDA_CHECK_REQUIRE", requirable, trials }.main(&argv, &Env::read())
}

fn golden() -> Result<Cuda, Failure> {
    read(&Paths::discover(&Env::read()).golden).map_err(Failure::new)
}

/// Where the library is, if it was fetched.
fn library() -> Option<PathBuf> {
    let golden = golden().ok()?;
    let wheel = golden.wheel(std::env::consts::ARCH, std::env::consts::OS)?;
    wheel.library(&Paths::discover(&Env::read()).target).filter(|path| path.is_file())
}

fn nvrtc_here() -> Availability {
    match library() {
        Some(_) => Availability::Available,
        None => Availability::unavailable(NVRTC, "NVRTC has not been fetched", "cargo xtask cuda-check"),
    }
}

/// Exit code, stdout, stderr.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn check(&self, code: i32, words: &[&str]) -> Result<(), Failure> {
        let missing = words.iter().find(|word| !self.out.contains(**word) && !self.err.contains(**word));
        if self.code == Some(code) && missing.is_none() && !self.err.contains("panicked") {
            return Ok(());
        }
        let Self { code: found, out, err } = self;
        Err(Failure::new(format!("exit {found:?}, wanted {code}; lacks {missing:?}\n{out}\n{err}")))
    }

    fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.out).map_err(|e| Failure::new(format!("no JSON document ({e}): {}", self.out)))
    }
}

fn run(command: &mut Command) -> Result<Ran, Failure> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("cuda-check").args(args);
    command
}

/// With the library that is here.
fn check(args: &[&str]) -> Result<Ran, Failure> {
    let library = library().ok_or_else(|| Failure::new("NVRTC has not been fetched: cargo xtask cuda-check"))?;
    run(command(args).arg("--nvrtc").arg(library))
}

/// A source of one's own, for one architecture.
fn planted(text: &str, entries: Option<&str>) -> Result<Ran, Failure> {
    planted_for("sm_80", text, entries)
}

fn planted_for(architecture: &str, text: &str, entries: Option<&str>) -> Result<Ran, Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("planted.cu");
    std::fs::write(&file, text)?;
    let file = file.to_string_lossy();
    let entry = entries.map(|entries| ["--entry", entries]);
    check(&[&["--arch", architecture, "--source", &file][..], entry.as_ref().map_or(&[], |entry| &entry[..])].concat())
}

fn no_network_is_unavailable() -> Result<(), Failure> {
    let target = tempfile::tempdir()?;
    let bare = |args: &[&str]| run(command(args).env("CARGO_TARGET_DIR", target.path()).env("PATH", target.path()));
    let words = ["cuda-check: unavailable: ", "cannot be fetched", "to fix it: cargo xtask cuda-check"];
    let pinned = golden()?.wheel(std::env::consts::ARCH, std::env::consts::OS).is_some();
    let words = if pinned { &words[..] } else { &["unavailable", "pins no NVRTC", "--nvrtc PATH"] };
    bare(&[])?.check(4, words)?;
    let ran = bare(&["--format", "json"])?;
    ran.check(4, &[])?;
    let (said, left) = (ran.json()?, std::fs::read_dir(target.path().join("nvrtc")).map_or(0, Iterator::count));
    if said["outcome"] == "unavailable" && said["remedy"].is_string() && left == 0 {
        Ok(())
    } else {
        Err(Failure::new(format!("{said}, {left} files left")))
    }
}

fn no_library_is_unavailable() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("libnvrtc.so.13");
    std::fs::write(&text, "no library")?;
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty)?;
    for (path, word) in [
        (Path::new("/no/such/libnvrtc.so"), "/no/such/libnvrtc.so"),
        (&text, "cannot be loaded"),
        (&empty, "holds none of"),
    ] {
        run(&mut command(&["--nvrtc", &path.to_string_lossy()]))?
            .check(4, &["unavailable", word, "to fix it: cargo xtask"])?;
    }
    Ok(())
}

fn wrong_usage() -> Result<(), Failure> {
    for (args, code, word) in [
        (&["--arch", "compute_80"][..], 2, "sm_80 or sm_90a"),
        (&["--entry", "k"], 2, "--source"),
        (&["--format", "yaml"], 2, "yaml"),
        (&["--source", "/no/such.cu"], 1, "cannot read /no/such.cu"),
    ] {
        run(&mut command(args))?.check(code, &[word])?;
    }
    Ok(())
}

/// What is built in, for one architecture: `.ci/run` compiles for all.
fn kernels_compile() -> Result<(), Failure> {
    let ran = check(&["--arch", "sm_90a", "--format", "json"])?;
    ran.check(0, &[])?;
    let said = ran.json()?;
    let rows = said["rows"].as_array().ok_or_else(|| Failure::new(format!("no rows: {said}")))?;
    let entries: usize = sources().iter().map(|source| source.entries.len()).sum();
    let measured = |row: &&Value| row["cost"]["registers"].as_u64().is_some_and(|n| n > 0) && row["finding"].is_null();
    if said["outcome"] == "green" && entries > 0 && rows.len() == entries && rows.iter().all(|row| measured(&row)) {
        Ok(())
    } else {
        Err(Failure::new(format!("{entries} entries, and: {said}")))
    }
}

fn a_compile_error_is_red() -> Result<(), Failure> {
    let text = "extern \"C\" __global__ void k(float* a) {\n    a[0] = 1.0f;\n    a[1] = undeclared;\n}\n";
    planted(text, Some("k"))?.check(1, &["does not compile for sm_80", "planted.cu(3): error", "undeclared", "RED"])
}

const TWO: &str = "extern \"C\" __global__ void k(float* a) { a[0] = 1.0f; }\n\
    extern \"C\" __global__ void j(float* a) { a[0] = 2.0f; }\n";

fn an_absent_entry_is_red() -> Result<(), Failure> {
    planted(TWO, Some("k,j"))?.check(0, &["2 entries = 2 ok + 0 red"])?;
    planted(TWO, None)?.check(0, &["2 entries = 2 ok + 0 red"])?;
    planted(TWO, Some("k,j,i"))?.check(1, &["ABSENT: the cubin of", "has j, k", "3 entries = 2 ok + 1 red"])
}

fn an_entry_that_is_not_listed_is_red() -> Result<(), Failure> {
    planted(TWO, Some("k"))?.check(1, &["UNLISTED", "2 entries = 1 ok + 1 red"])
}

/// 120 numbers at once in 64 registers.
fn a_spill_is_red() -> Result<(), Failure> {
    let text = "extern \"C\" __global__ void __launch_bounds__(1024) k(float* a) {\n    float t[120];\n#pragma unroll\n    \
        for (int i = 0; i < 120; i++) t[i] = a[i * 1024 + threadIdx.x];\n    __syncthreads();\n#pragma unroll\n    \
        for (int i = 0; i < 120; i++) a[i * 1024 + threadIdx.x] = t[(i * 7 + 3) % 120] * t[119 - i];\n}\n";
    planted(text, None)?.check(1, &["SPILLS ", "golden/gates/cuda.toml allows 0", "1 entries = 0 ok + 1 red"])
}

/// By the name of an entry that is started early and is to fetch two things before it waits.
fn a_late_fetch_is_red() -> Result<(), Failure> {
    let source = |first: &str, then: &str| {
        format!(
            "extern \"C\" __global__ void bn_head_f16(const float* a, const float* b, float* y) {{\n\
             float p, q;\n{first}\n{then}\ny[threadIdx.x] = p + q;\n}}\n"
        )
    };
    let load = |to: &str, from: &str| {
        format!("asm volatile(\"ld.global.f32 %0, [%1];\" : \"=f\"({to}) : \"l\"({from} + threadIdx.x));")
    };
    let wait = "asm volatile(\"griddepcontrol.wait;\" ::: \"memory\");";
    let loads = load("p", "a") + &load("q", "b");
    for architecture in ["sm_90a", "sm_100"] {
        planted_for(architecture, &source(&loads, wait), None)?.check(0, &["green"])?;
        planted_for(architecture, &source(wait, &loads), None)?
            .check(1, &["bn_head_f16", "LATE: 0 fetches", "wants 2"])?;
        planted_for(architecture, &source(&loads, ""), None)?.check(1, &["bn_head_f16", "NO WAIT"])?;
    }
    planted_for("sm_80", &source(&loads, ""), None)?.check(0, &["green"])
}

fn no_entry_is_red() -> Result<(), Failure> {
    planted("__device__ float f(float x) { return x; }\n", None)?.check(1, &["has no entry for sm_80"])
}

fn an_architecture_that_is_not_offered() -> Result<(), Failure> {
    check(&["--arch", "sm_30"])?.check(1, &["makes nothing for sm_30", "sm_80"])
}

/// The cache with the real compiler.
fn a_cubin_is_compiled_once() -> Result<(), Failure> {
    let library = library().ok_or_else(|| Failure::new("NVRTC has not been fetched: cargo xtask cuda-check"))?;
    let nvrtc = Nvrtc::load(Some(&library)).map_err(Failure::new)?;
    let folder = tempfile::tempdir()?;
    let cache = Cache::new(folder.path());
    let program = Program { name: "two.cu", text: TWO, headers: &[] };
    let sm = |name: &str| name.parse().map_err(Failure::new);
    let go = |name| cache.compile(&nvrtc, &program, sm(name)?).map_err(Failure::new);
    let (first, again, other) = (go("sm_80")?, go("sm_80")?, go("sm_90a")?);
    let wrong = Program { text: "extern \"C\" nonsense", ..program };
    let error = cache.compile(&nvrtc, &wrong, sm("sm_80")?);
    let kept = std::fs::read_dir(folder.path())?.count();
    let good = !first.cached
        && again.cached
        && first.bytes == again.bytes
        && first.bytes.starts_with(b"\x7fELF")
        && !other.cached
        && other.bytes != first.bytes
        && matches!(error, Err(NvrtcError::Compile { .. }))
        && kept == 2;
    let facts = (first.cached, again.cached, other.cached, first.note, kept, error.map(|cubin| cubin.bytes.len()));
    if good { Ok(()) } else { Err(Failure::new(format!("{facts:?}"))) }
}
