//! Which tokens have a role: what frames a text, what ends a generation, what is a control token.
//!
//! Files are often silent or wrong about it. What llama.cpp recognises by its text is recognised here, what it takes
//! blindly is not, and every repair is told.

use super::SpecialTokens;
use super::error::{Diagnostic, TokenizerError};
use super::vocab::{Defaults, TokenKind, VocabSource, byte_token, key, show};
use super::words::WordMap;

/// Texts that end a generation wherever they are a token (llama.cpp's list).
const END_MARKERS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];
/// Texts that end a generation only where the token is a control token already: as ordinary text they are common.
const CONTROL_END_MARKERS: &[&str] = &["</s>", "[EOT]", "<eos>", "[EOS]"];
/// Texts of an end of turn, the first that exists is it.
const EOT_MARKERS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<end_of_utterance>",
];

/// The ids with a role, checked against the vocabulary.
pub(super) fn roles<T>(
    source: &VocabSource<T>,
    defaults: Defaults,
    by_text: &WordMap,
    kinds: &[TokenKind],
    n: usize,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<SpecialTokens, TokenizerError> {
    let last = n as u32 - 1;
    // llama.cpp takes its default ids blindly; in a GPT-2 vocabulary 11 is the comma, and would end every text.
    let plausible = |id: &u32| match kinds.get(*id as usize) {
        Some(kind) => matches!(kind, TokenKind::Control | TokenKind::Unknown),
        None => defaults.untyped && *id <= last,
    };
    // BOS and EOS frame every text, so a wrong one is an error; -1 is how some converters write "none".
    let strict = |name: &str, id: Option<u32>, default: Option<u32>| match id {
        Some(u32::MAX) => Ok(None),
        Some(id) if id > last => Err(TokenizerError::IdOutOfRange { key: key(name), id, last }),
        Some(id) => Ok(Some(id)),
        None => Ok(default.filter(plausible)),
    };
    let bos = strict("bos_token_id", source.bos, defaults.bos)?;
    let eos = strict("eos_token_id", source.eos, defaults.eos)?;
    let mut lenient = |name: &str, id: Option<u32>, default: Option<u32>| match id {
        Some(u32::MAX) => None,
        Some(id) if id > last => {
            diagnostics.push(Diagnostic::warning(
                "id_out_of_range",
                format!("`{}` is {id}, but the vocabulary ends at {last}; it is ignored", key(name)),
                format!("bitnet convert FILE --set {}=ID -o FIXED", key(name)),
            ));
            None
        }
        Some(id) => Some(id),
        None => default.filter(plausible),
    };
    let find = |names: &[&str]| names.iter().find_map(|name| by_text.get(name.as_bytes()));
    let eot = lenient("eot_token_id", source.eot, None).or_else(|| find(EOT_MARKERS));
    let eom = lenient("eom_token_id", source.eom, None).or_else(|| find(&["<|eom_id|>"]));
    let unk = lenient("unknown_token_id", source.unk, defaults.unk);
    let pad = lenient("padding_token_id", source.pad, None);
    if eos.is_none() && eot.is_none() && eom.is_none() {
        diagnostics.push(Diagnostic::warning(
            "no_end_token",
            format!("the file names no end of sequence (`{}`) and none is recognised: generation ends only at the token limit", key("eos_token_id")),
            format!("bitnet convert FILE --set {}=ID -o FIXED", key("eos_token_id")),
        ));
    }
    Ok(SpecialTokens {
        bos,
        eos,
        eot,
        eom,
        unk,
        pad,
        add_bos: source.add_bos.unwrap_or(defaults.add_bos),
        add_eos: source.add_eos.unwrap_or(defaults.add_eos),
    })
}

/// Kinds where the file gives none.
pub(super) fn guess_kinds(tokens: &[&[u8]], special: &SpecialTokens) -> Vec<TokenKind> {
    let mut kinds: Vec<_> =
        tokens.iter().map(|t| if byte_token(t).is_some() { TokenKind::Byte } else { TokenKind::Normal }).collect();
    for id in [special.bos, special.eos, special.eot, special.eom].into_iter().flatten() {
        kinds[id as usize] = TokenKind::Control;
    }
    if let Some(id) = special.unk {
        kinds[id as usize] = TokenKind::Unknown;
    }
    kinds
}

/// Ids that end a generation.
pub(super) fn end_markers(special: &SpecialTokens, by_text: &WordMap, kinds: &[TokenKind]) -> Vec<u32> {
    let find = |names: &'static [&'static str]| names.iter().filter_map(|m| by_text.get(m.as_bytes()));
    let mut eog: Vec<u32> = [special.eos, special.eot, special.eom].into_iter().flatten().collect();
    eog.extend(find(END_MARKERS));
    eog.extend(find(CONTROL_END_MARKERS).filter(|&id| kinds[id as usize] == TokenKind::Control));
    eog.sort_unstable();
    eog.dedup();
    eog
}

/// What [`repair_kinds`] may retype, besides user-defined tokens that frame or end a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repair {
    /// Ordinary `<|name|>`.
    pub(super) markers: bool,
    /// Ordinary tokens that frame or end a text.
    pub(super) texts: bool,
}

/// Types tokens as control that can only be meant so: BOS, what ends a generation, and in a byte-level BPE every
/// `<|name|>` (no text becomes such a token, for pre-tokenizers cut it).
pub(super) fn repair_kinds(
    rule: Repair,
    frame: &[u32],
    tokens: &[&[u8]],
    kinds: &mut [TokenKind],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut repaired = Vec::new();
    for (id, (text, kind)) in tokens.iter().zip(kinds).enumerate() {
        let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
        let framing = !special && (rule.texts || *kind == TokenKind::UserDefined) && frame.contains(&(id as u32));
        let marker = rule.markers && *kind == TokenKind::Normal && is_bar_marker(text);
        if framing || marker {
            *kind = TokenKind::Control;
            repaired.push((id, show(text)));
        }
    }
    if let Some((id, text)) = repaired.first() {
        diagnostics.push(Diagnostic::warning(
            "control_type_corrected",
            format!("{} tokens that can only be control tokens were not typed as such and are now; the first is {id} `{text}`", repaired.len()),
            "convert the model again; its converter wrote wrong token types",
        ));
    }
}

/// `<|name|>`
pub(super) fn is_bar_marker(text: &[u8]) -> bool {
    text.strip_prefix(b"<|").and_then(|t| t.strip_suffix(b"|>")).is_some_and(|name| {
        name.iter().any(u8::is_ascii_alphabetic) && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    })
}

/// Whether a token of this text ends a generation wherever it is.
pub(super) fn is_end_marker(text: &[u8]) -> bool {
    END_MARKERS.iter().any(|m| m.as_bytes() == text)
}

#[cfg(test)]
mod tests {
    use super::super::words::WordMapBuilder;
    use super::TokenKind::{Byte, Control, Normal, Unknown, UserDefined};
    use super::*;

    fn by_text(tokens: &[&[u8]]) -> WordMap {
        let mut map = WordMapBuilder::with_capacity(tokens.len());
        (0..).zip(tokens).for_each(|(id, text)| map.add(text, id));
        map.finish()
    }

    const TEXTS: [&[u8]; 3] = [b"a", b"b", b"c"];

    /// The roles of three ordinary texts, and how much is told.
    fn of_three(source: &VocabSource<&[u8]>, defaults: Defaults, kinds: &[TokenKind]) -> (SpecialTokens, usize) {
        let mut told = Vec::new();
        let roles = roles(source, defaults, &by_text(&TEXTS), kinds, TEXTS.len(), &mut told).unwrap();
        (roles, told.len())
    }

    #[test]
    fn a_default_id_is_believed_where_it_can_be_meant() {
        let eos = |untyped, default, kinds: &[TokenKind]| {
            let defaults = Defaults { eos: Some(default), unk: Some(default), untyped, ..Defaults::default() };
            let (roles, told) = of_three(&VocabSource::default(), defaults, kinds);
            assert_eq!((roles.unk, told), (roles.eos, usize::from(roles.eos.is_none())));
            roles.eos
        };
        assert_eq!([0, 2, 3].map(|id| eos(true, id, &[])), [Some(0), Some(2), None]);
        assert_eq!([0, 2, 3].map(|id| eos(false, id, &[])), [None; 3]);
        for untyped in [true, false] {
            let typed = [0, 1, 2, 3].map(|id| eos(untyped, id, &[Normal, Control, Unknown]));
            assert_eq!(typed, [None, Some(1), Some(2), None]);
        }
    }

    #[test]
    fn an_end_of_any_kind_is_enough() {
        let none = VocabSource::default();
        for source in [
            VocabSource { eos: Some(2), ..none.clone() },
            VocabSource { eot: Some(2), ..none.clone() },
            VocabSource { eom: Some(2), ..none.clone() },
        ] {
            let (roles, told) = of_three(&source, Defaults::default(), &[]);
            assert_eq!(([roles.eos, roles.eot, roles.eom], told), ([source.eos, source.eot, source.eom], 0));
        }
        assert_eq!(of_three(&none, Defaults::default(), &[]).1, 1);
        assert_eq!(of_three(&VocabSource { eos: Some(2), pad: Some(3), ..none }, Defaults::default(), &[]).1, 1);
    }

    #[test]
    fn texts_that_end_a_generation() {
        let tokens: [&[u8]; 5] = [b"</s>", b"<|im_end|>", b"x", b"[EOS]", b"y"];
        let kinds = [Normal, Normal, Normal, Control, Normal];
        let ends = |special: &SpecialTokens| end_markers(special, &by_text(&tokens), &kinds);
        assert_eq!(ends(&SpecialTokens::default()), [1, 3]);
        let special = SpecialTokens { bos: Some(4), eos: Some(2), eot: Some(1), ..SpecialTokens::default() };
        assert_eq!(ends(&special), [1, 2, 3]);
        assert_eq!(tokens.map(is_end_marker), [false, true, false, false, false]);
    }

    #[test]
    fn kinds_of_a_file_without_them() {
        let tokens: [&[u8]; 5] = [b"<0x41>", b"a", b"<s>", b"</s>", b"<unk>"];
        let special = SpecialTokens { bos: Some(2), eos: Some(3), unk: Some(4), ..SpecialTokens::default() };
        assert_eq!(guess_kinds(&tokens, &special), [Byte, Normal, Control, Control, Unknown]);
    }

    #[test]
    fn what_can_only_be_a_control_token_becomes_one() {
        let tokens: [&[u8]; 6] = [b"<|a|>", b"<s>", b"<|b|>", b"</s>", b"<unk>", b"x"];
        let kinds = [Normal, Normal, UserDefined, UserDefined, Unknown, Normal];
        for (markers, texts, wanted) in [
            (true, true, [Control, Control, UserDefined, Control, Unknown, Normal]),
            (true, false, [Control, Normal, UserDefined, Control, Unknown, Normal]),
            (false, true, [Normal, Control, UserDefined, Control, Unknown, Normal]),
            (false, false, [Normal, Normal, UserDefined, Control, Unknown, Normal]),
        ] {
            let (mut kinds, mut told) = (kinds, Vec::new());
            repair_kinds(Repair { markers, texts }, &[1, 3, 4], &tokens, &mut kinds, &mut told);
            assert_eq!(kinds, wanted, "{markers} {texts}");
            let count = 1 + usize::from(markers) + usize::from(texts);
            assert!(told[0].message.starts_with(&format!("{count} tokens")), "{}", told[0]);
        }
        let mut told = Vec::new();
        repair_kinds(Repair { markers: true, texts: true }, &[], &tokens[1..2], &mut [Normal], &mut told);
        assert_eq!(told, []);
    }

    #[test]
    fn a_marker_has_a_name_between_bars() {
        for yes in ["<|a|>", "<|im_end|>", "<|a1|>", "<|_a|>"] {
            assert!(is_bar_marker(yes.as_bytes()), "{yes}");
        }
        for no in ["<|1|>", "<|_|>", "<|a b|>", "<|a-|>", "<||>", "<|>", "<|a", "a|>", "a", ""] {
            assert!(!is_bar_marker(no.as_bytes()), "{no}");
        }
    }
}
