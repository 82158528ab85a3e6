//! A quick proof, on the machine at hand, that a kernel set keeps the numerics contract.
//!
//! The suite proves it at length; `BITNET_DETERMINISTIC=1` asks for this short one at every start, so that a build or
//! a processor that breaks the contract is an error and not another text.

use super::{InferenceError, Session, SessionOptions, Want};
use crate::model::Model;
use bitnet_kernels::quant::FORMATS;
use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, OutView, Rope, by_name};
use std::sync::Arc;

/// A kernel whose bits differ from the scalar oracle's.
#[derive(Debug, thiserror::Error)]
#[error(
    "kernel set `{set}` breaks the numerics contract in {operation}: element {index} is {found:e}, the scalar oracle \
     says {expected:e}; run with --device cpu-scalar and report this processor"
)]
pub struct BrokenContract {
    /// The kernel set.
    pub set: String,
    /// The operation.
    pub operation: String,
    /// First element that differs.
    pub index: usize,
    /// The kernel's value.
    pub found: f32,
    /// The oracle's value.
    pub expected: f32,
}

/// Tokens that [`self_check_card`] computes: a batch, and one by itself.
const CARD_TOKENS: usize = 4;

/// Runs a few tokens of a model on the card of `options` and on its kernels, and compares all logits, bit for bit. Nothing is
/// done without a card.
///
/// # Errors
/// [`InferenceError::Broken`] with the first difference; what keeps either from computing.
pub fn self_check_card(model: &Arc<Model>, options: &SessionOptions) -> Result<(), InferenceError> {
    let Some(card) = &options.card else { return Ok(()) };
    let tokens: Vec<u32> = (0..CARD_TOKENS).map(|i| (i * 7919 % model.config.vocab_size) as u32).collect();
    let (batch, last) = tokens.split_at(CARD_TOKENS - 1);
    let logits = |options: SessionOptions| -> Result<Vec<f32>, InferenceError> {
        let mut session = Session::new(Arc::clone(model), SessionOptions { context: Some(CARD_TOKENS), ..options })?;
        let mut all = Vec::new();
        for part in [batch, last] {
            session.forward(part, Want::All, &mut |_, logits| all.extend_from_slice(logits))?;
        }
        Ok(all)
    };
    let expected = logits(SessionOptions { card: None, ..options.clone() })?;
    let found = logits(options.clone())?;
    match (0..expected.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
        None => Ok(()),
        Some(index) => Err(InferenceError::Broken(BrokenContract {
            set: card.name().to_owned(),
            operation: "the logits of this model".to_owned(),
            index,
            found: found[index],
            expected: expected[index],
        })),
    }
}

/// Runs every operation of `kernels` on a few hundred fixed values and compares with the scalar oracle, bit for bit.
///
/// # Errors
/// The first difference.
pub fn self_check(kernels: &dyn Kernels) -> Result<(), BrokenContract> {
    let oracle = by_name("scalar").expect("the scalar set is always there");
    let same = |operation: &str, run: &dyn Fn(&dyn Kernels) -> Vec<f32>| {
        let (found, expected) = (run(kernels), run(oracle));
        let differs = (0..expected.len()).find(|&i| found[i].to_bits() != expected[i].to_bits());
        differs.map_or(Ok(()), |index| {
            Err(BrokenContract {
                set: kernels.name().to_owned(),
                operation: operation.to_owned(),
                index,
                found: found[index],
                expected: expected[index],
            })
        })
    };
    // Spread over signs and sizes, with no structure that a wrong lane order could hide behind.
    let values = |n: usize, salt: u32| -> Vec<f32> {
        (0..n as u32)
            .map(|i| {
                let bits = (i.wrapping_add(salt)).wrapping_mul(2_654_435_761).rotate_left(13) >> 8;
                (bits as f32 / 8_388_608.0 - 1.0) * (1.0 + (i % 17) as f32)
            })
            .collect()
    };
    let (rows, tokens) = (5, 3);
    for format in FORMATS {
        let cols = 512usize.next_multiple_of(format.block_len);
        let x = values(tokens * cols, 1);
        let weights: Vec<f32> = values(rows * cols, 2)
            .into_iter()
            .map(|v| match format.act {
                // Ternary weights.
                ActKind::I8 if v.abs() < 1.0 => 0.0,
                ActKind::I8 => 0.5f32.copysign(v),
                ActKind::F32 | ActKind::Q8 => v,
            })
            .collect();
        let packed = (format.pack)(&weights, rows, cols).expect("every format packs finite weights of its kind");
        let matrix = Matrix::new(format, rows, cols, &packed).expect("what a format packs has its size");
        same(&format!("matmul {}", format.name), &|k| {
            let mut prepared = Activations::default();
            k.prepare(format.act, &x, tokens, &mut prepared);
            let mut y = vec![0.0; tokens * rows];
            k.matmul(&matrix, &prepared, 0..rows, OutView::new(&mut y, tokens, rows));
            y
        })?;
    }
    let cols = 512;
    let one = &values(cols, 1)[..];
    same("rms_norm", &|k| {
        let mut y = vec![0.0; cols];
        k.rms_norm(one, &values(cols, 3), 1e-5, &mut y);
        y
    })?;
    for kind in [Rope::Neox, Rope::Norm] {
        same("rope", &|k| {
            let mut head = one[..64].to_vec();
            k.rope(kind, &mut head, &values(32, 4), &values(32, 5));
            head
        })?;
    }
    same("attention", &|k| {
        let (dim, n) = (64, 150);
        let mut cache = vec![0u16; 2 * n * dim];
        k.f32_to_f16(&values(2 * n * dim, 6), &mut cache);
        let (mut scratch, mut out) = (vec![0.0; n], vec![0.0; dim]);
        k.attention(&one[..dim], &cache[..n * dim], &cache[n * dim..], dim, n, 0.01, &mut scratch, &mut out);
        out
    })?;
    same("f32_to_f16", &|k| {
        let mut half = vec![0; cols];
        k.f32_to_f16(one, &mut half);
        half.into_iter().map(f32::from).collect()
    })?;
    same("relu2_gate", &|k| {
        let mut gate = one.to_vec();
        k.relu2_gate(&mut gate, &values(cols, 7));
        gate
    })?;
    same("silu_gate", &|k| {
        let mut gate = one.to_vec();
        k.silu_gate(&mut gate, &values(cols, 8));
        gate
    })?;
    same("add", &|k| {
        let mut sum = one.to_vec();
        k.add(&mut sum, &values(cols, 9));
        sum
    })
}
