//! Tokenizer against weights, before any compute.
//!
//! An id is a row of the embedding. More tokens than rows is an access out of bounds waiting for the right text;
//! fewer rows are padding. The check reads shapes and type numbers only, so that it costs nothing and comes first.

use crate::gguf::{GgufFile, TensorInfo};
use bitnet_kernels::quant::{TILED, by_name};

/// Tokenizer and weights do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum QuantizationError {
    #[error(
        "the tokenizer has {tokens} tokens, the embedding ({embedding}, model in {format}) only {rows} rows: the file mixes two models; \
         download or convert it again, or name the right tokenizer with --tokenizer FILE"
    )]
    MoreTokensThanRows { tokens: usize, rows: usize, embedding: &'static str, format: &'static str },
    #[error(
        "there is no `token_embd.weight`: ids have nothing to stand for. The file is incomplete, download or convert it again"
    )]
    NoEmbedding,
}

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QuantizationReport {
    /// Tokens of the tokenizer.
    pub tokens: usize,
    /// Rows of the embedding.
    pub rows: usize,
    /// Rows without a token.
    pub padding: usize,
    /// Type of the embedding, as ggml writes it (`f16`).
    pub embedding: &'static str,
    /// Type of most of the other weights (`i2_s`, `tl1`, `tq2_0`, ...).
    pub format: &'static str,
    /// Whether this program has kernels for both; a format can be known without.
    pub computable: bool,
}

/// Compares a tokenizer of `tokens` tokens with the weights of `file`.
///
/// # Errors
/// [`QuantizationError`].
pub fn check(file: &GgufFile, tokens: usize) -> Result<QuantizationReport, QuantizationError> {
    let embedding = file.tensor("token_embd.weight").ok_or(QuantizationError::NoEmbedding)?.info;
    // Beyond the address space means beyond any tokenizer.
    let rows = usize::try_from(embedding.rows()).unwrap_or(usize::MAX);
    let embedding_type = file.type_name(embedding);
    let has_kernels = |info: &TensorInfo| {
        let name = file.type_name(info);
        by_name(name).is_ok() || TILED.iter().any(|t| t.name == name)
    };
    let main = main_tensor(file);
    let format = main.map_or(embedding_type, |info| file.type_name(info));
    if tokens > rows {
        return Err(QuantizationError::MoreTokensThanRows { tokens, rows, embedding: embedding_type, format });
    }
    Ok(QuantizationReport {
        tokens,
        rows,
        padding: rows - tokens,
        embedding: embedding_type,
        format,
        computable: has_kernels(embedding) && main.is_none_or(has_kernels),
    })
}

/// A tensor of the type that most weights have: of the matrices other than embedding and output, by elements.
fn main_tensor(file: &GgufFile) -> Option<&TensorInfo> {
    let matrices = || {
        file.tensors()
            .iter()
            .filter(|t| t.rows() > 1 && !matches!(t.name.as_str(), "token_embd.weight" | "output.weight"))
    };
    let weight = |ggml_type: u32| -> u128 {
        matrices().filter(|t| t.ggml_type == ggml_type).map(|t| u128::from(t.elements())).sum()
    };
    let mut types: Vec<u32> = matrices().map(|t| t.ggml_type).collect();
    types.sort_unstable();
    types.dedup();
    let most = types.into_iter().max_by_key(|&ggml_type| weight(ggml_type))?;
    matrices().find(|t| t.ggml_type == most)
}
