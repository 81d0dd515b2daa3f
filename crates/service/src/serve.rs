//! The whole service in one process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server, from_tcp};
use futures_util::future::Either;
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::api::{App, Bounds, router};
use crate::audit::Audit;
use crate::connections::Connections;
use crate::directory::{Directory, PATIENCE};
use crate::files::{FileError, at};
use crate::metrics::Metrics;
use crate::nats::{Nats, NatsError, NatsOptions};
use crate::news::Event;
use crate::orphans::Orphans;
use crate::records::RecordError;
use crate::shared::{Shared, SharedError};
use crate::state::{self, StateError};
use crate::tenants::Quota;
use crate::tls::{Tls, TlsError};
use crate::tokens::{Scope, Token, Tokens};
use crate::workers::{WorkerSetup, Workers, WorkersError};

/// How often a process looks for what others have left undone.
const SWEEP: Duration = Duration::from_secs(20);

/// How often a process that is alone looks for tasks that wait for a target that is gone.
const LOOK: Duration = Duration::from_secs(1);

/// Whose the first token is.
const FIRST_TENANT: &str = "default";

/// What a service is started with.
#[derive(Debug)]
pub struct Options {
    /// The folder with all that it keeps.
    pub state: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What secures connections, if anything does.
    pub tls: Option<Tls>,
    /// The server that other processes of the service have, too; none, if this is the only one.
    pub nats: Option<NatsOptions>,
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
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// There are no workers.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// What is kept cannot be used.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The server cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The records cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
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
    workers: Option<Workers>,
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    options: Options,
    stop: watch::Sender<bool>,
    _lock: File,
}

impl Service {
    /// Opens all that it needs, and prepares workers if it is to have some. `progress` is told what takes long.
    pub async fn start(
        options: Options,
        workers: Option<WorkerSetup<'_>>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, ServeError> {
        let state = &options.state;
        let lock = state::take(state)?;
        let nats = match &options.nats {
            Some(nats) => Some(Nats::connect(nats).await?),
            None => None,
        };
        let shared = match &nats {
            Some(nats) => Shared::by(nats, options.quota).await?,
            None => Shared::alone(state, options.quota)?,
        };
        let metrics = Metrics::default();
        let workers = match workers {
            Some(setup) => Some(Workers::new(&shared, setup, metrics.clone(), progress)?),
            None => None,
        };
        let own = workers.as_ref().map(Workers::own);
        let directory = match &nats {
            None => Directory::of(own),
            Some(nats) => {
                if let Some(own) = own.clone() {
                    own.repeat(nats);
                }
                Directory::shared(own, nats).await?
            }
        };
        shared.scheduler.resume().await?;
        let tls = options.tls.as_ref().map(Tls::config).transpose()?;
        let listen = options.listen;
        let listener = TcpListener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| ServeError::Listen { listen, source })?;
        let (stop, stopped) = watch::channel(false);
        let app = App {
            scheduler: shared.scheduler,
            blobs: shared.blobs,
            queue: shared.queue,
            directory,
            targets: workers.as_ref().map(Workers::targets),
            tenants: shared.tenants,
            news: shared.news,
            tokens: Tokens::new(shared.records.clone()),
            audit: Audit::open(shared.records),
            metrics,
            bounds: options.bounds,
            stopped,
        };
        Ok(Self {
            app,
            workers,
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
            workers,
            listener,
            tls,
            options,
            stop,
            _lock,
        } = self;
        let mut workers = workers.map_or_else(JoinSet::new, |workers| workers.start(&app.stopped));
        // Who is alone knows at once which targets nobody holds; other workers may come back.
        let (patience, often) = match &options.nats {
            None => (Duration::ZERO, LOOK),
            Some(_) => {
                tokio::spawn(keep_up(app.clone()));
                (PATIENCE, SWEEP)
            }
        };
        let App {
            scheduler,
            queue,
            directory,
            ..
        } = app.clone();
        tokio::spawn(Orphans::new(scheduler, queue, directory, patience).look(often));
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
        let connections = Connections::new(options.bounds.connections);
        let server = from_tcp(listener).map_err(ServeError::Server)?;
        let server = bounded(server, handle, options.bounds.head);
        let serving = match tls {
            None => Either::Left(server.acceptor(connections).serve(pages)),
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls).acceptor(connections);
                Either::Right(server.acceptor(acceptor).serve(pages))
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

/// Does what processes that died have left undone, and hears which jobs have ended elsewhere.
async fn keep_up(app: App) {
    let mut heard = app.news.listen();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                if let Err(error) = app.scheduler.resume().await {
                    warn!(%error, "what others have left undone cannot be done now");
                }
            }
            event = heard.recv() => match event {
                Ok(Event::JobEnded { tenant, id }) => app.tenants.closed(&tenant, &id),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// A server that waits for no client for ever, and ends by a handle.
fn bounded(
    server: Server<SocketAddr>,
    handle: Handle<SocketAddr>,
    head: Duration,
) -> Server<SocketAddr> {
    let mut server = server.handle(handle).first_request_timeout(head);
    // Between requests, too.
    server.http_builder().http1().header_read_timeout(head);
    server
}
