//! `numpy`: the logits or the embedding vectors that an implementation in numpy gave (`golden/train/families.py`), written from the papers'
//! formulas and apart from this engine. It is the witness for what no C++ reference runs.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::crossval::distance;
use crate::metrics::Metrics;
use crate::models;
use crate::references::questions::CONTEXT;
use bitnet_engine::inference::{Pooling, Session, Want, embed};
use bitnet_engine::load::Loaded;
use bitnet_golden::numpy::{self, Answers, Numbers, Passage};
use bitnet_golden::thresholds;

/// Its name where limits are looked up.
const BACKEND: &str = "numpy";
/// Tokens of the passages that are recorded: more than a window, in and behind one chunk.
const LENGTHS: [usize; 2] = [24, 7];

pub struct Numpy;

impl Check for Numpy {
    fn name(&self) -> &'static str {
        "numpy"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let limits = thresholds::crossval(&ctx.paths.golden, BACKEND, &cell.model, &cell.quant)?;
        let answers = numpy::read(&ctx.paths.golden, &cell.model, &cell.quant)?;
        let loaded = models::loaded(ctx, cell)?;
        let (file, rounding) = (loaded.file.content_hash(), &loaded.model.rounding);
        if file != answers.model_sha256 {
            return Err(Failure::new(format_args!(
                "the answers are about the file {}, this is {file}: cargo xtask reference record numpy",
                answers.model_sha256
            )));
        }
        if answers.activations != "float" && answers.activations != rounding.name() {
            return Err(Failure::new(format_args!(
                "the answers are for activations rounded as {}, the model is run with {}",
                answers.activations,
                rounding.name()
            )));
        }
        let mut session = models::session(&loaded, models::device(cell)?, 1, 16, CONTEXT)?;
        let (mut least_cosine, mut largest_abs, mut compared) = (1f64, 0f64, 0usize);
        for passage in &answers.passages {
            let (ours, theirs) = pair(&mut session, &answers, passage)?;
            let width = *theirs.shape.last().unwrap_or(&1);
            if ours.len() != theirs.values.len() || ours.is_empty() {
                return Err(Failure::new(format_args!("{} numbers, recorded {:?}", ours.len(), theirs.shape)));
            }
            for (a, b) in ours.chunks_exact(width).zip(theirs.values.chunks_exact(width)) {
                // Comparisons with NaN are false: `min` and `max` would drop it.
                let cosine = distance::cosine(a, b);
                least_cosine = if cosine < least_cosine || cosine.is_nan() { cosine } else { least_cosine };
                largest_abs = largest_abs.max(distance::max_abs(a, b));
                compared += 1;
            }
        }
        let mut metrics = Metrics::new()
            .with("rows", compared)
            .with("least_cosine", least_cosine)
            .with("largest_abs", largest_abs)
            .of_model(file)
            .ran(models::kernels(cell)?.name());
        metrics.reference = Some("golden/train/families.py (numpy)".to_owned());
        if compared > 0 && least_cosine >= limits.least_cosine && largest_abs <= limits.largest_abs {
            return Ok(metrics);
        }
        let message = format!(
            "{compared} rows: least cosine {least_cosine:.7} (limit {}), largest difference {largest_abs:e} (limit {})",
            limits.least_cosine, limits.largest_abs
        );
        Err(Failure::new(message).with_metrics(metrics))
    }
}

/// Our numbers for a passage, and theirs.
fn pair<'a>(
    session: &mut Session,
    answers: &Answers,
    passage: &'a Passage,
) -> Result<(Vec<f32>, &'a Numbers), Failure> {
    session.truncate(0);
    match (&passage.logits, &passage.embedding, &answers.pooling) {
        (Some(logits), None, None) => {
            let mut ours = Vec::new();
            session.forward(&passage.ids, Want::All, &mut |_, row| ours.extend_from_slice(row))?;
            Ok((ours, logits))
        }
        (None, Some(vector), Some(pooling)) => {
            let recorded: Pooling = pooling.parse().map_err(Failure::new)?;
            let own = Pooling::of(session.model())?;
            if own != recorded {
                return Err(Failure::new(format_args!("the file is read as pooled by {own:?}, recorded {recorded:?}")));
            }
            Ok((embed(session, &passage.ids, own)?, vector))
        }
        _ => Err(Failure::new("a passage has either logits, or a vector and its pooling")),
    }
}

/// What the numpy implementation is asked about a model: the arguments of `families.py` after `--model`.
pub fn questions(ctx: &Context, cell: &Cell, loaded: &Loaded) -> Result<Vec<String>, Failure> {
    let text = bitnet_golden::texts::passage(&ctx.paths.golden)?;
    let ids = models::ids(loaded, &text, LENGTHS.iter().sum())?;
    let mut args = vec![
        "--activations".to_owned(),
        if loaded.model.weights.storages().any(|(_, s)| s.is_ternary()) {
            loaded.model.rounding.name().to_owned()
        } else {
            "float".to_owned()
        },
        "--context".to_owned(),
        CONTEXT.to_string(),
    ];
    let mut rest = ids.as_slice();
    for length in LENGTHS {
        let (ids, tail) = rest.split_at(length);
        args.extend(["--ids".to_owned(), ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")]);
        rest = tail;
    }
    if cell.model.ends_with("-embed") {
        args.push("--embed".to_owned());
    }
    Ok(args)
}
