//! A manifest's bytes.

use std::collections::HashMap;

use preverify_abi::manifest as abi;
use preverify_abi::manifest::{
    ATTACH_ARGS_MAX, MANIFEST_MAGIC, MANIFEST_MAX_SIZE, ManifestHeader, PROGRAM_RAISED_LIMITS,
};
use preverify_abi::{ABI_VERSION, NONE, Range, Table};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::layout::{aligned, append, number};
use crate::rules::{self, BUILD_ID_ROOM, NAME_ROOM};
use crate::{
    AttachTarget, FormatError, Image, Manifest, Map, Program, Section, SectionId, Slot,
    SlotContent, Target,
};

impl Manifest {
    /// The bytes that are signed.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        rules::check(self)?;
        let mut tables = Tables::default();
        for target in &self.targets {
            tables.add_target(target)?;
        }
        tables.sections = self.sections.iter().map(encode_section).collect();
        tables.into_bytes()
    }
}

/// The manifest's tables as they grow.
#[derive(Default)]
struct Tables {
    targets: Vec<abi::Target>,
    programs: Vec<abi::Program>,
    maps: Vec<abi::Map>,
    fields: Vec<abi::Field>,
    map_refs: Vec<U32>,
    slots: Vec<abi::Slot>,
    attach_targets: Vec<abi::AttachTarget>,
    sections: Vec<abi::Section>,
    strings: Strings,
}

impl Tables {
    fn add_target(&mut self, target: &Target) -> Result<(), FormatError> {
        let mut build_id = [0; BUILD_ID_ROOM];
        build_id[..target.build_id.len()].copy_from_slice(&target.build_id);
        // Programs, slots and maps of maps refer to the whole tables.
        let first_program = count("programs", self.programs.len())?;
        let first_map = count("maps", self.maps.len())?;

        let release = self.strings.add(&target.release)?;
        for program in &target.programs {
            let program = self.program(program, first_map)?;
            self.programs.push(program);
        }
        for map in &target.maps {
            let map = self.map(map, first_map)?;
            self.maps.push(map);
        }
        let first_slot = self.slots.len();
        self.slots.extend(
            target
                .slots
                .iter()
                .map(|slot| encode_slot(slot, first_program, first_map)),
        );
        self.targets.push(abi::Target {
            build_id,
            build_id_size: count("build id", target.build_id.len())?.into(),
            reserved: 0.into(),
            fingerprint: target.fingerprint,
            release,
            programs: range("programs", first_program as usize, self.programs.len())?,
            maps: range("maps", first_map as usize, self.maps.len())?,
            slots: range("slots", first_slot, self.slots.len())?,
            btf: encode_section_id(target.btf),
            evidence: encode_section_id(target.evidence),
        });
        Ok(())
    }

    fn program(&mut self, program: &Program, first_map: u32) -> Result<abi::Program, FormatError> {
        let first_ref = self.map_refs.len();
        self.map_refs
            .extend(program.maps.iter().map(|map| U32::new(first_map + map)));
        let (native, native_symbols) = encode_image(program.native);
        let (bytecode, bytecode_symbols) = encode_image(program.bytecode);
        Ok(abi::Program {
            name: encode_name(&program.name),
            prog_type: program.prog_type.into(),
            expected_attach_type: program.expected_attach_type.into(),
            attach_btf_id: program.attach_btf_id.into(),
            prog_flags: program.prog_flags.into(),
            function: self.strings.add(&program.function)?,
            elf_section: self.strings.add(&program.elf_section)?,
            map_refs: range("map references", first_ref, self.map_refs.len())?,
            native,
            native_symbols,
            bytecode,
            bytecode_symbols,
            processed_insns: program.processed_insns.into(),
            peak_states: program.peak_states.into(),
            attach_target: match &program.attach_target {
                Some(target) => self.attach_target(target)?.into(),
                None => NONE.into(),
            },
            flags: match program.raised_limits {
                true => PROGRAM_RAISED_LIMITS.into(),
                false => 0.into(),
            },
        })
    }

    /// `target` is checked: its arguments fit.
    fn attach_target(&mut self, target: &AttachTarget) -> Result<u32, FormatError> {
        let index = count("attach targets", self.attach_targets.len())?;
        let returns = target.returns.unwrap_or_default();
        let mut arg_sizes = [0; ATTACH_ARGS_MAX];
        let mut arg_flags = [0; ATTACH_ARGS_MAX];
        let places = arg_sizes.iter_mut().zip(&mut arg_flags);
        for (argument, (size, flags)) in target.arguments.iter().zip(places) {
            (*size, *flags) = (argument.size, argument.flags);
        }
        self.attach_targets.push(abi::AttachTarget {
            address: target.address.into(),
            name: self.strings.add(&target.name)?,
            ret_size: returns.size,
            ret_flags: returns.flags,
            #[expect(clippy::cast_possible_truncation, reason = "at most ATTACH_ARGS_MAX")]
            arg_count: target.arguments.len() as u8,
            reserved: 0,
            arg_sizes,
            arg_flags,
            returns: u32::from(target.returns.is_some()).into(),
        });
        Ok(index)
    }

    fn map(&mut self, map: &Map, first_map: u32) -> Result<abi::Map, FormatError> {
        let first_field = self.fields.len();
        self.fields.extend_from_slice(&map.fields);
        Ok(abi::Map {
            name: encode_name(&map.name),
            map_type: map.map_type.into(),
            key_size: map.key_size.into(),
            value_size: map.value_size.into(),
            max_entries: map.max_entries.into(),
            map_flags: map.map_flags.into(),
            flags: map.usage.flags().into(),
            map_extra: map.map_extra.into(),
            btf_key_type_id: map.btf_key_type_id.into(),
            btf_value_type_id: map.btf_value_type_id.into(),
            fields: range("fields", first_field, self.fields.len())?,
            inner: map.inner.map_or(NONE, |inner| first_map + inner).into(),
            contents: encode_section_id(map.contents),
            full_name: self.strings.add(&map.full_name)?,
            pin_path: self.strings.add(&map.pin_path)?,
        })
    }

    fn into_bytes(self) -> Result<Vec<u8>, FormatError> {
        let mut header = ManifestHeader {
            magic: MANIFEST_MAGIC,
            version: ABI_VERSION.into(),
            size: 0.into(),
            features: 0.into(),
            targets: Table::default(),
            programs: Table::default(),
            maps: Table::default(),
            fields: Table::default(),
            map_refs: Table::default(),
            slots: Table::default(),
            attach_targets: Table::default(),
            sections: Table::default(),
            strings: Table::default(),
        };
        let mut bytes = header.as_bytes().to_vec();
        header.targets = append(&mut bytes, "targets", &self.targets)?;
        header.programs = append(&mut bytes, "programs", &self.programs)?;
        header.maps = append(&mut bytes, "maps", &self.maps)?;
        header.fields = append(&mut bytes, "fields", &self.fields)?;
        header.map_refs = append(&mut bytes, "map references", &self.map_refs)?;
        header.slots = append(&mut bytes, "slots", &self.slots)?;
        header.attach_targets = append(&mut bytes, "attach targets", &self.attach_targets)?;
        header.sections = append(&mut bytes, "sections", &self.sections)?;
        header.strings = append(&mut bytes, "strings", &self.strings.bytes)?;
        bytes.resize(aligned(bytes.len()), 0);
        header.size = number("manifest", bytes.len(), MANIFEST_MAX_SIZE)?.into();
        bytes[..size_of::<ManifestHeader>()].copy_from_slice(header.as_bytes());
        Ok(bytes)
    }
}

/// The table of strings; equal ones are stored once.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    ranges: HashMap<String, Range>,
}

impl Strings {
    fn add(&mut self, string: &str) -> Result<Range, FormatError> {
        if string.is_empty() {
            return Ok(Range::default());
        }
        if let Some(&range) = self.ranges.get(string) {
            return Ok(range);
        }
        let first = self.bytes.len();
        self.bytes.extend_from_slice(string.as_bytes());
        let range = range("strings", first, self.bytes.len())?;
        self.ranges.insert(string.to_owned(), range);
        Ok(range)
    }
}

fn count(place: &str, count: usize) -> Result<u32, FormatError> {
    // `NONE` is no index, and no valid manifest comes near it.
    number(place, count, MANIFEST_MAX_SIZE)
}

fn range(place: &str, first: usize, end: usize) -> Result<Range, FormatError> {
    Ok(Range {
        first: if first == end {
            0.into()
        } else {
            count(place, first)?.into()
        },
        count: count(place, end - first)?.into(),
    })
}

fn encode_slot(slot: &Slot, first_program: u32, first_map: u32) -> abi::Slot {
    let (kind, index) = match slot.content {
        SlotContent::Program(index) => (abi::SLOT_PROGRAM, first_program + index),
        SlotContent::Map(index) => (abi::SLOT_MAP, first_map + index),
    };
    abi::Slot {
        map: (first_map + slot.map).into(),
        key: slot.key.into(),
        kind: kind.into(),
        index: index.into(),
    }
}

fn encode_section(section: &Section) -> abi::Section {
    abi::Section {
        digest: section.digest,
        size: section.size.into(),
        kind: section.kind.number().into(),
    }
}

fn encode_image(image: Option<Image>) -> (U32, U32) {
    (
        encode_section_id(image.map(|image| image.image)),
        encode_section_id(image.and_then(|image| image.symbols)),
    )
}

fn encode_section_id(id: Option<SectionId>) -> U32 {
    id.map_or(NONE, |id| id.0).into()
}

/// `name` is checked: shorter than the room.
fn encode_name(name: &str) -> [u8; NAME_ROOM] {
    let mut bytes = [0; NAME_ROOM];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}
