//! A text as one vector: what the last norm makes of its tokens, pooled, of length 1.

use super::{InferenceError, Session, Want};
use crate::model::{Keys, Model, ModelError};
use bitnet_kernels::numerics::dot;

/// How the vectors of the tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
    /// That of the last token.
    Last,
}

/// The metadata key `<architecture>.pooling_type`: 0 none, 1 mean, 2 first, 3 last, 4 rank.
const KEY: &str = "pooling_type";

impl std::str::FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mean" => Ok(Self::Mean),
            "cls" => Ok(Self::Cls),
            "last" => Ok(Self::Last),
            other => Err(format!("`{other}` is none of: mean, cls, last")),
        }
    }
}

impl Pooling {
    /// What the file says; [`Pooling::Last`] where it says nothing: in a decoder only the last token has seen all others.
    ///
    /// # Errors
    /// A ranking model, or a number that is not known.
    pub fn of(model: &Model) -> Result<Self, ModelError> {
        let keys = Keys::of(model.weights.file().metadata())?;
        match keys.count(KEY, 0, 4)? {
            None | Some(0 | 3) => Ok(Self::Last),
            Some(1) => Ok(Self::Mean),
            Some(2) => Ok(Self::Cls),
            Some(other) => Err(ModelError::Unsupported { what: format!("`{}` {other} (rank)", keys.name(KEY)) }),
        }
    }
}

/// The vector of some tokens, `[embedding_length]`, of length 1. The session is emptied first.
///
/// # Errors
/// No tokens, or more than the context holds. A vector of zeros or of what is not a number has no direction.
pub fn embed(session: &mut Session, tokens: &[u32], pooling: Pooling) -> Result<Vec<f32>, InferenceError> {
    if tokens.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    session.truncate(0);
    let mut pooled = vec![0.0; session.model().config.embedding_length];
    let want = if pooling == Pooling::Last { Want::Last } else { Want::All };
    session.hidden(tokens, want, &mut |position, row| match pooling {
        // In the order of positions, however they are computed together.
        Pooling::Mean => pooled.iter_mut().zip(row).for_each(|(sum, x)| *sum += x),
        Pooling::Cls if position > 0 => {}
        Pooling::Cls | Pooling::Last => pooled.copy_from_slice(row),
    })?;
    // The mean's divisor does not change the direction.
    let length = dot(&pooled, &pooled).sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(InferenceError::NotFinite { position: tokens.len() - 1 });
    }
    pooled.iter_mut().for_each(|x| *x /= length);
    Ok(pooled)
}
