//! Compiles everything, and says what is wrong.

use super::{VERBOSE, cubin, ptxas};
use bitnet_golden::cuda::Cuda;
use bitnet_kernels::cuda::architecture::Architecture;
use bitnet_kernels::cuda::nvrtc::{Compiled, Nvrtc, NvrtcError, Program};
use bitnet_kernels::cuda::overlap;
use serde::Serialize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) text: String,
    /// The entries that it must have, and no others; none: whatever it has.
    pub(super) entries: Option<Vec<String>>,
    pub(super) headers: Vec<(String, String)>,
}

/// What an entry takes of the card: bytes, but for the registers of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cost {
    pub(super) registers: u64,
    pub(super) spill_stores: u64,
    pub(super) spill_loads: u64,
    pub(super) stack: u64,
    /// Of a block, as far as the source fixes it.
    pub(super) shared: u64,
    /// Parameters, and what compiler and driver keep beside them.
    pub(super) constant: u64,
    /// Fetches from memory before it waits for earlier launches; none if it does not wait.
    pub(super) early: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) source: String,
    pub(super) entry: String,
    pub(super) architecture: String,
    /// Absent if the entry is.
    pub(super) cost: Option<Cost>,
    /// What is wrong, if anything is.
    pub(super) finding: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) outcome: &'static str,
    pub(super) nvrtc: String,
    pub(super) library: String,
    pub(super) options: Vec<String>,
    pub(super) architectures: Vec<String>,
    /// Architectures that this NVRTC does not offer.
    pub(super) left_out: Vec<String>,
    pub(super) sources: usize,
    pub(super) rows: Vec<Row>,
    /// What is wrong and belongs to no row: sources that do not compile, allowances that nothing needs.
    pub(super) failures: Vec<String>,
    /// What the compiler warned of.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Something was compiled and nothing is wrong.
    pub(super) fn green(&self) -> bool {
        self.outcome == "green"
    }
}

/// Compiles every unit for every architecture. `all`: these are the kernels, so an allowance that fits none is wrong.
pub(super) fn judge(
    golden: &Cuda,
    nvrtc: &Nvrtc,
    units: &[Unit],
    architectures: &[Architecture],
    left_out: Vec<String>,
    all: bool,
) -> Findings {
    let (mut rows, mut failures, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let jobs: Vec<(&Unit, Architecture)> =
        units.iter().flat_map(|unit| architectures.iter().map(move |architecture| (unit, *architecture))).collect();
    for ((unit, architecture), result) in jobs.iter().zip(compile(nvrtc, &jobs)) {
        match result {
            Some(Ok(compiled)) => {
                let (of_unit, said) = rows_of(golden, unit, *architecture, &compiled);
                if of_unit.is_empty() {
                    failures.push(format!("`{}` has no entry for {architecture}", unit.name));
                }
                rows.extend(of_unit);
                warnings.extend(said);
            }
            Some(Err(error)) => failures.push(error.to_string()),
            None => failures.push(format!("`{}` was not compiled for {architecture}", unit.name)),
        }
    }
    // A warning comes once for each architecture.
    let mut seen = std::collections::BTreeSet::new();
    warnings.retain(|line: &String| seen.insert(line.clone()));
    if all && failures.is_empty() {
        failures.extend(stale(golden, &rows, architectures));
        failures.extend(unknown(golden, &rows));
    }
    let green = failures.is_empty() && !rows.is_empty() && rows.iter().all(|row| row.finding.is_none());
    let (major, minor) = nvrtc.version();
    Findings {
        outcome: if green { "green" } else { "red" },
        nvrtc: format!("{major}.{minor}"),
        library: nvrtc.place().to_owned(),
        options: bitnet_kernels::cuda::nvrtc::OPTIONS.iter().map(|option| (*option).to_owned()).collect(),
        architectures: architectures.iter().map(ToString::to_string).collect(),
        left_out,
        sources: units.len(),
        rows,
        failures,
        warnings,
    }
}

/// Compiles everything on all processors; the results stand in the order of the jobs.
fn compile(nvrtc: &Nvrtc, jobs: &[(&Unit, Architecture)]) -> Vec<Option<Result<Compiled, NvrtcError>>> {
    let results: Vec<OnceLock<_>> = jobs.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut at = next.fetch_add(1, Ordering::Relaxed);
        while let (Some((unit, architecture)), Some(slot)) = (jobs.get(at), results.get(at)) {
            let headers: Vec<(&str, &str)> = unit.headers.iter().map(|(name, text)| (&**name, &**text)).collect();
            let program = Program { name: &unit.name, text: &unit.text, headers: &headers };
            // Each slot is set once.
            let _ = slot.set(nvrtc.compile(&program, *architecture, &[VERBOSE]));
            at = next.fetch_add(1, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    results.into_iter().map(OnceLock::into_inner).collect()
}

/// The rows of one compilation, and what the compiler said beside them.
fn rows_of(golden: &Cuda, unit: &Unit, architecture: Architecture, compiled: &Compiled) -> (Vec<Row>, Vec<String>) {
    let log = ptxas::read(&compiled.log);
    let named = architecture.to_string();
    let row = |entry: &str, cost, finding| Row {
        source: unit.name.clone(),
        entry: entry.to_owned(),
        architecture: named.clone(),
        cost,
        finding,
    };
    let there = match cubin::entries(&compiled.cubin) {
        Ok(there) => there,
        Err(error) => {
            let finding = format!("NVRTC made no cubin that can be read: {error}");
            return (vec![row("(all)", None, Some(finding))], log.other);
        }
    };
    let wanted = unit.entries.clone().unwrap_or_else(|| there.keys().cloned().collect());
    let mut rows = Vec::new();
    for entry in &wanted {
        let Some(known) = there.get(entry) else {
            let names: Vec<&str> = there.keys().map(String::as_str).collect();
            let finding = format!("ABSENT: the cubin of {} has {}", unit.name, names.join(", "));
            rows.push(row(entry, None, Some(finding)));
            continue;
        };
        let cost = log.functions.get(entry).filter(|function| function.entry).and_then(|function| {
            Some(Cost {
                registers: function.registers?,
                spill_stores: function.spill_stores?,
                spill_loads: function.spill_loads?,
                stack: function.stack?,
                shared: function.shared,
                constant: known.constant,
                early: known.early,
            })
        });
        let finding = cost.as_ref().map_or_else(
            || Some("UNMEASURED: the compiler's log does not say registers and spills of it".to_owned()),
            |cost| {
                let spills = cost.spill_stores + cost.spill_loads;
                spilled(golden, entry, &named, spills).or_else(|| late(golden, entry, architecture, cost.early))
            },
        );
        rows.push(row(entry, cost, finding));
    }
    for entry in there.keys().filter(|entry| !wanted.contains(entry)) {
        let finding = format!("UNLISTED: {} does not list it, so nothing can launch it", unit.name);
        rows.push(row(entry, None, Some(finding)));
    }
    // A device function that was not inlined spills for whoever calls it.
    for (name, function) in log.functions.iter().filter(|(_, function)| !function.entry) {
        let bytes = function.spill_stores.unwrap_or(0) + function.spill_loads.unwrap_or(0);
        if let Some(finding) = spilled(golden, name, &named, bytes) {
            rows.push(row(name, None, Some(finding)));
        }
    }
    (rows, log.other)
}

fn spilled(golden: &Cuda, function: &str, architecture: &str, bytes: u64) -> Option<String> {
    let limit = golden.limit(function, architecture);
    (bytes > limit).then(|| format!("SPILLS {bytes} bytes, golden/gates/cuda.toml allows {limit}"))
}

/// Whether an entry that is launched early waits, and fetches before that what it should. Architectures that cannot have no wait.
fn late(golden: &Cuda, entry: &str, architecture: Architecture, early: Option<u64>) -> Option<String> {
    if !overlap::compiled(architecture) || !overlap::overlaps(entry) {
        return None;
    }
    let wanted = golden.early.iter().find(|wanted| wanted.entry == entry).map_or(0, |wanted| wanted.fetches);
    match early {
        None => Some("NO WAIT for earlier launches, with which it is started".to_owned()),
        Some(early) if early < wanted => {
            Some(format!("LATE: {early} fetches before it waits, golden/gates/cuda.toml wants {wanted}"))
        }
        Some(_) => None,
    }
}

/// Allowances that no entry needs.
fn stale(golden: &Cuda, rows: &[Row], architectures: &[Architecture]) -> Vec<String> {
    let asked = |name: &str| architectures.iter().any(|architecture| architecture.to_string() == name);
    let spills = |row: &Row| row.cost.as_ref().map_or(0, |cost| cost.spill_stores + cost.spill_loads);
    golden
        .spills
        .iter()
        .filter(|spill| asked(&spill.architecture))
        .filter(|spill| {
            let own = |row: &&Row| row.entry == spill.entry && row.architecture == spill.architecture;
            !rows.iter().filter(own).any(|row| spills(row) > golden.spill_bytes)
        })
        .map(|spill| {
            format!(
                "golden/gates/cuda.toml lets `{}` spill on {}, which it does not, or not any more; take the entry out",
                spill.entry, spill.architecture
            )
        })
        .collect()
}

/// Entries that are asked to fetch early, and are not there.
fn unknown(golden: &Cuda, rows: &[Row]) -> Vec<String> {
    let names = golden.early.iter().map(|early| &early.entry);
    let gone = names.filter(|name| rows.iter().all(|row| row.entry != **name));
    gone.map(|name| format!("golden/gates/cuda.toml wants early fetches of `{name}`, which no source has")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Cuda {
        let spill = bitnet_golden::cuda::Spill {
            entry: "k".to_owned(),
            architecture: "sm_80".to_owned(),
            bytes: 16,
            reason: "why".to_owned(),
        };
        let early = bitnet_golden::cuda::Early { entry: "bn_gemv_add".to_owned(), fetches: 3 };
        Cuda {
            schema: 1,
            architectures: Vec::new(),
            spill_bytes: 4,
            spills: vec![spill],
            early: vec![early],
            nvrtc: Vec::new(),
        }
    }

    fn row(spill_stores: u64) -> Row {
        let cost = Cost { registers: 8, spill_stores, spill_loads: 2, stack: 0, shared: 0, constant: 0, early: None };
        let name = |name: &str| name.to_owned();
        Row { source: name("s"), entry: name("k"), architecture: name("sm_80"), cost: Some(cost), finding: None }
    }

    #[test]
    fn an_entry_may_spill_as_much_as_it_is_allowed() {
        let golden = golden();
        assert_eq!(spilled(&golden, "k", "sm_80", 16), None);
        assert_eq!(spilled(&golden, "j", "sm_80", 4), None);
        for (entry, architecture, bytes, want) in
            [("k", "sm_80", 17, "allows 16"), ("k", "sm_90a", 5, "allows 4"), ("j", "sm_80", 5, "SPILLS 5 bytes")]
        {
            assert!(spilled(&golden, entry, architecture, bytes).unwrap().contains(want), "{want}");
        }
    }

    #[test]
    fn an_allowance_that_nothing_needs_is_wrong() {
        let (golden, sm_80, sm_90) = (golden(), "sm_80".parse().unwrap(), "sm_90".parse().unwrap());
        assert!(stale(&golden, &[row(3)], &[sm_80]).is_empty());
        assert_eq!(stale(&golden, &[row(2)], &[sm_80]).len(), 1, "within what everybody may");
        assert_eq!(stale(&golden, &[], &[sm_80, sm_90]).len(), 1, "no such entry");
        assert!(stale(&golden, &[], &[sm_90]).is_empty(), "nothing was compiled for it");
    }

    #[test]
    fn an_entry_that_begins_early_fetches_early() {
        let golden = golden();
        let late = |entry, architecture: &str, early| late(&golden, entry, architecture.parse().unwrap(), early);
        assert_eq!(late("bn_gemv_add", "sm_90a", Some(3)), None);
        assert_eq!(late("bn_gemv_add", "sm_80", None), None, "it cannot begin early");
        assert_eq!(late("bn_tokens_split", "sm_90a", None), None, "it never does");
        assert_eq!(late("bn_next", "sm_100", Some(0)), None, "nothing is asked of it");
        assert!(late("bn_gemv_add", "sm_100", Some(2)).unwrap().contains("LATE: 2 fetches"));
        assert!(late("bn_next", "sm_90a", None).unwrap().contains("NO WAIT"));
        assert!(unknown(&golden, &[row(0)]).concat().contains("`bn_gemv_add`, which no source has"));
        assert!(unknown(&golden, &[Row { entry: "bn_gemv_add".to_owned(), ..row(0) }]).is_empty());
    }
}
