//! Sequences that begin alike: what a session holds of the last one is not computed again.
//!
//! A batch gives every position the logits that it has alone, so a sequence that goes on from a kept beginning has the text of
//! one that is computed from its first token.

use super::{GenerateOptions, Generation, InferenceError, Session, extend};
use crate::tokenizer::Tokenizer;
use std::sync::atomic::AtomicBool;

/// A session and the tokens that it holds.
#[derive(Debug)]
pub struct Prefix {
    session: Session,
    tokens: Vec<u32>,
}

/// A generation after a beginning that may have been there.
#[derive(Debug, Clone)]
pub struct Made {
    /// The generation. Its timings count the tokens that were computed.
    pub generation: Generation,
    /// Tokens of the prompt that were kept from before.
    pub kept: usize,
}

impl Prefix {
    /// Takes a session; what it holds is forgotten.
    #[must_use]
    pub fn new(mut session: Session) -> Self {
        session.truncate(0);
        Self { session, tokens: Vec::new() }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Generates after `ids`, the whole sequence. The tokens that it has in common with what the session holds are kept, but for
    /// the last one, whose logits are needed.
    ///
    /// # Errors
    /// As [`generate`](super::generate).
    pub fn generate(
        &mut self,
        tokenizer: &dyn Tokenizer,
        ids: &[u32],
        options: &GenerateOptions,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Made, InferenceError> {
        let context = self.session.context();
        if ids.len() >= context {
            // Whatever is kept of it, it is the whole that is too long.
            return Err(InferenceError::PromptTooLong { prompt: ids.len(), room: context });
        }
        let common = self.tokens.iter().zip(ids).take_while(|(held, id)| held == id).count();
        let kept = common.min(ids.len().saturating_sub(1));
        self.session.truncate(kept);
        self.tokens.truncate(kept);
        let made = extend(&mut self.session, tokenizer, ids, options, cancel, on_text);
        match made {
            Ok(generation) => {
                // The last token that was made was not run, and after Ctrl-C not even all of the prompt.
                self.tokens = [ids, &generation.tokens].concat();
                self.tokens.truncate(self.session.position());
                Ok(Made { generation, kept })
            }
            Err(error) => {
                self.session.truncate(kept);
                Err(error)
            }
        }
    }
}
