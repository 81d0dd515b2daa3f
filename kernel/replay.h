/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What verifying a program does besides verifying it, and programs count on.
 */
#ifndef PV_REPLAY_H
#define PV_REPLAY_H

#include <linux/bpf.h>

#include "image.h"
#include "reason.h"

/* The program has its maps already. Freeing the program undoes what must be undone. */
int pv_replay(struct bpf_prog *prog, const struct pv_image *image, struct pv_reason *reason);

#endif /* PV_REPLAY_H */
