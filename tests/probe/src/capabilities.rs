//! Giving up capabilities, in one thread.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes capabilities from the calling thread's effective set.
pub fn give_up(capabilities: &[u8]) -> io::Result<()> {
    if capabilities.is_empty() {
        return Ok(());
    }
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut data = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 has two elements of data.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(got)?;
    for &capability in capabilities {
        data[usize::from(capability / 32)].effective &= !(1 << (capability % 32));
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

fn check(returned: libc::c_long) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
