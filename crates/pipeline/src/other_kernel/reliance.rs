//! What an object relies on of the kernel that verified it.

use std::collections::BTreeSet;

use object::{Object, ObjectSection};
use preverify_abi::manifest::FIELD_KERNEL_BTF;
use preverify_btf::{Btf, Comparison, Kind, Subject, Type};
use preverify_image::export::Export;
use preverify_target::Builds;

use super::MismatchReason;
use super::attach;

/// Where objects name what they use of the kernel.
const KERNEL_SYMBOLS: &str = ".ksyms";
/// Where objects name what they read of the kernel's configuration.
const KERNEL_OPTIONS: &str = ".kconfig";

/// What of an object does not fit to the kernel of devices.
pub(super) fn of_object(
    elf: &[u8],
    builds: &Builds,
    comparison: &Comparison<'_>,
) -> Vec<MismatchReason> {
    match own_types(elf) {
        Ok(Some(own)) => {
            let mut reasons = of_types(&own, comparison);
            reasons.extend(of_symbols(&own, comparison));
            reasons.extend(of_options(&own, builds));
            reasons
        }
        // Without types there is nothing that would be looked up in the kernel's.
        Ok(None) => Vec::new(),
        Err(reason) => vec![MismatchReason::Object(reason)],
    }
}

fn own_types(elf: &[u8]) -> Result<Option<Btf>, String> {
    let file = object::File::parse(elf).map_err(|error| error.to_string())?;
    let Some(section) = file.section_by_name(".BTF") else {
        return Ok(None);
    };
    let bytes = section.data().map_err(|error| error.to_string())?;
    let btf = Btf::parse(bytes).map_err(|error| error.to_string())?;
    Ok(Some(btf))
}

/// Types that have the name of one of the kernel's: CO-RE finds those by name, and so does the verifier.
fn of_types(own: &Btf, comparison: &Comparison<'_>) -> Vec<MismatchReason> {
    let names: BTreeSet<(Kind, &str)> = own
        .named()
        .filter(|(_, (kind, _))| *kind != Kind::Function)
        .map(|(_, (kind, name))| (kind, without_flavour(name)))
        .collect();
    let differences = names
        .into_iter()
        .filter_map(|(kind, name)| comparison.difference(Subject::Named(kind), name));
    differences.map(MismatchReason::from).collect()
}

/// The kernel's functions and variables.
fn of_symbols(own: &Btf, comparison: &Comparison<'_>) -> Vec<MismatchReason> {
    let mut reasons = Vec::new();
    for entry in own.section(KERNEL_SYMBOLS) {
        let name = own.name(entry.target);
        match own.get(entry.target) {
            Type::Function { .. } => {
                let name = without_flavour(name);
                reasons.extend(attach::differences(Kind::Function, name, comparison));
            }
            _ => reasons.extend(
                comparison
                    .difference(Subject::PerCpu, name)
                    .map(MismatchReason::from),
            ),
        }
    }
    reasons
}

/// The options of the configuration that it reads.
fn of_options(own: &Btf, builds: &Builds) -> Vec<MismatchReason> {
    // libbpf finds this one out by itself; it is as this option says.
    const WRAPPERS: (&str, &str) = (
        "LINUX_HAS_SYSCALL_WRAPPER",
        "CONFIG_ARCH_HAS_SYSCALL_WRAPPER",
    );
    let entries = own.section(KERNEL_OPTIONS).iter();
    let names = entries.map(|entry| match own.name(entry.target) {
        name if name == WRAPPERS.0 => WRAPPERS.1,
        name => name,
    });
    names
        .filter_map(|name| {
            let [verifier, device] = [&builds.verifier, &builds.device]
                .map(|build| build.option(name).map(str::to_owned));
            (verifier != device).then(|| MismatchReason::Option {
                name: name.to_owned(),
                verifier,
                device,
            })
        })
        .collect()
}

/// Maps that the kernel of devices cannot create.
pub(super) fn of_maps(export: &Export) -> Vec<MismatchReason> {
    let fields = export.maps.iter().flat_map(|map| {
        let inner_size = map.record.inner_value_size.get();
        let own = map
            .fields
            .iter()
            .map(|field| (map.record.value_size.get(), field));
        own.chain(
            map.inner_fields
                .iter()
                .map(move |field| (inner_size, field)),
        )
    });
    let kernels = fields.filter(|(_, field)| field.flags.get() & FIELD_KERNEL_BTF != 0);
    kernels
        .map(|(value_size, field)| MismatchReason::KernelPointer {
            value_size,
            offset: field.offset.get(),
        })
        .collect()
}

/// A type's name as the kernel has it: `task_struct` of `task_struct___old`.
fn without_flavour(name: &str) -> &str {
    let bytes = name.as_bytes();
    let separates = |at: &usize| {
        let window = &bytes[*at..*at + 5];
        window[0] != b'_' && &window[1..4] == b"___" && window[4] != b'_'
    };
    let last = (0..bytes.len().saturating_sub(4)).rev().find(separates);
    last.map_or(name, |at| name.get(..=at).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_are_cut_off_as_libbpf_does() {
        for (name, expected) in [
            ("task_struct", "task_struct"),
            ("task_struct___old", "task_struct"),
            ("a___b___c", "a___b"),
            ("a____b", "a____b"),
            ("___b", "___b"),
            ("a___", "a___"),
            ("ä___b", "ä"),
            ("", ""),
        ] {
            assert_eq!(without_flavour(name), expected, "{name}");
        }
    }
}
