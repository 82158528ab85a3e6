//! Running the real program, away from the settings of whoever runs the tests.
#![allow(unreachable_pub, reason = "shared by the modules of one test program")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
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
        let run = self.code(1);
        assert_eq!(run.out, "", "stdout is for results");
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
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
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
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The model that is embedded in the program.
pub fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/tiny-bitnet.gguf")
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
