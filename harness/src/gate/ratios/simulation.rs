//! The gate on synthetic times: whole gates, bless and judgement, of cases whose noise has a heavy tail.
//!
//! Noise of a run is Student's t with two degrees of freedom times a scale, so that one run in a hundred lies ten scales off; one
//! in twenty is slowed by up to a half on top. That is more than an idle machine shows.

use super::*;
use crate::gate::{GateOutcome, sample_build};
use bitnet_engine::random::SplitMix64;

const CASES: usize = 40;

/// A machine: the true ratio of each case, and its noise.
struct Machine {
    random: SplitMix64,
    ratios: Vec<f64>,
    asked: usize,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let ratios = (0..CASES).map(|i| 0.9 + 2.0 * i as f64).collect();
        Self { random: SplitMix64(seed), ratios, asked: 0 }
    }

    /// From 0 to 1, without the ends.
    fn uniform(&mut self) -> f64 {
        self.random.unit() + 1e-17
    }

    /// The quantile function of Student's t with two degrees of freedom.
    fn tail(&mut self) -> f64 {
        let p = self.uniform().clamp(1e-6, 1.0 - 1e-6);
        (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt()
    }

    fn time(&mut self, cases: &[String]) -> Timed {
        self.asked += 1;
        let mut paired = Vec::new();
        for i in 0..CASES {
            let name = format!("case-{i:02}");
            // The scale differs from case to case: 0.2 % to 0.8 %.
            let noise = 1.0 + self.tail() * 0.002 * (1 + i % 4) as f64;
            let slow = if self.uniform() < 0.05 { 1.0 - 0.5 * self.uniform() } else { 1.0 };
            let ratio = self.ratios[i] * noise.max(0.1) * slow;
            if cases.is_empty() || cases.contains(&name) {
                let (set, against) = ("avx2".to_owned(), "scalar".to_owned());
                let nanoseconds = [1.0, ratio];
                paired.push(Paired {
                    set,
                    against,
                    case: name,
                    rounds: 1,
                    ratio,
                    lower: ratio,
                    upper: ratio,
                    nanoseconds,
                });
            }
        }
        let mut build = sample_build();
        build.sets.truncate(2);
        Timed { build, paired, unavailable: BTreeMap::new() }
    }

    fn bless(&mut self) -> Ratios {
        let runs: Vec<Timed> = (0..20).map(|_| self.time(&[])).collect();
        data(&runs, None).expect("data")
    }

    fn gate(&mut self, data: &Ratios) -> Judgement {
        repeated(&mut |_, cases| Ok(self.time(cases)), (&[], &[]), data).expect("a gate").1
    }
}

fn red(judged: &Judgement) -> Vec<(String, Finding)> {
    let red = judged.rows.iter().filter(|row| row.finding.is_red());
    red.map(|row| (row.case.clone(), row.finding.clone())).collect()
}

#[test]
fn idle_is_green_fifty_times_of_fifty() {
    let mut machine = Machine::new(1);
    let data = machine.bless();
    for i in 0..50 {
        let judged = machine.gate(&data);
        assert!(judged.outcome == GateOutcome::Green, "gate {i}: {:?}", red(&judged));
    }
    // Few were measured again: it costs what three runs cost.
    assert!(machine.asked < 20 + 50 * (RUNS + 4 * STEP), "{}", machine.asked);
}

#[test]
fn ten_percent_of_any_case_are_red() {
    let mut machine = Machine::new(2);
    let data = machine.bless();
    for i in 0..CASES {
        machine.ratios[i] *= 0.9;
        let judged = machine.gate(&data);
        assert_eq!(red(&judged), [(format!("case-{i:02}"), Finding::Regression)]);
        machine.ratios[i] /= 0.9;
    }
}

#[test]
fn a_gain_is_held_or_red() {
    let mut machine = Machine::new(3);
    let old = machine.bless();
    machine.ratios[1] *= 3.8;
    assert_eq!(red(&machine.gate(&old)), [("case-01".to_owned(), Finding::NotHeld)]);
    let new = machine.bless();
    assert_eq!(red(&machine.gate(&new)), []);
    machine.ratios[1] *= 0.9;
    assert_eq!(red(&machine.gate(&new)), [("case-01".to_owned(), Finding::Regression)]);
}

#[test]
fn a_case_of_two_speeds_is_no_regression() {
    // As where a process happens to lie in memory: 0.39 or 0.73, each half of the time.
    let mut machine = Machine::new(4);
    let both = |machine: &mut Machine, cases: &[String]| {
        machine.ratios[0] = if machine.uniform() < 0.5 { 0.39 } else { 0.73 };
        machine.time(cases)
    };
    let runs: Vec<Timed> = (0..20).map(|_| both(&mut machine, &[])).collect();
    let data = data(&runs, None).expect("data");
    for i in 0..50 {
        let mut time = |_: &[String], cases: &[String]| Ok(both(&mut machine, cases));
        let judged = repeated(&mut time, (&[], &[]), &data).expect("a gate").1;
        assert!(judged.outcome == GateOutcome::Green, "gate {i}: {:?}", red(&judged));
    }
}
