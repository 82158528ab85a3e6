//! A worker that dies in mid-request, as a process: its cell must fail with its last words, and the next one run.
//!
//! The program has a third role here. With `HARNESS_SELFTEST_WORKER` set to a folder it is a worker that answers from our
//! own engine, and that aborts at the first request for logits it ever gets.

use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{GenerateOptions, Want, generate};
use bitnet_engine::load::{Loaded, load};
use bitnet_harness::Outcome;
use bitnet_harness::check::{Check, continuation, logits};
use bitnet_harness::env::Env;
use bitnet_harness::host::Host;
use bitnet_harness::models;
use bitnet_harness::paths::Paths;
use bitnet_harness::references::questions::options;
use bitnet_kernels::best;
use bitnet_kernels::quant::I2sLayout;
use cpp_sys::serve::{Reference, serve};
use cpp_sys::wire::{PROTOCOL, Refusal};
use cpp_sys::workers::{cpu, sha256};
use cpp_sys::{BuildInfo, CppBackend, Fault, Generated, Hello, LoadInfo, LoadOptions, TraceStep, Workers, fingerprint};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cases::cases;
use crate::toy::Toy;

/// The variable that makes this program a worker with that folder for its state.
pub(crate) const WORKER: &str = "HARNESS_SELFTEST_WORKER";
/// The variable that makes the toy matrix one of real checks.
pub(crate) const REAL: &str = "HARNESS_SELFTEST_REAL";

cases![a_worker_that_is_not_built, a_worker_that_dies_in_mid_request, a_worker_of_another_receipt,];

/// One model on the oracle, against three backends of which one has a worker.
const MATRIX: &str = r#"
schema = 1
[[model]]
name = "tiny"
about = "the trained model"
family = "bitnet"
quants = ["i2_s"]
source = { kind = "embedded", file = "models/tiny.gguf" }
[[backend]]
name = "native"
about = "not asked"
[[backend]]
name = "bitnet"
about = "the worker that dies"
[[backend]]
name = "llama"
about = "not built"
[[check]]
name = "logits"
about = "the first to ask"
cells = [{ devices = ["cpu-scalar"], backends = ["bitnet", "llama"] }]
[[check]]
name = "continuation"
about = "the next"
cells = [{ devices = ["cpu-scalar"], backends = ["bitnet", "llama"] }]
"#;

const PLAN: &str = "[default]\ndigest_tokens = 2\nreference_tokens = 6\nreference_new_tokens = 2\n[model]\n";

/// The real checks and the real host on a toy folder.
pub(crate) fn checks() -> Vec<Arc<dyn Check>> {
    vec![Arc::new(logits::Logits), Arc::new(continuation::Continuation)]
}

/// The host of such a run.
pub(crate) fn host(env: &Env, paths: &Paths) -> Host {
    Host::here(env.clone(), paths)
}

/// The worker's role.
pub(crate) fn worker(folder: PathBuf) -> ExitCode {
    let mut reference = Engine { folder, loaded: None };
    match serve(&mut reference, &mut std::io::stdin().lock(), &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Our own engine behind the protocol.
struct Engine {
    folder: PathBuf,
    loaded: Option<Loaded>,
}

impl Engine {
    fn model(&self) -> Result<&Loaded, Refusal> {
        self.loaded.as_ref().ok_or_else(|| Refusal::new("no model"))
    }
}

fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

impl Reference for Engine {
    fn hello(&self) -> Hello {
        Hello { protocol: PROTOCOL, backend: CppBackend::BitNet.name().to_owned(), ..Hello::default() }
    }

    fn load(&mut self, path: &Path, _: &LoadOptions, _: usize) -> Result<LoadInfo, Refusal> {
        let file = GgufFile::open(path).map_err(refusal)?;
        let pool = models::pool(1).map_err(|failure| refusal(failure.message))?;
        let loaded = load(file, Some(I2sLayout::X86), best(), &pool).map_err(refusal)?;
        let config = &loaded.model.config;
        let special = loaded.tokenizer.special();
        let info = LoadInfo {
            vocab_size: config.vocab_size,
            context: config.context_length,
            layers: config.block_count,
            width: config.embedding_length,
            heads: config.heads,
            kv_heads: config.kv_heads,
            description: "the engine of the house".to_owned(),
            bytes: loaded.file.file_len(),
            parameters: 0,
            bos: special.bos,
            eos: special.eos,
            add_bos: special.add_bos,
            largest_batch: None,
            threads: 1,
            warnings: Vec::new(),
        };
        self.loaded = Some(loaded);
        Ok(info)
    }

    fn tokenize(&mut self, text: &str, add_special: bool, _: bool) -> Result<Vec<u32>, Refusal> {
        self.model()?.tokenizer.encode(text, options(add_special)).map_err(refusal)
    }

    fn detokenize(&mut self, tokens: &[u32], special: bool) -> Result<Vec<u8>, Refusal> {
        Ok(self.model()?.tokenizer.decode(tokens, !special))
    }

    fn logits(&mut self, tokens: &[u32], positions: &[usize], _: usize) -> Result<Vec<f32>, Refusal> {
        let died = self.folder.join("died");
        if !died.exists() {
            std::fs::write(&died, "once").map_err(refusal)?;
            eprintln!("GGML_ASSERT(nothing is well) failed");
            std::process::abort();
        }
        let loaded = self.model()?;
        let mut session = models::session(loaded, best(), 1, 16, tokens.len()).map_err(|f| refusal(f.message))?;
        let mut values = Vec::new();
        let mut keep = |position: usize, row: &[f32]| {
            if positions.contains(&position) {
                values.extend_from_slice(row);
            }
        };
        session.forward(tokens, Want::All, &mut keep).map_err(refusal)?;
        Ok(values)
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal> {
        let loaded = self.model()?;
        let mut session =
            models::session(loaded, best(), 1, 16, prompt.len() + max_tokens + 1).map_err(|f| refusal(f.message))?;
        let wanted = GenerateOptions { max_tokens: Some(max_tokens), ignore_eos: true, ..Default::default() };
        let made = generate(&mut session, &*loaded.tokenizer, prompt, &wanted, &AtomicBool::new(false), &mut |_| {})
            .map_err(refusal)?;
        Ok(Generated { tokens: made.tokens, ended: false, prompt_seconds: 0.0, decode_seconds: 0.0 })
    }

    fn trace(&mut self, _: &[u32], _: &[String]) -> Result<Vec<TraceStep>, Refusal> {
        Err(Refusal::new("this worker shows no steps"))
    }

    fn provoke(&mut self, _: Fault) -> Result<(), Refusal> {
        Err(Refusal::new("it needs no provocation"))
    }
}

/// A toy folder with the real model and texts.
fn stage() -> Toy {
    let toy = Toy::new();
    let golden = Paths::discover(&Env::default()).golden;
    // Every device that the host knows must be declared; the oracle is asked.
    let host = Host::here(Env::default(), &Paths::discover(&Env::default()));
    let devices = host.devices().map(|name| format!("[[device]]\nname = \"{name}\"\nabout = \"\"\n"));
    toy.write("golden/matrix.toml", &format!("{MATRIX}{}", devices.collect::<String>()));
    toy.expect(&[]);
    std::fs::remove_dir_all(toy.path("golden/snapshots")).expect("snapshots of the other toy");
    for (from, to) in [
        ("models/tiny-bitnet-silu.gguf", "models/tiny.gguf"),
        ("texts/passage.txt", "texts/passage.txt"),
        ("texts/strings.json", "texts/strings.json"),
        ("thresholds.toml", "thresholds.toml"),
    ] {
        let to = toy.path("golden").join(to);
        std::fs::create_dir_all(to.parent().expect("folder")).expect("folder");
        std::fs::copy(golden.join(from), to).expect(from);
    }
    toy.write("golden/texts/plan.toml", PLAN);
    toy
}

/// Puts the worker where `cargo xtask setup-cpp bitnet` would.
fn install(toy: &Toy) {
    let exe = std::env::current_exe().expect("this program");
    let workers = Workers::new(&toy.path("target"));
    let program = workers.program(CppBackend::BitNet);
    let state = toy.path("state");
    std::fs::create_dir_all(&state).expect("folder");
    toy.write(
        "target/cpp/bitnet/worker",
        &format!("#!/bin/sh\n{WORKER}='{}' exec '{}'\n", state.display(), exe.display()),
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let build = BuildInfo {
        backend: CppBackend::BitNet.name().to_owned(),
        program_sha256: sha256(&program).expect("hash"),
        worker_sources: fingerprint(CppBackend::BitNet),
        cpu: cpu(),
        ..BuildInfo::default()
    };
    let text = serde_json::to_string(&build).expect("receipt");
    std::fs::write(workers.receipt(CppBackend::BitNet), text).expect("receipt");
}

const ONE_BY_ONE: &[&str] = &["--test-threads=1"];
const LOGITS: &str = "tiny::i2_s::cpu-scalar::bitnet::logits";
const CONTINUATION: &str = "tiny::i2_s::cpu-scalar::bitnet::continuation";

fn a_worker_that_is_not_built() {
    let toy = stage();
    toy.run_with(ONE_BY_ONE, &[(REAL, "1")])
        .is(0, "declared 4 = pass 0 + xfail 0 + fail 0 + unavailable 4 + unsupported 0 + elsewhere 0 + filtered 0")
        .is(0, "to fix it: cargo xtask setup-cpp bitnet");
    toy.run_with(&["--require", "bitnet"], &[(REAL, "1")])
        .is(101, "it is required, but `bitnet` is not available: it was not built")
        .is(101, "fail 2 + unavailable 2");
}

fn a_worker_that_dies_in_mid_request() {
    let toy = stage();
    install(&toy);
    let ran = toy.run_with(ONE_BY_ONE, &[(REAL, "1")]);
    ran.is(101, "the bitnet.cpp worker died during logits")
        .is(101, "GGML_ASSERT(nothing is well) failed")
        .is(101, "declared 4 = pass 1 + xfail 0 + fail 1 + unavailable 2 + unsupported 0 + elsewhere 0 + filtered 0");
    assert_eq!(toy.record(LOGITS).outcome, Outcome::Fail);
    assert_eq!(toy.record(CONTINUATION).outcome, Outcome::Pass);
    // It dies only once, so that the very cell passes now.
    toy.run_with(ONE_BY_ONE, &[(REAL, "1")]).is(0, "pass 2 + xfail 0 + fail 0 + unavailable 2");
}

fn a_worker_of_another_receipt() {
    let toy = stage();
    install(&toy);
    let path = toy.path("target/cpp/bitnet/worker");
    let text = std::fs::read_to_string(&path).expect("worker");
    std::fs::write(&path, format!("{text}# changed\n")).expect("worker");
    toy.run_with(ONE_BY_ONE, &[(REAL, "1")]).is(0, "is not the program of its receipt").is(0, "unavailable 4");
}
