//! `preverify serve`: verification for others.

use std::env;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use preverify_bundle::{Algorithm, Signer, SignerError};
use preverify_service::{Bounds, Options, Quota, ServeError, Service, Tls, private_folder};
use preverify_target::{Store, TargetError, default_cache};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::key;

/// Verify for others: an HTTP API for objects, verdicts and signed bundles
#[derive(clap::Args)]
#[command(after_help = "\
From a target to a bundle:
  preverify serve
  preverify submit xdp.bpf.o --target board -o xdp.pvb

The service verifies for the targets that `preverify target list` shows. What was verified before for the same object, \
inputs, limits and target is answered without a verification.

All that it keeps is in one folder: jobs and tokens in state.db, objects, logs and bundles in blobs/, the signing key \
if none was given. With the first start, it makes a token that is good for everything, in admin.token there. Whoever \
has that file needs no --token to submit. Others are made with it:

  curl -H \"Authorization: Bearer $(cat admin.token)\" -H 'Content-Type: application/json' \\
      -d '{\"name\": \"ci\", \"tenant\": \"acme\", \"scopes\": [\"submit\", \"read\"]}' http://127.0.0.1:8440/v1/tokens

The API is described at /v1/openapi.json.")]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8440")]
    listen: SocketAddr,
    /// A target to verify for; can be given again [default: all that can be used here]
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
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
    /// The signer: a file that `preverify key generate` made [default: signer.pem in the folder, made if it is not there]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Verifications at the same time; each has two machines [default: half as many as there are CPUs]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Verifiers that are kept ready for the next object; each has two machines with their target's memory
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    warm: u16,
    /// How long what has begun may take once the service is told to end (SIGTERM, Ctrl-C)
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Write the log as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServeCommandError {
    /// It cannot be started, or has failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The targets cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be used.
    #[error(transparent)]
    Sign(#[from] SignerError),
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
    start_log(args.json);
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state().ok_or(ServeCommandError::NoHome)?,
    };
    let signer = signer(args, &state)?;
    info!(signer = %signer, "signing");
    let store = Store::open(&default_cache()?)?;
    let options =
        Options {
            state,
            targets: args.targets.clone(),
            listen: args.listen,
            tls: args.tls_certificate.clone().zip(args.tls_key.clone()).map(
                |(certificate, key)| Tls {
                    certificate,
                    key,
                    client_authorities: args.client_authorities.clone(),
                },
            ),
            workers: args.workers.map_or_else(half_the_cpus, usize::from),
            warm: args.warm.into(),
            drain: Duration::from_secs(args.drain),
            bounds: Bounds::default(),
            quota: Quota::default(),
        };
    let runtime = tokio::runtime::Runtime::new()?;
    let served = runtime.block_on(async {
        let service = Service::start(options, &store, signer, &mut |what| info!("{what}")).await?;
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
    if let Some(file) = &args.key {
        return Ok(Signer::open(file)?);
    }
    let file = state.join("signer.pem");
    if !file.exists() {
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
    Ok(Signer::open(&file)?)
}

fn half_the_cpus() -> usize {
    thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}

fn start_log(json: bool) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match json {
        true => log.json().init(),
        false => log.init(),
    }
}

/// Comes when the process is told to end.
fn end() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
