//! `bitnet chat`: a conversation on a terminal, or line by line from a pipe.
//!
//! stdout has the answers and nothing else; everything that is said about them goes to stderr.

mod input;
mod slash;

use crate::common::RunArgs;
use crate::generation::{GenerationArgs, timings, write};
use crate::output::{counted, say};
use bitnet_engine::chat::conversation::{Answer, Event};
use bitnet_engine::chat::prompt::PromptOptions;
use bitnet_engine::chat::{Conversation, PromptTemplate, transcript};
use bitnet_engine::inference::{GenerateOptions, StopReason};
use bitnet_engine::load::Loaded;
use bitnet_engine::settings::{Settings, typed_path};
use input::{Input, Interrupt, Next};
use slash::Command;
use std::process::ExitCode;

/// Most tokens of an answer, if nothing is said.
const MAX_TOKENS: usize = 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a terminal: the arrow keys edit the line and bring back earlier ones, Ctrl-C stops an answer, Ctrl-D or /quit ends. /help lists the commands. The answer of turn N is drawn with the seed + N - 1.\nFrom a pipe every line is a message or a command. Exit code 1: a line could not be answered.\n\nExamples:\n  bitnet chat --model model.gguf\n  bitnet chat --model model.gguf --system \"Be brief.\" --temperature 0\n  printf 'Hello!\\nWhat did I say?\\n/save talk.json\\n' | bitnet chat --model model.gguf"
)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    generation: GenerationArgs,
}

impl Args {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let compute = self.run.compute.start(settings)?;
        let loaded = self.run.load(&compute, settings)?;
        let template = self.template(&loaded)?;
        let seed = settings.seed(self.generation.seed);
        let options = self.generation.options(&template, &loaded, seed, MAX_TOKENS)?;
        let session = self.run.compute.session(&loaded, &compute, self.generation.head)?;
        let how = PromptOptions {
            template: &template,
            parse_special: self.generation.parse_special,
            clock: settings.clock(),
        };
        let mut conversation = Conversation::new(session, how);
        conversation.set_system(self.generation.system.clone());
        let about = format!(
            "{} on {}, {}, seed {seed}, template {}",
            self.run.name(settings),
            compute.device(),
            counted(compute.pool.threads(), "thread"),
            template.name()
        );
        let interrupt = Interrupt::default();
        let mut input = Input::open(&interrupt)?;
        if input.is_terminal() {
            say(format_args!("[{about}]\n/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends"));
        }
        let mut talk = Talk { conversation, loaded, options, about, asked: 0, kept: 0, last: None, failed: false };
        let ended = talk.talk(&mut input, &interrupt)?;
        Ok(match ended {
            Ended::Interrupted => ExitCode::from(130),
            Ended::Done if talk.failed && !input.is_terminal() => ExitCode::FAILURE,
            Ended::Done => ExitCode::SUCCESS,
        })
    }

    /// The template. A model without one can only be given a text to continue, which is not a conversation: that must be asked for.
    fn template(&self, loaded: &Loaded) -> anyhow::Result<PromptTemplate> {
        let template = self.generation.template(loaded, false)?;
        let asked = self.generation.prompt_template.as_deref().is_some_and(|name| name != "auto");
        anyhow::ensure!(
            asked || template != PromptTemplate::Raw,
            "the model has no chat template: choose a format with --prompt-template instruct, llama3-chat or raw (the \
             messages are one text that is continued), or give a template with --chat-template-file FILE"
        );
        Ok(template)
    }
}

/// How a conversation ended.
enum Ended {
    Done,
    /// By Ctrl-C while a pipe was waited for.
    Interrupted,
}

/// A conversation in progress.
struct Talk {
    conversation: Conversation,
    loaded: Loaded,
    options: GenerateOptions,
    /// Model, device, seed, template.
    about: String,
    /// Questions so far.
    asked: u64,
    /// Tokens of prompts that were not computed again.
    kept: u64,
    last: Option<Answer>,
    /// Whether a line could not be answered or obeyed.
    failed: bool,
}

impl Talk {
    fn talk(&mut self, input: &mut Input, interrupt: &Interrupt) -> anyhow::Result<Ended> {
        loop {
            let line = match input.next() {
                Next::Line(line) => line,
                Next::Wrong(why) => {
                    self.fail(why);
                    continue;
                }
                Next::End => return Ok(Ended::Done),
                Next::Broken(why) => anyhow::bail!(why),
                Next::Interrupted if input.is_terminal() => {
                    say("(Ctrl-D or /quit ends the conversation)");
                    continue;
                }
                Next::Interrupted => return Ok(Ended::Interrupted),
            };
            match slash::parse(&line) {
                Ok(Command::Nothing) => {}
                Ok(Command::Quit) => return Ok(Ended::Done),
                Ok(Command::Ask(question)) => {
                    interrupt.answering(true);
                    let answered = self.ask(question, interrupt);
                    interrupt.answering(false);
                    answered?;
                }
                Ok(command) => self.obey(&command),
                Err(why) => self.fail(why),
            }
        }
    }

    fn fail(&mut self, why: impl std::fmt::Display) {
        self.failed = true;
        say(format_args!("error: {why}"));
    }

    /// Streams an answer. The error is that of stdout; what is wrong with the question is said, and the conversation goes on.
    fn ask(&mut self, question: &str, interrupt: &Interrupt) -> std::io::Result<()> {
        let mut options = self.options.clone();
        options.sampler.seed = options.sampler.seed.wrapping_add(self.asked);
        self.asked += 1;
        let mut written = Ok(());
        let cancel = interrupt.cancel();
        let answer =
            self.conversation.ask(&*self.loaded.tokenizer, question, &options, cancel, &mut |event| match event {
                Event::Text(piece) if written.is_ok() => {
                    written = write(piece);
                    if written.is_err() {
                        interrupt.stop();
                    }
                }
                Event::Text(_) => {}
                Event::Dropped { turns, left } => say(format_args!(
                    "[the context is full: the oldest {} left out, {left} earlier {} seen]",
                    if turns == 1 { "turn is".to_owned() } else { format!("{turns} turns are") },
                    if left == 1 { "turn is" } else { "turns are" }
                )),
            });
        written?;
        match answer {
            Ok(answer) => {
                write("\n")?;
                self.remark(&answer);
                self.kept += answer.kept as u64;
                self.last = Some(answer);
            }
            Err(error) => self.fail(error),
        }
        Ok(())
    }

    /// What the reader should know about the end of an answer.
    fn remark(&self, answer: &Answer) {
        match answer.generation.stop {
            StopReason::EndOfGeneration | StopReason::StopText => {}
            StopReason::MaxTokens => {
                let length = counted(answer.generation.tokens.len(), "token");
                say(format_args!("[cut off after {length}: --max-tokens]"));
            }
            StopReason::ContextFull => {
                let context = self.conversation.session().context();
                say(format_args!("[cut off: the context of {} is full]", counted(context, "token")));
            }
            StopReason::Cancelled if answer.recorded => say("[stopped]"),
            StopReason::Cancelled => say("[stopped before the first word; the question is forgotten]"),
        }
        tracing::info!(
            "prompt of {}, {} kept | {}",
            counted(answer.prompt_tokens, "token"),
            answer.kept,
            timings(&answer.generation.timings)
        );
    }

    /// Does what a command says, but for questions and the end.
    fn obey(&mut self, command: &Command<'_>) {
        match *command {
            Command::Nothing | Command::Quit | Command::Ask(_) => {}
            Command::Help => say(slash::HELP),
            Command::Stats => self.stats(),
            Command::Reset => {
                self.conversation.reset();
                say("[all turns are forgotten; the system message stays]");
            }
            Command::ShowSystem => match self.conversation.system() {
                Some(text) => say(format_args!("[system: {text}]")),
                None => say("[there is no system message]"),
            },
            Command::System(text) => {
                self.conversation.set_system(text.map(str::to_owned));
                say(if text.is_some() { "[another system message]" } else { "[no system message]" });
            }
            Command::Save(path) => {
                let messages = self.conversation.messages();
                match transcript::write(&typed_path(path), &messages) {
                    Ok(()) => say(format_args!("[{} saved to {path}]", counted(messages.len(), "message"))),
                    Err(error) => self.fail(error),
                }
            }
            Command::Load(path) => {
                let path = typed_path(path);
                let loaded = transcript::read(&path).map_err(|error| error.to_string()).and_then(|messages| {
                    let count = messages.len();
                    let wrong = |error| format!("cannot take messages from {}: {error}", path.display());
                    self.conversation.set_messages(messages).map(|()| count).map_err(wrong)
                });
                match loaded {
                    Ok(count) => say(format_args!("[{} loaded]", counted(count, "message"))),
                    Err(why) => self.fail(why),
                }
            }
        }
    }

    fn stats(&self) {
        let (turns, unseen) = self.conversation.turns();
        let session = self.conversation.session();
        say(format_args!("[{}]", self.about));
        say(format_args!(
            "[{}, {unseen} left out | {} of {} in the context | {} computed, {} kept from turn to turn]",
            counted(turns, "turn"),
            session.position(),
            counted(session.context(), "token"),
            counted(session.computed(), "token"),
            self.kept
        ));
        if let Some(answer) = &self.last {
            let times = timings(&answer.generation.timings);
            let prompt = counted(answer.prompt_tokens, "token");
            say(format_args!("[last: {prompt}, {} kept | {times}]", answer.kept));
        }
    }
}
