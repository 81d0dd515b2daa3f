//! The overview of a bundle, for people: fits into 100 columns.

use std::collections::BTreeMap;
use std::io::{self, Write};

use preverify_pipeline::ImageKind;
use preverify_pipeline::evidence::Evidence;
use preverify_report::report::{
    ImageReport, MapReport, ProgramReport, Report, SectionReport, SignatureReport,
    SlotContentReport, TargetReport,
};

use super::inputs;
use super::words::counted;
use crate::output::{BAD, FAINT, GOOD, OPEN, STRONG, shown};

const WIDTH: usize = 100;

/// Columns of what stands before a value.
const LABEL: usize = 16;

/// Writes the overview.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let file = shown(&report.file);
    let (bytes, version) = (report.bytes, report.abi_version);
    writeln!(
        out,
        "{STRONG}{file}{STRONG:#}: {bytes} bytes, format version {version}"
    )?;
    write_signature(&report.signature, out)?;
    let several = report.targets.len() > 1;
    for (number, target) in report.targets.iter().enumerate() {
        let number = several.then_some(number);
        write_target(target, number, out)?;
    }
    heading("sections", out)?;
    for (number, section) in report.sections.iter().enumerate() {
        write_section(section, number, out)?;
    }
    Ok(())
}

fn write_signature(signature: &SignatureReport, out: &mut dyn Write) -> io::Result<()> {
    match signature {
        SignatureReport::Unsigned => field("signature", &format!("{BAD}none{BAD:#}"), out),
        SignatureReport::Unchecked { claimed_key_ids } => {
            for key in claimed_key_ids {
                field(
                    "signature",
                    &format!("{OPEN}unchecked{OPEN:#}, names key {key}"),
                    out,
                )?;
            }
            field(
                "",
                "(with --trust CERTIFICATE it is checked; until then anyone can have made it)",
                out,
            )
        }
        SignatureReport::Valid {
            by,
            unknown_key_ids,
        } => {
            for signer in by {
                let subject = shown(&signer.subject);
                field(
                    "signature",
                    &format!("{GOOD}valid{GOOD:#}, by {subject}"),
                    out,
                )?;
                field("", &format!("{}, key {}", signer.key, signer.key_id), out)?;
            }
            for key in unknown_key_ids {
                field(
                    "signature",
                    &format!("{OPEN}unchecked{OPEN:#}, names key {key}"),
                    out,
                )?;
            }
            Ok(())
        }
        SignatureReport::Invalid { problem } => field(
            "signature",
            &format!("{BAD}not valid{BAD:#}: {}", shown(problem)),
            out,
        ),
    }
}

fn write_target(
    target: &TargetReport,
    number: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let number = number
        .map(|number| format!(" {number}"))
        .unwrap_or_default();
    heading(&format!("target{number}: {}", shown(&target.release)), out)?;
    field("build id", &target.build_id, out)?;
    for (name, value) in &target.fingerprint_words {
        field(name, value, out)?;
    }
    let evidence = write_evidence(target, out)?;

    heading("programs", out)?;
    for program in &target.programs {
        write_program(program, out)?;
        if let Some(evidence) = &evidence {
            write_proof(evidence, program, out)?;
        }
    }
    if !target.maps.is_empty() {
        heading("maps", out)?;
        for map in &target.maps {
            write_map(map, out)?;
        }
    }
    if !target.slots.is_empty() {
        heading("filled from the start", out)?;
        for slot in &target.slots {
            let content = match &slot.content {
                SlotContentReport::Program(name) => format!("program {}", shown(name)),
                SlotContentReport::Map(name) => format!("map {}", shown(name)),
            };
            writeln!(out, "  {}[{}] = {content}", shown(&slot.map), slot.key)?;
        }
    }
    Ok(())
}

/// Returns the evidence, if it is of a kind that is known.
fn write_evidence(target: &TargetReport, out: &mut dyn Write) -> io::Result<Option<Evidence>> {
    let Some(value) = &target.evidence else {
        field("evidence", "none", out)?;
        return Ok(None);
    };
    let evidence: Evidence = match serde_json::from_value(value.clone()) {
        Ok(evidence) => evidence,
        Err(error) => {
            let problem =
                format!("of a kind that this version does not know ({error}): see --json");
            field("evidence", &shown(&problem), out)?;
            return Ok(None);
        }
    };
    field("object", &shown(&evidence.object), out)?;
    field(
        "",
        &format!("sha256 {}", shown(&evidence.object_sha256)),
        out,
    )?;
    list("set before load", &inputs::words(&evidence.inputs), out)?;
    let kernel = format!(
        "Linux {} {}",
        evidence.kernel.release, evidence.kernel.version
    );
    field("verified by", &shown(&kernel), out)?;
    field("", &format!("on CPU {}", shown(&evidence.kernel.cpu)), out)?;
    field(
        "",
        &format!("with {}", shown(&evidence.kernel.command_line)),
        out,
    )?;
    let versions: Vec<_> = evidence
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    list("with versions", &versions, out)?;
    if let Some(device) = &evidence.device_kernel {
        let (release, build_id) = (shown(&device.release), shown(&device.build_id));
        field(
            "for devices with",
            &format!("{release}, build id {build_id}"),
            out,
        )?;
    }
    if let Some(limits) = evidence.limits {
        let limits = format!(
            "{} instructions processed, {} branches waiting, {} instructions of a program",
            limits.insns, limits.jumps, limits.length
        );
        field("with limits", &limits, out)?;
    }
    Ok(Some(evidence))
}

fn write_proof(
    evidence: &Evidence,
    program: &ProgramReport,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut programs = evidence.programs.iter();
    let Some(found) = programs.find(|found| found.function == program.function) else {
        return field("proof", "none in the evidence", out);
    };
    let proofs = [
        (ImageKind::Native, found.native),
        (ImageKind::Bytecode, found.bytecode),
    ];
    for (kind, proof) in proofs {
        let Some(proof) = proof else { continue };
        let bytes = proof.code_bytes;
        let addresses = counted(proof.relocations, "address");
        let proof = format!(
            "{bytes} bytes of {kind}, with the {addresses} of another boot, equal that boot's own"
        );
        field("proof", &proof, out)?;
    }
    Ok(())
}

fn write_program(program: &ProgramReport, out: &mut dyn Write) -> io::Result<()> {
    let function = shown(&program.function);
    let section = shown(&program.elf_section);
    writeln!(
        out,
        "  {STRONG}{function}{STRONG:#}: {}, SEC(\"{section}\")",
        program.program_type
    )?;
    if program.name != program.function {
        field("in the kernel", &shown(&program.name), out)?;
    }
    let attach = program.expected_attach_type.iter().cloned();
    let btf = program
        .attach_btf_id
        .map(|id| format!("BTF type {id} of the kernel"));
    let target = program.attach_target.iter().map(|target| {
        let arguments = target.arguments.join(", ");
        let returns = target.returns.as_deref().unwrap_or("nothing");
        match target.address {
            0 => shown(&target.name).into_owned(),
            address => format!(
                "{} at _text+{address:#x} (takes {arguments}; returns {returns})",
                shown(&target.name)
            ),
        }
    });
    let attach: Vec<_> = attach.chain(btf).chain(target).collect();
    list("attaches to", &attach, out)?;
    list("flags", &program.flags, out)?;
    list("maps", &program.maps, out)?;
    let (insns, states) = (program.processed_insns, program.peak_states);
    field(
        "verification",
        &format!("{insns} instructions, at most {states} states at a time"),
        out,
    )?;
    for (kind, image) in [
        (ImageKind::Native, &program.native),
        (ImageKind::Bytecode, &program.bytecode),
    ] {
        if let Some(image) = image {
            write_image(kind, image, out)?;
        }
    }
    Ok(())
}

fn write_image(kind: ImageKind, image: &ImageReport, out: &mut dyn Write) -> io::Result<()> {
    let code = format!(
        "{} bytes in {}, {} bytes of stack, from {}",
        image.code_bytes,
        counted(image.functions.len(), "function"),
        image.stack_bytes,
        counted(image.xlated_insns, "BPF instruction"),
    );
    field(&kind.to_string(), &code, out)?;
    let symbols = image.symbols_section.map(|id| format!(", symbols in {id}"));
    let symbols = symbols.unwrap_or_default();
    field(
        "",
        &format!("tag {}, in section {}{symbols}", image.tag, image.section),
        out,
    )?;
    if !image.relocations.is_empty() {
        let mut counts = BTreeMap::<_, usize>::new();
        for relocation in &image.relocations {
            *counts.entry(&*relocation.target).or_default() += 1;
        }
        let targets: Vec<_> = counts
            .into_iter()
            .map(|(target, count)| match count {
                1 => target.to_owned(),
                _ => format!("{target} ({count})"),
            })
            .collect();
        let count = counted(image.relocations.len(), "relocation");
        field("", &format!("{count}: {}", shown(&targets.join(", "))), out)?;
    }
    if image.faults > 0 {
        let count = counted(image.faults, "instruction");
        field("", &format!("{count} whose faults are handled"), out)?;
    }
    for call in &image.tail_calls {
        field(
            "",
            &format!("tail call of {}[{}]", shown(&call.map), call.key),
            out,
        )?;
    }
    Ok(())
}

fn write_map(map: &MapReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  {STRONG}{}{STRONG:#}: {}, {} of {} + {} bytes",
        shown(&map.full_name),
        map.map_type,
        counted(map.max_entries as usize, "entry"),
        map.key_size,
        map.value_size,
    )?;
    if map.name != map.full_name {
        field("in the kernel", &shown(&map.name), out)?;
    }
    list("flags", &map.flags, out)?;
    if map.map_extra != 0 {
        field("extra", &format!("{:#x}", map.map_extra), out)?;
    }
    match map.usage {
        "constant" => field(
            "use",
            "constants: frozen, read-only to programs, verified",
            out,
        )?,
        "template" => field("use", "a template for inner maps", out)?,
        _ => {}
    }
    let fields: Vec<_> = map
        .fields
        .iter()
        .map(|field| format!("{} at {}", field.kind, field.offset))
        .collect();
    list("in a value", &fields, out)?;
    if let Some(inner) = &map.inner {
        field("inner maps like", &shown(inner), out)?;
    }
    if let Some(path) = &map.pin_path {
        field("pinned at", &shown(path), out)?;
    }
    if let Some(section) = map.contents_section {
        field("contents", &format!("in section {section}"), out)?;
    }
    Ok(())
}

fn write_section(section: &SectionReport, number: usize, out: &mut dyn Write) -> io::Result<()> {
    let SectionReport {
        kind,
        bytes,
        sha256,
        users,
    } = section;
    writeln!(
        out,
        "  {number:>3} {kind:8} {bytes:>9}  {FAINT}{sha256}{FAINT:#}"
    )?;
    if users.len() > 1 {
        field("    shared by", &shown(&users.join("; ")), out)?;
    }
    Ok(())
}

fn heading(text: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{STRONG}{text}{STRONG:#}")
}

fn list(label: &str, values: &[String], out: &mut dyn Write) -> io::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    field(label, &shown(&values.join(", ")), out)
}

/// A label and a value, whose words go on below each other where the line ends.
fn field(label: &str, value: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "    {FAINT}{label:LABEL$}{FAINT:#}")?;
    let start = 4 + LABEL;
    let mut column = start;
    for word in value.split(' ') {
        let size = anstream::adapter::strip_str(word)
            .to_string()
            .chars()
            .count();
        if column > start {
            if column + 1 + size > WIDTH {
                write!(out, "\n{:start$}", "")?;
                column = start;
            } else {
                write!(out, " ")?;
                column += 1;
            }
        }
        write!(out, "{word}")?;
        column += size;
    }
    writeln!(out)
}
