//! The records of a preverify bundle and the kernel part's interface to user space.
//!
//! This crate is the one definition of every byte that crosses a border: between the machine
//! that verifies and the device, and between user space and the kernel part. The C header
//! `kernel/include/preverified.h` is generated from it (`cargo xtask header`).
//!
//! All records are little-endian, have a fixed size that is a multiple of eight (the few
//! exceptions are packed arrays of bytes), no implicit padding, and refer to each other by index
//! or by [`Table`] and [`Range`], never by pointer. A reserved field is zero, and a reader refuses
//! anything else.
//!
//! - [`manifest`]: what is signed.
//! - [`image`]: one program made loadable, and the symbols that it needs from one kernel.
//! - [`export`]: what the verifier VM's kernel part tells about a loaded program.
//! - [`ioctl`]: how user space talks to the kernel part.
//! - [`kinds`]: names of the kernel's enumerations, for people.
//! - [`words`]: a machine's fingerprint, for people.
//! - [`container`]: the `.pvb` file around a manifest, its signature and its sections. Kernels
//!   never see it.
#![no_std]
#![forbid(unsafe_code)]

pub mod container;
pub mod export;
pub mod image;
pub mod ioctl;
pub mod kinds;
pub mod manifest;
pub mod words;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version of everything in this crate; it changes whenever a layout or a meaning does.
pub const ABI_VERSION: u32 = 3;

/// An index that refers to nothing.
pub const NONE: u32 = u32::MAX;

/// `count` records, the first at `offset` bytes from the start of the enclosing header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Table {
    /// Bytes from the start of the enclosing header to the first record.
    pub offset: U32,
    /// Number of records.
    pub count: U32,
}

/// `count` neighbouring records of a table, the first at index `first`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Range {
    /// Index of the first record, or offset of the first byte of a string.
    pub first: U32,
    /// Number of records, or of bytes of a string.
    pub count: U32,
}

/// Asserts the size of each record and the offset of each field, so that a change of layout is
/// never an accident.
macro_rules! assert_layout {
    ($($record:ident { $($field:ident @ $offset:literal),+ $(,)? } = $size:literal;)+) => {
        const _: () = {
            $(
                assert!(size_of::<$record>() == $size);
                $(assert!(core::mem::offset_of!($record, $field) == $offset);)+
            )+
        };
    };
}
pub(crate) use assert_layout;

assert_layout! {
    Table { offset @ 0, count @ 4 } = 8;
    Range { first @ 0, count @ 4 } = 8;
}
