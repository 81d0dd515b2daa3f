//! Which programs and maps of a target are wanted.

use std::mem;

use preverify_bundle::{SlotContent, Target};

/// Some programs, with all that they need to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    programs: Vec<bool>,
    maps: Vec<bool>,
}

impl Selection {
    /// All programs and maps.
    pub fn all(target: &Target) -> Self {
        Self {
            programs: vec![true; target.programs.len()],
            maps: vec![true; target.maps.len()],
        }
    }

    /// The programs of the named functions, their maps, and what these hold from the start: a
    /// program that calls others through a prog array comes with them.
    pub fn of<S: AsRef<str>>(target: &Target, functions: &[S]) -> Result<Self, NoSuchProgram> {
        let mut selection = Self {
            programs: vec![false; target.programs.len()],
            maps: vec![false; target.maps.len()],
        };
        for function in functions {
            let program = program_named(target, function.as_ref())?;
            selection.add(target, Wanted::Program(program));
        }
        Ok(selection)
    }

    /// Adds the map with this name in the object, if there is one: some places to attach to are
    /// maps that no program uses.
    pub fn add_map(&mut self, target: &Target, name: &str) {
        if let Some(map) = target.maps.iter().position(|map| map.full_name == name) {
            self.add(target, Wanted::Map(map));
        }
    }

    /// The indices of the programs, in the target's order.
    pub fn programs(&self) -> impl Iterator<Item = usize> + '_ {
        indices(&self.programs)
    }

    /// The indices of the maps, in the target's order.
    pub fn maps(&self) -> impl Iterator<Item = usize> + '_ {
        indices(&self.maps)
    }

    /// Whether a map is wanted.
    pub fn has_map(&self, map: usize) -> bool {
        self.maps.get(map) == Some(&true)
    }

    /// Adds a program or map, and all that it needs.
    fn add(&mut self, target: &Target, first: Wanted) {
        let mut wanted = vec![first];
        while let Some(next) = wanted.pop() {
            match next {
                Wanted::Program(program) => {
                    if !mem::replace(&mut self.programs[program], true) {
                        let maps = target.programs[program].maps.iter();
                        wanted.extend(maps.map(|&map| Wanted::Map(map as usize)));
                    }
                }
                Wanted::Map(map) => {
                    if !mem::replace(&mut self.maps[map], true) {
                        let inner = target.maps[map].inner;
                        wanted.extend(inner.map(|inner| Wanted::Map(inner as usize)));
                        let slots = target.slots.iter().filter(|slot| slot.map as usize == map);
                        wanted.extend(slots.map(|slot| match slot.content {
                            SlotContent::Program(program) => Wanted::Program(program as usize),
                            SlotContent::Map(map) => Wanted::Map(map as usize),
                        }));
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Program(usize),
    Map(usize),
}

/// The index of the program with this function.
pub fn program_named(target: &Target, function: &str) -> Result<usize, NoSuchProgram> {
    target
        .programs
        .iter()
        .position(|program| program.function == function)
        .ok_or_else(|| NoSuchProgram {
            name: function.to_owned(),
            known: target
                .programs
                .iter()
                .map(|program| program.function.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// The target has no such program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bundle has no program {name:?}; it has: {known}")]
pub struct NoSuchProgram {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub known: String,
}

fn indices(wanted: &[bool]) -> impl Iterator<Item = usize> + '_ {
    wanted
        .iter()
        .enumerate()
        .filter_map(|(index, &wanted)| wanted.then_some(index))
}

#[cfg(test)]
mod tests {
    use preverify_bundle::Slot;

    use super::*;
    use crate::testing::{map, program, target};

    /// `entry` calls `next` through `jumps`, `next` calls `entry`; `next` also uses `outer`, which
    /// holds `held` and is made after `template`; `other` is apart.
    fn sample() -> Target {
        let mut target = target(
            vec![
                program("entry", &[0]),
                program("next", &[0, 1]),
                program("other", &[4]),
            ],
            vec![
                map("jumps"),
                map("outer"),
                map("template"),
                map("held"),
                map("apart"),
                map("unused"),
            ],
        );
        target.maps[1].inner = Some(2);
        target.slots = vec![
            Slot {
                map: 0,
                key: 0,
                content: SlotContent::Program(1),
            },
            Slot {
                map: 0,
                key: 1,
                content: SlotContent::Program(0),
            },
            Slot {
                map: 1,
                key: 0,
                content: SlotContent::Map(3),
            },
        ];
        target
    }

    #[test]
    fn programs_come_with_what_they_reach() {
        let target = sample();
        let selection = Selection::of(&target, &["entry"]).unwrap();
        assert_eq!(selection.programs().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(selection.maps().collect::<Vec<_>>(), [0, 1, 2, 3]);
        let selection = Selection::of(&target, &["other"]).unwrap();
        assert_eq!(selection.programs().collect::<Vec<_>>(), [2]);
        assert_eq!(selection.maps().collect::<Vec<_>>(), [4]);
        assert!(!selection.has_map(5));
    }

    #[test]
    fn maps_come_with_what_they_hold() {
        let target = sample();
        let mut selection = Selection::of(&target, &["other"]).unwrap();
        selection.add_map(&target, "outer");
        selection.add_map(&target, "no such map");
        assert_eq!(selection.maps().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn all_has_unused_maps_too() {
        assert_eq!(Selection::all(&sample()).maps().count(), 6);
    }

    #[test]
    fn an_unknown_program_is_told_with_the_known_ones() {
        assert_eq!(
            Selection::of(&sample(), &["entry", "nope"])
                .unwrap_err()
                .to_string(),
            r#"the bundle has no program "nope"; it has: entry, next, other"#
        );
    }
}
