//! Faults planted by hand: what no rule makes, such as a wrong tail of one kernel. `golden/planted.toml` has them.

use super::trial::{Verdict, try_all};
use super::{Mutant, copy_tracked};
use crate::root::{root, target};
use anyhow::{Context, ensure};
use bitnet_golden::mutants::{Mutants, Room};
use bitnet_golden::planted;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Tries the faults of some rooms and writes what the suite said of each.
pub(super) fn run(data: &Mutants, rooms: &[&Room], record: Option<&Path>) -> anyhow::Result<ExitCode> {
    let faults = planted::read(&root().join("golden"))?;
    let tree = target().join("mutants/tree");
    let mut page = String::from("| room | fault | red | what it says |\n|---|---|---|---|\n");
    let (mut tried, mut seen) = (0, 0);
    for room in rooms {
        let mine: Vec<_> = faults.iter().filter(|fault| fault.room == room.name).collect();
        if mine.is_empty() {
            continue;
        }
        let as_mutant = |fault: &&planted::Planted| Mutant {
            name: fault.about.clone(),
            file: fault.file.clone(),
            genre: "Planted".to_owned(),
            replacement: fault.to.clone(),
            original: fault.from.clone(),
            ..Mutant::default()
        };
        let mutants: Vec<Mutant> = mine.iter().map(as_mutant).collect();
        copy_tracked(&root(), &tree)?;
        let verdicts = try_all(room, &data.cargo_args, &tree, &mutants, &mut |_, _| ())?;
        copy_tracked(&root(), &tree)?;
        for (mutant, verdict) in mutants.iter().zip(verdicts) {
            let (red, words) = match verdict {
                Verdict::Caught(test, words) => (format!("`{test}`"), words),
                Verdict::Hung => ("time out".to_owned(), "the tests did not end".to_owned()),
                Verdict::Missed(tests) => ("**nothing**".to_owned(), format!("{tests} tests ran it and were green")),
                Verdict::Unviable => ("**nothing**".to_owned(), "it does not compile".to_owned()),
                Verdict::Apart => ("**nothing**".to_owned(), "it cannot be asked for at run time".to_owned()),
            };
            tried += 1;
            seen += usize::from(!red.starts_with("**"));
            let words = words.replace('|', "\\|");
            let line = format!("| {} | {} | {red} | {words} |", room.name, mutant.name);
            println!("{line}");
            let _ = writeln!(page, "{line}");
        }
    }
    ensure!(tried > 0, "golden/planted.toml has no faults for these rooms");
    println!("{seen} of {tried} planted faults turn a test red");
    if let Some(path) = record {
        std::fs::write(path, &page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::from(u8::from(seen < tried)))
}
