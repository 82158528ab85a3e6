//! The tokenizer of a generated model: the beginning of the trained tiny model's vocabulary, or more than all of it.

use super::Noise;
use crate::failure::Failure;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use std::collections::HashSet;

/// Longest token that [`Pieces::grow`] makes, in characters.
const LONGEST: usize = 16;

/// The numbers of the real vocabulary.
pub(super) struct Real {
    vocab: usize,
    merges: usize,
    specials: usize,
}

/// Those of Microsoft's file.
pub(super) const MICROSOFT: Real = Real { vocab: 128_256, merges: 280_147, specials: 256 };

impl Real {
    /// Control tokens of a vocabulary of this size.
    pub(super) fn specials(&self, vocab: usize) -> usize {
        self.specials.min(vocab / 8)
    }
}

/// LLaMA-3's control tokens, in their order.
fn special(index: usize) -> String {
    match index {
        0 => "<|begin_of_text|>".to_owned(),
        1 => "<|end_of_text|>".to_owned(),
        6 => "<|start_header_id|>".to_owned(),
        7 => "<|end_header_id|>".to_owned(),
        9 => "<|eot_id|>".to_owned(),
        2..6 => format!("<|reserved_special_token_{}|>", index - 2),
        8 => "<|reserved_special_token_4|>".to_owned(),
        _ => format!("<|reserved_special_token_{}|>", index - 5),
    }
}

/// The vocabulary of a byte-level BPE, in the order in which it was learned.
pub(super) struct Pieces {
    tokens: Vec<String>,
    merges: Vec<String>,
}

impl Pieces {
    pub(super) fn read(file: &GgufFile) -> Result<Self, Failure> {
        let strings = |key: &str| -> Result<Vec<String>, Failure> {
            let array = file.metadata().array(key)?.ok_or_else(|| Failure::new(format_args!("no `{key}`")))?;
            Ok(array.strs()?.map(|s| s.map(str::to_owned)).collect::<Result<_, _>>()?)
        };
        Ok(Self { tokens: strings("tokenizer.ggml.tokens")?, merges: strings("tokenizer.ggml.merges")? })
    }

    /// Adds merges of any two tokens until there are `vocab` tokens: a BPE as large as a real one, whose new tokens are
    /// noise, so that reading it costs what reading a real one costs.
    pub(super) fn grow(&mut self, vocab: usize, noise: &mut Noise) {
        let mut seen: HashSet<String> = self.tokens.iter().cloned().collect();
        let mut lengths: Vec<usize> = self.tokens.iter().map(|t| t.chars().count()).collect();
        // Of fewer than two there is nothing to merge.
        while (2..vocab).contains(&self.tokens.len()) {
            // Not the first token, which stands for no text.
            let mut one = || 1 + noise.below(self.tokens.len() - 1);
            let (left, right) = (one(), one());
            let length = lengths[left] + lengths[right];
            let text = format!("{}{}", self.tokens[left], self.tokens[right]);
            if length <= LONGEST && seen.insert(text.clone()) {
                self.merges.push(format!("{} {}", self.tokens[left], self.tokens[right]));
                self.tokens.push(text);
                lengths.push(length);
            }
        }
    }

    /// One control token, 256 bytes, then one token a merge.
    pub(super) fn write_bpe(&self, writer: &mut GgufWriter<'_>, vocab: usize, pre: &str) -> Result<(), Failure> {
        let merges = vocab.checked_sub(257).filter(|n| *n <= self.merges.len() && vocab <= self.tokens.len());
        let merges = merges.ok_or_else(|| Failure::new(format_args!("no vocabulary of {vocab} tokens")))?;
        let types: Vec<i32> = (0..vocab).map(|i| if i == 0 { 3 } else { 1 }).collect();
        writer.meta("tokenizer.ggml.model", "gpt2".to_owned())?;
        writer.meta("tokenizer.ggml.pre", pre.to_owned())?;
        writer.meta("tokenizer.ggml.tokens", MetaValue::strings(&self.tokens[..vocab]))?;
        writer.meta("tokenizer.ggml.token_type", types)?;
        writer.meta("tokenizer.ggml.merges", MetaValue::strings(&self.merges[..merges]))?;
        writer.meta("tokenizer.ggml.bos_token_id", 0u32)?;
        writer.meta("tokenizer.ggml.eos_token_id", 0u32)?;
        writer.meta("tokenizer.ggml.add_bos_token", true)?;
        Ok(())
    }

    /// As Microsoft's file of BitNet-2B-4T has LLaMA-3's vocabulary: tokens, then an eighth of control tokens (256 at most), with
    /// merges in more than one way to a token, in the ratio of the real one as far as there are such, and without `pre`.
    pub(super) fn write_microsoft(&self, writer: &mut GgufWriter<'_>, vocab: usize) -> Result<(), Failure> {
        let specials = MICROSOFT.specials(vocab);
        let ordinary = vocab - specials;
        let merges = ordinary.checked_sub(256).filter(|n| *n <= self.merges.len() && ordinary < self.tokens.len());
        let merges = merges.ok_or_else(|| Failure::new(format_args!("no vocabulary of {vocab} tokens")))?;
        // The first is the trained model's only control token.
        let ordinary = &self.tokens[1..=ordinary];
        let known: HashSet<&str> = ordinary.iter().map(String::as_str).collect();
        let mut all: Vec<String> = self.merges[..merges].to_vec();
        let mut seen: HashSet<String> = all.iter().cloned().collect();
        let most = vocab * MICROSOFT.merges / MICROSOFT.vocab;
        for token in ordinary {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if all.len() < most && known.contains(left) && known.contains(right) {
                    let merge = format!("{left} {right}");
                    if seen.insert(merge.clone()) {
                        all.push(merge);
                    }
                }
            }
        }
        let first = ordinary.len();
        let tokens: Vec<String> = ordinary.iter().cloned().chain((0..specials).map(special)).collect();
        let types: Vec<i32> = (0..vocab).map(|i| if i < first { 1 } else { 3 }).collect();
        let first = u32::try_from(first)?;
        writer.meta("tokenizer.ggml.model", "gpt2".to_owned())?;
        writer.meta("tokenizer.ggml.tokens", MetaValue::strings(&tokens))?;
        writer.meta("tokenizer.ggml.scores", vec![0f32; vocab])?;
        writer.meta("tokenizer.ggml.token_type", types)?;
        writer.meta("tokenizer.ggml.merges", MetaValue::strings(&all))?;
        writer.meta("tokenizer.ggml.bos_token_id", first)?;
        writer.meta("tokenizer.ggml.eos_token_id", first + 1)?;
        writer.meta("tokenizer.ggml.padding_token_id", first + 1)?;
        Ok(())
    }

    /// The layout of LLaMA-2's vocabulary: three specials, 256 byte tokens, merged pieces by descending score, then
    /// single characters with the lowest scores.
    pub(super) fn write_spm(&self, writer: &mut GgufWriter<'_>, vocab: usize) -> Result<(), Failure> {
        const CHARACTERS: &str = "\u{2581}etaoinshrdlucmfwygpbvkxqjzETAOINSHRDLUCMFWYGPBVKXQJZ0123456789.,;:!?'\"-()";
        let mut tokens = vec![("<unk>".to_owned(), 2), ("<s>".to_owned(), 3), ("</s>".to_owned(), 3)];
        tokens.extend((0..=255u8).map(|b| (format!("<0x{b:02X}>"), 6)));
        let room = vocab.checked_sub(tokens.len() + CHARACTERS.chars().count());
        let room = room.ok_or_else(|| Failure::new(format_args!("no SPM vocabulary of {vocab} tokens")))?;
        // A merged piece is reachable if both of its halves are; the order of learning guarantees it as long as all of
        // its characters are in the table. In the byte-level alphabet a space is `Ġ`.
        let pieces = self.merges.iter().map(|m| m.replace(' ', "").replace('Ġ', "\u{2581}"));
        let known = pieces.filter(|p| p.chars().all(|c| CHARACTERS.contains(c)));
        tokens.extend(known.take(room).map(|p| (p, 1)));
        tokens.extend(CHARACTERS.chars().map(|c| (c.to_string(), 1)));
        if tokens.len() != vocab {
            return Err(Failure::new(format_args!("only {} pieces for a vocabulary of {vocab}", tokens.len())));
        }
        let scores: Vec<f32> = (0..vocab).map(|i| if i < 259 { 0.0 } else { 259.0 - i as f32 }).collect();
        writer.meta("tokenizer.ggml.model", "llama".to_owned())?;
        writer.meta("tokenizer.ggml.tokens", MetaValue::strings(tokens.iter().map(|t| &t.0)))?;
        writer.meta("tokenizer.ggml.scores", scores)?;
        writer.meta("tokenizer.ggml.token_type", tokens.iter().map(|t| t.1).collect::<Vec<i32>>())?;
        writer.meta("tokenizer.ggml.bos_token_id", 1u32)?;
        writer.meta("tokenizer.ggml.eos_token_id", 2u32)?;
        writer.meta("tokenizer.ggml.unknown_token_id", 0u32)?;
        Ok(())
    }
}
