//! Counts of instructions against `golden/gates/instructions-<arch>.toml`.

use super::driver::Counts;
use super::{Finding, GateError, Judgement, Row, differences, made, toml_of, write};
use bitnet_golden::gates::{Elsewhere, Instructions, SCHEMA, instructions_path};
use gate_driver::{ANY, Build, CALLS};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a new file begins with.
const LIMIT_PERCENT: f64 = 2.0;

/// Kernel sets that valgrind cannot run, in a file that is new.
fn not_counted() -> Vec<Elsewhere> {
    let table = [
        (
            "avx512",
            "valgrind has no AVX-512 (3.19, and later ones) and hides it: held by the paired ratios against avx2, which is counted",
        ),
        ("amx", "valgrind has no AMX and hides it; what it runs beside tiles is avx512"),
    ];
    table.map(|(set, reason)| Elsewhere { set: set.to_owned(), reason: reason.to_owned() }).into()
}

/// The sets to count: all of the table and `any`, but for those that the data say are held elsewhere.
pub fn sets<'a>(build: &'a Build, elsewhere: &[Elsewhere]) -> Vec<&'a str> {
    let counted = |set: &&str| !elsewhere.iter().any(|e| e.set == *set);
    [ANY].into_iter().chain(build.sets.iter().map(String::as_str)).filter(counted).collect()
}

/// Holds counts against the data. `whole` if every case was run, so that one that is missing is missing.
#[must_use]
pub fn judge(data: &Instructions, now: &Counts, whole: bool) -> Judgement {
    let strange = differences(&data.made, &now.build, false);
    let libc = (data.made.libc != now.build.libc).then(|| {
        format!("counted with {}, this is {}: its malloc and memcpy are in the counts", data.made.libc, now.build.libc)
    });
    let mut rows = Vec::new();
    for set in sets(&now.build, &data.elsewhere) {
        if let Some(reason) = now.unavailable.get(set) {
            rows.push(row(set, "", None, None, Finding::Unavailable(reason.clone())));
            continue;
        }
        let (then, found) = (data.counts.get(set), now.counts.get(set));
        let names: BTreeSet<&String> = then.into_iter().chain(found).flat_map(BTreeMap::keys).collect();
        for case in names {
            let then = then.and_then(|counts| counts.get(case)).copied();
            let found = found.and_then(|counts| counts.get(case)).copied();
            if found.is_none() && !whole {
                continue;
            }
            let strange = strange.as_ref().or(libc.as_ref().filter(|_| set == ANY));
            let finding = match (strange, then, found) {
                (Some(why), ..) => Finding::Unavailable(why.clone()),
                (None, None, _) => Finding::NoBaseline,
                (None, Some(_), None) => Finding::NoCase,
                (None, Some(then), Some(found)) => compare(percent(then, found), data.limit_percent),
            };
            rows.push(row(set, case, then, found, finding));
        }
    }
    // Sets that are gone, or counted against what the data themselves say.
    let known = sets(&now.build, &data.elsewhere);
    for set in data.counts.keys().filter(|set| whole && !known.contains(&set.as_str())) {
        rows.push(row(set, "", None, None, Finding::NoCase));
    }
    let mut notes: Vec<String> =
        data.elsewhere.iter().map(|e| format!("not counted: {}: {}", e.set, e.reason)).collect();
    if data.made.valgrind.as_deref() != Some(now.valgrind.as_str()) {
        notes.push(format!(
            "the baselines are of {}, this is {}",
            data.made.valgrind.as_deref().unwrap_or("?"),
            now.valgrind
        ));
    }
    Judgement::new(rows, notes)
}

fn compare(percent: f64, limit: f64) -> Finding {
    if percent > limit {
        Finding::Regression
    } else if percent < -limit {
        Finding::Improved
    } else {
        Finding::Ok
    }
}

fn percent(then: u64, now: u64) -> f64 {
    (now as f64 - then as f64) * 100.0 / then.max(1) as f64
}

fn row(set: &str, case: &str, then: Option<u64>, now: Option<u64>, finding: Finding) -> Row {
    let percent = then.zip(now).map(|(then, now)| percent(then, now));
    let (baseline, now) = (then.map(|n| n as f64), now.map(|n| n as f64));
    Row { set: set.to_owned(), case: case.to_owned(), baseline, now, percent, finding }
}

/// The data file of these counts. What is held elsewhere, and the limit, stay as `before` has them.
///
/// # Errors
/// [`GateError::NotBlessed`]: the counts are not of a release build, or a set could not be counted.
pub fn data(now: &Counts, before: Option<&Instructions>) -> Result<Instructions, GateError> {
    let refuse = |reason: String| Err(GateError::NotBlessed { reason });
    if now.build.profile != "release" || !now.build.flags.is_empty() {
        return refuse(format!(
            "the driver is a {} build with RUSTFLAGS `{}`; what is shipped is a release build without",
            now.build.profile, now.build.flags
        ));
    }
    if let Some((set, reason)) = now.unavailable.iter().next() {
        return refuse(format!("{set} cannot be counted here: {reason}"));
    }
    Ok(Instructions {
        schema: SCHEMA,
        limit_percent: before.map_or(LIMIT_PERCENT, |data| data.limit_percent),
        made: made(&now.build, Some(&now.valgrind)),
        elsewhere: before.map_or_else(not_counted, |data| data.elsewhere.clone()),
        counts: now.counts.clone(),
    })
}

/// What a file that does not exist yet is taken to say of the sets.
pub fn elsewhere(before: Option<&Instructions>) -> Vec<Elsewhere> {
    before.map_or_else(not_counted, |data| data.elsewhere.clone())
}

/// Writes the file.
pub fn bless(golden: &Path, data: &Instructions, arch: &str) -> Result<(), GateError> {
    let head = format!(
        "# Instructions of {CALLS} calls of each case (harness/gate-driver/src/cases.rs) under callgrind, by kernel set; `any` is what no\n\
         # kernel set computes. Written by `cargo xtask gate --bless`, held by `cargo xtask gate`, read by golden/src/gates.rs.\n\n"
    );
    write(&instructions_path(golden, arch), &format!("{head}{}", toml_of(data)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{GateOutcome, sample_build};

    fn counts(of: &[(&str, &str, u64)]) -> Counts {
        let mut counts = BTreeMap::<String, BTreeMap<String, u64>>::new();
        for (set, case, n) in of {
            counts.entry((*set).to_owned()).or_default().insert((*case).to_owned(), *n);
        }
        let text = str::to_owned;
        Counts { build: sample_build(), valgrind: text("valgrind-3"), counts, unavailable: BTreeMap::new() }
    }

    fn base() -> Counts {
        counts(&[("any", "encode", 500), ("scalar", "add", 1000), ("avx2", "add", 100)])
    }

    /// Findings that are not `Ok`, and the outcome.
    fn found(now: &Counts, whole: bool) -> (Vec<(String, Finding)>, GateOutcome) {
        let judged = judge(&data(&base(), None).expect("data"), now, whole);
        let odd = judged.rows.iter().filter(|row| row.finding != Finding::Ok);
        (odd.map(|row| (format!("{} {}", row.set, row.case), row.finding.clone())).collect(), judged.outcome)
    }

    #[test]
    fn the_limit_is_two_percent_on_either_side() {
        assert_eq!(found(&base(), true), (vec![], GateOutcome::Green));
        for (n, finding, outcome) in [
            (1020, None, GateOutcome::Green),
            (1021, Some(Finding::Regression), GateOutcome::Red),
            (980, None, GateOutcome::Green),
            (979, Some(Finding::Improved), GateOutcome::Green),
        ] {
            let mut now = base();
            now.counts.get_mut("scalar").expect("set").insert("add".to_owned(), n);
            let want = finding.map(|finding| ("scalar add".to_owned(), finding)).into_iter().collect();
            assert_eq!(found(&now, true), (want, outcome), "{n}");
        }
    }

    #[test]
    fn cases_and_baselines_belong_together() {
        let mut more = base();
        more.counts.get_mut("avx2").expect("set").insert("new".to_owned(), 1);
        assert_eq!(found(&more, true), (vec![("avx2 new".to_owned(), Finding::NoBaseline)], GateOutcome::Red));
        let mut less = base();
        less.counts.remove("avx2");
        assert_eq!(found(&less, true), (vec![("avx2 add".to_owned(), Finding::NoCase)], GateOutcome::Red));
        assert_eq!(found(&less, false), (vec![], GateOutcome::Green));
        let mut gone = base();
        gone.build.sets.retain(|set| set != "avx2");
        assert_eq!(found(&gone, true), (vec![("avx2 ".to_owned(), Finding::NoCase)], GateOutcome::Red));
        let mut set =
            counts(&[("any", "encode", 500), ("scalar", "add", 1000), ("avx2", "add", 100), ("new", "add", 9)]);
        set.build.sets.push("new".to_owned());
        assert_eq!(found(&set, true), (vec![("new add".to_owned(), Finding::NoBaseline)], GateOutcome::Red));
    }

    #[test]
    fn figures_of_another_build_bind_nothing() {
        let all = |now: &Counts| {
            let (rows, outcome) = found(now, true);
            assert!(rows.iter().all(|(_, finding)| matches!(finding, Finding::Unavailable(_))), "{rows:?}");
            (rows.len(), outcome)
        };
        let mut now = base();
        now.build.rustc = "rustc 2".to_owned();
        assert_eq!(all(&now), (3, GateOutcome::Unavailable));
        let mut now = base();
        now.build.flags = "-C target-cpu=native".to_owned();
        assert_eq!(all(&now), (3, GateOutcome::Unavailable));
        let mut now = base();
        now.build.libc = "glibc 3".to_owned();
        assert_eq!(all(&now), (1, GateOutcome::Green));
        let mut now = base();
        now.build.cpu = "two".to_owned();
        assert_eq!(all(&now), (0, GateOutcome::Green));
        let mut now = base();
        now.counts.remove("avx2");
        now.unavailable.insert("avx2".to_owned(), "this CPU has no AVX2".to_owned());
        assert_eq!(all(&now), (1, GateOutcome::Green));
        assert!(data(&now, None).is_err(), "half of the sets must not be blessed");
        let mut now = base();
        now.build.profile = "debug".to_owned();
        assert!(data(&now, None).is_err());
    }

    #[test]
    fn what_is_blessed_is_read_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let data = data(&base(), None).expect("data");
        bless(dir.path(), &data, "x86_64").expect("written");
        assert_eq!(bitnet_golden::gates::instructions(dir.path(), "x86_64").expect("read"), data);
        assert_eq!(sets(&base().build, &data.elsewhere), ["any", "scalar", "avx2"]);
    }
}
