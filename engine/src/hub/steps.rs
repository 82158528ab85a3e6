//! The steps of one file, in the order of the picture in the module's documentation: commit, caches, HEAD, lock, GET, keep.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempts::Job;
use super::cache::CacheEntry;
use super::digest::Digest;
use super::download::SmartTokenizerDownload;
use super::error::{HubError, Tried};
use super::event::Event;
use super::failure::{Again, Failure, shown};
use super::fetch::{FOREVER, blocking, fetch};
use super::fetched::{Fetched, Source};
use super::hf_cache::{self, Look};
use super::http::{Metadata, Target};
use super::lock::{Lock, lock};
use super::metrics::add;
use super::names::is_commit;
use super::partial::Slot;

/// Verified contents up to this size stay in memory, since verifying has read them anyway.
const KEEP_UP_TO: u64 = 64 << 20;

/// Where the caches have everything that is wanted, the hub is asked only whether a branch has moved: once, and for no longer.
pub(super) const GLANCE: Duration = Duration::from_millis(1500);

impl SmartTokenizerDownload {
    /// The commit that a revision names, with the metadata of the first path that came along if the hub was asked. `paths` are
    /// the files that are wanted of it.
    pub(super) async fn commit(
        &self,
        job: &Job,
        target: Target<'_>,
        paths: &[&str],
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
        let known = known
            .map(|(commit, _)| commit)
            .or_else(|| settings.hf_caches.iter().find_map(|root| hf_cache::commit_of(root, repo, revision)));
        if settings.offline {
            return known.map(|commit| (commit, None)).ok_or_else(|| offline(target, self.places()));
        }
        let complete = known.as_ref().is_some_and(|commit| paths.iter().all(|path| self.is_here(repo, commit, path)));
        let asked = if complete {
            self.0.http.metadata(&job.counters, target, GLANCE).await.map_err(|failure| *failure.error)
        } else {
            self.head(job, target).await
        };
        match asked {
            Ok(meta) => {
                // a cache that cannot be written will say so when a file is stored
                let _ = self.0.cache.set_commit(repo, revision, &meta.commit);
                Ok((meta.commit.clone(), Some(meta)))
            }
            Err(HubError::EntryNotFound { commit: Some(commit), .. }) => {
                let _ = self.0.cache.set_commit(repo, revision, &commit);
                let _ = self.0.cache.set_absent(repo, &commit, target.path);
                Ok((commit, None))
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

    /// Whether a cache has a file of a commit, or knows that there is none. Looks for names only.
    fn is_here(&self, repo: &str, commit: &str, path: &str) -> bool {
        self.0.cache.find(repo, commit, path).is_some()
            || self.0.settings.hf_caches.iter().any(|root| hf_cache::present(root, repo, commit, path).is_some())
            || self.is_absent(repo, commit, path)
    }

    pub(super) fn absent(&self, target: Target<'_>, asked: &str) -> HubError {
        HubError::EntryNotFound {
            endpoint: shown(&self.0.http.endpoint).trim_end_matches('/').to_owned(),
            repo: target.repo.to_owned(),
            revision: asked.to_owned(),
            path: target.path.to_owned(),
            commit: Some(target.revision.to_owned()),
        }
    }

    /// Whether a cache knows that a commit lacks a file.
    pub(super) fn is_absent(&self, repo: &str, commit: &str, path: &str) -> bool {
        self.0.cache.is_absent(repo, commit, path)
            || self.0.settings.hf_caches.iter().any(|root| hf_cache::is_absent(root, repo, commit, path))
    }

    pub(super) async fn head(&self, job: &Job, target: Target<'_>) -> Result<Metadata, HubError> {
        let mut attempts = job.attempts();
        loop {
            match self.0.http.metadata(&job.counters, target, FOREVER).await {
                Ok(meta) => return Ok(meta),
                Err(failure) => attempts.again(failure, false).await?,
            }
        }
    }

    /// [`Self::head`] of a commit; that it lacks the file is remembered.
    pub(super) async fn head_of_commit(&self, job: &Job, target: Target<'_>) -> Result<Metadata, HubError> {
        let found = self.head(job, target).await;
        if let Err(HubError::EntryNotFound { .. }) = &found {
            let _ = self.0.cache.set_absent(target.repo, target.revision, target.path);
        }
        found
    }

    /// One file of a commit. `asked` is the revision in the user's words.
    pub(super) async fn one(
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
        if let Some(hit) = self.hf_cached(job, target, meta.as_ref().map(|meta| &meta.digest)).await? {
            return Ok(hit);
        }
        let Target { repo, revision: commit, path } = target;
        if self.is_absent(repo, commit, path) {
            return Err(self.absent(target, asked));
        }
        if self.0.settings.offline {
            let mut places = self.places();
            places.extend(job.tried());
            return Err(offline(Target { revision: asked, ..target }, places));
        }
        let meta = match meta {
            Some(meta) => meta,
            None => {
                let meta = self.head_of_commit(job, target).await?;
                if let Some(hit) = self.hf_cached(job, target, Some(&meta.digest)).await? {
                    return Ok(hit);
                }
                meta
            }
        };
        self.check_commit(target, &meta)?;
        let _turn = self.0.turns.take(&meta.digest.to_string()).await;
        if let Some(hit) = self.adopted(job, target, &meta).await? {
            return Ok(hit); // another file has the same contents, maybe one of this call
        }
        let lock = lock(self.0.cache.lock_file(&meta.digest.to_string()), || {
            add(&counters.lock_waits, 1);
            job.tell(Event::Waiting { path: job.path.clone() });
        })
        .await?;
        if let Some(hit) = self.adopted(job, target, &meta).await? {
            return Ok(hit); // another process was faster
        }
        add(&counters.misses, 1);
        let transferred = fetch(&self.0.http, self.0.cache.partial(&meta.digest), job, target, &meta).await?;
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
        job.tell(Event::Finished { path: job.path.clone(), total: meta.size, transferred, took });
        Ok(self.fetched(entry, Source::Network, None))
    }

    /// A hub must not answer for another commit than the one that was asked for.
    pub(super) fn check_commit(&self, target: Target<'_>, meta: &Metadata) -> Result<(), HubError> {
        if meta.commit == target.revision {
            return Ok(());
        }
        let url = self.0.http.resolve_url(target)?;
        let why = format!("it answers for commit {} when asked for {}", meta.commit, target.revision);
        let failure = Failure::bad_answer(&url, why);
        Err(*Failure { again: Again::No, ..failure }.error)
    }

    /// Moves the verified partial file into the cache, names it, and makes room. The lock goes along: if the caller's deadline passes
    /// meanwhile, the background task still holds it until it is done.
    async fn keep(&self, target: Target<'_>, meta: &Metadata, lock: Lock) -> Result<CacheEntry, HubError> {
        let (cache, meta, budget) = (self.0.cache.clone(), meta.clone(), self.0.settings.cache_budget);
        let (repo, path) = (target.repo.to_owned(), target.path.to_owned());
        blocking(move || {
            let Slot { part, note } = cache.partial(&meta.digest);
            cache.store(&part, &meta.digest, meta.size)?;
            let _ = std::fs::remove_file(note);
            let entry = cache.adopt(&repo, &meta.commit, &path, &meta.digest, meta.size)?;
            cache.evict(budget, std::slice::from_ref(&meta.digest))?;
            drop(lock);
            entry.ok_or_else(|| HubError::io("read", cache.root(), "the file was removed as soon as it was stored"))
        })
        .await
    }

    /// Our cache, by name.
    async fn cached(&self, job: &Job, target: Target<'_>, source: Source) -> Result<Option<Fetched>, HubError> {
        let cache = self.0.cache.clone();
        let (repo, commit, path) = (target.repo.to_owned(), target.revision.to_owned(), target.path.to_owned());
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
                let counter =
                    if source == Source::Cache { &job.counters.cache_hits } else { &job.counters.shared_hits };
                add(counter, 1);
                add(&job.counters.avoided_bytes, entry.size);
                tracing::debug!(path = target.path, commit = target.revision, "cache hit");
                job.tell(Event::Hit { path: job.path.clone(), from: "cache" });
                Ok(Some(self.fetched(entry, source, bytes)))
            }
            Ok(None) => Ok(None),
            Err(HubError::Corrupt { path, why }) => {
                tracing::warn!(file = %path.display(), why, "damaged file removed from the cache");
                add(&job.counters.damaged, 1);
                job.tell(Event::Damaged { path: job.path.clone(), why });
                Ok(None)
            }
            // evicted by another process between finding and reading
            Err(HubError::Io { path, .. }) if !path.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our cache, by checksum.
    async fn adopted(&self, job: &Job, target: Target<'_>, meta: &Metadata) -> Result<Option<Fetched>, HubError> {
        if self.0.cache.adopt(target.repo, &meta.commit, target.path, &meta.digest, meta.size)?.is_none() {
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
        let (repo, commit, path) = (target.repo.to_owned(), target.revision.to_owned(), target.path.to_owned());
        let find = move || {
            let mut looks = Vec::new();
            for root in &roots {
                looks.push(hf_cache::find(root, &repo, &commit, &path, wanted.as_ref()));
                if matches!(looks.last(), Some(Look::Found(_))) {
                    break;
                }
            }
            Ok(looks)
        };
        let mut found = None;
        for look in blocking(find).await? {
            match look {
                Look::Found(file) => found = found.or(Some(file)),
                Look::Damaged { file, why } => job.passed_over(&file, &why),
                Look::Nothing => {}
            }
        }
        let Some(found) = found else {
            return Ok(None);
        };
        add(&job.counters.hf_cache_hits, 1);
        add(&job.counters.avoided_bytes, found.size);
        job.tell(Event::Hit { path: job.path.clone(), from: "huggingface cache" });
        Ok(Some(Fetched {
            repo: target.repo.to_owned(),
            commit: target.revision.to_owned(),
            path: target.path.to_owned(),
            digest: found.digest,
            size: found.size,
            source: Source::HuggingFaceCache,
            file: found.file,
            compressed: false,
            foreign: true,
            bytes: None,
            cache: self.0.cache.clone(),
        }))
    }

    fn fetched(&self, entry: CacheEntry, source: Source, bytes: Option<Arc<Vec<u8>>>) -> Fetched {
        let CacheEntry { repo, commit, path, digest, size, file, compressed, .. } = entry;
        let (foreign, cache) = (false, self.0.cache.clone());
        Fetched { repo, commit, path, digest, size, source, file, compressed, foreign, bytes, cache }
    }

    /// The caches that were searched, for people.
    pub(super) fn places(&self) -> Vec<String> {
        std::iter::once(self.0.cache.root())
            .chain(self.0.settings.hf_caches.iter().map(PathBuf::as_path))
            .map(|p| p.display().to_string())
            .collect()
    }
}

pub(super) fn offline(target: Target<'_>, tried: Vec<String>) -> HubError {
    let Target { repo, revision, path } = target;
    HubError::Offline {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: path.to_owned(),
        tried: Tried(tried),
    }
}
