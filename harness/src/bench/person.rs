//! What a person waits for: from the start of a process to the last token of an answer.
//!
//! Everything is in it: the start, loading, the tokenizer, the prompt, and whatever an engine prepares (copies, tables, huge pages)
//! before it pays. The file is in the system's cache for everyone, since the engines take turns on it. In a round every engine is
//! asked once, even rounds from the first to the last, odd ones back. A run with foreign load is repeated ([`super::noise`]).

use super::engine::{Ask, Engine, EngineError, Timed};
use super::noise::Guard;
use super::peers::{Contender, Series, series};
use super::ratio::Spread;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone)]
pub struct Waits {
    /// Texts by how many tokens they have by our tokenizer.
    pub texts: Vec<(usize, String)>,
    /// Numbers of new tokens; 1 is the first token.
    pub answers: Vec<usize>,
    pub threads: Vec<usize>,
    pub rounds: usize,
    pub guard: Guard,
}

/// What an engine let a person wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    pub threads: usize,
    /// Tokens of the text by our tokenizer.
    pub prompt: usize,
    pub answer: usize,
    pub engine: String,
    /// Tokens of the text in this engine.
    pub prompt_tokens: Option<usize>,
    /// Seconds from the start of a process to the last token.
    pub seconds: Option<Series>,
    /// The highest foreign load of a round's run, as a share of the machine, if the system says it.
    pub foreign: Option<f64>,
    /// Runs with more foreign load than the guard allows, after all repetitions.
    pub noisy: usize,
    pub failure: Option<String>,
}

#[derive(Default)]
struct Figures {
    seconds: Vec<f64>,
    tokens: Option<usize>,
    foreign: Option<f64>,
    noisy: usize,
    failure: Option<String>,
}

/// Measures all contenders, of which the first is ours; an engine that cannot be asked has no rows. `tell` hears of each step.
pub fn waits(contenders: &mut [Contender<'_>], ask: &Ask, plan: &Waits, tell: &mut dyn FnMut(&str)) -> Vec<Wait> {
    let mut all = Vec::new();
    for &threads in &plan.threads {
        for (prompt, text) in &plan.texts {
            for &answer in &plan.answers {
                let ask = Ask { threads, prompt: *prompt, text: text.clone(), ..ask.clone() };
                tell(&format!(
                    "{threads} threads, a text of {prompt} tokens, {answer} new, from the start of a process"
                ));
                all.extend(cell(contenders, &ask, answer, plan, tell, &|engine| engine.whole(&ask, answer)));
            }
        }
    }
    all
}

/// As [`waits`], for the tokens of a generation (by `ask`) after so many others; texts and answers of the plan are not asked for.
pub fn depths(
    contenders: &mut [Contender<'_>],
    ask: &Ask,
    depths: &[usize],
    plan: &Waits,
    tell: &mut dyn FnMut(&str),
) -> Vec<Wait> {
    let mut all = Vec::new();
    for &threads in &plan.threads {
        for &depth in depths {
            tell(&format!("{threads} threads, {} tokens at depth {depth}", ask.generate));
            let ask = Ask { threads, prompt: depth, ..ask.clone() };
            all.extend(cell(contenders, &ask, ask.generate, plan, tell, &|engine| engine.deep(&ask, depth)));
        }
    }
    all
}

/// What an engine is asked in a round.
type Question<'a> = dyn Fn(&mut dyn Engine) -> Result<Option<Timed>, EngineError> + 'a;

fn cell(
    contenders: &mut [Contender<'_>],
    ask: &Ask,
    answer: usize,
    plan: &Waits,
    tell: &mut dyn FnMut(&str),
    question: &Question<'_>,
) -> Vec<Wait> {
    let mut figures: Vec<Option<Figures>> = contenders.iter().map(|_| Some(Figures::default())).collect();
    for round in 0..plan.rounds {
        let mut turn: Vec<_> = contenders.iter_mut().zip(&mut figures).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for (contender, slot) in turn {
            let Some(own) = slot.as_mut().filter(|own| own.failure.is_none()) else { continue };
            let asked = match &mut contender.engine {
                Ok(engine) => plan.guard.quiet(|| question(&mut **engine)),
                Err(EngineError::Missing { what, command }) => {
                    Err(EngineError::Cannot(format!("{what}; to fix it: {command}")))
                }
                Err(error) => Err(EngineError::Cannot(error.to_string())),
            };
            match asked {
                Ok((Some(whole), foreign)) => {
                    own.seconds.push(whole.seconds);
                    own.tokens = Some(whole.tokens);
                    own.noisy += usize::from(foreign.is_some_and(|foreign| foreign > plan.guard.limit));
                    own.foreign = own.foreign.into_iter().chain(foreign).reduce(f64::max);
                }
                Ok((None, _)) => *slot = None,
                Err(error) => {
                    tell(&format!("{}: {error}", contender.name));
                    *own = Figures { failure: Some(error.to_string()), ..Figures::default() };
                }
            }
        }
    }
    let ours = figures.first().and_then(|ours| Some(ours.as_ref()?.seconds.clone())).unwrap_or_default();
    let rows = contenders.iter().zip(figures).enumerate();
    rows.filter_map(|(index, (contender, own))| {
        let own = own?;
        let ratio = if index == 0 { None } else { Spread::of_ratios(&own.seconds, &ours) };
        Some(Wait {
            threads: ask.threads,
            prompt: ask.prompt,
            answer,
            engine: contender.name.clone(),
            prompt_tokens: own.tokens,
            seconds: series(&own.seconds, ratio),
            foreign: own.foreign,
            noisy: own.noisy,
            failure: own.failure,
        })
    })
    .collect()
}

/// A text of at most so many tokens, and nearly as many, from words that are repeated; the last may be cut. `count` counts tokens.
pub fn text_of<E>(words: &str, tokens: usize, count: impl Fn(&str) -> Result<usize, E>) -> Result<(usize, String), E> {
    let all: Vec<&str> = words.split_ascii_whitespace().collect();
    let text = |n: usize| all.iter().cycle().take(n).copied().collect::<Vec<_>>().join(" ");
    // A word is at least one token.
    let (mut low, mut high) = (1, tokens.max(1));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if count(&text(middle))? <= tokens { low = middle } else { high = middle - 1 }
    }
    let mut best = text(low);
    let mut longer = format!("{best} ");
    for letter in all.get(low % all.len().max(1)).copied().unwrap_or_default().chars() {
        longer.push(letter);
        if count(&longer)? <= tokens {
            best.clone_from(&longer);
        }
    }
    Ok((count(&best)?, best))
}

#[cfg(test)]
mod tests {
    use super::super::engine::Rates;
    use super::*;
    use std::cell::RefCell;
    use std::time::Duration;

    struct Player<'a> {
        name: &'static str,
        /// Seconds, one a question.
        seconds: Vec<f64>,
        diary: &'a RefCell<Vec<(&'static str, usize, usize)>>,
    }

    impl Engine for Player<'_> {
        fn begin(&mut self, _: &Ask) -> Result<(), EngineError> {
            Ok(())
        }

        fn measure(&mut self, _: &Ask) -> Result<Rates, EngineError> {
            Err(EngineError::Cannot("not asked here".to_owned()))
        }

        fn whole(&mut self, ask: &Ask, answer: usize) -> Result<Option<Timed>, EngineError> {
            self.diary.borrow_mut().push((self.name, ask.prompt, answer));
            if self.name == "mute" {
                return Ok(None);
            }
            let seconds = self.seconds.pop().ok_or_else(|| EngineError::Cannot("no more".to_owned()))?;
            Ok(Some(Timed { seconds, tokens: ask.prompt + 1 }))
        }

        fn deep(&mut self, ask: &Ask, depth: usize) -> Result<Option<Timed>, EngineError> {
            self.whole(ask, 1000 + depth)
        }

        fn end(&mut self) {}
    }

    #[test]
    fn engines_take_turns_and_one_that_fails_leaves_a_reason() {
        let diary = RefCell::default();
        let player = |name, seconds: &[f64]| Contender {
            name: str::to_owned(name),
            about: String::new(),
            engine: Ok(Box::new(Player { name, seconds: seconds.to_vec(), diary: &diary })),
        };
        let mut all =
            [player("ours", &[2.0, 4.0]), player("peer", &[3.0, 8.0]), player("mute", &[]), player("short", &[1.0])];
        let ask = Ask {
            model: "m.gguf".into(),
            threads: 0,
            prompt: 0,
            generate: 0,
            text: String::new(),
            limit: Duration::from_secs(1),
        };
        // Loads are real here and must not count.
        let guard = Guard { limit: 1.0, repeats: 0, pause: Duration::ZERO };
        let plan =
            Waits { texts: vec![(32, "text".to_owned())], answers: vec![16], threads: vec![2], rounds: 2, guard };
        let rows = waits(&mut all, &ask, &plan, &mut |_| ());
        let names: Vec<&str> = diary.borrow().iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["ours", "peer", "mute", "short", "short", "peer", "ours"]);
        assert!(diary.borrow().iter().all(|asked| (asked.1, asked.2) == (32, 16)));
        let [ours, peer, short] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(ours.seconds.as_ref().map(|s| (s.samples.clone(), s.ours_is)), Some((vec![4.0, 2.0], None)));
        let ratio = peer.seconds.as_ref().and_then(|s| s.ours_is);
        assert_eq!(ratio, Some(Spread { median: 1.75, least: 1.5, most: 2.0 }), "within a round");
        assert_eq!((peer.prompt_tokens, peer.noisy, peer.threads, peer.answer), (Some(33), 0, 2, 16));
        assert_eq!(
            (short.failure.as_deref(), &short.seconds),
            (Some("no more"), &None),
            "half of a run is not a figure"
        );

        diary.take();
        let mut all = [player("ours", &[2.0, 4.0]), player("peer", &[3.0, 8.0])];
        let ask = Ask { generate: 16, ..ask };
        let rows = depths(&mut all, &ask, &[500], &plan, &mut |_| ());
        assert!(diary.borrow().iter().all(|asked| (asked.1, asked.2) == (500, 1500)), "{diary:?}");
        let [ours, peer] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((ours.prompt, ours.answer, peer.threads), (500, 16, 2));
        assert_eq!(peer.seconds.as_ref().and_then(|s| s.ours_is).map(|r| r.median), Some(1.75));
    }

    #[test]
    fn texts_have_as_many_tokens_as_words_allow() {
        // Every word has two tokens.
        let count = |text: &str| Ok::<_, ()>(2 * text.split(' ').count());
        assert_eq!(text_of("a b c", 8, count), Ok((8, "a b c a".to_owned())));
        assert_eq!(text_of("a b c", 9, count), Ok((8, "a b c a".to_owned())));
        assert_eq!(text_of("a b c", 1, count), Ok((2, "a".to_owned())), "a word is the least");
        assert_eq!(text_of("a b", 8, |_: &str| Err("no")), Err("no"));
        // Every letter is one.
        let count = |text: &str| Ok::<_, ()>(text.replace(' ', "").len());
        assert_eq!(text_of("abc defg", 5, count), Ok((5, "abc de".to_owned())));
    }
}
