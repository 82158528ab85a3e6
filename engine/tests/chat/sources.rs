//! Where a template is found, and which one wins.

use crate::model_support::*;
use bitnet_engine::chat::source::{BITNET_2B_4T, Wanted, choose};
use bitnet_engine::chat::{ChatError, Choice, Clock, Message, Origin, PromptTemplate, Surroundings};
use bitnet_engine::gguf::GgufFile;
use std::path::Path;

/// As Microsoft's converter writes it.
const PLACEHOLDER: &str = include_str!("../../../golden/chat/templates/bitnet-placeholder.jinja");

fn file(keys: &[(&str, &str)]) -> GgufFile {
    let mut small = Small::new();
    for (key, value) in keys {
        small.set(key, *value);
    }
    GgufFile::from_vec(small.bytes()).unwrap()
}

fn wanted<'a>(name: &'a str, model: Option<&'a Path>) -> Wanted<'a> {
    Wanted { name, file: None, model, tell: true }
}

fn text(choice: Choice) -> (String, Origin) {
    match choice.template {
        PromptTemplate::Model(template) => (template.text, template.origin),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_metadata_then_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let model = at("model.gguf");
    let own = file(&[("tokenizer.chat_template", "own"), ("tokenizer.chat_template.rag", "own rag")]);
    let bare = file(&[("tokenizer.chat_template", " \n")]);
    let with = |file: &GgufFile, name: &str| choose(wanted(name, Some(&model)), file.metadata());

    let none = with(&bare, "auto").unwrap();
    assert_eq!(none.template, PromptTemplate::Raw);
    assert_eq!(none.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["no_chat_template"]);
    let silent = Wanted { tell: false, ..wanted("auto", None) };
    assert!(choose(silent, bare.metadata()).unwrap().diagnostics.is_empty());
    assert!(with(&bare, "raw").unwrap().diagnostics.is_empty());

    let config = at("tokenizer_config.json");
    std::fs::write(&config, r#"{"chat_template": "from config"}"#).unwrap();
    assert_eq!(text(with(&bare, "auto").unwrap()), ("from config".into(), Origin::File(config.clone())));
    std::fs::write(
        &config,
        r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#,
    )
    .unwrap();
    assert_eq!(text(with(&bare, "auto").unwrap()).0, "d");
    assert_eq!(text(with(&bare, "tool_use").unwrap()).0, "t");
    std::fs::write(at("chat_template.jinja"), "from jinja").unwrap();
    assert_eq!(text(with(&bare, "auto").unwrap()).0, "from jinja");
    std::fs::create_dir(at("additional_chat_templates")).unwrap();
    std::fs::write(at("additional_chat_templates/rag.jinja"), "r").unwrap();
    assert_eq!(text(with(&bare, "rag").unwrap()).0, "r");

    assert_eq!(text(with(&own, "auto").unwrap()), ("own".into(), Origin::Gguf));
    assert_eq!(text(with(&own, "rag").unwrap()).0, "own rag");
    assert_eq!(text(with(&own, "default").unwrap()).0, "own");
    let chosen = at("chat_template.jinja");
    let named = Wanted { file: Some(&chosen), ..wanted("auto", Some(&model)) };
    assert_eq!(text(choose(named, own.metadata()).unwrap()).0, "from jinja");
    for name in ["nothing", "../chat_template", ".", "a/b"] {
        let error = with(&own, name).unwrap_err();
        assert!(matches!(&error, ChatError::Unknown { known, .. } if known == &["rag"]), "{error}");
        assert!(error.to_string().contains("llama3-chat, rag"), "{error}");
    }
}

#[test]
fn files_that_hold_no_template() {
    let dir = tempfile::tempdir().unwrap();
    let bare = file(&[]);
    let model = dir.path().join("model.gguf");
    let config = dir.path().join("tokenizer_config.json");
    let jinja = dir.path().join("chat_template.jinja");
    for (content, expected) in [("{", "EOF"), (r#"{"chat_template": 7}"#, "neither a text nor a list")] {
        std::fs::write(&config, content).unwrap();
        let error = choose(wanted("auto", Some(&model)), bare.metadata()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("tokenizer_config.json"), "{error}");
    }
    std::fs::write(&config, r#"{"chat_template": null}"#).unwrap();
    assert_eq!(choose(wanted("auto", Some(&model)), bare.metadata()).unwrap().template, PromptTemplate::Raw);
    for (path, content, expected) in [
        (&jinja, b"\xff\xfe".to_vec(), "UTF-8"),
        (&jinja, vec![b' '; (1 << 20) + 1], "more than"),
        (&jinja, b" ".to_vec(), "no chat template"),
        (&config, b"{}".to_vec(), "no chat template named `default`"),
    ] {
        std::fs::write(path, content).unwrap();
        let wish = Wanted { file: Some(path), ..wanted("auto", None) };
        let error = choose(wish, bare.metadata()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let both = Wanted { file: Some(&jinja), ..wanted("raw", None) };
    assert!(choose(both, bare.metadata()).unwrap_err().to_string().contains("either a name or a file"));
    let gone = dir.path().join("gone");
    let wish = Wanted { file: Some(&gone), ..wanted("auto", None) };
    assert!(choose(wish, bare.metadata()).unwrap_err().to_string().contains("gone"));
}

#[test]
fn the_placeholder_of_microsofts_file_is_replaced() {
    let metadata = file(&[("tokenizer.chat_template", PLACEHOLDER)]);
    let choice = choose(wanted("auto", None), metadata.metadata()).unwrap();
    let [said] = &choice.diagnostics[..] else { panic!("{:?}", choice.diagnostics) };
    assert!(said.code == "placeholder_template" && said.hint.contains("repair-tokenizer"), "{said}");
    let messages =
        [Message::system(" Be brief. "), Message::user("Why?\n"), Message::assistant("So."), Message::user("Hm")];
    let with = Surroundings { bos: Some("<|begin_of_text|>"), eos: Some("<|end_of_text|>"), clock: Clock::NOW };
    assert_eq!(
        choice.template.render(&messages, with).unwrap(),
        "System: Be brief.<|eot_id|>User: Why?<|eot_id|>Assistant: So.<|eot_id|>User: Hm<|eot_id|>Assistant: "
    );
    assert_eq!(choice.template.ends(), ["<|eot_id|>", "<|end_of_text|>"]);
    assert_eq!(text(choice), (BITNET_2B_4T.into(), Origin::Corrected));
    // A file of the user wins.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.jinja");
    std::fs::write(&path, PLACEHOLDER).unwrap();
    let wish = Wanted { file: Some(&path), ..wanted("auto", None) };
    assert_eq!(text(choose(wish, metadata.metadata()).unwrap()).0, PLACEHOLDER);
}
