/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The signed part of a bundle: its tables, once they have been checked.
 */
#ifndef PV_MANIFEST_H
#define PV_MANIFEST_H

#include <linux/types.h>

#include "preverified.h"
#include "reason.h"

/*
 * All pointers are into the manifest's bytes. After pv_manifest_parse() every range and index in
 * them is good (but see pv_program.map_refs), every reserved field zero, and every flag known.
 */
struct pv_manifest {
	const struct pv_manifest_header *header;
	const struct pv_target *targets;
	const struct pv_program *programs;
	const struct pv_map *maps;
	const struct pv_field *fields;
	const __le32 *map_refs;
	const struct pv_slot *slots;
	const struct pv_attach_target *attach_targets;
	const struct pv_section *sections;
	const u8 *strings;
};

/* @bytes must be aligned as kvmalloc() aligns, and outlive @manifest. */
int pv_manifest_parse(struct pv_manifest *manifest, const void *bytes, u32 size,
		      struct pv_reason *reason);

#endif /* PV_MANIFEST_H */
