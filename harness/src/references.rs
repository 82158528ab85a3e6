//! The C++ references as backends of the matrix: what they are asked, and who answers.
//!
//! A cell of backend `bitnet` or `llama` puts [`Questions`] to our engine on its device ([`side`]) and to a
//! [`Reference`](crate::crossval::Reference): a live worker ([`live`]) or what one answered before ([`recorded`],
//! [`record`]). [`judge`] says what agreement is, and does not know which of the two it has.
//!
//! | module | what |
//! |---|---|
//! | [`questions`] | the texts, passages and prompts of a model |
//! | [`live`] | one worker process for each backend, shared by the cells of a run; the answers that it gave |
//! | [`recorded`] | recordings as a reference, and whether they are of this very file |
//! | [`record`] | making them |
//! | [`huggingface`] | a third opinion on ids |
//! | [`judge`] | tokens, logits, continuations: what must be equal, and what near |

pub mod huggingface;
pub mod judge;
pub mod live;
pub mod questions;
pub mod record;
pub mod recorded;

pub use questions::Questions;

use crate::axes::Cell;
use crate::context::Context;
use crate::crossval::Ours;
use crate::failure::Failure;
use crate::models;

/// Tokens of a chunk of ours.
const CHUNK: usize = 16;

/// Our engine on the device of a cell. Live and recorded cells of all backends ask the same, so each answer is computed once a
/// process.
pub fn side(ctx: &Context, cell: &Cell) -> Result<Ours, Failure> {
    let ours = Ours::new(models::loaded(ctx, cell)?, models::kernels(cell)?, models::pool(1)?);
    Ok(Ours { chunk: CHUNK, context: questions::CONTEXT, kept: true, ..ours })
}
