//! Requests to the kernel's routing netlink, as much as attaching needs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{check, own};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;
/// `NLMSG_ERROR`: also what acknowledges a request, with error zero.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;

/// A connection to the network name space that it was opened in.
#[derive(Debug)]
pub struct Routing(OwnedFd);

impl Routing {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no pointers; what returns is a new file descriptor.
        let socket = unsafe {
            own(libc::c_long::from(libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )))
        }?;
        Ok(Self(socket))
    }

    /// Makes a request and waits for its end. Returns the payload of the last message before that,
    /// if there was one.
    pub fn request(&self, mut message: Message) -> io::Result<Option<Vec<u8>>> {
        let request = message.finish();
        let socket = self.0.as_raw_fd();
        // SAFETY: the pointer is to as many bytes as is said.
        let sent = unsafe { libc::send(socket, request.as_ptr().cast(), request.len(), 0) };
        check(sent as libc::c_long)?;
        let mut answer = None;
        // The kernel's messages of these kinds are smaller than a page.
        let mut buffer = [0; 8192];
        loop {
            // SAFETY: the pointer is to as many bytes as is said.
            let received =
                unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let received = check(received as libc::c_long)?;
            let received = usize::try_from(received).unwrap_or(0);
            for (kind, payload) in messages(&buffer[..received]) {
                if kind != ERROR {
                    answer = Some(payload.to_vec());
                    continue;
                }
                return match error_of(payload) {
                    Some(0) => Ok(answer),
                    errno => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EBADMSG))),
                };
            }
        }
    }
}

/// A request.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of a kind, with flags beside those that all requests have.
    pub fn new(kind: u16, flags: u16, payload: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST | ACKNOWLEDGE).to_ne_bytes());
        bytes.extend(payload);
        Self(bytes)
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.put_attribute(kind, value);
        self
    }

    /// Adds an attribute that holds others.
    pub fn nested(mut self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        let start = self.0.len();
        self.put_attribute(kind, &[]);
        for &(kind, value) in inner {
            self.put_attribute(kind, value);
        }
        let size = size_field(self.0.len() - start);
        self.0[start..start + 2].copy_from_slice(&size);
        self
    }

    fn put_attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(size_field(ALIGNMENT + value.len()));
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(&mut self) -> &[u8] {
        let size = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        &self.0
    }
}

/// The kernel refuses attributes that say that they are larger than the message.
fn size_field(size: usize) -> [u8; 2] {
    u16::try_from(size).unwrap_or(u16::MAX).to_ne_bytes()
}

/// Kinds and payloads of messages that came together.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = u32::from_ne_bytes(bytes.first_chunk().copied()?) as usize;
        let message = bytes.get(..size)?;
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let payload = message.get(HEADER..)?;
        bytes = bytes
            .get(size.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((kind, payload))
    })
}

/// The errno in an `NLMSG_ERROR`.
fn error_of(payload: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*payload.first_chunk()?).saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let inner: [(u16, &[u8]); 2] = [(6, &[9, 0, 0, 0]), (7, b"name\0")];
        let mut message = Message::new(44, 0x400, &[0xaa; 4])
            .attribute(1, b"bpf\0")
            .nested(2, &inner);
        let mut expected = vec![52, 0, 0, 0, 44, 0, 5, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0xaa; 4]);
        expected.extend([8, 0, 1, 0, b'b', b'p', b'f', 0]);
        expected.extend([24, 0, 2, 0, 8, 0, 6, 0, 9, 0, 0, 0]);
        expected.extend([9, 0, 7, 0, b'n', b'a', b'm', b'e', 0, 0, 0, 0]);
        assert_eq!(message.finish(), expected);
    }

    #[test]
    fn messages_are_taken_apart() {
        let mut two = Message::new(44, 0, &[1, 2, 3]);
        let mut bytes = two.finish().to_vec();
        bytes.push(0);
        bytes.extend(Message::new(2, 0, &(-17_i32).to_ne_bytes()).finish());
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (44, &[1, 2, 3][..]));
        assert_eq!((found[1].0, error_of(found[1].1)), (2, Some(17)));
    }

    #[test]
    fn damaged_messages_end_it() {
        for bytes in [&[][..], &[0; 3], &[0; 16], &[0xff; 40], &[8, 0, 0, 0, 1, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn the_kernel_answers() {
        // RTM_GETQDISC, of an interface that is not there; its error comes back as errno.
        let message = Message::new(38, 0, &[0xff; 20]);
        let routing = Routing::open().unwrap();
        let error = routing.request(message).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
