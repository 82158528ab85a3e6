//! Prompts: from a conversation to the tokens that a model was trained to see.
//!
//! | file | owns |
//! |---|---|
//! | `chat.rs` | messages, the formats that are built in, choosing one |
//! | `message` | what a message is read from |
//! | [`source`] | where a model's own template is found: its metadata, files beside it, a file of the user |
//! | [`jinja`] | rendering a template as `transformers` does, with limits |
//! | `syntax`, `methods`, `json`, [`clock`] | what minijinja lacks for that |
//! | [`conversation`] | turns: what of them fits the context, what a session has computed already |
//! | [`transcript`] | a conversation as a file |
//! | [`prompt`] | the one way from messages or a raw text to ids, and what ends the answer |

use crate::gguf::GgufError;
use minijinja::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub mod clock;
pub mod conversation;
pub mod jinja;
mod json;
mod message;
mod methods;
pub mod prompt;
pub mod source;
mod syntax;
pub mod transcript;

pub use clock::Clock;
pub use conversation::Conversation;
pub use source::{Choice, ModelTemplate, Origin};

/// One turn of a conversation.
///
/// It is read from what OpenAI's and HuggingFace's tools write: the content is a text or a list of `{"type": "text"}` parts,
/// which are put together; other fields may be null or an empty list. What else they may say, tools and images among it, is not
/// supported and is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "message::Written")]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
    }

    /// An answer of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }
}

/// How a prompt is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptTemplate {
    /// Not at all: the model continues the text.
    Raw,
    /// `Q: ... A:`, for base models that were shown questions and answers.
    Instruct,
    /// The format of LLaMA-3's chat models.
    Llama3Chat,
    /// The model's own Jinja template.
    Model(ModelTemplate),
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ChatError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("unknown prompt template `{name}`; there are auto, raw, instruct, llama3-chat{}", listed(known))]
    Unknown { name: String, known: Vec<String> },
    #[error("cannot take a chat template from {}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error(
        "the chat template of {origin} fails: {message}; choose another with --prompt-template raw, instruct or \
         llama3-chat, or --chat-template-file FILE"
    )]
    Template { origin: Origin, message: String },
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!(", {}", name.escape_debug())).collect()
}

/// What a conversation is rendered with, besides its messages.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Text of the beginning-of-sequence token, if there is one.
    pub bos: Option<&'a str>,
    /// Text of the end-of-sequence token, if there is one.
    pub eos: Option<&'a str>,
    /// What time it is.
    pub clock: Clock,
}

impl PromptTemplate {
    /// Name for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Instruct => "instruct",
            Self::Llama3Chat => "llama3-chat",
            Self::Model(template) => template.origin.name(),
        }
    }

    /// Whether control tokens written in the rendered text are meant as such.
    pub fn has_control_tokens(&self) -> bool {
        matches!(self, Self::Llama3Chat | Self::Model(_))
    }

    /// The text for a conversation, ending where the assistant's answer begins.
    ///
    /// # Errors
    /// The model's template fails or exceeds its limits.
    pub fn render(&self, messages: &[Message], with: Surroundings<'_>) -> Result<String, ChatError> {
        match self {
            Self::Raw => Ok(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")),
            Self::Instruct => {
                let mut text = String::new();
                for m in messages {
                    match m.role.as_str() {
                        "user" => text.push_str(&format!("Q: {}\n", m.content)),
                        "assistant" => text.push_str(&format!("A: {}\n", m.content)),
                        _ => text.push_str(&format!("{}\n\n", m.content)),
                    }
                }
                Ok(text + "A:")
            }
            Self::Llama3Chat => {
                let mut text = String::from("<|begin_of_text|>");
                for m in messages {
                    text.push_str(&format!(
                        "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>",
                        m.role,
                        m.content.trim()
                    ));
                }
                Ok(text + "<|start_header_id|>assistant<|end_header_id|>\n\n")
            }
            Self::Model(template) => {
                let one = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
                let messages: Vec<Value> = messages.iter().map(one).collect();
                let mut variables = BTreeMap::from([("messages".to_owned(), Value::from(messages))]);
                for (name, text) in [("bos_token", with.bos), ("eos_token", with.eos)] {
                    if let Some(text) = text {
                        variables.insert(name.to_owned(), Value::from(text));
                    }
                }
                jinja::render(&template.text, &jinja::Inputs { variables, clock: with.clock })
                    .map_err(|message| ChatError::Template { origin: template.origin.clone(), message })
            }
        }
    }

    /// Texts that end an answer in this format, besides the model's own end tokens.
    pub fn stops(&self) -> &'static [&'static str] {
        match self {
            Self::Instruct => &["\nQ:"],
            _ => &[],
        }
    }

    /// Tokens that end an answer in this format, whatever the file says; 128009 and 128001 for BitNet-2B-4T.
    pub fn ends(&self) -> &'static [&'static str] {
        match self {
            Self::Model(ModelTemplate { origin: Origin::Corrected, .. }) => &["<|eot_id|>", "<|end_of_text|>"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: Surroundings<'_> = Surroundings { bos: Some("<s>"), eos: Some("</s>"), clock: Clock::NOW };

    fn gguf(template: &str) -> Result<String, ChatError> {
        let template = ModelTemplate { text: template.into(), origin: Origin::Gguf };
        PromptTemplate::Model(template).render(&[Message::user(" Hi ")], WITH)
    }

    #[test]
    fn a_template_of_the_usual_kind() {
        let template = "{{ bos_token }}{% for message in messages %}\n  {% if message['role'] == 'user' %}\n\
                        [INST] {{ message['content'].strip() }} [/INST]{% endif %}{% endfor %}\
                        {% if add_generation_prompt %}>{% endif %}";
        assert_eq!(gguf(template).unwrap(), "<s>[INST] Hi [/INST]>");
    }

    #[test]
    fn hostile_templates_end_with_an_error() {
        for (template, expected) in [
            ("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}", "fuel"),
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}", "recursion"),
            ("{{ 'a'|indent(18446744073709551615) }}", "fails"),
            ("{{ 'a'.center(9999999) }}", "width"),
            ("{{ '%99999999999d' % 1 }}", "too large"),
            ("{{ '%99999999999d'|format(1) }}", "too large"),
            ("{{ '{:99999999999}'.format(1) }}", "too large"),
            ("{{ messages[0].content", "syntax"),
            ("{{ messages.nothing.at.all }}", "undefined"),
        ] {
            let message = gguf(template).unwrap_err().to_string();
            assert!(message.contains(expected), "{template}: {message}");
            assert!(message.contains("--prompt-template"), "{message}");
        }
        let doubling = "{% set s = 'x' * 1000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}";
        assert!(gguf(doubling).is_err());
        assert!(gguf(&" ".repeat(jinja::MAX_TEMPLATE + 1)).is_err());
        let dates = format!("{{{{ strftime_now('{}') }}}}", "%1000Y".repeat(100));
        assert_eq!(gguf(&dates).unwrap().len(), 100_000);
    }

    #[test]
    fn the_built_in_formats() {
        let messages = [Message::system("Be brief."), Message::user("Why?"), Message::assistant("So.")];
        assert_eq!(PromptTemplate::Raw.render(&messages[1..2], WITH).unwrap(), "Why?");
        assert_eq!(PromptTemplate::Instruct.render(&messages, WITH).unwrap(), "Be brief.\n\nQ: Why?\nA: So.\nA:");
        let llama = PromptTemplate::Llama3Chat.render(&messages[1..2], WITH).unwrap();
        assert_eq!(
            llama,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }
}
