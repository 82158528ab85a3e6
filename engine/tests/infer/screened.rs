//! The screened output matrix draws the very tokens of the whole one, whatever the sampler looks at.

use crate::model_support::*;
use bitnet_engine::inference::{
    GenerateOptions, Head, Needs, Sampler, SamplerOptions, Session, SessionOptions, generate,
};
use bitnet_engine::tokenizer::EncodeOptions;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn session(head: Head, threads: usize) -> Session {
    let options = SessionOptions { head, context: Some(128), ..SessionOptions::new(kernels(), pool(threads)) };
    Session::new(Arc::clone(&tiny().model), options).unwrap()
}

fn prompt() -> Vec<u32> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    tiny().tokenizer.encode("And he said to them, The king of Babylon", options).unwrap()
}

/// Samplers that look at few logits, and what they look at.
fn samplers() -> Vec<(&'static str, SamplerOptions)> {
    let warm = SamplerOptions { temperature: 0.9, ..Default::default() };
    let penalty = 1.3;
    vec![
        ("greedy", SamplerOptions::default()),
        ("greedy with a penalty", SamplerOptions { repetition_penalty: penalty, ..Default::default() }),
        ("greedy that likes repetition", SamplerOptions { repetition_penalty: 0.8, ..Default::default() }),
        ("top-k", SamplerOptions { top_k: 40, ..warm.clone() }),
        (
            "top-k, top-p, min-p, penalty: the program's own",
            SamplerOptions { top_k: 40, top_p: 0.95, min_p: 0.05, repetition_penalty: 1.1, ..warm.clone() },
        ),
        ("min-p", SamplerOptions { min_p: 0.02, ..warm.clone() }),
        ("min-p with a penalty", SamplerOptions { min_p: 0.02, repetition_penalty: penalty, ..warm }),
    ]
}

#[test]
fn screened_and_whole_draw_the_same_tokens() {
    for (name, sampler) in samplers() {
        for seed in 0..4 {
            let options = GenerateOptions {
                sampler: SamplerOptions { seed, ..sampler.clone() },
                max_tokens: Some(48),
                ignore_eos: true,
                ..Default::default()
            };
            let run = |head, threads| {
                let mut session = session(head, threads);
                let cancel = AtomicBool::new(false);
                generate(&mut session, &*tiny().tokenizer, &prompt(), &options, &cancel, &mut |_| {}).unwrap()
            };
            let whole = run(Head::Whole, 1);
            assert_eq!(whole.timings.screening.tokens, 0);
            for threads in [1, 2] {
                let screened = run(Head::Screened, threads);
                assert_eq!(screened.tokens, whole.tokens, "{name}, seed {seed}");
                let counted = screened.timings.screening;
                assert_eq!(counted.tokens, 48, "{name}: every token was screened");
                // 2,048 rows: a tenth of them would be no gain.
                assert!(counted.rows / counted.tokens < 600, "{name}: {} rows for 48 tokens", counted.rows);
            }
        }
    }
}

#[test]
fn samplers_that_look_at_everything_say_so() {
    let needs = |options: SamplerOptions| Sampler::new(options).unwrap().needs(&[5, 6, 5]);
    let warm = SamplerOptions { temperature: 1.0, ..Default::default() };
    assert_eq!(needs(warm.clone()), None, "the whole distribution");
    assert_eq!(needs(SamplerOptions { top_p: 0.9, min_p: 0.1, ..warm.clone() }), None, "a share of the whole sum");
    assert_eq!(needs(SamplerOptions { min_p: 1e-9, ..warm.clone() }), None, "next to everything");
    assert_eq!(needs(SamplerOptions::default()), Some(Needs { count: 1, within: 0.0, also: vec![] }));
    let penalty = SamplerOptions { repetition_penalty: 1.1, top_k: 3, ..warm };
    assert_eq!(needs(penalty), Some(Needs { count: 5, within: 0.0, also: vec![5, 6] }));
}

#[test]
fn a_small_matrix_is_not_screened_by_itself() {
    let mut session = session(Head::Auto, 1);
    let needs = Needs { count: 1, within: 0.0, also: Vec::new() };
    for token in prompt() {
        assert!(session.logits_needed(&[token], &needs).unwrap().iter().all(|l| l.is_finite()));
    }
    assert_eq!(session.screening().tokens, 0);
}
