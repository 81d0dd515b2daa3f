//! The folder with all that a service keeps: for its owner alone, and for one process at a time.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::{FileError, at};

/// The database in it.
pub const DATABASE: &str = "state.db";
/// The folder of blobs in it.
pub const BLOBS: &str = "blobs";

/// It cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has it.
    #[error("{} is in use by another process: end it, or take another --state", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// Makes the folder, if it is not there, and keeps other processes from it for as long as the file is open.
pub fn take(state: &Path) -> Result<File, StateError> {
    private_folder(state).map_err(at("create", state))?;
    let path = state.join("lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StateError::InUse {
            path: state.to_owned(),
        }),
        Err(error) => Err(at("lock", &path)(error.into()).into()),
    }
}

/// Makes a folder that only its owner can look into, if it is not there.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
