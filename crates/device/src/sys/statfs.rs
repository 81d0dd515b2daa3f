//! `fstatfs(2)`.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::check;

const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// Whether a folder lies in a BPF file system.
pub fn is_bpf_fs(folder: &Path) -> io::Result<bool> {
    let folder = File::open(folder)?;
    let mut facts = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and the kernel writes one `struct statfs`.
    let returned = unsafe { libc::fstatfs(folder.as_raw_fd(), facts.as_mut_ptr()) };
    check(libc::c_long::from(returned))?;
    // SAFETY: the kernel has filled it.
    let facts = unsafe { facts.assume_init() };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "magic numbers have 32 bits, whatever the field's type"
    )]
    let magic = facts.f_type as u32;
    Ok(magic == BPF_FS_MAGIC)
}
