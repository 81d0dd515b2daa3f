//! The system calls of the kernel part.
//!
//! The device's module answers on `/dev/bpf_preverified`: [`IOC_INFO`] and [`IOC_OPEN`] on the
//! device itself, [`IOC_LOAD`] on the bundle's file descriptor that [`IOC_OPEN`] returns. The
//! verifier VM's module answers on `/dev/bpf_preverified_export`: [`IOC_INFO`] and
//! [`IOC_EXPORT`].
//!
//! Every call returns zero or a negative errno, and on a refusal leaves one sentence in `reason`.
//! Integers here are in the machine's order, as everywhere between a kernel and its user space.
//!
//! Each errno is one kind of refusal; the sentence says which case of it:
//!
//! | errno | what is refused |
//! |---|---|
//! | `ENOEXEC` | a bundle, or an image of it, that is good, but for another kernel build or another machine: architecture, page size, CPUs, mitigations and lockdown; for native images CPU features, address bits, `bpf_jit_harden`, thunks, CFI as well |
//! | `ENOKEY`, `EKEYREJECTED`, `ENOPKG` | a signature by nobody who is trusted, of another manifest, or by an algorithm that the kernel lacks |
//! | `EBADMSG` | a manifest, image or signature that is malformed, or a section that is not the signed one |
//! | `EPROTONOSUPPORT` | another version of the format |
//! | `EOPNOTSUPP` | a feature or a type of program that the kernel part does not know, or that a setting of this kernel forbids |
//! | `EINVAL` | a map that is not as it was verified, or a call that is not as described here |
//! | `ENOENT` | a program or an image that the bundle does not have |
//! | `E2BIG` | more bytes or maps than the format allows for |
//! | `ERANGE` | an address that does not fit where the code wants it |
//! | `EPERM` | a caller without the capabilities, or a keyring that is still open |
//! | `EBUSY`, `ENOSPC` | an export: of a program whose prog array is filled, or into a buffer that is too small |
//!
//! Beside these, `EFAULT`, `ENOMEM`, and what the kernel's own functions say.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::assert_layout;
use crate::manifest::Fingerprint;

/// The device's character device.
pub const DEVICE_PATH: &str = "/dev/bpf_preverified";
/// The verifier VM's character device.
pub const EXPORT_DEVICE_PATH: &str = "/dev/bpf_preverified_export";
/// The keyring whose certificates the kernel part trusts. It starts empty and open; nothing
/// loads before user space has restricted it.
pub const KEYRING_NAME: &str = ".bpf_preverified";

/// Bytes of a reason, with its terminating zero.
pub const REASON_SIZE: usize = 128;

/// Tells who answers: `_IOR('p', 0xb0, struct pv_machine_info)`.
pub const IOC_INFO: u32 = ior(0xb0, size_of::<Info>());
/// Opens a bundle: `_IOWR('p', 0xb1, struct pv_open)`; returns a file descriptor.
pub const IOC_OPEN: u32 = iowr(0xb1, size_of::<Open>());
/// Loads one program of a bundle: `_IOWR('p', 0xb2, struct pv_load)`; returns a program's
/// file descriptor.
pub const IOC_LOAD: u32 = iowr(0xb2, size_of::<Load>());
/// Exports a loaded program: `_IOWR('p', 0xb3, struct pv_export)`.
pub const IOC_EXPORT: u32 = iowr(0xb3, size_of::<Export>());

const fn ior(number: u32, size: usize) -> u32 {
    ioc(2, number, size)
}

const fn iowr(number: u32, size: usize) -> u32 {
    ioc(3, number, size)
}

const fn ioc(direction: u32, number: u32, size: usize) -> u32 {
    assert!(size < 1 << 14);
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let size = size as u32;
    direction << 30 | size << 16 | (b'p' as u32) << 8 | number
}

/// Who answers, and on what machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Info {
    /// [`crate::ABI_VERSION`] of the kernel part.
    pub abi_version: u32,
    /// Bytes of `build_id` that count.
    pub build_id_size: u32,
    /// The running kernel's GNU build id, followed by zeroes.
    pub build_id: [u8; 32],
    /// This machine's fingerprint.
    pub fingerprint: Fingerprint,
}

impl Info {
    /// The running kernel's GNU build id: the bytes that count.
    pub fn build_id(&self) -> &[u8] {
        let size = self.build_id_size as usize;
        &self.build_id[..size.min(self.build_id.len())]
    }
}

/// A bundle to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Open {
    /// In: address of the manifest.
    pub manifest: u64,
    /// In: address of the detached CMS signature (DER) over the manifest.
    pub signature: u64,
    /// In: bytes of the manifest.
    pub manifest_size: u32,
    /// In: bytes of the signature.
    pub signature_size: u32,
    /// Out: the index of the target of the manifest that fits this machine.
    pub target: u32,
    /// In: zero.
    pub flags: u32,
    /// Out: `OPEN_*` bits: which images of that target fit.
    pub fit: u32,
    /// In: zero.
    pub reserved: u32,
    /// Out: why the bundle was refused, or why native images do not fit if only they do not.
    pub reason: [u8; REASON_SIZE],
}

/// Native images fit this machine.
pub const OPEN_NATIVE: u32 = 1 << 0;
/// Bytecode images fit this machine.
pub const OPEN_BYTECODE: u32 = 1 << 1;

/// A program to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Load {
    /// In: address of the image section.
    pub image: u64,
    /// In: address of the symbols section.
    pub symbols: u64,
    /// In: address of the file descriptors (`s32`) of the program's maps, in the order of its
    /// `map_refs`.
    pub map_fds: u64,
    /// In: bytes of the image section.
    pub image_size: u32,
    /// In: bytes of the symbols section.
    pub symbols_size: u32,
    /// In: number of `map_fds`.
    pub map_count: u32,
    /// In: the program, an index into the manifest's whole table `programs`.
    pub program: u32,
    /// In: zero.
    pub flags: u32,
    /// In: which of the program's images `image` and `symbols` are: [`crate::image::IMAGE_NATIVE`] or
    /// [`crate::image::IMAGE_BYTECODE`].
    pub kind: u32,
    /// Out: why the program was refused.
    pub reason: [u8; REASON_SIZE],
}

/// A loaded program to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Export {
    /// In: address of the buffer for the [`crate::export::ExportHeader`] and what follows it.
    pub buffer: u64,
    /// In: bytes of the buffer. Out: bytes of the export; with `ENOSPC` the bytes that it needs.
    pub size: u32,
    /// In: the program's file descriptor.
    pub program: i32,
    /// Out: why it cannot be exported.
    pub reason: [u8; REASON_SIZE],
}

assert_layout! {
    Info { abi_version @ 0, build_id_size @ 4, build_id @ 8, fingerprint @ 40 } = 104;
    Open {
        manifest @ 0, signature @ 8, manifest_size @ 16, signature_size @ 20, target @ 24,
        flags @ 28, fit @ 32, reserved @ 36, reason @ 40,
    } = 168;
    Load {
        image @ 0, symbols @ 8, map_fds @ 16, image_size @ 24, symbols_size @ 28, map_count @ 32,
        program @ 36, flags @ 40, kind @ 44, reason @ 48,
    } = 176;
    Export { buffer @ 0, size @ 8, program @ 12, reason @ 16 } = 144;
}
