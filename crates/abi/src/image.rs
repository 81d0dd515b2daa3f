//! One program made loadable: code with every address taken out, the relocations that put them
//! back, and the verifier's conclusions.
//!
//! An image says nothing about one kernel's addresses: they stand in its [`SymbolsHeader`]
//! section. So targets whose code is the same share the image.

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Range, Table, assert_layout};

/// The first bytes of every image.
pub const IMAGE_MAGIC: [u8; 8] = *b"PVIMAGE1";

/// The largest image that the kernel part reads.
pub const IMAGE_MAX_SIZE: u32 = 64 << 20;

/// The most functions of a program (`BPF_MAX_SUBPROGS`, and one for the kernel's own).
pub const IMAGE_MAX_FUNCTIONS: u32 = 257;

/// Machine code for the target's CPU.
pub const IMAGE_NATIVE: u32 = 1;
/// Verified bytecode for the device's own JIT: the instructions that the verifier left, which on
/// the verifier VM were compiled to the native image.
///
/// The table `code` holds `struct bpf_insn`s. Exception table and places of tail calls are the
/// device's JIT's business: `extable` is empty, and of a [`Poke`] only `function`, `map`, `key`,
/// `insn_idx` and `adjust` are not zero. Calls of the program's own functions and loads of their
/// addresses have no relocation: their `off` is the function's index, their immediates are zero.
pub const IMAGE_BYTECODE: u32 = 2;

/// The head of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ImageHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`].
    pub version: U32,
    /// Bytes of the whole image, this header included.
    pub size: U32,
    /// ELF machine number of native code; zero for bytecode.
    pub arch: U32,
    /// [`IMAGE_NATIVE`] or [`IMAGE_BYTECODE`].
    pub kind: U32,
    /// What the verifier found out about the program.
    pub conclusions: Conclusions,
    /// [`Function`] records; the first is the program's entry.
    pub functions: Table,
    /// Bytes: the code of all functions, one behind the other, relocated fields zeroed.
    pub code: Table,
    /// [`Reloc`] records, grouped by function.
    pub relocs: Table,
    /// [`Extable`] records, grouped by function.
    pub extable: Table,
    /// [`Poke`] records.
    pub pokes: Table,
    /// `struct bpf_insn`s of 8 bytes: the whole program as `bpftool prog dump xlated` shows it,
    /// addresses zeroed.
    pub xlated: Table,
    /// Number of symbols that the relocations refer to.
    pub symbol_count: U32,
    /// Zero.
    pub reserved: U32,
}

/// What the verifier found out, as it stands in `struct bpf_prog` and `struct bpf_prog_aux`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Conclusions {
    /// `PROG_*` bits.
    pub flags: U64,
    /// `aux->max_ctx_offset`.
    pub max_ctx_offset: U32,
    /// `aux->max_pkt_offset`.
    pub max_pkt_offset: U32,
    /// `aux->max_tp_access`.
    pub max_tp_access: U32,
    /// `aux->max_rdonly_access`.
    pub max_rdonly_access: U32,
    /// `aux->max_rdwr_access`.
    pub max_rdwr_access: U32,
    /// `aux->verified_insns`.
    pub verified_insns: U32,
    /// `aux->stack_depth`.
    pub stack_depth: U32,
    /// `aux->func_cnt`: functions that user space is told of.
    pub visible_functions: U32,
    /// `aux->cgroup_storage`, shared and per-CPU: indices into the program's maps, or
    /// [`crate::NONE`].
    pub cgroup_storage: [U32; 2],
    /// `prog->tag`.
    pub tag: [u8; 8],
}

/// `prog->gpl_compatible`.
pub const PROG_GPL_COMPATIBLE: u64 = 1 << 0;
/// `prog->cb_access`.
pub const PROG_CB_ACCESS: u64 = 1 << 1;
/// `prog->dst_needed`.
pub const PROG_DST_NEEDED: u64 = 1 << 2;
/// `prog->kprobe_override`.
pub const PROG_KPROBE_OVERRIDE: u64 = 1 << 3;
/// `prog->has_callchain_buf`.
pub const PROG_HAS_CALLCHAIN_BUF: u64 = 1 << 4;
/// `prog->enforce_expected_attach_type`.
pub const PROG_ENFORCE_EXPECTED_ATTACH_TYPE: u64 = 1 << 5;
/// `prog->call_get_stack`.
pub const PROG_CALL_GET_STACK: u64 = 1 << 6;
/// `prog->call_get_func_ip`.
pub const PROG_CALL_GET_FUNC_IP: u64 = 1 << 7;
/// `prog->tstamp_type_access`.
pub const PROG_TSTAMP_TYPE_ACCESS: u64 = 1 << 8;
/// `prog->sleepable`.
pub const PROG_SLEEPABLE: u64 = 1 << 9;
/// `aux->attach_btf_trace`.
pub const PROG_ATTACH_BTF_TRACE: u64 = 1 << 10;
/// `aux->func_proto_unreliable`.
pub const PROG_FUNC_PROTO_UNRELIABLE: u64 = 1 << 11;
/// `aux->tail_call_reachable`.
pub const PROG_TAIL_CALL_REACHABLE: u64 = 1 << 12;
/// `aux->xdp_has_frags`.
pub const PROG_XDP_HAS_FRAGS: u64 = 1 << 13;
/// `aux->changes_pkt_data`.
pub const PROG_CHANGES_PKT_DATA: u64 = 1 << 14;
/// `aux->verifier_zext`.
pub const PROG_VERIFIER_ZEXT: u64 = 1 << 15;
/// `aux->exception_boundary` or `aux->exception_cb` in any function: `bpf_throw` is used.
pub const PROG_EXCEPTIONS: u64 = 1 << 16;

/// One function of a program; each lies in executable memory of its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Function {
    /// The function's `prog->tag`: part of its name in kallsyms.
    pub tag: [u8; 8],
    /// The function's code: `first` byte and `count` of bytes in the table `code`.
    pub code: Range,
    /// The function's relocations.
    pub relocs: Range,
    /// The function's exception table.
    pub extable: Range,
    /// The function's `aux->stack_depth`.
    pub stack_depth: U32,
    /// `FUNCTION_*` bits.
    pub flags: U32,
}

/// The function's `aux->tail_call_reachable`.
pub const FUNCTION_TAIL_CALL_REACHABLE: u32 = 1 << 0;
/// The function's `aux->changes_pkt_data`.
pub const FUNCTION_CHANGES_PKT_DATA: u32 = 1 << 1;

/// One address to write into a function's code.
///
/// With S the address of what `kind` and `index` name, A the addend, and P the address of the
/// field itself, the field becomes S + A, or S + A - P if `form` is relative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Reloc {
    /// Bytes from the start of the function's code to the field.
    pub offset: U32,
    /// `FORM_*`.
    pub form: U16,
    /// `RELOC_*`.
    pub kind: U16,
    /// What is meant, by `kind`.
    pub index: U32,
    /// Zero.
    pub reserved: U32,
    /// The addend.
    pub addend: I64,
}

/// x86_64: four bytes, relative; must fit as signed.
pub const FORM_REL32: u16 = 1;
/// x86_64: four bytes, sign-extended by the CPU; must fit as signed.
pub const FORM_ABS32S: u16 = 2;
/// x86_64: eight bytes.
pub const FORM_ABS64: u16 = 3;
/// Bytecode: a wide load (`BPF_LD | BPF_IMM | BPF_DW`), 16 bytes. The value goes into its two
/// immediates, which are zero in the image; everything else stays.
pub const FORM_BPF_IMM64: u16 = 4;
/// Bytecode: a call, 8 bytes. The value, relative to `__bpf_call_base`, goes into its immediate, which
/// is zero in the image, and must fit as signed. On kernels whose JIT looks kernel functions up
/// by their BTF type id, the call becomes one without such a look-up.
pub const FORM_BPF_CALL: u16 = 5;
/// arm64: a call (`bl`), 4 bytes, zero in the image. Relative; must be reachable.
pub const FORM_A64_CALL26: u16 = 6;
/// arm64: three instructions that set a register to an address of the kernel, 12 bytes: `movn`,
/// `movk lsl #16`, `movk lsl #32`. In the image, each has its register (its five lowest bits), and
/// is zero but for that. Bits 48 to 63 of the value must be ones.
pub const FORM_A64_ADDR48: u16 = 7;
/// arm64: three instructions that set a register to a value, 12 bytes, as the kernel's
/// `emit_a64_mov_i64()` chooses them; in the image as for [`FORM_A64_ADDR48`]. Where it would choose two, a third
/// one sets the lowest 16 bits again. The value must not need four, and have more than 32 bits.
pub const FORM_A64_MOV64: u16 = 8;

/// Nothing: S is zero, the addend is the address. Only relative fields need it (x86_64: a per-CPU
/// variable addressed relative to the instruction).
pub const RELOC_ABSOLUTE: u16 = 1;
/// Symbol `index` of the image's symbols section.
pub const RELOC_SYMBOL: u16 = 2;
/// The `struct bpf_map` of the program's map `index`.
pub const RELOC_MAP: u16 = 3;
/// The first byte of the values of the program's map `index`.
pub const RELOC_MAP_VALUE: u16 = 4;
/// The first byte of function `index`.
pub const RELOC_FUNCTION: u16 = 5;
/// The program's own `struct bpf_prog_aux`.
pub const RELOC_PROG_AUX: u16 = 6;

/// One instruction that may fault, and what then happens (`struct exception_table_entry`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Extable {
    /// Bytes from the start of the function's code to the instruction.
    pub offset: U32,
    /// The entry's `fixup`, which BPF uses for the register to clear and, on x86_64, the length to
    /// skip. On arm64, it also says where the table lies: that part is zero here.
    pub fixup: I32,
    /// The entry's `data` (x86_64) or `type` (arm64): the handler.
    pub data: U32,
    /// Zero.
    pub reserved: U32,
}

/// One direct tail call (`struct bpf_jit_poke_descriptor`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Poke {
    /// The function that holds the tail call.
    pub function: U32,
    /// Bytes from the start of its code to the jump that is patched.
    pub target: U32,
    /// Bytes from the start of its code to the jump around it.
    pub bypass: U32,
    /// Bytes from the start of its code to where that jump goes.
    pub bypass_target: U32,
    /// The prog array: an index into the program's maps.
    pub map: U32,
    /// The key in the prog array.
    pub key: U32,
    /// `insn_idx`.
    pub insn_idx: U32,
    /// `adj_off`.
    pub adjust: U32,
}

/// The first bytes of every symbols section.
pub const SYMBOLS_MAGIC: [u8; 8] = *b"PVSYMBS1";

/// The head of a symbols section: what an image's [`RELOC_SYMBOL`]s mean in one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SymbolsHeader {
    /// [`SYMBOLS_MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`].
    pub version: U32,
    /// Bytes of the whole section, this header included.
    pub size: U32,
    /// [`Symbol`] records, in the order of the image's symbol indices.
    pub symbols: Table,
    /// Bytes: names, each with a terminating zero.
    pub strings: Table,
}

/// One symbol of a kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Symbol {
    /// `SYMBOL_*`.
    pub kind: U32,
    /// The symbol's name: an offset into `strings`. The kernel part does not read it for
    /// [`SYMBOL_TEXT`].
    pub name: U32,
    /// By `kind`.
    pub value: U64,
}

/// In the kernel image: `value` is the offset from `_text`. (On kernels without
/// `CONFIG_KALLSYMS_ALL`, which name functions only: from `_stext`.)
pub const SYMBOL_TEXT: u32 = 1;
/// In a module: `name` is `module:symbol`, `value` the offset from that symbol.
pub const SYMBOL_MODULE: u32 = 2;

assert_layout! {
    ImageHeader {
        magic @ 0, version @ 8, size @ 12, arch @ 16, kind @ 20, conclusions @ 24, functions @ 80,
        code @ 88, relocs @ 96, extable @ 104, pokes @ 112, xlated @ 120, symbol_count @ 128,
        reserved @ 132,
    } = 136;
    Conclusions {
        flags @ 0, max_ctx_offset @ 8, max_pkt_offset @ 12, max_tp_access @ 16,
        max_rdonly_access @ 20, max_rdwr_access @ 24, verified_insns @ 28, stack_depth @ 32,
        visible_functions @ 36, cgroup_storage @ 40, tag @ 48,
    } = 56;
    Function { tag @ 0, code @ 8, relocs @ 16, extable @ 24, stack_depth @ 32, flags @ 36 } = 40;
    Reloc { offset @ 0, form @ 4, kind @ 6, index @ 8, reserved @ 12, addend @ 16 } = 24;
    Extable { offset @ 0, fixup @ 4, data @ 8, reserved @ 12 } = 16;
    Poke {
        function @ 0, target @ 4, bypass @ 8, bypass_target @ 12, map @ 16, key @ 20, insn_idx @ 24,
        adjust @ 28,
    } = 32;
    SymbolsHeader { magic @ 0, version @ 8, size @ 12, symbols @ 16, strings @ 24 } = 32;
    Symbol { kind @ 0, name @ 4, value @ 8 } = 16;
}
