//! Objects live in processes of their own, one each: a verification that does not end can be
//! killed, libbpf may crash, and when a process ends, the kernel frees all that it loaded.
//!
//! Such a process is this same executable. Its standard input is the connection to the first
//! process, its standard error a file with what libbpf says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use preverify_protocol::frame::{self, FrameError};
use preverify_protocol::{LoadReply, LoadRequest, Rejection, TestRunReply, TestRunRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::libbpf::{Object, Program};
use crate::load::{Messages, load};
use crate::test_run::test_run;

/// The argument that makes this executable a holder.
pub const HOLD: &str = "hold";

const EXECUTABLE: &str = "/proc/self/exe";

/// How long a killed process may take to end: verification ends at its next instruction, but the
/// kernel may have much to free.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How much of libbpf's messages is told of a process that ended by itself.
const LAST_WORDS: u64 = 4096;

/// How long something may take, and until when that is.
#[derive(Clone, Copy)]
struct TimeLimit {
    limit: Duration,
    deadline: Instant,
}

impl TimeLimit {
    fn from_now(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
        }
    }
}

/// What a holder does.
#[derive(Serialize, Deserialize)]
enum Order {
    Load {
        handle: u32,
        request: LoadRequest,
    },
    TestRun {
        function: String,
        request: TestRunRequest,
    },
}

/// What a holder answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// The object is rejected; the full log follows with the answer, if time permits.
    RejectedSoFar(Rejection),
    Load(LoadReply),
    TestRun(TestRunReply),
    Failed {
        message: String,
        errno: i32,
    },
}

/// All holders.
#[derive(Default)]
pub struct Holders {
    holders: BTreeMap<u32, Holder>,
    last_handle: u32,
}

impl Holders {
    /// Loads an object in a new process, which stays if it is accepted.
    pub fn load(&mut self, request: LoadRequest) -> Result<LoadReply, AgentError> {
        let limit = TimeLimit::from_now(Duration::from_secs(request.time_limit.into()));
        self.last_handle += 1;
        let handle = self.last_handle;
        let mut holder = Holder::start()?;
        let reply = holder.load(&Order::Load { handle, request }, limit);
        match reply {
            Ok(LoadReply::Accepted(_)) => {
                self.holders.insert(handle, holder);
            }
            _ => holder.end(),
        }
        reply
    }

    /// Ends the process that holds an object.
    pub fn unload(&mut self, handle: u32) -> Result<(), AgentError> {
        self.holders
            .remove(&handle)
            .ok_or(AgentError::NoObject { handle })
            .map(|mut holder| holder.end())
    }

    /// Runs a program of a held object.
    pub fn test_run(
        &mut self,
        handle: u32,
        function: String,
        request: TestRunRequest,
    ) -> Result<TestRunReply, AgentError> {
        let during = "a test run";
        let holder = self
            .holders
            .get_mut(&handle)
            .ok_or(AgentError::NoObject { handle })?;
        match holder.ask(&Order::TestRun { function, request }, during, None)? {
            Answer::TestRun(reply) => Ok(reply),
            other => Err(other.unexpected(during)),
        }
    }

    /// Takes the exit status of every process that ended: what loses its parent becomes a child
    /// of the first process.
    pub fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let ended = self.holders.values_mut().find(|holder| {
                i64::from(holder.child.id()) == i64::from(pid.as_raw_nonzero().get())
            });
            if let Some(holder) = ended {
                holder.ended = Some(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }
}

/// A process that holds an object.
struct Holder {
    child: Child,
    /// Set once its exit status was taken; from then on its process id may be another's.
    ended: Option<ExitStatus>,
    connection: UnixStream,
    messages: File,
}

impl Holder {
    fn start() -> Result<Self, AgentError> {
        let action = "start a process for an object";
        let (connection, other) = UnixStream::pair().map_err(AgentError::system(action))?;
        let messages = memfd_create(c"libbpf", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(AgentError::system(action))?;
        let stderr = messages.try_clone().map_err(AgentError::system(action))?;
        let child = Command::new(EXECUTABLE)
            .arg(HOLD)
            .stdin(OwnedFd::from(other))
            .stderr(stderr)
            .spawn()
            .map_err(AgentError::file("run", EXECUTABLE))?;
        Ok(Self {
            child,
            ended: None,
            connection,
            messages,
        })
    }

    fn load(&mut self, order: &Order, limit: TimeLimit) -> Result<LoadReply, AgentError> {
        let during = "the load";
        let mut so_far = None;
        let mut answer = self.ask(order, during, Some(limit));
        if let Ok(Answer::RejectedSoFar(rejection)) = answer {
            so_far = Some(rejection);
            answer = self.answer(during, Some(limit));
        }
        match (answer, so_far) {
            (Ok(Answer::Load(reply)), _) => Ok(reply),
            (answer, Some(mut rejection)) => {
                let why = match answer {
                    Ok(answer) => answer.unexpected(during),
                    Err(error) => error,
                };
                rejection
                    .libbpf_log
                    .push_str(&format!("the verifier's full log is missing: {why}\n"));
                Ok(LoadReply::Rejected(rejection))
            }
            (Ok(answer), None) => Err(answer.unexpected(during)),
            (Err(error), None) => Err(error),
        }
    }

    fn ask(
        &mut self,
        order: &Order,
        during: &'static str,
        limit: Option<TimeLimit>,
    ) -> Result<Answer, AgentError> {
        match frame::send(&mut self.connection, order) {
            Ok(()) => self.answer(during, limit),
            Err(error) => Err(self.failed(during, error)),
        }
    }

    fn answer(
        &mut self,
        during: &'static str,
        limit: Option<TimeLimit>,
    ) -> Result<Answer, AgentError> {
        self.wait_for_answer(during, limit)?;
        // What has begun to come comes to its end, or the process does.
        frame::receive(&mut self.connection).map_err(|error| self.failed(during, error))
    }

    fn wait_for_answer(
        &self,
        during: &'static str,
        limit: Option<TimeLimit>,
    ) -> Result<(), AgentError> {
        loop {
            let left = limit.map(|limit| {
                let left = limit.deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
            match (poll(&mut fds, left.as_ref()), limit) {
                (Ok(0), Some(TimeLimit { limit, .. })) => {
                    return Err(AgentError::TimedOut { during, limit });
                }
                (Ok(0), None) | (Err(Errno::INTR), _) => {}
                (Ok(_), _) => return Ok(()),
                (Err(errno), _) => return Err(AgentError::system("wait for an answer")(errno)),
            }
        }
    }

    /// Why the connection failed: most likely because the process ended.
    fn failed(&mut self, during: &'static str, error: FrameError) -> AgentError {
        let gone = matches!(
            &error,
            FrameError::Io(source) if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
            )
        );
        self.end();
        match (gone, self.ended) {
            (true, Some(status)) => AgentError::HolderEnded {
                during,
                status,
                messages: self.last_words(),
            },
            _ => AgentError::Holder {
                during,
                source: error,
            },
        }
    }

    fn last_words(&self) -> String {
        let read = || {
            let size = self.messages.metadata()?.len();
            let mut bytes =
                vec![0; usize::try_from(size.min(LAST_WORDS)).map_err(io::Error::other)?];
            self.messages
                .read_exact_at(&mut bytes, size.saturating_sub(LAST_WORDS))?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Kills the process, if it still runs, and waits until it has ended.
    fn end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // One that has ended keeps the status that it ended with.
        let _ = self.child.kill();
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => sleep(Duration::from_millis(1)),
                Ok(ended) => {
                    self.ended = ended;
                    return;
                }
                Err(_) => return,
            }
        }
        eprintln!(
            "preverify-agent: process {} does not end within {} s after it was killed",
            self.child.id(),
            END_LIMIT.as_secs()
        );
    }
}

impl Answer {
    fn unexpected(self, during: &'static str) -> AgentError {
        match self {
            Self::Failed { message, errno } => AgentError::Relayed { message, errno },
            Self::RejectedSoFar(_) | Self::Load(_) | Self::TestRun(_) => {
                AgentError::UnexpectedAnswer { during }
            }
        }
    }
}

impl From<AgentError> for Answer {
    fn from(error: AgentError) -> Self {
        Self::Failed {
            message: error.to_string(),
            errno: error.errno(),
        }
    }
}

/// The holder itself: carries out orders until the first process closes the connection.
pub fn hold() -> Result<(), AgentError> {
    let connection = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(AgentError::system("duplicate the connection"))?;
    let mut connection = UnixStream::from(connection);
    let mut messages = Messages::open()?;
    let mut object = None;
    loop {
        let order = match frame::receive(&mut connection) {
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(());
            }
            order => order.map_err(connection_failed)?,
        };
        let answer = match order {
            Order::Load { handle, request } => {
                let mut rejected = |rejection: &Rejection| {
                    let answer = Answer::RejectedSoFar(rejection.clone());
                    frame::send(&mut connection, &answer).map_err(connection_failed)
                };
                load(&request, handle, &mut messages, &mut rejected).map(|(reply, loaded)| {
                    object = loaded;
                    Answer::Load(reply)
                })
            }
            Order::TestRun { function, request } => {
                run(object.as_ref(), &function, &request).map(Answer::TestRun)
            }
        };
        frame::send(&mut connection, &answer.unwrap_or_else(Into::into))
            .map_err(connection_failed)?;
    }
}

fn run(
    object: Option<&Object>,
    function: &str,
    request: &TestRunRequest,
) -> Result<TestRunReply, AgentError> {
    let program = object
        .and_then(|object| {
            object
                .programs()
                .find(|program| program.function() == function)
        })
        .and_then(Program::fd)
        .ok_or_else(|| AgentError::NoProgram {
            function: function.to_owned(),
        })?;
    test_run(program, request)
}

fn connection_failed(source: FrameError) -> AgentError {
    AgentError::Holder {
        during: "an order",
        source,
    }
}
