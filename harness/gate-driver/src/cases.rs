//! What is measured: one call of a kernel, on fixed input, on one thread.
//!
//! The table of formats and the trait [`Kernels`] make the list, so that a new format or kernel set has its cases at once (and
//! turns the gate red until their figures are blessed). Shapes are small: the whole list is counted for two kernel sets in
//! some seconds. Input is seeded, and what a call allocates is allocated before. Encoding is not here: hashes are seeded
//! anew in each process, and its counts differ by a percent from run to run.
//!
//! A case is made once and run by either set of a pair, so that both read and write the same memory. All of it begins at cache lines, as
//! the engine's activations, scores and caches do: elsewhere every load of 64 bytes lies in two lines, and where an allocator puts a
//! buffer would be measured.

use crate::random::Random;
use anyhow::Context;
use bitnet_kernels::cpu::scalar::Scalar;
use bitnet_kernels::lines::{Lines, Plain};
use bitnet_kernels::quant::{FORMATS, TILED};
use bitnet_kernels::screen::{Scratch, Screen, Wanted};
use bitnet_kernels::{ActKind, Activations, Format, Kernels, Matrix, OutView, Pool, Rope};
use std::hint::black_box;

/// Outputs of a product.
const ROWS: usize = 64;
/// Inputs: a multiple of every format's block, and of no power of two above 256.
const COLS: usize = 768;
/// Tokens of a GEMM: more than one, and few enough for the kernels that read weights as they lie.
const TOKENS: usize = 8;
/// Rows and tokens of a prompt: as many as the kernels want that unpack weights first, with tokens left over.
const PROMPT_ROWS: usize = 32;
const PROMPT: usize = 30;
/// Elements of a head, heads that share their keys and values, and positions in the cache.
const HEAD: usize = 128;
const HEADS: usize = 4;
const POSITIONS: usize = 192;
/// Rows and columns of the output matrix that is screened.
const HEAD_ROWS: usize = 512;
const HEAD_COLS: usize = 256;

type Set = &'static dyn Kernels;
type Work = Box<dyn FnMut(Set)>;

/// A piece of work that can be repeated.
pub struct Case {
    /// Its name, unique within a kernel set.
    pub name: String,
    work: Work,
}

impl Case {
    /// Has a set do the work so many times.
    pub fn call(&mut self, set: Set, times: u32) {
        for _ in 0..times {
            (self.work)(set);
        }
    }
}

/// The cases that are wanted, one after the other. Input is made for no others: under valgrind that takes longer than the cases.
struct List<'a> {
    wants: &'a dyn Fn(&str) -> bool,
    each: &'a mut dyn FnMut(Case) -> anyhow::Result<()>,
}

impl List<'_> {
    fn add<W: FnMut(Set) + 'static>(
        &mut self,
        name: impl Into<String>,
        make: impl FnOnce() -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        let name = name.into();
        if !(self.wants)(&name) {
            return Ok(());
        }
        let work = make().with_context(|| format!("cannot set up the case {name}"))?;
        (self.each)(Case { name, work: Box::new(work) })
    }
}

/// Sets with code of their own for heads that share keys and values. One head alone is the plainer set's there; in all others several heads
/// are one head several times.
const TOGETHER: [&str; 1] = ["avx512"];

/// The cases of the kernel set of this name that `wants` wants by their names, each for `each`. Input is prepared by `k`, the set or a
/// plainer one.
pub fn of_set(
    (set, k): (&str, Set),
    wants: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(Case) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut list = List { wants, each };
    for format in FORMATS {
        let name = format.name;
        // `gemv/f16` is a model's output matrix, the head.
        list.add(format!("gemv/{name}"), || product(k, format, |_| 0.5, (ROWS, 1)))?;
        list.add(format!("gemm/{name}"), || product(k, format, |_| 0.5, (ROWS, TOKENS)))?;
        // The plain set has one way for any number of tokens.
        if k.name() != Scalar.name() {
            list.add(format!("prompt/{name}"), || product(k, format, |_| 0.5, (PROMPT_ROWS, PROMPT)))?;
        }
        // Scales that differ from block to block, or row to row, are another way through the kernels.
        if format.is_ternary() && format.trailer_bytes == 0 {
            let scale = |block: usize| [0.5, 0.25, 1.0][block % 3];
            list.add(format!("gemv/{name}-scales"), || product(k, format, scale, (ROWS, 1)))?;
        }
    }
    for (name, kind) in [("int8-token", ActKind::I8), ("int8-block", ActKind::Q8)] {
        list.add(name, || {
            let (x, mut out) = (lines(&Random::new(3).floats(COLS)), Activations::default());
            Ok(move |k: Set| k.prepare(kind, black_box(&x), 1, &mut out))
        })?;
    }
    rows(&mut list)?;
    match TOGETHER.contains(&set) {
        false => list.add("attention", || Ok(attention(k, 1)))?,
        true => list.add("attention-group", || Ok(attention(k, HEADS)))?,
    }
    list.add("head-screened", || screened(k))
}

/// What no kernel set computes: unpacking at load.
pub fn of_none(wants: &dyn Fn(&str) -> bool, each: &mut dyn FnMut(Case) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut list = List { wants, each };
    for tiled in TILED {
        list.add(format!("unpack/{}", tiled.name), || {
            let weights = Random::new(5).ternary(ROWS * COLS, ROWS * COLS, |_| 0.5);
            let bytes = (tiled.pack)(&weights, ROWS, COLS)?;
            (tiled.unpack)(&bytes, ROWS, COLS)?;
            Ok(move |_: Set| {
                // An error was seen above, if there is one.
                let _ = black_box((tiled.unpack)(black_box(&bytes), ROWS, COLS));
            })
        })?;
    }
    Ok(())
}

/// A copy that begins at a cache line.
fn lines<T: Plain>(numbers: &[T]) -> Lines<T> {
    numbers.into()
}

fn weights(format: &Format, scale: impl Fn(usize) -> f32, rows: usize) -> Vec<f32> {
    let r = &mut Random::new(1);
    // Weights that have one scale.
    let together = if format.row_head == 0 { format.block_len } else { COLS };
    if format.is_ternary() { r.ternary(rows * COLS, together, scale) } else { r.floats(rows * COLS) }
}

/// One token is a GEMV, several are a GEMM.
fn product(
    k: Set,
    format: &'static Format,
    scale: impl Fn(usize) -> f32,
    (rows, tokens): (usize, usize),
) -> anyhow::Result<impl FnMut(Set) + 'static> {
    let bytes = lines(&(format.pack)(&weights(format, scale, rows), rows, COLS)?);
    Matrix::new(format, rows, COLS, &bytes)?;
    let (mut x, mut y) = (Activations::default(), lines(&vec![0.0; tokens * rows]));
    k.prepare(format.act, &Random::new(2).floats(tokens * COLS), tokens, &mut x);
    Ok(move |k: Set| {
        let w = Matrix { format, rows, cols: COLS, data: black_box(&bytes), multiplier: 1.0, act: format.act };
        k.matmul(&w, black_box(&x), 0..rows, OutView::new(&mut y, tokens, rows));
        black_box(&y);
    })
}

/// What works on one row. In place, the values must not run away from call to call: gates begin from a copy.
fn rows(list: &mut List<'_>) -> anyhow::Result<()> {
    let r = &mut Random::new(4);
    let (x, w) = (lines(&r.floats(COLS)), lines(&r.floats(COLS)));
    list.add("rms-norm", || {
        let (x, w, mut y) = (x.clone(), w.clone(), x.clone());
        Ok(move |k: Set| {
            k.rms_norm(black_box(&x), &w, 1e-5, &mut y);
            black_box(&y);
        })
    })?;
    for (name, kind) in [("rope/neox", Rope::Neox), ("rope/norm", Rope::Norm)] {
        list.add(name, || {
            // A rotation keeps the length of what it turns.
            let (mut head, cos, sin) = (lines(&x[..HEAD]), lines(&[0.6; HEAD / 2]), lines(&[0.8; HEAD / 2]));
            Ok(move |k: Set| {
                k.rope(kind, &mut head, black_box(&cos), &sin);
                black_box(&head);
            })
        })?;
    }
    type Gate = fn(&dyn Kernels, &mut [f32], &[f32]);
    let gates: [(&str, Gate); 2] =
        [("gate/relu2", |k, gate, up| k.relu2_gate(gate, up)), ("gate/silu", |k, gate, up| k.silu_gate(gate, up))];
    for (name, gate) in gates {
        list.add(name, || {
            let (x, up, mut y) = (x.clone(), w.clone(), x.clone());
            Ok(move |k: Set| {
                y.copy_from_slice(&x);
                gate(k, black_box(&mut y), &up);
                black_box(&y);
            })
        })?;
    }
    list.add("add", || {
        let (more, mut y) = (w.clone(), lines(&[0.0; COLS]));
        Ok(move |k: Set| {
            k.add(&mut y, black_box(&more));
            black_box(&y);
        })
    })?;
    list.add("to-f16", || {
        let (x, mut halves) = (x.clone(), lines(&[0u16; COLS]));
        Ok(move |k: Set| {
            k.f32_to_f16(black_box(&x), &mut halves);
            black_box(&halves);
        })
    })
}

/// `heads` that share their keys and values.
fn attention(k: Set, heads: usize) -> impl FnMut(Set) + 'static {
    let r = &mut Random::new(6);
    let q = lines(&r.floats(heads * HEAD));
    let mut half = || {
        let mut out = vec![0; POSITIONS * HEAD];
        k.f32_to_f16(&r.floats(POSITIONS * HEAD), &mut out);
        lines(&out)
    };
    let (keys, values) = (half(), half());
    let (mut scratch, mut out) = (lines(&vec![0.0; heads * POSITIONS]), lines(&vec![0.0; heads * HEAD]));
    move |k| {
        let (q, scratch) = (black_box(&q), &mut scratch);
        match heads {
            1 => k.attention(q, &keys, &values, HEAD, POSITIONS, 0.088, scratch, &mut out),
            _ => k.attention_group(q, HEAD, &keys, &values, HEAD, POSITIONS, 0.088, scratch, &mut out),
        }
        black_box(&out);
    }
}

/// The largest product of an f16 matrix, by its int8 copy.
fn screened(k: Set) -> anyhow::Result<impl FnMut(Set) + 'static> {
    let format = &bitnet_kernels::quant::f16::FORMAT;
    let pool = Pool::new(1).context("no thread pool")?;
    let bytes = lines(&(format.pack)(&Random::new(7).floats(HEAD_ROWS * HEAD_COLS), HEAD_ROWS, HEAD_COLS)?);
    let screen = Screen::new(&Matrix::new(format, HEAD_ROWS, HEAD_COLS, &bytes)?, (k, &pool));
    let screen = screen.context("the matrix cannot be screened")?;
    let (mut x, mut y, mut scratch) = (Activations::default(), lines(&[0.0; HEAD_ROWS]), Scratch::default());
    k.prepare(format.act, &Random::new(8).floats(HEAD_COLS), 1, &mut x);
    Ok(move |k: Set| {
        let w = Matrix { format, rows: HEAD_ROWS, cols: HEAD_COLS, data: &bytes, multiplier: 1.0, act: format.act };
        let wanted = Wanted { count: 1, within: 0.0, also: &[] };
        black_box(screen.top((k, &pool), &w, black_box(&x), wanted, &mut scratch, &mut y));
    })
}
