//! A manifest from its bytes.

use preverify_abi::manifest as abi;
use preverify_abi::manifest::{
    MANIFEST_MAGIC, MANIFEST_MAX_SIZE, ManifestHeader, PROGRAM_RAISED_LIMITS,
};
use preverify_abi::{ABI_VERSION, NONE, Range};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::layout::records;
use crate::rules;
use crate::{
    AttachTarget, FormatError, Image, Manifest, Map, MapUse, Program, Section, SectionId,
    SectionKind, Slot, SlotContent, Target, Value,
};

impl Manifest {
    /// Reads a manifest. Takes exactly what [`Manifest::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let manifest = Tables::find(bytes)?.manifest()?;
        rules::check(&manifest)?;
        check_canonical(bytes, &manifest.encode()?)?;
        Ok(manifest)
    }
}

fn check_canonical(bytes: &[u8], canonical: &[u8]) -> Result<(), FormatError> {
    if bytes == canonical {
        return Ok(());
    }
    let difference = bytes
        .iter()
        .zip(canonical)
        .position(|(found, expected)| found != expected)
        .unwrap_or(canonical.len().min(bytes.len()));
    Err(FormatError::value(
        format!("manifest, byte {difference}"),
        "the one encoding of what it says",
        "another encoding",
    ))
}

/// The manifest's tables where they lie.
struct Tables<'a> {
    targets: &'a [abi::Target],
    programs: &'a [abi::Program],
    maps: &'a [abi::Map],
    fields: &'a [abi::Field],
    map_refs: &'a [U32],
    slots: &'a [abi::Slot],
    attach_targets: &'a [abi::AttachTarget],
    sections: &'a [abi::Section],
    strings: &'a [u8],
}

impl<'a> Tables<'a> {
    fn find(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (header, _) =
            ManifestHeader::ref_from_prefix(bytes).map_err(|_| FormatError::Truncated {
                place: "manifest header".to_owned(),
                needed: size_of::<ManifestHeader>() as u64,
                found: bytes.len() as u64,
            })?;
        if header.magic != MANIFEST_MAGIC {
            return Err(FormatError::Magic {
                place: "manifest",
                expected: MANIFEST_MAGIC,
                found: header.magic,
            });
        }
        if header.version != ABI_VERSION {
            return Err(FormatError::Version {
                place: "manifest",
                expected: ABI_VERSION,
                found: header.version.get(),
            });
        }
        if header.size.get() as usize != bytes.len() || header.size > MANIFEST_MAX_SIZE {
            return Err(FormatError::value(
                "manifest, size",
                format!("{}, at most {MANIFEST_MAX_SIZE}", bytes.len()),
                header.size.to_string(),
            ));
        }
        if header.features != 0 {
            return Err(FormatError::Features(header.features.get()));
        }
        Ok(Self {
            targets: records(bytes, "targets", header.targets)?,
            programs: records(bytes, "programs", header.programs)?,
            maps: records(bytes, "maps", header.maps)?,
            fields: records(bytes, "fields", header.fields)?,
            map_refs: records(bytes, "map references", header.map_refs)?,
            slots: records(bytes, "slots", header.slots)?,
            attach_targets: records(bytes, "attach targets", header.attach_targets)?,
            sections: records(bytes, "sections", header.sections)?,
            strings: records(bytes, "strings", header.strings)?,
        })
    }

    fn manifest(&self) -> Result<Manifest, FormatError> {
        let sections = enumerate(self.sections, "section", decode_section)?;
        let targets = enumerate(self.targets, "target", |target, place| {
            self.target(target, place)
        })?;
        Ok(Manifest { targets, sections })
    }

    fn target(&self, target: &abi::Target, place: &str) -> Result<Target, FormatError> {
        let size = target.build_id_size.get();
        let build_id = usize::try_from(size)
            .ok()
            .and_then(|size| target.build_id.get(..size))
            .ok_or_else(|| {
                FormatError::value(
                    format!("{place}, build id"),
                    format!("at most {} bytes", target.build_id.len()),
                    size.to_string(),
                )
            })?;
        let local = Local {
            programs: target.programs,
            maps: target.maps,
        };
        let programs = slice(self.programs, target.programs, "program", place)?;
        let maps = slice(self.maps, target.maps, "map", place)?;
        let slots = slice(self.slots, target.slots, "slot", place)?;
        Ok(Target {
            build_id: build_id.to_vec(),
            fingerprint: target.fingerprint,
            release: self.string(target.release, &format!("{place}, release"))?,
            programs: enumerate(programs, "program", |program, at| {
                self.program(program, &local, &format!("{place}, {at}"))
            })?,
            maps: enumerate(maps, "map", |map, at| {
                self.map(map, &local, &format!("{place}, {at}"))
            })?,
            slots: enumerate(slots, "slot", |slot, at| {
                decode_slot(slot, &local, &format!("{place}, {at}"))
            })?,
            btf: decode_section_id(target.btf),
            evidence: decode_section_id(target.evidence),
        })
    }

    fn program(
        &self,
        program: &abi::Program,
        local: &Local,
        place: &str,
    ) -> Result<Program, FormatError> {
        let maps = slice(self.map_refs, program.map_refs, "map reference", place)?;
        Ok(Program {
            name: decode_name(&program.name, place)?,
            prog_type: program.prog_type.get(),
            expected_attach_type: program.expected_attach_type.get(),
            attach_btf_id: program.attach_btf_id.get(),
            attach_target: self.attach_target(program.attach_target.get(), place)?,
            prog_flags: program.prog_flags.get(),
            function: self.string(program.function, &format!("{place}, function"))?,
            elf_section: self.string(program.elf_section, &format!("{place}, ELF section"))?,
            maps: maps
                .iter()
                .map(|map| local.map(map.get(), place))
                .collect::<Result<_, _>>()?,
            native: decode_image(
                program.native,
                program.native_symbols,
                &format!("{place}, native"),
            )?,
            bytecode: decode_image(
                program.bytecode,
                program.bytecode_symbols,
                &format!("{place}, bytecode"),
            )?,
            processed_insns: program.processed_insns.get(),
            peak_states: program.peak_states.get(),
            raised_limits: match program.flags.get() {
                0 => false,
                PROGRAM_RAISED_LIMITS => true,
                flags => {
                    return Err(FormatError::value(
                        format!("{place}, flags"),
                        format!("0 or {PROGRAM_RAISED_LIMITS}"),
                        format!("{flags:#x}"),
                    ));
                }
            },
        })
    }

    fn attach_target(&self, index: u32, place: &str) -> Result<Option<AttachTarget>, FormatError> {
        if index == NONE {
            return Ok(None);
        }
        let range = Range {
            first: index.into(),
            count: 1.into(),
        };
        let place = format!("{place}, attach target");
        let [target] = slice(self.attach_targets, range, "attach target", &place)? else {
            unreachable!("a range of one");
        };
        let values = target.arg_sizes.iter().zip(&target.arg_flags);
        let values = values.map(|(&size, &flags)| Value { size, flags });
        Ok(Some(AttachTarget {
            name: self.string(target.name, &format!("{place}, name"))?,
            address: target.address.get(),
            returns: (target.returns != 0).then_some(Value {
                size: target.ret_size,
                flags: target.ret_flags,
            }),
            arguments: values.take(target.arg_count.into()).collect(),
        }))
    }

    fn map(&self, map: &abi::Map, local: &Local, place: &str) -> Result<Map, FormatError> {
        let usage = MapUse::from_flags(map.flags.get()).ok_or_else(|| {
            FormatError::value(
                format!("{place}, flags"),
                "at most one flag that is known",
                format!("{:#x}", map.flags),
            )
        })?;
        let inner = Some(map.inner.get()).filter(|&inner| inner != NONE);
        Ok(Map {
            name: decode_name(&map.name, place)?,
            full_name: self.string(map.full_name, &format!("{place}, full name"))?,
            map_type: map.map_type.get(),
            key_size: map.key_size.get(),
            value_size: map.value_size.get(),
            max_entries: map.max_entries.get(),
            map_flags: map.map_flags.get(),
            map_extra: map.map_extra.get(),
            btf_key_type_id: map.btf_key_type_id.get(),
            btf_value_type_id: map.btf_value_type_id.get(),
            fields: slice(self.fields, map.fields, "field", place)?.to_vec(),
            inner: inner.map(|inner| local.map(inner, place)).transpose()?,
            contents: decode_section_id(map.contents),
            pin_path: self.string(map.pin_path, &format!("{place}, pin path"))?,
            usage,
        })
    }

    fn string(&self, range: Range, place: &str) -> Result<String, FormatError> {
        let bytes = slice(self.strings, range, "byte of the strings", place)?;
        match str::from_utf8(bytes) {
            Ok(string) => Ok(string.to_owned()),
            Err(_) => Err(FormatError::value(
                place,
                "UTF-8",
                bytes.escape_ascii().to_string(),
            )),
        }
    }
}

/// The parts of the whole tables that belong to one target.
struct Local {
    programs: Range,
    maps: Range,
}

impl Local {
    fn program(&self, index: u32, place: &str) -> Result<u32, FormatError> {
        local(index, self.programs, "program", place)
    }

    fn map(&self, index: u32, place: &str) -> Result<u32, FormatError> {
        local(index, self.maps, "map", place)
    }
}

fn local(index: u32, range: Range, table: &'static str, place: &str) -> Result<u32, FormatError> {
    index
        .checked_sub(range.first.get())
        .filter(|&local| local < range.count.get())
        .ok_or_else(|| {
            FormatError::value(
                place,
                format!(
                    "a {table} of the same target, one of {} from {} on",
                    range.count, range.first
                ),
                index.to_string(),
            )
        })
}

fn slice<'a, T>(
    records: &'a [T],
    range: Range,
    table: &'static str,
    place: &str,
) -> Result<&'a [T], FormatError> {
    let end = u64::from(range.first.get()) + u64::from(range.count.get());
    usize::try_from(end)
        .ok()
        .and_then(|end| records.get(range.first.get() as usize..end))
        .ok_or_else(|| FormatError::Index {
            place: place.to_owned(),
            table,
            index: end.saturating_sub(1),
            count: records.len() as u64,
        })
}

fn enumerate<R, T>(
    records: &[R],
    name: &str,
    mut decode: impl FnMut(&R, &str) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    records
        .iter()
        .enumerate()
        .map(|(number, record)| decode(record, &format!("{name} {number}")))
        .collect()
}

fn decode_slot(slot: &abi::Slot, local: &Local, place: &str) -> Result<Slot, FormatError> {
    let index = slot.index.get();
    let content = match slot.kind.get() {
        abi::SLOT_PROGRAM => SlotContent::Program(local.program(index, place)?),
        abi::SLOT_MAP => SlotContent::Map(local.map(index, place)?),
        kind => {
            return Err(FormatError::value(
                format!("{place}, kind"),
                format!("{} or {}", abi::SLOT_PROGRAM, abi::SLOT_MAP),
                kind.to_string(),
            ));
        }
    };
    Ok(Slot {
        map: local.map(slot.map.get(), place)?,
        key: slot.key.get(),
        content,
    })
}

fn decode_section(section: &abi::Section, place: &str) -> Result<Section, FormatError> {
    let kind = SectionKind::from_number(section.kind.get()).ok_or_else(|| {
        FormatError::value(
            format!("{place}, kind"),
            format!("{} to {}", abi::SECTION_IMAGE, abi::SECTION_EVIDENCE),
            section.kind.to_string(),
        )
    })?;
    Ok(Section {
        digest: section.digest,
        size: section.size.get(),
        kind,
    })
}

fn decode_image(image: U32, symbols: U32, place: &str) -> Result<Option<Image>, FormatError> {
    let symbols = decode_section_id(symbols);
    match (decode_section_id(image), symbols) {
        (Some(image), symbols) => Ok(Some(Image { image, symbols })),
        (None, None) => Ok(None),
        (None, Some(symbols)) => Err(FormatError::value(
            place,
            "no symbols without an image",
            format!("symbols in section {symbols}"),
        )),
    }
}

fn decode_section_id(id: U32) -> Option<SectionId> {
    Some(SectionId(id.get())).filter(|&SectionId(id)| id != NONE)
}

fn decode_name(name: &[u8; 16], place: &str) -> Result<String, FormatError> {
    let invalid = || {
        FormatError::value(
            format!("{place}, name"),
            "UTF-8 with a terminating zero",
            name.escape_ascii().to_string(),
        )
    };
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .ok_or_else(invalid)?;
    let name = str::from_utf8(&name[..end]).map_err(|_| invalid())?;
    Ok(name.to_owned())
}
