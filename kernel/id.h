/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ids of programs, and what else bpf_prog_load() has in tables of its own. Kernels that tell
 * where such data lies have it done here; with others, compat/id.c has the kernel itself do it.
 */
#ifndef PV_ID_H
#define PV_ID_H

#include <linux/bpf.h>

#include "reason.h"

int pv_id_init(void);
void pv_id_exit(void);

/* What user space's test runs of programs of a type are made of: NULL if publishing sets it. */
const struct bpf_prog_ops *pv_id_ops(u32 type);

/* An id that nobody finds a program under yet, unless publishing gives it. */
int pv_id_reserve(struct bpf_prog *prog, struct pv_reason *reason);

/*
 * Makes the program known by its id, and to the audit log. @attr describes it, as to the system
 * call. From here on others can find it, whether or not it then gets a file descriptor.
 */
int pv_id_publish(struct bpf_prog *prog, const union bpf_attr *attr, struct pv_reason *reason);

#endif /* PV_ID_H */
