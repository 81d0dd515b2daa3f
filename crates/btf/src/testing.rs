//! BTF to test with, here and in other crates' tests.

use crate::types::{Btf, Kind, TypeId};

/// Puts BTF together.
#[derive(Debug)]
pub struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: TypeId,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            count: 0,
        }
    }
}

impl Builder {
    /// An integer.
    pub fn int(&mut self, name: &str, size: u32, signed: bool) -> TypeId {
        self.add(name, 1, 0, size, &[(u32::from(signed) << 24) | (size * 8)])
    }

    /// A pointer.
    pub fn pointer(&mut self, target: TypeId) -> TypeId {
        self.add("", 2, 0, target, &[])
    }

    /// An array.
    pub fn array(&mut self, element: TypeId, count: u32) -> TypeId {
        self.add("", 3, 0, 0, &[element, element, count])
    }

    /// A structure or union; members are names, types and offsets in bits.
    pub fn composite(
        &mut self,
        kind: Kind,
        name: &str,
        size: u32,
        members: &[(&str, TypeId, u32)],
    ) -> TypeId {
        let number = if kind == Kind::Union { 5 } else { 4 };
        let records: Vec<_> = members
            .iter()
            .flat_map(|(name, target, offset)| [self.string(name), *target, *offset])
            .collect();
        self.add(name, number, members.len(), size, &records)
    }

    /// An enumeration.
    pub fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> TypeId {
        let records: Vec<_> = values
            .iter()
            .flat_map(|(name, value)| [self.string(name), value.cast_unsigned()])
            .collect();
        self.add(name, (1 << 7) | 6, values.len(), 4, &records)
    }

    /// A typedef.
    pub fn typedef(&mut self, name: &str, target: TypeId) -> TypeId {
        self.add(name, 8, 0, target, &[])
    }

    /// A function; parameters are names and types.
    pub fn function(
        &mut self,
        name: &str,
        returns: TypeId,
        parameters: &[(&str, TypeId)],
    ) -> TypeId {
        let records: Vec<_> = parameters
            .iter()
            .flat_map(|(name, target)| [self.string(name), *target])
            .collect();
        let prototype = self.add("", 13, parameters.len(), returns, &records);
        self.add(name, 12, 0, prototype, &[])
    }

    /// A variable.
    pub fn variable(&mut self, name: &str, target: TypeId) -> TypeId {
        self.add(name, 14, 0, target, &[1])
    }

    /// A section; entries are variables or functions, offsets and sizes.
    pub fn section(&mut self, name: &str, entries: &[(TypeId, u32, u32)]) -> TypeId {
        let records: Vec<_> = entries
            .iter()
            .flat_map(|(target, offset, size)| [*target, *offset, *size])
            .collect();
        self.add(name, 15, entries.len(), 0, &records)
    }

    /// The BTF as it lies in files.
    pub fn bytes(&self) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let types = length(self.types.len() * 4);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, length(self.strings.len())] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.types.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(&self.strings);
        bytes
    }

    /// The BTF.
    pub fn btf(&self) -> Btf {
        Btf::parse(&self.bytes()).unwrap()
    }

    /// Adds a name, and says where it is.
    pub fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    /// `kind`: bit 7 is the kind's flag.
    fn add(&mut self, name: &str, kind: u32, count: usize, third: u32, rest: &[u32]) -> TypeId {
        let name = self.string(name);
        let count = u32::try_from(count).unwrap();
        self.types.extend([name, (kind << 24) | count, third]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }
}
