//! `preverify serve`: verification for others.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use preverify_bundle::{Algorithm, Signer};
use preverify_service::{
    Bounds, DATABASE, Options, Quota, ServeError, Service, Tls, TracesError, WorkerSetup,
    private_folder,
};
use preverify_target::{Store, TargetError, default_cache};
use tracing::info;

use crate::daemon::{NatsArgs, WorkArgs, end, half_the_cpus};
use crate::key;
use crate::signer::{self, OpenSignerError};

/// The signing key in the folder.
pub const SIGNER: &str = "signer.pem";

/// Verify for others: an HTTP API for objects, verdicts and signed bundles
#[derive(clap::Args)]
#[command(after_help = "\
From a target to a bundle:
  preverify serve
  preverify submit xdp.bpf.o --target board -o xdp.pvb

The service verifies for the targets that `preverify target list` shows, also for those that come while it runs. What was \
verified before for the same object, inputs, limits and target is answered without a verification.

All that it keeps is in one folder: jobs and tokens in state.db, objects, logs and bundles in blobs/, the signing key \
if none was given. `preverify service backup` copies it while the service runs. With the first start, it makes a token \
that is good for everything, in admin.token there. Whoever has that file needs no --token to submit. Others are made \
with it:

  curl -H \"Authorization: Bearer $(cat admin.token)\" -H 'Content-Type: application/json' \\
      -d '{\"name\": \"ci\", \"tenant\": \"acme\", \"scopes\": [\"submit\", \"read\"]}' \\
      http://127.0.0.1:8440/v1/tokens

The API is described at /v1/openapi.json. With OTEL_EXPORTER_OTLP_ENDPOINT set, spans are exported by OTLP over HTTP, in \
the traces of clients whose requests have a traceparent.

With --nats, state is in a NATS server and not in the folder. Any number of processes can serve then, on any number of \
machines, and `preverify worker` verifies on others.")]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8440")]
    listen: SocketAddr,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    work: WorkArgs,
    /// The certificate that the service shows, and those between it and the root, in PEM: with it, connections are TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Authorities, in PEM: only who shows a certificate of one of them may connect, and needs a token none the less
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    client_authorities: Option<PathBuf>,
    /// The folder with all that the service keeps [default: ~/.local/state/preverify]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The signer: a file that `preverify key generate` made, or a key in a token (see `preverify key show --help`)
    /// [default: signer.pem in the folder, made if it is not there]
    #[arg(long, value_name = "FILE|URI")]
    key: Option<PathBuf>,
    /// The file with the key's certificate, if that is not where the key is
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Verifications at the same time; each has two machines [default: half as many as there are CPUs, or none with --nats]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(0..=1024))]
    workers: Option<u16>,
}

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServeCommandError {
    /// It cannot be started, or has failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The environment asks for what cannot be.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The targets cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be used.
    #[error(transparent)]
    Sign(#[from] OpenSignerError),
    /// Nobody would verify.
    #[error("a service without workers needs --nats, where workers of other processes take from")]
    NoWorkers,
    /// The key is lost that what is there was signed with.
    #[error(
        "{} has a database and no {SIGNER}: put back the key that signed what it knows, or name it with --key; if it is \
         lost, `preverify key generate --out {SIGNER}` there makes another, which devices have to be told to trust",
        .0.display()
    )]
    LostKey(PathBuf),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] key::KeyCommandError),
    /// There is no place for what it keeps.
    #[error("HOME is not set: say with --state where the service may keep what it keeps")]
    NoHome,
    /// The operating system refuses.
    #[error("the service cannot be run: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until it is told to end.
pub fn run(args: &Args) -> Result<(), ServeCommandError> {
    // It ends last, with what is told of the end.
    let _log = args.work.start_log()?;
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state().ok_or(ServeCommandError::NoHome)?,
    };
    let nats = args.nats.options();
    let slots = match (args.workers, &nats) {
        (Some(workers), _) => workers.into(),
        (None, None) => half_the_cpus(),
        (None, Some(_)) => 0,
    };
    let store = Store::open(&default_cache()?)?;
    // Who does not verify does not sign.
    let workers = match slots {
        0 if nats.is_none() => return Err(ServeCommandError::NoWorkers),
        0 => None,
        slots => {
            let signer = signer(args, &state)?;
            info!(signer = %signer, "signing");
            Some(WorkerSetup {
                store: &store,
                targets: args.work.targets.clone(),
                signer,
                slots,
                warm: args.work.warm.into(),
            })
        }
    };
    let options =
        Options {
            state,
            nats,
            listen: args.listen,
            tls: args.tls_certificate.clone().zip(args.tls_key.clone()).map(
                |(certificate, key)| Tls {
                    certificate,
                    key,
                    client_authorities: args.client_authorities.clone(),
                },
            ),
            drain: args.work.drain(),
            bounds: Bounds::default(),
            quota: Quota::default(),
        };
    let runtime = tokio::runtime::Runtime::new()?;
    let served = runtime.block_on(async {
        let progress = &mut |what: &str| info!("{what}");
        let service = Service::start(options, workers, progress).await?;
        if let Some(file) = service.first_token().await? {
            info!(file = %file.display(), "the first token, good for everything");
        }
        let scheme = if service.is_secure() { "https" } else { "http" };
        info!("listening on {scheme}://{}", service.address()?);
        let end = end()?;
        service.run(end).await?;
        Ok(())
    });
    // Verifications that did not end in time are not waited for: their machines end with this process.
    runtime.shutdown_background();
    served
}

/// Where a service keeps what it keeps, if nothing else is said.
pub fn default_state() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let states = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(states.join("preverify"))
}

fn signer(args: &Args, state: &Path) -> Result<Signer, ServeCommandError> {
    if let Some(key) = &args.key {
        return Ok(signer::open(key, args.certificate.as_deref())?);
    }
    let file = state.join(SIGNER);
    if !file.exists() {
        if state.join(DATABASE).exists() {
            return Err(ServeCommandError::LostKey(state.to_owned()));
        }
        private_folder(state)?;
        let (signer, certificate) = key::make(
            &file,
            Algorithm::default(),
            "preverify service",
            key::USUAL_DAYS,
        )?;
        info!(certificate = %certificate.display(), "made a signing key; devices get its certificate");
        return Ok(signer);
    }
    Ok(Signer::open(&file).map_err(OpenSignerError::from)?)
}
