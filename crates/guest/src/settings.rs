//! What is set once at start, before anything is loaded.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::AgentError;

/// Paths below `/proc/sys` and their values.
const SETTINGS: &[(&str, &str)] = &[
    // The host relocates by the addresses that this kernel shows.
    ("kernel/kptr_restrict", "0"),
    ("kernel/perf_event_paranoid", "-1"),
    // Some kernels would interpret the programs.
    ("net/core/bpf_jit_enable", "1"),
    // Warnings and worse reach the console; the rest is in the kernel's log.
    ("kernel/printk", "5 4 1 7"),
    // What a broken kernel says is no verdict: the host shall see it die.
    ("kernel/panic_on_oops", "1"),
];

/// `IFF_UP`, of the type that `ifreq` has.
const IFF_UP: libc::c_short = 1;

/// Writes them. A kernel without one of them has nothing to set.
pub fn apply() -> Result<(), AgentError> {
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/{name}");
        match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AgentError::file("write", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Brings the loopback device up: programs are run on packets that seem to come from it.
pub fn bring_loopback_up() -> Result<(), AgentError> {
    let error = || {
        AgentError::system::<io::Error>("bring the loopback device up")(io::Error::last_os_error())
    };
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, and `request` is one.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(error());
    }
    Ok(())
}
