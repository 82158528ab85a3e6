//! What can be shown without a reference: that its absence is never a pass, and wrong usage never a finding.

use crate::tool::{arg, golden, xtask};
use crate::{check, trial};
use bitnet_harness::Cell;
use bitnet_harness::Failure;
use bitnet_harness::provenance::{self, HostInfo};
use bitnet_harness::record::{self, HarnessInfo, Record};
use bitnet_harness::roster::Named;
use bitnet_harness::run::{self, Run};
use bitnet_harness::verdict::{Availability, Outcome};
use std::collections::BTreeMap;

pub(crate) fn trials() -> Vec<Named> {
    let here = |name: &str, run: fn() -> Result<(), Failure>| trial(name, Availability::Available, run);
    vec![
        here("cli::unavailable", unavailable),
        here("cli::full_unavailable", full_unavailable),
        here("cli::unsupported", unsupported),
        here("cli::usage", usage),
        here("cli::no_receipt", no_receipt),
        here("cli::flip_weight", flip_weight),
        here("cli::report", report),
    ]
}

const TINY: &str = "models/tiny-bitnet.gguf";

/// Exit 4 in both forms; nothing is said to have run.
fn unavailable() -> Result<(), Failure> {
    let empty = tempfile::tempdir()?;
    let model = golden(TINY);
    let args = ["crossval-per-token", "--model", &model, "--prompt", "In the beginning", "--trace"];
    let text = xtask(&args, Some(empty.path()))?.expect(4)?;
    check(text.out.contains("unavailable (exit 4)") && text.out.contains("cargo xtask setup-cpp bitnet"), &text.out)?;
    check(!text.out.contains('\x1b'), "colours where there is no terminal")?;
    let json = xtask(&[&args[..], &["--format", "json"]].concat(), Some(empty.path()))?.expect(4)?.json()?;
    check(
        json["verdict"] == "unavailable" && json["exit_code"] == 4 && json["reference"]["status"] == "not_run",
        &json,
    )?;
    check(json["prompts"].as_array().is_some_and(Vec::is_empty), &json)
}

/// The receipt of a run that could not be is valid, and says so.
fn full_unavailable() -> Result<(), Failure> {
    let empty = tempfile::tempdir()?;
    let (model, receipt) = (golden(TINY), arg(&empty.path().join("r.json")));
    let args = ["full-crossval", "--model", &model, "--receipt", &receipt, "--format", "json"];
    let json = xtask(&args, Some(empty.path()))?.expect(4)?.json()?;
    for part in ["tokenizer_parity", "performance", "reference"] {
        check(json[part]["status"] == "not_run", format_args!("{part}: {json}"))?;
    }
    let verified = xtask(&["receipt", "verify", &receipt], None)?.expect(0)?;
    check(verified.out.contains("valid: unavailable (exit 4)"), &verified.out)?;
    let text = std::fs::read_to_string(&receipt)?;
    let edited = text.replacen("\"verdict\": \"unavailable\"", "\"verdict\": \"parity\"", 1);
    check(edited != text, "no verdict in the receipt")?;
    std::fs::write(&receipt, edited)?;
    let refused = xtask(&["receipt", "verify", &receipt], None)?.expect(1)?;
    check(refused.out.contains("report.verdict"), &refused.out)
}

/// A backend that cannot run the file: exit 4, with the reason.
fn unsupported() -> Result<(), Failure> {
    let model = golden(TINY);
    let args = ["crossval-per-token", "--model", &model, "--prompt", "x", "--cpp-backend", "llama"];
    let text = xtask(&args, None)?.expect(4)?;
    check(text.out.contains("I2_S"), &text.out)
}

/// Exit 3, whoever notices: the parser of the command line or the command; a document in JSON from the command.
fn usage() -> Result<(), Failure> {
    let model = golden(TINY);
    let refused_by_parser: [&[&str]; 5] = [
        &["crossval-per-token", "--model", &model],
        &["crossval-per-token", "--model", &model, "--prompt", "x", "--cpp-backend", "other"],
        &["crossval-per-token", "--model", &model, "--prompt", "x", "--cos-tol", "1.5"],
        &["crossval", "--model", &model],
        &["receipt", "verify"],
    ];
    for args in refused_by_parser {
        let ran = xtask(args, None)?.expect(3)?;
        check(ran.out.is_empty() && ran.err.contains("error:"), format_args!("{args:?}: {}", ran.err))?;
        let json = xtask(&[args, &["--format", "json"]].concat(), None)?.expect(3)?.json()?;
        check(json["verdict"] == "usage" && json["exit_code"] == 3 && json["command"] == args[0], &json)?;
    }
    let refused_by_command: [(&[&str], &str); 6] = [
        (&["crossval-per-token", "--model", "nowhere.gguf", "--prompt", "x"], "nowhere.gguf"),
        (&["crossval-per-token", "--prompt", "x"], "BITNET_GGUF"),
        (&["full-crossval"], "BITNET_GGUF"),
        (&["crossval-per-token", "--model", &model, "--prompt", "x", "--positions", "3-1"], "--positions"),
        (&["crossval-per-token", "--model", &model, "--prompt", "x", "--positions", "0,99"], "99 was asked for"),
        (&["crossval-per-token", "--model", &model, "--prompt", "x", "--tokenizer", "nowhere"], "nowhere"),
    ];
    for (args, word) in refused_by_command {
        let text = xtask(args, None)?.expect(3)?;
        check(text.out.is_empty() && text.err.contains(word), format_args!("{args:?}: {}", text.err))?;
        let json = xtask(&[args, &["--format", "json"]].concat(), None)?.expect(3)?.json()?;
        check(json["verdict"] == "usage" && json["exit_code"] == 3, &json)?;
    }
    xtask(&["crossval-per-token", "--help"], None)?.expect(0)?;
    // Other commands keep their code.
    xtask(&["report", "--nonsense"], None)?.expect(2)?;
    Ok(())
}

fn no_receipt() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = arg(&folder.path().join("x.json"));
    xtask(&["receipt", "verify", &path], None)?.expect(3)?;
    std::fs::write(&path, "{}")?;
    xtask(&["receipt", "verify", &path, "--format", "json"], None)?.expect(3)?.json()?;
    Ok(())
}

fn flip_weight() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (model, out) = (golden(TINY), arg(&folder.path().join("x.gguf")));
    let args = ["flip-weight", "--model", &model, "--tensor", "blk.0.ffn_up.weight", "--row", "3", "-o", &out];
    xtask(&args, None)?.expect(0)?;
    let (before, after) = (std::fs::read(&model)?, std::fs::read(&out)?);
    let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    check(before.len() == after.len() && differing == 1, format_args!("{differing} bytes differ"))?;
    xtask(&["flip-weight", "--model", &model, "--tensor", "nothing", "-o", &out], None)?.expect(1)?;
    Ok(())
}

/// What was to be run and has no record is red, and red is exit code 1.
fn report() -> Result<(), Failure> {
    let (folder, empty) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let none = xtask(&["report", &arg(empty.path())], None)?.expect(1)?;
    check(none.err.contains("has no run.json"), &none.err)?;
    let names = ["kernels::f32::cpu-scalar::native::ops", "tiny-bitnet::i2_s::cpu-scalar::native::load"];
    let harness = HarnessInfo { version: String::new(), commit: Some("feedbeef".to_owned()) };
    let run = Run {
        schema: run::SCHEMA,
        id: None,
        selection: "--check ops,load".to_owned(),
        host: HostInfo::here(),
        harness: harness.clone(),
        timestamp: provenance::now(),
        cells: names.map(str::to_owned).to_vec(),
        elsewhere: BTreeMap::new(),
    };
    run::begin(folder.path(), &run)?;
    let record = |name: &str, outcome| -> Result<(), Failure> {
        let record = Record {
            schema: record::SCHEMA,
            name: name.to_owned(),
            outcome,
            reason: None,
            remedy: None,
            expected: None,
            metrics: BTreeMap::new(),
            seed: String::new(),
            kernel: None,
            model_sha256: None,
            reference: None,
            duration_ms: 1.0,
            host: HostInfo::here(),
            harness: harness.clone(),
            timestamp: provenance::now(),
            run: None,
        };
        Ok(record::write(folder.path(), &name.parse::<Cell>()?, &record)?)
    };
    let (path, page) = (arg(folder.path()), arg(&empty.path().join("page.html")));
    record(names[0], Outcome::Pass)?;
    let lost = xtask(&["report", &path, "--html", &page], None)?.expect(1)?;
    check(lost.out.contains(&format!("missing: {}", names[1])) && lost.out.contains("+ missing 1"), &lost.out)?;
    check(std::fs::read_to_string(&page)?.contains("has no record"), "the page does not show it")?;
    record(names[1], Outcome::Fail)?;
    xtask(&["report", &path], None)?.expect(1)?;
    record(names[1], Outcome::Pass)?;
    let green = xtask(&["report", &path], None)?.expect(0)?;
    check(green.out.contains("= pass 2 +"), &green.out)
}
