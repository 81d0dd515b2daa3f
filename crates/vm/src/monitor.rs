//! The few commands of QEMU's monitor protocol (QMP) that machines need.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::timed::Timed;

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: UnixStream,
    /// Bytes that came after the last line.
    rest: Vec<u8>,
}

/// What can go wrong with a command.
#[derive(Debug)]
pub(crate) enum MonitorError {
    /// QEMU is gone, or did not answer in time.
    Stream(io::Error),
    /// QEMU refused.
    Refused { command: String, message: String },
}

impl From<io::Error> for MonitorError {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

/// The largest line that QEMU may send.
const MAX_LINE: usize = 1 << 20;

impl Monitor {
    /// Takes over the connection: reads the greeting, leaves the negotiation.
    pub(crate) fn connect(stream: UnixStream, deadline: Instant) -> Result<Self, MonitorError> {
        let mut monitor = Self {
            stream,
            rest: Vec::new(),
        };
        let greeting = monitor.receive(deadline)?;
        if greeting.get("QMP").is_none() {
            return Err(MonitorError::Stream(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("expected the greeting of QEMU's monitor, found {greeting}"),
            )));
        }
        monitor.execute("qmp_capabilities", json!({}), deadline)?;
        Ok(monitor)
    }

    /// Gives QEMU an open file, which later commands call `name`.
    pub(crate) fn give_file(
        &mut self,
        name: &str,
        file: &File,
        deadline: Instant,
    ) -> Result<(), MonitorError> {
        let message = json!({ "execute": "getfd", "arguments": { "fdname": name } });
        let message = format!("{message}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut files = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        assert!(
            files.push(SendAncillaryMessage::ScmRights(&descriptors)),
            "the buffer has room for one descriptor"
        );
        let sent = retry_on_intr(|| {
            let message = [IoSlice::new(message.as_bytes())];
            sendmsg(&self.stream, &message, &mut files, SendFlags::empty())
        })
        .map_err(io::Error::from)?;
        Timed {
            stream: &self.stream,
            deadline,
        }
        .write_all(&message.as_bytes()[sent..])?;
        self.answer("getfd", deadline)?;
        Ok(())
    }

    /// Runs a command and returns what it returns.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<Value, MonitorError> {
        let message = json!({ "execute": command, "arguments": arguments });
        let mut timed = Timed {
            stream: &self.stream,
            deadline,
        };
        timed.write_all(format!("{message}\n").as_bytes())?;
        self.answer(command, deadline)
    }

    fn answer(&mut self, command: &str, deadline: Instant) -> Result<Value, MonitorError> {
        // Events come between the answers; nothing here depends on them.
        loop {
            let mut answer = self.receive(deadline)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let description = error.get("desc").and_then(Value::as_str);
                return Err(MonitorError::Refused {
                    command: command.to_owned(),
                    message: description.map_or_else(|| error.to_string(), str::to_owned),
                });
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Value> {
        let line = self.line(deadline)?;
        serde_json::from_slice(&line).map_err(|error| {
            let line = String::from_utf8_lossy(&line);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("QEMU's monitor sent {line:?}: {error}"),
            )
        })
    }

    fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.rest[searched..].iter().position(|&byte| byte == b'\n') {
                let next = self.rest.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.rest, next));
            }
            searched = self.rest.len();
            if searched > MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("QEMU's monitor sent a line of more than {MAX_LINE} bytes"),
                ));
            }
            let mut buffer = [0; 4096];
            let count = Timed {
                stream: &self.stream,
                deadline,
            }
            .read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.rest.extend_from_slice(&buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22}}, "capabilities": []}}"#;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// A QEMU that greets and gives one scripted answer to each command.
    fn qemu(greeting: &str, answers: &[&str]) -> (UnixStream, thread::JoinHandle<Vec<Value>>) {
        let (near, mut far) = UnixStream::pair().unwrap();
        let greeting = greeting.to_owned();
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let commands = thread::spawn(move || {
            far.write_all(format!("{greeting}\r\n").as_bytes()).unwrap();
            let mut lines = BufReader::new(far.try_clone().unwrap()).lines();
            let mut commands = Vec::new();
            for answer in answers {
                commands.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
                // In two pieces, so that a line is put together again.
                let (one, two) = answer.split_at(answer.len() / 2);
                far.write_all(one.as_bytes()).unwrap();
                far.write_all(format!("{two}\r\n").as_bytes()).unwrap();
            }
            commands
        });
        (near, commands)
    }

    #[test]
    fn answers_are_found_between_events() {
        let (stream, commands) = qemu(
            GREETING,
            &[
                r#"{"return": {}}"#,
                "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1}}\r\n{\"return\": {\"status\": \"completed\"}}",
            ],
        );
        let mut monitor = Monitor::connect(stream, soon()).unwrap();
        let answer = monitor
            .execute("migrate", json!({"uri": "fd:6"}), soon())
            .unwrap();
        assert_eq!(answer, json!({"status": "completed"}));
        assert_eq!(
            commands.join().unwrap(),
            [
                json!({"execute": "qmp_capabilities", "arguments": {}}),
                json!({"execute": "migrate", "arguments": {"uri": "fd:6"}}),
            ]
        );
    }

    #[test]
    fn a_refusal_says_what_was_refused() {
        let (stream, commands) = qemu(
            GREETING,
            &[
                r#"{"return": {}}"#,
                r#"{"error": {"class": "GenericError", "desc": "no such thing"}}"#,
            ],
        );
        let mut monitor = Monitor::connect(stream, soon()).unwrap();
        match monitor.execute("frobnicate", json!({}), soon()) {
            Err(MonitorError::Refused { command, message }) => {
                assert_eq!(
                    (command.as_str(), message.as_str()),
                    ("frobnicate", "no such thing")
                );
            }
            other => panic!("{other:?}"),
        }
        commands.join().unwrap();
    }

    #[test]
    fn nonsense_silence_and_a_closed_connection_are_errors() {
        let kind = |result| match result {
            Err(MonitorError::Stream(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        for greeting in ["nonsense", r#"{"return": {}}"#] {
            let (stream, _) = qemu(greeting, &[]);
            assert_eq!(
                kind(Monitor::connect(stream, soon())),
                io::ErrorKind::InvalidData
            );
        }
        let (near, far) = UnixStream::pair().unwrap();
        let start = Instant::now() + Duration::from_millis(30);
        let silent = near.try_clone().unwrap();
        assert_eq!(
            kind(Monitor::connect(silent, start)),
            io::ErrorKind::TimedOut
        );
        drop(far);
        assert_eq!(
            kind(Monitor::connect(near, soon())),
            io::ErrorKind::UnexpectedEof
        );
    }
}
