//! Small promises of sessions and samplers, each by its own value.

use crate::model_support::*;
use bitnet_engine::inference::{
    GenerateOptions, Head, InferenceError, Needs, Pooling, Sampler, SamplerOptions, Screening, Session, SessionOptions,
    Stepwise, StopReason, Timings, Want, argmax, embed, generate, nll,
};
use bitnet_engine::ops::Slot;
use bitnet_kernels::by_name;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[test]
fn a_text_as_one_vector() {
    let loaded = Small::new().load().unwrap();
    let tokens = [5, 9, 200, 31, 8];
    for chunk in [1, 2, 64] {
        let mut session = session(&loaded.model, None, chunk);
        let mut rows: Vec<Vec<f32>> = Vec::new();
        let mut note = |position: usize, row: &[f32]| {
            assert_eq!((position, row.len()), (rows.len(), HIDDEN));
            rows.push(row.to_vec());
        };
        session.hidden(&tokens, Want::All, &mut note).unwrap();
        assert_eq!((rows.len(), session.position()), (5, 5));
        let mean: Vec<f32> = (0..HIDDEN).map(|i| rows.iter().map(|row| row[i]).sum()).collect();
        for (pooling, expected) in [(Pooling::Mean, &mean), (Pooling::Cls, &rows[0]), (Pooling::Last, &rows[4])] {
            let length = expected.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let found = embed(&mut session, &tokens, pooling).unwrap();
            assert_eq!(found.len(), HIDDEN);
            for (x, y) in found.iter().zip(expected) {
                assert!((f64::from(*x) - f64::from(*y) / length).abs() < 1e-5, "{pooling:?} in chunks of {chunk}");
            }
        }
        session.truncate(0);
        let mut last = Vec::new();
        session.hidden(&tokens, Want::Last, &mut |position, row| last.push((position, row.to_vec()))).unwrap();
        assert_eq!(last, [(4, rows[4].clone())]);
        session.truncate(0);
        session.hidden(&tokens, Want::Nothing, &mut |_, _| panic!("nothing was wanted")).unwrap();
        assert!(matches!(embed(&mut session, &[], Pooling::Mean), Err(InferenceError::EmptyPrompt)));
    }
    // Zeros have no direction.
    let mut small = Small::new();
    small.add("output_norm.weight", &[HIDDEN as u64], "f32", &[0.0; HIDDEN]);
    let mut session = session(&small.load().unwrap().model, None, 8);
    let error = embed(&mut session, &tokens, Pooling::Last).unwrap_err();
    assert!(matches!(error, InferenceError::NotFinite { position: 4 }), "{error}");
}

#[test]
fn names_of_choices() {
    let pooling = |text: &str| text.parse::<Pooling>();
    assert_eq!(["mean", "cls", "last"].map(pooling), [Ok(Pooling::Mean), Ok(Pooling::Cls), Ok(Pooling::Last)]);
    assert_eq!(pooling("rank"), Err("`rank` is none of: mean, cls, last".to_owned()));
    let head = |text: &str| text.parse::<Head>();
    assert_eq!(["auto", "whole", "screened"].map(head), [Ok(Head::Auto), Ok(Head::Whole), Ok(Head::Screened)]);
    assert_eq!(head("all"), Err("`all` is none of: auto, whole, screened".to_owned()));
    let of = |kind: Option<u32>| {
        let mut small = Small::new();
        if let Some(kind) = kind {
            small.set_arch("pooling_type", kind);
        }
        Pooling::of(&small.load().unwrap().model)
    };
    let kinds = [None, Some(0), Some(1), Some(2), Some(3)].map(|kind| of(kind).unwrap());
    assert_eq!(kinds, [Pooling::Last, Pooling::Last, Pooling::Mean, Pooling::Cls, Pooling::Last]);
    assert!(of(Some(4)).unwrap_err().to_string().contains("pooling_type` 4 (rank)"));
    assert!(of(Some(5)).is_err());
}

#[test]
fn sessions_in_a_log() {
    let loaded = Small::new().load().unwrap();
    let options =
        SessionOptions { context: Some(9), chunk: 4, ..SessionOptions::new(by_name("scalar").unwrap(), pool(2)) };
    let mut session = Session::new(Arc::clone(&loaded.model), options).unwrap();
    session.logits(&[3, 4]).unwrap();
    let words = "Session { options: SessionOptions { kernels: \"scalar\", threads: 2, context: Some(9), chunk: 4, \
                 head: Auto, card: None }, position: 2 }";
    assert_eq!(format!("{session:?}"), words);
}

#[test]
fn rates_and_differences() {
    let timings = Timings {
        prompt_tokens: 6,
        prefill: Duration::from_secs(3),
        decode_steps: 5,
        decode: Duration::from_millis(2000),
        ..Timings::default()
    };
    assert_eq!((timings.prefill_rate(), timings.decode_rate()), (2.0, 2.5));
    let untimed = Timings { prefill: Duration::ZERO, decode: Duration::ZERO, ..timings };
    assert_eq!((untimed.prefill_rate(), untimed.decode_rate()), (0.0, 0.0));
    let json = serde_json::to_value(timings).unwrap();
    assert_eq!((json["prefill"].as_f64(), json["decode"].as_f64()), (Some(3.0), Some(2.0)));
    let (now, earlier) = (Screening { tokens: 7, rows: 20 }, Screening { tokens: 3, rows: 5 });
    assert_eq!(now.since(earlier), Screening { tokens: 4, rows: 15 });
}

#[test]
fn the_likelihood_of_a_token() {
    assert!((nll(&[0.0; 4], 2) - 4f64.ln()).abs() < 1e-6);
    let two = |a: f64, b: f64| (1.0 + (b - a).exp()).ln();
    assert!((nll(&[1.0, 3.0], 0) - two(1.0, 3.0)).abs() < 1e-6 && (nll(&[1.0, 3.0], 1) - two(3.0, 1.0)).abs() < 1e-6);
    assert!((nll(&[1000.0, 1001.0], 0) - two(0.0, 1.0)).abs() < 1e-4, "no sum of exponentials overflows");
}

#[test]
fn what_a_sampler_looks_at() {
    let plain = SamplerOptions { temperature: 1.0, ..SamplerOptions::default() };
    let greedy = SamplerOptions::default();
    let penalty = SamplerOptions { repetition_penalty: 1.5, repetition_window: 2, ..greedy.clone() };
    let recent = [9, 7, 3];
    let all = |count, within, also: &[u32]| Some(Needs { count, within, also: also.to_vec() });
    let share = |min_p: f32| SamplerOptions { min_p, ..plain.clone() };
    for (options, needs) in [
        (greedy, all(1, 0.0, &[])),
        (penalty.clone(), all(3, 0.0, &[3, 7])),
        (SamplerOptions { top_k: 5, ..plain.clone() }, all(5, 0.0, &[])),
        (SamplerOptions { top_k: 5, temperature: 1.0, ..penalty }, all(7, 0.0, &[3, 7])),
        (plain.clone(), None),
        (SamplerOptions { top_p: 0.5, ..plain.clone() }, None),
        (SamplerOptions { top_p: 0.5, ..share(0.1) }, None),
        (share(0.5), all(1, std::f32::consts::LN_2 + 1e-3, &[])),
        (share(1e-6), all(1, -1e-6f32.ln() + 1e-3, &[])),
        (share(0.9e-6), None),
    ] {
        let sampler = Sampler::new(options.clone()).unwrap();
        assert_eq!((sampler.options(), sampler.needs(&recent)), (&options, needs));
        assert!(sampler.needs(&[]).is_none_or(|needs| needs.also.is_empty()));
    }
    let twice = SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() };
    assert_eq!(Sampler::new(twice).unwrap().needs(&[4, 4, 4]), all(2, 0.0, &[4]));
}

/// Also where the likeliest is far ahead, or behind many pieces of a vocabulary, or one of two in a piece.
#[test]
fn what_samplers_draw() {
    let drawn = |options: SamplerOptions, logits: &[f32], times: usize| {
        let mut sampler = Sampler::new(options).unwrap();
        let drawn: std::collections::BTreeSet<u32> = (0..times).map(|_| sampler.sample(logits, &[])).collect();
        drawn.into_iter().collect::<Vec<_>>()
    };
    let warm = |temperature| SamplerOptions { temperature, ..SamplerOptions::default() };
    assert_eq!(drawn(warm(8.0), &[40.0, 0.0], 3000), [0, 1], "nothing is cut where no filter is on");
    assert_eq!(
        drawn(SamplerOptions { min_p: 1.0, ..warm(1.0) }, &[1.0, 2.0, 2.0], 100),
        [1, 2],
        "as likely as the first"
    );
    let mut wide = vec![f32::NEG_INFINITY; 1000];
    assert_eq!((argmax(&wide), drawn(warm(1.0), &wide, 3)), (0, vec![0]));
    (wide[300], wide[301], wide[900], wide[901]) = (1.0, 1.5, 1.5, 1.5);
    assert_eq!((argmax(&wide), drawn(warm(1.0), &wide, 400)), (301, vec![300, 301, 900, 901]));
    assert_eq!(argmax(&[]), 0);
    assert_eq!(drawn(warm(0.5), &[90.0, 89.0], 200), [0, 1], "weights are those of the distance to the likeliest");
    // With the temperature a distribution is flat or sharp: shares of 4/5 and 2/3, of 3,000.
    let logits = [0.0, 4f32.ln()];
    for (temperature, share) in [(1.0, 0.8), (2.0, 2.0 / 3.0), (0.5, 16.0 / 17.0)] {
        let mut sampler = Sampler::new(warm(temperature)).unwrap();
        let ones = (0..3000).filter(|_| sampler.sample(&logits, &[]) == 1).count();
        assert!((ones as f64 / 3000.0 - share).abs() < 0.03, "{ones} at {temperature}");
    }
}

/// What is looked at of a prompt is what comes before the output matrix, and its last row is held.
#[test]
fn a_prompt_that_is_looked_at_holds_its_last_row() {
    let loaded = Small::new().load().unwrap();
    let tokens = [5, 9, 200, 31, 8];
    let mut seen = session(&loaded.model, None, 5);
    let mut rows = Vec::new();
    seen.hold_seen(&tokens, &mut rows).unwrap();
    let mut expected = Vec::new();
    let mut other = session(&loaded.model, None, 5);
    other.hidden(&tokens, Want::All, &mut |_, row| expected.extend_from_slice(row)).unwrap();
    assert_eq!((rows.len(), rows == expected), (5 * HIDDEN, true));
    other.truncate(0);
    assert_eq!(seen.held(0, None).unwrap(), other.logits(&tokens).unwrap());
    assert!(seen.held(1, None).is_err(), "one row is held");
    assert_eq!((seen.position(), seen.computed(), other.computed()), (5, 5, 10));
    assert!(matches!(seen.hold_seen(&[], &mut rows), Err(InferenceError::EmptyPrompt)));
    let message = seen.hold_seen(&[1; 6], &mut rows).unwrap_err().to_string();
    assert!(message.contains("more tokens than a chunk"), "{message}");
    // What cannot be held is refused before anything is computed.
    for (tokens, held) in [(&[1, 2][..], 0), (&[1, 2], 3)] {
        assert!(seen.hold(tokens, held).unwrap_err().to_string().contains("at most one for each token"));
    }
    assert!(matches!(seen.hold(&[], 1), Err(InferenceError::EmptyPrompt)));
    assert_eq!(seen.computed(), 5);
}

#[test]
fn nothing_is_computed_of_a_prompt_that_was_cancelled() {
    let loaded = tiny();
    let mut session = session(&loaded.model, Some(64), 4);
    let made = generate(
        &mut session,
        &*loaded.tokenizer,
        &[5; 20],
        &GenerateOptions::default(),
        &AtomicBool::new(true),
        &mut |text| panic!("{text}"),
    );
    let made = made.unwrap();
    assert_eq!((made.stop, made.tokens.len(), session.computed()), (StopReason::Cancelled, 0, 0));
}

#[test]
fn a_plan_that_is_run_step_by_step_is_a_session() {
    let loaded = Small::new().load().unwrap();
    let (tokens, pool) = ([5, 9, 200], pool(1));
    let mut steps = Stepwise::new(&loaded.model, kernels(), &pool, &tokens, 0).unwrap();
    loaded.model.plan.iter().for_each(|step| steps.run(step));
    let bits: Vec<u32> = steps.slot(Slot::Logits).iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, logits_bits(&mut session(&loaded.model, None, 8), &tokens).concat());
    let other: Vec<f32> = (0..3 * VOCAB).map(|i| i as f32).collect();
    steps.replace(Slot::Logits, &other);
    assert_eq!(steps.slot(Slot::Logits), other);
}
