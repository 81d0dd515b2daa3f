//! Types in words: what of a type's definition matters, one line for each member.
//!
//! The words of two builds' types are equal if and only if the types are, apart from what they hold by value under
//! names of its own: that is told in [`Definition::holds`], and has its own words.

use crate::types::{Btf, Entry, Member, Type, TypeId};

/// A type's definition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    /// What it is.
    pub head: String,
    /// Members, or values.
    pub lines: Vec<String>,
    /// Types with names that it has by value.
    pub holds: Vec<TypeId>,
}

impl Btf {
    /// The definition of a structure, union, enumeration, typedef or function.
    pub(crate) fn definition(&self, id: TypeId) -> Definition {
        let mut definition = Definition::default();
        match self.get(id) {
            Type::Composite {
                kind, name, size, ..
            } => {
                definition.head = format!("{kind} {}, {size} bytes", self.text(*name));
                self.members(id, 0, &mut definition);
            }
            Type::Enum { name, size, values } => {
                definition.head = format!("enum {}, {size} bytes", self.text(*name));
                let value = |(name, value): &(u32, i128)| format!("{} = {value}", self.text(*name));
                definition.lines = values.iter().map(value).collect();
            }
            Type::Typedef { name, target } => {
                let (name, target_words) = (self.text(*name), self.spelled(*target));
                definition.head = format!("typedef {target_words} {name}");
                self.held(*target, &mut definition.holds);
            }
            Type::Function { name, prototype } => {
                definition.head = self.signature(*prototype, self.text(*name));
                self.held(*prototype, &mut definition.holds);
            }
            _ => definition.head = self.spelled(id),
        }
        definition
    }

    /// Where a per-CPU variable lies, and its type.
    pub(crate) fn per_cpu_definition(&self, entry: &Entry) -> Definition {
        let mut definition = Definition::default();
        if let Type::Variable { name, target } = self.get(entry.target) {
            definition.head = format!(
                "{} {} at {:#x} of the per-CPU variables",
                self.spelled(*target),
                self.text(*name),
                entry.offset
            );
            self.held(*target, &mut definition.holds);
        }
        definition
    }

    /// Adds a line for each member; those of members without a name stand among the others.
    fn members(&self, id: TypeId, base: u32, definition: &mut Definition) {
        let Type::Composite { members, .. } = self.get(id) else {
            return;
        };
        for member in members {
            let offset = base.wrapping_add(member.offset);
            let name = self.text(member.name);
            let nested = matches!(self.get(member.target), Type::Composite { name, .. }
                if self.text(*name).is_empty());
            if name.is_empty() && nested {
                self.members(member.target, offset, definition);
                continue;
            }
            let (byte, bit) = (offset / 8, offset % 8);
            let place = match bit {
                0 => format!("{byte}"),
                bit => format!("{byte}.{bit}"),
            };
            let bits = match member.bits {
                0 => String::new(),
                bits => format!(":{bits}"),
            };
            let words = self.spelled(member.target);
            definition
                .lines
                .push(format!("{place}: {words} {name}{bits}"));
            self.held(member.target, &mut definition.holds);
        }
    }

    /// A type as it is written where it is used.
    fn spelled(&self, id: TypeId) -> String {
        match self.get(id) {
            Type::Void => "void".to_owned(),
            Type::Int { name, .. }
            | Type::Float { name, .. }
            | Type::Typedef { name, .. }
            | Type::Section { name, .. } => self.text(*name).to_owned(),
            Type::Pointer(target) => match self.get(*target) {
                Type::Prototype { .. } => self.signature(*target, "(*)"),
                _ => format!("{} *", self.spelled(*target)),
            },
            Type::Array { element, count } => format!("{}[{count}]", self.spelled(*element)),
            Type::Composite { kind, name, .. } if !self.text(*name).is_empty() => {
                format!("{kind} {}", self.text(*name))
            }
            Type::Composite { kind, size, .. } => {
                let mut nested = Definition::default();
                self.nested_members(id, &mut nested);
                format!("{kind} {{ {} }}({size})", nested.lines.join("; "))
            }
            Type::Enum { name, .. } if !self.text(*name).is_empty() => {
                format!("enum {}", self.text(*name))
            }
            Type::Enum { .. } => {
                let nested = self.definition(id);
                format!("{}{{ {} }}", nested.head, nested.lines.join(", "))
            }
            Type::Forward { name, kind } => format!("{kind} {}", self.text(*name)),
            Type::Qualified { qualifier, target } => {
                format!("{qualifier} {}", self.spelled(*target))
            }
            Type::Tagged { tag, target } => {
                format!("__{} {}", self.text(*tag), self.spelled(*target))
            }
            Type::Function { name, prototype } => self.signature(*prototype, self.text(*name)),
            Type::Prototype { .. } => self.signature(id, ""),
            Type::Variable { target, .. } => self.spelled(*target),
            Type::Note => String::new(),
        }
    }

    /// The members of a type without a name, for its place in a line.
    fn nested_members(&self, id: TypeId, nested: &mut Definition) {
        let Type::Composite { members, .. } = self.get(id) else {
            return;
        };
        for member in members {
            let words = self.spelled(member.target);
            let (name, Member { offset, bits, .. }) = (self.text(member.name), *member);
            nested
                .lines
                .push(format!("{offset}/{bits}: {words} {name}"));
        }
    }

    fn signature(&self, prototype: TypeId, name: &str) -> String {
        let Type::Prototype {
            returns,
            parameters,
        } = self.get(prototype)
        else {
            return name.to_owned();
        };
        let last = parameters.len().wrapping_sub(1);
        let parameter = |(index, (_, target)): (usize, &(u32, TypeId))| match target {
            0 if index == last => "...".to_owned(),
            target => self.spelled(*target),
        };
        let parameters: Vec<_> = parameters.iter().enumerate().map(parameter).collect();
        format!(
            "{} {name}({})",
            self.spelled(*returns),
            parameters.join(", ")
        )
    }

    /// Collects the types with names that are part of a value of this type.
    fn held(&self, id: TypeId, holds: &mut Vec<TypeId>) {
        let mut deeper = |id| self.held(id, holds);
        match self.get(id) {
            Type::Array { element, .. } => deeper(*element),
            Type::Qualified { target, .. } | Type::Tagged { target, .. } => deeper(*target),
            Type::Composite { name, members, .. } if self.text(*name).is_empty() => {
                members.iter().for_each(|member| deeper(member.target));
            }
            Type::Enum { name, .. } if self.text(*name).is_empty() => {}
            Type::Prototype {
                returns,
                parameters,
            } => {
                deeper(*returns);
                parameters.iter().for_each(|(_, target)| deeper(*target));
            }
            Type::Composite { .. } | Type::Enum { .. } | Type::Typedef { .. } => holds.push(id),
            _ => {}
        }
    }
}
