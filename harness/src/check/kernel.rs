//! `kernel`: the matrix products of one weight format on one device are bit-equal to the naive loop.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::generate::Noise;
use crate::metrics::Metrics;
use crate::models;
use bitnet_kernels::quant::{self, Format};
use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, OutView, by_name};

pub struct Kernel;

impl Check for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let format = quant::by_name(&cell.quant)?;
        let compared = compare(models::kernels(cell)?, format, ctx.seed(cell))?;
        Ok(Metrics::new().with("outputs_compared", compared).ran(models::kernels(cell)?.name()))
    }
}

/// What the inputs look like: noise, and what strains accumulators and signs.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    Noise,
    /// Every weight and every activation as large as it gets, all of one sign.
    Full,
    /// The same with the activations negative.
    Opposed,
    /// Signs alternate between neighbours.
    Alternating,
    /// Nothing at all.
    Zero,
}

const PATTERNS: [Pattern; 5] = [Pattern::Noise, Pattern::Full, Pattern::Opposed, Pattern::Alternating, Pattern::Zero];

/// Compares every output of many shapes with the format's naive dot; returns how many there were.
///
/// # Errors
/// The first output whose bits differ, with its place and both values.
pub fn compare(kernels: &dyn Kernels, format: &'static Format, seed: u64) -> Result<usize, Failure> {
    let mut noise = Noise(seed);
    let mut compared = 0;
    for blocks in [1, 2, 3, 5, 9] {
        // Formats without blocks take any width: tails of a vector and of the 64 lanes.
        let cols = if format.block_len == 1 { blocks * 61 + 3 } else { blocks * format.block_len };
        for (rows, tokens) in [(1, 1), (3, 1), (17, 1), (16, 4), (5, 9)] {
            for pattern in PATTERNS {
                for act in ActKind::ALL.into_iter().filter(|act| format.takes(*act)) {
                    compared += shape(kernels, (format, act), &mut noise, pattern, rows, cols, tokens)?;
                }
            }
        }
    }
    Ok(compared)
}

fn shape(
    kernels: &dyn Kernels,
    (format, act): (&'static Format, ActKind),
    noise: &mut Noise,
    pattern: Pattern,
    rows: usize,
    cols: usize,
    tokens: usize,
) -> Result<usize, Failure> {
    let ternary = format.is_ternary();
    let weights: Vec<f32> = (0..rows * cols)
        .map(|i| match pattern {
            Pattern::Noise if ternary => [-0.75, 0.0, 0.75][noise.below(3)],
            Pattern::Noise => noise.next(),
            Pattern::Full | Pattern::Opposed => 0.75,
            Pattern::Alternating => [0.75, -0.75][i % 2],
            Pattern::Zero => 0.0,
        })
        .collect();
    let inputs: Vec<f32> = (0..tokens * cols)
        .map(|i| match pattern {
            Pattern::Noise => noise.next() * 4.0,
            Pattern::Full => 3.0,
            Pattern::Opposed => -3.0,
            Pattern::Alternating => [3.0, -3.0][i % 2],
            Pattern::Zero => 0.0,
        })
        .collect();
    let data = (format.pack)(&weights, rows, cols)?;
    let matrix = Matrix::new(format, rows, cols, &data)?.with_act(act);
    let (mut prepared, mut expected) = (Activations::default(), Activations::default());
    kernels.prepare(act, &inputs, tokens, &mut prepared);
    by_name("scalar")?.prepare(act, &inputs, tokens, &mut expected);
    let context = |what: &str| format!("{what}: {} {act:?} {rows}x{cols}, {tokens} tokens, {pattern:?}", format.name);
    for token in 0..tokens {
        if !same_input(act, &prepared, &expected, token) {
            return Err(Failure::new(context("prepared activations differ from the oracle's")));
        }
    }
    let mut outputs = vec![products(kernels, &matrix, &prepared)];
    let mut oracles = vec![&expected];
    // No f32 quantises to -128 beside a larger value: only raw activations reach the end of the range.
    let raw;
    if act == ActKind::I8 && tokens == 1 {
        raw = Activations::from_i8(&vec![-128; cols], &[1.0], 1, cols)?;
        outputs.push(products(kernels, &matrix, &raw));
        oracles.push(&raw);
    }
    let mut compared = 0;
    for (output, oracle) in outputs.iter().zip(oracles) {
        for token in 0..tokens {
            for row in 0..rows {
                let (found, naive) = (output[token * rows + row], matrix.dot(row, oracle, token));
                if found.to_bits() != naive.to_bits() {
                    let place = context(&format!("row {row}, token {token}"));
                    return Err(Failure::new(format_args!("{place}: {found:e} instead of {naive:e}")));
                }
                compared += 1;
            }
        }
    }
    Ok(compared)
}

fn products(kernels: &dyn Kernels, matrix: &Matrix<'_>, input: &Activations) -> Vec<f32> {
    // NaN shows an output that nobody wrote.
    let mut output = vec![f32::NAN; input.n_tokens() * matrix.rows];
    kernels.matmul(matrix, input, 0..matrix.rows, OutView::new(&mut output, input.n_tokens(), matrix.rows));
    output
}

fn same_input(kind: ActKind, a: &Activations, b: &Activations, token: usize) -> bool {
    let same = |a: &[f32], b: &[f32]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
    match kind {
        ActKind::F32 => same(a.f32(token), b.f32(token)),
        ActKind::I8 => {
            let (a, b) = (a.i8(token), b.i8(token));
            a.q == b.q && same(&[a.scale], &[b.scale]) && a.isum == b.isum
        }
        ActKind::Q8 => {
            let (a, b) = (a.q8(token), b.q8(token));
            a.q == b.q && same(a.d, b.d) && same(a.bsum, b.bsum)
        }
    }
}
