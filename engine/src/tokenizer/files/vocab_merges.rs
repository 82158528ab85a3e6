//! GPT-2's pair: `vocab.json` (text in the byte alphabet to id) and `merges.txt` (two pieces on every line, the most
//! important first), also as OpenAI named them, `encoder.json` and `vocab.bpe`.
//!
//! Neither says how text is split. The fingerprint of the vocabulary knows, or `tokenizer_class`, or the caller; and
//! where nobody does it is GPT-2's expression, for the form is GPT-2's, with a warning.

use super::super::error::{Diagnostic, TokenizerError};
use super::super::fingerprint;
use super::super::roles::is_bar_marker;
use super::super::vocab::{TokenKind, VocabSource, show};
use super::companions::Companions;
use super::{Hints, Read, bad, by_id, unsupported};
use std::collections::HashMap;

/// What the pair says.
///
/// # Errors
/// [`TokenizerError::BadFile`], naming the half that is damaged; [`TokenizerError::UnsupportedFile`] for word pieces
/// that end in `</w>`.
pub(super) fn source(
    name: &str,
    vocab: &[u8],
    (merges_name, merges): (&str, &[u8]),
    companions: &Companions,
    hints: &Hints,
) -> Result<Read, TokenizerError> {
    let vocab = vocab.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(vocab);
    let vocab: HashMap<String, u32> = serde_json::from_slice(vocab).map_err(|e| bad(name, e.to_string()))?;
    let mut tokens = by_id(name, vocab.iter().map(|(text, id)| (text.as_bytes().to_vec(), *id)))?;
    let merges = merge_lines(merges_name, merges, &vocab)?;
    let mut diagnostics = Vec::new();
    let mut token_types: Vec<TokenKind> = tokens
        .iter()
        .map(|text| {
            let named = std::str::from_utf8(text).is_ok_and(|t| companions.is_role(t));
            // `<|endoftext|>` is in the vocabulary itself, and no text becomes it.
            if named || is_bar_marker(text) { TokenKind::Control } else { TokenKind::Normal }
        })
        .collect();
    for token in &companions.added {
        let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        let at = token.id as usize;
        if at == tokens.len() && !token.content.is_empty() {
            tokens.push(token.content.clone().into_bytes());
            token_types.push(kind);
        } else if tokens.get(at).is_some_and(|t| *t == token.content.as_bytes()) {
            token_types[at] = kind;
        } else {
            diagnostics.push(Diagnostic::warning(
                "added_tokens_do_not_fit",
                format!(
                    "added token {} `{}` contradicts the vocabulary or leaves a gap behind it and is left out",
                    token.id, token.content
                ),
                "use the companions that were published with the tokenizer",
            ));
        }
    }
    let pre = splitting(name, &tokens, companions, hints, &mut diagnostics);
    let mut source = VocabSource {
        model: "gpt2".into(),
        pre: Some(pre),
        ignore_merges: Some(false),
        lists_specials: true,
        merges,
        tokens,
        token_types,
        add_bos: Some(companions.add_bos == Some(true)),
        add_eos: Some(companions.add_eos == Some(true)),
        ..VocabSource::default()
    };
    let added: HashMap<&str, u32> = companions.added.iter().map(|t| (t.content.as_str(), t.id)).collect();
    let n = source.tokens.len();
    let find = |text: &str| vocab.get(text).or_else(|| added.get(text)).copied().filter(|&id| (id as usize) < n);
    companions.apply(&mut source, &find, &mut diagnostics);
    let gpt2 = find("<|endoftext|>");
    source.bos = source.bos.or(gpt2);
    source.unk = source.unk.or(gpt2);
    super::hf_plan::guess_roles(&mut source, &find, &mut Vec::new());
    Ok(Read { source, diagnostics })
}

fn merge_lines(name: &str, merges: &[u8], vocab: &HashMap<String, u32>) -> Result<Vec<Vec<u8>>, TokenizerError> {
    let text = std::str::from_utf8(merges).map_err(|e| bad(name, format!("byte {} is not UTF-8", e.valid_up_to())))?;
    let mut out = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let broken = |what: String| bad(name, format!("line {} {what}", index + 1));
        let shown = || show(line.as_bytes());
        let (left, right) = match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => (left, right),
            _ => return Err(broken(format!("(`{}`) is not two pieces", shown()))),
        };
        if right.ends_with("</w>") {
            return Err(unsupported(
                name,
                "its pieces end in `</w>`, which is not byte-level BPE; use the model's tokenizer.json",
            ));
        }
        let joined = format!("{left}{right}");
        if let Some(piece) = [left, right, &joined].into_iter().find(|p| !vocab.contains_key(*p)) {
            return Err(broken(format!(
                "(`{}`) has `{}`, which is not a token of the vocabulary",
                shown(),
                show(piece.as_bytes())
            )));
        }
        out.push(line.as_bytes().to_vec());
    }
    if out.is_empty() { Err(bad(name, "it has no merges")) } else { Ok(out) }
}

/// The name of the splitting rule.
fn splitting(
    name: &str,
    tokens: &[Vec<u8>],
    companions: &Companions,
    hints: &Hints,
    diagnostics: &mut Vec<Diagnostic>,
) -> String {
    if let Some(pre) = &hints.pre {
        return pre.clone();
    }
    if let Some(known) = fingerprint::identify(tokens, fingerprint::KNOWN) {
        return known.pre.to_owned();
    }
    match companions.class.as_deref() {
        Some("GPT2Tokenizer") => "gpt-2".to_owned(),
        Some("Qwen2Tokenizer") => {
            diagnostics.push(Diagnostic::info(
                "not_normalised",
                "text is taken as it is; Qwen2 normalises it to NFC first, which matters for decomposed characters only"
                    .to_owned(),
                "use the model's tokenizer.json, which says it",
            ));
            "qwen2".to_owned()
        }
        class => {
            let class = class.map(|c| format!(" (its tokenizer_class, {c}, is not known)")).unwrap_or_default();
            diagnostics.push(Diagnostic::warning(
                "pre_assumed",
                format!("`{name}` does not say how text is split{class}; GPT-2's expression is used"),
                "use the model's tokenizer.json, which says it",
            ));
            "gpt-2".to_owned()
        }
    }
}
