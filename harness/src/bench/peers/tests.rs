//! The run with engines that play a part: their order, their ratios, and what happens to those that fail.

use super::super::engine::{Rates, Timed};
use super::*;
use std::cell::RefCell;

/// Gives these rates, one a round, and writes down when it was asked; fails at the round that has none.
struct Player<'a> {
    name: &'static str,
    rates: Vec<f64>,
    asked: usize,
    diary: &'a RefCell<Vec<&'static str>>,
}

impl Engine for Player<'_> {
    fn begin(&mut self, _: &Ask) -> Result<(), EngineError> {
        self.asked = 0;
        Ok(())
    }

    fn measure(&mut self, _: &Ask) -> Result<Rates, EngineError> {
        self.diary.borrow_mut().push(self.name);
        let rate = self.rates.get(self.asked).copied();
        self.asked += 1;
        let rate = rate.ok_or_else(|| EngineError::Cannot("no more figures".to_owned()))?;
        Ok(Rates { prefill: 10.0 * rate, decode: rate, peak_rss: Some(self.asked as u64) })
    }

    fn whole(&mut self, _: &Ask, _: usize) -> Result<Option<Timed>, EngineError> {
        let seconds = 1.0 / self.rates.get(self.asked - 1).copied().unwrap_or(1.0);
        Ok((self.name != "mute").then_some(Timed { seconds, tokens: 34 }))
    }

    fn end(&mut self) {
        self.diary.borrow_mut().push("end");
    }
}

/// A report of three engines in two rounds on one thread: ours, `peer` at half our rate, `mute` that says no first token
/// and fails in the second round, `none` that is not there.
pub(crate) fn played(diary: &RefCell<Vec<&'static str>>) -> PeersReport {
    let player = |name, rates: &[f64]| -> Contender<'_> {
        let engine = Player { name, rates: rates.to_vec(), asked: 0, diary };
        Contender { name: name.to_owned(), about: format!("plays {name}"), engine: Ok(Box::new(engine)) }
    };
    let missing = EngineError::Missing { what: "not built".to_owned(), command: "cargo build it".to_owned() };
    let mut contenders = vec![
        player("ours", &[8.0, 4.0]),
        player("peer", &[4.0, 2.0]),
        player("mute", &[1.0]),
        Contender { name: "none".to_owned(), about: String::new(), engine: Err(missing) },
    ];
    let ask = Ask {
        model: "m.gguf".into(),
        threads: 0,
        prompt: 512,
        generate: 32,
        text: "text".to_owned(),
        limit: Duration::from_secs(1),
    };
    // Loads are real here and must not count.
    let guard = Guard { limit: 1.0, repeats: 0, pause: Duration::ZERO };
    let plan =
        PeersPlan { ask, threads: vec![1], rounds: 2, pause: Duration::ZERO, guard, weight_bytes: 2_000_000_000 };
    let mut reads = [10e9, 14e9].into_iter();
    let mut read = |_| reads.next().ok_or_else(|| EngineError::Cannot("no memory".to_owned()));
    let (memory, rows) = compare(&mut contenders, &plan, &mut read, &mut |_| ()).expect("a run");
    let wait = |engine: &str, answer, seconds: f64, foreign| Wait {
        threads: 1,
        prompt: 32,
        answer,
        engine: engine.to_owned(),
        prompt_tokens: Some(34),
        seconds: series(&[seconds], (engine != "ours").then_some(Spread { median: 1.5, least: 1.5, most: 1.5 })),
        foreign,
        noisy: usize::from(foreign.is_some()),
        failure: None,
    };
    let lost = Wait { seconds: None, failure: Some("out of memory".to_owned()), ..wait("mute", 64, 0.0, None) };
    PeersReport {
        at: "2026-01-01T00:00:00Z".to_owned(),
        commit: Some("0123456789abcdef".to_owned()),
        host: HostInfo::here(),
        cpu: "a processor".to_owned(),
        model: ModelFile {
            name: "m.gguf".to_owned(),
            bytes: 2_100_000_000,
            weight_bytes: plan.weight_bytes,
            architecture: "bitnet".to_owned(),
            quant: "i2_s".to_owned(),
        },
        prompt: 512,
        generate: 32,
        rounds: 2,
        engines: contenders.iter().map(|c| Named { name: c.name.clone(), about: c.about.clone() }).collect(),
        memory,
        rows,
        waits: vec![wait("ours", 1, 2.0, None), wait("peer", 1, 3.0, None), wait("ours", 64, 8.0, Some(0.25)), lost],
        depths: vec![wait("ours", 16, 0.5, None), wait("peer", 16, 0.8, None)],
    }
}

#[test]
fn engines_take_turns_and_ratios_are_paired() {
    let diary = RefCell::new(Vec::new());
    let report = played(&diary);
    assert_eq!(diary.take(), ["ours", "peer", "mute", "mute", "peer", "ours", "end", "end", "end"]);
    let [ours, peer, mute, none] = report.rows.as_slice() else { panic!("{:?}", report.rows) };
    assert_eq!(ours.decode.as_ref().map(|s| (s.spread.median, s.ours_is)), Some((6.0, None)));
    let twice = Some(Spread { median: 2.0, least: 2.0, most: 2.0 });
    for series in [&peer.prefill, &peer.decode, &peer.first_token] {
        assert_eq!(series.as_ref().and_then(|s| s.ours_is), twice, "{series:?}");
    }
    assert_eq!((peer.peak_rss, peer.first_token_prompt), (Some(2), Some(34)));
    assert_eq!(mute.failure.as_deref(), Some("no more figures"));
    assert!(mute.decode.is_none() && mute.peak_rss.is_none(), "half of a run is not a figure");
    assert_eq!((none.failure.as_deref(), none.remedy.as_deref()), (Some("not built"), Some("cargo build it")));
    assert!(report.is_complete("ours") && report.is_complete("peer"));
    assert!(!report.is_complete("mute") && !report.is_complete("none") && !report.is_complete("nobody"));
    let memory = &report.memory[0];
    assert_eq!((memory.bytes_per_second.spread.median, memory.bound_tokens_per_second), (12e9, 6.0));
}

#[test]
fn a_report_is_read_back() {
    let report = played(&RefCell::default());
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<PeersReport>(&text).expect("the same"), report);
}
