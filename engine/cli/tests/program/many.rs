//! `bitnet infer --input-file`: order, errors by line, going on after an end in the middle, outputs of others.

use crate::support::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const ARGS: &[[&str; 2]] = &[["--prompt-template", "raw"], ["-n", "6"], ["--temperature", "0"], ["--seed", "5"]];

/// The usual arguments, but for those that are said otherwise.
fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = ARGS.iter().filter(|[name, _]| !more.contains(name)).flatten();
    ["infer"].iter().chain(usual).chain(more).copied().collect()
}

struct Files {
    dir: tempfile::TempDir,
    input: PathBuf,
    output: PathBuf,
}

impl Files {
    fn new(lines: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
        std::fs::write(&input, lines.join("\n") + "\n").unwrap();
        Self { dir, input, output }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        args(&[&["--input-file", text(&self.input), "--output", text(&self.output)], more].concat())
    }

    fn run(&self, more: &[&str]) -> Run {
        run(&self.args(more))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.output).unwrap()
    }

    fn answers(&self) -> Vec<Value> {
        let text = String::from_utf8(self.bytes()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines only: {text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn every_line_is_answered_in_order_and_errors_are_lines_too() {
    let long = "In the beginning ".repeat(80);
    let long = json!({ "prompt": long }).to_string();
    let files = Files::new(&[
        r#"{"id": "a", "prompt": "In the beginning"}"#,
        "",
        r#"{"prompt": "In the beginning", "max_tokens": 2, "id": 7}"#,
        r#"{"prompt": "In the beginning", "temperature": 1.5, "seed": 9}"#,
        "nonsense",
        &long,
        r#"{"messages": [{"role": "user", "content": "In the beginning"}], "system": "And"}"#,
        r#"{"prompt": "In the beginning", "temperature": -1}"#,
        r#"{"prompt": "In the beginning", "stop": [" "]}"#,
    ]);
    let run = files.run(&["--context", "128"]).code(1);
    assert_eq!(run.out, "", "answers go to the file");
    assert!(run.err.contains("[5 of 8 prompts answered, 3 failed, done before: 0 | "), "{}", run.err);
    let answers = files.answers();
    let numbers: Vec<_> = answers.iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8, 9]);
    let single = |prompt: &str, more: &[&str]| {
        let report =
            crate::support::run(&args(&[&["--prompt", prompt, "--format", "json"], more].concat())).ok().json();
        json!([report["text"], report["stop"], report["prompt_tokens"].as_array().unwrap().len()])
    };
    let of = |answer: &Value| json!([answer["text"], answer["stop"], answer["prompt_tokens"]]);
    let text = "In the beginning";
    assert_eq!(of(&answers[0]), single(text, &[]));
    assert_eq!(of(&answers[1]), single(text, &["-n", "2"]));
    assert_eq!(of(&answers[2]), single(text, &["--temperature", "1.5", "--seed", "9"]));
    assert_eq!(of(&answers[5]), single("And\nIn the beginning", &[]));
    assert_eq!(of(&answers[7]), single(text, &["--stop", " "]));
    assert_eq!([&answers[0]["id"], &answers[1]["id"], &answers[2]["id"]], [&json!("a"), &json!(7), &Value::Null]);
    assert_eq!([&answers[0]["seed"], &answers[2]["seed"]], [&json!(5), &json!(9)]);
    for (index, words) in [(3, "not a request"), (4, "the context has room for 127"), (6, "temperature is -1")] {
        let answer = &answers[index];
        assert!(answer["error"].as_str().unwrap().contains(words) && answer.get("text").is_none(), "{answer}");
    }
}

#[test]
fn a_run_goes_on_after_its_last_whole_line() {
    let prompts: Vec<String> =
        ["In the beginning", "And Moses", "The sons of Levi", "x"].map(|p| json!({ "prompt": p }).to_string()).to_vec();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let whole = Files::new(&prompts);
    assert!(whole.run(&[]).ok().err.contains("[4 of 4 prompts answered, 0 failed, done before: 0 "));
    let bytes = whole.bytes();
    let ends: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i] == b'\n').map(|i| i + 1).collect();

    // Cut off between lines, in a line's mark, in its text, before its end.
    for (cut, before) in [(0, 0), (ends[0], 1), (ends[1] + 5, 2), (ends[2] - 1, 2), (ends[2] + 90, 3), (bytes.len(), 4)]
    {
        std::fs::write(&whole.output, &bytes[..cut]).unwrap();
        let run = whole.run(&[]).ok();
        assert!(
            run.err.contains(&format!("[4 of 4 prompts answered, 0 failed, done before: {before} ")),
            "{}",
            run.err
        );
        assert_eq!(whole.bytes(), bytes, "cut at {cut}");
    }

    // What belongs to another run is refused and stays as it was.
    let refused = |files: &Files, content: &[u8], more: &[&str], words: &[&str]| {
        std::fs::write(&files.output, content).unwrap();
        files.run(more).fails_with(words);
        assert_eq!(files.bytes(), content, "{words:?}");
    };
    let two = &bytes[..ends[1]];
    refused(&whole, two, &["-n", "7"], &["line 1 of ", "another model, template or arguments", "--output"]);
    refused(&whole, two, &["--system", "S"], &["another model, template or arguments"]);
    refused(&whole, two, &["--model", text(&tiny())], &["another model"]);
    let other = Files::new(&[prompts[0], prompts[2], prompts[1]]);
    refused(&other, two, &[], &["line 2 of ", "is not the answer to line 2 of ", "in.jsonl"]);
    refused(&other, b"my notes", &[], &["line 1 of ", "no beginning of an answer"]);
    refused(&other, b"my notes\n", &[], &["line 1 of ", "is not an answer"]);
    refused(&other, b"{}\n", &[], &["line 1 of ", "is not an answer"]);
    let fewer = Files::new(&prompts[..1]);
    refused(&fewer, two, &[], &["line 2 of ", "one more than"]);
    refused(&fewer, &bytes[..ends[0] + 9], &[], &["line 2 of "]);

    // A line more in the input is only one more to answer.
    std::fs::write(&whole.input, [&prompts[..], &["{}"]].concat().join("\r\n")).unwrap();
    std::fs::write(&whole.output, &bytes).unwrap();
    let run = whole.run(&[]).code(1);
    assert!(run.err.contains("[4 of 5 prompts answered, 1 failed, done before: 4 "), "{}", run.err);
    assert!(whole.bytes().starts_with(&bytes));
    // An error that is there already is still one.
    assert!(whole.run(&[]).code(1).err.contains("1 failed, done before: 5 "));
}

#[test]
fn stdin_and_stdout_are_files_too() {
    let parts = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "In the beginning"}]}]}"#;
    let wizard = r#"{"messages": [{"role": "wizard", "content": "a"}]}"#;
    let files = Files::new(&[r#"{"prompt": "In the beginning"}"#, parts, wizard]);
    let input = std::fs::read(&files.input).unwrap();
    let run = run_with(&input, &args(&["--input-file", "-", "--output", "-"])).code(1);
    assert!(run.err.contains("[2 of 3 prompts answered, 1 failed, done before: 0 "), "{}", run.err);
    files.run(&[]).code(1);
    assert_eq!(run.out.as_bytes(), files.bytes());
    let answers = files.answers();
    assert_eq!(answers[0]["text"], answers[1]["text"]);
    assert!(answers[2]["error"].as_str().unwrap().contains("the role `wizard` is not system, user or assistant"));
    run_with(b"", &args(&["--input-file", "-", "--output", "-"])).fails_with(&["stdin has no lines"]);
}

#[test]
fn files_that_cannot_be_used() {
    let files = Files::new(&[r#"{"prompt": "a"}"#]);
    let input = text(&files.input);
    let usage = |args: &[&str]| run(&[&["infer"], args].concat()).code(2);
    usage(&["--input-file", input]);
    usage(&["--output", input]);
    usage(&["--input-file", input, "--output", "x", "--prompt", "b"]);
    usage(&["--input-file", input, "--output", "x", "--format", "json"]);
    let with = |input: &Path, output: &Path| run(&args(&["--input-file", text(input), "--output", text(output)]));
    with(&files.input, &files.input).fails_with(&["both the input and the output"]);
    with(&files.dir.path().join("none"), &files.output).fails_with(&["cannot read", "none"]);
    with(&files.input, files.dir.path()).fails_with(&["cannot write"]);
    std::fs::write(&files.input, "\n \n").unwrap();
    with(&files.input, &files.output).fails_with(&["has no lines"]);
    assert!(!files.output.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_leaves_whole_lines_and_the_next_run_goes_on() {
    let quick = r#"{"prompt": "In the beginning", "max_tokens": 3}"#;
    let files = Files::new(&[quick, r#"{"prompt": "And"}"#, quick]);
    let endless = ["--ignore-eos", "-n", "1000000", "--context", "1001000"];
    let mut child = bitnet(&files.args(&endless)).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while files.output.metadata().map_or(0, |file| file.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "no first answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    // It is in the second line now, which has no end; nobody else may write there.
    wait_for_handler(child.id());
    files.run(&endless).fails_with(&["another process writes"]);
    interrupt(child.id());
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{err}");
    assert!(err.contains("[1 of 3 prompts answered") && err.contains("the same command goes on"), "{err}");
    let first = files.bytes();
    assert_eq!(files.answers().len(), 1);
    // With an input that the second run can finish; the answered line is the same.
    std::fs::write(&files.input, format!("{quick}\n{quick}\n")).unwrap();
    assert!(files.run(&endless).ok().err.contains("[2 of 2 prompts answered, 0 failed, done before: 1 "));
    assert!(files.bytes().starts_with(&first));
    let texts: Vec<Value> = files.answers().iter().map(|answer| answer["text"].clone()).collect();
    assert_eq!(texts[0], texts[1]);
}
