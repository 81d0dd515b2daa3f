//! How tables lie behind a header.

use preverify_abi::Table;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::FormatError;

/// Tables start at multiples of this.
pub(crate) const TABLE_ALIGNMENT: usize = 8;

/// The next multiple of [`TABLE_ALIGNMENT`].
pub(crate) fn aligned(size: usize) -> usize {
    size.next_multiple_of(TABLE_ALIGNMENT)
}

/// `size` as the format stores it.
pub(crate) fn number(place: &str, size: usize, limit: u32) -> Result<u32, FormatError> {
    u32::try_from(size)
        .ok()
        .filter(|&size| size <= limit)
        .ok_or_else(|| FormatError::TooMuch {
            place: place.to_owned(),
            limit: limit.into(),
            found: size as u64,
        })
}

/// Appends a table to `bytes` at the next aligned place.
pub(crate) fn append<T: IntoBytes + Immutable>(
    bytes: &mut Vec<u8>,
    place: &str,
    records: &[T],
) -> Result<Table, FormatError> {
    bytes.resize(aligned(bytes.len()), 0);
    let offset = number(place, bytes.len(), u32::MAX)?;
    let count = number(place, records.len(), u32::MAX)?;
    bytes.extend_from_slice(records.as_bytes());
    Ok(Table {
        offset: offset.into(),
        count: count.into(),
    })
}

/// The records of a table somewhere in `bytes`.
pub(crate) fn records<'a, T: FromBytes + Immutable>(
    bytes: &'a [u8],
    place: &str,
    table: Table,
) -> Result<&'a [T], FormatError> {
    let truncated = || FormatError::Truncated {
        place: place.to_owned(),
        needed: u64::from(table.offset.get())
            .saturating_add(u64::from(table.count.get()) * size_of::<T>() as u64),
        found: bytes.len() as u64,
    };
    let offset = usize::try_from(table.offset.get()).map_err(|_| truncated())?;
    if offset % TABLE_ALIGNMENT != 0 {
        return Err(FormatError::value(
            place,
            format!("an offset that is a multiple of {TABLE_ALIGNMENT}"),
            offset.to_string(),
        ));
    }
    let count = usize::try_from(table.count.get()).map_err(|_| truncated())?;
    let rest = bytes.get(offset..).ok_or_else(truncated)?;
    let (records, _) = <[T]>::ref_from_prefix_with_elems(rest, count).map_err(|_| truncated())?;
    Ok(records)
}
