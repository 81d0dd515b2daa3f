//! NATS JetStream: what several processes share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context, kv, object_store};
use async_nats::{Client, ConnectOptions};
use tracing::warn;

/// What all that belongs to the service is called after.
const PREFIX: &str = "preverify";
/// How long a worker may be silent before somebody else gets what it has taken.
pub const SILENCE: Duration = Duration::from_secs(15);
/// Requests are answered within this time, or have failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers that were just started agree on who leads within this time.
const START: Duration = Duration::from_secs(60);
/// How often they are asked until then.
const AGAIN: Duration = Duration::from_secs(1);

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
}

impl Nats {
    /// Connects. What is interrupted later is connected again.
    pub async fn connect(options: &NatsOptions) -> Result<Self, NatsError> {
        let servers = options.servers.join(", ");
        let client = patiently(async || {
            let connect = match &options.credentials {
                None => ConnectOptions::new(),
                Some(file) => ConnectOptions::with_credentials_file(file)
                    .await
                    .map_err(NatsError::of(format!("read {}", file.display())))?,
            };
            connect
                .name(PREFIX)
                .request_timeout(Some(PATIENCE))
                .connect(&options.servers)
                .await
                .map_err(NatsError::of(format!("connect to {servers}")))
        })
        .await?;
        let context = jetstream::new(client.clone());
        Ok(Self {
            client,
            context,
            replicas: options.replicas,
        })
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

    /// The store with blobs.
    pub async fn blobs(&self) -> Result<object_store::ObjectStore, NatsError> {
        let bucket = format!("{PREFIX}_blobs");
        let config = object_store::Config {
            bucket: bucket.clone(),
            num_replicas: self.replicas,
            storage: StorageType::File,
            ..object_store::Config::default()
        };
        patiently(async || {
            if let Ok(found) = self.context.get_object_store(&bucket).await {
                return Ok(found);
            }
            let made = self.context.create_object_store(config.clone()).await;
            made.map_err(NatsError::of("make the store of blobs"))
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
