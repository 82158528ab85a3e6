//! Prompt templates: from a question to the text that a model was trained to see.
//!
//! A GGUF may carry a Jinja template (`tokenizer.chat_template`). It is untrusted input: it runs in minijinja with a
//! limit on work (fuel), on nesting and on the size of its output, and has no access to anything but the messages. What
//! is not limited is the memory of intermediate values: a template that doubles a string forty times can exhaust it.

use crate::gguf::{GgufError, Metadata};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of the user.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A system message.
    #[must_use]
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
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
    /// The Jinja template of the GGUF.
    Gguf(String),
}

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The metadata value is not a text.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// No such template.
    #[error("unknown prompt template `{name}`; there are auto, raw, instruct and llama3-chat")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The template of the GGUF does not work.
    #[error(
        "the chat template in the model's metadata fails: {message}; choose another with --prompt-template raw, \
         instruct or llama3-chat"
    )]
    Template {
        /// The engine's message with its causes.
        message: String,
    },
}

/// Instructions that a template may execute; real ones need some thousands.
const FUEL: u64 = 1_000_000;
const RECURSION: usize = 64;
/// Longest output, in bytes for each byte of input beyond a base: a template adds markers, it does not multiply.
const MAX_TEMPLATE: usize = 1 << 20;
const MAX_OUTPUT: usize = 1 << 24;

impl PromptTemplate {
    /// The template of a name; `auto` is the GGUF's own if it has one, else raw.
    ///
    /// # Errors
    /// An unknown name, or metadata of the wrong type.
    pub fn choose(name: &str, metadata: &Metadata) -> Result<Self, ChatError> {
        Ok(match name {
            "auto" => match metadata.str("tokenizer.chat_template")? {
                Some(template) if !template.trim().is_empty() => Self::Gguf(template.to_owned()),
                _ => Self::Raw,
            },
            "raw" => Self::Raw,
            "instruct" => Self::Instruct,
            "llama3-chat" => Self::Llama3Chat,
            _ => return Err(ChatError::Unknown { name: name.to_owned() }),
        })
    }

    /// Name for reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Instruct => "instruct",
            Self::Llama3Chat => "llama3-chat",
            Self::Gguf(_) => "gguf",
        }
    }

    /// Whether control tokens written in the rendered text are meant as such.
    #[must_use]
    pub fn has_control_tokens(&self) -> bool {
        matches!(self, Self::Llama3Chat | Self::Gguf(_))
    }

    /// The text for a conversation, ending where the assistant's answer begins.
    ///
    /// # Errors
    /// The GGUF's template fails or exceeds its limits.
    pub fn render(&self, messages: &[Message], bos: &str, eos: &str) -> Result<String, ChatError> {
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
            Self::Gguf(template) => {
                // A filter that is asked for an impossible width panics inside of the template engine.
                let rendered = std::panic::catch_unwind(|| render(template, messages, bos, eos));
                match rendered {
                    Ok(result) => result.map_err(|error| ChatError::Template { message: causes(&error) }),
                    Err(_) => Err(ChatError::Template { message: "it makes the template engine panic".to_owned() }),
                }
            }
        }
    }

    /// Texts that end an answer in this format, besides the model's own end tokens.
    #[must_use]
    pub fn stops(&self) -> &'static [&'static str] {
        match self {
            Self::Instruct => &["\nQ:"],
            _ => &[],
        }
    }
}

fn render(template: &str, messages: &[Message], bos: &str, eos: &str) -> Result<String, Error> {
    if template.len() > MAX_TEMPLATE {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("it is {} bytes long", template.len())));
    }
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // Templates are written for Python's Jinja: they call methods of str, list and dict.
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // Some templates print the date; a fixed one keeps runs repeatable.
    env.add_function("strftime_now", |format: String| -> String {
        format
            .replace("%d", "01")
            .replace("%b", "Jan")
            .replace("%B", "January")
            .replace("%m", "01")
            .replace("%Y", "2025")
    });
    env.add_template("chat", template)?;
    let mut out = Bounded { bytes: Vec::new() };
    let messages: Vec<Value> =
        messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
    let context = context! {
        messages => messages,
        add_generation_prompt => true,
        bos_token => bos,
        eos_token => eos,
    };
    env.get_template("chat")?.render_captured_to(context, &mut out)?;
    String::from_utf8(out.bytes).map_err(|_| Error::new(ErrorKind::BadSerialization, "the output is not UTF-8"))
}

/// A buffer that refuses to grow without end.
struct Bounded {
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + buf.len() > MAX_OUTPUT {
            return Err(std::io::Error::other(format!("its output is longer than {MAX_OUTPUT} bytes")));
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gguf(template: &str) -> Result<String, ChatError> {
        PromptTemplate::Gguf(template.into()).render(&[Message::user(" Hi ")], "<s>", "</s>")
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
            ("{{ messages[0].content", "syntax"),
            ("{{ messages.nothing.at.all }}", "undefined"),
        ] {
            let message = gguf(template).unwrap_err().to_string();
            assert!(message.contains(expected), "{template}: {message}");
            assert!(message.contains("--prompt-template"), "{message}");
        }
        let doubling = "{% set s = 'x' * 1000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}";
        assert!(gguf(doubling).is_err());
        assert!(gguf(&" ".repeat(MAX_TEMPLATE + 1)).is_err());
    }

    #[test]
    fn the_built_in_formats() {
        let messages = [Message::system("Be brief."), Message::user("Why?")];
        assert_eq!(PromptTemplate::Raw.render(&messages[1..], "", "").unwrap(), "Why?");
        assert_eq!(PromptTemplate::Instruct.render(&messages, "", "").unwrap(), "Be brief.\n\nQ: Why?\nA:");
        let llama = PromptTemplate::Llama3Chat.render(&messages[1..], "", "").unwrap();
        assert_eq!(
            llama,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }
}
