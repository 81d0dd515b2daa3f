/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Executable memory for native code: of the pack allocator, where this kernel's JIT compiler
 * takes it from there, else pages of its own. Freeing a program gives it back either way.
 */
#ifndef PV_COMPAT_MEMORY_H
#define PV_COMPAT_MEMORY_H

#include <linux/bpf.h>
#include <linux/cacheflush.h>
#include <linux/filter.h>
#include <linux/set_memory.h>
#include <linux/vmalloc.h>

#include "arch.h"
#include "symbols.h"

/* Memory for a function's code, before it is finished. */
struct pv_memory {
	/* Where it is going to run, and where it can be written now. NULL once it is finished. */
	struct bpf_binary_header *header;
	u8 *writable;
#ifdef PV_HAVE_PACK
	struct bpf_binary_header *writable_header;
#endif
};

#ifdef PV_HAVE_PACK

/* Returns where the code is going to run, or NULL. */
static inline u8 *pv_memory_alloc(struct pv_memory *memory, u32 size)
{
	u8 *code;

	memory->header = pv_call(bpf_jit_binary_pack_alloc)(size, &code, pv_arch_alignment,
							    &memory->writable_header,
							    &memory->writable, pv_arch_fill,
							    false);
	return memory->header ? code : NULL;
}

/* For memory that is not finished. */
static inline void pv_memory_free(struct pv_memory *memory)
{
	/* Its size is read from where it is to run, which only finishing writes. */
	pv_call(bpf_arch_text_copy)(&memory->header->size, &memory->writable_header->size,
				    sizeof(memory->header->size));
	pv_call(bpf_jit_binary_pack_free)(memory->header, memory->writable_header);
	memory->header = NULL;
}

static inline int pv_memory_finalize(struct bpf_prog *prog, struct pv_memory *memory)
{
#ifdef PV_HAVE_FINALIZE_WITH_PROG
	return pv_call(bpf_jit_binary_pack_finalize)(prog, memory->header,
						     memory->writable_header);
#else
	return pv_call(bpf_jit_binary_pack_finalize)(memory->header, memory->writable_header);
#endif
}

/* Makes code, which ends at @end where it runs, executable. Frees the memory if that fails. */
static inline int pv_memory_finish(struct bpf_prog *prog, struct pv_memory *memory,
				   const u8 *end)
{
	unsigned long start = (unsigned long)memory->header;
	int err;

	err = pv_memory_finalize(prog, memory);
	memory->header = NULL;
	if (err)
		return err;
	flush_icache_range(start, (unsigned long)end);
	return 0;
}

#else

static inline u8 *pv_memory_alloc(struct pv_memory *memory, u32 size)
{
	memory->header = pv_call(bpf_jit_binary_alloc)(size, &memory->writable,
						       pv_arch_alignment, pv_arch_fill);
	return memory->header ? memory->writable : NULL;
}

static inline void pv_memory_free(struct pv_memory *memory)
{
	pv_call(bpf_jit_binary_free)(memory->header);
	memory->header = NULL;
}

/* bpf_jit_binary_lock_ro() is not for modules: it is inline, what it calls is not exported. */
static inline int pv_memory_finish(struct bpf_prog *prog, struct pv_memory *memory,
				   const u8 *end)
{
	unsigned long start = (unsigned long)memory->header;
	struct vm_struct *area = pv_call(find_vm_area)(memory->header);
	int pages = memory->header->size >> PAGE_SHIFT;
	int err;

	flush_icache_range(start, (unsigned long)end);
	if (area)
		area->flags |= VM_FLUSH_RESET_PERMS;
	err = pv_call(set_memory_ro)(start, pages);
	if (!err)
		err = pv_call(set_memory_x)(start, pages);
	if (err)
		pv_memory_free(memory);
	memory->header = NULL;
	return err;
}

#endif

#endif /* PV_COMPAT_MEMORY_H */
