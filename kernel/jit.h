/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Native code into executable memory, in the JIT compiler's stead.
 */
#ifndef PV_JIT_H
#define PV_JIT_H

#include <linux/bpf.h>

#include "image.h"
#include "reason.h"

#ifdef PV_NATIVE

/*
 * Gives the program its code. Nothing is executable before all of it has been checked and
 * relocated. The program has its maps already; when this fails, freeing the program suffices.
 */
int pv_jit(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason);

#else

static inline int pv_jit(struct bpf_prog *prog, const struct pv_image *image,
			 struct pv_reason *reason)
{
	return pv_refuse(reason, -EOPNOTSUPP,
			 "native images are not supported on this architecture, only bytecode");
}

#endif

#endif /* PV_JIT_H */
