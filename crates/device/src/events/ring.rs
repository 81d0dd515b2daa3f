//! Reading a BPF ring buffer (`BPF_MAP_TYPE_RINGBUF`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use preverify_abi::kinds::MapType;

use crate::sys::bpf::{self, MapInfo};
use crate::sys::mapping::{Access, Mapping, page_size};
use crate::sys::wait_readable;

/// A ring buffer's reader. There should be one for each ring buffer: what one takes, another does
/// not see.
#[derive(Debug)]
pub struct RingBuffer {
    descriptor: OwnedFd,
    memory: Memory,
}

impl RingBuffer {
    /// Maps a ring buffer's memory.
    pub fn open(map: BorrowedFd<'_>) -> io::Result<Self> {
        let info: MapInfo = bpf::info(map)?;
        if MapType(info.map_type) != MapType::RINGBUF {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("expected a ring buffer, found {}", MapType(info.map_type)),
            ));
        }
        let descriptor = map.try_clone_to_owned()?;
        let memory = Memory::map(descriptor.as_fd(), info.max_entries as usize)?;
        Ok(Self { descriptor, memory })
    }

    /// Hands all records that are there to `take`, oldest first; waits for the first one for so
    /// long, without a limit for ever. Returns how many there were. `take` ends the reading early
    /// by returning false: the record that it was given counts as taken.
    pub fn poll(
        &mut self,
        limit: Option<Duration>,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<usize> {
        let taken = self.memory.drain(&mut take)?;
        if taken > 0 || !wait_readable(&[self.descriptor.as_fd()], limit)? {
            return Ok(taken);
        }
        self.memory.drain(&mut take)
    }
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Each record has a length and a number for the kernel in front of it.
const HEADER: usize = 8;

/// The consumer's position, the producer's position, and the records twice in a row, so that one
/// that goes beyond the end can be read in one piece.
#[derive(Debug)]
struct Memory {
    consumer: Mapping,
    producer: Mapping,
    size: usize,
    page: usize,
}

impl Memory {
    fn map(descriptor: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = page_size();
        if !size.is_power_of_two() {
            return Err(damaged(format!("a size of {size} bytes")));
        }
        Ok(Self {
            consumer: Mapping::new(descriptor, 0, page, Access::Write)?,
            producer: Mapping::new(descriptor, page, page + 2 * size, Access::Read)?,
            size,
            page,
        })
    }

    fn drain(&self, take: &mut impl FnMut(&[u8]) -> bool) -> io::Result<usize> {
        let mut taken = 0;
        let mut position = self.consumer.load_u64(0);
        // Positions only grow; where a record lies is their rest.
        while position < self.producer.load_u64(0) {
            let rest = position & (self.size as u64 - 1);
            #[expect(clippy::cast_possible_truncation, reason = "less than a usize")]
            let at = self.page + rest as usize;
            if !at.is_multiple_of(HEADER) {
                return Err(damaged(format!("a record at {position}")));
            }
            let header = self.producer.load_u32(at);
            if header & BUSY != 0 {
                break; // still being written
            }
            let length = (header & !DISCARDED) as usize;
            if length > self.size - HEADER {
                return Err(damaged(format!("a record of {length} bytes")));
            }
            let record = (header & DISCARDED == 0).then(|| self.producer.copy(at + HEADER, length));
            position += (length + HEADER).next_multiple_of(HEADER) as u64;
            self.consumer.store_u64(0, position);
            if let Some(record) = record {
                taken += 1;
                if !take(&record) {
                    break;
                }
            }
        }
        Ok(taken)
    }
}

fn damaged(found: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the ring buffer is damaged: it has {found}"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file that looks like a ring buffer. Its second half does not follow its first by itself.
    struct Fake {
        file: File,
        memory: Memory,
    }

    const SIZE: usize = 4096;

    impl Fake {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len((2 * page_size() + 2 * SIZE) as u64).unwrap();
            let memory = Memory::map(file.as_fd(), SIZE).unwrap();
            Self { file, memory }
        }

        /// Writes a record at a position.
        fn put(&self, position: usize, flags: u32, bytes: &[u8]) -> usize {
            let mut record = (u32::try_from(bytes.len()).unwrap() | flags)
                .to_ne_bytes()
                .to_vec();
            record.extend_from_slice(&[0xee; 4]);
            record.extend_from_slice(bytes);
            record.resize(record.len().next_multiple_of(HEADER), 0xdd);
            let at = 2 * page_size() + position % SIZE;
            self.file.write_all_at(&record, at as u64).unwrap();
            position + record.len()
        }

        fn produced(&self, position: usize) {
            let position = (position as u64).to_ne_bytes();
            self.file
                .write_all_at(&position, page_size() as u64)
                .unwrap();
        }

        fn consumed(&self, position: usize) {
            let position = (position as u64).to_ne_bytes();
            self.file.write_all_at(&position, 0).unwrap();
        }

        fn drain(&self) -> Vec<Vec<u8>> {
            let mut records = Vec::new();
            let taken = self
                .memory
                .drain(&mut |record| {
                    records.push(record.to_vec());
                    true
                })
                .unwrap();
            assert_eq!(taken, records.len());
            records
        }
    }

    #[test]
    fn records_come_in_order_and_once() {
        let fake = Fake::new();
        let next = fake.put(0, 0, b"one");
        let next = fake.put(next, 0, b"");
        let next = fake.put(next, 0, b"exactly8");
        fake.produced(next);
        assert_eq!(fake.drain(), [&b"one"[..], b"", b"exactly8"]);
        assert_eq!(fake.drain(), Vec::<Vec<u8>>::new());
        assert_eq!(fake.memory.consumer.load_u64(0), next as u64);
    }

    #[test]
    fn discarded_records_are_skipped_and_busy_ones_waited_for() {
        let fake = Fake::new();
        let second = fake.put(0, DISCARDED, b"nothing");
        let third = fake.put(second, 0, b"two");
        let end = fake.put(third, BUSY, b"three");
        fake.produced(end);
        assert_eq!(fake.drain(), [b"two"]);
        assert_eq!(fake.memory.consumer.load_u64(0), third as u64);
        fake.put(third, 0, b"three");
        assert_eq!(fake.drain(), [b"three"]);
    }

    #[test]
    fn a_record_goes_beyond_the_end() {
        let fake = Fake::new();
        let start = 7 * SIZE - 16;
        let end = fake.put(start, 0, b"twenty-four bytes long..");
        fake.consumed(start);
        fake.produced(end);
        assert_eq!(fake.drain(), [b"twenty-four bytes long.."]);
    }

    #[test]
    fn whoever_takes_may_stop() {
        let fake = Fake::new();
        let second = fake.put(0, 0, b"one");
        let end = fake.put(second, 0, b"two");
        fake.produced(end);
        assert_eq!(fake.memory.drain(&mut |_| false).unwrap(), 1);
        assert_eq!(fake.drain(), [b"two"]);
    }

    #[test]
    fn damage_is_told_and_ends() {
        let fake = Fake::new();
        fake.put(0, 0x0fff_0000, b"");
        fake.produced(64);
        assert!(fake.memory.drain(&mut |_| true).is_err());
        fake.consumed(4);
        assert!(fake.memory.drain(&mut |_| true).is_err());
        assert!(Memory::map(fake.file.as_fd(), 4095).is_err());
    }
}
