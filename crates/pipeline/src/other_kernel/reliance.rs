//! What an object relies on of the kernel that verified it.

use std::collections::BTreeSet;

use object::{Object, ObjectSection, SectionKind};
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

/// Bytes of an instruction.
const INSN_SIZE: usize = 8;
/// The operation of calls; of helpers, if no source register is named.
const CALL: u8 = 0x85;
/// Helpers that return pointers into the kernel, by their numbers in `linux/bpf.h`, and what these point to.
const HELPERS: [(i32, &str); 10] = [
    (136, "tcp6_sock"),
    (137, "tcp_sock"),
    (138, "tcp_timewait_sock"),
    (139, "tcp_request_sock"),
    (140, "udp6_sock"),
    (158, "task_struct"),
    (162, "socket"),
    (175, "pt_regs"),
    (178, "unix_sock"),
    (196, "mptcp_sock"),
];

/// What of an object does not fit to the kernel of devices. Its programs attach to the places.
pub(super) fn of_object(
    elf: &[u8],
    places: &[(Kind, &str)],
    builds: &Builds,
    comparison: &Comparison<'_>,
) -> Vec<MismatchReason> {
    let file = match object::File::parse(elf) {
        Ok(file) => file,
        Err(error) => return vec![MismatchReason::Object(error.to_string())],
    };
    match own_types(&file) {
        Ok(Some(own)) => {
            let mut reasons = of_types(&own, comparison);
            reasons.extend(of_symbols(&own, comparison));
            reasons.extend(of_options(&own, builds));
            let told: BTreeSet<_> = reasons.iter().map(ToString::to_string).collect();
            let more = of_pointers(&file, &own, places, comparison).into_iter();
            reasons.extend(more.filter(|reason| !told.contains(&reason.to_string())));
            reasons
        }
        // Without types there is nothing that would be looked up in the kernel's.
        Ok(None) => Vec::new(),
        Err(reason) => vec![MismatchReason::Object(reason)],
    }
}

fn own_types(file: &object::File<'_>) -> Result<Option<Btf>, String> {
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

/// What pointers into the kernel lead to. The verifier lets programs follow them by offsets, whatever types the object
/// itself has: nobody says how far, so all that can be walked to counts.
fn of_pointers(
    file: &object::File<'_>,
    own: &Btf,
    places: &[(Kind, &str)],
    comparison: &Comparison<'_>,
) -> Vec<MismatchReason> {
    let verifier = comparison.verifier();
    let functions = own.section(KERNEL_SYMBOLS).iter().filter_map(|entry| {
        let is_function = matches!(own.get(entry.target), Type::Function { .. });
        is_function.then(|| (Kind::Function, without_flavour(own.name(entry.target))))
    });
    let mut sources: BTreeSet<(Kind, &str)> = places.iter().copied().collect();
    sources.extend(functions);
    sources.extend(returned_by_helpers(file));
    if sources.is_empty() {
        return Vec::new();
    }
    // Pointers can be cast to what it has types of.
    let types = own.named().map(|(_, named)| named);
    sources.extend(types.filter(|(kind, _)| matches!(kind, Kind::Struct | Kind::Union)));
    let roots = sources
        .into_iter()
        .flat_map(|(kind, name)| verifier.find(kind, without_flavour(name)));
    let differences = comparison.walked(roots.copied());
    differences.into_iter().map(MismatchReason::from).collect()
}

/// The structures that helpers return pointers to, for the helpers that an object calls.
fn returned_by_helpers(file: &object::File<'_>) -> BTreeSet<(Kind, &'static str)> {
    file.sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.data().ok())
        .flat_map(|code| code.as_chunks::<INSN_SIZE>().0)
        .filter_map(|insn| {
            let [CALL, registers, _, _, number @ ..] = insn else {
                return None;
            };
            let is_helper = registers >> 4 == 0;
            let number = i32::from_le_bytes(*number);
            let helper = HELPERS.iter().find(|(helper, _)| *helper == number);
            helper.filter(|_| is_helper)
        })
        .map(|(_, name)| (Kind::Struct, *name))
        .collect()
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
