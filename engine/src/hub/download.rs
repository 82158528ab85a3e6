//! [`SmartTokenizerDownload`]: the order of things, from a name to a verified file.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::Instrument as _;

use super::attempts::Job;
use super::breaker::BreakerState;
use super::cache::Cache;
use super::error::{HubError, Tried};
use super::event::Observer;
use super::fetch::FOREVER;
use super::fetched::Fetched;
use super::http::{Http, Target};
use super::lock::Turns;
use super::metrics::{Counters, HubMetrics};
use super::names::{check_path, check_repo, check_revision};
use super::settings::HubSettings;

pub(super) struct Inner {
    pub(super) settings: HubSettings,
    pub(super) http: Http,
    pub(super) cache: Cache,
    pub(super) counters: Arc<Counters>,
    pub(super) observer: Option<Observer>,
    /// One at a time fetches a blob, before processes are kept apart.
    pub(super) turns: Turns,
    /// Damaged files that were told of, and are not repaired yet.
    pub(super) damaged: Mutex<HashSet<PathBuf>>,
}

/// The async client. Clones share connections, breakers and counters. Needs a tokio runtime with time and I/O.
#[derive(Clone)]
pub struct SmartTokenizerDownload(pub(super) Arc<Inner>);

impl std::fmt::Debug for SmartTokenizerDownload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmartTokenizerDownload").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl SmartTokenizerDownload {
    /// A client. Reads the token file, if one is set; sends nothing.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Self::with_observer(settings, None)
    }

    /// A client that tells `observer` what happens.
    pub fn with_observer(settings: HubSettings, observer: Option<Observer>) -> Result<Self, HubError> {
        let http = Http::new(&settings)?;
        let cache = Cache::new(&settings.cache_dir);
        Ok(Self(Arc::new(Inner {
            http,
            cache,
            counters: Arc::default(),
            observer,
            settings,
            turns: Turns::default(),
            damaged: Mutex::default(),
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
        self.0.http.breakers.state(&self.0.http.endpoint.origin().ascii_serialization())
    }

    /// One file of a revision (branch, tag or commit), from a cache or the hub.
    ///
    /// Errors: [`HubError`]; every one of them leaves the cache as it was, except for the partial file that the next call resumes.
    pub async fn fetch(&self, repo: &str, revision: &str, path: &str) -> Result<Fetched, HubError> {
        let mut files = self.fetch_all(repo, revision, &[path]).await?;
        files.pop().ok_or_else(|| HubError::Client { why: "no file came back".to_owned() })
    }

    /// Several files, all of one commit even if the branch moves meanwhile, several at a time. In the order of `paths`; the first error
    /// ends the call.
    pub async fn fetch_all(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<Vec<Fetched>, HubError> {
        check_repo(repo)?;
        check_revision(revision)?;
        paths.iter().try_for_each(|path| check_path(path))?;
        let Some(first) = paths.first() else {
            return Ok(Vec::new());
        };
        let span = tracing::info_span!("hub_fetch", repo, revision, files = paths.len());
        let what = format!("fetching {} of {repo}", paths.join(", "));
        self.bounded(what, first, async |job| self.all(&job, repo, revision, paths).await).instrument(span).await
    }

    /// Runs `work` under the overall deadline.
    pub(super) async fn bounded<T>(
        &self,
        what: String,
        label: &str,
        work: impl AsyncFnOnce(Job) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        self.bounded_by(self.0.settings.timeouts.overall, what, label, work).await
    }

    pub(super) async fn bounded_by<T>(
        &self,
        limit: Duration,
        what: String,
        label: &str,
        work: impl AsyncFnOnce(Job) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let limit = limit.min(FOREVER);
        let job = self.job(label, Instant::now() + limit, Arc::default());
        let tried = job.tried.clone();
        match tokio::time::timeout(limit, work(job)).await {
            Ok(result) => {
                if let Err(HubError::RevisionNotFound { repo, revision, .. }) = &result {
                    self.0.cache.forget_commit(repo, revision);
                }
                result
            }
            Err(_) => {
                let tried = tried.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                Err(HubError::Deadline { what, limit, tried: Tried(tried) })
            }
        }
    }

    pub(super) fn job(&self, label: &str, deadline: Instant, tried: Arc<Mutex<Vec<String>>>) -> Job {
        Job {
            path: label.to_owned(),
            deadline,
            policy: self.0.settings.retry.clone(),
            observer: self.0.observer.clone(),
            counters: self.0.counters.clone(),
            tried,
        }
    }

    async fn all(&self, job: &Job, repo: &str, revision: &str, paths: &[&str]) -> Result<Vec<Fetched>, HubError> {
        let Some(first) = paths.first() else {
            return Ok(Vec::new());
        };
        let (commit, meta) = self.commit(job, Target { repo, revision, path: first }, paths).await?;
        if let [path] = paths {
            return Ok(vec![self.one(job, Target { repo, revision: &commit, path }, revision, meta).await?]);
        }
        self.abreast(paths.iter().enumerate().map(|(index, path)| {
            let (this, meta) = (self.clone(), meta.clone().filter(|_| index == 0));
            let (repo, asked, commit, path) =
                (repo.to_owned(), revision.to_owned(), commit.clone(), (*path).to_owned());
            let job = self.job(&path, job.deadline, job.tried.clone());
            async move { this.one(&job, Target { repo: &repo, revision: &commit, path: &path }, &asked, meta).await }
        }))
        .await
    }

    /// Does several things, as many at a time as the settings allow; results in the order of `work`. The first error ends it.
    pub(super) async fn abreast<T, F>(&self, work: impl Iterator<Item = F>) -> Result<Vec<T>, HubError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HubError>> + Send + 'static,
    {
        let room = Arc::new(tokio::sync::Semaphore::new(self.0.settings.concurrency.max(1)));
        let (mut tasks, mut out) = (tokio::task::JoinSet::new(), Vec::new());
        for (index, one) in work.enumerate() {
            let room = room.clone();
            out.push(None);
            let one = async move {
                let _place = room.acquire().await;
                (index, one.await)
            };
            tasks.spawn(one.in_current_span());
        }
        while let Some(done) = tasks.join_next().await {
            let (index, result) =
                done.map_err(|cause| HubError::Client { why: format!("a download task ended early: {cause}") })?;
            if let Some(slot) = out.get_mut(index) {
                *slot = Some(result?); // dropping the set cancels the others; their partial files stay
            }
        }
        Ok(out.into_iter().flatten().collect())
    }
}
