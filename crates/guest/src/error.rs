//! What can go wrong in a machine that only the agent lives in.

use std::fmt;
use std::io;
use std::path::PathBuf;

use preverify_protocol::Reply;

/// Why something could not be done. It travels to the host as [`Reply::Failed`].
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel refused a file or a path.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried, as in `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a system call that names no file.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A kernel module that this machine does not have.
    #[error(
        "the kernel module {name} is neither in {folder} nor built in: put it into the initramfs"
    )]
    NoModule {
        /// As it was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A command to run was empty.
    #[error("a command to run needs at least the program's path")]
    EmptyCommand,
}

impl AgentError {
    /// For `map_err` on operations on a path.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// For `map_err` on other system calls.
    pub fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            action,
            source: source.into(),
        }
    }

    /// The errno below the error, or zero.
    pub fn errno(&self) -> i32 {
        match self {
            Self::File { source, .. } | Self::System { source, .. } => {
                source.raw_os_error().unwrap_or(0)
            }
            Self::NoModule { .. } => libc::ENOENT,
            Self::EmptyCommand => libc::EINVAL,
        }
    }
}

impl From<AgentError> for Reply {
    fn from(error: AgentError) -> Self {
        failed(&error, error.errno())
    }
}

/// An answer for what could not be carried out.
pub fn failed(message: impl fmt::Display, errno: i32) -> Reply {
    Reply::Failed {
        message: message.to_string(),
        errno,
    }
}
