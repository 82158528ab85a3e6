//! Messages about models that are not here or not GGUFs: each command that they print is run, and must do what it promises.

use crate::support::*;
use bitnet_mock_hub::{Fault, Repo, Storage};
use std::path::Path;

fn machine() -> Machine {
    let tiny = Repo::new("o/tiny").file("m-i2_s.gguf", model(), Storage::Lfs);
    let multi =
        Repo::new("o/multi").file("m-i2_s.gguf", model(), Storage::Lfs).file("m-f16.gguf", model(), Storage::Lfs);
    Machine::with([tiny, multi, checkpoint_repo("o/ck")])
}

/// Runs the last command that a message holds. What may not be ternary is made f16.
#[track_caller]
fn remedy(m: &Machine, said: &str) -> Run {
    let command = said.rsplit("bitnet ").next().unwrap().lines().next().unwrap();
    let command = command.split(" (--to").next().unwrap().split(['`', ';', ')']).next().unwrap().trim();
    m.line(&command.replace("i2_s -o FILE", "f16 -o made.gguf").replace('\'', ""))
}

fn made(m: &Machine) -> bool {
    std::fs::remove_file(m.path("made.gguf")).is_ok()
}

const ASK: &str = "tokenize --text beginning --model";

#[test]
fn a_checkpoint_is_converted_by_what_the_messages_say() {
    let m = machine();
    // Not here: the download that is named makes the same command work.
    let convert = "convert hf:o/ck --to f16 -o made.gguf";
    let refused = m.line(convert).fails_with(&["hf:o/ck is not in the cache", "--auto-download"]);
    let got = remedy(&m, &refused.err).ok();
    assert!(got.out.contains("model.safetensors\t") && got.err.contains("there is no GGUF"), "{}{}", got.out, got.err);
    remedy(&m, &got.err).ok();
    assert!(made(&m));
    m.line(convert).ok();
    assert!(made(&m));
    // It is here, and is not a GGUF: with and without leave to fetch, online and offline.
    for more in ["", " --auto-download", " --offline"] {
        let said = m.line(&format!("{ASK} hf:o/ck{more}")).fails_with(&["checkpoint", "bitnet convert hf:o/ck"]);
        remedy(&m, &said.err).ok();
        assert!(made(&m), "{more}");
    }
    // It is not here either.
    m.forget();
    let said =
        m.line(&format!("{ASK} hf:o/ck --auto-download")).fails_with(&["its GGUF files: none", "bitnet convert"]);
    remedy(&m, &said.err).ok();
    assert!(made(&m));
}

#[test]
fn another_tools_checkpoint_is_found() {
    let m = machine();
    m.line("download hf:o/ck").ok();
    std::fs::remove_dir_all(m.path("cache")).unwrap();
    m.hub.log().clear();
    for more in ["", " --offline", " --auto-download"] {
        m.line(&format!("convert hf:o/ck --to f16 -o made.gguf{more}")).ok();
        assert!(made(&m) && m.hub.log().is_empty(), "{:?}", m.hub.log().entries());
    }
    m.run_env(&[("BITNET_OFFLINE", "1")], &["download", "hf:o/ck"]).ok();
    // A part that its index names is missing, or a file is damaged: then it is not here.
    let snapshot = m.home("o/ck").join("snapshots").join(checkpoint_repo("o/ck").head());
    let index = snapshot.join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"a": "model-00002-of-00002.safetensors"}}"#).unwrap();
    m.line("convert hf:o/ck --to f16 -o made.gguf").fails_with(&["not in the cache"]);
    std::fs::remove_file(index).unwrap();
    let blob = std::fs::canonicalize(snapshot.join("model.safetensors")).unwrap();
    std::fs::write(blob, "cut").unwrap();
    let said = m.line("convert hf:o/ck --to f16 -o made.gguf").fails_with(&["not in the cache"]);
    let repaired = remedy(&m, &said.err).ok();
    assert_eq!(repaired.err.matches("is damaged").count(), 1, "{}", repaired.err);
    m.line("convert hf:o/ck --to f16 -o made.gguf").ok();
}

#[test]
fn a_path_that_is_no_gguf_says_what_makes_one() {
    let m = machine();
    let folder = m.path("a folder");
    std::fs::create_dir_all(&folder).unwrap();
    crate::support::checkpoint(&folder, None);
    let file = folder.join("model.safetensors");
    for args in
        [[&["tokenize", "--text", "a", "--model", text(&folder)][..], &[]].concat(), vec!["inspect", text(&file)]]
    {
        m.run(&args).fails_with(&["a GGUF is made by: bitnet convert '", "a folder' --to i2_s -o FILE"]);
    }
    m.run(&["convert", text(&file), "--to", "f16", "-o", "made.gguf"]).fails_with(&["give its folder, "]);
    m.run(&["convert", text(&folder), "--to", "f16", "-o", "made.gguf"]).ok();
    // A folder that has a repository's name.
    std::fs::create_dir_all(m.path("o/tiny")).unwrap();
    m.line(&format!("{ASK} o/tiny --auto-download")).fails_with(&["this is a directory", "is hf:o/tiny"]);
    m.line(&format!("{ASK} hf:o/tiny --auto-download")).ok();
}

#[test]
fn revisions_and_tokenizers_that_are_not_there() {
    let m = machine();
    for model in ["hf:o/tiny@nobranch", "hf:o/tiny@nobranch:i2_s"] {
        let said = m.line(&format!("{ASK} {model} --auto-download")).fails_with(&["no revision `nobranch`"]);
        let right = said.err.rsplit("as in ").next().unwrap().trim();
        assert_eq!(right, model.replace("nobranch", "main"));
        m.line(&format!("{ASK} {right} --auto-download")).ok();
    }
    m.line("convert hf:o/ck@no --auto-download --to f16 -o made.gguf").fails_with(&["as in hf:o/ck@main"]);
    m.line("download o/ck --file config.json --revision no").fails_with(&["as in --revision main"]);
    let said = m.line("download o/tiny").fails_with(&["none of tokenizer.json", "fetch its model (bitnet download"]);
    let command = said.err.split("fetch its model (").nth(1).unwrap().split(')').next().unwrap();
    assert_eq!(command, "bitnet download hf:o/tiny");
    remedy(&m, command).ok();
    // Offline, files by a pattern.
    let said = m.run_env(&[("BITNET_OFFLINE", "1")], &["download", "o/ck", "--file", "*"]).fails_with(&["--file '*'"]);
    remedy(&m, &said.err).ok();
    // What is shown is the pattern that was given.
    m.run_env(&[("BITNET_OFFLINE", "1")], &["download", "o/none", "--file", "["])
        .fails_with(&["of [ of", "--file '['"]);
    // Offline nobody knows what a repository has.
    let said = m.run_env(&[("BITNET_OFFLINE", "1")], &["download", "o/none"]);
    let said = said.fails_with(&["tokenizer.json", "is in a cache", "was not asked", "offline"]);
    assert!(!said.err.contains("there is none"), "{}", said.err);
}

#[test]
fn a_damaged_model_is_fetched_again() {
    let m = machine();
    let right = m.line(&format!("{ASK} hf:o/tiny --auto-download")).ok().out;
    let blob = m.home("o/tiny").join("blobs").join(bitnet_mock_hub::sha256_hex(&model()));
    for cut in [0, 3, 100_000] {
        let spoil = || std::fs::write(&blob, &model()[..cut]).unwrap();
        spoil();
        let said =
            m.line(&format!("{ASK} hf:o/tiny")).fails_with(&["what fetches it again: bitnet download hf:o/tiny@"]);
        let repaired = remedy(&m, &said.err).ok();
        assert_eq!(repaired.err.matches("is damaged").count(), 1, "{}", repaired.err);
        assert_eq!(m.line(&format!("{ASK} hf:o/tiny")).ok().out, right);
        spoil();
        m.line(&format!("{ASK} hf:o/tiny --offline --auto-download"))
            .fails_with(&["offline", "bitnet download hf:o/tiny@"]);
        assert_eq!(m.line(&format!("{ASK} hf:o/tiny --auto-download")).ok().out, right);
    }
    // The hub is down: it stays damaged, and the command that fixes it is said.
    std::fs::write(&blob, "").unwrap();
    m.hub.fault(Fault::Refuse.always());
    let args = format!("{ASK} hf:o/tiny --auto-download");
    let down = m.run_env(&[("BITNET_DOWNLOAD_TIMEOUT", "1")], &words(&args));
    let said = down.fails_with(&["the file is empty", "(what fetches it again: bitnet download hf:o/tiny@"]);
    m.hub.heal();
    let command = said.err.split("(what fetches it again: ").nth(1).unwrap().split(')').next().unwrap();
    remedy(&m, command).ok();
    assert_eq!(m.line(&format!("{ASK} hf:o/tiny")).ok().out, right);
}

#[test]
fn what_the_cache_has_is_not_all_that_there_is() {
    let m = machine();
    m.line("download hf:o/multi:f16").ok();
    for known in [true, false] {
        if !known {
            std::fs::remove_dir_all(m.path("cache")).unwrap();
        }
        let said = m.line(&format!("{ASK} hf:o/multi --auto-download")).ok();
        assert!(said.err.contains("of those in the cache f16 comes first; the first of all"), "{}", said.err);
    }
    let said = m.line(&format!("{ASK} hf:o/multi")).ok();
    remedy(&m, &said.err).ok();
    let said = m.line(&format!("{ASK} hf:o/multi")).ok();
    assert!(said.err.contains("(i2_s comes first") && !said.err.contains("in the cache"), "{}", said.err);
}

#[test]
fn files_of_the_same_contents_come_once_and_silently() {
    let m = machine();
    let got = m.line("download o/multi --file *.gguf").ok();
    assert!(!got.err.contains("waiting") && got.err.contains("1 downloaded"), "{}", got.err);
    let file = |name: &str| m.home("o/multi").join("snapshots").join(m.commit("o/multi")).join(name);
    assert!(file("m-i2_s.gguf").is_file() && file("m-f16.gguf").is_file());
}

#[test]
fn a_list_that_is_refused_is_not_kept() {
    let m = machine();
    let lists = |dir: &Path| std::fs::read_dir(dir.join("cache/lists/o--odd")).map_or(0, Iterator::count);
    m.hub.put(Repo::new("o/odd").file("../m-i2_s.gguf", model(), Storage::Lfs));
    m.line(&format!("{ASK} hf:o/odd --auto-download")).fails_with(&["../m-i2_s.gguf", "path"]);
    assert_eq!(lists(m.dir.path()), 0);
    m.hub.put(Repo::new("o/odd").file("m-i2_s.gguf", model(), Storage::Lfs));
    m.line(&format!("{ASK} hf:o/odd --auto-download")).ok();
    assert_eq!(lists(m.dir.path()), 1);
}
