//! From verified objects to a bundle.

use preverify_abi::export::EXPORT_MAP_CONSTANT;
use preverify_bundle::{
    Builder, Bundle, Field, FormatError, Image, Map, MapUse, Program, SectionKind, Slot,
    SlotContent, Target as BundleTarget,
};
use preverify_image::export::Export;
use preverify_image::image::Sections;
use preverify_protocol::{Loaded, LoadedMap, SlotContent as LoadedContent};
use preverify_target::Target;

use crate::error::{BuildError, Problem, ProgramProblem};
use crate::evidence::{DeviceKernel, Evidence, Kernel, ProgramEvidence, ProofEvidence};
use crate::images::{ProvedImage, VerifiedProgram};
use crate::verifier::Verified;

/// The unsigned bundle of an object that was verified for some targets.
pub fn bundle(verified: &[(&Target, &Verified)]) -> Result<Bundle, BuildError> {
    let mut builder = Builder::new();
    for (target, verified) in verified {
        let target = bundle_target(&mut builder, target, verified)?;
        builder.target(target);
    }
    Ok(builder.finish()?)
}

fn bundle_target(
    builder: &mut Builder,
    target: &Target,
    verified: &Verified,
) -> Result<BundleTarget, BuildError> {
    let facts = target.facts();
    let loaded = &verified.loaded;
    let evidence =
        serde_json::to_vec(&evidence(target, verified)).expect("evidence has only strings as keys");
    Ok(BundleTarget {
        build_id: match target.device() {
            Some(device) => device.build_id().to_vec(),
            None => facts.build_id.clone(),
        },
        fingerprint: match &verified.on_device {
            Some(on_device) => on_device.fingerprint(facts.fingerprint),
            None => facts.fingerprint,
        },
        release: match target.device() {
            Some(device) => device.release().to_owned(),
            None => facts.release.clone(),
        },
        programs: programs(builder, verified)?,
        maps: maps(builder, verified)?,
        slots: loaded.slots.iter().map(slot).collect(),
        btf: loaded
            .btf
            .clone()
            .map(|btf| builder.section(SectionKind::Btf, btf))
            .transpose()?,
        evidence: Some(builder.section(SectionKind::Evidence, evidence)?),
    })
}

fn programs(builder: &mut Builder, verified: &Verified) -> Result<Vec<Program>, BuildError> {
    let mut problems = Vec::new();
    let mut programs = Vec::new();
    let all = verified.programs.iter().zip(&verified.loaded.programs);
    for (index, (program, loaded)) in all.enumerate() {
        let VerifiedProgram {
            export,
            native,
            bytecode,
        } = program;
        let maps = match used_maps(export, &verified.loaded) {
            Ok(maps) => maps,
            Err(problem) => {
                problems.push(ProgramProblem {
                    program: loaded.function.clone(),
                    problem,
                });
                continue;
            }
        };
        let on_device = verified.on_device.as_ref();
        let on_device = on_device.and_then(|on_device| on_device.program(index));
        let mut image = |proved: &Option<ProvedImage>, on_device: Option<&Sections>| {
            let proved = &proved.as_ref()?.sections;
            Some(image(builder, on_device.unwrap_or(proved)))
        };
        let native = image(native, on_device.and_then(|there| there.native.as_ref()));
        let bytecode = image(
            bytecode,
            on_device.and_then(|there| there.bytecode.as_ref()),
        );
        programs.push(Program {
            name: export.name.clone(),
            prog_type: export.prog_type,
            expected_attach_type: export.expected_attach_type,
            attach_btf_id: on_device.map_or(export.attach_btf_id, |there| there.attach_btf_id),
            attach_target: on_device.and_then(|there| there.attach_target.clone()),
            prog_flags: loaded.prog_flags,
            function: loaded.function.clone(),
            elf_section: loaded.elf_section.clone(),
            maps,
            native: native.transpose()?,
            bytecode: bytecode.transpose()?,
            processed_insns: loaded.statistics.total_insns,
            peak_states: loaded.statistics.peak_states,
            raised_limits: verified.loaded.limits.exceed_stock(),
        });
    }
    if problems.is_empty() {
        Ok(programs)
    } else {
        Err(BuildError::Programs(problems))
    }
}

fn image(builder: &mut Builder, sections: &Sections) -> Result<Image, FormatError> {
    Ok(Image {
        image: builder.section(SectionKind::Image, sections.image.clone())?,
        symbols: Some(builder.section(SectionKind::Symbols, sections.symbols.clone())?),
    })
}

/// A program's maps, as indices into the object's.
fn used_maps(export: &Export, loaded: &Loaded) -> Result<Vec<u32>, Problem> {
    let index = |map: &preverify_image::export::Map| {
        let id = map.record.id.get();
        let known = |candidate: &LoadedMap| !candidate.template && candidate.id == id;
        let index = loaded.maps.iter().position(known);
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| Problem::ForeignMap {
                name: format!("type {}", map.record.map_type.get()),
                id,
            })
    };
    export.maps.iter().map(index).collect()
}

fn maps(builder: &mut Builder, verified: &Verified) -> Result<Vec<Map>, FormatError> {
    let loaded = &verified.loaded.maps;
    let mut maps = Vec::with_capacity(loaded.len());
    for (index, map) in loaded.iter().enumerate() {
        let known = exported(verified, index);
        let contents = map
            .contents
            .as_ref()
            .filter(|contents| contents.iter().any(|&byte| byte != 0))
            .map(|contents| builder.section(SectionKind::Contents, contents.clone()))
            .transpose()?;
        maps.push(Map {
            name: map.name.clone(),
            full_name: map.full_name.clone(),
            map_type: map.map_type,
            key_size: map.key_size,
            value_size: map.value_size,
            max_entries: map.max_entries,
            map_flags: map.map_flags,
            map_extra: map.map_extra,
            btf_key_type_id: map.btf_key_type_id,
            btf_value_type_id: map.btf_value_type_id,
            fields: known.fields,
            inner: map.inner,
            contents,
            pin_path: map.pin_path.clone().unwrap_or_default(),
            usage: match map.template {
                true => MapUse::Template,
                false if known.constant => MapUse::Constant,
                false => MapUse::Ordinary,
            },
        });
    }
    Ok(maps)
}

/// What only exports of programs tell about a map.
#[derive(Default)]
struct Exported {
    fields: Vec<Field>,
    constant: bool,
}

/// What the programs that use a map tell about it: of a template, those that use an outer map.
fn exported(verified: &Verified, index: usize) -> Exported {
    let loaded = &verified.loaded.maps;
    let map = &loaded[index];
    let mut known = Exported::default();
    let uses = verified
        .programs
        .iter()
        .flat_map(|program| &program.export.maps);
    for used in uses {
        let id = used.record.id.get();
        if !map.template && map.id == id {
            known.fields.clone_from(&used.fields);
            known.constant |= used.record.flags.get() & EXPORT_MAP_CONSTANT != 0;
        }
        let is_inner = |outer: &LoadedMap| {
            outer.id == id
                && !outer.template
                && outer.inner.is_some_and(|inner| inner as usize == index)
        };
        if map.template && loaded.iter().any(is_inner) {
            known.fields.clone_from(&used.inner_fields);
        }
    }
    known
}

fn slot(slot: &preverify_protocol::LoadedSlot) -> Slot {
    Slot {
        map: slot.map,
        key: slot.key,
        content: match slot.content {
            LoadedContent::Program(program) => SlotContent::Program(program),
            LoadedContent::Map(map) => SlotContent::Map(map),
        },
    }
}

fn evidence(target: &Target, verified: &Verified) -> Evidence {
    let facts = target.facts();
    let programs = verified.programs.iter().zip(&verified.loaded.programs);
    Evidence {
        object: verified.name.clone(),
        object_sha256: verified.object_sha256.clone(),
        inputs: verified.inputs.clone(),
        kernel: Kernel {
            release: facts.release.clone(),
            version: facts.version.clone(),
            command_line: facts.command_line.clone(),
            cpu: target.hardware().cpu.clone(),
        },
        device_kernel: target.device().map(|device| DeviceKernel {
            release: device.release().to_owned(),
            build_id: device.build_id_text(),
            verifier_build_id: facts.build_id_text(),
        }),
        versions: verified.versions.clone(),
        limits: Some(verified.loaded.limits).filter(|limits| limits.exceed_stock()),
        programs: programs
            .map(|(program, loaded)| {
                let proof = |image: &Option<ProvedImage>| {
                    image.as_ref().map(|proved| ProofEvidence {
                        code_bytes: proved.proof.code_bytes,
                        relocations: proved.proof.relocations,
                    })
                };
                ProgramEvidence::new(
                    &loaded.function,
                    &loaded.statistics,
                    proof(&program.native),
                    proof(&program.bytecode),
                )
            })
            .collect(),
    }
}
