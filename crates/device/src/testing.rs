//! Targets for unit tests.

use preverify_bundle::{Builder, Fingerprint, Image, Map, Program, SectionKind, Target};

pub fn target(programs: Vec<Program>, maps: Vec<Map>) -> Target {
    Target {
        build_id: vec![1; 20],
        fingerprint: Fingerprint::default(),
        release: "6.12".to_owned(),
        programs,
        maps,
        slots: Vec::new(),
        btf: None,
        evidence: None,
    }
}

pub fn program(function: &str, maps: &[u32]) -> Program {
    Program {
        name: function.to_owned(),
        function: function.to_owned(),
        maps: maps.to_vec(),
        ..Program::default()
    }
}

/// An array of one value of eight bytes.
pub fn map(name: &str) -> Map {
    Map {
        name: name.to_owned(),
        full_name: name.to_owned(),
        map_type: 2,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        ..Map::default()
    }
}

/// Two images that differ.
pub fn images() -> [Image; 2] {
    let mut builder = Builder::new();
    [1, 2].map(|byte| Image {
        image: builder
            .section(SectionKind::Image, vec![byte])
            .expect("one byte is not too much"),
        symbols: None,
    })
}
