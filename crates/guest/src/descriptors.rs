//! What the kernel tells about maps, programs and BTF by their file descriptors, and does to them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libbpf_sys as sys;

/// `struct bpf_prog_info`.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<sys::bpf_prog_info> {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_u32(&info);
    // SAFETY: the kernel writes up to `size` bytes; no pointer in `info` asks for more.
    check(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut size) })?;
    Ok(info)
}

/// `struct bpf_map_info`.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<sys::bpf_map_info> {
    let mut info = sys::bpf_map_info::default();
    let mut size = size_u32(&info);
    // SAFETY: the kernel writes up to `size` bytes; no pointer in `info` asks for more.
    check(unsafe { sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut size) })?;
    Ok(info)
}

/// A BTF's bytes as the kernel holds them.
pub fn btf_bytes(btf: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let size = btf_info(btf, &mut [], &mut [])?.btf_size;
    let mut bytes = vec![0; size as usize];
    btf_info(btf, &mut bytes, &mut [])?;
    Ok(bytes)
}

/// Whose BTF it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BtfOwner {
    /// The kernel's itself.
    Kernel,
    /// A kernel module's.
    Module,
    /// A program's.
    Program,
}

/// Asks whose BTF has this id.
pub fn btf_owner(id: u32) -> io::Result<BtfOwner> {
    // SAFETY: no pointers.
    let fd = check(unsafe { sys::bpf_btf_get_fd_by_id(id) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut name = [0; 64];
    let info = btf_info(fd.as_fd(), &mut [], &mut name)?;
    Ok(match (info.kernel_btf, name.starts_with(b"vmlinux\0")) {
        (0, _) => BtfOwner::Program,
        (_, true) => BtfOwner::Kernel,
        (_, false) => BtfOwner::Module,
    })
}

/// The contents of a map of global data: an array with one element.
pub fn global_data(map: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let info = map_info(map)?;
    if (info.type_, info.key_size) != (sys::BPF_MAP_TYPE_ARRAY, 4) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut value = vec![0; info.value_size as usize];
    let key = 0_u32;
    // SAFETY: the map's keys have four bytes, and `value` has as many as its values.
    check(unsafe {
        sys::bpf_map_lookup_elem(
            map.as_raw_fd(),
            ptr::from_ref(&key).cast(),
            value.as_mut_ptr().cast(),
        )
    })?;
    Ok(value)
}

/// A map whose entries are programs or maps, and whose keys are integers of four bytes: what
/// objects can fill from the start.
#[derive(Clone, Copy)]
pub struct SlotMap<'a> {
    map: BorrowedFd<'a>,
    max_entries: u32,
    kind: SlotKind,
}

/// What a [`SlotMap`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A prog array.
    Programs,
    /// An array of maps.
    ArrayOfMaps,
    /// A hash of maps.
    HashOfMaps,
}

impl<'a> SlotMap<'a> {
    /// The map, if it is one.
    pub fn new(map: BorrowedFd<'a>) -> io::Result<Option<Self>> {
        let info = map_info(map)?;
        let kind = match info.type_ {
            sys::BPF_MAP_TYPE_PROG_ARRAY => SlotKind::Programs,
            sys::BPF_MAP_TYPE_ARRAY_OF_MAPS => SlotKind::ArrayOfMaps,
            sys::BPF_MAP_TYPE_HASH_OF_MAPS => SlotKind::HashOfMaps,
            _ => return Ok(None),
        };
        Ok(
            (info.key_size == 4 && info.value_size == 4).then_some(Self {
                map,
                max_entries: info.max_entries,
                kind,
            }),
        )
    }

    /// What it is.
    pub fn kind(self) -> SlotKind {
        self.kind
    }

    /// Whether the kernel shows what it holds. Where pointers have 32 bits, kernels look for the slots of an array eight
    /// bytes apart and not four (`array_map_lookup_elem`), so they show other slots than those that were asked for.
    pub fn is_shown(self) -> bool {
        usize::BITS == 64 || self.kind == SlotKind::HashOfMaps
    }

    /// Empties all slots of an array, and tells whether one held something: the kernel shows that much.
    pub fn empty(self) -> io::Result<bool> {
        let mut held = false;
        for key in 0..self.max_entries {
            match self.clear(key) {
                Ok(()) => held = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// All keys that hold something, and the ids of the programs or maps that they hold.
    pub fn contents(self) -> io::Result<Vec<(u32, u32)>> {
        let keys = match self.kind {
            SlotKind::Programs | SlotKind::ArrayOfMaps => (0..self.max_entries).collect(),
            SlotKind::HashOfMaps => self.keys()?,
        };
        let mut contents = Vec::new();
        for key in keys {
            if let Some(id) = self.get(key)? {
                contents.push((key, id));
            }
        }
        contents.sort_unstable();
        Ok(contents)
    }

    /// Empties a slot.
    pub fn clear(self, key: u32) -> io::Result<()> {
        // SAFETY: the map's keys have four bytes.
        check(unsafe {
            sys::bpf_map_delete_elem(self.map.as_raw_fd(), ptr::from_ref(&key).cast())
        })?;
        Ok(())
    }

    /// Fills a slot with a program or map.
    pub fn set(self, key: u32, content: BorrowedFd<'_>) -> io::Result<()> {
        let value: RawFd = content.as_raw_fd();
        // SAFETY: the map's keys and values have four bytes each.
        check(unsafe {
            sys::bpf_map_update_elem(
                self.map.as_raw_fd(),
                ptr::from_ref(&key).cast(),
                ptr::from_ref(&value).cast(),
                sys::BPF_ANY.into(),
            )
        })?;
        Ok(())
    }

    fn get(self, key: u32) -> io::Result<Option<u32>> {
        let mut id = 0_u32;
        // SAFETY: the map's keys and values have four bytes each.
        let result = unsafe {
            sys::bpf_map_lookup_elem(
                self.map.as_raw_fd(),
                ptr::from_ref(&key).cast(),
                ptr::from_mut(&mut id).cast(),
            )
        };
        present(result, id)
    }

    fn keys(self) -> io::Result<Vec<u32>> {
        let mut keys: Vec<u32> = Vec::new();
        loop {
            let last = keys.last().map_or(ptr::null(), ptr::from_ref);
            let mut next = 0_u32;
            // SAFETY: the map's keys have four bytes; null stands for the start.
            let result = unsafe {
                sys::bpf_map_get_next_key(
                    self.map.as_raw_fd(),
                    last.cast(),
                    ptr::from_mut(&mut next).cast(),
                )
            };
            match present(result, next)? {
                Some(key) => keys.push(key),
                None => return Ok(keys),
            }
        }
    }
}

/// Opens a program that is pinned in a BPF file system.
pub fn pinned(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: the path ends with its zero.
    let fd = check(unsafe { sys::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn btf_info(
    btf: BorrowedFd<'_>,
    bytes: &mut [u8],
    name: &mut [u8],
) -> io::Result<sys::bpf_btf_info> {
    let mut info = sys::bpf_btf_info {
        btf: address(bytes),
        btf_size: length(bytes)?,
        name: address(name),
        name_len: length(name)?,
        ..Default::default()
    };
    let mut size = size_u32(&info);
    // SAFETY: the kernel writes up to `size` bytes to `info`, and what it says to the two slices.
    check(unsafe { sys::bpf_btf_get_info_by_fd(btf.as_raw_fd(), &mut info, &mut size) })?;
    Ok(info)
}

/// Nothing has no address.
fn address(bytes: &mut [u8]) -> u64 {
    match bytes {
        [] => 0,
        bytes => bytes.as_mut_ptr().expose_provenance() as u64,
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

fn size_u32<T>(_: &T) -> u32 {
    const { assert!(size_of::<T>() <= 1 << 16) };
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let size = size_of::<T>() as u32;
    size
}

fn present<T>(result: i32, value: T) -> io::Result<Option<T>> {
    match check(result) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// libbpf's wrappers return the result, or a negative errno.
fn check(result: i32) -> io::Result<i32> {
    match result {
        0.. => Ok(result),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}
