//! `preverify service`: what whoever runs a service does beside running it.

use std::io;
use std::path::{Path, PathBuf};

use preverify_service::{BackupError, back_up, restore};

use crate::output;
use crate::serve::{SIGNER, default_state};

/// What is in the folder and in no backup, and what becomes of who has lost it.
const SECRETS: [(&str, &str); 2] = [
    (SIGNER, "devices trust no other key"),
    (
        "admin.token",
        "there may be no other token that makes tokens",
    ),
];

/// Back up and restore what a service keeps
#[derive(clap::Subcommand)]
pub enum Command {
    Backup(Backup),
    Restore(Restore),
}

/// Write all that a service knows to one file, while it runs
#[derive(clap::Args)]
#[command(after_help = "\
From one machine to another:
  preverify service backup --out service.tar
  preverify service restore service.tar
  preverify serve

The file has the database as it was at one moment, and all objects, logs and bundles. It has neither the signing key nor \
admin.token: copy these once, to where secrets are kept.")]
pub struct Backup {
    /// The service's folder [default: ~/.local/state/preverify]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The file to write: a tar archive that only its owner can read
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Make a service's folder of what a backup has, all of it or nothing
#[derive(clap::Args)]
#[command(after_help = "\
Every digest is checked. The folder may have a signing key and admin.token already, or get them before the service is \
started; it must have no other state. A service that is started with it goes on with what was under way.")]
pub struct Restore {
    /// A file that `preverify service backup` wrote
    file: PathBuf,
    /// The service's folder, made if it is not there [default: ~/.local/state/preverify]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Why nothing was backed up, or restored.
#[derive(Debug, thiserror::Error)]
pub enum ServiceCommandError {
    /// It does not work.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nobody says where the service keeps what it keeps.
    #[error("HOME is not set: say with --state where the service keeps what it keeps")]
    NoHome,
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// Backs up or restores.
pub fn run(command: &Command) -> Result<(), ServiceCommandError> {
    match command {
        Command::Backup(args) => {
            let state = folder(args.state.as_deref())?;
            let backup = back_up(&state, &args.out)?;
            let left = SECRETS.iter().filter(|(name, _)| state.join(name).exists());
            say(
                &format!(
                    "{}: the database and {}",
                    args.out.display(),
                    blobs(backup.blobs)
                ),
                left.map(|(name, why)| format!("{name} is not in it; keep a copy of it: {why}")),
            )
        }
        Command::Restore(args) => {
            let state = folder(args.state.as_deref())?;
            let backup = restore(&args.file, &state)?;
            let missing = SECRETS
                .iter()
                .filter(|(name, _)| !state.join(name).exists());
            say(
                &format!(
                    "{}: the database of {} and {}",
                    state.display(),
                    backup.taken,
                    blobs(backup.blobs)
                ),
                missing.map(|(name, why)| {
                    format!("{name} is not there; put your copy of it there: {why}")
                }),
            )
        }
    }
}

fn folder(state: Option<&Path>) -> Result<PathBuf, ServiceCommandError> {
    let named = state.map(Path::to_owned);
    named
        .or_else(default_state)
        .ok_or(ServiceCommandError::NoHome)
}

fn blobs(count: usize) -> String {
    match count {
        1 => "1 blob".to_owned(),
        _ => format!("{count} blobs"),
    }
}

fn say(done: &str, notes: impl Iterator<Item = String>) -> Result<(), ServiceCommandError> {
    output::print(|out| {
        writeln!(out, "{done}")?;
        for note in notes {
            writeln!(out, "  {note}")?;
        }
        Ok(())
    })
    .map_err(ServiceCommandError::Output)
}
