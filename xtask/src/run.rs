//! Running other programs, with errors that name them.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};

/// A program could not be run, or failed.
#[derive(Debug)]
pub enum RunError {
    /// It could not be started.
    Start { command: String, cause: io::Error },
    /// It ended with a failure.
    Failed { command: String, status: ExitStatus },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { command, cause } => write!(f, "cannot start `{command}`: {cause}"),
            Self::Failed { command, status } => write!(f, "`{command}` failed: {status}"),
        }
    }
}

/// Runs a program with its output on ours.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), RunError> {
    let command = format!("{program} {}", arguments.join(" "));
    println!("$ {command}");
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RunError::Failed { command, status }),
        Err(cause) => Err(RunError::Start { command, cause }),
    }
}
