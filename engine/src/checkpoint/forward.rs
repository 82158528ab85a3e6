//! The model computed from the checkpoint itself: rows as HuggingFace has them, rotated by halves, weights as floats.
//!
//! It is there for one question, whether a GGUF computes the same, and reads no tensor of the GGUF. A few tokens at once, no cache,
//! f64 from the weights on. No activation is rounded on either side: roundings that tip would hide small mistakes.

use super::matrix::{Source, Values};
use super::rotation::{self, Rotation};
use super::write::ToGguf;
use super::{Checkpoint, Content, Role};
use crate::convert::{Comparison, ConvertError};
use crate::gguf::MetaValue;
use crate::inference::{InferenceError, Session, SessionOptions, Want};
use crate::load::LoadError;
use crate::model::Model;
use bitnet_kernels::Pool;
use bitnet_kernels::quant::Storage;
use std::sync::Arc;

/// Positions that are compared.
const TOKENS: usize = 12;
/// Least cosine where the format holds the weights exactly: keys and values are f16 in a session.
const EXACT: f64 = 0.9999;
/// Least cosine where it rounds them, by the bits of a weight at least. Down to four bits it is twice as far from 1 as the worst that
/// was measured (`verified` of the harness: random weights, which suffer more than trained ones): 0.9998 with q8_0, 0.9976 with
/// q6_k, 0.982 with q5_0, 0.930 with iq4_nl, 0.844 with mxfp4. With q3_k it was 0.71 and with q2_k 0.49; other weights give about 0.
const ROUNDED: &[(f64, f64)] =
    &[(8.0, 0.999), (6.5, 0.995), (5.5, 0.96), (4.5, 0.86), (4.0, 0.65), (3.0, 0.4), (0.0, 0.25)];

/// Compares a model that was loaded from a GGUF with its checkpoint.
///
/// # Errors
/// The model cannot run, or its logits are too far away.
pub(super) fn compare(
    checkpoint: &Checkpoint,
    mut model: Model,
    options: &ToGguf<'_>,
) -> Result<Comparison, ConvertError> {
    let tokens = TOKENS.min(checkpoint.sizes.context).min(options.context.unwrap_or(TOKENS)).max(1);
    let ids: Vec<u32> = (0..tokens).map(|i| ((i * 7919 + 1) % checkpoint.sizes.vocab) as u32).collect();
    model.weights.without_rounding();
    let rope = |local| rotation::read(&checkpoint.json, checkpoint.defaults, checkpoint.sizes.head, tokens, local);
    let ropes = (checkpoint.form.architecture != "gpt2").then(|| [rope(false), rope(true)]);
    let theirs = Forward { checkpoint, pool: options.pool, ropes, tokens }.logits(&ids);
    let mut ours = Vec::with_capacity(theirs.len());
    let failed = |error: InferenceError| ConvertError::Unloadable(Box::new(LoadError::Inference(error)));
    let context =
        SessionOptions { context: Some(tokens), ..SessionOptions::new(options.kernels, Arc::clone(options.pool)) };
    let mut session = Session::new(Arc::new(model), context).map_err(failed)?;
    session.forward(&ids, Want::All, &mut |_, logits| ours.extend_from_slice(logits)).map_err(failed)?;
    let limit = |source: &Source, role: Role| {
        let format = match role {
            Role::Linear => options.linear,
            Role::Embedding => options.embedding.unwrap_or(options.linear),
            Role::Kept => return EXACT,
        };
        let kept = match source.values {
            Values::Float(float) | Values::Transposed(float) => {
                float.format() == format.name() || role == Role::Embedding && options.embedding.is_none()
            }
            Values::Packed(_) | Values::Master { .. } => format.is_ternary(),
        };
        if kept || format.name() == "f32" { EXACT } else { rounded(format) }
    };
    let limits = checkpoint.planned.iter().map(|planned| match &planned.content {
        Content::Matrix(source, role) => limit(source, *role),
        Content::Vector(_) => EXACT,
    });
    let limit = limits.fold(EXACT, f64::min);
    let mut found = Comparison { tokens, least_cosine: 1.0, limit, largest_difference: 0.0, largest_logit: 0.0 };
    for (a, b) in ours.chunks_exact(checkpoint.sizes.vocab).zip(theirs.chunks_exact(checkpoint.sizes.vocab)) {
        let mut sums = (0.0, 0.0, 0.0);
        for (&a, &b) in a.iter().zip(b) {
            let a = f64::from(a);
            sums = (sums.0 + a * b, sums.1 + a * a, sums.2 + b * b);
            found.largest_difference = found.largest_difference.max((a - b).abs());
            found.largest_logit = found.largest_logit.max(b.abs());
        }
        let cosine = sums.0 / (sums.1 * sums.2).sqrt();
        // `min` would drop what is not a number.
        found.least_cosine = if cosine >= found.least_cosine { found.least_cosine } else { cosine };
    }
    if found.least_cosine >= found.limit { Ok(found) } else { Err(ConvertError::Different(found)) }
}

/// The limit of a format that rounds.
fn rounded(format: Storage) -> f64 {
    // A square that every format can hold.
    const SIDE: usize = 256;
    let bits = format.matrix_bytes(SIDE, SIDE).map_or(0.0, |bytes| (8 * bytes) as f64 / (SIDE * SIDE) as f64);
    ROUNDED.iter().find(|(least, _)| bits >= *least).map_or(0.0, |(_, limit)| *limit)
}

struct Forward<'a> {
    checkpoint: &'a Checkpoint,
    pool: &'a Pool,
    /// The rotation of blocks without a window, and of those with one.
    ropes: Option<[Rotation; 2]>,
    tokens: usize,
}

/// `[tokens][width]`.
type Rows = Vec<f64>;

impl Forward<'_> {
    /// `[tokens][vocab]`.
    fn logits(&self, ids: &[u32]) -> Rows {
        let c = self.checkpoint;
        let hidden = c.sizes.hidden;
        let scale = match c.form.architecture {
            "gemma3" => (hidden as f64).sqrt(),
            _ => self.number("embedding_scale").unwrap_or(1.0),
        };
        let residual = self.number("residual_scale").unwrap_or(1.0);
        let mut x: Rows = Vec::with_capacity(self.tokens * hidden);
        for (position, &id) in ids.iter().enumerate() {
            let mut row = self.rows_of("token_embd.weight", id as usize).iter().map(|v| v * scale).collect::<Rows>();
            if c.form.architecture == "gpt2" {
                let learnt = self.rows_of("position_embd.weight", position);
                row.iter_mut().zip(learnt).for_each(|(x, p)| *x += p);
            }
            x.extend(row);
        }
        for block in 0..c.sizes.layers {
            let at = |part: &str| format!("blk.{block}.{part}");
            let mut y = self.attention(&self.norm(&x, &at("attn_norm")), block);
            y = self.norm_if(y, &at("post_attention_norm"));
            x.iter_mut().zip(&y).for_each(|(x, y)| *x += y * residual);
            let mut y = self.feed_forward(&self.norm(&x, &at("ffn_norm")), block);
            y = self.norm_if(y, &at("post_ffw_norm"));
            x.iter_mut().zip(&y).for_each(|(x, y)| *x += y * residual);
        }
        let x = self.norm(&x, "output_norm");
        let head = if c.matrix("output.weight").is_some() { "output" } else { "token_embd" };
        let divisor = self.number("logit_scale").unwrap_or(1.0);
        self.product(&x, head).into_iter().map(|z| z / divisor).collect()
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.checkpoint.key(key) {
            Some(MetaValue::F32(value)) => Some(f64::from(*value)),
            _ => None,
        }
    }

    fn rows_of(&self, name: &str, row: usize) -> Rows {
        let Some(source) = self.checkpoint.matrix(name) else { return vec![f64::NAN; self.checkpoint.sizes.hidden] };
        let mut values = vec![0.0; source.cols];
        self.read(source, row, &mut values);
        values.into_iter().map(f64::from).collect()
    }

    /// A row that cannot be read makes logits that are not numbers.
    fn read(&self, source: &Source, row: usize, out: &mut [f32]) {
        if source.row(&self.checkpoint.store, row, out).is_err() {
            out.fill(f32::NAN);
        }
    }

    fn norm_if(&self, x: Rows, name: &str) -> Rows {
        if self.checkpoint.vector(&format!("{name}.weight")).is_some() { self.norm(&x, name) } else { x }
    }

    /// The norm of every stretch as wide as its weight: LayerNorm where it has a bias, else RMS.
    fn norm(&self, x: &[f64], name: &str) -> Rows {
        let Some(weight) = self.checkpoint.vector(&format!("{name}.weight")) else { return vec![f64::NAN; x.len()] };
        let bias = self.checkpoint.vector(&format!("{name}.bias"));
        let eps = self.number("attention.layer_norm_rms_epsilon").or(self.number("attention.layer_norm_epsilon"));
        let (eps, n) = (eps.unwrap_or(0.0), weight.len() as f64);
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(weight.len()) {
            let mean = if bias.is_some() { row.iter().sum::<f64>() / n } else { 0.0 };
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            let scale = 1.0 / (variance + eps).sqrt();
            for (i, x) in row.iter().enumerate() {
                out.push((x - mean) * scale * f64::from(weight[i]) + bias.map_or(0.0, |bias| f64::from(bias[i])));
            }
        }
        out
    }

    /// `name.weight` of the rows of `x`, after its own norm, and `name.bias` behind it.
    fn linear(&self, x: &[f64], name: &str) -> Rows {
        let before = self.norm_if(x.to_vec(), &format!("{name}_norm_in"));
        let mut y = self.product(&before, name);
        if let Some(bias) = self.checkpoint.vector(&format!("{name}.bias")) {
            let rows = y.chunks_exact_mut(bias.len());
            rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += f64::from(*b)));
        }
        y
    }

    fn product(&self, x: &[f64], name: &str) -> Rows {
        let Some(source) = self.checkpoint.matrix(&format!("{name}.weight")) else { return Rows::new() };
        let (rows, cols) = (source.rows, source.cols);
        let mut by_row = vec![0.0; rows * self.tokens];
        self.pool.for_rows(&mut by_row, self.tokens, 16, &|row, out| {
            let mut weights = vec![0.0; cols];
            self.read(source, row, &mut weights);
            for (out, x) in out.iter_mut().zip(x.chunks_exact(cols)) {
                *out = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            }
        });
        self.checkpoint.store.release(&source.stored);
        (0..self.tokens).flat_map(|t| by_row.iter().skip(t).step_by(self.tokens).copied()).collect()
    }

    fn attention(&self, x: &[f64], block: usize) -> Rows {
        let (c, at) = (self.checkpoint, |part: &str| format!("blk.{block}.{part}"));
        let (d, heads, kv_heads) = (c.sizes.head, c.sizes.heads, c.sizes.kv_heads);
        let [mut q, mut k, v] = if c.form.architecture == "gpt2" {
            let all = self.linear(x, &at("attn_qkv"));
            let widths = [heads * d, kv_heads * d, kv_heads * d];
            let mut from = 0;
            widths.map(|width| {
                from += width;
                all.chunks_exact(widths.iter().sum()).flat_map(|row| row[from - width..from].to_vec()).collect::<Rows>()
            })
        } else {
            ["attn_q", "attn_k", "attn_v"].map(|part| self.linear(x, &at(part)))
        };
        q = self.norm_if(q, &at("attn_q_norm"));
        k = self.norm_if(k, &at("attn_k_norm"));
        let window = self.window(block);
        if let Some([full, local]) = &self.ropes {
            let rope = if window.is_some() { local } else { full };
            self.rotate(&mut q, rope);
            self.rotate(&mut k, rope);
        }
        let width = if c.form.architecture == "gemma3" && c.sizes.layers == 62 { c.sizes.hidden / heads } else { d };
        let scale = 1.0 / (width as f64).sqrt();
        let mut out = vec![0.0; self.tokens * heads * d];
        for (t, out) in out.chunks_exact_mut(heads * d).enumerate() {
            let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                let query = &q[(t * heads + head) * d..][..d];
                let of = |z: &[f64], s: usize| -> Rows { z[(s * kv_heads + kv) * d..][..d].to_vec() };
                let scores: Rows =
                    (first..=t).map(|s| query.iter().zip(of(&k, s)).map(|(q, k)| q * k).sum::<f64>() * scale).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Rows = scores.iter().map(|s| (s - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (s, weight) in (first..=t).zip(&weights) {
                    let target = &mut out[head * d..][..d];
                    target.iter_mut().zip(of(&v, s)).for_each(|(o, v)| *o += weight / total * v);
                }
            }
        }
        let out = self.norm_if(out, &at("attn_sub_norm"));
        self.linear(&out, &at("attn_output"))
    }

    /// Pairs are channel `i` and `i + d / 2` of a head.
    fn rotate(&self, z: &mut [f64], rope: &Rotation) {
        let (d, half) = (self.checkpoint.sizes.head, rope.frequencies.len());
        let heads = z.len() / d / self.tokens;
        for (position, row) in z.chunks_exact_mut(heads * d).enumerate() {
            for head in row.chunks_exact_mut(d) {
                for (i, frequency) in rope.frequencies.iter().enumerate() {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    let (cos, sin) = (cos * rope.magnitude, sin * rope.magnitude);
                    let (a, b) = (head[i], head[i + half]);
                    (head[i], head[i + half]) = (a * cos - b * sin, a * sin + b * cos);
                }
            }
        }
    }

    fn window(&self, block: usize) -> Option<usize> {
        let Some(MetaValue::U32(window)) = self.checkpoint.key("attention.sliding_window") else { return None };
        match self.checkpoint.key("attention.sliding_window_pattern") {
            Some(MetaValue::Array { items, .. }) if items.get(block) == Some(&MetaValue::Bool(true)) => {
                Some(*window as usize)
            }
            _ => None,
        }
    }

    fn feed_forward(&self, x: &[f64], block: usize) -> Rows {
        let at = |part: &str| format!("blk.{block}.{part}");
        let act: fn(f64) -> f64 = match self.checkpoint.form.act {
            "relu2" => |g| g.max(0.0) * g.max(0.0),
            "silu" => |g| g / (1.0 + (-g).exp()),
            _ => |g| 0.5 * g * (1.0 + (0.797_884_560_802_865_4 * (g + 0.044715 * g * g * g)).tanh()),
        };
        let up = self.linear(x, &at("ffn_up"));
        let inner: Rows = if self.checkpoint.form.architecture == "gpt2" {
            up.into_iter().map(act).collect()
        } else {
            self.linear(x, &at("ffn_gate")).into_iter().zip(up).map(|(gate, up)| act(gate) * up).collect()
        };
        self.linear(&self.norm_if(inner, &at("ffn_sub_norm")), &at("ffn_down"))
    }
}
