//! What the commands that run for long have in common.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use preverify_service::{Log, NatsOptions, TracesError};
use tokio::signal::unix::{SignalKind, signal};

/// The server that several processes share.
#[derive(clap::Args)]
pub struct NatsArgs {
    /// A NATS server with JetStream that all processes of the service share; several of one cluster, with commas
    #[arg(long = "nats", value_name = "URL", value_delimiter = ',')]
    pub servers: Vec<String>,
    /// The file with the credentials for it
    #[arg(long, value_name = "FILE", requires = "servers")]
    nats_credentials: Option<PathBuf>,
    /// On how many of its servers everything is kept
    #[arg(long, value_name = "NUMBER", requires = "servers", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=5))]
    nats_replicas: u8,
}

impl NatsArgs {
    /// What they say, if a server was named.
    pub fn options(&self) -> Option<NatsOptions> {
        (!self.servers.is_empty()).then(|| NatsOptions {
            servers: self.servers.clone(),
            credentials: self.nats_credentials.clone(),
            replicas: self.nats_replicas.into(),
        })
    }
}

/// How to work, and to end.
#[derive(clap::Args)]
pub struct WorkArgs {
    /// A target to verify for; can be given again [default: all that can be used here, as they come and go]
    #[arg(long = "target", value_name = "NAME")]
    pub targets: Vec<String>,
    /// Verifiers that are kept ready for the next object; each has two machines with their target's memory
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub warm: u16,
    /// How long what has begun may take once the process is told to end (SIGTERM, Ctrl-C)
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Write the log as JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl WorkArgs {
    /// How long what has begun may take.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }

    /// Starts the log, which ends when it is dropped.
    pub fn start_log(&self) -> Result<Log, TracesError> {
        Log::start(self.json)
    }
}

/// How many verifications there are at the same time, if nothing is said: each has two machines.
pub fn half_the_cpus() -> usize {
    thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}

/// Comes when the process is told to end.
pub fn end() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
