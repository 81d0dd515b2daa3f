//! Bundles to test with.

#![expect(clippy::unwrap_used, reason = "what cannot be built cannot be tested")]

use preverify_bundle::{
    AttachTarget, Builder, Bundle, Field, Fingerprint, Image, Map, MapUse, Program, SectionKind,
    Slot, SlotContent, Target, Value,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// Everything that a bundle can hold, two targets.
pub fn rich_bundle() -> Bundle {
    rich_bundle_of(&[0, 1])
}

/// The same with these targets.
pub fn rich_bundle_of(numbers: &[u8]) -> Bundle {
    let mut builder = Builder::new();
    for &number in numbers {
        let target = rich_target(&mut builder, number);
        builder.target(target);
    }
    builder.finish().unwrap()
}

/// One with all targets of these.
pub fn merged(bundles: &[&Bundle]) -> Bundle {
    let mut builder = Builder::new();
    for bundle in bundles {
        builder.targets_of(bundle).unwrap();
    }
    builder.finish().unwrap()
}

/// One target whose two programs have `first` and `second` for images and `third` for symbols,
/// added in the order given.
pub fn bundle_of(sections: &[&[u8]]) -> Bundle {
    let mut builder = Builder::new();
    for section in sections {
        let kind = match *section {
            b"third" => SectionKind::Symbols,
            _ => SectionKind::Image,
        };
        builder.section(kind, section.to_vec()).unwrap();
    }
    let mut section = |kind, bytes: &[u8]| builder.section(kind, bytes.to_vec()).unwrap();
    let symbols = Some(section(SectionKind::Symbols, b"third"));
    let images = [b"first".as_slice(), b"second"].map(|bytes| Image {
        image: section(SectionKind::Image, bytes),
        symbols,
    });
    builder.target(Target {
        programs: images
            .map(|image| Program {
                native: Some(image),
                ..Program::default()
            })
            .into(),
        ..empty_target()
    });
    builder.finish().unwrap()
}

fn rich_target(builder: &mut Builder, number: u8) -> Target {
    let mut section = |kind, bytes: &[u8]| builder.section(kind, bytes.to_vec()).unwrap();
    let symbols = format!("symbols of target {number}");
    let native = Image {
        image: section(SectionKind::Image, b"native code"),
        symbols: Some(section(SectionKind::Symbols, symbols.as_bytes())),
    };
    let bytecode = Image {
        image: section(SectionKind::Image, b"bytecode!"),
        symbols: None,
    };
    let btf = section(SectionKind::Btf, b"types");
    let evidence = section(SectionKind::Evidence, symbols.as_bytes());
    let contents = section(SectionKind::Contents, b"constants");
    let more = section(SectionKind::Contents, b"variables, nearly all of them zero");
    Target {
        build_id: vec![number + 1; 20],
        fingerprint: Fingerprint {
            arch: 62.into(),
            page_shift: 12.into(),
            va_bits: 48.into(),
            cpu_limit: 64.into(),
            jit_flags: 3.into(),
            ..Fingerprint::default()
        },
        release: "6.12.117+deb12-cloud-amd64".to_owned(),
        programs: vec![
            Program {
                name: "count_packets_a".to_owned(),
                prog_type: 6,
                expected_attach_type: 37,
                function: "count_packets_and_bytes".to_owned(),
                elf_section: "xdp".to_owned(),
                maps: vec![1, 0],
                native: Some(native),
                bytecode: Some(bytecode),
                processed_insns: 42,
                peak_states: 3,
                ..Program::default()
            },
            Program {
                name: "ünïcode".to_owned(),
                prog_type: 26,
                attach_btf_id: 1234,
                attach_target: Some(AttachTarget {
                    name: "vfs_read".to_owned(),
                    address: 0x4711,
                    returns: Some(value(8, 2)),
                    arguments: vec![value(8, 0), value(8, 0), value(8, 0), value(16, 1)],
                }),
                prog_flags: 16,
                function: "vfs_read".to_owned(),
                elf_section: "fentry/vfs_read".to_owned(),
                bytecode: Some(bytecode),
                ..Program::default()
            },
        ],
        maps: vec![
            Map {
                name: "counters".to_owned(),
                full_name: "counters".to_owned(),
                map_type: 1,
                key_size: 4,
                value_size: 64,
                max_entries: 1024,
                btf_key_type_id: 5,
                btf_value_type_id: 7,
                fields: vec![field(0, 4, 1), field(16, 16, 2)],
                pin_path: "/sys/fs/bpf/counters".to_owned(),
                contents: Some(more),
                ..Map::default()
            },
            Map {
                name: "count_pa.rodata".to_owned(),
                full_name: ".rodata".to_owned(),
                map_type: 2,
                key_size: 4,
                value_size: 9,
                max_entries: 1,
                map_flags: 0x480,
                contents: Some(contents),
                usage: MapUse::Constant,
                ..Map::default()
            },
            Map {
                name: "outer".to_owned(),
                full_name: "outer".to_owned(),
                map_type: 12,
                key_size: 4,
                value_size: 4,
                max_entries: 2,
                inner: Some(0),
                map_extra: 1 << 40,
                ..Map::default()
            },
        ],
        slots: vec![
            Slot {
                map: 2,
                key: 0,
                content: SlotContent::Map(0),
            },
            Slot {
                map: 2,
                key: 1,
                content: SlotContent::Program(1),
            },
        ],
        btf: Some(btf),
        evidence: Some(evidence),
    }
}

fn value(size: u8, flags: u8) -> Value {
    Value { size, flags }
}

fn field(offset: u32, size: u32, kind: u32) -> Field {
    Field {
        offset: offset.into(),
        size: size.into(),
        kind: kind.into(),
        ..Field::default()
    }
}

fn empty_target() -> Target {
    Target {
        build_id: vec![7],
        fingerprint: Fingerprint::default(),
        release: String::new(),
        programs: Vec::new(),
        maps: Vec::new(),
        slots: Vec::new(),
        btf: None,
        evidence: None,
    }
}

/// Any bundle.
pub fn arbitrary_bundle() -> impl Strategy<Value = Bundle> {
    (
        proptest::collection::vec(arbitrary_target(), 0..3),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 1..40)),
    )
        .prop_map(|(targets, signature)| {
            let mut builder = Builder::new();
            for draft in targets {
                let target = draft.target(&mut builder);
                builder.target(target);
            }
            let mut bundle = builder.finish().unwrap();
            bundle.set_signature(signature);
            bundle
        })
}

/// A target, its sections and indices still to be made good.
#[derive(Clone, Debug)]
struct DraftTarget {
    build_id: Vec<u8>,
    numbers: [u32; 4],
    release: String,
    btf: Option<Vec<u8>>,
    evidence: Option<Vec<u8>>,
    programs: Vec<DraftProgram>,
    maps: Vec<DraftMap>,
    slots: Vec<(Index, u32, bool, Index)>,
}

#[derive(Clone, Debug)]
struct DraftProgram {
    name: String,
    function: String,
    numbers: [u32; 6],
    attach_target: Option<AttachTarget>,
    maps: Vec<Index>,
    native: (Vec<u8>, Option<Vec<u8>>),
    bytecode: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

#[derive(Clone, Debug)]
struct DraftMap {
    name: String,
    full_name: String,
    pin_path: String,
    numbers: [u32; 7],
    map_extra: u64,
    fields: Vec<(u8, u8, u32, [u32; 3])>,
    inner: Option<Index>,
    contents: Option<Vec<u8>>,
    constant: bool,
}

impl DraftTarget {
    fn target(self, builder: &mut Builder) -> Target {
        let [cpu_limit, page_shift, jit_harden, cfi_mode] = self.numbers.map(Into::into);
        let (program_count, map_count) = (self.programs.len(), self.maps.len());
        let mut add =
            |kind, bytes: Option<Vec<u8>>| bytes.map(|bytes| builder.section(kind, bytes).unwrap());
        let slots = self.slots.iter().filter(|_| map_count > 0).map(|slot| {
            let (map, key, program, index) = slot;
            Slot {
                map: pick(map, map_count),
                key: *key,
                content: if *program && program_count > 0 {
                    SlotContent::Program(pick(index, program_count))
                } else {
                    SlotContent::Map(pick(index, map_count))
                },
            }
        });
        Target {
            slots: slots.collect(),
            btf: add(SectionKind::Btf, self.btf),
            evidence: add(SectionKind::Evidence, self.evidence),
            build_id: self.build_id,
            fingerprint: Fingerprint {
                cpu_limit,
                page_shift,
                jit_harden,
                cfi_mode,
                ..Fingerprint::default()
            },
            release: self.release,
            programs: self
                .programs
                .into_iter()
                .map(|draft| draft.program(map_count, &mut add))
                .collect(),
            maps: self
                .maps
                .into_iter()
                .map(|draft| draft.map(map_count, &mut add))
                .collect(),
        }
    }
}

type Add<'a> = dyn FnMut(SectionKind, Option<Vec<u8>>) -> Option<preverify_bundle::SectionId> + 'a;

impl DraftProgram {
    fn program(self, map_count: usize, add: &mut Add<'_>) -> Program {
        let mut image = |(image, symbols)| Image {
            image: add(SectionKind::Image, Some(image)).unwrap(),
            symbols: add(SectionKind::Symbols, symbols),
        };
        let maps = self.maps.iter().filter(|_| map_count > 0);
        Program {
            name: self.name,
            prog_type: self.numbers[0],
            expected_attach_type: self.numbers[1],
            attach_btf_id: self.numbers[2],
            attach_target: self.attach_target,
            prog_flags: self.numbers[3],
            elf_section: format!("section of {}", self.function),
            function: self.function,
            maps: maps.map(|index| pick(index, map_count)).collect(),
            native: Some(image(self.native)),
            bytecode: self.bytecode.map(image),
            processed_insns: self.numbers[4],
            peak_states: self.numbers[5],
            raised_limits: self.numbers[5] % 2 == 1,
        }
    }
}

impl DraftMap {
    fn map(self, map_count: usize, add: &mut Add<'_>) -> Map {
        let mut end = 0;
        let fields = self.fields.iter().map(|&(gap, size, kind, numbers)| {
            let offset = end + u32::from(gap);
            end = offset + u32::from(size);
            let [flags, btf_id, node_offset] = numbers;
            Field {
                flags: (flags & 1).into(),
                btf_id: btf_id.into(),
                node_offset: node_offset.into(),
                ..field(offset, size.into(), kind)
            }
        });
        Map {
            fields: fields.collect(),
            name: self.name,
            full_name: self.full_name,
            map_type: self.numbers[0],
            key_size: self.numbers[1],
            value_size: self.numbers[2].max(end),
            max_entries: self.numbers[3],
            map_flags: self.numbers[4],
            map_extra: self.map_extra,
            btf_key_type_id: self.numbers[5],
            btf_value_type_id: self.numbers[6],
            inner: self.inner.map(|index| pick(&index, map_count)),
            contents: add(SectionKind::Contents, self.contents),
            pin_path: self.pin_path,
            usage: if self.constant {
                MapUse::Constant
            } else {
                MapUse::Ordinary
            },
        }
    }
}

fn pick(index: &Index, count: usize) -> u32 {
    u32::try_from(index.index(count)).unwrap()
}

/// Few different ones, so that some are equal.
fn arbitrary_section() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0..3_u8, 0..4)
}

fn arbitrary_target() -> impl Strategy<Value = DraftTarget> {
    (
        proptest::collection::vec(any::<u8>(), 1..=32),
        any::<[u32; 4]>(),
        ".{0,20}",
        proptest::option::of(arbitrary_section()),
        proptest::option::of(arbitrary_section()),
        proptest::collection::vec(arbitrary_program(), 0..4),
        proptest::collection::vec(arbitrary_map(), 0..4),
        proptest::collection::vec(any::<(Index, u32, bool, Index)>(), 0..4),
    )
        .prop_map(
            |(build_id, numbers, release, btf, evidence, programs, maps, slots)| DraftTarget {
                build_id,
                numbers,
                release,
                btf,
                evidence,
                programs,
                maps,
                slots,
            },
        )
}

fn arbitrary_program() -> impl Strategy<Value = DraftProgram> {
    let image = || {
        (
            arbitrary_section(),
            proptest::option::of(arbitrary_section()),
        )
    };
    (
        "[a-z_]{0,15}",
        "[a-z_]{0,3}",
        any::<[u32; 6]>(),
        proptest::option::of(arbitrary_attach_target()),
        proptest::collection::vec(any::<Index>(), 0..4),
        image(),
        proptest::option::of(image()),
    )
        .prop_map(
            |(name, function, numbers, attach_target, maps, native, bytecode)| DraftProgram {
                name,
                function,
                numbers,
                attach_target,
                maps,
                native,
                bytecode,
            },
        )
}

fn arbitrary_attach_target() -> impl Strategy<Value = AttachTarget> {
    let arbitrary_value = || (any::<u8>(), 0..4_u8).prop_map(|(size, flags)| value(size, flags));
    (
        "[a-z_]{1,3}",
        any::<u64>(),
        proptest::option::of(arbitrary_value()),
        proptest::collection::vec(arbitrary_value(), 0..=12),
    )
        .prop_map(|(name, address, returns, arguments)| AttachTarget {
            name,
            address,
            returns,
            arguments,
        })
}

fn arbitrary_map() -> impl Strategy<Value = DraftMap> {
    (
        "[a-z_.]{0,15}",
        "[a-z_.]{0,3}",
        "(/[a-z]{1,3})?",
        any::<[u32; 7]>(),
        any::<u64>(),
        proptest::collection::vec(
            (any::<u8>(), any::<u8>(), 1..=11_u32, any::<[u32; 3]>()),
            0..3,
        ),
        any::<Option<Index>>(),
        proptest::option::of(arbitrary_section()),
        any::<bool>(),
    )
        .prop_map(
            |(name, full_name, pin_path, numbers, map_extra, fields, inner, contents, constant)| {
                DraftMap {
                    name,
                    full_name,
                    pin_path,
                    numbers,
                    map_extra,
                    fields,
                    inner,
                    contents,
                    constant,
                }
            },
        )
}
