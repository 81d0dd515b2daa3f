//! A stream that is read and written until a moment, and not a moment longer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// `stream`, until `deadline`: then every call fails with [`io::ErrorKind::TimedOut`].
pub(crate) struct Timed<'a> {
    pub(crate) stream: &'a UnixStream,
    pub(crate) deadline: Instant,
}

impl Timed<'_> {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(Some(remaining))
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.remaining()?)?;
            match self.stream.read(buffer) {
                // A process that was stopped and goes on sees that here, since the socket has a time limit.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(expired),
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.remaining()?)?;
        self.stream.write(buffer).map_err(expired)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket's time limit shows as "would block".
fn expired(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::ErrorKind::TimedOut.into()
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_at_the_deadline() {
        let (near, _far) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let mut timed = Timed {
            stream: &near,
            deadline: start + Duration::from_millis(60),
        };
        let error = timed.read_exact(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(55));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    /// Sockets with a time limit tell of that, even if nobody handles signals.
    #[test]
    fn a_process_that_is_stopped_goes_on_reading() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let stop = std::thread::spawn(move || {
            let this = std::process::id();
            let script = format!("sleep 0.2; kill -STOP {this}; sleep 0.2; kill -CONT {this}");
            let done = std::process::Command::new("sh")
                .args(["-c", &script])
                .status();
            assert!(done.unwrap().success());
            far.write_all(b"x").unwrap();
        });
        let mut byte = [0];
        let mut timed = Timed {
            stream: &near,
            deadline: Instant::now() + Duration::from_secs(30),
        };
        assert_eq!(timed.read(&mut byte).unwrap(), 1);
        stop.join().unwrap();
    }

    #[test]
    fn a_trickle_does_not_move_the_deadline() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let trickle = std::thread::spawn(move || {
            while far.write_all(b".").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut timed = Timed {
            stream: &near,
            deadline: start + Duration::from_millis(100),
        };
        let error = timed.read_exact(&mut [0; 1000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(near);
        trickle.join().unwrap();
    }

    #[test]
    fn a_reader_that_does_not_read_ends_at_the_deadline() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut timed = Timed {
            stream: &near,
            deadline: Instant::now() + Duration::from_millis(60),
        };
        let error = timed.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
