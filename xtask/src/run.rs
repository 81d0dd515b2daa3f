//! Running other programs, with errors that name them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

/// A program could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("cannot start `{command}`: {cause}")]
    Start { command: String, cause: io::Error },
    /// It ended with a failure.
    #[error("`{command}` failed: {status}")]
    Failed { command: String, status: ExitStatus },
    /// A file that it made could not be read or moved.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// What went wrong with a file.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |cause| RunError::File { path, cause }
}

/// Runs a program with its output on ours.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), RunError> {
    run_command(Command::new(program).args(arguments))
}

/// Runs a prepared program with its output on ours.
pub fn run_command(command: &mut Command) -> Result<(), RunError> {
    let text = describe(command);
    println!("$ {text}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RunError::Failed {
            command: text,
            status,
        }),
        Err(cause) => Err(RunError::Start {
            command: text,
            cause,
        }),
    }
}

/// Runs a program and returns what it wrote; its errors go to ours.
pub fn output(command: &mut Command) -> Result<String, RunError> {
    // The programs' words are parsed: they must be the untranslated ones.
    command.env("LC_ALL", "C").stderr(Stdio::inherit());
    let text = describe(command);
    match command.output() {
        Ok(Output { status, stdout, .. }) if status.success() => {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        }
        Ok(Output { status, .. }) => Err(RunError::Failed {
            command: text,
            status,
        }),
        Err(cause) => Err(RunError::Start {
            command: text,
            cause,
        }),
    }
}

/// Removes a folder, if it is there.
pub fn remove_folder(folder: &Path) -> Result<(), RunError> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(at(folder)(cause)),
        _ => Ok(()),
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
