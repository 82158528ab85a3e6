//! The launches of a token and of a prompt, one by one. A new launch is one more [`Case`] in [`token`] or [`prompt`].

use crate::{Card, Case, Work};
use bitnet_golden::matrix::Shape;
use bitnet_harness::Failure;
use bitnet_harness::bench::inputs;
use bitnet_kernels::Rope;
use bitnet_kernels::cuda::device::{Buffer, CudaError};
use bitnet_kernels::cuda::head::{Output, ScreenedHead};
use bitnet_kernels::cuda::launches::{
    AttentionScratch, Gate, Input, Int8, Launches, Norm, Product, RopeTables, Row, Weights,
};
use bitnet_kernels::numerics::f32_to_f16;
use bitnet_kernels::quant::i2_s;
use criterion::Throughput;

const EPS: f32 = 1e-5;

fn elements(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}

fn bytes(n: usize) -> Throughput {
    Throughput::Bytes(n as u64)
}

/// Launches of `start`, which get one of so many copies of something.
fn launches<T: 'static>(
    copies: Vec<T>,
    start: impl Fn(&T) -> Result<(), CudaError> + 'static,
) -> Result<Work, Failure> {
    Ok(Work { copies: copies.len(), recorded: true, start: Box::new(move |i| start(&copies[i])) })
}

/// What memory allows.
pub(crate) fn copies(card: &Card) -> Vec<Case> {
    let n = if card.emulated { 1 << 20 } else { 1 << 30 };
    let make = move |card: &Card| {
        let from = Buffer::new::<u8>(&card.device, n, "a copy")?;
        let to = Buffer::new::<u8>(&card.device, n, "a copy")?;
        Ok(Work { copies: 1, recorded: false, start: Box::new(move |_| to.copy_of(&from)) })
    };
    vec![Case::new(n.to_string(), bytes(2 * n), make)]
}

/// Matrices whose products a layer has at once.
#[derive(Clone)]
struct Group {
    name: String,
    rows: Vec<usize>,
    cols: usize,
}

impl Group {
    fn new(name: &str, rows: &[usize], cols: usize) -> Self {
        Self { name: format!("{name}-{}x{cols}", rows.iter().sum::<usize>()), rows: rows.to_vec(), cols }
    }

    fn weights(&self) -> usize {
        self.rows.iter().sum::<usize>() * self.cols
    }

    /// On the card, with copies.
    fn copies(&self, card: &Card) -> Result<Vec<Vec<Buffer>>, Failure> {
        let all = card.copies(self.weights() / 4);
        // By matrix, then by copy.
        let mut matrices = Vec::new();
        for &rows in &self.rows {
            let weights = inputs::ternary(&i2_s::FORMAT, (rows, self.cols))?;
            matrices.push(card.copied(Buffer::of(&card.device, &weights, "weights")?, all)?);
        }
        Ok((0..all).map(|i| matrices.iter().map(|copies| copies[i].clone()).collect()).collect())
    }

    /// A product of one token, with its norm before it and what `start` has behind it.
    fn of_token<S>(self, behind: impl Fn(&Card) -> Result<S, Failure> + 'static) -> Case
    where
        S: Fn(&Launches, &Row<'_>, &[Weights<'_>]) -> Result<(), CudaError> + 'static,
    {
        Case::new(self.name.clone(), bytes(self.weights() / 4), move |card| {
            let (x, weight) = (card.values(self.cols)?, card.values(self.cols)?);
            let (group, starts, start) = (self.clone(), card.launches.clone(), behind(card)?);
            launches(self.copies(card)?, move |buffers: &Vec<Buffer>| {
                let row = Row { x: &x, cols: group.cols, weight: Some((&weight, EPS)) };
                start(&starts, &row, &group.on(buffers))
            })
        })
    }

    fn on<'a>(&self, buffers: &'a [Buffer]) -> Vec<Weights<'a>> {
        buffers.iter().zip(&self.rows).map(|(buffer, &rows)| Weights { buffer, rows, multiplier: 1.0 }).collect()
    }

    /// Products of a prompt.
    fn of_prompt(self, tokens: usize) -> Case {
        Case::new(self.name.clone(), elements(self.weights() * tokens), move |card| {
            let results = self.rows.iter().map(|rows| card.room(tokens * rows)).collect::<Result<Vec<_>, _>>()?;
            let (x, group, starts) = (int8(card, tokens, self.cols)?, self.clone(), card.launches.clone());
            launches(self.copies(card)?, move |buffers: &Vec<Buffer>| {
                let products = group.on(buffers).into_iter().zip(&results);
                let parts: Vec<_> = products.map(|(w, y)| Product { w, y }).collect();
                starts.ternary(&parts, &x, tokens, group.cols)
            })
        })
    }
}

/// Of a layer: q k v; o; gate up; down.
fn groups(card: &Card) -> [Group; 4] {
    let (Shape { hidden, ffn, .. }, heads) = (card.shape, card.heads());
    let kv = heads.kv_heads * heads.dim;
    [
        Group::new("qkv", &[hidden, kv, kv], hidden),
        Group::new("o", &[hidden], hidden),
        Group::new("gate-up", &[ffn, ffn], hidden),
        Group::new("down", &[hidden], ffn),
    ]
}

/// The four products of a layer for one token: with the rotation and the cache's new position, the sum, the gate, the sum.
fn products(card: &Card) -> Vec<Case> {
    let (heads, Shape { hidden, ffn, .. }) = (card.heads(), card.shape);
    let [qkv, o, gate_up, down] = groups(card);
    let sum = move |card: &Card| {
        let y = card.values(hidden)?;
        Ok(move |starts: &Launches, row: &Row<'_>, w: &[Weights<'_>]| {
            w.iter().try_for_each(|&w| starts.token_add(row, Product { w, y: &y }))
        })
    };
    let rotated = move |card: &Card| {
        let (rope, q, at) = (rotation(card)?, card.room(hidden)?, position(card, 0)?);
        let [keys, values] = cache(card)?;
        Ok(move |starts: &Launches, row: &Row<'_>, w: &[Weights<'_>]| {
            let &[of_q, of_k, of_v] = w else { return Ok(()) };
            starts.token_rope(row, [of_q, of_k, of_v], (Rope::Neox, &rope), &q, ([&keys, &values], &at), heads)
        })
    };
    let gated = move |card: &Card| {
        let y = card.room(ffn)?;
        Ok(move |starts: &Launches, row: &Row<'_>, w: &[Weights<'_>]| {
            let &[gate, up] = w else { return Ok(()) };
            starts.token_gate(row, Gate::Relu2, Product { w: gate, y: &y }, up)
        })
    };
    vec![qkv.of_token(rotated), o.of_token(sum), gate_up.of_token(gated), down.of_token(sum)]
}

/// Rows as the products take them.
fn int8(card: &Card, tokens: usize, cols: usize) -> Result<Int8, Failure> {
    let x = card.values(tokens * cols)?;
    let int8 = Int8::new(&card.device, tokens, cols)?;
    let norm = Norm { input: Input::Plain, x: (&x).into(), weight: None, values: None, int8: Some(&int8) };
    card.launches.norm(&norm, tokens, cols)?;
    Ok(int8)
}

/// A norm with what is before it, to int8.
fn norm(name: &str, gated: bool, tokens: usize, cols: usize) -> Case {
    Case::new(format!("{name}-{cols}"), elements(tokens * cols), move |card| {
        let (x, y) = (card.values(tokens * cols)?, card.values(tokens * cols)?);
        let (weight, starts) = (card.values(cols)?, card.launches.clone());
        let int8 = Int8::new(&card.device, tokens, cols)?;
        launches(vec![()], move |()| {
            let other = (&y).into();
            let input = if gated { Input::Gate(Gate::Relu2, other) } else { Input::Sum(other) };
            let norm = Norm { input, x: (&x).into(), weight: Some((&weight, EPS)), values: None, int8: Some(&int8) };
            starts.norm(&norm, tokens, cols)
        })
    })
}

/// The cache of a layer, keys and values.
fn cache(card: &Card) -> Result<[Buffer; 2], Failure> {
    let halves: Vec<u16> = inputs::values(card.heads().cache_len()).into_iter().map(f32_to_f16).collect();
    let of = || Buffer::of(&card.device, &halves, "the KV cache");
    Ok([of()?, of()?])
}

/// Of so many layers.
fn caches(card: &Card, copies: usize) -> Result<Vec<[Buffer; 2]>, Failure> {
    let [keys, values] = cache(card)?;
    let all = card.copied(keys, copies)?.into_iter().zip(card.copied(values, copies)?);
    Ok(all.map(|(keys, values)| [keys, values]).collect())
}

/// One rotation, the same everywhere: however often a row is turned, its length stays.
fn rotation(card: &Card) -> Result<RopeTables, Failure> {
    let shape = card.heads();
    let of = |value: f32| Buffer::of(&card.device, &vec![value; shape.capacity * shape.dim / 2], "rotary tables");
    Ok(RopeTables { cos: of(0.6)?, sin: of(0.8)?, dims: shape.dim })
}

/// Queries (or what comes of them), keys, values of so many tokens.
fn qkv(card: &Card, tokens: usize) -> Result<[Buffer; 3], Failure> {
    let shape = card.heads();
    let kv = tokens * shape.kv_heads * shape.dim;
    Ok([card.values(tokens * shape.heads * shape.dim)?, card.values(kv)?, card.values(kv)?])
}

fn position(card: &Card, position: usize) -> Result<Buffer, Failure> {
    Ok(Buffer::of(&card.device, &[u32::try_from(position)?, 0, 0, 0, 1], "a position")?)
}

fn rope(card: &Card, tokens: usize) -> Case {
    let shape = card.heads();
    let n = tokens * (shape.heads + 2 * shape.kv_heads) * shape.dim;
    Case::new("rope-append", elements(n), move |card| {
        let tables = rotation(card)?;
        let (rows, at, starts) = (qkv(card, tokens)?, position(card, 0)?, card.launches.clone());
        launches(vec![cache(card)?], move |cache: &[Buffer; 2]| {
            starts.rope_append((Rope::Neox, &tables), rows.each_ref(), cache.each_ref(), (&at, tokens), shape)
        })
    })
}

/// Attention of the last `tokens` of `context`.
fn attention(card: &Card, name: String, throughput: Throughput, (context, tokens): (usize, usize)) -> Case {
    let shape = card.heads();
    Case::new(name, throughput, move |card| {
        let copies = card.copies(4 * shape.kv_heads * context * shape.dim);
        let ([q, ..], at) = (qkv(card, tokens)?, position(card, context - tokens)?);
        let (scratch, starts) = (AttentionScratch::new(&card.device, shape, tokens)?, card.launches.clone());
        launches(caches(card, copies)?, move |cache: &[Buffer; 2]| {
            starts.attention(&q, cache.each_ref(), (&at, tokens), shape, &scratch)
        })
    })
}

fn embed(card: &Card, tokens: usize) -> Case {
    let Shape { vocab, hidden, .. } = card.shape;
    Case::new("embed", elements(tokens * hidden), move |card| {
        let ids = Buffer::of(&card.device, &inputs::ids(vocab, tokens), "tokens")?;
        let (x, starts) = (card.room(tokens * hidden)?, card.launches.clone());
        launches(vec![card.output()?], move |table: &Buffer| {
            starts.embed(table, (vocab, hidden, 1.0), (&ids, 0), tokens, &x)
        })
    })
}

/// The best token by the whole output matrix.
fn head_whole(card: &Card) -> Case {
    let Shape { vocab, hidden, .. } = card.shape;
    Case::new("head-whole", bytes(2 * vocab * hidden), move |card| {
        let (x, y, starts) = (card.values(hidden)?, card.room(vocab)?, card.launches.clone());
        let best = Buffer::of(&card.device, &[0u64], "the best token")?;
        launches(vec![card.output()?], move |buffer: &Buffer| {
            let part = Product { w: Weights { buffer, rows: vocab, multiplier: 1.0 }, y: &y };
            starts.dense(&part, (&x).into(), (1, hidden), Some(&best))
        })
    })
}

/// The best token by the int8 copy, and the few rows that it leaves.
fn head_screened(card: &Card) -> Case {
    let Shape { vocab, hidden, .. } = card.shape;
    Case::new("head-screened", bytes(vocab * hidden), move |card| {
        let (w, x) = (card.output()?, card.values(hidden)?);
        let output = Output { w: &w, rows: vocab, cols: hidden, multiplier: 1.0 };
        let screen = ScreenedHead::build(&card.device, output, 1)?;
        let screen = screen.ok_or_else(|| Failure::new("the output matrix is not screened"))?;
        let best = Buffer::of(&card.device, &[0u64], "the best token")?;
        launches(vec![w], move |w: &Buffer| screen.greedy(w, (&x, 0), 1, &best))
    })
}

/// The choice becomes the input.
fn next() -> Case {
    Case::new("next", elements(1), |card| {
        let (input, starts) = (position(card, 0)?, card.launches.clone());
        let history = Buffer::new::<u32>(&card.device, card.heads().capacity, "the history of tokens")?;
        let best = Buffer::of(&card.device, &[0u64], "the best token")?;
        launches(vec![()], move |()| starts.next(&best, (&input, 4), &history))
    })
}

/// The last norm of a token.
fn last_norm(card: &Card) -> Case {
    let cols = card.shape.hidden;
    Case::new(format!("norm-{cols}"), elements(cols), move |card| {
        let (x, y, weight, starts) = (card.values(cols)?, card.room(cols)?, card.values(cols)?, card.launches.clone());
        launches(vec![()], move |()| {
            let (x, values, weight) = ((&x).into(), Some((&y).into()), Some((&weight, EPS)));
            starts.norm(&Norm { input: Input::Plain, x, weight, values, int8: None }, 1, cols)
        })
    })
}

/// Everything of one token.
pub(crate) fn token(card: &Card) -> Vec<Case> {
    let shape = card.heads();
    let mut cases = vec![embed(card, 1)];
    cases.extend(products(card));
    cases.extend(card.contexts.map(|context| {
        let read = bytes(4 * shape.kv_heads * context * shape.dim);
        attention(card, format!("attention-{context}"), read, (context, 1))
    }));
    cases.extend([last_norm(card), head_whole(card), head_screened(card), next()]);
    cases
}

/// Everything of a prompt but its head, which is a token's.
pub(crate) fn prompt(card: &Card) -> Vec<Case> {
    let (Shape { hidden, ffn, .. }, shape, tokens) = (card.shape, card.heads(), card.prompt);
    let mut cases =
        vec![embed(card, tokens), norm("norm-sum", false, tokens, hidden), norm("norm-gate", true, tokens, ffn)];
    cases.extend(groups(card).map(|group| group.of_prompt(tokens)));
    cases.push(rope(card, tokens));
    // Each token with itself and all before it, once by its keys and once by its values.
    let products = elements(shape.heads * shape.dim * tokens * (tokens + 1));
    cases.push(attention(card, format!("attention-{tokens}"), products, (tokens, tokens)));
    cases
}
