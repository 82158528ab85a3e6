//! The worker's side: a toy reference that serves well, and programs that break the protocol in one way each.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cpp_sys::serve::{Reference, serve};
use cpp_sys::wire::{PROTOCOL, Refusal};
use cpp_sys::{Fault, Generated, Hello, LoadInfo, LoadOptions, TraceStep, frame};

/// Bytes in place of the answer to a request of this id.
type Bad = fn(u64) -> Vec<u8>;

/// Roles that answer hello and load as they should, and the third request so.
const BAD: &[(&str, Bad)] = &[
    ("chatter", |_| b"llama_print_timings: load time".to_vec()),
    ("long-header", |_| [0xff; 12].to_vec()),
    ("long-body", |_| [[0; 4].as_slice(), &[0xff; 8]].concat()),
    ("cut", |id| answer(id, "{}", &[]).into_iter().take(20).collect()),
    ("no-json", |_| frame::encode(b"not json", b"").unwrap_or_default()),
    ("no-outcome", |id| frame::encode(format!("{{\"id\":{id}}}").as_bytes(), b"").unwrap_or_default()),
    ("no-rows", |id| answer(id, "{\"rows\":1}", &[])),
    ("other-id", |_| answer(999, ROWS, &[])),
    // The third request has the third id.
    ("third", |_| answer(3, ROWS, &[0; 2048])),
    ("odd-body", |id| answer(id, ROWS, &[0; 5])),
    ("short-body", |id| answer(id, ROWS, &[0; 4])),
    ("too-many", |id| {
        answer(id, "{\"ended\":false,\"prompt_seconds\":0.0,\"decode_seconds\":0.0}", &frame::from_u32(&[1, 2, 3]))
    }),
    ("other-positions", |id| answer(id, "{\"positions\":[7],\"vocab\":256}", &[0; 1024])),
];
const ROWS: &str = "{\"positions\":[0,1],\"vocab\":256}";

fn answer(id: u64, ok: &str, body: &[u8]) -> Vec<u8> {
    frame::encode(format!("{{\"id\":{id},\"seconds\":0.0,\"ok\":{ok}}}").as_bytes(), body).unwrap_or_default()
}

/// All roles.
pub(crate) fn roles() -> impl Iterator<Item = &'static str> {
    BAD.iter().map(|(name, _)| *name).chain(["good", "dies", "silent", "flood", "old", "bitnet", "slow-load"])
}

/// Is the worker of this role.
pub(crate) fn play(role: &str) -> ExitCode {
    let mut toy = Toy { role: role.to_owned() };
    let (mut from, mut to) = (std::io::stdin(), std::io::stdout());
    let Some((_, bad)) = BAD.iter().find(|(name, _)| *name == role) else {
        return if serve(&mut toy, &mut from, &mut to).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    for _ in 0..2 {
        let Ok(request) = frame::read(&mut from) else { return ExitCode::FAILURE };
        let one = frame::encode(&request.header, &request.body).unwrap_or_default();
        if serve(&mut toy, &mut one.as_slice(), &mut to).is_err() {
            return ExitCode::FAILURE;
        }
    }
    let header = frame::read(&mut from).map(|frame| frame.header).unwrap_or_default();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap_or_default();
    let written = to.write_all(&bad(header["id"].as_u64().unwrap_or_default())).and_then(|()| to.flush());
    if role != "cut" {
        // Until it is killed, or its stdin ends.
        let _ = from.read_to_end(&mut Vec::new());
    }
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A reference whose tokens are bytes and whose next token is the next number.
struct Toy {
    role: String,
}

/// Tokens of the toy.
pub(crate) const VOCAB: usize = 256;

impl Reference for Toy {
    fn hello(&self) -> Hello {
        let protocol = if self.role == "old" { 99 } else { PROTOCOL };
        let backend = if self.role == "bitnet" { "bitnet" } else { "llama" };
        Hello { protocol, backend: backend.to_owned(), ..Hello::default() }
    }

    fn load(&mut self, path: &Path, options: &LoadOptions, threads: usize) -> Result<LoadInfo, Refusal> {
        if self.role == "slow-load" {
            std::thread::sleep(Duration::from_millis(300));
        }
        if !path.ends_with("toy.gguf") {
            return Err(Refusal { message: "no such file".to_owned(), log: vec!["error: open".to_owned()] });
        }
        Ok(LoadInfo {
            vocab_size: VOCAB,
            context: options.context,
            layers: 0,
            width: 0,
            heads: 0,
            kv_heads: 0,
            description: "toy".to_owned(),
            bytes: 0,
            parameters: 0,
            bos: Some(1),
            eos: None,
            add_bos: true,
            largest_batch: None,
            threads,
            warnings: Vec::new(),
        })
    }

    fn tokenize(&mut self, text: &str, add_special: bool, _: bool) -> Result<Vec<u32>, Refusal> {
        Ok(add_special.then_some(1).into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn detokenize(&mut self, tokens: &[u32], _: bool) -> Result<Vec<u8>, Refusal> {
        Ok(tokens.iter().filter_map(|id| u8::try_from(*id).ok()).collect())
    }

    fn logits(&mut self, tokens: &[u32], positions: &[usize], _: usize) -> Result<Vec<f32>, Refusal> {
        match self.role.as_str() {
            "dies" => {
                eprintln!("GGML_ASSERT(false) failed");
                std::process::exit(3);
            }
            "silent" => {
                eprintln!("thinking");
                std::thread::sleep(Duration::from_secs(3600));
            }
            "flood" => (0..64).for_each(|_| eprint!("{}", "x".repeat(1 << 16))),
            _ => {}
        }
        let next = |position: &usize| tokens.get(*position).map_or(0, |id| *id as usize + 1);
        let row = |next: usize| (0..VOCAB).map(move |id| if id == next { 1.0 } else { 0.0 });
        Ok(positions.iter().flat_map(|position| row(next(position))).collect())
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal> {
        let last = prompt.last().copied().unwrap_or_default();
        let tokens = (last + 1..VOCAB as u32).take(max_tokens).collect();
        Ok(Generated { tokens, ended: false, prompt_seconds: 0.0, decode_seconds: 0.0 })
    }

    fn trace(&mut self, tokens: &[u32], steps: &[String]) -> Result<Vec<TraceStep>, Refusal> {
        let (rows, width) = (tokens.len(), 3);
        let step = |step: &String| TraceStep {
            step: Some(step.clone()),
            tensor: format!("{step}-0"),
            op: "MUL_MAT".to_owned(),
            rows,
            width,
            values: vec![0.5; rows * width],
        };
        Ok(steps.iter().map(step).collect())
    }

    fn provoke(&mut self, fault: Fault) -> Result<(), Refusal> {
        Err(Refusal::new(format!("{fault:?} is for real workers")))
    }
}
