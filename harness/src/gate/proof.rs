//! That the gate can be red, and is not by itself: quiet runs, which must be green, and a planted slowdown, which must not.

use super::driver::{Counts, Driver};
use super::{Finding, GateError, GateOutcome, Judgement, instructions, ratios};
use bitnet_golden::gates::{Instructions, Ratios};
use gate_driver::CALLS;
use serde::Serialize;

/// What the runs came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    pub quiet: Vec<GateOutcome>,
    /// Largest difference between two quiet runs in one case, in percent.
    pub spread_percent: f64,
    /// Percent that were planted.
    pub planted_percent: u32,
    pub planted: GateOutcome,
    /// Cases of the planted run, and how many of them were seen to be slower than their limit.
    pub cases: usize,
    /// See `cases`.
    pub seen: usize,
    /// Of ratios: cases that gain a tenth at least, and how many of them were seen to have lost it where the plainer set did the work.
    pub gains: usize,
    /// See `gains`.
    pub lost: usize,
}

/// How many times faster what gains is.
const GAIN: f64 = 1.1;

impl Proof {
    fn of(quiet: &[Judgement], plant: u32, planted: &Judgement) -> Self {
        Self {
            quiet: quiet.iter().map(|judged| judged.outcome).collect(),
            spread_percent: spread(quiet),
            planted_percent: plant,
            planted: planted.outcome,
            cases: planted.count(|finding| !matches!(finding, Finding::Unavailable(_))),
            seen: planted.count(|finding| *finding == Finding::Regression),
            gains: 0,
            lost: 0,
        }
    }

    /// Whether every quiet run is green and the planted one red, and no gain is lost unseen.
    pub fn holds(&self) -> bool {
        self.quiet.iter().all(|outcome| *outcome == GateOutcome::Green)
            && self.planted == GateOutcome::Red
            && self.gains == self.lost
    }
}

/// The largest difference of a case over the runs.
fn spread(runs: &[Judgement]) -> f64 {
    let rows = runs.first().map_or(0, |run| run.rows.len());
    let of = |i: usize| {
        let found = || runs.iter().filter_map(move |run| run.rows.get(i)?.now);
        let (low, high) = (found().fold(f64::INFINITY, f64::min), found().fold(0.0, f64::max));
        if low.is_finite() && low > 0.0 { (high / low - 1.0) * 100.0 } else { 0.0 }
    };
    (0..rows).map(of).fold(0.0, f64::max)
}

/// Counts `runs` times, and once with `plant` percent more work, of which whole calls are done. Without data, the first run
/// is the baseline.
pub fn of_counts(driver: &Driver, data: Option<&Instructions>, runs: usize, plant: u32) -> Result<Proof, GateError> {
    let elsewhere = instructions::elsewhere(data);
    let build = driver.build()?;
    let sets = instructions::sets(&build, &elsewhere);
    let whole = driver.cases.is_empty();
    let mut baseline = data.cloned();
    let mut judge = |counts: &Counts| {
        let data = baseline.get_or_insert_with(|| first(counts, &elsewhere));
        instructions::judge(data, counts, whole)
    };
    let mut quiet = Vec::new();
    for _ in 0..runs {
        quiet.push(judge(&driver.count(&sets)?));
    }
    let planted = Driver { plant, ..driver.clone() };
    let planted = judge(&planted.count(&sets)?);
    Ok(Proof::of(&quiet, plant, &planted))
}

/// Counts as their own baseline, whatever they were built with.
fn first(counts: &Counts, elsewhere: &[bitnet_golden::gates::Elsewhere]) -> Instructions {
    Instructions {
        schema: bitnet_golden::gates::SCHEMA,
        limit_percent: 2.0,
        made: super::made(&counts.build, Some(&counts.valgrind)),
        elsewhere: elsewhere.to_vec(),
        counts: counts.counts.clone(),
    }
}

/// The same with the clock, against the data.
pub fn of_ratios(driver: &Driver, data: &Ratios, runs: usize, plant: u32) -> Result<Proof, GateError> {
    let mut quiet = Vec::new();
    for _ in 0..runs {
        quiet.push(ratios::measure(driver, data)?.1);
    }
    let planted = Driver { plant, ..driver.clone() };
    let planted = ratios::measure(&planted, data)?.1;
    let fallen = Driver { fall_back: true, ..driver.clone() };
    let fallen = ratios::measure(&fallen, data)?.1;
    let gains: Vec<_> = fallen.rows.iter().filter(|row| row.baseline.is_some_and(|ratio| ratio >= GAIN)).collect();
    let lost = gains.iter().filter(|row| row.finding == Finding::Regression).count();
    Ok(Proof { gains: gains.len(), lost, ..Proof::of(&quiet, plant, &planted) })
}

/// The least that can be planted: one call of all.
pub fn least_plant() -> u32 {
    100 / CALLS
}
