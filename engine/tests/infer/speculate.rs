//! Guessing ahead changes how often the weights are read, and nothing else: tokens, text, end, cache.

use crate::model_support::*;
use bitnet_engine::device;
use bitnet_engine::inference::{AUTO_DRAFT, GenerateOptions, Generation, Head, SamplerOptions};
use bitnet_engine::inference::{Needs, Session, SessionOptions, StopReason, generate};
use bitnet_engine::tokenizer::EncodeOptions;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TEXTS: [&str; 4] = [
    "And he said to them, And he said to them, And he said to them, And he",
    "In the beginning was the word",
    "a b c d e f a b c d e f a b c d e f a b c",
    "The sons of Reuben, the sons of Simeon, the sons of Levi, the sons of Judah, the sons of",
];

fn prompt(text: &str) -> Vec<u32> {
    tiny().tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false }).unwrap()
}

/// How to compute, which must not matter.
#[derive(Debug, Clone)]
struct Way {
    device: String,
    threads: usize,
    chunk: usize,
    head: Head,
    speculate: usize,
}

impl Way {
    fn plain() -> Self {
        Self { device: "auto".into(), threads: 1, chunk: 64, head: Head::Whole, speculate: 0 }
    }

    fn guessing(speculate: usize) -> Self {
        Self { speculate, ..Self::plain() }
    }
}

/// What is asked for, and how it is to end.
#[derive(Debug, Clone)]
struct Wish {
    prompt: Vec<u32>,
    context: usize,
    options: GenerateOptions,
    ends_at: Option<u32>,
    cancel_after: Option<usize>,
}

impl Wish {
    fn new(text: &str, tokens: usize, sampler: SamplerOptions) -> Self {
        let options = GenerateOptions { sampler, max_tokens: Some(tokens), ..Default::default() };
        Self { prompt: prompt(text), context: 256, options, ends_at: None, cancel_after: None }
    }
}

/// What came of it: the generation, its pieces, and what the session would say next.
struct Outcome {
    made: Generation,
    pieces: Vec<String>,
    position: usize,
    next: Option<Vec<u32>>,
}

fn run(wish: &Wish, way: &Way) -> Outcome {
    let options = SessionOptions {
        context: Some(wish.context),
        chunk: way.chunk,
        head: way.head,
        ..SessionOptions::new(device::kernels(&way.device).unwrap(), pool(way.threads))
    };
    let mut session = Session::new(Arc::clone(&tiny().model), options).unwrap();
    let options = GenerateOptions { speculate: way.speculate, ..wish.options.clone() };
    let (cancel, mut pieces) = (AtomicBool::new(false), Vec::new());
    let made = generate(
        &mut session,
        &Odd { end: wish.ends_at, control: None },
        &wish.prompt,
        &options,
        &cancel,
        &mut |piece| {
            pieces.push(piece.to_owned());
            cancel.store(wish.cancel_after.is_some_and(|n| pieces.len() >= n), Ordering::Relaxed);
        },
    )
    .unwrap();
    let position = session.position();
    let room = position < session.context();
    let last = made.tokens.last().copied().filter(|_| room);
    // All logits of the next two positions, which look at everything that the cache holds.
    let next = last.map(|token| {
        let mut bits: Vec<u32> = session.logits(&[token]).unwrap().iter().map(|l| l.to_bits()).collect();
        if position + 1 < session.context() {
            bits.extend(session.logits(&[5]).unwrap().iter().map(|l| l.to_bits()));
        }
        bits
    });
    Outcome { made, pieces, position, next }
}

/// Runs both ways and compares everything that a caller can see; the generation with drafts.
#[track_caller]
fn same(wish: &Wish, way: &Way) -> Generation {
    let plain = run(wish, &Way::plain());
    let guessed = run(wish, way);
    let (a, b) = (&plain.made, &guessed.made);
    assert_eq!(a.tokens, b.tokens, "{wish:?} {way:?}");
    assert_eq!((&a.text, a.stop, &plain.pieces), (&b.text, b.stop, &guessed.pieces), "{wish:?} {way:?}");
    assert_eq!(a.timings.decode_steps, b.timings.decode_steps, "{wish:?} {way:?}");
    assert_eq!(plain.position, guessed.position, "{wish:?} {way:?}");
    assert!(plain.next == guessed.next, "the cache differs: {wish:?} {way:?}");
    assert_eq!(a.timings.speculation, Default::default(), "none was asked for");
    let s = b.timings.speculation;
    assert!(s.accepted <= s.drafted && s.accepted <= b.timings.decode_steps && s.batches <= s.drafted, "{s:?}");
    guessed.made
}

fn samplers() -> impl Strategy<Value = SamplerOptions> {
    let temperature = prop_oneof![2 => Just(0f32), 3 => 0.05f32..1.2];
    let top_k = prop_oneof![Just(0usize), 1usize..60];
    let top_p = prop_oneof![Just(1f32), 0.5f32..1.0];
    let min_p = prop_oneof![Just(0f32), 0.01f32..0.3];
    let penalty = prop_oneof![2 => Just(1f32), 1 => 1.0f32..1.4, 2 => 0.7f32..1.0];
    (temperature, top_k, top_p, min_p, penalty, 1usize..80, any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, seed)| SamplerOptions {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            repetition_window,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_same_text_whatever_is_guessed(
        text in 0..TEXTS.len(), sampler in samplers(), tokens in 1usize..60, chunk in 1usize..40, threads in 1usize..3,
        speculate in 1usize..=16, screened in any::<bool>(), ends_at in prop::option::of(0u32..2048),
    ) {
        let head = if screened { Head::Screened } else { Head::Whole };
        let wish = Wish { ends_at, ..Wish::new(TEXTS[text], tokens, sampler) };
        same(&wish, &Way { threads, chunk, head, ..Way::guessing(speculate) });
    }

    /// Tokens that no text has, repeated: drafts of all lengths, few of them right.
    #[test]
    fn the_same_text_after_noise(
        part in prop::collection::vec(0u32..2048, 1..8), times in 1usize..6, seed: u64, speculate in 1usize..=16,
    ) {
        let sampler = SamplerOptions { temperature: 0.5, top_k: 5, seed, ..Default::default() };
        let wish = Wish { prompt: part.repeat(times), ..Wish::new("", 30, sampler) };
        same(&wish, &Way::guessing(speculate));
    }
}

/// What is drafted follows the clock; what is said does not.
#[test]
fn the_same_text_whatever_pays() {
    for (text, seed) in [(0, 1), (1, 2)] {
        let sampler = SamplerOptions { temperature: 0.5, top_k: 5, seed, ..Default::default() };
        same(&Wish::new(TEXTS[text], 60, sampler), &Way::guessing(AUTO_DRAFT));
    }
}

/// Greedy, and fond of what was said: most drafts are right.
fn fond() -> SamplerOptions {
    SamplerOptions { repetition_penalty: 0.7, ..Default::default() }
}

#[test]
fn every_instruction_set_guesses_alike() {
    let mut tried = 0;
    for device in device::devices().into_iter().filter(|d| d.unavailable.is_none()) {
        let way = Way { device: device.name, ..Way::guessing(8) };
        let made = same(&Wish::new(TEXTS[0], 48, fond()), &way);
        assert!(made.timings.speculation.accepted > 8, "{way:?}: {:?}", made.timings.speculation);
        tried += 1;
    }
    assert!(tried > 0, "the scalar set is everywhere");
}

#[test]
fn repetitions_are_made_in_few_passes() {
    for head in [Head::Whole, Head::Screened] {
        let made = same(&Wish::new(TEXTS[0], 100, fond()), &Way { head, ..Way::guessing(16) });
        let s = made.timings.speculation;
        assert!(s.accepted > 70, "{s:?} for {:?}", made.text);
        assert!(s.accepted * 10 > s.drafted * 7, "{s:?}");
    }
}

#[test]
fn screening_counts_the_tokens_that_were_drawn() {
    let wish = Wish::new(TEXTS[0], 60, fond());
    let rows = |speculate| {
        let made = run(&wish, &Way { head: Head::Screened, ..Way::guessing(speculate) }).made;
        (made.timings.screening, made.timings.speculation.accepted)
    };
    // The first makes the copy, which all rows are multiplied for.
    rows(0);
    let ((plain, none), (guessed, some)) = (rows(0), rows(12));
    assert_eq!(plain, guessed, "rejected rows are neither screened nor counted");
    assert!(none == 0 && some > 0 && plain.tokens == 60, "{plain:?}, {some} accepted");
}

#[test]
fn the_context_ends_where_it_ends() {
    let mut wish = Wish::new(TEXTS[0], 0, fond());
    wish.options.max_tokens = None;
    let mut followed = 0;
    for room in 1..24 {
        wish.context = wish.prompt.len() + room;
        let made = same(&wish, &Way::guessing(16));
        assert_eq!((made.stop, made.tokens.len()), (StopReason::ContextFull, room + 1));
        followed += made.timings.speculation.accepted;
    }
    assert!(followed > 50, "{followed}");
}

#[test]
fn a_stop_text_or_an_end_token_within_a_draft() {
    let wish = Wish::new(TEXTS[0], 48, fond());
    let long = same(&wish, &Way::guessing(16));
    assert!(long.timings.speculation.accepted > 20, "{:?}", long.timings.speculation);
    let mut within = 0;
    let characters: Vec<char> = long.text.chars().collect();
    for end in (6..=characters.len()).step_by(7) {
        let mut wish = wish.clone();
        // All of the text so far, so that it is complete there and nowhere before.
        wish.options.stop = vec![characters[..end].iter().collect()];
        let made = same(&wish, &Way::guessing(16));
        assert_eq!(made.stop, StopReason::StopText);
        within += usize::from(made.timings.speculation.accepted > 0);
    }
    assert!(within > 0, "no stop text came after a guess");
    let mut ended = 0;
    for &end in &long.tokens {
        let made = same(&Wish { ends_at: Some(end), ..wish.clone() }, &Way::guessing(16));
        assert_eq!((made.stop, made.tokens.last()), (StopReason::EndOfGeneration, Some(&end)));
        ended += usize::from(made.timings.speculation.batches > 0);
    }
    assert!(ended > 0, "no end token came after a guess");
}

#[test]
fn cancelled_between_tokens_also_of_one_pass() {
    for pieces in 1..30 {
        let wish = Wish { cancel_after: Some(pieces), ..Wish::new(TEXTS[0], 48, fond()) };
        let made = same(&wish, &Way::guessing(16));
        assert_eq!(made.stop, StopReason::Cancelled);
    }
}

/// The rows that are held have the logits that they have anywhere else, in any order and however often.
#[test]
fn held_rows_have_their_logits() {
    let tokens = prompt(TEXTS[3]);
    let expected = logits_bits(&mut session(&tiny().model, None, 64), &tokens);
    let needs = Needs { count: 3, within: 0.0, also: vec![7] };
    for head in [Head::Whole, Head::Screened] {
        for (chunk, rows) in [(1, 5), (7, 5), (7, tokens.len()), (64, 1)] {
            let options = SessionOptions { chunk, head, ..SessionOptions::new(kernels(), pool(1)) };
            let mut session = Session::new(Arc::clone(&tiny().model), options).unwrap();
            session.hold(&tokens, rows).unwrap();
            assert_eq!(session.position(), tokens.len());
            for row in (0..rows).rev().chain(0..rows) {
                let expected = &expected[tokens.len() - rows + row];
                let some: Vec<u32> = session.held(row, Some(&needs)).unwrap().iter().map(|l| l.to_bits()).collect();
                let minus = f32::NEG_INFINITY.to_bits();
                assert!(some.iter().zip(expected).all(|(a, b)| a == b || *a == minus), "{head:?} row {row}");
                assert!(some[7] == expected[7] && some.iter().filter(|l| **l != minus).count() >= 3);
                if row == 2 {
                    let all: Vec<u32> = session.held(row, None).unwrap().iter().map(|l| l.to_bits()).collect();
                    assert!(all == *expected, "{head:?} row {row}");
                }
            }
        }
    }
}
