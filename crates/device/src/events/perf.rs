//! Reading a perf event array (`BPF_MAP_TYPE_PERF_EVENT_ARRAY`): a buffer for each CPU.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use preverify_abi::kinds::MapType;

use crate::sys::map::MapHandle;
use crate::sys::mapping::{Access, Mapping, page_size};
use crate::sys::{cpus, perf, wait_readable};

/// A perf event array's reader: the array's entries are its own as long as it lives.
#[derive(Debug)]
pub struct PerfBuffer {
    cpus: Vec<Cpu>,
}

/// What a perf buffer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerfEvent<'a> {
    /// A program sent this. The kernel may have padded it with up to seven bytes.
    Sample {
        /// On which CPU.
        cpu: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The buffer was full.
    Lost {
        /// On which CPU.
        cpu: u32,
        /// How many are gone.
        count: u64,
    },
}

impl PerfBuffer {
    /// Makes a buffer for each running CPU, and puts it into the array.
    pub fn open(map: BorrowedFd<'_>) -> io::Result<Self> {
        let map = MapHandle::new(map.try_clone_to_owned()?)?;
        let kind = MapType(map.info().map_type);
        if kind != MapType::PERF_EVENT_ARRAY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("expected a perf event array, found {kind}"),
            ));
        }
        let cpus = cpus::online()?
            .into_iter()
            .filter(|&cpu| cpu < map.info().max_entries)
            .map(|cpu| Cpu::open(cpu, &map))
            .collect::<io::Result<_>>()?;
        Ok(Self { cpus })
    }

    /// Hands all that is there to `take`, one CPU after the other; waits for the first for so long,
    /// without a limit for ever. Returns how many there were. `take` ends the reading early by
    /// returning false.
    pub fn poll(
        &mut self,
        limit: Option<Duration>,
        mut take: impl FnMut(PerfEvent<'_>) -> bool,
    ) -> io::Result<usize> {
        let taken = self.drain(&mut take)?;
        if taken > 0 {
            return Ok(taken);
        }
        let descriptors: Vec<_> = self.cpus.iter().map(|cpu| cpu.descriptor.as_fd()).collect();
        if !wait_readable(&descriptors, limit)? {
            return Ok(0);
        }
        self.drain(&mut take)
    }

    fn drain(&self, take: &mut impl FnMut(PerfEvent<'_>) -> bool) -> io::Result<usize> {
        let mut taken = 0;
        for cpu in &self.cpus {
            let (count, more) = cpu.memory.drain(cpu.number, take)?;
            taken += count;
            if !more {
                break;
            }
        }
        Ok(taken)
    }
}

/// Pages of records for each CPU: a power of two.
const PAGES: usize = 64;

#[derive(Debug)]
struct Cpu {
    number: u32,
    memory: Memory,
    descriptor: OwnedFd,
}

impl Cpu {
    fn open(number: u32, map: &MapHandle) -> io::Result<Self> {
        let descriptor = perf::bpf_output(number)?;
        let memory = Memory::map(descriptor.as_fd(), PAGES * page_size())?;
        map.update(&number.to_ne_bytes(), &descriptor.as_raw_fd().to_ne_bytes())?;
        Ok(Self {
            number,
            memory,
            descriptor,
        })
    }
}

/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// `PERF_RECORD_*` of what programs send.
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;

/// `struct perf_event_header`.
const HEADER: usize = 8;

/// A page with positions, and records behind it.
#[derive(Debug)]
struct Memory {
    mapping: Mapping,
    page: usize,
    size: usize,
}

impl Memory {
    fn map(descriptor: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = page_size();
        Ok(Self {
            mapping: Mapping::new(descriptor, 0, page + size, Access::Write)?,
            page,
            size,
        })
    }

    /// Returns how many were taken, and whether more are wanted.
    fn drain(
        &self,
        cpu: u32,
        take: &mut impl FnMut(PerfEvent<'_>) -> bool,
    ) -> io::Result<(usize, bool)> {
        let mut taken = 0;
        let mut tail = self.mapping.load_u64(DATA_TAIL);
        while tail < self.mapping.load_u64(DATA_HEAD) {
            let header = self.read(tail, HEADER);
            let (kind, size) = header_fields(&header);
            if size < HEADER || size > self.size || size % HEADER != 0 {
                return Err(damaged(format!("a record of {size} bytes")));
            }
            let body = self.read(tail + HEADER as u64, size - HEADER);
            tail += size as u64;
            self.mapping.store_u64(DATA_TAIL, tail);
            let event = match kind {
                RECORD_SAMPLE => PerfEvent::Sample {
                    cpu,
                    bytes: sample(&body)
                        .ok_or_else(|| damaged(format!("a sample of {} bytes", body.len())))?,
                },
                RECORD_LOST => PerfEvent::Lost {
                    cpu,
                    count: lost(&body)
                        .ok_or_else(|| damaged(format!("a loss of {} bytes", body.len())))?,
                },
                _ => continue,
            };
            taken += 1;
            if !take(event) {
                return Ok((taken, false));
            }
        }
        Ok((taken, true))
    }

    /// Copies bytes from a position; they may go beyond the end and on at the start.
    fn read(&self, position: u64, size: usize) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "less than a usize")]
        let at = (position % self.size as u64) as usize;
        let first = size.min(self.size - at);
        let mut bytes = self.mapping.copy(self.page + at, first);
        bytes.extend(self.mapping.copy(self.page, size - first));
        bytes
    }
}

/// `u32 type; u16 misc; u16 size`
fn header_fields(header: &[u8]) -> (u32, usize) {
    let kind = header
        .first_chunk()
        .map_or(0, |kind| u32::from_ne_bytes(*kind));
    let size = header
        .last_chunk()
        .map_or(0, |size| u16::from_ne_bytes(*size));
    (kind, size.into())
}

/// `u32 size; char data[]`
fn sample(body: &[u8]) -> Option<&[u8]> {
    let (size, data) = body.split_first_chunk()?;
    data.get(..u32::from_ne_bytes(*size) as usize)
}

/// `u64 id; u64 lost`
fn lost(body: &[u8]) -> Option<u64> {
    let count = body.get(8..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*count))
}

fn damaged(found: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the perf buffer is damaged: it has {found}"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file that looks like a perf buffer.
    struct Fake {
        file: File,
        memory: Memory,
    }

    const SIZE: usize = 4096;

    impl Fake {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len((page_size() + SIZE) as u64).unwrap();
            let memory = Memory::map(file.as_fd(), SIZE).unwrap();
            Self { file, memory }
        }

        fn put(&self, position: usize, kind: u32, body: &[u8]) -> usize {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend_from_slice(&0_u16.to_ne_bytes());
            let size = u16::try_from(HEADER + body.len()).unwrap();
            record.extend_from_slice(&size.to_ne_bytes());
            record.extend_from_slice(body);
            for (index, byte) in record.iter().enumerate() {
                let at = page_size() + (position + index) % SIZE;
                self.file.write_all_at(&[*byte], at as u64).unwrap();
            }
            position + record.len()
        }

        fn set(&self, field: usize, position: usize) {
            let position = (position as u64).to_ne_bytes();
            self.file.write_all_at(&position, field as u64).unwrap();
        }

        fn drain(&self) -> io::Result<Vec<String>> {
            let mut events = Vec::new();
            self.memory.drain(3, &mut |event| {
                events.push(match event {
                    PerfEvent::Sample { cpu, bytes } => {
                        format!("{cpu} {}", bytes.escape_ascii())
                    }
                    PerfEvent::Lost { cpu, count } => format!("{cpu} lost {count}"),
                });
                true
            })?;
            Ok(events)
        }
    }

    fn sample_body(bytes: &[u8]) -> Vec<u8> {
        let mut body = u32::try_from(bytes.len()).unwrap().to_ne_bytes().to_vec();
        body.extend_from_slice(bytes);
        body
    }

    #[test]
    fn samples_and_losses() {
        let fake = Fake::new();
        let next = fake.put(0, RECORD_SAMPLE, &sample_body(b"twelve bytes"));
        let next = fake.put(next, 1234, &[0; 16]);
        let lost: Vec<u8> = [7_u64, 5].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let next = fake.put(next, RECORD_LOST, &lost);
        fake.set(DATA_HEAD, next);
        assert_eq!(fake.drain().unwrap(), ["3 twelve bytes", "3 lost 5"]);
        assert_eq!(fake.drain().unwrap(), Vec::<String>::new());
        assert_eq!(fake.memory.mapping.load_u64(DATA_TAIL), next as u64);
    }

    #[test]
    fn a_record_goes_on_at_the_start() {
        let fake = Fake::new();
        for room in [8, 16] {
            let start = 5 * SIZE - room;
            let end = fake.put(
                start,
                RECORD_SAMPLE,
                &sample_body(b"goes round..."[..12].as_ref()),
            );
            fake.set(DATA_TAIL, start);
            fake.set(DATA_HEAD, end);
            assert_eq!(fake.drain().unwrap(), ["3 goes round.."]);
        }
    }

    #[test]
    fn damage_is_told_and_ends() {
        for (kind, body) in [
            (RECORD_SAMPLE, &[0xff; 8][..]),
            (RECORD_SAMPLE, &[]),
            (RECORD_LOST, &[0; 8]),
            (RECORD_SAMPLE, &[0; 3]),
        ] {
            let fake = Fake::new();
            fake.put(0, kind, body);
            fake.set(DATA_HEAD, 64);
            assert!(fake.drain().is_err(), "{kind} {body:?}");
        }
        let fake = Fake::new();
        fake.set(DATA_HEAD, 8); // a header of zeroes
        assert!(fake.drain().is_err());
    }
}
