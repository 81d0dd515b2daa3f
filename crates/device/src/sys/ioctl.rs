//! `ioctl(2)` on the kernel part's device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use preverify_abi::ioctl::{IOC_INFO, IOC_LOAD, IOC_OPEN, Info, Load, Open};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{check, own};

/// Asks who answers.
pub fn info(device: BorrowedFd<'_>) -> io::Result<Info> {
    let mut info = Info::new_zeroed();
    // SAFETY: the command has the size of its argument, which holds no address.
    check(unsafe { ioctl(device, IOC_INFO, &mut info) })?;
    Ok(info)
}

/// Opens a bundle. `argument.target` and `argument.reason` are the kernel's answer; its addresses
/// and sizes are set here.
pub fn open(
    device: BorrowedFd<'_>,
    manifest: &[u8],
    signature: &[u8],
    argument: &mut Open,
) -> io::Result<OwnedFd> {
    argument.manifest = manifest.as_ptr().addr() as u64;
    argument.manifest_size = size(manifest)?;
    argument.signature = signature.as_ptr().addr() as u64;
    argument.signature_size = size(signature)?;
    // SAFETY: the command has the size of its argument, whose addresses are those of slices of
    // the given sizes; what returns is a new file descriptor.
    unsafe { own(ioctl(device, IOC_OPEN, argument)) }
}

/// Loads a program. `argument.program` says which; addresses and sizes are set here;
/// `argument.reason` is the kernel's answer.
pub fn load(
    bundle: BorrowedFd<'_>,
    image: &[u8],
    symbols: &[u8],
    maps: &[BorrowedFd<'_>],
    argument: &mut Load,
) -> io::Result<OwnedFd> {
    let maps: Vec<i32> = maps.iter().map(AsRawFd::as_raw_fd).collect();
    argument.image = image.as_ptr().addr() as u64;
    argument.image_size = size(image)?;
    argument.symbols = symbols.as_ptr().addr() as u64;
    argument.symbols_size = size(symbols)?;
    argument.map_fds = maps.as_ptr().addr() as u64;
    argument.map_count = size(&maps)?;
    // SAFETY: the command has the size of its argument, whose addresses are those of slices of
    // the given sizes; what returns is a new file descriptor.
    unsafe { own(ioctl(bundle, IOC_LOAD, argument)) }
}

fn size<T>(slice: &[T]) -> io::Result<u32> {
    u32::try_from(slice.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too large for the kernel part"))
}

/// The system call itself.
///
/// # Safety
///
/// `command` must take an argument of this type, and all addresses in it must be valid for it.
unsafe fn ioctl<A: IntoBytes + FromBytes>(
    device: BorrowedFd<'_>,
    command: u32,
    argument: &mut A,
) -> libc::c_long {
    // SAFETY: the caller answers for command and argument.
    let returned = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            libc::c_ulong::from(command) as _, // an int with some C libraries
            argument.as_mut_bytes().as_mut_ptr(),
        )
    };
    libc::c_long::from(returned)
}
