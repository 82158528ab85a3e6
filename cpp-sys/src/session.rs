//! A conversation with a worker: start once, load a model, ask often.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::frame::{self, Frame};
use crate::process::{Broken, Process};
use crate::wire::{
    Answer, Ask, Fault, Generated, GeneratedHeader, Hello, LoadInfo, LoadOptions, Logits, Outcome, PROTOCOL, Positions,
    Request, Rows, TraceHeader, TraceStep,
};
use crate::{CppError, Installed, Timings};

/// Takes one line per request: what was asked, what came, in which time.
pub type CallSink = Arc<dyn Fn(&str) + Send + Sync>;

/// How to talk to a worker.
#[derive(Clone)]
pub struct SessionOptions {
    /// Limit of every request but `load`.
    pub timeout: Duration,
    /// Limit of `load`, and of the first answer.
    pub load_timeout: Duration,
    /// Threads of the computation; 0 is the worker's choice.
    pub threads: usize,
    /// Where the trace of calls goes.
    pub log: Option<CallSink>,
}

impl Default for SessionOptions {
    /// Two minutes a request, ten a load, the worker's own number of threads, no trace.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), load_timeout: Duration::from_secs(600), threads: 0, log: None }
    }
}

impl fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOptions")
            .field("timeout", &self.timeout)
            .field("load_timeout", &self.load_timeout)
            .field("threads", &self.threads)
            .field("log", &self.log.is_some())
            .finish()
    }
}

/// A running worker. Dropping it ends the process.
pub struct Session {
    title: String,
    process: Option<Process>,
    /// Why there is no process any more.
    closed: String,
    hello: Hello,
    options: SessionOptions,
    next: u64,
    timings: Timings,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("hello", &self.hello).field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Session {
    /// Starts the worker and hears who it is.
    ///
    /// # Errors
    /// It cannot be started, speaks another protocol or version, or is another backend's.
    pub fn start(installed: &Installed, options: SessionOptions) -> Result<Self, CppError> {
        let process = Process::start(&installed.program).map_err(|source| CppError::Start {
            program: installed.program.clone(),
            source,
            command: installed.backend.setup_command().to_owned(),
        })?;
        let mut session = Self {
            title: installed.backend.title().to_owned(),
            process: Some(process),
            closed: String::new(),
            hello: Hello::default(),
            options,
            next: 0,
            timings: Timings::default(),
        };
        let (hello, _): (Hello, _) = session.ask(Ask::Hello { protocol: PROTOCOL }, Vec::new(), "hello", 0)?;
        if hello.protocol != PROTOCOL {
            let problem = format!("it speaks version {} of the protocol, we speak {PROTOCOL}", hello.protocol);
            return Err(session.broken("hello", problem));
        }
        if hello.backend != installed.backend.name() {
            let problem = format!("it is the worker of `{}`", hello.backend);
            return Err(session.broken("hello", problem));
        }
        session.hello = hello;
        Ok(session)
    }

    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Loads a model in place of the one before.
    ///
    /// # Errors
    /// [`CppError::Refused`] with the log of the C++ side where it cannot load the file; any other as of all requests.
    pub fn load(&mut self, path: &Path, options: LoadOptions) -> Result<LoadInfo, CppError> {
        let what = format!("load of {}", path.display());
        // The worker's folder need not be ours.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let ask = Ask::Load { path, options, threads: self.options.threads };
        Ok(self.ask(ask, Vec::new(), &what, 0)?.0)
    }

    /// Token ids of a text. `add_special` adds what the model wants around a text, `parse_special` reads special tokens
    /// in it.
    pub fn tokenize(&mut self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, CppError> {
        let what = format!("tokenize of {} bytes", text.len());
        let ask = Ask::Tokenize { add_special, parse_special };
        let ((), body) = self.ask(ask, text.as_bytes().to_vec(), &what, 0)?;
        self.ids(&body, &what)
    }

    /// The text of token ids, as bytes.
    pub fn detokenize(&mut self, tokens: &[u32], special: bool) -> Result<Vec<u8>, CppError> {
        let what = format!("detokenize of {} tokens", tokens.len());
        let ((), body) = self.ask(Ask::Detokenize { special }, frame::from_u32(tokens), &what, tokens.len())?;
        Ok(body)
    }

    /// Logits of some positions of a sequence, run from an empty KV cache, `chunk` tokens a batch (fewer where the
    /// reference's kernels cannot do so many: [`LoadInfo::largest_batch`]).
    ///
    /// # Errors
    /// As all requests; refused are an empty sequence, ids outside the vocabulary and sequences over the context.
    pub fn logits(&mut self, tokens: &[u32], positions: &Positions, chunk: usize) -> Result<Logits, CppError> {
        let what = format!("logits of {} tokens", tokens.len());
        let ask = Ask::Logits { positions: positions.clone(), chunk };
        let (rows, body): (Rows, _) = self.ask(ask, frame::from_u32(tokens), &what, tokens.len())?;
        let values = self.values(&body, &what)?;
        let want = rows.positions.len().checked_mul(rows.vocab);
        if rows.positions != positions.of(tokens.len()) || want != Some(values.len()) {
            let problem = format!("{} rows of {} and {} values", rows.positions.len(), rows.vocab, values.len());
            return Err(self.broken(&what, problem));
        }
        Ok(Logits { positions: rows.positions, vocab: rows.vocab, values })
    }

    /// Continues a prompt greedily, until `max_tokens` or an end-of-generation token.
    pub fn generate(&mut self, prompt: &[u32], max_tokens: usize) -> Result<Generated, CppError> {
        let what = format!("generate of {max_tokens} tokens");
        let ask = Ask::Generate { max_tokens };
        let (header, body): (GeneratedHeader, _) =
            self.ask(ask, frame::from_u32(prompt), &what, prompt.len() + max_tokens)?;
        let tokens = self.ids(&body, &what)?;
        if tokens.len() > max_tokens {
            return Err(self.broken(&what, format!("{} tokens", tokens.len())));
        }
        let GeneratedHeader { ended, prompt_seconds, decode_seconds } = header;
        Ok(Generated { tokens, ended, prompt_seconds, decode_seconds })
    }

    /// What the reference computed at each step, for all tokens. `steps` are names of our plan; empty: all that the
    /// reference's graph has. A step that it does not have is absent.
    pub fn trace(&mut self, tokens: &[u32], steps: &[String]) -> Result<Vec<TraceStep>, CppError> {
        let what = format!("trace of {} tokens", tokens.len());
        let ask = Ask::Trace { steps: steps.to_vec() };
        let (header, body): (TraceHeader, _) = self.ask(ask, frame::from_u32(tokens), &what, tokens.len())?;
        let values = self.values(&body, &what)?;
        let mut rest = values.as_slice();
        let mut trace = Vec::with_capacity(header.steps.len());
        for step in header.steps {
            let length = step.rows.checked_mul(step.width);
            let Some((own, after)) = length.and_then(|length| rest.split_at_checked(length)) else {
                let problem = format!("the body ends inside {}", step.tensor);
                return Err(self.broken(&what, problem));
            };
            rest = after;
            let (rows, width, values) = (step.rows, step.width, own.to_vec());
            trace.push(TraceStep { step: step.step, tensor: step.tensor, op: step.op, rows, width, values });
        }
        if !rest.is_empty() {
            let problem = format!("{} values behind the last step", rest.len());
            return Err(self.broken(&what, problem));
        }
        Ok(trace)
    }

    /// Makes the worker misbehave: this is how tests see that a fault of the C++ side stays there.
    pub fn provoke(&mut self, fault: Fault) -> Result<(), CppError> {
        let what = format!("provoked fault {fault:?}");
        let ((), _) = self.ask(Ask::Provoke { fault }, Vec::new(), &what, 0)?;
        Ok(())
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        ask: Ask,
        body: Vec<u8>,
        what: &str,
        tokens: usize,
    ) -> Result<(T, Vec<u8>), CppError> {
        let start = Instant::now();
        let name = ask.name();
        let limit = match ask {
            Ask::Load { .. } | Ask::Hello { .. } => self.options.load_timeout,
            _ => self.options.timeout,
        };
        let answered = self.exchange(ask, &body, what, limit);
        let seconds = start.elapsed().as_secs_f64();
        if let Some(log) = &self.options.log {
            let came = match &answered {
                Ok((_, _, body)) => format!("{} bytes", body.len()),
                Err(error) => error.to_string(),
            };
            log(&format!("{} {what}: {came}, {:.1} ms", self.title, seconds * 1e3));
        }
        let (value, worker_seconds, body) = answered?;
        let value = match serde_json::from_value(value) {
            Ok(value) => value,
            Err(error) => return Err(self.broken(what, format!("the answer's header: {error}"))),
        };
        self.timings.add(name, seconds, worker_seconds, tokens);
        Ok((value, body))
    }

    fn exchange(
        &mut self,
        ask: Ask,
        body: &[u8],
        what: &str,
        limit: Duration,
    ) -> Result<(serde_json::Value, f64, Vec<u8>), CppError> {
        self.next += 1;
        let id = self.next;
        let Some(process) = &mut self.process else {
            return Err(CppError::Closed { backend: self.title.clone(), earlier: self.closed.clone() });
        };
        let refused = |message: String, stderr| CppError::Refused {
            backend: self.title.clone(),
            during: what.to_owned(),
            message,
            stderr,
        };
        let header = serde_json::to_vec(&Request { id, ask }).map_err(|e| refused(e.to_string(), Vec::new()))?;
        let bytes = frame::encode(&header, body).map_err(|e| refused(e.to_string(), Vec::new()))?;
        let Frame { header, body } = match process.exchange(bytes, limit) {
            Ok(frame) => frame,
            Err(broken) => return Err(self.fail(broken, what, limit)),
        };
        let answer: Answer = match serde_json::from_slice(&header) {
            Ok(answer) => answer,
            Err(error) => return Err(self.broken(what, format!("the header is not an answer: {error}"))),
        };
        if answer.id != id {
            return Err(self.broken(what, format!("an answer to request {}, asked was {id}", answer.id)));
        }
        match answer.outcome {
            Outcome::Ok(value) => Ok((value, answer.seconds, body)),
            Outcome::Error(refusal) => Err(refused(refusal.message, refusal.log)),
        }
    }

    fn fail(&mut self, broken: Broken, what: &str, limit: Duration) -> CppError {
        let stderr = self.process.as_ref().map(Process::last_lines).unwrap_or_default();
        let (backend, during) = (self.title.clone(), what.to_owned());
        let error = match broken {
            Broken::Died(status) => CppError::Died { backend, during, status, stderr },
            Broken::TimedOut => CppError::TimedOut { backend, during, limit, stderr },
            Broken::Garbage(error) => CppError::Protocol { backend, during, problem: error.to_string(), stderr },
        };
        self.close(error)
    }

    /// Ends the session: nothing that such a worker says can be relied on.
    fn broken(&mut self, what: &str, problem: String) -> CppError {
        let stderr = self.process.as_ref().map(Process::last_lines).unwrap_or_default();
        let (backend, during) = (self.title.clone(), what.to_owned());
        self.close(CppError::Protocol { backend, during, problem, stderr })
    }

    fn close(&mut self, error: CppError) -> CppError {
        if let Some(mut process) = self.process.take() {
            process.end();
        }
        self.closed = error.to_string().lines().next().unwrap_or_default().to_owned();
        error
    }

    fn ids(&mut self, body: &[u8], what: &str) -> Result<Vec<u32>, CppError> {
        frame::to_u32(body).ok_or_else(|| self.broken(what, format!("a body of {} bytes for ids", body.len())))
    }

    fn values(&mut self, body: &[u8], what: &str) -> Result<Vec<f32>, CppError> {
        frame::to_f32(body).ok_or_else(|| self.broken(what, format!("a body of {} bytes for values", body.len())))
    }
}
