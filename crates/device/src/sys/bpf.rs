//! `bpf(2)`: one function for each command that a loader needs.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and constants of the ABI, all small"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{check, own};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_FREEZE: libc::c_long = 22;
const BPF_LINK_CREATE: libc::c_long = 28;

/// What `BPF_MAP_CREATE` takes: the part that every supported kernel knows.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MapCreate {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// The file descriptor of a map like the inner ones, for a map of maps.
    pub inner_map_fd: u32,
    /// With `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// Its name, with a terminating zero.
    pub name: [u8; 16],
    /// Zero: bound to no network device.
    pub ifindex: u32,
    /// The file descriptor of the BTF that the type ids are from.
    pub btf_fd: u32,
    /// The key's type.
    pub btf_key_type_id: u32,
    /// The value's type.
    pub btf_value_type_id: u32,
    /// Zero: no map of a kernel structure.
    pub btf_vmlinux_value_type_id: u32,
    /// By map type.
    pub map_extra: u64,
}

/// Creates a map.
pub fn map_create(attributes: &mut MapCreate) -> io::Result<OwnedFd> {
    // SAFETY: the attributes hold no address; what returns is a new file descriptor.
    unsafe { own(bpf(BPF_MAP_CREATE, attributes)) }
}

/// Makes a map read-only for system calls, for ever.
pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = descriptor(map);
    // SAFETY: the attributes hold no address.
    check(unsafe { bpf(BPF_MAP_FREEZE, &mut attributes) }).map(drop)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes an element.
///
/// # Safety
///
/// `key` and `value` must be as long as the kernel takes them for this map, `key` may only be
/// empty if the map has no keys.
pub unsafe fn map_update(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> io::Result<()> {
    let mut attributes = element(map, address_or_null(key), value.as_ptr().addr() as u64);
    attributes.flags = flags;
    // SAFETY: both addresses are those of slices as long as the caller promises.
    check(unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }).map(drop)
}

/// Reads an element into `value`.
///
/// # Safety
///
/// As for [`map_update`].
pub unsafe fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attributes = element(map, address_or_null(key), value.as_mut_ptr().addr() as u64);
    // SAFETY: both addresses are those of slices as long as the caller promises; the second may
    // be written to.
    check(unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) }).map(drop)
}

/// Reads the key behind `key`, or the first one; tells whether there is one.
///
/// # Safety
///
/// Both keys must be as long as the map's.
pub unsafe fn map_next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let key = key.map_or(0, address_or_null);
    let mut attributes = element(map, key, next.as_mut_ptr().addr() as u64);
    // SAFETY: both addresses are those of slices as long as the caller promises; the second may
    // be written to.
    match check(unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> Element {
    Element {
        map_fd: number(map),
        padding: 0,
        key,
        value,
        flags: 0,
    }
}

fn address_or_null(key: &[u8]) -> u64 {
    if key.is_empty() {
        0
    } else {
        key.as_ptr().addr() as u64
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins a map, program or link in a BPF file system.
pub fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_string(path)?;
    let mut attributes = Object {
        pathname: path.as_ptr().addr() as u64,
        bpf_fd: number(object),
        file_flags: 0,
    };
    // SAFETY: the address is that of a terminated string which outlives the call.
    check(unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }).map(drop)
}

/// Opens what is pinned at a path.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    let mut attributes = Object {
        pathname: path.as_ptr().addr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the address is that of a terminated string which outlives the call; what returns
    // is a new file descriptor.
    unsafe { own(bpf(BPF_OBJ_GET, &mut attributes)) }
}

/// The start of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// The kernel's number for it.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// Its name, with a terminating zero.
    pub name: [u8; 16],
    /// The network device that it is bound to.
    pub ifindex: u32,
    /// The kernel structure that it holds.
    pub btf_vmlinux_value_type_id: u32,
    /// The device number of the network device's name space.
    pub netns_dev: u64,
    /// The inode of the network device's name space.
    pub netns_ino: u64,
    /// The kernel's number for its BTF.
    pub btf_id: u32,
    /// The key's type.
    pub btf_key_type_id: u32,
    /// The value's type.
    pub btf_value_type_id: u32,
    /// The kernel's number for the BTF of a kernel structure.
    pub btf_vmlinux_id: u32,
    /// By map type.
    pub map_extra: u64,
}

/// The start of `struct bpf_prog_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ProgramInfo {
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// The kernel's number for it.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
    /// Bytes of machine code.
    pub jited_size: u32,
    /// Bytes of instructions.
    pub xlated_size: u32,
    /// Null: machine code is not asked for.
    pub jited: u64,
    /// Null: instructions are not asked for.
    pub xlated: u64,
    /// When it was loaded, in nanoseconds since boot.
    pub load_time: u64,
    /// Who loaded it.
    pub uid: u32,
    /// Number of maps.
    pub map_count: u32,
    /// Null: map numbers are not asked for.
    pub map_ids: u64,
    /// Its name, with a terminating zero.
    pub name: [u8; 16],
}

/// The start of `struct bpf_link_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LinkInfo {
    /// `enum bpf_link_type`.
    pub link_type: u32,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's number for the program.
    pub program_id: u32,
    /// By link type.
    pub rest: [u32; 13],
}

/// What [`info`] can ask for.
pub trait Info: FromBytes + IntoBytes + Default {}

impl Info for MapInfo {}
impl Info for ProgramInfo {}
impl Info for LinkInfo {}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Asks the kernel about a map, program or link: which of them, the caller knows.
pub fn info<I: Info>(object: BorrowedFd<'_>) -> io::Result<I> {
    let mut info = I::default();
    // SAFETY: all addresses in it are null.
    unsafe { fill(object, &mut info)? };
    Ok(info)
}

/// A program's machine code: that of its functions, one after the other.
pub fn machine_code(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut info: ProgramInfo = info(program)?;
    let mut code = vec![0; info.jited_size as usize];
    info = ProgramInfo {
        jited_size: info.jited_size,
        jited: code.as_mut_ptr().addr() as u64,
        ..ProgramInfo::default()
    };
    // SAFETY: the kernel writes at most `jited_size` bytes to `jited`, and `code` has so many; the other addresses are
    // null.
    unsafe { fill(program, &mut info)? };
    match info.jited {
        // It is not for everybody to see.
        0 => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(code),
    }
}

/// # Safety
///
/// The addresses in `info` are null, or the kernel may write there as much as the sizes beside them say.
unsafe fn fill<I: Info>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    let bytes = info.as_mut_bytes();
    let mut attributes = GetInfo {
        bpf_fd: number(object),
        info_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        info: bytes.as_mut_ptr().addr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, for which any bytes are valid; where it writes
    // beside that, the caller answers for.
    check(unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) })?;
    Ok(())
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct BtfLoad {
    btf: u64,
    log: u64,
    btf_size: u32,
    log_size: u32,
    log_level: u32,
    log_true_size: u32,
}

/// Hands BTF to the kernel.
pub fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = BtfLoad::new_zeroed();
    attributes.btf = btf.as_ptr().addr() as u64;
    attributes.btf_size = u32::try_from(btf.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "larger than any BTF"))?;
    // SAFETY: the address is that of a slice of the given size; what returns is a new file
    // descriptor.
    unsafe { own(bpf(BPF_BTF_LOAD, &mut attributes)) }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// Attaches a program to a raw tracepoint, or, without a name, to what it was verified for.
pub fn raw_tracepoint_open(program: BorrowedFd<'_>, name: Option<&CStr>) -> io::Result<OwnedFd> {
    let mut attributes = RawTracepointOpen {
        name: name.map_or(0, |name| name.as_ptr().addr() as u64),
        prog_fd: number(program),
        padding: 0,
    };
    // SAFETY: the address is null or that of a terminated string which outlives the call; what
    // returns is a new file descriptor.
    unsafe { own(bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attributes)) }
}

/// What `BPF_LINK_CREATE` takes beside program and attach type, by attach type.
#[derive(Clone, Copy, Debug)]
pub enum LinkOptions<'a> {
    /// Nothing.
    None,
    /// The map that an iterator walks through.
    IterMap(BorrowedFd<'a>),
    /// The functions of a multi-kprobe.
    KprobeMulti {
        /// When they return.
        on_return: bool,
        /// Their names.
        functions: &'a [CString],
    },
    /// The hook of a netfilter program.
    Netfilter {
        /// `NFPROTO_*`.
        family: u32,
        /// `NF_INET_*`.
        hook: u32,
        /// Smaller runs earlier.
        priority: i32,
    },
}

/// What a link attaches to.
#[derive(Clone, Copy, Debug)]
pub enum LinkTarget<'a> {
    /// What the program was verified for, or what the options say.
    Implied,
    /// A cgroup, name space, perf event or map.
    Descriptor(BorrowedFd<'a>),
    /// A network device.
    Interface(u32),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    options: [u64; 6],
}

/// Attaches a program; it is detached when the last descriptor and pin of the link are gone.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: LinkTarget<'_>,
    attach_type: u32,
    flags: u32,
    options: LinkOptions<'_>,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        prog_fd: number(program),
        target: match target {
            LinkTarget::Implied => 0,
            LinkTarget::Descriptor(target) => number(target),
            LinkTarget::Interface(index) => index,
        },
        attach_type,
        flags,
        options: [0; 6],
    };
    // These live until the call is over.
    let mut iterated_map = [0u32; 1];
    let mut names: Vec<u64> = Vec::new();
    match options {
        LinkOptions::None => {}
        LinkOptions::IterMap(map) => {
            iterated_map[0] = number(map);
            attributes.options[0] = iterated_map.as_ptr().addr() as u64;
            attributes.options[1] = words(size_of::<u32>() as u32, 0);
        }
        LinkOptions::KprobeMulti {
            on_return,
            functions,
        } => {
            names.extend(functions.iter().map(|name| name.as_ptr().addr() as u64));
            let count = u32::try_from(names.len())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too many functions"))?;
            attributes.options[0] = words(u32::from(on_return), count);
            attributes.options[1] = names.as_ptr().addr() as u64;
        }
        LinkOptions::Netfilter {
            family,
            hook,
            priority,
        } => {
            attributes.options[0] = words(family, hook);
            attributes.options[1] = words(priority.cast_unsigned(), 0);
        }
    }
    // SAFETY: the addresses are those of `iterated_map`, of `names` and of the terminated strings
    // that `names` points to, with their sizes; all outlive the call. What returns is a new file
    // descriptor.
    unsafe { own(bpf(BPF_LINK_CREATE, &mut attributes)) }
}

/// Two neighbouring `u32`s, as memory holds them.
fn words(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// Attaches a program to a map of sockets, without a link.
pub fn program_attach(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attributes = attach(program, target, attach_type);
    // SAFETY: the attributes hold no address.
    check(unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }).map(drop)
}

/// Undoes [`program_attach`].
pub fn program_detach(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attributes = attach(program, target, attach_type);
    // SAFETY: the attributes hold no address.
    check(unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }).map(drop)
}

fn attach(program: BorrowedFd<'_>, target: BorrowedFd<'_>, attach_type: u32) -> Attach {
    Attach {
        target_fd: number(target),
        attach_bpf_fd: number(program),
        attach_type,
        attach_flags: 0,
        replace_bpf_fd: 0,
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    fd: u32,
}

fn descriptor(fd: BorrowedFd<'_>) -> Descriptor {
    Descriptor { fd: number(fd) }
}

/// A file descriptor's number as `union bpf_attr` has it.
pub(crate) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in a path"))
}

/// The system call itself.
///
/// # Safety
///
/// All addresses in `attributes` must be valid for what `command` does with them.
unsafe fn bpf<A: IntoBytes + FromBytes>(command: libc::c_long, attributes: &mut A) -> libc::c_long {
    let bytes = attributes.as_mut_bytes();
    // SAFETY: `bytes` has the size that is given; the caller answers for the addresses in it.
    unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_mut_ptr(), bytes.len()) }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Sizes and offsets of `union bpf_attr` and the `struct bpf_*_info`s in `linux/bpf.h`.
    #[test]
    fn layouts_are_those_of_the_uapi() {
        assert_eq!(size_of::<MapCreate>(), 72);
        assert_eq!(offset_of!(MapCreate, name), 28);
        assert_eq!(offset_of!(MapCreate, btf_fd), 48);
        assert_eq!(offset_of!(MapCreate, map_extra), 64);
        assert_eq!(offset_of!(Element, key), 8);
        assert_eq!(size_of::<Element>(), 32);
        assert_eq!(size_of::<Object>(), 16);
        assert_eq!(offset_of!(MapInfo, name), 24);
        assert_eq!(offset_of!(MapInfo, btf_id), 64);
        assert_eq!(size_of::<MapInfo>(), 88);
        assert_eq!(offset_of!(ProgramInfo, load_time), 40);
        assert_eq!(offset_of!(ProgramInfo, map_ids), 56);
        assert_eq!(size_of::<ProgramInfo>(), 80);
        assert_eq!(size_of::<LinkInfo>(), 64);
        assert_eq!(size_of::<GetInfo>(), 16);
        assert_eq!(offset_of!(BtfLoad, btf_size), 16);
        assert_eq!(size_of::<BtfLoad>(), 32);
        assert_eq!(size_of::<RawTracepointOpen>(), 16);
        assert_eq!(offset_of!(LinkCreate, options), 16);
        assert_eq!(size_of::<LinkCreate>(), 64);
        assert_eq!(size_of::<Attach>(), 20);
    }
}
