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

/// The calls of [`SmartTokenizerDownload`] that wait for what comes of them.
macro_rules! calls {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl BlockingDownload {
            $(#[doc = concat!("See [`SmartTokenizerDownload::", stringify!($name), "`].")]
            pub fn $name(&self, $($arg: $type),*) -> Result<$out, HubError> {
                self.run(self.client.$name($($arg),*))
            })*
        }
    };
}

calls! {
    fetch(repo: &str, revision: &str, path: &str) -> Fetched;
    fetch_all(repo: &str, revision: &str, paths: &[&str]) -> Vec<Fetched>;
    list(repo: &str, revision: &str) -> Listing;
    select(repo: &str, revision: &str, wanted: &[&str], welcome: &[&str]) -> Listing;
    snapshot(repo: &str, revision: &str, paths: &[&str]) -> Snapshot;
    complete(plan: SnapshotPlan) -> Snapshot;
    plan_model(reference: &ModelRef) -> ModelPlan;
    plan_checkpoint(reference: &ModelRef) -> SnapshotPlan;
    fetch_model(plan: ModelPlan) -> (ModelFiles, Snapshot);
}

impl Drop for BlockingDownload {
    /// A runtime may not be waited for inside another one, where this may well be dropped.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
