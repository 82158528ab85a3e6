//! A chat template: rewritten, read, and rendered with a short conversation.

use super::{files, said};
use crate::Target;
use bitnet_engine::chat::{Clock, Message, ModelTemplate, Origin, PromptTemplate, Surroundings};

pub const TARGET: Target = Target {
    name: "chat-template",
    about: "a Jinja template, rendered",
    seeds: || files("chat/templates", "jinja", 8192),
    run,
};

fn run(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let template = PromptTemplate::Model(ModelTemplate { text, origin: Origin::Gguf });
    let messages =
        [Message::system("Be kind."), Message::user("Hello"), Message::assistant("Hi"), Message::user("12?")];
    let with = Surroundings { bos: Some("<s>"), eos: Some("</s>"), clock: Clock::pinned() };
    let said = said(template.render(&messages, with));
    // A word of the template's own is no word.
    said.split_once("unknown statement").map_or(said.clone(), |(before, _)| before.to_owned())
}
