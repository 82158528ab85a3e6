//! Files of a commit in HuggingFace's cache: models and what belongs beside them, where other tools find them too.
//!
//! ```text
//!  plan      commit and caches as for any file (steps.rs); a HEAD for each file that is missing: checksum and size
//!  complete  enough space? then several at a time: lock, what our own cache has, GET from where the last one ended, verify, publish
//! ```
//!
//! The work of one file is that of the module's picture; only its end differs: nothing is compressed and nothing is evicted.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::attempts::Job;
use super::digest::{Algorithm, Digest};
use super::download::SmartTokenizerDownload;
use super::error::HubError;
use super::event::Event;
use super::fetch::{blocking, fetch};
use super::fetched::{Fetched, Source};
use super::hf_cache::{self, Look};
use super::hf_store::HfStore;
use super::http::{Metadata, Target};
use super::lock::lock;
use super::metrics::add;
use super::names::{check_path, check_repo, check_revision};
use super::partial::Slot;
use super::space;
use super::steps::offline;

/// Files of a commit, all of them here.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The repository.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// The folder that holds the files under their paths.
    pub folder: PathBuf,
    /// The files, in the order in which they were asked for.
    pub files: Vec<Fetched>,
}

/// What is here of the files of a commit, and what is not.
#[derive(Debug, Clone)]
pub struct SnapshotPlan {
    repo: String,
    revision: String,
    commit: String,
    store: HfStore,
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
enum Item {
    Here(Fetched),
    Missing { path: String, meta: Metadata },
}

impl SnapshotPlan {
    /// The commit.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Bytes that are still to come, those of files that an earlier run began not counted.
    pub fn missing_bytes(&self) -> u64 {
        self.missing().map(|(_, bytes)| bytes).sum()
    }

    /// Paths of the files that are not here, or not whole.
    pub fn missing_files(&self) -> impl Iterator<Item = &str> {
        self.missing().map(|(path, _)| path)
    }

    fn missing(&self) -> impl Iterator<Item = (&str, u64)> {
        self.items.iter().filter_map(|item| match item {
            Item::Here(_) => None,
            Item::Missing { path, meta } => {
                let done = std::fs::metadata(self.store.partial(&meta.digest)).map_or(0, |part| part.len());
                // one that is too long is begun again
                let left = if done > meta.size { meta.size } else { meta.size - done };
                Some((path.as_str(), left))
            }
        })
    }
}

impl SmartTokenizerDownload {
    /// Files of a revision, in HuggingFace's cache. As [`fetch_all`](Self::fetch_all), but a big file gets more time, and nothing is
    /// fetched that the disk has no room for.
    pub async fn snapshot(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<Snapshot, HubError> {
        self.complete(self.plan(repo, revision, paths).await?).await
    }

    /// Finds out what there is of these files and what is to be fetched. What is here is verified.
    pub async fn plan(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<SnapshotPlan, HubError> {
        check_repo(repo)?;
        check_revision(revision)?;
        paths.iter().try_for_each(|path| check_path(path))?;
        let settings = &self.0.settings;
        let root = settings.hf_caches.first().ok_or_else(|| HubError::Setting {
            name: "HF_HUB_CACHE",
            value: String::new(),
            why: "neither it nor a home folder is set, so there is no place for models".to_owned(),
            example: "/var/cache/huggingface/hub",
        })?;
        let store = HfStore::new(root, repo, settings.hf_links);
        let Some(first) = paths.first() else {
            let why = "a snapshot of no files was asked for".to_owned();
            return Err(HubError::Client { why });
        };
        let what = format!("looking for {} of {repo}", paths.join(", "));
        let (commit, items) = self
            .bounded(what, first, async |job| {
                let (commit, meta) = self.commit(&job, Target { repo, revision, path: first }, paths).await?;
                let (mut items, mut meta) = (Vec::with_capacity(paths.len()), meta);
                for path in paths {
                    let target = Target { repo, revision: &commit, path };
                    items.push(self.survey(&job, &store, target, revision, meta.take()).await?);
                }
                Ok((commit, items))
            })
            .await?;
        Ok(SnapshotPlan { repo: repo.to_owned(), revision: revision.to_owned(), commit, store, items })
    }

    /// What there is of one file of a commit.
    async fn survey(
        &self,
        job: &Job,
        store: &HfStore,
        target: Target<'_>,
        asked: &str,
        meta: Option<Metadata>,
    ) -> Result<Item, HubError> {
        let Target { repo, revision: commit, path } = target;
        add(&job.counters.files, 1);
        if let Some(here) = self.here(job, store, target, meta.as_ref().map(|meta| &meta.digest)).await? {
            return Ok(Item::Here(here));
        }
        if self.is_absent(repo, commit, path) {
            return Err(self.absent(target, asked));
        }
        if self.0.settings.offline {
            if let Some(here) = self.unnamed(store, target).await? {
                return Ok(Item::Here(here));
            }
            let places = self.places().into_iter().chain(job.tried()).collect();
            return Err(offline(Target { revision: asked, ..target }, places));
        }
        let meta = match meta {
            Some(meta) => meta,
            None => self.head_of_commit(job, target).await?,
        };
        self.check_commit(target, &meta)?;
        match self.here(job, store, target, Some(&meta.digest)).await? {
            Some(here) => Ok(Item::Here(here)),
            None => Ok(Item::Missing { path: path.to_owned(), meta }),
        }
    }

    /// A sound file of a commit, linked if only its contents were there.
    async fn here(
        &self,
        job: &Job,
        store: &HfStore,
        target: Target<'_>,
        wanted: Option<&Digest>,
    ) -> Result<Option<Fetched>, HubError> {
        let (wanted, at) = (wanted.cloned(), store.clone());
        let (repo, commit, path) = (target.repo.to_owned(), target.revision.to_owned(), target.path.to_owned());
        let look = blocking(move || {
            let look = hf_cache::find(&at.root, &repo, &commit, &path, wanted.as_ref());
            if let Look::Found(found) = &look {
                at.link(&found.digest, &commit, &path)?;
            }
            Ok(look)
        })
        .await?;
        match look {
            Look::Nothing => Ok(None),
            // It is replaced by a sound one, where that can be had.
            Look::Damaged { file, why } if self.0.settings.offline => {
                job.passed_over(&file, &why);
                Ok(None)
            }
            Look::Damaged { file, why } => {
                let file = std::fs::canonicalize(&file).unwrap_or(file);
                // Asked for again with the hub's checksum, and once more under the lock: it is one damage.
                if self.0.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(file) {
                    add(&job.counters.damaged, 1);
                    job.tell(Event::Damaged { path: target.path.to_owned(), why });
                }
                Ok(None)
            }
            Look::Found(found) => {
                add(&job.counters.hf_cache_hits, 1);
                add(&job.counters.avoided_bytes, found.size);
                job.tell(Event::Hit { path: target.path.to_owned(), from: "huggingface cache" });
                Ok(Some(self.of_store(store, target, found.digest, found.size, Source::HuggingFaceCache)))
            }
        }
    }

    /// A file that is not a link and so does not say its checksum, where nobody can be asked for it.
    async fn unnamed(&self, store: &HfStore, target: Target<'_>) -> Result<Option<Fetched>, HubError> {
        let file = store.file(target.revision, target.path);
        if !file.is_file() || file.is_symlink() {
            return Ok(None);
        }
        let read = move || {
            let fail = |cause| HubError::io("read", &file, cause);
            let mut hash = HashWriter(Sha256::new());
            let size = std::io::copy(&mut std::fs::File::open(&file).map_err(fail)?, &mut hash).map_err(fail)?;
            Ok((Digest { algorithm: Algorithm::Sha256, hex: hex::encode(hash.0.finalize()) }, size))
        };
        let (digest, size) = blocking(read).await?;
        Ok(Some(self.of_store(store, target, digest, size, Source::HuggingFaceCache)))
    }

    /// Fetches what is missing. Nothing is, where the disk has too little space for all of it.
    pub async fn complete(&self, plan: SnapshotPlan) -> Result<Snapshot, HubError> {
        let bytes = plan.missing_bytes();
        space::check(&plan.store.root, bytes)?;
        let SnapshotPlan { repo, revision, commit, store, items } = plan;
        let limit = self.0.settings.timeouts.for_bytes(bytes);
        let what = format!("fetching {bytes} bytes of {repo}");
        let files = self
            .bounded_by(limit, what, &repo, async |job| {
                self.abreast(items.into_iter().map(|item| {
                    let (this, store, repo, commit) = (self.clone(), store.clone(), repo.clone(), commit.clone());
                    let (deadline, tried) = (job.deadline, job.tried.clone());
                    async move {
                        match item {
                            Item::Here(file) => Ok(file),
                            Item::Missing { path, meta } => {
                                let target = Target { repo: &repo, revision: &commit, path: &path };
                                this.land(&this.job(&path, deadline, tried), &store, target, &meta).await
                            }
                        }
                    }
                }))
                .await
            })
            .await?;
        store.set_ref(&revision, &commit)?;
        Ok(Snapshot { folder: store.snapshot(&commit), repo, commit, files })
    }

    async fn land(&self, job: &Job, store: &HfStore, target: Target<'_>, meta: &Metadata) -> Result<Fetched, HubError> {
        let (started, counters) = (Instant::now(), &job.counters);
        let wait = || {
            add(&counters.lock_waits, 1);
            job.tell(Event::Waiting { path: job.path.clone() });
        };
        let _turn = self.0.turns.take(&meta.digest.to_string()).await;
        // Ours first: it is never removed, so it keeps our processes apart also where another tool removes its own.
        let ours = lock(self.0.cache.lock_file(&meta.digest.to_string()), wait).await?;
        let theirs = lock(store.lock_file(&meta.digest), wait).await?;
        if let Some(here) = self.here(job, store, target, Some(&meta.digest)).await? {
            return Ok(here); // another process was faster
        }
        add(&counters.misses, 1);
        let slot = Slot { part: store.partial(&meta.digest), ..self.0.cache.partial(&meta.digest) };
        let (cache, wanted, part) = (self.0.cache.clone(), meta.clone(), slot.part.clone());
        blocking(move || {
            if let Some(dir) = part.parent() {
                std::fs::create_dir_all(dir).map_err(|cause| HubError::io("create", dir, cause))?;
            }
            // what our own cache has of it need not come again; it is verified with the rest
            if part.exists() { Ok(false) } else { cache.copy_blob(&wanted.digest, wanted.size, &part) }
        })
        .await?;
        let note = slot.note.clone();
        let transferred = fetch(&self.0.http, slot, job, target, meta).await?;
        let (at, digest) = (store.clone(), meta.digest.clone());
        let (commit, path) = (target.revision.to_owned(), target.path.to_owned());
        let repaired = blocking(move || {
            at.publish(&digest, &commit, &path)?;
            let _ = std::fs::remove_file(note);
            drop((ours, theirs));
            Ok(std::fs::canonicalize(at.file(&commit, &path)).unwrap_or_default())
        })
        .await?;
        self.0.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(&repaired);
        add(&counters.downloads, u64::from(transferred > 0 || meta.size == 0));
        let (total, took) = (meta.size, started.elapsed());
        tracing::info!(path = target.path, commit = target.revision, total, transferred, ?took, "downloaded");
        job.tell(Event::Finished { path: job.path.clone(), total, transferred, took });
        Ok(self.of_store(store, target, meta.digest.clone(), meta.size, Source::Network))
    }

    fn of_store(&self, store: &HfStore, target: Target<'_>, digest: Digest, size: u64, source: Source) -> Fetched {
        Fetched {
            repo: target.repo.to_owned(),
            commit: target.revision.to_owned(),
            path: target.path.to_owned(),
            digest,
            size,
            source,
            file: store.file(target.revision, target.path),
            compressed: false,
            foreign: true,
            bytes: None,
            cache: self.0.cache.clone(),
        }
    }
}

struct HashWriter(Sha256);

impl std::io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
