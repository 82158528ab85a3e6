//! tiktoken's rank files: on every line a token in base64, a space, and its rank, which is its id.
//!
//! There are no merges: two neighbours merge if their bytes together are a token, the lowest rank first
//! ([`MergeRule::Ranks`]). And there are no special tokens and no splitting rule; both belong to the family. LLaMA-3 is
//! known by its vocabulary's fingerprint; its special tokens are those of Meta's `tokenizer.py`, of which LLaMA-3.1 to
//! 3.3 gave some other names.

use super::super::error::{Diagnostic, TokenizerError};
use super::super::vocab::{MergeRule, TokenKind, VocabSource};
use super::super::{byte_alphabet, fingerprint};
use super::companions::Companions;
use super::{Hints, Read, bad, base64, by_id, unsupported};

/// Ordinary tokens of LLaMA-3, and all.
const LLAMA3_BASE: u32 = 128_000;
const LLAMA3_SPECIALS: u32 = 256;

/// Names of LLaMA-3's special tokens by offset; every other is `<|reserved_special_token_N|>`, counted up.
const LLAMA3: &[(u32, &str)] = &[
    (0, "<|begin_of_text|>"),
    (1, "<|end_of_text|>"),
    (6, "<|start_header_id|>"),
    (7, "<|end_header_id|>"),
    (9, "<|eot_id|>"),
];
const LLAMA3_1: &[(u32, &str)] = &[
    (0, "<|begin_of_text|>"),
    (1, "<|end_of_text|>"),
    (4, "<|finetune_right_pad_id|>"),
    (6, "<|start_header_id|>"),
    (7, "<|end_header_id|>"),
    (8, "<|eom_id|>"),
    (9, "<|eot_id|>"),
    (10, "<|python_tag|>"),
];

fn llama3_specials(later: bool) -> Vec<String> {
    let names = if later { LLAMA3_1 } else { LLAMA3 };
    let mut reserved = 0;
    (0..LLAMA3_SPECIALS)
        .map(|offset| match names.iter().find(|n| n.0 == offset) {
            Some((_, name)) => (*name).to_owned(),
            None => {
                reserved += 1;
                format!("<|reserved_special_token_{}|>", reserved - 1)
            }
        })
        .collect()
}

/// Tokens of a file of so many ranks, with the special tokens that come behind them.
pub(super) fn with_specials(ranks: usize, companions: &Companions) -> usize {
    if ranks == LLAMA3_BASE as usize && companions.added.is_empty() {
        return ranks + LLAMA3_SPECIALS as usize;
    }
    companions.added.iter().fold(ranks, |n, token| n + usize::from(token.id as usize == n))
}

fn ranks(name: &str, bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, TokenizerError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut out = Vec::new();
    for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let broken = |what: &str| bad(name, format!("line {} {what}", index + 1));
        let (token, rank) = base64::split_line(line).ok_or_else(|| broken("is not a token, a space and a rank"))?;
        let token = base64::decode(token).ok_or_else(|| broken("has a token that is not base64"))?;
        let rank = std::str::from_utf8(rank).ok().filter(|r| r.bytes().all(|b| b.is_ascii_digit()));
        let rank = rank.and_then(|r| r.parse().ok()).ok_or_else(|| broken("has a rank that is not a number"))?;
        out.push((token, rank));
    }
    Ok(out)
}

/// What a rank file and its family say.
///
/// # Errors
/// [`TokenizerError::BadFile`]; [`TokenizerError::UnsupportedFile`] where nobody knows how text is split.
pub(super) fn source(name: &str, bytes: &[u8], companions: &Companions, hints: &Hints) -> Result<Read, TokenizerError> {
    let ranks = ranks(name, bytes)?;
    let mut diagnostics = Vec::new();
    let mut tokens = by_id(name, ranks.into_iter())?;
    for token in &mut tokens {
        *token = byte_alphabet::encode(token).into_bytes();
    }
    let base = tokens.len();
    let known = fingerprint::identify(&tokens, fingerprint::KNOWN);
    let pre = match (&hints.pre, known) {
        (Some(pre), _) => pre.clone(),
        (None, Some(f)) => f.pre.to_owned(),
        (None, None) => {
            return Err(unsupported(
                name,
                format!(
                    "a rank file does not say how text is split, and its {base} tokens (sha256 {}) are not a known vocabulary; use the model's tokenizer.json",
                    fingerprint::digest(&tokens)
                ),
            ));
        }
    };
    let mut token_types = vec![TokenKind::Normal; base];
    let llama3 = known.is_some_and(|f| f.ids.len() == LLAMA3_BASE as usize && f.pre == "llama-bpe");
    if llama3 && base == LLAMA3_BASE as usize && companions.added.is_empty() {
        let later = hints.family.is_some_and(|f| ["3.1", "3.2", "3.3"].iter().any(|v| f.contains(v)));
        tokens.extend(llama3_specials(later).into_iter().map(String::into_bytes));
        diagnostics.push(Diagnostic::info(
            "specials_of_family",
            format!(
                "a rank file has no special tokens; the {LLAMA3_SPECIALS} of LLaMA-{} were added",
                if later { "3.1" } else { "3" }
            ),
            "",
        ));
    }
    for token in &companions.added {
        match (token.id as usize).cmp(&tokens.len()) {
            std::cmp::Ordering::Equal => tokens.push(token.content.clone().into_bytes()),
            _ if tokens.get(token.id as usize).is_some_and(|t| *t == token.content.as_bytes()) => {}
            _ => diagnostics.push(Diagnostic::warning(
                "added_tokens_do_not_fit",
                format!(
                    "added token {} `{}` contradicts the ranks or leaves a gap behind them and is left out",
                    token.id, token.content
                ),
                "use the companions that were published with the tokenizer",
            )),
        }
    }
    token_types.resize(tokens.len(), TokenKind::Control);
    for token in companions.added.iter().filter(|t| !t.special && t.id as usize >= base) {
        if let Some(kind) = token_types.get_mut(token.id as usize) {
            *kind = TokenKind::UserDefined;
        }
    }
    if tokens.len() == base {
        diagnostics.push(Diagnostic::warning(
            "no_special_tokens",
            format!(
                "`{name}` is a rank file without special tokens, and none are known for it: nothing ends a generation"
            ),
            "put tokenizer_config.json beside it",
        ));
    }
    let specials: std::collections::HashMap<String, u32> = tokens
        .iter()
        .enumerate()
        .skip(base)
        .map(|(id, text)| (String::from_utf8_lossy(text).into_owned(), id as u32))
        .collect();
    let mut source = VocabSource {
        model: "gpt2".into(),
        pre: Some(pre),
        merge_rule: MergeRule::Ranks,
        ignore_merges: Some(true),
        lists_specials: true,
        tokens,
        token_types,
        add_bos: companions.add_bos.or(llama3.then_some(true)),
        add_eos: companions.add_eos,
        ..VocabSource::default()
    };
    let find = |text: &str| specials.get(text).copied();
    companions.apply(&mut source, &find, &mut diagnostics);
    super::hf_plan::guess_roles(&mut source, &find, &mut Vec::new());
    Ok(Read { source, diagnostics })
}
