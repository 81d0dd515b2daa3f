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
#include <asm/extable.h>
#include <asm/nops.h>
#include <asm/ptrace.h>
#include <asm/text-patching.h>

#include "arch.h"

const u32 pv_arch_machine = EM_X86_64;
const unsigned int pv_arch_alignment = __alignof__(struct exception_table_entry);

void pv_arch_fill(void *area, unsigned int size)
{
	memset(area, INT3_INSN_OPCODE, size);
}

u32 pv_arch_extable_offset(u32 code_size)
{
	return round_up(code_size, __alignof__(struct exception_table_entry));
}

u32 pv_arch_size(u32 code_size, u32 exceptions)
{
	return pv_arch_extable_offset(code_size) +
	       exceptions * sizeof(struct exception_table_entry);
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
