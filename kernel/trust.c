// SPDX-License-Identifier: GPL-2.0-only
/*
 * The keyring works as fs-verity's does: it starts empty and open; user space adds its
 * certificates early in the boot and then restricts it. Nothing loads before that.
 */
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/key.h>
#include <linux/rwsem.h>
#include <linux/verification.h>

#include "trust.h"

static struct key *pv_keyring;

int __init pv_trust_init(void)
{
	pv_keyring = keyring_alloc(PV_KEYRING_NAME, GLOBAL_ROOT_UID, GLOBAL_ROOT_GID,
				   current_cred(),
				   KEY_POS_SEARCH | KEY_USR_VIEW | KEY_USR_READ | KEY_USR_WRITE |
				   KEY_USR_SEARCH | KEY_USR_SETATTR,
				   KEY_ALLOC_NOT_IN_QUOTA, NULL, NULL);
	return PTR_ERR_OR_ZERO(pv_keyring);
}

void pv_trust_exit(void)
{
	key_put(pv_keyring);
}

static int pv_keyring_ready(struct pv_reason *reason)
{
	bool restricted, empty;

	down_read(&pv_keyring->sem);
	restricted = pv_keyring->restrict_link;
	empty = !pv_keyring->keys.nr_leaves_on_tree;
	up_read(&pv_keyring->sem);

	if (!restricted)
		return pv_refuse(reason, -EPERM,
				 "the keyring " PV_KEYRING_NAME
				 " is not restricted yet: add certificates, then keyctl restrict_keyring");
	if (empty)
		return pv_refuse(reason, -ENOKEY,
				 "the keyring " PV_KEYRING_NAME
				 " is restricted and has no certificate: no bundle can be loaded");
	return 0;
}

int pv_trust_verify(const void *data, size_t size, const void *signature, size_t signature_size,
		    struct pv_reason *reason)
{
	int err;

	err = pv_keyring_ready(reason);
	if (err)
		return err;

	err = verify_pkcs7_signature(data, size, signature, signature_size, pv_keyring,
				     VERIFYING_UNSPECIFIED_SIGNATURE, NULL, NULL);
	switch (err) {
	case 0:
		return 0;
	case -ENOMEM:
		return pv_refuse(reason, err, "no memory to check the signature");
	case -ENOKEY:
		return pv_refuse(reason, err,
				 "the bundle is signed by no certificate in the keyring "
				 PV_KEYRING_NAME);
	case -ENOPKG:
		return pv_refuse(reason, err,
				 "the signature uses an algorithm that this kernel lacks");
	case -EKEYREJECTED:
		return pv_refuse(reason, err,
				 "the signature is not one of this manifest");
	default:
		return pv_refuse(reason, err, "the signature is malformed (error %d)", err);
	}
}
