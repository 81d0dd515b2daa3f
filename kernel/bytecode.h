/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Verified bytecode through this kernel's own JIT compiler.
 */
#ifndef PV_BYTECODE_H
#define PV_BYTECODE_H

#include <linux/bpf.h>

#include "image.h"
#include "reason.h"

/*
 * Gives the program its code. The program has its maps already; when this fails, freeing the
 * program suffices. The compiler may put another program in its place, with the same aux.
 */
int pv_bytecode_compile(struct bpf_prog **prog, const struct pv_image *image,
			struct pv_reason *reason);

#endif /* PV_BYTECODE_H */
