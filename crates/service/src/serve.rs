//! The whole service in one process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use axum_server::{Handle, Server, from_tcp};
use futures_util::future::Either;
use jiff::Timestamp;
use preverify_bundle::Signer;
use preverify_target::{Store, TargetError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::api::{App, Bounds, router};
use crate::audit::Audit;
use crate::blobs::{BlobError, Blobs};
use crate::metrics::Metrics;
use crate::news::News;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::records::{RecordError, Records, Sqlite};
use crate::scheduler::Scheduler;
use crate::targets::Targets;
use crate::tenants::{Quota, Tenants};
use crate::tls::{Tls, TlsError};
use crate::tokens::{Scope, Token, Tokens};
use crate::worker::Worker;

/// How long a client may take from its connection to the end of its first request's head.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// Whose the first token is.
const FIRST_TENANT: &str = "default";

/// What a service is started with.
#[derive(Debug)]
pub struct Options {
    /// The folder with all that it keeps.
    pub state: PathBuf,
    /// The names of the targets to verify for; all that can be used, if there are none.
    pub targets: Vec<String>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What secures connections, if anything does.
    pub tls: Option<Tls>,
    /// Verifications at the same time.
    pub workers: usize,
    /// Verifiers that wait for an object.
    pub warm: usize,
    /// How long what has begun may take once it is to end.
    pub drain: Duration,
    /// How much one request may ask for.
    pub bounds: Bounds,
    /// How much a tenant may ask for who has no quota of its own.
    pub quota: Quota,
}

/// The service cannot be started, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process: end it, or take another --state", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to verify for.
    #[error(
        "there is no target to verify for: `preverify target add debian:6.12-cloud-amd64` makes one"
    )]
    NoTargets,
    /// A target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The records cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The blobs cannot be used.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// There can be no secure connections.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody can be listened to there.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Requests cannot be answered any longer.
    #[error("the server failed: {0}")]
    Server(io::Error),
}

/// A service that is about to run.
pub struct Service {
    app: App,
    worker: Worker,
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    options: Options,
    stop: watch::Sender<bool>,
    _lock: File,
}

impl Service {
    /// Opens all that it needs. `progress` is told what takes long.
    pub async fn start(
        options: Options,
        store: &Store,
        signer: Signer,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, ServeError> {
        let state = &options.state;
        private_folder(state).map_err(at("create", state))?;
        let lock = lock(state)?;
        let records = Records::new(Sqlite::open(&state.join("state.db"))?);
        let blobs = Blobs::open(&state.join("blobs"))?;
        let targets = Targets::of(store, &options.targets, progress)?;
        if targets.all().is_empty() {
            return Err(ServeError::NoTargets);
        }
        let (queue, news, metrics) = (Queue::default(), News::default(), Metrics::default());
        let tenants = Tenants::new(records.clone(), options.quota);
        let scheduler = Scheduler::new(
            records.clone(),
            queue.clone(),
            news.clone(),
            tenants.clone(),
        );
        scheduler.resume().await?;
        let tls = options.tls.as_ref().map(Tls::config).transpose()?;
        let listen = options.listen;
        let listener = TcpListener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| ServeError::Listen { listen, source })?;
        let (stop, stopped) = watch::channel(false);
        let app = App {
            scheduler: scheduler.clone(),
            blobs: blobs.clone(),
            queue: queue.clone(),
            targets: targets.clone(),
            tenants: tenants.clone(),
            news: news.clone(),
            tokens: Tokens::new(records.clone()),
            audit: Audit::open(records),
            metrics: metrics.clone(),
            bounds: options.bounds,
            stopped,
        };
        let worker = Worker {
            scheduler,
            queue,
            blobs,
            targets,
            tenants,
            pool: Pool::new(options.warm),
            signer: Arc::new(signer),
            news,
            metrics,
        };
        Ok(Self {
            app,
            worker,
            listener,
            tls: tls.map(RustlsConfig::from_config),
            options,
            stop,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether connections are TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// If nobody has a token yet, makes one that is good for everything, and leaves it in a file that only its owner can
    /// read.
    pub async fn first_token(&self) -> Result<Option<PathBuf>, ServeError> {
        if !self.app.tokens.list().await?.is_empty() {
            return Ok(None);
        }
        let token = Token {
            name: "first".into(),
            tenant: FIRST_TENANT.into(),
            scopes: [Scope::Submit, Scope::Read, Scope::Admin].into(),
            created: Timestamp::now(),
            expires: None,
        };
        let (secret, _) = self.app.tokens.issue(&token).await?;
        let path = self.options.state.join("admin.token");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(at("create", &path))?;
        writeln!(file, "{}", secret.expose()).map_err(at("write", &path))?;
        Ok(Some(path))
    }

    /// Works until `end` comes, and then ends what has begun.
    pub async fn run(
        self,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let Self {
            app,
            worker,
            listener,
            tls,
            options,
            stop,
            _lock,
        } = self;
        let mut workers = JoinSet::new();
        for _ in 0..options.workers {
            workers.spawn(worker.clone().run(app.stopped.clone()));
        }
        let drained = {
            let mut stopped = app.stopped.clone();
            async move {
                let _ = stopped.wait_for(|stop| *stop).await;
                tokio::time::sleep(options.drain).await;
            }
        };
        let handle = Handle::new();
        tokio::spawn({
            let handle = handle.clone();
            async move {
                end.await;
                info!("ending what has begun");
                stop.send_replace(true);
                handle.graceful_shutdown(Some(options.drain));
            }
        });
        let pages = router(app).into_make_service();
        let serving = match tls {
            None => {
                let server = from_tcp(listener).map_err(ServeError::Server)?;
                Either::Left(bounded(server, handle).serve(pages))
            }
            Some(tls) => {
                let server = from_tcp_rustls(listener, tls).map_err(ServeError::Server)?;
                Either::Right(bounded(server, handle).serve(pages))
            }
        };
        let all = async {
            serving.await.map_err(ServeError::Server)?;
            while workers.join_next().await.is_some() {}
            Ok(())
        };
        tokio::select! {
            done = all => done,
            // What has not ended by now goes on with the next start.
            () = drained => Ok(()),
        }
    }
}

/// A server that waits for no client for ever, and ends by a handle.
fn bounded<A>(server: Server<SocketAddr, A>, handle: Handle<SocketAddr>) -> Server<SocketAddr, A> {
    server.handle(handle).first_request_timeout(FIRST_REQUEST)
}

/// Makes a folder that only its owner can look into, if it is not there.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Keeps other processes from a folder for as long as the file is open.
fn lock(state: &Path) -> Result<File, ServeError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ServeError::InUse {
            path: state.to_owned(),
        }),
        Err(error) => Err(at("lock", &path)(error.into())),
    }
}

fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ServeError + 'a {
    move |source| ServeError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
