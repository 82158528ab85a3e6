//! The running hub: three origins on one background thread, and the handle that tests hold.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::sync::oneshot;
use wiremock::{Mock, MockServer, matchers};

use crate::answer::Responder;
use crate::faults::{Rule, Rules};
use crate::front;
use crate::log::Log;
use crate::repo::Repo;

/// One of the three origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The hub: `HF_ENDPOINT`.
    Hub,
    /// Where the hub sends clients for LFS and Xet contents.
    Cdn,
    /// Where only [`Fault::RedirectAway`](crate::Fault::RedirectAway) leads.
    Elsewhere,
}

impl Side {
    pub(crate) const ALL: [Side; 3] = [Side::Hub, Side::Cdn, Side::Elsewhere];
}

/// What the responders share.
pub(crate) struct State {
    pub(crate) repos: BTreeMap<String, Repo>,
    pub(crate) renamed: BTreeMap<String, String>,
    pub(crate) rules: Rules,
    pub(crate) origins: [String; 3],
    pub(crate) cdn_etag_differs: bool,
}

#[derive(Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    pub(crate) log: Log,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the hub did not start.
#[derive(Debug)]
pub struct StartError {
    pub address: SocketAddr,
    pub cause: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the mock hub cannot listen on {}: {}; choose another --port (0 takes a free one)",
            self.address, self.cause
        )
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Settings of a [`MockHub`] that is about to start.
#[derive(Debug, Default)]
pub struct MockHubBuilder {
    repos: Vec<Repo>,
    renamed: Vec<(String, String)>,
    rules: Vec<Rule>,
    port: u16,
    seed: u64,
    cdn_etag_differs: bool,
}

impl MockHubBuilder {
    pub fn repo(mut self, repo: Repo) -> Self {
        self.repos.push(repo);
        self
    }
    /// Requests for `old` are redirected, relatively, to `new`.
    pub fn renamed(mut self, old: &str, new: &str) -> Self {
        self.renamed.push((old.to_owned(), new.to_owned()));
        self
    }
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
    /// The hub's port; 0, the default, takes a free one. CDN and elsewhere always take free ones.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
    /// Seed of the faults that strike by chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// The CDN names an ETag of its own, as real CDNs do; `If-Range` must then repeat that one.
    pub fn cdn_etag_differs(mut self) -> Self {
        self.cdn_etag_differs = true;
        self
    }

    /// Starts the hub and returns when it listens.
    pub fn start(self) -> Result<MockHub, StartError> {
        let hub = listen(self.port)?;
        let fronts = [hub, listen(0)?, listen(0)?];
        let mut origins = [const { String::new() }; 3];
        for (origin, listener) in origins.iter_mut().zip(&fronts) {
            let address = listener.local_addr().map_err(|cause| StartError { address: local(0), cause })?;
            *origin = format!("http://{address}");
        }
        let shared = Shared {
            state: Arc::new(Mutex::new(State {
                repos: self.repos.into_iter().map(|repo| (repo.name.clone(), repo)).collect(),
                renamed: self.renamed.into_iter().collect(),
                rules: Rules::new(self.rules, self.seed),
                origins: origins.clone(),
                cdn_etag_differs: self.cdn_etag_differs,
            })),
            log: Log::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let inner = shared.clone();
        let fail = |cause| StartError { address: local(self.port), cause };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let thread = std::thread::Builder::new()
            .name("mock-hub".to_owned())
            .spawn(move || {
                runtime.block_on(serve(inner, fronts, ready, stopped));
            })
            .map_err(fail)?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(MockHub { shared, origins, stop: Some(stop), thread: Some(thread) }),
            Ok(Err(cause)) => Err(fail(cause)),
            Err(gone) => Err(fail(io::Error::other(gone))),
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn listen(port: u16) -> Result<TcpListener, StartError> {
    let address = local(port);
    TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|cause| StartError { address, cause })
}

async fn serve(
    shared: Shared,
    fronts: [TcpListener; 3],
    ready: std::sync::mpsc::Sender<io::Result<()>>,
    stopped: oneshot::Receiver<()>,
) {
    let mut servers = Vec::new();
    for (side, front) in Side::ALL.into_iter().zip(fronts) {
        let server = MockServer::builder().disable_request_recording().start().await;
        Mock::given(matchers::any()).respond_with(Responder { side, shared: shared.clone() }).mount(&server).await;
        match tokio::net::TcpListener::from_std(front) {
            Ok(front) => {
                tokio::spawn(front::accept(front, *server.address(), shared.log.clone()));
            }
            Err(cause) => {
                let _ = ready.send(Err(cause));
                return;
            }
        }
        servers.push(server);
    }
    let _ = ready.send(Ok(()));
    let _ = stopped.await; // an error means that the handle is gone, which ends us just as well
}

/// A running mock hub; dropping it closes the ports.
pub struct MockHub {
    shared: Shared,
    origins: [String; 3],
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MockHub {
    pub fn builder() -> MockHubBuilder {
        MockHubBuilder::default()
    }

    /// What to put into `HF_ENDPOINT`.
    pub fn endpoint(&self) -> &str {
        self.origin(Side::Hub)
    }

    /// `http://address:port` of one side.
    pub fn origin(&self, side: Side) -> &str {
        match side {
            Side::Hub => &self.origins[0],
            Side::Cdn => &self.origins[1],
            Side::Elsewhere => &self.origins[2],
        }
    }

    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Adds a repository, or replaces it: a new commit on its branch.
    pub fn put(&self, repo: Repo) {
        self.shared.lock().repos.insert(repo.name.clone(), repo);
    }

    pub fn fault(&self, rule: Rule) {
        self.shared.lock().rules.push(rule);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.lock().rules.clear();
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
