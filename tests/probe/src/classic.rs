//! Classic filters: they have nothing to do with the kernel part, and must work beside it.

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// What the filter lets through of each datagram.
const KEPT: u32 = 4;

/// Has a filter cut datagrams, and one of seccomp fail a system call.
pub fn classic() -> Result<(), Box<dyn Error>> {
    socket_filter()?;
    println!("a socket's filter: runs");
    seccomp()?;
    println!("a filter of seccomp: runs");
    Ok(())
}

fn socket_filter() -> Result<(), Box<dyn Error>> {
    let (sender, receiver) = UnixDatagram::pair()?;
    let mut filter = [instruction(libc::BPF_RET | libc::BPF_K, 0, 0, KEPT)];
    let program = program(&mut filter);
    // SAFETY: the program and its instructions are valid for the call, which copies them.
    let result = unsafe {
        libc::setsockopt(
            receiver.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program))?,
        )
    };
    checked(result, "SO_ATTACH_FILTER")?;
    sender.send(b"longer than that")?;
    let received = receiver.recv(&mut [0; 64])?;
    match received == KEPT as usize {
        true => Ok(()),
        false => Err(format!("the filter let {received} bytes through, not {KEPT}").into()),
    }
}

fn seccomp() -> Result<(), Box<dyn Error>> {
    let number = u32::try_from(libc::SYS_getppid)?;
    let failing = libc::SECCOMP_RET_ERRNO | libc::EXDEV as u32;
    let mut filter = [
        // The number of the system call comes first in what the filter is asked about.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, failing),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = program(&mut filter);
    // SAFETY: the call takes numbers alone.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked(result, "PR_SET_NO_NEW_PRIVS")?;
    // SAFETY: the program and its instructions are valid for the call, which copies them.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    checked(result, "PR_SET_SECCOMP")?;
    // SAFETY: the call takes nothing.
    let result = unsafe { libc::syscall(libc::SYS_getppid) };
    let error = io::Error::last_os_error();
    match result == -1 && error.raw_os_error() == Some(libc::EXDEV) {
        true => Ok(()),
        false => Err(format!("getppid() gave {result}, {error}: the filter did not run").into()),
    }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    let code = u16::try_from(code).expect("codes have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}

/// The instructions must outlive it.
fn program(filter: &mut [libc::sock_filter]) -> libc::sock_fprog {
    libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("filters are short"),
        filter: filter.as_mut_ptr(),
    }
}

fn checked(result: i32, call: &str) -> Result<(), Box<dyn Error>> {
    match result {
        0 => Ok(()),
        _ => Err(format!("{call}: {}", io::Error::last_os_error()).into()),
    }
}
