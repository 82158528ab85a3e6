//! The crate `tokenizers` behind our trait, for files that our engine does not implement exactly.
//!
//! It is slower, and works on text: bytes that are not UTF-8 become U+FFFD before encoding (one for every ill-formed
//! part, as in `String::from_utf8_lossy`). Padding and truncation that a file asks for are left out, as `transformers`
//! does by default. Should the crate panic, that is an error, not the end of the program.

use super::super::error::{Diagnostic, TokenizerError};
use super::super::vocab::{Defaults, Draft, TokenKind, Vocab, VocabSource, byte_token, check_length};
use super::super::{EncodeOptions, Loaded, SpecialTokens, Tokenizer, byte_alphabet, decode_by_token};
use super::companions::Companions;
use super::growth::{MOST, growth};
use super::hf_parts::Frame;
use super::hf_unigram::TextOnly;
use super::{bad, by_id, hf_plan};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use tokenizers::{
    DecoderWrapper, Encoding, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

/// Text, and whether the post-processor frames it.
type Encode = dyn Fn(&str, bool) -> tokenizers::Result<Encoding> + Send + Sync;

struct HfTokenizer {
    /// Finds special tokens in text.
    parse: tokenizers::Tokenizer,
    /// Reads them as text; made when first asked for.
    plain: OnceLock<Box<Encode>>,
    vocab: Vocab,
    /// Bytes of every token; special ones as they are written.
    bytes: Vec<Vec<u8>>,
    style: Style,
    /// `None`: the crate's post-processor frames the text.
    frame: Option<Frame>,
    prefix_space: bool,
}

/// How the written form of a token becomes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Style {
    /// GPT-2's alphabet.
    ByteLevel,
    /// `▁` for spaces, `<0xXX>` for bytes.
    Pieces,
    /// A space in front of everything without this prefix. The crate decodes whole texts.
    WordPiece(String),
    /// As written. The crate decodes whole texts.
    AsWritten,
}

/// Builds it. `reason` says why our engine does not run the file.
///
/// # Errors
/// [`TokenizerError::BadFile`] where the crate refuses the file.
pub(super) fn load(
    name: &str,
    bytes: &[u8],
    reason: &str,
    dropout: bool,
    frame: Option<Frame>,
    companions: &Companions,
) -> Result<Loaded, TokenizerError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let built = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes));
    let mut parse = match built {
        Ok(Ok(tokenizer)) => tokenizer,
        Ok(Err(error)) => return Err(bad(name, error.to_string())),
        Err(_) => return Err(bad(name, "the HuggingFace engine panics on it")),
    };
    let steps = [serde_json::to_value(parse.get_normalizer()), serde_json::to_value(parse.get_pre_tokenizer())];
    let grown = steps.iter().flatten().fold(1, |all: u64, step| all.saturating_mul(growth(step)));
    if grown > MOST {
        return Err(bad(
            name,
            format!("its normalizer and pre-tokenizer can make a text {grown} times as long, {MOST} is the most"),
        ));
    }
    let _ = parse.with_truncation(None).map_err(|e| bad(name, e.to_string()))?;
    parse.with_padding(None);
    if dropout && let ModelWrapper::BPE(model) = parse.get_model() {
        let mut model = model.clone();
        model.dropout = None;
        parse.with_model(ModelWrapper::BPE(model));
    }
    let mut diagnostics = vec![Diagnostic::info(
        "huggingface_engine",
        format!(
            "`{name}` has parts that our engine does not have ({reason}): the crate `tokenizers` runs it, with the same ids and slower"
        ),
        "",
    )];
    let (source, style) = source(name, &parse, frame, companions, &mut diagnostics)?;
    let tokenizer = HfTokenizer::new(parse, source, style, frame, &mut diagnostics)?;
    Ok(Loaded { tokenizer: Arc::new(tokenizer), diagnostics })
}

/// What the crate knows about the vocabulary, for roles and token texts.
fn source(
    name: &str,
    parse: &tokenizers::Tokenizer,
    frame: Option<Frame>,
    companions: &Companions,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<(VocabSource, Style), TokenizerError> {
    let vocab = parse.get_vocab(true);
    let tokens = by_id(name, vocab.iter().map(|(text, id)| (text.as_bytes().to_vec(), *id)))?;
    let style = style(parse.get_decoder());
    let mut token_types: Vec<TokenKind> = tokens
        .iter()
        .map(|t| match (&style, byte_token(t)) {
            (Style::Pieces, Some(_)) => TokenKind::Byte,
            _ => TokenKind::Normal,
        })
        .collect();
    for (id, added) in parse.get_added_tokens_decoder() {
        if let Some(kind) = token_types.get_mut(id as usize) {
            *kind = if added.special { TokenKind::Control } else { TokenKind::UserDefined };
        }
    }
    let mut source = VocabSource {
        model: "huggingface".into(),
        tokens,
        token_types,
        lists_specials: true,
        bos: frame.and_then(|f| f.front),
        eos: frame.and_then(|f| f.back),
        add_bos: Some(frame.is_some_and(|f| f.front.is_some())),
        add_eos: Some(frame.is_some_and(|f| f.back.is_some())),
        ..VocabSource::default()
    };
    let framed = (source.bos, source.eos);
    let find = |text: &str| vocab.get(text).copied();
    companions.apply(&mut source, &find, diagnostics);
    source.bos = framed.0.or(source.bos);
    source.eos = framed.1.or(source.eos);
    hf_plan::guess_roles(&mut source, &find, diagnostics);
    Ok((source, style))
}

fn style(decoder: Option<&DecoderWrapper>) -> Style {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => Style::ByteLevel,
        Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_)) => Style::Pieces,
        Some(DecoderWrapper::Sequence(steps)) => {
            let metaspace = |d: &DecoderWrapper| {
                matches!(d, DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_) | DecoderWrapper::Replace(_))
            };
            if steps.get_decoders().iter().any(metaspace) { Style::Pieces } else { Style::AsWritten }
        }
        Some(DecoderWrapper::WordPiece(piece)) => Style::WordPiece(piece.prefix.clone()),
        _ => Style::AsWritten,
    }
}

fn text_of(text: &[u8], style: &Style) -> Vec<u8> {
    match style {
        Style::ByteLevel => byte_alphabet::decode(text).unwrap_or_else(|| text.to_vec()),
        Style::Pieces => match byte_token(text) {
            Some(byte) => vec![byte],
            None => super::super::spm::unescape(text),
        },
        Style::WordPiece(prefix) => match text.strip_prefix(prefix.as_bytes()) {
            Some(rest) => rest.to_vec(),
            // An id that no token has.
            None if text.is_empty() => Vec::new(),
            None => [b" ", text].concat(),
        },
        Style::AsWritten => text.to_vec(),
    }
}

impl HfTokenizer {
    fn new(
        parse: tokenizers::Tokenizer,
        source: VocabSource,
        style: Style,
        frame: Option<Frame>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Self, TokenizerError> {
        let mut source = source.borrowed();
        let vocab = Draft::new(&mut source, Defaults::default(), diagnostics)?;
        let normal = |k: &TokenKind| matches!(k, TokenKind::Normal | TokenKind::Byte);
        let bytes = vocab
            .tokens
            .iter()
            .zip(&vocab.kinds)
            .map(|(text, kind)| if normal(kind) { text_of(text, &style) } else { text.to_vec() })
            .collect();
        let mut this = Self {
            parse,
            plain: OnceLock::new(),
            vocab: vocab.finish(),
            bytes,
            prefix_space: matches!(style, Style::WordPiece(_)),
            style,
            frame,
        };
        // Whether one letter comes back with a space in front that decoding takes off.
        if this.style == Style::Pieces {
            let opts = EncodeOptions::default();
            let ids = this.encode("a", opts).unwrap_or_default();
            this.prefix_space = this.decode(&ids, true).first() == Some(&b' ');
        }
        Ok(this)
    }

    /// The engine that reads special tokens as text.
    fn plain(&self) -> &Encode {
        self.plain.get_or_init(|| {
            if let ModelWrapper::Unigram(model) = self.parse.get_model() {
                let is_text = |id: u32| self.vocab.kinds.get(id as usize).is_some_and(|kind| kind.is_text());
                let mut plain: Unigram = TokenizerImpl::new(TextOnly::new(model.clone(), is_text));
                plain.with_added_vocabulary(self.parse.get_added_vocabulary().clone());
                plain.with_pre_tokenizer(self.parse.get_pre_tokenizer().cloned());
                plain.with_post_processor(self.parse.get_post_processor().cloned());
                if plain.with_normalizer(self.parse.get_normalizer().cloned()).is_ok() {
                    plain.set_encode_special_tokens(true);
                    return Box::new(move |text, frame| plain.encode_fast(text, frame));
                }
            }
            let mut plain = self.parse.clone();
            plain.set_encode_special_tokens(true);
            Box::new(move |text, frame| plain.encode_fast(text, frame))
        })
    }
}

/// The crate's tokenizer around [`TextOnly`].
type Unigram = TokenizerImpl<TextOnly, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Runs the crate; a panic inside of it is an error.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(TokenizerError::Engine { reason: error.to_string() }),
        Err(_) => Err(TokenizerError::Engine { reason: "it panicked".into() }),
    }
}

impl Tokenizer for HfTokenizer {
    /// Bytes that are not UTF-8 become U+FFFD first: the crate takes text only.
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        check_length(bytes)?;
        let text = String::from_utf8_lossy(bytes);
        let by_crate = opts.add_special && self.frame.is_none();
        let encoding = guarded(|| match opts.parse_special {
            true => self.parse.encode_fast(&*text, by_crate),
            false => self.plain()(&text, by_crate),
        })?;
        let frame = self.frame.filter(|_| opts.add_special).unwrap_or_default();
        Ok(frame.front.into_iter().chain(encoding.get_ids().iter().copied()).chain(frame.back).collect())
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        let bytes = self.bytes.get(id as usize)?;
        let hidden = !special && self.vocab.is_special(id);
        Some(Cow::Borrowed(if hidden { &[] } else { bytes }))
    }

    /// Byte-level and SentencePiece tokens byte by byte; the other kinds as the crate puts words together.
    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        if matches!(self.style, Style::WordPiece(_) | Style::AsWritten)
            && let Ok(text) = guarded(|| self.parse.decode(ids, skip_special))
        {
            return text.into_bytes();
        }
        decode_by_token(self, ids, skip_special)
    }

    fn vocab_size(&self) -> usize {
        self.vocab.tokens.len()
    }

    fn special(&self) -> &SpecialTokens {
        &self.vocab.special
    }

    fn is_eog(&self, id: u32) -> bool {
        self.vocab.is_eog(id)
    }

    fn kind(&self) -> &'static str {
        "huggingface"
    }

    fn pre(&self) -> Option<&str> {
        None
    }

    fn adds_prefix_space(&self) -> bool {
        self.prefix_space
    }
}
