/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT */
/* Generated from crates/abi by `cargo xtask header`: do not edit. */
#ifndef PREVERIFIED_H
#define PREVERIFIED_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * The version of everything in this crate; it changes whenever a layout or a meaning does.
 */
#define PV_ABI_VERSION 3

/* An index that refers to nothing. */
#define PV_NONE 0xffffffffU

/* Sections start at multiples of this. */
#define PV_SECTION_ALIGNMENT 8

/* Bound to a network device or offloaded to it. */
#define PV_OBSTACLE_DEVICE_BOUND (1 << 0)

/* Attached to another BPF program. */
#define PV_OBSTACLE_PROGRAM_TARGET (1 << 1)

/* Loaded with a BPF token. */
#define PV_OBSTACLE_TOKEN (1 << 2)

/* Uses an arena. */
#define PV_OBSTACLE_ARENA (1 << 3)

/* Holds references on other BTFs or modules (kfuncs or types of modules). */
#define PV_OBSTACLE_MODULE_BTF (1 << 4)

/* Attached to a function of a module. */
#define PV_OBSTACLE_MODULE_TARGET (1 << 5)

/* Not compiled: the interpreter runs it. */
#define PV_OBSTACLE_INTERPRETED (1 << 6)

/* Constants are blinded: the code is random. */
#define PV_OBSTACLE_BLINDED (1 << 7)

/* Implements a kernel structure of functions (struct_ops). */
#define PV_OBSTACLE_STRUCT_OPS (1 << 8)

/* Attached per cgroup to an LSM hook. */
#define PV_OBSTACLE_LSM_CGROUP (1 << 9)

/* Throws exceptions (`bpf_throw`). */
#define PV_OBSTACLE_EXCEPTIONS (1 << 10)

/*
 * The verifier took the map's contents for constants: it is frozen and read-only to programs.
 */
#define PV_EXPORT_MAP_CONSTANT (1 << 0)

/* The largest image that the kernel part reads. */
#define PV_IMAGE_MAX_SIZE (64 << 20)

/*
 * The most functions of a program (`BPF_MAX_SUBPROGS`, and one for the kernel's own).
 */
#define PV_IMAGE_MAX_FUNCTIONS 257

/* Machine code for the target's CPU. */
#define PV_IMAGE_NATIVE 1

/*
 * Verified bytecode for the device's own JIT: the instructions that the verifier left, which on
 * the verifier VM were compiled to the native image.
 *
 * The table `code` holds `struct bpf_insn`s. Exception table and places of tail calls are the
 * device's JIT's business: `extable` is empty, and of a struct pv_poke only `function`, `map`, `key`,
 * `insn_idx` and `adjust` are not zero. Calls of the program's own functions and loads of their
 * addresses have no relocation: their `off` is the function's index, their immediates are zero.
 */
#define PV_IMAGE_BYTECODE 2

/* `prog->gpl_compatible`. */
#define PV_PROG_GPL_COMPATIBLE (1 << 0)

/* `prog->cb_access`. */
#define PV_PROG_CB_ACCESS (1 << 1)

/* `prog->dst_needed`. */
#define PV_PROG_DST_NEEDED (1 << 2)

/* `prog->kprobe_override`. */
#define PV_PROG_KPROBE_OVERRIDE (1 << 3)

/* `prog->has_callchain_buf`. */
#define PV_PROG_HAS_CALLCHAIN_BUF (1 << 4)

/* `prog->enforce_expected_attach_type`. */
#define PV_PROG_ENFORCE_EXPECTED_ATTACH_TYPE (1 << 5)

/* `prog->call_get_stack`. */
#define PV_PROG_CALL_GET_STACK (1 << 6)

/* `prog->call_get_func_ip`. */
#define PV_PROG_CALL_GET_FUNC_IP (1 << 7)

/* `prog->tstamp_type_access`. */
#define PV_PROG_TSTAMP_TYPE_ACCESS (1 << 8)

/* `prog->sleepable`. */
#define PV_PROG_SLEEPABLE (1 << 9)

/* `aux->attach_btf_trace`. */
#define PV_PROG_ATTACH_BTF_TRACE (1 << 10)

/* `aux->func_proto_unreliable`. */
#define PV_PROG_FUNC_PROTO_UNRELIABLE (1 << 11)

/* `aux->tail_call_reachable`. */
#define PV_PROG_TAIL_CALL_REACHABLE (1 << 12)

/* `aux->xdp_has_frags`. */
#define PV_PROG_XDP_HAS_FRAGS (1 << 13)

/* `aux->changes_pkt_data`. */
#define PV_PROG_CHANGES_PKT_DATA (1 << 14)

/* `aux->verifier_zext`. */
#define PV_PROG_VERIFIER_ZEXT (1 << 15)

/*
 * `aux->exception_boundary` or `aux->exception_cb` in any function: `bpf_throw` is used.
 */
#define PV_PROG_EXCEPTIONS (1 << 16)

/* The function's `aux->tail_call_reachable`. */
#define PV_FUNCTION_TAIL_CALL_REACHABLE (1 << 0)

/* The function's `aux->changes_pkt_data`. */
#define PV_FUNCTION_CHANGES_PKT_DATA (1 << 1)

/* x86_64: four bytes, relative; must fit as signed. */
#define PV_FORM_REL32 1

/* x86_64: four bytes, sign-extended by the CPU; must fit as signed. */
#define PV_FORM_ABS32S 2

/* x86_64: eight bytes. */
#define PV_FORM_ABS64 3

/*
 * Bytecode: a wide load (`BPF_LD | BPF_IMM | BPF_DW`), 16 bytes. The value goes into its two
 * immediates, which are zero in the image; everything else stays.
 */
#define PV_FORM_BPF_IMM64 4

/*
 * Bytecode: a call, 8 bytes. The value, relative to `__bpf_call_base`, goes into its immediate, which
 * is zero in the image, and must fit as signed. On kernels whose JIT looks kernel functions up
 * by their BTF type id, the call becomes one without such a look-up.
 */
#define PV_FORM_BPF_CALL 5

/* arm64: a call (`bl`), 4 bytes, zero in the image. Relative; must be reachable. */
#define PV_FORM_A64_CALL26 6

/*
 * arm64: three instructions that set a register to an address of the kernel, 12 bytes: `movn`,
 * `movk lsl #16`, `movk lsl #32`. In the image, each has its register (its five lowest bits), and
 * is zero but for that. Bits 48 to 63 of the value must be ones.
 */
#define PV_FORM_A64_ADDR48 7

/*
 * arm64: three instructions that set a register to a value, 12 bytes, as the kernel's
 * `emit_a64_mov_i64()` chooses them; in the image as for PV_FORM_A64_ADDR48. Where it would choose two, a third
 * one sets the lowest 16 bits again. The value must not need four, and have more than 32 bits.
 */
#define PV_FORM_A64_MOV64 8

/*
 * Nothing: S is zero, the addend is the address. Only relative fields need it (x86_64: a per-CPU
 * variable addressed relative to the instruction).
 */
#define PV_RELOC_ABSOLUTE 1

/* Symbol `index` of the image's symbols section. */
#define PV_RELOC_SYMBOL 2

/* The `struct bpf_map` of the program's map `index`. */
#define PV_RELOC_MAP 3

/* The first byte of the values of the program's map `index`. */
#define PV_RELOC_MAP_VALUE 4

/* The first byte of function `index`. */
#define PV_RELOC_FUNCTION 5

/* The program's own `struct bpf_prog_aux`. */
#define PV_RELOC_PROG_AUX 6

/*
 * In the kernel image: `value` is the offset from `_text`. (On kernels without
 * `CONFIG_KALLSYMS_ALL`, which name functions only: from `_stext`.)
 */
#define PV_SYMBOL_TEXT 1

/* In a module: `name` is `module:symbol`, `value` the offset from that symbol. */
#define PV_SYMBOL_MODULE 2

/* Bytes of a reason, with its terminating zero. */
#define PV_REASON_SIZE 128

/* Native images fit this machine. */
#define PV_OPEN_NATIVE (1 << 0)

/* Bytecode images fit this machine. */
#define PV_OPEN_BYTECODE (1 << 1)

/* The largest manifest that the kernel part reads. */
#define PV_MANIFEST_MAX_SIZE (4 << 20)

/* 64-bit x86 (`EM_X86_64`). */
#define PV_ARCH_X86_64 62

/* 64-bit arm (`EM_AARCH64`). */
#define PV_ARCH_ARM64 183

/* 32-bit arm (`EM_ARM`). */
#define PV_ARCH_ARM 40

/* x86_64: the CPU has BMI2 (`shlx` and friends are emitted). */
#define PV_JIT_X86_BMI2 (1 << 0)

/* x86_64: indirect jumps go through retpolines. */
#define PV_JIT_X86_RETPOLINE (1 << 1)

/* x86_64: indirect jumps are preceded by `lfence`. */
#define PV_JIT_X86_RETPOLINE_LFENCE (1 << 2)

/* x86_64: indirect jumps go through the ITS-safe thunks. */
#define PV_JIT_X86_INDIRECT_THUNK_ITS (1 << 3)

/* x86_64: calls are accounted for call-depth tracking. */
#define PV_JIT_X86_CALL_DEPTH (1 << 4)

/* x86_64: functions return through a thunk. */
#define PV_JIT_X86_RETHUNK (1 << 5)

/*
 * x86_64: functions start with `endbr64` (whatever the CPU has: the configuration decides).
 */
#define PV_JIT_X86_IBT (1 << 6)

/* arm64: the CPU has LSE atomics, and they are emitted. */
#define PV_JIT_ARM64_LSE (1 << 0)

/*
 * arm64: the kernel runs at EL2 (VHE): per-CPU variables are found through `tpidr_el2`.
 */
#define PV_JIT_ARM64_VHE (1 << 1)

/* arm64: return addresses are signed (the configuration decides). */
#define PV_JIT_ARM64_PAC (1 << 2)

/* arm64: functions start with a landing pad (the configuration decides). */
#define PV_JIT_ARM64_BTI (1 << 3)

/*
 * The kernel guards nobody's programs against Spectre v1 (`mitigations=off`). Else it spares those
 * who have `CAP_PERFMON`.
 */
#define PV_POLICY_BYPASS_SPEC_V1 (1 << 0)

/* The same for Spectre v4. */
#define PV_POLICY_BYPASS_SPEC_V4 (1 << 1)

/* Programs may read kernel memory (not locked down at `LOCKDOWN_BPF_READ_KERNEL`). */
#define PV_POLICY_READ_KERNEL (1 << 2)

/* Programs may write user memory (not locked down at `LOCKDOWN_BPF_WRITE_USER`). */
#define PV_POLICY_WRITE_USER (1 << 3)

/*
 * The limits of the verifier that accepted the program were raised: a stock kernel may refuse it as
 * too complex.
 */
#define PV_PROGRAM_RAISED_LIMITS (1 << 0)

/*
 * The most arguments of a function that a trampoline can be put on (`MAX_BPF_FUNC_ARGS`).
 */
#define PV_ATTACH_ARGS_MAX 12

/* The value is a structure (`BTF_FMODEL_STRUCT_ARG`). */
#define PV_VALUE_STRUCT (1 << 0)

/* The value is a signed number (`BTF_FMODEL_SIGNED_ARG`). */
#define PV_VALUE_SIGNED (1 << 1)

/*
 * The verifier took the map's contents for constants: the device's map must be frozen,
 * read-only to programs, and hold exactly `contents`.
 */
#define PV_MAP_CONTENTS_VERIFIED (1 << 0)

/* Only a template for the inner maps of a map of maps: no map of the object's own. */
#define PV_MAP_TEMPLATE (1 << 1)

/* The field's `btf_id` is one of the kernel's types, not of the object's. */
#define PV_FIELD_KERNEL_BTF (1 << 0)

/* `bpf_spin_lock`. */
#define PV_FIELD_SPIN_LOCK 1

/* `bpf_timer`. */
#define PV_FIELD_TIMER 2

/* `bpf_wq`. */
#define PV_FIELD_WORKQUEUE 3

/* An unreferenced kptr. */
#define PV_FIELD_KPTR_UNREF 4

/* A referenced kptr. */
#define PV_FIELD_KPTR_REF 5

/* A per-CPU kptr. */
#define PV_FIELD_KPTR_PERCPU 6

/* `bpf_list_head`. */
#define PV_FIELD_LIST_HEAD 7

/* `bpf_list_node`. */
#define PV_FIELD_LIST_NODE 8

/* `bpf_rb_root`. */
#define PV_FIELD_RB_ROOT 9

/* `bpf_rb_node`. */
#define PV_FIELD_RB_NODE 10

/* `bpf_refcount`. */
#define PV_FIELD_REFCOUNT 11

/* The slot holds a program. */
#define PV_SLOT_PROGRAM 1

/* The slot holds a map. */
#define PV_SLOT_MAP 2

/* A native or bytecode image (struct pv_image_header). */
#define PV_SECTION_IMAGE 1

/* An image's symbols (struct pv_symbols_header). */
#define PV_SECTION_SYMBOLS 2

/* A map's initial contents. */
#define PV_SECTION_CONTENTS 3

/* BTF. */
#define PV_SECTION_BTF 4

/* Evidence, as JSON. */
#define PV_SECTION_EVIDENCE 5

/* An ELF machine number. */
struct pv_architecture;

/*
 * `count` records, the first at `offset` bytes from the start of the enclosing header.
 */
struct pv_table {
	/* Bytes from the start of the enclosing header to the first record. */
	__le32 offset;
	/* Number of records. */
	__le32 count;
};

/* `count` neighbouring records of a table, the first at index `first`. */
struct pv_range {
	/* Index of the first record, or offset of the first byte of a string. */
	__le32 first;
	/* Number of records, or of bytes of a string. */
	__le32 count;
};

/*
 * What the verifier found out, as it stands in `struct bpf_prog` and `struct bpf_prog_aux`.
 */
struct pv_conclusions {
	/* `PROG_*` bits. */
	__le64 flags;
	/* `aux->max_ctx_offset`. */
	__le32 max_ctx_offset;
	/* `aux->max_pkt_offset`. */
	__le32 max_pkt_offset;
	/* `aux->max_tp_access`. */
	__le32 max_tp_access;
	/* `aux->max_rdonly_access`. */
	__le32 max_rdonly_access;
	/* `aux->max_rdwr_access`. */
	__le32 max_rdwr_access;
	/* `aux->verified_insns`. */
	__le32 verified_insns;
	/* `aux->stack_depth`. */
	__le32 stack_depth;
	/* `aux->func_cnt`: functions that user space is told of. */
	__le32 visible_functions;
	/*
	 * `aux->cgroup_storage`, shared and per-CPU: indices into the program's maps, or
	 * PV_NONE.
	 */
	__le32 cgroup_storage[2];
	/* `prog->tag`. */
	__u8 tag[8];
};

/* The head of an image. */
struct pv_image_header {
	/* PV_IMAGE_MAGIC. */
	__u8 magic[8];
	/* PV_ABI_VERSION. */
	__le32 version;
	/* Bytes of the whole image, this header included. */
	__le32 size;
	/* ELF machine number of native code; zero for bytecode. */
	__le32 arch;
	/* PV_IMAGE_NATIVE or PV_IMAGE_BYTECODE. */
	__le32 kind;
	/* What the verifier found out about the program. */
	struct pv_conclusions conclusions;
	/* struct pv_function records; the first is the program's entry. */
	struct pv_table functions;
	/* Bytes: the code of all functions, one behind the other, relocated fields zeroed. */
	struct pv_table code;
	/* struct pv_reloc records, grouped by function. */
	struct pv_table relocs;
	/* struct pv_extable records, grouped by function. */
	struct pv_table extable;
	/* struct pv_poke records. */
	struct pv_table pokes;
	/*
	 * `struct bpf_insn`s of 8 bytes: the whole program as `bpftool prog dump xlated` shows it,
	 * addresses zeroed.
	 */
	struct pv_table xlated;
	/* Number of symbols that the relocations refer to. */
	__le32 symbol_count;
	/* Zero. */
	__le32 reserved;
};

/* One function of a program; each lies in executable memory of its own. */
struct pv_function {
	/* The function's `prog->tag`: part of its name in kallsyms. */
	__u8 tag[8];
	/* The function's code: `first` byte and `count` of bytes in the table `code`. */
	struct pv_range code;
	/* The function's relocations. */
	struct pv_range relocs;
	/* The function's exception table. */
	struct pv_range extable;
	/* The function's `aux->stack_depth`. */
	__le32 stack_depth;
	/* `FUNCTION_*` bits. */
	__le32 flags;
};

/*
 * One address to write into a function's code.
 *
 * With S the address of what `kind` and `index` name, A the addend, and P the address of the
 * field itself, the field becomes S + A, or S + A - P if `form` is relative.
 */
struct pv_reloc {
	/* Bytes from the start of the function's code to the field. */
	__le32 offset;
	/* `FORM_*`. */
	__le16 form;
	/* `RELOC_*`. */
	__le16 kind;
	/* What is meant, by `kind`. */
	__le32 index;
	/* Zero. */
	__le32 reserved;
	/* The addend. */
	__le64 addend;
};

/*
 * One instruction that may fault, and what then happens (`struct exception_table_entry`).
 */
struct pv_extable {
	/* Bytes from the start of the function's code to the instruction. */
	__le32 offset;
	/*
	 * The entry's `fixup`, which BPF uses for the register to clear and, on x86_64, the length to
	 * skip. On arm64, it also says where the table lies: that part is zero here.
	 */
	__le32 fixup;
	/* The entry's `data` (x86_64) or `type` (arm64): the handler. */
	__le32 data;
	/* Zero. */
	__le32 reserved;
};

/* One direct tail call (`struct bpf_jit_poke_descriptor`). */
struct pv_poke {
	/* The function that holds the tail call. */
	__le32 function;
	/* Bytes from the start of its code to the jump that is patched. */
	__le32 target;
	/* Bytes from the start of its code to the jump around it. */
	__le32 bypass;
	/* Bytes from the start of its code to where that jump goes. */
	__le32 bypass_target;
	/* The prog array: an index into the program's maps. */
	__le32 map;
	/* The key in the prog array. */
	__le32 key;
	/* `insn_idx`. */
	__le32 insn_idx;
	/* `adj_off`. */
	__le32 adjust;
};

/*
 * The head of a symbols section: what an image's PV_RELOC_SYMBOLs mean in one kernel.
 */
struct pv_symbols_header {
	/* PV_SYMBOLS_MAGIC. */
	__u8 magic[8];
	/* PV_ABI_VERSION. */
	__le32 version;
	/* Bytes of the whole section, this header included. */
	__le32 size;
	/* struct pv_symbol records, in the order of the image's symbol indices. */
	struct pv_table symbols;
	/* Bytes: names, each with a terminating zero. */
	struct pv_table strings;
};

/* One symbol of a kernel. */
struct pv_symbol {
	/* `SYMBOL_*`. */
	__le32 kind;
	/*
	 * The symbol's name: an offset into `strings`. The kernel part does not read it for
	 * PV_SYMBOL_TEXT.
	 */
	__le32 name;
	/* By `kind`. */
	__le64 value;
};

/* The head of a manifest. */
struct pv_manifest_header {
	/* PV_MANIFEST_MAGIC. */
	__u8 magic[8];
	/* PV_ABI_VERSION. */
	__le32 version;
	/* Bytes of the whole manifest, this header included. */
	__le32 size;
	/*
	 * What a reader must know to load anything from this bundle; a reader that does not know one
	 * of the bits refuses the bundle. No bit is defined yet.
	 */
	__le64 features;
	/* struct pv_target records. */
	struct pv_table targets;
	/* struct pv_program records. */
	struct pv_table programs;
	/* struct pv_map records. */
	struct pv_table maps;
	/* struct pv_field records. */
	struct pv_table fields;
	/*
	 * `__le32` indices into `maps`: the maps that each program uses, in the verifier's order.
	 * An index counts from the start of the whole table `maps`.
	 */
	struct pv_table map_refs;
	/* struct pv_slot records. */
	struct pv_table slots;
	/* struct pv_attach_target records. */
	struct pv_table attach_targets;
	/* struct pv_section records. */
	struct pv_table sections;
	/* Bytes: UTF-8 without terminators, found by struct pv_range. */
	struct pv_table strings;
};

/*
 * What the verifier's conclusions and the JIT's output depend on, beside the kernel build.
 *
 * What the verifier's conclusions depend on must fit for every image: `arch`, `page_shift` and `policy`
 * are equal on the device, and `cpu_limit` is a bound: the verifier knows that
 * `bpf_get_smp_processor_id()` is below it, so a device may have fewer CPUs, never more. The
 * other fields are what native code depends on: they must be equal for native images, while
 * bytecode is compiled by the device itself.
 */
struct pv_fingerprint {
	/* ELF machine number, `ARCH_*`. */
	__le32 arch;
	/* log2 of the page size. */
	__le32 page_shift;
	/*
	 * Bits of a virtual address (x86_64: 48, or 57 with five-level paging; arm64: `vabits_actual`;
	 * arm: 32).
	 */
	__le32 va_bits;
	/* The kernel's `nr_cpu_ids`. */
	__le32 cpu_limit;
	/*
	 * `JIT_*` bits of the architecture: the CPU features and mitigations that the JIT looks at.
	 */
	__le64 jit_flags;
	/* `POLICY_*` bits: what the verifier allowed. */
	__le64 policy;
	/*
	 * x86_64: the symbol that functions return through, as an offset from `_text`; zero if
	 * they return plainly.
	 */
	__le64 return_thunk;
	/* `net.core.bpf_jit_harden`. */
	__le32 jit_harden;
	/* The kernel's `cfi_mode` (x86_64), zero if it has none. */
	__le32 cfi_mode;
	/* Zero. */
	__u8 reserved[16];
};

/* One kernel that this bundle's programs were verified by, on one kind of machine. */
struct pv_target {
	/* The GNU build id of the kernel, followed by zeroes. */
	__u8 build_id[32];
	/* Bytes of `build_id` that count. */
	__le32 build_id_size;
	/* Zero. */
	__le32 reserved;
	/* What verification and code generation depended on. */
	struct pv_fingerprint fingerprint;
	/* `uname -r`. */
	struct pv_range release;
	/* The programs for this target. */
	struct pv_range programs;
	/* The maps for this target. */
	struct pv_range maps;
	/* The static contents of this target's prog arrays and maps of maps. */
	struct pv_range slots;
	/* The section with the object's BTF as the kernel took it, or PV_NONE. */
	__le32 btf;
	/*
	 * The section with the evidence (JSON): the verifier's statistics, versions, digests.
	 */
	__le32 evidence;
};

/* One program for one target. */
struct pv_program {
	/* The program's name in the kernel, with a terminating zero. */
	__u8 name[16];
	/* `enum bpf_prog_type`. */
	__le32 prog_type;
	/* `enum bpf_attach_type`. */
	__le32 expected_attach_type;
	/*
	 * The BTF type id, in the BTF of the device's kernel, of what the program attaches to, or zero.
	 */
	__le32 attach_btf_id;
	/* `BPF_F_*` flags that the program was loaded with. */
	__le32 prog_flags;
	/* The full name of the program's function in the object. */
	struct pv_range function;
	/*
	 * The ELF section that the program came from, as in `SEC("xdp")`: says how to attach it.
	 */
	struct pv_range elf_section;
	/* The program's maps, in the table `map_refs`. */
	struct pv_range map_refs;
	/* The section with the native image, or PV_NONE. */
	__le32 native;
	/* The section with the symbols of the native image, or PV_NONE. */
	__le32 native_symbols;
	/* The section with the image of verified bytecode, or PV_NONE. */
	__le32 bytecode;
	/* The section with the symbols of the bytecode image, or PV_NONE. */
	__le32 bytecode_symbols;
	/* Instructions that the verifier processed. */
	__le32 processed_insns;
	/* States that the verifier kept at its peak. */
	__le32 peak_states;
	/*
	 * What the program attaches to, as an index into `attach_targets`; or PV_NONE: the
	 * device's kernel finds it in its own BTF.
	 */
	__le32 attach_target;
	/* `PROGRAM_*` bits. */
	__le32 flags;
};

/* What a program attaches to, for kernels that have no BTF to find it in. */
struct pv_attach_target {
	/*
	 * The function that a trampoline is put on, as an offset from `_text`; zero if it is none.
	 */
	__le64 address;
	/* The function's name; a tracepoint's without `btf_trace_`. */
	struct pv_range name;
	/*
	 * Bytes that the function returns: this and the following as in `struct btf_func_model`.
	 */
	__u8 ret_size;
	/* `VALUE_*` bits of what it returns. */
	__u8 ret_flags;
	/* Arguments that it takes. */
	__u8 arg_count;
	/* Zero. */
	__u8 reserved;
	/* Bytes of each argument, followed by zeroes. */
	__u8 arg_sizes[PV_ATTACH_ARGS_MAX];
	/* `VALUE_*` bits of each argument, followed by zeroes. */
	__u8 arg_flags[PV_ATTACH_ARGS_MAX];
	/* One if the function returns anything, else zero. */
	__le32 returns;
};

/* One map, with every attribute that the verifier relied on. */
struct pv_map {
	/* The map's name in the kernel, with a terminating zero. */
	__u8 name[16];
	/* `enum bpf_map_type`. */
	__le32 map_type;
	/* Bytes of a key. */
	__le32 key_size;
	/* Bytes of a value. */
	__le32 value_size;
	/* The most entries the map can hold. */
	__le32 max_entries;
	/* `BPF_F_*` flags. */
	__le32 map_flags;
	/* `MAP_*` bits. */
	__le32 flags;
	/* The map type's extra attribute. */
	__le64 map_extra;
	/* BTF type id of the key in the target's `btf` section, or zero. */
	__le32 btf_key_type_id;
	/* BTF type id of the value in the target's `btf` section, or zero. */
	__le32 btf_value_type_id;
	/* The fields of a value that the kernel manages, by rising offset. */
	struct pv_range fields;
	/*
	 * The map that describes the inner maps of a map of maps, an index into the whole table
	 * `maps`, or PV_NONE.
	 */
	__le32 inner;
	/*
	 * The section with the initial contents, or PV_NONE for zeroes. With
	 * PV_MAP_CONTENTS_VERIFIED, the kernel part compares them.
	 */
	__le32 contents;
	/* The full name of the map in the object. */
	struct pv_range full_name;
	/* Where the object wants the map pinned, or empty. */
	struct pv_range pin_path;
};

/* One field of a map's value that the kernel manages (`struct btf_field`). */
struct pv_field {
	/* Bytes from the start of the value. */
	__le32 offset;
	/* Bytes of the field. */
	__le32 size;
	/* `FIELD_*`. */
	__le32 kind;
	/* PV_FIELD_KERNEL_BTF. */
	__le32 flags;
	/* What a kptr points to, or what a list or tree holds: a BTF type id. */
	__le32 btf_id;
	/* Where the node lies in what a list or tree holds. */
	__le32 node_offset;
};

/* One entry of a prog array or an array of maps that the object fills statically. */
struct pv_slot {
	/* The prog array or array of maps, an index into the whole table `maps`. */
	__le32 map;
	/* The key. */
	__le32 key;
	/* PV_SLOT_PROGRAM or PV_SLOT_MAP. */
	__le32 kind;
	/* An index into the whole table `programs` or `maps`. */
	__le32 index;
};

/* Some bytes outside the manifest. */
struct pv_section {
	/* SHA-256 of the bytes. */
	__u8 digest[32];
	/* Number of bytes. */
	__le32 size;
	/* `SECTION_*`. */
	__le32 kind;
};

/* The head of an export. */
struct pv_export_header {
	/* PV_EXPORT_MAGIC. */
	__u8 magic[8];
	/* PV_ABI_VERSION. */
	__le32 version;
	/* Bytes of the whole export, this header included. */
	__le32 size;
	/* `aux->name`. */
	__u8 name[16];
	/* `prog->type`. */
	__le32 prog_type;
	/* `prog->expected_attach_type`. */
	__le32 expected_attach_type;
	/* `aux->attach_btf_id`. */
	__le32 attach_btf_id;
	/* `OBSTACLE_*` bits: what the program has that cannot be replayed on a device. */
	__le32 obstacles;
	/* ELF machine number of the kernel, `ARCH_*`. */
	__le32 arch;
	/* Bits of a virtual address, as in the machine's fingerprint. */
	__le32 va_bits;
	/* The verifier's conclusions; `cgroup_storage` are indices into `maps`. */
	struct pv_conclusions conclusions;
	/* The program's `struct bpf_prog_aux`. */
	__le64 aux_address;
	/* The address that offsets of PV_SYMBOL_TEXT count from: `_text`, or `_stext`. */
	__le64 text_address;
	/* struct pv_export_function records; the first is the program's entry. */
	struct pv_table functions;
	/* Bytes: native code of all functions. */
	struct pv_table code;
	/* `struct bpf_insn`s of all functions, as the JIT compiled them. */
	struct pv_table insns;
	/* struct pv_extable records, grouped by function. */
	struct pv_table extable;
	/* struct pv_export_poke records. */
	struct pv_table pokes;
	/* `struct bpf_insn`s: `prog->insnsi`. */
	struct pv_table xlated;
	/* struct pv_export_map records: `aux->used_maps`, in order. */
	struct pv_table maps;
	/* struct pv_field records of the maps. */
	struct pv_table fields;
};

/* One function of a loaded program. */
struct pv_export_function {
	/* The function's `bpf_func`. */
	__le64 address;
	/* The function's `prog->tag`. */
	__u8 tag[8];
	/* Its bytes in the table `code`. */
	struct pv_range code;
	/* Its instructions in the table `insns`. */
	struct pv_range insns;
	/* Its exception table. */
	struct pv_range extable;
	/* `aux->stack_depth`. */
	__le32 stack_depth;
	/* `FUNCTION_*` bits of image. */
	__le32 flags;
};

/* One direct tail call. */
struct pv_export_poke {
	/* `tailcall_target`. */
	__le64 target;
	/* `tailcall_bypass`. */
	__le64 bypass;
	/* `bypass_addr`. */
	__le64 bypass_target;
	/* The prog array's `struct bpf_map`. */
	__le64 map;
	/* `tail_call.key`. */
	__le32 key;
	/*
	 * The function whose `aux` the descriptor holds, or PV_NONE for the main program's.
	 */
	__le32 function;
	/* `insn_idx`. */
	__le32 insn_idx;
	/* `adj_off`. */
	__le32 adjust;
};

/* One map that a program uses. */
struct pv_export_map {
	/* The `struct bpf_map`. */
	__le64 address;
	/* The first byte of the values, if programs reach them directly, else zero. */
	__le64 value_address;
	/* Bytes at `value_address` that programs may address. */
	__le64 value_span;
	/* `map->map_extra`. */
	__le64 map_extra;
	/* `map->id`. */
	__le32 id;
	/* `map->map_type`. */
	__le32 map_type;
	/* `map->key_size`. */
	__le32 key_size;
	/* `map->value_size`. */
	__le32 value_size;
	/* `map->max_entries`. */
	__le32 max_entries;
	/* `map->map_flags`. */
	__le32 map_flags;
	/* The fields of a value that the kernel manages. */
	struct pv_range fields;
	/* `EXPORT_MAP_*` bits. */
	__le32 flags;
	/* If the map is a map of maps: `inner_map_meta`'s `map_type`, else zero. */
	__le32 inner_map_type;
	/* `inner_map_meta`'s `key_size`. */
	__le32 inner_key_size;
	/* `inner_map_meta`'s `value_size`. */
	__le32 inner_value_size;
	/* `inner_map_meta`'s `max_entries`. */
	__le32 inner_max_entries;
	/* `inner_map_meta`'s `map_flags`. */
	__le32 inner_map_flags;
	/* The fields of a value of the inner maps. */
	struct pv_range inner_fields;
};

/* Who answers, and on what machine. */
struct pv_machine_info {
	/* PV_ABI_VERSION of the kernel part. */
	__u32 abi_version;
	/* Bytes of `build_id` that count. */
	__u32 build_id_size;
	/* The running kernel's GNU build id, followed by zeroes. */
	__u8 build_id[32];
	/* This machine's fingerprint. */
	struct pv_fingerprint fingerprint;
};

/* A bundle to open. */
struct pv_open {
	/* In: address of the manifest. */
	__u64 manifest;
	/* In: address of the detached CMS signature (DER) over the manifest. */
	__u64 signature;
	/* In: bytes of the manifest. */
	__u32 manifest_size;
	/* In: bytes of the signature. */
	__u32 signature_size;
	/* Out: the index of the target of the manifest that fits this machine. */
	__u32 target;
	/* In: zero. */
	__u32 flags;
	/* Out: `OPEN_*` bits: which images of that target fit. */
	__u32 fit;
	/* In: zero. */
	__u32 reserved;
	/*
	 * Out: why the bundle was refused, or why native images do not fit if only they do not.
	 */
	__u8 reason[PV_REASON_SIZE];
};

/* A program to load. */
struct pv_load {
	/* In: address of the image section. */
	__u64 image;
	/* In: address of the symbols section. */
	__u64 symbols;
	/*
	 * In: address of the file descriptors (`s32`) of the program's maps, in the order of its
	 * `map_refs`.
	 */
	__u64 map_fds;
	/* In: bytes of the image section. */
	__u32 image_size;
	/* In: bytes of the symbols section. */
	__u32 symbols_size;
	/* In: number of `map_fds`. */
	__u32 map_count;
	/* In: the program, an index into the manifest's whole table `programs`. */
	__u32 program;
	/* In: zero. */
	__u32 flags;
	/*
	 * In: which of the program's images `image` and `symbols` are: PV_IMAGE_NATIVE or
	 * PV_IMAGE_BYTECODE.
	 */
	__u32 kind;
	/* Out: why the program was refused. */
	__u8 reason[PV_REASON_SIZE];
};

/* A loaded program to export. */
struct pv_export {
	/* In: address of the buffer for the struct pv_export_header and what follows it. */
	__u64 buffer;
	/*
	 * In: bytes of the buffer. Out: bytes of the export; with `ENOSPC` the bytes that it needs.
	 */
	__u32 size;
	/* In: the program's file descriptor. */
	__s32 program;
	/* Out: why it cannot be exported. */
	__u8 reason[PV_REASON_SIZE];
};

/* Where some bytes lie in the file. */
struct pv_placement {
	/* Bytes from the start of the file. */
	__le64 offset;
	/* Number of bytes. */
	__le64 size;
};

/*
 * The head of a bundle file. It is followed by one struct pv_placement for each section of the
 * manifest, in the manifest's order.
 */
struct pv_container_header {
	/* PV_CONTAINER_MAGIC. */
	__u8 magic[8];
	/* PV_ABI_VERSION. */
	__le32 version;
	/* Number of struct pv_placement records behind this header. */
	__le32 section_count;
	/* Where the manifest lies in the file. */
	struct pv_placement manifest;
	/*
	 * Where the detached CMS signature (DER) lies; its size is zero in an unsigned bundle.
	 */
	struct pv_placement signature;
};

/* The first bytes of each kind of record, without a terminating zero. */
#define PV_IMAGE_MAGIC "PVIMAGE1"
#define PV_SYMBOLS_MAGIC "PVSYMBS1"
#define PV_MANIFEST_MAGIC "PVMANIF1"
#define PV_EXPORT_MAGIC "PVEXPRT1"
#define PV_CONTAINER_MAGIC "PVBUNDLE"

/* Where user space meets the kernel part. */
#define PV_DEVICE_PATH "/dev/bpf_preverified"
#define PV_EXPORT_DEVICE_PATH "/dev/bpf_preverified_export"
#define PV_KEYRING_NAME ".bpf_preverified"

/* The calls. */
#define PV_IOC_INFO _IOR('p', 0xb0, struct pv_machine_info)
#define PV_IOC_OPEN _IOWR('p', 0xb1, struct pv_open)
#define PV_IOC_LOAD _IOWR('p', 0xb2, struct pv_load)
#define PV_IOC_EXPORT _IOWR('p', 0xb3, struct pv_export)

_Static_assert(PV_IOC_INFO == 0x806870b0, "as crates/abi has it");
_Static_assert(PV_IOC_OPEN == 0xc0a870b1, "as crates/abi has it");
_Static_assert(PV_IOC_LOAD == 0xc0b070b2, "as crates/abi has it");
_Static_assert(PV_IOC_EXPORT == 0xc09070b3, "as crates/abi has it");

_Static_assert(sizeof(struct pv_table) == 8, "pv_table");
_Static_assert(sizeof(struct pv_range) == 8, "pv_range");
_Static_assert(sizeof(struct pv_image_header) == 136, "pv_image_header");
_Static_assert(sizeof(struct pv_conclusions) == 56, "pv_conclusions");
_Static_assert(sizeof(struct pv_function) == 40, "pv_function");
_Static_assert(sizeof(struct pv_reloc) == 24, "pv_reloc");
_Static_assert(sizeof(struct pv_extable) == 16, "pv_extable");
_Static_assert(sizeof(struct pv_poke) == 32, "pv_poke");
_Static_assert(sizeof(struct pv_symbols_header) == 32, "pv_symbols_header");
_Static_assert(sizeof(struct pv_symbol) == 16, "pv_symbol");
_Static_assert(sizeof(struct pv_manifest_header) == 96, "pv_manifest_header");
_Static_assert(sizeof(struct pv_target) == 144, "pv_target");
_Static_assert(sizeof(struct pv_fingerprint) == 64, "pv_fingerprint");
_Static_assert(sizeof(struct pv_program) == 88, "pv_program");
_Static_assert(sizeof(struct pv_attach_target) == 48, "pv_attach_target");
_Static_assert(sizeof(struct pv_map) == 88, "pv_map");
_Static_assert(sizeof(struct pv_field) == 24, "pv_field");
_Static_assert(sizeof(struct pv_slot) == 16, "pv_slot");
_Static_assert(sizeof(struct pv_section) == 40, "pv_section");
_Static_assert(sizeof(struct pv_export_header) == 192, "pv_export_header");
_Static_assert(sizeof(struct pv_export_function) == 48, "pv_export_function");
_Static_assert(sizeof(struct pv_export_poke) == 48, "pv_export_poke");
_Static_assert(sizeof(struct pv_export_map) == 96, "pv_export_map");
_Static_assert(sizeof(struct pv_machine_info) == 104, "pv_machine_info");
_Static_assert(sizeof(struct pv_open) == 168, "pv_open");
_Static_assert(sizeof(struct pv_load) == 176, "pv_load");
_Static_assert(sizeof(struct pv_export) == 144, "pv_export");
_Static_assert(sizeof(struct pv_container_header) == 48, "pv_container_header");
_Static_assert(sizeof(struct pv_placement) == 16, "pv_placement");

#endif /* PREVERIFIED_H */
