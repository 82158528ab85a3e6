//! What people are shown of files that others made: never what a terminal obeys, always where and what next.

use crate::models::*;
use crate::support::{Run, at, bitnet, finish, text};

/// Nothing on either stream that a terminal acts on, but for ends of lines and tabs.
#[track_caller]
fn tame(run: Run) -> Run {
    for (name, stream) in [("stdout", &run.out), ("stderr", &run.err)] {
        let acts = |c: &char| {
            (c.is_control() && !matches!(c, '\n' | '\t'))
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert_eq!(stream.chars().find(acts), None, "{name}: {stream:?}");
    }
    run
}

const EVIL: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\rlie\nforged: line\u{1b}[2J";

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let evil = |name: &str| format!("{name}{EVIL}");
    let sound = || [arch("llama"), bpe_keys(300, Some("gpt-2"))].concat();
    let mut files = vec![
        ("architecture", [arch(&evil("llama")), bpe_keys(300, Some("gpt-2"))].concat()),
        ("key", with(sound(), &evil("general.note"), EVIL)),
        ("value", with(sound(), "general.name", EVIL)),
        ("pre", [arch("llama"), bpe_keys(300, Some(&evil("gpt-2")))].concat()),
        ("kind", with(sound(), "tokenizer.ggml.model", evil("bpe"))),
        ("template", with(sound(), "tokenizer.chat_template", format!("{{{{ raise_exception('{EVIL}') }}}}"))),
        ("syntax", with(sound(), "tokenizer.chat_template", format!("{{% {EVIL}"))),
        ("merges", with(sound(), "tokenizer.ggml.merges", vec![evil("merge")])),
    ];
    files.push(("list", with(sound(), "tokenizer.ggml.tokens", EVIL)));
    for (name, keys) in files {
        let model = write(dir.path(), &format!("{name}.gguf"), gguf(&keys, Some(300)));
        let run = |args: &[&str]| tame(finish(&mut bitnet(args)));
        let shown = run(&["inspect", text(&model), "--tensors"]).ok();
        assert!(!shown.out.lines().any(|line| line.starts_with("forged")), "{name}: {}", shown.out);
        run(&["inspect", text(&model), "--tensors", "--format", "json"]).ok().json();
        run(&["discover", text(&model)]);
        run(&["discover", text(&model), "--format", "json"]).json();
        run(&["tokenize", "--model", text(&model), "--text", "a"]);
        run(&["-vv", "infer", "--model", text(&model), "--prompt", "a", "--prompt-template", "auto"]).code(1);
    }
    // The name of a tensor, and that of the file itself.
    let mut writer = bitnet_engine::gguf::GgufWriter::new(3, 32).unwrap();
    writer.meta("general.architecture", "llama".to_owned()).unwrap();
    writer.tensor(&evil("tensor"), &[1, 8], 0, vec![0u8; 32]).unwrap();
    let bytes = writer.into_vec().unwrap();
    let model = write(dir.path(), "a\u{1b}[31m.gguf", bytes);
    let shown = tame(finish(&mut bitnet(&["inspect", text(&model), "--tensors"]))).ok();
    assert!(shown.out.contains("tensor\\u{1b}]0;owned\\u{7}\\u{9b}31m\\u{202e}\\u{d}lie\\u{a}forged"), "{}", shown.out);
    tame(finish(&mut bitnet(&["infer", "--model", text(&model), "--prompt", "a"]))).fails_with(&["\\u{1b}[31m.gguf"]);
}

#[test]
fn no_colours_where_nobody_sees_them() {
    let run = tame(finish(&mut bitnet(&["-vv", "infer", "--prompt", "a", "--max-tokens", "2"]))).ok();
    assert!(run.err.contains("DEBUG") || run.err.contains("INFO") || run.err.contains("TRACE"), "{}", run.err);
}

#[test]
fn warnings_name_the_path_and_stand_in_the_json() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [arch("llama"), bpe_keys(300, None)].concat();
    let model = write(dir.path(), "my model.gguf", gguf(&keys, Some(300)));
    let quoted = format!("'{}'", text(&model));
    let run = finish(&mut bitnet(&["tokenize", "--model", text(&model), "--text", "a"])).ok();
    assert!(run.err.contains(&format!("bitnet convert {quoted} --set tokenizer.ggml.pre=NAME")), "{}", run.err);
    let inspect = finish(&mut bitnet(&["inspect", text(&model)])).ok();
    assert!(inspect.out.contains(&format!("bitnet convert {quoted}")), "{}", inspect.out);
    let unknown = [arch("llama"), bpe_keys(300, Some("nobody-knows"))].concat();
    let model = write(dir.path(), "unknown.gguf", gguf(&unknown, Some(300)));
    let wanted = format!("bitnet convert {} --set", text(&model));
    let run = finish(&mut bitnet(&["tokenize", "--model", text(&model), "--text", "a"]));
    let run = run.fails_with(&[&wanted]);
    assert!(!run.err.contains("bitnet convert FILE"), "{}", run.err);

    // The embedded model without the key of its layout has something to say.
    let bare = dir.path().join("bare.gguf");
    let tiny = crate::support::tiny();
    let args = ["convert", text(&tiny), "--set", "tokenizer.ggml.pre=default", "-o", text(&bare)];
    finish(&mut bitnet(&args)).ok();
    let run =
        finish(&mut bitnet(&["infer", "--model", text(&bare), "--prompt", "a", "-n", "1", "--format", "json"])).ok();
    let report = run.json();
    let told = report["diagnostics"].as_array().unwrap();
    let pre = told.iter().find(|d| d["code"] == "pre_unknown").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(pre["severity"], "warning");
    assert!(pre["hint"].as_str().unwrap().contains(text(&bare)) && !pre["message"].as_str().unwrap().is_empty());
}

#[test]
fn what_discover_promises_tokenize_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let sound = || [arch("llama"), bpe_keys(300, Some("gpt-2"))].concat();
    let merges =
        |list: &[&str]| with(sound(), "tokenizer.ggml.merges", list.iter().map(|m| m.to_string()).collect::<Vec<_>>());
    let mut control = vec![3i32; 300];
    control[1] = 1;
    for (name, keys) in [
        ("one-useless", merges(&["nobody knows"])),
        ("useless", merges(&["x1 y1", "h zz"])),
        ("late", merges(&["x1 y1", "h e"])),
        ("sound", sound()),
        ("controls", with(sound(), "tokenizer.ggml.token_type", control)),
        ("guess", [arch("llama"), bpe_keys(300, None)].concat()),
        ("untyped", without(sound(), "tokenizer.ggml.token_type")),
    ] {
        let model = write(dir.path(), &format!("{name}.gguf"), gguf(&keys, Some(300)));
        for strict in [&[][..], &["--strict"]] {
            let discover = finish(&mut bitnet(&[&["discover", text(&model)], strict].concat()));
            let tokenize =
                finish(&mut bitnet(&[&["tokenize", "--model", text(&model), "--text", "a"], strict].concat()));
            assert_eq!(discover.code, tokenize.code, "{name} {strict:?}: {}\n{}", discover.out, tokenize.err);
            assert_eq!(discover.out.contains("embedded wins"), tokenize.code == Some(0), "{name} {strict:?}");
        }
        if name == "one-useless" {
            let run = finish(&mut bitnet(&["tokenize", "--model", text(&model), "--text", "a"]));
            let run = run.fails_with(&["none of its merges (1, the first is `nobody knows`)"]);
            assert!(!run.err.contains("has no merges"), "{}", run.err);
        }
    }
}

#[test]
fn offline_the_remedies_that_need_no_network_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", bare(CODELLAMA));
    for (flag, order) in [
        (&["--offline"][..], ["1. name a tokenizer", "3. online, let it"]),
        (&[], ["1. let it be", "3. name a tokenizer"]),
    ] {
        let args = [&["tokenize", "--model", text(&model), "--text", "a"], flag].concat();
        finish(&mut at("http://127.0.0.1:9", dir.path(), &[], &args)).fails_with(&order);
    }
}

#[test]
fn a_vocabulary_that_nobody_knows_cannot_be_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), "model.gguf", gguf(&[arch("llama"), bpe_keys(300, None)].concat(), Some(300)));
    let none = write(dir.path(), "none.gguf", bare(CODELLAMA));
    let out = dir.path().join("out.gguf");
    for (model, why) in [(model, "not a known one"), (none, "no vocabulary")] {
        let run = finish(&mut bitnet(&["repair-tokenizer", text(&model), "-o", text(&out)])).code(1);
        assert!(run.err.contains(why) && run.err.contains(text(&model)) && !out.exists(), "{}", run.err);
    }
}
