//! The one way from a conversation, or from a raw text, to the ids that a model is given; and what ends its answer.
//!
//! `infer`, `perplexity` and the cross-validation all go through here, so that what is verified is what users get.
//!
//! - The tokenizer begins the prompt as the model's flags say. A template that writes the first token itself gets no
//!   second one.
//! - A prompt is not ended: where the flags put an end token behind a text, it is left out.
//! - Control tokens that are spelled out are tokens where a template wrote the text, and where the caller says so.

use super::{ChatError, Clock, Message, PromptTemplate, Surroundings};
use crate::gguf::Metadata;
use crate::tokenizer::{Diagnostic, EncodeOptions, SpecialTokens, Tokenizer, TokenizerError};
use std::path::Path;

/// What becomes a prompt.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A text that is continued, whatever the template.
    Text(&'a str),
    /// A conversation that the template wraps.
    Messages(&'a [Message]),
}

/// How it becomes one.
#[derive(Debug, Clone, Copy)]
pub struct PromptOptions<'a> {
    /// The template of messages.
    pub template: &'a PromptTemplate,
    /// Read control tokens that are spelled out in a text without a template.
    pub parse_special: bool,
    /// What time it is for the template.
    pub clock: Clock,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The wrapped text.
    pub text: String,
    /// Its ids.
    pub ids: Vec<u32>,
    /// Whether control tokens in the text were read as such.
    pub parse_special: bool,
}

/// A prompt that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The prompt of an input.
///
/// # Errors
/// The template fails, or the text cannot be encoded.
pub fn prompt(tokenizer: &dyn Tokenizer, input: Input<'_>, options: PromptOptions<'_>) -> Result<Prompt, PromptError> {
    let (text, parse_special) = match input {
        Input::Text(text) => (text.to_owned(), options.parse_special),
        Input::Messages(messages) => {
            let name = |id: Option<u32>| {
                let bytes = tokenizer.token_bytes(id?, true)?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            };
            let (bos, eos) = (name(tokenizer.special().bos), name(tokenizer.special().eos));
            let with = Surroundings { bos: bos.as_deref(), eos: eos.as_deref(), clock: options.clock };
            let parse_special = options.parse_special || options.template.has_control_tokens();
            (options.template.render(messages, with)?, parse_special)
        }
    };
    let ids = encode(tokenizer, &text, parse_special)?;
    Ok(Prompt { text, ids, parse_special })
}

/// Ids of a text that is ready: begun as the model wants it, but not ended.
///
/// # Errors
/// The text cannot be encoded.
pub fn encode(tokenizer: &dyn Tokenizer, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
    let ids = tokenizer.encode(text, EncodeOptions { add_special: true, parse_special })?;
    Ok(begun(ids, tokenizer.special(), parse_special))
}

/// The ids of a prompt from those that a tokenizer with `add_special` gives, ours or a reference's: without a second
/// beginning-of-sequence token and without the end-of-sequence token that the flags put behind.
pub fn begun(mut ids: Vec<u32>, special: &SpecialTokens, parse_special: bool) -> Vec<u32> {
    if parse_special && special.add_bos && ids.len() > 1 && ids[0] == ids[1] && special.bos == Some(ids[0]) {
        ids.remove(0);
    }
    if special.add_eos && ids.len() > 1 && ids.last().copied() == special.eos {
        ids.pop();
    }
    ids
}

/// Ids that end an answer besides those that the tokenizer knows ([`Tokenizer::is_eog`]): the GGUF's, where the tokenizer
/// is from elsewhere; those of `generation_config.json` beside the model; those of the template's format. And what is
/// odd about them.
pub fn ends(
    tokenizer: &dyn Tokenizer,
    template: &PromptTemplate,
    metadata: &Metadata,
    model: Option<&Path>,
) -> (Vec<u32>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut ids: Vec<u32> = ["eos", "eot", "eom"]
        .iter()
        .filter_map(|role| metadata.u32(&format!("tokenizer.ggml.{role}_token_id")).ok().flatten())
        .collect();
    // A file of another model must not end every text at a comma.
    let is_control = |id: &u32| tokenizer.token_bytes(*id, false).is_some_and(|bytes| bytes.is_empty());
    ids.retain(is_control);
    let folder = model.and_then(Path::parent).map(|dir| dir.join("generation_config.json"));
    if let Some(path) = folder.filter(|path| path.is_file()) {
        let found = generation_config(&path).and_then(|found| match found.iter().find(|id| !is_control(id)) {
            Some(id) => Err(format!("token {id} is not a control token of this model")),
            None => Ok(found),
        });
        match found {
            Ok(found) => ids.extend(found),
            Err(why) => diagnostics.push(ignored(&path, &why)),
        }
    }
    for text in template.ends() {
        let options = EncodeOptions { add_special: false, parse_special: true };
        if let Ok([id]) = tokenizer.encode(text, options).as_deref() {
            ids.push(*id);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    (ids, diagnostics)
}

pub(crate) fn ignored(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::warning(
        "generation_config",
        format!("{}: {why}; it is ignored", path.display().to_string().escape_debug()),
        "move the file away if it belongs to another model",
    )
}

/// `eos_token_id`: a number or a list of numbers.
pub(crate) fn generation_config(path: &Path) -> Result<Vec<u32>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let one = |value: &serde_json::Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| "`eos_token_id` is not an id".to_owned())
    };
    match json.get("eos_token_id") {
        None | Some(serde_json::Value::Null) => Ok(Vec::new()),
        Some(serde_json::Value::Array(all)) => all.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}
