//! Chat templates: as Jinja renders them for `transformers`, where they are found, and the way to ids.

#[path = "../model_support/mod.rs"]
mod model_support;

mod conversation;
mod prompts;
mod rendered;
mod small;
mod sources;
