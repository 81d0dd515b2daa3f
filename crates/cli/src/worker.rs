//! `preverify worker`: verify for a service of several processes.

use preverify_service::{TracesError, WorkerSetup, WorkersError, work};
use preverify_target::{Store, TargetError, default_cache};
use tracing::info;

use crate::daemon::{NatsArgs, WorkArgs, end, half_the_cpus};
use crate::signer::{OpenSignerError, SignerArgs};

/// Verify for a service of several processes, on any machine
#[derive(clap::Args)]
#[command(after_help = "\
A service of several machines:
  preverify serve --nats nats://a:4222,nats://b:4222,nats://c:4222 --nats-replicas 3
  preverify worker --nats nats://a:4222,nats://b:4222,nats://c:4222 --nats-replicas 3 \\
      --key signer.pem

A worker verifies for the targets that `preverify target list` shows on its machine, also for those that come while it \
runs, and tells the service which these are. It signs in the same step: all workers of a service have the same key. \
What a worker that is lost had begun, another one gets. With OTEL_EXPORTER_OTLP_ENDPOINT set, spans are exported by \
OTLP over HTTP, in the traces of the jobs that they belong to.")]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    signer: SignerArgs,
    /// Verifications at the same time; each has two machines [default: half as many as there are CPUs]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerCommandError {
    /// Nobody says whose worker it is.
    #[error(
        "there is no server to take work from: name it with --nats, as in `--nats nats://127.0.0.1:4222`"
    )]
    NoServer,
    /// It cannot work.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// The environment asks for what cannot be.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The targets cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be used.
    #[error(transparent)]
    Sign(#[from] OpenSignerError),
    /// The operating system refuses.
    #[error("the worker cannot be run: {0}")]
    System(#[from] std::io::Error),
}

/// Works until it is told to end.
pub fn run(args: &Args) -> Result<(), WorkerCommandError> {
    // It ends last, with what is told of the end.
    let _log = args.work.start_log()?;
    let nats = args.nats.options().ok_or(WorkerCommandError::NoServer)?;
    let signer = args.signer.open()?;
    info!(signer = %signer, "signing");
    let store = Store::open(&default_cache()?)?;
    let setup = WorkerSetup {
        store: &store,
        targets: args.work.targets.clone(),
        signer,
        slots: args.slots.map_or_else(half_the_cpus, usize::from),
        warm: args.work.warm.into(),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let worked = runtime.block_on(async {
        let progress = &mut |what: &str| info!("{what}");
        work(&nats, setup, args.work.drain(), end()?, progress).await?;
        Ok(())
    });
    // Verifications that did not end in time are not waited for: their machines end with this process.
    runtime.shutdown_background();
    worked
}
