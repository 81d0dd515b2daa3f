//! What the section `.BTF.ext` of an object asks libbpf for: of that, the numbers of the kernel's types.

use crate::read::word;
use crate::types::{Btf, Kind};

/// An instruction that libbpf writes the number of a kernel's type into (`bpf_core_type_id_kernel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeNumber<'a> {
    /// The section of the instruction.
    pub section: &'a str,
    /// Bytes from its start to the instruction.
    pub offset: u32,
    /// The type, by what it is called; none for types that names are not looked up for, as integers.
    pub named: Option<(Kind, &'a str)>,
}

/// `BPF_CORE_TYPE_ID_TARGET`.
const TYPE_ID_TARGET: u32 = 7;
/// Bytes of the header as far as it is needed.
const HEADER: usize = 32;

impl Btf {
    /// The numbers of kernels' types that an object wants, by the contents of its `.BTF.ext`; this is its `.BTF`. None if
    /// they cannot be read.
    pub fn type_numbers(&self, ext: &[u8]) -> Option<Vec<TypeNumber<'_>>> {
        if !ext.starts_with(&[0x9f, 0xeb, 1]) {
            return None;
        }
        let head = size(ext, 4)?;
        if head < HEADER {
            // Written before there was CO-RE.
            return Some(Vec::new());
        }
        let start = head.checked_add(size(ext, 24)?)?;
        let end = start.checked_add(size(ext, 28)?)?;
        let mut rest = ext.get(start..end)?;
        let mut found = Vec::new();
        if rest.is_empty() {
            return Some(found);
        }
        let record_size = size(rest, 0)?;
        if record_size < 16 {
            return None;
        }
        rest = rest.get(4..)?;
        while !rest.is_empty() {
            let section = self.text(word(rest, 0)?);
            let count = size(rest, 4)?;
            let records = rest.get(8..)?;
            let end = count.checked_mul(record_size)?;
            for record in records.get(..end)?.chunks_exact(record_size) {
                if word(record, 12)? == TYPE_ID_TARGET {
                    found.push(TypeNumber {
                        section,
                        offset: word(record, 0)?,
                        named: self.named_type(word(record, 4)?),
                    });
                }
            }
            rest = records.get(end..)?;
        }
        Some(found)
    }
}

/// A word that counts bytes or records.
fn size(bytes: &[u8], at: usize) -> Option<usize> {
    word(bytes, at)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;
    use crate::types::TypeId;

    /// With relocations of two kinds in one section.
    fn ext(section: u32, types: [TypeId; 2]) -> Vec<u8> {
        let records = [
            [16, types[0], 0, TYPE_ID_TARGET],
            [24, types[0], 0, 6],
            [32, types[1], 0, TYPE_ID_TARGET],
        ];
        let relocations: Vec<u32> = [16, section, 3]
            .into_iter()
            .chain(records.concat())
            .collect();
        let size = u32::try_from(relocations.len() * 4).unwrap();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [32, 0, 0, 0, 0, 0, size].iter().chain(&relocations) {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn numbers_of_types_are_found() {
        let mut own = Builder::default();
        let int = own.int("int", 4, true);
        let sock = own.composite(Kind::Struct, "unix_sock", 8, &[]);
        let section = own.string("cgroup/bind4");
        let own = own.btf();
        let bytes = ext(section, [sock, int]);
        let number = |offset, named| TypeNumber {
            section: "cgroup/bind4",
            offset,
            named,
        };
        assert_eq!(
            own.type_numbers(&bytes).unwrap(),
            [
                number(16, Some((Kind::Struct, "unix_sock"))),
                number(32, None)
            ]
        );
        for length in 0..bytes.len() {
            assert_eq!(own.type_numbers(&bytes[..length]), None, "{length} bytes");
        }
        let mut endless = bytes.clone();
        endless[32] = 0;
        assert_eq!(own.type_numbers(&endless), None);
        let mut old = bytes;
        old[4] = 24;
        assert_eq!(own.type_numbers(&old), Some(Vec::new()));
    }
}
