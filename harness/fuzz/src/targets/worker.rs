//! Frames between us and a worker: requests served by a small worker, answers read as a client reads them.

use super::said;
use crate::Target;
use cpp_sys::frame::{self, Frame};
use cpp_sys::serve::{Reference, serve};
use cpp_sys::wire::{
    Answer, Ask, Fault, Generated, GeneratedHeader, Hello, LoadInfo, LoadOptions, Outcome, Positions, Refusal, Request,
    Rows, StepHeader, TraceHeader, TraceStep,
};
use std::io::Write;
use std::path::Path;

/// What a worker reads.
pub const REQUESTS: Target = Target {
    name: "worker-frames",
    about: "requests of the protocol of cpp-sys, served by a small worker",
    seeds: || seeds().0,
    run: requests,
};

/// What a client reads.
pub const ANSWERS: Target = Target {
    name: "worker-answers",
    about: "answers of the protocol of cpp-sys, of a worker that may be anything",
    seeds: || seeds().1,
    run: answers,
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

fn requests(mut bytes: &[u8]) -> String {
    let mut heard = Refusals(String::new());
    let ended = said(serve(&mut Small, &mut bytes, &mut heard));
    heard.0 + without_start(&ended)
}

/// What is said of a frame that is too long, but for the bytes that it begins with.
fn without_start(said: &str) -> &str {
    said.split_once("; the frame begins with").map_or(said, |(why, _)| why)
}

/// Takes answers for what they refuse.
struct Refusals(String);

impl Write for Refusals {
    fn write(&mut self, frame: &[u8]) -> std::io::Result<usize> {
        const REFUSED: &[u8] = br#""error":{"message":""#;
        match frame.windows(REFUSED.len()).position(|window| window == REFUSED) {
            // Quotes are left out, for words in quotes are no words.
            Some(at) => self
                .0
                .extend(frame[at + REFUSED.len()..].iter().filter(|byte| **byte != b'"').map(|byte| char::from(*byte))),
            None => self.0.push('.'),
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn answers(mut bytes: &[u8]) -> String {
    let (mut words, mut last) = (String::new(), String::new());
    loop {
        let Frame { header, body } = match frame::read(&mut bytes) {
            Ok(frame) => frame,
            Err(frame::FrameError::Ended) => return words,
            Err(error) => return words + without_start(&error.to_string()),
        };
        std::hint::black_box((frame::to_u32(&body), frame::to_f32(&body)));
        let said = match serde_json::from_slice::<Answer>(&header) {
            Ok(Answer { outcome: Outcome::Ok(value), .. }) => kinds(&value),
            Ok(Answer { outcome: Outcome::Error(refusal), .. }) => refusal.message,
            Err(error) => error.to_string(),
        };
        if said != last {
            words.push_str(&said);
            last = said;
        }
    }
}

/// As which of the answers a value can be read.
fn kinds(value: &serde_json::Value) -> String {
    fn is<T: serde::de::DeserializeOwned>(value: &serde_json::Value, name: char) -> char {
        if T::deserialize(value).is_ok() { name } else { '-' }
    }
    let found = [
        is::<Hello>(value, 'h'),
        is::<LoadInfo>(value, 'l'),
        is::<Rows>(value, 'r'),
        is::<GeneratedHeader>(value, 'g'),
        is::<TraceHeader>(value, 't'),
        is::<StepHeader>(value, 's'),
    ];
    found.iter().collect()
}

/// Requests and answers, each followed by what comes after it.
fn seeds() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let frame = |header: Result<Vec<u8>, serde_json::Error>, body: &[u8]| {
        frame::encode(&header.unwrap_or_default(), body).unwrap_or_default()
    };
    let ask = |ask: Ask, body: &[u8]| frame(serde_json::to_vec(&Request { id: 1, ask }), body);
    let ids = frame::from_u32(&[1, 2, 3]);
    let load = ask(Ask::Load { path: "m.gguf".into(), options: LoadOptions::default(), threads: 1 }, b"");
    let requests = [
        ask(Ask::Hello { protocol: 1 }, b""),
        ask(Ask::Tokenize { add_special: true, parse_special: false }, b"text"),
        ask(Ask::Detokenize { special: true }, &ids),
        ask(Ask::Logits { positions: Positions::List(vec![0, 2]), chunk: 2 }, &ids),
        ask(Ask::Logits { positions: Positions::All, chunk: 0 }, &ids),
        ask(Ask::Generate { max_tokens: 4 }, &ids),
        ask(Ask::Trace { steps: vec!["blk.0.attn_norm".to_owned()] }, &ids),
    ];
    let mut loaded: Vec<Vec<u8>> = requests.iter().map(|request| [&load[..], request].concat()).collect();
    loaded.push([load, requests.concat()].concat());
    // What the small worker answers to all of them, one by one and together, and a refusal.
    let mut answered = Vec::new();
    for stream in &loaded {
        let mut answers = Vec::new();
        if serve(&mut Small, &mut &stream[..], &mut answers).is_ok() {
            answered.push(answers);
        }
    }
    let outcome = Outcome::Error(Refusal { message: "no".to_owned(), log: vec!["line".to_owned()] });
    answered.push(frame(serde_json::to_vec(&Answer { id: 1, seconds: 0.5, outcome }), &ids));
    (loaded, answered)
}
