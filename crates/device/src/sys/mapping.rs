//! Memory shared with the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A shared mapping of a file descriptor.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the process, and all accesses are atomic or copies out of it.
unsafe impl Send for Mapping {}

/// Who may write to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the kernel.
    Read,
    /// The kernel and this process.
    Write,
}

impl Mapping {
    /// Maps `size` bytes from `offset`.
    pub fn new(
        descriptor: BorrowedFd<'_>,
        offset: usize,
        size: usize,
        access: Access,
    ) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "offset out of range"))?;
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: no address is asked for, so no memory of this process is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                protection,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast())
            .ok_or_else(|| io::Error::other("the kernel mapped at address zero"))?;
        Ok(Self { address, size })
    }

    /// Number of bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Reads 64 bits at a multiple of eight, and with them all that was written before them.
    pub fn load_u64(&self, offset: usize) -> u64 {
        let address = self.at(offset, size_of::<u64>()).cast::<AtomicU64>();
        assert!(address.is_aligned());
        // SAFETY: inside the mapping and aligned, both just checked.
        unsafe { address.as_ref() }.load(Ordering::Acquire)
    }

    /// Reads 32 bits at a multiple of four, and with them all that was written before them.
    pub fn load_u32(&self, offset: usize) -> u32 {
        let address = self.at(offset, size_of::<u32>()).cast::<AtomicU32>();
        assert!(address.is_aligned());
        // SAFETY: inside the mapping and aligned, both just checked.
        unsafe { address.as_ref() }.load(Ordering::Acquire)
    }

    /// Writes 64 bits at a multiple of eight, after all reads before. The mapping must have been
    /// made with [`Access::Write`]; else the process is killed.
    pub fn store_u64(&self, offset: usize, value: u64) {
        let address = self.at(offset, size_of::<u64>()).cast::<AtomicU64>();
        assert!(address.is_aligned());
        // SAFETY: inside the mapping and aligned, both just checked.
        unsafe { address.as_ref() }.store(value, Ordering::Release);
    }

    /// Copies bytes that the kernel has handed over.
    pub fn copy(&self, offset: usize, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let address = self.at(offset, size);
        // SAFETY: inside the mapping, just checked; the kernel leaves handed-over bytes alone
        // until it is told that they were read.
        unsafe { std::ptr::copy_nonoverlapping(address.as_ptr(), bytes.as_mut_ptr(), size) };
        bytes
    }

    fn at(&self, offset: usize, size: usize) -> NonNull<u8> {
        let end = offset.checked_add(size);
        assert!(
            end.is_some_and(|end| end <= self.size),
            "outside the mapping"
        );
        // SAFETY: inside the mapping, just checked.
        unsafe { self.address.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.size) };
    }
}

/// Bytes of a page.
pub fn page_size() -> usize {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
