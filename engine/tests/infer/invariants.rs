//! What may change the speed of inference but never a bit of its result, and what ends a generation.

use crate::model_support::*;
use bitnet_engine::convert::{ConvertOptions, convert_to_vec};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{
    GenerateOptions, Generation, InferenceError, Sampler, SamplerOptions, Session, SessionOptions, StepResult,
    StopReason, Want, argmax, generate, nll, perplexity,
};
use bitnet_engine::load::{LAYOUT_KEY, Loaded};
use bitnet_engine::ops::{Op, Slot};
use bitnet_engine::tokenizer::{EncodeOptions, SpecialTokens, Tokenizer, TokenizerError};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const LENGTH: usize = 40;

/// Tokens of a text, and more that no text has.
fn sequence() -> Vec<u32> {
    let text = "In the beginning was the word, and nobody had yet thought of counting its bits.";
    let options = EncodeOptions { add_special: true, parse_special: false };
    let mut ids = tiny().tokenizer.encode(text, options).unwrap();
    ids.extend((0..LENGTH as u32).map(|i| i * 47 % 2048));
    ids.truncate(LENGTH);
    ids
}

/// The logits of [`sequence`], computed at once.
fn reference() -> &'static Vec<Vec<u32>> {
    static REFERENCE: OnceLock<Vec<Vec<u32>>> = OnceLock::new();
    REFERENCE.get_or_init(|| logits_bits(&mut session(&tiny().model, None, 128), &sequence()))
}

fn session_with(loaded: &Loaded, threads: usize, context: Option<usize>, chunk: usize) -> Session {
    let options = SessionOptions { context, chunk, ..SessionOptions::new(kernels(), pool(threads)) };
    Session::new(Arc::clone(&loaded.model), options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_bits(
        cuts in prop::collection::btree_set(1..LENGTH, 0..6),
        chunk in 1..=LENGTH,
        last_only in any::<bool>(),
    ) {
        let (tokens, expected) = (sequence(), reference());
        let mut session = session(&tiny().model, None, chunk);
        let mut from = 0;
        for to in cuts.into_iter().chain([LENGTH]) {
            if last_only {
                let mut seen = Vec::new();
                session.forward(&tokens[from..to], Want::Last, &mut |position, logits| {
                    seen.push((position, logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>()));
                }).unwrap();
                prop_assert_eq!(seen.len(), 1);
                prop_assert_eq!(seen[0].0, to - 1);
                prop_assert!(seen[0].1 == expected[to - 1], "position {}", to - 1);
            } else {
                let got = logits_bits(&mut session, &tokens[from..to]);
                prop_assert!(got == expected[from..to], "positions {from}..{to} in chunks of {chunk}");
            }
            from = to;
        }
    }

    #[test]
    fn what_was_truncated_leaves_no_trace(keep in 0..LENGTH, junk in prop::collection::vec(0u32..2048, 1..20)) {
        let (tokens, expected) = (sequence(), reference());
        let mut session = session(&tiny().model, None, 16);
        session.forward(&tokens[..keep], Want::Nothing, &mut |_, _| panic!("none were asked for")).unwrap();
        session.forward(&junk, Want::Nothing, &mut |_, _| panic!("none were asked for")).unwrap();
        session.truncate(keep);
        prop_assert_eq!(session.position(), keep);
        prop_assert!(logits_bits(&mut session, &tokens[keep..]) == expected[keep..]);
    }
}

proptest! {
    /// Whatever a broken model puts out, a token of the vocabulary is chosen, and the same one for the same seed.
    #[test]
    fn any_logits_give_a_token(
        bits in prop::collection::vec(prop_oneof![any::<u32>(), Just(f32::NAN.to_bits()), Just(f32::INFINITY.to_bits())], 1..50),
        temperature in prop_oneof![Just(0f32), 1e-30f32..100.0],
        (top_k, top_p, min_p) in (0usize..60, 1e-6f32..=1.0, 0f32..=1.0),
        (repetition_penalty, seed) in (1e-6f32..100.0, any::<u64>()),
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let options = SamplerOptions { temperature, top_k, top_p, min_p, repetition_penalty, seed, ..Default::default() };
        let draw = || Sampler::new(options.clone()).map(|mut s| s.sample(&logits, &[0, 3, 3, 1000]));
        let token = draw().unwrap();
        prop_assert!((token as usize) < logits.len());
        prop_assert_eq!(draw().unwrap(), token);
    }
}

/// What was said becomes less likely, whatever the sign of its logit.
#[test]
fn a_penalty_makes_no_token_likelier() {
    let options = SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() };
    let choose = |logits: &[f32], recent: &[u32]| Sampler::new(options.clone()).unwrap().sample(logits, recent);
    assert_eq!((choose(&[-1.0, -1.5], &[]), choose(&[-1.0, -1.5], &[0])), (0, 1));
    assert_eq!((choose(&[3.0, 2.0], &[]), choose(&[3.0, 2.0], &[0])), (0, 1));
    assert_eq!(choose(&[-1.0, -1.5], &[0, 1]), 0);
}

#[test]
fn windows_of_a_perplexity() {
    let (loaded, text) = (tiny(), "In the beginning God created the heaven and the earth.");
    let measure = |context| {
        let mut steps = Vec::new();
        let mut session = session_with(loaded, 1, Some(context), 16);
        let result = perplexity(&mut session, &*loaded.tokenizer, text, &mut |done, total| steps.push((done, total)));
        (result, steps)
    };
    let (whole, steps) = measure(256);
    let whole = whole.unwrap();
    assert_eq!((whole.windows, whole.characters, steps.len()), (1, text.chars().count(), 1));
    assert!((whole.perplexity.log2() - whole.bits_per_token).abs() < 1e-9);
    // The least context: every token is predicted from the first one alone, which is harder.
    let (pairs, steps) = measure(2);
    let pairs = pairs.unwrap();
    assert_eq!((pairs.windows, pairs.tokens), (whole.tokens, whole.tokens));
    assert!(pairs.bits_per_token > whole.bits_per_token, "{pairs:?}");
    assert_eq!(steps.last(), Some(&(whole.tokens, whole.tokens)));
    let (five, steps) = measure(5);
    assert_eq!(five.unwrap().tokens, whole.tokens, "no token is lost between windows");
    assert!(steps.iter().all(|(done, total)| done <= total), "{steps:?}");
    let message = measure(1).0.unwrap_err().to_string();
    assert!(message.contains("context") && message.contains("two tokens"), "{message}");
}

/// A tokenizer whose model wants no beginning-of-sequence token.
struct NoBos;

impl Tokenizer for NoBos {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        tiny().tokenizer.encode_bytes(bytes, EncodeOptions { add_special: false, ..opts })
    }
    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        tiny().tokenizer.token_bytes(id, special)
    }
    fn vocab_size(&self) -> usize {
        tiny().tokenizer.vocab_size()
    }
    fn special(&self) -> &SpecialTokens {
        static SPECIAL: OnceLock<SpecialTokens> = OnceLock::new();
        SPECIAL.get_or_init(|| SpecialTokens { add_bos: false, ..*tiny().tokenizer.special() })
    }
    fn is_eog(&self, _: u32) -> bool {
        false
    }
    fn kind(&self) -> &'static str {
        "test"
    }
    fn pre(&self) -> Option<&str> {
        None
    }
}

/// Each window begins with what every other one of its tokens is predicted after: the beginning-of-sequence token, or else
/// the last token of the window before.
#[test]
fn a_window_of_a_perplexity_begins_with_its_context() {
    let text = "In the beginning God created the heaven and the earth.";
    let options = EncodeOptions { add_special: false, parse_special: false };
    let ids = tiny().tokenizer.encode(text, options).unwrap();
    let bos = tiny().tokenizer.special().bos.unwrap();
    for context in [2, 4, 7, 256] {
        for (tokenizer, with_bos) in [(&*tiny().tokenizer, true), (&NoBos, false)] {
            let mut session = session_with(tiny(), 1, Some(context), 16);
            let found = perplexity(&mut session, tokenizer, text, &mut |_, _| {}).unwrap();
            let predicted = if with_bos { &ids[..] } else { &ids[1..] };
            let (mut nats, mut hits, mut before) = (0.0, 0, if with_bos { bos } else { ids[0] });
            for window in predicted.chunks(context - 1) {
                for n in 0..window.len() {
                    let mut fresh = session_with(tiny(), 1, Some(context), 16);
                    let seen: Vec<u32> = std::iter::once(before).chain(window[..n].iter().copied()).collect();
                    let logits = fresh.logits(&seen).unwrap();
                    nats += nll(logits, window[n] as usize);
                    hits += usize::from(argmax(logits) == window[n]);
                }
                before = if with_bos { bos } else { window[window.len() - 1] };
            }
            let what = format!("{context} positions, {}", if with_bos { "with BOS" } else { "without" });
            assert_eq!(
                (found.tokens, found.windows),
                (predicted.len(), predicted.len().div_ceil(context - 1)),
                "{what}"
            );
            assert_eq!(found.nats, nats, "{what}");
            // Without one the first token is context, and so are its characters.
            let first = tiny().tokenizer.decode(&ids[..1], false);
            let characters = text.chars().count() - if with_bos { 0 } else { first.len() };
            let bits = nats / std::f64::consts::LN_2;
            assert_eq!((found.characters, found.bits_per_character), (characters, bits / characters as f64), "{what}");
            assert_eq!(found.bits_per_token, bits / predicted.len() as f64, "{what}");
            assert_eq!(found.perplexity, (nats / predicted.len() as f64).exp(), "{what}");
            assert_eq!(found.top1, hits as f64 / predicted.len() as f64, "{what}");
        }
    }
}

#[test]
fn a_text_of_one_token_is_too_short() {
    let too_short = |tokenizer: &dyn Tokenizer, text: &str| {
        let mut session = session_with(tiny(), 1, Some(8), 16);
        match perplexity(&mut session, tokenizer, text, &mut |_, _| {}) {
            Err(InferenceError::TextTooShort { tokens }) => Some(tokens),
            other => other.map(|_| None).unwrap(),
        }
    };
    assert_eq!((too_short(&*tiny().tokenizer, ""), too_short(&NoBos, "")), (Some(0), Some(0)));
    assert_eq!((too_short(&*tiny().tokenizer, "a"), too_short(&NoBos, "a")), (None, Some(1)));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for threads in [1, 2, 3] {
        let mut session = session_with(tiny(), threads, None, 7);
        assert!(logits_bits(&mut session, &sequence()) == *reference(), "{threads} threads");
    }
}

#[test]
fn an_observer_sees_every_step_once_a_chunk_and_changes_nothing() {
    let (model, tokens) = (&tiny().model, sequence());
    let c = &model.config;
    let width = |slot: Slot| match slot {
        Slot::Residual | Slot::Hidden => c.embedding_length,
        Slot::Query => c.query_width(),
        Slot::Key | Slot::Value => c.kv_width(),
        Slot::Gate | Slot::Up => c.feed_forward_length,
        Slot::Logits => c.vocab_size,
        Slot::Side | Slot::Router => 0,
    };
    for slot in Slot::ALL {
        assert_eq!(model.widths.of(slot), width(slot), "{slot:?}");
    }
    let named: Vec<(&str, usize)> =
        model.plan.iter().filter_map(|s| Some((s.name.as_str(), width(s.result()?)))).collect();
    assert!(named.len() > 60, "{} steps", named.len());
    let selected = model.plan.iter().position(|s| matches!(s.op, Op::SelectRows(_))).unwrap();
    let before: usize = model.plan[..selected].iter().filter(|s| s.result().is_some()).count();

    const CHUNK: usize = 16;
    let mut session = session(model, None, CHUNK);
    let (mut seen, mut logits) = (Vec::new(), Vec::new());
    let mut last = Vec::new();
    let mut observer = |r: StepResult<'_>| {
        assert_eq!(r.values.len(), r.rows * r.width, "{}", r.name);
        assert!(r.values.iter().all(|v| v.is_finite()), "{}", r.name);
        seen.push((r.name.to_owned(), r.position, r.rows, r.width));
        if r.name == "output" {
            last = r.values.iter().map(|v| v.to_bits()).collect();
        }
    };
    session
        .forward_observed(
            &tokens,
            Want::Last,
            &mut |position, row| logits.push((position, row.iter().map(|l| l.to_bits()).collect::<Vec<_>>())),
            Some(&mut observer),
        )
        .unwrap();

    assert_eq!(logits.len(), 1);
    assert!(logits[0].0 == LENGTH - 1 && logits[0].1 == reference()[LENGTH - 1], "the bits are those without observer");
    assert!(last == logits[0].1, "the step `output` is the logits");
    // All but the last chunk end where rows are selected; the last one goes on with one row.
    let mut expected = Vec::new();
    for start in (0..LENGTH).step_by(CHUNK) {
        let rows = CHUNK.min(LENGTH - start);
        let whole = start + rows == LENGTH;
        for (i, &(name, width)) in named.iter().enumerate() {
            if i < before {
                expected.push((name.to_owned(), start, rows, width));
            } else if whole {
                expected.push((name.to_owned(), LENGTH - 1, 1, width));
            }
        }
    }
    assert_eq!(seen, expected);
    let mut counts = HashMap::new();
    for (name, position, ..) in &seen {
        *counts.entry((name, position)).or_insert(0) += 1;
    }
    assert!(counts.values().all(|&n| n == 1), "names are unique");
}

fn run(context: usize, options: &GenerateOptions, cancel_after: Option<usize>) -> (Generation, Vec<String>) {
    let loaded = tiny();
    let mut session = session_with(loaded, 1, Some(context), 16);
    let (cancel, mut pieces) = (AtomicBool::new(cancel_after == Some(0)), Vec::new());
    let prompt = &sequence()[..10];
    let generation = generate(&mut session, &*loaded.tokenizer, prompt, options, &cancel, &mut |piece| {
        pieces.push(piece.to_owned());
        if cancel_after.is_some_and(|n| pieces.len() >= n) {
            cancel.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert_eq!(pieces.concat(), generation.text, "what was streamed is the text");
    (generation, pieces)
}

fn up_to(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_eos: true, ..Default::default() }
}

#[test]
fn what_ends_a_generation() {
    let (long, _) = run(64, &up_to(20), None);
    assert_eq!((long.stop, long.tokens.len()), (StopReason::MaxTokens, 20));
    assert_eq!((long.timings.generated_tokens, long.timings.prompt_tokens), (20, 10));
    assert!(long.text.chars().count() > 10, "{:?}", long.text);

    let (none, pieces) = run(64, &up_to(0), None);
    assert_eq!((none.stop, none.tokens.len(), pieces.len()), (StopReason::MaxTokens, 0, 0));

    // Ten positions hold the prompt, six the tokens that were fed back; the last one needs no position.
    let (full, _) = run(16, &GenerateOptions { max_tokens: None, ..up_to(0) }, None);
    assert_eq!((full.stop, full.tokens.len()), (StopReason::ContextFull, 7));
    assert_eq!(full.tokens, long.tokens[..7]);

    // A stop text from the middle, across tokens.
    let middle: String = long.text.chars().skip(8).take(5).collect();
    let (stopped, pieces) = run(64, &GenerateOptions { stop: vec![middle.clone()], ..up_to(20) }, None);
    assert_eq!(stopped.stop, StopReason::StopText);
    assert_eq!(stopped.text, long.text[..long.text.find(&middle).unwrap()]);
    assert!(!pieces.concat().contains(&middle));

    let (cancelled, pieces) = run(64, &up_to(20), Some(3));
    assert_eq!((cancelled.stop, pieces.len()), (StopReason::Cancelled, 3));
    assert_eq!(cancelled.tokens, long.tokens[..cancelled.tokens.len()]);
    let (before, _) = run(64, &up_to(20), Some(0));
    assert_eq!((before.stop, before.tokens.len()), (StopReason::Cancelled, 0));
}

#[test]
fn an_end_token_ends_and_gives_no_text() {
    let (long, _) = run(64, &up_to(20), None);
    let end = long.tokens[5];
    let first = long.tokens.iter().position(|&t| t == end).unwrap();
    let finish = |ignore_eos| {
        let options = GenerateOptions { ignore_eos, ..up_to(20) };
        let mut session = session_with(tiny(), 1, Some(64), 16);
        let cancel = AtomicBool::new(false);
        generate(
            &mut session,
            &Odd { end: Some(end), control: None },
            &sequence()[..10],
            &options,
            &cancel,
            &mut |_| {},
        )
        .unwrap()
    };
    let ended = finish(false);
    assert_eq!((ended.stop, &ended.tokens[..]), (StopReason::EndOfGeneration, &long.tokens[..=first]));
    let text = String::from_utf8_lossy(&tiny().tokenizer.decode(&long.tokens[..first], true)).into_owned();
    assert_eq!(ended.text, text);
    assert_eq!(finish(true).tokens, long.tokens);
}

#[test]
fn control_tokens_and_ids_end_a_generation() {
    let (long, _) = run(64, &up_to(20), None);
    let end = long.tokens[5];
    let first = long.tokens.iter().position(|&t| t == end).unwrap();
    let before = String::from_utf8_lossy(&tiny().tokenizer.decode(&long.tokens[..first], true)).into_owned();
    let finish = |options: GenerateOptions| {
        let mut session = session_with(tiny(), 1, Some(64), 16);
        let cancel = AtomicBool::new(false);
        let tokenizer = Odd { end: None, control: Some((end, "<|eot_id|>")) };
        generate(&mut session, &tokenizer, &sequence()[..10], &options, &cancel, &mut |_| {}).unwrap()
    };
    let stops = |stop: &str| GenerateOptions { stop: vec![stop.to_owned()], ..up_to(20) };
    let ids = GenerateOptions { stop_ids: vec![end], ..up_to(20) };
    let ends = |ignore_eos| GenerateOptions { ends: vec![end], ignore_eos, ..up_to(20) };
    for (options, expected) in [
        (stops("<|eot_id|>"), StopReason::StopText),
        (ids, StopReason::StopText),
        (ends(false), StopReason::EndOfGeneration),
    ] {
        let made = finish(options);
        assert_eq!((made.stop, &made.tokens[..], &made.text), (expected, &long.tokens[..=first], &before));
    }
    for options in [stops("<|eot_id|>?"), stops(""), ends(true)] {
        assert_eq!(finish(options).tokens, long.tokens);
    }
    // What might have begun a stop text is text after all where a token ends the generation.
    let last = before.chars().last().unwrap();
    let held = GenerateOptions { stop: vec![format!("{last}<never>")], stop_ids: vec![end], ..up_to(20) };
    assert_eq!(finish(held).text, before);
}

fn converted(loaded: &Loaded, linear: &str) -> Vec<u8> {
    convert_to_vec(&loaded.model, &ConvertOptions { linear: format(linear), embedding: None }).unwrap()
}

#[test]
fn arm_and_back_is_the_same_model_to_the_bit() {
    let arm_bytes = converted(tiny(), "i2_s-arm");
    let arm = load_bytes(arm_bytes.clone()).unwrap();
    let report = arm.layout.clone().unwrap();
    assert_eq!(report.layout, "arm");
    assert!(report.why.contains(LAYOUT_KEY), "{report:?}");
    assert!(logits_bits(&mut session(&arm.model, None, 16), &sequence()) == *reference(), "arm");

    let back = load_bytes(converted(&arm, "i2_s")).unwrap();
    assert_eq!(back.layout.as_ref().unwrap().layout, "x86");
    assert!(logits_bits(&mut session(&back.model, None, 16), &sequence()) == *reference(), "back again");
    let mut differing = 0;
    for (original, (there, back)) in tiny().file.views().zip(arm.file.views().zip(back.file.views())) {
        assert_eq!((&original.info.name, &original.info.dims), (&back.info.name, &back.info.dims));
        assert!(original.info.ggml_type == back.info.ggml_type && original.data == back.data, "{}", original.info.name);
        differing += usize::from(original.data != there.data);
    }
    assert_eq!(differing, 28, "the other layout is another order of bytes");

    // Without the key, the probe must find out.
    let unmarked = load_bytes(with_keys(&arm.file, |key| key != LAYOUT_KEY)).unwrap();
    let report = unmarked.layout.unwrap();
    assert_eq!(report.layout, "arm", "{report:?}");
    assert!(report.why.contains("nats"), "{report:?}");
    assert!(logits_bits(&mut session(&unmarked.model, None, 16), &sequence()) == *reference(), "probed");
    let original = load_bytes(with_keys(&tiny().file, |key| key != LAYOUT_KEY)).unwrap().layout.unwrap();
    assert_eq!(original.layout, "x86", "{original:?}");
    // And a caller who knows better has the last word.
    let file = GgufFile::from_vec(arm_bytes).unwrap();
    let layout = bitnet_kernels::quant::I2sLayout::X86;
    let forced = bitnet_engine::load::load(file, Some(layout), kernels(), &pool(1)).unwrap();
    assert!(logits_bits(&mut session(&forced.model, None, 16), &sequence()) != *reference(), "read wrongly on purpose");
}

fn stored(loaded: &Loaded, to: &str) -> Loaded {
    let to = bitnet_kernels::quant::Storage::by_name(to).unwrap();
    load_bytes(bitnet_engine::convert::convert_stored_to_vec(&loaded.model, to, None).unwrap()).unwrap()
}

/// The trained scales are not f16: they go beside the blocks of TQ and come back.
#[test]
fn ternary_formats_are_one_model_to_the_bit() {
    let formats = ["tq2_0", "tl2", "tq1_0", "tl1", "i2_s-arm", "i2_s"];
    let mut before = tiny().clone();
    for to in formats {
        let there = stored(&before, to);
        let beside = there.file.tensors().iter().filter(|t| t.name.ends_with(".scale")).count();
        assert_eq!(beside, if to.starts_with("tq") { 28 } else { 0 }, "{to}");
        assert!(
            there.model.weights.storages().filter(|(name, _)| name.starts_with("blk")).all(|(_, s)| s.name() == to)
        );
        assert!(logits_bits(&mut session(&there.model, None, 16), &sequence()) == *reference(), "{to}");
        let back = stored(&there, "i2_s");
        for (original, back) in tiny().file.views().zip(back.file.views()) {
            assert!(original.info.name == back.info.name && original.data == back.data, "{}", original.info.name);
        }
        before = there;
    }
}

#[test]
fn tiles_that_nothing_tells_are_not_guessed() {
    for format in ["tl1", "tl2"] {
        let file = stored(tiny(), format).file;
        let error = load_bytes(with_keys(&file, |key| key != "bitnet.tl.tiles")).unwrap_err().to_string();
        assert!(error.contains(format) && error.contains("256 x 512") || error.contains("512 x 512"), "{error}");
        assert!(error.contains("tiles"), "{error}");
    }
}

/// Mean negative log-likelihood of [`sequence`]'s text part.
fn loss(loaded: &Loaded) -> f64 {
    let tokens = &sequence()[..16];
    let mut nats = 0.0;
    session(&loaded.model, None, 16)
        .forward(tokens, Want::All, &mut |position, logits| {
            if let Some(&target) = tokens.get(position + 1) {
                nats += nll(logits, target as usize);
            }
        })
        .unwrap();
    nats / 15.0
}

#[test]
fn other_formats_load_and_predict_about_the_same() {
    let expected = loss(tiny());
    for (name, tolerance) in [("f16", 0.02), ("f32", 0.02), ("bf16", 0.05), ("q8_0", 0.05)] {
        let other = load_bytes(converted(tiny(), name)).unwrap();
        assert!(other.layout.is_none(), "{name}");
        let found = loss(&other);
        assert!((found - expected).abs() < tolerance * expected, "{name}: {found} nats, i2_s has {expected}");
        // Exactly ternary values survive each of these, so the way back is open.
        if name == "f32" {
            let back = load_bytes(converted(&other, "i2_s")).unwrap();
            assert!(logits_bits(&mut session(&back.model, None, 16), &sequence()) == *reference());
        }
    }
}
