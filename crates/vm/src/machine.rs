//! A running guest.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use preverify_protocol::frame::{self, FrameError};
use preverify_protocol::{Hello, Reply, Request};

use crate::arguments::{CONSOLE_FD, MONITOR_FD, MachineSpec, Memory, NETWORK_FDS, PORT_FD};
use crate::console::Tail;
use crate::error::{Printed, VmError};
use crate::monitor::{Monitor, MonitorError};
use crate::spawn::start_qemu;
use crate::timed::Timed;

/// A running guest whose first process is the agent. It is killed when this value is dropped, or
/// when this process ends in any way.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    port: UnixStream,
    /// QEMU's monitor, before its negotiation.
    monitor: Option<UnixStream>,
    console: Tail,
    diagnostics: Tail,
    /// A request failed half-way: what comes next on the port answers another question.
    off: bool,
}

/// How long a QEMU that closed its connections may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

impl Machine {
    /// Boots a machine and waits until its agent answers.
    pub fn boot(spec: &MachineSpec, limit: Duration) -> Result<(Self, Hello), VmError> {
        let mut machine = Self::start(spec, Memory::Private)?;
        let hello = machine.hello("boot", limit)?;
        Ok((machine, hello))
    }

    /// Asks the agent, and waits for its answer. After an error other than [`VmError::Answer`] and
    /// [`VmError::Monitor`], the machine is off.
    ///
    /// An agent that answers [`Reply::Failed`] has answered.
    pub fn request(&mut self, request: &Request, limit: Duration) -> Result<Reply, VmError> {
        self.exchange(request, request_name(request), limit)
    }

    /// The same, and `tell` is told what comes of [`Reply::Processed`] before the answer.
    pub fn follow(
        &mut self,
        request: &Request,
        limit: Duration,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Reply, VmError> {
        self.converse(request, request_name(request), limit, tell)
    }

    /// Has the guest turn itself off, and waits until it did.
    pub fn power_off(mut self, limit: Duration) -> Result<(), VmError> {
        let during = "power-off";
        match self.exchange(&Request::PowerOff, during, limit) {
            Err(VmError::Ended { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(reply) => Err(VmError::Answer {
                expected: "silence and the end of the machine",
                found: reply_name(&reply).to_owned(),
            }),
        }
    }

    /// The end of what the guest's console and QEMU printed.
    pub fn printed(&self) -> Printed {
        Printed {
            console: self.console.text(),
            qemu: self.diagnostics.text(),
        }
    }

    /// The end of what the guest's console printed.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// The process id of the machine's QEMU.
    pub fn process_id(&self) -> u32 {
        self.qemu.id()
    }

    pub(crate) fn start(spec: &MachineSpec, memory: Memory<'_>) -> Result<Self, VmError> {
        let (port, qemu_port) = pair()?;
        let (monitor, qemu_monitor) = pair()?;
        let (console, qemu_console) = pair()?;
        let mut files = vec![
            (PORT_FD, qemu_port.into()),
            (MONITOR_FD, qemu_monitor.into()),
            (CONSOLE_FD, qemu_console.into()),
        ];
        if spec.network {
            let (one, other) = pair()?;
            files.extend(NETWORK_FDS.into_iter().zip([one.into(), other.into()]));
        }
        let mut qemu = start_qemu(spec.kind, spec.arguments(memory), files)?;
        let diagnostics = qemu.stderr.take().map(Tail::follow).unwrap_or_default();
        Ok(Self {
            qemu,
            port,
            monitor: Some(monitor),
            console: Tail::follow(console),
            diagnostics,
            off: false,
        })
    }

    /// The first exchange on the port. The question waits in the port until the agent opens it.
    pub(crate) fn hello(&mut self, during: &str, limit: Duration) -> Result<Hello, VmError> {
        match self.exchange(&Request::Hello, during, limit)? {
            Reply::Hello(hello) => Ok(hello),
            other => Err(VmError::Answer {
                expected: "its greeting",
                found: reply_name(&other).to_owned(),
            }),
        }
    }

    /// Negotiates with QEMU's monitor, once.
    pub(crate) fn monitor(&mut self, during: &str, limit: Duration) -> Result<Monitor, VmError> {
        let stream = self.monitor.take().ok_or(VmError::Off)?;
        Monitor::connect(stream, Instant::now() + limit)
            .map_err(|error| self.monitor_failed(during, limit, error))
    }

    pub(crate) fn monitor_failed(
        &mut self,
        during: &str,
        limit: Duration,
        error: MonitorError,
    ) -> VmError {
        match error {
            MonitorError::Refused { command, message } => VmError::Monitor { command, message },
            MonitorError::Stream(source) => {
                self.stream_failed(during, limit, FrameError::Io(source))
            }
        }
    }

    /// Waits until QEMU ends by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.qemu.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn exchange(
        &mut self,
        request: &Request,
        during: &str,
        limit: Duration,
    ) -> Result<Reply, VmError> {
        self.converse(request, during, limit, &mut |_| {})
    }

    fn converse(
        &mut self,
        request: &Request,
        during: &str,
        limit: Duration,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Reply, VmError> {
        if self.off {
            return Err(VmError::Off);
        }
        let mut timed = Timed {
            stream: &self.port,
            deadline: Instant::now() + limit,
        };
        let mut answer = frame::send(&mut timed, request).and_then(|()| frame::receive(&mut timed));
        while let Ok(Reply::Processed(insns)) = answer {
            tell(insns);
            answer = frame::receive(&mut timed);
        }
        answer.map_err(|error| self.stream_failed(during, limit, error))
    }

    /// Turns the machine off and says why a stream of it failed.
    fn stream_failed(&mut self, during: &str, limit: Duration, error: FrameError) -> VmError {
        self.off = true;
        let during = during.to_owned();
        let kind = match &error {
            FrameError::Io(source) => Some(source.kind()),
            _ => None,
        };
        match kind {
            Some(std::io::ErrorKind::TimedOut) => {
                self.kill();
                let printed = self.printed();
                VmError::TimedOut {
                    during,
                    limit,
                    printed,
                }
            }
            Some(
                std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::ConnectionReset,
            ) => {
                let status = self.wait(END_LIMIT);
                self.kill();
                let printed = self.printed();
                VmError::Ended {
                    during,
                    status: ending(status, &printed.console),
                    printed,
                }
            }
            _ => {
                self.kill();
                VmError::Message {
                    during,
                    source: error,
                    printed: self.printed(),
                }
            }
        }
    }

    /// Ends QEMU and takes its exit status, so that no zombie stays.
    fn kill(&mut self) {
        self.off = true;
        // Both fail only if the process is gone, which is what they are for.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        // The readers see the end of their streams now; give them the moment that it takes.
        self.console.finish();
        self.diagnostics.finish();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pair() -> Result<(UnixStream, UnixStream), VmError> {
    UnixStream::pair().map_err(|source| VmError::Start {
        program: "a connection to QEMU",
        source,
    })
}

/// How a machine ended, in words.
fn ending(status: Option<std::process::ExitStatus>, console: &str) -> String {
    let panic = console
        .lines()
        .find_map(|line| line.split_once("Kernel panic - not syncing: "));
    match (panic, status) {
        (Some((_, reason)), _) => format!("kernel panic: {}", reason.trim()),
        (None, Some(status)) if status.success() => "the guest turned itself off".to_owned(),
        (None, Some(status)) => format!("QEMU: {status}"),
        (None, None) => "QEMU closed its connections".to_owned(),
    }
}

const fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Hello => "the greeting",
        Request::Symbols => "the reading of the kernel's symbols",
        Request::Load(_) => "the load of an object",
        Request::Unload { .. } => "the unloading of an object",
        Request::TestRun(_) => "a test run",
        Request::Exec(_) => "a command",
        Request::WriteFile { .. } => "the writing of a file",
        Request::ReadFile { .. } => "the reading of a file",
        Request::KernelLog => "the reading of the kernel's log",
        Request::PowerOff => "power-off",
    }
}

fn reply_name(reply: &Reply) -> &str {
    match reply {
        Reply::Hello(_) => "its greeting",
        Reply::Symbols(_) => "the kernel's symbols",
        Reply::Processed(_) => "how far a load is",
        Reply::Load(_) => "a verdict",
        Reply::FixedLimits(_) => "the kernel's limits",
        Reply::TestRun(_) => "a test run's result",
        Reply::Exec(_) => "a command's result",
        Reply::File(_) => "a file",
        Reply::KernelLog(_) => "the kernel's log",
        Reply::Done => "success",
        Reply::Failed { message, .. } => message,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_panic_is_told_before_the_status() {
        let console =
            "[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0b\n";
        assert_eq!(
            ending(Some(ExitStatus::from_raw(0)), console),
            "kernel panic: Attempted to kill init! exitcode=0x0b"
        );
        assert_eq!(
            ending(Some(ExitStatus::from_raw(0)), "all is well"),
            "the guest turned itself off"
        );
        assert_eq!(
            ending(Some(ExitStatus::from_raw(6)), ""),
            "QEMU: signal: 6 (SIGABRT)"
        );
    }
}
