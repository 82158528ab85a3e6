//! What a [`Message`] is read from: one rule for `/load`, for `--input-file` and for whoever reads messages next.
//!
//! Source: OpenAI's API reference, "Create chat completion", `messages`.

use super::Message;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The roles that templates know.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// A message as it is written.
#[derive(Deserialize)]
pub(super) struct Written {
    role: String,
    content: Value,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl TryFrom<Written> for Message {
    type Error = String;

    fn try_from(Written { role, content, more }: Written) -> Result<Self, String> {
        if !ROLES.contains(&role.as_str()) {
            return Err(format!("the role `{}` is not system, user or assistant", role.escape_debug()));
        }
        // Tools write null or [] for what is not there.
        let says = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
        if let Some((name, _)) = more.iter().find(|(_, value)| says(value)) {
            let name = name.escape_debug();
            return Err(format!("`{name}` is not supported: a message has `role` and `content`"));
        }
        let content = match content {
            Value::String(text) => text,
            Value::Array(parts) => parts.iter().map(part).collect::<Result<_, _>>()?,
            Value::Null => return Err("`content` is null; only messages with a text are supported".to_owned()),
            _ => return Err("`content` is not a text or a list of parts".to_owned()),
        };
        Ok(Self { role, content })
    }
}

/// The text of a part.
fn part(part: &Value) -> Result<&str, String> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        (Some("text"), None) => Err("a part of `content` has no `text`".to_owned()),
        (Some(other), _) => {
            Err(format!("a part of `content` is of type `{}`; only text is supported", other.escape_debug()))
        }
        (None, _) => Err("a part of `content` has no `type`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_other_tools() {
        let read = |text: &str| serde_json::from_str::<Message>(text).map_err(|error| error.to_string());
        for (text, message) in [
            (r#"{"role": "user", "content": "a"}"#, Message::user("a")),
            (r#"{"content": [], "role": "system"}"#, Message::system("")),
            (
                r#"{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    "tool_calls": [], "refusal": null}"#,
                Message::assistant("ab"),
            ),
        ] {
            assert_eq!(read(text), Ok(message), "{text}");
        }
        for (text, words) in [
            (r#"{"role": "user"}"#, "missing field `content`"),
            (r#"{"content": "a"}"#, "missing field `role`"),
            (r#"{"role": "User", "content": "a"}"#, "the role `User` is not system, user or assistant"),
            (r#"{"role": "", "content": "a"}"#, "the role `` is not"),
            (r#"{"role": "tool", "content": "a", "tool_call_id": "1"}"#, "the role `tool` is not"),
            (r#"{"role": "user", "content": "a", "name": "Eve"}"#, "`name` is not supported"),
            (r#"{"role": "assistant", "content": null, "tool_calls": [{}]}"#, "`tool_calls` is not supported"),
            (r#"{"role": "assistant", "content": null}"#, "`content` is null"),
            (r#"{"role": "user", "content": 3}"#, "not a text or a list"),
            (r#"{"role": "user", "content": [{"type": "image_url"}]}"#, "of type `image_url`; only text"),
            (r#"{"role": "user", "content": [{"type": "text"}]}"#, "has no `text`"),
            (r#"{"role": "user", "content": ["a"]}"#, "has no `type`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
