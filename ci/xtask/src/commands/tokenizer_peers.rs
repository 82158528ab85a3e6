//! `cargo xtask bench-tokenizers` and `cargo xtask fuzz-tokenizer`: the program of `harness/tokenizer-peers`, which is a Cargo
//! workspace of its own, built into the build folder.

use super::bench_peers::put;
use crate::root::{cargo_build, root, target};
use anyhow::{Context, ensure};
use bitnet_harness::bench::plot::PlotError;
use bitnet_harness::bench::tokenizers::{TokenizersReport, markdown, svg};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn records() -> PathBuf {
    root().join("golden/records")
}

/// Builds the program and runs one of its commands.
fn run(command: &str, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let build = target().join("tokenizer-peers");
    let manifest = root().join("harness/tokenizer-peers/Cargo.toml");
    eprintln!("building harness/tokenizer-peers, minutes for the first time");
    let mut cargo = cargo_build(&manifest, &build);
    cargo.arg("--quiet");
    let status = cargo.status().with_context(|| format!("cannot run {cargo:?}"))?;
    ensure!(status.success(), "the peers do not build: {cargo:?} ended with {status}");
    let program = build.join("release").join(format!("tokenizer-peers{}", std::env::consts::EXE_SUFFIX));
    // Cargo's variable for the checkout is ours; fixtures are found from there.
    let status = Command::new(&program).arg(command).args(args).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fixtures fetch text-english text-code text-multilingual\n  cargo xtask bench-tokenizers --vocab llama3 --text mixed --rounds 5\n  cargo xtask bench-tokenizers --record\n\nFlags after -- go to the measuring program: --vocab, --text, --peer, --documents, --megabytes, --rounds, --noise, --corpus, --generated.\n\nExit codes: 0 measured, 1 an error, ids of ours that are not the reference's, or a ratio below golden/targets.toml."
)]
pub(crate) struct Bench {
    /// Write the table, the record and the drawing into golden/records/.
    #[arg(long)]
    record: bool,
    /// The vocabulary that is drawn.
    #[arg(long, default_value = "llama3", value_name = "NAME")]
    draw: String,
    /// The record as one JSON document in place of the table.
    #[arg(long)]
    json: bool,
    /// Flags of the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<OsString>,
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let out = target().join("bench/tokenizers.json");
        put(&out, "")?;
        let args = [&[OsString::from("--out"), out.clone().into_os_string()], &self.flags[..]].concat();
        let code = run("bench", &args)?;
        let text = std::fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
        ensure!(!text.is_empty(), "nothing was measured");
        let report: TokenizersReport =
            serde_json::from_str(&text).with_context(|| format!("cannot understand {}", out.display()))?;
        let page = markdown(&report);
        eprintln!("record: {}", out.display());
        std::io::stdout().lock().write_all(if self.json { text.as_bytes() } else { page.as_bytes() })?;
        if self.record {
            self.keep(&report, &text, &page, &records())?;
        }
        let below = report.below(&bitnet_golden::targets::read(&root().join("golden"))?.peers);
        below.iter().for_each(|line| eprintln!("below golden/targets.toml: {line}"));
        Ok(if below.is_empty() { code } else { ExitCode::FAILURE })
    }

    fn keep(&self, report: &TokenizersReport, text: &str, page: &str, folder: &Path) -> anyhow::Result<()> {
        put(&folder.join("tokenizers.json"), text)?;
        let head = "# Tokenizers\n\n`cargo xtask bench-tokenizers --record`; the figures are in `tokenizers.json`.\n\n";
        let drawing = match svg(report, &self.draw) {
            Ok(svg) => {
                put(&folder.join("tokenizers.svg"), &svg)?;
                format!("![{}: ours and the others](tokenizers.svg)\n\n", self.draw)
            }
            Err(PlotError::Nothing) => String::new(),
            Err(error) => return Err(error.into()),
        };
        put(&folder.join("tokenizers.md"), &format!("{head}{drawing}{page}"))
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz-tokenizer --seconds 60 --seed 7\n  cargo xtask fuzz-tokenizer --vocab llama3 --text target/fuzz-tokenizer/llama3-7.txt\n\nExit codes: 0 all ids agree, 1 a difference or an error. Known differences: golden/tokenizer-peers.toml."
)]
pub(crate) struct Fuzz {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The texts of a run are those of its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A vocabulary; may be given several times [default: all that are here].
    #[arg(long, value_name = "NAME")]
    vocab: Vec<String>,
    /// Compare this text and nothing else: a difference that was found before.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// A folder with english.txt, code.txt and multilingual.txt, in place of the fixtures.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Texts that are made from seeds, in place of the fixtures.
    #[arg(long, conflicts_with = "corpus")]
    generated: bool,
}

impl Fuzz {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut args: Vec<OsString> = vec!["--out".into(), target().join("fuzz-tokenizer").into()];
        let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        flag("--seconds", self.seconds.to_string().into());
        flag("--seed", self.seed.to_string().into());
        for name in &self.vocab {
            flag("--vocab", name.into());
        }
        for (name, path) in [("--text", &self.text), ("--corpus", &self.corpus)] {
            if let Some(path) = path {
                flag(name, path.into());
            }
        }
        if self.generated {
            args.push("--generated".into());
        }
        run("fuzz", &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_three_files() {
        let report: TokenizersReport = serde_json::from_value(serde_json::json!({
            "at": "2026-11-28T12:00:00Z", "commit": null, "host": {"os": "linux", "arch": "x86_64", "features": []},
            "cpu": "a processor", "rounds": 1, "texts": [], "engines": [], "absent": [],
            "vocabularies": [{"name": "llama3", "about": "", "foreign": null, "engines": [
                {"engine": "ours", "failure": null, "inexact": null, "load_ms": null, "rates": [
                    {"text": "mixed", "kib": 4, "state": "cold", "ours_is": null,
                     "megabytes_per_second": {"median": 2.0, "least": 1.0, "most": 3.0}}]},
                {"engine": "peer", "failure": null, "inexact": null, "load_ms": null, "rates": [
                    {"text": "mixed", "kib": 4, "state": "cold", "ours_is": {"median": 2.0, "least": 2.0, "most": 2.0},
                     "megabytes_per_second": {"median": 1.0, "least": 1.0, "most": 1.0}}]},
            ]}],
        }))
        .expect("a report");
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Bench { record: true, draw: "llama3".into(), json: false, flags: Vec::new() };
        bench.keep(&report, "{}", &markdown(&report), folder.path()).expect("kept");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
        assert_eq!(read("tokenizers.json"), "{}");
        assert!(read("tokenizers.svg").contains("mixed, cold, peer"));
        assert!(
            read("tokenizers.md").contains("](tokenizers.svg)") && read("tokenizers.md").contains("| peer | equal |")
        );
    }
}
