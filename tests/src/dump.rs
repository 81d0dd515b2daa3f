//! What maps on a device hold and what programs send, as `preverify-load` tells it with `--json`.

use serde_json::Value;

use crate::device::{Device, DeviceError, LOADER};

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value, or that of each CPU.
    pub values: Vec<Vec<u8>>,
}

impl Entry {
    /// A key of four bytes.
    pub fn index(&self) -> u64 {
        number(&self.key)
    }

    /// The value, as a number; the sum over all CPUs if each has one.
    pub fn sum(&self) -> u64 {
        self.values.iter().map(|value| number(value)).sum()
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The CPU that sent it, if the buffer knows.
    pub cpu: Option<u64>,
    /// What was sent.
    pub bytes: Vec<u8>,
}

/// The events in what `preverify-load events --json` wrote; none if it is not that, or tells of lost events.
pub fn events(text: &str) -> Option<Vec<Event>> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        Some(Event {
            cpu: event.get("cpu").and_then(Value::as_u64),
            bytes: bytes(event.get("bytes")?)?,
        })
    };
    text.lines().map(event).collect()
}

/// What lies in memory at the beginning of `bytes`: a number of up to eight of them.
pub fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let size = bytes.len().min(number.len());
    number[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(number)
}

impl Device {
    /// The entries of a pinned map, as they come.
    pub fn entries(&mut self, path: &str) -> Result<Vec<Entry>, DeviceError> {
        let text = self.run(&[LOADER, "map", "dump", path, "--json"])?;
        parse(&text).ok_or(DeviceError::Dump {
            path: path.to_owned(),
            text,
        })
    }

    /// The numbers in an array, summed over CPUs.
    pub fn numbers(&mut self, path: &str) -> Result<Vec<u64>, DeviceError> {
        Ok(self.entries(path)?.iter().map(Entry::sum).collect())
    }
}

fn parse(text: &str) -> Option<Vec<Entry>> {
    let entries: Value = serde_json::from_str(text).ok()?;
    entries.as_array()?.iter().map(entry).collect()
}

fn entry(entry: &Value) -> Option<Entry> {
    let values = match (entry.get("value"), entry.get("values")) {
        (Some(value), None) => vec![bytes(value)?],
        (None, Some(values)) => {
            let values = values.as_array()?.iter();
            values
                .map(|each| bytes(each.get("value")?))
                .collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(Entry {
        key: bytes(entry.get("key")?)?,
        values,
    })
}

/// Bytes in hexadecimal digits.
fn bytes(text: &Value) -> Option<Vec<u8>> {
    let text = text.as_str()?;
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_read() {
        let entries = parse(r#"[{"key":"01000000","value":"0203"}]"#).unwrap();
        assert_eq!((entries[0].index(), entries[0].sum()), (1, 0x302));
        let each = r#"[{"key":"","values":[{"cpu":0,"value":"01"},{"cpu":1,"value":"02"}]}]"#;
        assert_eq!(parse(each).unwrap()[0].values, [[1], [2]]);
        assert_eq!(parse("[]").unwrap(), []);
        for damaged in ["", "{}", "[{}]", r#"[{"key":"0","value":"00"}]"#] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn events_are_read() {
        let text = "{\"bytes\":\"6162\"}\n{\"cpu\":3,\"bytes\":\"\"}\n";
        let found = events(text).unwrap();
        assert_eq!((found[0].cpu, &found[0].bytes[..]), (None, &b"ab"[..]));
        assert_eq!((found[1].cpu, &found[1].bytes[..]), (Some(3), &b""[..]));
        assert_eq!(events("{\"cpu\":3,\"lost\":5}\n"), None);
    }
}
