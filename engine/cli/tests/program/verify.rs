//! `bitnet verify`: a sound model, and what is wrong with others, at the right line.

use crate::support::{Run, run, text};
use bitnet_engine::gguf::GgufFile;
use std::path::Path;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/tiny-bitnet.gguf");

/// What the report says: each step with its mark.
fn marks(run: &Run) -> Vec<(String, String)> {
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        words.next().zip(words.next())
    };
    let marks: Vec<_> = run.out.lines().filter_map(words).collect();
    let steps: Vec<&str> = marks.iter().map(|(_, step)| step.as_str()).collect();
    assert_eq!(steps, ["container", "tokenizer", "weights", "digest", "prediction"], "{}", run.out);
    marks
}

/// The first step that is not right, by its name, with the marks of those after it.
#[track_caller]
fn fails_at(run: &Run, step: &str, words: &str) {
    let marks = marks(run);
    let at = marks.iter().position(|(_, name)| name == step).unwrap();
    for (i, (mark, _)) in marks.iter().enumerate() {
        assert_eq!(
            mark,
            if i < at {
                "ok"
            } else if i == at {
                "FAILED"
            } else {
                "-"
            },
            "{}",
            run.out
        );
    }
    assert!(run.out.lines().nth(at).unwrap().contains(words), "no `{words}`: {}", run.out);
}

#[test]
fn a_sound_model_has_five_lines() {
    for set in ["scalar", ""] {
        let against = if set.is_empty() { vec![] } else { vec!["--against", set] };
        let shown = run(&[&["verify", "--model", TINY, "--tokens", "40"][..], &against].concat()).ok();
        assert!(marks(&shown).iter().all(|(mark, _)| mark == "ok"), "{}", shown.out);
        assert!(shown.out.contains("40 tokens: ") && shown.out.contains(set), "{}", shown.out);
    }
    let json = run(&["verify", "--format", "json"]).ok().json();
    assert!(json.as_array().unwrap().iter().all(|line| line["ok"] == true), "{json}");
    run(&["verify", "--against", "nonsense"]).fails_with(&["nonsense"]);
}

#[test]
fn what_is_wrong_is_named_at_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(TINY).unwrap();
    let file = GgufFile::open(Path::new(TINY)).unwrap();
    let verify = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        run(&["verify", "--model", text(&path)]).code(1)
    };
    fails_at(&verify("cut.gguf", &bytes[..bytes.len() / 2]), "container", "cut.gguf");

    let at = |name: &str| {
        let data = file.views().find(|view| view.info.name == name).expect(name).data;
        bytes.windows(64).position(|window| window == &data[..64]).expect(name)
    };
    // Code 3 of I2_S means nothing.
    let mut damaged = bytes.clone();
    damaged[at("blk.1.ffn_up.weight") + 5] = 0xff;
    fails_at(&verify("code.gguf", &damaged), "weights", "blk.1.ffn_up.weight");

    let tokens = bytes.windows(21).position(|w| w == b"tokenizer.ggml.tokens").unwrap();
    let mut renamed = bytes.clone();
    renamed[tokens + 20] = b'z';
    fails_at(&verify("tokens.gguf", &renamed), "tokenizer", "tokenizer");

    // Weights that are valid and not those of the model: all rows of a matrix alike.
    let mut noise = bytes.clone();
    for block in 0..4 {
        for part in ["attn_v", "ffn_down"] {
            let name = format!("blk.{block}.{part}.weight");
            let len = file.views().find(|view| view.info.name == name).expect("a matrix").data.len();
            // Its scale is at the end.
            noise[at(&name)..][..len - 32].fill(0b0010_1010);
        }
    }
    fails_at(&verify("noise.gguf", &noise), "prediction", "not those of a trained model");
}
