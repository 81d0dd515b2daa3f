//! `preverify submit`: have a service verify.

mod client;
mod display;
mod tls;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use preverify_bundle::{Bundle, FormatError, WriteError};
use preverify_pipeline::{Limits, LimitsError, inputs};
use preverify_service::views::{JobState, JobView};

use crate::inputs::{InputArgs, InputsArgsError};
use crate::serve::default_state;
use crate::steps::Progress;
use client::{Client, ClientError};
use display::Display;
use tls::{TlsArgs, TlsArgsError};

/// Have a service verify an object, and get the signed bundle
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  preverify submit xdp.bpf.o --target board -o xdp.pvb
  preverify submit xdp.bpf.o --server http://verify.example:8440 --target board \\
      --target gateway -o xdp.pvb

It is as if the bundle was built here, with the service's targets and signed by its key. What the object's user space \
would set comes from the same options and the same file as for `preverify build`, and limits are the same.

The token is in PREVERIFY_TOKEN, or in the file that --token-file names. A service on this machine leaves its first \
one where it is found without being named.")]
pub struct Args {
    /// The BPF object, an ELF file as clang makes it
    object: PathBuf,
    /// A target of the service: `preverify target list` shows them there; can be given again
    #[arg(long = "target", value_name = "NAME", required = true)]
    targets: Vec<String>,
    /// Where the bundle goes
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The service
    #[arg(
        long,
        value_name = "URL",
        env = "PREVERIFY_SERVER",
        default_value = "http://127.0.0.1:8440"
    )]
    server: String,
    /// The file with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// How far a verification may go: some of `insns=N,jumps=N,memory=SIZE,time=DURATION`
    #[arg(long, value_name = "LIMIT=VALUE,...", value_parser = checked_limits)]
    limits: Option<String>,
    /// Print the job as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Where a token is looked for first.
const TOKEN_VARIABLE: &str = "PREVERIFY_TOKEN";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The inputs are wrong.
    #[error(transparent)]
    Inputs(#[from] InputsArgsError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsArgsError),
    /// No token is to be found.
    #[error(
        "there is no token: set {TOKEN_VARIABLE}, or name a file with --token-file; whoever runs the service makes them"
    )]
    NoToken,
    /// The service does not answer, or not as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The service has no bundle for it.
    #[error("{}: {reason}", object.display())]
    NoBundle { object: PathBuf, reason: String },
    /// What came is no bundle.
    #[error("what the service sent is no bundle: {0}")]
    Bundle(#[from] FormatError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Submits an object, watches what becomes of it, and writes the bundle.
pub fn run(args: &Args) -> Result<(), SubmitError> {
    let object = read(&args.object)?;
    let inputs = args.inputs.of(&args.object)?;
    let inputs = inputs::to_toml(&inputs);
    let client = Client::new(&args.server, &token(args)?, args.tls.config()?);
    let file_name = args
        .object
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();

    let progress = Progress::new();
    progress.line(&format!("{file_name} for {}", args.targets.join(", ")));
    let submitted = client.submit(&client::Form {
        object: &object,
        file_name: &file_name,
        targets: &args.targets,
        inputs: &inputs,
        limits: args.limits.as_deref(),
    })?;
    let mut display = Display::new(&progress, &args.targets);
    let job = client.follow(&submitted.id, &mut |job| display.show(job))?;
    if args.json {
        let text = serde_json::to_string_pretty(&job).expect("it has only strings as keys");
        println!("{text}");
    }
    if job.state != JobState::Accepted {
        return Err(SubmitError::NoBundle {
            object: args.object.clone(),
            reason: reason(args, &client, &job),
        });
    }
    let bundle = Bundle::read(&client.bundle(&job.id)?)?;
    bundle.write(&args.output)?;
    if !args.json {
        let size = bundle.to_bytes().len();
        eprintln!(
            "{}{}: {size} bytes",
            display::programs(&job),
            args.output.display()
        );
    }
    Ok(())
}

/// Why there is no bundle; the verifiers' logs are kept beside where it would be.
fn reason(args: &Args, client: &Client, job: &JobView) -> String {
    let mut reason = match (&job.targets[..], &job.reason) {
        ([_], _) => String::new(),
        (_, Some(reason)) => reason.clone(),
        (targets, None) => {
            let accepted = targets.iter().filter(|target| target.message.is_none());
            format!(
                "no bundle, since {} of {} targets do not take it",
                targets.len() - accepted.count(),
                targets.len()
            )
        }
    };
    for target in &job.targets {
        let Some(message) = &target.message else {
            continue;
        };
        if job.targets.len() > 1 {
            reason.push_str(&format!("\n{}: ", target.target));
        }
        reason.push_str(message);
        if target.has_log {
            reason.push_str(&keep_log(args, client, job, &target.target));
        }
    }
    reason
}

fn keep_log(args: &Args, client: &Client, job: &JobView, target: &str) -> String {
    let mut path = args.output.clone().into_os_string();
    if job.targets.len() > 1 {
        path.push(format!(".{target}"));
    }
    path.push(".log");
    let path = PathBuf::from(path);
    let kept = client
        .log(&job.id, target)
        .map_err(|error| error.to_string());
    let kept = kept.and_then(|log| fs::write(&path, log).map_err(|error| error.to_string()));
    match kept {
        Ok(()) => format!("\n  the whole log: {}", path.display()),
        Err(error) => format!("\n  the whole log cannot be kept: {error}"),
    }
}

fn token(args: &Args) -> Result<String, SubmitError> {
    if let Some(path) = &args.token_file {
        return Ok(trimmed(&read(path)?));
    }
    if let Some(token) = std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty()) {
        return Ok(trimmed(token.as_encoded_bytes()));
    }
    let first = default_state().map(|state| state.join("admin.token"));
    match first.filter(|path| path.exists()) {
        Some(path) => Ok(trimmed(&read(&path)?)),
        None => Err(SubmitError::NoToken),
    }
}

fn trimmed(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, SubmitError> {
    fs::read(path).map_err(|source| SubmitError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The service reads them, but what is wrong is said before anything is sent.
fn checked_limits(text: &str) -> Result<String, LimitsError> {
    text.parse::<Limits>().map(|_| text.to_owned())
}
