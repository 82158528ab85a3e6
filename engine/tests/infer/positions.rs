//! Rotation and attention far behind the borders of chunks, against naive ones at absolute positions, in f64.

use crate::model_support::*;
use bitnet_engine::inference::{Observer, Session, SessionOptions, StepResult, Want};
use bitnet_engine::model::Config;
use bitnet_engine::ops::Op;
use bitnet_kernels::numerics::{f16_to_f32, f32_to_f16};
use std::collections::HashMap;
use std::sync::Arc;

const TOKENS: usize = 201;

/// The rows of some steps by absolute position.
#[derive(Default)]
struct Rows(HashMap<String, Vec<Vec<f32>>>);

impl Observer for Rows {
    fn step(&mut self, result: StepResult<'_>) {
        let rows = self.0.entry(result.name.to_owned()).or_default();
        assert_eq!(rows.len(), result.position, "{}", result.name);
        rows.extend(result.values.chunks_exact(result.width).map(<[f32]>::to_vec));
    }
}

/// A head at a position: pairs lie side by side, or half a head apart.
fn turned(head: &[f32], position: usize, theta: f64, halves: bool) -> Vec<f64> {
    let n = head.len();
    let mut out: Vec<f64> = head.iter().map(|x| f64::from(*x)).collect();
    for i in 0..n / 2 {
        let (a, b) = if halves { (i, i + n / 2) } else { (2 * i, 2 * i + 1) };
        let (sin, cos) = (position as f64 * theta.powf(-2.0 * i as f64 / n as f64)).sin_cos();
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        (out[a], out[b]) = (x * cos - y * sin, x * sin + y * cos);
    }
    out
}

fn apart(a: &[f64], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
}

/// Attention of a head at a position over the last `window` positions, itself included.
fn looked_back(rows: &Rows, config: &Config, layer: usize, position: usize, head: usize, window: usize) -> Vec<f64> {
    let dim = config.head_dim;
    // What the cache holds is rounded to f16.
    let kept = |x: f32| f64::from(f16_to_f32(f32_to_f16(x)));
    let part =
        |step: &str, at: usize, head: usize| &rows.0[&format!("blk.{layer}.{step}")][at][head * dim..(head + 1) * dim];
    let (query, shared) = (part("attn_q_rope", position, head), head / (config.heads / config.kv_heads));
    let seen = (position + 1).saturating_sub(window)..position + 1;
    let score = |at: usize| {
        let key = part("attn_k_rope", at, shared);
        let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * kept(*k)).sum();
        dot / (dim as f64).sqrt()
    };
    let scores: Vec<f64> = seen.clone().map(score).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; dim];
    for (at, weight) in seen.zip(&weights) {
        out.iter_mut().zip(part("attn_v", at, shared)).for_each(|(out, v)| *out += weight / total * kept(*v));
    }
    out
}

/// A position sees the last `window` positions, itself included: no more and no less.
#[test]
fn a_window_is_as_long_as_it_says() {
    let tokens: Vec<u32> = (0..CONTEXT as u32).map(|i| 3 + i * 37 % 280).collect();
    for window in [1, 2, 5, 16, 63, 64, 100] {
        let mut loaded = Small::new().load().unwrap();
        let model = Arc::get_mut(&mut loaded.model).unwrap();
        for step in &mut model.plan {
            if let Op::Attention(attention) = &mut step.op {
                attention.window = Some(window);
            }
        }
        for chunk in [1, 7, 64] {
            let mut rows = Rows::default();
            let mut session = session(&loaded.model, None, chunk);
            session.forward_observed(&tokens, Want::All, &mut |_, _| {}, Some(&mut rows)).unwrap();
            let config = &loaded.model.config;
            for (position, head) in (0..CONTEXT).flat_map(|at| (0..config.heads).map(move |head| (at, head))) {
                let own = &rows.0["blk.0.attn"][position][head * config.head_dim..(head + 1) * config.head_dim];
                let off = apart(&looked_back(&rows, config, 0, position, head, window), own);
                assert!(off < 1e-4, "a window of {window}, chunks of {chunk}, position {position}: {off} off");
            }
        }
    }
}

#[test]
fn a_token_turns_and_looks_back_by_its_absolute_position() {
    let loaded = tiny();
    let config = &loaded.model.config;
    let base = format!("{}.rope.freq_base", config.architecture);
    let theta = f64::from(loaded.file.metadata().f32(&base).unwrap().unwrap_or(10_000.0));
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| 3 + i * 47 % 2000).collect();
    for chunk in [1, 7, 64] {
        let options = SessionOptions { context: Some(256), chunk, ..SessionOptions::new(kernels(), pool(2)) };
        let mut session = Session::new(Arc::clone(&loaded.model), options).unwrap();
        let mut rows = Rows::default();
        session.forward_observed(&tokens, Want::All, &mut |_, _| {}, Some(&mut rows)).unwrap();
        for layer in [0, config.block_count - 1] {
            let of = |step: &str| {
                let rows = &rows.0[&format!("blk.{layer}.{step}")];
                assert_eq!(rows.len(), TOKENS, "{step}");
                rows
            };
            let dim = config.head_dim;
            let worst = |halves: bool| {
                let one = |(before, after): (&Vec<Vec<f32>>, &Vec<Vec<f32>>)| {
                    let heads =
                        |position: usize| before[position].chunks_exact(dim).zip(after[position].chunks_exact(dim));
                    (0..TOKENS)
                        .flat_map(|at| heads(at).map(move |(x, y)| apart(&turned(x, at, theta, halves), y)))
                        .fold(0.0, f64::max)
                };
                one((of("attn_q"), of("attn_q_rope"))).max(one((of("attn_k"), of("attn_k_rope"))))
            };
            let off = worst(true).min(worst(false));
            assert!(off < 2e-4, "chunks of {chunk}, layer {layer}: a rotation is {off} off");

            for position in [0, 1, 6, 7, 8, 63, 64, 65, 127, 128, 129, TOKENS - 1] {
                for head in 0..config.heads {
                    let out = looked_back(&rows, config, layer, position, head, usize::MAX);
                    let own = &of("attn")[position][head * dim..(head + 1) * dim];
                    let off = apart(&out, own);
                    assert!(
                        off < 1e-4,
                        "chunks of {chunk}, layer {layer}, position {position}: attention is {off} off"
                    );
                }
            }
        }
    }
}
