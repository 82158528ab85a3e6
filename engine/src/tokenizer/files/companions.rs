//! The small files beside a tokenizer: which tokens have a role, which were added, whether text is framed.
//!
//! `tokenizer_config.json` and `special_tokens_map.json` name tokens by text (a string, or an object with `content`),
//! `generation_config.json` by id, one or a list. Where they contradict each other the first of these is followed,
//! as `transformers` does. A companion that cannot be read is a warning: the tokenizer itself is whole without it.

use super::super::error::Diagnostic;
use super::super::roles;
use super::super::vocab::VocabSource;
use super::recognise::what_else;
use super::set::FileSet;
use serde::Deserialize;
use serde_json::Value;

/// A token beside the model's own vocabulary, as HuggingFace writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct AddedToken {
    /// In `added_tokens_decoder` the id is the key.
    #[serde(default)]
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

/// What the companions say.
#[derive(Debug, Clone, Default)]
pub(super) struct Companions {
    bos: Option<String>,
    eos: Option<String>,
    unk: Option<String>,
    pad: Option<String>,
    /// From tokenizer_config.json.
    pub(super) add_bos: Option<bool>,
    /// From tokenizer_config.json.
    pub(super) add_eos: Option<bool>,
    /// `tokenizer_class` of tokenizer_config.json without `Fast`.
    pub(super) class: Option<String>,
    /// Ascending by id, no id twice.
    pub(super) added: Vec<AddedToken>,
    bos_id: Option<u32>,
    eos_ids: Vec<u32>,
    pad_id: Option<u32>,
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const GENERATION: &str = "generation_config.json";

fn object(files: &FileSet, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Value {
    let Some(bytes) = files.get(name) else {
        return Value::Null;
    };
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let problem = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() && value.get("error").is_none() => return value,
        Ok(_) => what_else(name, bytes).to_string(),
        Err(error) if bytes.trim_ascii_start().starts_with(b"{") => format!("`{name}`: {error}"),
        Err(_) => what_else(name, bytes).to_string(),
    };
    diagnostics.push(Diagnostic::warning(
        "companion_unreadable",
        format!("{problem}; what it says about special tokens is not known"),
        format!("bitnet download REPO --file {name}"),
    ));
    Value::Null
}

/// A token's text: a string, or an object with `content`.
fn text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).filter(|t| !t.is_empty()).map(str::to_owned)
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

impl Companions {
    /// Of roles that a file has no place for.
    pub(super) fn of(unk: Option<&str>, pad_id: Option<u32>) -> Self {
        Self { unk: unk.map(str::to_owned), pad_id, ..Self::default() }
    }

    /// Reads what there is.
    pub(super) fn read(files: &FileSet, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let config = object(files, CONFIG, diagnostics);
        let map = object(files, MAP, diagnostics);
        let generation = object(files, GENERATION, diagnostics);
        let named = |key: &str| text(config.get(key)).or_else(|| text(map.get(key)));
        let flag = |key: &str| config.get(key).and_then(Value::as_bool);
        let class = text(config.get("tokenizer_class"));
        let mut this = Self {
            bos: named("bos_token"),
            eos: named("eos_token"),
            unk: named("unk_token"),
            pad: named("pad_token"),
            add_bos: flag("add_bos_token"),
            add_eos: flag("add_eos_token"),
            class: class.map(|c| c.strip_suffix("Fast").unwrap_or(&c).to_owned()),
            added: Vec::new(),
            bos_id: generation.get("bos_token_id").and_then(id),
            eos_ids: match generation.get("eos_token_id") {
                Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
                Some(one) => id(one).into_iter().collect(),
                None => Vec::new(),
            },
            pad_id: generation.get("pad_token_id").and_then(id),
        };
        this.read_added(&config, &object(files, ADDED, diagnostics), diagnostics);
        this
    }

    fn read_added(&mut self, config: &Value, added: &Value, diagnostics: &mut Vec<Diagnostic>) {
        let mut strange = 0usize;
        for (key, value) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            match (key.parse(), AddedToken::deserialize(value)) {
                (Ok(id), Ok(token)) => self.added.push(AddedToken { id, ..token }),
                _ => strange += 1,
            }
        }
        for (content, value) in added.as_object().into_iter().flatten() {
            let roles = [&self.bos, &self.eos, &self.unk, &self.pad];
            let special = roles.into_iter().flatten().any(|t| t == content);
            match id(value) {
                Some(id) => self.added.push(AddedToken {
                    id,
                    content: content.clone(),
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: !special,
                    special,
                }),
                None => strange += 1,
            }
        }
        // Stable: of one id the first, from tokenizer_config.json, stays.
        self.added.sort_by_key(|t| t.id);
        self.added.dedup_by_key(|t| t.id);
        if strange > 0 {
            diagnostics.push(Diagnostic::warning(
                "added_tokens_unreadable",
                format!("{strange} added tokens in {CONFIG} or {ADDED} have no id or no text and are left out"),
                "download the companions again",
            ));
        }
    }

    /// Whether `text` has a role.
    pub(super) fn is_role(&self, text: &str) -> bool {
        [&self.bos, &self.eos, &self.unk, &self.pad].into_iter().flatten().any(|t| t == text)
    }

    /// Whether the class builds the frame from `add_bos_token` and `add_eos_token`, whatever tokenizer.json says.
    pub(super) fn class_frames(&self) -> bool {
        matches!(self.class.as_deref(), Some("LlamaTokenizer" | "CodeLlamaTokenizer" | "GemmaTokenizer"))
    }

    /// Puts the roles into `source`, where `find` gives the id of a token's text. What the companions name and the
    /// vocabulary lacks is a warning.
    pub(super) fn apply<T: AsRef<[u8]>>(
        &self,
        source: &mut VocabSource<T>,
        find: &dyn Fn(&str) -> Option<u32>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let n = source.tokens.len();
        let mut set = |role: &str, text: &Option<String>, slot: &mut Option<u32>| {
            let Some(text) = text else { return };
            match find(text) {
                Some(id) => *slot = Some(id),
                None => diagnostics.push(Diagnostic::warning(
                    "special_not_in_vocabulary",
                    format!("the companions name `{text}` as {role}, which is not a token of the vocabulary"),
                    "use the companions that were published with the tokenizer",
                )),
            }
        };
        set("bos_token", &self.bos, &mut source.bos);
        set("eos_token", &self.eos, &mut source.eos);
        set("unk_token", &self.unk, &mut source.unk);
        set("pad_token", &self.pad, &mut source.pad);
        let inside = |id: &u32| (*id as usize) < n;
        source.bos = source.bos.or(self.bos_id.filter(inside));
        source.pad = source.pad.or(self.pad_id.filter(inside));
        for id in self.eos_ids.iter().copied().filter(inside) {
            let known = source.tokens.get(id as usize).is_some_and(|t| roles::is_end_marker(t.as_ref()));
            match () {
                () if source.eos.is_none() => source.eos = Some(id),
                // The others are found by their texts.
                () if source.eos == Some(id) || known => {}
                () if source.eot.is_none() => source.eot = Some(id),
                () if source.eom.is_none() => source.eom = Some(id),
                () => diagnostics.push(Diagnostic::warning(
                    "end_token_left_out",
                    format!("{GENERATION} names more ends of a generation than there are roles: {id} is left out"),
                    "",
                )),
            }
        }
    }
}
