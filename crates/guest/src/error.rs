//! What can go wrong in a machine that only the agent lives in.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use preverify_protocol::frame::FrameError;
use preverify_protocol::{Limits, Reply};

use crate::export::ExportError;

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
    /// No such object is loaded.
    #[error("no object with the handle {handle} is loaded")]
    NoObject {
        /// As it was asked for.
        handle: u32,
    },
    /// The object has no such program, or did not load it.
    #[error("the object has not loaded a program {function}")]
    NoProgram {
        /// The name of its function.
        function: String,
    },
    /// The process that held an object ended by itself.
    #[error(
        "the process that holds the object ended during {during} ({status}){}",
        last_words(messages)
    )]
    HolderEnded {
        /// What was under way.
        during: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what libbpf said.
        messages: String,
    },
    /// The process that holds an object cannot be talked to.
    #[error("the process that holds the object cannot be talked to during {during}: {source}")]
    Holder {
        /// What was under way.
        during: &'static str,
        /// Why not.
        source: FrameError,
    },
    /// The process that holds an object answered another question.
    #[error("the process that holds the object gave an unexpected answer to {during}")]
    UnexpectedAnswer {
        /// What was under way.
        during: &'static str,
    },
    /// The process that holds an object could not carry out what it should.
    #[error("{message}")]
    Relayed {
        /// Its words.
        message: String,
        /// The errno.
        errno: i32,
    },
    /// It took too long, and was ended.
    #[error("{during} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// What was under way.
        during: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The verifier accepted a program and logged no statistics that can be read.
    #[error("the kernel's statistics of the program {program} cannot be read: {log:?}")]
    NoStatistics {
        /// The name of its function.
        program: String,
        /// The log.
        log: String,
    },
    /// A map holds a program or map that is not of its object.
    #[error("the map {map} holds, under the key {key}, what is not of its object")]
    ForeignSlot {
        /// Its name.
        map: String,
        /// The key.
        key: u32,
    },
    /// More is asked back of a test run than any gives.
    #[error("a test run gives up to {limit} bytes of data back, and {asked} are asked for")]
    TooMuchOutput {
        /// As it was asked for.
        asked: u32,
        /// The limit.
        limit: u32,
    },
    /// The kernel has its limits built in, and others are wanted.
    #[error("the kernel's limits are {0:?} and cannot be changed")]
    FixedLimits(Limits),
    /// Programs cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
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
            Self::NoModule { .. } | Self::NoObject { .. } | Self::NoProgram { .. } => libc::ENOENT,
            Self::EmptyCommand | Self::TooMuchOutput { .. } => libc::EINVAL,
            Self::TimedOut { .. } => libc::ETIMEDOUT,
            // Nobody kills a process here that is not past its time, but a kernel that is out of memory.
            Self::HolderEnded { status, .. } if status.signal() == Some(libc::SIGKILL) => {
                libc::ENOMEM
            }
            Self::Relayed { errno, .. } => *errno,
            Self::Export(error) => error.errno(),
            Self::HolderEnded { .. }
            | Self::Holder { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::NoStatistics { .. }
            | Self::FixedLimits(_)
            | Self::ForeignSlot { .. } => 0,
        }
    }
}

fn last_words(messages: &str) -> String {
    match messages.trim_end() {
        "" => String::new(),
        messages => format!("; it said last:\n{messages}"),
    }
}

impl From<AgentError> for Reply {
    fn from(error: AgentError) -> Self {
        if let AgentError::FixedLimits(own) = error {
            return Self::FixedLimits(own);
        }
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
