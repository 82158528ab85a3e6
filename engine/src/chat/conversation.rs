//! A conversation of several turns: a turn is a question and its answer.
//!
//! For every question the whole conversation is rendered and encoded by [`prompt()`], as a single question is, so that a turn
//! has the ids that a new session would be given. What these ids have in common with what the session holds is not computed
//! again ([`Prefix`]). Some templates write earlier turns differently later, e.g. without the model's thoughts; then less is
//! kept, and the text is still right.
//!
//! Where the context does not suffice, whole turns are left out, the oldest first; the system message stays. The conversation
//! keeps them, the model does not see them any more.

use super::prompt::{Input, PromptError, PromptOptions, prompt};
use super::{Clock, Message, PromptTemplate};
use crate::inference::{GenerateOptions, Generation, InferenceError, Made, Prefix, Session, StopReason};
use crate::tokenizer::Tokenizer;
use std::sync::atomic::AtomicBool;

/// Room that is kept for an answer: this part of the context, or fewer tokens where the answer may have fewer.
const ANSWER: usize = 4;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    question: String,
    answer: String,
}

/// A conversation with a model.
#[derive(Debug)]
pub struct Conversation {
    prefix: Prefix,
    template: PromptTemplate,
    parse_special: bool,
    clock: Clock,
    system: Option<String>,
    turns: Vec<Turn>,
    /// The oldest turn that the model still sees.
    first: usize,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The generation. Its timings count the prompt's tokens that were computed.
    pub generation: Generation,
    /// Tokens of the whole prompt.
    pub prompt_tokens: usize,
    /// Those of them that the session had computed before.
    pub kept: usize,
    /// Whether the turn belongs to the conversation. One that was cancelled before it had any text does not.
    pub recorded: bool,
}

/// What happens while a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Turns do not fit any more and are left out from now on.
    Dropped {
        /// How many, the oldest ones.
        turns: usize,
        /// Earlier turns that the model still sees.
        left: usize,
    },
    /// The next piece of the answer.
    Text(&'a str),
}

/// A question that cannot be answered; the conversation is as it was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ConversationError {
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error("message {number}: {what}")]
    Messages { number: usize, what: String },
}

impl Conversation {
    /// A conversation without turns. What the session holds is forgotten.
    pub fn new(session: Session, options: PromptOptions<'_>) -> Self {
        Self {
            prefix: Prefix::new(session),
            template: options.template.clone(),
            parse_special: options.parse_special,
            clock: options.clock,
            system: None,
            turns: Vec::new(),
            first: 0,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        self.prefix.session()
    }

    /// The system message.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Another system message, or none, from the next question on.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        // There may be room again.
        self.first = 0;
    }

    /// Turns, and how many of them the model does not see any more.
    pub fn turns(&self) -> (usize, usize) {
        (self.turns.len(), self.first)
    }

    /// Forgets all turns; the system message stays.
    pub fn reset(&mut self) {
        self.turns.clear();
        self.first = 0;
    }

    /// The system message and all turns, also those that the model does not see any more.
    pub fn messages(&self) -> Vec<Message> {
        self.messages_from(0)
    }

    /// Goes on from these messages: perhaps one of the system, then of user and assistant in turn.
    ///
    /// # Errors
    /// Messages in another order; the conversation is as it was.
    pub fn set_messages(&mut self, messages: Vec<Message>) -> Result<(), ConversationError> {
        let count = messages.len();
        let wrong = |number, what: String| Err(ConversationError::Messages { number, what });
        let (mut system, mut turns): (_, Vec<Turn>) = (None, Vec::new());
        let mut question = None;
        for (number, Message { role, content }) in (1..).zip(messages) {
            match (role.as_str(), question.take()) {
                ("system", None) if number == 1 => system = Some(content),
                ("user", None) => question = Some(content),
                ("assistant", Some(question)) => turns.push(Turn { question, answer: content }),
                (role, asked) => {
                    let expected = if asked.is_some() { "assistant" } else { "user" };
                    return wrong(number, format!("its role is `{}`, expected `{expected}`", role.escape_debug()));
                }
            }
        }
        if question.is_some() {
            return wrong(count, "it is a question without an answer".to_owned());
        }
        (self.system, self.turns, self.first) = (system, turns, 0);
        Ok(())
    }

    fn messages_from(&self, first: usize) -> Vec<Message> {
        let turns = self.turns.iter().skip(first);
        let pair = |turn: &Turn| [Message::user(&turn.question), Message::assistant(&turn.answer)];
        self.system.iter().map(Message::system).chain(turns.flat_map(pair)).collect()
    }

    /// Ids of a question after the turns from `first` on.
    fn ids(&self, tokenizer: &dyn Tokenizer, first: usize, question: &str) -> Result<Vec<u32>, PromptError> {
        let mut messages = self.messages_from(first);
        messages.push(Message::user(question));
        let Self { template, parse_special, clock, .. } = self;
        let options = PromptOptions { template, parse_special: *parse_special, clock: *clock };
        Ok(prompt(tokenizer, Input::Messages(&messages), options)?.ids)
    }

    /// The first turn that the model sees with this question, and the ids: of as many turns as leave `room` tokens for the
    /// answer, or of the question alone.
    fn fit(&self, tokenizer: &dyn Tokenizer, question: &str, room: usize) -> Result<(usize, Vec<u32>), PromptError> {
        let most = self.session().context().saturating_sub(room);
        let mut ids = self.ids(tokenizer, self.first, question)?;
        if ids.len() <= most {
            return Ok((self.first, ids));
        }
        // The smallest number that fits lies in `low..=high`; the ids are those for `high`, once any were made.
        let (mut low, mut high) = (self.first.saturating_add(1).min(self.turns.len()), self.turns.len());
        let mut fitting = None;
        while low < high {
            let middle = usize::midpoint(low, high);
            ids = self.ids(tokenizer, middle, question)?;
            if ids.len() <= most {
                (high, fitting) = (middle, Some(ids));
            } else {
                low = middle + 1;
            }
        }
        match fitting {
            Some(ids) => Ok((high, ids)),
            None => Ok((high, self.ids(tokenizer, high, question)?)),
        }
    }

    /// Answers a question, piece by piece. The turn is part of the conversation then, also if it was cancelled in the middle
    /// of its answer.
    ///
    /// # Errors
    /// The template fails, or the question alone does not fit the context; the conversation is as it was.
    pub fn ask(
        &mut self,
        tokenizer: &dyn Tokenizer,
        question: &str,
        options: &GenerateOptions,
        cancel: &AtomicBool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Answer, ConversationError> {
        let context = self.session().context();
        let room = (context / ANSWER).min(options.max_tokens.unwrap_or(usize::MAX)).max(1);
        let (first, ids) = self.fit(tokenizer, question, room)?;
        // One that is too long all the same is refused below.
        if first > self.first && ids.len() < context {
            on_event(Event::Dropped { turns: first - self.first, left: self.turns.len() - first });
        }
        let made = self.prefix.generate(tokenizer, &ids, options, cancel, &mut |piece| on_event(Event::Text(piece)));
        let Made { generation, kept } = made?;
        self.first = first;
        let recorded = generation.stop != StopReason::Cancelled || !generation.text.is_empty();
        if recorded {
            self.turns.push(Turn { question: question.to_owned(), answer: generation.text.clone() });
        }
        Ok(Answer { generation, prompt_tokens: ids.len(), kept, recorded })
    }
}
