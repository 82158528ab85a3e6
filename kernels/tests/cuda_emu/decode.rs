//! A whole model: a prompt in one go, then tokens by a sequence of launches that never changes, as a graph replays it. The
//! logits are those of the oracle, bit for bit, and so are the tokens.

use bitnet_kernels::cuda::emu::{Arg, Buffer};
use bitnet_kernels::numerics::PV_CHUNK;
use bitnet_kernels::quant::{f16, i2_s};
use bitnet_kernels::{ActKind, Matrix, Rope, rope_table};

use super::common::{Fill, Random, assert_bits, matmul, matrix, prepared};
use super::{How, of, room, scalar};

const DIM: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HIDDEN: usize = HEADS * DIM;
const FFN: usize = 384;
const VOCAB: usize = 75;
const LAYERS: usize = 2;
/// The prompt ends just before a chunk of positions does, so that decoding begins another.
const PROMPT: usize = 126;
const CAPACITY: usize = 200;
const EPS: f32 = 1e-5;

struct Layer {
    /// q, k, v, o, gate, up, down: bytes, rows, columns.
    matrices: [(Vec<u8>, usize, usize); 7],
    /// Before attention, after it, before the gate, after it.
    norms: [Vec<f32>; 4],
}

struct Model {
    embedding: Vec<u8>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Model {
    fn new(r: &mut Random) -> Self {
        let kv = KV_HEADS * DIM;
        let shapes = [
            (HIDDEN, HIDDEN),
            (kv, HIDDEN),
            (kv, HIDDEN),
            (HIDDEN, HIDDEN),
            (FFN, HIDDEN),
            (FFN, HIDDEN),
            (HIDDEN, FFN),
        ];
        let mut layer = |_| Layer {
            matrices: shapes.map(|(rows, cols)| (matrix(&i2_s::FORMAT, rows, cols, Fill::Packed, &mut *r), rows, cols)),
            norms: [HIDDEN, HIDDEN, HIDDEN, FFN].map(|n| r.floats(n, 1.0)),
        };
        let layers = (0..LAYERS).map(&mut layer).collect();
        let (mut cos, mut sin) = (vec![0.0; CAPACITY * DIM / 2], vec![0.0; CAPACITY * DIM / 2]);
        for (at, (cos, sin)) in cos.chunks_mut(DIM / 2).zip(sin.chunks_mut(DIM / 2)).enumerate() {
            rope_table(DIM, 1e4, None, at, cos, sin);
        }
        let embedding = matrix(&f16::FORMAT, VOCAB, HIDDEN, Fill::Packed, r);
        Self { embedding, layers, norm: r.floats(HIDDEN, 1.0), cos, sin }
    }
}

/// The oracle: one token after the other.
struct Host<'a> {
    model: &'a Model,
    /// Keys and values of each layer, `[kv_heads][CAPACITY][DIM]`.
    cache: Vec<[Vec<u16>; 2]>,
    position: usize,
}

impl Host<'_> {
    fn token(&mut self, token: u32) -> Vec<f32> {
        let k = scalar();
        let at = self.position;
        let table = Matrix::new(&f16::FORMAT, VOCAB, HIDDEN, &self.model.embedding).unwrap();
        let mut x = vec![0.0; HIDDEN];
        table.unpack_row(token as usize, &mut x);
        let norm = |x: &[f32], w: &[f32]| {
            let mut y = vec![0.0; x.len()];
            k.rms_norm(x, w, EPS, &mut y);
            y
        };
        for (layer, cache) in self.model.layers.iter().zip(&mut self.cache) {
            let linear = |i: usize, x: &[f32]| {
                let (bytes, rows, cols) = &layer.matrices[i];
                let prepared = prepared(k, ActKind::I8, x, 1);
                matmul(k, &Matrix::new(&i2_s::FORMAT, *rows, *cols, bytes).unwrap(), &prepared)
            };
            let h = norm(&x, &layer.norms[0]);
            let [mut q, mut key, value] = [0, 1, 2].map(|i| linear(i, &h));
            let turn = at * DIM / 2..(at + 1) * DIM / 2;
            for head in q.chunks_mut(DIM).chain(key.chunks_mut(DIM)) {
                k.rope(Rope::Neox, head, &self.model.cos[turn.clone()], &self.model.sin[turn.clone()]);
            }
            for (new, cache) in [key, value].iter().zip(cache.iter_mut()) {
                for (head, new) in new.chunks(DIM).enumerate() {
                    let to = (head * CAPACITY + at) * DIM;
                    k.f32_to_f16(new, &mut cache[to..to + DIM]);
                }
            }
            let mut mixed = vec![0.0; HIDDEN];
            let mut scratch = vec![0.0; CAPACITY];
            for (head, out) in mixed.chunks_mut(DIM).enumerate() {
                let of = head / (HEADS / KV_HEADS) * CAPACITY * DIM;
                let (keys, values) = (&cache[0][of..], &cache[1][of..]);
                let q = &q[head * DIM..(head + 1) * DIM];
                k.attention(q, keys, values, DIM, at + 1, 1.0 / (DIM as f32).sqrt(), &mut scratch, out);
            }
            k.add(&mut x, &linear(3, &norm(&mixed, &layer.norms[1])));
            let h = norm(&x, &layer.norms[2]);
            let (mut gate, up) = (linear(4, &h), linear(5, &h));
            k.relu2_gate(&mut gate, &up);
            k.add(&mut x, &linear(6, &norm(&gate, &layer.norms[3])));
        }
        self.position += 1;
        let prepared = prepared(k, ActKind::F32, &norm(&x, &self.model.norm), 1);
        matmul(k, &table, &prepared)
    }
}

struct DeviceLayer {
    matrices: Vec<Buffer>,
    norms: Vec<Buffer>,
    cache: [Buffer; 2],
}

/// Everything on the device; the host writes nothing between tokens.
struct Device {
    layers: Vec<DeviceLayer>,
    embedding: Buffer,
    norm: Buffer,
    rope: [Buffer; 2],
    token: Buffer,
    position: Buffer,
    history: Buffer,
    best: Buffer,
    logits: Buffer,
    x: Buffer,
    hidden: Buffer,
    q8: Buffer,
    scale: Buffer,
    isum: Buffer,
    qkv: [Buffer; 3],
    gate: Buffer,
    up: Buffer,
    scores: Buffer,
    maxima: Buffer,
    partial: Buffer,
    done: Buffer,
}

fn number(n: usize) -> Arg<'static> {
    Arg::U32(n as u32)
}

impl Device {
    fn new(model: &Model, prompt: &[u32]) -> Self {
        let layer = |l: &Layer| DeviceLayer {
            matrices: l.matrices.iter().map(|(bytes, ..)| of(bytes)).collect(),
            norms: l.norms.iter().map(|n| of(n)).collect(),
            cache: [(); 2].map(|()| room::<u16>(KV_HEADS * CAPACITY * DIM)),
        };
        let (n, chunks) = (prompt.len(), CAPACITY.div_ceil(PV_CHUNK));
        Self {
            layers: model.layers.iter().map(layer).collect(),
            embedding: of(&model.embedding),
            norm: of(&model.norm),
            rope: [of(&model.cos), of(&model.sin)],
            token: of(prompt),
            position: of(&[0u32]),
            history: of(&[0u32; CAPACITY]),
            best: of(&[0u64]),
            logits: room::<f32>(VOCAB),
            x: room::<f32>(n * HIDDEN),
            hidden: room::<f32>(n * HIDDEN),
            q8: room::<i8>(n * FFN),
            scale: room::<f32>(n),
            isum: room::<i32>(n),
            qkv: [HIDDEN, KV_HEADS * DIM, KV_HEADS * DIM].map(|width| room::<f32>(n * width)),
            gate: room::<f32>(n * FFN),
            up: room::<f32>(n * FFN),
            scores: room::<f32>(n * HEADS * CAPACITY),
            maxima: room::<f32>(n * HEADS * chunks),
            partial: room::<f32>(n * HEADS * chunks * DIM),
            done: of(&vec![0u32; KV_HEADS * n]),
        }
    }

    /// `input`: 0 as it is, 1 a sum, 2 the squared ReLU gate.
    fn norm(&self, n: usize, input: u32, [x, y, weight]: [&Buffer; 3], cols: usize, values: Option<&Buffer>) {
        let mut args = vec![Arg::U32(input)];
        args.extend([x, y, weight].map(Arg::Buffer));
        args.extend([Arg::F32(EPS), number(n), number(cols), values.map_or(Arg::Null, Arg::Buffer)]);
        args.push(if values.is_some() { Arg::Null } else { Arg::Buffer(&self.q8) });
        args.extend([&self.scale, &self.isum].map(Arg::Buffer));
        How::new([n as u32, 1, 1], 256, 0).run("bn_norm_quant", 4 * cols, &args).unwrap();
    }

    fn linear(&self, n: usize, parts: &[(&Buffer, &Buffer, usize)], cols: usize) {
        let input = [&self.q8, &self.scale, &self.isum].map(Arg::Buffer);
        for &(w, y, rows) in parts {
            let mut args = vec![Arg::Buffer(w), number(rows), number(cols), Arg::F32(1.0)];
            args.extend(input);
            args.extend([number(n), Arg::Buffer(y)]);
            let grid = [rows.div_ceil(128) as u32, n.div_ceil(64) as u32, 1];
            How::new(grid, 256, 0).run("bn_gemm_i2s", 0, &args).unwrap();
        }
    }

    /// Rotates and appends what the products of some tokens left.
    fn append(&self, n: usize, layer: &DeviceLayer) {
        let [q, k, v] = &self.qkv;
        let [keys, values] = &layer.cache;
        let mut args = vec![Arg::U32(0)];
        args.extend([q, k, v, &self.rope[0], &self.rope[1], &self.position].map(Arg::Buffer));
        args.extend([n, HEADS, KV_HEADS, DIM, DIM].map(number));
        args.extend([Arg::Buffer(keys), Arg::Buffer(values), number(CAPACITY)]);
        How::new([(n * (HEADS + 2 * KV_HEADS)) as u32, 1, 1], 32, 0).run("bn_rope_append", 0, &args).unwrap();
    }

    fn attention(&self, n: usize, layer: &DeviceLayer) {
        let q = &self.qkv[0];
        let [keys, values] = &layer.cache;
        let tile = if n == 1 { 4 } else { 16 };
        let tiles = (n * HEADS / KV_HEADS).div_ceil(tile);
        let grid = [CAPACITY.div_ceil(PV_CHUNK) as u32, tiles as u32, KV_HEADS as u32];
        let how = How::new(grid, 256, 0);
        let shape = [n, HEADS, KV_HEADS, DIM, CAPACITY].map(number);
        let mut args = [q, keys, &self.position].map(Arg::Buffer).to_vec();
        args.extend(shape);
        args.push(Arg::F32(1.0 / (DIM as f32).sqrt()));
        args.extend([&self.scores, &self.maxima].map(Arg::Buffer));
        let shared = PV_CHUNK * (2 * DIM + 16) + tile * DIM * 4;
        how.run(&format!("bn_attention_scores_{tile}"), shared, &args).unwrap();
        let mut args = [values, &self.position].map(Arg::Buffer).to_vec();
        args.extend(shape);
        args.extend([&self.scores, &self.maxima, &self.partial, &self.done, q].map(Arg::Buffer));
        how.run(&format!("bn_attention_values_{tile}"), PV_CHUNK * (2 * DIM + 4 * tile), &args).unwrap();
    }

    fn embed(&self, n: usize) {
        let d = self;
        let args = [&d.embedding, &d.token, &d.x].map(Arg::Buffer).into_iter();
        let args: Vec<_> = args.chain([n, HIDDEN, VOCAB].map(number)).chain([Arg::F32(1.0)]).collect();
        How::new([3, 1, 1], 128, 0).run("bn_embed_f16", 0, &args).unwrap();
    }

    /// One of `bn_gemv_*`: the row and its norm, what comes behind.
    fn token<'a>(&self, entry: &str, (x, weight): (&Buffer, &Buffer), cols: usize, rest: &[Arg<'a>]) {
        let mut args = vec![Arg::Buffer(x), Arg::Buffer(weight), Arg::F32(EPS), number(cols), Arg::U32(4)];
        args.extend(rest);
        How::new([4, 1, 1], 128, 1).run(entry, 5 * cols, &args).unwrap();
    }

    /// The launches for one token up to the final norm.
    fn one(&self) {
        let d = self;
        d.embed(1);
        let one = Arg::F32(1.0);
        for l in &d.layers {
            let w: Vec<_> = l.matrices.iter().map(Arg::Buffer).collect();
            let q = &d.qkv[0];
            let mut rest = vec![w[0], one, w[1], one, w[2], one, Arg::U32(0)];
            rest.extend([&d.rope[0], &d.rope[1], &d.position].map(Arg::Buffer));
            rest.extend([HEADS, KV_HEADS, DIM, DIM].map(number));
            rest.extend([q, &l.cache[0], &l.cache[1]].map(Arg::Buffer));
            rest.push(number(CAPACITY));
            d.token("bn_gemv_rope", (&d.x, &l.norms[0]), HIDDEN, &rest);
            d.attention(1, l);
            let x = Arg::Buffer(&d.x);
            d.token("bn_gemv_add", (q, &l.norms[1]), HIDDEN, &[w[3], number(HIDDEN), one, x]);
            let rest = [Arg::U32(0), w[4], one, w[5], one, number(FFN), Arg::Buffer(&d.gate)];
            d.token("bn_gemv_gate", (&d.x, &l.norms[2]), HIDDEN, &rest);
            d.token("bn_gemv_add", (&d.gate, &l.norms[3]), FFN, &[w[6], number(HIDDEN), one, x]);
        }
        d.norm(1, 0, [&d.x, &d.x, &d.norm], HIDDEN, Some(&d.hidden));
    }

    /// The launches for `n` tokens up to the final norm.
    fn many(&self, n: usize) {
        let d = self;
        d.embed(n);
        for (i, l) in d.layers.iter().enumerate() {
            let m = &l.matrices;
            let [q, k, v] = &d.qkv;
            d.norm(n, u32::from(i > 0), [&d.x, &d.hidden, &l.norms[0]], HIDDEN, None);
            let kv = KV_HEADS * DIM;
            d.linear(n, &[(&m[0], q, HIDDEN), (&m[1], k, kv), (&m[2], v, kv)], HIDDEN);
            d.append(n, l);
            d.attention(n, l);
            d.norm(n, 0, [q, q, &l.norms[1]], HIDDEN, None);
            d.linear(n, &[(&m[3], &d.hidden, HIDDEN)], HIDDEN);
            d.norm(n, 1, [&d.x, &d.hidden, &l.norms[2]], HIDDEN, None);
            d.linear(n, &[(&m[4], &d.gate, FFN), (&m[5], &d.up, FFN)], HIDDEN);
            d.norm(n, 2, [&d.gate, &d.up, &l.norms[3]], FFN, None);
            d.linear(n, &[(&m[6], &d.hidden, HIDDEN)], FFN);
        }
        d.norm(n, 1, [&d.x, &d.hidden, &d.norm], HIDDEN, Some(&d.hidden));
    }

    /// The head for the last of `n` tokens; the largest becomes the next token.
    fn head(&self, n: usize) {
        let mut args = vec![Arg::Buffer(&self.embedding), number(VOCAB), number(HIDDEN), Arg::F32(1.0)];
        args.extend([Arg::At(&self.hidden, (n - 1) * HIDDEN * 4), number(1)]);
        args.extend([&self.logits, &self.best].map(Arg::Buffer));
        How::new([2, 1, 1], 128, 0).run("bn_head_f16", HIDDEN * 4, &args).unwrap();
        let args = [&self.best, &self.token, &self.position, &self.history].map(Arg::Buffer);
        How::new([1, 1, 1], 32, 0).run("bn_next", 0, &[args[0], args[1], args[2], args[3], number(CAPACITY)]).unwrap();
    }
}

#[test]
fn a_prompt_and_tokens_by_one_sequence_of_launches() {
    let mut r = Random::new(40);
    let model = Model::new(&mut r);
    let prompt: Vec<u32> = (0..PROMPT).map(|_| r.below(VOCAB) as u32).collect();
    let cache = (0..LAYERS).map(|_| [(); 2].map(|()| vec![0; KV_HEADS * CAPACITY * DIM])).collect();
    let mut host = Host { model: &model, cache, position: 0 };
    let mut want = prompt.iter().map(|&t| host.token(t)).last().unwrap();

    let mut device = Device::new(&model, &prompt);
    device.many(PROMPT);
    // The prompt's own length: from here on `bn_next` counts.
    device.position.write(&[PROMPT as u32 - 1]);
    device.head(PROMPT);
    let mut tokens = Vec::new();
    for step in 0..5 {
        let logits = device.logits.read::<f32>();
        assert_bits(&logits, &want, &format_args!("logits of step {step}"));
        let best = want.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        tokens.push(want.iter().position(|v| *v == best).unwrap() as u32);
        assert_eq!(device.history.read::<u32>()[PROMPT..PROMPT + step + 1], tokens);
        want = host.token(tokens[step]);
        device.one();
        device.head(1);
    }
}
