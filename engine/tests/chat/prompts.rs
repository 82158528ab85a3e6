//! From a conversation to ids, and what ends an answer.

use crate::model_support::Small;
use bitnet_engine::chat::prompt::{Input, Prompt, PromptOptions, begun, encode, ends, prompt};
use bitnet_engine::chat::source::BITNET_2B_4T;
use bitnet_engine::chat::{Clock, Message, ModelTemplate, Origin, PromptTemplate};
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::tokenizer::{TokenKind, Tokenizer, VocabSource, from_source};
use std::sync::Arc;

const BOS: u32 = 1;
const EOS: u32 = 2;
const EOT: u32 = 3;
const END: u32 = 4;

/// An SPM of bytes whose control tokens are those of LLaMA-3's chat.
fn tokenizer(change: impl Fn(&mut VocabSource)) -> Arc<dyn Tokenizer> {
    let mut tokens: Vec<Vec<u8>> =
        ["<unk>", "<s>", "</s>", "<|eot_id|>", "<|end_of_text|>"].map(|t| t.as_bytes().to_vec()).to_vec();
    let mut token_types = vec![TokenKind::Control; tokens.len()];
    token_types[0] = TokenKind::Unknown;
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>").into_bytes());
        token_types.push(TokenKind::Byte);
    }
    let mut source = VocabSource {
        model: "llama".into(),
        scores: vec![0.0; tokens.len()],
        tokens,
        token_types,
        bos: Some(BOS),
        eos: Some(EOS),
        unk: Some(0),
        add_bos: Some(true),
        add_space_prefix: Some(false),
        ..VocabSource::default()
    };
    change(&mut source);
    from_source(source).unwrap().tokenizer
}

fn bytes(text: &str) -> Vec<u32> {
    text.replace(' ', "\u{2581}").bytes().map(|b| 5 + u32::from(b)).collect()
}

fn model(text: &str, origin: Origin) -> PromptTemplate {
    PromptTemplate::Model(ModelTemplate { text: text.into(), origin })
}

fn asked(tokenizer: &dyn Tokenizer, template: &PromptTemplate, text: &str, parse_special: bool) -> Prompt {
    let options = PromptOptions { template, parse_special, clock: Clock::NOW };
    prompt(tokenizer, Input::Messages(&[Message::user(text)]), options).unwrap()
}

#[test]
fn a_prompt_is_begun_once_and_not_ended() {
    let usual = tokenizer(|_| {});
    let ending = tokenizer(|source| source.add_eos = Some(true));
    let silent = tokenizer(|source| source.add_bos = Some(false));
    let with_bos = model("{{ bos_token }}{{ messages[0].content }}", Origin::Gguf);
    let without = model("{{ messages[0].content }}{{ eos_token }}", Origin::Gguf);
    let hi = bytes("hi");
    for (tokenizer, template, expected) in [
        (&usual, &PromptTemplate::Raw, [&[BOS][..], &hi].concat()),
        (&usual, &with_bos, [&[BOS][..], &hi].concat()),
        (&usual, &without, [&[BOS][..], &hi, &[EOS]].concat()),
        (&ending, &with_bos, [&[BOS][..], &hi].concat()),
        // The template's own end token stays; only what the flags add is left out.
        (&ending, &without, [&[BOS][..], &hi, &[EOS]].concat()),
        (&silent, &PromptTemplate::Raw, hi.clone()),
        (&silent, &with_bos, [&[BOS][..], &hi].concat()),
    ] {
        let made = asked(&**tokenizer, template, "hi", false);
        assert_eq!(made.ids, expected, "{template:?}");
        assert_eq!(encode(&**tokenizer, &made.text, made.parse_special).unwrap(), made.ids);
    }
    let options = PromptOptions { template: &with_bos, parse_special: false, clock: Clock::NOW };
    let text = prompt(&*usual, Input::Text("hi"), options).unwrap();
    assert_eq!(text, Prompt { text: "hi".into(), ids: [&[BOS][..], &hi].concat(), parse_special: false });
    // A reference's ids are judged by the same rule.
    let special = ending.special();
    assert_eq!(begun(vec![BOS, BOS, 9, EOS], special, true), [BOS, 9]);
    assert_eq!(begun(vec![BOS, BOS, 9, EOS], special, false), [BOS, BOS, 9]);
    assert_eq!(begun(vec![BOS], special, true), [BOS]);
    assert_eq!(begun(Vec::new(), special, true), [0u32; 0]);
}

#[test]
fn control_tokens_in_a_text_are_read_only_if_asked_for() {
    let usual = tokenizer(|_| {});
    let raw = |parse| asked(&*usual, &PromptTemplate::Raw, "a<|eot_id|>", parse).ids;
    assert_eq!(raw(false), [&[BOS][..], &bytes("a<|eot_id|>")].concat());
    assert_eq!(raw(true), [&[BOS][..], &bytes("a"), &[EOT]].concat());
    let chat = asked(&*usual, &model(BITNET_2B_4T, Origin::Corrected), " Why? ", false);
    assert_eq!(chat.text, "User: Why?<|eot_id|>Assistant: ");
    assert_eq!(chat.ids, [&[BOS][..], &bytes("User: Why?"), &[EOT], &bytes("Assistant: ")].concat());
}

#[test]
fn ends_come_from_all_sources() {
    let usual = tokenizer(|_| {});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let config = dir.path().join("generation_config.json");
    let file = |eos: u32| GgufFile::from_vec(Small::new().set("tokenizer.ggml.eos_token_id", eos).bytes()).unwrap();
    let of = |file: &GgufFile, template: &PromptTemplate| {
        let (ids, odd) = ends(&*usual, template, file.metadata(), Some(&path));
        (ids, odd.iter().map(ToString::to_string).collect::<Vec<_>>().concat())
    };
    assert_eq!(of(&file(EOS), &PromptTemplate::Raw).0, [EOS]);
    assert_eq!(of(&file(100), &PromptTemplate::Raw).0, [0u32; 0], "an ordinary token ends nothing");
    assert_eq!(of(&file(EOS), &model(BITNET_2B_4T, Origin::Corrected)).0, [EOS, EOT, END]);
    for (text, ids, words) in [
        (r#"{"eos_token_id": 4}"#, &[EOS, END][..], ""),
        (r#"{"eos_token_id": [4, 3]}"#, &[EOS, EOT, END], ""),
        (r#"{"eos_token_id": null}"#, &[EOS], ""),
        ("{}", &[EOS], ""),
        (r#"{"eos_token_id": [4, 100]}"#, &[EOS], "token 100 is not a control token"),
        (r#"{"eos_token_id": 4000000}"#, &[EOS], "token 4000000"),
        (r#"{"eos_token_id": "x"}"#, &[EOS], "is not an id"),
        ("{", &[EOS], "generation_config.json"),
    ] {
        std::fs::write(&config, text).unwrap();
        let (found, said) = of(&file(EOS), &PromptTemplate::Raw);
        assert_eq!(found, ids, "{text}");
        assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{text}: {said}");
    }
}
