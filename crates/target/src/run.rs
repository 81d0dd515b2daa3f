//! Running other programs, with errors that carry what they printed.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// A program could not be run, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It is not installed.
    #[error("`{program}` is not there; install it (Debian: apt-get install {package})")]
    Missing {
        /// The program.
        program: String,
        /// Debian's package of it.
        package: &'static str,
    },
    /// It could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The program and its arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{command}` failed ({status}):\n{printed}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        printed: String,
    },
}

/// Runs a program of a Debian package and returns what it wrote.
pub(crate) fn output(command: &mut Command, package: &'static str) -> Result<String, CommandError> {
    // Their words are parsed or shown: they must be the untranslated ones.
    command.env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CommandError::Missing {
            program: command.get_program().to_string_lossy().into_owned(),
            package,
        },
        _ => CommandError::Start {
            command: describe(command),
            source,
        },
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let printed = if complaint.trim().is_empty() {
        &*text
    } else {
        &*complaint
    };
    Err(CommandError::Failed {
        command: describe(command),
        status: output.status,
        printed: last_lines(printed, 20),
    })
}

/// The last lines that say anything, indented.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_was_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo lost; echo because >&2; exit 3"]);
        let error = output(&mut command, "dash").unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("\n    because"), "{error}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = output(&mut Command::new("preverify-no-such-program"), "kmod").unwrap_err();
        assert!(
            error.to_string().ends_with("apt-get install kmod)"),
            "{error}"
        );
    }

    #[test]
    fn only_the_last_lines_count() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "");
    }
}
