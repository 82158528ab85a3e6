//! Chat templates: as Jinja renders them for `transformers`, where they are found, and the way to ids.

mod conversation;
mod prompts;
mod rendered;
mod small;
mod sources;
