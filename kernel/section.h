/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The bytes that a manifest names by digest.
 */
#ifndef PV_SECTION_H
#define PV_SECTION_H

#include <linux/types.h>

#include "preverified.h"
#include "reason.h"

/*
 * Copies a section from user space, once, and checks its size and digest. @what is for the
 * reason. Free the result with kvfree().
 */
void *pv_section_copy(const struct pv_section *section, u64 address, u32 size, const char *what,
		      struct pv_reason *reason);

/* Whether the bytes are the section's. */
bool pv_section_is(const struct pv_section *section, const void *bytes, size_t size);

/* Copies from user space; returns an ERR_PTR(). Free the result with kvfree(). */
void *pv_copy_from_user(u64 address, u32 size);

#endif /* PV_SECTION_H */
