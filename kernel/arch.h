/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between architectures: what the JIT compiler looks at, how native code lies in
 * memory, and how addresses, exception tables and patched jumps are written. One arch_*.c file
 * for each, and both modules contain it.
 */
#ifndef PV_ARCH_H
#define PV_ARCH_H

#include <linux/types.h>

#include "preverified.h"

struct exception_table_entry;
struct pt_regs;

/* ELF machine number. */
extern const u32 pv_arch_machine;

/* Bits of a virtual address, as fingerprints have them. */
u32 pv_arch_va_bits(void);

/* Fills in what native code depends on and only this architecture has: flags, thunk, CFI mode. */
void pv_arch_fingerprint(struct pv_fingerprint *fingerprint);

/* What a bit of pv_fingerprint.jit_flags is called. */
const char *pv_arch_jit_flag_name(u64 flag);

/* Reads one entry of the exception table of a function's code. False if it is not the code's. */
bool pv_arch_read_exception(struct pv_extable *record, const struct exception_table_entry *entry,
			    const u8 *code, u32 code_size);

/* Whether the kernel's handler can act on the record. */
bool pv_arch_exception_good(const struct pv_extable *record, u32 code_size);

/* Bytes of a relocated field, or zero if there is no such form on this architecture. */
u32 pv_arch_field_size(u16 form);

/* Whether a field is as images have it: without an address. */
bool pv_arch_field_blank(u16 form, const u8 *field);

/* Writes @value into a field that is going to lie at @place; false if it does not fit. */
bool pv_arch_relocate(u8 *field, u64 place, u16 form, u64 value);

#ifndef PV_HAVE_DATA
/* Where a function's argument is when a probe on its start runs. The first one's index is zero. */
unsigned long *pv_arch_argument(struct pt_regs *regs, unsigned int index);
#endif

#ifdef PV_NATIVE
/*
 * Native images. Architectures without them have none of this.
 */

/* As the kernel's JIT compiler asks for executable memory. */
extern const unsigned int pv_arch_alignment;

/* Fills memory with what must not run. */
void pv_arch_fill(void *area, unsigned int size);

/* Bytes from the start of a function's code to its exception table. */
u32 pv_arch_extable_offset(u32 code_size);

/* Whether a function's code has the size, and ends in the way, that the kernel relies on. */
bool pv_arch_code_good(const u8 *code, u32 code_size);

/* Writes what the kernel expects between a function's code and its exception table. */
void pv_arch_write_trailer(u8 *code, u32 code_size);

/*
 * Writes one entry of an exception table. @entry is where to write, @final where it is going to
 * be used, with the code at @code.
 */
void pv_arch_write_exception(struct exception_table_entry *entry,
			     const struct exception_table_entry *final, const u8 *code,
			     const struct pv_extable *record);

/*
 * Whether the kernel may patch this tail call: it lies within the code, and the instructions
 * are those that the kernel insists on (it has a BUG_ON() otherwise).
 */
bool pv_arch_poke_good(const u8 *code, u32 code_size, const struct pv_poke *poke);
#endif

#endif /* PV_ARCH_H */
