//! Whether our engine can run a tokenizer.json, exactly: if every part is one that it has, the file becomes a
//! `VocabSource`; otherwise the crate `tokenizers` runs it, and the reason is told.
//!
//! What was measured rather than assumed: of merges given twice HuggingFace keeps the last; added tokens get the id of
//! their text in the vocabulary or the next free one, whatever id the file writes; tokens with `normalized` are looked
//! for in a second pass. Where such a rule cannot matter for the file at hand our engine runs it.

use super::super::bpe::Wholes;
use super::super::byte_alphabet;
use super::super::error::{Diagnostic, TokenizerError};
use super::super::special::MAX_LEN;
use super::super::vocab::{MergeRule, TokenKind, VocabSource, byte_token, show};
use super::super::{Loaded, from_source};
use super::companions::{AddedToken, Companions};
use super::hf_crate;
use super::hf_json::{HfFile, Ids, Merge, Vocab, parse};
use super::hf_parts::{Cut, Frame, Other, Spaces, cut, decodes_bytes, decodes_pieces, frame, spaces};
use super::{bad, by_id};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Why a file does not become a source.
enum Stop {
    /// The crate can run it.
    Other(Other),
    /// Nobody can.
    Bad(TokenizerError),
}

impl From<Other> for Stop {
    fn from(reason: Other) -> Self {
        Self::Other(reason)
    }
}

fn other<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Other(reason.into()))
}

/// Builds the tokenizer of a tokenizer.json.
///
/// # Errors
/// [`TokenizerError::BadFile`] and what the engines say.
pub(super) fn load(name: &str, bytes: &[u8], companions: &Companions) -> Result<Loaded, TokenizerError> {
    let file = parse(name, bytes)?;
    let mut diagnostics = Vec::new();
    if file.model.dropout.is_some_and(|d| d != 0.0) {
        diagnostics.push(Diagnostic::info(
            "dropout_ignored",
            format!("`{name}` drops merges at random (dropout), which is for training; ids are made without it"),
            "",
        ));
    }
    config_only(&file, companions, &mut diagnostics);
    let planned = source(name, &file, companions, &mut diagnostics);
    let mut loaded = match planned {
        Ok(source) => from_source(source)?,
        Err(Stop::Bad(error)) => return Err(error),
        Err(Stop::Other(reason)) => {
            let frame = frame(&file.post_processor).ok().map(|f| {
                class_frame(f, companions, &mut diagnostics, &|text| {
                    file.added_tokens.iter().find(|t| t.content == text).map(|t| t.id)
                })
            });
            hf_crate::load(name, bytes, &reason, file.model.dropout.is_some(), frame, companions)?
        }
    };
    diagnostics.append(&mut loaded.diagnostics);
    Ok(Loaded { tokenizer: loaded.tokenizer, diagnostics })
}

/// The vocabulary of a tokenizer.json, or why our engine cannot run it.
pub(super) fn plain_source(name: &str, bytes: &[u8], companions: &Companions) -> Result<VocabSource, String> {
    let file = parse(name, bytes).map_err(|error| error.to_string())?;
    source(name, &file, companions, &mut Vec::new()).map(|source| source.owned()).map_err(|stop| match stop {
        Stop::Other(reason) => reason,
        Stop::Bad(error) => error.to_string(),
    })
}

/// Tokens that tokenizer_config.json or added_tokens.json have and tokenizer.json has not.
fn config_only(file: &HfFile<'_>, companions: &Companions, diagnostics: &mut Vec<Diagnostic>) {
    let known: HashSet<&str> = file.added_tokens.iter().map(|t| t.content.as_str()).collect();
    let inside = |text: &str| matches!(&file.model.vocab, Vocab::Map(vocab) if vocab.contains(text));
    let missing: Vec<&AddedToken> =
        companions.added.iter().filter(|t| !known.contains(t.content.as_str()) && !inside(&t.content)).collect();
    if let (Some(first), false) = (missing.first(), matches!(file.model.vocab, Vocab::List)) {
        diagnostics.push(Diagnostic::warning(
            "added_tokens_only_in_companions",
            format!(
                "the companions list {} tokens that tokenizer.json lacks (the first is {} `{}`); they are left out",
                missing.len(),
                first.id,
                first.content
            ),
            "use the companions that were published with the tokenizer",
        ));
    }
}

/// `transformers` builds the frame of LLaMA tokenizers from tokenizer_config.json, whatever tokenizer.json says.
fn class_frame(
    file: Frame,
    companions: &Companions,
    diagnostics: &mut Vec<Diagnostic>,
    find: &dyn Fn(&str) -> Option<u32>,
) -> Frame {
    if !companions.class_frames() {
        return file;
    }
    let mut roles = VocabSource { tokens: vec![""], ..VocabSource::default() };
    companions.apply(&mut roles, find, &mut Vec::new());
    let side = |wanted: Option<bool>, file: Option<u32>, id: Option<u32>| match wanted {
        Some(true) => file.or(id),
        Some(false) => None,
        None => file,
    };
    let framed = Frame {
        front: side(companions.add_bos, file.front, roles.bos),
        back: side(companions.add_eos, file.back, roles.eos),
    };
    if framed != file {
        diagnostics.push(Diagnostic::info(
            "frame_from_config",
            "tokenizer_config.json and tokenizer.json disagree about BOS and EOS around a text; tokenizer_config.json is followed, as `transformers` does for LLaMA tokenizers".to_owned(),
            "",
        ));
    }
    framed
}

/// Texts that stay in the file where they can.
type Bytes<'a> = Cow<'a, [u8]>;

fn bytes(text: &str) -> Bytes<'_> {
    Cow::Borrowed(text.as_bytes())
}

fn source<'a>(
    name: &str,
    file: &'a HfFile<'_>,
    companions: &Companions,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<VocabSource<Bytes<'a>>, Stop> {
    let model = &file.model;
    if let Some(kind) = model.kind.as_deref().filter(|k| *k != "BPE") {
        return other(format!("model type {kind}"));
    }
    let (Vocab::Map(vocab), Some(merges)) = (&model.vocab, &model.merges) else {
        return other("a model without a vocabulary of ids or without merges");
    };
    for (what, text) in [("prefix", &model.continuing_subword_prefix), ("suffix", &model.end_of_word_suffix)] {
        if text.as_ref().is_some_and(|t| !t.is_empty()) {
            return other(format!("subword {what}"));
        }
    }
    let ids = added_ids(&file.added_tokens, vocab)?;
    let beyond: HashMap<&str, u32> =
        ids.iter().filter(|(text, _)| !vocab.contains(text)).map(|(t, id)| (*t, *id)).collect();
    let beyond = beyond.into_iter().map(|(text, id)| (Cow::Borrowed(text.as_bytes()), id));
    let all: Vec<_> = vocab.iter().map(|(text, id)| (bytes(text), id)).chain(beyond).collect();
    let tokens = by_id(name, all.into_iter()).map_err(Stop::Bad)?;
    let mut token_types = vec![TokenKind::Normal; tokens.len()];
    for token in file.added_tokens.iter().filter(|t| !t.content.is_empty()) {
        let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        if let Some(slot) = ids.get(token.content.as_str()).and_then(|id| token_types.get_mut(*id as usize)) {
            *slot = kind;
        }
    }
    let find = |text: &str| ids.get(text).copied().or_else(|| vocab.get(text));
    let frame = class_frame(frame(&file.post_processor)?, companions, diagnostics, &find);
    let mut source = VocabSource {
        merge_rule: MergeRule::Merges,
        lists_specials: true,
        add_bos: Some(frame.front.is_some()),
        add_eos: Some(frame.back.is_some()),
        unk: model.unk_token.as_deref().and_then(find),
        merges: merge_list(name, merges, vocab, (&tokens, &token_types))?,
        tokens,
        token_types,
        ..VocabSource::default()
    };
    let cut = cut(&file.pre_tokenizer)?;
    let spaces = spaces(&file.normalizer)?;
    check_added(&file.added_tokens, spaces == Spaces::Kept)?;
    match (cut, spaces) {
        (Cut::ByteLevel(pre), Spaces::Kept) => byte_level(file, pre, &find, &mut source)?,
        (Cut::Whole, Spaces::Replaced | Spaces::Prefixed) | (Cut::Metaspace, Spaces::Kept) => {
            pieces(file, spaces == Spaces::Prefixed, &mut source)?;
        }
        (cut, spaces) => return other(format!("pre-tokenizer {cut:?} with spaces {spaces:?}")),
    }
    companions.apply(&mut source, &find, diagnostics);
    source.bos = frame.front.or(source.bos);
    source.eos = frame.back.or(source.eos);
    guess_roles(&mut source, &find, diagnostics);
    Ok(source)
}

/// The ids of the added tokens as HuggingFace gives them.
fn added_ids<'a>(added: &'a [AddedToken], vocab: &Ids<'_>) -> Result<HashMap<&'a str, u32>, Stop> {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let mut next = vocab.len() as u32;
    for token in added.iter().filter(|t| !t.content.is_empty()) {
        let text = token.content.as_str();
        let id = match vocab.get(text).or_else(|| ids.get(text).copied()) {
            Some(id) => id,
            None => {
                next += 1;
                next - 1
            }
        };
        if id != token.id {
            return other(format!("added token `{text}` is written with id {} but gets {id}", token.id));
        }
        ids.insert(text, id);
    }
    Ok(ids)
}

/// `left right`, of duplicates the last. `tokens` are the vocabulary's by id, of these `kinds`.
fn merge_list<'a>(
    name: &str,
    merges: &'a [Merge<'_>],
    vocab: &Ids<'_>,
    (tokens, kinds): (&[Bytes<'_>], &[TokenKind]),
) -> Result<Vec<Bytes<'a>>, Stop> {
    let mut out: Vec<Bytes<'a>> = Vec::with_capacity(merges.len());
    let mut pairs = Vec::with_capacity(merges.len());
    let mut ids = Vec::with_capacity(merges.len() * 2);
    let both = merges.iter().flat_map(|merge| merge.pieces().map_or([""; 2], |(left, right)| [left, right]));
    vocab.map().get_each(both.map(str::as_bytes), |id| ids.push(id));
    let mut wholes = Wholes::new(tokens, vocab.map());
    for (index, (merge, ids)) in merges.iter().zip(ids.as_chunks::<2>().0).enumerate() {
        let broken = |what: &str| Stop::Bad(bad(name, format!("merge {index} {what}")));
        let Some((left, right)) = merge.pieces() else {
            // HuggingFace reads over comments.
            if matches!(merge, Merge::Text(text) if text.starts_with("#version")) {
                continue;
            }
            return Err(broken("is not two pieces"));
        };
        if left.is_empty() || right.is_empty() {
            return Err(broken("has an empty piece"));
        }
        let ordinary = |id: Option<u32>, piece: &dyn Fn() -> String| match id {
            None => Err(broken(&format!("has `{}`, which is not a token", show(piece().as_bytes())))),
            Some(id) => match kinds.get(id as usize) {
                Some(kind) if kind.is_text() => Ok(id),
                _ => other(format!("merge {index} has the special token `{}`", show(piece().as_bytes()))),
            },
        };
        let (left_id, right_id) = (ordinary(ids[0], &|| left.to_owned())?, ordinary(ids[1], &|| right.to_owned())?);
        // An added token's text may be no token of the vocabulary.
        let sure = |id: u32| kinds.get(id as usize) == Some(&TokenKind::Normal);
        ordinary(wholes.id(left.as_bytes(), right.as_bytes(), sure), &|| [left, right].concat())?;
        if left.contains(' ') || right.contains(' ') {
            return other(format!("merge {index} has a piece with a space"));
        }
        pairs.push((u64::from(left_id) << 32 | u64::from(right_id), out.len()));
        out.push(match merge {
            Merge::Text(text) => bytes(text),
            Merge::Pair(..) => Cow::Owned([left, right].join(" ").into_bytes()),
        });
    }
    pairs.sort_unstable();
    let mut repeated = vec![false; out.len()];
    for pair in pairs.windows(2).filter(|w| w[0].0 == w[1].0) {
        repeated[pair[0].1] = true;
    }
    let mut index = 0;
    out.retain(|_| {
        index += 1;
        !repeated[index - 1]
    });
    Ok(out)
}

/// Whether two texts can overlap in some text.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let short = a.len().min(b.len());
    let meets = |a: &[u8], b: &[u8]| (1..=short).any(|n| a.ends_with(&b[..n]));
    let inside = |a: &[u8], b: &[u8]| a.windows(b.len().max(1)).any(|w| w == b);
    meets(a, b) || meets(b, a) || inside(a, b) || inside(b, a)
}

fn check_added(added: &[AddedToken], plain: bool) -> Result<(), Stop> {
    let real = || added.iter().filter(|t| !t.content.is_empty());
    if let Some(token) = real().find(|t| t.lstrip || t.rstrip || t.single_word) {
        return other(format!("added token `{}` strips spaces or stands only as a word", token.content));
    }
    if let Some(token) = real().find(|t| t.content.len() > MAX_LEN) {
        return other(format!("added token {} has {} bytes", token.id, token.content.len()));
    }
    if let (Some(token), false) = (real().find(|t| t.normalized), plain) {
        return other(format!("added token `{}` is looked for after normalising", token.content));
    }
    // Two passes, and for plain text a third rule; one matcher does the same unless tokens of two passes can meet.
    for apart in [|t: &AddedToken| t.normalized, |t: &AddedToken| t.special] {
        let (one, two): (Vec<_>, Vec<_>) = real().partition(|t| apart(t));
        if one.len() * two.len() > 1 << 20 {
            return other("too many added tokens of two kinds");
        }
        for a in &one {
            if let Some(b) = two.iter().find(|b| overlap(&a.content, &b.content)) {
                return other(format!("added tokens `{}` and `{}` are of two kinds and overlap", a.content, b.content));
            }
        }
    }
    Ok(())
}

fn byte_level(
    file: &HfFile<'_>,
    pre: &'static str,
    find: &dyn Fn(&str) -> Option<u32>,
    source: &mut VocabSource<Bytes<'_>>,
) -> Result<(), Stop> {
    decodes_bytes(&file.decoder)?;
    let mut missing = 0usize;
    for byte in 0..=u8::MAX {
        match find(byte_alphabet::to_char(byte).encode_utf8(&mut [0; 4])) {
            None => missing += 1,
            Some(id) if !source.token_types.get(id as usize).is_some_and(|k| k.is_text()) => {
                return other(format!("byte {byte:#04x} is a special token"));
            }
            Some(_) => {}
        }
    }
    if missing > 0 && (file.model.unk_token.is_some() || file.model.byte_fallback == Some(true)) {
        return other(format!("{missing} bytes without a token become the unknown token"));
    }
    source.model = "gpt2".to_owned();
    source.pre = Some(pre.to_owned());
    source.ignore_merges = Some(file.model.ignore_merges == Some(true));
    Ok(())
}

/// LLaMA-2's kind: characters, byte tokens for those that are not tokens, and merges over all of the text.
fn pieces(file: &HfFile<'_>, prefix: bool, source: &mut VocabSource<Bytes<'_>>) -> Result<(), Stop> {
    decodes_pieces(&file.decoder, prefix)?;
    if file.model.byte_fallback != Some(true) {
        return other("SentencePiece merges without byte fallback");
    }
    if file.model.ignore_merges == Some(true) {
        return other("SentencePiece pieces that ignore merges");
    }
    let mut bytes = [false; 256];
    for (text, kind) in source.tokens.iter().zip(&mut source.token_types) {
        let Some(byte) = byte_token(text) else { continue };
        // HuggingFace writes the digits in upper case.
        if *kind != TokenKind::Normal || text.iter().skip(3).any(u8::is_ascii_lowercase) {
            return other(format!("byte token of {byte:#04x} is written or typed unusually"));
        }
        *kind = TokenKind::Byte;
        bytes[usize::from(byte)] = true;
    }
    if bytes.contains(&false) {
        return other("some byte tokens are missing");
    }
    let single = |t: &[u8]| std::str::from_utf8(t).is_ok_and(|t| t.chars().count() == 1);
    let special = |k: &TokenKind| matches!(k, TokenKind::Control);
    if source.tokens.iter().zip(&source.token_types).any(|(t, k)| special(k) && single(t)) {
        return other("a special token of one character");
    }
    if source.merges.iter().any(|m| m.windows(3).any(|w| w == b"<0x")) {
        return other("merges of byte tokens");
    }
    source.model = "llama".to_owned();
    source.add_space_prefix = Some(prefix);
    Ok(())
}

/// Texts of roles that a tokenizer.json does not name; the first that is a special token counts.
const BOS: &[&str] = &["<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>"];
const EOS: &[&str] = &["<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>"];

pub(super) fn guess_roles<T>(
    source: &mut VocabSource<T>,
    find: &dyn Fn(&str) -> Option<u32>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let control = |id: &u32| source.token_types.get(*id as usize) == Some(&TokenKind::Control);
    let guess = |texts: &[&str]| texts.iter().filter_map(|t| find(t)).find(control);
    let (bos, eos) = (guess(BOS), guess(EOS));
    let mut guessed = Vec::new();
    for (role, slot, id) in [("BOS", &mut source.bos, bos), ("EOS", &mut source.eos, eos)] {
        if let (None, Some(id)) = (*slot, id) {
            *slot = Some(id);
            guessed.push(format!("{role} {id}"));
        }
        // Nobody else shall guess.
        slot.get_or_insert(u32::MAX);
    }
    source.unk.get_or_insert(u32::MAX);
    if !guessed.is_empty() {
        diagnostics.push(Diagnostic::info(
            "roles_by_text",
            format!("nothing names them, so they were taken by their texts: {}", guessed.join(", ")),
            "put tokenizer_config.json beside the tokenizer",
        ));
    }
}
