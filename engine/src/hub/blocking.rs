//! The same client for programs without an async runtime, as the command line is one.

use std::future::Future;

use super::cache::Cache;
use super::download::SmartTokenizerDownload;
use super::error::HubError;
use super::event::Observer;
use super::fetched::{Fetched, Listing};
use super::metrics::HubMetrics;
use super::models::{ModelFiles, ModelPlan};
use super::reference::ModelRef;
use super::settings::HubSettings;
use super::snapshot::{Snapshot, SnapshotPlan};

/// A [`SmartTokenizerDownload`] with a small runtime of its own. Each call runs on a thread of its own, so that it may be made from
/// anywhere, also from inside an async task (which it then blocks).
#[derive(Debug)]
pub struct BlockingDownload {
    client: SmartTokenizerDownload,
    /// `None` only while this is being dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl BlockingDownload {
    /// A client; `observer` is told what happens.
    pub fn new(settings: HubSettings, observer: Option<Observer>) -> Result<Self, HubError> {
        let client = SmartTokenizerDownload::with_observer(settings, observer)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| HubError::Client { why: format!("no runtime: {cause}") })?;
        Ok(Self { client, runtime: Some(runtime) })
    }

    /// See [`SmartTokenizerDownload::fetch`].
    pub fn fetch(&self, repo: &str, revision: &str, path: &str) -> Result<Fetched, HubError> {
        self.run(self.client.fetch(repo, revision, path))
    }

    /// See [`SmartTokenizerDownload::fetch_all`].
    pub fn fetch_all(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<Vec<Fetched>, HubError> {
        self.run(self.client.fetch_all(repo, revision, paths))
    }

    /// See [`SmartTokenizerDownload::list`].
    pub fn list(&self, repo: &str, revision: &str) -> Result<Listing, HubError> {
        self.run(self.client.list(repo, revision))
    }

    /// See [`SmartTokenizerDownload::select`].
    pub fn select(&self, repo: &str, revision: &str, wanted: &[&str], welcome: &[&str]) -> Result<Listing, HubError> {
        self.run(self.client.select(repo, revision, wanted, welcome))
    }

    /// See [`SmartTokenizerDownload::snapshot`].
    pub fn snapshot(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<Snapshot, HubError> {
        self.run(self.client.snapshot(repo, revision, paths))
    }

    /// See [`SmartTokenizerDownload::snapshot_matching`].
    pub fn snapshot_matching(
        &self,
        repo: &str,
        revision: &str,
        wanted: &[&str],
        welcome: &[&str],
    ) -> Result<Snapshot, HubError> {
        self.run(self.client.snapshot_matching(repo, revision, wanted, welcome))
    }

    /// See [`SmartTokenizerDownload::plan`].
    pub fn plan(&self, repo: &str, revision: &str, paths: &[&str]) -> Result<SnapshotPlan, HubError> {
        self.run(self.client.plan(repo, revision, paths))
    }

    /// See [`SmartTokenizerDownload::complete`].
    pub fn complete(&self, plan: SnapshotPlan) -> Result<Snapshot, HubError> {
        self.run(self.client.complete(plan))
    }

    /// See [`SmartTokenizerDownload::plan_model`].
    pub fn plan_model(&self, reference: &ModelRef) -> Result<ModelPlan, HubError> {
        self.run(self.client.plan_model(reference))
    }

    /// See [`SmartTokenizerDownload::plan_checkpoint`].
    pub fn plan_checkpoint(&self, reference: &ModelRef) -> Result<SnapshotPlan, HubError> {
        self.run(self.client.plan_checkpoint(reference))
    }

    /// See [`SmartTokenizerDownload::fetch_model`].
    pub fn fetch_model(&self, plan: ModelPlan) -> Result<(ModelFiles, Snapshot), HubError> {
        self.run(self.client.fetch_model(plan))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        self.client.cache()
    }

    /// The counters so far.
    pub fn metrics(&self) -> HubMetrics {
        self.client.metrics()
    }

    fn run<T: Send>(&self, work: impl Future<Output = Result<T, HubError>> + Send) -> Result<T, HubError> {
        let Some(runtime) = &self.runtime else {
            return Err(HubError::Client { why: "the client is being dropped".to_owned() });
        };
        let task = || runtime.block_on(work);
        let span = tracing::Span::current();
        std::thread::scope(|scope| scope.spawn(|| span.in_scope(task)).join())
            .unwrap_or_else(|_| Err(HubError::Client { why: "the download thread panicked".to_owned() }))
    }
}

impl Drop for BlockingDownload {
    /// A runtime may not be waited for inside another one, where this may well be dropped.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
