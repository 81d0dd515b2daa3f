/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Images and their symbols, once they have been checked.
 */
#ifndef PV_IMAGE_H
#define PV_IMAGE_H

#include <linux/filter.h>
#include <linux/types.h>

#include "preverified.h"
#include "reason.h"

/*
 * All pointers are into the sections' bytes. After pv_image_parse(), functions lie one behind
 * the other, relocations lie within their function and do not overlap, indices are good, and
 * symbols lie within the kernel; bytecode has good instructions. Tail calls are not checked yet:
 * native code needs relocating first, and their maps are not known.
 */
struct pv_image {
	const struct pv_image_header *header;
	const struct pv_function *functions;
	const u8 *code;
	const struct pv_reloc *relocs;
	const struct pv_extable *extable;
	const struct pv_poke *pokes;
	const struct bpf_insn *xlated;
	const struct pv_symbol *symbols;
};

struct pv_bytes {
	const void *data;
	u32 size;
};

/*
 * @kind is the one that the image must be of. The bytes must be aligned as kvmalloc() aligns, and
 * outlive @image.
 */
int pv_image_parse(struct pv_image *image, u32 kind, struct pv_bytes bytes,
		   struct pv_bytes symbols, u32 map_count, struct pv_reason *reason);

/* Whether this kernel takes bytecode: it can have been built without a JIT compiler. */
static inline bool pv_compiles(void)
{
#ifdef PV_NO_COMPILER
	return false;
#else
	return true;
#endif
}

static inline bool pv_is_bytecode(const struct pv_image *image)
{
	return pv_compiles() && le32_to_cpu(image->header->kind) == PV_IMAGE_BYTECODE;
}

/* The address of one of the image's symbols. */
u64 pv_image_symbol(const struct pv_image *image, u32 index);

#endif /* PV_IMAGE_H */
