//! The CUDA executor: a model's plan as launches on a device (a card, or the emulation of one).
//!
//! Weights are uploaded once a model and device, the KV cache and all activations live there; what comes back are the logits
//! that were asked for, or the few that a sampler looks at. The launches compute what the CPU's kernels compute, bit for bit,
//! whatever the grid ([`bitnet_kernels::cuda`]).
//!
//! A single token without an observer is a recording that is replayed. Where the device chose it itself, as the most likely one,
//! and is asked to choose again, that is one recording for all of it: the token becomes the input, the plan, the output
//! matrix, the next choice; the host reads eight bytes, and meanwhile the device goes on with its choice: if the session takes
//! another token, or none, that was for nothing.

mod fused;
mod lower;
mod pick;
mod room;
mod token;
mod uploaded;

use super::executor::Executor;
use super::{Head, InferenceError, MAX_DRAFT, Needs, Observer, Screening, StepResult};
use crate::model::Model;
use crate::ops::rope::RopeTable;
use crate::ops::{Batch, Embed, Gating, Linear, MatrixId, Op, RopeId, Slot};
use bitnet_kernels::cuda::device::{Buffer, CudaError, Device, Replay, record};
use bitnet_kernels::cuda::head::{ScreenedHead, TopK};
use bitnet_kernels::cuda::launches::{Gate, Heads, Input, Launches, Norm, Product, RopeTables, Row, Rows, Weights};
use bitnet_kernels::{ActKind, Rope};
use fused::{Before, Fused, Part, fuse};
use room::Room;
use std::sync::Arc;
use token::{Out, Token, single};
use uploaded::{Uploaded, refused};

/// Elements before the tokens in the buffer of inputs, so that these are aligned as all rows are. The first is the position.
const TOKENS: usize = 4;
/// The largest head that the attention kernels have room for.
const MAX_HEAD: usize = 512;
/// Rows that can be screened at once: a token and the longest draft.
const SCREENED_ROWS: usize = 1 + MAX_DRAFT;
/// The kernels' exact sums hold for rows below this.
const MAX_COLS: usize = 1 << 19;

/// A sequence on a device.
pub(super) struct Cuda {
    model: Arc<Model>,
    /// One token up to the output matrix.
    recorded: Option<Replay>,
    /// The chosen token becomes the input, and the next is chosen.
    going_on: Option<Replay>,
    launches: Launches,
    weights: Arc<Uploaded>,
    shape: Heads,
    cache: Vec<[Buffer; 2]>,
    ropes: Vec<RopeTables>,
    room: Option<Room>,
    /// The key of the largest logit.
    best: Buffer,
    /// Whether it holds one: it must be 0 before the whole output matrix looks for another.
    key: bool,
    history: Buffer,
    /// Launches, and those that leave every result in its slot.
    parts: [Vec<Fused>; 2],
    /// Those of a single token that nobody observes.
    token: Vec<Part>,
    /// Rows that are held before the output matrix: the first, and how many.
    held: (usize, usize),
    /// What is still to run for the held row.
    pending: Pending,
    /// The position of the device's input, if that is one token.
    single: Option<usize>,
    /// The token of the key, and the position that it would have after that input.
    chosen: Option<(u32, usize)>,
    /// Whether the device went on with that token already, up to the next choice.
    ahead: bool,
    /// How the output matrix is multiplied.
    how: Head,
    /// The copy of the output matrix, once it was tried to make one.
    screen: Option<ScreenedHead>,
    tried: bool,
    /// Whether all held rows are screened.
    screened: bool,
    top: Option<TopK>,
}

/// A single token whose logits are held waits until somebody asks for them: then it is known what runs with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// The token was sent.
    Sent,
    /// It is the one that the device chose.
    Chosen,
}

/// Tokens from `position` on; the rows from `first` on are held.
#[derive(Clone, Copy)]
struct Call<'a> {
    tokens: &'a [u32],
    position: usize,
    first: usize,
}

/// Those that [`lower`] lets through.
fn gate(gating: Gating) -> Gate {
    match gating {
        Gating::Silu => Gate::Silu,
        _ => Gate::Relu2,
    }
}

impl Cuda {
    /// An empty sequence of up to `context` tokens, `chunk` of them at once.
    pub(super) fn new(
        model: &Arc<Model>,
        device: &Arc<dyn Device>,
        context: usize,
        chunk: usize,
        how: Head,
    ) -> Result<Self, InferenceError> {
        let config = &model.config;
        let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
        let shape = Heads { heads, kv_heads, dim, capacity: context };
        fits(model, &**device)?;
        let launches = lower::lower(model).map_err(|what| refused(&**device, what))?;
        let parts = [false, true].map(|observed| fuse(launches.clone(), observed));

        let angles: usize = model.ropes.iter().map(|rope| rope.dims).sum();
        let cache = 4 * shape.cache_len() * config.block_count + 4 * context * (angles + 1);
        let present = Uploaded::find(model, device);
        let weights = if present.is_some() { 0 } else { uploaded::needed(model) };
        let bytes = (weights + cache + Room::bytes(&model.widths, shape, chunk)) as u64;
        let free = device.free_memory()?;
        if bytes > free {
            let what = format!("the model ({} MB) with a context of {context} tokens", weights.div_ceil(1_000_000));
            return Err(CudaError::Memory { device: device.name().to_owned(), what, bytes, free }.into());
        }
        let weights = match present {
            Some(weights) => weights,
            None => Uploaded::of(model, device)?,
        };
        let half = || Buffer::new::<u16>(device, shape.cache_len(), "the KV cache");
        let layers = (0..config.block_count).map(|_| Ok([half()?, half()?]));
        let ropes = model.ropes.iter().map(|spec| {
            let mut table = RopeTable::new(spec.within(context));
            table.extend_to(context);
            let (cos, sin) = table.all();
            let of = |values: &[f32]| Buffer::of(device, values, "rotary tables");
            Ok(RopeTables { cos: of(cos)?, sin: of(sin)?, dims: spec.dims })
        });
        let [plain, observed] = parts;
        Ok(Self {
            model: Arc::clone(model),
            recorded: None,
            going_on: None,
            launches: Launches::new(device),
            weights,
            shape,
            cache: layers.collect::<Result<_, CudaError>>()?,
            ropes: ropes.collect::<Result<_, CudaError>>()?,
            room: None,
            best: Buffer::of(device, &[0u64], "the best token")?,
            history: Buffer::new::<u32>(device, context, "the history of tokens")?,
            token: single(&plain, &|id| Launches::takes_row(model.weights.matrix(id).cols))
                .unwrap_or_else(|| plain.iter().map(|fused| fused.part.clone()).collect()),
            parts: [plain, observed],
            held: (0, 0),
            key: false,
            pending: Pending::Nothing,
            single: None,
            chosen: None,
            ahead: false,
            how,
            screen: None,
            tried: false,
            screened: false,
            top: None,
        })
    }

    /// The token of the key becomes the input, and the key is gone.
    fn next(&self) -> Result<(), CudaError> {
        let Some(room) = &self.room else { return Ok(()) };
        self.launches.next(&self.best, (&room.input, TOKENS), &self.history)
    }

    /// Runs what waits, up to the output matrix.
    fn catch_up(&mut self) -> Result<(), InferenceError> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => return Ok(()),
            Pending::Sent => {}
            Pending::Chosen => {
                self.chosen = None;
                if self.turn_back() {
                    return Ok(());
                }
                self.next()?;
                self.key = false;
            }
        }
        self.one_token()
    }

    /// Forgets that the device went on by itself; returns whether it had. What it wrote to the cache lies where the next token will,
    /// and the key is that of another token.
    fn turn_back(&mut self) -> bool {
        let ahead = std::mem::take(&mut self.ahead);
        self.key |= ahead;
        ahead
    }

    fn room(&mut self) -> Result<&mut Room, InferenceError> {
        self.room.as_mut().ok_or_else(no_room)
    }

    fn matrix(&self, id: MatrixId) -> Weights<'_> {
        let matrix = self.weights.matrix(id);
        Weights { buffer: &matrix.buffer, rows: matrix.rows, multiplier: matrix.multiplier }
    }

    fn product<'a>(&'a self, id: MatrixId, y: &'a Buffer) -> Product<'a> {
        Product { w: self.matrix(id), y }
    }

    fn make_room(&mut self, tokens: usize) -> Result<(), InferenceError> {
        if self.room.as_ref().is_some_and(|room| room.tokens >= tokens) {
            return Ok(());
        }
        // The old one first: there may not be memory for both.
        self.recorded = None;
        self.going_on = None;
        self.room = None;
        (self.single, self.chosen) = (None, None);
        self.turn_back();
        let device = Arc::clone(self.launches.device());
        self.room = Some(Room::new(&device, &self.model.widths, self.shape, tokens)?);
        Ok(())
    }

    /// Sends the position and the tokens.
    fn send(&mut self, call: Call<'_>) -> Result<(), InferenceError> {
        let mut input = vec![call.position as u32, 0, 0, 0];
        input.extend_from_slice(call.tokens);
        (self.single, self.chosen) = (None, None);
        self.turn_back();
        Ok(self.room()?.input.write(0, &input)?)
    }

    /// One token up to the output matrix, recorded when it is first run.
    fn one_token(&mut self) -> Result<(), InferenceError> {
        if let Some(recorded) = &self.recorded {
            return Ok(recorded.start()?);
        }
        let recorded = record(&**self.launches.device(), &mut || self.plan())?;
        recorded.start()?;
        self.recorded = Some(recorded);
        Ok(())
    }

    /// The launches of one token up to the output matrix.
    fn plan(&self) -> Result<(), CudaError> {
        self.token.iter().try_for_each(|part| self.part(part, (1, 0)))
    }

    /// A chunk up to the output matrix.
    fn body(&mut self, call: Call<'_>, mut observer: Option<&mut (dyn Observer + '_)>) -> Result<(), InferenceError> {
        let tokens = call.tokens.len();
        let parts = &self.parts[usize::from(observer.is_some())];
        let mut first = 0;
        let mut values = Vec::new();
        for Fused { part, steps } in parts {
            if *part == Part::Select {
                if call.first == tokens {
                    break;
                }
                first = call.first;
            }
            self.part(part, (tokens, first))?;
            let (Some(observer), Some(room)) = (observer.as_deref_mut(), &self.room) else { continue };
            for named in steps.iter().filter_map(|&i| self.model.plan.get(i)) {
                let Some(slot) = named.result().filter(|&slot| slot != Slot::Logits) else { continue };
                let (rows, width) = (tokens - first, self.model.widths.of(slot));
                values.resize(rows * width, 0.0);
                room.slot(slot).read(4 * first * width, &mut values)?;
                let position = call.position + first;
                observer.step(StepResult { name: &named.name, position, rows, width, values: &values });
            }
        }
        Ok(())
    }

    /// Starts a part for the rows from `first` on of `tokens`. The output matrix is left to [`Cuda::head`].
    fn part(&self, part: &Part, (tokens, first): (usize, usize)) -> Result<(), CudaError> {
        let Some(room) = &self.room else { return Ok(()) };
        let (widths, launches, rows) = (&self.model.widths, &self.launches, tokens - first);
        let of = |slot: Slot| Rows { buffer: room.slot(slot), from: first * widths.of(slot) };
        let rope = |id: RopeId| &self.ropes[id.0];
        match part {
            Part::Embed { table, dst } => {
                let table = self.weights.matrix(*table);
                let sizes = (table.rows, table.cols, table.multiplier);
                launches.embed(&table.buffer, sizes, (&room.input, TOKENS), tokens, room.slot(*dst))
            }
            Part::Norm { before, src, weight, values, int8 } => {
                let input = match before {
                    Before::Plain => Input::Plain,
                    Before::Sum(other) => Input::Sum(of(*other)),
                    Before::Gate(gating) => Input::Gate(gate(*gating), of(Slot::Up)),
                };
                let norm = Norm {
                    input,
                    x: of(*src),
                    weight: weight.map(|(id, eps)| (self.weights.vector(id), eps)),
                    values: values.map(of),
                    int8: int8.then_some(&room.int8),
                };
                launches.norm(&norm, rows, widths.of(*src))
            }
            &Part::HeadNorm { src, dst, weight, eps, width } => {
                let weight = Some((self.weights.vector(weight), eps));
                let norm = Norm { input: Input::Plain, x: of(src), weight, values: Some(of(dst)), int8: None };
                launches.norm(&norm, rows * widths.of(src) / width, width)
            }
            Part::Ternary { parts } => {
                let products: Vec<_> = parts.iter().map(|&(id, dst)| self.product(id, room.slot(dst))).collect();
                let cols = parts.first().map_or(0, |&(id, _)| self.weights.matrix(id).cols);
                launches.ternary(&products, &room.int8, rows, cols)
            }
            Part::Token(token) => self.products(token, room),
            Part::Dense { dst: Slot::Logits, .. } | Part::Select => Ok(()),
            Part::Dense { src, weight, dst } => {
                let cols = self.weights.matrix(*weight).cols;
                launches.dense(&self.product(*weight, room.slot(*dst)), of(*src), (rows, cols), None)
            }
            // What rotates and appends does each by itself if it is given no heads for the other.
            Part::Rotate(rotate) => {
                let slot = room.slot(rotate.slot);
                let shape = Heads { heads: rotate.heads, kv_heads: 0, ..self.shape };
                let at = (&room.input, tokens);
                launches.rope_append((rotate.kind, rope(rotate.rope)), [slot; 3], [slot; 2], at, shape)
            }
            Part::Append { layer } => {
                let [k, v] = [Slot::Key, Slot::Value].map(|slot| room.slot(slot));
                let none = RopeTables { cos: k.clone(), sin: k.clone(), dims: 0 };
                let shape = Heads { heads: 0, ..self.shape };
                let at = (&room.input, tokens);
                launches.rope_append((Rope::Neox, &none), [k, k, v], self.cache[*layer].each_ref(), at, shape)
            }
            Part::Cache { layer, kind, rope: id } => {
                let [q, k, v] = [Slot::Query, Slot::Key, Slot::Value].map(|slot| room.slot(slot));
                let at = (&room.input, tokens);
                launches.rope_append((*kind, rope(*id)), [q, k, v], self.cache[*layer].each_ref(), at, self.shape)
            }
            Part::Attention { layer } => {
                let at = (&room.input, tokens);
                let cache = self.cache[*layer].each_ref();
                launches.attention(room.slot(Slot::Query), cache, at, self.shape, &room.attention)
            }
            Part::Add { src } => launches.add(of(Slot::Residual), of(*src), rows * widths.of(*src)),
            Part::Gate(gating) => {
                let n = rows * widths.of(Slot::Gate);
                launches.gate(gate(*gating), room.slot(Slot::Gate), room.slot(Slot::Up), n)
            }
        }
    }
}

impl Cuda {
    /// Starts the products of a single token.
    fn products(&self, Token { src, weight, out }: &Token, room: &Room) -> Result<(), CudaError> {
        let (widths, launches) = (&self.model.widths, &self.launches);
        let row = Row {
            x: room.slot(*src),
            cols: widths.of(*src),
            weight: weight.map(|(id, eps)| (self.weights.vector(id), eps)),
        };
        match out {
            Out::Store(parts) => {
                let parts: Vec<_> = parts.iter().map(|&(id, dst)| self.product(id, room.slot(dst))).collect();
                launches.token_store(&row, &parts)
            }
            Out::Sum(id) => launches.token_add(&row, self.product(*id, room.slot(Slot::Residual))),
            Out::Gate { kind, gate: of_gate, up } => {
                let product = self.product(*of_gate, room.slot(Slot::Gate));
                launches.token_gate(&row, gate(*kind), product, self.matrix(*up))
            }
            Out::Cache { layer, kind, rope, of } => {
                let of = of.map(|id| self.matrix(id));
                let (q, cache) = (room.slot(Slot::Query), self.cache[*layer].each_ref());
                let turn = (*kind, &self.ropes[rope.0]);
                launches.token_rope(&row, of, turn, q, (cache, &room.input), self.shape)
            }
        }
    }
}

/// Rooms are made before they are used.
fn no_room() -> InferenceError {
    InferenceError::Option { what: "the logits of a row that is not held" }
}

/// Whether the kernels can compute a model.
fn fits(model: &Model, device: &dyn Device) -> Result<(), InferenceError> {
    let config = &model.config;
    if !config.head_dim.is_multiple_of(8) || config.head_dim > MAX_HEAD {
        let what =
            format!("heads of {} dimensions: the CUDA kernels take multiples of 8 up to {MAX_HEAD}", config.head_dim);
        return Err(refused(device, what));
    }
    for (name, matrix) in model.weights.matrices() {
        let unit = if matrix.act == ActKind::I8 { 128 } else { 8 };
        if !matrix.cols.is_multiple_of(unit) || matrix.cols >= MAX_COLS {
            let what =
                format!("the matrix {name} has {} columns: the CUDA kernels take multiples of {unit}", matrix.cols);
            return Err(refused(device, what));
        }
    }
    for step in &model.plan {
        let (id, what) = match step.op {
            Op::Embed(Embed { table, .. }) => (table, "embedding"),
            Op::Linear(Linear { dst: Slot::Logits, weight, .. }) => (weight, "output matrix"),
            _ => continue,
        };
        if model.weights.matrix(id).act == ActKind::I8 {
            return Err(refused(device, format!("a ternary {what}: the CUDA kernels take an f16 one")));
        }
    }
    Ok(())
}

impl Executor for Cuda {
    fn run(&mut self, batch: &Batch<'_>, observer: Option<&mut (dyn Observer + '_)>) -> Result<(), InferenceError> {
        let &[span] = batch.spans else {
            let what = "several sequences in one step have no CUDA kernels".to_owned();
            return Err(refused(&**self.launches.device(), what));
        };
        self.catch_up()?;
        let tokens = batch.tokens.len();
        self.make_room(tokens)?;
        let call = Call { tokens: batch.tokens, position: span.position, first: tokens - span.wanted };
        self.held = (call.first, span.wanted);
        self.screened = false;
        if let ([token], 1, None) = (call.tokens, span.wanted, &observer) {
            self.pending = if self.chosen == Some((*token, call.position)) {
                Pending::Chosen
            } else {
                self.send(call)?;
                Pending::Sent
            };
            self.single = Some(call.position);
            return Ok(());
        }
        self.send(call)?;
        if tokens == 1 && observer.is_none() { self.one_token() } else { self.body(call, observer) }
    }

    fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.all(out)
    }

    fn choose(&mut self, row: usize, needs: &Needs, out: &mut Vec<f32>) -> Result<bool, InferenceError> {
        let Some(picked) = self.pick(row, needs)? else { return Ok(false) };
        out.clear();
        // Without a number among them nobody can draw.
        let rest = if picked.sound { f32::NEG_INFINITY } else { f32::NAN };
        out.resize(self.model.config.vocab_size, rest);
        for (token, logit) in picked.pairs {
            if let Some(to) = out.get_mut(token as usize) {
                *to = logit;
            }
        }
        Ok(true)
    }

    fn hidden(&mut self, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.catch_up()?;
        let Some(&Linear { src, .. }) = self.model.output() else { return Ok(()) };
        let ((first, rows), width) = (self.held, self.model.widths.of(src));
        out.resize(rows * width, 0.0);
        Ok(self.room()?.slot(src).read(4 * first * width, out)?)
    }

    fn hold_last(&mut self) {
        let (first, rows) = self.held;
        self.held = (first + rows.saturating_sub(1), rows.min(1));
    }

    fn screening(&self) -> Screening {
        self.screened_so_far()
    }
}
