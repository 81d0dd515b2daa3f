// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs come as bytecode. There are no native images of this architecture: so no form of a
 * relocated field, and no exception table, which arch/arm/net/bpf_jit_32.c does not make either.
 */
#include <linux/elf-em.h>
#include <linux/types.h>
#include <asm/ptrace.h>

#include "arch.h"

const u32 pv_arch_machine = EM_ARM;

u32 pv_arch_va_bits(void)
{
	return 32;
}

/* What the JIT compiler looks at (division, interworking) matters to native images only. */
void pv_arch_fingerprint(struct pv_fingerprint *fingerprint)
{
}

const char *pv_arch_jit_flag_name(u64 flag)
{
	return "features that this module does not know";
}

bool pv_arch_read_exception(struct pv_extable *record, const struct exception_table_entry *entry,
			    const u8 *code, u32 code_size)
{
	return false;
}

bool pv_arch_exception_good(const struct pv_extable *record, u32 code_size)
{
	return false;
}

u32 pv_arch_field_size(u16 form)
{
	return 0;
}

bool pv_arch_field_blank(u16 form, const u8 *field)
{
	return false;
}

bool pv_arch_relocate(u8 *field, u64 place, u16 form, u64 value)
{
	return false;
}

#ifndef PV_HAVE_DATA
unsigned long *pv_arch_argument(struct pt_regs *regs, unsigned int index)
{
	return &regs->uregs[index];
}
#endif
