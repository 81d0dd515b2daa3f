//! What can go wrong with a machine.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use preverify_protocol::frame::FrameError;

/// What can go wrong with a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// QEMU is not installed.
    #[error(
        "{program} is not there; install it (Debian: apt-get install --no-install-recommends \
         {package})"
    )]
    QemuMissing {
        /// The command.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// QEMU is there, but does not start.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The command.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The guest crashed or turned itself off, or QEMU failed.
    #[error("the virtual machine ended ({status}) during {during}{printed}")]
    Ended {
        /// What was under way.
        during: String,
        /// How QEMU ended, and why if the guest told.
        status: String,
        /// What was printed last.
        printed: Printed,
    },
    /// The guest or QEMU did not answer in time. The machine has been turned off.
    #[error(
        "the virtual machine did not finish {during} within {:.1} s{printed}",
        limit.as_secs_f64()
    )]
    TimedOut {
        /// What was under way.
        during: String,
        /// The limit.
        limit: Duration,
        /// What was printed last.
        printed: Printed,
    },
    /// The guest sent something that is no message. The machine has been turned off.
    #[error("the agent's answer to {during} cannot be read: {source}{printed}")]
    Message {
        /// What was under way.
        during: String,
        /// What is wrong with it.
        source: FrameError,
        /// What was printed last.
        printed: Printed,
    },
    /// The agent answered, but not what was asked.
    #[error("expected {expected} from the agent, found {found}")]
    Answer {
        /// The expected answer.
        expected: &'static str,
        /// What came instead.
        found: String,
    },
    /// QEMU refused a command of its monitor.
    #[error("QEMU refused {command}: {message}")]
    Monitor {
        /// The command.
        command: String,
        /// What QEMU said.
        message: String,
    },
    /// An earlier request failed in a way that left the machine off.
    #[error("the virtual machine is off since an earlier request failed; start another one")]
    Off,
    /// A file of the host.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The environment asks for an unknown accelerator.
    #[error("{variable} is {found:?}: expected kvm or tcg")]
    UnknownAccelerator {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        found: String,
    },
}

/// The end of what the guest's console and QEMU itself printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// The guest's console.
    pub console: String,
    /// QEMU's standard error.
    pub qemu: String,
}

/// Lines of each stream in an error's text; the fields hold more.
const LINES_SHOWN: usize = 25;

impl fmt::Display for Printed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = [("QEMU", &self.qemu), ("the guest's console", &self.console)];
        for (name, text) in streams {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .collect();
            if lines.is_empty() {
                continue;
            }
            write!(formatter, "\nthe last lines of {name}:")?;
            for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
                write!(formatter, "\n    {}", line.trim_end())?;
            }
        }
        if self.console.trim().is_empty() {
            formatter.write_str("\nthe guest's console printed nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown() {
        let console: String = (0..100)
            .map(|n| format!("[ {n}.0] line {n} \n\n"))
            .collect();
        let shown = Printed {
            console,
            qemu: String::new(),
        }
        .to_string();
        assert!(
            shown.starts_with("\nthe last lines of the guest's console:\n    [ 75.0] line 75\n")
        );
        assert!(shown.ends_with("\n    [ 99.0] line 99"));
    }

    #[test]
    fn silence_is_told() {
        assert_eq!(
            Printed::default().to_string(),
            "\nthe guest's console printed nothing"
        );
    }
}
