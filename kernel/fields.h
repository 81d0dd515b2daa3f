/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fields of a map's values that the kernel manages: locks, timers, kptrs and so on.
 */
#ifndef PV_FIELDS_H
#define PV_FIELDS_H

#include <linux/bpf.h>

#include "preverified.h"

/* More than any kernel allows in one map. */
#define PV_FIELDS_MAX 16

/*
 * Reads a map's fields by rising offset. Returns their number, or -EOPNOTSUPP if one of them
 * cannot be said in a struct pv_field: it is of an unknown kind, or of a type of a module.
 */
int pv_fields_read(const struct bpf_map *map, struct pv_field fields[PV_FIELDS_MAX]);

/* Whether a map has exactly these fields. */
bool pv_fields_match(const struct bpf_map *map, const struct pv_field *expected, u32 count);

#endif /* PV_FIELDS_H */
