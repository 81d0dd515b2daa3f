//! What an object relies on of the kernel that verified it.

use std::collections::BTreeSet;

use object::{Object, ObjectSection, SectionKind};
use preverify_abi::manifest::FIELD_KERNEL_BTF;
use preverify_btf::{Btf, Comparison, Kind, Subject, Type, without_flavour};
use preverify_image::export::Export;
use preverify_target::Builds;

use super::{MismatchReason, attach, numbers};

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
            match numbers::of_object(&file, &own, comparison) {
                Ok(numbers) => reasons.extend(numbers),
                Err(reason) => reasons.push(MismatchReason::Object(reason)),
            }
            let told: BTreeSet<_> = reasons.iter().map(ToString::to_string).collect();
            let sources = sources_of_pointers(&file, &own, places);
            let more = of_pointers(&own, sources, comparison).into_iter();
            reasons.extend(more.filter(|reason| !told.contains(&reason.to_string())));
            reasons
        }
        // Without types there is nothing that would be looked up in the kernel's.
        Ok(None) => Vec::new(),
        Err(reason) => vec![MismatchReason::Object(reason)],
    }
}

/// The kernel's symbols that an object names. What cannot be read, [`of_object`] tells.
pub(super) fn named_symbols(elf: &[u8]) -> BTreeSet<String> {
    let file = object::File::parse(elf).ok();
    let own = file.and_then(|file| own_types(&file).ok().flatten());
    let names = own.iter().flat_map(|own| {
        let entries = own.section(KERNEL_SYMBOLS).iter();
        entries.map(|entry| without_flavour(own.name(entry.target)).to_owned())
    });
    names.collect()
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
    own: &Btf,
    sources: BTreeSet<(Kind, &str)>,
    comparison: &Comparison<'_>,
) -> Vec<MismatchReason> {
    if sources.is_empty() {
        return Vec::new();
    }
    // Pointers can be cast to what it has types of.
    let types = own.named().map(|(_, named)| named);
    let types = types.filter(|(kind, _)| matches!(kind, Kind::Struct | Kind::Union));
    let verifier = comparison.verifier();
    let roots = sources
        .into_iter()
        .chain(types)
        .flat_map(|(kind, name)| verifier.find(kind, without_flavour(name)));
    let differences = comparison.walked(roots.copied());
    differences.into_iter().map(MismatchReason::from).collect()
}

/// What programs have pointers into the kernel from: what they attach to, the kernel's functions that they call, and
/// what helpers return.
fn sources_of_pointers<'a>(
    file: &object::File<'_>,
    own: &'a Btf,
    places: &[(Kind, &'a str)],
) -> BTreeSet<(Kind, &'a str)> {
    let functions = own.section(KERNEL_SYMBOLS).iter().filter_map(|entry| {
        let is_function = matches!(own.get(entry.target), Type::Function { .. });
        is_function.then(|| (Kind::Function, own.name(entry.target)))
    });
    let mut sources: BTreeSet<_> = places.iter().copied().chain(functions).collect();
    for section in file.sections() {
        if section.kind() == SectionKind::Text {
            for (kind, name) in section.data().into_iter().flat_map(returned_by_helpers) {
                sources.insert((kind, name));
            }
        }
    }
    sources
}

/// The structures that helpers return pointers to, for the helpers that code calls.
fn returned_by_helpers(code: &[u8]) -> impl Iterator<Item = (Kind, &'static str)> {
    let helpers = code.as_chunks::<INSN_SIZE>().0.iter().filter_map(|insn| {
        let [CALL, registers, _, _, number @ ..] = insn else {
            return None;
        };
        let is_helper = registers >> 4 == 0;
        is_helper.then(|| i32::from_le_bytes(*number))
    });
    helpers.filter_map(|number| {
        let known = HELPERS.iter().find(|(helper, _)| *helper == number);
        known.map(|(_, name)| (Kind::Struct, *name))
    })
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

#[cfg(test)]
mod tests {
    use preverify_btf::testing::Builder;

    use super::*;

    /// A kernel where files lead to inodes whose numbers lie at an offset in bits.
    fn kernel(offset: u32) -> Btf {
        let mut types = Builder::default();
        let int = types.int("int", 4, true);
        let inode = types.composite(Kind::Struct, "inode", 8, &[("number", int, offset)]);
        let pointer = types.pointer(inode);
        let file = types.composite(Kind::Struct, "file", 8, &[("inode", pointer, 0)]);
        let pointer = types.pointer(file);
        types.function("file_open", 0, &[("file", pointer)]);
        types.composite(Kind::Struct, "task_struct", 8, &[("files", pointer, 0)]);
        types.btf()
    }

    #[test]
    fn what_pointers_lead_to_counts_if_there_are_any() {
        let (ours, theirs) = (kernel(0), kernel(32));
        let comparison = Comparison::new(&ours, &theirs);
        let own = Builder::default().btf();
        let of = |sources: &[(Kind, &'static str)]| -> Vec<String> {
            let sources = sources.iter().copied().collect();
            let reasons = of_pointers(&own, sources, &comparison);
            reasons.iter().map(ToString::to_string).collect()
        };
        for source in [(Kind::Function, "file_open"), (Kind::Struct, "task_struct")] {
            let reasons = of(&[source]);
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            assert!(reasons[0].contains("struct inode"), "{reasons:?}");
        }
        assert!(of(&[]).is_empty());
        assert!(of(&[(Kind::Function, "other")]).is_empty());
    }

    /// What it has types of, it can cast pointers to, if it has any.
    #[test]
    fn types_of_the_object_are_walked_from() {
        let (ours, theirs) = (kernel(0), kernel(32));
        let comparison = Comparison::new(&ours, &theirs);
        let mut own = Builder::default();
        own.composite(Kind::Struct, "file___mine", 0, &[]);
        let reasons = of_pointers(&own.btf(), [(Kind::Function, "other")].into(), &comparison);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
    }

    #[test]
    fn helpers_are_found_by_their_numbers() {
        let call = |registers, number| [CALL, registers, 0, 0, number, 0, 0, 0];
        // `bpf_get_current_task_btf`, a subprogram, `bpf_map_lookup_elem`.
        let code = [call(0, 158), call(0x10, 137), call(0, 1)].concat();
        let found: Vec<_> = returned_by_helpers(&code).collect();
        assert_eq!(found, [(Kind::Struct, "task_struct")]);
    }
}
