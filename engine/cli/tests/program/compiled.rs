//! Compiled tokenizers from the command line: written, named, kept, and off.

use crate::support::*;
use std::path::Path;

const TEXT: &str = "Let there be light, and there was light.\n\t42 <|endoftext|>";

/// The tiny model, where it may have something beside it.
fn model(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("model.gguf");
    std::fs::copy(tiny(), &path).unwrap();
    path
}

#[test]
fn a_compiled_tokenizer_is_named_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (model(dir.path()), dir.path().join("tiny.tokenizer"));
    let said = run(&["tokenizer", "compile", text(&model), "-o", text(&file)]).ok().err;
    assert!(said.contains("tiny.tokenizer: bpe, pre-tokenizer gpt-2"), "{said}");
    let ids = |more: &[&str]| run(&[&["tokenize", "--model", text(&model), "--text", TEXT], more].concat()).ok().out;
    assert_eq!(ids(&["--tokenizer", text(&file)]), ids(&[]));
    // From a compiled one as well.
    let again = dir.path().join("again");
    run(&["tokenizer", "compile", text(&file), "-o", text(&again)]).ok();
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&file).unwrap());

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&again, &bytes).unwrap();
    let args = ["tokenize", "--model", text(&model), "--text", TEXT, "--tokenizer", text(&again)];
    run(&args).fails_with(&["again", "checksum", "bitnet tokenizer compile"]);
    run(&["tokenizer", "compile", text(&model), "-o", text(&model)]).fails_with(&["is the input itself"]);
    run(&["tokenizer", "compile", text(dir.path()), "-o", text(&again)]).fails_with(&["no tokenizer file"]);
    let nowhere = dir.path().join("file/new");
    std::fs::write(dir.path().join("file"), "").unwrap();
    run(&["tokenizer", "compile", text(&model), "-o", text(&nowhere)]).fails_with(&["cannot write", "-o"]);
    let missing = dir.path().join("missing");
    run(&["tokenizer", "compile", text(&model), "-o", text(&missing.join("new"))]).fails_with(&[text(&missing)]);
    assert!(!missing.exists(), "no folder is made");
}

/// To open a pipe would wait for the other side.
#[cfg(unix)]
#[test]
fn pipes_are_neither_replaced_nor_read() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tempfile::tempdir().unwrap();
    let (model, pipe, link, file) =
        (model(dir.path()), dir.path().join("pipe"), dir.path().join("link"), dir.path().join("file"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&["tokenizer", "compile", text(&model), "-o", text(&pipe)]).fails_with(&[text(&pipe), "not a regular file"]);
    let named = ["tokenize", "--model", text(&model), "--text", TEXT, "--tokenizer", text(&pipe)];
    run(&named).fails_with(&[text(&pipe), "not a regular file"]);
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    run(&["tokenizer", "compile", text(&model), "-o", text(&link)]).ok();
    assert!(link.is_symlink() && std::fs::read(&file).unwrap().starts_with(b"\x89BNTOK"));
}

#[test]
fn commands_keep_what_they_build_unless_that_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cache) = (model(dir.path()), dir.path().join("cache"));
    let tokenize = ["tokenize", "-v", "--model", text(&model), "--text", TEXT];
    let with = |value: &str, args: &[&str]| run_env(&[("BITNET_COMPILED_TOKENIZERS", value)], args).ok();
    let built = with("off", &tokenize);
    assert!(!cache.exists() && !built.err.contains("tokenizer_compiled"), "{}", built.err);
    let first = with(text(&cache), &tokenize);
    let second = with(text(&cache), &tokenize);
    assert!(!first.err.contains("tokenizer_compiled"), "{}", first.err);
    assert!(second.err.contains("tokenizer_compiled"), "{}", second.err);
    assert_eq!((&first.out, &second.out), (&built.out, &built.out));
    let inspected = with(text(&cache), &["inspect", text(&model), "--format", "json"]).json();
    assert!(inspected["tokenizer"].to_string().contains("tokenizer_compiled"), "{inspected}");
    // Where there is no other place, in the user's folder of caches.
    let folder = dir.path().join("user");
    run_env(&[("XDG_CACHE_HOME", text(&folder)), ("BITNET_COMPILED_TOKENIZERS", "")], &tokenize).ok();
    let kept = if cfg!(target_os = "linux") { folder.join("bitnet/compiled") } else { cache };
    assert!(kept.read_dir().unwrap().flatten().any(|e| e.path().extension().is_some_and(|end| end == "tokenizer")));
}

/// A model that has not changed for two seconds is known without a look at its lists.
#[cfg(unix)]
#[test]
fn discovery_says_what_was_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cache) = (model(dir.path()), dir.path().join("cache"));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let env = [("BITNET_COMPILED_TOKENIZERS", text(&cache))];
    let discover = ["discover", text(&model)];
    assert!(!run_env(&env, &discover).ok().out.contains("compiled before"));
    run_env(&env, &["tokenize", "--model", text(&model), "--text", "a"]).ok();
    let said = run_env(&env, &discover).ok().out;
    assert!(said.contains("compiled before"), "{said}");
}
