//! The system calls that the standard library does not have. All unsafe code of this crate is
//! here, behind functions that check what safety needs.

pub mod bpf;
pub mod cpus;
pub mod errno;
pub mod ioctl;
pub mod keys;
pub mod map;
pub mod mapping;
pub mod net;
pub mod netlink;
pub mod perf;
pub mod signals;
mod stack;
pub mod statfs;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Turns what a system call returned into a result.
fn check(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Turns what a system call returned into a file descriptor of ours.
///
/// # Safety
///
/// If `returned` is not negative, it must be a file descriptor that nobody else owns.
unsafe fn own(returned: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(check(returned)?)
        .map_err(|_| io::Error::other("the kernel returned no file descriptor"))?;
    // SAFETY: the caller promises that it is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits until one of the descriptors can be read, or the time is over; tells which of the two.
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
    let mut entries: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|descriptor| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let limit = limit.map_or(-1, |limit| {
        libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX)
    });
    let count = libc::nfds_t::try_from(entries.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"))?;
    // SAFETY: the entries are as many as is said.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, limit) };
    Ok(check(libc::c_long::from(ready))? > 0)
}
