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
use preverify_protocol::{Limits, LoadReply, LoadRequest, Rejection, TestRunReply, TestRunRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::libbpf::{Object, Program};
use crate::limits::{KernelLimits, processed};
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

/// How often it is told how far a load is.
const TICK: Duration = Duration::from_secs(1);

/// How long something may take, until when that is, and what is done meanwhile.
struct Patience<'a> {
    limit: Duration,
    deadline: Instant,
    tick: &'a mut dyn FnMut(),
}

impl<'a> Patience<'a> {
    fn from_now(limit: Duration, tick: &'a mut dyn FnMut()) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
            tick,
        }
    }
}

/// What a holder does.
#[derive(Serialize, Deserialize)]
enum Order {
    Load {
        handle: u32,
        request: LoadRequest,
        /// Those that count.
        limits: Limits,
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
pub struct Holders {
    holders: BTreeMap<u32, Holder>,
    last_handle: u32,
    limits: KernelLimits,
}

impl Holders {
    /// None.
    pub fn new() -> Result<Self, AgentError> {
        Ok(Self {
            holders: BTreeMap::new(),
            last_handle: 0,
            limits: KernelLimits::read()?,
        })
    }

    /// Loads an object in a new process, which stays if it is accepted. `tell` is told now and then how many
    /// instructions the verifier has processed.
    pub fn load(
        &mut self,
        request: LoadRequest,
        tell: &mut dyn FnMut(u64),
    ) -> Result<LoadReply, AgentError> {
        let limits = self.limits.set(request.limits)?;
        let before = processed();
        let mut tick = || {
            if let (Some(before), Some(now)) = (before, processed()) {
                tell(now.saturating_sub(before));
            }
        };
        let limit = Duration::from_secs(request.time_limit.into());
        let patience = Patience::from_now(limit, &mut tick);
        self.last_handle += 1;
        let handle = self.last_handle;
        let mut holder = Holder::start()?;
        let order = Order::Load {
            handle,
            request,
            limits,
        };
        let reply = holder.load(&order, patience);
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

    fn load(&mut self, order: &Order, mut patience: Patience<'_>) -> Result<LoadReply, AgentError> {
        let during = "the load";
        let mut so_far = None;
        let mut answer = self.ask(order, during, Some(&mut patience));
        if let Ok(Answer::RejectedSoFar(rejection)) = answer {
            so_far = Some(rejection);
            answer = self.answer(during, Some(&mut patience));
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
        patience: Option<&mut Patience<'_>>,
    ) -> Result<Answer, AgentError> {
        match frame::send(&mut self.connection, order) {
            Ok(()) => self.answer(during, patience),
            Err(error) => Err(self.failed(during, error)),
        }
    }

    fn answer(
        &mut self,
        during: &'static str,
        patience: Option<&mut Patience<'_>>,
    ) -> Result<Answer, AgentError> {
        self.wait_for_answer(during, patience)?;
        // What has begun to come comes to its end, or the process does.
        frame::receive(&mut self.connection).map_err(|error| self.failed(during, error))
    }

    fn wait_for_answer(
        &self,
        during: &'static str,
        mut patience: Option<&mut Patience<'_>>,
    ) -> Result<(), AgentError> {
        loop {
            let pause = patience.as_ref().map(|patience| {
                let left = patience.deadline.saturating_duration_since(Instant::now());
                let pause = left.min(TICK);
                Timespec {
                    tv_sec: pause.as_secs().cast_signed(),
                    tv_nsec: pause.subsec_nanos().into(),
                }
            });
            let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
            match poll(&mut fds, pause.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(AgentError::system("wait for an answer")(errno)),
            }
            if let Some(patience) = &mut patience {
                (patience.tick)();
                if Instant::now() >= patience.deadline {
                    return Err(AgentError::TimedOut {
                        during,
                        limit: patience.limit,
                    });
                }
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
            Order::Load {
                handle,
                request,
                limits,
            } => {
                let mut rejected = |rejection: &Rejection| {
                    let answer = Answer::RejectedSoFar(rejection.clone());
                    frame::send(&mut connection, &answer).map_err(connection_failed)
                };
                let loaded = load(&request, handle, limits, &mut messages, &mut rejected);
                loaded.map(|(reply, loaded)| {
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
