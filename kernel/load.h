/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One program of a bundle: who may load it, and whether everything that comes with it is right.
 */
#ifndef PV_LOAD_H
#define PV_LOAD_H

#include <linux/bpf.h>
#include <linux/capability.h>

#include "bundle.h"

/* The IOC_LOAD call: returns a program's file descriptor. */
int pv_load(const struct pv_bundle *bundle, struct pv_load __user *user);

/*
 * What all programs need: the verifier had both capabilities, so it allowed what they allow
 * (pointer leaks, no guards against Spectre). And the kernel silently leaves programs out of
 * its tables for those who lack CAP_BPF.
 */
static inline bool pv_capable(void)
{
	return bpf_capable() && perfmon_capable();
}

#endif /* PV_LOAD_H */
