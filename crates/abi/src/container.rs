//! The `.pvb` file: a header, a manifest, its signature, and the sections that the manifest
//! names by digest.
//!
//! Nothing here is signed, and nothing here needs to be: the signature covers the manifest, the
//! manifest covers the sections. A tool that re-packs a bundle changes no signed byte.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::assert_layout;

/// The first bytes of every bundle file.
pub const CONTAINER_MAGIC: [u8; 8] = *b"PVBUNDLE";

/// Sections start at multiples of this.
pub const SECTION_ALIGNMENT: u64 = 8;

/// The head of a bundle file. It is followed by one [`Placement`] for each section of the
/// manifest, in the manifest's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ContainerHeader {
    /// [`CONTAINER_MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`].
    pub version: U32,
    /// Number of [`Placement`] records behind this header.
    pub section_count: U32,
    /// Where the manifest lies in the file.
    pub manifest: Placement,
    /// Where the detached CMS signature (DER) lies; its size is zero in an unsigned bundle.
    pub signature: Placement,
}

/// Where some bytes lie in the file.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Placement {
    /// Bytes from the start of the file.
    pub offset: U64,
    /// Number of bytes.
    pub size: U64,
}

assert_layout! {
    ContainerHeader { magic @ 0, version @ 8, section_count @ 12, manifest @ 16, signature @ 32 } = 48;
    Placement { offset @ 0, size @ 8 } = 16;
}
