//! `download`: a file comes through the fault byte for byte, or an error comes and nothing is kept; and when the fault is
//! over, all is well. Twice: into our cache, where tokenizers are kept, and into HuggingFace's, where models are; the requests
//! are the same.
//!
//! The cell's quant names a fault of `golden/faults.toml`. What is asserted stands there; what is counted is the mock hub's
//! log, not the client's word.

use super::{Check, Context, Failure};
use crate::axes::Cell;
use crate::hub;
use crate::metrics::Metrics;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_engine::hub::{Cache, HubError, HubMetrics, HubSettings};
use bitnet_golden::faults::{self, Fault, FaultOutcome, Network};
use bitnet_golden::matrix::Source;
use bitnet_mock_hub::{Log, MockHubBuilder, Rule, Side};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Download;

/// No fault may cost more than this, whatever it is.
const PATIENCE: Duration = Duration::from_secs(20);

impl Check for Download {
    fn name(&self) -> &'static str {
        "download"
    }

    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        let model = ctx.model(cell)?;
        if model.source != Source::Hub {
            return Err(Failure::new(format_args!("`{}` is not a hub to download from", model.name)));
        }
        let faults = faults::read(&ctx.paths.golden)?;
        if let Some(lost) = faults.iter().find(|fault| !model.quants.contains(&fault.name)) {
            let text =
                format!("faults.toml has `{}`, which is not a quant of `{}`: nothing runs it", lost.name, model.name);
            return Err(Failure::new(text));
        }
        let fault = faults.into_iter().find(|fault| fault.name == cell.quant);
        let fault = fault.ok_or_else(|| Failure::new(format_args!("faults.toml has no fault `{}`", cell.quant)))?;
        let named = |way: &str, failure: Failure| Failure::new(format_args!("{way}: {}", failure.message));
        judge_in(Place::HuggingFace, &fault, &snapshot).map_err(|failure| named("as a model", failure))?;
        judge(&fault, &fetch)
    }
}

/// Where what comes is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ours,
    HuggingFace,
}

/// HuggingFace's cache in the folder of a trial.
const HF: &str = "hf";

/// What a client says of one request.
pub struct Answer {
    pub result: Result<Arc<Vec<u8>>, HubError>,
    pub metrics: HubMetrics,
}

/// A client: settings and what to fetch, to an answer. The self tests plant others than [`fetch`].
pub type Client<'a> = &'a dyn Fn(HubSettings, &Fault) -> Result<Answer, Failure>;

/// The engine's client.
pub fn fetch(settings: HubSettings, fault: &Fault) -> Result<Answer, Failure> {
    let client = BlockingDownload::new(settings, None)?;
    let result = client.fetch(&fault.repo, &fault.revision, &fault.file).and_then(|file| file.read());
    Ok(Answer { result, metrics: client.metrics() })
}

/// The same for a file of a model.
fn snapshot(settings: HubSettings, fault: &Fault) -> Result<Answer, Failure> {
    let client = BlockingDownload::new(settings, None)?;
    let result = client.snapshot(&fault.repo, &fault.revision, &[&fault.file]).and_then(|snapshot| {
        let none = || HubError::Client { why: "no file came back".to_owned() };
        snapshot.files.first().ok_or_else(none)?.read()
    });
    Ok(Answer { result, metrics: client.metrics() })
}

/// Plants the fault, asks once under it and once when it is over, and compares everything with what the fault's table says.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn judge(fault: &Fault, client: Client<'_>) -> Result<Metrics, Failure> {
    judge_in(Place::Ours, fault, client)
}

fn judge_in(place: Place, fault: &Fault, client: Client<'_>) -> Result<Metrics, Failure> {
    let rules: Vec<Rule> = fault.faults.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let mut scene = rules.iter().cloned().fold(hub::scene().seed(fault.seed), MockHubBuilder::rule);
    if fault.cdn_etag_differs {
        scene = scene.cdn_etag_differs();
    }
    let server = scene.start()?;
    let (endpoint, log) = (server.endpoint().to_owned(), server.log().clone());
    let server = (fault.network != Network::Gone).then_some(server);
    let folder = tempfile::tempdir()?;
    let plain = || {
        let mut settings = hub::settings(&endpoint, folder.path(), fault.token.as_deref());
        if place == Place::HuggingFace {
            settings.hf_caches.push(folder.path().join(HF));
        }
        settings
    };
    let mut settings = plain();
    settings.offline = fault.network == Network::Offline;
    let millis = |slot: &mut Duration, value: Option<u64>| *slot = value.map_or(*slot, Duration::from_millis);
    millis(&mut settings.timeouts.overall, fault.deadline_ms);
    millis(&mut settings.timeouts.stall, fault.stall_ms);
    millis(&mut settings.timeouts.metadata, fault.metadata_ms);
    settings.breaker.threshold = fault.breaker.unwrap_or(settings.breaker.threshold);

    let started = Instant::now();
    let Answer { result, metrics } = client(settings, fault)?;
    let took = started.elapsed();

    ended(fault, &result)?;
    match place {
        Place::Ours => kept(fault, folder.path())?,
        Place::HuggingFace => kept_as_model(fault, folder.path())?,
    }
    asked(fault, &rules, &log)?;
    counted(fault, &metrics)?;
    if took > PATIENCE {
        return Err(Failure::new(format_args!("it took {took:?}, more than {PATIENCE:?}")));
    }
    let requests = log.len();
    if let Some(server) = server.filter(|_| fault.recovers) {
        server.heal();
        log.clear();
        repaired(fault, client(plain(), fault)?, &log)?;
    }
    Ok(Metrics::new()
        .with("requests", requests)
        .with("retries", usize::try_from(metrics.retries)?)
        .with("transferred_bytes", usize::try_from(metrics.bytes)?)
        .with("ms", took.as_secs_f64() * 1e3))
}

/// The outcome, the bytes, the error's kind and words.
fn ended(fault: &Fault, result: &Result<Arc<Vec<u8>>, HubError>) -> Result<(), Failure> {
    match (fault.outcome, result) {
        (FaultOutcome::Ok, Ok(bytes)) => same_bytes(fault, bytes),
        (FaultOutcome::Ok, Err(error)) => Err(Failure::new(format_args!("the file should have come, but: {error}"))),
        (FaultOutcome::Error, Ok(bytes)) => Err(Failure::new(format_args!(
            "{} bytes were accepted, an error {} was to come",
            bytes.len(),
            fault.error.as_deref().unwrap_or_default()
        ))),
        (FaultOutcome::Error, Err(error)) => {
            let (kind, text) = (kind(error), error.to_string());
            let wanted = fault.error.as_deref().unwrap_or_default();
            if kind != wanted {
                return Err(Failure::new(format_args!("the error is {kind}, expected {wanted}: {text}")));
            }
            if let Some(word) = fault.words.iter().find(|word| !text.contains(word.as_str())) {
                return Err(Failure::new(format_args!("the error does not say `{word}`: {text}")));
            }
            // The scene's addresses are signed, and its tokens are words that no message has.
            let secret = ["Signature"].into_iter().chain(fault.token.as_deref()).find(|secret| text.contains(secret));
            match secret {
                Some(secret) => Err(Failure::new(format_args!("the error tells a secret, `{secret}`: {text}"))),
                None => Ok(()),
            }
        }
    }
}

fn same_bytes(fault: &Fault, bytes: &[u8]) -> Result<(), Failure> {
    let truth = hub::truth(&fault.repo, &fault.revision, &fault.file);
    let truth = truth.ok_or_else(|| Failure::new("the scene has no such file, and yet it came"))?;
    let differ = truth
        .iter()
        .zip(bytes)
        .position(|(a, b)| a != b)
        .or((truth.len() != bytes.len()).then_some(truth.len().min(bytes.len())));
    match differ {
        Some(at) => Err(Failure::new(format_args!(
            "wrong bytes were accepted: {} instead of {}, the first difference at byte {at}",
            bytes.len(),
            truth.len()
        ))),
        None => Ok(()),
    }
}

/// Name of an error's variant.
fn kind(error: &HubError) -> String {
    format!("{error:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// What lies in the cache's folder: one sound file and nothing half, or nothing.
fn kept(fault: &Fault, folder: &Path) -> Result<(), Failure> {
    let files = hub::files_under(folder)?;
    let below = |name: &str| files.iter().filter(|file| file.starts_with(name)).collect::<Vec<_>>();
    let (blobs, entries, partial) = (below("blobs"), below("entries"), below("partial"));
    if fault.outcome == FaultOutcome::Error {
        return match blobs.iter().chain(&entries).next() {
            Some(file) => Err(Failure::new(format_args!("an error, and yet {} was kept", file.display()))),
            None => Ok(()),
        };
    }
    let found = Cache::new(folder).verify()?;
    if (found.sound.len(), found.damaged.len(), blobs.len(), partial.len()) != (1, 0, 1, 0) {
        return Err(Failure::new(format_args!(
            "one sound file should be cached: {} are sound, {} damaged, there are {} blobs and {} partial files",
            found.sound.len(),
            found.damaged.len(),
            blobs.len(),
            partial.len()
        )));
    }
    Ok(())
}

/// The same in HuggingFace's cache: one blob under its checksum, one file of the commit that is this blob, and a branch that says so.
fn kept_as_model(fault: &Fault, folder: &Path) -> Result<(), Failure> {
    let files = hub::files_under(folder)?;
    let has = |file: &Path, part: &str| file.iter().any(|name| name == part);
    let of = |part: &str| files.iter().filter(|file| file.starts_with(HF) && has(file, part)).collect::<Vec<_>>();
    let (blobs, snapshots, refs) = (of("blobs"), of("snapshots"), of("refs"));
    let (whole, half): (Vec<_>, Vec<_>) =
        blobs.into_iter().partition(|file| file.extension().is_none_or(|end| end != "incomplete"));
    if fault.outcome == FaultOutcome::Error {
        return match whole.iter().chain(&snapshots).chain(&refs).next() {
            Some(file) => Err(Failure::new(format_args!("an error, and yet {} was kept", file.display()))),
            None => Ok(()),
        };
    }
    let branch = usize::from(fault.revision.len() != 40);
    let notes = files.iter().filter(|file| file.starts_with("partial") || file.starts_with("blobs")).count();
    if (whole.len(), half.len(), snapshots.len(), refs.len(), notes) != (1, 0, 1, branch, 0) {
        return Err(Failure::new(format_args!("one blob, one file and {branch} branches should be there: {files:?}")));
    }
    for file in whole.iter().chain(&snapshots) {
        same_bytes(fault, &std::fs::read(folder.join(file))?)?;
    }
    Ok(())
}

/// What the hub saw: how many requests, from which bytes, with whose token; and that the faults struck at all.
fn asked(fault: &Fault, rules: &[Rule], log: &Log) -> Result<(), Failure> {
    let entries = log.entries();
    let [fewest, most] = fault.requests;
    if !(fewest..=most).contains(&(entries.len() as u64)) {
        let seen: Vec<String> =
            entries.iter().map(|e| format!("{:?} {} {} -> {}", e.side, e.method, e.path, e.status)).collect();
        return Err(Failure::new(format_args!(
            "{} requests instead of {fewest} to {most}:\n{}",
            entries.len(),
            seen.join("\n")
        )));
    }
    if let Some(idle) = rules.iter().find(|rule| !entries.iter().any(|entry| entry.faults.contains(&rule.fault))) {
        return Err(Failure::new(format_args!("the fault {:?} never struck, so nothing was proven", idle.fault)));
    }
    if let Some(wanted) = &fault.ranges {
        let contents = entries.iter().filter(|entry| entry.side == Side::Cdn && entry.method == "GET");
        let ranges: Vec<String> = contents.map(|entry| entry.range.clone().unwrap_or_default()).collect();
        if ranges != *wanted {
            return Err(Failure::new(format_args!("the CDN was asked for {ranges:?} instead of {wanted:?}")));
        }
    }
    if let Some(bare) = entries.iter().find(|entry| entry.range.is_some() != entry.if_range.is_some()) {
        return Err(Failure::new(format_args!("Range without If-Range, or the other way round: {bare:?}")));
    }
    for side in [Side::Cdn, Side::Elsewhere] {
        if log.token_seen(side) {
            return Err(Failure::new(format_args!("the token leaked to {side:?}")));
        }
    }
    if fault.token.is_some() && !log.token_seen(Side::Hub) {
        return Err(Failure::new("the hub did not get the token, so that it stayed home proves nothing"));
    }
    if fault.elsewhere != entries.iter().any(|entry| entry.side == Side::Elsewhere) {
        let (said, not) = if fault.elsewhere { ("never", "it should have been") } else { ("", "it must not be") };
        return Err(Failure::new(format_args!("the third origin was {said} asked, {not}")));
    }
    Ok(())
}

fn counted(fault: &Fault, metrics: &HubMetrics) -> Result<(), Failure> {
    for (what, is, wanted) in
        [("bytes came over the network", metrics.bytes, fault.transferred), ("retries", metrics.retries, fault.retries)]
    {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            return Err(Failure::new(format_args!("{is} {what} instead of {wanted}")));
        }
    }
    if metrics.waited_ms < fault.waited_ms {
        return Err(Failure::new(format_args!("waited {} ms instead of {}", metrics.waited_ms, fault.waited_ms)));
    }
    Ok(())
}

/// When the faults are over: what had failed succeeds, and what had succeeded needs no packet.
fn repaired(fault: &Fault, answer: Answer, log: &Log) -> Result<(), Failure> {
    let bytes = answer.result.map_err(|error| Failure::new(format_args!("after the fault: {error}")))?;
    same_bytes(fault, &bytes)?;
    if fault.outcome == FaultOutcome::Ok && !log.is_empty() {
        return Err(Failure::new(format_args!("{} requests for a file that is cached", log.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_mock_hub::Fault as Planted;

    /// Every variant by name. A new one does not compile here until it has a name, and then needs a cell.
    fn name(fault: &Planted) -> &'static str {
        match fault {
            Planted::Cut { .. } => "cut",
            Planted::Drip { .. } => "drip",
            Planted::Stall { .. } => "stall",
            Planted::WrongLength { .. } => "length",
            Planted::NoLength => "nolength",
            Planted::Corrupt { .. } => "corrupt",
            Planted::Html { .. } => "html",
            Planted::Status { .. } => "status",
            Planted::RetryAfter { .. } => "retry-after",
            Planted::RateLimit { .. } => "ratelimit",
            Planted::RedirectLoop => "loop",
            Planted::RedirectAway => "away",
            Planted::Moved { .. } => "moved",
            Planted::Refuse => "refuse",
            Planted::Delay { .. } => "delay",
            Planted::IgnoreRange => "norange",
            Planted::OtherRange { .. } => "other-range",
            Planted::OtherCommit => "other-commit",
            Planted::Header { .. } => "header",
        }
    }

    #[test]
    fn every_fault_of_the_mock_has_a_cell() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
        let faults = faults::read(&golden).expect("faults.toml");
        let rules = faults.iter().flat_map(|fault| &fault.faults);
        let used: std::collections::BTreeSet<&str> =
            rules.map(|text| name(&text.parse::<Rule>().expect(text).fault)).collect();
        let all = "corrupt cut delay drip header html length loop moved nolength norange other-commit other-range ratelimit refuse retry-after stall status away";
        let mut all: Vec<&str> = all.split(' ').collect();
        all.sort_unstable();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), all);
    }
}
