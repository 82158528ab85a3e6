//! A line of many prompts, and the line that answers it.

use crate::generation::repetition_penalty;
use bitnet_engine::chat::Message;
use bitnet_engine::inference::{GenerateOptions, StopReason};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A line of the input. What it does not say is as the arguments are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Anything; it is in the answer too.
    pub id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    system: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Vec<String>>,
}

impl Request {
    /// Reads a line.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|error| format!("the line is not UTF-8: {error}"))?;
        serde_json::from_str(text).map_err(|error| format!("the line is not a request: {error}"))
    }

    /// The conversation, with the `system` message of the arguments where the line has none.
    pub(super) fn messages(&mut self, system: Option<&str>) -> Result<Vec<Message>, String> {
        let own = self.system.take();
        let rest = match (self.prompt.take(), self.messages.take()) {
            (Some(prompt), None) if prompt.is_empty() => return Err("the prompt is empty".to_owned()),
            (Some(prompt), None) => vec![Message::user(prompt)],
            (None, Some(messages)) if messages.is_empty() => return Err("there are no messages".to_owned()),
            (None, Some(messages)) => messages,
            _ => return Err("a line has either `prompt` or `messages`".to_owned()),
        };
        let begun = rest[0].role == "system";
        if begun && own.is_some() {
            return Err("the messages begin with a system message, and there is `system` too".to_owned());
        }
        let system = own.or_else(|| system.filter(|_| !begun).map(str::to_owned));
        Ok(system.map(Message::system).into_iter().chain(rest).collect())
    }

    /// The options of the arguments with what the line says; `penalty` is what the arguments say of the repetition penalty,
    /// whose default depends on the temperature.
    pub(super) fn options(&self, arguments: &GenerateOptions, penalty: Option<f32>) -> GenerateOptions {
        let mut options = arguments.clone();
        let sampler = &mut options.sampler;
        let set = |to: &mut f32, from: Option<f32>| *to = from.unwrap_or(*to);
        set(&mut sampler.temperature, self.temperature);
        set(&mut sampler.top_p, self.top_p);
        set(&mut sampler.min_p, self.min_p);
        sampler.repetition_penalty = repetition_penalty(self.repetition_penalty.or(penalty), sampler.temperature);
        sampler.top_k = self.top_k.unwrap_or(sampler.top_k);
        sampler.seed = self.seed.unwrap_or(sampler.seed);
        options.max_tokens = self.max_tokens.or(options.max_tokens);
        options.stop.extend(self.stop.iter().flatten().cloned());
        options
    }
}

/// What an answer belongs to. It is the beginning of every line of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The line of the input, from 1.
    pub line: usize,
    /// [`fingerprint`] of that line.
    pub input: String,
    /// [`fingerprint`] of the model and the arguments that decide about answers.
    pub run: String,
}

impl Mark {
    /// How the line of the output begins.
    pub(super) fn head(&self) -> String {
        let Self { line, input, run } = self;
        format!("{{\"line\":{line},\"input\":\"{input}\",\"run\":\"{run}\",")
    }
}

/// Sixteen hexadecimal digits of the SHA-256.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of the output.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    #[serde(flatten)]
    pub mark: Mark,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(flatten)]
    pub said: Said,
}

/// What there is to say.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Said {
    Answer {
        /// The new text.
        text: String,
        stop: StopReason,
        seed: u64,
        prompt_tokens: usize,
        new_tokens: usize,
    },
    Error {
        error: String,
    },
}

/// A line of the output that is there already.
#[derive(Debug, Deserialize)]
pub(super) struct Earlier {
    #[serde(flatten)]
    pub mark: Mark,
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(line: &str, system: Option<&str>) -> Result<Vec<(String, String)>, String> {
        let messages = Request::read(line.as_bytes()).and_then(|mut request| request.messages(system))?;
        Ok(messages.into_iter().map(|m| (m.role, m.content)).collect())
    }

    #[test]
    fn a_line_is_a_conversation() {
        let pair = |role: &str, text: &str| (role.to_owned(), text.to_owned());
        let list = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
        let begun = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}"#;
        for (line, system, expected) in [
            (r#"{"prompt": "a"}"#, None, vec![pair("user", "a")]),
            (r#"{"prompt": "a"}"#, Some("d"), vec![pair("system", "d"), pair("user", "a")]),
            (r#"{"prompt": "a", "system": "s"}"#, Some("d"), vec![pair("system", "s"), pair("user", "a")]),
            (list, Some("d"), vec![pair("system", "d"), pair("user", "a")]),
            (begun, Some("d"), vec![pair("system", "s"), pair("user", "a")]),
        ] {
            assert_eq!(messages(line, system).unwrap(), expected, "{line}");
        }
        let twice = begun.replace("]}", r#"], "system": "x"}"#);
        for (line, words) in [
            ("", "EOF"),
            ("[]", "not a request"),
            ("{}", "either `prompt` or `messages`"),
            (r#"{"prompt": "a", "messages": []}"#, "either"),
            (r#"{"prompt": ""}"#, "empty"),
            (r#"{"messages": []}"#, "no messages"),
            (r#"{"prompt": "a", "maxtokens": 3}"#, "maxtokens"),
            (r#"{"prompt": "a", "seed": -1}"#, "-1"),
            (&twice, "`system` too"),
        ] {
            let error = messages(line, None).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
        assert!(Request::read(b"\xFF").unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn a_reply_begins_with_its_mark() {
        let mark = Mark { line: 3, input: fingerprint(b"a"), run: fingerprint(b"") };
        assert_eq!(mark.head(), r#"{"line":3,"input":"ca978112ca1bbdca","run":"e3b0c44298fc1c14","#);
        let reply = Reply { mark: mark.clone(), id: None, said: Said::Error { error: "e".into() } };
        let text = serde_json::to_string(&reply).unwrap();
        assert!(text.starts_with(&mark.head()), "{text}");
        let back: Earlier = serde_json::from_str(&text).unwrap();
        assert_eq!((back.mark, back.error.as_deref()), (mark, Some("e")));
    }
}
