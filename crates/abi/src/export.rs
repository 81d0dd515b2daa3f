//! What the verifier VM's kernel part tells about a loaded program: everything that the system
//! call hides. Addresses here are those of that boot; they never leave the machine that verifies.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::image::Conclusions;
use crate::{Range, Table, assert_layout};

/// The first bytes of every export.
pub const EXPORT_MAGIC: [u8; 8] = *b"PVEXPRT1";

/// The head of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExportHeader {
    /// [`EXPORT_MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`].
    pub version: U32,
    /// Bytes of the whole export, this header included.
    pub size: U32,
    /// `aux->name`.
    pub name: [u8; 16],
    /// `prog->type`.
    pub prog_type: U32,
    /// `prog->expected_attach_type`.
    pub expected_attach_type: U32,
    /// `aux->attach_btf_id`.
    pub attach_btf_id: U32,
    /// `OBSTACLE_*` bits: what the program has that cannot be replayed on a device.
    pub obstacles: U32,
    /// ELF machine number of the kernel, `ARCH_*`.
    pub arch: U32,
    /// Bits of a virtual address, as in the machine's fingerprint.
    pub va_bits: U32,
    /// The verifier's conclusions; `cgroup_storage` are indices into `maps`.
    pub conclusions: Conclusions,
    /// The program's `struct bpf_prog_aux`.
    pub aux_address: U64,
    /// The address that offsets of [`crate::image::SYMBOL_TEXT`] count from: `_text`, or `_stext`.
    pub text_address: U64,
    /// [`ExportFunction`] records; the first is the program's entry.
    pub functions: Table,
    /// Bytes: native code of all functions.
    pub code: Table,
    /// `struct bpf_insn`s of all functions, as the JIT compiled them.
    pub insns: Table,
    /// [`crate::image::Extable`] records, grouped by function.
    pub extable: Table,
    /// [`ExportPoke`] records.
    pub pokes: Table,
    /// `struct bpf_insn`s: `prog->insnsi`.
    pub xlated: Table,
    /// [`ExportMap`] records: `aux->used_maps`, in order.
    pub maps: Table,
    /// [`crate::manifest::Field`] records of the maps.
    pub fields: Table,
}

/// Bound to a network device or offloaded to it.
pub const OBSTACLE_DEVICE_BOUND: u32 = 1 << 0;
/// Attached to another BPF program.
pub const OBSTACLE_PROGRAM_TARGET: u32 = 1 << 1;
/// Loaded with a BPF token.
pub const OBSTACLE_TOKEN: u32 = 1 << 2;
/// Uses an arena.
pub const OBSTACLE_ARENA: u32 = 1 << 3;
/// Holds references on other BTFs or modules (kfuncs or types of modules).
pub const OBSTACLE_MODULE_BTF: u32 = 1 << 4;
/// Attached to a function of a module.
pub const OBSTACLE_MODULE_TARGET: u32 = 1 << 5;
/// Not compiled: the interpreter runs it.
pub const OBSTACLE_INTERPRETED: u32 = 1 << 6;
/// Constants are blinded: the code is random.
pub const OBSTACLE_BLINDED: u32 = 1 << 7;
/// Implements a kernel structure of functions (struct_ops).
pub const OBSTACLE_STRUCT_OPS: u32 = 1 << 8;
/// Attached per cgroup to an LSM hook.
pub const OBSTACLE_LSM_CGROUP: u32 = 1 << 9;
/// Throws exceptions (`bpf_throw`).
pub const OBSTACLE_EXCEPTIONS: u32 = 1 << 10;

/// One function of a loaded program.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ExportFunction {
    /// The function's `bpf_func`.
    pub address: U64,
    /// The function's `prog->tag`.
    pub tag: [u8; 8],
    /// Its bytes in the table `code`.
    pub code: Range,
    /// Its instructions in the table `insns`.
    pub insns: Range,
    /// Its exception table.
    pub extable: Range,
    /// `aux->stack_depth`.
    pub stack_depth: U32,
    /// `FUNCTION_*` bits of [`crate::image`].
    pub flags: U32,
}

/// One direct tail call.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ExportPoke {
    /// `tailcall_target`.
    pub target: U64,
    /// `tailcall_bypass`.
    pub bypass: U64,
    /// `bypass_addr`.
    pub bypass_target: U64,
    /// The prog array's `struct bpf_map`.
    pub map: U64,
    /// `tail_call.key`.
    pub key: U32,
    /// The function whose `aux` the descriptor holds, or [`crate::NONE`] for the main program's.
    pub function: U32,
    /// `insn_idx`.
    pub insn_idx: U32,
    /// `adj_off`.
    pub adjust: U32,
}

/// One map that a program uses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct ExportMap {
    /// The `struct bpf_map`.
    pub address: U64,
    /// The first byte of the values, if programs reach them directly, else zero.
    pub value_address: U64,
    /// Bytes at `value_address` that programs may address.
    pub value_span: U64,
    /// `map->map_extra`.
    pub map_extra: U64,
    /// `map->id`.
    pub id: U32,
    /// `map->map_type`.
    pub map_type: U32,
    /// `map->key_size`.
    pub key_size: U32,
    /// `map->value_size`.
    pub value_size: U32,
    /// `map->max_entries`.
    pub max_entries: U32,
    /// `map->map_flags`.
    pub map_flags: U32,
    /// The fields of a value that the kernel manages.
    pub fields: Range,
    /// `EXPORT_MAP_*` bits.
    pub flags: U32,
    /// If the map is a map of maps: `inner_map_meta`'s `map_type`, else zero.
    pub inner_map_type: U32,
    /// `inner_map_meta`'s `key_size`.
    pub inner_key_size: U32,
    /// `inner_map_meta`'s `value_size`.
    pub inner_value_size: U32,
    /// `inner_map_meta`'s `max_entries`.
    pub inner_max_entries: U32,
    /// `inner_map_meta`'s `map_flags`.
    pub inner_map_flags: U32,
    /// The fields of a value of the inner maps.
    pub inner_fields: Range,
}

/// The verifier took the map's contents for constants: it is frozen and read-only to programs.
pub const EXPORT_MAP_CONSTANT: u32 = 1 << 0;

assert_layout! {
    ExportHeader {
        magic @ 0, version @ 8, size @ 12, name @ 16, prog_type @ 32, expected_attach_type @ 36,
        attach_btf_id @ 40, obstacles @ 44, arch @ 48, va_bits @ 52, conclusions @ 56,
        aux_address @ 112, text_address @ 120, functions @ 128, code @ 136, insns @ 144,
        extable @ 152, pokes @ 160, xlated @ 168, maps @ 176, fields @ 184,
    } = 192;
    ExportFunction {
        address @ 0, tag @ 8, code @ 16, insns @ 24, extable @ 32, stack_depth @ 40, flags @ 44,
    } = 48;
    ExportPoke {
        target @ 0, bypass @ 8, bypass_target @ 16, map @ 24, key @ 32, function @ 36,
        insn_idx @ 40, adjust @ 44,
    } = 48;
    ExportMap {
        address @ 0, value_address @ 8, value_span @ 16, map_extra @ 24, id @ 32, map_type @ 36,
        key_size @ 40, value_size @ 44, max_entries @ 48, map_flags @ 52, fields @ 56, flags @ 64,
        inner_map_type @ 68, inner_key_size @ 72, inner_value_size @ 76, inner_max_entries @ 80,
        inner_map_flags @ 84, inner_fields @ 88,
    } = 96;
}
