//! What programs attach to, in the kernel of devices.

use preverify_abi::manifest::ARCH_ARM;
use preverify_btf::attach::ModelError;
use preverify_btf::{Comparison, Kind, Subject};
use preverify_bundle::AttachTarget;
use preverify_image::export::Export;
use preverify_protocol::LoadedProgram;
use preverify_target::Builds;

use super::{MismatchReason, SymbolError, relocate};

/// What a program attaches to cannot be had in the kernel of devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The name is not known.
    #[error("it attaches to something whose name the kernel does not tell")]
    Nameless,
    /// Not one, but none or several.
    #[error(
        "it attaches to the {kind} {name}, of which the types of the kernel of devices have {found}"
    )]
    NotOne {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// How many of that name there are.
        found: usize,
    },
    /// No trampoline can be put on it.
    #[error("it attaches to {name}: {source}")]
    Model {
        /// The function.
        name: String,
        /// Why not.
        source: ModelError,
    },
}

/// `BPF_TRACE_RAW_TP`.
const RAW_TRACEPOINT: u32 = 23;
/// `BPF_TRACE_ITER`.
const ITERATOR: u32 = 28;
/// Before the name of a tracepoint's type.
const TRACEPOINT_TYPE: &str = "btf_trace_";

/// The id of what a program attaches to, and all that there is to know of it. None if it attaches otherwise.
pub(super) fn find(
    export: &Export,
    loaded: &LoadedProgram,
    builds: &Builds,
    comparison: &Comparison<'_>,
) -> Result<Option<(u32, AttachTarget)>, Vec<MismatchReason>> {
    if export.attach_btf_id == 0 {
        return Ok(None);
    }
    let (kind, name) = place(export, loaded).ok_or_else(|| vec![AttachError::Nameless.into()])?;
    let differences = differences(kind, name, comparison);
    if !differences.is_empty() {
        return Err(differences);
    }
    let of_device = &builds.device.btf;
    let found = of_device.find(kind, name);
    let &[id] = found else {
        let (name, found) = (name.to_owned(), found.len());
        return Err(vec![AttachError::NotOne { kind, name, found }.into()]);
    };
    if kind == Kind::Typedef {
        let target = AttachTarget {
            name: name
                .strip_prefix(TRACEPOINT_TYPE)
                .unwrap_or(name)
                .to_owned(),
            ..AttachTarget::default()
        };
        return Ok(Some((id, target)));
    }
    let pointer = if export.arch == ARCH_ARM { 4 } else { 8 };
    let model = of_device.model(id, pointer).map_err(|source| {
        let name = name.to_owned();
        vec![AttachError::Model { name, source }.into()]
    })?;
    // No trampoline is put on the function that stands for an iterator.
    let address = match export.expected_attach_type {
        ITERATOR => Ok(0),
        _ => relocate::function(name, &builds.symbols),
    };
    let target = AttachTarget {
        name: name.to_owned(),
        address: address.map_err(|error: SymbolError| vec![error.into()])?,
        returns: model.returns,
        arguments: model.arguments,
    };
    Ok(Some((id, target)))
}

/// What a program attaches to, in the BTF of the kernel that verifies: a function, or the type of a tracepoint. None if
/// the kernel does not tell.
pub(super) fn place<'a>(export: &Export, loaded: &'a LoadedProgram) -> Option<(Kind, &'a str)> {
    let name = loaded.attach_name.as_deref()?;
    let is_tracepoint =
        export.expected_attach_type == RAW_TRACEPOINT && name.starts_with(TRACEPOINT_TYPE);
    match is_tracepoint {
        true => Some((Kind::Typedef, name)),
        false => Some((Kind::Function, name)),
    }
}

/// What differs of a function, a tracepoint, and what their arguments are or point to.
pub(super) fn differences(
    kind: Kind,
    name: &str,
    comparison: &Comparison<'_>,
) -> Vec<MismatchReason> {
    let verifier = comparison.verifier();
    let functions = verifier.find(kind, name).iter();
    let reached = functions.flat_map(|id| verifier.reached_by(*id));
    [(kind, name)]
        .into_iter()
        .chain(reached)
        .filter_map(|(kind, name)| comparison.difference(Subject::Named(kind), name))
        .map(MismatchReason::from)
        .collect()
}
