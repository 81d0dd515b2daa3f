//! Records of the ABI in bytes that nobody has checked yet.

use preverify_abi::{Range, Table};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A table or a range that does not fit its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoundsError {
    /// The header is cut off.
    #[error("{found} bytes are fewer than the header's {expected}")]
    Header {
        /// Bytes of the header.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// A table reaches behind the end.
    #[error(
        "the table `{table}` ({count} records of {record} bytes at offset {offset}) does not lie within the {size} bytes"
    )]
    Table {
        /// The table's name.
        table: &'static str,
        /// Its offset.
        offset: u32,
        /// Its number of records.
        count: u32,
        /// Bytes of one record.
        record: usize,
        /// Bytes there are.
        size: usize,
    },
    /// A range reaches behind its table's end.
    #[error(
        "{owner} names records {first} to {first} + {count} of the table `{table}`, which has {size}"
    )]
    Range {
        /// Who names the range.
        owner: String,
        /// The table's name.
        table: &'static str,
        /// First record.
        first: u32,
        /// Number of records.
        count: u32,
        /// Number of records in the table.
        size: usize,
    },
}

/// The header at the start of `bytes`.
pub(crate) fn header<T>(bytes: &[u8]) -> Result<&T, BoundsError>
where
    T: FromBytes + KnownLayout + Immutable,
{
    match T::ref_from_prefix(bytes) {
        Ok((header, _)) => Ok(header),
        Err(_) => Err(BoundsError::Header {
            expected: size_of::<T>(),
            found: bytes.len(),
        }),
    }
}

/// The records of a table; `name` is for the error.
pub(crate) fn table<'a, T>(
    bytes: &'a [u8],
    name: &'static str,
    table: Table,
) -> Result<&'a [T], BoundsError>
where
    T: FromBytes + KnownLayout + Immutable,
{
    let (offset, count) = (table.offset.get(), table.count.get());
    let records = || {
        let start = usize::try_from(offset).ok()?;
        let length = usize::try_from(count).ok()?.checked_mul(size_of::<T>())?;
        let records = bytes.get(start..start.checked_add(length)?)?;
        <[T]>::ref_from_bytes(records).ok()
    };
    records().ok_or(BoundsError::Table {
        table: name,
        offset,
        count,
        record: size_of::<T>(),
        size: bytes.len(),
    })
}

/// The records of a range of the table `name`; `owner` says who names it.
pub(crate) fn range<'a, T>(
    records: &'a [T],
    name: &'static str,
    range: Range,
    owner: impl Fn() -> String,
) -> Result<&'a [T], BoundsError> {
    let (first, count) = (range.first.get(), range.count.get());
    let chosen = || {
        let start = usize::try_from(first).ok()?;
        records.get(start..start.checked_add(usize::try_from(count).ok()?)?)
    };
    chosen().ok_or_else(|| BoundsError::Range {
        owner: owner(),
        table: name,
        first,
        count,
        size: records.len(),
    })
}
