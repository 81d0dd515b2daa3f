//! Filters of traffic control, where the kernel has no links for it: before Linux 6.6.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::plan::Direction;
use crate::sys::netlink::{Message, Routing};

/// A filter that is there as long as this. What is killed leaves it behind.
#[derive(Debug)]
pub struct Filter {
    routing: Routing,
    place: Place,
}

impl Filter {
    /// Makes a program the first filter of an interface, one that decides itself what becomes of a
    /// packet.
    pub fn attach(
        program: BorrowedFd<'_>,
        name: &str,
        interface: u32,
        direction: Direction,
    ) -> io::Result<Self> {
        let routing = Routing::open()?;
        match routing.request(new_qdisc(interface)) {
            // It stays when we go: others may have come to use it.
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        let place = Place {
            interface,
            handle: 0,
            parent: match direction {
                Direction::Ingress => 0xffff_fff2,
                Direction::Egress => 0xffff_fff3,
            },
            // The kernel chooses the priority.
            info: ETH_P_ALL.to_be().into(),
        };
        let answer = routing.request(new_filter(place, program.as_fd(), name))?;
        let place = answer
            .and_then(|answer| Place::parse(&answer))
            .ok_or_else(|| io::Error::other("the kernel does not tell where the filter is"))?;
        Ok(Self { routing, place })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // It fails only if somebody else has already removed it, or the interface.
        let _ = self.routing.request(delete_filter(self.place));
    }
}

/// What of `struct tcmsg` says which filter is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    interface: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Place {
    fn bytes(self) -> Vec<u8> {
        // The family is unspecified.
        [0, self.interface, self.handle, self.parent, self.info]
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            interface: field(4)?,
            handle: field(8)?,
            parent: field(12)?,
            info: field(16)?,
        })
    }
}

const ETH_P_ALL: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const NLM_F_ECHO: u16 = 0x8;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// The queueing discipline that queues nothing and has places for filters.
fn new_qdisc(interface: u32) -> Message {
    let place = Place {
        interface,
        handle: 0xffff_0000,
        parent: 0xffff_fff1,
        info: 0,
    };
    Message::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &place.bytes())
        .attribute(TCA_KIND, b"clsact\0")
}

/// The echo says what handle and priority the filter got.
fn new_filter(place: Place, program: BorrowedFd<'_>, name: &str) -> Message {
    let name = [name.as_bytes(), b"\0"].concat();
    Message::new(
        RTM_NEWTFILTER,
        NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO,
        &place.bytes(),
    )
    .attribute(TCA_KIND, b"bpf\0")
    .nested(
        TCA_OPTIONS,
        &[
            (TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
            (TCA_BPF_NAME, &name),
            (TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
        ],
    )
}

fn delete_filter(place: Place) -> Message {
    Message::new(RTM_DELTFILTER, 0, &place.bytes()).attribute(TCA_KIND, b"bpf\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place {
            interface: 1,
            handle: 2,
            parent: 3,
            info: 4,
        };
        let bytes = place.bytes();
        assert_eq!(bytes.len(), 20);
        assert_eq!(Place::parse(&bytes), Some(place));
        assert_eq!(Place::parse(&bytes[..19]), None);
    }
}
