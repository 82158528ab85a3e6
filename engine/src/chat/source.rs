//! Where a model's own chat template is found, and the one that is known to be wrong.
//!
//! In this order: a file that the user names; `tokenizer.chat_template` of the GGUF; `chat_template.jinja`, then
//! `chat_template` of `tokenizer_config.json`, beside the model. Templates have names (`default`, `tool_use`, `rag`,
//! ...): the GGUF has `tokenizer.chat_template.NAME`, `tokenizer_config.json` a list of `name` and `template`, a folder
//! `additional_chat_templates/NAME.jinja`.
//!
//! Microsoft's GGUF of BitNet-b1.58-2B-4T has a placeholder in place of the template that the model was trained with:
//! it ends the user's question with an end token and `BITNETAssistant: `, and drops the system message. It is replaced
//! by the format of the model's own `tokenizer_config.json`.

use super::jinja::MAX_TEMPLATE;
use super::{ChatError, PromptTemplate};
use crate::gguf::{Metadata, read_regular};
use crate::shell::folder_of;
use crate::tokenizer::Diagnostic;
use std::path::{Path, PathBuf};

/// The key of the template in a GGUF; named ones follow after a dot.
pub const KEY: &str = "tokenizer.chat_template";

/// What only the placeholder in Microsoft's GGUF contains.
const PLACEHOLDER: &str = "BITNETAssistant";

/// The format of BitNet-b1.58-2B-4T's `tokenizer_config.json`.
pub const BITNET_2B_4T: &str = "{% for message in messages %}{{ message['role'] | capitalize + ': ' + \
                                message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
                                {% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

/// Names of formats that need no template.
const BUILT_IN: [&str; 3] = ["raw", "instruct", "llama3-chat"];

/// Where a template is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The GGUF's metadata.
    Gguf,
    /// The format of BitNet-2B-4T, in place of the GGUF's placeholder.
    Corrected,
    /// A file.
    File(PathBuf),
}

impl Origin {
    /// Name for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Corrected => "bitnet-2b-4t",
            Self::File(_) => "file",
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gguf => f.write_str("the model's metadata"),
            Self::Corrected => f.write_str("BitNet-2B-4T"),
            Self::File(path) => write!(f, "{}", path.display().to_string().escape_debug()),
        }
    }
}

/// A Jinja template and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTemplate {
    /// The template.
    pub text: String,
    /// Its source.
    pub origin: Origin,
}

/// Whether a template is the placeholder of Microsoft's GGUF.
pub fn is_placeholder(template: &str) -> bool {
    template.contains(PLACEHOLDER)
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `auto`, `raw`, `instruct`, `llama3-chat`, or the name of a template of the model.
    pub name: &'a str,
    /// A file with a template that `auto` takes before all others.
    pub file: Option<&'a Path>,
    /// The model's file, beside which templates are looked for; none for a model that is not a file.
    pub model: Option<&'a Path>,
    /// Whether the model is asked a question. Only then is it worth a word that it has no template.
    pub tell: bool,
}

/// A template that was chosen.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The template.
    pub template: PromptTemplate,
    /// What the user should know about the choice.
    pub diagnostics: Vec<Diagnostic>,
}

/// Chooses the template.
///
/// # Errors
/// An unknown name, metadata of the wrong type, a file that cannot be used.
pub fn choose(wanted: Wanted<'_>, metadata: &Metadata) -> Result<Choice, ChatError> {
    let plain = |template| Ok(Choice { template, diagnostics: Vec::new() });
    if let Some(path) = wanted.file {
        if BUILT_IN.contains(&wanted.name) {
            let why = format!("`{}` is a format of its own; give either a name or a file", wanted.name);
            return Err(ChatError::File { path: path.to_owned(), why });
        }
        let text = only_file(path, if wanted.name == "auto" { "default" } else { wanted.name })?;
        return plain(PromptTemplate::Model(ModelTemplate { text, origin: Origin::File(path.to_owned()) }));
    }
    let name = match wanted.name {
        "raw" => return plain(PromptTemplate::Raw),
        "instruct" => return plain(PromptTemplate::Instruct),
        "llama3-chat" => return plain(PromptTemplate::Llama3Chat),
        "auto" => "default",
        name => name,
    };
    if let Some(text) = in_metadata(name, metadata)? {
        if is_placeholder(text) {
            let template = ModelTemplate { text: BITNET_2B_4T.to_owned(), origin: Origin::Corrected };
            let diagnostic = Diagnostic::warning(
                "placeholder_template",
                "the chat template in the GGUF is a placeholder that the model was not trained with; the format of its tokenizer_config.json is used"
                    .to_owned(),
                "bitnet repair-tokenizer FILE -o FIXED writes it",
            );
            return Ok(Choice { template: PromptTemplate::Model(template), diagnostics: vec![diagnostic] });
        }
        return plain(PromptTemplate::Model(ModelTemplate { text: text.to_owned(), origin: Origin::Gguf }));
    }
    if let Some(found) = wanted.model.map(|model| beside(model, name)).transpose()?.flatten() {
        return plain(PromptTemplate::Model(found));
    }
    if wanted.name != "auto" {
        let named = metadata.iter().filter_map(|(key, _)| key.strip_prefix(KEY)?.strip_prefix('.'));
        return Err(ChatError::Unknown { name: name.to_owned(), known: named.map(str::to_owned).collect() });
    }
    let mut diagnostics = Vec::new();
    if wanted.tell {
        diagnostics.push(Diagnostic::warning(
            "no_chat_template",
            "the model has no chat template; the prompt is continued as it is".to_owned(),
            "--prompt-template raw asks for that, --chat-template-file FILE gives a template",
        ));
    }
    Ok(Choice { template: PromptTemplate::Raw, diagnostics })
}

fn in_metadata<'a>(name: &str, metadata: &'a Metadata) -> Result<Option<&'a str>, ChatError> {
    let named = metadata.str(&format!("{KEY}.{name}"))?;
    let found = if name == "default" { metadata.str(KEY)?.or(named) } else { named };
    Ok(found.filter(|text| !text.trim().is_empty()))
}

/// A template in the folder of a model. What is there and cannot be read is an error: another template would be a guess.
fn beside(model: &Path, name: &str) -> Result<Option<ModelTemplate>, ChatError> {
    in_folder(folder_of(model), name)
}

/// Names of the templates of a folder, `default` first; what cannot be read is left to [`in_folder`].
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let config = read_regular(&folder.join("tokenizer_config.json")).ok();
    let json: serde_json::Value = config.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let listed = json.get("chat_template").and_then(|list| list.as_array()).into_iter().flatten();
    let mut names: Vec<String> = listed.filter_map(|one| Some(one.get("name")?.as_str()?.to_owned())).collect();
    let more = std::fs::read_dir(folder.join("additional_chat_templates")).into_iter().flatten().flatten();
    names.extend(more.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".jinja")?.to_owned())));
    names.retain(|name| name != "default");
    names.sort();
    names.dedup();
    names.insert(0, "default".to_owned());
    names
}

/// A template of a folder.
pub(crate) fn in_folder(folder: &Path, name: &str) -> Result<Option<ModelTemplate>, ChatError> {
    let jinja = match name {
        "default" => folder.join("chat_template.jinja"),
        // A name is looked for in the folder and nowhere else.
        _ if name.contains(['/', '\\', '\0']) || name.starts_with('.') => return Ok(None),
        _ => folder.join("additional_chat_templates").join(format!("{name}.jinja")),
    };
    let config = folder.join("tokenizer_config.json");
    for path in [jinja, config] {
        if path.is_file()
            && let Some(text) = template_in(&path, name)?
        {
            return Ok(Some(ModelTemplate { text, origin: Origin::File(path) }));
        }
    }
    Ok(None)
}

/// The template that a file of the user must have.
fn only_file(path: &Path, name: &str) -> Result<String, ChatError> {
    template_in(path, name)?.ok_or_else(|| {
        let why = format!("it has no chat template named `{}`", name.escape_debug());
        ChatError::File { path: path.to_owned(), why }
    })
}

/// The template in a file: a `tokenizer_config.json` (any `.json`), or the template itself.
fn template_in(path: &Path, name: &str) -> Result<Option<String>, ChatError> {
    let wrong = |why: String| ChatError::File { path: path.to_owned(), why };
    // tokenizer_config.json of a large vocabulary lists its added tokens.
    let limit = if is_json(path) { 64 << 20 } else { MAX_TEMPLATE as u64 };
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > limit {
        return Err(wrong(format!("it has {length} bytes, more than {limit}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if !is_json(path) {
        return Ok(Some(text).filter(|text| !text.trim().is_empty()));
    }
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let found = match json.get("chat_template") {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) if name == "default" => Some(text.as_str()),
        Some(serde_json::Value::String(_)) => None,
        Some(serde_json::Value::Array(all)) => {
            let named = |value: &&serde_json::Value| value.get("name").and_then(|n| n.as_str()) == Some(name);
            all.iter().find(named).and_then(|value| value.get("template")?.as_str())
        }
        Some(_) => return Err(wrong("`chat_template` is neither a text nor a list of named templates".to_owned())),
    };
    Ok(found.filter(|text| !text.trim().is_empty()).map(str::to_owned))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_a_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(&path, text).expect("write");
            path
        };
        put(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}"#,
        );
        put("additional_chat_templates/rag.jinja", "c");
        assert_eq!(names_in(dir.path()), ["default", "rag", "tool_use"]);
        let text = |name: &str| in_folder(dir.path(), name).expect(name).map(|template| template.text);
        assert_eq!([text("default"), text("tool_use"), text("rag")].map(Option::unwrap_or_default), ["a", "b", "c"]);
        // A name leads nowhere else.
        put("additional_chat_templates/sub/x.jinja", "d");
        put("additional_chat_templates/.x.jinja", "e");
        assert_eq!((text("sub/x"), text(".x"), text("no")), (None, None, None));

        let whole = put("whole.jinja", &" a".repeat(MAX_TEMPLATE / 2));
        assert!(template_in(&whole, "default").is_ok_and(|text| text.is_some_and(|text| text.len() == MAX_TEMPLATE)));
        let long = put("long.jinja", &"a".repeat(MAX_TEMPLATE + 1));
        assert!(template_in(&long, "default").is_err());
        let single = put("single.json", r#"{"chat_template": "a"}"#);
        assert_eq!(template_in(&single, "default").expect("a text").as_deref(), Some("a"));
        assert_eq!(template_in(&single, "tool_use").expect("no such"), None);
    }
}
