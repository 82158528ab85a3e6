//! The shape of a generated model, and what its graph has beside the plain one of its family.

use serde::Deserialize;

/// Dimensions of a generated model, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Longest sequence.
    pub context: usize,
    /// Width of a head where the file says it; else `hidden / heads`.
    #[serde(default)]
    pub key_length: Option<usize>,
    /// How the rotary embedding is stretched.
    #[serde(default)]
    pub rope: Option<RopeScaling>,
    /// Blocks that see only the last positions.
    #[serde(default)]
    pub window: Option<Window>,
    /// Feed-forward parts of which each token uses a few.
    #[serde(default)]
    pub experts: Option<Experts>,
    /// Constants by which a graph of `minicpm` multiplies.
    #[serde(default)]
    pub scales: Option<Scales>,
    /// An embedding model of BitNet: a norm before each of a block's matrices, and pooling.
    #[serde(default)]
    pub norm_in: bool,
}

impl Shape {
    /// Without anything optional, to write others as `Shape { layers: 2, ..., ..Shape::PLAIN }`.
    pub const PLAIN: Self = Self {
        layers: 0,
        hidden: 0,
        ffn: 0,
        heads: 0,
        kv_heads: 0,
        vocab: 0,
        context: 0,
        key_length: None,
        rope: None,
        window: None,
        experts: None,
        scales: None,
        norm_in: false,
    };

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.key_length.unwrap_or(self.hidden / self.heads.max(1))
    }
}

/// How the rotary embedding is stretched beyond the context in which a model was first trained. `original` is the length of
/// that context, `factor` the stretch.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RopeScaling {
    /// All angles are divided by the factor.
    Linear { factor: f32 },
    /// YaRN: slow dimensions are stretched, fast ones are not.
    Yarn {
        factor: f32,
        /// Positions of the first training.
        original: usize,
        /// Multiplies cosine and sine.
        attn_factor: f32,
    },
    /// Two tensors of factors, one for contexts up to `original` and one for longer ones.
    Longrope { original: usize, attn_factor: f32 },
    /// The tensor `rope_freqs.weight`, computed as for LLaMA-3.1. The metadata say nothing.
    Llama3 {
        /// The stretch of the slow dimensions.
        factor: f32,
        /// Wavelengths above `original / low` are stretched.
        low: f32,
        /// Wavelengths below `original / high` are not.
        high: f32,
        original: usize,
    },
}

/// Sliding windows. Of `pattern` blocks in turn the last one sees everything, the others see the last `size` positions.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Positions that are seen, the own one included.
    pub size: usize,
    /// Blocks in a turn.
    pub pattern: usize,
    /// Base of the rotary embedding in the blocks with a window, where the file says it.
    #[serde(default)]
    pub rope_base: Option<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    pub count: usize,
    pub used: usize,
    pub ffn: usize,
    /// Largest gate and largest absolute value of the up projection.
    pub clamp: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scales {
    /// Multiplies the embedding.
    pub embedding: f32,
    /// Multiplies what a block adds to the residual stream.
    pub residual: f32,
    /// Divides the logits.
    pub logit: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: &str = "layers = 1\nhidden = 8\nffn = 8\nheads = 2\nkv_heads = 1\nvocab = 9\ncontext = 16\n";

    #[test]
    fn what_is_left_out_is_plain() {
        let shape: Shape = toml::from_str(SEVEN).expect("seven numbers");
        let plain =
            Shape { layers: 1, hidden: 8, ffn: 8, heads: 2, kv_heads: 1, vocab: 9, context: 16, ..Shape::PLAIN };
        assert_eq!(shape, plain);
        assert_eq!(shape.head_width(), 4);
        let wide: Shape = toml::from_str(&format!("{SEVEN}key_length = 6")).expect("eight numbers");
        assert_eq!(wide.head_width(), 6);
    }

    #[test]
    fn a_misspelt_key_is_named_at_every_depth() {
        for (more, word) in [
            ("key_lenght = 6", "key_lenght"),
            ("rope = { kind = \"linear\", factr = 2.0 }", "factr"),
            ("rope = { kind = \"ntk\", factor = 2.0 }", "ntk"),
            ("window = { size = 4, pattern = 2, base = 1.0 }", "base"),
        ] {
            let error = toml::from_str::<Shape>(&format!("{SEVEN}{more}")).expect_err(more);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
