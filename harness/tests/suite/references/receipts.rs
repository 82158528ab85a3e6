//! Receipts: written from a real comparison, checked, and edited in every kind of place.

use super::stage::{asked, flipped, ours, report, tiny};
use crate::{check, trial};
use bitnet_harness::Failure;
use bitnet_harness::crossval::receipt::{Receipt, ReceiptError, verify};
use bitnet_harness::crossval::report::{Section, Verdict};
use bitnet_harness::roster::Named;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(crate) fn trials() -> Vec<Named> {
    vec![
        trial("receipt::follows", follows),
        trial("receipt::of_a_divergence", of_a_divergence),
        trial("receipt::of_nothing", of_nothing),
        trial("receipt::edited", edited),
        trial("receipt::edited_and_sealed_again", sealed_again),
        trial("receipt::said_to_have_run", said_to_have_run),
        trial("receipt::other_file", other_file),
        trial("receipt::no_receipt", no_receipt),
    ]
}

struct Written {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Written {
    fn of(receipt: &Receipt) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("receipt.json");
        receipt.write(&path)?;
        Ok(Self { folder, path })
    }

    /// Replaces the first `from` behind the first `after`.
    fn edit(&self, after: &str, from: &str, to: &str) -> Result<PathBuf, Failure> {
        let text = std::fs::read_to_string(&self.path)?;
        let start = text.find(after).ok_or_else(|| Failure::new(format_args!("there is no {after}")))?;
        let (head, tail) = text.split_at(start);
        let changed = head.to_owned() + &tail.replacen(from, to, 1);
        if changed == text {
            return Err(Failure::new(format_args!("there is no {from} behind {after}")));
        }
        let path = self.folder.path().join("edited.json");
        std::fs::write(&path, changed)?;
        Ok(path)
    }
}

fn parity() -> Result<Receipt, Failure> {
    let (report, data) = report(&mut ours(tiny()?)?, &mut ours(tiny()?)?, &asked(3, true))?;
    check(report.verdict == Verdict::Parity, &report.reason)?;
    Ok(Receipt::new(report, &data))
}

fn follows() -> Result<(), Failure> {
    let receipt = parity()?;
    let (read, verified) = verify(&Written::of(&receipt)?.path, None)?;
    let prompts =
        |r: &Receipt| r.report.prompts.iter().map(|p| (p.prompt.clone(), p.tokens.clone())).collect::<Vec<_>>();
    check(prompts(&read) == prompts(&receipt) && read.data == receipt.data, "it changed on its way through the file")?;
    // The file that a test names is nowhere.
    check(verified.not_checked.len() == 1 && verified.checked.len() == 3, format_args!("{verified:?}"))
}

fn of_a_divergence() -> Result<(), Failure> {
    let mut wrong = flipped("blk.1.ffn_up.weight", 5, 11)?;
    let (report, data) = report(&mut ours(tiny()?)?, &mut wrong, &asked(3, true))?;
    check(report.exit_code == 1, &report.reason)?;
    let written = Written::of(&Receipt::new(report, &data))?;
    verify(&written.path, None)?;
    // The verdict alone cannot be made good.
    let path = written.edit("\"verdict\": \"divergence\"", "divergence", "parity")?;
    refused(&path, "report.verdict")
}

/// A receipt of a run without a reference is valid and no pass.
fn of_nothing() -> Result<(), Failure> {
    let mut receipt = parity()?;
    receipt.report.prompts.clear();
    receipt.data.clear();
    receipt.report.reference = Section::not_run("the worker is not built");
    let honest = Receipt { report: receipt.report.clone().judged(), ..receipt.clone() };
    check(honest.report.verdict == Verdict::Unavailable, &honest.report.reason)?;
    verify(&Written::of(&honest)?.path, None)?;
    // The same with the verdict of the run that was cut away.
    refused(&Written::of(&receipt)?.path, "report.")
}

fn refused(path: &std::path::Path, field: &str) -> Result<(), Failure> {
    match verify(path, None) {
        Ok(_) => Err(Failure::new(format_args!("a receipt with another {field} is valid"))),
        Err(error) => {
            check(error.to_string().contains(field), format_args!("{field} was edited, and it says: {error}"))
        }
    }
}

fn edited() -> Result<(), Failure> {
    let written = Written::of(&parity()?)?;
    let text = std::fs::read_to_string(&written.path)?;
    let first = "\"comparison\"";
    let derived: [(&str, &str, &str); 6] = [
        ("gap", "7.25", "positions[0].gap"),
        ("cosine", "0.75", "positions[0].cosine"),
        ("max_abs", "0.125", "positions[0].max_abs"),
        ("top1_ours", "3", "positions[0].top1_ours"),
        ("clear", "99", "comparison.clear"),
        ("least_cosine", "0.5", "comparison.least_cosine"),
    ];
    for (key, value, field) in derived {
        let behind = if key == "least_cosine" { "\"first_divergence\"" } else { first };
        let (_, tail) = text.split_once(behind).ok_or_else(|| Failure::new(behind))?;
        let (_, tail) = tail.split_once(&format!("\"{key}\": ")).ok_or_else(|| Failure::new(key))?;
        let old: String = tail.chars().take_while(|c| !",\n".contains(*c)).collect();
        let path = written.edit(behind, &format!("\"{key}\": {old}"), &format!("\"{key}\": {value}"))?;
        refused(&path, field)?;
    }
    // A logit: the figures no longer follow from it.
    let data = text.find("\"data\"").ok_or_else(|| Failure::new("no data"))?;
    let (_, tail) = text[data..].split_once("\"ours\": \"").ok_or_else(|| Failure::new("no row"))?;
    let old: String = tail.chars().take(8).collect();
    let path = written.edit("\"data\"", &format!("\"ours\": \"{old}"), "\"ours\": \"AAAAQAAA")?;
    refused(&path, "positions[0]")?;
    // What cannot be derived is sealed: a time, a version, a step's distance, a name.
    for (behind, from, to) in [
        ("\"seconds\"", "\"tokens\": ", "\"tokens\": 1"),
        ("\"made_at\"", "20", "19"),
        ("\"engine\"", "0.1", "0.2"),
        ("\"model\"", "\"sha256\": \"", "\"sha256\": \"0"),
    ] {
        refused(&written.edit(behind, from, to)?, "seal")?;
    }
    Ok(())
}

/// Whoever writes the seal again still has to make everything follow.
fn sealed_again() -> Result<(), Failure> {
    type Edit = fn(&mut Receipt);
    let edits: [(&str, Edit); 6] = [
        ("report.reason", |r| r.report.reason = "all is well".to_owned()),
        ("report.exit_code", |r| r.report.exit_code = 1),
        ("tokens.equal", |r| r.report.prompts.iter_mut().for_each(|p| set(&mut p.tokens, |t| t.equal = false))),
        ("generation.equal", |r| r.report.prompts.iter_mut().for_each(|p| set(&mut p.generation, |g| g.equal = false))),
        ("trace.steps[0].diverges", |r| {
            r.report.prompts.iter_mut().for_each(|p| {
                set(&mut p.trace, |t| t.steps.iter_mut().take(1).for_each(|s| s.diverges = true));
            });
        }),
        ("data[0]", |r| r.data.iter_mut().for_each(|rows| drop(rows.pop()))),
    ];
    let receipt = parity()?;
    for (field, edit) in edits {
        let mut wrong = receipt.clone();
        edit(&mut wrong);
        refused(&Written::of(&wrong)?.path, field)?;
    }
    Ok(())
}

fn set<T>(section: &mut Section<T>, edit: impl FnOnce(&mut T)) {
    if let Section::Ran(found) = section {
        edit(found);
    }
}

/// Nothing can be said to have run of which the file holds no trace.
fn said_to_have_run() -> Result<(), Failure> {
    let receipt = parity()?;
    let mut no_reference = receipt.clone();
    no_reference.report.reference = Section::not_run("never started");
    refused(&Written::of(&no_reference)?.path, "report.reference")?;
    let mut no_version = receipt.clone();
    set(&mut no_version.report.reference, |r| r.version = Value::Null);
    refused(&Written::of(&no_version)?.path, "report.reference")?;
    let mut no_data = receipt.clone();
    no_data.data = vec![Vec::new()];
    refused(&Written::of(&no_data)?.path, "data[0]")?;
    let mut other_sequence = receipt;
    other_sequence.report.prompts.iter_mut().for_each(|p| set(&mut p.logits, |l| l.sequence.push(1)));
    refused(&Written::of(&other_sequence)?.path, "logits.sequence")
}

fn other_file() -> Result<(), Failure> {
    let written = Written::of(&parity()?)?;
    let here = written.folder.path().join("model.gguf");
    let mut bytes = Vec::new();
    tiny()?.copy_to(&mut bytes)?;
    std::fs::write(&here, &bytes)?;
    let (_, verified) = verify(&written.path, Some(&here))?;
    check(verified.not_checked.is_empty(), format_args!("{verified:?}"))?;
    bytes.push(0);
    std::fs::write(&here, &bytes)?;
    match verify(&written.path, Some(&here)) {
        Err(ReceiptError::OtherFile { field, .. }) => check(field == "report.model.sha256", field),
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

fn no_receipt() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.json");
    check(matches!(verify(&path, None), Err(ReceiptError::Io { .. })), "a file that is not there")?;
    for text in ["", "{}", "[1]", &json!({ "receipt": "another", "data": [] }).to_string()] {
        std::fs::write(&path, text)?;
        check(matches!(verify(&path, None), Err(ReceiptError::Malformed { .. })), text)?;
    }
    Ok(())
}
