/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What programs of some types are attached to is looked up when they are loaded.
 */
#ifndef PV_ATTACH_H
#define PV_ATTACH_H

#include <linux/bpf.h>

#include "manifest.h"
#include "reason.h"

/* Does as the verifier's check_attach_btf_id() does; freeing the program undoes it. */
int pv_attach_target(struct bpf_prog *prog, const struct pv_manifest *manifest,
		     const struct pv_program *record, struct pv_reason *reason);

#endif /* PV_ATTACH_H */
