//! Conversations: every turn has the text of a new session, and computes only what is new.

use crate::model_support::{session, tiny};
use bitnet_engine::chat::conversation::{Answer, ConversationError, Event};
use bitnet_engine::chat::prompt::{Input, PromptOptions, prompt};
use bitnet_engine::chat::{Clock, Conversation, Message, ModelTemplate, Origin, PromptTemplate, transcript};
use bitnet_engine::inference::{GenerateOptions, InferenceError, SamplerOptions, StopReason, generate};
use std::sync::atomic::{AtomicBool, Ordering};

const QUESTIONS: [&str; 3] = ["In the beginning?", "And the sons of Levi?", "Who was the king of Israel?"];

fn jinja(text: &str) -> PromptTemplate {
    PromptTemplate::Model(ModelTemplate { text: text.into(), origin: Origin::Gguf })
}

fn how(template: &PromptTemplate) -> PromptOptions<'_> {
    PromptOptions { template, parse_special: false, clock: Clock::pinned() }
}

fn conversation(template: &PromptTemplate, context: usize) -> Conversation {
    Conversation::new(session(&tiny().model, Some(context), 16), how(template))
}

fn options(tokens: usize, temperature: f32) -> GenerateOptions {
    let sampler =
        SamplerOptions { temperature, top_k: 40, repetition_penalty: 1.1, seed: 3, ..SamplerOptions::default() };
    GenerateOptions { sampler, max_tokens: Some(tokens), ..GenerateOptions::default() }
}

/// Ids of messages, by the one way from a conversation to a prompt.
fn ids(template: &PromptTemplate, messages: &[Message]) -> Vec<u32> {
    prompt(&*tiny().tokenizer, Input::Messages(messages), how(template)).unwrap().ids
}

/// What a new session says after these messages.
fn fresh(template: &PromptTemplate, messages: &[Message], context: usize, options: &GenerateOptions) -> Vec<u32> {
    let mut session = session(&tiny().model, Some(context), 64);
    let ids = ids(template, messages);
    generate(&mut session, &*tiny().tokenizer, &ids, options, &AtomicBool::new(false), &mut |_| {}).unwrap().tokens
}

/// Asks, and returns the answer and how many turns were dropped, with how many were left.
fn ask(talk: &mut Conversation, question: &str, options: &GenerateOptions) -> (Answer, Option<(usize, usize)>) {
    let (mut dropped, mut text) = (None, String::new());
    let answer = talk.ask(&*tiny().tokenizer, question, options, &AtomicBool::new(false), &mut |event| match event {
        Event::Dropped { turns, left } => assert_eq!(dropped.replace((turns, left)), None, "said once"),
        Event::Text(piece) => text.push_str(piece),
    });
    let answer = answer.unwrap();
    assert_eq!(answer.generation.text, text, "what was streamed is the answer");
    (answer, dropped)
}

#[test]
fn a_turn_is_that_of_a_new_session_and_only_new_tokens_are_computed() {
    let thoughts =
        "{% for m in messages %}{{ m.role[0] }}: {{ m.content if loop.last else m.content[:3] }}\n{% endfor %}a:";
    let whole = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}assistant:";
    for (template, grows) in [(PromptTemplate::Instruct, true), (jinja(whole), true), (jinja(thoughts), false)] {
        for (temperature, speculate) in [(0.0, 0), (0.8, 8)] {
            let options = GenerateOptions { speculate, ..options(10, temperature) };
            let mut talk = conversation(&template, 512);
            talk.set_system(Some("Be brief.".into()));
            assert_eq!(talk.system(), Some("Be brief."));
            let mut before = Vec::new();
            for question in QUESTIONS {
                let messages = [talk.messages(), vec![Message::user(question)]].concat();
                let (expected, all) = (fresh(&template, &messages, 512, &options), ids(&template, &messages));
                let computed = talk.session().computed();
                let (answer, dropped) = ask(&mut talk, question, &options);
                assert_eq!((&answer.generation.tokens, dropped), (&expected, None), "{question}");
                assert_eq!(answer.prompt_tokens, all.len());
                // The beginning that the two prompts share is kept, and of the last answer what was run.
                let shared = before.iter().zip(&all).take_while(|(a, b)| a == b).count();
                assert_eq!(answer.kept, shared, "{question}");
                if speculate == 0 {
                    let steps = answer.generation.tokens.len() - 1;
                    let ran = (talk.session().computed() - computed) as usize;
                    assert_eq!(ran, all.len() - answer.kept + steps, "only what is new");
                }
                assert_eq!(answer.generation.timings.prompt_tokens, all.len() - answer.kept);
                if grows && !before.is_empty() {
                    let last = ids(&template, &messages[..messages.len() - 2]);
                    assert!(answer.kept + 2 >= last.len(), "{} of {}: {question}", answer.kept, last.len());
                }
                before = [all, answer.generation.tokens].concat();
                before.truncate(talk.session().position());
            }
            assert_eq!(talk.turns(), (3, 0));
        }
    }
}

#[test]
fn whole_turns_are_left_out_the_oldest_first() {
    const CONTEXT: usize = 96;
    let (template, options) = (PromptTemplate::Instruct, options(12, 0.0));
    let mut talk = conversation(&template, CONTEXT);
    talk.set_system(Some("Be brief.".into()));
    let mut unseen = 0;
    for round in 0..4 {
        for question in QUESTIONS {
            let (answer, dropped) = ask(&mut talk, question, &options);
            unseen += dropped.map_or(0, |(turns, _)| turns);
            let (turns, first) = talk.turns();
            assert_eq!(first, unseen, "round {round}");
            if let Some((_, left)) = dropped {
                assert_eq!(left, turns - 1 - first);
            }
            // The system message, the turns that are left, the question: and one turn more would not have fitted.
            let all = talk.messages();
            assert_eq!(all.len(), 1 + 2 * turns, "nothing is lost");
            let seen = |first: usize| [&all[..1], &all[1 + 2 * first..all.len() - 1]].concat();
            assert_eq!(answer.generation.tokens, fresh(&template, &seen(first), CONTEXT, &options), "{question}");
            assert_eq!(answer.prompt_tokens, ids(&template, &seen(first)).len());
            assert!(answer.prompt_tokens + 12 <= CONTEXT);
            if dropped.is_some() {
                assert!(ids(&template, &seen(first - 1)).len() + 12 > CONTEXT, "no more than must be");
            }
        }
    }
    assert!(unseen > 4, "{unseen}");

    // A question that does not fit by itself changes nothing.
    let (before, turns) = (talk.messages(), talk.turns());
    let long = QUESTIONS.concat().repeat(20);
    let error = talk.ask(&*tiny().tokenizer, &long, &options, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    let ConversationError::Inference(InferenceError::PromptTooLong { prompt, room: CONTEXT }) = error else {
        panic!("{error}")
    };
    assert!(prompt > CONTEXT);
    assert_eq!((talk.messages(), talk.turns()), (before, turns));
    ask(&mut talk, QUESTIONS[0], &options);
    // Without turns the system message is still there.
    talk.reset();
    assert_eq!((talk.turns(), talk.messages()), ((0, 0), vec![Message::system("Be brief.")]));
    let expected = [Message::system("Be brief."), Message::user("Why?")];
    assert_eq!(ask(&mut talk, "Why?", &options).0.generation.tokens, fresh(&template, &expected, CONTEXT, &options));
}

/// Without a limit the answer has a quarter of the context, and the turns have the rest.
#[test]
fn turns_are_kept_as_far_as_they_leave_room() {
    let template = PromptTemplate::Instruct;
    let turn = [Message::user("Why?"), Message::assistant("So.")];
    let (two, last) = ([turn.clone(), turn].concat(), Message::user("And?"));
    let all = ids(&template, &[two.clone(), vec![last.clone()]].concat()).len();
    // The smallest context of which three quarters hold all of it.
    let context = (all..).find(|n| n - n / 4 >= all).unwrap();
    for (context, dropped) in [(context, None), (context - 1, Some((1, 1)))] {
        let mut talk = conversation(&template, context);
        talk.set_messages(two.clone()).unwrap();
        assert_eq!(
            ask(&mut talk, "And?", &GenerateOptions { max_tokens: None, ..options(0, 0.0) }).1,
            dropped,
            "{context}"
        );
    }
    // A question that fills the context to the last token is refused, and nothing is said to be left out for it.
    let full = ids(&template, &[last]).len();
    let mut talk = conversation(&template, full);
    talk.set_messages(two).unwrap();
    let refused =
        talk.ask(&*tiny().tokenizer, "And?", &options(1, 0.0), &AtomicBool::new(false), &mut |_| panic!("an event"));
    let Err(ConversationError::Inference(InferenceError::PromptTooLong { prompt, room })) = refused else { panic!() };
    assert_eq!((prompt, room, talk.turns()), (full, full, (2, 0)));
}

#[test]
fn a_cancelled_answer_is_a_turn_if_it_has_any_text() {
    let (template, options) = (PromptTemplate::Instruct, options(40, 0.0));
    let mut talk = conversation(&template, 512);
    ask(&mut talk, QUESTIONS[0], &options);
    // At once, in the middle, and long prompts before they are done.
    let long = QUESTIONS.concat().repeat(3);
    let cancelled = AtomicBool::new(true);
    let answer = talk.ask(&*tiny().tokenizer, &long, &options, &cancelled, &mut |_| {}).unwrap();
    assert_eq!((answer.generation.stop, answer.recorded, talk.turns().0), (StopReason::Cancelled, false, 1));
    let mut pieces = 0;
    let cancel = AtomicBool::new(false);
    let answer = talk
        .ask(&*tiny().tokenizer, QUESTIONS[1], &options, &cancel, &mut |_| {
            pieces += 1;
            cancel.store(pieces == 3, Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!((answer.generation.stop, answer.recorded, talk.turns().0), (StopReason::Cancelled, true, 2));
    assert!(answer.generation.tokens.len() < 40);
    let messages = [talk.messages(), vec![Message::user(QUESTIONS[2])]].concat();
    let expected = fresh(&template, &messages, 512, &options);
    assert_eq!(ask(&mut talk, QUESTIONS[2], &options).0.generation.tokens, expected);
}

#[test]
fn messages_go_to_a_file_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talk.json");
    let (template, options) = (PromptTemplate::Instruct, options(8, 0.0));
    let mut talk = conversation(&template, 512);
    talk.set_system(Some("\u{dc}ber \"alles\"\n\u{1b}".into()));
    ask(&mut talk, QUESTIONS[0], &options);
    std::fs::write(&path, "old").unwrap();
    transcript::write(&path, &talk.messages()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    let mut other = conversation(&template, 512);
    other.set_messages(transcript::read(&path).unwrap()).unwrap();
    assert_eq!(other.messages(), talk.messages());
    let next = |talk: &mut Conversation| ask(talk, QUESTIONS[1], &options).0.generation.tokens;
    assert_eq!(next(&mut other), next(&mut talk));

    for (text, words) in [
        ("", "EOF"),
        ("{}", "not a JSON list"),
        ("[{\"role\": \"user\"}]", "`content`"),
        ("[{\"role\": \"user\", \"content\": 3}]", "line 1"),
        ("[{\"role\": \"user\", \"content\": \"a\", \"name\": \"b\"}]", "`name`"),
        ("[{\"role\": \"user\", \"content\": \"\u{fffd}", "EOF"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = transcript::read(&path).unwrap_err().to_string();
        assert!(error.contains("talk.json") && error.contains(words), "{text}: {error}");
    }
    assert!(transcript::read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    assert!(transcript::read(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(transcript::write(dir.path(), &[]).unwrap_err().to_string().contains("not a regular file"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let (before, user, assistant) = (talk.messages(), Message::user("a"), Message::assistant("b"));
    let odd = Message { role: "tool\u{1b}".into(), content: String::new() };
    for (messages, words) in [
        (vec![assistant.clone()], "message 1: its role is `assistant`, expected `user`"),
        (vec![user.clone(), user.clone()], "message 2: its role is `user`, expected `assistant`"),
        (
            vec![user.clone(), assistant.clone(), Message::system("s")],
            "message 3: its role is `system`, expected `user`",
        ),
        (vec![user.clone(), assistant, user.clone()], "message 3: it is a question without an answer"),
        (vec![user, odd], "message 2: its role is `tool\\u{1b}`"),
    ] {
        let error = talk.set_messages(messages).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(talk.messages(), before, "a refused file changes nothing");
    talk.set_messages(Vec::new()).unwrap();
    assert_eq!((talk.messages(), talk.turns()), (Vec::new(), (0, 0)));
}
