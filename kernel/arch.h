/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between architectures: how native code lies in memory, and how addresses,
 * exception tables and patched jumps are written. One arch_*.c file for each.
 */
#ifndef PV_ARCH_H
#define PV_ARCH_H

#include <linux/types.h>

#include "preverified.h"

struct exception_table_entry;

/* ELF machine number. */
extern const u32 pv_arch_machine;
/* As the kernel's JIT compiler asks bpf_jit_binary_pack_alloc() for. */
extern const unsigned int pv_arch_alignment;

/* Fills memory with what must not run. */
void pv_arch_fill(void *area, unsigned int size);

/* Bytes from a function's code to its exception table, and to the end of both. */
u32 pv_arch_extable_offset(u32 code_size);
u32 pv_arch_size(u32 code_size, u32 exceptions);

/* Whether the kernel's handler can act on the record. */
bool pv_arch_exception_good(const struct pv_extable *record, u32 code_size);

/*
 * Writes one entry of an exception table. @entry is where to write, @final where it is going to
 * be used, with the code at @code.
 */
void pv_arch_write_exception(struct exception_table_entry *entry,
			     const struct exception_table_entry *final, const u8 *code,
			     const struct pv_extable *record);

/* Bytes of a relocated field, or zero if there is no such form on this architecture. */
u32 pv_arch_field_size(u16 form);

/* Writes @value into a field that is going to lie at @place; false if it does not fit. */
bool pv_arch_relocate(u8 *field, u64 place, u16 form, u64 value);

/*
 * Whether the kernel may patch this tail call: it lies within the code, and the instructions
 * are those that the kernel insists on (it has a BUG_ON() otherwise).
 */
bool pv_arch_poke_good(const u8 *code, u32 code_size, const struct pv_poke *poke);

/* What a bit of pv_fingerprint.jit_flags is called. */
const char *pv_arch_jit_flag_name(u64 flag);

#endif /* PV_ARCH_H */
