//! The executor of processors: every operation by its own [`run`](crate::ops::Operation::run), products of one input together.
//!
//! Every output element is computed by one kernel call in the one canonical order, so neither the number of threads nor how
//! tokens are put together changes a bit of the logits.

mod head;
mod pays;

use super::executor::Executor;
use super::{Head, InferenceError, Needs, Observer, Screening, SessionOptions, StepResult};
use crate::model::{HugePages, Model};
use crate::ops::{Batch, KvCache, Linear, Memory, Op, State, Workspace, linear};
use bitnet_kernels::screen::{Scratch, Screen};
use bitnet_kernels::{Kernels, Pool};
use pays::Passes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Sequences on a processor.
pub(super) struct Cpu {
    model: Arc<Model>,
    kernels: &'static dyn Kernels,
    pool: Arc<Pool>,
    how: Head,
    /// The plan up to the output matrix: each step, or some linear ones that share an input.
    parts: Vec<Part>,
    work: Workspace,
    memory: Memory,
    /// Rows that are held.
    held: usize,
    passes: Passes,
    /// Bytes of the layers, which every pass reads.
    body: usize,
    /// Whether weights are in huge pages, or never will be.
    hot: bool,
    /// The copy of the output matrix, until all of it is there; then it is the model's.
    screen: Option<Screen>,
    /// Whether the held rows were multiplied with the copy of the output matrix.
    copied: bool,
    screening: Screening,
    scratch: Scratch,
}

/// Steps that are run together.
struct Part {
    steps: Range<usize>,
    /// Empty if it is one step of another kind.
    linear: Vec<Linear>,
}

impl Cpu {
    pub(super) fn new(
        model: &Arc<Model>,
        options: &SessionOptions,
        context: usize,
        sequences: usize,
    ) -> Result<Self, InferenceError> {
        let config = &model.config;
        let cache = || {
            KvCache::new(config.block_count, context, config.kv_heads, config.head_dim)
                .ok_or(InferenceError::ContextTooLarge { context })
        };
        let caches = (0..sequences).map(|_| cache()).collect::<Result<_, _>>()?;
        Ok(Self {
            kernels: options.kernels,
            pool: Arc::clone(&options.pool),
            how: options.head,
            parts: parts(model),
            work: Workspace::default(),
            memory: Memory::new(caches, &model.ropes, context),
            held: 0,
            passes: Passes::default(),
            body: model.body_bytes(),
            hot: false,
            screen: None,
            copied: false,
            screening: Screening::default(),
            scratch: Scratch::default(),
            model: Arc::clone(model),
        })
    }
}

impl Cpu {
    /// Copies the weights into huge pages if the passes to come pay for the pages and for reading the file once more.
    fn copy_if_it_pays(&mut self) {
        let model = &*self.model;
        if model.huge_pages != HugePages::Auto || self.hot {
            return;
        }
        if !model.may_copy(self.body) {
            self.hot = true;
            return;
        }
        let threads = self.pool.threads() as f64;
        if self.passes.pay(self.body, |huge| 2.0 * huge / threads) {
            let copied = model.copy_hot(HugePages::Auto, &self.pool);
            tracing::debug!(?copied, "weights into huge pages");
            self.hot = true;
        }
    }
}

/// The parts of a plan before the output matrix.
fn parts(model: &Model) -> Vec<Part> {
    let body = &model.plan[..model.body()];
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let linear = linear::group(&body[at..]);
        let end = at + linear.len().max(1);
        parts.push(Part { steps: at..end, linear });
        at = end;
    }
    parts
}

impl Executor for Cpu {
    fn run(&mut self, batch: &Batch<'_>, mut observer: Option<&mut (dyn Observer + '_)>) -> Result<(), InferenceError> {
        self.copy_if_it_pays();
        let (model, started) = (&*self.model, Instant::now());
        (self.held, self.copied) = (batch.wanted(), false);
        let set = (self.kernels, &*self.pool);
        let mut state = State::new(set, &model.weights, batch, &mut self.work, &mut self.memory);
        for part in &self.parts {
            let steps = &model.plan[part.steps.clone()];
            match steps {
                _ if !part.linear.is_empty() => linear::run_group(&part.linear, &mut state),
                [step] if matches!(step.op, Op::SelectRows(_)) && self.held == 0 => break,
                steps => steps.iter().for_each(|step| step.op.as_operation().run(&mut state)),
            }
            let Some(observer) = observer.as_deref_mut() else { continue };
            for step in steps {
                let Some(slot) = step.result() else { continue };
                let (values, rows) = (state.slot(slot), state.rows());
                let (position, width) = (state.spans().first().map_or(0, |span| span.position), values.len() / rows);
                observer.step(StepResult { name: &step.name, position, rows, width, values });
            }
        }
        self.passes.ran(batch.tokens.len(), started.elapsed());
        Ok(())
    }

    fn expect(&mut self, runs: usize) {
        self.passes.expect(runs);
    }

    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.output(out);
        Ok(())
    }

    fn choose(&mut self, row: usize, needs: &Needs, out: &mut Vec<f32>) -> Result<bool, InferenceError> {
        Ok(self.screened(row, needs, out))
    }

    fn hidden(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        out.clear();
        if let Some(output) = self.model.output() {
            out.extend_from_slice(&self.work.slots[output.src.index()]);
        }
        Ok(())
    }

    fn hold_last(&mut self) {
        if let Some(output) = self.model.output() {
            let rows = &mut self.work.slots[output.src.index()];
            let (all, width) = (rows.len(), rows.len() / self.held.max(1));
            rows.copy_within(all - width.., 0);
            rows.resize(width);
            self.held = self.held.min(1);
        }
    }

    fn screening(&self) -> Screening {
        self.screening
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufFile;
    use crate::ops::Span;
    use bitnet_kernels::quant::I2sLayout;

    /// Rows of two sequences in one step: each has the bits that it has alone.
    #[test]
    fn sequences_in_one_step_do_not_meet() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/models/tiny-bitnet.gguf");
        let pool = Arc::new(Pool::new(2).expect("threads"));
        let file = GgufFile::open(path).expect("the tiny model");
        let model = Arc::new(Model::load(&file, I2sLayout::X86, &pool).expect("a model"));
        let options = SessionOptions::new(bitnet_kernels::best(), pool);
        let span = |sequence, position, tokens, wanted| Span { sequence, position, tokens, wanted };
        let [first, second] = [[5, 9, 700, 31, 8], [1200, 4, 4, 90, 17]];
        let alone = |tokens: &[u32; 5]| -> Vec<f32> {
            let mut cpu = Cpu::new(&model, &options, 8, 1).expect("an executor");
            let mut logits = Vec::new();
            cpu.run(&Batch { tokens, spans: &[span(0, 0, 5, 2)] }, None).expect("a run");
            cpu.logits(&mut logits).expect("logits");
            logits
        };
        let mut both = Cpu::new(&model, &options, 8, 2).expect("an executor");
        // The first is two tokens ahead; then its last two come with four of the other, whose last one comes alone.
        both.run(&Batch { tokens: &first[..3], spans: &[span(0, 0, 3, 0)] }, None).expect("a run");
        let tokens = [&second[..4], &first[3..]].concat();
        let spans = [span(1, 0, 4, 1), span(0, 3, 2, 2)];
        let mut logits = Vec::new();
        both.run(&Batch { tokens: &tokens, spans: &spans }, None).expect("a run");
        both.logits(&mut logits).expect("logits");
        let vocab = model.config.vocab_size;
        let (of_second, of_first) = logits.split_at(vocab);
        let expected = alone(&second);
        assert_eq!(of_first, alone(&first));
        assert_eq!(of_second, &expected[..vocab]);
        both.run(&Batch { tokens: &second[4..], spans: &[span(1, 4, 1, 1)] }, None).expect("a run");
        both.logits(&mut logits).expect("logits");
        assert_eq!(logits, expected[vocab..]);
    }
}
