//! `events`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use preverify_abi::kinds::MapType;
use preverify_device::events::{PerfBuffer, PerfEvent, RingBuffer};
use preverify_device::hexadecimal;

use super::{CommandError, map_error, open_map};
use crate::arguments::Events;
use crate::json;

/// Shows events as they come.
pub fn events(arguments: &Events, out: &mut dyn Write) -> Result<(), CommandError> {
    let path = &arguments.path;
    let map = open_map(path)?;
    let kind = MapType(map.info().map_type);
    let mut source = match kind {
        MapType::RINGBUF => RingBuffer::open(map.as_fd()).map(Source::Ring),
        MapType::PERF_EVENT_ARRAY => PerfBuffer::open(map.as_fd()).map(Source::Perf),
        _ => {
            return Err(CommandError::NoContents {
                path: path.clone(),
                kind,
                why: "sends no events: `preverify-load map dump` shows its contents",
            });
        }
    }
    .map_err(map_error("read", path))?;
    let end = arguments.timeout.map(|timeout| Instant::now() + timeout);
    let mut printer = Printer {
        out,
        json: arguments.json,
        count: 0,
        wanted: arguments.count.unwrap_or(u64::MAX),
        failure: None,
    };
    while printer.more() {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        source
            .poll(left, &mut printer)
            .map_err(map_error("read", path))?;
        printer.flush()?;
    }
    match arguments.count {
        Some(expected) if printer.count < expected => Err(CommandError::TooFewEvents {
            path: path.clone(),
            expected,
            found: printer.count,
            seconds: arguments.timeout.unwrap_or_default().as_secs(),
        }),
        _ => Ok(()),
    }
}

enum Source {
    Ring(RingBuffer),
    Perf(PerfBuffer),
}

impl Source {
    fn poll(&mut self, limit: Option<Duration>, printer: &mut Printer<'_>) -> io::Result<usize> {
        match self {
            Self::Ring(ring) => ring.poll(limit, |bytes| printer.event(None, bytes)),
            Self::Perf(perf) => perf.poll(limit, |event| match event {
                PerfEvent::Sample { cpu, bytes } => printer.event(Some(cpu), bytes),
                PerfEvent::Lost { cpu, count } => printer.lost(cpu, count),
            }),
        }
    }
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
    count: u64,
    wanted: u64,
    /// The output does not take any more.
    failure: Option<io::Error>,
}

impl Printer<'_> {
    fn more(&self) -> bool {
        self.failure.is_none() && self.count < self.wanted
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    /// Returns whether more are wanted, as the next.
    fn event(&mut self, cpu: Option<u32>, bytes: &[u8]) -> bool {
        self.count += 1;
        let text = if self.json {
            event_as_json(cpu, bytes)
        } else {
            event_as_text(self.count, cpu, bytes)
        };
        self.line(&text)
    }

    fn lost(&mut self, cpu: u32, count: u64) -> bool {
        let text = if self.json {
            json::Object::default()
                .number("cpu", cpu)
                .number("lost", count)
                .finish()
        } else {
            format!("cpu {cpu}: lost {count} events: the buffer was full")
        };
        self.line(&text)
    }

    fn line(&mut self, text: &str) -> bool {
        self.failure = writeln!(self.out, "{text}").err();
        self.more()
    }
}

fn event_as_json(cpu: Option<u32>, bytes: &[u8]) -> String {
    let mut object = json::Object::default();
    if let Some(cpu) = cpu {
        object = object.number("cpu", cpu);
    }
    object.text("bytes", &hexadecimal(bytes)).finish()
}

/// A heading, and lines of sixteen bytes in hexadecimal and in letters.
fn event_as_text(number: u64, cpu: Option<u32>, bytes: &[u8]) -> String {
    let cpu = cpu.map_or_else(String::new, |cpu| format!(", cpu {cpu}"));
    let mut text = format!("event {number}{cpu}, {} bytes", bytes.len());
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let hexadecimal: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String = chunk
            .iter()
            .map(|&byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '.',
            })
            .collect();
        text.push_str(&format!(
            "\n  {:04x}  {:47}  {letters}",
            16 * line,
            hexadecimal.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(out: &mut Vec<u8>, json: bool, wanted: u64) -> Printer<'_> {
        Printer {
            out,
            json,
            count: 0,
            wanted,
            failure: None,
        }
    }

    #[test]
    fn events_in_hexadecimal_and_letters() {
        assert_eq!(
            event_as_text(2, Some(1), b"cat\0\xff and a mouse"),
            "event 2, cpu 1, 17 bytes\n\
             \x20 0000  63 61 74 00 ff 20 61 6e 64 20 61 20 6d 6f 75 73  cat.. and a mous\n\
             \x20 0010  65                                               e"
        );
        assert_eq!(event_as_text(1, None, b""), "event 1, 0 bytes");
    }

    #[test]
    fn one_object_a_line() {
        let mut out = Vec::new();
        let mut printer = printer(&mut out, true, 9);
        assert!(printer.event(None, b"ab"));
        assert!(printer.event(Some(3), b""));
        assert!(printer.lost(3, 5));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"bytes\":\"6162\"}\n{\"cpu\":3,\"bytes\":\"\"}\n{\"cpu\":3,\"lost\":5}\n"
        );
    }

    #[test]
    fn it_ends_after_so_many() {
        let mut out = Vec::new();
        let mut printer = printer(&mut out, false, 2);
        assert!(printer.event(None, b""));
        assert!(printer.lost(0, 1));
        assert!(!printer.event(None, b""));
    }
}
