/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which kernel runs here, and what else verification and code generation depend on.
 */
#ifndef PV_FINGERPRINT_H
#define PV_FINGERPRINT_H

#include "preverified.h"

/* Needs the symbols. Fails if the kernel has no build id. */
int pv_info_read(struct pv_machine_info *info);

#endif /* PV_FINGERPRINT_H */
