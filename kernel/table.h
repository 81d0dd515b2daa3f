/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tables and ranges in bytes that nobody has checked yet.
 */
#ifndef PV_TABLE_H
#define PV_TABLE_H

#include <asm/byteorder.h>
#include <linux/overflow.h>
#include <linux/string.h>
#include <linux/types.h>

#include "preverified.h"

/* All tables start at multiples of this, counted from their header. */
#define PV_TABLE_ALIGNMENT 8

/*
 * The table's first record, or NULL unless all its records lie within the @size bytes at @base.
 * An empty table may lie at the very end.
 */
static inline const void *pv_table_at(const void *base, u32 size, const struct pv_table *table,
				      size_t record_size)
{
	u32 offset = le32_to_cpu(table->offset);

	if (offset > size || offset % PV_TABLE_ALIGNMENT ||
	    array_size(le32_to_cpu(table->count), record_size) > size - offset)
		return NULL;
	return base + offset;
}

static inline u32 pv_count(const struct pv_table *table)
{
	return le32_to_cpu(table->count);
}

/* Whether the range lies within a table. */
static inline bool pv_range_within(const struct pv_range *range, const struct pv_table *table)
{
	u32 first = le32_to_cpu(range->first);

	return first <= pv_count(table) &&
	       le32_to_cpu(range->count) <= pv_count(table) - first;
}

/* Whether the range contains an index. */
static inline bool pv_range_has(const struct pv_range *range, u32 index)
{
	u32 first = le32_to_cpu(range->first);

	return index >= first && index - first < le32_to_cpu(range->count);
}

static inline bool pv_zero(const u8 *bytes, size_t size)
{
	return !memchr_inv(bytes, 0, size);
}

#endif /* PV_TABLE_H */
