//! What is signed: targets, programs, maps, and the digests of all sections.
//!
//! A manifest is one [`ManifestHeader`] followed by its tables. The kernel part reads it after it
//! has checked the signature over it.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Range, Table, assert_layout};

/// The first bytes of every manifest.
pub const MANIFEST_MAGIC: [u8; 8] = *b"PVMANIF1";

/// The largest manifest that the kernel part reads.
pub const MANIFEST_MAX_SIZE: u32 = 4 << 20;

/// The head of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ManifestHeader {
    /// [`MANIFEST_MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`].
    pub version: U32,
    /// Bytes of the whole manifest, this header included.
    pub size: U32,
    /// What a reader must know to load anything from this bundle; a reader that does not know one
    /// of the bits refuses the bundle. No bit is defined yet.
    pub features: U64,
    /// [`Target`] records.
    pub targets: Table,
    /// [`Program`] records.
    pub programs: Table,
    /// [`Map`] records.
    pub maps: Table,
    /// [`Field`] records.
    pub fields: Table,
    /// `__le32` indices into `maps`: the maps that each program uses, in the verifier's order.
    /// An index counts from the start of the whole table `maps`.
    pub map_refs: Table,
    /// [`Slot`] records.
    pub slots: Table,
    /// [`AttachTarget`] records.
    pub attach_targets: Table,
    /// [`Section`] records.
    pub sections: Table,
    /// Bytes: UTF-8 without terminators, found by [`Range`].
    pub strings: Table,
}

/// One kernel that this bundle's programs were verified by, on one kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Target {
    /// The GNU build id of the kernel, followed by zeroes.
    pub build_id: [u8; 32],
    /// Bytes of `build_id` that count.
    pub build_id_size: U32,
    /// Zero.
    pub reserved: U32,
    /// What verification and code generation depended on.
    pub fingerprint: Fingerprint,
    /// `uname -r`.
    pub release: Range,
    /// The programs for this target.
    pub programs: Range,
    /// The maps for this target.
    pub maps: Range,
    /// The static contents of this target's prog arrays and maps of maps.
    pub slots: Range,
    /// The section with the object's BTF as the kernel took it, or [`crate::NONE`].
    pub btf: U32,
    /// The section with the evidence (JSON): the verifier's statistics, versions, digests.
    pub evidence: U32,
}

/// What the verifier's conclusions and the JIT's output depend on, beside the kernel build.
///
/// What the verifier's conclusions depend on must fit for every image: `arch`, `page_shift` and `policy`
/// are equal on the device, and `cpu_limit` is a bound: the verifier knows that
/// `bpf_get_smp_processor_id()` is below it, so a device may have fewer CPUs, never more. The
/// other fields are what native code depends on: they must be equal for native images, while
/// bytecode is compiled by the device itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Fingerprint {
    /// ELF machine number, `ARCH_*`.
    pub arch: U32,
    /// log2 of the page size.
    pub page_shift: U32,
    /// Bits of a virtual address (x86_64: 48, or 57 with five-level paging; arm64: `vabits_actual`;
    /// arm: 32).
    pub va_bits: U32,
    /// The kernel's `nr_cpu_ids`.
    pub cpu_limit: U32,
    /// `JIT_*` bits of the architecture: the CPU features and mitigations that the JIT looks at.
    pub jit_flags: U64,
    /// `POLICY_*` bits: what the verifier allowed.
    pub policy: U64,
    /// x86_64: the symbol that functions return through, as an offset from `_text`; zero if
    /// they return plainly.
    pub return_thunk: U64,
    /// `net.core.bpf_jit_harden`.
    pub jit_harden: U32,
    /// The kernel's `cfi_mode` (x86_64), zero if it has none.
    pub cfi_mode: U32,
    /// Zero.
    pub reserved: [u8; 16],
}

/// 64-bit x86 (`EM_X86_64`).
pub const ARCH_X86_64: u32 = 62;
/// 64-bit arm (`EM_AARCH64`).
pub const ARCH_ARM64: u32 = 183;
/// 32-bit arm (`EM_ARM`).
pub const ARCH_ARM: u32 = 40;

/// x86_64: the CPU has BMI2 (`shlx` and friends are emitted).
pub const JIT_X86_BMI2: u64 = 1 << 0;
/// x86_64: indirect jumps go through retpolines.
pub const JIT_X86_RETPOLINE: u64 = 1 << 1;
/// x86_64: indirect jumps are preceded by `lfence`.
pub const JIT_X86_RETPOLINE_LFENCE: u64 = 1 << 2;
/// x86_64: indirect jumps go through the ITS-safe thunks.
pub const JIT_X86_INDIRECT_THUNK_ITS: u64 = 1 << 3;
/// x86_64: calls are accounted for call-depth tracking.
pub const JIT_X86_CALL_DEPTH: u64 = 1 << 4;
/// x86_64: functions return through a thunk.
pub const JIT_X86_RETHUNK: u64 = 1 << 5;
/// x86_64: functions start with `endbr64` (whatever the CPU has: the configuration decides).
pub const JIT_X86_IBT: u64 = 1 << 6;

/// arm64: the CPU has LSE atomics, and they are emitted.
pub const JIT_ARM64_LSE: u64 = 1 << 0;
/// arm64: the kernel runs at EL2 (VHE): per-CPU variables are found through `tpidr_el2`.
pub const JIT_ARM64_VHE: u64 = 1 << 1;
/// arm64: return addresses are signed (the configuration decides).
pub const JIT_ARM64_PAC: u64 = 1 << 2;
/// arm64: functions start with a landing pad (the configuration decides).
pub const JIT_ARM64_BTI: u64 = 1 << 3;

/// The kernel guards nobody's programs against Spectre v1 (`mitigations=off`). Else it spares those
/// who have `CAP_PERFMON`.
pub const POLICY_BYPASS_SPEC_V1: u64 = 1 << 0;
/// The same for Spectre v4.
pub const POLICY_BYPASS_SPEC_V4: u64 = 1 << 1;
/// Programs may read kernel memory (not locked down at `LOCKDOWN_BPF_READ_KERNEL`).
pub const POLICY_READ_KERNEL: u64 = 1 << 2;
/// Programs may write user memory (not locked down at `LOCKDOWN_BPF_WRITE_USER`).
pub const POLICY_WRITE_USER: u64 = 1 << 3;

/// One program for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Program {
    /// The program's name in the kernel, with a terminating zero.
    pub name: [u8; 16],
    /// `enum bpf_prog_type`.
    pub prog_type: U32,
    /// `enum bpf_attach_type`.
    pub expected_attach_type: U32,
    /// The BTF type id, in the BTF of the device's kernel, of what the program attaches to, or zero.
    pub attach_btf_id: U32,
    /// `BPF_F_*` flags that the program was loaded with.
    pub prog_flags: U32,
    /// The full name of the program's function in the object.
    pub function: Range,
    /// The ELF section that the program came from, as in `SEC("xdp")`: says how to attach it.
    pub elf_section: Range,
    /// The program's maps, in the table `map_refs`.
    pub map_refs: Range,
    /// The section with the native image, or [`crate::NONE`].
    pub native: U32,
    /// The section with the symbols of the native image, or [`crate::NONE`].
    pub native_symbols: U32,
    /// The section with the image of verified bytecode, or [`crate::NONE`].
    pub bytecode: U32,
    /// The section with the symbols of the bytecode image, or [`crate::NONE`].
    pub bytecode_symbols: U32,
    /// Instructions that the verifier processed.
    pub processed_insns: U32,
    /// States that the verifier kept at its peak.
    pub peak_states: U32,
    /// What the program attaches to, as an index into `attach_targets`; or [`crate::NONE`]: the
    /// device's kernel finds it in its own BTF.
    pub attach_target: U32,
    /// `PROGRAM_*` bits.
    pub flags: U32,
}

/// The limits of the verifier that accepted the program were raised: a stock kernel may refuse it as
/// too complex.
pub const PROGRAM_RAISED_LIMITS: u32 = 1 << 0;

/// What a program attaches to, for kernels that have no BTF to find it in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct AttachTarget {
    /// The function that a trampoline is put on, as an offset from `_text`; zero if it is none.
    pub address: U64,
    /// The function's name; a tracepoint's without `btf_trace_`.
    pub name: Range,
    /// Bytes that the function returns: this and the following as in `struct btf_func_model`.
    pub ret_size: u8,
    /// `VALUE_*` bits of what it returns.
    pub ret_flags: u8,
    /// Arguments that it takes.
    pub arg_count: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes of each argument, followed by zeroes.
    pub arg_sizes: [u8; ATTACH_ARGS_MAX],
    /// `VALUE_*` bits of each argument, followed by zeroes.
    pub arg_flags: [u8; ATTACH_ARGS_MAX],
    /// One if the function returns anything, else zero.
    pub returns: U32,
}

/// The most arguments of a function that a trampoline can be put on (`MAX_BPF_FUNC_ARGS`).
pub const ATTACH_ARGS_MAX: usize = 12;

/// The value is a structure (`BTF_FMODEL_STRUCT_ARG`).
pub const VALUE_STRUCT: u8 = 1 << 0;
/// The value is a signed number (`BTF_FMODEL_SIGNED_ARG`).
pub const VALUE_SIGNED: u8 = 1 << 1;

/// One map, with every attribute that the verifier relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Map {
    /// The map's name in the kernel, with a terminating zero.
    pub name: [u8; 16],
    /// `enum bpf_map_type`.
    pub map_type: U32,
    /// Bytes of a key.
    pub key_size: U32,
    /// Bytes of a value.
    pub value_size: U32,
    /// The most entries the map can hold.
    pub max_entries: U32,
    /// `BPF_F_*` flags.
    pub map_flags: U32,
    /// `MAP_*` bits.
    pub flags: U32,
    /// The map type's extra attribute.
    pub map_extra: U64,
    /// BTF type id of the key in the target's `btf` section, or zero.
    pub btf_key_type_id: U32,
    /// BTF type id of the value in the target's `btf` section, or zero.
    pub btf_value_type_id: U32,
    /// The fields of a value that the kernel manages, by rising offset.
    pub fields: Range,
    /// The map that describes the inner maps of a map of maps, an index into the whole table
    /// `maps`, or [`crate::NONE`].
    pub inner: U32,
    /// The section with the initial contents, or [`crate::NONE`] for zeroes. With
    /// [`MAP_CONTENTS_VERIFIED`], the kernel part compares them.
    pub contents: U32,
    /// The full name of the map in the object.
    pub full_name: Range,
    /// Where the object wants the map pinned, or empty.
    pub pin_path: Range,
}

/// The verifier took the map's contents for constants: the device's map must be frozen,
/// read-only to programs, and hold exactly `contents`.
pub const MAP_CONTENTS_VERIFIED: u32 = 1 << 0;
/// Only a template for the inner maps of a map of maps: no map of the object's own.
pub const MAP_TEMPLATE: u32 = 1 << 1;

/// One field of a map's value that the kernel manages (`struct btf_field`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Field {
    /// Bytes from the start of the value.
    pub offset: U32,
    /// Bytes of the field.
    pub size: U32,
    /// `FIELD_*`.
    pub kind: U32,
    /// [`FIELD_KERNEL_BTF`].
    pub flags: U32,
    /// What a kptr points to, or what a list or tree holds: a BTF type id.
    pub btf_id: U32,
    /// Where the node lies in what a list or tree holds.
    pub node_offset: U32,
}

/// The field's `btf_id` is one of the kernel's types, not of the object's.
pub const FIELD_KERNEL_BTF: u32 = 1 << 0;

/// `bpf_spin_lock`.
pub const FIELD_SPIN_LOCK: u32 = 1;
/// `bpf_timer`.
pub const FIELD_TIMER: u32 = 2;
/// `bpf_wq`.
pub const FIELD_WORKQUEUE: u32 = 3;
/// An unreferenced kptr.
pub const FIELD_KPTR_UNREF: u32 = 4;
/// A referenced kptr.
pub const FIELD_KPTR_REF: u32 = 5;
/// A per-CPU kptr.
pub const FIELD_KPTR_PERCPU: u32 = 6;
/// `bpf_list_head`.
pub const FIELD_LIST_HEAD: u32 = 7;
/// `bpf_list_node`.
pub const FIELD_LIST_NODE: u32 = 8;
/// `bpf_rb_root`.
pub const FIELD_RB_ROOT: u32 = 9;
/// `bpf_rb_node`.
pub const FIELD_RB_NODE: u32 = 10;
/// `bpf_refcount`.
pub const FIELD_REFCOUNT: u32 = 11;

/// One entry of a prog array or an array of maps that the object fills statically.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Slot {
    /// The prog array or array of maps, an index into the whole table `maps`.
    pub map: U32,
    /// The key.
    pub key: U32,
    /// [`SLOT_PROGRAM`] or [`SLOT_MAP`].
    pub kind: U32,
    /// An index into the whole table `programs` or `maps`.
    pub index: U32,
}

/// The slot holds a program.
pub const SLOT_PROGRAM: u32 = 1;
/// The slot holds a map.
pub const SLOT_MAP: u32 = 2;

/// Some bytes outside the manifest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Section {
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// Number of bytes.
    pub size: U32,
    /// `SECTION_*`.
    pub kind: U32,
}

/// A native or bytecode image ([`crate::image::ImageHeader`]).
pub const SECTION_IMAGE: u32 = 1;
/// An image's symbols ([`crate::image::SymbolsHeader`]).
pub const SECTION_SYMBOLS: u32 = 2;
/// A map's initial contents.
pub const SECTION_CONTENTS: u32 = 3;
/// BTF.
pub const SECTION_BTF: u32 = 4;
/// Evidence, as JSON.
pub const SECTION_EVIDENCE: u32 = 5;

assert_layout! {
    ManifestHeader {
        magic @ 0, version @ 8, size @ 12, features @ 16, targets @ 24, programs @ 32, maps @ 40,
        fields @ 48, map_refs @ 56, slots @ 64, attach_targets @ 72, sections @ 80, strings @ 88,
    } = 96;
    Target {
        build_id @ 0, build_id_size @ 32, reserved @ 36, fingerprint @ 40, release @ 104,
        programs @ 112, maps @ 120, slots @ 128, btf @ 136, evidence @ 140,
    } = 144;
    Fingerprint {
        arch @ 0, page_shift @ 4, va_bits @ 8, cpu_limit @ 12, jit_flags @ 16, policy @ 24,
        return_thunk @ 32, jit_harden @ 40, cfi_mode @ 44, reserved @ 48,
    } = 64;
    Program {
        name @ 0, prog_type @ 16, expected_attach_type @ 20, attach_btf_id @ 24, prog_flags @ 28,
        function @ 32, elf_section @ 40, map_refs @ 48, native @ 56, native_symbols @ 60,
        bytecode @ 64, bytecode_symbols @ 68, processed_insns @ 72, peak_states @ 76,
        attach_target @ 80, flags @ 84,
    } = 88;
    AttachTarget {
        address @ 0, name @ 8, ret_size @ 16, ret_flags @ 17, arg_count @ 18, reserved @ 19,
        arg_sizes @ 20, arg_flags @ 32, returns @ 44,
    } = 48;
    Map {
        name @ 0, map_type @ 16, key_size @ 20, value_size @ 24, max_entries @ 28, map_flags @ 32,
        flags @ 36, map_extra @ 40, btf_key_type_id @ 48, btf_value_type_id @ 52, fields @ 56,
        inner @ 64, contents @ 68, full_name @ 72, pin_path @ 80,
    } = 88;
    Field { offset @ 0, size @ 4, kind @ 8, flags @ 12, btf_id @ 16, node_offset @ 20 } = 24;
    Slot { map @ 0, key @ 4, kind @ 8, index @ 12 } = 16;
    Section { digest @ 0, size @ 32, kind @ 36 } = 40;
}
