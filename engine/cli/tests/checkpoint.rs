//! `bitnet convert FOLDER`: what a person sees. What the GGUF computes is shown by the harness (`--test checkpoints`).

mod support;

use bitnet_engine::gguf::GgufFile;
use support::*;

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
