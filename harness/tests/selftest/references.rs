//! Lies planted in a reference and in what was recorded of it: the checks must see each of them.

use bitnet_engine::gguf::GgufFile;
use bitnet_harness::Failure;
use bitnet_harness::crossval::generation::forced;
use bitnet_harness::crossval::live::facts;
use bitnet_harness::crossval::reference::Continuation;
use bitnet_harness::crossval::{Logits, Ours, Positions, Reference, Row, SideError, Thresholds, Traced};
use bitnet_harness::data::reference::{Recording, file};
use bitnet_harness::env::Env;
use bitnet_harness::host::Host;
use bitnet_harness::metrics::Value;
use bitnet_harness::paths::Paths;
use bitnet_harness::references::questions::{self, Subject};
use bitnet_harness::references::recorded::Recorded;
use bitnet_harness::references::{judge, record, side};
use bitnet_harness::{Cell, Context, Metrics, models, setup};
use bitnet_kernels::best;
use bitnet_kernels::quant::I2sLayout;
use cpp_sys::CppBackend;
use std::path::Path;

use crate::cases::cases;
use crate::lost::context;
use crate::toy::Toy;

cases![
    a_reference_that_tells_the_truth_is_green,
    a_reference_with_another_id,
    a_reference_with_one_logit_off,
    a_reference_that_prefers_another_token,
    a_reference_that_gives_no_numbers,
    a_reference_that_leaves_out_a_position,
    a_reference_that_goes_on_otherwise,
    a_reference_that_contradicts_itself,
    a_reference_that_stops_too_early,
    a_reference_that_fails,
    a_recording_of_the_truth_is_green,
    a_recording_with_a_changed_figure,
    a_recording_that_is_missing_or_stale,
    a_recording_that_lacks_an_answer,
    a_recording_without_a_cell,
    what_a_backend_is_not_asked_is_what_it_refuses,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// The last id of every text is another.
    Id,
    /// One logit of position 3 is off.
    Logit,
    /// In position 3 the second token comes first, clearly.
    Preference,
    NotANumber,
    Position,
    /// It goes on with the second best token from the first clear choice on, and has the logits for it.
    Continuation,
    /// The same without the logits.
    Contradiction,
    Stop,
    Failure,
}

/// Our own answers as a reference's, with one lie.
struct Liar<'a> {
    ours: &'a Ours,
    subject: &'a Subject,
    lie: Lie,
}

impl Liar<'_> {
    /// The two best tokens of a row, the second first.
    fn swap(row: &mut [f32]) {
        let top = bitnet_harness::crossval::distance::top(row, 2);
        row.swap(top[0] as usize, top[1] as usize);
    }

    /// Where the truth about a prompt is first clear: the index of the token in the continuation, and the second best.
    fn clear(&self, prompt: &[u32], truth: &[u32]) -> (usize, u32) {
        let (sequence, from) = forced(prompt, &Continuation { tokens: truth.to_vec(), ended: false });
        let logits = self.ours.logits(&sequence, &Positions::All).expect("logits");
        (0..truth.len())
            .find_map(|at| match logits.row(from + at) {
                Some(Row::Full(row)) if bitnet_harness::crossval::distance::gap(row) > 1.0 => {
                    Some((at, bitnet_harness::crossval::distance::top(row, 2)[1]))
                }
                _ => None,
            })
            .expect("a trained model is clear somewhere")
    }
}

impl Reference for Liar<'_> {
    fn name(&self) -> &str {
        "liar"
    }

    fn version(&self) -> serde_json::Value {
        serde_json::json!("1")
    }

    fn tokenize(&mut self, text: &str, add_special: bool, _: bool) -> Result<Vec<u32>, SideError> {
        let mut ids = self.subject.tokenizer.encode(text, questions::options(add_special)).expect("ids");
        if self.lie == Lie::Id
            && let Some(last) = ids.last_mut()
        {
            *last += 1;
        }
        Ok(ids)
    }

    fn logits(&mut self, tokens: &[u32], positions: &Positions) -> Result<Logits, SideError> {
        if self.lie == Lie::Failure {
            return Err(SideError::failed("liar", "logits", "it died (signal 9)"));
        }
        let all = self.ours.logits(tokens, &Positions::All).expect("logits");
        let mut positions = positions.of(tokens.len());
        if self.lie == Lie::Position {
            positions.pop();
        }
        let rows = positions.iter().map(|&position| {
            let Some(Row::Full(mut row)) = all.row(position).cloned() else { panic!("a whole row") };
            match self.lie {
                Lie::Logit if position == 3 => row[9] += 2.5,
                Lie::Preference if position == 3 => {
                    let best = bitnet_harness::crossval::distance::top(&row, 2);
                    row[best[1] as usize] = row[best[0] as usize] + 0.3;
                }
                Lie::NotANumber if position == 3 => row[9] = f32::NAN,
                _ => {}
            }
            Row::Full(row)
        });
        let mut rows: Vec<Row> = rows.collect();
        if self.lie == Lie::Continuation && tokens != self.subject.questions.passages[0] {
            // Whatever the prompt was, each row must have the token first that the lie goes on with.
            for (row, &position) in rows.iter_mut().zip(&positions) {
                if let (Row::Full(row), Some(&next)) = (row, tokens.get(position + 1))
                    && bitnet_harness::crossval::distance::top(row, 1) != [next]
                {
                    Liar::swap(row);
                }
            }
        }
        Ok(Logits { positions, vocab: all.vocab, rows })
    }

    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Continuation, SideError> {
        let truth = self.ours.generate(prompt, max_tokens).expect("tokens");
        let Continuation { tokens: truth, ended } = truth;
        let tokens = match self.lie {
            Lie::Continuation | Lie::Contradiction => {
                let (at, second) = self.clear(prompt, &truth);
                let mut lie = truth[..at].to_vec();
                lie.push(second);
                let rest = max_tokens - lie.len();
                if rest > 0 {
                    let next = [prompt, &lie[..]].concat();
                    lie.extend(self.ours.generate(&next, rest).expect("tokens").tokens);
                }
                lie
            }
            Lie::Stop => truth[..2].to_vec(),
            _ => truth,
        };
        Ok(Continuation { ended: ended && self.lie == Lie::None, tokens })
    }

    fn trace(&mut self, _: &[u32]) -> Result<Vec<Traced>, SideError> {
        Err(SideError::absent("liar", "trace", "not here"))
    }
}

/// The real matrix's context and the trained model on the best kernels.
fn stage() -> (Context, Cell, Subject, Ours) {
    let ctx = context();
    let name = format!("tiny-bitnet-silu::i2_s::cpu-{}::bitnet::recorded", best().name());
    let cell: Cell = name.parse().expect("cell");
    let subject = questions::subject(&ctx, &cell).expect("subject");
    let ours = side(&ctx, &cell).expect("engine");
    (ctx, cell, subject, ours)
}

fn limits() -> Thresholds {
    Thresholds {
        clear_gap: 0.25,
        least_cosine: 0.999,
        largest_kl: 0.1,
        largest_abs: 1.0,
        step_peak: 0.1,
        attention_peak: None,
        drift_peak: 0.1,
        why: "the truth is exact, a recording has all its digits".to_owned(),
    }
}

/// Everything that is asked of a reference.
fn all(ours: &Ours, subject: &Subject, reference: &mut dyn Reference) -> Result<Metrics, Failure> {
    judge::tokens(subject, reference, &|_| None)?;
    judge::logits(ours, &subject.questions, reference, &limits())?;
    judge::continuation(ours, &subject.questions, reference, &limits())
}

#[track_caller]
fn red(found: Result<Metrics, Failure>, words: &str) {
    let failure = found.expect_err(words);
    assert!(failure.message.contains(words), "no `{words}` in: {}", failure.message);
}

#[track_caller]
fn caught(lie: Lie, words: &str) {
    let (_, _, subject, ours) = stage();
    red(all(&ours, &subject, &mut Liar { ours: &ours, subject: &subject, lie }), words);
}

fn a_reference_that_tells_the_truth_is_green() {
    let (_, _, subject, ours) = stage();
    let mut truth = Liar { ours: &ours, subject: &subject, lie: Lie::None };
    let metrics = all(&ours, &subject, &mut truth).unwrap_or_else(|failure| panic!("{}", failure.message));
    let expected = subject.questions.prompts.len() * subject.questions.new_tokens;
    assert_eq!(metrics.values["equal_tokens"], Value::from(expected));
}

fn a_reference_with_another_id() {
    caught(Lie::Id, "texts have other ids, first");
}

fn a_reference_with_one_logit_off() {
    caught(Lie::Logit, "first position 3 (");
}

fn a_reference_that_prefers_another_token() {
    caught(Lie::Preference, "first position 3 (top1");
}

fn a_reference_that_gives_no_numbers() {
    caught(Lie::NotANumber, "first position 3 (cosine, kl, max_abs)");
}

fn a_reference_that_leaves_out_a_position() {
    caught(Lie::Position, "(missing)");
}

fn a_reference_that_goes_on_otherwise() {
    caught(Lie::Continuation, "the continuations part at token");
}

fn a_reference_that_contradicts_itself() {
    caught(Lie::Contradiction, "liar contradicts itself");
}

fn a_reference_that_stops_too_early() {
    caught(Lie::Stop, "and do not end");
}

fn a_reference_that_fails() {
    caught(Lie::Failure, "liar gave no logits: it died (signal 9)");
}

/// A recording of the truth, in a golden folder of its own, changed by `change`, and what the check says of it.
fn replayed(change: impl FnOnce(&mut Recording)) -> Result<Metrics, Failure> {
    let (ctx, cell, subject, ours) = stage();
    let mut truth = Liar { ours: &ours, subject: &subject, lie: Lie::None };
    let mut recording = record::record(&cell, &subject, &mut truth).expect("recording");
    change(&mut recording);
    let dir = tempfile::tempdir().expect("temp dir");
    let path = file(dir.path(), "bitnet", "tiny-bitnet-silu", "i2_s");
    std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    std::fs::write(&path, recording.to_text().expect("text")).expect("write");
    let ctx = Context { paths: Paths { golden: dir.path().to_owned(), ..ctx.paths.clone() }, ..ctx };
    all(&ours, &subject, &mut Recorded::of(&ctx, &cell, &subject)?)
}

fn a_recording_of_the_truth_is_green() {
    replayed(|_| {}).unwrap_or_else(|failure| panic!("{}", failure.message));
}

fn a_recording_with_a_changed_figure() {
    red(replayed(|r| r.texts[3].ids[0] += 1), "1 of");
    red(replayed(|r| r.passages[0].positions[5].sample[2] += 2.5), "1 of 64 positions differ, first position 5 (");
    red(replayed(|r| r.passages[0].positions[5].top[0].1 += 2.5), "first position 5 (");
    red(replayed(|r| r.passages[0].positions[5].log_sum_exp += 3.0), "first position 5 (kl)");
    // The figures of the passages are swapped with their ids: the file is whole, every number in it is a true one.
    red(replayed(|r| r.passages[0].positions.swap(10, 11)), "first position 10 (");
    red(replayed(|r| r.continuations[1].tokens[0] += 1), "was not asked");
}

fn a_recording_that_is_missing_or_stale() {
    red(replayed(|r| r.model_sha256 = "0".repeat(64)), "is stale: it is about the file 0000");
    red(replayed(|r| r.model_sha256 = "0".repeat(64)), "cargo xtask reference record bitnet --model tiny-bitnet-silu");
    let (ctx, cell, subject, _) = stage();
    let dir = tempfile::tempdir().expect("temp dir");
    let empty = Context { paths: Paths { golden: dir.path().to_owned(), ..ctx.paths.clone() }, ..ctx.clone() };
    let failure = Recorded::of(&empty, &cell, &subject).expect_err("missing");
    assert!(failure.message.contains("tiny-bitnet-silu__i2_s.json is missing"), "{failure:?}");
    // The very file counts, not its name.
    let other = GgufFile::open(ctx.paths.golden.join("models/tiny-bitnet.gguf")).expect("the other model");
    if let Ok(recorded) = Recorded::of(&ctx, &cell, &Subject { file: other, ..subject }) {
        panic!("a recording of {} passed for one of another file", recorded.recording().model_sha256);
    }
}

fn a_recording_that_lacks_an_answer() {
    red(replayed(|r| r.texts.truncate(5)), "bitnet as recorded has no tokens: this was not asked");
    red(replayed(|r| r.passages.clear()), "has no logits");
    red(replayed(|r| r.continuations.clear()), "has no generation");
}

fn a_recording_without_a_cell() {
    let toy = Toy::new();
    toy.write("golden/reference/native/toy__q1.json", "{}");
    toy.run(&[]).is(2, "golden/reference/native/toy__q1.json belongs to no declared cell of the check `recorded`");
}

fn what_a_backend_is_not_asked_is_what_it_refuses() {
    let env = Env::default();
    let paths = Paths::discover(&env);
    let declaration = setup::declare(&paths.golden).expect("golden folder");
    let survey = Host::here(env.clone(), &paths).survey(&declaration, &paths);
    let ctx = Context::new(declaration.matrix.clone(), paths, &env);
    let mut compared = 0;
    for model in declaration.matrix.models.iter().filter(|model| model.source.is_model()) {
        for quant in &model.quants {
            // Everything but the backend.
            let name = format!("{}::{quant}::cpu-scalar::native::recorded", model.name);
            let cell: Cell = name.parse().expect("cell");
            if !survey.missing(&cell, false).is_empty() {
                continue;
            }
            let file = models::file(&ctx, model, quant).expect("file");
            for backend in CppBackend::ALL {
                let refused = backend.supports(&facts(&file, Path::new("model.gguf")));
                // What neither the architecture nor the types of tensors tell: the layouts of I2_S (the file would be read,
                // and wrongly), tensors that a graph does not know, a rope scaling that a fork does not know.
                let unseen = models::layout(quant) != I2sLayout::X86
                    || file.tensors().iter().any(|t| t.name.ends_with("_norm_in.weight"))
                    || backend == CppBackend::BitNet && file.tensor("rope_factors_long.weight").is_some();
                let asked = declaration.cells.iter().any(|declared| {
                    let cell = &declared.cell;
                    let this = cell.model == model.name && cell.quant == *quant && cell.backend == backend.name();
                    this && cell.check == "recorded" && declared.unsupported.is_none()
                });
                assert_eq!(asked, refused.is_ok() && !unseen, "{} {quant} {backend}: {refused:?}", model.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 90, "only {compared} pairs");
}
