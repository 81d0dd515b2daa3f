//! Network interfaces and packet sockets.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and constants of the ABI, all small"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use super::{check, own};

/// The number of a network interface. (`if_nametoindex` would do, but comes with all that lists
/// interfaces through netlink: 19 kB of a static binary.)
pub fn interface_index(name: &str) -> io::Result<u32> {
    // SAFETY: all bytes zero are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A zero byte ends it.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // Any socket will do.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: the command reads and writes an ifreq.
    let returned = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFINDEX as _, // an int with some C libraries
            &raw mut request,
        )
    };
    check(libc::c_long::from(returned))?;
    // SAFETY: this field is the one that the kernel has set.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// A socket that sees all packets, of one interface or of every one.
pub fn packet_socket(interface: Option<u32>) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; what returns is a new file descriptor.
    let socket = unsafe {
        own(libc::c_long::from(libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::c_int::from(protocol),
        )))
    }?;
    if let Some(interface) = interface {
        // SAFETY: all bytes zero are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = interface.cast_signed();
        // SAFETY: the address is a sockaddr_ll of the given size.
        let returned = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        check(libc::c_long::from(returned))?;
    }
    Ok(socket)
}

/// Attaches a socket filter; it stays for the socket's life.
pub fn attach_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd();
    // SAFETY: the option is an int of the given size.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    check(libc::c_long::from(returned)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn interfaces_have_the_numbers_that_sysfs_shows() {
        for entry in fs::read_dir("/sys/class/net").unwrap() {
            let entry = entry.unwrap();
            // Drivers put files there, too.
            let Ok(expected) = fs::read_to_string(entry.path().join("ifindex")) else {
                continue;
            };
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(
                interface_index(&name).unwrap().to_string(),
                expected.trim(),
                "{name}"
            );
        }
        // It always is the first.
        assert_eq!(interface_index("lo").unwrap(), 1);
    }

    #[test]
    fn what_names_no_interface_is_no_device() {
        for name in [
            "",
            "no-such-device",
            "fifteen-and-one",
            "fifteen-and-more",
            "lo\0",
        ] {
            let error = interface_index(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
