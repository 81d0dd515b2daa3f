/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Putting addresses back into code.
 */
#ifndef PV_RELOCATE_H
#define PV_RELOCATE_H

#include "image.h"
#include "reason.h"

struct bpf_map;
struct bpf_prog_aux;

/* What relocations can name. */
struct pv_addresses {
	const struct pv_image *image;
	struct bpf_map **maps;
	/* Where the functions are going to run; NULL for bytecode, which does not refer to it. */
	u8 *const *functions;
	const struct bpf_prog_aux *aux;
};

/* Relocates a copy of a function's code. */
int pv_relocate(u8 *code, u32 function, const struct pv_addresses *addresses,
		struct pv_reason *reason);

#endif /* PV_RELOCATE_H */
