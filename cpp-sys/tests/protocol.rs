//! The protocol under arbitrary traffic: what is written is read, what is broken is an error, and every request has one answer.

use cpp_sys::frame::{self, Frame, FrameError};
use cpp_sys::serve::{Reference, ServeError, serve};
use cpp_sys::wire::{Answer, Ask, Outcome, PROTOCOL, Positions, Refusal, Request};
use cpp_sys::{Fault, Generated, Hello, LoadInfo, LoadOptions, TraceStep};
use proptest::prelude::*;
use std::path::Path;

const VOCAB: usize = 5;
const CONTEXT: usize = 8;

/// Answers with what it was asked, so that a request in the wrong place shows.
#[derive(Default)]
struct Echo {
    largest: Option<usize>,
    /// The chunks that logits were asked with.
    chunks: Vec<usize>,
}

impl Reference for Echo {
    fn hello(&self) -> Hello {
        Hello { protocol: PROTOCOL, backend: "llama".to_owned(), ..Hello::default() }
    }

    fn load(&mut self, path: &Path, _: &LoadOptions, threads: usize) -> Result<LoadInfo, Refusal> {
        if path.as_os_str() == "none" {
            return Err(Refusal::new("no such file"));
        }
        Ok(LoadInfo {
            vocab_size: VOCAB,
            context: CONTEXT,
            layers: 1,
            width: 1,
            heads: 1,
            kv_heads: 1,
            description: String::new(),
            bytes: 0,
            parameters: 0,
            bos: None,
            eos: None,
            add_bos: false,
            largest_batch: self.largest,
            threads,
            warnings: Vec::new(),
        })
    }

    fn tokenize(&mut self, text: &str, _: bool, _: bool) -> Result<Vec<u32>, Refusal> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn detokenize(&mut self, tokens: &[u32], _: bool) -> Result<Vec<u8>, Refusal> {
        Ok(tokens.iter().map(|id| *id as u8).collect())
    }

    fn logits(&mut self, tokens: &[u32], positions: &[usize], chunk: usize) -> Result<Vec<f32>, Refusal> {
        self.chunks.push(chunk);
        // Arguments were checked before.
        assert!(!tokens.is_empty() && tokens.len() <= CONTEXT && tokens.iter().all(|id| (*id as usize) < VOCAB));
        assert!(positions.is_sorted_by(|a, b| a < b) && positions.iter().all(|at| *at < tokens.len()));
        Ok(positions.iter().flat_map(|at| [*at as f32; VOCAB]).collect())
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal> {
        assert!(!prompt.is_empty() && prompt.len() + max_tokens <= CONTEXT);
        Ok(Generated { tokens: vec![prompt[0]; max_tokens], ended: false, prompt_seconds: 0.0, decode_seconds: 0.0 })
    }

    fn trace(&mut self, tokens: &[u32], _: &[String]) -> Result<Vec<TraceStep>, Refusal> {
        assert!(!tokens.is_empty() && tokens.len() <= CONTEXT);
        Ok(Vec::new())
    }

    fn provoke(&mut self, _: Fault) -> Result<(), Refusal> {
        Err(Refusal::new("no"))
    }
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCAB as u32 + 2, 0..CONTEXT + 3)
}

/// A request and its body.
fn request() -> impl Strategy<Value = (Ask, Vec<u8>)> {
    let body = |ids: Vec<u32>| frame::from_u32(&ids);
    let positions =
        prop_oneof![Just(Positions::All), prop::collection::vec(0..CONTEXT + 2, 0..4).prop_map(Positions::List),];
    prop_oneof![
        (0..4_u32).prop_map(|more| (Ask::Hello { protocol: PROTOCOL + more / 3 }, Vec::new())),
        prop_oneof![Just("m.gguf"), Just("none")].prop_map(|path| {
            (Ask::Load { path: path.into(), options: LoadOptions::default(), threads: 1 }, Vec::new())
        }),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|text| (Ask::Tokenize { add_special: true, parse_special: false }, text)),
        ids().prop_map(move |ids| (Ask::Detokenize { special: false }, body(ids))),
        (ids(), positions).prop_map(move |(ids, positions)| (Ask::Logits { positions, chunk: 2 }, body(ids))),
        (ids(), 0..CONTEXT + 2).prop_map(move |(ids, max_tokens)| (Ask::Generate { max_tokens }, body(ids))),
        ids().prop_map(move |ids| (Ask::Trace { steps: Vec::new() }, body(ids))),
        Just((Ask::Provoke { fault: Fault::Assert }, Vec::new())),
        // A body that is not a row of ids.
        Just((Ask::Logits { positions: Positions::All, chunk: 0 }, vec![0; 5])),
    ]
}

/// Whether the worker should do it, given whether a model is there.
fn sound(ask: &Ask, body: &[u8], loaded: bool) -> bool {
    let ids = frame::to_u32(body);
    let known = |ids: &[u32]| ids.iter().all(|id| (*id as usize) < VOCAB);
    let fits =
        |more: usize| ids.as_ref().is_some_and(|ids| known(ids) && !ids.is_empty() && ids.len() + more <= CONTEXT);
    match ask {
        Ask::Hello { protocol } => *protocol == PROTOCOL,
        Ask::Load { path, .. } => path.as_os_str() != "none",
        Ask::Tokenize { .. } => loaded && std::str::from_utf8(body).is_ok(),
        Ask::Detokenize { .. } => loaded && ids.as_ref().is_some_and(|ids| known(ids)),
        Ask::Logits { positions, .. } => {
            let length = ids.as_ref().map_or(0, Vec::len);
            let ascend = match positions {
                Positions::All => true,
                Positions::List(list) => {
                    !list.is_empty() && list.is_sorted_by(|a, b| a < b) && list.iter().all(|at| *at < length)
                }
            };
            loaded && fits(0) && ascend
        }
        Ask::Generate { max_tokens } => loaded && fits(*max_tokens),
        Ask::Trace { .. } => loaded && fits(0),
        Ask::Provoke { .. } => false,
    }
}

fn traffic(asks: &[(Ask, Vec<u8>)]) -> Vec<u8> {
    let frame = |(id, (ask, body)): (u64, &(Ask, Vec<u8>))| {
        let header = serde_json::to_vec(&Request { id, ask: ask.clone() }).expect("json");
        frame::encode(&header, body).expect("a frame")
    };
    (7..).zip(asks).flat_map(frame).collect()
}

fn answers(mut from: &[u8]) -> Vec<(Answer, Vec<u8>)> {
    let mut out = Vec::new();
    while let Ok(Frame { header, body }) = frame::read(&mut from) {
        out.push((serde_json::from_slice(&header).expect("an answer"), body));
    }
    assert!(from.is_empty(), "half an answer");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_has_one_answer_in_its_order(asks in prop::collection::vec(request(), 0..12)) {
        let mut written = Vec::new();
        serve(&mut Echo::default(), &mut traffic(&asks).as_slice(), &mut written).expect("the stream ends between two frames");
        let answers = answers(&written);
        prop_assert_eq!(answers.len(), asks.len());
        let mut loaded = false;
        for ((id, (ask, body)), (answer, _)) in (7..).zip(&asks).zip(&answers) {
            prop_assert_eq!(answer.id, id);
            let good = matches!(answer.outcome, Outcome::Ok(_));
            prop_assert_eq!(good, sound(ask, body, loaded), "{:?} {:?}: {:?}", ask, body, answer);
            if matches!(ask, Ask::Load { .. }) {
                loaded = good;
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_ends_with_what_is_missing(asks in prop::collection::vec(request(), 1..5), cut in any::<prop::sample::Index>()) {
        let bytes = traffic(&asks);
        let at = cut.index(bytes.len());
        let ends: Vec<usize> = (0..=asks.len()).map(|n| traffic(&asks[..n]).len()).collect();
        let mut written = Vec::new();
        let served = serve(&mut Echo::default(), &mut &bytes[..at], &mut written);
        prop_assert_eq!(answers(&written).len(), ends.iter().filter(|end| **end <= at).count() - 1);
        match served {
            Ok(()) => prop_assert!(ends.contains(&at)),
            Err(ServeError::Frame(FrameError::Cut { got, want, .. })) => prop_assert!(got < want && !ends.contains(&at)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_frame_comes_back_and_a_changed_one_never_panics(
        header in prop::collection::vec(any::<u8>(), 0..60),
        body in prop::collection::vec(any::<u8>(), 0..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = frame::encode(&header, &body).expect("short");
        prop_assert_eq!(frame::read(&mut bytes.as_slice()).expect("whole"), Frame { header, body });
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = frame::read(&mut bytes.as_slice());
        let mut written = Vec::new();
        let _ = serve(&mut Echo::default(), &mut bytes.as_slice(), &mut written);
        answers(&written);
    }
}

#[test]
fn another_version_is_refused_by_the_worker_too() {
    let mut written = Vec::new();
    serve(&mut Echo::default(), &mut traffic(&[(Ask::Hello { protocol: 99 }, Vec::new())]).as_slice(), &mut written)
        .expect("served");
    match &answers(&written)[0].0.outcome {
        Outcome::Error(refusal) => assert!(refusal.message.contains("the client 99"), "{refusal:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lengths_are_met_to_the_byte() {
    let lengths = |header: u32, body: u64| [header.to_le_bytes().as_slice(), &body.to_le_bytes()].concat();
    let read =
        |header, body| frame::read(&mut lengths(header, body).as_slice()).expect_err("nothing behind the lengths");
    let cut = |error: FrameError| matches!(error, FrameError::Cut { got: 0, .. });
    assert!(cut(read(frame::MAX_HEADER, 0)) && cut(read(0, frame::MAX_BODY)));
    for (error, words) in [
        (read(frame::MAX_HEADER + 1, 0), "a header of 16777217 bytes (limit 16777216)"),
        (read(0, frame::MAX_BODY + 1), "a body of 4294967297 bytes (limit 4294967296)"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    let longest = vec![b' '; frame::MAX_HEADER as usize];
    assert!(frame::encode(&longest, b"").is_ok());
    assert!(frame::encode(&[longest.as_slice(), b" "].concat(), b"").is_err());
}

/// At least one token at once, and no more than the reference's kernels can do.
#[test]
fn a_chunk_is_cut_to_what_the_reference_can_do() {
    let asked = |largest| {
        let load = Ask::Load { path: "m.gguf".into(), options: LoadOptions::default(), threads: 1 };
        let logits = |chunk| (Ask::Logits { positions: Positions::All, chunk }, frame::from_u32(&[1, 2]));
        let asks = [(load, Vec::new()), logits(0), logits(1), logits(2), logits(9)];
        let mut echo = Echo { largest, ..Echo::default() };
        serve(&mut echo, &mut traffic(&asks).as_slice(), &mut Vec::new()).expect("served");
        echo.chunks
    };
    assert_eq!(asked(None), [1, 1, 2, 9]);
    assert_eq!(asked(Some(4)), [1, 1, 2, 4]);
    assert_eq!(asked(Some(0)), [1, 1, 1, 1]);
}
