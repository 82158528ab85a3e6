//! A model in several files is the same model to every command, by whichever part it is named.

use crate::support::*;
use bitnet_engine::gguf::GgufFile;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The tiny model in parts of at most 20 tensors.
fn split(dir: &Path) -> Vec<PathBuf> {
    let whole = dir.join("tiny.gguf");
    let said = run(&["convert", text(&tiny()), "--split-max-tensors", "20", "-o", text(&whole)]).ok();
    assert!(said.err.contains("in parts of 20 tensors") && said.err.contains("46 copied"), "{}", said.err);
    let parts: Vec<_> = (1..=3).map(|n| dir.join(format!("tiny-{n:05}-of-00003.gguf"))).collect();
    assert!(parts.iter().all(|part| part.is_file()) && !whole.exists());
    parts
}

/// JSON without what the clock and the path decide.
fn timeless(mut json: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| {
                    !["timings", "memory", "load_seconds", "seed", "micros", "model"].contains(&&**key)
                });
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut json);
    json
}

#[test]
fn every_command_takes_any_part() {
    let dir = tempfile::tempdir().unwrap();
    let parts = split(dir.path());
    let book = dir.path().join("book.txt");
    std::fs::write(&book, "In the beginning God created the heavens and the earth. ".repeat(4)).unwrap();
    let perplexity = format!("perplexity --text-file {} --format json --model", text(&book));
    for command in [
        "infer --prompt beginning --max-tokens 12 --temperature 0 --format json --model",
        "infer --prompt beginning --max-tokens 12 --temperature 0.8 --seed 7 --model",
        "tokenize --text twice,1234567 --format json --model",
        &perplexity,
        "discover --format json",
    ] {
        let answer = |model: &Path| {
            let args: Vec<&str> = command.split(' ').chain([text(model)]).collect();
            let run = run(&args).ok();
            match command.contains("json") {
                true => timeless(run.json()),
                false => Value::String(run.out),
            }
        };
        let right = answer(&tiny());
        assert!(right.to_string().len() > 15, "{command}: {right}");
        for part in [&parts[0], &parts[2]] {
            assert_eq!(answer(part), right, "{command}");
        }
    }
}

#[test]
fn inspect_shows_the_parts() {
    let dir = tempfile::tempdir().unwrap();
    let parts = split(dir.path());
    let whole = run(&["inspect", text(&tiny()), "--format", "json"]).ok().json();
    assert!(whole.get("parts").is_none());
    let json = run(&["inspect", text(&parts[1]), "--tensors", "--format", "json"]).ok().json();
    let listed: Vec<_> = json["parts"].as_array().unwrap().iter().map(|part| part["file"].as_str().unwrap()).collect();
    assert_eq!(listed, parts.iter().map(|part| text(part)).collect::<Vec<_>>());
    assert_eq!(json["parts"][2]["tensors"], 6);
    assert_eq!(json["bytes"], parts.iter().map(|part| part.metadata().unwrap().len()).sum::<u64>());
    assert_eq!(json["tensors"][45]["part"], 3);
    assert_eq!((&json["run"], &json["tensor_types"]), (&whole["run"], &whole["tensor_types"]));
    let shown = run(&["inspect", text(&parts[1]), "--tensors"]).ok().out;
    for word in ["\nparts", text(&parts[2]), " of part 2, "] {
        assert!(shown.contains(word), "no {word:?} in {shown}");
    }
}

#[test]
fn convert_writes_one_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let parts = split(dir.path());
    let merged = dir.path().join("merged.gguf");
    run(&["convert", text(&parts[2]), "--merge", "-o", text(&merged)]).ok();
    assert!(std::fs::read(&merged).unwrap() == std::fs::read(tiny()).unwrap(), "the file that was split");

    // Another format: the same from parts as from the whole, and into parts.
    let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    run(&["convert", text(&tiny()), "--to", "tq2_0", "-o", text(&a)]).ok();
    run(&["convert", text(&parts[1]), "--to", "tq2_0", "-o", text(&b)]).ok();
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
    let c = dir.path().join("c.gguf");
    run(&["convert", text(&parts[0]), "--to", "tq2_0", "--split-max-tensors", "40", "-o", text(&c)]).ok();
    let (a, c) = (GgufFile::open(&a).unwrap(), GgufFile::open(dir.path().join("c-00001-of-00002.gguf")).unwrap());
    assert!(a.views().map(|v| (&v.info.name, v.data)).eq(c.views().map(|v| (&v.info.name, v.data))));

    // Parts are not replaced.
    run(&["convert", text(&parts[0]), "--split-max-tensors", "20", "-o", text(&dir.path().join("tiny.gguf"))])
        .fails_with(&["tiny-00001-of-00003.gguf is there already"]);
    run(&["convert", text(&parts[0]), "--merge", "--split-max-tensors", "2", "-o", "x"]).code(2);
}

#[test]
fn errors_name_the_part() {
    let dir = tempfile::tempdir().unwrap();
    let parts = split(dir.path());
    // A scale of an I2_S tensor in the second part becomes a NaN.
    let file = GgufFile::open(&parts[0]).unwrap();
    let view = file.views().find(|v| v.info.part == 1 && v.info.ggml_type == 36).unwrap();
    let (name, at) = (view.info.name.clone(), (view.info.file_offset + view.info.size - 32) as usize);
    let place = format!("`{name}` at byte {}", view.info.file_offset);
    drop(file);
    let mut bytes = std::fs::read(&parts[1]).unwrap();
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&parts[1], bytes).unwrap();
    let infer = ["infer", "--prompt", "a", "--max-tokens", "1", "--model", text(&parts[0])];
    run(&infer).fails_with(&[&format!("{}: tensor {place}", text(&parts[1]))]);

    std::fs::remove_file(&parts[2]).unwrap();
    run(&infer).fails_with(&[text(&parts[2]), "part 3 of the 3", "put the parts of one model into one folder"]);
}
