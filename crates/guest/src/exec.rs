//! Runs commands.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use preverify_protocol::{ExecReply, ExecRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::AgentError;

/// The most that is kept of each stream; what follows is read and dropped, so that the command
/// does not hang.
const STREAM_LIMIT: usize = 32 << 20;

const READ_SIZE: usize = 64 << 10;

/// What the kernel keeps in a pipe.
const PIPE_SIZE: usize = 64 << 10;

/// How often to look whether the command has ended although its streams are open: a process that
/// it left behind may hold them.
const TICK: Duration = Duration::from_millis(50);

/// Where commands in the background leave what they write: `<process id>.stdout` and `.stderr`.
const BACKGROUND_FOLDER: &str = "/run/exec";

/// Runs one command.
pub fn exec(request: ExecRequest) -> Result<ExecReply, AgentError> {
    let (program, arguments) = request
        .command
        .split_first()
        .ok_or(AgentError::EmptyCommand)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(&request.environment)
        // So that what it started ends with it at its time limit.
        .process_group(0);
    if request.background {
        run_in_background(command, program)
    } else {
        let limit = Duration::from_secs(request.time_limit.into());
        run_to_end(command, program, request.stdin, limit)
    }
}

fn run_in_background(mut command: Command, program: &str) -> Result<ExecReply, AgentError> {
    fs::create_dir_all(BACKGROUND_FOLDER).map_err(AgentError::file("create", BACKGROUND_FOLDER))?;
    // The process id that names the files is known only after they were given to the process.
    let starting = |stream: &str| format!("{BACKGROUND_FOLDER}/starting.{stream}");
    let create = |stream| {
        let path = starting(stream);
        File::create(&path).map_err(AgentError::file("create", path))
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(create("stdout")?)
        .stderr(create("stderr")?)
        .spawn()
        .map_err(AgentError::file("run", program))?;
    for stream in ["stdout", "stderr"] {
        let path = format!("{BACKGROUND_FOLDER}/{}.{stream}", child.id());
        fs::rename(starting(stream), &path).map_err(AgentError::file("create", path))?;
    }
    Ok(ExecReply {
        status: i32::try_from(child.id()).unwrap_or(i32::MAX),
        stdout: Vec::new(),
        stderr: Vec::new(),
        timed_out: false,
    })
}

fn run_to_end(
    mut command: Command,
    program: &str,
    stdin: Vec<u8>,
    limit: Duration,
) -> Result<ExecReply, AgentError> {
    let deadline = Instant::now() + limit;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(AgentError::file("run", program))?;
    let mut streams = Streams::take(&mut child, stdin)
        .map_err(AgentError::system("prepare a command's streams"))?;
    let mut timed_out = false;
    let status = loop {
        let open = streams
            .transfer(TICK)
            .map_err(AgentError::system("transfer a command's streams"))?;
        let ended = if open {
            child.try_wait()
        } else {
            wait_until(&mut child, deadline)
        };
        if let Some(status) = ended.map_err(AgentError::file("wait for", program))? {
            break status;
        }
        if Instant::now() >= deadline {
            timed_out = true;
            kill_group(&child);
            break child
                .wait()
                .map_err(AgentError::file("wait for", program))?;
        }
    };
    // What it wrote before it ended is in the pipes; processes that it left behind may write on.
    for _ in 0..PIPE_SIZE / READ_SIZE + 1 {
        streams
            .transfer(Duration::ZERO)
            .map_err(AgentError::system("transfer a command's streams"))?;
    }
    Ok(ExecReply {
        status: exit_code(status),
        stdout: streams.stdout.kept,
        stderr: streams.stderr.kept,
        timed_out,
    })
}

/// A command that closed its streams may still run.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            ended => return Ok(ended),
        }
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// The three streams of a command; all move at once, so that neither side waits for the other.
struct Streams {
    stdin: Option<std::process::ChildStdin>,
    input: Vec<u8>,
    written: usize,
    stdout: Captured<std::process::ChildStdout>,
    stderr: Captured<std::process::ChildStderr>,
}

impl Streams {
    fn take(child: &mut Child, input: Vec<u8>) -> io::Result<Self> {
        let streams = Self {
            stdin: child.stdin.take(),
            input,
            written: 0,
            stdout: Captured::new(child.stdout.take()),
            stderr: Captured::new(child.stderr.take()),
        };
        if let Some(stdin) = &streams.stdin {
            set_nonblocking(stdin.as_fd())?;
        }
        if let Some(stdout) = &streams.stdout.pipe {
            set_nonblocking(stdout.as_fd())?;
        }
        if let Some(stderr) = &streams.stderr.pipe {
            set_nonblocking(stderr.as_fd())?;
        }
        Ok(streams)
    }

    /// Waits until something can move, and moves it. `false` when all streams have ended.
    fn transfer(&mut self, limit: Duration) -> io::Result<bool> {
        if self.written == self.input.len() {
            self.stdin = None;
        }
        {
            let mut fds = Vec::new();
            if let Some(stdin) = &self.stdin {
                fds.push(PollFd::new(stdin, PollFlags::OUT));
            }
            if let Some(stdout) = &self.stdout.pipe {
                fds.push(PollFd::new(stdout, PollFlags::IN));
            }
            if let Some(stderr) = &self.stderr.pipe {
                fds.push(PollFd::new(stderr, PollFlags::IN));
            }
            if fds.is_empty() {
                return Ok(false);
            }
            let limit = Timespec {
                tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: limit.subsec_nanos().into(),
            };
            match poll(&mut fds, Some(&limit)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.write()?;
        self.stdout.read()?;
        self.stderr.read()?;
        Ok(true)
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        match stdin.write(&self.input[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Not every command reads its input to the end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

struct Captured<P> {
    pipe: Option<P>,
    kept: Vec<u8>,
}

impl<P: Read> Captured<P> {
    fn new(pipe: Option<P>) -> Self {
        Self {
            pipe,
            kept: Vec::new(),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut buffer = [0; READ_SIZE];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let room = STREAM_LIMIT - self.kept.len();
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ExecRequest {
        ExecRequest {
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            time_limit: 30,
            ..ExecRequest::default()
        }
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let reply = exec(shell("echo out; echo err >&2; exit 7")).unwrap();
        assert_eq!(reply.status, 7);
        assert_eq!(reply.stdout, b"out\n");
        assert_eq!(reply.stderr, b"err\n");
        assert!(!reply.timed_out);
    }

    #[test]
    fn more_input_than_a_pipe_holds_goes_through() {
        let stdin = b"0123456789abcdef".repeat(1 << 16);
        let reply = exec(ExecRequest {
            stdin: stdin.clone(),
            ..shell("cat")
        })
        .unwrap();
        assert_eq!(reply.stdout, stdin);
    }

    #[test]
    fn a_command_that_ignores_its_input_is_no_failure() {
        let reply = exec(ExecRequest {
            stdin: vec![0; 1 << 20],
            ..shell("exit 0")
        })
        .unwrap();
        assert_eq!(reply.status, 0);
    }

    #[test]
    fn environment_variables_arrive() {
        let mut request = shell("printf %s \"$ANSWER\"");
        request.environment.insert("ANSWER".into(), "42".into());
        assert_eq!(exec(request).unwrap().stdout, b"42");
    }

    #[test]
    fn the_time_limit_ends_the_command_and_what_it_started() {
        let start = Instant::now();
        let reply = exec(ExecRequest {
            time_limit: 1,
            ..shell("echo before; sleep 60 & sleep 60")
        })
        .unwrap();
        assert!(reply.timed_out);
        assert_eq!(reply.status, 128 + 9);
        assert_eq!(reply.stdout, b"before\n");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_answer_back() {
        let start = Instant::now();
        let reply = exec(shell("sleep 20 & echo done")).unwrap();
        assert_eq!(reply.stdout, b"done\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = exec(ExecRequest {
            command: vec!["/no/such/program".into()],
            ..ExecRequest::default()
        })
        .unwrap_err();
        assert_eq!(error.errno(), libc::ENOENT);
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
