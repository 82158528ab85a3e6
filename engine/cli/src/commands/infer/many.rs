//! Many prompts from a file of JSON lines, answered in order into another one.
//!
//! Every line of the output says which line of the input it answers, with a fingerprint of that line, and has a fingerprint of
//! the run: of the model's name and length, the template and all arguments that decide about a text (not the device, the
//! threads or a seed that nobody gave). So a run that was ended in the middle goes on behind its last whole line, and
//! refuses an output that belongs to another input or run. The lines are the same as those of a run without an interruption,
//! where the seed is given.
//!
//! `-` is stdin as the input, and stdout as the output, which has all lines and nothing from before.
//!
//! A line that cannot be answered has its error in the output; what is wrong with the machine ends the run.

use super::request::{Earlier, Mark, Reply, Request, Said, fingerprint};
use super::{Args, MAX_TOKENS};
use crate::common;
use crate::generation::write;
use crate::output::{counted, json, say};
use anyhow::Context;
use bitnet_engine::chat::PromptTemplate;
use bitnet_engine::chat::prompt::{self, Input, PromptOptions};
use bitnet_engine::inference::{GenerateOptions, InferenceError, Prefix, StopReason};
use bitnet_engine::load::Loaded;
use bitnet_engine::settings::Settings;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of stdin or stdout.
const STD: &str = "-";

/// What came of the lines.
#[derive(Debug, Default)]
struct Count {
    /// Those that were in the output already.
    earlier: usize,
    /// Those of this run, with an answer or an error.
    now: usize,
    /// Errors in the output, earlier ones included.
    errors: usize,
    new_tokens: usize,
}

impl Args {
    /// Answers the lines of `input` in `output`.
    pub(super) fn many(&self, input: &Path, output: &Path, settings: &Settings) -> anyhow::Result<ExitCode> {
        let lines = lines(input)?;
        let compute = self.run.compute.start(settings)?;
        let loaded = self.run.load(&compute, settings)?;
        let template = self.generation.template(&loaded, true)?;
        let seed = settings.seed(self.generation.seed);
        let options = self.generation.options(&template, &loaded, seed, MAX_TOKENS)?;
        let run = self.fingerprint(settings, &loaded, &template, &options);
        let session = self.run.compute.session(&loaded, &compute, self.generation.head)?;
        let mut work = Work { args: self, settings, loaded, template, options, prefix: Prefix::new(session) };

        let mut count = Count::default();
        let mut file =
            (output != Path::new(STD)).then(|| go_on(input, output, &lines, &run, &mut count)).transpose()?;
        let cannot = || format!("cannot write {}", output.display());
        let cancel = common::on_interrupt()?;
        let bar = common::progress(lines.len() as u64, "prompts");
        for line in &lines[count.earlier..] {
            bar.set_position((count.earlier + count.now) as u64);
            let (id, said) = match Request::read(&line.text) {
                Ok(mut request) => (request.id.take(), work.answer(request, &cancel)?),
                Err(error) => (None, Some(Said::Error { error })),
            };
            let Some(said) = said else { break };
            count.now += 1;
            match &said {
                Said::Answer { new_tokens, .. } => count.new_tokens += new_tokens,
                Said::Error { .. } => count.errors += 1,
            }
            let text = serde_json::to_string(&Reply { mark: line.mark(&run), id, said })?;
            // In one piece: what reads along sees whole lines.
            let text = json(&text).into_owned() + "\n";
            match &mut file {
                Some(file) => file.write_all(text.as_bytes()).with_context(cannot)?,
                None => write(&text)?,
            }
        }
        bar.finish_and_clear();
        if let Some(file) = &file {
            file.sync_all().with_context(cannot)?;
        }
        let done = count.earlier + count.now;
        let ended = match file {
            _ if done == lines.len() => "",
            Some(_) => " | cancelled; the same command goes on",
            None => " | cancelled",
        };
        say(format_args!(
            "[{} of {} answered, {} failed, done before: {} | {} | seed {seed}{ended}]",
            done - count.errors,
            counted(lines.len(), "prompt"),
            count.errors,
            count.earlier,
            counted(count.new_tokens, "new token"),
        ));
        Ok(match (done < lines.len(), count.errors) {
            (true, _) => ExitCode::from(130),
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::FAILURE,
        })
    }

    /// Of everything that decides about answers, besides the lines.
    fn fingerprint(
        &self,
        settings: &Settings,
        loaded: &Loaded,
        template: &PromptTemplate,
        options: &GenerateOptions,
    ) -> String {
        let name = loaded.file.path().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let given = self.generation.seed.or(settings.seed).or(settings.deterministic.then_some(0));
        let text = match template {
            PromptTemplate::Model(template) => template.text.as_str(),
            _ => template.name(),
        };
        let sampler = bitnet_engine::inference::SamplerOptions { seed: given.unwrap_or(0), ..options.sampler.clone() };
        let all = serde_json::json!([
            [name, loaded.file.file_len(), text, self.generation.system, self.generation.parse_special],
            [sampler, given, options.max_tokens, options.stop, options.stop_ids, options.ends, options.ignore_eos],
            self.run.compute.context,
        ]);
        fingerprint(all.to_string().as_bytes())
    }
}

/// What answers lines.
struct Work<'a> {
    args: &'a Args,
    settings: &'a Settings,
    loaded: Loaded,
    template: PromptTemplate,
    options: GenerateOptions,
    prefix: Prefix,
}

impl Work<'_> {
    /// The answer; `None` if it was cancelled.
    fn answer(&mut self, mut request: Request, cancel: &AtomicBool) -> anyhow::Result<Option<Said>> {
        let generation = &self.args.generation;
        let error = |error: String| Ok(Some(Said::Error { error }));
        let messages = match request.messages(generation.system.as_deref()) {
            Ok(messages) => messages,
            Err(why) => return error(why),
        };
        let tokenizer = &*self.loaded.tokenizer;
        let how = PromptOptions {
            template: &self.template,
            parse_special: generation.parse_special,
            clock: self.settings.clock(),
        };
        let ids = match prompt::prompt(tokenizer, Input::Messages(&messages), how) {
            Ok(prompt) => prompt.ids,
            Err(why) => return error(why.to_string()),
        };
        let options = request.options(&self.options, generation.repetition_penalty);
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.prefix.generate(tokenizer, &ids, &options, cancel, &mut |_| {}) {
            Ok(made) if made.generation.stop == StopReason::Cancelled => Ok(None),
            Ok(made) => Ok(Some(Said::Answer {
                text: made.generation.text,
                stop: made.generation.stop,
                seed: options.sampler.seed,
                prompt_tokens: ids.len(),
                new_tokens: made.generation.tokens.len(),
            })),
            // The machine's, not the line's.
            Err(why @ (InferenceError::Device(_) | InferenceError::Broken(_))) => Err(why.into()),
            Err(why) => error(why.to_string()),
        }
    }
}

/// A line of the input.
struct Line {
    number: usize,
    text: Vec<u8>,
}

impl Line {
    fn mark(&self, run: &str) -> Mark {
        Mark { line: self.number, input: fingerprint(&self.text), run: run.to_owned() }
    }
}

/// The lines of a file, without their ends; empty ones ask for nothing.
fn lines(path: &Path) -> anyhow::Result<Vec<Line>> {
    let (name, read) = if path == Path::new(STD) {
        let mut bytes = Vec::new();
        ("stdin".to_owned(), std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), std::fs::read(path))
    };
    let bytes = read.with_context(|| format!("cannot read {name}"))?;
    let numbered = bytes.split(|byte| *byte == b'\n').zip(1..);
    let lines = numbered.map(|(text, number)| Line { number, text: text.trim_ascii().to_vec() });
    let lines: Vec<Line> = lines.filter(|line| !line.text.is_empty()).collect();
    anyhow::ensure!(!lines.is_empty(), "{name} has no lines: give a JSON object with a `prompt` in each");
    Ok(lines)
}

/// The output, at its end, with only whole lines of this run in it; nobody else writes there.
fn go_on(input: &Path, output: &Path, lines: &[Line], run: &str, count: &mut Count) -> anyhow::Result<File> {
    let cannot = || format!("cannot write {}", output.display());
    if let (Ok(input), Ok(output)) = (input.canonicalize(), output.canonicalize()) {
        anyhow::ensure!(input != output, "{} is both the input and the output", output.display());
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(output).with_context(cannot)?;
    anyhow::ensure!(file.metadata().with_context(cannot)?.is_file(), "{} is not a regular file", output.display());
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => anyhow::bail!("another process writes {}", output.display()),
        // Not every file system has locks.
        Err(TryLockError::Error(error)) => tracing::info!("{} is not locked: {error}", output.display()),
    }
    let foreign = |number: usize, why: String| {
        anyhow::anyhow!(
            "line {number} of {} {why}; give another --output, or remove it to start over",
            output.display()
        )
    };
    let (mut reader, mut whole, mut number) = (BufReader::new(&file), 0, 0);
    loop {
        let (mut text, mut expected) = (Vec::new(), lines.get(number));
        let length =
            reader.read_until(b'\n', &mut text).with_context(|| format!("cannot read {}", output.display()))?;
        if length == 0 {
            break;
        }
        number += 1;
        let head = expected.map(|line| line.mark(run).head()).unwrap_or_default();
        if text.last() != Some(&b'\n') {
            // A line that was not written to its end is made again, if it is surely one.
            let ours = text.starts_with(head.as_bytes()) || head.as_bytes().starts_with(&text);
            if expected.take().is_none() || !ours {
                return Err(foreign(number, "is no beginning of an answer of this run".to_owned()));
            }
            break;
        }
        let earlier: Earlier = serde_json::from_slice(&text)
            .map_err(|error| foreign(number, format!("is not an answer of this command ({error})")))?;
        let Some(line) = expected else {
            return Err(foreign(number, format!("is one more than {} has prompts", input.display())));
        };
        let mark = line.mark(run);
        if (earlier.mark.line, &earlier.mark.input) != (mark.line, &mark.input) {
            let why = format!("is not the answer to line {} of {}", mark.line, input.display());
            return Err(foreign(number, why));
        }
        if earlier.mark.run != mark.run {
            return Err(foreign(number, "was made with another model, template or arguments".to_owned()));
        }
        whole += length as u64;
        count.earlier += 1;
        count.errors += usize::from(earlier.error.is_some());
    }
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).with_context(cannot)?;
    Ok(file)
}
