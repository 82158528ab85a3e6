//! Cells become libtest-mimic trials, and trials become records.
//!
//! A trial's name is the cell's name and nothing else: libtest-mimic would print a "kind" into the list,
//! and nextest would then know the cell by another name on another host. So an ignored cell says why in
//! its result line and in the summary, not in its name.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::axes::Cell;
use crate::check::Check;
use crate::context::{Context, seed};
use crate::failure::Failure;
use crate::host::Survey;
use crate::metrics::Metrics;
use crate::provenance::{self, HostInfo};
use crate::record::{self, Expected, HarnessInfo, Record};
use crate::select::CommandLine;
use crate::setup::Declared;
use crate::verdict::{self, Availability, Outcome, Ran, Situation, Verdict};

/// A selected cell with all that is known before it runs.
#[derive(Clone)]
pub struct Planned {
    declared: Declared,
    availability: Availability,
    required: bool,
    check: Arc<dyn Check>,
}

impl Planned {
    /// Finds out what the host says about a cell.
    pub fn new(declared: Declared, check: Arc<dyn Check>, survey: &Survey, ctx: &Context, line: &CommandLine) -> Self {
        let cell = &declared.cell;
        let missing = survey.missing(cell, check.asks_backend());
        let required = |missing: &Availability| match missing {
            Availability::Available => false,
            Availability::Unavailable { missing, .. } => line.requires(missing),
        };
        // Of several things that are missing, one that is required decides.
        let first = missing.iter().find(|m| required(m)).or(missing.first());
        let (availability, required) = match first {
            Some(missing) => (missing.clone(), required(missing)),
            None => {
                let answer = check.availability(cell, ctx);
                // What a check misses may be a property of several axes at once: any of them being
                // required is enough.
                let any = cell.parts().into_iter().any(|name| line.requires(name));
                let required = required(&answer) || (any && !answer.is_available());
                (answer, required)
            }
        };
        Self { declared, availability, required, check }
    }

    pub fn cell(&self) -> &Cell {
        &self.declared.cell
    }

    /// The verdict that needs no run.
    #[must_use]
    pub fn settled(&self, forced: bool) -> Option<Verdict> {
        verdict::before(&Situation {
            unsupported: self.declared.unsupported.as_deref(),
            expectation: self.declared.expectation.as_ref(),
            availability: &self.availability,
            required: self.required,
            forced,
        })
    }

    /// What is missing of the cell's device, where that is what settles it and nobody requires it: such a cell can only
    /// run on another host.
    pub fn lacks_device(&self) -> Option<(&str, &str)> {
        match &self.availability {
            Availability::Unavailable { missing, reason, remedy }
                if *missing == self.cell().device && !self.required =>
            {
                Some((reason, remedy))
            }
            _ => None,
        }
    }

    fn is_ignored(&self) -> bool {
        self.settled(false)
            .is_some_and(|verdict| matches!(verdict.outcome, Outcome::Unavailable | Outcome::Unsupported))
    }
}

/// What the trials of one process share.
pub struct Session {
    ctx: Context,
    host: HostInfo,
    harness: HarnessInfo,
    run: Option<String>,
    records: Mutex<BTreeMap<String, Record>>,
}

impl Session {
    /// A session that writes below the context's folders.
    pub fn new(ctx: Context, harness: HarnessInfo, run: Option<String>) -> Self {
        Self { ctx, host: HostInfo::here(), harness, run, records: Mutex::new(BTreeMap::new()) }
    }

    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// The records that this process has made.
    pub fn records(&self) -> BTreeMap<String, Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Settles a cell: runs it if need be, writes its record, and says what came out.
    #[must_use]
    pub fn settle(&self, planned: &Planned, forced: bool) -> Verdict {
        let start = Instant::now();
        let (mut verdict, metrics, ran) = match planned.settled(forced) {
            Some(verdict) => (verdict, Metrics::default(), false),
            None => {
                let (ran, metrics) = self.ask(planned);
                let expectation = planned.declared.expectation.as_ref();
                (verdict::after(expectation, &ran), metrics, true)
            }
        };
        let duration_ms = if ran { start.elapsed().as_secs_f64() * 1e3 } else { 0.0 };
        let mut record = self.record(planned, &verdict, metrics, duration_ms);
        let folder = self.ctx.paths.records();
        if let Err(error) = record::write(&folder, planned.cell(), &record) {
            // A result that no report will ever show is not a result.
            let outcome = verdict.outcome.name();
            verdict = Verdict {
                outcome: Outcome::Fail,
                reason: Some(format!("{outcome}, but its record could not be written: {error}")),
                remedy: Some("make the folder writable, or set MATRIX_OUT to another".to_owned()),
            };
            record.outcome = verdict.outcome;
            record.reason.clone_from(&verdict.reason);
            record.remedy.clone_from(&verdict.remedy);
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(record.name.clone(), record);
        verdict
    }

    fn ask(&self, planned: &Planned) -> (Ran, Metrics) {
        let run = AssertUnwindSafe(|| planned.check.run(planned.cell(), &self.ctx));
        match catch_unwind(run) {
            Ok(Ok(metrics)) => (Ran::Passed, metrics),
            Ok(Err(Failure { message, metrics })) => (Ran::Failed(message), metrics),
            Err(payload) => (Ran::Failed(format!("the check panicked: {}", panic_text(&*payload))), Metrics::default()),
        }
    }

    fn record(&self, planned: &Planned, verdict: &Verdict, metrics: Metrics, duration_ms: f64) -> Record {
        let expected = planned.declared.expectation.as_ref().map(|entry| Expected {
            reason: entry.reason.clone(),
            why: entry.why.clone(),
            link: entry.link.clone(),
        });
        Record {
            schema: record::SCHEMA,
            name: planned.cell().to_string(),
            outcome: verdict.outcome,
            reason: verdict.reason.clone(),
            remedy: verdict.remedy.clone(),
            expected,
            metrics: metrics.values,
            seed: format!("{:016x}", seed(planned.cell())),
            kernel: metrics.kernel,
            model_sha256: metrics.model_sha256,
            reference: metrics.reference,
            duration_ms,
            host: self.host.clone(),
            harness: self.harness.clone(),
            timestamp: provenance::now(),
            run: self.run.clone(),
        }
    }
}

/// Makes one trial per planned cell.
///
/// An unavailable or unsupported cell carries the ignored flag where the flag is what matters: in lists,
/// and when ignored cells are asked for. In an ordinary run it reports itself as ignored, with its reason
/// in the result line, which the flag cannot do. `nextest` knows a cell's availability from the list; a
/// process that it starts for a cell which is not available after all fails, since nextest would count
/// an ignored one as passed.
pub fn trials(session: &Arc<Session>, planned: &[Planned], args: &Arguments, nextest: bool) -> Vec<Trial> {
    let asked = args.ignored || args.include_ignored;
    let flagged = args.list || asked;
    let forced = asked || nextest;
    planned
        .iter()
        .map(|planned| {
            let session = Arc::clone(session);
            let ignored = flagged && planned.is_ignored();
            let planned = planned.clone();
            Trial::ignorable_test(planned.cell().to_string(), move || completion(session.settle(&planned, forced)))
                .with_ignored_flag(ignored)
        })
        .collect()
}

pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("with a payload that is not text")
}

/// A verdict as libtest-mimic takes it.
pub(crate) fn completion(verdict: Verdict) -> Result<Completion, Failed> {
    let reason = verdict.reason.unwrap_or_default();
    match verdict.outcome {
        Outcome::Pass | Outcome::Xfail => Ok(Completion::Completed),
        Outcome::Unavailable | Outcome::Unsupported => {
            Ok(Completion::ignored_with(format!("{}: {reason}", verdict.outcome.name())))
        }
        Outcome::Fail => Err(match verdict.remedy {
            Some(remedy) => Failed::from(format!("{reason}\n  to fix it: {remedy}")),
            None => Failed::from(reason),
        }),
    }
}
