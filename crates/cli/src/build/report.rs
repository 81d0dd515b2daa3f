//! What came of a build, for people and for programs.

use std::path::Path;

use preverify_abi::kinds::Architecture;
use preverify_bundle::Bundle;
use preverify_pipeline::{ImageKind, ProvedImage, Verified, VerifiedProgram};
use preverify_protocol::LoadedProgram;
use preverify_target::Target;
use serde_json::{Value, json};

use super::Outcome;

/// The bundle that was written.
pub struct Written<'a> {
    pub path: &'a Path,
    pub size: usize,
}

impl<'a> Written<'a> {
    pub fn new(path: &'a Path, bundle: &Bundle) -> Self {
        Self {
            path,
            size: bundle.to_bytes().len(),
        }
    }
}

/// Lines for standard error: the programs of each target that has accepted them.
pub fn as_text(outcomes: &[Outcome<'_>], written: Option<&Written<'_>>) -> String {
    let mut lines = Vec::new();
    for (target, outcome) in outcomes {
        let Ok(verified) = outcome else {
            continue;
        };
        if outcomes.len() > 1 {
            lines.push(format!(
                "{} ({}, {}):",
                target.name(),
                target.facts().release,
                architecture(target)
            ));
        }
        lines.extend(programs(verified).map(program_as_text));
        lines.extend(verified.notes.iter().map(|note| format!("  note: {note}")));
    }
    if let Some(Written { path, size }) = written {
        lines.push(format!("{}: {size} bytes", path.display()));
    }
    lines.join("\n")
}

fn program_as_text((program, loaded): (&VerifiedProgram, &LoadedProgram)) -> String {
    let statistics = &loaded.statistics;
    let images = program.images();
    program_line(
        &loaded.function,
        statistics.total_insns,
        statistics.peak_states,
        images.map(|(kind, image)| (kind, image.proof.code_bytes)),
    )
}

/// What is said of a program that was accepted, and of its images.
pub fn program_line(
    function: &str,
    total_insns: u32,
    peak_states: u32,
    images: impl Iterator<Item = (ImageKind, usize)>,
) -> String {
    let images: Vec<_> = images
        .map(|(kind, bytes)| format!("{bytes:>7} bytes of {kind}"))
        .collect();
    format!(
        "  {function:24} {total_insns:>9} insns processed, {peak_states:>6} peak states, {}",
        images.join(", ")
    )
}

/// One object for standard output; there is no bundle unless all targets have accepted the object.
pub fn as_json(
    object_sha256: &str,
    outcomes: &[Outcome<'_>],
    written: Option<&Written<'_>>,
) -> Value {
    let targets: Vec<Value> = outcomes
        .iter()
        .map(|(target, outcome)| {
            let mut shown = json!({
                "target": target.name(),
                "release": target.facts().release,
                "architecture": architecture(target),
            });
            match outcome {
                Ok(verified) => {
                    let programs: Vec<Value> = programs(verified).map(program_as_json).collect();
                    shown["programs"] = programs.into();
                    let notes = verified.notes.iter().map(ToString::to_string);
                    shown["notes"] = notes.collect::<Vec<_>>().into();
                }
                Err(refusal) => shown["error"] = refusal.to_string().into(),
            }
            shown
        })
        .collect();
    json!({
        "bundle": written.map(|written| written.path),
        "bytes": written.map(|written| written.size),
        "object_sha256": object_sha256,
        "targets": targets,
    })
}

fn program_as_json((program, loaded): (&VerifiedProgram, &LoadedProgram)) -> Value {
    json!({
        "program": loaded.function,
        "total_insns": loaded.statistics.total_insns,
        "total_states": loaded.statistics.total_states,
        "peak_states": loaded.statistics.peak_states,
        "duration_us": loaded.statistics.duration_us,
        "native": program.native.as_ref().map(image_as_json),
        "bytecode": program.bytecode.as_ref().map(image_as_json),
    })
}

fn image_as_json(image: &ProvedImage) -> Value {
    json!({
        "code_bytes": image.proof.code_bytes,
        "relocations": image.proof.relocations,
    })
}

fn programs(verified: &Verified) -> impl Iterator<Item = (&VerifiedProgram, &LoadedProgram)> {
    verified.programs.iter().zip(&verified.loaded.programs)
}

fn architecture(target: &Target) -> String {
    Architecture(target.facts().fingerprint.arch.get()).to_string()
}
