//! A file that does not record the layout of its I2_S tensors, as Microsoft's: the prompt tells it, and it is remembered.

use crate::support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_engine::load::LAYOUT_KEY;

#[test]
fn the_prompt_tells_the_layout_and_it_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    let file = GgufFile::open(tiny()).unwrap();
    let mut writer = GgufWriter::new(3, file.alignment()).unwrap();
    writer.copy_all_meta(file.metadata(), |key| key != LAYOUT_KEY).unwrap();
    for view in file.views() {
        writer.copy_tensor(view).unwrap();
    }
    writer.write_file(&model).unwrap();

    let prompt = "God said, \"Let there be light,\" and there was light. God saw the light, and saw that it was good.";
    let args = ["infer", "--prompt", prompt, "--temperature", "0", "-n", "8", "--format", "json", "-v"];
    let tiny = tiny();
    let recorded = run(&[&args[..], &["--model", text(&tiny)]].concat()).ok().json();
    let asked = |cache: &str| {
        let cache = dir.path().join(cache);
        let run = run_env(&[("XDG_CACHE_HOME", text(&cache))], &[&args[..], &["--model", text(&model)]].concat()).ok();
        let report = run.json();
        assert_eq!(report["tokens"], recorded["tokens"]);
        assert_eq!(report["timings"]["prompt_tokens"], recorded["timings"]["prompt_tokens"], "counted once");
        let said = |word: &str| report["diagnostics"].to_string().contains(word) && run.err.contains(word);
        (said("tokens of the prompt have"), said("(remembered)"))
    };
    assert_eq!(asked("first"), (true, false));
    assert_eq!(asked("first"), (true, true));
    assert_eq!(asked("second"), (true, false), "another user");

    // Other commands read what one found out, and find it out by a text of their own.
    let chat = |cache: &str| {
        let chat = ["chat", "--prompt-template", "instruct", "-n", "4", "-v", "--model", text(&model)];
        let cache = dir.path().join(cache);
        let run = finish(bitnet(&chat).env("XDG_CACHE_HOME", cache));
        run.ok().err
    };
    assert!(chat("first").contains("(remembered)"));
    let alone = chat("third");
    assert!(alone.contains("a probe text has") && !alone.contains("(remembered)"), "{alone}");
    assert!(chat("third").contains("(remembered)"));
    // A cache that cannot be written costs time and nothing else.
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(asked("file"), (true, false));
    assert_eq!(asked("file"), (true, false));
}

/// What a file records is not overruled by an argument: the weights would be scrambled, for good in what `convert` writes.
#[test]
fn another_layout_than_the_recorded_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = tiny();
    let to = dir.path().join("to.gguf");
    let model = ["--model", text(&tiny)];
    let wrong = ["--i2s-layout", "arm"];
    let words = ["`bitnet.i2_s.layout`", "x86, not arm", "leave --i2s-layout out"];
    run(&[&["infer", "--prompt", "a", "-n", "1"], &model[..], &wrong].concat()).fails_with(&words);
    run(&[&["convert", text(&tiny), "--to", "tq2_0", "-o", text(&to)], &wrong[..]].concat()).fails_with(&words);
    assert!(!to.exists());
    run(&[&["infer", "--prompt", "a", "-n", "1", "--i2s-layout", "x86"], &model[..]].concat()).ok();
}
