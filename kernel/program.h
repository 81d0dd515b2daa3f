/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a checked image to a program of the kernel.
 */
#ifndef PV_PROGRAM_H
#define PV_PROGRAM_H

#include "image.h"
#include "manifest.h"
#include "map.h"
#include "reason.h"

/*
 * Returns a program's file descriptor, or a negative errno with nothing left behind. Takes the
 * maps; those that it leaves are the caller's to put.
 */
int pv_program_load(const struct pv_manifest *manifest, const struct pv_program *record,
		    const struct pv_image *image, struct pv_maps *maps, struct pv_reason *reason);

#endif /* PV_PROGRAM_H */
