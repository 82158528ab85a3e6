//! The transfer of one file: into a partial file that survives us, from the byte where it ends, until size and checksum are right.

use std::fs;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::attempts::Job;
use super::error::{HubError, Tried};
use super::event::Event;
use super::failure::{Again, Failure, causes, shown};
use super::http::{Http, Metadata, Target, text};
use super::metrics::{add, add_time};
use super::partial::{Partial, Slot};

/// A wrong checksum after a transfer from byte 0 is tried once more, not five times: the file may be big.
const CHECKSUM_TRIES: u32 = 2;

/// Fetches a file until it is complete and verified; returns the bytes that came over the network. The caller holds the lock of this
/// checksum. The verified file is the partial file of `slot`.
pub(crate) async fn fetch(
    http: &Http,
    slot: Slot,
    job: &Job,
    target: Target<'_>,
    meta: &Metadata,
) -> Result<u64, HubError> {
    let mut partial = {
        let meta = meta.clone();
        blocking(move || Partial::open(slot, &meta)).await?
    };
    let resumed = partial.done;
    add(&job.counters.resumed_bytes, resumed);
    job.tell(Event::Started { path: job.path.clone(), resumed, total: meta.size });
    let (mut attempts, mut transferred, mut wrong) = (job.attempts(), 0u64, 0u32);
    loop {
        let before = transferred;
        let result = match attempt(http, job, target, meta, &mut partial, &mut transferred).await {
            Ok(()) => verify(job, http, target, meta, &mut partial, &mut wrong),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => {
                partial.file.sync_all().map_err(|cause| HubError::io("write", &partial.part, cause))?;
                return Ok(transferred);
            }
            Err(failure) => {
                let checksum = matches!(*failure.error, HubError::Checksum { .. } | HubError::Size { .. });
                let progress = !checksum && carried(transferred - before, meta) && failure.again != Again::No;
                attempts.again(failure, progress).await?;
            }
        }
    }
}

/// Whether an attempt brought the file forward: by a twentieth at least, so that a file needs no more than about twenty of them.
fn carried(bytes: u64, meta: &Metadata) -> bool {
    bytes >= (meta.size / 20).max(1)
}

/// One request: appends to the partial file until it is complete.
async fn attempt(
    http: &Http,
    job: &Job,
    target: Target<'_>,
    meta: &Metadata,
    partial: &mut Partial,
    transferred: &mut u64,
) -> Result<(), Failure> {
    if partial.done == meta.size && partial.mixed {
        return Ok(()); // the last run died between the last byte and the rename
    }
    let (mut response, permit, url) =
        http.open(&job.counters, target, partial.done, partial.validator.as_deref()).await?;
    let headers = response.headers();
    if text(headers, "content-encoding").is_some_and(|coding| coding != "identity") {
        return Err(Failure::bad_answer(&url, "it compresses what was to come as it is"));
    }
    let page = text(headers, "content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if page && !target.path.ends_with(".html") && !target.path.ends_with(".htm") {
        return Err(Failure::bad_answer(&url, "it sends a web page instead of the file"));
    }
    let validator = text(headers, "etag").filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            if content_range(headers) != Some((partial.done, meta.size)) {
                partial.restart(None)?;
                let why = "it sends another range than the one that was asked for";
                job.tell(Event::Restarted { path: job.path.clone(), why: why.to_owned() });
                return Err(Failure::bad_answer(&url, why));
            }
            partial.mixed = true;
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.restart(None)?;
            let why = "the server does not know the range that is missing";
            job.tell(Event::Restarted { path: job.path.clone(), why: why.to_owned() });
            return Err(Failure::bad_answer(&url, why));
        }
        _ => {
            if partial.done > 0 {
                let why = "the server sends the whole file instead of the missing part".to_owned();
                job.tell(Event::Restarted { path: job.path.clone(), why });
            }
            partial.restart(validator)?;
        }
    }
    let before = *transferred;
    let started = Instant::now();
    let result = loop {
        if partial.done == meta.size {
            break Ok(());
        }
        match response.chunk().await {
            Ok(Some(chunk)) => {
                *transferred += chunk.len() as u64;
                add(&job.counters.bytes, chunk.len() as u64);
                let missing = meta.size - partial.done;
                if chunk.len() as u64 > missing {
                    let got = partial.done + chunk.len() as u64;
                    let error = HubError::Size { url: shown(&url), expected: meta.size, got, tried: Tried::default() };
                    partial.restart(None)?;
                    break Err(Failure::new(
                        error,
                        format!("{got} bytes and more, {} promised", meta.size),
                        Again::Backoff,
                    ));
                }
                partial.write(&chunk)?;
                job.tell(Event::Progress { path: job.path.clone(), done: partial.done, total: meta.size });
            }
            Ok(None) => {
                break Err(Failure::network(&url, format!("the body ended at byte {} of {}", partial.done, meta.size)));
            }
            Err(cause) => {
                let why = format!("at byte {} of {}: {}", partial.done, meta.size, causes(&cause.without_url()));
                break Err(Failure::network(&url, why));
            }
        }
    };
    add_time(&job.counters.transfer_us, started.elapsed());
    match &result {
        // a line that brings the file forward is bad, not dead
        Err(failure) if !carried(*transferred - before, meta) => permit.failure(&failure.cause),
        _ => permit.success(),
    }
    result
}

/// Compares the checksum of the complete file; a wrong one empties it.
fn verify(
    job: &Job,
    http: &Http,
    target: Target<'_>,
    meta: &Metadata,
    partial: &mut Partial,
    wrong: &mut u32,
) -> Result<(), Failure> {
    let got = partial.hasher.clone().hex();
    if got == meta.digest.hex {
        return Ok(());
    }
    let mixed = partial.mixed;
    add(&job.counters.checksum_failures, 1);
    partial.restart(None)?;
    let why = format!("{} {got}, promised {}", meta.digest.algorithm, meta.digest.hex);
    job.tell(Event::Restarted { path: job.path.clone(), why: why.clone() });
    // old bytes may be to blame: then the first transfer from byte 0 has not been tried yet
    *wrong += u32::from(!mixed);
    let url = http.resolve_url(target).map(|url| shown(&url)).map_err(Failure::fatal)?;
    let (algorithm, expected) = (meta.digest.algorithm, meta.digest.hex.clone());
    let again = if *wrong >= CHECKSUM_TRIES { Again::No } else { Again::Backoff };
    if again == Again::No {
        // nothing of it shall be found by anybody
        let _ = fs::remove_file(&partial.part);
        let _ = fs::remove_file(&partial.note);
    }
    Err(Failure::new(HubError::Checksum { url, algorithm, expected, got, tried: Tried::default() }, why, again))
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` as (FIRST, TOTAL).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, total) = text(headers, "content-range")?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// Runs what blocks (reading, hashing, compressing) beside the async tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cause) => Err(HubError::Client { why: format!("a background task ended early: {cause}") }),
    }
}

/// Never longer than this, whatever a setting says: `Instant` must not overflow.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 86400);
