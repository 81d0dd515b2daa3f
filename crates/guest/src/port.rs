//! The virtio-serial port to the host.
//!
//! The host comes and goes: it disconnects when a snapshot was taken, and another one connects to
//! the machine restored from it. A port without a host reads as ended and would block a writer
//! until the next host comes, which would then find the rest of an answer that was not meant for
//! it. So the port is non-blocking, and every operation ends when the host is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::Duration;

use preverify_protocol::PORT_PATH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::AgentError;

/// How long to sleep while there is no host, or no port yet.
const PAUSE: Duration = Duration::from_millis(10);

/// The open port.
pub struct Port {
    file: File,
}

impl Port {
    /// Waits for the port to appear, and opens it.
    pub fn open() -> Result<Self, AgentError> {
        loop {
            match OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(PORT_PATH)
            {
                Ok(file) => return Ok(Self { file }),
                Err(error) if is_not_yet(&error) => sleep(PAUSE),
                Err(error) => return Err(AgentError::file("open", PORT_PATH)(error)),
            }
        }
    }

    /// Waits for a request, but no longer than this. `true` if one comes.
    pub fn wait_for_request(&self, limit: &Timespec) -> Result<bool, AgentError> {
        let ready = self
            .poll(PollFlags::IN, Some(limit))
            .map_err(AgentError::system("wait for the host"))?;
        if ready.contains(PollFlags::HUP) {
            sleep(PAUSE);
            // What the last host has sent is still there, but nobody waits for the answer.
            return Ok(false);
        }
        Ok(ready.contains(PollFlags::IN))
    }

    /// Throws away what comes until nothing more comes: the way to the start of a message after
    /// bytes that were none.
    pub fn drain(&mut self) -> io::Result<()> {
        let quiet = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut rest = [0; 4096];
        while self.poll(PollFlags::IN, Some(&quiet))? == PollFlags::IN {
            if self.read(&mut rest)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn poll(&self, events: PollFlags, limit: Option<&Timespec>) -> Result<PollFlags, Errno> {
        let mut fds = [PollFd::new(&self.file, events)];
        match poll(&mut fds, limit) {
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(errno),
            Ok(_) => Ok(fds[0].revents()),
        }
    }
}

/// The device's file appears a moment before the device answers.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENXIO))
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.poll(PollFlags::IN, None)?;
                }
                result => return result,
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.poll(PollFlags::OUT, None)?.contains(PollFlags::HUP) {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
