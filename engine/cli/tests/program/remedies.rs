//! Messages about models that are not here or not GGUFs: each command that they print is run, and must do what it promises.

use crate::support::*;
use bitnet_mock_hub::{Fault, MockHub, Repo, Storage};
use std::path::{Path, PathBuf};

fn model() -> Vec<u8> {
    std::fs::read(tiny()).unwrap()
}

fn ck() -> Repo {
    let made = tempfile::tempdir().unwrap();
    crate::support::checkpoint(made.path(), None);
    let file = |name: &str| std::fs::read(made.path().join(name)).unwrap();
    Repo::new("o/ck")
        .file("config.json", file("config.json"), Storage::Git)
        .file("model.safetensors", file("model.safetensors"), Storage::Lfs)
        .file("README.md", "no", Storage::Git)
}

/// A machine of its own: home, caches, working folder and the hub.
struct Machine {
    hub: MockHub,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let tiny = Repo::new("o/tiny").file("m-i2_s.gguf", model(), Storage::Lfs);
        let multi =
            Repo::new("o/multi").file("m-i2_s.gguf", model(), Storage::Lfs).file("m-f16.gguf", model(), Storage::Lfs);
        let hub = MockHub::builder().repo(tiny).repo(multi).repo(ck()).start().unwrap();
        Self { hub, dir: tempfile::tempdir().unwrap() }
    }

    fn env(&self, env: &[(&str, &str)], args: &[&str]) -> Run {
        let mut command = bitnet(args);
        command
            .current_dir(self.dir.path())
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("BITNET_TOKENIZER_CACHE", self.dir.path().join("ours"))
            .env("HOME", self.dir.path().join("home"))
            .env("NO_PROXY", "*")
            .envs(env.iter().copied());
        finish(&mut command)
    }

    fn run(&self, args: &str) -> Run {
        self.env(&[], &args.split(' ').collect::<Vec<_>>())
    }

    /// Runs the last command that a message holds. What may not be ternary is made f16.
    #[track_caller]
    fn remedy(&self, said: &str) -> Run {
        let command = said.rsplit("bitnet ").next().unwrap().lines().next().unwrap();
        let command = command.split(" (--to").next().unwrap().split(['`', ';', ')']).next().unwrap().trim();
        self.run(&command.replace("i2_s -o FILE", "f16 -o made.gguf").replace('\'', ""))
    }

    fn made(&self) -> bool {
        std::fs::remove_file(self.dir.path().join("made.gguf")).is_ok()
    }

    fn home(&self, repo: &str) -> PathBuf {
        self.dir.path().join("home/.cache/huggingface/hub").join(format!("models--{}", repo.replace('/', "--")))
    }

    fn commit(&self, repo: &str) -> String {
        std::fs::read_to_string(self.home(repo).join("refs/main")).unwrap()
    }

    fn forget(&self) {
        for folder in ["home", "ours"] {
            let _ = std::fs::remove_dir_all(self.dir.path().join(folder));
        }
    }
}

const ASK: &str = "tokenize --text beginning --model";

#[test]
fn a_checkpoint_is_converted_by_what_the_messages_say() {
    let m = Machine::new();
    // Not here: the download that is named makes the same command work.
    let convert = "convert hf:o/ck --to f16 -o made.gguf";
    let refused = m.run(convert).fails_with(&["hf:o/ck is not in the cache", "--auto-download"]);
    let got = m.remedy(&refused.err).ok();
    assert!(got.out.contains("model.safetensors\t") && got.err.contains("there is no GGUF"), "{}{}", got.out, got.err);
    m.remedy(&got.err).ok();
    assert!(m.made());
    m.run(convert).ok();
    assert!(m.made());
    // It is here, and is not a GGUF: with and without leave to fetch, online and offline.
    for more in ["", " --auto-download", " --offline"] {
        let said = m.run(&format!("{ASK} hf:o/ck{more}")).fails_with(&["checkpoint", "bitnet convert hf:o/ck"]);
        m.remedy(&said.err).ok();
        assert!(m.made(), "{more}");
    }
    // It is not here either.
    m.forget();
    let said = m.run(&format!("{ASK} hf:o/ck --auto-download")).fails_with(&["its GGUF files: none", "bitnet convert"]);
    m.remedy(&said.err).ok();
    assert!(m.made());
}

#[test]
fn another_tools_checkpoint_is_found() {
    let m = Machine::new();
    m.run("download hf:o/ck").ok();
    std::fs::remove_dir_all(m.dir.path().join("ours")).unwrap();
    m.hub.log().clear();
    for more in ["", " --offline", " --auto-download"] {
        m.run(&format!("convert hf:o/ck --to f16 -o made.gguf{more}")).ok();
        assert!(m.made() && m.hub.log().is_empty(), "{:?}", m.hub.log().entries());
    }
    m.env(&[("BITNET_OFFLINE", "1")], &["download", "hf:o/ck"]).ok();
    // A part that its index names is missing, or a file is damaged: then it is not here.
    let snapshot = m.home("o/ck").join("snapshots").join(ck().head());
    let index = snapshot.join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"a": "model-00002-of-00002.safetensors"}}"#).unwrap();
    m.run("convert hf:o/ck --to f16 -o made.gguf").fails_with(&["not in the cache"]);
    std::fs::remove_file(index).unwrap();
    let blob = std::fs::canonicalize(snapshot.join("model.safetensors")).unwrap();
    std::fs::write(blob, "cut").unwrap();
    let said = m.run("convert hf:o/ck --to f16 -o made.gguf").fails_with(&["not in the cache"]);
    let repaired = m.remedy(&said.err).ok();
    assert_eq!(repaired.err.matches("is damaged").count(), 1, "{}", repaired.err);
    m.run("convert hf:o/ck --to f16 -o made.gguf").ok();
}

#[test]
fn a_path_that_is_no_gguf_says_what_makes_one() {
    let m = Machine::new();
    let folder = m.dir.path().join("a folder");
    std::fs::create_dir_all(&folder).unwrap();
    crate::support::checkpoint(&folder, None);
    let file = folder.join("model.safetensors");
    for args in
        [[&["tokenize", "--text", "a", "--model", text(&folder)][..], &[]].concat(), vec!["inspect", text(&file)]]
    {
        m.env(&[], &args).fails_with(&["a GGUF is made by: bitnet convert '", "a folder' --to i2_s -o FILE"]);
    }
    m.env(&[], &["convert", text(&file), "--to", "f16", "-o", "made.gguf"]).fails_with(&["give its folder, "]);
    m.env(&[], &["convert", text(&folder), "--to", "f16", "-o", "made.gguf"]).ok();
    // A folder that has a repository's name.
    std::fs::create_dir_all(m.dir.path().join("o/tiny")).unwrap();
    m.run(&format!("{ASK} o/tiny --auto-download")).fails_with(&["this is a directory", "is hf:o/tiny"]);
    m.run(&format!("{ASK} hf:o/tiny --auto-download")).ok();
}

#[test]
fn revisions_and_tokenizers_that_are_not_there() {
    let m = Machine::new();
    for model in ["hf:o/tiny@nobranch", "hf:o/tiny@nobranch:i2_s"] {
        let said = m.run(&format!("{ASK} {model} --auto-download")).fails_with(&["no revision `nobranch`"]);
        let right = said.err.rsplit("as in ").next().unwrap().trim();
        assert_eq!(right, model.replace("nobranch", "main"));
        m.run(&format!("{ASK} {right} --auto-download")).ok();
    }
    m.run("convert hf:o/ck@no --auto-download --to f16 -o made.gguf").fails_with(&["as in hf:o/ck@main"]);
    m.run("download o/ck --file config.json --revision no").fails_with(&["as in --revision main"]);
    let said = m.run("download o/tiny").fails_with(&["none of tokenizer.json", "fetch its model (bitnet download"]);
    let command = said.err.split("fetch its model (").nth(1).unwrap().split(')').next().unwrap();
    assert_eq!(command, "bitnet download hf:o/tiny");
    m.remedy(command).ok();
    // Offline, files by a pattern.
    let said = m.env(&[("BITNET_OFFLINE", "1")], &["download", "o/ck", "--file", "*"]).fails_with(&["--files '*'"]);
    m.remedy(&said.err).ok();
}

#[test]
fn a_damaged_model_is_fetched_again() {
    let m = Machine::new();
    let right = m.run(&format!("{ASK} hf:o/tiny --auto-download")).ok().out;
    let blob = m.home("o/tiny").join("blobs").join(bitnet_mock_hub::sha256_hex(&model()));
    for cut in [0, 3, 100_000] {
        let spoil = || std::fs::write(&blob, &model()[..cut]).unwrap();
        spoil();
        let said =
            m.run(&format!("{ASK} hf:o/tiny")).fails_with(&["what fetches it again: bitnet download hf:o/tiny@"]);
        let repaired = m.remedy(&said.err).ok();
        assert_eq!(repaired.err.matches("is damaged").count(), 1, "{}", repaired.err);
        assert_eq!(m.run(&format!("{ASK} hf:o/tiny")).ok().out, right);
        spoil();
        m.run(&format!("{ASK} hf:o/tiny --offline --auto-download"))
            .fails_with(&["offline", "bitnet download hf:o/tiny@"]);
        assert_eq!(m.run(&format!("{ASK} hf:o/tiny --auto-download")).ok().out, right);
    }
    // The hub is down: it stays damaged, and the command that fixes it is said.
    std::fs::write(&blob, "").unwrap();
    m.hub.fault(Fault::Refuse.always());
    let args = format!("{ASK} hf:o/tiny --auto-download");
    let down = m.env(&[("BITNET_DOWNLOAD_TIMEOUT", "1")], &args.split(' ').collect::<Vec<_>>());
    let said = down.fails_with(&["the file is empty", "(what fetches it again: bitnet download hf:o/tiny@"]);
    m.hub.heal();
    let command = said.err.split("(what fetches it again: ").nth(1).unwrap().split(')').next().unwrap();
    m.remedy(command).ok();
    assert_eq!(m.run(&format!("{ASK} hf:o/tiny")).ok().out, right);
}

#[test]
fn what_the_cache_has_is_not_all_that_there_is() {
    let m = Machine::new();
    m.run("download hf:o/multi:f16").ok();
    for known in [true, false] {
        if !known {
            std::fs::remove_dir_all(m.dir.path().join("ours")).unwrap();
        }
        let said = m.run(&format!("{ASK} hf:o/multi --auto-download")).ok();
        assert!(said.err.contains("of those in the cache f16 comes first; the first of all"), "{}", said.err);
    }
    let said = m.run(&format!("{ASK} hf:o/multi")).ok();
    m.remedy(&said.err).ok();
    let said = m.run(&format!("{ASK} hf:o/multi")).ok();
    assert!(said.err.contains("(i2_s comes first") && !said.err.contains("in the cache"), "{}", said.err);
}

#[test]
fn files_of_the_same_contents_come_once_and_silently() {
    let m = Machine::new();
    let got = m.run("download o/multi --file *.gguf").ok();
    assert!(!got.err.contains("waiting") && got.err.contains("1 downloaded"), "{}", got.err);
    let file = |name: &str| m.home("o/multi").join("snapshots").join(m.commit("o/multi")).join(name);
    assert!(file("m-i2_s.gguf").is_file() && file("m-f16.gguf").is_file());
}

#[test]
fn a_list_that_is_refused_is_not_kept() {
    let m = Machine::new();
    let lists = |dir: &Path| std::fs::read_dir(dir.join("ours/lists/o--odd")).map_or(0, Iterator::count);
    m.hub.put(Repo::new("o/odd").file("../m-i2_s.gguf", model(), Storage::Lfs));
    m.run(&format!("{ASK} hf:o/odd --auto-download")).fails_with(&["../m-i2_s.gguf", "path"]);
    assert_eq!(lists(m.dir.path()), 0);
    m.hub.put(Repo::new("o/odd").file("m-i2_s.gguf", model(), Storage::Lfs));
    m.run(&format!("{ASK} hf:o/odd --auto-download")).ok();
    assert_eq!(lists(m.dir.path()), 1);
}
