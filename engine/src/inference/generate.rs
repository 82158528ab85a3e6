//! Text out: prefill, decode loop, drafts, stop conditions, UTF-8-safe streaming.

use super::speculate::Drafts;
use super::{InferenceError, Sampler, SamplerOptions, Screening, Session, Speculation};
use crate::tokenizer::{StreamDecoder, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What ends a generation, besides its own end.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// At most this many new tokens; as many as fit if absent.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of it. A control token that spells one ends it too.
    pub stop: Vec<String>,
    /// Tokens that end the generation.
    pub stop_ids: Vec<u32>,
    /// End-of-generation tokens of the model besides those that the tokenizer knows.
    pub ends: Vec<u32>,
    /// Go on after an end-of-generation token, as benchmarks do.
    pub ignore_eos: bool,
    /// Most tokens that are guessed ahead from what was said before and computed in one pass; 0 guesses nothing,
    /// [`MAX_DRAFT`](super::MAX_DRAFT) is the most, [`AUTO_DRAFT`](super::AUTO_DRAFT) as many as pay. Changes the speed, never the
    /// result.
    pub speculate: usize,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model said so.
    EndOfGeneration,
    /// `max_tokens` were made.
    MaxTokens,
    /// A stop text or a stop token appeared.
    StopText,
    /// The context is full.
    ContextFull,
    /// The caller's flag was raised.
    Cancelled,
}

/// Times of a generation.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Seconds from the first prompt token to the first logits.
    #[serde(serialize_with = "seconds")]
    pub prefill: Duration,
    /// Tokens that were made.
    pub generated_tokens: usize,
    /// Tokens made after the first, which the prefill gives; each took a forward pass, but for those that were guessed.
    pub decode_steps: usize,
    /// Seconds in decode steps and sampling.
    #[serde(serialize_with = "seconds")]
    pub decode: Duration,
    /// What screening the output matrix came to.
    pub screening: Screening,
    /// What guessing ahead came to.
    pub speculation: Speculation,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Timings {
    /// Prompt tokens a second; 0 if there was no prefill.
    #[must_use]
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// Tokens a second after the first; 0 if there was none.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_steps, self.decode)
    }
}

/// 0 where nothing was timed.
fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// A finished generation.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Generation {
    /// The new tokens, an end-of-generation token included.
    pub tokens: Vec<u32>,
    /// Their text, without control tokens and stop texts.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// How long it took.
    pub timings: Timings,
}

/// Feeds `prompt` to the session and generates. `on_text` receives the text piece by piece, each valid UTF-8 and final
/// (what could be the beginning of a stop text is held back). `cancel` is looked at between forward passes.
///
/// # Errors
/// An empty prompt, one that does not fit the context, sampling options or a length of drafts out of range.
pub fn generate(
    session: &mut Session,
    tokenizer: &dyn Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    cancel: &AtomicBool,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generation, InferenceError> {
    if prompt.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    after(session, tokenizer, (&[], prompt), options, cancel, on_text)
}

/// [`generate`] after `ids`, of which the session holds the beginning already: only the tokens from its position on are
/// computed. The text is that of a new session. If the session holds all of them, it must also hold the row of the last one
/// ([`Session::hold`]).
///
/// # Errors
/// As [`generate`], or a session that holds more tokens, or no row of the last one.
pub fn extend(
    session: &mut Session,
    tokenizer: &dyn Tokenizer,
    ids: &[u32],
    options: &GenerateOptions,
    cancel: &AtomicBool,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generation, InferenceError> {
    if ids.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    let Some((before, prompt)) = ids.split_at_checked(session.position()) else {
        return Err(InferenceError::Option { what: "the session holds more tokens than the sequence has" });
    };
    after(session, tokenizer, (before, prompt), options, cancel, on_text)
}

/// Without tokens in `prompt` the row of the last one of `before` is held.
fn after(
    session: &mut Session,
    tokenizer: &dyn Tokenizer,
    (before, prompt): (&[u32], &[u32]),
    options: &GenerateOptions,
    cancel: &AtomicBool,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generation, InferenceError> {
    let sampler = Sampler::new(options.sampler.clone())?;
    let mut drafts = Drafts::new(options.speculate)?;
    let room = session.context() - session.position();
    if prompt.len() >= room {
        return Err(InferenceError::PromptTooLong { prompt: prompt.len(), room });
    }
    let screened = session.screening();
    let started = Instant::now();
    let mut run = Run {
        tokenizer,
        options,
        cancel,
        sampler,
        history: [before, prompt].concat(),
        tokens: Vec::new(),
        text: Text::new(&options.stop),
        timings: Timings { prompt_tokens: prompt.len(), ..Timings::default() },
        started,
    };

    // Whole chunks first, so that a cancelled prefill ends soon.
    let mut rest = prompt;
    while rest.len() > session.options().chunk && !cancel.load(Ordering::Relaxed) {
        let (chunk, tail) = rest.split_at(session.options().chunk);
        session.forward(chunk, super::Want::Nothing, &mut |_, _| {})?;
        rest = tail;
    }
    session.expect(options.max_tokens.unwrap_or(usize::MAX).min(room));
    let mut next = rest.to_vec();
    let stop = loop {
        if let Some(stop) = run.due() {
            break stop;
        }
        let step = Instant::now();
        let room = session.context() - session.position();
        let Some(room) = room.checked_sub(next.len()) else { break StopReason::ContextFull };
        let due = next.len();
        // The first token is waited for, and nothing that is drafted beyond `max_tokens` could be used.
        let left = options.max_tokens.map_or(usize::MAX, |max| max - run.tokens.len() - 1);
        let room = if run.tokens.is_empty() { 0 } else { room.min(left) };
        let first = run.tokens.is_empty();
        let drafted = drafts.draft(&run.history, room, &mut next);
        let kept = session.position() + due;
        if !next.is_empty() {
            session.hold(&next, drafted + 1)?;
        }
        let mut accepted = 0;
        let ended = run.take(session, &next[due..], &mut accepted, step, on_text);
        session.truncate(kept + accepted);
        // The first pass takes the prompt.
        if !first {
            drafts.judge(drafted, accepted, step.elapsed());
        }
        if let Some(stop) = ended? {
            break stop;
        }
        next.clear();
        next.extend(run.tokens.last());
    };
    let Run { tokens, mut text, mut timings, .. } = run;
    text.finish(on_text);
    timings.generated_tokens = tokens.len();
    timings.screening = session.screening().since(screened);
    timings.speculation = drafts.speculation;
    Ok(Generation { tokens, text: text.all, stop, timings })
}

/// A generation in progress.
struct Run<'a> {
    tokenizer: &'a dyn Tokenizer,
    options: &'a GenerateOptions,
    cancel: &'a AtomicBool,
    sampler: Sampler,
    history: Vec<u32>,
    tokens: Vec<u32>,
    text: Text<'a>,
    timings: Timings,
    started: Instant,
}

impl Run<'_> {
    /// What ends it before the next token.
    fn due(&self) -> Option<StopReason> {
        if self.cancel.load(Ordering::Relaxed) {
            return Some(StopReason::Cancelled);
        }
        self.options.max_tokens.is_some_and(|max| self.tokens.len() >= max).then_some(StopReason::MaxTokens)
    }

    /// Draws a token from each held row, until one is not what was drafted after it; counts the drafted ones that were
    /// followed. `step` is when the pass began.
    fn take(
        &mut self,
        session: &mut Session,
        draft: &[u32],
        accepted: &mut usize,
        mut step: Instant,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Option<StopReason>, InferenceError> {
        loop {
            let needs = self.sampler.needs(&self.history);
            let logits = session.held(*accepted, needs.as_ref())?;
            if self.tokens.is_empty() {
                self.timings.prefill = self.started.elapsed();
            }
            let token = self.sampler.sample(logits, &self.history);
            if !self.tokens.is_empty() {
                self.timings.decode += step.elapsed();
                self.timings.decode_steps += 1;
            }
            if let Some(stop) = self.push(token, on_text).or_else(|| self.due()) {
                return Ok(Some(stop));
            }
            if draft.get(*accepted) != Some(&token) {
                return Ok(None);
            }
            *accepted += 1;
            step = Instant::now();
        }
    }

    /// Appends a token; what ends the generation with it.
    fn push(&mut self, token: u32, on_text: &mut dyn FnMut(&str)) -> Option<StopReason> {
        self.history.push(token);
        self.tokens.push(token);
        let GenerateOptions { stop, stop_ids, ends, ignore_eos, .. } = self.options;
        if stop_ids.contains(&token) {
            return Some(StopReason::StopText);
        }
        if !ignore_eos && (self.tokenizer.is_eog(token) || ends.contains(&token)) {
            return Some(StopReason::EndOfGeneration);
        }
        let bytes = self.tokenizer.token_bytes(token, false).unwrap_or_default();
        if bytes.is_empty() && !stop.is_empty() {
            let spelled = self.tokenizer.token_bytes(token, true).unwrap_or_default();
            if stop.iter().any(|stop| !stop.is_empty() && stop.as_bytes() == &*spelled) {
                return Some(StopReason::StopText);
            }
        }
        self.text.push(&bytes, on_text).then_some(StopReason::StopText)
    }
}

/// Collects the text, holding back what may be the beginning of a stop text.
struct Text<'a> {
    stop: Vec<&'a str>,
    decoder: StreamDecoder,
    all: String,
    /// How much of `all` was given out.
    emitted: usize,
    /// Whether a stop text was found.
    stopped: bool,
}

impl<'a> Text<'a> {
    fn new(stop: &'a [String]) -> Self {
        let stop = stop.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        Self { stop, decoder: StreamDecoder::new(), all: String::new(), emitted: 0, stopped: false }
    }

    /// Takes the bytes of a token; true when a stop text is complete.
    fn push(&mut self, bytes: &[u8], on_text: &mut dyn FnMut(&str)) -> bool {
        let piece = self.decoder.push(bytes);
        self.take(&piece, on_text)
    }

    fn take(&mut self, piece: &str, on_text: &mut dyn FnMut(&str)) -> bool {
        self.all.push_str(piece);
        let fresh = &self.all[self.emitted..];
        if let Some(at) = self.stop.iter().filter_map(|s| fresh.find(s)).min() {
            self.all.truncate(self.emitted + at);
            self.emit(self.all.len(), on_text);
            self.stopped = true;
            return true;
        }
        let held = self.stop.iter().map(|s| overlap(fresh, s)).max().unwrap_or(0);
        self.emit(self.all.len() - held, on_text);
        false
    }

    fn emit(&mut self, upto: usize, on_text: &mut dyn FnMut(&str)) {
        if upto > self.emitted {
            on_text(&self.all[self.emitted..upto]);
            self.emitted = upto;
        }
    }

    fn finish(&mut self, on_text: &mut dyn FnMut(&str)) {
        // Of a stop text nothing is shown; what was held back before a stop token is.
        if !self.stopped {
            let tail = self.decoder.finish();
            self.all.push_str(&tail);
            self.emit(self.all.len(), on_text);
        }
    }
}

/// Length of the longest proper beginning of `stop` that `text` ends with.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(i, _)| i).rev().find(|&i| text.ends_with(&stop[..i])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stop: &[&str], pieces: &[&str]) -> (String, Vec<String>, bool) {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut text = Text::new(&stop);
        let mut out = Vec::new();
        for piece in pieces {
            if text.push(piece.as_bytes(), &mut |s| out.push(s.to_owned())) {
                return (text.all, out, true);
            }
        }
        text.finish(&mut |s| out.push(s.to_owned()));
        (text.all, out, false)
    }

    #[test]
    fn a_stop_text_across_tokens_is_never_shown() {
        let (all, out, stopped) = stream(&["\nUser:"], &["Yes.", "\n", "Us", "er", ": no"]);
        assert_eq!((all.as_str(), out.concat().as_str(), stopped), ("Yes.", "Yes.", true));
        let (all, out, stopped) = stream(&["\nUser:"], &["a\n", "Used", "\nU"]);
        assert_eq!((all.as_str(), stopped), ("a\nUsed\nU", false));
        assert_eq!(out.concat(), all, "what was held back comes at the end");
    }

    #[test]
    fn the_earliest_stop_wins_and_empty_ones_do_nothing() {
        let (all, _, stopped) = stream(&["", "def", "b"], &["abcdef"]);
        assert_eq!((all.as_str(), stopped), ("a", true));
        assert!(!stream(&[""], &["x"]).2);
    }

    #[test]
    fn overlap_is_the_longest_proper_prefix() {
        assert_eq!(overlap("xabab", "ababc"), 4);
        assert_eq!(overlap("xaba", "ababc"), 3);
        assert_eq!(overlap("xyz", "ababc"), 0);
        assert_eq!(overlap("ü", "üü"), 2);
    }
}
