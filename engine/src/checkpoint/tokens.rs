//! The tokenizer, the chat template and the pooling of a checkpoint, as keys of GGUF.
//!
//! A GGUF holds byte-level BPE and SentencePiece BPE. Each file of the folder that describes such a tokenizer is tried: it is
//! turned into keys, read back as a GGUF is read, and its ids are compared with those of the folder's own tokenizer, for texts of
//! many kinds and for the tokens themselves. Only keys that give the same ids are written.

use super::CheckpointError;
use super::error::config;
use super::store;
use crate::chat::{jinja, prompt, source as templates};
use crate::gguf::MetaValue;
use crate::tokenizer::files::{self, FileSet, Hints};
use crate::tokenizer::{
    Diagnostic, EncodeOptions, MergeRule, TokenKind, Tokenizer, TokenizerError, VocabSource, fingerprint, from_source,
    pretokenize,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Keys of a tokenizer.
pub(super) type Tokens = Vec<(&'static str, MetaValue)>;

/// Reads the tokenizer of a folder for a model of `rows` embeddings; none if there is none, or none that a GGUF can hold: a warning
/// says so.
///
/// # Errors
/// A file that is there and cannot be read, or more tokens than embeddings.
pub(super) fn read(
    folder: &Path,
    rows: usize,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<Tokens>, CheckpointError> {
    let set = match FileSet::from_path(folder) {
        Err(TokenizerError::NoTokenizerFile { .. }) => {
            diagnostics.push(Diagnostic::warning(
                "no_tokenizer",
                "the checkpoint has no tokenizer file, so the GGUF has no tokenizer".to_owned(),
                "put the model's tokenizer.json into the folder and convert again, or beside the GGUF",
            ));
            return Ok(None);
        }
        other => other?,
    };
    let own = files::load(&set, &Hints::default())?;
    diagnostics.extend(own.diagnostics);
    let tokens = own.tokenizer.vocab_size();
    if tokens > rows {
        // Gemma 3 has a token for pictures, of which its text models have no row.
        let text = |id: &usize| own.tokenizer.token_bytes(*id as u32, false).is_some_and(|bytes| !bytes.is_empty());
        if (rows..tokens).any(|id| text(&id)) {
            return Err(CheckpointError::Vocabulary { tokens, rows });
        }
        diagnostics.push(Diagnostic::warning(
            "tokens_without_rows",
            format!(
                "the model has no embedding of the last {} control tokens of its tokenizer; they are left out",
                tokens - rows
            ),
            "",
        ));
    }
    let mut reasons = Vec::new();
    for (name, source) in files::sources(&set) {
        let tried = source.and_then(|source| {
            let mut source = ready(source)?;
            source.fit(rows);
            let read_back = from_source(source.clone()).map_err(|error| error.to_string())?.tokenizer;
            match other_ids(&*own.tokenizer, &*read_back, tokens.min(rows)) {
                None => Ok(keys(source, &*own.tokenizer)),
                Some(text) => Err(format!("in a GGUF it would give other ids for {text:?}")),
            }
        });
        match tried {
            Ok(keys) => return Ok(Some(keys)),
            Err(reason) => reasons.push(format!("`{name}`: {reason}")),
        }
    }
    diagnostics.push(Diagnostic::warning(
        "tokenizer_not_written",
        format!(
            "the GGUF has no tokenizer, for it can hold only byte-level BPE and SentencePiece BPE ({})",
            reasons.join("; ")
        ),
        "keep tokenizer.json and tokenizer_config.json beside the GGUF",
    ));
    Ok(None)
}

/// A source as reading a GGUF gives it: what a GGUF has no key for is said by others, or left out.
fn ready(mut source: VocabSource) -> Result<VocabSource, String> {
    match (source.model.as_str(), source.merge_rule) {
        ("gpt2", MergeRule::Ranks) => return Err("ranks without merges".to_owned()),
        ("gpt2", _) => source.pre = Some(pre(&source)?.to_owned()),
        ("llama", MergeRule::Merges) => source.scores = scores(&source),
        _ => {}
    }
    if source.model == "llama" {
        source.merges = Vec::new();
    }
    (source.merge_rule, source.ignore_merges, source.lists_specials) = (MergeRule::Usual, None, false);
    Ok(source)
}

/// The name of the splitting rule: that of the known vocabulary if it has this rule, else the first name of the rule.
fn pre(source: &VocabSource) -> Result<&'static str, String> {
    let known = fingerprint::identify(&source.tokens, fingerprint::KNOWN).and_then(|f| pretokenize::by_name(f.pre));
    let Some(named) = source.pre.as_deref() else {
        return known.map(|spec| spec.name).ok_or_else(|| "it does not say how text is split".to_owned());
    };
    let Some(spec) = pretokenize::by_name(named) else { return Err(format!("its rule `{named}` is not known")) };
    let ignore = source.ignore_merges.unwrap_or(spec.ignore_merges);
    let fits = |other: &&pretokenize::PreSpec| (other.pre, other.ignore_merges) == (spec.pre, ignore);
    let found = known.filter(|spec| fits(spec)).or_else(|| [spec].into_iter().chain(pretokenize::KNOWN).find(fits));
    // Without a name that fits in both, the merges may still not matter: the ids decide.
    Ok(found.map_or(spec.name, |spec| spec.name))
}

/// Scores that put merges in the order of a list: SentencePiece has none of its own in tokenizer.json.
fn scores(source: &VocabSource) -> Vec<f32> {
    let mut ranks: HashMap<Vec<u8>, usize> = HashMap::new();
    for (rank, merge) in source.merges.iter().enumerate() {
        let joined: Vec<u8> = merge.iter().copied().filter(|byte| *byte != b' ').collect();
        ranks.entry(joined).or_insert(rank);
    }
    let last = source.merges.len();
    let score = |(token, kind): (&Vec<u8>, &TokenKind)| match (kind, ranks.get(token)) {
        (TokenKind::Normal | TokenKind::UserDefined, Some(rank)) => -(*rank as f32),
        (TokenKind::Normal, None) => -(last as f32),
        _ => 0.0,
    };
    source.tokens.iter().zip(&source.token_types).map(score).collect()
}

impl VocabSource {
    /// Fills gaps, and rows of the embedding without a token, with unused tokens; cuts what has no row off.
    fn fit(&mut self, rows: usize) {
        self.tokens.truncate(rows);
        self.token_types.truncate(rows);
        self.scores.truncate(rows);
        let inside = |id: &u32| *id == u32::MAX || (*id as usize) < rows;
        for role in [&mut self.bos, &mut self.eos, &mut self.eot, &mut self.eom, &mut self.unk, &mut self.pad] {
            *role = role.filter(inside);
        }
        let kinds = self.token_types.len() == self.tokens.len();
        for id in 0..rows {
            let name = || format!("[PAD{id}]").into_bytes();
            match self.tokens.get_mut(id) {
                Some(text) if text.is_empty() => *text = name(),
                Some(_) => continue,
                None => self.tokens.push(name()),
            }
            if kinds {
                self.token_types.resize(self.tokens.len(), TokenKind::Unused);
                self.token_types[id] = TokenKind::Unused;
            }
            if !self.scores.is_empty() {
                self.scores.resize(self.tokens.len(), 0.0);
            }
        }
    }
}

/// Texts whose ids tell rules apart.
const TEXTS: &[&str] = &[
    "",
    " ",
    "Hello, world! It's 1234567 o'clock; they'LL go.",
    "  two  spaces\n\n\n and\tlines \r\n",
    "fn main() { println!(\"{}\", 1 << 4); } // ==> 3.14",
    "Größe, naïve café, año, über ſtraße",
    "Привет, мир! 你好,世界。日本語のテキスト 한국어 ١٢٣",
    "\u{1f44b}\u{1f3fd} \u{200d}\u{a0}\u{3000}x\u{301}",
    "<|begin_of_text|><s></s><|im_end|><|eot_id|>",
];
/// Most tokens of a vocabulary whose own texts are compared.
const TOKENS: usize = 20_000;

/// The first text whose ids differ.
fn other_ids(own: &dyn Tokenizer, written: &dyn Tokenizer, tokens: usize) -> Option<String> {
    let differs = |text: &str| {
        [(true, false), (false, false), (true, true)].into_iter().any(|(add_special, parse_special)| {
            let options = EncodeOptions { add_special, parse_special };
            own.encode(text, options).ok() != written.encode(text, options).ok()
        })
    };
    let texts = TEXTS.iter().map(|text| (*text).to_owned());
    let pieces = (0..tokens).step_by(tokens.div_ceil(TOKENS).max(1)).filter_map(|id| {
        let bytes = own.token_bytes(id as u32, true)?;
        String::from_utf8(bytes.into_owned()).ok()
    });
    texts.chain(pieces).find(|text| differs(text))
}

/// The keys of a source; `own` knows the roles.
fn keys(source: VocabSource, own: &dyn Tokenizer) -> Tokens {
    let special = own.special();
    let mut keys: Tokens = vec![("tokenizer.ggml.model", source.model.into())];
    let mut add = |key, value: Option<MetaValue>| keys.extend(value.map(|value| (key, value)));
    add("tokenizer.ggml.pre", source.pre.map(Into::into));
    add("tokenizer.ggml.tokens", Some(MetaValue::strings(&source.tokens)));
    add("tokenizer.ggml.scores", (!source.scores.is_empty()).then(|| source.scores.into()));
    let kinds: Vec<i32> = source.token_types.iter().map(|kind| kind.number()).collect();
    add("tokenizer.ggml.token_type", (!kinds.is_empty()).then(|| kinds.into()));
    add("tokenizer.ggml.merges", (!source.merges.is_empty()).then(|| MetaValue::strings(&source.merges)));
    let ends = [special.eos, special.eot];
    for (key, id) in [
        ("tokenizer.ggml.bos_token_id", special.bos),
        ("tokenizer.ggml.eos_token_id", special.eos),
        ("tokenizer.ggml.eot_token_id", special.eot.filter(|_| special.eot != special.eos)),
        ("tokenizer.ggml.eom_token_id", special.eom.filter(|_| !ends.contains(&special.eom))),
        ("tokenizer.ggml.unknown_token_id", special.unk),
        ("tokenizer.ggml.padding_token_id", special.pad),
    ] {
        add(key, id.filter(|id| (*id as usize) < source.tokens.len()).map(Into::into));
    }
    add("tokenizer.ggml.add_bos_token", Some(special.add_bos.into()));
    add("tokenizer.ggml.add_eos_token", Some(special.add_eos.into()));
    add("tokenizer.ggml.add_space_prefix", source.add_space_prefix.map(Into::into));
    keys
}

/// The chat templates of a folder, by key.
///
/// # Errors
/// A file that is there and cannot be read.
pub(super) fn templates(folder: &Path) -> Result<Vec<(String, String)>, CheckpointError> {
    let mut out = Vec::new();
    for name in templates::names_in(folder) {
        let found = templates::in_folder(folder, &name);
        let wrong =
            |error: crate::chat::ChatError| CheckpointError::File { path: folder.to_owned(), why: error.to_string() };
        if let Some(found) = found.map_err(wrong)? {
            let key = if name == "default" { templates::KEY.to_owned() } else { format!("{}.{name}", templates::KEY) };
            out.push((key, found.text));
        }
    }
    Ok(out)
}

/// What is odd about templates, and about the ends of a generation of a model of `rows` embeddings: both lie beside the model or in
/// it until somebody chats with it.
pub(super) fn oddities(folder: &Path, templates: &[(String, String)], rows: usize) -> Vec<Diagnostic> {
    let path = folder.join("generation_config.json");
    let ends = path.is_file().then(|| match prompt::generation_config(&path) {
        Err(why) => Some(prompt::ignored(&path, &why)),
        Ok(ids) => ids.iter().find(|id| **id as usize >= rows).map(|id| {
            prompt::ignored(&path, &format!("`eos_token_id` {id} has no row in the embedding of {rows} rows"))
        }),
    });
    let syntax = templates.iter().filter_map(|(key, template)| {
        let why = jinja::check(template).err()?;
        Some(Diagnostic::warning(
            "template_syntax",
            format!(
                "the chat template that is written as {} cannot be rendered: {}",
                key.escape_debug(),
                why.escape_debug()
            ),
            "correct it in the folder and convert again",
        ))
    });
    ends.flatten().into_iter().chain(syntax).collect()
}

/// `pooling_type` by `1_Pooling/config.json` of sentence-transformers, if there is one.
///
/// # Errors
/// A way of pooling that GGUF has no number for.
pub(super) fn pooling(folder: &Path) -> Result<Option<u32>, CheckpointError> {
    let path = folder.join("1_Pooling/config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let json = store::json(&path)?;
    let on = |key: &str| json.get(key).and_then(Value::as_bool) == Some(true);
    let known = [("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3)];
    match known.iter().filter(|(key, _)| on(key)).collect::<Vec<_>>()[..] {
        [(_, number)] => Ok(Some(*number)),
        _ => Err(config("1_Pooling", "asks for none or several of mean, cls and last token")),
    }
}
