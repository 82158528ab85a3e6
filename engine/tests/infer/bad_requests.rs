//! Requests that a sound model cannot meet: an error that says what is wrong, nothing computed, nothing left behind.

use crate::model_support::*;
use bitnet_engine::convert::set::set_metadata;
use bitnet_engine::convert::{ConvertError, ConvertOptions, convert};
use bitnet_engine::inference::{
    GenerateOptions, InferenceError, SamplerOptions, Session, SessionOptions, Want, generate,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[test]
fn requests_that_cannot_be_met() {
    let loaded = Small::new().load().unwrap();
    let run = |prompt: &[u32], options: GenerateOptions| -> String {
        let mut session = session(&loaded.model, Some(8), 4);
        let cancel = AtomicBool::new(false);
        generate(&mut session, &*loaded.tokenizer, prompt, &options, &cancel, &mut |_| {}).unwrap_err().to_string()
    };
    let sampling = |sampler: SamplerOptions| run(&[1], GenerateOptions { sampler, ..Default::default() });
    let open = |context: Option<usize>, chunk: usize| -> String {
        let options = SessionOptions { context, chunk, ..SessionOptions::new(kernels(), pool(1)) };
        Session::new(Arc::clone(&loaded.model), options).unwrap_err().to_string()
    };
    let forward = |tokens: &[u32]| -> InferenceError {
        let mut session = session(&loaded.model, Some(8), 4);
        let error = session.forward(tokens, Want::All, &mut |_, _| panic!("nothing is computed")).unwrap_err();
        assert_eq!(session.position(), 0, "{error}");
        error
    };
    let hold = |tokens: &[u32], rows: usize| -> String {
        let mut session = session(&loaded.model, Some(8), 4);
        let error = session.hold(tokens, rows).unwrap_err();
        assert_eq!(session.position(), 0, "{error}");
        error.to_string()
    };
    let greedy = SamplerOptions::default;
    for (name, message, words) in [
        ("empty prompt", run(&[], GenerateOptions::default()), &["no tokens"][..]),
        (
            "prompt as long as the context",
            run(&[1; 8], GenerateOptions::default()),
            &["8 tokens", "room for 7", "--context"],
        ),
        ("prompt longer than the context", run(&[1; 9], GenerateOptions::default()), &["9 tokens", "room for 7"]),
        ("token out of range", run(&[1, 288], GenerateOptions::default()), &["token 288", "288"]),
        ("token far out of range", forward(&[u32::MAX]).to_string(), &["4294967295", "288"]),
        ("nine into eight", forward(&[1; 9]).to_string(), &["9 tokens", "context of 8"]),
        ("logits of nothing", session(&loaded.model, None, 4).logits(&[]).unwrap_err().to_string(), &["no tokens"]),
        (
            "a boundless draft",
            run(&[1], GenerateOptions { speculate: 65, ..Default::default() }),
            &["65 tokens", "--speculate", "64 at most"],
        ),
        ("no row held", hold(&[1, 2], 0), &["at least one row"]),
        ("more rows than tokens", hold(&[1, 2], 3), &["at most one for each token"]),
        ("rows of nothing", hold(&[], 1), &["no tokens"]),
        ("nine held into eight", hold(&[1; 9], 2), &["9 tokens", "context of 8"]),
        (
            "a row that is not held",
            session(&loaded.model, None, 4).held(0, None).unwrap_err().to_string(),
            &["row that is not held"],
        ),
        ("no context", open(Some(0), 4), &["context", "at least one"]),
        ("no chunk", open(None, 0), &["chunk", "at least one"]),
        ("boundless context", open(Some(usize::MAX / 2), 4), &["9223372036854775807 tokens", "--context"]),
        ("more context than memory", open(Some(1 << 42), 4), &["4398046511104 tokens", "memory", "--context"]),
        ("temperature", sampling(SamplerOptions { temperature: -0.1, ..greedy() }), &["temperature", "-0.1"]),
        ("temperature NaN", sampling(SamplerOptions { temperature: f32::NAN, ..greedy() }), &["temperature", "NaN"]),
        ("top_p 0", sampling(SamplerOptions { top_p: 0.0, ..greedy() }), &["top_p", "is 0"]),
        ("top_p 1.1", sampling(SamplerOptions { top_p: 1.1, ..greedy() }), &["top_p", "1.1"]),
        ("min_p", sampling(SamplerOptions { min_p: -1.0, ..greedy() }), &["min_p", "-1"]),
        ("penalty", sampling(SamplerOptions { repetition_penalty: 0.0, ..greedy() }), &["repetition_penalty"]),
        ("penalty infinite", sampling(SamplerOptions { repetition_penalty: f32::INFINITY, ..greedy() }), &["inf"]),
    ] {
        for word in words {
            assert!(message.contains(word), "{name}: no `{word}` in: {message}");
        }
    }
}

#[test]
fn ternary_comes_only_from_ternary() {
    let mut small = Small::new();
    let mut values = ternary(FFN, HIDDEN, 3);
    values[HIDDEN * 7 + 5] = 0.031;
    small.add("blk.0.ffn_up.weight", &[HIDDEN as u64, FFN as u64], "f32", &values);
    let loaded = small.load().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.gguf");
    let options = ConvertOptions { linear: format("i2_s"), embedding: None };

    let message =
        convert(&loaded.model, &options, &output, &mut |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    for word in ["`blk.0.ffn_up.weight`", "i2_s", "row 7", "column 5", "0.031"] {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");

    std::fs::write(&output, "what was there").unwrap();
    assert!(convert(&loaded.model, &options, &output, &mut |_, _| ControlFlow::Continue(())).is_err());
    assert_eq!(std::fs::read(&output).unwrap(), b"what was there");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_cancelled_conversion_leaves_nothing() {
    let loaded = Small::new().load().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.gguf");
    let options = ConvertOptions { linear: format("f16"), embedding: None };
    let total = loaded.file.tensors().len();
    for last in 1..=total {
        let mut seen = Vec::new();
        let mut stop_at = |done, all| {
            seen.push((done, all));
            if done == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = if last % 2 == 0 {
            convert(&loaded.model, &options, &output, &mut stop_at)
        } else {
            set_metadata(&loaded.file, &[("a".into(), 1u32.into())], &output, &mut stop_at)
        };
        assert!(matches!(result, Err(ConvertError::Cancelled)), "{result:?}");
        assert_eq!(seen, (1..=last).map(|done| (done, total)).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "after tensor {last}");
    }
}
