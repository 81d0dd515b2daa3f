//! Whether names stand for the same in the BTF of two builds of a kernel.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::types::{Btf, Kind, TypeId};
use crate::words::Definition;

/// The BTF of two builds, to be compared by name.
#[derive(Debug)]
pub struct Comparison<'a> {
    verifier: &'a Btf,
    device: &'a Btf,
    /// Pairs of types that were compared: why they are different, if they are.
    known: RefCell<HashMap<(TypeId, TypeId), Option<Cause>>>,
}

/// Two types whose own definitions differ: those that were compared, or some that they hold.
type Cause = (TypeId, TypeId);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A type or function.
    Named(Kind),
    /// A per-CPU variable.
    PerCpu,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(kind) => kind.fmt(f),
            Self::PerCpu => f.write_str("per-CPU variable"),
        }
    }
}

/// Something that is not the same in both builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// What in it is different, if that has a name of its own.
    pub part: Option<String>,
    /// Its definition in the kernel that verifies.
    pub verifier: String,
    /// Its definition in the kernel of devices, if it is there.
    pub device: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subject, self.name)?;
        if let Some(part) = &self.part {
            write!(f, " (it holds {part})")?;
        }
        write!(f, ": in the kernel that verifies {}", self.verifier)?;
        match &self.device {
            Some(device) => write!(f, "; in the kernel of devices {device}"),
            None => f.write_str("; the kernel of devices does not have it"),
        }
    }
}

impl std::error::Error for Difference {}

impl<'a> Comparison<'a> {
    /// Of the kernel that verifies, and that of devices.
    pub fn new(verifier: &'a Btf, device: &'a Btf) -> Self {
        Self {
            verifier,
            device,
            known: RefCell::default(),
        }
    }

    /// The BTF of the kernel that verifies.
    pub fn verifier(&self) -> &'a Btf {
        self.verifier
    }

    /// The BTF of the kernel of devices.
    pub fn device(&self) -> &'a Btf {
        self.device
    }

    /// All that is not the same: whatever has a name in the kernel that verifies.
    pub fn all(&self) -> Vec<Difference> {
        let named = self.verifier.named();
        let subjects: BTreeSet<_> = named
            .map(|(_, (kind, name))| (Subject::Named(kind), name))
            .chain(
                self.verifier
                    .per_cpu_names()
                    .map(|name| (Subject::PerCpu, name)),
            )
            .collect();
        subjects
            .into_iter()
            .filter_map(|(subject, name)| self.difference(subject, name))
            .collect()
    }

    /// How what a name stands for differs; a name that the kernel that verifies does not have is no difference. A name
    /// that stands for several things stands for the same several in both.
    pub fn difference(&self, subject: Subject, name: &str) -> Option<Difference> {
        match subject {
            Subject::Named(kind) => self.of_types(
                kind,
                name,
                self.verifier.find(kind, name),
                self.device.find(kind, name),
            ),
            Subject::PerCpu => self.of_per_cpu(name),
        }
    }

    /// How what can be walked to from some of the verifier's types and functions differs, where both kernels define it.
    /// What only the one that verifies defines, there is nothing of in the other.
    pub fn walked(&self, roots: impl IntoIterator<Item = TypeId>) -> Vec<Difference> {
        self.verifier
            .reachable(roots)
            .into_iter()
            .filter(|(kind, name)| !self.device.find(*kind, name).is_empty())
            .filter_map(|(kind, name)| self.difference(Subject::Named(kind), name))
            // What is held can be walked to, too.
            .filter(|difference| difference.part.is_none())
            .collect()
    }

    fn of_types(
        &self,
        kind: Kind,
        name: &str,
        ours: &[TypeId],
        theirs: &[TypeId],
    ) -> Option<Difference> {
        let unmatched = |id: &&TypeId| {
            !theirs
                .iter()
                .any(|other| self.cause(**id, *other).is_none())
        };
        let difference = |cause: Option<Cause>, ours: TypeId, theirs: Option<TypeId>| {
            let shown = |(ours, theirs): (TypeId, Option<TypeId>)| {
                let ours = self.verifier.definition(ours);
                let theirs = theirs.map(|id| self.device.definition(id));
                in_words(&ours, theirs.as_ref())
            };
            let is_part = cause.filter(|(part, _)| *part != ours);
            let (verifier, device) = shown(cause.map_or((ours, theirs), |(a, b)| (a, Some(b))));
            Difference {
                subject: Subject::Named(kind),
                name: name.to_owned(),
                part: is_part.map(|(part, _)| self.verifier.definition(part).head),
                verifier,
                device,
            }
        };
        if let Some(&id) = ours.iter().find(unmatched) {
            let other = theirs.first().copied();
            let cause = other.and_then(|other| self.cause(id, other));
            return Some(difference(cause, id, other));
        }
        // One more there makes a name mean something else.
        let surplus = theirs
            .iter()
            .find(|other| !ours.iter().any(|id| self.cause(*id, **other).is_none()));
        let (&other, &id) = surplus.zip(ours.first())?;
        Some(difference(self.cause(id, other), id, Some(other)))
    }

    fn of_per_cpu(&self, name: &str) -> Option<Difference> {
        let definitions = |btf: &Btf| -> Vec<Definition> {
            let entries = btf.per_cpu(name).iter();
            entries.map(|entry| btf.per_cpu_definition(entry)).collect()
        };
        let (ours, theirs) = (definitions(self.verifier), definitions(self.device));
        let first = ours.first()?;
        let heads = |all: &[Definition]| -> BTreeSet<String> {
            all.iter()
                .map(|definition| definition.head.clone())
                .collect()
        };
        let held = |(ours, theirs): (&Definition, &Definition)| {
            let mut pairs = ours.holds.iter().zip(&theirs.holds);
            pairs.any(|(ours, theirs)| self.cause(*ours, *theirs).is_some())
        };
        if heads(&ours) == heads(&theirs) && !ours.iter().zip(&theirs).any(held) {
            return None;
        }
        let (verifier, device) = in_words(first, theirs.first());
        Some(Difference {
            subject: Subject::PerCpu,
            name: name.to_owned(),
            part: None,
            verifier,
            device,
        })
    }

    /// Why two types are different, if they are.
    fn cause(&self, ours: TypeId, theirs: TypeId) -> Option<Cause> {
        let pair = (ours, theirs);
        if let Some(known) = self.known.borrow().get(&pair) {
            return *known;
        }
        // Only a broken BTF has types that hold themselves: they are not different for that.
        self.known.borrow_mut().insert(pair, None);
        let (a, b) = (
            self.verifier.definition(ours),
            self.device.definition(theirs),
        );
        let cause = if (&a.head, &a.lines) != (&b.head, &b.lines) || a.holds.len() != b.holds.len()
        {
            Some(pair)
        } else {
            let mut parts = a.holds.iter().zip(&b.holds);
            parts.find_map(|(ours, theirs)| self.cause(*ours, *theirs))
        };
        self.known.borrow_mut().insert(pair, cause);
        cause
    }
}

/// Lines of a definition that are shown at most.
const MOST_LINES: usize = 4;

/// Two definitions, as far as they differ.
fn in_words(ours: &Definition, theirs: Option<&Definition>) -> (String, Option<String>) {
    let Some(theirs) = theirs else {
        return (ours.head.clone(), None);
    };
    (only_in(ours, theirs), Some(only_in(theirs, ours)))
}

fn only_in(definition: &Definition, other: &Definition) -> String {
    let own: Vec<&str> = definition
        .lines
        .iter()
        .filter(|line| !other.lines.contains(line))
        .map(String::as_str)
        .collect();
    let shown = own[..own.len().min(MOST_LINES)].join("; ");
    match own.len() {
        0 => definition.head.clone(),
        count if count > MOST_LINES => {
            format!(
                "{} {{ {shown}; and {} more }}",
                definition.head,
                count - MOST_LINES
            )
        }
        _ => format!("{} {{ {shown} }}", definition.head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    const STRUCT: Subject = Subject::Named(Kind::Struct);

    /// A task that holds a list, at an offset in bits.
    fn task(types: &mut Builder, offset: u32) {
        let int = types.int("int", 4, true);
        let list = types.composite(
            Kind::Struct,
            "list",
            8,
            &[("first", int, 0), ("last", int, offset)],
        );
        let array = types.array(list, 3);
        types.composite(
            Kind::Struct,
            "task",
            32,
            &[("pid", int, 0), ("lists", array, 32)],
        );
    }

    fn btf(build: impl FnOnce(&mut Builder)) -> Btf {
        let mut types = Builder::default();
        build(&mut types);
        types.btf()
    }

    #[test]
    fn equal_types_have_any_ids() {
        let ours = btf(|types| task(types, 32));
        let theirs = btf(|types| {
            types.typedef("other", 0);
            task(types, 32);
        });
        assert_eq!(Comparison::new(&ours, &theirs).all(), []);
    }

    #[test]
    fn what_is_held_makes_a_difference() {
        let (ours, theirs) = (btf(|types| task(types, 32)), btf(|types| task(types, 48)));
        let comparison = Comparison::new(&ours, &theirs);
        let list = comparison.difference(STRUCT, "list").unwrap();
        assert_eq!(list.part, None);
        assert_eq!(list.verifier, "struct list, 8 bytes { 4: int last }");
        assert_eq!(
            list.device.as_deref(),
            Some("struct list, 8 bytes { 6: int last }")
        );
        let task = comparison.difference(STRUCT, "task").unwrap();
        assert_eq!(task.part.as_deref(), Some("struct list, 8 bytes"));
        assert_eq!(task.verifier, list.verifier);
        assert_eq!(comparison.all().len(), 2);
    }

    /// A function takes a file, which points to a task.
    fn file(types: &mut Builder, offset: u32) {
        let int = types.int("int", 4, true);
        let task = types.composite(Kind::Struct, "task", 8, &[("pid", int, offset)]);
        let owner = types.pointer(task);
        let file = types.composite(Kind::Struct, "file", 8, &[("owner", owner, 0)]);
        let argument = types.pointer(file);
        types.function("open", 0, &[("file", argument)]);
        types.composite(Kind::Struct, "other", 8, &[("field", int, offset)]);
    }

    #[test]
    fn what_a_function_leads_to_makes_a_difference() {
        let (ours, theirs) = (btf(|types| file(types, 0)), btf(|types| file(types, 32)));
        let comparison = Comparison::new(&ours, &theirs);
        assert_eq!(comparison.difference(STRUCT, "file"), None);
        let open = ours.find(Kind::Function, "open").iter().copied();
        let walked = comparison.walked(open);
        let names: Vec<_> = walked.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["task"], "and nothing that is not reached");
        let without = btf(|types| task(types, 32));
        let comparison = Comparison::new(&ours, &without);
        let open = ours.find(Kind::Function, "open").iter().copied();
        assert_eq!(comparison.walked(open).len(), 1, "what both define");
    }

    #[test]
    fn what_is_missing_is_told() {
        let (ours, theirs) = (btf(|types| task(types, 32)), btf(|_| {}));
        let comparison = Comparison::new(&ours, &theirs);
        let task = comparison.difference(STRUCT, "task").unwrap();
        assert_eq!(task.device, None);
        assert!(
            task.to_string()
                .contains("struct task, 32 bytes; the kernel of devices does not have it")
        );
        // What only devices have, nothing was verified with.
        assert_eq!(Comparison::new(&theirs, &ours).all(), []);
    }

    #[test]
    fn names_may_stand_for_several_types_if_they_are_the_same() {
        let one = |types: &mut Builder| {
            let int = types.int("int", 4, true);
            types.composite(Kind::Struct, "key", 4, &[("a", int, 0)]);
        };
        let other = |types: &mut Builder| {
            let int = types.int("int", 4, true);
            types.composite(Kind::Struct, "key", 4, &[("b", int, 0)]);
        };
        let forwards = btf(|types| {
            one(types);
            other(types);
        });
        let backwards = btf(|types| {
            other(types);
            one(types);
            one(types);
        });
        assert_eq!(Comparison::new(&forwards, &backwards).all(), []);
        let single = btf(one);
        let fewer = Comparison::new(&forwards, &single)
            .difference(STRUCT, "key")
            .unwrap();
        assert_eq!(fewer.verifier, "struct key, 4 bytes { 0: int b }");
        let more = Comparison::new(&single, &forwards)
            .difference(STRUCT, "key")
            .unwrap();
        assert_eq!(
            more.device.as_deref(),
            Some("struct key, 4 bytes { 0: int b }")
        );
    }

    #[test]
    fn members_without_names_are_looked_into() {
        let nested = |offset: u32| {
            btf(|types| {
                let int = types.int("int", 4, true);
                let inner =
                    types.composite(Kind::Union, "", 4, &[("a", int, 0), ("b", int, offset)]);
                types.composite(
                    Kind::Struct,
                    "outer",
                    8,
                    &[("", inner, 32), ("named", inner, 64)],
                );
            })
        };
        let (ours, theirs) = (nested(0), nested(8));
        assert_eq!(Comparison::new(&ours, &nested(0)).all(), []);
        let difference = Comparison::new(&ours, &theirs)
            .difference(STRUCT, "outer")
            .unwrap();
        assert!(difference.verifier.contains("{ 4: int b; "), "{difference}");
        assert!(difference.device.unwrap().contains("{ 5: int b; "));
    }

    #[test]
    fn functions_enumerations_and_per_cpu_variables_are_compared() {
        let build = |value: i32, offset: u32, variadic: bool| {
            btf(|types| {
                let int = types.int("int", 4, true);
                types.enumeration("colour", &[("RED", value)]);
                let rest = if variadic { 0 } else { int };
                types.function("paint", int, &[("a", int), ("", rest)]);
                let runqueues = types.variable("runqueues", int);
                types.section(".data..percpu", &[(runqueues, offset, 4)]);
            })
        };
        let ours = build(-1, 64, true);
        let all = |theirs: &Btf| -> Vec<String> {
            let all = Comparison::new(&ours, theirs).all();
            all.iter().map(ToString::to_string).collect()
        };
        assert!(all(&build(-1, 64, true)).is_empty());
        let [difference] = &all(&build(2, 64, true))[..] else {
            panic!("one difference");
        };
        assert!(difference.contains("{ RED = -1 }") && difference.contains("{ RED = 2 }"));
        let [difference] = &all(&build(-1, 64, false))[..] else {
            panic!("one difference");
        };
        assert!(difference.contains("int paint(int, ...)"), "{difference}");
        let [difference] = &all(&build(-1, 128, true))[..] else {
            panic!("one difference");
        };
        assert!(
            difference.starts_with("per-CPU variable runqueues"),
            "{difference}"
        );
        assert!(difference.contains("0x40") && difference.contains("0x80"));
    }
}
