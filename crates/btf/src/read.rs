//! BTF from its bytes.

use crate::types::{Btf, Entry, Kind, Member, Type, TypeId};

/// How deep types lie in each other at most; kernels have a third of that.
const MOST_LEVELS: u32 = 64;

/// Bytes that are no BTF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// No header of BTF.
    #[error("expected raw BTF (first bytes 9f eb 01), found something else")]
    Magic,
    /// It ends too early.
    #[error("the BTF is truncated: {what} does not lie within its {size} bytes")]
    Truncated {
        /// What would be there.
        what: String,
        /// Bytes that there are.
        size: usize,
    },
    /// Names that are no text.
    #[error("the names in the BTF are no UTF-8, or the last does not end")]
    Strings,
    /// A kind that is not known here.
    #[error("type {id} of the BTF is of kind {kind}, which this version does not know")]
    Kind {
        /// The type.
        id: TypeId,
        /// Its kind.
        kind: u32,
    },
    /// A reference to nothing.
    #[error("type {id} of the BTF refers to type {target}, but there are {count}")]
    Reference {
        /// The type.
        id: TypeId,
        /// What it refers to.
        target: TypeId,
        /// How many types there are.
        count: usize,
    },
    /// A type that holds itself, or nearly so.
    #[error(
        "type {0} of the BTF holds types that hold others, more than {MOST_LEVELS} levels deep"
    )]
    Levels(TypeId),
}

const HEADER: usize = 24;

impl Btf {
    /// Reads raw BTF, as in `/sys/kernel/btf/vmlinux` or a section `.BTF`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        if !bytes.starts_with(&[0x9f, 0xeb, 1]) {
            return Err(BtfError::Magic);
        }
        let truncated = |what: &str| BtfError::Truncated {
            what: what.to_owned(),
            size: bytes.len(),
        };
        let field = |at: usize| word(bytes, at).ok_or_else(|| truncated("the header"));
        field(HEADER - 4)?;
        let head = field(4)?;
        let part = |at: usize, what| {
            let start = u64::from(head) + u64::from(field(at)?);
            let end = start + u64::from(field(at + 4)?);
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let range = range.and_then(|(start, end)| bytes.get(start..end));
            range.ok_or_else(|| truncated(what))
        };
        let (types, strings) = (part(8, "the table of types")?, part(16, "the names")?);
        let strings = String::from_utf8(strings.to_vec()).map_err(|_| BtfError::Strings)?;
        if !strings.ends_with('\0') {
            return Err(BtfError::Strings);
        }
        let types = read_types(types)?;
        check_references(&types)?;
        for way in [Way::Spelled, Way::Held] {
            let mut levels = Levels::of(&types, &strings, way);
            for id in (0..).take(types.len()) {
                levels.below(id, 0).ok_or(BtfError::Levels(id))?;
            }
        }
        Ok(Self::new(types, strings))
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

fn read_types(bytes: &[u8]) -> Result<Vec<Type>, BtfError> {
    let mut types = vec![Type::Void];
    let mut words = Words { bytes, at: 0 };
    while words.at < bytes.len() {
        let id = TypeId::try_from(types.len()).unwrap_or(TypeId::MAX);
        let found = words.next_type(id)?;
        types.push(found);
    }
    Ok(types)
}

/// Walks over 32-bit words.
struct Words<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn next<const COUNT: usize>(&mut self, id: TypeId) -> Result<[u32; COUNT], BtfError> {
        let mut words = [0; COUNT];
        for found in &mut words {
            *found = word(self.bytes, self.at).ok_or_else(|| BtfError::Truncated {
                what: format!("type {id}"),
                size: self.bytes.len(),
            })?;
            self.at += 4;
        }
        Ok(words)
    }

    /// As many records as a type has.
    fn list<const COUNT: usize, T>(
        &mut self,
        id: TypeId,
        count: u32,
        make: impl Fn([u32; COUNT]) -> T,
    ) -> Result<Vec<T>, BtfError> {
        (0..count).map(|_| Ok(make(self.next(id)?))).collect()
    }

    fn next_type(&mut self, id: TypeId) -> Result<Type, BtfError> {
        let [name, info, third] = self.next(id)?;
        let (count, kind, flag) = (info & 0xffff, (info >> 24) & 0x1f, info >> 31 != 0);
        let (size, target) = (third, third);
        let composite = |is_union| if is_union { Kind::Union } else { Kind::Struct };
        let qualified = |qualifier| Type::Qualified { qualifier, target };
        Ok(match kind {
            1 => {
                let [encoding] = self.next(id)?;
                let signed = (encoding >> 24) & 1 != 0;
                Type::Int { name, size, signed }
            }
            2 => Type::Pointer(target),
            3 => {
                let [element, _index, count] = self.next(id)?;
                Type::Array { element, count }
            }
            4 | 5 => Type::Composite {
                kind: composite(kind == 5),
                name,
                size,
                members: self.list(id, count, |[name, target, place]| Member {
                    name,
                    target,
                    offset: if flag { place & 0xff_ffff } else { place },
                    bits: if flag { place >> 24 } else { 0 },
                })?,
            },
            6 => Type::Enum {
                name,
                size,
                values: self.list(id, count, |[name, value]| {
                    let signed = i128::from(value.cast_signed());
                    (name, if flag { signed } else { value.into() })
                })?,
            },
            7 => Type::Forward {
                name,
                kind: composite(flag),
            },
            8 => Type::Typedef { name, target },
            9 => qualified("volatile"),
            10 => qualified("const"),
            11 => qualified("restrict"),
            12 => Type::Function {
                name,
                prototype: target,
            },
            13 => Type::Prototype {
                returns: target,
                parameters: self.list(id, count, |[name, target]| (name, target))?,
            },
            14 => {
                let [_linkage] = self.next(id)?;
                Type::Variable { name, target }
            }
            15 => Type::Section {
                name,
                entries: self.list(id, count, |[target, offset, size]| Entry {
                    target,
                    offset,
                    size,
                })?,
            },
            16 => Type::Float { name, size },
            17 => {
                let [_component] = self.next(id)?;
                Type::Note
            }
            18 => Type::Tagged { tag: name, target },
            19 => Type::Enum {
                name,
                size,
                values: self.list(id, count, |[name, low, high]| {
                    let value = (u64::from(high) << 32) | u64::from(low);
                    let signed = i128::from(value.cast_signed());
                    (name, if flag { signed } else { value.into() })
                })?,
            },
            kind => return Err(BtfError::Kind { id, kind }),
        })
    }
}

fn check_references(types: &[Type]) -> Result<(), BtfError> {
    for (id, found) in (0..).zip(types) {
        let stray = references(found).find(|target| *target as usize >= types.len());
        if let Some(target) = stray {
            let count = types.len();
            return Err(BtfError::Reference { id, target, count });
        }
    }
    Ok(())
}

/// How types are gone into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through pointers, to where types have names.
    Spelled,
    /// To all that a value consists of.
    Held,
}

/// Counts how deep types lie in each other.
struct Levels<'a> {
    types: &'a [Type],
    strings: &'a [u8],
    way: Way,
    known: Vec<Option<u32>>,
}

impl<'a> Levels<'a> {
    fn of(types: &'a [Type], strings: &'a str, way: Way) -> Self {
        Self {
            types,
            strings: strings.as_bytes(),
            way,
            known: vec![None; types.len()],
        }
    }

    /// None if there are too many levels, `above` of them above this type.
    fn below(&mut self, id: TypeId, above: u32) -> Option<u32> {
        let index = id as usize;
        let count = match self.known[index] {
            Some(count) => count,
            None if above >= MOST_LEVELS => return None,
            None => {
                let types = self.types;
                let mut most = 0;
                if !self.ends_at(&types[index]) {
                    for target in references(&types[index]) {
                        most = most.max(self.below(target, above + 1)? + 1);
                    }
                }
                self.known[index] = Some(most);
                most
            }
        };
        (above + count <= MOST_LEVELS).then_some(count)
    }

    fn ends_at(&self, found: &Type) -> bool {
        let has_name = |name: u32| {
            self.strings
                .get(name as usize)
                .is_some_and(|first| *first != 0)
        };
        match (self.way, found) {
            (Way::Held, Type::Pointer(_)) => true,
            (Way::Spelled, Type::Typedef { .. }) => true,
            (Way::Spelled, Type::Composite { name, .. }) => has_name(*name),
            _ => false,
        }
    }
}

fn references(found: &Type) -> Box<dyn Iterator<Item = TypeId> + '_> {
    match found {
        Type::Pointer(target)
        | Type::Array {
            element: target, ..
        }
        | Type::Typedef { target, .. }
        | Type::Qualified { target, .. }
        | Type::Tagged { target, .. }
        | Type::Function {
            prototype: target, ..
        }
        | Type::Variable { target, .. } => Box::new([*target].into_iter()),
        Type::Composite { members, .. } => Box::new(members.iter().map(|member| member.target)),
        Type::Prototype {
            returns,
            parameters,
        } => {
            let parameters = parameters.iter().map(|(_, target)| *target);
            Box::new(parameters.chain([*returns]))
        }
        Type::Section { entries, .. } => Box::new(entries.iter().map(|entry| entry.target)),
        Type::Void
        | Type::Int { .. }
        | Type::Float { .. }
        | Type::Enum { .. }
        | Type::Forward { .. }
        | Type::Note => Box::new([].into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    fn sample() -> Builder {
        let mut types = Builder::default();
        let int = types.int("int", 4, true);
        types.composite(Kind::Struct, "pair", 8, &[("a", int, 0), ("b", int, 32)]);
        types.function("f", int, &[("a", int)]);
        types
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample().bytes();
        Btf::parse(&bytes).unwrap();
        for size in 0..bytes.len() {
            Btf::parse(&bytes[..size]).unwrap_err();
        }
    }

    #[test]
    fn broken_types_are_refused_or_read_and_never_panic() {
        let bytes = sample().bytes();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                if let Ok(btf) = Btf::parse(&broken) {
                    let all = crate::Comparison::new(&btf, &btf).all();
                    assert!(all.is_empty(), "byte {at}: {all:?}");
                    let functions: Vec<_> = btf.named().map(|(id, _)| id).collect();
                    functions.iter().for_each(|id| _ = btf.model(*id, 8));
                }
            }
        }
    }

    #[test]
    fn types_that_hold_themselves_are_refused() {
        let circles: [fn(&mut Builder) -> u32; 4] = [
            |types| types.typedef("a", 1),
            |types| types.array(1, 2),
            |types| types.composite(Kind::Struct, "a", 4, &[("a", 1, 0), ("b", 1, 0)]),
            |types| types.pointer(1),
        ];
        for circle in circles {
            let mut types = Builder::default();
            circle(&mut types);
            assert_eq!(Btf::parse(&types.bytes()).unwrap_err(), BtfError::Levels(1));
        }
        let mut types = Builder::default();
        let pointer = types.pointer(2);
        let array = types.array(3, 1);
        types.composite(Kind::Struct, "list", 8, &[("next", pointer, 0)]);
        assert_eq!((pointer, array), (1, 2));
        let btf = types.btf();
        assert_eq!(crate::Comparison::new(&btf, &btf).all(), []);
    }

    #[test]
    fn errors_name_the_type() {
        let mut types = sample();
        types.pointer(99);
        let error = Btf::parse(&types.bytes()).unwrap_err().to_string();
        assert!(
            error.contains("refers to type 99, but there are"),
            "{error}"
        );
        assert_eq!(Btf::parse(b"\x7fELF").unwrap_err(), BtfError::Magic);
    }
}
