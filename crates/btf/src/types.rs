//! Types, by id and by name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

/// The number of a type in its BTF; zero is `void`.
pub type TypeId = u32;

/// The types of one kernel or object.
#[derive(Clone, Debug)]
pub struct Btf {
    /// The first is `void`.
    pub(crate) types: Vec<Type>,
    pub(crate) strings: String,
    by_name: HashMap<(Kind, Name), Vec<TypeId>>,
    /// By the variable's name.
    per_cpu: HashMap<Name, Vec<Entry>>,
}

/// A string of a BTF, whose own offsets are kept because others' differ. Equal strings have equal hashes and are
/// compared as text.
type Name = Box<str>;

/// What a name can stand for: C has a space of names for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `struct`.
    Struct,
    /// `union`.
    Union,
    /// `enum`.
    Enum,
    /// `typedef`.
    Typedef,
    /// A function.
    Function,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Typedef => "typedef",
            Self::Function => "function",
        })
    }
}

/// A string's place in [`Btf::text`].
pub(crate) type StringId = u32;

/// One type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are as in `linux/btf.h`")]
pub enum Type {
    Void,
    Int {
        name: StringId,
        size: u32,
        signed: bool,
    },
    Float {
        name: StringId,
        size: u32,
    },
    Pointer(TypeId),
    Array {
        element: TypeId,
        count: u32,
    },
    /// A structure or a union.
    Composite {
        kind: Kind,
        name: StringId,
        size: u32,
        members: Vec<Member>,
    },
    Enum {
        name: StringId,
        size: u32,
        /// As the kernel's numbers, whatever their sign.
        values: Vec<(StringId, i128)>,
    },
    Forward {
        name: StringId,
        kind: Kind,
    },
    Typedef {
        name: StringId,
        target: TypeId,
    },
    /// `const`, `volatile`, `restrict`.
    Qualified {
        qualifier: &'static str,
        target: TypeId,
    },
    Tagged {
        tag: StringId,
        target: TypeId,
    },
    Function {
        name: StringId,
        prototype: TypeId,
    },
    Prototype {
        returns: TypeId,
        /// The last is without a name and `void` if more may follow.
        parameters: Vec<(StringId, TypeId)>,
    },
    Variable {
        name: StringId,
        target: TypeId,
    },
    Section {
        name: StringId,
        entries: Vec<Entry>,
    },
    /// A note on a declaration: nothing depends on it.
    Note,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub(crate) name: StringId,
    /// Its type.
    pub target: TypeId,
    /// Bits from the start.
    pub offset: u32,
    /// The bits of a bit field, else zero.
    pub bits: u32,
}

/// What a section holds: a variable or a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The variable or function.
    pub target: TypeId,
    /// Bytes from the section's start.
    pub offset: u32,
    /// Its bytes.
    pub size: u32,
}

/// Where kernels have their per-CPU variables.
const PER_CPU_SECTION: &str = ".data..percpu";

impl Btf {
    pub(crate) fn new(types: Vec<Type>, strings: String) -> Self {
        let mut btf = Self {
            types,
            strings,
            by_name: HashMap::new(),
            per_cpu: HashMap::new(),
        };
        btf.index();
        btf
    }

    fn index(&mut self) {
        let mut by_name: HashMap<_, Vec<TypeId>> = HashMap::new();
        for (id, (kind, name)) in self.named() {
            by_name.entry((kind, name.into())).or_default().push(id);
        }
        self.by_name = by_name;
        let mut per_cpu: HashMap<_, Vec<Entry>> = HashMap::new();
        for entry in self.section(PER_CPU_SECTION) {
            if let Type::Variable { name, .. } = self.get(entry.target) {
                let name = self.text(*name).into();
                per_cpu.entry(name).or_default().push(*entry);
            }
        }
        self.per_cpu = per_cpu;
    }

    /// The type of that id. Ids are checked when a BTF is read, so every id in it has one; others are `void`.
    pub fn get(&self, id: TypeId) -> &Type {
        self.types.get(id as usize).unwrap_or(&Type::Void)
    }

    /// All types with names, by id: those that a name can be looked up for.
    pub fn named(&self) -> impl Iterator<Item = (TypeId, (Kind, &str))> {
        (0..)
            .zip(&self.types)
            .filter_map(|(id, found)| Some((id, self.kind_and_name(found)?)))
    }

    /// What a type is called, if a name can be looked up for it.
    pub fn named_type(&self, id: TypeId) -> Option<(Kind, &str)> {
        self.kind_and_name(self.get(id))
    }

    fn kind_and_name(&self, found: &Type) -> Option<(Kind, &str)> {
        let (kind, name) = match found {
            Type::Composite { kind, name, .. } => (*kind, *name),
            Type::Enum { name, .. } => (Kind::Enum, *name),
            Type::Typedef { name, .. } => (Kind::Typedef, *name),
            Type::Function { name, .. } => (Kind::Function, *name),
            _ => return None,
        };
        let name = self.text(name);
        (!name.is_empty()).then_some((kind, name))
    }

    /// All types of a kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> &[TypeId] {
        self.by_name
            .get(&(kind, name.into()))
            .map_or(&[], |ids| ids)
    }

    /// A variable's places among the per-CPU variables.
    pub fn per_cpu(&self, name: &str) -> &[Entry] {
        self.per_cpu.get(name).map_or(&[], |entries| entries)
    }

    /// The names of all per-CPU variables.
    pub fn per_cpu_names(&self) -> impl Iterator<Item = &str> {
        self.per_cpu.keys().map(|name| &**name)
    }

    /// What a section holds; nothing if there is none of that name.
    pub fn section(&self, name: &str) -> &[Entry] {
        let found = self.types.iter().find_map(|found| match found {
            Type::Section { name: id, entries } if self.text(*id) == name => Some(entries),
            _ => None,
        });
        found.map_or(&[], |entries| entries)
    }

    /// The name of a variable or function.
    pub fn name(&self, id: TypeId) -> &str {
        match self.get(id) {
            Type::Variable { name, .. } | Type::Function { name, .. } => self.text(*name),
            _ => "",
        }
    }

    pub(crate) fn text(&self, id: StringId) -> &str {
        let rest = self.strings.get(id as usize..).unwrap_or_default();
        rest.split('\0').next().unwrap_or_default()
    }

    /// The type without typedefs, qualifiers and tags.
    pub(crate) fn plain(&self, id: TypeId) -> (TypeId, &Type) {
        let mut id = id;
        // Longer than any chain: only a broken BTF has a circle.
        for _ in 0..self.types.len() {
            match self.get(id) {
                Type::Typedef { target, .. }
                | Type::Qualified { target, .. }
                | Type::Tagged { target, .. } => id = *target,
                found => return (id, found),
            }
        }
        (0, &Type::Void)
    }

    /// The parameters and what is returned, of a function, a pointer to one, or a typedef of that.
    pub(crate) fn prototype(&self, id: TypeId) -> Option<(TypeId, &[(StringId, TypeId)])> {
        match self.plain(id).1 {
            Type::Function { prototype, .. } => self.prototype(*prototype),
            Type::Pointer(target) => match self.plain(*target).1 {
                Type::Prototype {
                    returns,
                    parameters,
                } => Some((*returns, parameters)),
                _ => None,
            },
            Type::Prototype {
                returns,
                parameters,
            } => Some((*returns, parameters)),
            _ => None,
        }
    }

    /// The structures and unions that a function's parameters, and what it returns, are or point to.
    pub fn reached_by(&self, function: TypeId) -> Vec<(Kind, &str)> {
        let Some((returns, parameters)) = self.prototype(function) else {
            return Vec::new();
        };
        let all = parameters.iter().map(|(_, target)| *target);
        let all = all.chain([returns]).filter_map(|id| {
            let pointee = match self.plain(id).1 {
                Type::Pointer(target) => self.plain(*target).1,
                other => other,
            };
            match pointee {
                Type::Composite { kind, name, .. } | Type::Forward { kind, name } => {
                    Some((*kind, self.text(*name)))
                }
                _ => None,
            }
        });
        all.filter(|(_, name)| !name.is_empty()).collect()
    }

    /// The structures and unions with names that can be walked to from some types or functions: what functions take and
    /// return, what is held, and what pointers point to.
    pub fn reachable(&self, roots: impl IntoIterator<Item = TypeId>) -> BTreeSet<(Kind, &str)> {
        let mut names = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut waiting = Vec::new();
        for root in roots {
            match self.prototype(root) {
                Some((returns, parameters)) => {
                    waiting.push(returns);
                    waiting.extend(parameters.iter().map(|(_, target)| *target));
                }
                None => waiting.push(root),
            }
        }
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.get(id) {
                Type::Pointer(target)
                | Type::Typedef { target, .. }
                | Type::Qualified { target, .. }
                | Type::Tagged { target, .. } => waiting.push(*target),
                Type::Array { element, .. } => waiting.push(*element),
                Type::Composite {
                    kind,
                    name,
                    members,
                    ..
                } => {
                    names.insert((*kind, self.text(*name)));
                    waiting.extend(members.iter().map(|member| member.target));
                }
                _ => {}
            }
        }
        names.retain(|(_, name)| !name.is_empty());
        names
    }
}
