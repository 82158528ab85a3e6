//! The compatibility table: which tokenizer belongs to which model, as data.
//!
//! A model that carries its own tokens is recognised by them (`probes`), whatever it calls itself. One without
//! tokens is recognised by architecture and vocabulary size; where two families share both, by its name, and where that
//! says nothing the first line is taken *and the doubt is told*.
//!
//! `revision` is a branch where no commit could be vouched for when the line was written: then the files that were used first
//! are remembered (`pins`), and others under the same name are a warning, in strict mode an error.
//!
//! `repos` lists repositories that ask for no login first. The ids are those of the families' own published
//! `tokenizer_config.json` and `generation_config.json`.

use crate::gguf::{ArrayView, Metadata};
use crate::named::named;
use crate::tokenizer::wrappers::{BitNetTokenizerWrapper, Dressed, Gpt2TokenizerWrapper, LlamaTokenizerWrapper};
use crate::tokenizer::{TokenKind, Tokenizer, TokenizerError};
use std::collections::HashMap;
use std::sync::Arc;

/// An id with a role, under the name that GGUF has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Role {
    /// Last part of `tokenizer.ggml.<key>`.
    pub key: &'static str,
    /// The id.
    pub id: u32,
    /// The token's text, by which a file is checked before anything is believed.
    pub text: &'static str,
}

/// Sets a tokenizer's roles right: `dress` of a type of [`crate::tokenizer::wrappers`].
pub type Wrapper = fn(Arc<dyn Tokenizer>) -> Result<Dressed, TokenizerError>;

/// One line of [`COMPATIBILITY`].
#[derive(Debug, Clone)]
pub struct Compatibility {
    /// Stable name, e.g. `llama-3`.
    pub family: &'static str,
    /// For people.
    pub label: &'static str,
    /// Values of `general.architecture`.
    pub architectures: &'static [&'static str],
    /// Tokens, special ones included.
    pub vocab_size: usize,
    /// Words of a model's name (lower case) that speak for this line.
    pub names: &'static [&'static str],
    /// Whether architecture and size alone do not suffice, because families that are not in the table share them.
    pub needs_name: bool,
    /// (id, text) as GGUF writes it, that tell this vocabulary from the others of the table.
    pub probes: &'static [(usize, &'static str)],
    /// Name of its line in [`crate::tokenizer::fingerprint::KNOWN`], if it has one.
    pub fingerprint: Option<&'static str>,
    /// `bpe` or `spm`.
    pub kind: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<&'static str>,
    /// Ids with a role.
    pub special: &'static [Role],
    /// Whether BOS goes in front, where that is certain.
    pub add_bos: Option<bool>,
    /// Its wrapper; without one, what the source says is used.
    pub wrapper: Option<Wrapper>,
    /// Repositories with the files, the ungated ones first.
    pub repos: &'static [&'static str],
    /// Branch, tag or commit.
    pub revision: &'static str,
    /// Files without which there is no tokenizer.
    pub files: &'static [&'static str],
    /// Files that are taken along where they exist.
    pub companions: &'static [&'static str],
}

const fn role(key: &'static str, id: u32, text: &'static str) -> Role {
    Role { key, id, text }
}

/// What most lines have in common.
const LINE: Compatibility = Compatibility {
    family: "",
    label: "",
    architectures: &[],
    vocab_size: 0,
    names: &[],
    needs_name: false,
    probes: &[],
    fingerprint: None,
    kind: "bpe",
    pre: None,
    special: &[],
    add_bos: None,
    wrapper: None,
    repos: &[],
    revision: "main",
    files: &["tokenizer.json"],
    companions: &["tokenizer_config.json", "generation_config.json"],
};
/// LLaMA-3's vocabulary.
const LLAMA3: Compatibility = Compatibility {
    vocab_size: 128_256,
    probes: &[(0, "!"), (1000, "indow"), (100_769, "Ġviá»ĩc"), (128_000, "<|begin_of_text|>")],
    fingerprint: Some("LLaMA-3 (128,000 ordinary tokens)"),
    pre: Some("llama-bpe"),
    special: &[
        role("bos_token_id", 128_000, "<|begin_of_text|>"),
        role("eos_token_id", 128_001, "<|end_of_text|>"),
        role("eot_token_id", 128_009, "<|eot_id|>"),
    ],
    add_bos: Some(true),
    wrapper: Some(LlamaTokenizerWrapper::dress),
    ..LINE
};
/// LLaMA-2's vocabulary.
const LLAMA2: Compatibility = Compatibility {
    vocab_size: 32_000,
    probes: &[(1, "<s>"), (278, "▁the"), (3186, "▁world"), (15_043, "▁Hello")],
    kind: "spm",
    special: LLAMA2_ROLES,
    add_bos: Some(true),
    wrapper: Some(LlamaTokenizerWrapper::dress),
    ..LINE
};
const LLAMA2_ROLES: &[Role] =
    &[role("bos_token_id", 1, "<s>"), role("eos_token_id", 2, "</s>"), role("unknown_token_id", 0, "<unk>")];
/// Those of infilling have GGUF's keys of "fill in the middle"; the last ends what was filled in.
const CODELLAMA_ROLES: &[Role] = &[
    role("bos_token_id", 1, "<s>"),
    role("eos_token_id", 2, "</s>"),
    role("unknown_token_id", 0, "<unk>"),
    role("fim_pre_token_id", 32_007, "▁<PRE>"),
    role("fim_suf_token_id", 32_008, "▁<SUF>"),
    role("fim_mid_token_id", 32_009, "▁<MID>"),
    role("eot_token_id", 32_010, "▁<EOT>"),
];

/// Every known pairing, one entry each. To add a family: one entry here, and one in `fingerprint::KNOWN` if it is a
/// byte-level BPE.
pub static COMPATIBILITY: &[Compatibility] = &[
    Compatibility {
        family: "bitnet-2b-4t",
        label: "BitNet b1.58 2B-4T (LLaMA-3's vocabulary)",
        architectures: &["bitnet-b1.58", "bitnet-25", "bitnet"],
        names: &["bitnet", "2b-4t", "2b_4t"],
        wrapper: Some(BitNetTokenizerWrapper::dress),
        repos: &["microsoft/bitnet-b1.58-2B-4T", "microsoft/bitnet-b1.58-2B-4T-bf16"],
        ..LLAMA3
    },
    Compatibility {
        family: "llama-3",
        label: "LLaMA-3",
        architectures: &["llama"],
        names: &["llama-3", "llama 3", "llama3"],
        repos: &["NousResearch/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B"],
        ..LLAMA3
    },
    Compatibility {
        family: "llama-2",
        label: "LLaMA-2",
        architectures: &["llama", "bitnet"],
        names: &["llama"],
        repos: &["NousResearch/Llama-2-7b-hf", "hf-internal-testing/llama-tokenizer", "meta-llama/Llama-2-7b-hf"],
        ..LLAMA2
    },
    Compatibility {
        family: "mistral",
        label: "Mistral v0.1",
        architectures: &["llama", "mistral"],
        names: &["mistral", "mixtral", "zephyr"],
        probes: &[(1, "<s>"), (260, "▁▁▁▁"), (1526, "▁world"), (22_557, "▁Hello")],
        repos: &["Xenova/mistral-tokenizer-v1", "mistralai/Mistral-7B-v0.1"],
        ..LLAMA2
    },
    Compatibility {
        family: "codellama",
        label: "CodeLlama",
        architectures: &["llama"],
        vocab_size: 32_016,
        names: &["codellama", "code-llama", "code llama"],
        probes: &[(278, "▁the"), (15_043, "▁Hello"), (32_007, "▁<PRE>"), (32_010, "▁<EOT>")],
        special: CODELLAMA_ROLES,
        repos: &["codellama/CodeLlama-7b-hf", "meta-llama/CodeLlama-7b-hf"],
        ..LLAMA2
    },
    Compatibility {
        family: "bitnet-b1.58-3b",
        label: "BitNet b1.58 of 1bitLLM (LLaMA-2's vocabulary and two more)",
        architectures: &["bitnet"],
        vocab_size: 32_002,
        names: &["bitnet"],
        wrapper: Some(BitNetTokenizerWrapper::dress),
        repos: &["1bitLLM/bitnet_b1_58-3B", "1bitLLM/bitnet_b1_58-large"],
        files: &["tokenizer.model"],
        companions: &[
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "generation_config.json",
        ],
        ..LLAMA2
    },
    Compatibility {
        family: "falcon3",
        label: "Falcon3 (also the 1.58-bit models)",
        architectures: &["llama", "bitnet", "falcon3"],
        vocab_size: 131_072,
        names: &["falcon3", "falcon-3", "falcon 3"],
        needs_name: true,
        // Its special tokens, which only this family of the table has in front. Its ordinary tokens are not at hand, so it has no
        // fingerprint, and the pre-tokenizer is written into no file.
        probes: &[(0, ">>TITLE<<"), (7, ">>DOMAIN<<"), (11, "<|endoftext|>"), (25, ">>KEY<<")],
        pre: Some("falcon3"),
        special: &[role("eos_token_id", 11, "<|endoftext|>")],
        repos: &["tiiuae/Falcon3-7B-Instruct-1.58bit", "tiiuae/Falcon3-7B-Instruct"],
        ..LINE
    },
    Compatibility {
        family: "gpt-2",
        label: "GPT-2",
        architectures: &["gpt2"],
        vocab_size: 50_257,
        names: &["gpt2", "gpt-2"],
        probes: &[(0, "!"), (1000, "ale"), (50_255, "Ġgazed"), (50_256, "<|endoftext|>")],
        fingerprint: Some("GPT-2 (50,256 ordinary tokens)"),
        pre: Some("gpt-2"),
        special: &[role("bos_token_id", 50_256, "<|endoftext|>"), role("eos_token_id", 50_256, "<|endoftext|>")],
        add_bos: Some(false),
        wrapper: Some(Gpt2TokenizerWrapper::dress),
        repos: &["openai-community/gpt2", "gpt2"],
        ..LINE
    },
    Compatibility {
        family: "smollm2",
        label: "SmolLM2",
        architectures: &["llama"],
        vocab_size: 49_152,
        names: &["smollm"],
        probes: &[(0, "<|endoftext|>"), (17, "!"), (1000, "()"), (49_151, "ectable")],
        fingerprint: Some("SmolLM2 (49,135 ordinary tokens)"),
        pre: Some("smollm"),
        // Which of the first three tokens begin and end a text differs between the base and the instruct models.
        repos: &["HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"],
        ..LINE
    },
];

named! {
    /// What a model was recognised by.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Evidence {
        /// Its own tokens.
        Tokens = "tokens",
        /// Architecture, vocabulary size and name.
        Name = "name",
        /// Architecture and vocabulary size, which no other family shares.
        Size = "size",
        /// Architecture and vocabulary size, which others share too.
        Guess = "guess",
    }
}

/// A model's line in the table.
#[derive(Debug, Clone)]
pub struct Recognised {
    /// The line.
    pub line: &'static Compatibility,
    /// Why this one.
    pub evidence: Evidence,
    /// Families with the same architecture and size.
    pub others: Vec<&'static str>,
}

/// The line of a model, from its metadata. `architecture` and `vocab_size` as discovery found them.
pub fn recognise(metadata: &Metadata, architecture: &str, vocab_size: usize) -> Option<Recognised> {
    let tokens = metadata.array("tokenizer.ggml.tokens").ok().flatten().filter(|tokens| !tokens.is_empty());
    if let Some(tokens) = tokens {
        let n = tokens.len();
        let mut same_size = probed(&tokens, |line| line.vocab_size == n);
        if same_size.is_empty() {
            let smaller = probed(&tokens, |line| line.vocab_size < n);
            let real = if smaller.is_empty() { n } else { n - padding(metadata) };
            same_size = smaller.into_iter().filter(|line| line.vocab_size >= real).collect();
        }
        let mut same_size = same_size.into_iter();
        let first = same_size.next()?;
        // BitNet-2B-4T has LLaMA-3's vocabulary to the last token: only the architecture tells them apart.
        let line = std::iter::once(first)
            .chain(same_size)
            .find(|line| line.architectures.contains(&architecture))
            .unwrap_or(first);
        return Some(Recognised { line, evidence: Evidence::Tokens, others: Vec::new() });
    }
    let name = names(metadata);
    let named = |line: &Compatibility| line.names.iter().any(|word| name.contains(word));
    let all: Vec<&'static Compatibility> = COMPATIBILITY
        .iter()
        .filter(|line| line.vocab_size == vocab_size && line.architectures.contains(&architecture))
        .filter(|line| !line.needs_name || named(line))
        .collect();
    let (line, evidence) = match all.as_slice() {
        [] => return None,
        [one] => (*one, if one.needs_name { Evidence::Name } else { Evidence::Size }),
        [first, ..] => match all.iter().filter(|line| named(line)).collect::<Vec<_>>().as_slice() {
            [one] => (**one, Evidence::Name),
            _ => (*first, Evidence::Guess),
        },
    };
    let others = all.iter().filter(|other| other.family != line.family).map(|other| other.family).collect();
    Some(Recognised { line, evidence, others })
}

/// The lines of the table that are `wanted` and whose probes are among the tokens. One pass over the list, whatever their number.
fn probed(tokens: &ArrayView<'_>, wanted: impl Fn(&Compatibility) -> bool) -> Vec<&'static Compatibility> {
    let lines: Vec<_> = COMPATIBILITY.iter().filter(|line| !line.probes.is_empty() && wanted(line)).collect();
    let mut ids: Vec<usize> = lines.iter().flat_map(|line| line.probes).map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let (Ok(mut texts), mut next) = (tokens.strings(), 0) else { return Vec::new() };
    let mut found = HashMap::new();
    for id in ids {
        found.insert(id, texts.nth(id - next));
        next = id + 1;
    }
    let has = |(id, text): &(usize, &str)| found.get(id) == Some(&Some(text.as_bytes()));
    lines.into_iter().filter(|line| line.probes.iter().all(has)).collect()
}

/// Tokens at the end of the model's list that stand for nothing: `[PAD32003]`, as converters fill a list up to the rows of
/// the embedding, and those of the type "unused". The tokenizer's own files do not have them.
pub(super) fn padding(metadata: &Metadata) -> usize {
    let list = |name| metadata.array(name).ok().flatten();
    let Some(tokens) = list("tokenizer.ggml.tokens") else { return 0 };
    let Ok(texts) = tokens.strings() else { return 0 };
    let types = list("tokenizer.ggml.token_type").filter(|types| types.len() == tokens.len());
    let mut types = types.as_ref().map(|types| types.iter());
    let unused = Some(TokenKind::Unused);
    let mut run = 0;
    for text in texts {
        let kind = types.as_mut().and_then(Iterator::next).and_then(|kind| kind.as_integer());
        let kind = kind.and_then(|kind| i64::try_from(kind).ok()).and_then(TokenKind::from_gguf);
        let number = text.strip_prefix(b"[PAD").and_then(|rest| rest.strip_suffix(b"]"));
        let pad = number.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
        run = if pad || kind == unused { run + 1 } else { 0 };
    }
    // A list of nothing else is not padded but empty of sense.
    if run == tokens.len() { 0 } else { run }
}

/// All that the metadata calls the model, in lower case.
fn names(metadata: &Metadata) -> String {
    ["general.name", "general.basename", "general.base_model.0.name", "general.source.huggingface.repository"]
        .iter()
        .filter_map(|key| metadata.str(key).ok().flatten())
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The line with this name.
pub fn by_family(family: &str) -> Option<&'static Compatibility> {
    COMPATIBILITY.iter().find(|line| line.family == family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{fingerprint, pretokenize};
    use std::collections::HashSet;

    #[test]
    fn the_table_is_sound() {
        let mut families = HashSet::new();
        for line in COMPATIBILITY {
            assert!(families.insert(line.family), "{} twice", line.family);
            assert!(!line.architectures.is_empty() && !line.repos.is_empty() && !line.files.is_empty());
            assert!(line.probes.windows(2).all(|pair| pair[0].0 < pair[1].0), "{}: probes ascend", line.family);
            assert!(line.probes.iter().all(|(id, _)| *id < line.vocab_size), "{}", line.family);
            assert!(line.special.iter().all(|role| (role.id as usize) < line.vocab_size), "{}", line.family);
            assert_eq!(line.kind == "bpe", line.pre.is_some(), "{}", line.family);
            if let Some(pre) = line.pre {
                assert!(pretokenize::by_name(pre).is_some(), "{}: {pre}", line.family);
            }
            if let Some(name) = line.fingerprint {
                let known = fingerprint::KNOWN.iter().find(|f| f.name == name).expect(name);
                assert_eq!(Some(known.pre), line.pre, "{}", line.family);
            }
            for repo in line.repos {
                crate::hub::check_repo_name(repo).unwrap();
            }
        }
        for (family, size) in
            [("llama-2", 32_000), ("llama-3", 128_256), ("codellama", 32_016), ("gpt-2", 50_257), ("falcon3", 131_072)]
        {
            assert_eq!(by_family(family).unwrap().vocab_size, size);
        }
        for architecture in ["bitnet", "bitnet-25", "bitnet-b1.58"] {
            let known = COMPATIBILITY.iter().any(|line| line.architectures.contains(&architecture));
            assert!(known, "{architecture}");
        }
    }
}
