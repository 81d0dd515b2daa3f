/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether the maps that a caller brings are those that the verifier relied on.
 */
#ifndef PV_MAP_H
#define PV_MAP_H

#include <linux/bpf.h>

#include "bundle.h"
#include "reason.h"

/* As many as a program can have (MAX_USED_MAPS). */
#define PV_MAPS_MAX 64

struct pv_maps {
	struct bpf_map **maps;
	u32 count;
};

/*
 * Takes a reference on the map of each descriptor and compares it with the program's. Give the
 * references back with pv_maps_put(), unless the array has found another owner.
 */
int pv_maps_get(struct pv_maps *maps, const struct pv_bundle *bundle,
		const struct pv_program *program, const s32 *fds, struct pv_reason *reason);
void pv_maps_put(struct pv_maps *maps);

/* The address of a map's values, or zero if programs do not reach them directly. */
u64 pv_map_value(struct bpf_map *map);

#endif /* PV_MAP_H */
