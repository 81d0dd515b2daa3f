//! NATS JetStream: what several processes share.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context, kv, object_store};
use async_nats::{Client, ConnectOptions, Event};
use tracing::warn;

/// What all that belongs to the service is called after.
const PREFIX: &str = "preverify";
/// How long a worker may be silent before somebody else gets what it has taken.
pub const SILENCE: Duration = Duration::from_secs(15);
/// Requests are answered within this time, or have failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// Servers that were just started agree on who leads within this time.
const START: Duration = Duration::from_secs(60);
/// How often they are asked until then.
const AGAIN: Duration = Duration::from_secs(1);

/// Processes of older servers, killed, may come back with less than their cluster has agreed on, or with nothing: see
/// nats-server's changes 5946 and 6888. Seen so with 2.9.10; this one has been through the same.
const OLDEST_IN_CLUSTER: Version = Version(2, 10, 27);

/// How to reach a server, and what to ask it for.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Addresses of one cluster, as in `nats://a:4222`.
    pub servers: Vec<String>,
    /// A file with credentials, if the server wants any.
    pub credentials: Option<std::path::PathBuf>,
    /// On how many servers everything is kept.
    pub replicas: usize,
}

#[derive(Clone, Copy, Debug)]
struct Version(i64, i64, i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A cluster of such servers does not keep what it has agreed on.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is nats-server {found}, and a cluster older than {OLDEST_IN_CLUSTER} can lose what it keeps when its processes are \
     killed: upgrade its servers"
)]
struct TooOld {
    found: String,
}

/// The server does not do what is asked of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("NATS: cannot {action}: {source}")]
pub struct NatsError {
    action: String,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl NatsError {
    /// Says what was tried.
    pub fn of<E: std::error::Error + Send + Sync + 'static>(
        action: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self {
            action,
            source: Arc::new(source),
        }
    }

    /// The same for errors that are only known to be some.
    pub fn of_any(
        action: impl Into<String>,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let action = action.into();
        move |source| Self {
            action,
            source: source.into(),
        }
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The connection.
    pub client: Client,
    /// What keeps things there.
    pub context: Context,
    replicas: usize,
    /// Since when there is one, if there is.
    since: Arc<Mutex<Instant>>,
}

impl Nats {
    /// Connects. What is interrupted later is connected again.
    pub async fn connect(options: &NatsOptions) -> Result<Self, NatsError> {
        let servers = options.servers.join(", ");
        let since = Arc::new(Mutex::new(Instant::now()));
        let client = patiently(async || {
            let connect = match &options.credentials {
                None => ConnectOptions::new(),
                Some(file) => ConnectOptions::with_credentials_file(file)
                    .await
                    .map_err(NatsError::of(format!("read {}", file.display())))?,
            };
            let since = since.clone();
            connect
                .name(PREFIX)
                .event_callback(move |event| {
                    if event == Event::Connected {
                        *since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                    std::future::ready(())
                })
                .request_timeout(Some(PATIENCE))
                // A server that is gone without a word is left after three of these.
                .ping_interval(PING)
                .connect(&options.servers)
                .await
                .map_err(NatsError::of(format!("connect to {servers}")))
        })
        .await?;
        let Version(major, minor, patch) = OLDEST_IN_CLUSTER;
        if options.replicas > 1 && !client.is_server_compatible(major, minor, patch) {
            let found = client.server_info().version;
            let action = format!("keep anything on {} servers of {servers}", options.replicas);
            return Err(NatsError::of(action)(TooOld { found }));
        }
        let context = jetstream::new(client.clone());
        Ok(Self {
            client,
            context,
            replicas: options.replicas,
            since,
        })
    }

    /// How long there has been a connection, without interruption.
    pub fn connected_for(&self) -> Duration {
        match self.client.connection_state() {
            State::Connected => {
                let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
                since.elapsed()
            }
            State::Pending | State::Disconnected => Duration::ZERO,
        }
    }

    /// The bucket with records. It is read from the server that leads, so that whoever has written something has it read
    /// by all.
    pub async fn records(&self) -> Result<kv::Store, NatsError> {
        let bucket = format!("{PREFIX}_records");
        self.stream(Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: false,
            ..Config::default()
        })
        .await?;
        let found = self.context.get_key_value(bucket).await;
        found.map_err(NatsError::of("open the bucket with records"))
    }

    /// The store with blobs, and the stream that it is made of.
    pub async fn blobs(&self) -> Result<(object_store::ObjectStore, Stream), NatsError> {
        let bucket = format!("{PREFIX}_blobs");
        let config = object_store::Config {
            bucket: bucket.clone(),
            num_replicas: self.replicas,
            storage: StorageType::File,
            ..object_store::Config::default()
        };
        patiently(async || {
            let store = match self.context.get_object_store(&bucket).await {
                Ok(found) => found,
                Err(_) => {
                    let made = self.context.create_object_store(config.clone()).await;
                    made.map_err(NatsError::of("make the store of blobs"))?
                }
            };
            let stream = self.context.get_stream(format!("OBJ_{bucket}")).await;
            Ok((
                store,
                stream.map_err(NatsError::of("open the store of blobs"))?,
            ))
        })
        .await
    }

    /// The stream with tickets: each is for one worker.
    pub async fn work(&self) -> Result<Stream, NatsError> {
        self.stream(Config {
            name: format!("{PREFIX}_work"),
            subjects: vec![subject("work.>")],
            retention: RetentionPolicy::WorkQueue,
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..Config::default()
        })
        .await
    }

    async fn stream(&self, config: Config) -> Result<Stream, NatsError> {
        let name = config.name.clone();
        let config = Config {
            num_replicas: self.replicas,
            storage: StorageType::File,
            ..config
        };
        patiently(async || {
            let made = self.context.get_or_create_stream(config.clone()).await;
            made.map_err(NatsError::of(format!("make the stream {name}")))
        })
        .await
    }
}

/// Tries something until servers that were just started are ready for it.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, NatsError>) -> Result<T, NatsError> {
    let deadline = Instant::now() + START;
    loop {
        match attempt().await {
            Err(error) if Instant::now() < deadline => {
                warn!(%error, "trying again");
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// A subject of the service's own.
pub fn subject(rest: &str) -> String {
    format!("{PREFIX}.{rest}")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Connects to a server that says it has a version, and nothing else.
    async fn connect(version: &str, replicas: usize) -> Result<Nats, NatsError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let greeting = format!("INFO {{\"version\":\"{version}\",\"max_payload\":1048576}}\r\n");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let mut lines = BufReader::new(&mut stream).lines();
            while lines.next_line().await.unwrap().unwrap() != "PING" {}
            stream.write_all(b"PONG\r\n").await.unwrap();
            stream
        });
        let options = NatsOptions {
            servers: vec![format!("nats://{address}")],
            credentials: None,
            replicas,
        };
        let outcome = Nats::connect(&options).await;
        drop(server.await.unwrap());
        outcome
    }

    #[tokio::test]
    async fn clusters_that_lose_what_they_keep_are_refused() {
        for version in ["2.9.10", "2.10.26"] {
            let error = connect(version, 3).await.unwrap_err().to_string();
            for part in ["3 servers of nats://127.0.0.1:", version, "2.10.27"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            // One server alone has nobody to agree with.
            connect(version, 1).await.unwrap();
        }
        connect("2.10.27", 3).await.unwrap();
        connect("2.11.0-preview.1", 3).await.unwrap();
    }
}
