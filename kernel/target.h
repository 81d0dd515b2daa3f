/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which of a bundle's targets this machine is.
 */
#ifndef PV_TARGET_H
#define PV_TARGET_H

#include "manifest.h"
#include "reason.h"

/* Finds the first target that this machine is. */
int pv_target_choose(const struct pv_manifest *manifest, u32 *target, struct pv_reason *reason);

/* Whether this machine still is the target: some of its settings change while it runs. */
int pv_target_check(const struct pv_target *target, struct pv_reason *reason);

#endif /* PV_TARGET_H */
