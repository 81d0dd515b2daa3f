//! Why bytes are no bundle, or a manifest cannot be written.

use std::io;

/// Bytes or structures that break the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end too early.
    #[error("{place}: needs {needed} bytes, found {found}: the bundle is truncated or damaged")]
    Truncated {
        /// What was read.
        place: String,
        /// Where it would have ended.
        needed: u64,
        /// Where the bytes end.
        found: u64,
    },
    /// Other magic bytes.
    #[error("{place}: expected the first bytes {}, found {}: this is something else", .expected.escape_ascii(), .found.escape_ascii())]
    Magic {
        /// What was read.
        place: &'static str,
        /// The right ones.
        expected: [u8; 8],
        /// Those found.
        found: [u8; 8],
    },
    /// Made for another version of the format.
    #[error(
        "{place}: expected format version {expected}, found {found}: build the bundle again with this version, or use the version that made it"
    )]
    Version {
        /// What was read.
        place: &'static str,
        /// The version that this code knows.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// Needs something that this version does not know.
    #[error("the bundle needs features {0:#x} that this version does not know: update preverify")]
    Features(u64),
    /// A value that is not allowed there.
    #[error("{place}: expected {expected}, found {found}")]
    Value {
        /// What was read.
        place: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Refers to something that is not there.
    #[error("{place}: refers to {table} {index}, but there are {count}")]
    Index {
        /// Who refers.
        place: String,
        /// To what list.
        table: &'static str,
        /// The index.
        index: u64,
        /// The number of elements.
        count: u64,
    },
    /// A section's bytes are not those that the manifest names.
    #[error(
        "section {section} ({kind}): its bytes do not have the digest that the manifest names: the bundle is damaged"
    )]
    Digest {
        /// The section's index.
        section: u32,
        /// Its kind.
        kind: crate::SectionKind,
    },
    /// More than the format can hold.
    #[error("{place}: {found} is more than the {limit} that the format allows")]
    TooMuch {
        /// Of what there is too much.
        place: String,
        /// The most.
        limit: u64,
        /// How much there is.
        found: u64,
    },
}

impl FormatError {
    pub(crate) fn value(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Value {
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Why a bundle could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system's word.
    #[error("cannot read {place}")]
    Io {
        /// What was read.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// It is no bundle, or a damaged one.
    #[error(transparent)]
    Format(#[from] FormatError),
}
