//! `map dump`.

use std::io::Write;
use std::path::Path;

use preverify_abi::kinds::MapType;
use preverify_device::hexadecimal;
use preverify_device::sys::cpus;
use preverify_device::sys::map::MapHandle;

use super::{CommandError, map_error, open_map};
use crate::json;

/// Shows a map's contents.
pub fn dump(path: &Path, json: bool, out: &mut dyn Write) -> Result<(), CommandError> {
    let map = open_map(path)?;
    let kind = MapType(map.info().map_type);
    if let Some(why) = why_not(kind) {
        return Err(CommandError::NoContents {
            path: path.to_owned(),
            kind,
            why,
        });
    }
    let cpus = if kind.is_per_cpu() {
        cpus::possible().map_err(map_error("read", path))?
    } else {
        Vec::new()
    };
    let mut objects = Vec::new();
    for entry in Entries::new(&map) {
        let (key, value) = entry.map_err(map_error("read", path))?;
        let value = Value::new(&value, &cpus, map.info().value_size as usize);
        if json {
            objects.push(value.as_json(&key));
        } else {
            writeln!(out, "{}", value.as_text(&key))?;
        }
    }
    if json {
        writeln!(out, "{}", json::array(objects))?;
    }
    Ok(())
}

/// Why maps of some types have no contents to walk through.
fn why_not(kind: MapType) -> Option<&'static str> {
    match kind {
        MapType::RINGBUF | MapType::PERF_EVENT_ARRAY => {
            Some("is read with `preverify-load events`")
        }
        MapType::USER_RINGBUF => Some("is written by user space, not read"),
        MapType::QUEUE | MapType::STACK | MapType::BLOOM_FILTER => Some("has no keys"),
        MapType::SK_STORAGE
        | MapType::INODE_STORAGE
        | MapType::TASK_STORAGE
        | MapType::CGRP_STORAGE => {
            Some("is kept with what it is about, and cannot be walked through")
        }
        MapType::ARENA => Some("is memory, not entries"),
        _ => None,
    }
}

/// All keys with their values. Entries that come and go meanwhile may be missing or doubled, and
/// there are never more than the map can hold, if it has a limit: storages of cgroups have none.
struct Entries<'a> {
    map: &'a MapHandle,
    key: Option<Vec<u8>>,
    left: u32,
}

impl<'a> Entries<'a> {
    fn new(map: &'a MapHandle) -> Self {
        Self {
            map,
            key: None,
            left: match map.info().max_entries {
                0 => u32::MAX,
                limit => limit,
            },
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = std::io::Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            let key = match self.map.next_key(self.key.as_deref()) {
                Ok(Some(key)) => key,
                Ok(None) => break,
                Err(error) => {
                    self.left = 0;
                    return Some(Err(error));
                }
            };
            self.key = Some(key.clone());
            match self.map.lookup(&key) {
                Ok(Some(value)) => return Some(Ok((key, value))),
                Ok(None) => {}
                Err(error) => {
                    self.left = 0;
                    return Some(Err(error));
                }
            }
        }
        self.left = 0;
        None
    }
}

/// A value, or those of each CPU.
enum Value<'a> {
    One(&'a [u8]),
    EachCpu(Vec<(u32, &'a [u8])>),
}

impl<'a> Value<'a> {
    /// A per-CPU map's values stand one behind the other, each at a multiple of eight bytes.
    fn new(bytes: &'a [u8], cpus: &[u32], value_size: usize) -> Self {
        let stride = value_size.next_multiple_of(8);
        if cpus.is_empty() || stride == 0 {
            return Self::One(bytes);
        }
        let values = bytes.chunks_exact(stride).map(|chunk| &chunk[..value_size]);
        Self::EachCpu(cpus.iter().copied().zip(values).collect())
    }

    fn as_text(&self, key: &[u8]) -> String {
        match self {
            Self::One(value) => format!("key {}  value {}", readable(key), readable(value)),
            Self::EachCpu(values) => values
                .iter()
                .map(|(cpu, value)| format!("\n  cpu {cpu}  value {}", readable(value)))
                .fold(format!("key {}", readable(key)), |text, line| text + &line),
        }
    }

    fn as_json(&self, key: &[u8]) -> String {
        let object = json::Object::default().text("key", &hexadecimal(key));
        match self {
            Self::One(value) => object.text("value", &hexadecimal(value)),
            Self::EachCpu(values) => {
                let values = values.iter().map(|(cpu, value)| {
                    json::Object::default()
                        .number("cpu", *cpu)
                        .text("value", &hexadecimal(value))
                        .finish()
                });
                object.raw("values", &json::array(values))
            }
        }
        .finish()
    }
}

/// Hexadecimal, and the number if it may be one.
fn readable(bytes: &[u8]) -> String {
    let hexadecimal = hexadecimal(bytes);
    let number = match *bytes {
        [byte] => u64::from(byte),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => return hexadecimal,
    };
    format!("{hexadecimal} ({number})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_where_sizes_fit() {
        assert_eq!(
            readable(&7_u32.to_ne_bytes()).split_once(' ').unwrap().1,
            "(7)"
        );
        assert_eq!(readable(&[1, 2, 3]), "010203");
        assert_eq!(readable(&[]), "");
        assert_eq!(readable(&[255]), "ff (255)");
    }

    #[test]
    fn one_value() {
        let value = Value::new(&[1, 2, 3], &[], 3);
        assert_eq!(value.as_text(&[9]), "key 09 (9)  value 010203");
        assert_eq!(value.as_json(&[9]), r#"{"key":"09","value":"010203"}"#);
    }

    #[test]
    fn a_value_for_each_cpu_without_the_room_between() {
        let bytes = [
            1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        let value = Value::new(&bytes, &[0, 2], 3);
        assert_eq!(
            value.as_text(&[9]),
            "key 09 (9)\n  cpu 0  value 010203\n  cpu 2  value 040506"
        );
        assert_eq!(
            value.as_json(&[9]),
            r#"{"key":"09","values":[{"cpu":0,"value":"010203"},{"cpu":2,"value":"040506"}]}"#
        );
    }

    #[test]
    fn buffers_name_the_other_command() {
        assert!(why_not(MapType::RINGBUF).unwrap().contains("events"));
        assert_eq!(why_not(MapType::HASH), None);
    }
}
