//! What must be true of a manifest beyond its layout. Writing and reading check the same.

use preverify_abi::image::IMAGE_MAX_SIZE;
use preverify_abi::manifest::{
    ATTACH_ARGS_MAX, FIELD_KERNEL_BTF, FIELD_REFCOUNT, FIELD_SPIN_LOCK, VALUE_SIGNED, VALUE_STRUCT,
};

use crate::{
    AttachTarget, Field, FormatError, Image, Manifest, Map, MapUse, Program, SectionId,
    SectionKind, Slot, SlotContent, Target, Value,
};

/// Bytes of a GNU build id in the format.
pub(crate) const BUILD_ID_ROOM: usize = 32;
/// Bytes of a kernel name, its terminating zero included.
pub(crate) const NAME_ROOM: usize = 16;

pub(crate) fn check(manifest: &Manifest) -> Result<(), FormatError> {
    let mut sections = Sections { manifest, seen: 0 };
    for (number, target) in manifest.targets.iter().enumerate() {
        check_target(target, &format!("target {number}"), &mut sections)?;
    }
    sections.finish()
}

fn check_target(
    target: &Target,
    place: &str,
    sections: &mut Sections<'_>,
) -> Result<(), FormatError> {
    if target.build_id.is_empty() || target.build_id.len() > BUILD_ID_ROOM {
        return Err(FormatError::value(
            format!("{place}, build id"),
            format!("1 to {BUILD_ID_ROOM} bytes"),
            target.build_id.len().to_string(),
        ));
    }
    if target.fingerprint.reserved != [0; 16] {
        return Err(FormatError::value(
            format!("{place}, fingerprint, reserved"),
            "zeroes",
            "other bytes",
        ));
    }
    for (id, kind, referrer) in section_references(target) {
        sections.check(id, kind, &format!("{place}, {referrer}"))?;
    }
    for (number, program) in target.programs.iter().enumerate() {
        check_program(program, target, &format!("{place}, program {number}"))?;
    }
    for (number, map) in target.maps.iter().enumerate() {
        check_map(map, target, &format!("{place}, map {number}"))?;
    }
    for (number, slot) in target.slots.iter().enumerate() {
        check_slot(slot, target, &format!("{place}, slot {number}"))?;
    }
    Ok(())
}

fn check_program(program: &Program, target: &Target, place: &str) -> Result<(), FormatError> {
    check_name(&program.name, place)?;
    for &map in &program.maps {
        check_index(map, "map", target.maps.len(), place)?;
    }
    if program.native.is_none() && program.bytecode.is_none() {
        return Err(FormatError::value(place, "an image", "none"));
    }
    match &program.attach_target {
        Some(target) => check_attach_target(target, &format!("{place}, attach target")),
        None => Ok(()),
    }
}

fn check_attach_target(target: &AttachTarget, place: &str) -> Result<(), FormatError> {
    if target.name.is_empty() {
        return Err(FormatError::value(place, "a name", "none"));
    }
    if target.arguments.len() > ATTACH_ARGS_MAX {
        return Err(FormatError::TooMuch {
            place: format!("{place}, arguments"),
            limit: ATTACH_ARGS_MAX as u64,
            found: target.arguments.len() as u64,
        });
    }
    for Value { flags, .. } in target.returns.iter().chain(&target.arguments) {
        if flags & !(VALUE_STRUCT | VALUE_SIGNED) != 0 {
            return Err(FormatError::value(
                place,
                format!("no flags but {:#x}", VALUE_STRUCT | VALUE_SIGNED),
                format!("{flags:#x}"),
            ));
        }
    }
    Ok(())
}

fn check_map(map: &Map, target: &Target, place: &str) -> Result<(), FormatError> {
    check_name(&map.name, place)?;
    if let Some(inner) = map.inner {
        check_index(inner, "map", target.maps.len(), place)?;
    }
    if map.usage == MapUse::Template && map.contents.is_some() {
        return Err(FormatError::value(
            place,
            "a template without contents",
            "contents",
        ));
    }
    let mut end = 0;
    for (number, field) in map.fields.iter().enumerate() {
        let place = format!("{place}, field {number}");
        end = check_field(field, end, map.value_size, &place)?;
    }
    Ok(())
}

/// Returns the field's end.
fn check_field(field: &Field, free: u32, value_size: u32, place: &str) -> Result<u32, FormatError> {
    let (offset, size) = (field.offset.get(), field.size.get());
    let end = offset
        .checked_add(size)
        .filter(|&end| offset >= free && end <= value_size)
        .ok_or_else(|| {
            FormatError::value(
                place,
                format!("a field inside of bytes {free}..{value_size} of the value"),
                format!("{size} bytes at {offset}"),
            )
        })?;
    let kind = field.kind.get();
    if !(FIELD_SPIN_LOCK..=FIELD_REFCOUNT).contains(&kind) {
        return Err(FormatError::value(
            place,
            format!("a kind from {FIELD_SPIN_LOCK} to {FIELD_REFCOUNT}"),
            kind.to_string(),
        ));
    }
    if field.flags.get() & !FIELD_KERNEL_BTF != 0 {
        return Err(FormatError::value(
            place,
            format!("no flags but {FIELD_KERNEL_BTF:#x}"),
            format!("{:#x}", field.flags),
        ));
    }
    Ok(end)
}

fn check_slot(slot: &Slot, target: &Target, place: &str) -> Result<(), FormatError> {
    check_index(slot.map, "map", target.maps.len(), place)?;
    match slot.content {
        SlotContent::Program(index) => check_index(index, "program", target.programs.len(), place),
        SlotContent::Map(index) => check_index(index, "map", target.maps.len(), place),
    }
}

/// A name as the kernel keeps it: it ends at the first zero.
fn check_name(name: &str, place: &str) -> Result<(), FormatError> {
    if name.len() < NAME_ROOM && !name.contains('\0') {
        return Ok(());
    }
    Err(FormatError::value(
        format!("{place}, name"),
        format!("at most {} bytes, none zero", NAME_ROOM - 1),
        format!("{name:?}"),
    ))
}

fn check_index(
    index: u32,
    table: &'static str,
    count: usize,
    place: &str,
) -> Result<(), FormatError> {
    if (index as usize) < count {
        return Ok(());
    }
    Err(FormatError::Index {
        place: place.to_owned(),
        table,
        index: index.into(),
        count: count as u64,
    })
}

/// Every reference of a target to a section, in the order that defines the sections' order.
pub(crate) fn section_references(
    target: &Target,
) -> impl Iterator<Item = (SectionId, SectionKind, String)> {
    let own = [
        (target.btf, SectionKind::Btf, "btf".to_owned()),
        (
            target.evidence,
            SectionKind::Evidence,
            "evidence".to_owned(),
        ),
    ];
    let programs = target
        .programs
        .iter()
        .enumerate()
        .flat_map(|(number, program)| {
            [(program.native, "native"), (program.bytecode, "bytecode")]
                .into_iter()
                .filter_map(|(image, name)| Some((image?, name)))
                .flat_map(move |(Image { image, symbols }, name)| {
                    let place = format!("program {number}, {name}");
                    [
                        (Some(image), SectionKind::Image, place.clone()),
                        (symbols, SectionKind::Symbols, place),
                    ]
                })
        });
    let maps = target
        .maps
        .iter()
        .enumerate()
        .map(|(number, map)| (map.contents, SectionKind::Contents, format!("map {number}")));
    own.into_iter()
        .chain(programs)
        .chain(maps)
        .filter_map(|(id, kind, place)| Some((id?, kind, place)))
}

/// Walks the references in order: sections are numbered by their first use.
struct Sections<'a> {
    manifest: &'a Manifest,
    seen: u32,
}

impl Sections<'_> {
    fn check(&mut self, id: SectionId, kind: SectionKind, place: &str) -> Result<(), FormatError> {
        let section = self
            .manifest
            .section(id)
            .ok_or_else(|| FormatError::Index {
                place: place.to_owned(),
                table: "section",
                index: id.0.into(),
                count: self.manifest.sections.len() as u64,
            })?;
        if section.kind != kind {
            return Err(FormatError::value(
                place,
                format!("a section with {kind}"),
                format!("section {id} with {}", section.kind),
            ));
        }
        if kind == SectionKind::Image && section.size > IMAGE_MAX_SIZE {
            return Err(FormatError::TooMuch {
                place: format!("{place}, size"),
                limit: IMAGE_MAX_SIZE.into(),
                found: section.size.into(),
            });
        }
        if id.0 > self.seen {
            return Err(FormatError::value(
                place,
                format!(
                    "a section up to {}, as sections are numbered by first use",
                    self.seen
                ),
                id.to_string(),
            ));
        }
        if id.0 == self.seen {
            self.seen += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), FormatError> {
        let sections = &self.manifest.sections;
        if self.seen as usize != sections.len() {
            return Err(FormatError::value(
                "sections",
                format!("{} sections, as many as are referred to", self.seen),
                sections.len().to_string(),
            ));
        }
        let mut sorted = sections.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FormatError::value(
                "sections",
                "each section once",
                format!("two equal sections with {}", pair[0].kind),
            ));
        }
        Ok(())
    }
}
