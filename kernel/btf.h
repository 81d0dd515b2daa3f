/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a BTF that the kernel holds is the signed one.
 */
#ifndef PV_BTF_H
#define PV_BTF_H

#include "preverified.h"

struct btf;

/* Compares all bytes; false for NULL. */
bool pv_btf_is(const struct btf *btf, const struct pv_section *section);

#endif /* PV_BTF_H */
