/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why a call was refused: one sentence for people, beside the errno for programs.
 */
#ifndef PV_REASON_H
#define PV_REASON_H

#include <linux/compiler.h>
#include <linux/types.h>

#include "preverified.h"

struct pv_reason {
	char text[PV_REASON_SIZE];
};

/* Writes the sentence (the newest one stays) and returns @err, a negative errno. */
__printf(3, 4)
int pv_refuse(struct pv_reason *reason, int err, const char *format, ...);

/* Gives the sentence to user space, into a field of PV_REASON_SIZE bytes; returns @err. */
int pv_reason_return(const struct pv_reason *reason, u8 __user *user, int err);

#endif /* PV_REASON_H */
