//! `trainer`: the logits that the training program recorded, teacher-forced, within the tolerance of its float order.
//!
//! The recording comes from numpy and from formulas written apart from this engine, so it is a witness for everything
//! between the packed bytes and the logits. It sums in another order, which can tip the rounding of an int8
//! activation; so tokens are compared only where the recorded choice is clear.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::crossval::distance;
use crate::golden::ORACLE_DEVICE;
use crate::metrics::Metrics;
use crate::models;
use bitnet_engine::inference::{Want, argmax, nll};
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_golden::thresholds::{self, TrainerLimits};
use bitnet_golden::trainer::TrainerReference;

pub struct Trainer;

impl Check for Trainer {
    fn name(&self) -> &'static str {
        "trainer"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let limits = thresholds::trainer(&ctx.paths.golden)?;
        let loaded = models::loaded(ctx, cell)?;
        let reference = TrainerReference::read(&ctx.paths.golden, &cell.model)?;
        let stored = models::file(ctx, ctx.model(cell)?, "i2_s")?;
        if stored.content_hash() != reference.model_sha256 {
            return Err(Failure::new(format_args!(
                "the recording is of the model {}, the file is {}: run golden/train/reference.py",
                reference.model_sha256,
                stored.content_hash()
            )));
        }
        let mut found = Comparison::default();
        // The oracle has the bits of the other devices and is slow: of it one passage is enough.
        let asked = if cell.device == ORACLE_DEVICE { 1 } else { reference.passages.len() };
        for passage in reference.passages.iter().take(asked) {
            let ids =
                loaded.tokenizer.encode(&passage.text, EncodeOptions { add_special: true, parse_special: false })?;
            if ids != passage.ids {
                return Err(Failure::new(format_args!(
                    "tokens of {:?} differ: {ids:?}, recorded {:?}",
                    passage.text, passage.ids
                )));
            }
            let mut session = models::session(&loaded, models::kernels(cell)?, 1, 16, ids.len())?;
            let mut nats = 0.0;
            session.forward(&ids, Want::All, &mut |position, logits| {
                found.position(position, logits, &reference.logits(passage, position), &limits);
                if let Some(&target) = ids.get(position + 1) {
                    nats += nll(logits, target as usize);
                }
            })?;
            found.loss(nats / (ids.len() - 1) as f64, passage.mean_nll_nats);
        }
        let mut metrics = found.metrics().ran(models::kernels(cell)?.name()).of_model(&reference.model_sha256);
        metrics.reference = Some("golden/train/infer.py (numpy)".to_owned());
        match found.verdict(&limits) {
            None => Ok(metrics),
            Some(message) => Err(Failure::new(message).with_metrics(metrics)),
        }
    }
}

#[derive(Debug, Default)]
pub struct Comparison {
    positions: usize,
    clear: usize,
    mistakes: Vec<String>,
    least_cosine: f64,
    loss: f64,
    recorded_loss: f64,
    passages: f64,
}

impl Comparison {
    /// Takes the logits of one position.
    pub fn position(&mut self, position: usize, ours: &[f32], theirs: &[f32], limits: &TrainerLimits) {
        let best = argmax(theirs);
        let top = theirs[best as usize];
        let others = theirs.iter().enumerate().filter(|(i, _)| *i != best as usize);
        let gap = top - others.map(|(_, &l)| l).fold(f32::NEG_INFINITY, f32::max);
        if gap > limits.clear_gap {
            self.clear += 1;
            let own = argmax(ours);
            if own != best {
                self.mistakes.push(format!("position {position}: token {own} instead of {best} (gap {gap})"));
            }
        }
        // `min` would drop a NaN.
        let cosine = distance::cosine(ours, theirs);
        let cosine = if cosine.is_nan() { -1.0 } else { cosine };
        self.least_cosine = if self.positions == 0 { cosine } else { self.least_cosine.min(cosine) };
        self.positions += 1;
    }

    /// Takes the mean loss of one passage.
    pub fn loss(&mut self, ours: f64, theirs: f64) {
        self.loss += ours;
        self.recorded_loss += theirs;
        self.passages += 1.0;
    }

    fn relative_loss(&self) -> f64 {
        self.loss / self.recorded_loss - 1.0
    }

    fn metrics(&self) -> Metrics {
        Metrics::new()
            .with("positions", self.positions)
            .with("clear_positions", self.clear)
            .with("clear_disagreements", self.mistakes.len())
            .with("least_cosine", self.least_cosine)
            .with("mean_loss_nats", self.loss / self.passages)
            .with("relative_loss_difference", self.relative_loss())
    }

    #[must_use]
    pub fn verdict(&self, limits: &TrainerLimits) -> Option<String> {
        if self.clear == 0 {
            return Some("no position has a clear choice: nothing was compared".into());
        }
        if let Some(first) = self.mistakes.first() {
            return Some(format!("{} of {} clear positions differ, first {first}", self.mistakes.len(), self.clear));
        }
        // Written so that NaN fails.
        if !matches!(self.least_cosine.partial_cmp(&limits.least_cosine), Some(o) if o.is_ge()) {
            return Some(format!("least cosine {} below {}", self.least_cosine, limits.least_cosine));
        }
        let difference = self.relative_loss().abs();
        if !matches!(difference.partial_cmp(&limits.relative_loss), Some(o) if o.is_le()) {
            return Some(format!("mean loss differs by {difference}, allowed is {}", limits.relative_loss));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TrainerLimits = TrainerLimits { clear_gap: 0.25, least_cosine: 0.99, relative_loss: 0.002 };

    fn compare(ours: &[f32], theirs: &[f32], losses: (f64, f64)) -> Option<String> {
        let mut comparison = Comparison::default();
        comparison.position(0, ours, theirs, &LIMITS);
        comparison.loss(losses.0, losses.1);
        comparison.verdict(&LIMITS)
    }

    #[test]
    fn each_limit_turns_it_red() {
        let theirs = [1.0, 0.0, 2.0];
        assert_eq!(compare(&[1.0, 0.001, 2.0], &theirs, (3.0, 3.0)), None);
        let red = |message: Option<String>, words: &str| assert!(message.is_some_and(|m| m.contains(words)), "{words}");
        red(compare(&[2.1, 0.0, 2.0], &theirs, (3.0, 3.0)), "token 0 instead of 2");
        red(compare(&[1.0, 2.0, 2.1], &theirs, (3.0, 3.0)), "cosine");
        red(compare(&theirs, &theirs, (3.01, 3.0)), "mean loss");
        red(compare(&[1.0, f32::NAN, 2.0], &theirs, (3.0, 3.0)), "cosine");
        red(compare(&[1.0, 0.0, 2.0, 0.0], &theirs, (3.0, 3.0)), "cosine");
        let mut late = Comparison::default();
        late.position(0, &theirs, &theirs, &LIMITS);
        late.position(1, &[1.0, f32::NAN, 2.0], &theirs, &LIMITS);
        late.loss(3.0, 3.0);
        red(late.verdict(&LIMITS), "cosine");
        red(compare(&[1.0, 0.0, 1.1], &[1.0, 0.0, 1.1], (3.0, 3.0)), "nothing was compared");
    }
}
