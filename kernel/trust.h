/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose bundles are loaded: the keyring, and signatures by the keys in it.
 */
#ifndef PV_TRUST_H
#define PV_TRUST_H

#include <linux/init.h>
#include <linux/types.h>

#include "reason.h"

int __init pv_trust_init(void);
void pv_trust_exit(void);

/* Checks a detached CMS signature. Refuses everything as long as the keyring can still change. */
int pv_trust_verify(const void *data, size_t size, const void *signature, size_t signature_size,
		    struct pv_reason *reason);

#endif /* PV_TRUST_H */
