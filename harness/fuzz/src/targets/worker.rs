//! Frames between us and a worker: requests served by a small worker, answers read as a client reads them.

use super::said;
use crate::Target;
use cpp_sys::frame::{self, Frame};
use cpp_sys::serve::{Reference, serve};
use cpp_sys::wire::{
    Answer, Ask, Fault, Generated, GeneratedHeader, Hello, LoadInfo, LoadOptions, Outcome, Positions, Refusal, Request,
    Rows, StepHeader, TraceHeader, TraceStep,
};
use std::path::Path;

pub const TARGET: Target = Target {
    name: "worker-frames",
    about: "the protocol of cpp-sys, as the worker reads it and as the client does",
    seeds,
    run,
};

/// A worker with a vocabulary of four.
struct Small;

const VOCAB: usize = 4;

impl Reference for Small {
    fn hello(&self) -> Hello {
        Hello { protocol: 1, ..Hello::default() }
    }

    fn load(&mut self, _: &Path, options: &LoadOptions, threads: usize) -> Result<LoadInfo, Refusal> {
        Ok(LoadInfo { context: options.context.min(64), threads, ..info() })
    }

    fn tokenize(&mut self, text: &str, _: bool, _: bool) -> Result<Vec<u32>, Refusal> {
        Ok(text.bytes().map(|byte| u32::from(byte) % VOCAB as u32).collect())
    }

    fn detokenize(&mut self, tokens: &[u32], _: bool) -> Result<Vec<u8>, Refusal> {
        Ok(vec![b'x'; tokens.len()])
    }

    fn logits(&mut self, _: &[u32], positions: &[usize], _: usize) -> Result<Vec<f32>, Refusal> {
        Ok(vec![0.5; positions.len() * VOCAB])
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal> {
        let tokens = vec![prompt.first().copied().unwrap_or_default(); max_tokens.min(8)];
        Ok(Generated { tokens, ended: false, prompt_seconds: 0.0, decode_seconds: 0.0 })
    }

    fn trace(&mut self, tokens: &[u32], steps: &[String]) -> Result<Vec<TraceStep>, Refusal> {
        let step = |name: &String| TraceStep {
            step: Some(name.clone()),
            tensor: "t".to_owned(),
            op: "MUL_MAT".to_owned(),
            rows: tokens.len(),
            width: 1,
            values: vec![1.0; tokens.len()],
        };
        Ok(steps.iter().take(4).map(step).collect())
    }

    fn provoke(&mut self, _: Fault) -> Result<(), Refusal> {
        Err(Refusal::new("this worker behaves"))
    }
}

fn info() -> LoadInfo {
    LoadInfo {
        vocab_size: VOCAB,
        context: 64,
        layers: 1,
        width: 8,
        heads: 1,
        kv_heads: 1,
        description: "small".to_owned(),
        bytes: 1,
        parameters: 1,
        bos: Some(1),
        eos: None,
        add_bos: true,
        largest_batch: None,
        threads: 1,
        warnings: Vec::new(),
    }
}

fn run(bytes: &[u8]) -> String {
    let mut answers = Vec::new();
    let mut words = said(serve(&mut Small, &mut &*bytes, &mut answers));
    for stream in [&answers[..], bytes] {
        let mut from = stream;
        while let Ok(Frame { header, body }) = frame::read(&mut from) {
            std::hint::black_box((frame::to_u32(&body), frame::to_f32(&body)));
            match serde_json::from_slice::<Answer>(&header) {
                Ok(Answer { outcome: Outcome::Ok(value), .. }) => words.push_str(&kinds(&value)),
                Ok(Answer { outcome: Outcome::Error(refusal), .. }) => words.push_str(&refusal.message),
                Err(error) => words.push_str(&error.to_string()),
            }
        }
    }
    words
}

/// As which of the answers a value can be read.
fn kinds(value: &serde_json::Value) -> String {
    fn is<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> bool {
        T::deserialize(value).is_ok()
    }
    let found = [
        is::<Hello>(value),
        is::<LoadInfo>(value),
        is::<Rows>(value),
        is::<GeneratedHeader>(value),
        is::<TraceHeader>(value),
        is::<StepHeader>(value),
    ];
    format!("{found:?}")
}

fn seeds() -> Vec<Vec<u8>> {
    let frame = |header: Result<Vec<u8>, serde_json::Error>, body: &[u8]| {
        frame::encode(&header.unwrap_or_default(), body).unwrap_or_default()
    };
    let ask = |ask: Ask, body: &[u8]| frame(serde_json::to_vec(&Request { id: 1, ask }), body);
    let ids = frame::from_u32(&[1, 2, 3]);
    let load = || ask(Ask::Load { path: "m.gguf".into(), options: LoadOptions::default(), threads: 1 }, b"");
    let outcomes = [
        Outcome::Ok(serde_json::to_value(info()).unwrap_or_default()),
        Outcome::Ok(serde_json::json!({"steps": [{"step": "a", "tensor": "b", "op": "c", "rows": 3, "width": 1}]})),
        Outcome::Error(Refusal { message: "no".to_owned(), log: vec!["line".to_owned()] }),
    ];
    let requests = [
        ask(Ask::Hello { protocol: 1 }, b""),
        ask(Ask::Tokenize { add_special: true, parse_special: false }, b"text"),
        ask(Ask::Detokenize { special: true }, &ids),
        ask(Ask::Logits { positions: Positions::List(vec![0, 2]), chunk: 2 }, &ids),
        ask(Ask::Logits { positions: Positions::All, chunk: 0 }, &ids),
        ask(Ask::Generate { max_tokens: 4 }, &ids),
        ask(Ask::Trace { steps: vec!["blk.0.attn_norm".to_owned()] }, &ids),
    ];
    let answers = outcomes.map(|outcome| frame(serde_json::to_vec(&Answer { id: 1, seconds: 0.5, outcome }), &ids));
    let loaded = requests.iter().map(|request| [load(), request.clone()].concat());
    loaded.chain([[load(), requests.concat()].concat()]).chain(answers).collect()
}
