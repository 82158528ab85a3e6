//! Kernel sets against plainer ones, in wall time, against `golden/gates/ratios-<arch>.toml`.
//!
//! Two limits. On the processor that the data were measured on, each case has its own, from the spread of the blessed runs. On
//! any other, the ratios are others, and only the floor of the pair holds (or the case's limit, if that is lower): a set should
//! not be much slower than the plainer one. Three cases are known to be slower on a Zen 4, `avx512` against `avx2`: `gemv/tq2_0-scales`
//! (0.86), `gemv/tq1_0-scales` (0.88), both of scales that differ from block to block, and `gemv/f32` (0.98).
//!
//! A case is judged by the median over several processes, because most of the spread is between processes. One that is beyond
//! its limit is measured again until it is not, until [`AGREED`] processes all say so, or until three of four of [`MOST`] do: noise goes, a
//! slowdown stays. What is still undecided after [`UTMOST`] is [`Finding::TooNoisy`], which is neither green nor red. A regression is a loss of
//! more than [`LOSS_PERCENT`], and of more than three times the distance that three of four blessed runs keep from their median. A gain of
//! more than [`GAIN_PERCENT`], and of more than twice that limit, is red as well: its loss would not be seen.

use super::driver::{Driver, Timed};
use super::{Finding, GateError, Judgement, Row, differences, made, toml_of, write};
use crate::bench::noise::Guard;
use crate::bench::ratio::Spread;
use bitnet_golden::gates::{Elsewhere, Limit, Pair, Ratios, SCHEMA, ratios_path};
use gate_driver::{Build, Paired};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// A loss that is never a regression, in percent: half of a slowdown of 10 %.
pub const LOSS_PERCENT: f64 = 5.0;
/// A loss that is always one, in percent: a case that is all noise still holds half of its ratio.
const CAP_PERCENT: f64 = 50.0;
/// A gain that need never be blessed, in percent.
pub const GAIN_PERCENT: f64 = 10.0;
/// Of cases that are no faster in this set than in the plainer one.
const FLOOR: f64 = 0.8;
/// Runs of every case.
const RUNS: usize = 3;
/// Runs, all of them beyond the limit, that decide: noise that is beyond it every second time is so seven times in a row once in 128.
pub const AGREED: usize = 7;
/// Runs, three of four of them beyond the limit, that decide: the same noise does that in one of 57.
pub const MOST: usize = 15;
/// Runs of a case after which it is too noisy: three of four and every second one are three standard deviations apart then.
pub const UTMOST: usize = 35;
/// Runs that are added at once.
const STEP: usize = 2;
/// A run is some seconds: one repetition is enough.
const GUARD: Guard = Guard { repeats: 1, pause: Duration::from_millis(500), ..Guard::USUAL };

/// Kernel sets that a new file may lack if they cannot run where it is made.
fn not_timed() -> Vec<Elsewhere> {
    let reason = "timed on no machine yet: those of the project have no AMX";
    vec![Elsewhere { set: "amx".to_owned(), reason: reason.to_owned() }]
}

/// Each set of the table with the one before it.
pub fn pairs(build: &Build) -> Vec<(String, String)> {
    build.sets.iter().zip(build.sets.iter().skip(1)).map(|(against, set)| (set.clone(), against.clone())).collect()
}

/// As the driver takes them.
pub fn arguments(pairs: &[(String, String)]) -> Vec<String> {
    pairs.iter().map(|(set, against)| format!("{set}:{against}")).collect()
}

/// Measures every case in [`RUNS`] processes, and what is beyond its limit in more. A run with foreign load is
/// repeated; if it stays, the judgement says so.
pub fn measure(driver: &Driver, data: &Ratios) -> Result<(Timed, Judgement), GateError> {
    let all = arguments(&pairs(&driver.build()?));
    let mut loudest = 0.0f64;
    let mut time = |pairs: &[String], cases: &[String]| {
        let driver = Driver { cases: cases.to_vec(), ..driver.clone() };
        let (timed, foreign) = GUARD.quiet(|| driver.time(pairs))?;
        loudest = loudest.max(foreign.unwrap_or_default());
        Ok(timed)
    };
    let (timed, mut judged) = repeated(&mut time, (&all, &driver.cases), data)?;
    if loudest > GUARD.limit {
        judged.notes.push(format!("others took up to {:.0} % of the machine during a run", 100.0 * loudest));
    }
    Ok((timed, judged))
}

/// Times these pairs and the cases that begin with one of these names; all, if there are none.
type Time<'a> = dyn FnMut(&[String], &[String]) -> Result<Timed, GateError> + 'a;

fn repeated(
    time: &mut Time<'_>,
    (pairs, cases): (&[String], &[String]),
    data: &Ratios,
) -> Result<(Timed, Judgement), GateError> {
    let whole = cases.is_empty();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(time(pairs, cases)?);
    }
    let mut repeated = BTreeSet::new();
    loop {
        let timed = medians(&runs);
        let mut judged = judge(data, &timed, whole);
        let alone: Vec<Judgement> = runs.iter().map(|run| judge(data, run, false)).collect();
        let mut again = Vec::new();
        for row in judged.rows.iter_mut().filter(|row| beyond(row)) {
            match decided(row, &alone) {
                Some(true) => {}
                Some(false) => row.finding = Finding::TooNoisy,
                None => again.push((row.set.clone(), row.case.clone())),
            }
        }
        if again.is_empty() {
            let mut notes = std::mem::take(&mut judged.notes);
            if !repeated.is_empty() {
                let names: Vec<String> = repeated.into_iter().map(|(set, case)| format!("{set} {case}")).collect();
                notes.push(format!("beyond the limit at first and measured again: {}", names.join(", ")));
            }
            return Ok((timed, Judgement::new(judged.rows, notes)));
        }
        let sets: BTreeSet<String> = again.iter().map(|(set, _)| set.clone()).collect();
        let names: BTreeSet<String> = again.iter().map(|(_, case)| case.clone()).collect();
        repeated.extend(again);
        let (sets, names) = (Vec::from_iter(sets), Vec::from_iter(names));
        for _ in 0..STEP {
            runs.push(time(&sets, &names)?);
        }
    }
}

fn beyond(row: &Row) -> bool {
    matches!(row.finding, Finding::Regression | Finding::NotHeld)
}

/// Whether a row that is beyond its limit is so for certain, by what each run says alone; `None` if more runs have to say.
fn decided(row: &Row, alone: &[Judgement]) -> Option<bool> {
    let same = |other: &&Row| (&other.set, &other.case) == (&row.set, &row.case);
    let found: Vec<&Row> = alone.iter().filter_map(|run| run.rows.iter().find(same)).collect();
    let agree = found.iter().filter(|other| other.finding == row.finding).count();
    match found.len() {
        n if n >= AGREED && agree == n => Some(true),
        n if n >= MOST && 4 * agree >= 3 * n => Some(true),
        n if n >= UTMOST => Some(false),
        _ => None,
    }
}

/// One run of several: of each case the medians.
fn medians(runs: &[Timed]) -> Timed {
    let Some(first) = runs.first() else {
        return Timed { build: Build::here(), paired: Vec::new(), unavailable: BTreeMap::new() };
    };
    let paired = first.paired.iter().map(|case| {
        let same =
            |other: &&Paired| (&other.set, &other.against, &other.case) == (&case.set, &case.against, &case.case);
        let found: Vec<f64> = runs.iter().filter_map(|run| Some(run.paired.iter().find(same)?.ratio)).collect();
        match Spread::of(&found) {
            Some(Spread { median, least, most }) => Paired { ratio: median, lower: least, upper: most, ..case.clone() },
            None => case.clone(),
        }
    });
    Timed { paired: paired.collect(), ..first.clone() }
}

/// Holds ratios against the data. `whole` if every case was run.
#[must_use]
pub fn judge(data: &Ratios, now: &Timed, whole: bool) -> Judgement {
    let strange = differences(&data.made, &now.build, true);
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    let table = pairs(&now.build);
    for (set, against) in &table {
        let name = format!("{set}:{against}");
        let whole_pair = |finding| row(&name, "", None, None, finding);
        if let Some(reason) = now.unavailable.get(set).or(now.unavailable.get(against)) {
            rows.push(whole_pair(Finding::Unavailable(reason.clone())));
            continue;
        }
        let found: BTreeMap<&str, f64> = now
            .paired
            .iter()
            .filter(|paired| (&paired.set, &paired.against) == (set, against))
            .map(|paired| (paired.case.as_str(), paired.ratio))
            .collect();
        let Some(pair) = data.pair.iter().find(|pair| (&pair.set, &pair.against) == (set, against)) else {
            match data.elsewhere.iter().find(|e| e.set == *set) {
                Some(e) => rows.push(whole_pair(Finding::Unavailable(e.reason.clone()))),
                None if found.is_empty() => {}
                None => rows.push(whole_pair(Finding::NoBaseline)),
            }
            continue;
        };
        let names: BTreeSet<&str> = pair.cases.keys().map(String::as_str).chain(found.keys().copied()).collect();
        for case in names {
            let (limit, ratio) = (pair.cases.get(case), found.get(case).copied());
            let finding = match (limit, ratio) {
                (_, None) if !whole => continue,
                (None, _) => Finding::NoBaseline,
                (Some(_), None) => Finding::NoCase,
                (Some(limit), Some(ratio)) => compare(limit, ratio, pair.floor, strange.is_some()),
            };
            rows.push(row(&name, case, limit.map(|limit| limit.measured), ratio, finding));
        }
        if strange.is_some() {
            notes.push(format!("{name}: held to its floor alone, {}: {}", pair.floor, pair.floor_reason));
        }
    }
    if let Some(why) = strange {
        rows.push(row("every pair", "its own limits", None, None, Finding::Unavailable(why)));
    }
    for pair in data.pair.iter().filter(|pair| whole && !table.contains(&(pair.set.clone(), pair.against.clone()))) {
        rows.push(row(&format!("{}:{}", pair.set, pair.against), "", None, None, Finding::NoCase));
    }
    Judgement::new(rows, notes)
}

fn compare(limit: &Limit, ratio: f64, floor: f64, strange: bool) -> Finding {
    // What is below the floor where it was blessed may be so elsewhere.
    let least = if strange { floor.min(limit.limit) } else { limit.limit };
    // As far above what was measured as the limit is below.
    let gain = (limit.measured / limit.limit.max(1e-9) - 1.0).max(0.0);
    if ratio < least {
        Finding::Regression
    } else if !strange && ratio > limit.measured * (1.0 + (2.0 * gain).max(GAIN_PERCENT / 100.0)) {
        Finding::NotHeld
    } else if !strange && ratio > limit.measured * (1.0 + gain) {
        Finding::Improved
    } else {
        Finding::Ok
    }
}

fn row(set: &str, case: &str, then: Option<f64>, now: Option<f64>, finding: Finding) -> Row {
    // A smaller ratio is more time.
    let percent = then.zip(now).map(|(then, now)| (then / now.max(1e-9) - 1.0) * 100.0);
    Row { set: set.to_owned(), case: case.to_owned(), baseline: then, now, percent, finding }
}

/// The data file of these runs. Floors of pairs that are known stay, and so do sets that were not timed if they cannot be here.
///
/// # Errors
/// [`GateError::NotBlessed`]: not a release build, another set that cannot run here, runs that differ in their cases.
pub fn data(runs: &[Timed], before: Option<&Ratios>) -> Result<Ratios, GateError> {
    let refuse = |reason: String| Err(GateError::NotBlessed { reason });
    let Some(first) = runs.first() else { return refuse("no run".to_owned()) };
    if first.build.profile != "release" || !first.build.flags.is_empty() {
        return refuse("the driver is not a release build without RUSTFLAGS, which is what is shipped".to_owned());
    }
    let mut elsewhere = before.map_or_else(not_timed, |data| data.elsewhere.clone());
    elsewhere.retain(|e| first.unavailable.contains_key(&e.set));
    let missing = |set: &str| elsewhere.iter().any(|e| e.set == set);
    if let Some((set, reason)) = first.unavailable.iter().find(|(set, _)| !missing(set)) {
        return refuse(format!("{set} cannot be timed here: {reason}"));
    }
    let mut pair: Vec<Pair> = Vec::new();
    for (set, against) in pairs(&first.build).into_iter().filter(|(set, _)| !missing(set)) {
        let known =
            before.and_then(|data| data.pair.iter().find(|pair| (&pair.set, &pair.against) == (&set, &against)));
        let mut all = BTreeMap::<&str, Vec<f64>>::new();
        for paired in runs.iter().flat_map(|run| &run.paired).filter(|p| (&p.set, &p.against) == (&set, &against)) {
            all.entry(&paired.case).or_default().push(paired.ratio);
        }
        if let Some((case, found)) = all.iter().find(|(_, found)| found.len() != runs.len()) {
            return refuse(format!("{case} was timed {} times in {} runs", found.len(), runs.len()));
        }
        let cases = all.into_iter().map(|(case, found)| (case.to_owned(), limit(found))).collect();
        let floor = known.map_or(FLOOR, |pair| pair.floor);
        let reason = "some cases are the plainer set's own code, and another processor may clock down";
        let floor_reason = known.map_or_else(|| reason.to_owned(), |pair| pair.floor_reason.clone());
        pair.push(Pair { set, against, floor, floor_reason, cases });
    }
    let capped = pair.iter().flat_map(|pair| {
        let noisy = pair.cases.iter().filter(|(_, limit)| 3.0 * limit.spread_percent > CAP_PERCENT);
        noisy.map(move |(case, _)| format!("; {case} of {}:{} is there", pair.set, pair.against))
    });
    let capped: String = capped.collect();
    Ok(Ratios {
        schema: SCHEMA,
        reason: format!(
            "limit: the median less {LOSS_PERCENT} %, or less three times the distance that three of four runs keep from it (spread_percent) where that is more, up to {CAP_PERCENT} %{capped}"
        ),
        runs: runs.len(),
        made: made(&first.build, None),
        elsewhere,
        pair,
    })
}

fn limit(found: Vec<f64>) -> Limit {
    let measured = Spread::of(&found).map_or(0.0, |spread| spread.median);
    let mut far: Vec<f64> = found.iter().map(|x| (x / measured.max(1e-9) - 1.0).abs() * 100.0).collect();
    far.sort_by(f64::total_cmp);
    let spread = far.get((far.len() * 3).div_ceil(4).saturating_sub(1)).copied().unwrap_or_default();
    let round = |x: f64| (x * 1e4).round() / 1e4;
    let loss = (3.0 * spread).clamp(LOSS_PERCENT, CAP_PERCENT);
    Limit { measured: round(measured), spread_percent: round(spread), limit: round(measured * (1.0 - loss / 100.0)) }
}

/// Writes the file, a line for each case.
pub fn bless(golden: &Path, data: &Ratios, arch: &str) -> Result<(), GateError> {
    let mut text = String::from(
        "# How many times faster a kernel set is than a plainer one on the same work (harness/gate-driver/src/cases.rs), in wall time\n\
         # of one thread. Written by `cargo xtask gate --paired --bless`, held by `cargo xtask gate --paired`, read by golden/src/gates.rs.\n\n",
    );
    text += &toml_of(&Ratios { pair: Vec::new(), ..data.clone() })?.replace("pair = []\n", "");
    for pair in &data.pair {
        text += &format!("\n[[pair]]\n{}", toml_of(&Pair { cases: BTreeMap::new(), ..pair.clone() })?);
        text = text.trim_end_matches("\n[cases]\n").to_owned() + "\n[pair.cases]\n";
        for (case, Limit { measured, spread_percent, limit }) in &pair.cases {
            text += &format!(
                "\"{case}\" = {{ measured = {measured:?}, spread_percent = {spread_percent:?}, limit = {limit:?} }}\n"
            );
        }
    }
    write(&ratios_path(golden, arch), &text)
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{GateOutcome, sample_build};

    fn timed(ratios: &[(&str, &str, &str, f64)]) -> Timed {
        let text = str::to_owned;
        let paired = ratios.iter().map(|(set, against, case, ratio)| Paired {
            set: text(set),
            against: text(against),
            case: text(case),
            rounds: 15,
            ratio: *ratio,
            lower: *ratio,
            upper: *ratio,
            nanoseconds: [1.0, *ratio],
        });
        Timed { build: sample_build(), paired: paired.collect(), unavailable: BTreeMap::new() }
    }

    fn run(avx2: f64, avx512: f64) -> Timed {
        timed(&[("avx2", "scalar", "add", avx2), ("avx512", "avx2", "add", avx512)])
    }

    fn base() -> Ratios {
        data(&[run(8.0, 2.0), run(8.1, 2.02), run(7.9, 1.98)], None).expect("data")
    }

    fn outcome(now: &Timed) -> (GateOutcome, Vec<Finding>) {
        let judged = judge(&base(), now, true);
        (judged.outcome, judged.rows.into_iter().map(|row| row.finding).collect())
    }

    #[test]
    fn limits_follow_from_the_runs() {
        let base = base();
        let limit = base.pair[1].cases["add"];
        assert_eq!((limit.measured, limit.spread_percent, limit.limit), (2.0, 1.0, 1.9));
        let limit = super::limit([vec![4.0; 5], vec![3.6; 3], vec![9.0, 2.0]].concat());
        let expected = (4.0, 10.0, 2.8);
        assert_eq!((limit.measured, limit.spread_percent, limit.limit), expected, "few runs far off do not count");
        assert_eq!(super::limit(vec![1.0, 5.0, 9.0]).limit, 2.5, "half");
        let dir = tempfile::tempdir().expect("temp dir");
        bless(dir.path(), &base, "x86_64").expect("written");
        assert_eq!(bitnet_golden::gates::ratios(dir.path(), "x86_64").expect("read"), base);
    }

    #[test]
    fn ten_percent_less_is_a_regression_and_noise_is_none() {
        use Finding::{Improved, NotHeld, Ok, Regression};
        assert_eq!(outcome(&run(7.9, 1.95)), (GateOutcome::Green, vec![Ok, Ok]));
        assert_eq!(outcome(&run(8.0, 2.0 / 1.1)), (GateOutcome::Red, vec![Ok, Regression]));
        assert_eq!(outcome(&run(8.0 / 1.1, 2.0)), (GateOutcome::Red, vec![Regression, Ok]));
        assert_eq!(outcome(&run(8.0, 2.12)), (GateOutcome::Green, vec![Ok, Improved]));
        assert_eq!(outcome(&run(8.0, 2.3)), (GateOutcome::Red, vec![Ok, NotHeld]));
    }

    #[test]
    fn on_another_processor_only_the_floor_holds() {
        let elsewhere = |avx512| {
            let mut now = run(8.0, avx512);
            now.build.cpu = "two".to_owned();
            outcome(&now)
        };
        let (green, rows) = elsewhere(1.2);
        assert!(green == GateOutcome::Green && matches!(rows[2], Finding::Unavailable(_)), "{rows:?}");
        assert_eq!(elsewhere(0.7).0, GateOutcome::Red);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut now = run(8.0, 2.0);
        now.paired.pop();
        now.unavailable.insert("avx512".to_owned(), "this CPU has no AVX-512".to_owned());
        let (green, rows) = outcome(&now);
        assert!(green == GateOutcome::Green && matches!(rows[1], Finding::Unavailable(_)), "{rows:?}");
        assert!(data(&[now], None).is_err());
        let mut now = run(8.0, 2.0);
        now.paired.pop();
        assert_eq!(outcome(&now), (GateOutcome::Red, vec![Finding::Ok, Finding::NoCase]));
        let mut now =
            timed(&[("avx2", "scalar", "add", 8.0), ("avx512", "avx2", "add", 2.0), ("amx", "avx512", "add", 9.0)]);
        now.build.sets.push("amx".to_owned());
        assert_eq!(outcome(&now), (GateOutcome::Red, vec![Finding::Ok, Finding::Ok, Finding::NoBaseline]));
        // Blessed where it cannot run, it is not a failure where it can, until it is blessed there.
        let mut lacking = run(8.0, 2.0);
        lacking.build.sets.push("amx".to_owned());
        lacking.unavailable.insert("amx".to_owned(), "this processor has no AMX".to_owned());
        let without = data(&[lacking], None).expect("data");
        let dir = tempfile::tempdir().expect("temp dir");
        bless(dir.path(), &without, "x86_64").expect("written");
        assert_eq!(bitnet_golden::gates::ratios(dir.path(), "x86_64").expect("read"), without);
        let judged = judge(&without, &now, true);
        assert!(judged.outcome == GateOutcome::Green && matches!(judged.rows[2].finding, Finding::Unavailable(_)));
        let with = data(&[now], Some(&without)).expect("data");
        assert_eq!((with.pair.len(), with.elsewhere), (3, vec![]));
    }
}
