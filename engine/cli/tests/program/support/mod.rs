//! Running the real program, away from the settings of whoever runs the tests.
#![allow(unreachable_pub, reason = "shared by the modules of one test program")]

use bitnet_mock_hub::{MockHub, Repo, Storage};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Run {
    /// The run, which must have ended with `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// An error: code 1, nothing on stdout, all of `words` on stderr, no panic.
    #[track_caller]
    pub fn fails_with(self, words: &[&str]) -> Self {
        self.ends_with(1, words)
    }

    /// Arguments that are wrong: as [`Run::fails_with`], with code 2.
    #[track_caller]
    pub fn refused_with(self, words: &[&str]) -> Self {
        self.ends_with(2, words)
    }

    #[track_caller]
    fn ends_with(self, code: i32, words: &[&str]) -> Self {
        let run = self.code(code);
        // stdout is for results; where these are JSON, for the error too.
        assert!(run.out.is_empty() || run.json()["error"].is_string(), "{}", run.out);
        assert!(run.err.contains("error: "), "{}", run.err);
        for word in words {
            assert!(run.err.contains(word), "no `{word}` in: {}", run.err);
        }
        assert!(!run.err.contains("panicked"), "{}", run.err);
        run
    }

    /// stdout, which must be one JSON document and nothing else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in: {}", self.out))
    }
}

/// The program with an environment of its own.
pub fn bitnet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let foreign = ["BITNET_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_"].iter().any(|p| upper.starts_with(p));
        if foreign || upper.ends_with("_PROXY") || upper == "XDG_CACHE_HOME" {
            command.env_remove(name);
        }
    }
    // What one test compiles is nothing to another.
    command.env("BITNET_COMPILED_TOKENIZERS", "off");
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn finish(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

pub fn run(args: &[&str]) -> Run {
    finish(&mut bitnet(args))
}

pub fn run_env(env: &[(&str, &str)], args: &[&str]) -> Run {
    finish(bitnet(args).envs(env.iter().copied()))
}

/// Runs with `input` on stdin.
pub fn run_with(input: &[u8], args: &[&str]) -> Run {
    let mut child = bitnet(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().into()
}

/// The program with home and cache in `dir`, and the hub at `endpoint`; `env` comes last.
pub fn at(endpoint: &str, dir: &Path, env: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = bitnet(args);
    command
        .current_dir(dir)
        .env("HF_ENDPOINT", endpoint)
        .env("BITNET_TOKENIZER_CACHE", dir.join("cache"))
        .env("HOME", dir.join("home"))
        .envs(env.iter().copied());
    command
}

/// A machine of its own: home, caches, working folder and the hub.
pub struct Machine {
    pub hub: MockHub,
    pub dir: tempfile::TempDir,
}

impl Machine {
    pub fn new(hub: MockHub) -> Self {
        Self { hub, dir: tempfile::tempdir().unwrap() }
    }

    /// With a hub that has these repositories.
    pub fn with(repos: impl IntoIterator<Item = Repo>) -> Self {
        Self::new(repos.into_iter().fold(MockHub::builder(), |hub, repo| hub.repo(repo)).start().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, env: &[(&str, &str)], args: &[&str]) -> Command {
        at(self.hub.endpoint(), self.dir.path(), env, args)
    }

    pub fn run_env(&self, env: &[(&str, &str)], args: &[&str]) -> Run {
        finish(&mut self.command(env, args))
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.run_env(&[], args)
    }

    /// Runs with the words of a line.
    pub fn line(&self, line: &str) -> Run {
        self.run(&words(line))
    }

    /// Runs, and no packet may leave.
    #[track_caller]
    pub fn silent(&self, env: &[(&str, &str)], args: &[&str]) -> Run {
        self.hub.log().clear();
        let run = self.run_env(env, args);
        assert!(self.hub.log().is_empty(), "{:?}", self.hub.log().entries());
        run
    }

    /// A repository in HuggingFace's cache.
    pub fn home(&self, repo: &str) -> PathBuf {
        self.path("home/.cache/huggingface/hub").join(format!("models--{}", repo.replace('/', "--")))
    }

    pub fn commit(&self, repo: &str) -> String {
        std::fs::read_to_string(self.home(repo).join("refs/main")).unwrap()
    }

    /// Empties the caches.
    pub fn forget(&self) {
        for folder in ["home", "cache"] {
            let _ = std::fs::remove_dir_all(self.path(folder));
        }
    }

    /// The branch was seen long ago.
    pub fn forget_the_day(&self, repo: &str) {
        let seen = self.path("cache/refs").join(repo.replace('/', "--")).join("main");
        let long_ago = SystemTime::now() - Duration::from_secs(100_000);
        File::options().append(true).open(seen).unwrap().set_modified(long_ago).unwrap();
    }
}

/// The model that is embedded in the program.
pub fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/tiny-bitnet.gguf")
}

/// Its bytes.
pub fn model() -> Vec<u8> {
    std::fs::read(tiny()).unwrap()
}

pub fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until a process has taken SIGINT (signal 2) into its own hands.
#[cfg(target_os = "linux")]
pub fn wait_for_handler(pid: u32) {
    let started = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 1) != 0 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no handler of Ctrl-C");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A terminal: the end of who sits at it, and what opens the end of a program.
#[cfg(unix)]
pub fn terminal() -> (File, impl Fn() -> File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    (master.into(), move || File::options().read(true).write(true).open(&name).unwrap())
}

/// What Ctrl-C sends.
pub fn interrupt(pid: u32) {
    let killed = Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// A folder with a llama checkpoint of one block in f16; `extra` is one more tensor.
pub fn checkpoint(folder: &Path, extra: Option<&str>) {
    const WIDTH: usize = 32;
    const VOCAB: usize = 48;
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, WIDTH])];
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] {
        shapes.push((format!("model.layers.0.{name}.weight"), vec![WIDTH, WIDTH]));
    }
    for name in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] {
        shapes.push((format!("model.layers.0.{name}.weight"), vec![WIDTH, WIDTH]));
    }
    for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"] {
        shapes.push((format!("model.{name}.weight"), vec![WIDTH]));
    }
    shapes.extend(extra.map(|name| (name.to_owned(), vec![1])));
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in shapes {
        let start = data.len();
        for i in 0..shape.iter().product::<usize>() {
            // f16 of 2^-3 times -1.75 to 2.
            let bits = 0x3000 | ((i * 37 + i / 29) as u16 % 4) << 8 | ((i * 11 % 2) as u16) << 15;
            data.extend(bits.to_le_bytes());
        }
        header.insert(name, serde_json::json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH,
        "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 64, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// A repository of [`checkpoint`] without a GGUF.
pub fn checkpoint_repo(name: &str) -> Repo {
    let made = tempfile::tempdir().unwrap();
    checkpoint(made.path(), None);
    let file = |name: &str| std::fs::read(made.path().join(name)).unwrap();
    Repo::new(name)
        .file("config.json", file("config.json"), Storage::Git)
        .file("model.safetensors", file("model.safetensors"), Storage::Lfs)
        .file("README.md", "no", Storage::Git)
}
