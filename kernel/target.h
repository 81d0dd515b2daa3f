/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which of a bundle's targets this machine is.
 */
#ifndef PV_TARGET_H
#define PV_TARGET_H

#include "manifest.h"
#include "reason.h"

/*
 * Finds the first target that this machine is. If there is none, finds the first one whose
 * bytecode fits it, and says in @reason why native images do not. @fit are PV_OPEN_* bits.
 */
int pv_target_choose(const struct pv_manifest *manifest, const struct pv_target **target, u32 *fit,
		     struct pv_reason *reason);

/*
 * Whether images of this kind still fit: some settings of a machine change while it runs.
 */
int pv_target_check(const struct pv_target *target, u32 kind, struct pv_reason *reason);

#endif /* PV_TARGET_H */
