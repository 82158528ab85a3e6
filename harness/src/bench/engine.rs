//! What can be measured, behind one trait: programs with the interface of `llama-bench` (ours is one), and in
//! [`super::worker`] the C++ references.

use super::llama_bench;
use super::process::{self, ProcessError, Ran};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub model: PathBuf,
    pub threads: usize,
    /// Tokens of the prompt whose rate is measured.
    pub prompt: usize,
    /// Tokens of the generation whose rate is measured.
    pub generate: usize,
    /// The text whose first new token is waited for.
    pub text: String,
    /// What one measurement may take.
    pub limit: Duration,
}

/// Rates of one measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Prompt tokens a second.
    pub prefill: f64,
    /// New tokens a second.
    pub decode: f64,
    /// The most memory of the process so far, in bytes.
    pub peak_rss: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{what}")]
    Missing { what: String, command: String },
    #[error("{0}")]
    Cannot(String),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{program}: {source}")]
    Output {
        program: String,
        #[source]
        source: llama_bench::ParseError,
    },
    #[error(transparent)]
    Cpp(#[from] cpp_sys::CppError),
}

/// The wait for new tokens after a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timed {
    /// Seconds from before the start of a process to the last of them.
    pub seconds: f64,
    /// Tokens that the text has there.
    pub tokens: usize,
}

/// Something that runs models.
pub trait Engine {
    /// Gets ready for measurements with so many threads, and warms up.
    ///
    /// # Errors
    /// It is not here, or cannot run the model.
    fn begin(&mut self, ask: &Ask) -> Result<(), EngineError>;

    /// Measures once.
    ///
    /// # Errors
    /// What went wrong; it is not asked again then.
    fn measure(&mut self, ask: &Ask) -> Result<Rates, EngineError>;

    /// The time of a new process to the last of `answer` tokens after the text; `None` if there is no way to ask.
    fn whole(&mut self, ask: &Ask, answer: usize) -> Result<Option<Timed>, EngineError>;

    /// The time of [`Ask::generate`] tokens that come after `depth` others, without load, preparation and the others; `None` if there
    /// is no way to ask.
    fn deep(&mut self, _ask: &Ask, _depth: usize) -> Result<Option<Timed>, EngineError> {
        Ok(None)
    }

    /// Ends what [`Engine::begin`] began.
    fn end(&mut self);
}

/// A program with the interface of `llama-bench`. Each measurement is a process of its own, which loads the model, warms up
/// and runs each test once.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// `bitnet`, where the flags come after a command.
    ours: bool,
    /// More flags of `infer`.
    settings: Vec<&'static str>,
}

impl Program {
    pub fn new(path: PathBuf) -> Self {
        Self { path, ours: false, settings: Vec::new() }
    }

    /// Ours: `bitnet`, with its commands `bench` and `infer`.
    pub fn ours(path: PathBuf) -> Self {
        Self { path, ours: true, settings: Vec::new() }
    }

    /// The same with more flags of `infer`.
    #[must_use]
    pub fn with(self, settings: &[&'static str]) -> Self {
        Self { settings: settings.to_vec(), ..self }
    }

    fn run(&self, args: &[&str], limit: Duration) -> Result<Ran, EngineError> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(process::run(&self.path, &args, limit)?)
    }

    /// Its measurement, once, as JSON.
    fn bench(&self, ask: &Ask, flags: &[&str]) -> Result<Ran, EngineError> {
        let model = text(&ask.model);
        let command: &[&str] = if self.ours { &["bench"] } else { &[] };
        self.run(&[command, &["-m", &model], flags, &["-r", "1", "-o", "json"]].concat(), ask.limit)
    }

    fn said(&self, source: llama_bench::ParseError) -> EngineError {
        EngineError::Output { program: text(&self.path), source }
    }

    /// How fast so many threads read memory, in bytes a second, by our program.
    ///
    /// # Errors
    /// It failed, or said something else.
    pub fn bandwidth(&self, threads: usize, limit: Duration) -> Result<f64, EngineError> {
        #[derive(serde::Deserialize)]
        struct Line {
            bytes_per_second: f64,
        }
        let threads = threads.to_string();
        let ran = self.run(&["bench", "--bandwidth", "-t", &threads, "-r", "5", "-o", "json"], limit)?;
        let lines: Vec<Line> = serde_json::from_str(&ran.out)
            .map_err(|error| EngineError::Cannot(format!("{} bench --bandwidth: {error}", self.path.display())))?;
        let rate = lines.first().map(|line| line.bytes_per_second).filter(|rate| *rate > 0.0);
        rate.ok_or_else(|| EngineError::Cannot("the bandwidth of memory is not above zero".to_owned()))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Engine for Program {
    fn begin(&mut self, _: &Ask) -> Result<(), EngineError> {
        if self.path.is_file() {
            return Ok(());
        }
        Err(EngineError::Missing {
            what: format!("{} is not a file", self.path.display()),
            command: "name the program with its path: --program NAME=PATH".to_owned(),
        })
    }

    fn measure(&mut self, ask: &Ask) -> Result<Rates, EngineError> {
        let numbers = [ask.prompt, ask.generate, ask.threads].map(|n| n.to_string());
        let [prompt, generate, threads] = numbers.each_ref().map(String::as_str);
        let flags = ["-p", prompt, "-n", generate, "-t", threads];
        let ran = self.bench(ask, &flags)?;
        let rates = llama_bench::parse(&ran.out, ask.prompt, ask.generate, ask.threads).map_err(|e| self.said(e))?;
        Ok(Rates { peak_rss: rates.peak_rss.max(ran.peak_rss), ..rates })
    }

    fn deep(&mut self, ask: &Ask, depth: usize) -> Result<Option<Timed>, EngineError> {
        let numbers = [ask.generate, ask.threads, depth].map(|n| n.to_string());
        let [generate, threads, deep] = numbers.each_ref().map(String::as_str);
        let ran = self.bench(ask, &["-p", "0", "-n", generate, "-t", threads, "-d", deep])?;
        let rate = llama_bench::deep(&ran.out, ask.generate, depth, ask.threads).map_err(|e| self.said(e))?;
        Ok(Some(Timed { seconds: ask.generate as f64 / rate, tokens: depth }))
    }

    /// `infer` as it comes, but for the sampler: greedy like the others, past an end of the text, without a chat template.
    fn whole(&mut self, ask: &Ask, answer: usize) -> Result<Option<Timed>, EngineError> {
        #[derive(serde::Deserialize)]
        struct Report {
            prompt_tokens: Vec<u32>,
            tokens: Vec<u32>,
        }
        if !self.ours {
            return Ok(None);
        }
        let [threads, most] = [ask.threads, answer].map(|n| n.to_string());
        let model = text(&ask.model);
        let flags = ["--max-tokens", &most, "--temperature", "0", "--ignore-eos", "--format", "json"];
        let what =
            ["infer", "--model", &model, "--threads", &threads, "--prompt-template", "raw", "--prompt", &ask.text];
        let ran = self.run(&[&what[..], &flags, &self.settings].concat(), ask.limit)?;
        let report: Report = serde_json::from_str(&ran.out)
            .map_err(|error| EngineError::Cannot(format!("{} infer: {error}", self.path.display())))?;
        if report.tokens.len() < answer {
            return Err(EngineError::Cannot(format!("it made {} tokens of {answer}", report.tokens.len())));
        }
        Ok(Some(Timed { seconds: ran.seconds, tokens: report.prompt_tokens.len() }))
    }

    fn end(&mut self) {}
}
