//! `make-model` and `bench-peers` as a user runs them. Ours is xtask itself, whose `bench` and `infer` are those of `bitnet`:
//! figures of such a build mean nothing, and none is looked at.

use bitnet_harness::bench::peers::PeersReport;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn xtask(args: &[&str], target: &Path) -> Output {
    let mut command = Command::new(XTASK);
    for twin in ["BITNET_GGUF", "BITNET_DEVICE", "BITNET_THREADS", "BITNET_BENCH_MODEL"] {
        command.env_remove(twin);
    }
    command.args(args).env("CARGO_TARGET_DIR", target).output().expect("xtask starts")
}

/// Exit code, stdout, stderr.
fn said(args: &[&str], target: &Path) -> (Option<i32>, String, String) {
    let out = xtask(args, target);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

/// A tiny model where `make-model` puts it.
fn tiny(target: &Path) -> PathBuf {
    let (code, out, err) = said(&["make-model", "--shape", "tiny", "--seed", "5"], target);
    assert_eq!(code, Some(0), "{err}");
    let path = PathBuf::from(out.trim());
    assert_eq!(path, target.join("bench/models/tiny-i2_s-seed5.gguf"));
    assert!(err.contains("parameters") && path.is_file(), "{err}");
    path
}

fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }
    path.to_string_lossy().into_owned()
}

/// Rates of one thread, ours by xtask, whatever else the machine does.
fn warmed(more: &str) -> Vec<&str> {
    let words = "bench-peers --threads 1 --measure warmed --noise 100".split(' ');
    words.chain(["--ours", XTASK]).chain(more.split(' ')).collect()
}

#[cfg(unix)]
#[test]
fn ours_and_a_program_take_turns() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny(dir.path()).to_string_lossy().into_owned();
    let calls = dir.path().join("calls");
    let fake = script(
        dir.path(),
        "llama-bench",
        &format!(
            "echo \"$@\" >> {}\nprintf '[{{\"n_threads\":%s,\"n_prompt\":%s,\"n_gen\":0,\"samples_ts\":[0.5]}},{{\"n_prompt\":0,\"n_gen\":%s,\"avg_ts\":0.25}}]' \"$8\" \"$4\" \"$6\"",
            calls.display()
        ),
    );
    let (named, broken) =
        (format!("fake={fake}"), format!("broken={}", script(dir.path(), "broken", "echo no memory >&2; exit 7")));
    let (record, plot) = (dir.path().join("record.json"), dir.path().join("plot.svg"));
    let paths = [&record, &plot].map(|path| path.to_string_lossy().into_owned());
    let common = warmed("--prompt 16 --generate 4");
    let common = [&common[..], &["--model", &model, "--out", &paths[0]]].concat();
    let more = ["--program", &named, "--rounds", "2", "--plot", &paths[1], "--format", "json"];
    let (code, out, err) = said(&[&common[..], &more].concat(), dir.path());
    assert_eq!(code, Some(0), "{err}");
    let report: PeersReport = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!(
        serde_json::from_slice::<PeersReport>(&std::fs::read(&record).expect("a record")).expect("the same"),
        report
    );
    let [ours, theirs] = report.rows.as_slice() else { panic!("{out}") };
    assert_eq!((ours.engine.as_str(), theirs.engine.as_str()), ("ours", "fake"));
    assert_eq!(theirs.prefill.as_ref().map(|s| s.samples.clone()), Some(vec![0.5, 0.5]));
    assert_eq!(theirs.decode.as_ref().map(|s| s.samples.clone()), Some(vec![0.25, 0.25]));
    // Paired: the ratios are those of the rounds.
    let (decode, ratio) = (ours.decode.as_ref().expect("ours"), theirs.decode.as_ref().and_then(|s| s.ours_is));
    // JSON gives floats back to about the last bit.
    let (ratio, expected) = (ratio.map_or(0.0, |r| r.median), decode.spread.median / 0.25);
    assert!((ratio / expected - 1.0).abs() < 1e-12, "{ratio} is not {expected}");
    assert!(ours.first_token.is_some() && theirs.first_token.is_none());
    assert!(ours.peak_rss.is_some_and(|bytes| bytes > 1 << 20), "{ours:?}");
    assert!(report.memory[0].bytes_per_second.samples.len() == 2 && report.memory[0].bound_tokens_per_second > 0.0);
    assert_eq!((report.model.quant.as_str(), report.model.architecture.as_str()), ("i2_s", "bitnet-b1.58"));
    let asked = std::fs::read_to_string(&calls).expect("calls");
    let call = format!("-m {model} -p 16 -n 4 -t 1 -r 1 -o json\n");
    assert_eq!(asked, call.repeat(2));
    assert!(std::fs::read_to_string(&plot).expect("a drawing").contains("<svg"));

    // One that fails, beside one that does not: its figures are absent, its words are there, the exit code says it.
    let more = ["--program", &named, "--program", &broken, "--rounds", "1"];
    let (code, out, err) = said(&[&common[..], &more].concat(), dir.path());
    assert_eq!(code, Some(4), "{err}");
    assert!(out.contains("| 1 | fake | 0.50 (0.50..0.50) |") && out.contains("| 1 | broken | - | - | - |"), "{out}");
    assert!(out.contains("broken, 1 threads: unavailable:") && out.contains("exit status: 7\n  | no memory"), "{out}");
}

#[test]
fn a_reference_that_is_not_built_or_cannot_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny(dir.path()).to_string_lossy().into_owned();
    let common = [&warmed("--prompt 8 --generate 2 --rounds 1")[..], &["--model", &model]].concat();
    let (code, out, err) = said(&common, dir.path());
    assert_eq!(code, Some(4), "neither of the two: {err}");
    assert!(out.contains("bitnet.cpp, 1 threads: unavailable: it was not built"), "{out}");
    assert!(out.contains("  to fix it: cargo xtask setup-cpp bitnet"), "{out}");
    assert!(out.contains("llama.cpp cannot run this model: llama.cpp has no I2_S"), "{out}");
    assert!(dir.path().join("bench/peers.json").is_file(), "{err}");
}

/// Ours alone, since a program like `llama-bench` cannot be asked: every wait has figures, of a process of its own.
#[test]
fn a_person_waits_from_the_start_of_a_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny(dir.path()).to_string_lossy().into_owned();
    let args =
        ["bench-peers", "--model", &model, "--ours", XTASK, "--threads", "1", "--measure", "person", "--noise", "100"];
    let more = ["--program", "none=/bin/true", "--rounds", "2", "--texts", "24", "--answers", "3", "--format", "json"];
    let (code, out, err) = said(&[&args[..], &more].concat(), dir.path());
    assert_eq!(code, Some(4), "the program was named and has no figures: {err}");
    let report: PeersReport = serde_json::from_str(&out).expect("one JSON document");
    assert!(report.is_complete("ours") && !report.is_complete("none") && report.rows.is_empty(), "{out}");
    let [first, last] = report.waits.as_slice() else { panic!("{out}") };
    assert_eq!(((first.answer, last.answer), (&*first.engine, &*last.engine)), ((1, 3), ("ours", "ours")));
    for wait in [first, last] {
        assert!((12..=24).contains(&wait.prompt) && wait.prompt_tokens == Some(wait.prompt), "{wait:?}");
        let seconds = wait.seconds.as_ref().expect("figures");
        assert!(seconds.samples.len() == 2 && seconds.spread.least > 0.0, "{wait:?}");
    }

    // Both references: not here, with the command, and ours still has its figures, in every setting.
    let curve = dir.path().join("curve.svg").to_string_lossy().into_owned();
    let more = ["--rounds", "1", "--texts", "8", "--answers", "2", "--settings", "--curve", &curve];
    let (code, out, err) = said(&[&args[..], &more].concat(), dir.path());
    assert_eq!(code, Some(4), "{err}");
    assert!(out.contains("bitnet.cpp: unavailable: it was not built"), "{out}");
    assert!(out.contains("to fix it: cargo xtask setup-cpp bitnet") && out.contains("| 2 | ours |"), "{out}");
    assert!(out.contains("| 2 | ours, head screened, huge pages |"), "{out}");
    assert!(std::fs::read_to_string(&curve).expect("a drawing").contains("ours, head whole, no huge pages"));
}

#[test]
fn wrong_arguments_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for (args, code, words) in [
        (&["bench-peers", "--peer", "ollama"][..], 2, "valid: bitnet, llama"),
        (&["bench-peers", "--program", "ik"], 2, "NAME=PATH is wanted"),
        (&["bench-peers", "--program", "ours=/bin/true"], 2, "other than `ours`"),
        (&["bench-peers", "--threads", "1,0"], 2, "0 is not in"),
        (&["bench-peers", "--rounds", "0"], 2, "0 is not in"),
        (&["bench-peers", "--measure", "all"], 2, "possible values: person, warmed"),
        (&["bench-peers", "--answers", "16,0"], 2, "0 is not in"),
        (&["bench-peers", "--prompt", "many"], 2, "many"),
        (&["bench-peers"], 1, "cargo xtask make-model --shape 2b4t --as microsoft"),
        (&["bench-peers", "--model", "/no/such.gguf"], 1, "/no/such.gguf"),
        (&["make-model"], 2, "--shape"),
        (&["make-model", "--shape", "9b"], 2, "there is no shape `9b`; there are tiny"),
        (&["make-model", "--shape", "tiny", "--quant", "i9"], 2, "i2_s"),
        (&["make-model", "--shape", "tiny", "--architecture", "llama"], 2, "bitnet-b1.58"),
        (&["make-model", "--shape", "tiny", "--as", "microsoft", "--quant", "tq2_0"], 2, "not bitnet-b1.58 in tq2_0"),
        (&["make-model", "--shape", "700m", "--as", "microsoft"], 2, "not bitnet in i2_s"),
        (&["bench", "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (&["bench", "--bandwidth", "-p", "5"], 2, "cannot be used with"),
    ] {
        let (found, out, err) = said(args, dir.path());
        assert_eq!(found, Some(code), "{args:?}: {err}");
        assert!(err.contains(words) && out.is_empty(), "{args:?}: {out}{err}");
    }
    let model = tiny(dir.path()).to_string_lossy().into_owned();
    let twice = ["bench-peers", "--model", &model, "--program", "a=/bin/true", "--program", "a=/bin/false"];
    let (code, _, err) = said(&twice, dir.path());
    assert!(code == Some(2) && err.contains("two peers have one name: a, a"), "{err}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("model.gguf");
    // A limit on the length of files stands for the end of the disk: writing fails in the middle.
    let limited = format!("trap '' XFSZ; ulimit -f 200; exec {XTASK} make-model --shape tiny --out {}", out.display());
    let ran = Command::new("/bin/sh").args(["-c", &limited]).output().expect("a shell");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{err}");
    assert!(err.contains("nothing was written") && err.contains("model.gguf would have"), "{err}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 0, "{err}");
}
