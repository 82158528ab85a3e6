//! The transfer of one file: into a partial file that survives us, from the byte where it ends, until size and checksum are right.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::digest::Hasher;
use super::error::{HubError, Tried};
use super::event::{Event, Observer};
use super::http::{Again, Failure, Http, Metadata, Target, causes, shown, text};
use super::metrics::{Counters, add, add_time};
use super::retry::{Backoff, RetryPolicy};

/// A wrong checksum after a transfer from byte 0 is tried once more, not five times: the file may be big.
const CHECKSUM_TRIES: u32 = 2;

/// What the attempts of one call share.
pub(crate) struct Job {
    pub(crate) path: String,
    pub(crate) deadline: Instant,
    pub(crate) policy: RetryPolicy,
    pub(crate) observer: Option<Observer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tried: Arc<Mutex<Vec<String>>>,
}

impl Job {
    pub(crate) fn tell(&self, event: Event) {
        if let Some(observer) = &self.observer {
            observer(&event);
        }
    }

    pub(crate) fn tried(&self) -> Vec<String> {
        self.tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            job: self,
            backoff: Backoff::new(&self.policy, &self.path),
            failed: 0,
            total: 0,
        }
    }
}

/// Counts attempts and waits between them.
pub(crate) struct Attempts<'a> {
    job: &'a Job,
    backoff: Backoff,
    failed: u32,
    total: u32,
}

impl Attempts<'_> {
    /// Waits until the next attempt, or says why there is none. `progress`: the attempt brought the file forward, so it is free.
    pub(crate) async fn again(&mut self, failure: Failure, progress: bool) -> Result<(), HubError> {
        let Failure {
            error,
            cause,
            again,
        } = failure;
        let tried = self.job.tried();
        let give_up = |error: Box<HubError>| Err(error.with_tried(tried.clone()));
        self.total += 1;
        if progress {
            self.failed = 0;
            self.backoff.reset();
        } else {
            self.failed += 1;
        }
        let left = self.job.deadline.saturating_duration_since(Instant::now());
        let delay = match again {
            Again::No => return give_up(error),
            _ if self.failed > self.job.policy.retries => return give_up(error),
            Again::Backoff => self.backoff.next(),
            Again::After(wait) => {
                let limit = left.min(self.job.policy.longest_wait);
                if wait >= limit {
                    return match *error {
                        HubError::Status { url, .. } => Err(HubError::RateLimited {
                            url,
                            wait,
                            limit,
                            tried: Tried(tried),
                        }),
                        other => Err(other),
                    };
                }
                wait
            }
        };
        if delay >= left {
            return give_up(error); // sleeping into the deadline would only hide the cause
        }
        self.job
            .tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{}: {cause}", self.total));
        tracing::debug!(path = %self.job.path, attempt = self.total, %cause, ?delay, "retry");
        self.job.tell(Event::Retry {
            path: self.job.path.clone(),
            attempt: self.total,
            why: cause,
            delay,
            rate_limited: matches!(again, Again::After(_)),
        });
        add(&self.job.counters.retries, 1);
        add_time(&self.job.counters.waited_us, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// The note beside a partial file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// The ETag under which the first bytes came, for If-Range. A CDN's differs from the hub's.
    validator: Option<String>,
}

/// A partial file that is being filled.
struct Partial {
    cache: Cache,
    file: File,
    part: PathBuf,
    note: PathBuf,
    fresh: Hasher,
    hasher: Hasher,
    done: u64,
    /// Whether some of `done` is from an earlier attempt, so that a wrong checksum may be its fault.
    mixed: bool,
    validator: Option<String>,
}

impl Partial {
    /// Opens what there is and hashes it.
    fn open(cache: &Cache, meta: &Metadata) -> Result<Self, HubError> {
        let (part, note) = cache.partial(&meta.digest);
        let fail = |cause: io::Error| HubError::io("open", &part, cause);
        if let Some(dir) = part.parent() {
            fs::create_dir_all(dir).map_err(fail)?;
        }
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(fail)?;
        let fresh = meta.digest.hasher(meta.size);
        let mut hasher = fresh.clone();
        let mut done = file.metadata().map_err(fail)?.len();
        if done > meta.size {
            file.set_len(0).map_err(fail)?;
            done = 0;
        }
        let (mut buffer, mut left) = (vec![0; 128 << 10], done);
        while left > 0 {
            let n = file.read(&mut buffer).map_err(fail)?;
            if n == 0 {
                return Err(HubError::io(
                    "read",
                    &part,
                    "it became shorter while it was read",
                ));
            }
            hasher.update(&buffer[..n]);
            left = left.saturating_sub(n as u64);
        }
        let validator = fs::read(&note)
            .ok()
            .and_then(|text| serde_json::from_slice::<Note>(&text).ok())
            .and_then(|note| note.validator);
        Ok(Self {
            cache: cache.clone(),
            file,
            fresh,
            hasher,
            done,
            mixed: done > 0,
            validator: validator.filter(|_| done > 0),
            part,
            note,
        })
    }

    fn fail(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::fatal(HubError::io("write", &self.part, cause))
    }

    /// Back to byte 0; `validator` is the ETag of what comes now.
    fn restart(&mut self, validator: Option<String>) -> Result<(), Failure> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|cause| self.fail(cause))?;
        self.hasher = self.fresh.clone();
        (self.done, self.mixed) = (0, false);
        self.validator = validator.clone();
        // before the first byte: a note without bytes is harmless, bytes without their note lose If-Range
        let text = serde_json::to_vec(&Note { validator }).map_err(|cause| self.fail(cause))?;
        self.cache.write(&self.note, &text).map_err(Failure::fatal)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(bytes)
            .map_err(|cause| self.fail(cause))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }
}

/// Fetches a file until it is complete and verified; returns the bytes that came over the network. The caller holds the lock of this
/// checksum. The verified file is the cache's partial file of `meta.digest`.
pub(crate) async fn fetch(
    http: &Http,
    cache: &Cache,
    job: &Job,
    target: Target<'_>,
    meta: &Metadata,
) -> Result<u64, HubError> {
    let mut partial = {
        let (cache, meta) = (cache.clone(), meta.clone());
        blocking(move || Partial::open(&cache, &meta)).await?
    };
    let resumed = partial.done;
    add(&job.counters.resumed_bytes, resumed);
    job.tell(Event::Started {
        path: job.path.clone(),
        resumed,
        total: meta.size,
    });
    let (mut attempts, mut transferred, mut wrong) = (job.attempts(), 0u64, 0u32);
    loop {
        let before = transferred;
        let result = match attempt(http, job, target, meta, &mut partial, &mut transferred).await {
            Ok(()) => verify(job, http, target, meta, &mut partial, &mut wrong),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(()) => {
                partial
                    .file
                    .sync_all()
                    .map_err(|cause| HubError::io("write", &partial.part, cause))?;
                return Ok(transferred);
            }
            Err(failure) => {
                let checksum = matches!(
                    *failure.error,
                    HubError::Checksum { .. } | HubError::Size { .. }
                );
                let progress =
                    !checksum && carried(transferred - before, meta) && failure.again != Again::No;
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
    if partial.done == meta.size && (meta.size > 0 || partial.mixed) {
        return Ok(()); // the last run died between the last byte and the rename
    }
    let (mut response, permit, url) = http
        .open(
            &job.counters,
            target,
            partial.done,
            partial.validator.as_deref(),
        )
        .await?;
    let headers = response.headers();
    if text(headers, "content-encoding").is_some_and(|coding| coding != "identity") {
        return Err(Failure::bad_answer(
            &url,
            "it compresses what was to come as it is",
        ));
    }
    let page = text(headers, "content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if page && !target.path.ends_with(".html") && !target.path.ends_with(".htm") {
        return Err(Failure::bad_answer(
            &url,
            "it sends a web page instead of the file",
        ));
    }
    let validator = text(headers, "etag")
        .filter(|etag| !etag.starts_with("W/"))
        .map(str::to_owned);
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            if content_range(headers) != Some((partial.done, meta.size)) {
                partial.restart(None)?;
                let why = "it sends another range than the one that was asked for";
                job.tell(Event::Restarted {
                    path: job.path.clone(),
                    why: why.to_owned(),
                });
                return Err(Failure::bad_answer(&url, why));
            }
            partial.mixed = true;
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.restart(None)?;
            let why = "the server does not know the range that is missing";
            job.tell(Event::Restarted {
                path: job.path.clone(),
                why: why.to_owned(),
            });
            return Err(Failure::bad_answer(&url, why));
        }
        _ => {
            if partial.done > 0 {
                let why = "the server sends the whole file instead of the missing part".to_owned();
                job.tell(Event::Restarted {
                    path: job.path.clone(),
                    why,
                });
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
                    let error = HubError::Size {
                        url: shown(&url),
                        expected: meta.size,
                        got,
                        tried: Tried::default(),
                    };
                    partial.restart(None)?;
                    break Err(Failure::new(
                        error,
                        format!("{got} bytes and more, {} promised", meta.size),
                        Again::Backoff,
                    ));
                }
                partial.write(&chunk)?;
                job.tell(Event::Progress {
                    path: job.path.clone(),
                    done: partial.done,
                    total: meta.size,
                });
            }
            Ok(None) => {
                break Err(Failure::network(
                    &url,
                    format!("the body ended at byte {} of {}", partial.done, meta.size),
                ));
            }
            Err(cause) => {
                let why = format!(
                    "at byte {} of {}: {}",
                    partial.done,
                    meta.size,
                    causes(&cause.without_url())
                );
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
    let why = format!(
        "{} {got}, promised {}",
        meta.digest.algorithm, meta.digest.hex
    );
    job.tell(Event::Restarted {
        path: job.path.clone(),
        why: why.clone(),
    });
    // old bytes may be to blame: then the first transfer from byte 0 has not been tried yet
    *wrong += u32::from(!mixed);
    let url = http
        .resolve_url(target)
        .map(|url| shown(&url))
        .map_err(Failure::fatal)?;
    let (algorithm, expected) = (meta.digest.algorithm, meta.digest.hex.clone());
    let again = if *wrong >= CHECKSUM_TRIES {
        Again::No
    } else {
        Again::Backoff
    };
    if again == Again::No {
        // nothing of it shall be found by anybody
        let _ = fs::remove_file(&partial.part);
        let _ = fs::remove_file(&partial.note);
    }
    Err(Failure::new(
        HubError::Checksum {
            url,
            algorithm,
            expected,
            got,
            tried: Tried::default(),
        },
        why,
        again,
    ))
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` as (FIRST, TOTAL).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, total) = text(headers, "content-range")?
        .trim()
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// Runs what blocks (reading, hashing, compressing) beside the async tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cause) => Err(HubError::Client {
            why: format!("a background task ended early: {cause}"),
        }),
    }
}

/// Never longer than this, whatever a setting says: `Instant` must not overflow.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 86400);
