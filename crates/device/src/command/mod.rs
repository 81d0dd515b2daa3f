//! The commands, one a module; each writes what it has to say to `out`.

mod dump;
mod events;
mod fingerprint;
mod list;
mod load;
mod trust;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use preverify_bundle::{RaisedLimits, ReadError};
use preverify_device::attach::AttachError;
use preverify_device::attach::plan::PlanError;
use preverify_device::keyring::TrustError;
use preverify_device::pins::{self, PinError};
use preverify_device::{DeviceError, LoadError, NoSuchProgram, Refusal};

use crate::arguments::Command;

/// Does what the command line says.
pub fn run(command: Command, out: &mut dyn Write) -> Result<(), CommandError> {
    match command {
        Command::Print(text) => writeln!(out, "{text}")?,
        Command::Load(arguments) => load::load(&arguments, out)?,
        Command::Run(arguments) => load::run(&arguments, out)?,
        Command::List { folder, json } => list::list(&folder, json, out)?,
        Command::Unload { folder } => unload(&folder, out)?,
        Command::Trust { certificates } => trust::trust(&certificates, out)?,
        Command::Fingerprint { json } => fingerprint::fingerprint(json, out)?,
        Command::MapDump { path, json } => dump::dump(&path, json, out)?,
        Command::Events(arguments) => events::events(&arguments, out)?,
    }
    out.flush()?;
    Ok(())
}

fn unload(folder: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
    let count = pins::unpin(folder)?;
    writeln!(out, "removed {count} pins of {}", folder.display())?;
    Ok(())
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Bundle(#[from] ReadError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Limits(#[from] RaisedLimits),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Program(#[from] NoSuchProgram),
    #[error("the bundle has {count} programs: say which, as in --attach {example}=WHERE")]
    WhichProgram { count: usize, example: String },
    #[error("program {program}")]
    Plan { program: String, source: PlanError },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("program {program}: {why}: use `preverify-load run`")]
    CannotStay { program: String, why: &'static str },
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot {action} {path}")]
    Map {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is no map")]
    NotAMap { path: PathBuf },
    #[error("{path}: a map of type {kind} {why}")]
    NoContents {
        path: PathBuf,
        kind: preverify_abi::kinds::MapType,
        why: &'static str,
    },
    #[error("{path}: {found} of {expected} events came in {seconds} seconds")]
    TooFewEvents {
        path: PathBuf,
        expected: u64,
        found: u64,
        seconds: u64,
    },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// The kernel part's no, if that is it.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Device(error) | Self::Load(LoadError::Device(error)) => error.refusal(),
            _ => None,
        }
    }

    /// Whether this machine and the bundle do not go together, as opposed to any other failure.
    pub fn is_refusal(&self) -> bool {
        let image = |error: &DeviceError| matches!(error, DeviceError::Image(_));
        self.refusal().is_some()
            || match self {
                Self::Device(error) | Self::Load(LoadError::Device(error)) => image(error),
                _ => false,
            }
    }
}

/// A name of the kernel's, which ends at the first zero.
fn kernel_name(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
}

/// The error behind `path`, whatever it is of.
fn map_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    let path = path.to_owned();
    move |source| CommandError::Map {
        action,
        path,
        source,
    }
}

/// What is pinned at a path, which must be a map.
fn open_map(path: &Path) -> Result<preverify_device::sys::map::MapHandle, CommandError> {
    match pins::open_map(path).map_err(map_error("open", path))? {
        Some(map) => Ok(map),
        None => Err(CommandError::NotAMap {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_first_zero() {
        assert_eq!(kernel_name(b"counts\0\0"), "counts");
        assert_eq!(kernel_name(b"full"), "full");
    }

    #[test]
    fn refusals_are_told_apart() {
        let refusal = Refusal {
            program: Some("f".to_owned()),
            errno: 22,
            reason: String::new(),
        };
        let error = CommandError::Load(DeviceError::from(refusal.clone()).into());
        assert_eq!(error.refusal(), Some(&refusal));
        assert_eq!(CommandError::from(DeviceError::Unsigned).refusal(), None);
    }
}
