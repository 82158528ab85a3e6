//! Every answer recorded in `golden/chat`, byte for byte.

use bitnet_engine::chat::Clock;
use bitnet_engine::chat::jinja::{Inputs, render};
use minijinja::Value;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

type Table<T> = BTreeMap<String, BTreeMap<String, T>>;

/// What Jinja made of a template.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Text(String),
    Error(String),
}

/// A named difference.
#[derive(Debug, serde::Deserialize)]
struct Difference {
    template: String,
    /// All if absent.
    conversation: Option<String>,
    reason: String,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden/chat").join(name)
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(golden(name)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn now() -> Clock {
    Clock::at(2024, 7, 26, 15, 4, 5).unwrap()
}

#[test]
fn every_recorded_answer() {
    let conversations: Table<Value> = read("conversations.json");
    let expected: Table<Answer> = read("expected.json");
    let differences: Vec<Difference> = read("differences.json");
    let files: BTreeSet<String> = std::fs::read_dir(golden("templates"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(files, expected.keys().cloned().collect(), "golden/chat/record.py records what is there");
    assert!(files.len() >= 60);
    let mut wrong = Vec::new();
    let mut met = BTreeSet::new();
    for (template, answers) in &expected {
        assert!(answers.keys().eq(conversations.keys()), "{template}: golden/chat/record.py records what is there");
        let source = std::fs::read_to_string(golden(&format!("templates/{template}.jinja"))).unwrap();
        for (conversation, wanted) in answers {
            let inputs = Inputs { variables: conversations[conversation].clone(), clock: now() };
            let got = render(&source, &inputs);
            // Of an error the words of raise_exception are the same, the engine's own are not.
            let same = match (&got, wanted) {
                (Ok(got), Answer::Text(wanted)) => got == wanted,
                (Err(got), Answer::Error(wanted)) => {
                    wanted.strip_prefix("TemplateError: ").is_none_or(|raised| got.contains(raised))
                }
                _ => false,
            };
            let named = differences.iter().position(|d| {
                d.template == *template && d.conversation.as_ref().is_none_or(|name| name == conversation)
            });
            match (same, named) {
                (true, None) => {}
                (false, Some(at)) => drop(met.insert(at)),
                (false, None) => {
                    wrong.push(format!("{template} x {conversation}:\n  got    {got:?}\n  wanted {wanted:?}"))
                }
                (true, Some(_)) => wrong.push(format!("{template} x {conversation}: no difference any more")),
            }
        }
    }
    for (at, difference) in differences.iter().enumerate() {
        assert!(!difference.reason.is_empty());
        assert!(met.contains(&at), "a difference that nothing has: {difference:?}");
    }
    assert!(wrong.is_empty(), "{}\n{} differences", wrong.join("\n"), wrong.len());
}

#[test]
fn every_code_of_a_date() {
    let expected: Table<String> = read("strftime.json");
    assert!(expected.len() >= 4);
    for (day, codes) in expected {
        let numbers: Vec<u32> = day.split(['-', 'T', ':']).map(|n| n.parse().unwrap()).collect();
        let [year, month, d, hour, minute, second] = numbers[..] else { panic!("{day}") };
        let clock = Clock::at(year as i32, month, d, hour, minute, second).unwrap();
        for (code, wanted) in codes {
            assert_eq!(clock.strftime(&code), wanted, "{code} of {day}");
        }
    }
    for same in ["%", "a %", "%Q", "%-", "%05", "%é%", "100%"] {
        assert_eq!(now().strftime(same), same);
    }
    assert_eq!(Clock::at(2023, 2, 29, 0, 0, 0), None);
    // The date of today is that of the system.
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let said: u64 = Clock::NOW.strftime("%s").parse().unwrap();
    assert!(said.abs_diff(seconds) < 60 || said.abs_diff(seconds) < 7200 + 60, "{said} and {seconds}");
}
