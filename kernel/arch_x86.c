// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything here mirrors arch/x86/net/bpf_jit_comp.c.
 */
#include <linux/align.h>
#include <linux/cache.h>
#include <linux/elf-em.h>
#include <linux/limits.h>
#include <linux/math.h>
#include <linux/processor.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/cpufeature.h>
#include <asm/extable.h>
#include <asm/nops.h>
#include <asm/pgtable.h>
#include <asm/ptrace.h>
#include <asm/text-patching.h>

#include "arch.h"
#include "symbols.h"

const u32 pv_arch_machine = EM_X86_64;
const unsigned int pv_arch_alignment = __alignof__(struct exception_table_entry);

u32 pv_arch_va_bits(void)
{
	return pgtable_l5_enabled() ? 57 : 48;
}

/*
 * What the JIT compiler looks at when it compiles programs of the system call. (It looks at more
 * for classic filters.)
 */
static u64 pv_jit_flags(void)
{
	u64 flags = 0;

	if (boot_cpu_has(X86_FEATURE_BMI2))
		flags |= PV_JIT_X86_BMI2;
	if (cpu_feature_enabled(X86_FEATURE_RETPOLINE))
		flags |= PV_JIT_X86_RETPOLINE;
	if (cpu_feature_enabled(X86_FEATURE_RETPOLINE_LFENCE))
		flags |= PV_JIT_X86_RETPOLINE_LFENCE;
	if (cpu_feature_enabled(X86_FEATURE_RETHUNK))
		flags |= PV_JIT_X86_RETHUNK;
#ifdef X86_FEATURE_INDIRECT_THUNK_ITS
	if (cpu_feature_enabled(X86_FEATURE_INDIRECT_THUNK_ITS))
		flags |= PV_JIT_X86_INDIRECT_THUNK_ITS;
#endif
#ifdef X86_FEATURE_CALL_DEPTH
	if (cpu_feature_enabled(X86_FEATURE_CALL_DEPTH))
		flags |= PV_JIT_X86_CALL_DEPTH;
#endif
	/* The JIT compiler goes by the configuration here, whatever the CPU has. */
	if (IS_ENABLED(CONFIG_X86_KERNEL_IBT))
		flags |= PV_JIT_X86_IBT;
	return flags;
}

static u64 pv_return_thunk(void)
{
#ifdef PV_HAVE_RETHUNK
	if (cpu_feature_enabled(X86_FEATURE_RETHUNK))
		return (unsigned long)*pv_data(x86_return_thunk) - pv_kernel_start();
#endif
	return 0;
}

static u32 pv_cfi_mode(void)
{
#ifdef PV_HAVE_CFI_MODE
	return *pv_data(cfi_mode);
#else
	return 0;
#endif
}

void pv_arch_fingerprint(struct pv_fingerprint *fingerprint)
{
	fingerprint->jit_flags = cpu_to_le64(pv_jit_flags());
	fingerprint->return_thunk = cpu_to_le64(pv_return_thunk());
	fingerprint->cfi_mode = cpu_to_le32(pv_cfi_mode());
}

const char *pv_arch_jit_flag_name(u64 flag)
{
	switch (flag) {
	case PV_JIT_X86_BMI2:
		return "BMI2";
	case PV_JIT_X86_RETPOLINE:
		return "retpolines";
	case PV_JIT_X86_RETPOLINE_LFENCE:
		return "lfence before indirect jumps";
	case PV_JIT_X86_INDIRECT_THUNK_ITS:
		return "ITS-safe thunks";
	case PV_JIT_X86_CALL_DEPTH:
		return "call-depth tracking";
	case PV_JIT_X86_RETHUNK:
		return "return thunks";
	case PV_JIT_X86_IBT:
		return "endbr64";
	default:
		return "features that this module does not know";
	}
}

void pv_arch_fill(void *area, unsigned int size)
{
	memset(area, INT3_INSN_OPCODE, size);
}

u32 pv_arch_extable_offset(u32 code_size)
{
	return round_up(code_size, __alignof__(struct exception_table_entry));
}

bool pv_arch_code_good(const u8 *code, u32 code_size)
{
	return code_size;
}

void pv_arch_write_trailer(u8 *code, u32 code_size)
{
}

bool pv_arch_read_exception(struct pv_extable *record, const struct exception_table_entry *entry,
			    const u8 *code, u32 code_size)
{
	unsigned long offset = (unsigned long)&entry->insn + entry->insn - (unsigned long)code;

	if (offset >= code_size)
		return false;
	*record = (struct pv_extable) {
		.offset = cpu_to_le32(offset),
		.fixup = cpu_to_le32(entry->fixup),
		.data = cpu_to_le32(entry->data),
	};
	return true;
}

/* ex_handler_bpf(): which register to clear, as an offset into the registers; bytes to skip. */
bool pv_arch_exception_good(const struct pv_extable *record, u32 code_size)
{
	u32 offset = le32_to_cpu(record->offset);
	u32 fixup = le32_to_cpu(record->fixup);
	u32 cleared = fixup >> 8;
	u32 skipped = fixup & 0xff;

	return offset < code_size && skipped && skipped < code_size - offset &&
	       cleared < offsetof(struct pt_regs, orig_ax) &&
	       IS_ALIGNED(cleared, sizeof(unsigned long)) &&
	       le32_to_cpu(record->data) == EX_TYPE_BPF && !record->reserved;
}

void pv_arch_write_exception(struct exception_table_entry *entry,
			     const struct exception_table_entry *final, const u8 *code,
			     const struct pv_extable *record)
{
	entry->insn = code + le32_to_cpu(record->offset) - (const u8 *)&final->insn;
	entry->fixup = le32_to_cpu(record->fixup);
	entry->data = EX_TYPE_BPF;
}

u32 pv_arch_field_size(u16 form)
{
	switch (form) {
	case PV_FORM_REL32:
	case PV_FORM_ABS32S:
		return sizeof(u32);
	case PV_FORM_ABS64:
		return sizeof(u64);
	default:
		return 0;
	}
}

bool pv_arch_field_blank(u16 form, const u8 *field)
{
	return !memchr_inv(field, 0, pv_arch_field_size(form));
}

bool pv_arch_relocate(u8 *field, u64 place, u16 form, u64 value)
{
	s32 narrow;

	if (form == PV_FORM_ABS64) {
		memcpy(field, &value, sizeof(value));
		return true;
	}
	if (form == PV_FORM_REL32)
		value -= place;
	narrow = value;
	if (narrow != (s64)value)
		return false;
	memcpy(field, &narrow, sizeof(narrow));
	return true;
}

bool pv_arch_poke_good(const u8 *code, u32 code_size, const struct pv_poke *poke)
{
	u32 target = le32_to_cpu(poke->target);
	u32 bypass = le32_to_cpu(poke->bypass);
	u32 bypass_target = le32_to_cpu(poke->bypass_target);
	static const u8 nop[] = { BYTES_NOP5 };
	u32 distance;

	if (code_size < JMP32_INSN_SIZE || target > code_size - JMP32_INSN_SIZE ||
	    bypass > code_size - JMP32_INSN_SIZE || bypass_target >= code_size)
		return false;
	memcpy(&distance, code + bypass + 1, sizeof(distance));
	return !memcmp(code + target, nop, sizeof(nop)) && code[bypass] == JMP32_INSN_OPCODE &&
	       distance == bypass_target - bypass - JMP32_INSN_SIZE;
}
