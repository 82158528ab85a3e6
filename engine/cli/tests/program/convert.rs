//! `bitnet convert`: formats, metadata, and that the commands which diagnostics suggest do what they promise.

use crate::support::*;
use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use std::path::{Path, PathBuf};

const TEXT: &str = "It isn't 1234567, they said   twice.";

/// The tiny model with a key removed or replaced.
fn spoilt(path: &Path, key: &str, value: Option<MetaValue>) {
    let file = GgufFile::open(tiny()).unwrap();
    let mut writer = GgufWriter::new(3, file.alignment()).unwrap();
    writer.copy_all_meta(file.metadata(), |k| k != key).unwrap();
    if let Some(value) = value {
        writer.meta(key, value).unwrap();
    }
    for view in file.views() {
        writer.copy_tensor(view).unwrap();
    }
    writer.write_file(path).unwrap();
}

/// Whether all tensors (or those without `except` in their name) have the same type and bytes.
fn same_tensors(a: &Path, b: &Path, except: &str) -> bool {
    let (a, b) = (GgufFile::open(a).unwrap(), GgufFile::open(b).unwrap());
    a.tensors().len() == b.tensors().len()
        && a.views().zip(b.views()).filter(|(a, _)| except.is_empty() || !a.info.name.contains(except)).all(|(a, b)| {
            (&a.info.name, &a.info.dims, a.info.ggml_type, a.data)
                == (&b.info.name, &b.info.dims, b.info.ggml_type, b.data)
        })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_commands_in_diagnostics_repair_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let right = run(&["tokenize", "--text", TEXT, "--model", text(&tiny())]).ok();
    assert_eq!(right.err, "");
    for (name, key, value, code, answer) in [
        // Without `pre` the model loads, with a warning; with these others it does not.
        ("missing", "tokenizer.ggml.pre", None, 0, "NAME=gpt-2"),
        ("unknown", "tokenizer.ggml.pre", Some(MetaValue::from("nonsense")), 1, "NAME=gpt-2"),
        ("outside", "tokenizer.ggml.bos_token_id", Some(MetaValue::from(5000u32)), 1, "ID=0"),
        ("ignored", "tokenizer.ggml.padding_token_id", Some(MetaValue::from(5000u32)), 0, "ID=0"),
    ] {
        let (broken, repaired) =
            (dir.path().join(format!("{name}.gguf")), dir.path().join(format!("{name}-repaired.gguf")));
        spoilt(&broken, key, value);
        let said = run(&["tokenize", "--text", TEXT, "--model", text(&broken)]).code(code);
        assert!(said.err.contains(key), "{name}: {}", said.err);

        // Run what the message says, with the blanks filled in.
        let from = said.err.find("bitnet convert").unwrap_or_else(|| panic!("{name}: no command in: {}", said.err));
        let upto = said.err[from..].find(" FIXED").unwrap() + from + " FIXED".len();
        let (blank, filling) = answer.split_once('=').unwrap();
        let args: Vec<String> = said.err[from..upto]
            .split_whitespace()
            .skip(1)
            .map(|word| match word {
                "FILE" => text(&broken).to_owned(),
                "FIXED" => text(&repaired).to_owned(),
                _ => word.replace(&format!("={blank}"), &format!("={filling}")),
            })
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = run(&args).ok();
        assert_eq!(done.out, "");
        assert!(done.err.contains("46 copied"), "{}", done.err);

        let again = run(&["tokenize", "--text", TEXT, "--model", text(&repaired)]).ok();
        assert_eq!(again.err, "", "{name}: the diagnostic is gone");
        assert_eq!(again.out, right.out, "{name}: and the ids are right");
        assert!(same_tensors(&broken, &repaired, ""), "{name}");
    }
}

#[test]
fn set_keeps_types_and_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    let (model, output) = (tiny(), text(&out));
    let sets = [
        "general.name=renamed = yes",
        "bitnet-b1.58.context_length=256",
        "bitnet-b1.58.rope.freq_base=5e5",
        "tokenizer.ggml.add_eos_token=false",
        "tokenizer.ggml.padding_token_id=0",
        "my.flag=true",
        "my.number=-3",
        "my.text=three",
    ];
    let mut args = vec!["convert", text(&model), "-o", output];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    run(&args).ok();
    assert!(same_tensors(&model, &out, ""));
    let file = GgufFile::open(&out).unwrap();
    for (key, described) in [
        ("general.name", "string \"renamed = yes\""),
        ("bitnet-b1.58.context_length", "u32 256"),
        ("bitnet-b1.58.rope.freq_base", "f32 500000"),
        ("tokenizer.ggml.add_eos_token", "bool false"),
        ("tokenizer.ggml.padding_token_id", "u32 0"),
        ("my.flag", "bool true"),
        ("my.number", "i32 -3"),
        ("my.text", "string \"three\""),
    ] {
        assert_eq!(file.metadata().get(key).unwrap().describe(), described, "{key}");
    }
    let before = GgufFile::open(&model).unwrap();
    assert_eq!(file.metadata().len(), before.metadata().len() + 5, "the others are as they were");
    drop(file);

    let whole = std::fs::read(&out).unwrap();
    // The input is never overwritten, by whatever name.
    let second = dir.path().join("second.gguf");
    std::fs::hard_link(&out, &second).unwrap();
    for name in [&out, &second] {
        for work in [["--set", "my.text=four"], ["--to", "f16"]] {
            run(&["convert", output, work[0], work[1], "-o", text(name)]).fails_with(&["is the input itself"]);
        }
    }
    std::fs::remove_file(&second).unwrap();
    let other = dir.path().join("other.gguf");
    for (set, words) in [
        ("no-assignment", &["`no-assignment`", "KEY=VALUE"][..]),
        ("tokenizer.ggml.tokens=a", &["tokenizer.ggml.tokens", "array"]),
        ("general.alignment=64", &["general.alignment"]),
        ("bitnet-b1.58.block_count=four", &["block_count", "u32", "four"]),
    ] {
        std::fs::write(&other, "what was there").unwrap();
        run(&["convert", output, "--set", set, "-o", text(&other)]).fails_with(words);
        assert_eq!(std::fs::read(&other).unwrap(), b"what was there");
    }
    std::fs::remove_file(&other).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), whole, "errors leave the output as it was");
    assert_eq!(files(dir.path()), [out]);
}

#[test]
fn formats() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (model, arm, back) = (tiny(), path("arm.gguf"), path("back.gguf"));
    let said = run(&["convert", text(&model), "--to", "i2_s-arm", "-o", text(&arm)]).ok();
    assert!(said.out.is_empty() && said.err.contains("28 tensors converted, 18 copied"), "{}", said.err);
    run(&["convert", text(&arm), "--to", "i2_s", "-o", text(&back)]).ok();
    assert!(same_tensors(&model, &back, "") && !same_tensors(&model, &arm, ""));
    let generate = |model: &Path| {
        run(&["infer", "--model", text(model), "--prompt", "And", "-n", "10", "--temperature", "0"]).ok().out
    };
    assert_eq!(generate(&arm), generate(&model), "the same model in another order of bytes");

    // Ternary to ternary and back: a scale that is not an f16 stands beside its matrix on the way.
    let tq = path("tq.gguf");
    let said = run(&["convert", text(&model), "--to", "tq1_0", "-o", text(&tq)]).ok();
    assert!(said.err.contains("28 tensors converted, 18 copied"), "{}", said.err);
    assert_eq!(GgufFile::open(&tq).unwrap().tensors().len(), 46 + 28);
    assert_eq!(generate(&tq), generate(&model), "the same model in another format");
    let again = path("again.gguf");
    run(&["convert", text(&tq), "--to", "i2_s", "-o", text(&again)]).ok();
    assert!(same_tensors(&model, &again, ""));
    std::fs::remove_file(&again).unwrap();
    std::fs::remove_file(&tq).unwrap();

    // Signs alone would make another model of it.
    let signs = path("signs.gguf");
    run(&["convert", text(&model), "--to", "q1_0", "-o", text(&signs)]).fails_with(&["tensor `blk.", "q1_0", "zero"]);
    assert!(!signs.exists());

    // The embedding alone: nothing else changes, and the metadata only gains the layout that was found.
    let small = path("small.gguf");
    run(&["convert", text(&model), "--embedding", "q8_0", "-o", text(&small)]).ok();
    assert!(same_tensors(&model, &small, "token_embd") && !same_tensors(&model, &small, ""));
    let (a, b) = (GgufFile::open(&model).unwrap(), GgufFile::open(&small).unwrap());
    let entries = |file: &GgufFile| -> Vec<String> {
        let kept = file.metadata().iter().filter(|(key, _)| *key != "bitnet.i2_s.layout");
        // Without the place in the file, where an array begins.
        kept.map(|(key, value)| format!("{key} = {}", format!("{value:?}").split(", at: ").next().unwrap())).collect()
    };
    assert_eq!(entries(&a), entries(&b));
    assert_eq!(b.metadata().str("bitnet.i2_s.layout").unwrap(), Some("x86"));
    assert!(generate(&small).starts_with("And"));

    // Without a tokenizer, weights are rewritten all the same, unless only a text could tell their layout.
    let (bare, floats, again) = (path("bare.gguf"), path("floats.gguf"), path("again.gguf"));
    spoilt(&bare, "tokenizer.ggml.model", None);
    run(&["convert", text(&bare), "--to", "f32", "-o", text(&floats)]).fails_with(&["tokenizer"]);
    run(&["convert", text(&bare), "--to", "f32", "--i2s-layout", "x86", "-o", text(&floats)]).ok();
    run(&["convert", text(&floats), "--to", "i2_s", "-o", text(&again)]).ok();
    assert!(same_tensors(&bare, &again, ""));
    for path in [&bare, &floats, &again] {
        std::fs::remove_file(path).unwrap();
    }

    // Both at once: what loads is the repaired file.
    let (broken, both) = (path("broken.gguf"), path("both.gguf"));
    spoilt(&broken, "tokenizer.ggml.pre", Some("nonsense".into()));
    run(&["convert", text(&broken), "--to", "f16", "-o", text(&both)]).fails_with(&["nonsense"]);
    let said =
        run(&["convert", text(&broken), "--to", "f16", "--set", "tokenizer.ggml.pre=gpt-2", "-o", text(&both)]).ok();
    assert!(said.err.contains("28 tensors converted"), "{}", said.err);
    let file = GgufFile::open(&both).unwrap();
    assert_eq!(file.metadata().str("tokenizer.ggml.pre").unwrap(), Some("gpt-2"));
    assert!(generate(&both).starts_with("And"));
    assert_eq!(files(dir.path()).len(), 5, "no temporary file is left: {:?}", files(dir.path()));

    run(&["convert", text(&model), "--to", "iq3_s", "-o", text(&path("x.gguf"))]).refused_with(&["`iq3_s`", "q8_0"]);
    let q8 = path("q8.gguf");
    run(&["convert", text(&model), "--to", "q4_0", "-o", text(&q8)]).ok();
    run(&["convert", text(&model), "--embedding", "i2_s", "-o", text(&q8)])
        .fails_with(&["`token_embd.weight`", "i2_s"]);
    assert!(GgufFile::open(&q8).is_ok(), "what was there stays");
}

#[test]
fn inspect_says_what_cannot_run() {
    let dir = tempfile::tempdir().unwrap();
    let mamba = dir.path().join("mamba.gguf");
    run(&["convert", text(&tiny()), "--set", "general.architecture=mamba", "-o", text(&mamba)]).ok();
    let shown = run(&["inspect", text(&mamba)]).ok();
    assert!(shown.out.contains("nothing: architecture `mamba` is not supported"), "{}", shown.out);
    assert!(shown.out.contains("general.name") && shown.out.contains("i2_s"), "the rest is shown: {}", shown.out);
    let json = run(&["inspect", text(&mamba), "--format", "json"]).ok().json();
    assert!(json["run"]["error"].as_str().unwrap().contains("`mamba`") && json["tokenizer"]["ok"]["tokens"] == 2048);
    run(&["infer", "--model", text(&mamba), "--prompt", "a"]).fails_with(&["`mamba`", "bitnet-b1.58"]);

    let deaf = dir.path().join("deaf.gguf");
    spoilt(&deaf, "tokenizer.ggml.model", Some("rwkv".into()));
    let shown = run(&["inspect", text(&deaf)]).ok();
    assert!(shown.out.contains("unusable: tokenizer model `rwkv`") && shown.out.contains("76 steps"), "{}", shown.out);
}
