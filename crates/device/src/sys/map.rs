//! Maps together with the sizes that the kernel takes for their keys and values: what makes
//! reading and writing them safe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use preverify_abi::kinds::MapType;

use super::bpf::{self, MapInfo};
use super::cpus;

/// A map.
#[derive(Debug)]
pub struct MapHandle {
    descriptor: OwnedFd,
    info: MapInfo,
    value_size: usize,
}

impl MapHandle {
    /// Asks the kernel about a map's descriptor.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let info: MapInfo = bpf::info(descriptor.as_fd())?;
        let kind = MapType(info.map_type);
        let value_size = if kind.is_per_cpu() {
            (info.value_size as usize).next_multiple_of(8) * cpus::possible()?.len()
        } else if holds_descriptors(kind) {
            size_of::<u32>()
        } else {
            info.value_size as usize
        };
        Ok(Self {
            descriptor,
            info,
            value_size,
        })
    }

    /// What the kernel says of it.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes that [`MapHandle::lookup`] returns: for a per-CPU map, the values of all CPUs.
    pub fn value_size(&self) -> usize {
        self.value_size
    }

    /// Writes an element.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        check(key, self.info.key_size as usize, "key")?;
        check(value, self.value_size, "value")?;
        // SAFETY: both have the sizes that the kernel takes.
        unsafe { bpf::map_update(self.as_fd(), key, value, 0) }
    }

    /// Reads an element, if it is there.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        check(key, self.info.key_size as usize, "key")?;
        let mut value = vec![0; self.value_size];
        // SAFETY: both have the sizes that the kernel takes.
        match unsafe { bpf::map_lookup(self.as_fd(), key, &mut value) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The key behind `key`, or the first one.
    pub fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        if let Some(key) = key {
            check(key, self.info.key_size as usize, "key")?;
        }
        let mut next = vec![0; self.info.key_size as usize];
        // SAFETY: both have the size that the kernel takes.
        let found = unsafe { bpf::map_next_key(self.as_fd(), key, &mut next) }?;
        Ok(found.then_some(next))
    }

    /// Makes the map read-only for system calls, for ever.
    pub fn freeze(&self) -> io::Result<()> {
        bpf::map_freeze(self.as_fd())
    }
}

impl AsFd for MapHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn check(bytes: &[u8], expected: usize, what: &str) -> io::Result<()> {
    if bytes.len() == expected {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the map's {what}s have {expected} bytes, this one has {}",
            bytes.len()
        ),
    ))
}

/// Whether system calls see a number of 32 bits, whatever the size of the map's values:
/// `IS_FD_MAP` in the kernel.
fn holds_descriptors(kind: MapType) -> bool {
    kind.holds_maps()
        || [
            MapType::PROG_ARRAY,
            MapType::PERF_EVENT_ARRAY,
            MapType::CGROUP_ARRAY,
        ]
        .contains(&kind)
}
