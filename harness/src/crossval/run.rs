//! A prompt, from text to verdict: tokens, then free runs, then teacher-forced logits of everything that was read or
//! made, then the steps. Each part is run only when the one before it gave both sides the same input.

use std::time::Instant;

use bitnet_engine::chat::prompt::begun;
use bitnet_engine::discovery::TokenizerStrategy;
use bitnet_golden::thresholds::Thresholds;

use super::bisect::bisect;
use super::compare::compare_logits;
use super::generation::{GenerationParity, fed, leads, parting};
use super::ours::Ours;
use super::reference::{Continuation, Logits, Positions, Reference, SideError};
use super::replay::replay;
use super::report::{Asked, BothSeconds, LogitParity, Prompt, PromptReport, Section, TextParity, TokenizerParity};
use super::tokens::{Facts, TokenParity};

/// Logits of both sides, for a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct BothLogits {
    pub ours: Logits,
    pub reference: Logits,
}

/// Compares one prompt. The logits are returned too, where there are any.
pub fn prompt(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    prompt: &Prompt,
    asked: &Asked,
    limits: &Thresholds,
) -> (PromptReport, Option<BothLogits>) {
    let mut seconds = BothSeconds::default();
    let mut data = None;
    let tokens = tokens(ours, reference, prompt, &mut seconds);
    let gate = match &tokens {
        Section::Ran(parity) if parity.equal => Ok(parity.ours.clone()),
        Section::Ran(_) => Err("the tokens differ: what comes after them answers different questions"),
        _ => Err("there are no tokens of both sides"),
    };
    let mut report = PromptReport {
        prompt: prompt.clone(),
        tokens,
        logits: Section::not_run("not reached"),
        generation: Section::not_run("not reached"),
        trace: Section::not_run("not reached"),
        seconds,
    };
    let ids = match gate {
        Ok(ids) => ids,
        Err(reason) => {
            report.logits = Section::not_run(reason);
            report.generation = Section::not_run(reason);
            report.trace = Section::not_run(reason);
            return (report, None);
        }
    };
    // The reference's continuation is what both are asked about.
    let made = match asked.max_tokens {
        0 => None,
        max => Some(free_runs(ours, reference, &ids, max, &mut report.seconds)),
    };
    let (continuation, runs) = match made {
        None => {
            report.generation = Section::not_run("--max-tokens 0");
            (Vec::new(), None)
        }
        Some(Ok((mine, theirs))) => (fed(&theirs).to_vec(), Some((mine, theirs))),
        Some(Err(error)) => {
            report.generation = failed(&error);
            (Vec::new(), None)
        }
    };
    let sequence = [&ids[..], &continuation].concat();
    let mut positions = asked.positions.clone().map_or(Positions::All, Positions::List);
    if let (Positions::List(list), Some((mine, theirs))) = (&mut positions, &runs) {
        // Where the free runs part, it matters how clear the reference was.
        list.extend(parting(mine, theirs).map(|at| (ids.len() + at).saturating_sub(1)));
        list.sort_unstable();
        list.dedup();
    }
    report.logits = match logits(ours, reference, &sequence, &positions, &mut report.seconds) {
        Err(error) => failed(&error),
        Ok(both) => {
            let comparison = compare_logits(&sequence, &both.ours, &both.reference, limits);
            data = Some(both);
            Section::Ran(LogitParity { sequence: sequence.clone(), prompt_tokens: ids.len(), comparison })
        }
    };
    if let Some(runs) = runs {
        let found = report.logits.ran().map_or(&[][..], |l| &l.comparison.positions);
        let text = String::from_utf8_lossy(&ours.loaded.tokenizer.decode(&runs.0.tokens, true)).into_owned();
        let parity = GenerationParity::of(asked.max_tokens, runs, text, ids.len(), &leads(found), limits.clear_gap);
        report.generation = Section::Ran(parity);
    }
    report.trace = match (asked.trace, &report.logits) {
        (false, _) => Section::not_run("--trace was not given"),
        (true, Section::Ran(_)) => trace(ours, reference, &sequence, limits, &mut report.seconds),
        (true, _) => Section::not_run("there are no logits of both sides"),
    };
    (report, data)
}

fn tokens(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    prompt: &Prompt,
    seconds: &mut BothSeconds,
) -> Section<TokenParity> {
    let (text, add, parse) = (&prompt.text, prompt.add_special, prompt.parse_special);
    let mine = timed(&mut seconds.ours.tokens, || ours.prompt(text, parse));
    // What a tokenizer puts around a text is the same on both sides; how a prompt begins and ends is decided once.
    let theirs = timed(&mut seconds.reference.tokens, || reference.tokenize(text, add, parse))
        .map(|ids| begun(ids, ours.loaded.tokenizer.special(), parse));
    match (mine, theirs) {
        (Ok(mine), Ok(theirs)) if mine.is_empty() && theirs.is_empty() => {
            Section::Failed { side: super::ours::NAME.to_owned(), reason: "the prompt has no tokens".to_owned() }
        }
        (Ok(mine), Ok(theirs)) => Section::Ran(parity(ours, mine, theirs, parse)),
        (Err(error), _) | (_, Err(error)) => failed(&error),
    }
}

fn parity(ours: &Ours, mine: Vec<u32>, theirs: Vec<u32>, parse_special: bool) -> TokenParity {
    let metadata = ours.loaded.file.metadata();
    let text = |key: &str| metadata.str(key).ok().flatten();
    let facts = Facts {
        tokenizer: &*ours.loaded.tokenizer,
        embedded: matches!(ours.loaded.strategy, TokenizerStrategy::EmbeddedGguf),
        pre_in_file: text("tokenizer.ggml.pre"),
        byte_level: text("tokenizer.ggml.model") == Some("gpt2"),
        parse_special,
    };
    TokenParity::of(mine, theirs).with_hints(&facts)
}

/// Compares the tokens of many texts.
pub fn tokenizer_parity(ours: &mut Ours, reference: &mut dyn Reference, texts: &[String]) -> Section<TokenizerParity> {
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        let both = ours.tokenize(text, true, false).and_then(|mine| Ok((mine, reference.tokenize(text, true, false)?)));
        match both {
            Ok((mine, theirs)) => {
                out.push(TextParity { text: text.clone(), tokens: parity(ours, mine, theirs, false) });
            }
            Err(error) => return failed(&error),
        }
    }
    Section::Ran(TokenizerParity { differing: out.iter().filter(|t| !t.tokens.equal).count(), texts: out })
}

fn free_runs(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    ids: &[u32],
    max_tokens: usize,
    seconds: &mut BothSeconds,
) -> Result<(Continuation, Continuation), SideError> {
    let mine = timed(&mut seconds.ours.generation, || ours.generate(ids, max_tokens))?;
    let theirs = timed(&mut seconds.reference.generation, || reference.generate(ids, max_tokens))?;
    Ok((mine, theirs))
}

fn logits(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    sequence: &[u32],
    positions: &Positions,
    seconds: &mut BothSeconds,
) -> Result<BothLogits, SideError> {
    Ok(BothLogits {
        ours: timed(&mut seconds.ours.logits, || ours.logits(sequence, positions))?,
        reference: timed(&mut seconds.reference.logits, || reference.logits(sequence, positions))?,
    })
}

fn trace(
    ours: &mut Ours,
    reference: &mut dyn Reference,
    sequence: &[u32],
    limits: &Thresholds,
    seconds: &mut BothSeconds,
) -> Section<super::Bisection> {
    let both = timed(&mut seconds.ours.trace, || ours.trace(sequence)).and_then(|mine| {
        let theirs = timed(&mut seconds.reference.trace, || reference.trace(sequence))?;
        Ok((mine, theirs))
    });
    match both {
        Err(error) => failed(&error),
        Ok((mine, theirs)) => {
            match replay(&ours.loaded.model, ours.kernels, &ours.pool, (sequence, ours.context), &theirs) {
                Ok(replayed) => Section::Ran(bisect(&mine, &theirs, &replayed, limits)),
                Err(error) => failed(&SideError::failed(ours.name(), "trace", error)),
            }
        }
    }
}

/// A part in which a side gave no answer; what a recording cannot know was not run.
pub fn failed<T>(error: &SideError) -> Section<T> {
    match error {
        SideError::Failed { side, .. } => Section::Failed { side: side.clone(), reason: error.to_string() },
        SideError::Absent { .. } => Section::not_run(error.to_string()),
    }
}

fn timed<T>(seconds: &mut Option<f64>, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = run();
    *seconds = Some(started.elapsed().as_secs_f64());
    result
}
