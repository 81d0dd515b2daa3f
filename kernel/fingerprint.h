/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which kernel runs here, and what else verification and code generation depend on.
 */
#ifndef PV_FINGERPRINT_H
#define PV_FINGERPRINT_H

#include "preverified.h"

/* Once, at the start. Fails if the kernel has no build id, and says so in its log. */
int pv_fingerprint_init(void);

/* Needs the symbols. Fails if there is no memory. */
int pv_info_read(struct pv_machine_info *info);

#endif /* PV_FINGERPRINT_H */
