/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An opened bundle: a manifest that is signed, well-formed, and for this machine.
 */
#ifndef PV_BUNDLE_H
#define PV_BUNDLE_H

#include "manifest.h"
#include "reason.h"

/* It never changes, so no lock is needed. */
struct pv_bundle {
	struct pv_manifest manifest;
	/* The target that this machine is, and which of its images fit: PV_OPEN_* bits. */
	const struct pv_target *target;
	u32 fit;
};

/* The IOC_OPEN call: returns a file descriptor, which answers to PV_IOC_LOAD. */
int pv_bundle_open(struct pv_open __user *user);

#endif /* PV_BUNDLE_H */
