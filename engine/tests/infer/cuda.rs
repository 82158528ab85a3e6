//! The CUDA executor on the emulated device: the bits, the steps and the texts of the CPU.

use crate::emulated::here;
use crate::model_support::*;
use bitnet_engine::convert::convert_stored_to_vec;
use bitnet_engine::inference::{
    GenerateOptions, Head, InferenceError, Needs, SamplerOptions, Session, SessionOptions, StepResult, Want, extend,
    generate, self_check_card,
};
use bitnet_engine::model::Model;
use bitnet_kernels::cuda::device::{CudaError, Device};
use bitnet_kernels::cuda::emu::Emulation;
use bitnet_kernels::quant::Storage;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

thread_local! {
    /// One for each test: a device does one launch at a time.
    static DEVICE: Arc<dyn Device> = Arc::new(Emulation::new().expect("a C++ compiler: apt-get install g++"));
}

fn emulation() -> Arc<dyn Device> {
    DEVICE.with(Arc::clone)
}

fn options(context: usize, chunk: usize) -> SessionOptions {
    SessionOptions { context: Some(context), chunk, ..SessionOptions::new(kernels(), pool(1)) }
}

fn on_device(model: &Arc<Model>, context: usize, chunk: usize) -> Result<Session, InferenceError> {
    by_head(model, Head::Auto, context, chunk)
}

fn by_head(model: &Arc<Model>, head: Head, context: usize, chunk: usize) -> Result<Session, InferenceError> {
    let card = Some(emulation());
    Session::new(Arc::clone(model), SessionOptions { card, head, ..options(context, chunk) })
}

/// What a greedy sampler asks for.
fn greedy() -> Needs {
    Needs { count: 1, within: 0.0, also: Vec::new() }
}

/// The first of the largest logits.
fn likely(logits: &[f32]) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|l| *l == most).unwrap() as u32
}

fn on_cpu(model: &Arc<Model>, context: usize, chunk: usize) -> Session {
    Session::new(Arc::clone(model), options(context, chunk)).unwrap()
}

/// Beyond one chunk of 128 positions is for the kernels' own tests and the matrix.
fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 611 % 2048).collect()
}

#[test]
fn logits_are_those_of_the_cpu_in_any_chunks() {
    if !here() {
        return;
    }
    let (model, tokens) = (&tiny().model, tokens(9));
    let expected = logits_bits(&mut on_cpu(model, 16, 16), &tokens);
    for chunk in [1, 4, 16] {
        let mut session = on_device(model, 16, chunk).unwrap();
        assert!(logits_bits(&mut session, &tokens) == expected, "chunks of {chunk}");
        // What was forgotten leaves no trace, also where the device went on by itself.
        session.truncate(5);
        session.logits(&[7]).unwrap();
        session.truncate(5);
        assert!(logits_bits(&mut session, &tokens[5..]) == expected[5..], "chunks of {chunk}, once more");
    }
}

#[test]
fn every_step_is_that_of_the_cpu() {
    if !here() {
        return;
    }
    let (model, tokens) = (&tiny().model, tokens(5));
    let steps = |session: &mut Session| {
        let mut out = Vec::new();
        let mut observer = |r: StepResult<'_>| {
            let bits: Vec<u32> = r.values.iter().map(|v| v.to_bits()).collect();
            out.push((r.name.to_owned(), r.position, r.rows, r.width, bits));
        };
        session.forward_observed(&tokens, Want::Last, &mut |_, _| {}, Some(&mut observer)).unwrap();
        out
    };
    let expected = steps(&mut on_cpu(model, 8, 4));
    let found = steps(&mut on_device(model, 8, 4).unwrap());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.0, found.1, found.2, found.3), (&expected.0, expected.1, expected.2, expected.3));
        assert!(found.4 == expected.4, "{} at {}", expected.0, expected.1);
    }
}

#[test]
fn a_seen_prompt_holds_its_last_row() {
    if !here() {
        return;
    }
    let (loaded, tokens) = (tiny(), tokens(6));
    let options = GenerateOptions { max_tokens: Some(3), ..GenerateOptions::default() };
    let seen = |session: &mut Session| {
        let mut rows = Vec::new();
        session.hold_seen(&tokens, &mut rows).unwrap();
        let cancel = AtomicBool::new(false);
        let made = extend(session, &*loaded.tokenizer, &tokens, &options, &cancel, &mut |_| {}).unwrap();
        (rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), made.tokens)
    };
    let expected = seen(&mut on_cpu(&loaded.model, 16, 8));
    for head in [Head::Whole, Head::Screened] {
        assert!(seen(&mut by_head(&loaded.model, head, 16, 8).unwrap()) == expected, "{head:?}");
    }
    assert_eq!(expected.0.len(), 6 * loaded.model.config.embedding_length);
}

#[test]
fn texts_are_those_of_the_cpu() {
    if !here() {
        return;
    }
    let loaded = tiny();
    let prompt = tokens(3);
    let text = |session: &mut Session, (temperature, top_k): (f32, usize), speculate: usize| {
        let sampler = SamplerOptions { temperature, top_k, seed: 3, ..SamplerOptions::default() };
        let options =
            GenerateOptions { sampler, max_tokens: Some(12), ignore_eos: true, speculate, ..Default::default() };
        let made = generate(session, &*loaded.tokenizer, &prompt, &options, &AtomicBool::new(false), &mut |_| {});
        made.unwrap().tokens
    };
    let ways = [((0.0, 0), 0), ((0.0, 0), 4), ((0.8, 5), 0), ((1.5, 40), 4)];
    for (how, speculate) in ways {
        let expected = text(&mut on_cpu(&loaded.model, 20, 16), how, speculate);
        for head in [Head::Auto, Head::Screened] {
            let mut session = by_head(&loaded.model, head, 20, 16).unwrap();
            assert_eq!(text(&mut session, how, speculate), expected, "{how:?}, {speculate} ahead, {head:?}");
            // The small matrix is screened where that is asked for, and only then.
            let screening = session.screening();
            assert_eq!(screening.tokens > 0, head == Head::Screened, "{screening:?}");
            assert!(screening.rows < screening.tokens.max(1) * 2048, "{screening:?}");
        }
    }
}

#[test]
fn the_device_finds_the_best_token_by_itself() {
    if !here() {
        return;
    }
    let model = &tiny().model;
    let needs = greedy();
    let mut session = on_device(model, 8, 8).unwrap();
    let all = on_cpu(model, 8, 8).logits(&tokens(4)).unwrap().to_vec();
    let picked = session.logits_needed(&tokens(4), &needs).unwrap();
    let (best, _) = all.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    assert_eq!(picked[best].to_bits(), all[best].to_bits());
    assert_eq!(picked.iter().filter(|l| l.is_finite()).count(), 1);
}

#[test]
fn a_token_that_nobody_asked_about_is_in_the_cache_all_the_same() {
    if !here() {
        return;
    }
    let (model, tokens) = (&tiny().model, tokens(4));
    let needs = greedy();
    let mut session = on_device(model, 16, 8).unwrap();
    let first = likely(session.logits_needed(&tokens, &needs).unwrap());
    let second = likely(session.logits_needed(&[first], &needs).unwrap());
    // The device's own choice is held, then dropped; so is one that was sent.
    session.hold(&[second], 1).unwrap();
    session.hold(&[5], 1).unwrap();
    let found = session.logits(&[6]).unwrap().to_vec();
    let mut all = tokens.clone();
    all.extend([first, second, 5, 6]);
    assert_eq!(found, on_cpu(model, 16, 8).logits(&all).unwrap());
}

#[test]
fn the_short_proof_compares_card_and_processor() {
    if !here() {
        return;
    }
    let card = Some(emulation());
    self_check_card(&tiny().model, &SessionOptions { card, ..options(8, 8) }).unwrap();
}

#[test]
fn formats_are_repacked_or_refused() {
    if !here() {
        return;
    }
    let tokens = tokens(3);
    let converted = |to: &str| {
        let bytes = convert_stored_to_vec(&tiny().model, Storage::by_name(to).unwrap(), None).unwrap();
        load_bytes(bytes).unwrap().model
    };
    for to in ["i2_s-arm", "tq2_0", "tl2", "f16"] {
        let model = converted(to);
        let expected = logits_bits(&mut on_cpu(&model, 4, 4), &tokens);
        assert!(logits_bits(&mut on_device(&model, 4, 4).unwrap(), &tokens) == expected, "{to}");
    }
    let message = on_device(&converted("q8_0"), 4, 4).err().unwrap().to_string();
    assert!(message.contains("blk.0.attn_q.weight") && message.contains("q8_0"), "{message}");
    assert!(message.contains("--device cpu"), "{message}");
}

#[test]
fn too_little_memory_is_said_before_anything_is_uploaded() {
    if !here() {
        return;
    }
    let free = emulation().free_memory().unwrap();
    let error = on_device(&tiny().model, 1 << 22, 16).err().unwrap();
    let InferenceError::Device(CudaError::Memory { bytes, free: there, .. }) = &error else { panic!("{error}") };
    assert!(bytes > there && *there <= free, "{error}");
    assert!(error.to_string().contains("--context"), "{error}");
}

/// The device goes on with its own choice before it is asked. Whatever the session does then, it is as if it had not.
#[test]
fn a_device_that_went_on_turns_back() {
    if !here() {
        return;
    }
    let model = &tiny().model;
    let greedy = greedy();
    let three = Needs { count: 3, within: 0.0, also: Vec::new() };
    for head in [Head::Auto, Head::Screened] {
        let mut device = by_head(model, head, 8, 8).unwrap();
        for what in ["its choice", "all logits", "three logits", "another token", "its choice, unseen", "a full cache"]
        {
            device.truncate(0);
            let mut taken = tokens(3);
            let mut next = likely(device.logits_needed(&taken, &greedy).unwrap());
            // A full cache has no place for what would come then.
            for _ in 0..if what == "a full cache" { 4 } else { 2 } {
                taken.push(next);
                next = likely(device.logits_needed(&[next], &greedy).unwrap());
            }
            let other = (next + 1) % 2048;
            taken.push(if what == "another token" { other } else { next });
            let last = *taken.last().unwrap();
            let got = match what {
                "all logits" | "another token" => device.logits(&[last]).unwrap(),
                "three logits" => device.logits_needed(&[last], &three).unwrap(),
                "its choice, unseen" => {
                    device.hold(&[last], 1).unwrap();
                    taken.push(other);
                    device.logits(&[other]).unwrap()
                }
                _ => device.logits_needed(&[last], &greedy).unwrap(),
            };
            let mut cpu = on_cpu(model, 8, 8);
            let want = cpu.logits(&taken).unwrap();
            assert_eq!(likely(got), likely(want), "{what}, {head:?}");
            for (got, want) in got.iter().zip(want).filter(|(got, _)| got.is_finite()) {
                assert_eq!(got.to_bits(), want.to_bits(), "{what}, {head:?}");
            }
        }
    }
}
