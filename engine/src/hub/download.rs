//! [`SmartTokenizerDownload`]: the order of things, from a name to a verified file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Serialize;
use tracing::Instrument as _;

use super::breaker::BreakerState;
use super::cache::{Cache, CacheEntry, write_atomic};
use super::digest::Digest;
use super::error::{HubError, Tried};
use super::event::{Event, Observer};
use super::fetch::{FOREVER, Job, blocking, fetch};
use super::hf_cache;
use super::http::{Again, Failure, Http, Metadata, Target};
use super::lock::{Lock, lock};
use super::metrics::{Counters, HubMetrics, add};
use super::names::{check_path, check_repo, check_revision, encode, is_commit};
use super::settings::HubSettings;

/// Verified contents up to this size stay in memory, since verifying has read them anyway.
const KEEP_UP_TO: u64 = 64 << 20;
const LONGEST_LIST: usize = 32 << 20;

/// Where a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It came over the network.
    Network,
    /// Our cache had it.
    Cache,
    /// Our cache had the same contents under another commit, or another process was fetching them.
    Shared,
    /// A cache in HuggingFace's layout had it.
    HuggingFaceCache,
}

/// A verified file.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The repository.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// The file's path in the repository.
    pub path: String,
    /// Its checksum.
    pub digest: Digest,
    /// Bytes of its contents.
    pub size: u64,
    /// Where it was found.
    pub source: Source,
    /// Where it lies; compressed with zstd if `compressed`.
    pub file: PathBuf,
    /// Whether `file` is zstd.
    pub compressed: bool,
    bytes: Option<Arc<Vec<u8>>>,
    cache: Cache,
}

impl Fetched {
    /// The contents, verified.
    pub fn read(&self) -> Result<Arc<Vec<u8>>, HubError> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        if self.source == Source::HuggingFaceCache {
            let mut bytes = Vec::new();
            let fail = |cause| HubError::io("read", &self.file, cause);
            let file = std::fs::File::open(&self.file).map_err(fail)?;
            return match self
                .digest
                .check(file, self.size, |part| bytes.extend_from_slice(part))
                .map_err(fail)?
            {
                None => Ok(Arc::new(bytes)),
                Some(why) => Err(HubError::Corrupt {
                    path: self.file.clone(),
                    why,
                }),
            };
        }
        match self.cache.find(&self.repo, &self.commit, &self.path) {
            Some(entry) => self.cache.read(&entry).map(Arc::new),
            None => Err(HubError::io(
                "read",
                &self.file,
                "it has been evicted since; run the command again",
            )),
        }
    }

    /// The file itself, if it can be mapped as it is.
    pub fn plain_file(&self) -> Option<&Path> {
        (!self.compressed).then_some(self.file.as_path())
    }

    /// Writes the contents to `to`, at once or not at all.
    pub fn export(&self, to: &Path) -> Result<(), HubError> {
        write_atomic(to, &self.read()?)
    }
}

/// The files of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The commit that the revision names.
    pub commit: String,
    /// Paths.
    pub files: Vec<String>,
}

struct Inner {
    settings: HubSettings,
    http: Http,
    cache: Cache,
    counters: Arc<Counters>,
    observer: Option<Observer>,
}

/// The async client. Clones share connections, breakers and counters. Needs a tokio runtime with time and I/O.
#[derive(Clone)]
pub struct SmartTokenizerDownload(Arc<Inner>);

impl std::fmt::Debug for SmartTokenizerDownload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmartTokenizerDownload")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl SmartTokenizerDownload {
    /// A client. Reads the token file, if one is set; sends nothing.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Self::with_observer(settings, None)
    }

    /// A client that tells `observer` what happens.
    pub fn with_observer(
        settings: HubSettings,
        observer: Option<Observer>,
    ) -> Result<Self, HubError> {
        let http = Http::new(&settings)?;
        let cache = Cache::new(&settings.cache_dir);
        Ok(Self(Arc::new(Inner {
            http,
            cache,
            counters: Arc::default(),
            observer,
            settings,
        })))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The counters so far.
    pub fn metrics(&self) -> HubMetrics {
        self.0.counters.snapshot()
    }

    /// The state of the endpoint's circuit breaker.
    pub fn breaker(&self) -> BreakerState {
        self.0
            .http
            .breakers
            .state(&self.0.http.endpoint.origin().ascii_serialization())
    }

    /// One file of a revision (branch, tag or commit), from a cache or the hub.
    ///
    /// Errors: [`HubError`]; every one of them leaves the cache as it was, except for the partial file that the next call resumes.
    pub async fn fetch(&self, repo: &str, revision: &str, path: &str) -> Result<Fetched, HubError> {
        let mut files = self.fetch_all(repo, revision, &[path]).await?;
        files.pop().ok_or_else(|| HubError::Client {
            why: "no file came back".to_owned(),
        })
    }

    /// Several files, all of one commit even if the branch moves meanwhile, several at a time. In the order of `paths`; the first error
    /// ends the call.
    pub async fn fetch_all(
        &self,
        repo: &str,
        revision: &str,
        paths: &[&str],
    ) -> Result<Vec<Fetched>, HubError> {
        check_repo(repo)?;
        check_revision(revision)?;
        paths.iter().try_for_each(|path| check_path(path))?;
        let Some(first) = paths.first() else {
            return Ok(Vec::new());
        };
        let span = tracing::info_span!("hub_fetch", repo, revision, files = paths.len());
        let what = format!("fetching {} of {repo}", paths.join(", "));
        self.bounded(what, first, async |job| {
            self.all(&job, repo, revision, paths).await
        })
        .instrument(span)
        .await
    }

    /// The files of a revision, by the hub's API. Needs the network.
    pub async fn list(&self, repo: &str, revision: &str) -> Result<Listing, HubError> {
        check_repo(repo)?;
        check_revision(revision)?;
        let target = Target {
            repo,
            revision,
            path: "*",
        };
        if self.0.settings.offline {
            return Err(offline(
                target,
                vec!["a list of files needs the network".to_owned()],
            ));
        }
        let rest = format!("api/models/{repo}/revision/{}", encode(revision, false));
        let body = self
            .bounded(format!("listing {repo}"), "*", async |job| {
                let mut attempts = job.attempts();
                loop {
                    match self
                        .0
                        .http
                        .json(&job.counters, &rest, target, LONGEST_LIST)
                        .await
                    {
                        Ok(body) => return Ok(body),
                        Err(failure) => attempts.again(failure, false).await?,
                    }
                }
            })
            .await?;
        let parse = || -> Option<Listing> {
            let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let files = json
                .get("siblings")?
                .as_array()?
                .iter()
                .map(|file| Some(file.get("rfilename")?.as_str()?.to_owned()));
            Some(Listing {
                commit: json.get("sha")?.as_str()?.to_owned(),
                files: files.collect::<Option<_>>()?,
            })
        };
        parse().ok_or_else(|| HubError::BadAnswer {
            url: self
                .0
                .http
                .url(&rest)
                .map(|url| url.to_string())
                .unwrap_or(rest.clone()),
            why: "no JSON with sha and siblings".to_owned(),
            tried: Tried::default(),
        })
    }

    /// Runs `work` under the overall deadline.
    async fn bounded<T>(
        &self,
        what: String,
        label: &str,
        work: impl AsyncFnOnce(Job) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let limit = self.0.settings.timeouts.overall.min(FOREVER);
        let job = self.job(label, Instant::now() + limit, Arc::default());
        let tried = job.tried.clone();
        match tokio::time::timeout(limit, work(job)).await {
            Ok(result) => result,
            Err(_) => {
                let tried = tried
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .clone();
                Err(HubError::Deadline {
                    what,
                    limit,
                    tried: Tried(tried),
                })
            }
        }
    }

    fn job(&self, label: &str, deadline: Instant, tried: Arc<Mutex<Vec<String>>>) -> Job {
        Job {
            path: label.to_owned(),
            deadline,
            policy: self.0.settings.retry.clone(),
            observer: self.0.observer.clone(),
            counters: self.0.counters.clone(),
            tried,
        }
    }

    async fn all(
        &self,
        job: &Job,
        repo: &str,
        revision: &str,
        paths: &[&str],
    ) -> Result<Vec<Fetched>, HubError> {
        let Some(first) = paths.first() else {
            return Ok(Vec::new());
        };
        let (commit, meta) = self
            .commit(
                job,
                Target {
                    repo,
                    revision,
                    path: first,
                },
            )
            .await?;
        if let [path] = paths {
            return Ok(vec![
                self.one(
                    job,
                    Target {
                        repo,
                        revision: &commit,
                        path,
                    },
                    revision,
                    meta,
                )
                .await?,
            ]);
        }
        let room = Arc::new(tokio::sync::Semaphore::new(
            self.0.settings.concurrency.max(1),
        ));
        let mut tasks = tokio::task::JoinSet::new();
        for (index, path) in paths.iter().enumerate() {
            let (this, room, meta) = (
                self.clone(),
                room.clone(),
                meta.clone().filter(|_| index == 0),
            );
            let names = (
                repo.to_owned(),
                revision.to_owned(),
                commit.clone(),
                (*path).to_owned(),
            );
            let job = self.job(path, job.deadline, job.tried.clone());
            let work = async move {
                let _place = room.acquire().await;
                let (repo, asked, commit, path) = names;
                (
                    index,
                    this.one(
                        &job,
                        Target {
                            repo: &repo,
                            revision: &commit,
                            path: &path,
                        },
                        &asked,
                        meta,
                    )
                    .await,
                )
            };
            tasks.spawn(work.in_current_span());
        }
        let mut out: Vec<Option<Fetched>> = vec![None; paths.len()];
        while let Some(done) = tasks.join_next().await {
            let (index, result) = done.map_err(|cause| HubError::Client {
                why: format!("a download task ended early: {cause}"),
            })?;
            if let Some(slot) = out.get_mut(index) {
                *slot = Some(result?); // dropping the set cancels the others; their partial files stay
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// The commit that a revision names, with the metadata that came along if the hub was asked.
    async fn commit(
        &self,
        job: &Job,
        target: Target<'_>,
    ) -> Result<(String, Option<Metadata>), HubError> {
        let Target { repo, revision, .. } = target;
        if is_commit(revision) {
            return Ok((revision.to_owned(), None));
        }
        let settings = &self.0.settings;
        let known = self.0.cache.commit_of(repo, revision);
        if let Some((commit, age)) = &known
            && (settings.offline || *age < settings.ref_ttl)
        {
            return Ok((commit.clone(), None));
        }
        let known = known.map(|(commit, _)| commit).or_else(|| {
            settings
                .hf_caches
                .iter()
                .find_map(|root| hf_cache::commit_of(root, repo, revision))
        });
        if settings.offline {
            return known
                .map(|commit| (commit, None))
                .ok_or_else(|| offline(target, self.places()));
        }
        match self.head(job, target).await {
            Ok(meta) => {
                // a cache that cannot be written will say so when a file is stored
                let _ = self.0.cache.set_commit(repo, revision, &meta.commit);
                Ok((meta.commit.clone(), Some(meta)))
            }
            Err(error) if error.is_network() && known.is_some() => {
                let commit = known.unwrap_or_default();
                tracing::warn!(repo, revision, commit, %error, "network down, using the last known commit");
                job.tell(Event::Stale {
                    repo: repo.to_owned(),
                    revision: revision.to_owned(),
                    commit: commit.clone(),
                    why: error.to_string(),
                });
                Ok((commit, None))
            }
            Err(error) => Err(error),
        }
    }

    async fn head(&self, job: &Job, target: Target<'_>) -> Result<Metadata, HubError> {
        let mut attempts = job.attempts();
        loop {
            match self.0.http.metadata(&job.counters, target).await {
                Ok(meta) => return Ok(meta),
                Err(failure) => attempts.again(failure, false).await?,
            }
        }
    }

    /// One file of a commit. `asked` is the revision in the user's words.
    async fn one(
        &self,
        job: &Job,
        target: Target<'_>,
        asked: &str,
        meta: Option<Metadata>,
    ) -> Result<Fetched, HubError> {
        let started = Instant::now();
        let counters = &job.counters;
        add(&counters.files, 1);
        if let Some(hit) = self.cached(job, target, Source::Cache).await? {
            return Ok(hit);
        }
        if let Some(hit) = self
            .hf_cached(job, target, meta.as_ref().map(|meta| &meta.digest))
            .await?
        {
            return Ok(hit);
        }
        if self.0.settings.offline {
            return Err(offline(
                Target {
                    revision: asked,
                    ..target
                },
                self.places(),
            ));
        }
        let meta = match meta {
            Some(meta) => meta,
            None => {
                let meta = self.head(job, target).await?;
                if let Some(hit) = self.hf_cached(job, target, Some(&meta.digest)).await? {
                    return Ok(hit);
                }
                meta
            }
        };
        if meta.commit != target.revision {
            let url = self.0.http.resolve_url(target)?;
            let why = format!(
                "it answers for commit {} when asked for {}",
                meta.commit, target.revision
            );
            let failure = Failure::bad_answer(&url, why);
            return Err(*Failure {
                again: Again::No,
                ..failure
            }
            .error);
        }
        if let Some(hit) = self.adopted(job, target, &meta).await? {
            return Ok(hit);
        }
        let lock = lock(self.0.cache.lock_file(&meta.digest.to_string()), || {
            add(&counters.lock_waits, 1);
            job.tell(Event::Waiting {
                path: job.path.clone(),
            });
        })
        .await?;
        if let Some(hit) = self.adopted(job, target, &meta).await? {
            return Ok(hit); // another process was faster
        }
        add(&counters.misses, 1);
        let transferred = fetch(&self.0.http, &self.0.cache, job, target, &meta).await?;
        let entry = self.keep(target, &meta, lock).await?;
        add(&counters.downloads, 1);
        let took = started.elapsed();
        tracing::info!(
            path = target.path,
            commit = target.revision,
            bytes = meta.size,
            transferred,
            ?took,
            "downloaded"
        );
        job.tell(Event::Finished {
            path: job.path.clone(),
            total: meta.size,
            transferred,
            took,
        });
        Ok(self.fetched(entry, Source::Network, None))
    }

    /// Moves the verified partial file into the cache, names it, and makes room. The lock goes along: if the caller's deadline passes
    /// meanwhile, the background task still holds it until it is done.
    async fn keep(
        &self,
        target: Target<'_>,
        meta: &Metadata,
        lock: Lock,
    ) -> Result<CacheEntry, HubError> {
        let (cache, meta, budget) = (
            self.0.cache.clone(),
            meta.clone(),
            self.0.settings.cache_budget,
        );
        let (repo, path) = (target.repo.to_owned(), target.path.to_owned());
        blocking(move || {
            let (part, note) = cache.partial(&meta.digest);
            cache.store(&part, &meta.digest, meta.size)?;
            let _ = std::fs::remove_file(note);
            let entry = cache.adopt(&repo, &meta.commit, &path, &meta.digest, meta.size)?;
            cache.evict(budget, std::slice::from_ref(&meta.digest))?;
            drop(lock);
            entry.ok_or_else(|| {
                HubError::io(
                    "read",
                    cache.root(),
                    "the file was removed as soon as it was stored",
                )
            })
        })
        .await
    }

    /// Our cache, by name.
    async fn cached(
        &self,
        job: &Job,
        target: Target<'_>,
        source: Source,
    ) -> Result<Option<Fetched>, HubError> {
        let cache = self.0.cache.clone();
        let (repo, commit, path) = (
            target.repo.to_owned(),
            target.revision.to_owned(),
            target.path.to_owned(),
        );
        let result = blocking(move || {
            let Some(entry) = cache.find(&repo, &commit, &path) else {
                return Ok(None);
            };
            if entry.size <= KEEP_UP_TO {
                let bytes = cache.read(&entry)?;
                return Ok(Some((entry, Some(Arc::new(bytes)))));
            }
            cache.check(&entry, |_| {})?;
            Ok(Some((entry, None)))
        })
        .await;
        match result {
            Ok(Some((entry, bytes))) => {
                let counter = if source == Source::Cache {
                    &job.counters.cache_hits
                } else {
                    &job.counters.shared_hits
                };
                add(counter, 1);
                add(&job.counters.avoided_bytes, entry.size);
                tracing::debug!(path = target.path, commit = target.revision, "cache hit");
                job.tell(Event::Hit {
                    path: job.path.clone(),
                    from: "cache",
                });
                Ok(Some(self.fetched(entry, source, bytes)))
            }
            Ok(None) => Ok(None),
            Err(HubError::Corrupt { path, why }) => {
                tracing::warn!(file = %path.display(), why, "damaged file removed from the cache");
                add(&job.counters.damaged, 1);
                job.tell(Event::Damaged {
                    path: job.path.clone(),
                    why,
                });
                Ok(None)
            }
            // evicted by another process between finding and reading
            Err(HubError::Io { path, .. }) if !path.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our cache, by checksum.
    async fn adopted(
        &self,
        job: &Job,
        target: Target<'_>,
        meta: &Metadata,
    ) -> Result<Option<Fetched>, HubError> {
        if self
            .0
            .cache
            .adopt(
                target.repo,
                &meta.commit,
                target.path,
                &meta.digest,
                meta.size,
            )?
            .is_none()
        {
            return Ok(None);
        }
        self.cached(job, target, Source::Shared).await
    }

    async fn hf_cached(
        &self,
        job: &Job,
        target: Target<'_>,
        wanted: Option<&Digest>,
    ) -> Result<Option<Fetched>, HubError> {
        let (roots, wanted) = (self.0.settings.hf_caches.clone(), wanted.cloned());
        let (repo, commit, path) = (
            target.repo.to_owned(),
            target.revision.to_owned(),
            target.path.to_owned(),
        );
        let find = move || {
            Ok(roots
                .iter()
                .find_map(|root| hf_cache::find(root, &repo, &commit, &path, wanted.as_ref())))
        };
        let Some(found) = blocking(find).await? else {
            return Ok(None);
        };
        add(&job.counters.hf_cache_hits, 1);
        add(&job.counters.avoided_bytes, found.size);
        job.tell(Event::Hit {
            path: job.path.clone(),
            from: "huggingface cache",
        });
        Ok(Some(Fetched {
            repo: target.repo.to_owned(),
            commit: target.revision.to_owned(),
            path: target.path.to_owned(),
            digest: found.digest,
            size: found.size,
            source: Source::HuggingFaceCache,
            file: found.file,
            compressed: false,
            bytes: None,
            cache: self.0.cache.clone(),
        }))
    }

    fn fetched(&self, entry: CacheEntry, source: Source, bytes: Option<Arc<Vec<u8>>>) -> Fetched {
        let CacheEntry {
            repo,
            commit,
            path,
            digest,
            size,
            file,
            compressed,
            ..
        } = entry;
        Fetched {
            repo,
            commit,
            path,
            digest,
            size,
            source,
            file,
            compressed,
            bytes,
            cache: self.0.cache.clone(),
        }
    }

    /// The caches that were searched, for people.
    fn places(&self) -> Vec<String> {
        std::iter::once(self.0.cache.root())
            .chain(self.0.settings.hf_caches.iter().map(PathBuf::as_path))
            .map(|p| p.display().to_string())
            .collect()
    }
}

fn offline(target: Target<'_>, tried: Vec<String>) -> HubError {
    let Target {
        repo,
        revision,
        path,
    } = target;
    HubError::Offline {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: path.to_owned(),
        tried: Tried(tried),
    }
}
