//! `bitnet download` and `bitnet cache`, against a hub in this process.

use crate::support::*;
use bitnet_mock_hub::{Repo, Storage};
use std::path::Path;

const REPO: &str = "org/name";
const TOKENIZER: &str = "{\"model\": {\"type\": \"BPE\"}}";
const CONFIG: &str = "{\"add_bos_token\": true}";

fn machine() -> Machine {
    let repo = Repo::new(REPO)
        .file("tokenizer.json", TOKENIZER.repeat(500), Storage::Lfs)
        .file("tokenizer_config.json", CONFIG, Storage::Git)
        .file("sub/extra.bin", vec![7u8; 5000], Storage::Xet)
        .file_at("dev", "tokenizer.json", "{}", Storage::Git);
    Machine::with([repo, Repo::new("org/bare").file("readme.md", "nothing here", Storage::Git)])
}

#[test]
fn once_downloaded_never_fetched_again() {
    let m = machine();
    let out = m.path("out");
    let args = ["download", REPO, "--to", text(&out)];
    let first = m.run(&args).ok();
    assert_eq!(first.out.lines().count(), 2, "what there is of a tokenizer: {}", first.out);
    assert!(first.out.contains("tokenizer.json\t13000 bytes\t"), "{}", first.out);
    assert!(first.err.contains("2 downloaded"), "{}", first.err);
    assert_eq!(std::fs::read_to_string(out.join("tokenizer.json")).unwrap(), TOKENIZER.repeat(500));
    assert_eq!(std::fs::read_to_string(out.join("tokenizer_config.json")).unwrap(), CONFIG);
    assert!(m.hub.log().count(|e| e.method == "GET") >= 2);

    m.hub.log().clear();
    std::fs::remove_dir_all(&out).unwrap();
    let second = m.run(&[&args[..], &["--format", "json"]].concat()).ok();
    assert_eq!(m.hub.log().count(|e| e.method != "HEAD"), 0, "{:?}", m.hub.log().entries());
    let report = second.json();
    assert_eq!(report["metrics"]["downloads"], 0);
    assert_eq!(report["metrics"]["bytes"], 0);
    assert_eq!(report["files"][0]["source"], "cache");
    assert_eq!(report["files"][1]["path"], "tokenizer_config.json");
    assert_eq!(report["commit"].as_str().unwrap().len(), 40);
    assert_eq!(std::fs::read_to_string(out.join("tokenizer.json")).unwrap(), TOKENIZER.repeat(500));

    let offline = m.silent(&[], &["download", REPO, "--offline", "--format", "json"]).ok();
    assert_eq!(m.silent(&[("BITNET_OFFLINE", "1")], &["download", REPO, "--format", "json"]).ok().out, offline.out);
    let report = offline.json();
    assert_eq!(report["metrics"]["requests"], 0);
    assert_eq!(report["files"].as_array().unwrap().len(), 2);
    assert!(Path::new(report["files"][0]["file"].as_str().unwrap()).is_file());
}

/// Files that the user named are written as everywhere: through a link, and never in the place of what is not a file.
#[cfg(unix)]
#[test]
fn links_and_pipes_of_a_folder_stay() {
    let m = machine();
    let (out, file) = (m.path("out"), m.path("file"));
    std::fs::create_dir(&out).unwrap();
    let [link, pipe] = ["tokenizer.json", "tokenizer_config.json"].map(|name| out.join(name));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    m.run(&["download", REPO, "--to", text(&out)]).fails_with(&[text(&pipe), "a special file"]);
    assert!(link.is_symlink() && !pipe.is_file(), "{:?}", std::fs::metadata(&pipe));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), TOKENIZER.repeat(500));
}

#[test]
fn named_files_and_revisions() {
    let m = machine();
    let out = m.path("out");
    let args = ["download", REPO, "--file", "sub/extra.bin", "--file", "tokenizer.json", "--to", text(&out)];
    let both = m.run(&args).ok();
    assert_eq!(
        both.out.lines().map(|l| l.split('\t').next().unwrap()).collect::<Vec<_>>(),
        ["sub/extra.bin", "tokenizer.json"]
    );
    assert_eq!(std::fs::read(out.join("sub/extra.bin")).unwrap(), vec![7u8; 5000]);
    let dev = m.run(&["download", REPO, "--revision", "dev", "--format", "json"]).ok().json();
    assert_eq!((dev["files"].as_array().unwrap().len(), &dev["files"][0]["size"]), (1, &2.into()));
    assert_eq!(dev["revision"], "dev");
}

#[test]
fn what_cannot_be_had() {
    let m = machine();
    let fails = |env: &[(&str, &str)], args: &[&str], words: &[&str]| m.run_env(env, args).fails_with(words);
    fails(&[], &["download", "org/none"], &["org/none"]);
    fails(&[], &["download", REPO, "--file", "absent.json"], &["absent.json", REPO]);
    fails(&[], &["download", REPO, "--revision", "v9"], &["`v9`", REPO]);
    fails(&[], &["download", "org/bare"], &["none of tokenizer.json", "--file", "org/bare"]);
    fails(&[], &["download", "../../etc"], &["`../../etc`", "repository"]);
    fails(&[], &["download", REPO, "--file", "../up"], &["`../up`", "path"]);
    fails(&[("BITNET_DOWNLOAD_TIMEOUT", "soon")], &["download", REPO], &["BITNET_DOWNLOAD_TIMEOUT", "`soon`"]);
    fails(&[("BITNET_TOKENIZER_CACHE_BYTES", "lots")], &["cache", "list"], &["BITNET_TOKENIZER_CACHE_BYTES"]);

    // The message of the offline error names a command that works as soon as one is online.
    m.hub.log().clear();
    let offline = fails(
        &[("BITNET_OFFLINE", "1")],
        &["download", REPO, "--file", "sub/extra.bin"],
        &["offline", "BITNET_OFFLINE", "sub/extra.bin"],
    );
    assert!(m.hub.log().is_empty());
    let command = &offline.err[offline.err.find("bitnet download").unwrap()..];
    let args: Vec<&str> = command.split_whitespace().skip(1).collect();
    m.run(&args).ok();
    m.run_env(&[("BITNET_OFFLINE", "1")], &args).ok();
}

#[test]
fn a_model_runs_where_no_cache_can_be() {
    // Only commands of the hub need a place for its cache.
    let mut command = bitnet(&["tokenize", "--text", "a"]);
    finish(command.env_remove("HOME").env_remove("USERPROFILE")).ok();
    let mut command = bitnet(&["cache", "path"]);
    finish(command.env_remove("HOME").env_remove("USERPROFILE")).fails_with(&["BITNET_TOKENIZER_CACHE"]);
}

#[test]
fn looking_after_the_cache() {
    let m = machine();
    let cache = |args: &[&str]| m.run(&[&["cache"], args].concat());
    let root = m.path("cache");
    assert_eq!(cache(&["path"]).ok().out.trim_end(), text(&root));
    assert_eq!(cache(&["list"]).ok().out, "", "nothing yet");
    assert!(!root.exists(), "looking creates nothing");
    let fill = || m.run(&["download", REPO]).ok();
    fill();
    let listed = cache(&["list"]).ok();
    assert_eq!(listed.out.lines().count(), 2);
    assert!(listed.out.contains("org/name\t") && listed.out.contains("tokenizer_config.json"), "{}", listed.out);
    let json = cache(&["list", "--format", "json"]).ok().json();
    assert_eq!((&json["stats"]["entries"], &json["entries"][0]["size"]), (&2.into(), &13000.into()));
    assert_eq!(cache(&["verify"]).ok().out, "2 files sound, 0 damaged\n");

    // One damaged blob: found, told, removed, and fetched again.
    let blob = json["entries"][1]["file"].as_str().unwrap();
    std::fs::write(blob, "rubbish").unwrap();
    let verified = cache(&["verify"]).code(1);
    assert!(verified.out.contains("damaged, removed\torg/name\t") && verified.out.contains("1 files sound, 1 damaged"));
    assert_eq!(cache(&["verify", "--format", "json"]).ok().json()["damaged"].as_array().unwrap().len(), 0);
    assert_eq!(cache(&["list"]).ok().out.lines().count(), 1);
    assert!(fill().err.contains("1 downloaded"));

    let evicted = cache(&["evict", "--bytes", "0", "--format", "json"]).ok().json();
    assert_eq!((evicted["removed"].as_array().unwrap().len(), &evicted["left"]), (2, &0.into()));
    assert!(cache(&["evict"]).ok().out.starts_with("0 files removed"), "the default budget has room");
    fill();
    let freed = cache(&["clear"]).ok().out;
    assert!(freed.ends_with(" bytes freed\n") && !freed.starts_with("0 "), "{freed}");
    assert_eq!(cache(&["list"]).ok().out, "");
}
