//! `bitnet convert FOLDER`: what a person sees. What the GGUF computes is shown by the harness (`--test suite`).

use crate::support::*;
use bitnet_engine::gguf::GgufFile;

#[test]
fn a_folder_becomes_a_model() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), None);
    let out = dir.path().join("model.gguf");
    let said = run(&["convert", text(dir.path()), "--to", "q8_0", "--verify", "-o", text(&out)]).ok();
    assert_eq!(said.out, "");
    for words in [
        "no tokenizer file",
        "tokenizer.json into the folder",
        "the logits are those of the checkpoint: 12 positions",
        "q8_0 of architecture llama, 7 tensors converted, 4 copied",
    ] {
        assert!(said.err.contains(words), "no `{words}` in: {}", said.err);
    }
    let file = GgufFile::open(&out).unwrap();
    let ty = |name: &str| file.type_name(file.tensor(name).unwrap().info);
    assert_eq!((ty("blk.0.attn_q.weight"), ty("token_embd.weight")), ("q8_0", "f16"));
    assert_eq!(file.metadata().u32("general.file_type").unwrap(), Some(7));
    assert!(run(&["inspect", text(&out)]).ok().out.contains("llama"));
}

#[test]
fn no_file_of_the_folder_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), None);
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    std::fs::write(dir.path().join("1_Pooling/notes"), "x").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let second = elsewhere.path().join("second");
    std::fs::hard_link(dir.path().join("model.safetensors"), &second).unwrap();
    let inside = ["model.safetensors", "config.json", "1_Pooling/notes"].map(|name| dir.path().join(name));
    for output in inside.iter().chain([&second]) {
        let before = std::fs::read(output).unwrap();
        run(&["convert", text(dir.path()), "--to", "f16", "-o", text(output)]).fails_with(&["never overwritten"]);
        assert_eq!(std::fs::read(output).unwrap(), before, "{}", output.display());
    }
    // A GGUF in the folder is not of the checkpoint, and an index beside the whole is not read.
    std::fs::write(dir.path().join("model.safetensors.index.json"), "{}").unwrap();
    let own = dir.path().join("model.gguf");
    for _ in 0..2 {
        let said = run(&["convert", text(dir.path()), "--to", "f16", "-o", text(&own)]).ok();
        for name in ["model.safetensors ", "model.safetensors.index.json"] {
            assert!(said.err.contains(name), "{}", said.err);
        }
    }
}

#[test]
fn what_a_folder_is_not() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), None);
    let (folder, out) = (text(dir.path()), dir.path().join("model.gguf"));
    let convert = |more: &[&str]| {
        let args = [&["convert", folder, "-o", text(&out)], more].concat();
        run(&args)
    };
    convert(&["--embedding", "f16"]).fails_with(&["is a folder", "--to"]);
    convert(&["--to", "f16", "--set", "general.name=x"]).fails_with(&["is a folder", "--set"]);
    convert(&["--to", "f16", "--split-max-tensors", "3"]).fails_with(&["is a folder", "--split-max-tensors"]);
    convert(&["--to", "i2_s"]).fails_with(&["blk.0.attn_q.weight", "i2_s"]);
    run(&["convert", text(&tiny()), "--to", "f16", "--verify", "-o", text(&out)])
        .fails_with(&["--verify", "not a folder"]);
    assert!(!out.exists());

    // What a file is called there does not reach the terminal as it is.
    checkpoint(dir.path(), Some("model.\u{1b}]0;title\u{7}.weight"));
    let said = convert(&["--to", "f16"]).fails_with(&["\\u{1b}]0;title\\u{7}"]);
    assert!(!said.err.contains('\u{1b}') && !out.exists(), "{}", said.err);
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    convert(&["--to", "f16"]).fails_with(&["config.json"]);
}

/// A named pipe would wait for its writer: the one file that must be there is refused, others are as if they were not there.
#[cfg(unix)]
#[test]
fn pipes_of_a_folder_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), None);
    let out = dir.path().join("model.gguf");
    let pipe = |name: &str| {
        let path = dir.path().join(name);
        let _absent = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    };
    let convert = || run(&["convert", text(dir.path()), "--to", "f16", "-o", text(&out)]);
    for name in ["generation_config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"] {
        pipe(name);
    }
    convert().ok();
    std::fs::remove_file(&out).unwrap();
    pipe("config.json");
    convert().fails_with(&["config.json", "not a regular file"]);
    assert!(!out.exists());
}
