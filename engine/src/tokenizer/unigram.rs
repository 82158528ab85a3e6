//! SentencePiece Unigram: of all ways to cut the text into pieces the one whose scores sum to most.
//!
//! From a `tokenizer.model`, and from GGUF metadata (`tokenizer.ggml.model = t5`). One pass from left to right keeps the
//! best path to every place; of equal sums the first found stays. Where no piece is the one character at a place, the
//! unknown token costs 10 more than the worst piece; runs of it are one token, or, where the vocabulary has all byte
//! tokens, its bytes.
//!
//! sentencepiece sums in 32-bit floats, HuggingFace (and llama.cpp after it) in 64 bits: near ties fall differently, so
//! each is done as its file asks ([`Sums`]). llama.cpp treats spaces otherwise than the model's own normaliser does (a text
//! of spaces only, spaces in front where none are removed); the model's is followed.

use super::compiled::{Reader, Stored, Tables, Unusable, Writer};
use super::error::{Diagnostic, TokenizerError};
use super::flat::Flat;
use super::normalize::Normalizer;
use super::special::Part;
use super::spm::{byte_ids, byte_tokens, unescape};
use super::spm_tables::mergeable;
use super::trie::Trie;
use super::unicode::decode;
use super::vocab::{Defaults, Draft, Vocab, VocabSource, check_length, show};
use super::{EncodeOptions, SpecialTokens, TokenKind, Tokenizer};
use std::borrow::Cow;

/// Whose arithmetic is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sums {
    /// sentencepiece's own: 32 bits, and a bonus for user-defined pieces.
    #[default]
    Narrow,
    /// HuggingFace's and llama.cpp's: 64 bits, user-defined pieces score 0.
    Wide,
}

/// What the unknown token costs more than the worst piece.
const UNKNOWN_COSTS: f64 = 10.0;

/// The pieces, their scores, and the search.
#[derive(Debug)]
pub(super) struct Paths {
    trie: Trie,
    /// By id.
    scores: Flat<f64>,
    unknown: f64,
    sums: Sums,
}

/// The best way to a place.
#[derive(Debug, Clone, Copy)]
struct Step {
    sum: f64,
    from: u32,
    id: u32,
}

/// An id of the search that stands for text without a piece.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;
const NOWHERE: u32 = u32::MAX;

impl Paths {
    /// `pieces` are what text can become, `scores` those of all ids, and `worst` the lowest of a piece.
    pub(super) fn new<'a>(
        pieces: impl Iterator<Item = (u32, &'a [u8])>,
        scores: Vec<f64>,
        worst: f64,
        sums: Sums,
    ) -> Self {
        let unknown = match sums {
            Sums::Narrow => f64::from(worst as f32 - UNKNOWN_COSTS as f32),
            Sums::Wide => worst - UNKNOWN_COSTS,
        };
        Self { trie: Trie::new(pieces), scores: scores.into(), unknown, sums }
    }

    fn store(&self, out: &mut Writer) {
        let Self { trie, scores, unknown, sums } = self;
        trie.store(out);
        out.table(scores);
        out.float(*unknown);
        out.flag(*sums == Sums::Wide);
    }

    fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        Ok(Self {
            trie: Trie::open(from)?,
            scores: from.table()?,
            unknown: from.float()?,
            sums: if from.flag()? { Sums::Wide } else { Sums::Narrow },
        })
    }

    /// Calls `piece` with every piece of the best path, in order: its place and its id, or [`UNKNOWN`].
    pub(super) fn best(&self, text: &[u8], mut piece: impl FnMut(std::ops::Range<usize>, u32)) {
        let mut steps = vec![Step { sum: 0.0, from: NOWHERE, id: UNKNOWN }; text.len() + 1];
        let mut at = 0;
        while at < text.len() {
            let here = steps[at].sum;
            let char_end = at + decode(text, at).map_or(1, |(_, len)| len);
            let mut whole_char = false;
            let mut offer = |end: usize, id: u32, score: f64| {
                let sum = here + score;
                let sum = if self.sums == Sums::Narrow { f64::from(sum as f32) } else { sum };
                let step = &mut steps[end];
                if step.from == NOWHERE || sum > step.sum {
                    *step = Step { sum, from: at as u32, id };
                }
            };
            self.trie.prefixes(text, at, |end, id| {
                whole_char |= end == char_end;
                offer(end, id, self.scores.get(id as usize).copied().unwrap_or(0.0));
            });
            if !whole_char {
                offer(char_end, UNKNOWN, self.unknown);
            }
            at = char_end;
        }
        let mut back = Vec::with_capacity(text.len() / 3 + 1);
        let mut end = text.len();
        while end > 0 {
            let Step { from, id, .. } = steps[end];
            back.push((from as usize..end, id));
            end = from as usize;
        }
        back.into_iter().rev().for_each(|(place, id)| piece(place, id));
    }
}

/// A SentencePiece Unigram tokenizer.
#[derive(Debug)]
pub struct UnigramTokenizer {
    vocab: Vocab,
    paths: Paths,
    normalizer: Normalizer,
    /// `<0xXX>`, if all are there.
    bytes: Option<Box<[u32; 256]>>,
}

impl UnigramTokenizer {
    /// Builds it; what was repaired goes to `diagnostics`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn new(mut source: VocabSource<&[u8]>, diagnostics: &mut Vec<Diagnostic>) -> Result<Self, TokenizerError> {
        let defaults = Defaults { eos: Some(1), unk: Some(2), add_eos: true, ..Defaults::default() };
        let mut vocab = Draft::new(&mut source, defaults, diagnostics)?;
        if source.scores.is_empty() {
            return Err(TokenizerError::MissingKey { key: "tokenizer.ggml.scores".into() });
        }
        if let Some(id) = source.scores.iter().position(|s| !s.is_finite()) {
            return Err(TokenizerError::BadScore { id: id as u32 });
        }
        let found = byte_tokens(&mut vocab, diagnostics);
        let bytes = found.iter().all(Option::is_some).then(|| Box::new(found.map(Option::unwrap_or_default)));
        let spec = source.normalizing.take().unwrap_or_default();
        let normalizer = Normalizer::new(&spec, &vocab.tokens).map_err(|reason| TokenizerError::BadKey {
            reason: format!("`tokenizer.ggml.precompiled_charsmap`: {reason}"),
        })?;
        let paths = paths(&vocab, &source.scores, source.sums);
        Ok(Self { vocab: vocab.finish(), paths, normalizer, bytes })
    }

    /// Writes the tables into a compiled file; [`UnigramTokenizer::open`] reads them in this order.
    pub(super) fn store(&self, out: &mut Writer) {
        let Self { vocab, paths, normalizer, bytes } = self;
        vocab.store(out);
        paths.store(out);
        normalizer.store(out);
        out.table(bytes.as_ref().map_or(&[][..], |bytes| &bytes[..]));
    }

    /// # Errors
    /// Where tables are missing or cannot be used.
    pub(super) fn open(from: &mut Reader<'_>) -> Result<Self, Unusable> {
        let (vocab, paths) = (Vocab::open(from)?, Paths::open(from)?);
        let normalizer = Normalizer::open(from)?;
        let bytes: Flat<u32> = from.table()?;
        let bytes = if bytes.is_empty() { None } else { Some(Box::new(byte_ids(&bytes)?)) };
        Ok(Self { vocab, paths, normalizer, bytes })
    }

    fn encode_text(&self, text: &[u8], offset: usize, work: &mut Work) -> Result<(), TokenizerError> {
        self.normalizer.run(text, &mut work.text);
        let (mut missing, mut in_unknown) = (None, false);
        self.paths.best(&work.text, |place, id| {
            let unknown = id == UNKNOWN;
            match (&self.bytes, self.vocab.special.unk) {
                _ if !unknown => work.ids.push(id),
                (Some(bytes), _) => work.ids.extend(work.text[place].iter().map(|&b| bytes[usize::from(b)])),
                (None, Some(unk)) if !in_unknown => work.ids.push(unk),
                (None, Some(_)) => {}
                (None, None) => missing = missing.take().or(Some(show(&work.text[place]))),
            }
            in_unknown = unknown;
        });
        match missing {
            Some(text) => Err(TokenizerError::NoTokenForText { text, offset }),
            None => Ok(()),
        }
    }
}

fn paths(vocab: &Draft<'_>, scores: &[f32], sums: Sums) -> Paths {
    let kind = |id: usize| vocab.kinds.get(id).copied().unwrap_or_default();
    let normal = || scores.iter().enumerate().filter(|(id, _)| kind(*id) == TokenKind::Normal).map(|(_, s)| *s);
    let worst = f64::from(normal().fold(f32::MAX, f32::min));
    // sentencepiece starts at the smallest positive number, so a vocabulary of negative scores has that.
    let best = normal().fold(f32::MIN_POSITIVE, f32::max);
    let score = |(id, score): (usize, &f32)| match (kind(id), sums) {
        (TokenKind::UserDefined, Sums::Wide) => 0.0,
        (TokenKind::UserDefined, Sums::Narrow) => f64::from(vocab.tokens[id].len() as f32 * best - 0.1),
        _ => f64::from(*score),
    };
    let scores = scores.iter().enumerate().map(score).collect();
    let used = |(id, _): &(u32, &[u8])| sums == Sums::Wide || kind(*id as usize) != TokenKind::Unused;
    Paths::new(mergeable(vocab).filter(used), scores, worst, sums)
}

#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    text: Vec<u8>,
}

/// The text of a piece: `▁` to spaces, byte tokens to bytes. Control and unknown tokens are hidden unless `special`.
pub(super) fn piece_bytes(vocab: &Vocab, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
    let text = vocab.tokens.get(id as usize)?;
    Some(match vocab.kinds.get(id as usize)? {
        TokenKind::Byte => match super::vocab::byte_token(text) {
            Some(byte) => Cow::Owned(vec![byte]),
            None => Cow::Borrowed(text),
        },
        TokenKind::Control | TokenKind::Unknown if !special => Cow::Borrowed(&[]),
        TokenKind::Control | TokenKind::Unknown => Cow::Borrowed(text),
        _ => Cow::Owned(unescape(text)),
    })
}

/// The text of `ids`, as SentencePiece puts it together.
pub(super) fn decode_pieces(vocab: &Vocab, normalizer: &Normalizer, ids: &[u32], skip_special: bool) -> Vec<u8> {
    let (mut out, mut first) = (Vec::with_capacity(ids.len() * 4), true);
    for &id in ids {
        let Some(piece) = piece_bytes(vocab, id, !skip_special).filter(|piece| !piece.is_empty()) else { continue };
        let byte = vocab.kinds.get(id as usize) == Some(TokenKind::Byte);
        out.extend_from_slice(if byte { &piece } else { normalizer.trim_front(&piece, &out, first) });
        first = false;
    }
    out
}

impl Tokenizer for UnigramTokenizer {
    fn encode_bytes(&self, bytes: &[u8], opts: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        check_length(bytes)?;
        let mut work = Work::default();
        work.ids.extend(self.vocab.front(opts));
        self.vocab.matcher(opts).split(bytes, |part| {
            match part {
                Part::Text { text, offset } => self.encode_text(text, offset, &mut work)?,
                Part::Special(id) => work.ids.push(id),
            }
            Ok::<(), TokenizerError>(())
        })?;
        work.ids.extend(self.vocab.back(opts));
        Ok(work.ids)
    }

    fn token_bytes(&self, id: u32, special: bool) -> Option<Cow<'_, [u8]>> {
        piece_bytes(&self.vocab, id, special)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        decode_pieces(&self.vocab, &self.normalizer, ids, skip_special)
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
        "unigram"
    }

    fn pre(&self) -> Option<&str> {
        None
    }

    fn adds_prefix_space(&self) -> bool {
        self.normalizer.dummy_prefix
    }

    fn tables(&self) -> Option<Tables<'_>> {
        Some(Tables::Unigram(self))
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalize::Normalizing;
    use super::*;

    /// The pieces of `text`, in order; `?` is text without a piece.
    fn cut(pieces: &[(&str, f64)], worst: f64, sums: Sums, text: &str) -> Vec<String> {
        let texts = (0..).zip(pieces).map(|(id, (text, _))| (id, text.as_bytes()));
        let paths = Paths::new(texts, pieces.iter().map(|piece| piece.1).collect(), worst, sums);
        let mut out = Vec::new();
        paths.best(text.as_bytes(), |place, id| {
            let piece = pieces.get(id as usize).map_or("?", |piece| piece.0);
            assert!(piece == "?" || piece == &text[place]);
            out.push(piece.to_owned());
        });
        out
    }

    #[test]
    fn the_path_of_the_largest_sum_is_taken() {
        for sums in [Sums::Narrow, Sums::Wide] {
            let of = |pieces: &[(&str, f64)], text: &str| cut(pieces, -1.0, sums, text);
            let with = |whole| of(&[("a", -1.0), ("b", -1.0), ("ab", whole)], "ab");
            assert_eq!((with(-1.75), with(-2.25)), (vec!["ab".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
            assert_eq!(with(-2.0), ["ab"], "of equal sums the first that is found");
            // Text without a piece costs 10 more than the worst one, and is no way where a piece is the one character.
            let with = |whole| of(&[("b", -1.0), ("\u{e9}b", whole)], "\u{e9}b");
            assert_eq!((with(-11.5), with(-12.5)), (vec!["\u{e9}b".to_owned()], vec!["?".to_owned(), "b".to_owned()]));
            assert_eq!(of(&[("c", -50.0), ("\u{e9}", -50.0)], "c\u{e9}"), ["c", "\u{e9}"]);
            assert_eq!(of(&[("c", -1.0)], ""), [""; 0]);
        }
        // Less than 32 bits have.
        let near = [("a", -1.0), ("b", 0.0), ("ab", -1.000_000_000_5)];
        assert_eq!(cut(&near, -1.0, Sums::Narrow, "ab"), ["ab"]);
        assert_eq!(cut(&near, -1.0, Sums::Wide, "ab"), ["a", "b"]);
    }

    fn source<'a>(pieces: &[(&'a str, f32, TokenKind)], sums: Sums) -> VocabSource<&'a [u8]> {
        VocabSource {
            model: "t5".into(),
            tokens: pieces.iter().map(|piece| piece.0.as_bytes()).collect(),
            scores: pieces.iter().map(|piece| piece.1).collect(),
            token_types: pieces.iter().map(|piece| piece.2).collect(),
            unk: Some(0),
            eos: Some(1),
            add_eos: Some(false),
            sums,
            ..VocabSource::default()
        }
    }

    const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
    const UNKNOWN_PIECE: (&str, f32, TokenKind) = ("<unk>", -99.0, TokenKind::Unknown);
    const END_PIECE: (&str, f32, TokenKind) = ("</s>", 99.0, TokenKind::Control);

    fn made(source: VocabSource<&[u8]>) -> UnigramTokenizer {
        UnigramTokenizer::new(source, &mut Vec::new()).unwrap()
    }

    /// Of `aba` as one piece that users defined, or three that were learned.
    #[test]
    fn the_bonus_of_user_defined_pieces() {
        use TokenKind::{Normal, UserDefined};
        let ids = |a, b, sums| {
            let pieces = [UNKNOWN_PIECE, END_PIECE, ("a", a, Normal), ("b", b, Normal), ("aba", -7.0, UserDefined)];
            // As a piece of the model's own; others are cut out before there are paths.
            let normalizing = Some(Normalizing { inline: vec![4], ..Normalizing::default() });
            made(VocabSource { normalizing, ..source(&pieces, sums) }).encode_bytes(b"aba", PLAIN).unwrap()
        };
        let (whole, apart) = (vec![4], vec![2, 3, 2]);
        // Three bytes of the best score, less a tenth: 5.9. Of scores that are all negative it is a tenth less than nothing.
        assert_eq!([ids(2.0, 1.85, Sums::Narrow), ids(2.0, 1.95, Sums::Narrow)], [whole.clone(), apart.clone()]);
        assert_eq!([ids(-0.04, -0.04, Sums::Narrow), ids(-0.03, -0.03, Sums::Narrow)], [whole.clone(), apart.clone()]);
        assert_eq!([ids(0.5, -1.25, Sums::Wide), ids(0.5, -0.75, Sums::Wide)], [whole, apart]);
    }

    #[test]
    fn the_worst_piece_is_one_that_was_learned() {
        use TokenKind::{Normal, Unused};
        for sums in [Sums::Narrow, Sums::Wide] {
            let ids = |whole| {
                let pieces =
                    [UNKNOWN_PIECE, END_PIECE, ("b", -1.0, Normal), ("xb", whole, Normal), ("c", -2.0, Normal)];
                made(source(&pieces, sums)).encode_bytes(b"xb", PLAIN).unwrap()
            };
            // Text without a piece costs more than any piece.
            assert_eq!(ids(-12.5), [3]);
            let pieces = [UNKNOWN_PIECE, END_PIECE, ("b", -1.0, Normal), ("xb", -12.5, Unused), ("c", -1.0, Normal)];
            let unused = made(source(&pieces, sums)).encode_bytes(b"xb", PLAIN).unwrap();
            assert_eq!(unused, [0, 2], "{sums:?}");
            let pieces = [UNKNOWN_PIECE, END_PIECE, ("b", -1.0, Normal), ("xb", -11.5, Unused), ("c", -1.0, Normal)];
            let unused = made(source(&pieces, sums)).encode_bytes(b"xb", PLAIN).unwrap();
            // An unused piece is none for sentencepiece, and one as any other for HuggingFace.
            assert_eq!(unused, if sums == Sums::Wide { vec![3] } else { vec![0, 2] });
        }
    }

    #[test]
    fn text_without_a_token_is_an_error_where_there_is_no_unknown_one() {
        use TokenKind::{Normal, UserDefined};
        let pieces = [UNKNOWN_PIECE, END_PIECE, ("b", -1.0, Normal), ("<sep>", 0.0, UserDefined)];
        let without = made(VocabSource { unk: Some(u32::MAX), ..source(&pieces, Sums::Narrow) });
        assert_eq!(without.encode_bytes(b"b<sep>b", PLAIN).unwrap(), [2, 3, 2]);
        assert_eq!(
            without.encode_bytes(b"b<sep>bxy", PLAIN).unwrap_err(),
            TokenizerError::NoTokenForText { text: "x".into(), offset: 6 }
        );
        let with = made(source(&pieces, Sums::Narrow));
        assert_eq!(with.encode_bytes(b"xybzx", PLAIN).unwrap(), [0, 2, 0], "a run is one token");
        assert_eq!((with.vocab_size(), with.kind(), with.pre(), with.adds_prefix_space()), (4, "unigram", None, false));
        assert!(with.is_eog(1) && !with.is_eog(2));
        let text = |id, special| with.token_bytes(id, special).map(Cow::into_owned);
        assert_eq!(
            [text(0, true), text(0, false), text(3, false)],
            [&b"<unk>"[..], b"", b"<sep>"].map(|t| Some(t.to_vec()))
        );
        assert_eq!(text(4, true), None);
    }

    /// What of the spaces in front is taken off again, by what was put there.
    #[test]
    fn decoded_text_begins_as_the_text_did() {
        use TokenKind::Normal;
        let pieces = [UNKNOWN_PIECE, END_PIECE, ("\u{2581}a", -1.0, Normal), ("\u{2581}", -2.0, Normal)];
        let text = |dummy_prefix, remove_extra, ids: &[u32]| {
            let normalizing = Some(Normalizing { dummy_prefix, remove_extra, ..Normalizing::default() });
            let made = made(VocabSource { normalizing, ..source(&pieces, Sums::Narrow) });
            assert_eq!(made.adds_prefix_space(), dummy_prefix);
            String::from_utf8(made.decode(ids, true)).unwrap()
        };
        let all = |ids: &[u32]| [(false, false), (true, false), (true, true)].map(|(a, b)| text(a, b, ids));
        assert_eq!(all(&[2, 2]), [" a a", "a a", "a a"]);
        assert_eq!(all(&[3, 2]), ["  a", " a", "a"]);
        assert_eq!(all(&[1, 3, 3, 2, 99]), ["   a", "  a", "a"]);
    }
}
