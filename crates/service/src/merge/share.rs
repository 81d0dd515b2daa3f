//! A target with some of an object's programs.

use std::mem;

use preverify_bundle::{Map, MapUse, Target};
use preverify_pipeline::evidence::Evidence;

use super::MergeError;

/// Some of an object's programs, and how they were verified.
pub struct Share {
    /// With these programs only.
    pub target: Target,
    /// About these programs only.
    pub evidence: Evidence,
}

impl Share {
    /// Both together. `next` has the programs that come after these in the object.
    pub fn and(mut self, mut next: Self) -> Result<Self, MergeError> {
        let mut programs = mem::take(&mut self.target.programs);
        programs.append(&mut next.target.programs);
        let mut proofs = mem::take(&mut self.evidence.programs);
        proofs.append(&mut next.evidence.programs);
        for (map, again) in self.target.maps.iter_mut().zip(&mut next.target.maps) {
            tell_each_other(map, again);
        }
        // The evidence's section is about others; what it says is compared itself.
        next.target.evidence = self.target.evidence;
        let Self { target, evidence } = next;
        if self.target.maps != target.maps {
            return Err(MergeError::Differ("their maps"));
        }
        if self.target != target {
            return Err(MergeError::Differ(
                "the kernel, the machine, or the object's types",
            ));
        }
        if self.evidence != evidence {
            return Err(MergeError::Differ("their evidence"));
        }
        Ok(Self {
            target: Target { programs, ..target },
            evidence: Evidence {
                programs: proofs,
                ..evidence
            },
        })
    }
}

/// Some of what is known of a map is known from programs that use it. A share without such a program does not know it.
fn tell_each_other(map: &mut Map, again: &mut Map) {
    match (map.fields.is_empty(), again.fields.is_empty()) {
        (true, false) => map.fields.clone_from(&again.fields),
        (false, true) => again.fields.clone_from(&map.fields),
        _ => {}
    }
    match (map.usage, again.usage) {
        (MapUse::Ordinary, MapUse::Constant) => map.usage = MapUse::Constant,
        (MapUse::Constant, MapUse::Ordinary) => again.usage = MapUse::Constant,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use preverify_bundle::{Field, Fingerprint, Program};

    use super::super::tests::evidence;
    use super::*;

    fn share(program: &str) -> Share {
        Share {
            target: Target {
                build_id: vec![1],
                fingerprint: Fingerprint::default(),
                release: "6.12".into(),
                programs: vec![Program {
                    function: program.into(),
                    ..Program::default()
                }],
                maps: vec![Map::default(), Map::default()],
                slots: Vec::new(),
                btf: None,
                evidence: None,
            },
            evidence: evidence("0", program),
        }
    }

    fn difference(change: impl FnOnce(&mut Share)) -> String {
        let mut other = share("b");
        change(&mut other);
        share("a").and(other).err().unwrap().to_string()
    }

    #[test]
    fn programs_come_one_after_the_other() {
        let all = share("a").and(share("b")).unwrap().and(share("c")).unwrap();
        let functions = all.target.programs.iter().map(|program| &program.function);
        assert_eq!(functions.collect::<Vec<_>>(), ["a", "b", "c"]);
        let proofs = all.evidence.programs.iter().map(|proof| &proof.function);
        assert_eq!(proofs.collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn what_one_share_knows_of_a_map_all_know() {
        let (mut first, mut second) = (share("a"), share("b"));
        let lock = Field {
            offset: 8.into(),
            kind: 1.into(),
            ..Field::default()
        };
        first.target.maps[0].usage = MapUse::Constant;
        second.target.maps[1].fields = vec![lock];
        let maps = first.and(second).unwrap().target.maps;
        assert_eq!(maps[0].usage, MapUse::Constant);
        assert_eq!(maps[1].fields, [lock]);
    }

    #[test]
    fn what_was_verified_otherwise_is_refused() {
        let maps = difference(|share| share.target.maps[0].max_entries = 1);
        assert!(maps.contains("their maps"), "{maps}");
        let template = difference(|share| share.target.maps[0].usage = MapUse::Template);
        assert!(template.contains("their maps"), "{template}");
        let fewer = difference(|share| drop(share.target.maps.pop()));
        assert!(fewer.contains("their maps"), "{fewer}");
        let kernel = difference(|share| share.target.build_id = vec![2]);
        assert!(kernel.contains("the kernel"), "{kernel}");
        let evidence = difference(|share| share.evidence.kernel.cpu = "max".into());
        assert!(evidence.contains("their evidence"), "{evidence}");
    }
}
