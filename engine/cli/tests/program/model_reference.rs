//! Models that are named by their repository: fetched once, found again, kept as HuggingFace's own tools keep them. The hub is in
//! this process; what is said to send nothing is counted there.

use crate::support::*;
use bitnet_mock_hub::{Access, Fault, MockHub, Repo, Side, Storage, git_blob_sha1, sha256_hex};
use std::path::{Path, PathBuf};
use std::time::Duration;

const REPO: &str = "org/tiny-gguf";
const REF: &str = "hf:org/tiny-gguf";
const FILE: &str = "tiny-i2_s.gguf";
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

fn repo() -> Repo {
    Repo::new(REPO)
        .file(FILE, model(), Storage::Lfs)
        .file("tiny-Q8_0.gguf", "not a model", Storage::Xet)
        .file("README.md", "# tiny", Storage::Git)
        .file("chat_template.jinja", TEMPLATE, Storage::Git)
        .file("sub/other-f16.gguf", "nor this", Storage::Lfs)
}

fn machine() -> Machine {
    Machine::with([repo()])
}

fn snapshot(m: &Machine) -> PathBuf {
    m.home(REPO).join("snapshots").join(m.commit(REPO))
}

/// Bodies of the model that the hub's storage was asked for.
fn bodies(m: &Machine) -> usize {
    m.hub.log().count(|e| e.side == Side::Cdn && e.method == "GET" && e.path.ends_with(&sha256_hex(&model())))
}

/// Names in the folder of blobs.
fn blobs(m: &Machine) -> Vec<String> {
    let entries = std::fs::read_dir(m.home(REPO).join("blobs")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const ASK: [&str; 3] = ["tokenize", "--text", "In the beginning"];
/// Asks the model, which may be fetched.
const FETCH: [&str; 6] = ["tokenize", "--text", "In the beginning", "--auto-download", "--model", REF];

#[test]
fn from_an_empty_cache_to_an_answer_without_the_network() {
    let m = machine();
    let ask = |model: &str, more: &[&str]| [&ASK[..], &["--model", model], more].concat().join("\u{1}");
    let run = |text: &str| m.run(&text.split('\u{1}').collect::<Vec<_>>());
    // Nobody said that it may be fetched, and there is no terminal to ask on: no packet, but the commands that would.
    let refused = m.silent(&[], &[&ASK[..], &["--model", REF]].concat());
    let refused = refused.fails_with(&[REF, "not in the cache", "--auto-download", "bitnet download hf:org/tiny-gguf"]);
    assert!(!refused.err.contains("no such path"), "{}", refused.err);
    let bare = m.silent(&[], &[&ASK[..], &["--model", REPO]].concat());
    bare.fails_with(&["no such path", REF, "--auto-download"]);

    let here = m.run(&[&ASK[..], &["--model", text(&tiny())]].concat()).ok();
    let fetched = run(&ask(REF, &["--auto-download"])).ok();
    assert_eq!(fetched.out, here.out);
    assert!(
        fetched.err.contains("tiny-i2_s.gguf of commit") && fetched.err.contains("i2_s comes first"),
        "{}",
        fetched.err
    );
    assert!(fetched.err.contains("also there: sub/other-f16.gguf, tiny-Q8_0.gguf"), "{}", fetched.err);
    assert_eq!(bodies(&m), 1);

    // Again, by every name: no packet, with and without leave to fetch, offline too.
    for (env, args) in [
        (&[][..], ask(REF, &[])),
        (&[], ask(REF, &["--auto-download"])),
        (&[], ask(REPO, &[])),
        (&[], ask(REF, &["--offline"])),
        (&[("HF_HUB_OFFLINE", "1")], ask("hf:org/tiny-gguf@main:I2_S", &[])),
        (&[("BITNET_OFFLINE", "1")], ask(&format!("{REF}:{FILE}"), &[])),
        (&[("BITNET_GGUF", REF)], ASK.join("\u{1}")),
    ] {
        let again = m.silent(env, &args.split('\u{1}').collect::<Vec<_>>()).ok();
        assert_eq!(again.out, here.out, "{args}");
    }
    // By its commit too, which never has to be asked for.
    let commit = ask(&format!("{REF}@{}", m.commit(REPO)), &[]);
    assert_eq!(m.silent(&[], &commit.split('\u{1}').collect::<Vec<_>>()).ok().out, here.out);
}

#[test]
fn the_cache_is_as_huggingface_hub_keeps_it() {
    let m = machine();
    m.run(&["download", REF]).ok();
    let digest = sha256_hex(&model());
    assert_eq!(m.commit(REPO), repo().head());
    assert_eq!(std::fs::read(m.home(REPO).join("blobs").join(&digest)).unwrap(), model(), "not compressed");
    let link = snapshot(&m).join(FILE);
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../../blobs").join(&digest));
    // What stands beside the model is there too, by git's checksum; nothing else is.
    let template = std::fs::read_link(snapshot(&m).join("chat_template.jinja")).unwrap();
    assert_eq!(template, Path::new("../../blobs").join(git_blob_sha1(TEMPLATE.as_bytes())));
    let names: Vec<_> = std::fs::read_dir(snapshot(&m)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(blobs(&m).len(), 2, "nothing unfinished is left: {:?}", blobs(&m));
    // A file in a folder needs one step more.
    m.run(&["download", &format!("{REF}:f16")]).ok();
    let link = snapshot(&m).join("sub/other-f16.gguf");
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../../../blobs").join(sha256_hex(b"nor this")));
    assert_eq!(std::fs::read(&link).unwrap(), b"nor this");
}

#[test]
fn every_command_takes_a_reference() {
    let m = machine();
    m.run(&["download", REF]).ok();
    let path = |name: &str| text(&m.path(name)).to_owned();
    let book = path("book.txt");
    std::fs::write(&book, "In the beginning God created the heavens and the earth. ".repeat(4)).unwrap();
    let (a, b) = (path("a.gguf"), path("b.gguf"));
    for args in [
        format!("infer --prompt beginning -n 2 --temperature 0 --model {REF}"),
        format!("detokenize 12 13 --model {REF}"),
        format!("inspect {REF}"),
        format!("inspect {REPO} --offline --format json"),
        format!("discover {REF} --build"),
        format!("perplexity --text-file {book} --model {REF}"),
        format!("embed --text beginning --model {REF}"),
        format!("bench -p 2 -n 0 -r 1 --model {REF}"),
        format!("convert {REF} --set general.name=x -o {a}"),
        format!("convert {REF} --to tq2_0 -o {b}"),
    ] {
        let run = m.silent(&[("BITNET_OFFLINE", "1")], &words(&args));
        assert!(!run.ok().out.contains("panicked"), "{args}");
    }
    // It is the model, and not only something that runs.
    let answer = |model: &str| {
        m.run(&[
            "infer",
            "--prompt",
            "beginning",
            "-n",
            "8",
            "--temperature",
            "0",
            "--prompt-template",
            "raw",
            "-m",
            model,
        ])
        .ok()
        .out
    };
    assert_eq!(answer(REF), answer(text(&tiny())));
    assert_eq!(
        std::fs::read(tiny()).unwrap(),
        std::fs::read(snapshot(&m).join(FILE)).unwrap(),
        "a source is never written"
    );
    let c = path("c.gguf");
    let repaired = m.silent(&[], &["repair-tokenizer", REF, "-o", &c]);
    assert!(repaired.err.contains(REF), "{}", repaired.err);
    // Each of them refuses in the same way what is not here.
    for args in [
        "infer --prompt a --model hf:org/absent",
        "tokenize --text a --model hf:org/absent",
        "inspect hf:org/absent",
        "discover hf:org/absent",
        "bench --model hf:org/absent",
        "convert hf:org/absent --to tq2_0 -o x.gguf",
        "repair-tokenizer hf:org/absent -o x.gguf",
    ] {
        let args = words(args);
        m.silent(&[], &args).fails_with(&["hf:org/absent is not in the cache", "bitnet download hf:org/absent"]);
        let offline = [&args[..], &["--offline", "--auto-download"]].concat();
        m.silent(&[], &offline).fails_with(&["hf:org/absent", "offline nothing is fetched"]);
    }
}

#[test]
fn the_template_beside_the_model_is_found() {
    let m = machine();
    let args = ["infer", "--prompt", "beginning", "-n", "1", "--format", "json", "--auto-download", "--model", REF];
    assert_eq!(m.run(&args).ok().json()["template"], "file");
    let discovered = m.run(&["discover", REF, "--format", "json"]).ok().json();
    assert_eq!(discovered["winner"], "embedded");
}

#[test]
fn what_the_repository_does_not_have() {
    let two = ["a-i2_s.gguf", "b-i2_s.gguf", "c-00002-of-00002.gguf"];
    let two = two.iter().fold(Repo::new("org/two"), |repo, name| repo.file(name, "a", Storage::Lfs));
    let m = Machine::with([repo(), two, Repo::new("org/none").file("config.json", "{}", Storage::Git)]);
    let fails = |model: &str, words: &[&str]| {
        m.run(&[&ASK[..], &["--auto-download", "--model", model]].concat()).fails_with(words);
        m.run(&["download", model]).fails_with(words);
    };
    fails("hf:org/tiny-gguf:q4_k_m", &["no GGUF of quantization q4_k_m", FILE, "tiny-Q8_0.gguf"]);
    fails("hf:org/tiny-gguf:absent.gguf", &["no file absent.gguf", FILE]);
    fails("hf:org/tiny-gguf@v9", &["no revision `v9`"]);
    fails("hf:org/two", &["several models", "hf:org/two:a-i2_s.gguf", "hf:org/two:b-i2_s.gguf"]);
    fails("hf:org/two:c-00002-of-00002.gguf", &["split", "c-00001-of-00002.gguf is not there"]);
    fails("hf:org/none", &["no GGUF of a model", "its GGUF files: none"]);
    fails("hf:org/nobody", &["org/nobody"]);
    fails("hf:org/tiny-gguf:", &["does not name a model", "hf:ORG/REPO"]);
    fails("hf:../up", &["does not name a model", "repository"]);
    m.run(&["download", REPO, "--file", "*.bin"]).fails_with(&["no file of org/tiny-gguf", "*.bin", FILE]);
    m.run(&["download", &format!("{REF}@dev"), "--revision", "v2"]).refused_with(&["two revisions"]);
    m.run(&["download", &format!("{REF}:f16"), "--file", "x"]).refused_with(&["--file names files"]);
    assert!(!m.home(REPO).join("snapshots").exists(), "nothing was kept");
    // A file that is missing is a path, and not asked for on the network.
    m.silent(&[], &[&ASK[..], &["--auto-download", "--model", "models/absent.gguf"]].concat())
        .fails_with(&["no such file"]);
}

#[test]
fn the_command_of_a_refusal_is_the_one_that_works() {
    let m = machine();
    let refused = m.run(&["inspect", "org/tiny-gguf:i2_s"]).fails_with(&["run: bitnet download"]);
    let command = refused.err.rsplit("run: bitnet ").next().unwrap().trim();
    let offline = m.silent(&[("BITNET_OFFLINE", "1")], &words(command));
    offline.fails_with(&["offline", "bitnet download hf:org/tiny-gguf:i2_s"]);
    let got = m.line(command).ok();
    assert!(got.out.starts_with("tiny-i2_s.gguf\t") && got.err.contains("2 downloaded"), "{}{}", got.out, got.err);
    m.silent(&[], &["inspect", "org/tiny-gguf:i2_s"]).ok();
    // Twice is once, and offline it is there.
    assert!(m.silent(&[], &words(command)).ok().err.contains("0 downloaded"));
    m.silent(&[("BITNET_OFFLINE", "1")], &words(command)).ok();
}

#[test]
fn split_models_come_whole() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("tiny.gguf");
    run(&["convert", text(&tiny()), "--split-max-tensors", "20", "-o", text(&whole)]).ok();
    let part = |n: u32| format!("tiny-{n:05}-of-00003.gguf");
    let parts = || {
        (1..=3).fold(Repo::new(REPO), |repo, n| {
            repo.file(&format!("i2_s/{}", part(n)), std::fs::read(dir.path().join(part(n))).unwrap(), Storage::Lfs)
        })
    };
    let start = || Machine::with([parts()]);
    let right = run(&[&ASK[..], &["--model", text(&tiny())]].concat()).ok().out;
    for model in [REF, "hf:org/tiny-gguf:I2_S", "hf:org/tiny-gguf:i2_s/tiny-00003-of-00003.gguf"] {
        let m = start();
        let got = m.run(&[&ASK[..], &["--auto-download", "--model", model]].concat()).ok();
        assert_eq!(got.out, right, "{model}");
        assert!((1..=3).all(|n| snapshot(&m).join("i2_s").join(part(n)).is_file()), "{model}");
    }
    // By one part of it, or by a pattern.
    for file in ["i2_s/tiny-00002-of-00003.gguf", "*-00001-of-*"] {
        let m = start();
        let out = dir.path().join("out");
        let got = m.run(&["download", REPO, "--file", file, "--to", text(&out)]).ok();
        assert_eq!(got.out.lines().count(), 3, "{}", got.out);
        assert!((1..=3).all(|n| std::fs::read(out.join("i2_s").join(part(n))).unwrap()
            == std::fs::read(dir.path().join(part(n))).unwrap()));
        m.silent(&[], &[&ASK[..], &["--model", REF]].concat()).ok();
        std::fs::remove_dir_all(&out).unwrap();
    }
    // Two parts of three are not a model.
    let m = start();
    m.run(&["download", REF]).ok();
    std::fs::remove_file(snapshot(&m).join("i2_s").join(part(2))).unwrap();
    m.silent(&[], &[&ASK[..], &["--model", REF]].concat()).fails_with(&["not in the cache"]);
    m.run(&FETCH).ok();
}

#[test]
fn patterns_choose_files_and_small_ones_stay_in_our_cache() {
    let m = machine();
    let got = m.run(&["download", REPO, "--file", "*.jinja", "--file", "README.md", "--format", "json"]).ok().json();
    let paths: Vec<_> = got["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["README.md", "chat_template.jinja"]);
    assert!(!m.home(REPO).exists(), "no model, so nothing for other tools");
    // The list of a commit is kept: the same question sends nothing more.
    m.silent(&[], &["download", REPO, "--file", "*.jinja"]).ok();
    m.silent(&[("BITNET_OFFLINE", "1")], &["download", REPO, "--file", "*.jinja"]).ok();
    // What our own cache has of a model's files is not fetched again.
    m.hub.log().clear();
    m.run(&["download", REF]).ok();
    assert_eq!(m.hub.log().requests("GET", "chat_template.jinja"), 0, "{:?}", m.hub.log().entries());
    assert_eq!(std::fs::read_to_string(snapshot(&m).join("chat_template.jinja")).unwrap(), TEMPLATE);
}

#[test]
fn a_cut_connection_is_resumed_by_the_next_run() {
    let m = machine();
    // The connection breaks at a million bytes, and then the hub refuses: the run ends.
    m.hub.fault(Fault::Cut { at: 1_000_000 }.always().on(Side::Cdn).times(1));
    m.hub.fault(Fault::Html { status: 403 }.always().on(Side::Hub).method("GET").path(FILE).skip(1));
    let args = FETCH;
    m.run(&args).fails_with(&["403"]);
    let digest = sha256_hex(&model());
    assert!(!m.home(REPO).join("blobs").join(&digest).exists(), "half a file has no name");
    assert!(!m.home(REPO).join("snapshots").join(repo().head()).join(FILE).exists());
    let partial = m.home(REPO).join("blobs").join(format!("{digest}.incomplete"));
    let arrived = std::fs::metadata(&partial).unwrap().len();
    assert!(arrived > 500_000 && arrived <= 1_000_000, "{arrived}");
    m.silent(&[("BITNET_OFFLINE", "1")], &args).fails_with(&["offline"]);
    m.hub.heal();
    m.hub.log().clear();
    m.run(&args).ok();
    let ranges: Vec<_> = m.hub.log().entries().into_iter().filter(|e| e.side == Side::Cdn).map(|e| e.range).collect();
    assert_eq!(ranges, [Some(format!("bytes={arrived}-"))]);
    assert_eq!(std::fs::read(snapshot(&m).join(FILE)).unwrap(), model());
    assert!(!partial.exists());
}

#[test]
fn wrong_bytes_are_refused_and_nothing_is_kept() {
    let m = machine();
    m.hub.fault(Fault::Corrupt { at: 12345 }.always().on(Side::Cdn));
    let error = m.run(&FETCH).fails_with(&["sha256", "promises"]);
    assert!(error.err.contains("nothing was kept"), "{}", error.err);
    let digest = sha256_hex(&model());
    assert!(blobs(&m).iter().all(|name| !name.starts_with(&digest)), "{:?}", blobs(&m));
    assert!(!m.home(REPO).join("snapshots").join(repo().head()).join(FILE).exists());
    m.hub.heal();
    m.run(&FETCH).ok();
}

#[test]
fn a_disk_that_is_too_small_is_noticed_before_the_first_byte() {
    let huge = Repo::new(REPO).file(FILE, "x", Storage::Lfs).claims(FILE, 1 << 60);
    let m = Machine::with([huge]);
    let error = m.run(&FETCH);
    error.fails_with(&["1152921504606846976 bytes", "bytes are free", "HF_HUB_CACHE"]);
    assert_eq!(m.hub.log().count(|e| e.side == Side::Cdn), 0);
    assert!(blobs(&m).is_empty());
}

#[test]
fn repositories_that_moved_or_want_a_token() {
    let closed = |name: &str, access| Repo::new(name).file("m-i2_s.gguf", model(), Storage::Lfs).access(access);
    let hub = MockHub::builder()
        .repo(repo())
        .renamed("old/name", REPO)
        .repo(closed("org/private", Access::Private("good".to_owned())))
        .repo(closed("org/gated", Access::Gated("good".to_owned())));
    let m = Machine::new(hub.start().unwrap());
    let ask = |model| [&ASK[..], &["--auto-download", "--model", model]].concat();
    m.run(&ask("hf:old/name")).ok();
    m.silent(&[("BITNET_OFFLINE", "1")], &ask("hf:old/name")).ok();
    m.run(&ask("hf:org/private")).fails_with(&["org/private", "or it is private", "HF_TOKEN"]);
    m.run(&ask("hf:org/gated")).fails_with(&["org/gated is gated", "accept its terms"]);
    for model in ["hf:org/private", "hf:org/gated"] {
        m.hub.log().clear();
        m.run_env(&[("HF_TOKEN", "good")], &ask(model)).ok();
        let log = m.hub.log();
        assert!(log.token_seen(Side::Hub) && !log.token_seen(Side::Cdn), "the token stays at home");
        m.silent(&[], &ask(model)).ok();
    }
}

#[test]
fn a_cache_that_cannot_be_is_named() {
    let m = machine();
    let file = m.path("file");
    std::fs::write(&file, "no folder").unwrap();
    let env = [("HF_HUB_CACHE", text(&file))];
    m.run_env(&env, &["download", REF]).fails_with(&["export HF_HUB_CACHE=DIR", text(&file)]);
    assert_eq!(m.hub.log().count(|e| e.side == Side::Cdn), 0);
}

#[test]
fn a_repository_without_a_gguf_is_converted_from_its_checkpoint() {
    let checkpoint = checkpoint_repo("org/checkpoint");
    let m = Machine::with([checkpoint.clone()]);
    let out = m.path("out.gguf");
    let args = ["convert", "hf:org/checkpoint", "--to", "q8_0", "-o", text(&out)];
    m.silent(&[], &args).fails_with(&["hf:org/checkpoint is not in the cache", "--auto-download"]);
    let auto = [&args[..], &["--auto-download"]].concat();
    m.run(&auto).ok();
    let folder = m.home("org/checkpoint").join("snapshots").join(checkpoint.head());
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    let first = std::fs::read(&out).unwrap();
    for env in [&[][..], &[("BITNET_OFFLINE", "1")]] {
        std::fs::remove_file(&out).unwrap();
        m.silent(env, &args).ok();
        assert!(std::fs::read(&out).unwrap() == first, "the same model, without a packet");
    }
}

/// A terminal for standard input and error, and `answer` typed there. What was shown, and how it ended.
#[cfg(unix)]
fn on_a_terminal(mut command: std::process::Command, answer: &str) -> (String, std::process::ExitStatus) {
    use std::io::{Read, Write};
    let (mut master, open) = terminal();
    let mut child = command.stdin(open()).stderr(open()).stdout(std::process::Stdio::null()).spawn().unwrap();
    drop(command);
    master.write_all(answer.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // The end of a terminal is an error of reading.
    let _ = master.read_to_end(&mut shown);
    (String::from_utf8_lossy(&shown).into_owned(), child.wait().unwrap())
}

#[cfg(unix)]
#[test]
fn on_a_terminal_it_is_asked() {
    let m = machine();
    let args = [&ASK[..], &["--model", REF]].concat();
    let (shown, status) = on_a_terminal(m.command(&[], &args), "n\n");
    assert!(!status.success());
    assert!(
        shown.contains(
            "Fetch tiny-i2_s.gguf, chat_template.jinja for hf:org/tiny-gguf (i2_s comes first), 4.35 MiB? [Y/n]"
        ),
        "{shown}"
    );
    assert!(shown.contains("is not fetched; what fetches it: bitnet download hf:org/tiny-gguf"), "{shown}");
    assert_eq!(m.hub.log().count(|e| e.method == "GET" && !e.path.starts_with("/api/")), 0, "only asked about");
    let (shown, status) = on_a_terminal(m.command(&[], &args), "\n");
    assert!(status.success() && shown.contains("MiB/s"), "{shown}");
    m.silent(&[], &args).ok();
}

#[test]
fn two_processes_fetch_a_model_once() {
    let m = machine();
    m.hub.fault(Fault::Delay { pause: Duration::from_millis(300) }.always().on(Side::Cdn));
    let args = FETCH;
    let spawn = || m.command(&[], &args).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut both = [spawn(), spawn()];
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(bodies(&m), 1);
}

#[test]
fn a_file_system_without_links_holds_the_files() {
    let m = machine();
    let env = [("HF_HUB_DISABLE_SYMLINKS", "1")];
    let right = m.run(&[&ASK[..], &["--model", text(&tiny())]].concat()).ok().out;
    let args = FETCH;
    assert_eq!(m.run_env(&env, &args).ok().out, right);
    let file = snapshot(&m).join(FILE);
    assert!(!file.is_symlink() && file.is_file());
    assert!(blobs(&m).is_empty(), "once on the disk, not twice: {:?}", blobs(&m));
    assert_eq!(m.silent(&env, &[&ASK[..], &["--offline", "--model", REF]].concat()).ok().out, right);
    m.silent(&[env[0], ("BITNET_OFFLINE", "1")], &["download", REF]).ok();
    m.forget_the_day(REPO);
    m.hub.log().clear();
    assert!(m.run_env(&env, &["download", REF]).ok().err.contains("0 downloaded"));
    assert_eq!(m.hub.log().count(|e| e.side == Side::Cdn), 0);
    assert!(m.run(&["cache", "list"]).ok().out.contains("no checksum"));
}

#[test]
fn a_branch_that_moves_is_followed_by_download_only() {
    let m = machine();
    m.run(&["download", REF]).ok();
    let old = m.commit(REPO);
    m.hub.put(repo().file("chat_template.jinja", "{{ 1 }}", Storage::Git));
    m.forget_the_day(REPO);
    m.silent(&[], &FETCH).ok();
    m.hub.log().clear();
    let got = m.run(&["download", REF]).ok();
    assert_ne!(m.commit(REPO), old);
    assert!(got.err.contains("1 downloaded"), "{}", got.err);
    assert_eq!(bodies(&m), 0, "the model is the same blob");
    assert!(snapshot(&m).join(FILE).is_file() && m.home(REPO).join("snapshots").join(old).join(FILE).is_file());
    // The hub goes away: what is here will do, and that is said.
    m.forget_the_day(REPO);
    m.hub.fault(Fault::Refuse.always());
    let down = m.run(&["download", REF]).ok();
    assert!(down.err.contains("as it was last seen") && down.err.contains("0 downloaded"), "{}", down.err);
    // The same where another tool has filled the cache, and we know nothing of lists.
    std::fs::remove_dir_all(m.path("cache")).unwrap();
    let down = m.run_env(&[("BITNET_DOWNLOAD_TIMEOUT", "2")], &["download", REF]).ok();
    assert!(down.err.contains("using what the cache has"), "{}", down.err);
}

#[test]
fn the_cache_lists_and_verifies_models() {
    let m = machine();
    m.run(&["download", REF]).ok();
    let listed = m.run(&["cache", "list"]).ok();
    let digest = sha256_hex(&model());
    assert_eq!(listed.out, format!("{REPO}\t{}\t{FILE}\t{} bytes\tsha256-{digest}\n", m.commit(REPO), model().len()));
    let json = m.run(&["cache", "list", "--format", "json"]).ok().json();
    assert_eq!((&json["models"][0]["path"], &json["models"][0]["revisions"][0]), (&FILE.into(), &"main".into()));
    assert_eq!(
        m.run(&["cache", "verify", "--models"]).ok().out,
        "0 files sound, 0 damaged\n1 files of models sound, 0 damaged\n"
    );
    // Damaged: named, with the command that replaces it, and not removed; other tools may hold it open.
    let mut bytes = model();
    bytes[4000] ^= 1;
    std::fs::write(m.home(REPO).join("blobs").join(&digest), &bytes).unwrap();
    assert_eq!(m.run(&["cache", "verify"]).ok().out, "0 files sound, 0 damaged\n", "only where it is asked for");
    let verified = m.run(&["cache", "verify", "--models"]).code(1);
    assert!(verified.out.contains("0 files of models sound, 1 damaged"), "{}", verified.out);
    assert!(snapshot(&m).join(FILE).is_file());
    let command = verified.err.rsplit("fetch it again: bitnet ").next().unwrap().trim().to_owned();
    let repaired = m.line(&command).ok();
    assert!(repaired.err.contains("damaged") && repaired.err.contains("1 downloaded"), "{}", repaired.err);
    m.run(&["cache", "verify", "--models"]).ok();
    // Neither clearing nor evicting touches a model.
    m.run(&["cache", "clear"]).ok();
    m.run(&["cache", "evict", "--bytes", "0"]).ok();
    m.silent(&[], &[&ASK[..], &["--model", REF]].concat()).ok();
}

#[test]
fn names_of_a_repository_reach_the_terminal_escaped() {
    let odd = "x\u{1b}]0;t\u{7}-q8_0.gguf";
    let repo = Repo::new(REPO).file(FILE, model(), Storage::Lfs).file(odd, "x", Storage::Lfs);
    let m = Machine::with([repo]);
    for args in [["inspect", REF, "--auto-download"], ["inspect", "hf:org/tiny-gguf:q1_0", "--auto-download"]] {
        let run = m.run(&args);
        assert!(!run.err.contains('\u{1b}') && run.err.contains("\\u{1b}"), "{}", run.err);
    }
}
