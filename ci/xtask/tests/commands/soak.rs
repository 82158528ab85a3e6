//! The soak keeps its promises, and a planted wrong byte turns it red.

use std::process::{Command, Output};

fn soak(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).arg("soak").args(args).output().expect("xtask starts")
}

#[test]
fn a_small_soak_keeps_its_promises() {
    let out = soak(&["--downloads", "60", "--processes", "6", "--seed", "3", "--format", "json"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON and nothing else");
    for (name, value) in [("sound", 60), ("corrupt", 0), ("lost", 0), ("hangs", 0), ("kills", 6), ("files", 10)] {
        assert_eq!(summary[name], value, "{name}: {text}");
    }
}

#[test]
fn a_wrong_byte_is_seen() {
    let out = soak(&["--downloads", "8", "--processes", "2", "--kills", "0", "--planted"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("BROKEN PROMISE: 2 corrupt files"), "{text}");
}
