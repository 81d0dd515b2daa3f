//! `perf_event_open(2)`.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and constants of the ABI, all small"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::own;

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
const PERF_COUNT_SW_BPF_OUTPUT: u64 = 10;
const PERF_SAMPLE_RAW: u64 = 1 << 10;
const FLAG_FREQUENCY: u64 = 1 << 10;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

/// `struct perf_event_attr`, up to `PERF_ATTR_SIZE_VER1`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Attributes {
    event_type: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
}

/// A probe in the kernel or in a user program.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The number of the event source, `kprobe` or `uprobe`.
    pub source: u32,
    /// The source's `config`: with the bit for return probes, or zero.
    pub config: u64,
    /// The kernel function, or the file of a user program.
    pub name: &'a CStr,
    /// Bytes from its start.
    pub offset: u64,
}

/// Sets a probe.
pub fn probe(probe: &Probe<'_>) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new_zeroed();
    attributes.event_type = probe.source;
    attributes.config = probe.config;
    attributes.config1 = probe.name.as_ptr().addr() as u64;
    attributes.config2 = probe.offset;
    // SAFETY: the only address is that of a terminated string which outlives the call.
    unsafe { open(&mut attributes, 0) }
}

/// Watches a tracepoint.
pub fn tracepoint(id: u64) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new_zeroed();
    attributes.event_type = PERF_TYPE_TRACEPOINT;
    attributes.config = id;
    // SAFETY: no address.
    unsafe { open(&mut attributes, 0) }
}

/// Samples one CPU so many times a second.
pub fn cpu_clock(cpu: u32, frequency: u64) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new_zeroed();
    attributes.event_type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_CPU_CLOCK;
    attributes.flags = FLAG_FREQUENCY;
    attributes.sample_period = frequency;
    // SAFETY: no address.
    unsafe { open(&mut attributes, cpu) }
}

/// Receives what programs on one CPU send with `bpf_perf_event_output`.
pub fn bpf_output(cpu: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new_zeroed();
    attributes.event_type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_BPF_OUTPUT;
    attributes.sample_type = PERF_SAMPLE_RAW;
    attributes.sample_period = 1;
    attributes.wakeup_events = 1;
    // SAFETY: no address.
    unsafe { open(&mut attributes, cpu) }
}

/// Opens an event of all processes.
///
/// # Safety
///
/// Addresses in `attributes` must be valid.
unsafe fn open(attributes: &mut Attributes, cpu: u32) -> io::Result<OwnedFd> {
    const ALL_PROCESSES: libc::c_long = -1;
    const NO_GROUP: libc::c_long = -1;
    attributes.size = const { size_of::<Attributes>() as u32 };
    // SAFETY: the attributes say how large they are; what returns is a new file descriptor.
    unsafe {
        own(libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_mut_bytes().as_mut_ptr(),
            ALL_PROCESSES,
            libc::c_ulong::from(cpu),
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_uapi() {
        assert_eq!(offset_of!(Attributes, flags), 40);
        assert_eq!(offset_of!(Attributes, config1), 56);
        assert_eq!(size_of::<Attributes>(), 72);
    }
}
