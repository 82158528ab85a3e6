//! The other half of the protocol: what a worker does with its stdin and stdout.
//!
//! A worker implements [`Reference`] and calls [`serve`]. What can be checked without the C++ side is checked here, once:
//! a token id outside the vocabulary, say, is an abort over there.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use crate::frame::{self, Frame, FrameError};
use crate::wire::{
    Answer, Ask, Fault, Generated, GeneratedHeader, Hello, LoadInfo, LoadOptions, Outcome, PROTOCOL, Refusal, Request,
    Rows, StepHeader, TraceHeader, TraceStep,
};

/// A reference as its worker sees it. Arguments were checked: a model is loaded, ids are in the vocabulary, sequences are
/// not empty and fit the context, positions ascend.
pub trait Reference {
    /// Who this is.
    fn hello(&self) -> Hello;
    /// Loads a model in place of the one before.
    ///
    /// # Errors
    /// Why it cannot.
    fn load(&mut self, path: &Path, options: &LoadOptions, threads: usize) -> Result<LoadInfo, Refusal>;
    /// Ids of a text.
    ///
    /// # Errors
    /// Why it cannot.
    fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, Refusal>;
    /// Text of ids.
    ///
    /// # Errors
    /// Why it cannot.
    fn detokenize(&mut self, tokens: &[u32], special: bool) -> Result<Vec<u8>, Refusal>;
    /// Logits, `[positions][vocabulary]`, from an empty KV cache.
    ///
    /// # Errors
    /// Why it cannot.
    fn logits(&mut self, tokens: &[u32], positions: &[usize], chunk: usize) -> Result<Vec<f32>, Refusal>;
    /// A greedy continuation from an empty KV cache.
    ///
    /// # Errors
    /// Why it cannot.
    fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, Refusal>;
    /// The steps of these names (all that have a name, if there are none), from an empty KV cache.
    ///
    /// # Errors
    /// Why it cannot.
    fn trace(&mut self, tokens: &[u32], steps: &[String]) -> Result<Vec<TraceStep>, Refusal>;
    /// Misbehaves.
    ///
    /// # Errors
    /// Why it cannot.
    fn provoke(&mut self, fault: Fault) -> Result<(), Refusal>;
}

/// Why serving ended before the client went.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A frame that cannot be read.
    #[error("a frame that cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// A header that is not a request. Without its id there is no answer to it.
    #[error("a header that is not a request: {0}")]
    Request(serde_json::Error),
    /// An answer that cannot be written.
    #[error("an answer cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Answers requests until the stream ends.
///
/// # Errors
/// See [`ServeError`].
pub fn serve(reference: &mut dyn Reference, from: &mut impl Read, to: &mut impl Write) -> Result<(), ServeError> {
    let mut loaded = None;
    loop {
        let Frame { header, body } = match frame::read(from) {
            Ok(frame) => frame,
            Err(FrameError::Ended) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Request { id, ask } = serde_json::from_slice(&header).map_err(ServeError::Request)?;
        let start = Instant::now();
        let answered = answer(reference, &mut loaded, ask, &body);
        let seconds = start.elapsed().as_secs_f64();
        let (outcome, body) = match answered {
            Ok((value, body)) => (Outcome::Ok(value), body),
            Err(refusal) => (Outcome::Error(refusal), Vec::new()),
        };
        let header = serde_json::to_vec(&Answer { id, seconds, outcome }).map_err(std::io::Error::from)?;
        frame::write(to, &header, &body)?;
    }
}

type Answered = Result<(Value, Vec<u8>), Refusal>;

fn answer(reference: &mut dyn Reference, loaded: &mut Option<Loaded>, ask: Ask, body: &[u8]) -> Answered {
    let model = loaded.as_ref();
    match ask {
        Ask::Hello { protocol } if protocol != PROTOCOL => {
            Err(Refusal::new(format!("this worker speaks version {PROTOCOL} of the protocol, the client {protocol}")))
        }
        Ask::Hello { .. } => header(&reference.hello(), Vec::new()),
        Ask::Load { path, options, threads } => {
            *loaded = None;
            let info = reference.load(&path, &options, threads)?;
            *loaded = Some(Loaded { info: info.clone(), vocab_only: options.vocab_only });
            header(&info, Vec::new())
        }
        Ask::Tokenize { add_special, parse_special } => {
            any(model)?;
            let text = std::str::from_utf8(body).map_err(|error| Refusal::new(format!("the text: {error}")))?;
            let ids = reference.tokenize(text, add_special, parse_special)?;
            header(&(), frame::from_u32(&ids))
        }
        Ask::Detokenize { special } => {
            let tokens = any(model)?.ids(body)?;
            header(&(), reference.detokenize(&tokens, special)?)
        }
        Ask::Logits { positions, chunk } => {
            let model = any(model)?;
            let tokens = model.sequence(body, 0)?;
            let positions = positions.of(tokens.len());
            let ascending = positions.is_sorted_by(|a, b| a < b);
            if !ascending || positions.last().is_none_or(|last| *last >= tokens.len()) {
                return Err(Refusal::new("positions must ascend, be some, and lie in the sequence"));
            }
            let values = reference.logits(&tokens, &positions, model.chunk(chunk))?;
            header(&Rows { positions, vocab: model.info.vocab_size }, frame::from_f32(&values))
        }
        Ask::Generate { max_tokens } => {
            let tokens = any(model)?.sequence(body, max_tokens)?;
            let Generated { tokens, ended, prompt_seconds, decode_seconds } =
                reference.generate(&tokens, max_tokens)?;
            header(&GeneratedHeader { ended, prompt_seconds, decode_seconds }, frame::from_u32(&tokens))
        }
        Ask::Trace { steps } => {
            let tokens = any(model)?.sequence(body, 0)?;
            let (mut headers, mut body) = (Vec::new(), Vec::new());
            for step in reference.trace(&tokens, &steps)? {
                let TraceStep { step, tensor, op, rows, width, values } = step;
                headers.push(StepHeader { step, tensor, op, rows, width });
                body.extend(frame::from_f32(&values));
            }
            header(&TraceHeader { steps: headers }, body)
        }
        Ask::Provoke { fault } => {
            reference.provoke(fault)?;
            header(&(), Vec::new())
        }
    }
}

fn header(value: &impl Serialize, body: Vec<u8>) -> Answered {
    let value = serde_json::to_value(value).map_err(|error| Refusal::new(error.to_string()))?;
    Ok((value, body))
}

fn any(loaded: Option<&Loaded>) -> Result<&Loaded, Refusal> {
    loaded.ok_or_else(|| Refusal::new("no model is loaded"))
}

struct Loaded {
    info: LoadInfo,
    vocab_only: bool,
}

impl Loaded {
    fn ids(&self, body: &[u8]) -> Result<Vec<u32>, Refusal> {
        let ids = frame::to_u32(body).ok_or_else(|| Refusal::new("the body is not a list of ids"))?;
        match ids.iter().find(|id| **id as usize >= self.info.vocab_size) {
            Some(id) => {
                let size = self.info.vocab_size;
                Err(Refusal::new(format!("token {id} is not in the vocabulary of {size}")))
            }
            None => Ok(ids),
        }
    }

    /// A sequence to compute, with so many tokens to come.
    fn sequence(&self, body: &[u8], more: usize) -> Result<Vec<u32>, Refusal> {
        if self.vocab_only {
            return Err(Refusal::new("only the vocabulary is loaded"));
        }
        let ids = self.ids(body)?;
        let length = ids.len().saturating_add(more);
        if ids.is_empty() || length > self.info.context {
            let context = self.info.context;
            return Err(Refusal::new(format!("a sequence of {length} tokens; 1 to {context} fit the context")));
        }
        Ok(ids)
    }

    fn chunk(&self, chunk: usize) -> usize {
        chunk.clamp(1, self.info.largest_batch.unwrap_or(usize::MAX).max(1))
    }
}
