//! A device in a virtual machine: the target's kernel with the kernel part in its device role, and the loader.

use std::time::Duration;

use preverify_probe::{Answer, Case};
use preverify_protocol::frame::{self, FrameError};
use preverify_protocol::{
    ExecReply, ExecRequest, LoadReply, LoadRequest, ProgramRef, Reply, Request, TestRunReply,
    TestRunRequest,
};
use preverify_vm::{Machine, VmError};

/// Where the loader lies.
pub const LOADER: &str = "/bin/preverify-load";
/// Where the probe lies.
pub const PROBE: &str = "/bin/preverify-probe";
/// Where busybox lies.
pub const BUSYBOX: &str = "/bin/busybox";
/// How long thousands of questions may take on an emulated device.
const PROBE_LIMIT: Duration = Duration::from_secs(900);
/// How long a command may take on an emulated device.
const LIMIT: Duration = Duration::from_secs(120);
/// What no healthy kernel writes into its log.
const ALARMS: [&str; 14] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "unable to handle",
    "Call Trace",
    "invalid opcode",
    "refcount_t",
    "list_add corruption",
    "list_del corruption",
    "scheduling while atomic",
    "rcu_sched self-detected stall",
    "INFO: task",
    "memory leak",
];

/// A running device.
pub struct Device {
    machine: Machine,
}

/// What a device did not do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The machine failed.
    #[error(transparent)]
    Machine(#[from] VmError),
    /// The agent could not do something.
    #[error("the agent failed: {0}")]
    Agent(String),
    /// A command failed.
    #[error("`{command}` ended with {status}:\n{output}")]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: i32,
        /// What it wrote, errors last.
        output: String,
    },
    /// Questions or answers cannot be read.
    #[error("the probe's questions or answers: {0}")]
    Probe(#[from] FrameError),
    /// The loader did not show a map as it says it does.
    #[error("the dump of {path} cannot be read:\n{text}")]
    Dump {
        /// Where the map is pinned.
        path: String,
        /// The dump.
        text: String,
    },
    /// The kernel complained.
    #[error("the device's kernel complains:\n{0}")]
    Unhealthy(String),
}

impl Device {
    /// A device that has booted.
    pub fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// Runs a command to its end, whatever that is.
    pub fn try_run(&mut self, command: &[&str]) -> Result<ExecReply, DeviceError> {
        self.exec(command, false, LIMIT)
    }

    /// Runs a command that must succeed; returns what it wrote.
    pub fn run(&mut self, command: &[&str]) -> Result<String, DeviceError> {
        self.run_within(command, LIMIT)
    }

    /// Runs a command that must succeed within a time of its own; returns what it wrote.
    pub fn run_within(&mut self, command: &[&str], limit: Duration) -> Result<String, DeviceError> {
        let reply = self.exec(command, false, limit)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if reply.status == 0 && !reply.timed_out {
            return Ok(text(&reply.stdout));
        }
        Err(DeviceError::Command {
            command: command.join(" "),
            status: reply.status,
            output: text(&reply.stdout) + &text(&reply.stderr),
        })
    }

    /// Starts a command and leaves it running; returns its process id.
    pub fn start(&mut self, command: &[&str]) -> Result<i32, DeviceError> {
        Ok(self.exec(command, true, LIMIT)?.status)
    }

    /// Writes a file, executable for those that are programs.
    pub fn put(&mut self, path: &str, mode: u32, contents: Vec<u8>) -> Result<(), DeviceError> {
        let path = path.to_owned();
        let request = Request::WriteFile {
            path,
            mode,
            contents,
        };
        self.request(&request).map(drop)
    }

    /// Reads a file.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, DeviceError> {
        let path = path.to_owned();
        match self.request(&Request::ReadFile { path })? {
            Reply::File(contents) => Ok(contents),
            other => Err(unexpected("a file", &other)),
        }
    }

    /// The kernel's symbols with their addresses.
    pub fn symbols(&mut self) -> Result<String, DeviceError> {
        match self.request(&Request::Symbols)? {
            Reply::Symbols(text) => Ok(text),
            other => Err(unexpected("symbols", &other)),
        }
    }

    /// Loads an object as ever: by libbpf, with verification on the device.
    pub fn load_stock(&mut self, request: LoadRequest) -> Result<LoadReply, DeviceError> {
        let limit = LIMIT + Duration::from_secs(request.time_limit.into());
        match self.request_within(&Request::Load(request), limit)? {
            Reply::Load(reply) => Ok(reply),
            other => Err(unexpected("a verdict", &other)),
        }
    }

    /// Closes what [`Device::load_stock`] loaded.
    pub fn unload_stock(&mut self, handle: u32) -> Result<(), DeviceError> {
        self.request(&Request::Unload { handle }).map(drop)
    }

    /// Runs a program once.
    pub fn test_run(&mut self, request: TestRunRequest) -> Result<TestRunReply, DeviceError> {
        match self.request(&Request::TestRun(request))? {
            Reply::TestRun(reply) => Ok(reply),
            other => Err(unexpected("a test run's result", &other)),
        }
    }

    /// The kernel's log, if nothing in it is alarming.
    pub fn healthy_log(&mut self) -> Result<String, DeviceError> {
        let log = match self.request(&Request::KernelLog)? {
            Reply::KernelLog(log) => log,
            other => return Err(unexpected("the kernel's log", &other)),
        };
        let alarms: Vec<_> = log
            .lines()
            .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
            .collect();
        if alarms.is_empty() {
            Ok(log)
        } else {
            Err(DeviceError::Unhealthy(alarms.join("\n")))
        }
    }

    /// One line of `/proc/meminfo`, in KiB.
    pub fn memory(&mut self, name: &str) -> Result<u64, DeviceError> {
        let text = self.get("/proc/meminfo")?;
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .ok_or_else(|| DeviceError::Agent(format!("/proc/meminfo has no line {name}")))
    }

    /// Figures of the kernel's own memory, in KiB, after what is freed late has been freed. [`BUSYBOX`] must be
    /// there.
    pub fn settled_memory(&mut self) -> Result<Vec<(&'static str, u64)>, DeviceError> {
        self.run(&[BUSYBOX, "sleep", "3"])?;
        let drop_caches = "echo 3 > /proc/sys/vm/drop_caches";
        self.run(&[BUSYBOX, "sh", "-c", drop_caches])?;
        self.run(&[BUSYBOX, "sleep", "1"])?;
        ["SUnreclaim", "Percpu", "VmallocUsed", "KernelStack"]
            .into_iter()
            .map(|name| Ok((name, self.memory(name)?)))
            .collect()
    }

    /// Asks the kernel part what no loader would ask. [`crate::PROBE`] must be there.
    pub fn probe(&mut self, cases: &[Case]) -> Result<Vec<Answer>, DeviceError> {
        const CASES: &str = "/tmp/cases";
        const ANSWERS: &str = "/tmp/answers";
        let mut text = Vec::new();
        frame::send(&mut text, &cases)?;
        self.put(CASES, 0o600, text)?;
        self.run_within(&[PROBE, CASES, ANSWERS], PROBE_LIMIT)?;
        let text = self.get(ANSWERS)?;
        Ok(frame::receive(&mut text.as_slice())?)
    }

    /// Turns it off.
    pub fn power_off(self) -> Result<(), DeviceError> {
        Ok(self.machine.power_off(LIMIT)?)
    }

    fn exec(
        &mut self,
        command: &[&str],
        background: bool,
        limit: Duration,
    ) -> Result<ExecReply, DeviceError> {
        let request = Request::Exec(ExecRequest {
            command: command.iter().map(ToString::to_string).collect(),
            time_limit: u32::try_from(limit.as_secs()).unwrap_or(u32::MAX),
            background,
            ..ExecRequest::default()
        });
        match self.request_within(&request, limit + LIMIT)? {
            Reply::Exec(reply) => Ok(reply),
            other => Err(unexpected("a command's result", &other)),
        }
    }

    fn request(&mut self, request: &Request) -> Result<Reply, DeviceError> {
        self.request_within(request, LIMIT)
    }

    fn request_within(&mut self, request: &Request, limit: Duration) -> Result<Reply, DeviceError> {
        match self.machine.request(request, limit)? {
            Reply::Failed { message, .. } => Err(DeviceError::Agent(message)),
            reply => Ok(reply),
        }
    }
}

/// A program that is pinned.
pub fn pinned(path: &str) -> ProgramRef {
    ProgramRef::Pinned(path.to_owned())
}

/// Has a pinned program run on a packet, so many times.
pub fn on_packet(path: &str, packet: &[u8], repeat: u32) -> TestRunRequest {
    TestRunRequest {
        program: pinned(path),
        data_in: Some(packet.to_vec()),
        context_in: None,
        repeat,
        flags: 0,
        data_out_size: u32::try_from(packet.len()).unwrap_or(u32::MAX),
    }
}

fn unexpected(expected: &'static str, found: &Reply) -> DeviceError {
    let found = format!("{found:?}").chars().take(80).collect();
    VmError::Answer { expected, found }.into()
}
